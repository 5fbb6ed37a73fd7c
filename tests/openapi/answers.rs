//! The server keeps to its document: each answer is listed, and what the document takes is taken.

use serde_json::{Value, json};

use super::shop::Shop;
use super::{SHIPPED, document, operation, resolved};
use crate::edge::{exchange, statuses};
use testkit::client::Answer;
use testkit::larder::{ADMIN_KEY, Larder, LarderOptions};

/// Panics unless the operation lists an answer like this one: its status, each header that it says
/// is always there, and no header of larder's own that it does not list.
#[track_caller]
fn assert_listed(document: &Value, operation: &Value, answer: &Answer) {
    let listed = &operation["responses"][answer.status.to_string()];
    assert!(
        listed.is_object(),
        "{} is not listed: {operation}\n{answer}",
        answer.status
    );
    let headers = listed["headers"].as_object().unwrap();
    for (name, header) in headers {
        if resolved(document, header)["required"] == true {
            answer.the(name);
        }
    }
    let of_http = ["content-type", "content-length", "date", "connection"];
    for (name, _) in &answer.headers {
        let name = name.to_lowercase();
        let known = headers.keys().any(|known| known.to_lowercase() == name);
        // What every answer may have stands in the description of the document.
        assert!(
            known || of_http.contains(&name.as_str()),
            "{name} is not listed: {answer}"
        );
    }
    if answer.status >= 400 {
        let kind = answer.json()["type"].clone();
        let schema = &listed["content"]["application/problem+json"]["schema"];
        let kinds = match schema["anyOf"].as_array() {
            Some(any) => any.clone(),
            None => vec![schema.clone()],
        };
        let has = |one: &Value| resolved(document, one)["properties"]["type"]["enum"][0] == kind;
        assert!(kinds.iter().any(has), "{kind} is not listed: {listed}");
    }
}

#[test]
fn each_answer_is_listed_with_its_headers() {
    for shop in [Shop::on_sqlite(), Shop::on_postgres()] {
        let (larder, document) = (&shop.larder, document(&shop.larder));
        let (_, reader) = larder.create_key(&json!({"name": "reader", "rate": "1000/1h"}));
        let (_, slow) = larder.create_key(&json!({"name": "slow", "rate": "1/1h"}));
        let product =
            json!({"code": "ZZ-999", "name": "x", "kind": "toy", "price": 1, "sold": null});
        let read = |path: &str, template: &str, key: &str, status: u16| {
            let answer = larder.call("GET", path).key(key).send().expect(status);
            assert_listed(&document, operation(&document, "get", template), &answer);
            answer
        };
        for (path, template) in [
            ("/articles?category=science&limit=2", "/articles"),
            ("/products/1", "/products/{id}"),
            ("/products?sold=false", "/products"),
            ("/specimens", "/specimens"),
            ("/stocked/1", "/stocked/{id}"),
            ("/quotes/ABC", "/quotes/{symbol}"),
        ] {
            // From the source and from memory, with a rate and without one.
            read(path, template, &reader, 200);
            let answer = read(path, template, ADMIN_KEY, 200);
            let tag = answer.the("ETag").to_owned();
            let call = larder.call("GET", path).key(&reader);
            let again = call.header("If-None-Match", &tag).send().expect(304);
            assert_listed(&document, operation(&document, "get", template), &again);
            let unknown = larder.call("GET", path).key("lk_unknown").send();
            if template != "/specimens" {
                assert_listed(&document, operation(&document, "get", template), &unknown);
            }
            let after = larder.call("GET", path).key(&reader);
            let after = after.header("Larder-After", "x").send().expect(400);
            assert_listed(&document, operation(&document, "get", template), &after);
        }
        read("/products/77", "/products/{id}", &reader, 404);
        read("/products/0", "/products/{id}", &reader, 400);
        read("/products?other=1", "/products", &reader, 400);
        read("/products?least=", "/products", &reader, 400);
        read("/products?least=1&least=1", "/products", &reader, 400);
        read("/quotes/NONE", "/quotes/{symbol}", &reader, 404);
        read("/products/1", "/products/{id}", &slow, 200);
        read("/products/1", "/products/{id}", &slow, 429);

        let ask = |method: &'static str, path: &str, body: &Value, status: u16| {
            let call = larder.call(method, path).key(&reader).json(body);
            let answer = call.send().expect(status);
            let template = match path.starts_with("/search") {
                true => "/search",
                false => "/answers/{room}",
            };
            let member = match method {
                "POST" => "post",
                _ => "x-query",
            };
            let of = operation(&document, member, template);
            assert_listed(&document, of, &answer);
            answer
        };
        let asked = json!({"question": "why?", "n": 2.0, "brief": true});
        for method in ["POST", "QUERY"] {
            ask(method, "/answers/a", &asked, 200);
            ask(method, "/answers/a", &asked, 200);
            ask(method, "/answers/A", &asked, 400);
            ask(method, "/answers/a?n=2", &asked, 400);
            ask(method, "/answers/a", &json!({}), 422);
            ask(method, "/answers/a", &json!([]), 422);
            ask(
                method,
                "/answers/a",
                &json!({"question": "x".repeat(70_000)}),
                413,
            );
            let none = json!({"question": "none", "words": "NONE"});
            ask(method, "/answers/none", &none, 404);
            let of = operation(
                &document,
                &method.to_lowercase().replace("query", "x-query"),
                "/answers/{room}",
            );
            let call = || larder.call(method, "/answers/a").body("{");
            assert_listed(&document, of, &call().key(&reader).send().expect(415));
            let json = call().header("Content-Type", "application/json");
            assert_listed(&document, of, &json.key(&reader).send().expect(400));
            assert_listed(&document, of, &call().send().expect(401));
            assert_listed(&document, of, &call().key(&slow).send().expect(429));
        }
        let tag = ask("QUERY", "/answers/a", &asked, 200)
            .the("ETag")
            .to_owned();
        let call = larder.call("QUERY", "/answers/a").key(&reader).json(&asked);
        let unchanged = call.header("If-None-Match", &tag).send().expect(304);
        let of = operation(&document, "x-query", "/answers/{room}");
        assert_listed(&document, of, &unchanged);
        ask("QUERY", "/search", &json!({"kind": "toy"}), 200);
        ask("QUERY", "/search?other=1", &json!({}), 400);

        let write = |method: &'static str, path: &str, template: &str, body: &Value, status| {
            let call = larder.call(method, path).key(ADMIN_KEY);
            let call = if body.is_null() {
                call
            } else {
                call.json(body)
            };
            let answer = call.send().expect(status);
            let lower = method.to_lowercase();
            assert_listed(&document, operation(&document, &lower, template), &answer);
        };
        let (all, one) = ("/products", "/products/{id}");
        write("POST", all, all, &product, 201);
        write("POST", all, all, &product, 409);
        write("POST", all, all, &json!({"name": 7}), 422);
        write("POST", "/products?other=1", all, &product, 400);
        write("POST", all, all, &Value::Null, 415);
        write("POST", all, all, &json!({"name": "x".repeat(70_000)}), 413);
        write("PUT", "/products/1", one, &product, 409);
        write("PUT", "/products/77", one, &product, 404);
        write("PUT", "/products/x", one, &product, 400);
        write("PATCH", "/products/1", one, &json!({"note": "n"}), 200);
        write("DELETE", "/products/2", one, &Value::Null, 204);
        write("DELETE", "/products/2", one, &Value::Null, 404);
        write(
            "PUT",
            "/stocked/1",
            "/stocked/{id}",
            &json!({"pieces": 3}),
            204,
        );
        write("POST", "/visits/home", "/visits/{page}", &Value::Null, 201);
        let put = operation(&document, "put", one);
        let call = || larder.call("PUT", "/products/1").json(&product);
        assert_listed(&document, put, &call().send().expect(401));
        assert_listed(&document, put, &call().key(&reader).send().expect(403));
        let stale = call().key(ADMIN_KEY).header("If-Match", "\"0\"").send();
        assert_listed(&document, put, &stale.expect(412));
        let malformed = larder.call("PUT", "/products/1").key(ADMIN_KEY).body("{");
        let malformed = malformed.header("Content-Type", "application/json").send();
        assert_listed(&document, put, &malformed.expect(400));
    }
}

#[test]
fn a_value_of_the_path_that_does_not_fit_is_a_parameter_and_not_a_field() {
    let shop = Shop::on_postgres();
    for (method, body) in [("DELETE", None), ("PATCH", Some(json!({"note": "n"})))] {
        let call = shop
            .larder
            .call(method, "/products/99999999999")
            .key(ADMIN_KEY);
        let answer = match &body {
            Some(body) => call.json(body).send(),
            None => call.send(),
        };
        answer.problem(400);
        assert_eq!(answer.json()["parameter"], "id", "{answer}");
    }
    // What the body gives is still a field.
    let wrong = shop.larder.call("PATCH", "/products/1").key(ADMIN_KEY);
    let wrong = wrong.json(&json!({"note": 7})).send();
    wrong.problem(422);
    assert_eq!(wrong.json()["field"], "note", "{wrong}");
}

#[test]
fn what_is_not_valid_is_refused_as_that_even_if_the_precondition_does_not_hold() {
    let unfit = |shop: &Shop, method: &'static str, path: &str, body: &Value| {
        let call = shop.larder.call(method, path).key(ADMIN_KEY);
        let call = call.header("If-Match", "\"0\"");
        match body {
            Value::Null => call.send(),
            body => call.json(body).send(),
        }
    };
    for shop in [Shop::on_sqlite(), Shop::on_postgres()] {
        unfit(&shop, "PATCH", "/products/1", &json!({"note": "n"})).problem(412);
        // A value of the path and a field, each refused as it is declared.
        unfit(&shop, "DELETE", "/products/0", &Value::Null).problem(400);
        unfit(&shop, "PUT", "/stocked/1", &json!({"pieces": 1001})).problem(422);
    }
    // Only the database knows the types of these.
    let shop = Shop::on_postgres();
    for (method, path, body) in [
        ("DELETE", "/products/2147483648", Value::Null),
        ("PATCH", "/products/2147483648", json!({"note": "n"})),
        ("PUT", "/stocked/2147483648", json!({"pieces": 1})),
    ] {
        let refused = unfit(&shop, method, path, &body);
        refused.problem(400);
        assert_eq!(refused.json()["parameter"], "id", "{refused}");
    }
    let refused = unfit(&shop, "PATCH", "/products/1", &json!({"note": 7}));
    refused.problem(422);
    assert_eq!(refused.json()["field"], "note", "{refused}");
}

#[test]
fn a_clock_is_digits_and_nothing_else() {
    let larder = Larder::start(&LarderOptions::new(SHIPPED));
    let read = |after: &str| {
        let call = larder.call("GET", "/users/1").key(ADMIN_KEY);
        call.header("Larder-After", after).send()
    };
    for after in ["0", "00", "1795244340964456", " 7 "] {
        read(after).expect(200);
    }
    for after in ["", "+5", "-1", "1.0", "0x1", "x", "99999999999999999999"] {
        let refused = read(after);
        refused.problem(400);
        assert_eq!(refused.json()["parameter"], "Larder-After", "{after}");
    }
}

#[test]
fn a_whole_number_of_a_body_may_be_written_as_any_json_number() {
    for shop in [Shop::on_sqlite(), Shop::on_postgres()] {
        let put = |price: &str| {
            let body = format!(
                "{{\"code\":\"AA-001\",\"name\":\"A top\",\"kind\":\"toy\",\"price\":{price}}}"
            );
            let call = shop.larder.call("PUT", "/products/1").key(ADMIN_KEY);
            let call = call.header("Content-Type", "application/json");
            call.body(body).send()
        };
        for (price, stored) in [("7.0", 7), ("7e2", 700), ("0.5e1", 5), ("-0.0", 0)] {
            let answer = put(price).expect(200);
            assert!(
                answer.text().contains(&format!("\"price\":{stored},")),
                "{answer}"
            );
        }
        for price in ["7.5", "1e6", "-1.0", "\"7\"", "true", "1e400"] {
            let refused = put(price);
            assert!([400, 422].contains(&refused.status), "{price}: {refused}");
        }
    }
}

#[test]
fn what_is_refused_before_any_operation_is_as_the_description_says() {
    let hasty = SHIPPED.replace("head_timeout = \"5s\"", "head_timeout = \"300ms\"");
    let larder = Larder::start(&LarderOptions::new(&hasty));
    let description = document(&larder)["info"]["description"].clone();
    let description = description.as_str().unwrap();
    let get = "GET /users/1 HTTP/1.1\r\nHost: x\r\n";
    let large = format!("{get}X: {}", "a".repeat(200_000));
    for (bytes, status, kind) in [
        ("GARBAGE\r\n\r\n", 400, None),
        (&*large, 431, None),
        (get, 408, Some("head-too-slow")),
        (
            &format!("{get}Expect: 100-continue\r\n\r\n"),
            417,
            Some("no-body-taken"),
        ),
    ] {
        assert!(description.contains(&status.to_string()), "{description}");
        let all = exchange(&larder, bytes);
        assert_eq!(statuses(&all), [status], "{all}");
        let (head, body) = all.split_once("\r\n\r\n").unwrap();
        let head = head.to_lowercase();
        assert!(
            head.contains("connection: close") && !head.contains("x-request-id"),
            "{all}"
        );
        match kind {
            None => assert_eq!(body, ""),
            Some(kind) => {
                assert!(
                    head.contains("content-type: application/problem+json"),
                    "{all}"
                );
                let problem: Value = serde_json::from_str(body).unwrap();
                assert_eq!(problem["type"], format!("urn:larder:problem:{kind}"));
            }
        }
    }
    // An operation decides about any other expectation.
    let other = format!("{get}Expect: x\r\nConnection: close\r\n\r\n");
    assert_eq!(statuses(&exchange(&larder, &other)), [401]);
}
