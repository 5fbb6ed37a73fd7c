//! SQL writes: what they invalidate, what they refuse, and the types of their fields.

use serde_json::{Value, json};

use super::{on_each, on_postgres};
use testkit::larder::{ADMIN_KEY, LarderOptions};
use testkit::redis::RedisServer;
use testkit::upstream::{Behaviour, FakeUpstream, Response};

const ORDERS: &str = "
CREATE TABLE customers (name TEXT PRIMARY KEY);
INSERT INTO customers VALUES ('a'), ('b');
CREATE TABLE orders (id INTEGER PRIMARY KEY, customer TEXT NOT NULL REFERENCES customers (name),
    pieces INTEGER NOT NULL CHECK (pieces > 0), note TEXT UNIQUE);
INSERT INTO orders VALUES (1, 'a', 1, NULL), (2, 'a', 2, 'gift');
";

const SHOP: &str = "
[resource.order]
path = \"/orders/{id}\"
params.id = { type = \"integer\" }
source = { sql = \"order\" }
ttl = { memory = \"1h\", redis = \"1h\" }
tags = [\"order:{id}\"]
write.PATCH = { sql = \"order_patch\", invalidates = [\"order:{id}\", \"of:{customer}\", \"of:{was}\"] }
write.DELETE = { sql = \"order_delete\" }
[resource.of]
path = \"/customers/{customer}/orders\"
params.customer = { type = \"string\" }
source = { sql = \"orders_of\", many = true }
ttl = { memory = \"1h\", redis = \"1h\" }
tags = [\"of:{customer}\"]
write.POST.sql = \"order_add\"
write.POST.location = \"/orders/{id}\"
[resource.double]
path = \"/customers/{customer}/double\"
params.customer = { type = \"string\" }
write.POST = { sql = \"order_double\", invalidates = [\"of:{customer}\"] }
";

fn shop() -> LarderOptions {
    LarderOptions::new(SHOP)
        .statement("order", "SELECT id, customer, pieces, note FROM orders WHERE id = :id")
        .statement("orders_of", "SELECT id, pieces FROM orders WHERE customer = :customer ORDER BY id")
        .statement(
            "order_patch",
            "UPDATE orders SET customer = coalesce(:customer, customer), pieces = coalesce(:pieces, pieces),
                note = coalesce(:note, note)
             WHERE id = :id
             RETURNING id, customer, pieces, (SELECT customer FROM orders AS old WHERE old.id = :id) AS was",
        )
        .statement("order_delete", "DELETE FROM orders WHERE id = :id")
        .statement(
            "order_add",
            "INSERT INTO orders (id, customer, pieces, note)
             VALUES ((SELECT max(id) + 1 FROM orders), :customer, :pieces, :note) RETURNING id, pieces",
        )
        .statement(
            "order_double",
            "INSERT INTO orders (id, customer, pieces)
             SELECT id + 100, customer, 3 - id FROM orders WHERE customer = :customer",
        )
}

#[test]
fn a_write_names_what_it_makes_untrue() {
    on_each(ORDERS, &shop(), |shop| {
        let get = |path: &str| shop.larder.get(path);
        assert_eq!(
            get("/customers/a/orders").json().as_array().unwrap().len(),
            2
        );
        assert_eq!(get("/customers/b/orders").text(), "[]");
        assert_eq!(get("/orders/1").json()["customer"], "a");
        get("/orders/3").problem(404);

        let made = shop.write("POST", "/customers/b/orders", &json!({"pieces": 5}));
        let made = made.expect(201);
        assert_eq!(made.the("Location"), "/orders/3");
        assert_eq!(made.text(), r#"{"id":3,"pieces":5}"#);
        assert_eq!(
            get("/customers/b/orders").text(),
            r#"[{"id":3,"pieces":5}]"#
        );

        let moved = shop
            .write("PATCH", "/orders/1", &json!({"customer": "b"}))
            .expect(200);
        assert_eq!(moved.json()["customer"], "b");
        assert_eq!(get("/orders/1").json()["customer"], "b");
        let of = |who: &str| {
            let orders = get(&format!("/customers/{who}/orders")).json();
            let ids = orders
                .as_array()
                .unwrap()
                .iter()
                .map(|order| order["id"].as_i64().unwrap());
            ids.collect::<Vec<_>>()
        };
        assert_eq!(of("b"), [1, 3]);
        if shop.postgres.is_some() {
            assert_eq!(
                of("a"),
                [2],
                "the old value of a column is there to be returned"
            );
        }

        shop.larder.delete("/orders/1").expect(204);
        get("/orders/1").problem(404);
        shop.larder.delete("/orders/1").problem(404);
    });
}

#[test]
fn a_statement_that_fails_half_way_leaves_nothing() {
    on_each(ORDERS, &shop(), |shop| {
        let before = shop.larder.get("/customers/a/orders").text();
        let add = shop
            .write("POST", "/customers/a/orders", &json!({"pieces": 1}))
            .expect(201);
        let id = add.json()["id"].as_i64().unwrap();
        assert_eq!(id, 3);
        // The first two rows are valid. The CHECK refuses the third.
        let refused = shop
            .larder
            .call("POST", "/customers/a/double")
            .key(ADMIN_KEY)
            .send();
        refused.problem(422);
        let after = shop.larder.get("/customers/a/orders").json();
        assert_eq!(
            after.as_array().unwrap().len(),
            3,
            "{before} and then {after}"
        );
        shop.larder.get("/orders/101").problem(404);
    });
}

#[test]
fn a_violated_constraint_is_named() {
    on_each(ORDERS, &shop(), |shop| {
        let write = |body: Value| shop.write("PATCH", "/orders/1", &body);
        let taken = write(json!({"note": "gift"}));
        taken.problem(409);
        assert_eq!(taken.json()["field"], "note", "{taken}");
        assert!(
            !taken.text().contains("gift"),
            "the value is not told: {taken}"
        );
        write(json!({"customer": "nobody"})).problem(409);
        let none = write(json!({"pieces": 0}));
        none.problem(422);
        let missing = shop.write("POST", "/customers/a/orders", &json!({}));
        missing.problem(422);
        assert_eq!(missing.json()["field"], "pieces", "{missing}");
        assert_eq!(shop.larder.get("/orders/1").json()["pieces"], 1);
    });
}

#[test]
fn fields_take_the_type_that_the_statement_wants() {
    let config = "
[resource.row]
path = \"/rows/{id}\"
params.id = { type = \"integer\" }
source = { sql = \"row\" }
ttl = { memory = \"1h\", redis = \"0s\" }
write.PUT = { sql = \"row_put\" }
";
    let options = LarderOptions::new(config)
        .statement("row", "SELECT * FROM rows WHERE id = :id")
        .statement(
            "row_put",
            "UPDATE rows SET n = :n, u = :u, d = :d, t = :t, j = :j, a = :a, b = :b, m = :m WHERE id = :id RETURNING *",
        );
    let shop = on_postgres(
        "CREATE TYPE mood AS ENUM ('sad', 'glad');
         CREATE TABLE rows (id int4 PRIMARY KEY, n numeric, u uuid, d date, t timestamptz, j jsonb, a text[], b bytea, m mood);
         INSERT INTO rows (id) VALUES (1)",
        options,
    );
    let body = r#"{"n":12345678901234567890.10,"u":"6ba7b810-9dad-11d1-80b4-00c04fd430c8","d":"2026-02-28",
        "t":"2026-02-28T10:00:00+02:00","j":{"a":[1,null]},"a":["x",null],"b":"3q2+7w==","m":"glad"}"#;
    let put = |body: &str| {
        let call = shop.larder.call("PUT", "/rows/1").key(ADMIN_KEY);
        call.header("Content-Type", "application/json")
            .body(body)
            .send()
    };
    let written = put(body).expect(200).text();
    assert_eq!(
        written,
        r#"{"id":1,"n":12345678901234567890.10,"u":"6ba7b810-9dad-11d1-80b4-00c04fd430c8","d":"2026-02-28","t":"2026-02-28T08:00:00Z","j":{"a": [1, null]},"a":["x",null],"b":"3q2+7w==","m":"glad"}"#
    );
    assert_eq!(shop.larder.get("/rows/1").expect(200).text(), written);
    for (field, value) in [
        ("n", "\"much\""),
        ("n", "true"),
        ("u", "\"6ba7\""),
        ("u", "5"),
        ("d", "\"2026-02-30\""),
        ("t", "\"noon\""),
        ("a", "{\"x\":1}"),
        ("b", "\"%%\""),
        ("m", "\"so so\""),
    ] {
        let answer = put(&format!("{{\"{field}\":{value}}}"));
        answer.problem(422);
        assert_eq!(answer.json()["field"], field, "{value}: {answer}");
    }
    assert_eq!(
        shop.larder.get("/rows/1").expect(200).text(),
        written,
        "nothing was written"
    );
}

#[test]
fn a_write_that_changes_no_row_leaves_nothing_of_what_it_did_besides() {
    let config = "
[resource.thing]
path = \"/things/{id}\"
params.id = { type = \"integer\" }
source = { sql = \"thing\" }
ttl = { memory = \"1h\", redis = \"0s\" }
write.DELETE = { sql = \"thing_delete\" }
[resource.log]
path = \"/log\"
source = { sql = \"log\", many = true }
ttl = { memory = \"0s\", redis = \"1s\" }
";
    let options = LarderOptions::new(config)
        .statement("thing", "SELECT id FROM things WHERE id = :id")
        .statement("log", "SELECT note FROM log")
        .statement(
            "thing_delete",
            "WITH noted AS (INSERT INTO log VALUES ('asked')) DELETE FROM things WHERE id = :id",
        );
    let schema = "CREATE TABLE things (id int PRIMARY KEY); CREATE TABLE log (note text)";
    let shop = on_postgres(schema, options);
    shop.larder.delete("/things/1").problem(404);
    assert_eq!(shop.larder.get("/log").text(), "[]");
}

#[test]
fn one_row_has_one_key_however_its_path_is_written() {
    let config = "
[resource.thing]
path = \"/things/{id}\"
params.id = { type = \"string\" }
source = { sql = \"thing\" }
ttl = { memory = \"1h\", redis = \"0s\" }
tags = [\"thing:{id}\"]
write.PUT = { sql = \"thing_put\" }
[resource.whole]
path = \"/whole/{id}\"
params.id = { type = \"string\" }
source = { parts = [\"thing\"] }
[resource.team]
path = \"/teams/{team}\"
params.team = { type = \"string\" }
source = { sql = \"team\", many = true }
ttl = { memory = \"1h\", redis = \"0s\" }
tags = [\"team:{team}\"]
[resource.member]
path = \"/members\"
write.POST = { sql = \"member_add\", invalidates = [\"team:{team}\"] }
";
    let options = LarderOptions::new(config)
        .statement("thing", "SELECT name FROM things WHERE id = :id")
        .statement("thing_put", "UPDATE things SET name = :name WHERE id = :id")
        .statement("team", "SELECT name FROM members WHERE team = :team")
        .statement("member_add", "INSERT INTO members VALUES (:team, :name)");
    let shop = on_postgres(
        "CREATE TABLE things (id uuid PRIMARY KEY, name text);
         INSERT INTO things VALUES ('6ba7b810-9dad-11d1-80b4-00c04fd430c8', 'old');
         CREATE TABLE members (team int4, name text)",
        options,
    );
    let small = "6ba7b810-9dad-11d1-80b4-00c04fd430c8";
    let spellings = [
        small.to_owned(),
        small.to_uppercase(),
        small.replace('-', ""),
    ];
    for (written, wrote) in spellings.iter().enumerate() {
        let name = format!("name {written}");
        let path = format!("/things/{wrote}");
        shop.write("PUT", &path, &json!({"name": name})).expect(204);
        for read in &spellings {
            for path in [format!("/things/{read}"), format!("/whole/{read}")] {
                assert_eq!(shop.larder.get(&path).json()["name"], name, "{path}");
            }
        }
    }
    for (count, team) in ["7", "7.0", "7e0"].iter().enumerate() {
        for path in ["/teams/7", "/teams/07"] {
            let members = shop.larder.get(path).expect(200).json();
            assert_eq!(members.as_array().unwrap().len(), count, "{path}");
        }
        let call = shop.larder.call("POST", "/members").key(ADMIN_KEY);
        let call = call.header("Content-Type", "application/json");
        let body = format!("{{\"team\":{team},\"name\":\"x\"}}");
        call.body(body).send().expect(201);
    }
}

#[test]
fn a_precondition_on_what_is_not_sql_is_refused() {
    let answer = Response::json(200, &json!({"a": 1}));
    let origin = FakeUpstream::start(Behaviour::always(answer));
    let config = format!(
        "
[resource.far]
path = \"/far\"
source = {{ http = \"http://{}/\" }}
ttl = {{ memory = \"1h\", redis = \"0s\" }}
write.PUT = {{ sql = \"touch\" }}
[resource.log]
path = \"/log\"
write.POST = {{ sql = \"touch\" }}
",
        origin.address()
    );
    let options = LarderOptions::new(&config).statement("touch", "INSERT INTO log VALUES ('x')");
    on_each("CREATE TABLE log (note TEXT)", &options, |shop| {
        let tag = shop.larder.get("/far").expect(200).the("ETag").to_owned();
        let call = |name: &str, value: &str| {
            let call = shop.larder.call("PUT", "/far").key(ADMIN_KEY);
            call.header(name, value).send()
        };
        call("If-Match", &tag).problem(412);
        call("If-Match", "*").problem(412);
        call("If-None-Match", "*").problem(412);
        let plain = shop.larder.call("PUT", "/far").key(ADMIN_KEY).send();
        plain.expect(204);
        // There is nothing to read here, so no client can have seen it.
        let post = shop.larder.call("POST", "/log").key(ADMIN_KEY);
        post.header("If-Match", "*").send().problem(412);
        let post = shop.larder.call("POST", "/log").key(ADMIN_KEY);
        post.header("If-None-Match", "*").send().expect(201);
    });
}

#[test]
fn many_names_are_many_small_invalidations() {
    let config = "
[resource.one]
path = \"/ones/{id}\"
params.id = { type = \"integer\" }
source = { sql = \"one\" }
ttl = { memory = \"1h\", redis = \"1h\" }
tags = [\"one:{id}\"]
[resource.all]
path = \"/all\"
write.PUT = { sql = \"all\", invalidates = [\"one:{id}\"] }
";
    let redis = RedisServer::start();
    let options = LarderOptions::new(config)
        .env("REDIS_URL", &redis.url())
        .statement("one", "SELECT n FROM ones WHERE id = :id")
        .statement("all", "UPDATE ones SET n = n + 1 RETURNING id");
    let shop = on_postgres(
        "CREATE TABLE ones (id int PRIMARY KEY, n int);
         INSERT INTO ones SELECT i, 0 FROM generate_series(1, 20000) AS i",
        options,
    );
    for id in [1, 20_000] {
        assert_eq!(shop.larder.get(&format!("/ones/{id}")).text(), "{\"n\":0}");
    }
    let done = shop.larder.call("PUT", "/all").key(ADMIN_KEY).send();
    let done = done.expect(200);
    assert!(done.header("Larder-Clock").is_some(), "it is not pending");
    for id in [1, 20_000] {
        assert_eq!(shop.larder.get(&format!("/ones/{id}")).text(), "{\"n\":1}");
    }
}

#[test]
fn an_answer_may_be_written_back_as_it_is() {
    let rows = [
        ("whole", "INTEGER", "7", "7", json!(8)),
        ("number", "NUMERIC", "1.50", "1.5", json!(1.51)),
        ("word", "VARCHAR(9)", "'ada'", "ada", json!("Ada")),
        // SQLite stores it as text, which has one spelling.
        (
            "moment",
            "TIMESTAMPTZ",
            "'2026-03-01T13:05:00Z'",
            "2026-03-01T13:05:00Z",
            json!("2026-03-01T13:05:01Z"),
        ),
    ];
    let (mut config, mut schema) = (String::new(), String::new());
    for (name, ty, value, ..) in &rows {
        config += &format!(
            "[resource.{name}]\npath = \"/{name}/{{id}}\"\nparams.id = {{ type = \"string\" }}\n\
             source = {{ sql = \"{name}\" }}\nttl = {{ memory = \"1h\", redis = \"0s\" }}\n\
             write.PUT = {{ sql = \"{name}_put\" }}\n"
        );
        schema += &format!(
            "CREATE TABLE {name} (id {ty} PRIMARY KEY, v INTEGER); INSERT INTO {name} VALUES ({value}, 1);"
        );
    }
    let mut options = LarderOptions::new(&config);
    for (name, ..) in &rows {
        options = options
            .statement(name, &format!("SELECT id, v FROM {name} WHERE id = :id"))
            .statement(
                &format!("{name}_put"),
                &format!("UPDATE {name} SET v = :v WHERE id = :id"),
            );
    }
    on_each(&schema, &options, |shop| {
        let check = |path: &str, other: &Value| {
            let mut row = shop.larder.get(path).json();
            row["v"] = json!(row["v"].as_i64().unwrap() + 1);
            shop.write("PUT", path, &row).expect(204);
            assert_eq!(shop.larder.get(path).json(), row);
            let refused = shop.write("PUT", path, &json!({"id": other, "v": 0}));
            refused.problem(422);
            assert_eq!(refused.json()["field"], "id", "{refused}");
            assert_eq!(shop.larder.get(path).json(), row);
        };
        for (name, _, _, id, other) in &rows {
            check(&format!("/{name}/{id}"), other);
        }
        if shop.postgres.is_some() {
            check("/moment/2026-03-01T14:05:00%2B01:00", &json!(7));
            check("/word/ada", &json!(7));
        }
    });
}
