//! The documents are correct: each fenced block is run, or has its reason in `reasons.rs`.
//!
//! Configurations are valid, statements run, commands run in a shell and give what the documents
//! show, and log lines are as larder writes them.

mod blocks;
mod reasons;
mod walk;

use std::collections::BTreeMap;
use std::sync::Arc;

use regex_lite::Regex;
use serde_json::json;

use testkit::larder::{Larder, LarderOptions};
use testkit::postgres::PostgresServer;
use testkit::prometheus::promtool;
use testkit::redis::RedisServer;

pub use self::blocks::fenced_as;
use self::blocks::{Block, all, text_of};
use self::reasons::reason;
use self::walk::without_what_varies;

/// Languages whose blocks are run, all of them: by a test of this file, by the doctests, or with
/// the panels of the dashboard (promql).
const RUN: [&str; 9] = [
    "toml", "sql", "sh", "console", "python", "log", "rust", "yaml", "promql",
];

#[test]
fn every_block_is_run_or_has_a_reason() {
    let blocks = all();
    let is_covered = |block: &&Block| {
        RUN.contains(&block.language.as_str()) || reason(&block.document, &block.text).is_some()
    };
    let (covered, others): (Vec<_>, Vec<_>) = blocks.iter().partition(is_covered);
    let others: Vec<String> = others
        .iter()
        .map(|block| format!("{} ({:?})", block.place(), block.language))
        .collect();
    assert!(
        others.is_empty(),
        "no test runs these blocks, and tests/documents/reasons.rs has no reason: {others:#?}"
    );
    assert!(covered.len() >= 20, "{} blocks were found", covered.len());
    // The doctests run these.
    let included = "#[doc = include_str!(\"../README.md\")]";
    assert!(text_of("crates/larder-cache/src/lib.rs").contains(included));
    let rust = fenced_as("rust");
    assert!(
        rust.iter()
            .all(|block| block.document == "crates/larder-cache/README.md")
    );
}

#[test]
fn every_walk_goes_as_its_document_shows() {
    let mut sections: BTreeMap<(String, String), Vec<Block>> = BTreeMap::new();
    for block in all() {
        let is_of_a_walk = match block.language.as_str() {
            "sh" | "console" | "python" => true,
            "toml" => block.text.starts_with("# at the end of config.toml\n"),
            "sql" => block.statement().is_some(),
            _ => false,
        };
        if is_of_a_walk {
            let section = (block.document.clone(), block.section.clone());
            sections.entry(section).or_default().push(block);
        }
    }
    let has_commands = |block: &Block| matches!(block.language.as_str(), "sh" | "console");
    sections.retain(|_, blocks| blocks.iter().any(has_commands));
    assert!(sections.len() >= 3, "{sections:#?}");
    for blocks in sections.values() {
        walk::run(blocks);
    }
    let compose = text_of("compose.yaml");
    assert!(compose.contains("${LARDER_ADMIN_KEY:-an-admin-key-only-for-trying}"));
}

#[test]
fn the_log_lines_of_the_documents_are_real() {
    let mut checked = 0;
    for block in fenced_as("log") {
        let is_json = block.text.starts_with('{');
        let redis = RedisServer::start();
        let options = LarderOptions::new(&text_of("config.toml"))
            .env("REDIS_URL", &redis.url())
            .env("LARDER_LOG", if is_json { "json" } else { "text" })
            .env("RUST_LOG", "info,access=debug");
        let mut larder = Larder::start(&options);
        let id = if is_json { "\"request_id\":\"" } else { " id=" };
        let trace = if is_json {
            "\"trace_id\":\""
        } else {
            " trace="
        };
        let shown = |name: &str| {
            let (_, rest) = block.text.split_once(name).unwrap();
            let end = rest.find([' ', '"', '\n']).unwrap();
            rest[..end].to_owned()
        };
        let asked = larder.call("GET", "/articles?category=sports");
        let asked = asked
            .key(testkit::larder::ADMIN_KEY)
            .header("X-Request-Id", &shown(id))
            .header(
                "traceparent",
                &format!("00-{}-00f067aa0ba902b7-01", shown(trace)),
            );
        asked.send().expect(200);
        larder.stop();
        let log = without_what_varies(&larder.log());
        for line in without_what_varies(&block.text).lines() {
            assert!(
                log.lines().any(|real| real == line),
                "{}: {line}\nin\n{log}",
                block.place()
            );
            checked += 1;
        }
    }
    assert!(checked >= 2, "{checked} lines were checked");
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
    for block in fenced_as("sql") {
        if let Some(name) = block.statement() {
            options = options.statement(name, &block.text);
        }
    }
    options
}

const SCHEMA: &str = "CREATE TABLE cities (country text, name text, people int);
    CREATE TABLE goods (name text, category text)";

/// Fails with the output of `larder check` for this block, unless it is valid.
fn assert_valid(options: &LarderOptions, block: &Block) {
    let output = options.run(&["check"]);
    let said = String::from_utf8_lossy(&output.stderr);
    let (place, text) = (block.place(), &block.text);
    assert_eq!(output.status.code(), Some(0), "{place}:\n{text}\n{said}");
}

#[test]
fn each_configuration_in_the_documents_is_valid() {
    let postgres = PostgresServer::start();
    let url = postgres.new_database();
    postgres.connect(&url).batch_execute(SCHEMA).unwrap();
    let mut checked = 0;
    for block in fenced_as("toml") {
        let options = every_statement(LarderOptions::new(&configuration(&block.text)));
        let options = options.env("DATABASE_URL", &url);
        let variables = ["QUOTE_KEY", "AI_KEY", "GRAPHQL_TOKEN"].iter();
        let options = variables.fold(options, |options, name| options.env(name, "secret"));
        assert_valid(&options, &block);
        checked += 1;
    }
    assert!(checked >= 6, "{checked} blocks were found");
}

#[test]
fn the_comments_of_the_shipped_configuration_are_valid() {
    let setting = Regex::new(r#"^# (\[[a-z_.]+\]|[a-zA-Z_."]+ = ["{\[0-9tf].*)$"#).unwrap();
    let mut examples = 0;
    let config: String = text_of("config.toml")
        .lines()
        .map(|line| match setting.captures(line) {
            Some(found) => {
                examples += 1;
                format!("{}\n", &found[1])
            }
            None => format!("{line}\n"),
        })
        .collect();
    assert!(examples >= 20, "{examples} lines are examples:\n{config}");
    let options = LarderOptions::new(&config).in_folder(&Arc::new(tempfile::tempdir().unwrap()));
    let options = options.env("REDIS_PASSWORD", "secret");
    let missing = options.run(&["check"]);
    let said = String::from_utf8_lossy(&missing.stderr).into_owned();
    // The example needs a key, so it does nothing by accident.
    assert!(
        missing.status.code() == Some(2) && said.contains("AI_KEY"),
        "{said}"
    );
    let checked = options.env("AI_KEY", "secret").run(&["check"]);
    let said = String::from_utf8_lossy(&checked.stderr);
    assert_eq!(checked.status.code(), Some(0), "{said}\n{config}");
    let resources = String::from_utf8_lossy(&checked.stdout);
    assert!(resources.contains("/answers"), "{resources}");
    // As it is shipped, nothing of it is there.
    let shipped = LarderOptions::new(&text_of("config.toml")).run(&["check"]);
    assert!(!String::from_utf8_lossy(&shipped.stdout).contains("answer"));
}

#[test]
fn each_scrape_in_the_documents_is_one_that_prometheus_takes() {
    let blocks = fenced_as("yaml");
    assert!(blocks.len() >= 2, "{blocks:#?}");
    for block in blocks {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, &block.text).unwrap();
        // The paths in it are those of another machine.
        let name = file.path().to_str().unwrap();
        promtool(&["check", "config", "--syntax-only", name], "");
    }
}

#[test]
fn each_statement_in_the_documents_is_one_that_postgres_takes() {
    let postgres = PostgresServer::start();
    let url = postgres.new_database();
    let mut sql = postgres.connect(&url);
    sql.batch_execute(SCHEMA).unwrap();
    // The names in the statements about roles and schemas.
    for made in ["ROLE app_owner", "ROLE app", "DATABASE shop"] {
        postgres.administer(&format!("CREATE {made}"));
    }
    let _larder = Larder::start(&LarderOptions::unconfigured().env("DATABASE_URL", &url));
    let (mut run, mut read) = (0, 0);
    for block in fenced_as("sql") {
        if block.text.contains("ROLE") {
            run += 1;
            postgres.administer_in("shop", &block.text);
            continue;
        }
        if !block.text.contains(" :") {
            run += 1;
            let done = sql.batch_execute(&block.text);
            assert!(done.is_ok(), "{}:\n{}\n{done:?}", block.place(), block.text);
            continue;
        }
        let config = "[resource.it]\nparams.country = { type = \"string\" }\nparams.name = { type = \"string\" }
params.least = { type = \"integer\" }\nparams.category = { type = \"string\" }\nsource = { sql = \"it\", many = true }\nttl = { memory = \"1s\", redis = \"1s\" }";
        let options = LarderOptions::new(config)
            .statement("it", &block.text)
            .env("DATABASE_URL", &url);
        assert_valid(&options, &block);
        read += 1;
    }
    assert!(
        run >= 5 && read >= 3,
        "{run} and {read} statements were found"
    );
}

#[test]
fn the_walk_of_the_readme_ends_as_it_says() {
    let is_walk = |block: &Block| block.text.starts_with("# at the end of config.toml\n");
    let block = fenced_as("toml").into_iter().find(is_walk).unwrap();
    let config = configuration(&block.text);
    let larder = Larder::start(&every_statement(LarderOptions::new(&config)));
    assert_eq!(
        larder.get("/by-name/Ada%20Lovelace").json(),
        json!([{"id": 1, "name": "Ada Lovelace"}])
    );
    assert_eq!(larder.get("/by-name/Ada%20King").json(), json!([]));
    let body = json!({"name": "Ada King", "email": "ada@example.com"});
    larder.put("/users/1", &body).expect(200);
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
