//! Spellings: whichever spelling of a row a write, a trigger or an operator names, all others are
//! invalidated.

use postgres::Client;
use serde_json::{Value, json};

use super::{Shop, on_each};
use testkit::larder::{ADMIN_KEY, Larder, LarderOptions};
use testkit::postgres::PostgresServer;
use testkit::{SOON, until};

/// A larder on a Postgres that the test uses directly, too.
struct Beside {
    larder: Larder,
    sql: Client,
    options: LarderOptions,
    _postgres: PostgresServer,
}

fn beside(schema: &str, options: &LarderOptions) -> Beside {
    let postgres = PostgresServer::start();
    let url = postgres.new_database();
    let mut sql = postgres.connect(&url);
    sql.batch_execute(schema).unwrap();
    let options = options.clone().env("DATABASE_URL", &url);
    Beside {
        larder: Larder::start(&options),
        sql,
        options,
        _postgres: postgres,
    }
}

impl Beside {
    fn run(&mut self, sql: &str) {
        self.sql.batch_execute(sql).unwrap();
    }

    /// Checks that each of these paths answers with this member.
    #[track_caller]
    fn until_each(&self, paths: &[&str], member: &str, value: &Value) {
        for path in paths {
            until(SOON, path, || {
                self.larder.get(path).json()[member] == *value
            });
        }
    }

    fn check(&self) -> (Option<i32>, String) {
        let output = self.options.run(&["check"]);
        let all = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(all).unwrap())
    }
}

const PERSON: &str = "
[resource.person]
path = \"/person/{handle}\"
params.handle = { type = \"string\" }
source = { sql = \"person\" }
ttl = { memory = \"1h\", redis = \"0s\" }
tags = [\"person:{handle}\"]
";

fn person() -> LarderOptions {
    LarderOptions::new(PERSON).statement(
        "person",
        "SELECT bio FROM people WHERE handle = :handle ORDER BY bio LIMIT 1",
    )
}

#[test]
fn a_watched_citext_is_fresh_under_each_spelling() {
    for of_type in ["citext", "name_of"] {
        let schema = format!(
            "CREATE EXTENSION citext; CREATE DOMAIN name_of AS citext;
             CREATE TABLE people (handle {of_type}, bio text); INSERT INTO people VALUES ('Ada', 'old')"
        );
        let mut beside = beside(&schema, &person());
        beside.run("SELECT larder_watch('people', 'person:{handle}')");
        let paths = ["/person/ada", "/person/Ada", "/person/ADA"];
        beside.until_each(&paths, "bio", &json!("old"));
        beside.run("UPDATE people SET bio = 'new'");
        beside.until_each(&paths, "bio", &json!("new"));
    }
}

#[test]
fn values_that_citext_tells_apart_have_answers_of_their_own() {
    // The locale of this database is C, where only ASCII has a case.
    let mut beside = beside(
        "CREATE EXTENSION citext; CREATE TABLE people (handle citext UNIQUE, bio text);
         INSERT INTO people VALUES ('É', 'large'), ('é', 'small')",
        &person(),
    );
    beside.run("SELECT larder_watch('people', 'person:{handle}')");
    let (large, small) = ("/person/%C3%89", "/person/%C3%A9");
    beside.until_each(&[large], "bio", &json!("large"));
    beside.until_each(&[small], "bio", &json!("small"));
    beside.run("UPDATE people SET bio = bio || 'r'");
    beside.until_each(&[large], "bio", &json!("larger"));
    beside.until_each(&[small], "bio", &json!("smallr"));
}

#[test]
fn a_watched_moment_is_fresh_in_each_zone() {
    let mut beside = beside(
        "CREATE TABLE people (handle timestamptz, bio text); INSERT INTO people VALUES ('2026-03-01 00:00+00', 'old')",
        &person(),
    );
    beside.run("SELECT larder_watch('people', 'person:{handle}')");
    let paths = [
        "/person/2026-03-01T00:00:00Z",
        "/person/2026-03-01T01:00:00+01:00",
        "/person/2026-02-28T24:00Z",
    ];
    beside.until_each(&paths, "bio", &json!("old"));
    beside.run(
        "SET TimeZone = 'Asia/Tokyo'; SET DateStyle = 'SQL, DMY'; UPDATE people SET bio = 'new'",
    );
    beside.until_each(&paths, "bio", &json!("new"));
}

const VALUES: &str = "
[resource.val]
path = \"/val/{v}\"
params.v = { type = \"string\" }
source = { sql = \"val\" }
ttl = { memory = \"1h\", redis = \"0s\", absent = \"1h\" }
tags = [\"val:{v}\"]
write.PUT = { sql = \"val_put\", invalidates = [\"val:{v}\"] }
[resource.plain]
path = \"/plain/{v}\"
params.v = { type = \"string\" }
source = { sql = \"val\" }
ttl = { memory = \"1h\", redis = \"0s\", absent = \"1h\" }
write.PUT = { sql = \"val_put\" }
[resource.whole]
path = \"/whole/{v}\"
params.v = { type = \"string\" }
source = { parts = [\"plain\"] }
[resource.vals]
path = \"/vals\"
write.POST = { sql = \"val_add\", invalidates = [\"val:{v}\"] }
write.PATCH = { sql = \"val_all\", invalidates = [\"val:{v}\"] }
";

fn values() -> LarderOptions {
    LarderOptions::new(VALUES)
        .statement("val", "SELECT label FROM vals WHERE v = :v")
        .statement("val_put", "UPDATE vals SET label = :label WHERE v = :v")
        .statement("val_add", "INSERT INTO vals (v, label) VALUES (:v, :label)")
        .statement("val_all", "UPDATE vals SET label = :label RETURNING v")
}

fn each_spelling_is_fresh(shop: &Shop, spellings: &[&str]) {
    let everywhere = |label: &str| {
        for spelling in spellings {
            let path = format!("/val/{spelling}");
            assert_eq!(
                shop.larder.get(&path).expect(200).json()["label"],
                label,
                "{path}"
            );
        }
    };
    for (at, wrote) in spellings.iter().enumerate() {
        let label = format!("label {at}");
        let path = format!("/val/{wrote}");
        shop.write("PUT", &path, &json!({"label": label}))
            .expect(204);
        everywhere(&label);
        // Without a tag, the write invalidates the entry of the same path, in all its spellings.
        let plain = format!("plain {at}");
        for read in spellings {
            shop.larder.get(&format!("/plain/{read}")).expect(200);
            shop.larder.get(&format!("/whole/{read}")).expect(200);
        }
        let path = format!("/plain/{wrote}");
        shop.write("PUT", &path, &json!({"label": plain}))
            .expect(204);
        for read in spellings {
            for path in [format!("/plain/{read}"), format!("/whole/{read}")] {
                assert_eq!(shop.larder.get(&path).json()["label"], plain, "{path}");
            }
        }
        let paths = json!({"paths": [format!("/val/{wrote}")]});
        assert!(shop.larder.post("/cache/invalidate", &paths).json()["matched"].is_array());
        everywhere(&plain);
    }
    // A returned row has values that the request does not have.
    shop.write("PATCH", "/vals", &json!({"label": "all"}))
        .expect(200);
    everywhere("all");
}

#[test]
fn a_write_reaches_each_spelling_of_its_row() {
    let schema = "CREATE TABLE vals (v NUMERIC(9, 2) PRIMARY KEY, label TEXT); INSERT INTO vals VALUES (1.5, 'old')";
    on_each(schema, &values(), |shop| {
        each_spelling_is_fresh(shop, &["1.5", "1.50", "15e-1", "01.500"]);
        for spelling in ["2", "2.0", "20e-1"] {
            shop.larder.get(&format!("/val/{spelling}")).problem(404);
        }
        let call = shop.larder.call("POST", "/vals").key(ADMIN_KEY);
        let call = call.header("Content-Type", "application/json");
        call.body("{\"v\":2.000,\"label\":\"two\"}".to_owned())
            .send()
            .expect(201);
        for spelling in ["2", "2.0", "20e-1"] {
            let path = format!("/val/{spelling}");
            assert_eq!(
                shop.larder.get(&path).expect(200).json()["label"],
                "two",
                "{path}"
            );
        }
    });
}

#[test]
fn a_write_reaches_each_spelling_where_sqlite_compares_without_case_or_by_number() {
    for (column, spellings) in [
        ("v TEXT COLLATE NOCASE", ["Ada", "ada", "ADA"]),
        ("v TEXT COLLATE RTRIM", ["Ada", "Ada%20", "Ada%20%20"]),
        ("v INTEGER", ["7", "007", "7.0"]),
        ("v REAL", ["7", "7.00", "70e-1"]),
    ] {
        let value = spellings[0];
        let schema = format!(
            "CREATE TABLE vals ({column}, label TEXT); INSERT INTO vals VALUES ('{value}', 'old')"
        );
        let shop = super::on_sqlite(&schema, values());
        each_spelling_is_fresh(&shop, &spellings);
    }
}

#[test]
fn a_write_reaches_each_spelling_of_other_types_of_postgres() {
    for (of_type, value, spellings) in [
        ("char(6)", "ab", ["ab", "ab%20", "ab%20%20"]),
        ("interval", "1 day", ["P1D", "PT24H", "PT1440M"]),
        ("float8", "0", ["0", "-0.0", "0e5"]),
        ("inet", "::1", ["::1", "0:0:0:0:0:0:0:1", "::0001"]),
        (
            "jsonb",
            "{\"a\":1,\"b\":2}",
            [
                "{\"a\":1,\"b\":2}",
                "{\"b\":2,\"a\":1.0}",
                "{\"a\":1.00,\"b\":2}",
            ],
        ),
        ("text COLLATE nocase", "Ada", ["Ada", "ada", "ADA"]),
    ] {
        let schema = format!(
            "CREATE COLLATION nocase (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
             CREATE TABLE vals (v {of_type}, label text); INSERT INTO vals VALUES ('{value}', 'old')"
        );
        let spellings = spellings.map(|spelling| {
            spelling
                .replace('{', "%7B")
                .replace('}', "%7D")
                .replace('"', "%22")
        });
        let spellings: Vec<&str> = spellings.iter().map(String::as_str).collect();
        each_spelling_is_fresh(&super::on_postgres(&schema, values()), &spellings);
    }
}

#[test]
fn a_column_without_one_text_is_refused_and_a_watch_from_before_invalidates_everything() {
    let mut beside = beside(
        "CREATE COLLATION nocase (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
         CREATE TABLE people (handle text, bio text, tags text[], about jsonb, price money, called text COLLATE nocase);
         INSERT INTO people VALUES ('ada', 'old')",
        &person(),
    );
    for column in ["tags", "about", "price", "called"] {
        let sql = format!("SELECT larder_watch('people', 'x:{{handle}}/{{{column}}}')");
        let refused = beside.sql.batch_execute(&sql).unwrap_err();
        let refused = refused.as_db_error().unwrap().message().to_owned();
        assert!(
            refused.contains(column) && refused.contains("written differently"),
            "{refused}"
        );
    }
    assert_eq!(beside.check().0, Some(0));
    beside.run("SELECT larder_watch('people', 'person:{handle}'); ALTER TABLE people ALTER handle TYPE text COLLATE nocase");
    let (code, told) = beside.check();
    assert_eq!(code, Some(0), "{told}");
    assert!(
        told.contains("warning: each change of table people invalidates everything"),
        "{told}"
    );
    let paths = ["/person/ada", "/person/Ada"];
    beside.until_each(&paths, "bio", &json!("old"));
    beside.run("UPDATE people SET bio = 'new'");
    beside.until_each(&paths, "bio", &json!("new"));
    // Writes to other columns do not fail because one column is gone.
    beside.run("ALTER TABLE people RENAME handle TO nick; UPDATE people SET bio = 'newer'");
    assert!(beside.check().1.contains("no longer exists"));
}

#[test]
fn a_watch_that_names_something_else_is_told() {
    let options = LarderOptions::new(PERSON).statement(
        "person",
        "SELECT bio FROM people WHERE handle::text = :handle",
    );
    let mut beside = beside("CREATE TABLE people (handle numeric, bio text)", &options);
    beside.run("SELECT larder_watch('people', 'person:{handle}')");
    let (code, told) = beside.check();
    assert_eq!(code, Some(0), "{told}");
    assert!(
        told.contains("resource person may stay stale when table people changes"),
        "{told}"
    );
    assert!(
        !beside.larder.log().contains("may stay stale"),
        "there was no watch yet"
    );
    let again = Larder::start(&beside.options);
    assert!(again.log().contains("may stay stale"), "{}", again.log());
}
