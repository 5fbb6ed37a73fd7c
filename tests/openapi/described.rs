//! What the document says of each kind of resource.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::shop::{CONFIG, QUOTE_KEY, Shop};
use super::{SHIPPED, document, operation, parameter, resolved, schema, statuses};
use testkit::larder::{ADMIN_KEY, Larder, LarderOptions};

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
        json!({"type": ["string", "null"], "pattern": r"^[^\x00]*$"})
    );
    // A number beyond its column is refused by a write, and finds nothing in a read.
    let most = |method, path, name| {
        let operation = operation(&document, method, path);
        parameter(operation, name)["schema"]["maximum"].clone()
    };
    assert_eq!(most("delete", "/products/{id}", "id"), i32::MAX);
    assert_eq!(most("get", "/products/{id}", "id"), i64::MAX);
    // The list compares `least` with a column. The statement of its POST does not take it.
    assert_eq!(most("post", "/products", "least"), i64::MAX);
    let product = json!({"code": "BB-001", "name": "x", "kind": "toy", "price": 1});
    let path = format!("/products?least={}", i64::MAX);
    let call = shop.larder.call("POST", &path).key(ADMIN_KEY);
    call.json(&product).send().expect(201);
}

#[test]
fn what_a_column_of_postgres_cannot_hold_is_not_in_the_schema_of_a_field() {
    let shop = Shop::on_postgres();
    let document = document(&shop.larder);
    let fields = |path: &str| {
        let patch = operation(&document, "patch", path);
        patch["requestBody"]["content"]["application/json"]["schema"]["properties"].clone()
    };
    let specimen = "/specimens/{id}";
    let more = &fields(specimen)["more"];
    assert_eq!(more["$ref"], "#/components/schemas/database.json");
    let (json, without_nul) = (resolved(&document, more), r"^[^\x00]*$");
    assert_eq!(json["anyOf"][1]["pattern"], without_nul);
    assert_eq!(json["anyOf"][2]["items"], *more, "of any depth");
    let object = &json["anyOf"][3];
    assert_eq!(object["propertyNames"]["pattern"], without_nul);
    assert_eq!(object["additionalProperties"], *more);
    let raw = fields(specimen)["raw"]["pattern"].clone();
    let base64 = regex_lite::Regex::new(raw.as_str().unwrap()).unwrap();

    let patch = |path: &str, body: &Value| {
        let call = shop.larder.call("PATCH", path).key(ADMIN_KEY);
        call.json(body).send()
    };
    let path = "/specimens/6ba7b810-9dad-11d1-80b4-00c04fd430c8";
    for (body, field) in [
        (json!({"more": "\0"}), "more"),
        (json!({"more": {"a": [{"b\0": 1}]}}), "more"),
        (json!({"raw": "\0"}), "raw"),
    ] {
        let refused = patch(path, &body);
        refused.problem(422);
        assert_eq!(refused.json()["field"], field, "{refused}");
        // Whatever the precondition says.
        let call = shop.larder.call("PATCH", path).key(ADMIN_KEY);
        let call = call.header("If-Match", "\"0\"").json(&body);
        call.send().problem(422);
    }
    patch("/products/1", &json!({"note": "a\0"})).problem(422);
    patch("/products/1", &json!({"note": "a\u{1}\n"})).expect(200);
    patch(path, &json!({"more": {"a\u{1}": ["\n"]}})).expect(204);
    for text in [
        "", "AAAA", "AA==", "AAA=", "+/8=", "AB==", "AAB=", "A===", "AA", "a=", "-_8=",
    ] {
        let taken = patch(path, &json!({"raw": text})).status == 204;
        assert_eq!(taken, base64.is_match(text), "{text}");
    }
}

#[test]
fn sqlite_takes_a_nul_in_a_text_and_its_schema_says_so() {
    let shop = Shop::on_sqlite();
    let document = document(&shop.larder);
    let patch = operation(&document, "patch", "/products/{id}");
    let body = &patch["requestBody"]["content"]["application/json"]["schema"];
    // A number of more than 64 bits would be stored as another one.
    let any = json!({"minimum": i64::MIN, "maximum": i64::MAX});
    assert_eq!(body["properties"]["note"], any);
    let call = shop.larder.call("PATCH", "/products/1").key(ADMIN_KEY);
    call.json(&json!({"note": "a\0b"})).send().expect(200);
    let read = shop.larder.call("GET", "/products/1").key(ADMIN_KEY);
    assert_eq!(read.send().expect(200).json()["note"], "a\0b");
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
                "/answers/{room}",
                "/search",
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
fn a_read_by_post_or_query_is_described_with_its_body() {
    let shop = Shop::on_sqlite();
    let document = document(&shop.larder);
    let path = "/answers/{room}";
    assert!(document["paths"][path]["get"].is_null());
    let post = operation(&document, "post", path);
    let query = operation(&document, "x-query", path);
    assert_eq!(post["operationId"], "post_answer");
    assert_eq!(query["operationId"], "query_answer");
    for read in [post, query] {
        assert_eq!(read["requestBody"]["required"], true);
        let says = read["requestBody"]["description"].as_str().unwrap();
        assert!(says.contains("65536"), "{says}");
        let body = &read["requestBody"]["content"]["application/json"]["schema"];
        assert_eq!(body["required"], json!(["question"]));
        assert_eq!(body["additionalProperties"], false);
        let lines = r"\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f";
        let question = json!({"type": "string", "minLength": 1, "maxLength": 200, "pattern": format!("^[^{lines}]*$")});
        assert_eq!(body["properties"]["question"], question);
        let language = json!({"type": "string", "enum": ["en", "de"], "default": "en"});
        assert_eq!(body["properties"]["language"], language);
        let n = json!({"type": "integer", "minimum": 1, "maximum": 9_007_199_254_740_993_u64, "default": 1});
        assert_eq!(body["properties"]["n"], n);
        assert_eq!(body["properties"]["brief"], json!({"type": "boolean"}));
        assert!(body["properties"]["room"].is_null(), "the path has it");
        assert_eq!(parameter(read, "room")["in"], "path");
        // Twice the timeout of its upstream, and the wait in the queue.
        let words = read["description"].as_str().unwrap();
        assert!(words.contains("at most 250 seconds"), "{words}");
        assert_eq!(read["security"], json!([{"key": []}]));
        assert_eq!(schema(&document, read, "200"), &json!({}));
    }
    let names = |read: &Value| -> Vec<String> {
        let all = read["parameters"].as_array().unwrap().iter();
        all.map(|one| one["name"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(names(post), ["room", "Larder-After"]);
    assert_eq!(names(query), ["room", "If-None-Match", "Larder-After"]);
    let common = [
        "400", "401", "404", "408", "413", "415", "422", "429", "500", "502", "503", "504",
    ];
    assert_eq!(statuses(post), [&["200"], &common[..]].concat());
    assert_eq!(statuses(query), [&["200", "304"], &common[..]].concat());
    let accepts = |read: &Value, status: &str| {
        read["responses"][status]["headers"]["Accept-Query"].is_object()
    };
    assert!(accepts(query, "200") && accepts(query, "422") && accepts(post, "415"));
    assert!(!accepts(post, "200") && !accepts(post, "422"));
    let told = post["description"].as_str().unwrap();
    assert!(told.contains("x-query"), "{told}");

    // A path that is read by GET, too.
    let get = operation(&document, "get", "/search");
    assert_eq!(names(get)[..4], ["kind", "least", "sold", "code"]);
    assert!(get["requestBody"].is_null());
    let query = operation(&document, "x-query", "/search");
    assert_eq!(names(query), ["If-None-Match", "Larder-After"]);
    assert_eq!(query["security"], json!([]));
    let body = &query["requestBody"]["content"]["application/json"]["schema"];
    assert_eq!(body["properties"].as_object().unwrap().len(), 4);
    assert_eq!(
        schema(&document, query, "200"),
        schema(&document, get, "200")
    );
}

#[test]
fn the_first_answer_of_a_get_tells_its_time_too() {
    let shop = Shop::on_sqlite();
    let document = document(&shop.larder);
    let quote = operation(&document, "get", "/quotes/{symbol}");
    let words = quote["description"].as_str().unwrap();
    assert!(words.contains("at most 30 seconds"), "{words}");
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
