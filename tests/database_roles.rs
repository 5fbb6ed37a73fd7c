//! The Postgres role of larder: what it needs, how missing rights are reported, and that its
//! database can be dumped, restored and upgraded.

use std::fs;
use std::path::Path;

use regex_lite::Regex;
use serde_json::json;

use testkit::larder::{Larder, LarderOptions};
use testkit::pgbouncer::Pgbouncer;
use testkit::postgres::PostgresServer;
use testkit::redis::RedisServer;
use testkit::{SOON, until};

const SHIPPED: &str = include_str!("../config.toml");

/// The configuration that ships, on this database.
fn options(redis: &RedisServer, url: &str) -> LarderOptions {
    LarderOptions::new(SHIPPED)
        .env("REDIS_URL", &redis.url())
        .env("DATABASE_URL", url)
}

fn check(options: &LarderOptions) -> (Option<i32>, String) {
    let ran = options.run(&["check"]);
    (ran.status.code(), String::from_utf8(ran.stderr).unwrap())
}

/// Starts a larder on an empty or a known database, with user 1 and the users watched. Checks that
/// a change by SQL arrives. Returns the running larder.
#[track_caller]
fn hears_of_changes(postgres: &PostgresServer, options: &LarderOptions, url: &str) -> Larder {
    let larder = Larder::start(options);
    let mut sql = postgres.connect(url);
    sql.batch_execute(
        "INSERT INTO users (id, name, email) VALUES (1, 'Ada', 'a@example.org') ON CONFLICT DO NOTHING;
         SELECT larder_watch('users', 'user:{id}')",
    )
    .unwrap();
    for name in ["Grace", "Ada"] {
        larder.get("/users/1").expect(200);
        let rename = format!("UPDATE users SET name = '{name}' WHERE id = 1");
        sql.batch_execute(&rename).unwrap();
        until(SOON, "the new name is read", || {
            larder.get("/users/1").expect(200).json()["name"] == json!(name)
        });
    }
    until(SOON, "the outbox is empty", || {
        let left = sql.query_one("SELECT count(*) FROM larder_outbox", &[]);
        left.unwrap().get::<_, i64>(0) == 0
    });
    larder
}

/// A database of another owner, in which the role `app` may only connect.
fn shared_database(postgres: &PostgresServer) -> String {
    let url = postgres.new_database();
    let name = database_of(&url);
    postgres.administer(&format!(
        "CREATE ROLE app LOGIN; REVOKE ALL ON DATABASE {name} FROM PUBLIC; GRANT CONNECT ON DATABASE {name} TO app"
    ));
    postgres.administer_in(name, "REVOKE ALL ON SCHEMA public FROM PUBLIC");
    name.to_owned()
}

fn database_of(url: &str) -> &str {
    url.rsplit('/').next().unwrap()
}

#[test]
fn a_role_that_owns_only_a_schema_is_enough() {
    let redis = RedisServer::start();
    for by_url in [false, true] {
        let postgres = PostgresServer::start();
        let name = shared_database(&postgres);
        postgres.administer_in(&name, "CREATE SCHEMA \"App's own\" AUTHORIZATION app");
        let mut url = postgres.url_as("app", &name);
        if by_url {
            url.push_str("?options=-csearch_path%3D%22App's%5C%20own%22");
        } else {
            postgres.administer(&format!(
                "ALTER ROLE app IN DATABASE {name} SET search_path = \"App's own\""
            ));
        }
        let options = options(&redis, &url);
        assert_eq!(check(&options).0, Some(0), "{}", check(&options).1);
        let larder = hears_of_changes(&postgres, &options, &url);
        larder.post("/keys", &json!({"name": "one"})).expect(201);
        let elsewhere = "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace";
        let elsewhere: i64 = postgres
            .connect(&url)
            .query_one(elsewhere, &[])
            .unwrap()
            .get(0);
        assert_eq!(elsewhere, 0);
    }
}

#[test]
fn a_dump_is_restored_by_an_ordinary_owner_and_goes_on_delivering() {
    let (redis, postgres) = (RedisServer::start(), PostgresServer::start());
    let old = postgres.new_database();
    let made = hears_of_changes(&postgres, &options(&redis, &old), &old);
    let named = json!({"name": "kept"});
    let made_key = made.post("/keys", &named).expect(201).json();
    let key = made_key["key"].as_str().unwrap().to_owned();
    drop(made);
    postgres.administer("CREATE ROLE heir LOGIN");
    let new = postgres.new_database_of("heir");
    postgres.copy(&old, &new);
    let options = options(&redis, &new);
    assert_eq!(check(&options).0, Some(0), "{}", check(&options).1);
    let larder = hears_of_changes(&postgres, &options, &new);
    larder.call("GET", "/users/1").key(&key).send().expect(200);
    // The database has the triggers of the dump, and no second ones.
    let mut sql = postgres.connect(&new);
    let watched = sql.query_one("SELECT larder_watch('users', 'user:{id}')", &[]);
    assert!(!watched.unwrap().get::<_, bool>(0));
}

/// The schema as larder left it while it was a superuser, when 0004_outbox stored a setting with
/// each function.
fn made_by_a_superuser(postgres: &PostgresServer, database: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("sql/postgres");
    let mut sql = "CREATE TABLE larder_migrations
        (version BIGINT PRIMARY KEY, name TEXT NOT NULL, applied_at BIGINT NOT NULL);"
        .to_owned();
    for (version, name) in (1..).zip([
        "0001_keys",
        "0002_archive",
        "0003_first_admin",
        "0004_outbox",
        "0005_people",
    ]) {
        sql.push_str(&fs::read_to_string(folder.join(format!("{name}.sql"))).unwrap());
        sql.push_str(&format!(
            ";INSERT INTO larder_migrations VALUES ({version}, '{name}', 0);"
        ));
    }
    sql.push_str(
        "ALTER FUNCTION larder_note() SET larder.schema = 'public';
         ALTER FUNCTION larder_take_back(text[]) SET larder.schema = 'public';
         ALTER FUNCTION larder_watch(regclass, text) SET larder.schema = 'public';
         ALTER FUNCTION larder_unwatch(regclass, text) SET larder.schema = 'public';
         SELECT larder_watch('users', 'user:{id}');",
    );
    postgres.administer_in(database, &sql);
}

#[test]
fn a_database_that_a_superuser_made_is_upgraded() {
    let (redis, postgres) = (RedisServer::start(), PostgresServer::start());
    // Larder made it as a superuser. Now an ordinary role restores the dump and owns it.
    let old = postgres.new_database();
    made_by_a_superuser(&postgres, database_of(&old));
    let as_superuser = postgres.url_as("postgres", database_of(&old));
    drop(hears_of_changes(
        &postgres,
        &options(&redis, &as_superuser),
        &as_superuser,
    ));
    let new = postgres.new_database();
    postgres.copy(&as_superuser, &new);
    drop(hears_of_changes(&postgres, &options(&redis, &new), &new));

    // An ordinary owner, after the administrator has granted what `check` asks for.
    let given = postgres.new_database();
    made_by_a_superuser(&postgres, database_of(&given));
    let options = options(&redis, &given);
    let asked = cured(&postgres, &options, database_of(&given));
    assert!(
        asked.contains("the function public.larder_note() belongs to postgres"),
        "{asked}"
    );
    hears_of_changes(&postgres, &options, &given);
}

/// Runs the GRANT statements that `check` prints, until there is none. `serve` prints the same.
/// Returns what `check` printed.
#[track_caller]
fn cured(postgres: &PostgresServer, options: &LarderOptions, database: &str) -> String {
    let cure = Regex::new(r"(?:: |, or )((?:GRANT|ALTER|CREATE) .+)$").unwrap();
    let mut all = String::new();
    for _ in 0..4 {
        let (code, said) = check(options);
        if code == Some(0) {
            assert!(!all.is_empty(), "nothing was missing");
            return all;
        }
        assert_eq!(code, Some(2), "{said}");
        let mut refused = Larder::spawn(options);
        assert!(!refused.ended().success(), "it started: {said}");
        let mut cures = 0;
        for line in said.lines() {
            let line = line.split("; valid: ").next().unwrap();
            if let Some(found) = cure.captures(line) {
                // Without the name of the file, which differs each time.
                let told = line.trim().split_once(": ").unwrap().1;
                assert!(refused.log().contains(told), "{told}: {}", refused.log());
                postgres.administer_in(database, &found[1]);
                cures += 1;
            }
        }
        assert!(cures > 0, "no cure: {said}");
        all.push_str(&said);
    }
    panic!("not cured by what it says: {all}");
}

#[test]
fn what_a_role_lacks_is_told_with_its_grant() {
    let redis = RedisServer::start();
    for (before, told) in [
        // As in Postgres 15, only the owner may create tables in `public`.
        (
            "GRANT USAGE ON SCHEMA public TO app",
            &["no CREATE on the schema public"][..],
        ),
        ("SELECT 1", &["no USAGE on any schema of its search_path"]),
        (
            "CREATE SCHEMA app AUTHORIZATION app; ALTER ROLE app SET default_transaction_read_only = on",
            &["the database can only be read"],
        ),
    ] {
        let postgres = PostgresServer::start();
        let name = shared_database(&postgres);
        postgres.administer_in(&name, before);
        let options = options(&redis, &postgres.url_as("app", &name));
        let asked = cured(&postgres, &options, &name);
        for told in told {
            assert!(asked.contains(told), "{told}: {asked}");
        }
        Larder::start(&options);
    }
}

#[test]
fn a_role_that_only_uses_the_tables_is_enough_where_nothing_is_to_be_migrated() {
    let (redis, postgres) = (RedisServer::start(), PostgresServer::start());
    let name = shared_database(&postgres);
    let owner = postgres.url_as("larder", &name);
    drop(Larder::start(&options(&redis, &owner)));
    postgres.administer_in(
        &name,
        "GRANT USAGE ON SCHEMA public TO app; GRANT SELECT ON users TO app;
         GRANT SELECT, INSERT, UPDATE ON archived_articles TO app",
    );
    let options = options(&redis, &postgres.url_as("app", &name));
    let asked = cured(&postgres, &options, &name);
    for told in [
        "no SELECT on the table public.larder_migrations",
        "no SELECT, INSERT, UPDATE, DELETE on the table public.api_keys:",
        "no SELECT, UPDATE on the table public.api_keys_version",
        "no DELETE on the table public.archived_articles",
        "no SELECT, INSERT, UPDATE, DELETE on the table public.larder_outbox",
        "no EXECUTE on the function public.larder_take_back(given text[])",
        "permission denied for table users: GRANT SELECT, INSERT ON users TO app",
        "permission denied for table employees: GRANT SELECT ON employees TO app",
    ] {
        assert!(asked.contains(told), "{told}: {asked}");
    }
    let larder = Larder::start(&options);
    let ada = json!({"name": "Ada", "email": "a@example.org"});
    let made = larder.post("/users", &ada).expect(201);
    larder.get(made.the("Location")).expect(200);
}

#[test]
fn a_pooler_that_lends_sessions_is_recognised() {
    let (redis, postgres) = (RedisServer::start(), PostgresServer::start());
    for settings in [
        "pool_mode = transaction",
        "pool_mode = transaction\nserver_round_robin = 1\nmin_pool_size = 2",
        "pool_mode = transaction\nserver_round_robin = 1\nmin_pool_size = 5",
        "pool_mode = transaction\ndefault_pool_size = 1",
        "pool_mode = statement",
    ] {
        let pooler = Pgbouncer::start(postgres.address(), settings);
        let options = options(&redis, &pooler.url("larder"));
        let (code, said) = check(&options);
        assert_eq!(code, Some(2), "{settings}: {said}");
        assert!(said.contains("pool_mode = session"), "{settings}: {said}");
        let mut refused = Larder::spawn(&options);
        assert_eq!(refused.ended().code(), Some(1), "{settings}");
        let log = refused.log();
        assert!(log.contains("pool_mode = session"), "{settings}: {log}");
    }
    let pooler = Pgbouncer::start(postgres.address(), "pool_mode = session");
    let url = pooler.url("larder");
    let options = options(&redis, &url);
    assert_eq!(check(&options).0, Some(0), "{}", check(&options).1);
    hears_of_changes(&postgres, &options, &url);
}
