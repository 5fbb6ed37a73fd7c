//! The documents are correct: each configuration is valid, each statement runs, and the README's
//! walk-through gives the answers that it shows.

use std::fs;

use serde_json::json;

use testkit::larder::{Larder, LarderOptions};
use testkit::postgres::PostgresServer;

const DOCUMENTS: [&str; 10] = [
    "README.md",
    "docs/consistency.md",
    "docs/design/coherence.md",
    "docs/design/why-not.md",
    "docs/metrics.md",
    "docs/operations.md",
    "docs/performance.md",
    "docs/resources.md",
    "docs/sql.md",
    "docs/verification.md",
];

fn text_of(document: &str) -> String {
    fs::read_to_string(format!("{}/{document}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// The blocks of a document that are fenced as this language.
fn blocks(document: &str, language: &str) -> Vec<String> {
    let text = text_of(document);
    let fence = format!("\n```{language}\n");
    let blocks = text.split(fence.as_str()).skip(1);
    blocks
        .map(|rest| rest.split("\n```").next().unwrap().to_owned() + "\n")
        .collect()
}

/// The name of a statement whose first line says which file it is.
fn file_of(statement: &str) -> Option<&str> {
    statement
        .strip_prefix("-- sql/queries/")?
        .split_once(".sql\n")
        .map(|(name, _)| name)
}

/// The shipped configuration with `block` at its end. Resources of `block` replace those with the
/// same name.
fn configuration(block: &str) -> String {
    let is_head = |line: &str| line.starts_with('[');
    let heads: Vec<&str> = block.lines().filter(|line| is_head(line)).collect();
    let mut replaced = false;
    let mut config = String::new();
    for line in text_of("config.toml").lines() {
        if is_head(line) {
            replaced = heads.contains(&line);
        }
        if !replaced {
            config += line;
            config += "\n";
        }
    }
    config + block
}

fn every_statement(mut options: LarderOptions) -> LarderOptions {
    for document in DOCUMENTS {
        for statement in blocks(document, "sql") {
            if let Some(name) = file_of(&statement) {
                options = options.statement(name, &statement);
            }
        }
    }
    options
}

const SCHEMA: &str = "CREATE TABLE cities (country text, name text, people int);
    CREATE TABLE goods (name text, category text)";

/// Fails with the output of `larder check` for this block of a document, unless it is valid.
fn assert_valid(options: &LarderOptions, document: &str, block: &str) {
    let output = options.run(&["check"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(
        output.status.code(),
        Some(0),
        "{document}:\n{block}\n{said}"
    );
}

#[test]
fn each_configuration_in_the_documents_is_valid() {
    let postgres = PostgresServer::start();
    let url = postgres.new_database();
    postgres.connect(&url).batch_execute(SCHEMA).unwrap();
    let mut checked = 0;
    for document in DOCUMENTS {
        for block in blocks(document, "toml") {
            let options = every_statement(LarderOptions::new(&configuration(&block)));
            let options = options.env("DATABASE_URL", &url).env("QUOTE_KEY", "secret");
            assert_valid(&options, document, &block);
            checked += 1;
        }
    }
    assert!(checked >= 5, "{checked} blocks were found");
}

#[test]
fn each_statement_in_the_documents_is_one_that_postgres_takes() {
    let postgres = PostgresServer::start();
    let url = postgres.new_database();
    let mut sql = postgres.connect(&url);
    sql.batch_execute(SCHEMA).unwrap();
    postgres.administer("CREATE ROLE app_owner");
    let _larder = Larder::start(&LarderOptions::unconfigured().env("DATABASE_URL", &url));
    let mut read = 0;
    for document in DOCUMENTS {
        for block in blocks(document, "sql") {
            if !block.contains(" :") {
                let done = sql.batch_execute(&block);
                assert!(done.is_ok(), "{document}:\n{block}\n{done:?}");
                continue;
            }
            let config = "[resource.it]\nparams.country = { type = \"string\" }\nparams.name = { type = \"string\" }
params.least = { type = \"integer\" }\nparams.category = { type = \"string\" }\nsource = { sql = \"it\", many = true }\nttl = { memory = \"1s\", redis = \"1s\" }";
            let options = LarderOptions::new(config)
                .statement("it", &block)
                .env("DATABASE_URL", &url);
            assert_valid(&options, document, &block);
            read += 1;
        }
    }
    assert!(read >= 3, "{read} statements were found");
}

#[test]
fn the_walk_of_the_readme_ends_as_it_says() {
    let blocks = blocks("README.md", "toml");
    let is_walk = |block: &&String| block.starts_with("# at the end of config.toml\n");
    let block = blocks.iter().find(is_walk).unwrap();
    let larder = Larder::start(&every_statement(LarderOptions::new(&configuration(block))));
    let ada = larder.get("/users/1").expect(200);
    let readme = text_of("README.md");
    assert!(readme.contains(&format!("\n{}\n", ada.text())), "{ada}");
    assert_eq!(
        larder.get("/by-name/Ada%20Lovelace").json(),
        json!([{"id": 1, "name": "Ada Lovelace"}])
    );
    assert_eq!(larder.get("/by-name/Ada%20King").json(), json!([]));
    let body = json!({"name": "Ada King", "email": "ada@example.com"});
    assert!(readme.contains("-d '{\"name\":\"Ada King\",\"email\":\"ada@example.com\"}'"));
    let put = larder.put("/users/1", &body).expect(200);
    assert!(readme.contains(&format!("\n{}\n", put.text())), "{put}");
    assert_eq!(
        larder.get("/by-name/Ada%20Lovelace").json(),
        json!([]),
        "no replica answers with the old name"
    );
    assert_eq!(
        larder.get("/by-name/Ada%20King").json(),
        json!([{"id": 1, "name": "Ada King"}])
    );
    larder.delete("/users/1").expect(204);
    assert_eq!(larder.get("/by-name/Ada%20King").json(), json!([]));
}
