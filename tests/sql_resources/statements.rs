//! Statements that no request could ever fill. `check` and `serve` report them, and say what works
//! instead.

use serde_json::json;

use super::{on_each, on_postgres};
use testkit::larder::{ADMIN_KEY, Larder, LarderOptions};
use testkit::postgres::PostgresServer;

const ITEMS: &str = "
CREATE TABLE items (id INTEGER PRIMARY KEY, category TEXT NOT NULL, name TEXT, made DATE, sold BOOLEAN);
INSERT INTO items VALUES (1, 'toys', 'ball', '2026-03-01', true), (2, 'books', 'atlas', '2026-03-02', false),
    (3, 'toys', 'kite', NULL, NULL);
";

fn declared(params: &str, many: bool) -> String {
    format!(
        "[resource.items]\npath = \"/items\"\n{params}\nsource = {{ sql = \"items\", many = {many} }}\n\
         ttl = {{ memory = \"1h\", redis = \"0s\" }}\ntags = [\"items\", \"category:{{category}}\"]\n"
    )
}

/// Runs `check` and `serve`, which both refuse it. Returns their output.
#[track_caller]
fn refused(options: &LarderOptions) -> String {
    let checked = options.run(&["check"]);
    let said = String::from_utf8(checked.stderr).unwrap();
    assert_eq!(checked.status.code(), Some(2), "{said}");
    let mut larder = Larder::spawn(options);
    assert_eq!(larder.ended().code(), Some(2), "{}", larder.log());
    assert!(larder.log().contains("items"), "{}", larder.log());
    said
}

#[test]
fn a_place_that_no_parameter_fills_is_refused() {
    let config = declared("params.category = { type = \"string\" }", true);
    for place in ["?", "?1", "@category", "$category", ":größe"] {
        let options = LarderOptions::new(&config).statement(
            "items",
            &format!("SELECT key FROM api_keys WHERE name = {place}"),
        );
        let said = refused(&options);
        let named = format!("the placeholder {place}: larder gives it no value");
        assert!(said.contains(&named) && said.contains("line 1"), "{said}");
    }
    let postgres = PostgresServer::start();
    let options = LarderOptions::new(&config)
        .env("DATABASE_URL", &postgres.new_database())
        .statement("items", "SELECT id FROM api_keys\nWHERE name = $1");
    let said = refused(&options);
    assert!(said.contains("line 2: the placeholder $1"), "{said}");
}

#[test]
fn a_parameter_that_never_fits_is_refused_with_the_cure() {
    let postgres = PostgresServer::start();
    let url = postgres.new_database();
    postgres.connect(&url).batch_execute(ITEMS).unwrap();
    for (kind, place, named, cure) in [
        (
            "string",
            "id = ANY (:p)",
            "int4[]",
            "string_to_array(:p, ',')::int4[]",
        ),
        (
            "integer",
            "category <> ALL (:p)",
            "text[]",
            "string_to_array(:p, ',')::text[]",
        ),
        ("integer", "made = :p", "date", "a cast of :p"),
        ("boolean", "id = :p", "int4", "a cast of :p"),
    ] {
        let params = format!(
            "params.p = {{ type = \"{kind}\" }}\nparams.category = {{ type = \"string\" }}"
        );
        let options = LarderOptions::new(&declared(&params, true))
            .env("DATABASE_URL", &url)
            .statement("items", &format!("SELECT id FROM items WHERE {place}"));
        let said = refused(&options);
        assert!(said.contains(named) && said.contains(cure), "{said}");
    }
}

#[test]
fn a_list_is_one_parameter_that_the_statement_takes_apart() {
    let config = declared(
        "params.ids = { type = \"string\" }\nparams.category = { type = \"string\" }\nwrite.POST.sql = \"items_sell\"",
        true,
    );
    let options = LarderOptions::new(&config)
        .statement(
            "items",
            "SELECT id FROM items WHERE id = ANY (string_to_array(:ids, ',')::int[]) ORDER BY id",
        )
        .statement(
            "items_sell",
            "UPDATE items SET sold = true WHERE id = ANY (:sold) RETURNING id",
        );
    let shop = on_postgres(ITEMS, options);
    let get = |path: &str| shop.larder.get(path);
    assert_eq!(
        get("/items?ids=1,3").expect(200).text(),
        r#"[{"id":1},{"id":3}]"#
    );
    assert_eq!(get("/items?ids=2").expect(200).text(), r#"[{"id":2}]"#);
    get("/items?ids=1,x").problem(400);
    get("/items?ids=1&ids=2").problem(400);
    // In a body a list is an array.
    let sold = shop
        .write("POST", "/items", &json!({"sold": [2, 3]}))
        .expect(201);
    assert_eq!(sold.json(), json!([{"id": 2}, {"id": 3}]));
    shop.write("POST", "/items", &json!({"sold": "2,3"}))
        .problem(422);
}

#[test]
fn in_a_write_the_fields_of_the_body_come_before_parameters_of_the_query() {
    for required in ["", ", required = true"] {
        let params = format!(
            "params.category = {{ type = \"string\"{required} }}\nwrite.POST.sql = \"item_add\"\nwrite.DELETE.sql = \"item_drop\""
        );
        let options = LarderOptions::new(&declared(&params, true))
            .statement("items", "SELECT id FROM items WHERE category = :category ORDER BY id")
            .statement(
                "item_add",
                "INSERT INTO items (id, category, name) VALUES (:id, :category, :name) RETURNING id, category",
            )
            .statement("item_drop", "DELETE FROM items WHERE category = :category");
        on_each(ITEMS, &options, |shop| {
            let listed = |category: &str| {
                shop.larder
                    .get(&format!("/items?category={category}"))
                    .expect(200)
                    .text()
            };
            assert_eq!(listed("toys"), r#"[{"id":1},{"id":3}]"#);
            assert_eq!(listed("books"), r#"[{"id":2}]"#);
            let add = |path: &str, body: &serde_json::Value| shop.write("POST", path, body);
            let made = add(
                "/items",
                &json!({"id": 4, "category": "toys", "name": "top"}),
            );
            assert_eq!(
                made.expect(201).json(),
                json!({"id": 4, "category": "toys"})
            );
            assert_eq!(
                listed("toys"),
                r#"[{"id":1},{"id":3},{"id":4}]"#,
                "its tag was invalidated"
            );
            let made = add(
                "/items?category=toys",
                &json!({"id": 5, "category": "books", "name": "b"}),
            );
            assert_eq!(
                made.expect(201).json()["category"],
                "books",
                "the body comes first"
            );
            assert_eq!(listed("books"), r#"[{"id":2},{"id":5}]"#);
            let made = add("/items?category=books", &json!({"id": 6, "name": "c"}));
            assert_eq!(
                made.expect(201).json()["category"],
                "books",
                "the query stands in"
            );
            // Neither the query nor the body has the value, and the column requires it.
            let without = add("/items", &json!({"id": 7, "name": "d"}));
            assert!(without.problem(422).contains("category"), "{without}");
            let null = add(
                "/items?category=toys",
                &json!({"id": 7, "category": null, "name": "d"}),
            );
            null.problem(422);
            // If the query has every value, no body is needed, but one is accepted.
            shop.larder.delete("/items?category=books").expect(204);
            assert_eq!(listed("books"), "[]");
            let body = json!({"category": "toys"});
            shop.larder
                .call("DELETE", "/items")
                .key(ADMIN_KEY)
                .json(&body)
                .send()
                .expect(204);
            assert_eq!(listed("toys"), "[]");
        });
    }
}

#[test]
fn a_field_that_is_a_parameter_of_the_path_is_refused() {
    let config = "
[resource.items]
path = \"/items/{category}\"
params.category = { type = \"string\" }
params.name = { type = \"string\" }
write.POST.sql = \"item_add\"
write.POST.fields.name = { type = \"string\", max_length = 5 }
write.POST.fields.category = { type = \"string\" }
";
    let add = "INSERT INTO items (id, category, name) VALUES (:id, :category, :name)";
    let options = LarderOptions::new(config).statement("item_add", add);
    let said = refused(&options);
    assert!(
        said.contains("resource.items.write.POST.fields.category: is a parameter of the path"),
        "{said}"
    );
    assert!(
        !said.contains("fields.name"),
        "a parameter of the query may be a field: {said}"
    );
}
