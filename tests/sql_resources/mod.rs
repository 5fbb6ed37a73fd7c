//! SQL resources: a few lines of configuration and a file with a statement.

mod connections;
mod spellings;
mod statements;
mod writes;

use std::sync::Arc;

use serde_json::{Value, json};
use tempfile::TempDir;

use testkit::client::Answer;
use testkit::larder::{ADMIN_KEY, Larder, LarderOptions};
use testkit::postgres::PostgresServer;
use testkit::{SOON, until};

/// A larder whose database has the tables of `schema`.
struct Shop {
    larder: Larder,
    postgres: Option<PostgresServer>,
    folder: Arc<TempDir>,
}

fn on_sqlite(schema: &str, options: LarderOptions) -> Shop {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let file = folder.path().join("larder.db");
    rusqlite::Connection::open(&file)
        .unwrap()
        .execute_batch(schema)
        .unwrap();
    let url = format!("sqlite://{}", file.display());
    let options = options.in_folder(&folder).env("DATABASE_URL", &url);
    Shop {
        larder: Larder::start(&options),
        postgres: None,
        folder,
    }
}

fn on_postgres(schema: &str, options: LarderOptions) -> Shop {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let postgres = PostgresServer::start();
    let url = postgres.new_database();
    postgres.connect(&url).batch_execute(schema).unwrap();
    let options = options.in_folder(&folder).env("DATABASE_URL", &url);
    Shop {
        larder: Larder::start(&options),
        postgres: Some(postgres),
        folder,
    }
}

fn on_each(schema: &str, options: &LarderOptions, test: impl Fn(&Shop)) {
    test(&on_sqlite(schema, options.clone()));
    test(&on_postgres(schema, options.clone()));
}

impl Shop {
    #[track_caller]
    fn write(&self, method: &'static str, path: &str, body: &Value) -> Answer {
        let call = self.larder.call(method, path).key(ADMIN_KEY);
        call.json(body).send()
    }
}

const CITY: &str = "
[resource.city]
path = \"/cities/{country}/{name}\"
params.country = { type = \"string\", pattern = \"[A-Z]{2}\" }
params.name = { type = \"string\" }
source = { sql = \"city\" }
ttl = { memory = \"1h\", redis = \"0s\" }
[resource.cities]
path = \"/cities\"
params.country = { type = \"string\" }
params.least = { type = \"integer\", default = 0 }
source = { sql = \"cities\", many = true }
ttl = { memory = \"1h\", redis = \"0s\" }
";

const CITIES: &str = "
CREATE TABLE cities (country TEXT NOT NULL, name TEXT NOT NULL, people INTEGER NOT NULL);
INSERT INTO cities VALUES ('FR', 'Paris', 2103778), ('FR', 'L''Haÿ', 31189), ('JP', '東京', 14047594);
";

#[test]
fn a_row_is_an_object_and_many_are_an_array() {
    let options = LarderOptions::new(CITY)
        .statement(
            "city",
            "SELECT name, people FROM cities WHERE country = :country AND name = :name",
        )
        .statement(
            "cities",
            "SELECT name FROM cities
             WHERE (country = :country OR :country IS NULL) AND people >= :least ORDER BY people DESC",
        );
    on_each(CITIES, &options, |shop| {
        let get = |path: &str| shop.larder.get(path);
        let paris = get("/cities/FR/Paris").expect(200);
        assert_eq!(paris.text(), r#"{"name":"Paris","people":2103778}"#);
        assert_eq!(paris.the("Content-Type"), "application/json");
        assert_eq!(get("/cities/FR/L'Ha%C3%BF").json()["people"], 31189);
        assert_eq!(get("/cities/JP/%E6%9D%B1%E4%BA%AC").json()["name"], "東京");
        get("/cities/FR/Tokyo").problem(404);
        get("/cities/fr/Paris").problem(400);
        assert_eq!(
            get("/cities?country=FR").expect(200).text(),
            r#"[{"name":"Paris"},{"name":"L'Haÿ"}]"#
        );
        assert_eq!(get("/cities?least=10000000").text(), r#"[{"name":"東京"}]"#);
        assert_eq!(get("/cities?country=XX").expect(200).text(), "[]");
        let again = get("/cities?least=10000000&country=");
        again.problem(400);
        let hit = get("/cities/FR/Paris");
        assert!(
            hit.the("Cache-Status").starts_with("larder-memory; hit"),
            "{hit}"
        );
        assert_eq!(hit.header("cached"), None);
        assert_eq!(hit.text(), paris.text(), "a memory hit is the same bytes");
    });
}

#[test]
fn every_common_type_of_postgres_is_natural_json() {
    let config = "
[resource.all]
path = \"/all\"
source = { sql = \"all_types\" }
ttl = { memory = \"1h\", redis = \"0s\" }
";
    let columns: &[(&str, &str)] = &[
        ("true", "true"),
        ("(-32768)::int2", "-32768"),
        ("2147483647::int4", "2147483647"),
        ("9223372036854775807::int8", "9223372036854775807"),
        ("0.1::float4", "0.1"),
        ("0.1::float8", "0.1"),
        ("'NaN'::float8", "\"NaN\""),
        (
            "12345678901234567890.1234567890::numeric",
            "12345678901234567890.1234567890",
        ),
        ("0.10::numeric(10,2)", "0.10"),
        ("'-0.001'::numeric", "-0.001"),
        ("'NaN'::numeric", "\"NaN\""),
        ("'é\"\\\n'::text", "\"é\\\"\\\\\\n\""),
        ("'ab'::char(4)", "\"ab  \""),
        (
            "'6ba7b810-9dad-11d1-80b4-00c04fd430c8'::uuid",
            "\"6ba7b810-9dad-11d1-80b4-00c04fd430c8\"",
        ),
        ("'{\"a\":1.10}'::json", "{\"a\":1.10}"),
        ("'{\"a\": [1, null]}'::jsonb", "{\"a\": [1, null]}"),
        ("'\\xdeadbeef'::bytea", "\"3q2+7w==\""),
        ("'2026-02-28'::date", "\"2026-02-28\""),
        ("'23:59:59.5'::time", "\"23:59:59.5\""),
        ("'2026-02-28 10:00'::timestamp", "\"2026-02-28T10:00:00\""),
        (
            "'2026-02-28 10:00:00.000001+02'::timestamptz",
            "\"2026-02-28T08:00:00.000001Z\"",
        ),
        ("NULL::int4", "null"),
        ("ARRAY[1,NULL,3]", "[1,null,3]"),
        (
            "ARRAY[['a','b'],['c','d']]",
            "[[\"a\",\"b\"],[\"c\",\"d\"]]",
        ),
        ("ARRAY[]::numeric[]", "[]"),
        ("ARRAY[1.50]::numeric[]", "[1.50]"),
        (
            "'{2026-01-01T00:00:00Z}'::timestamptz[]",
            "[\"2026-01-01T00:00:00Z\"]",
        ),
        ("'sad'::mood", "\"sad\""),
        ("'10.0.0.1/8'::inet", "\"10.0.0.1/8\""),
    ];
    let list: Vec<String> = columns
        .iter()
        .enumerate()
        .map(|(at, (sql, _))| format!("{sql} AS c{at}"))
        .collect();
    let options =
        LarderOptions::new(config).statement("all_types", &format!("SELECT {}", list.join(",\n")));
    let shop = on_postgres("CREATE TYPE mood AS ENUM ('sad', 'glad')", options);
    let text = shop.larder.get("/all").expect(200).text();
    for (at, (sql, wanted)) in columns.iter().enumerate() {
        let member = format!("\"c{at}\":{wanted}");
        assert!(text.contains(&member), "{sql} is not {member} in {text}");
    }
    let wanted: Vec<String> = columns
        .iter()
        .enumerate()
        .map(|(at, (_, json))| format!("\"c{at}\":{json}"))
        .collect();
    assert_eq!(
        text,
        format!("{{{}}}", wanted.join(",")),
        "in the order of the columns"
    );
}

#[test]
fn a_parameter_that_the_statement_cannot_take_is_named() {
    let config = "
[resource.thing]
path = \"/things/{id}\"
params.id = { type = \"string\" }
params.since = { type = \"string\" }
source = { sql = \"thing\" }
ttl = { memory = \"1h\", redis = \"0s\" }
";
    let options = LarderOptions::new(config).statement(
        "thing",
        "SELECT name FROM things WHERE id = :id AND (made >= :since OR :since::date IS NULL)",
    );
    let shop = on_postgres(
        "CREATE TABLE things (id uuid PRIMARY KEY, made date NOT NULL, name text);
         INSERT INTO things VALUES ('6ba7b810-9dad-11d1-80b4-00c04fd430c8', '2026-01-02', 'one')",
        options,
    );
    let get = |path: &str| shop.larder.get(path);
    let good = "/things/6ba7b810-9dad-11d1-80b4-00c04fd430c8";
    assert_eq!(get(good).expect(200).json()["name"], "one");
    get(&format!("{good}?since=2026-01-02")).expect(200);
    get(&format!("{good}?since=2026-01-03")).problem(404);
    for (path, name) in [
        ("/things/1".to_owned(), "id"),
        ("/things/'%20OR%20'1'='1".to_owned(), "id"),
        (format!("{good}?since=yesterday"), "since"),
    ] {
        for _ in 0..2 {
            let answer = get(&path);
            answer.problem(400);
            assert_eq!(answer.json()["parameter"], name, "{path}");
        }
    }
}

#[test]
fn what_is_wrong_with_a_statement_is_told_by_check_and_at_the_start() {
    let config = "
[resource.a]
path = \"/a\"
source = { sql = \"money\" }
ttl = { memory = \"1h\", redis = \"1h\" }
[resource.b]
path = \"/b\"
source = { sql = \"no_such_column\" }
ttl = { memory = \"1h\", redis = \"1h\" }
[resource.c]
path = \"/c\"
source = { sql = \"takes_away\" }
ttl = { memory = \"1h\", redis = \"1h\" }
[resource.d]
path = \"/d\"
write.POST = { sql = \"add\", invalidates = [\"user:{nobody}\"] }
";
    let postgres = PostgresServer::start();
    let options = LarderOptions::new(config)
        .env("DATABASE_URL", &postgres.url())
        .statement("money", "SELECT 1::money AS price")
        .statement("no_such_column", "SELECT nothing FROM users")
        .statement("takes_away", "DELETE FROM users RETURNING id")
        .statement(
            "add",
            "INSERT INTO users (name, email) VALUES (:name, :email) RETURNING id",
        );
    let checked = options.run(&["check"]);
    let said = String::from_utf8_lossy(&checked.stderr).into_owned();
    assert_eq!(checked.status.code(), Some(2), "{said}");
    for (line, key, word) in [
        (4, "resource.a.source.sql", "price"),
        (8, "resource.b.source.sql", "nothing"),
        (12, "resource.c.source.sql", "read"),
        (16, "resource.d.write.POST", "nobody"),
    ] {
        let fault = said
            .lines()
            .find(|fault| fault.contains(&format!("toml:{line}: {key}")));
        let fault = fault.unwrap_or_else(|| panic!("no fault of {key} in line {line}: {said}"));
        assert!(fault.contains(word) && fault.contains("valid:"), "{fault}");
    }
    assert_eq!(said.lines().count(), 4, "{said}");
    let mut client = postgres.connect(&postgres.url());
    let tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'";
    let count: i64 = client.query_one(tables, &[]).unwrap().get(0);
    assert_eq!(count, 0, "check changes nothing");
    let refused = options.run(&["serve", "--bind", "127.0.0.1:0"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(2), "{said}");
    assert!(said.contains("resource.a.source.sql"), "{said}");
}

#[test]
fn check_makes_no_database() {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let options = LarderOptions::new(include_str!("../../config.toml")).in_folder(&folder);
    let checked = options.run(&["check"]);
    let said = String::from_utf8_lossy(&checked.stderr).into_owned();
    assert_eq!(checked.status.code(), Some(0), "{said}");
    assert!(!folder.path().join("larder.db").exists());
}

#[test]
fn a_reload_takes_another_statement() {
    let options = LarderOptions::new(CITY)
        .statement(
            "city",
            "SELECT name FROM cities WHERE country = :country AND name = :name",
        )
        .statement(
            "cities",
            "SELECT name FROM cities WHERE country = :country AND people > :least",
        );
    let shop = on_sqlite(CITIES, options);
    assert_eq!(
        shop.larder.get("/cities/FR/Paris").text(),
        r#"{"name":"Paris"}"#
    );
    let file = shop.folder.path().join("sql/queries/city.sql");
    std::fs::write(
        &file,
        "SELECT people FROM cities WHERE country = :country AND name = :name",
    )
    .unwrap();
    shop.larder.reload(CITY);
    until(SOON, "the other statement", || {
        shop.larder.get("/cities/FR/Paris").text() == r#"{"people":2103778}"#
    });
    std::fs::write(&file, "SELECT nothing FROM cities WHERE :country = :name").unwrap();
    shop.larder.reload(CITY);
    until(SOON, "it is refused", || {
        shop.larder.log().contains("nothing is changed")
    });
    assert_eq!(
        shop.larder.get("/cities/FR/Paris").text(),
        r#"{"people":2103778}"#
    );
}

#[test]
fn a_value_that_the_statement_cannot_work_with_is_the_callers_fault() {
    let config = "
[resource.share]
path = \"/share/{by}\"
params.by = { type = \"integer\" }
source = { sql = \"share\" }
ttl = { memory = \"1h\", redis = \"0s\" }
write.PUT = { sql = \"share_put\" }
";
    let options = LarderOptions::new(config)
        .statement("share", "SELECT 12 / :by::int AS share")
        .statement(
            "share_put",
            "INSERT INTO shares SELECT 12 / :of::int WHERE :by > 0",
        );
    let shop = on_postgres("CREATE TABLE shares (n int)", options);
    assert_eq!(shop.larder.get("/share/4").text(), r#"{"share":3}"#);
    for by in ["0", "99999999999"] {
        let answer = shop.larder.get(&format!("/share/{by}"));
        answer.problem(400);
        assert_eq!(answer.json()["parameter"], "by", "{answer}");
    }
    // Failed loads and reads, and no error of larder's.
    let metrics = shop.larder.get("/metrics").expect(200).text();
    for count in [
        r#"larder_loads_total{resource="share",result="failed"} 2"#,
        r#"larder_requests_total{resource="share",outcome="failed"} 2"#,
        r#"larder_responses_total{status="400"} 2"#,
        r#"larder_responses_total{status="502"} 0"#,
    ] {
        assert!(
            metrics.lines().any(|line| line == count),
            "{count}: {metrics}"
        );
    }
    let log = shop.larder.log();
    let told = log.lines().find(|line| line.contains("share?by=0 "));
    assert!(
        told.is_some_and(|line| line.contains("INFO")),
        "what a caller does wrong is no warning: {log}"
    );
    shop.write("PUT", "/share/4", &json!({"of": 0}))
        .problem(422);
    shop.write("PUT", "/share/4", &json!({"of": 3})).expect(204);
}
