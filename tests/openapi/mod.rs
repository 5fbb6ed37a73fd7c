//! `/openapi.json` and `larder openapi`: the document says what the server does.

mod shop;

use std::collections::BTreeSet;

use serde_json::{Value, json};

use testkit::client::Answer;
use testkit::larder::{ADMIN_KEY, Larder, LarderOptions};
use testkit::{SOON, until};

use shop::{CONFIG, QUOTE_KEY, Shop};

const SHIPPED: &str = include_str!("../../config.toml");

fn document(larder: &Larder) -> Value {
    // Without a key: anyone may read it.
    let call = larder.call("GET", "/openapi.json");
    call.send().expect(200).json()
}

fn operation<'d>(document: &'d Value, method: &str, path: &str) -> &'d Value {
    let found = &document["paths"][path][method];
    assert!(found.is_object(), "no {method} {path}: {document}");
    found
}

/// The value that a reference leads to, or the value itself.
fn resolved<'d>(document: &'d Value, value: &'d Value) -> &'d Value {
    match value["$ref"].as_str() {
        Some(place) => document
            .pointer(&place[1..])
            .unwrap_or_else(|| panic!("no {place}")),
        None => value,
    }
}

fn statuses(operation: &Value) -> Vec<&str> {
    let responses = operation["responses"].as_object().unwrap();
    responses.keys().map(String::as_str).collect()
}

fn parameter<'o>(operation: &'o Value, name: &str) -> &'o Value {
    let all = operation["parameters"].as_array().unwrap();
    let mut named = all.iter().filter(|parameter| parameter["name"] == name);
    named
        .next()
        .unwrap_or_else(|| panic!("no {name}: {operation}"))
}

/// The schema of an answer's body.
fn schema<'d>(document: &'d Value, operation: &'d Value, status: &str) -> &'d Value {
    let content = &operation["responses"][status]["content"];
    resolved(document, &content["application/json"]["schema"])
}

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
fn the_document_of_the_shipped_configuration() {
    let larder = Larder::start(&LarderOptions::new(SHIPPED));
    let document = document(&larder);
    assert_eq!(document["openapi"], "3.1.0");
    let paths: Vec<&String> = document["paths"].as_object().unwrap().keys().collect();
    assert_eq!(
        paths,
        [
            "/articles",
            "/users/{id}",
            "/users",
            "/employees/{id}",
            "/employees/{id}/status",
            "/employees"
        ],
        "the served resources in the order of the file; a part without a path is not one"
    );

    let articles = operation(&document, "get", "/articles");
    assert_eq!(articles["summary"], "News articles, newest first");
    assert_eq!(articles["tags"], json!(["articles"]));
    assert_eq!(articles["security"], json!([{"key": []}]));
    let limit = parameter(articles, "limit");
    assert_eq!(
        (&limit["in"], &limit["required"], &limit["schema"]),
        (
            &json!("query"),
            &json!(false),
            &json!({"type": "integer", "default": 20, "minimum": 1, "maximum": 100})
        )
    );
    let categories = &parameter(articles, "category")["schema"]["enum"];
    assert_eq!(categories.as_array().unwrap().len(), 7);
    assert_eq!(
        statuses(articles),
        [
            "200", "304", "400", "401", "429", "500", "502", "503", "504"
        ],
        "news are never absent"
    );
    let answer = schema(&document, articles, "200");
    let article = resolved(&document, &answer["properties"]["articles"]["items"]);
    let members: Vec<&String> = article["properties"].as_object().unwrap().keys().collect();
    assert_eq!(
        members,
        [
            "title",
            "description",
            "url",
            "image",
            "author",
            "source",
            "published_at",
            "category"
        ]
    );

    let user = json!({
        "type": "object",
        "required": ["id", "name", "email"],
        "properties": {
            "id": {"type": "integer", "format": "int64"},
            "name": {"type": "string"},
            "email": {"type": "string"},
        },
    });
    let read = operation(&document, "get", "/users/{id}");
    assert_eq!(schema(&document, read, "200"), &user);
    assert!(statuses(read).contains(&"404"));
    let put = operation(&document, "put", "/users/{id}");
    assert_eq!(
        schema(&document, put, "200"),
        &user,
        "a write gives one row"
    );
    assert_eq!(put["security"], json!([{"key": ["admin"]}]));
    assert_eq!(
        statuses(put),
        [
            "200", "400", "401", "403", "404", "408", "409", "412", "413", "415", "422", "429",
            "500", "503"
        ]
    );
    assert_eq!(put["requestBody"]["required"], true);
    let body = &put["requestBody"]["content"]["application/json"]["schema"];
    assert_eq!(body["required"], json!(["name", "email"]));
    assert_eq!(
        body["additionalProperties"], false,
        "an unknown field is refused"
    );
    assert_eq!(body["properties"]["email"]["maxLength"], 254);
    let post = operation(&document, "post", "/users");
    assert_eq!(schema(&document, post, "201"), &user);
    assert!(post["responses"]["201"]["headers"]["Location"].is_object());
    assert!(
        document["paths"]["/users"]["get"].is_null(),
        "it is only written"
    );
    let delete = operation(&document, "delete", "/users/{id}");
    assert!(delete["requestBody"].is_null() && !statuses(delete).contains(&"415"));
    assert!(statuses(delete).contains(&"204"));

    // A composite has the members of its parts. The first part is always there.
    let employee = operation(&document, "get", "/employees/{id}");
    let employee = schema(&document, employee, "200");
    let members: Vec<&String> = employee["properties"].as_object().unwrap().keys().collect();
    assert_eq!(members, ["id", "name", "title", "status", "status_since"]);
    assert_eq!(employee["required"], json!(["id", "name", "title"]));
    let if_match = parameter(put, "If-Match");
    assert_eq!(if_match["in"], "header");
    assert_eq!(
        parameter(read, "Larder-After")["schema"],
        json!({"type": "string", "pattern": "^[0-9]{1,19}$"})
    );
}

#[test]
fn the_columns_of_postgres_have_their_types() {
    let shop = Shop::on_postgres();
    let document = document(&shop.larder);
    let specimen = operation(&document, "get", "/specimens/{id}");
    let row = schema(&document, specimen, "200");
    let special = json!({"type": "string", "enum": ["NaN", "Infinity", "-Infinity"]});
    for (column, schema) in [
        ("id", json!({"type": "string", "format": "uuid"})),
        (
            "small",
            json!({"type": ["integer", "null"], "minimum": -32768, "maximum": 32767}),
        ),
        ("n", json!({"type": "integer", "format": "int64"})),
        (
            "ratio",
            json!({"anyOf": [{"type": "number"}, special, {"type": "null"}]}),
        ),
        ("price", json!({"anyOf": [{"type": "number"}, special]})),
        ("word", json!({"type": ["string", "null"]})),
        (
            "kind",
            json!({"type": ["string", "null"], "enum": ["toy", "tool", null]}),
        ),
        (
            "zoned",
            json!({"type": ["string", "null"], "format": "time"}),
        ),
        (
            "wait",
            json!({"type": ["string", "null"], "format": "duration"}),
        ),
        (
            "raw",
            json!({"type": ["string", "null"], "contentEncoding": "base64"}),
        ),
        ("more", json!({})),
        ("yes", json!({"type": "boolean"})),
    ] {
        assert_eq!(row["properties"][column], schema, "{column}");
    }
    assert_eq!(row["properties"]["at"]["format"], "date-time");
    assert_eq!(row["properties"]["local"]["format"], "date-time-local");
    let grid = &row["properties"]["grid"];
    assert_eq!(grid["type"], json!(["array", "null"]));
    // A text that the statement compares with a UUID has to be one.
    assert_eq!(parameter(specimen, "id")["schema"]["format"], "uuid");
    let many = operation(&document, "get", "/specimens");
    assert_eq!(schema(&document, many, "200")["items"], *row);
    // The fields of which only the database knows the type.
    let patch = operation(&document, "patch", "/products/{id}");
    let body = &patch["requestBody"]["content"]["application/json"]["schema"];
    assert_eq!(
        body["properties"]["note"],
        json!({"type": ["string", "null"]})
    );
    // A number beyond its column is refused by a write, and finds nothing in a read.
    let most = |method| {
        let operation = operation(&document, method, "/products/{id}");
        parameter(operation, "id")["schema"]["maximum"].clone()
    };
    assert_eq!(
        (most("delete"), most("get")),
        (json!(i32::MAX), json!(i64::MAX))
    );
}

#[test]
fn each_kind_of_resource_is_described() {
    for shop in [Shop::on_sqlite(), Shop::on_postgres()] {
        let document = document(&shop.larder);
        let paths: Vec<&String> = document["paths"].as_object().unwrap().keys().collect();
        assert_eq!(
            paths,
            [
                "/articles",
                "/products/{id}",
                "/products",
                "/specimens/{id}",
                "/specimens",
                "/stocked/{id}",
                "/quotes/{symbol}",
                "/visits/{page}"
            ]
        );
        let mut ids = BTreeSet::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                let id = operation["operationId"].as_str().unwrap();
                assert!(ids.insert(id.to_owned()), "{id} is there twice");
                assert!(operation["responses"]["400"].is_object(), "{method} {path}");
                // Each placeholder is a parameter, and the other way round.
                let parameters = operation["parameters"].as_array().unwrap();
                for parameter in parameters.iter().filter(|one| one["in"] == "path") {
                    let place = format!("{{{}}}", parameter["name"].as_str().unwrap());
                    assert!(path.contains(&place) && parameter["required"] == true);
                }
            }
        }
        let public = operation(&document, "get", "/specimens");
        assert_eq!(public["security"], json!([]));
        let listed = statuses(public);
        assert!(
            !listed.contains(&"401") && !listed.contains(&"429"),
            "{listed:?}"
        );
        assert!(!listed.contains(&"404"), "a list is never absent");
        let headers = &public["responses"]["200"]["headers"];
        assert!(headers["RateLimit"].is_null() && headers["Cache-Status"].is_object());

        let list = operation(&document, "get", "/products");
        let words = list["description"].as_str().unwrap();
        assert!(words.contains("not listed here"), "{words}");
        assert_eq!(
            parameter(list, "code")["schema"]["pattern"],
            "^(?:[A-Z]{2}-[0-9]{3})$"
        );
        let default = &parameter(list, "least")["schema"]["default"];
        assert_eq!(default, 0);

        // The value of an HTTP source may be any JSON.
        let quote = operation(&document, "get", "/quotes/{symbol}");
        assert_eq!(schema(&document, quote, "200"), &json!({}));
        // A write without a body, of a resource that is not read.
        let visit = operation(&document, "post", "/visits/{page}");
        assert!(visit["requestBody"].is_null());
        assert!(!statuses(visit).contains(&"412"));
        assert!(visit["responses"]["201"]["content"].is_null());
        let stock = operation(&document, "put", "/stocked/{id}");
        assert!(
            statuses(stock).contains(&"204"),
            "its statement returns no row"
        );
        let optional = operation(&document, "put", "/products/{id}");
        let body = &optional["requestBody"]["content"]["application/json"]["schema"];
        assert_eq!(
            body["properties"]["sold"],
            json!({"anyOf": [{"type": "boolean"}, {"type": "null"}]})
        );
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
fn the_document_has_an_entity_tag_and_follows_a_reload() {
    let larder = Larder::start(&LarderOptions::new(SHIPPED));
    let get = || larder.call("GET", "/openapi.json");
    let first = get().send().expect(200);
    assert_eq!(first.the("Content-Type"), "application/json");
    assert_eq!(first.the("Cache-Control"), "no-cache");
    first.the("X-Request-Id");
    let tag = first.the("ETag").to_owned();
    let head = larder.call("HEAD", "/openapi.json").send().expect(200);
    assert_eq!(head.the("ETag"), tag);
    assert_eq!(head.the("Content-Length"), first.body.len().to_string());
    for tags in [tag.clone(), format!("\"x\", W/{tag}"), "*".to_owned()] {
        let known = get().header("If-None-Match", &tags).send().expect(304);
        assert_eq!(
            (known.the("ETag"), known.body.len()),
            (tag.as_str(), 0),
            "{tags}"
        );
    }
    get().header("If-None-Match", "\"x\"").send().expect(200);
    let post = larder.call("POST", "/openapi.json").key(ADMIN_KEY).send();
    post.problem(405);
    assert_eq!(post.the("Allow"), "GET, HEAD");

    larder.reload(&SHIPPED.replace("summary = \"A user\"", "summary = \"Somebody\""));
    let changed = || get().header("If-None-Match", &tag).send();
    until(SOON, "the document is another", || changed().status == 200);
    let document = changed().json();
    assert_eq!(
        operation(&document, "get", "/users/{id}")["summary"],
        "Somebody"
    );
    assert_ne!(changed().the("ETag"), tag);
    // The same configuration has the same document.
    larder.reload(SHIPPED);
    until(SOON, "it is as it was", || changed().status == 304);
}

#[test]
fn resources_that_need_no_key_say_so() {
    let open = SHIPPED.replace(
        "required = true                 # false",
        "required = false # false",
    );
    let larder = Larder::start(&LarderOptions::new(&open));
    let document = document(&larder);
    let read = operation(&document, "get", "/users/{id}");
    assert_eq!(read["security"], json!([{}, {"key": []}]));
    // A key that is sent is checked all the same.
    assert!(statuses(read).contains(&"401"));
    let write = operation(&document, "delete", "/users/{id}");
    assert_eq!(write["security"], json!([{"key": ["admin"]}]));
}

#[test]
fn the_command_prints_what_the_server_serves() {
    for shop in [Shop::on_sqlite(), Shop::on_postgres()] {
        let served = shop.larder.call("GET", "/openapi.json").send().text();
        let printed = shop.options.run(&["openapi"]);
        assert_eq!(printed.status.code(), Some(0), "{printed:?}");
        assert_eq!(String::from_utf8(printed.stdout).unwrap(), served + "\n");
        assert_eq!(String::from_utf8(printed.stderr).unwrap(), "");
    }
}

#[test]
fn the_command_needs_no_database_and_refuses_a_wrong_file() {
    let away = "postgres://u:hunter2@127.0.0.1:1/none";
    let options = LarderOptions::new(SHIPPED).env("DATABASE_URL", away);
    let printed = options.run(&["openapi"]);
    assert_eq!(printed.status.code(), Some(0), "{printed:?}");
    let document: Value = serde_json::from_slice(&printed.stdout).unwrap();
    let read = operation(&document, "get", "/users/{id}");
    assert_eq!(schema(&document, read, "200"), &json!({"type": "object"}));
    assert_eq!(parameter(read, "id")["schema"]["minimum"], 1);
    let said = String::from_utf8(printed.stderr).unwrap();
    assert!(
        said.contains("the document has no columns") && !said.contains("hunter2"),
        "{said}"
    );
    assert_eq!(said.lines().count(), 1, "{said}");

    let wrong = LarderOptions::new("[server]\nworkers = -1\n").run(&["openapi"]);
    assert_eq!(wrong.status.code(), Some(2));
    assert!(wrong.stdout.is_empty(), "{wrong:?}");
    // A statement that the database refuses, too.
    let config = "[resource.a]\npath = \"/a\"\nsource = { sql = \"a\" }\nttl = { memory = \"1s\", redis = \"1s\" }\n";
    let wrong = LarderOptions::new(config).statement("a", "SELECT no_such FROM nowhere");
    let wrong = wrong.run(&["openapi"]);
    assert_eq!(
        (wrong.status.code(), wrong.stdout.len()),
        (Some(2), 0),
        "{wrong:?}"
    );
    // Nothing is created.
    let folder = std::sync::Arc::new(tempfile::tempdir().unwrap());
    let options = LarderOptions::new(SHIPPED).in_folder(&folder);
    let printed = options.run(&["openapi"]);
    assert_eq!(printed.status.code(), Some(0), "{printed:?}");
    let document: Value = serde_json::from_slice(&printed.stdout).unwrap();
    let read = operation(&document, "get", "/users/{id}");
    assert_eq!(
        schema(&document, read, "200")["properties"]["name"]["type"],
        "string"
    );
    assert!(!folder.path().join("larder.db").exists());
}

#[test]
fn the_document_tells_nothing_of_the_inside() {
    for shop in [Shop::on_sqlite(), Shop::on_postgres()] {
        let text = shop.larder.call("GET", "/openapi.json").send().text();
        let origin = "127.0.0.1";
        for secret in [
            QUOTE_KEY,
            ADMIN_KEY,
            "canary-in-the-sql",
            "SELECT",
            "UPDATE products",
            "X-Key",
            "QUOTE_KEY",
            "product_part",
            "stock_part",
            origin,
        ] {
            assert!(!text.contains(secret), "{secret} is told");
        }
        assert!(CONFIG.contains("QUOTE_KEY") && text.contains("/quotes/{symbol}"));
    }
}
