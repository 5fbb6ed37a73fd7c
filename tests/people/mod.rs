//! The shipped users and employees: every route, on SQLite and on Postgres, with two replicas on
//! one Redis.

mod refused;

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use testkit::client::{Answer, Call};
use testkit::larder::{ADMIN_KEY, Larder, LarderOptions};
use testkit::postgres::PostgresServer;
use testkit::redis::RedisServer;
use testkit::{SOON, until};

const SHIPPED: &str = include_str!("../../config.toml");

/// Two replicas with the shipped configuration.
struct Directory {
    replicas: Vec<Larder>,
    redis: RedisServer,
    postgres: Option<PostgresServer>,
}

impl Directory {
    fn on_sqlite() -> Directory {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        Directory::start(SHIPPED, None, &folder)
    }

    fn on_postgres() -> Directory {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        Directory::start(SHIPPED, Some(PostgresServer::start()), &folder)
    }

    fn start(config: &str, postgres: Option<PostgresServer>, folder: &Arc<TempDir>) -> Directory {
        let redis = RedisServer::start();
        let mut options = LarderOptions::new(config)
            .in_folder(folder)
            .env("REDIS_URL", &redis.url());
        if let Some(postgres) = &postgres {
            options = options.env("DATABASE_URL", &postgres.url());
        }
        let replicas = Larder::start_many(2, &options);
        for replica in &replicas {
            until(SOON, "trust", || {
                replica.stats()["bus"]["trusted"] == json!(true)
            });
        }
        Directory {
            replicas,
            redis,
            postgres,
        }
    }

    fn near(&self) -> &Larder {
        &self.replicas[0]
    }

    fn far(&self) -> &Larder {
        &self.replicas[1]
    }

    /// Asks each replica for an answer that is not older than `after`. Returns the answer, which is
    /// the same on both.
    #[track_caller]
    fn everywhere(&self, path: &str, after: &Answer) -> Answer {
        let clock = after.the("Larder-Clock");
        let answers = self.replicas.iter().map(|replica| {
            let call = replica.call("GET", path).key(ADMIN_KEY);
            call.header("Larder-After", clock).send()
        });
        let mut answers: Vec<Answer> = answers.collect();
        let last = answers.pop().unwrap();
        assert_eq!(answers[0].status, last.status);
        assert_eq!(answers[0].text(), last.text());
        last
    }
}

fn on_each(test: impl Fn(&Directory)) {
    for directory in [Directory::on_sqlite(), Directory::on_postgres()] {
        test(&directory);
    }
}

fn put(larder: &Larder, path: &str, body: &Value) -> Call {
    larder.call("PUT", path).key(ADMIN_KEY).json(body)
}

fn tier(answer: &Answer) -> String {
    answer.the("Cache-Status").to_owned()
}

#[test]
fn users_are_made_read_changed_and_removed() {
    on_each(|directory| {
        let ada = json!({"name": "Ada", "email": "ada@example.org"});
        let made = directory.near().post("/users", &ada).expect(201);
        let id = made.json()["id"].as_i64().unwrap();
        let path = format!("/users/{id}");
        assert_eq!(made.the("Location"), path);
        assert_eq!(
            made.text(),
            format!(r#"{{"id":{id},"name":"Ada","email":"ada@example.org"}}"#)
        );

        let read = directory.everywhere(&path, &made).expect(200);
        assert_eq!(read.text(), made.text());
        assert_eq!(read.the("Content-Type"), "application/json");
        assert!(read.the("ETag").starts_with('"'), "strong: {read}");
        let again = directory.far().get(&path);
        assert!(tier(&again).starts_with("larder-memory; hit"), "{again}");
        let same = directory.far().call("GET", &path).key(ADMIN_KEY);
        let same = same.header("If-None-Match", read.the("ETag")).send();
        assert_eq!(same.status, 304);

        let changed = put(
            directory.far(),
            &path,
            &json!({"name": "Ada L.", "email": "a@example.org"}),
        );
        let changed = changed.send().expect(200);
        assert_eq!(changed.json()["name"], "Ada L.");
        let read = directory.everywhere(&path, &changed).expect(200);
        assert_eq!(read.text(), changed.text());

        let removed = directory.near().delete(&path).expect(204);
        assert!(removed.body.is_empty());
        directory.everywhere(&path, &removed).problem(404);
        directory.near().delete(&path).problem(404);
        put(directory.near(), &path, &ada).send().problem(404);
    });
}

#[test]
fn an_insert_frees_the_absence_that_was_cached() {
    on_each(|directory| {
        let ada = json!({"name": "Ada", "email": "ada@example.org"});
        let first = directory.near().post("/users", &ada).expect(201);
        let next = format!("/users/{}", first.json()["id"].as_i64().unwrap() + 1);
        for replica in &directory.replicas {
            replica.get(&next).problem(404);
        }
        // Its absence is cached for 5 s, which is longer than this takes on any machine that passes
        // the other tests.
        let made = directory.near().post("/users", &ada).expect(201);
        assert_eq!(made.the("Location"), next);
        assert_eq!(
            directory.everywhere(&next, &made).expect(200).text(),
            made.text()
        );
    });
}

#[test]
fn employees_are_wholes_of_a_profile_and_a_status() {
    on_each(|directory| {
        let wanted = json!({"name": "Grace", "title": "Admiral"});
        let made = directory.near().post("/employees", &wanted).expect(201);
        let id = made.json()["id"].as_i64().unwrap();
        let path = format!("/employees/{id}");
        assert_eq!(made.the("Location"), path);
        let read = directory.everywhere(&path, &made).expect(200);
        let body = read.json();
        assert_eq!(
            body,
            json!({"id": id, "name": "Grace", "title": "Admiral", "status": "out", "status_since": body["status_since"]})
        );
        let order = [
            "\"id\"",
            "\"name\"",
            "\"title\"",
            "\"status\"",
            "\"status_since\"",
        ];
        let places: Vec<_> = order.map(|name| read.text().find(name).unwrap()).into();
        assert!(places.is_sorted(), "{read}");
        let since = body["status_since"].as_str().unwrap();
        since.parse::<jiff::Timestamp>().expect("RFC 3339, in UTC");

        let status = format!("{path}/status");
        let came = put(directory.far(), &status, &json!({"status": "in"})).send();
        assert_eq!(came.clone().expect(200).json()["status"], "in");
        let read = directory.everywhere(&path, &came).expect(200).json();
        assert_eq!(
            (&read["status"], &read["name"]),
            (&json!("in"), &json!("Grace"))
        );
        let later = read["status_since"].clone();
        assert_ne!(later, body["status_since"]);
        let again = put(directory.far(), &status, &json!({"status": "in"}))
            .send()
            .expect(200);
        assert_eq!(
            again.json()["status_since"],
            later,
            "it has been so since then"
        );

        let renamed = put(
            directory.near(),
            &path,
            &json!({"name": "Grace H.", "title": "RDML"}),
        );
        let renamed = renamed.send().expect(200);
        let read = directory.everywhere(&path, &renamed).expect(200).json();
        assert_eq!(
            (&read["name"], &read["status"]),
            (&json!("Grace H."), &json!("in"))
        );

        let removed = directory.far().delete(&path).expect(204);
        directory.everywhere(&path, &removed).problem(404);
        directory.everywhere(&status, &removed).problem(404);
    });
}

#[test]
fn the_embedded_database_has_rows_to_begin_with() {
    let directory = Directory::on_sqlite();
    for path in ["/users/1", "/employees/1"] {
        assert_eq!(directory.near().get(path).expect(200).json()["id"], 1);
    }
    let directory = Directory::on_postgres();
    for path in ["/users/1", "/employees/1"] {
        directory.near().get(path).problem(404);
    }
}

#[test]
fn a_write_without_redis_is_told_as_pending_and_delivered_later() {
    let mut directory = Directory::on_postgres();
    let made = directory
        .near()
        .post("/users", &json!({"name": "Ada", "email": "a@example.org"}))
        .expect(201);
    let path = made.the("Location").to_owned();
    directory.everywhere(&path, &made).expect(200);
    directory.redis.stop();
    let body = json!({"name": "Ada L.", "email": "a@example.org"});
    let changed = put(directory.near(), &path, &body).send().expect(200);
    assert_eq!(changed.the("Larder-Pending"), "true");
    assert_eq!(changed.header("Larder-Clock"), None);
    assert_eq!(
        directory.near().get(&path).expect(200).json()["name"],
        "Ada L.",
        "here at once"
    );
    directory.redis.restart();
    until(SOON, "it is delivered", || {
        directory.near().stats()["bus"]["pending"] == json!(0)
    });
    until(SOON, "it is new there", || {
        directory.far().get(&path).json()["name"] == "Ada L."
    });
}

/// Waits until both replicas have a user's name.
#[track_caller]
fn until_named(directory: &Directory, path: &str, name: &str) {
    for replica in &directory.replicas {
        until(SOON, "it is new there", || {
            replica.get(path).json()["name"] == name
        });
    }
}

#[test]
fn what_psql_changes_is_fresh_on_both_replicas() {
    let mut directory = Directory::on_postgres();
    let ada = json!({"name": "Ada", "email": "a@example.org"});
    let made = directory.near().post("/users", &ada).expect(201);
    let path = made.the("Location").to_owned();
    let id = made.json()["id"].as_i64().unwrap();
    let psql = |directory: &Directory, sql: &str| directory.postgres.as_ref().unwrap().psql(sql);
    assert_eq!(
        psql(&directory, "SELECT larder_watch('users', 'user:{id}')"),
        "t"
    );
    let rename = |directory: &Directory, name: &str| {
        for replica in &directory.replicas {
            replica.get(&path).expect(200);
        }
        let sql = format!("UPDATE users SET name = '{name}' WHERE id = {id}");
        psql(directory, &sql);
    };
    rename(&directory, "while all runs");
    until_named(&directory, &path, "while all runs");

    rename(&directory, "before nobody listens");
    until(SOON, "the one that delivers is ended", || {
        let end =
            "SELECT count(pg_terminate_backend(pid)) FROM pg_locks WHERE locktype = 'advisory'";
        psql(&directory, end) == "1"
    });
    rename(&directory, "while nobody listens");
    until_named(&directory, &path, "while nobody listens");

    directory.redis.stop();
    rename(&directory, "while Redis is down");
    until_named(&directory, &path, "while Redis is down");
    directory.redis.restart();
    until(SOON, "nothing is left to deliver", || {
        psql(&directory, "SELECT count(*) FROM larder_outbox") == "0"
    });
    until_named(&directory, &path, "while Redis is down");

    for replica in &directory.replicas {
        until(SOON, "Redis is back for everybody", || {
            let stats = replica.stats();
            stats["redis"]["up"] == json!(true) && stats["bus"]["trusted"] == json!(true)
        });
    }
    // A write through larder to a watched table is delivered once, by its writer.
    let written = put(directory.near(), &path, &ada).send().expect(200);
    assert_eq!(directory.everywhere(&path, &written).json()["name"], "Ada");
    assert_eq!(psql(&directory, "SELECT count(*) FROM larder_outbox"), "0");
}

#[test]
fn a_name_is_asked_for_once_and_a_status_when_it_has_expired() {
    let directory = Directory::on_postgres();
    let postgres = directory.postgres.as_ref().unwrap();
    let made = directory
        .near()
        .post("/employees", &json!({"name": "Grace", "title": "Admiral"}))
        .expect(201);
    let path = made.the("Location").to_owned();
    postgres.log_statements();
    let began = Instant::now();
    let mut asked = 0u32;
    while began.elapsed() < Duration::from_secs(60) {
        for replica in &directory.replicas {
            replica.get(&path).expect(200);
            asked += 1;
        }
    }
    let took = began.elapsed();
    let log = postgres.log();
    let count = |what: &str| log.lines().filter(|line| line.contains(what)).count();
    let (names, states) = (
        count("SELECT id, name, title FROM employees"),
        count("SELECT status, status_since FROM employees"),
    );
    println!("{asked} requests in {took:?}: {names} queries for the name, {states} for the status");
    assert_eq!(names, 1);
    // Its TTL is 5 s, of which jitter takes off a tenth at most.
    let most = took.as_secs_f64() / 4.5 + 1.0;
    assert!(states >= 2 && states as f64 <= most, "{states} in {took:?}");
}
