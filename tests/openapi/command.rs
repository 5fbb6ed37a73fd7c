//! `larder openapi`.

use serde_json::{Value, json};

use super::shop::Shop;
use super::{SHIPPED, operation, parameter, schema};
use testkit::larder::LarderOptions;

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
fn without_its_database_the_command_prints_nothing_unless_it_is_not_to_ask() {
    let away = "postgres://u:hunter2@127.0.0.1:1/none";
    let options = LarderOptions::new(SHIPPED).env("DATABASE_URL", away);
    let failed = options.run(&["openapi"]);
    assert_eq!((failed.status.code(), failed.stdout.len()), (Some(1), 0));
    let said = String::from_utf8(failed.stderr).unwrap();
    assert!(
        said.contains("the database cannot be queried") && said.contains("--without-columns"),
        "{said}"
    );
    assert!(!said.contains("hunter2"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");

    // The same, whether the database is there or not.
    for options in [options, LarderOptions::new(SHIPPED)] {
        let printed = options.run(&["openapi", "--without-columns"]);
        assert_eq!(printed.status.code(), Some(0), "{printed:?}");
        assert!(printed.stderr.is_empty(), "{printed:?}");
        let document: Value = serde_json::from_slice(&printed.stdout).unwrap();
        let read = operation(&document, "get", "/users/{id}");
        assert_eq!(schema(&document, read, "200"), &json!({"type": "object"}));
        assert_eq!(parameter(read, "id")["schema"]["minimum"], 1);
    }
    // Resources without SQL need no database.
    let news = "[resource.a]\npath = \"/a\"\nsource = { news = [\"guardian\"] }\nttl = { memory = \"1s\", redis = \"1s\" }\n";
    let options = LarderOptions::new(news).env("DATABASE_URL", away);
    assert_eq!(options.run(&["openapi"]).status.code(), Some(0));
}

#[test]
fn the_command_refuses_a_wrong_file_and_creates_nothing() {
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
