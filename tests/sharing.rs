//! Replicas on one Redis share what has the same source, and nothing else.

use std::sync::Arc;

use serde_json::{Value, json};

use testkit::larder::{ADMIN_KEY, Larder, LarderOptions};
use testkit::news::{NEWSAPI_KEY, News, NewsConfig, titles};
use testkit::postgres::PostgresServer;
use testkit::redis::RedisServer;
use testkit::upstream::{Behaviour, FakeUpstream, Response};

const SHIPPED: &str = include_str!("../config.toml");

/// Whether an answer at this path of `larder` came from Redis, and its JSON.
#[track_caller]
fn read(larder: &Larder, path: &str) -> (bool, Value) {
    let answer = larder.get(path).expect(200);
    let shared = answer.the("Cache-Status").contains("larder-redis; hit");
    (shared, answer.json())
}

fn on(redis: &RedisServer) -> LarderOptions {
    LarderOptions::new(SHIPPED).env("REDIS_URL", &redis.url())
}

/// Starts a larder with each of `options`, and has each of them give user 1 a name of its own.
/// Returns what each then reads: whether it came from Redis, and the name.
#[track_caller]
fn named(options: &[LarderOptions]) -> Vec<(bool, String)> {
    let larders: Vec<Larder> = options.iter().map(Larder::start).collect();
    // A new Postgres has no users.
    let first = json!({"name": "first", "email": "x@example.com"});
    for larder in &larders {
        let post = larder.call("POST", "/users").key(ADMIN_KEY);
        post.json(&first).send().expect(201);
    }
    for (at, larder) in larders.iter().enumerate() {
        let user = json!({"name": format!("of {at}"), "email": "x@example.com"});
        larder.put("/users/1", &user).expect(200);
    }
    let read = larders.iter().map(|larder| {
        let (shared, user) = read(larder, "/users/1");
        (shared, user["name"].as_str().unwrap().to_owned())
    });
    read.collect()
}

#[test]
fn two_databases_share_no_rows() {
    let redis = RedisServer::start();
    let apart = [(false, "of 0".to_owned()), (false, "of 1".to_owned())];
    assert_eq!(named(&[on(&redis), on(&redis)]), apart);
    // An employee is a composite of two parts.
    let larders = Larder::start_many(2, &on(&redis));
    for (larder, status) in larders.iter().zip(["in", "out"]) {
        larder
            .put("/employees/1/status", &json!({ "status": status }))
            .expect(200);
    }
    for (larder, status) in larders.iter().zip(["in", "out"]) {
        let (shared, employee) = read(larder, "/employees/1");
        assert_eq!((shared, &employee["status"]), (false, &json!(status)));
    }
    let postgres = PostgresServer::start();
    let one = || on(&redis).env("DATABASE_URL", &postgres.new_database());
    assert_eq!(named(&[one(), one()]), apart);
}

#[test]
fn one_database_is_shared_whichever_way_it_is_reached() {
    let redis = RedisServer::start();
    let shared = [(false, "of 1".to_owned()), (true, "of 1".to_owned())];
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let place = format!("sqlite://{}/larder.db", folder.path().display());
    let one = on(&redis).in_folder(&folder);
    assert_eq!(
        named(&[one.clone(), one.env("DATABASE_URL", &place)]),
        shared
    );
    let postgres = PostgresServer::start();
    let url = postgres.new_database();
    let other = url.replace("127.0.0.1", "localhost");
    assert_ne!(url, other);
    let at = |url: &str| on(&redis).env("DATABASE_URL", url);
    assert_eq!(named(&[at(&url), at(&other)]), shared);
}

#[test]
fn a_copy_gets_an_identity_of_its_own_when_that_is_removed() {
    let redis = RedisServer::start();
    let folders = [0, 1].map(|_| Arc::new(tempfile::tempdir().unwrap()));
    let options = |at: usize| on(&redis).in_folder(&folders[at]);
    let mut original = Larder::start(&options(0));
    assert!(original.stop().success());
    for copied in ["larder.db", "larder.db-wal"] {
        let [from, to] = [0, 1].map(|at| folders[at].path().join(copied));
        if from.exists() {
            std::fs::copy(from, to).unwrap();
        }
    }
    // Like a dump, the copy has the identity of the original, so both share entries in Redis.
    let shared = [(false, "of 0".to_owned()), (true, "of 0".to_owned())];
    assert_eq!(named(&[options(0), options(1)]), shared);
    let copy = rusqlite::Connection::open(folders[1].path().join("larder.db")).unwrap();
    copy.execute("DELETE FROM larder_identity", []).unwrap();
    drop(copy);
    let apart = [(false, "of 0".to_owned()), (false, "of 1".to_owned())];
    assert_eq!(named(&[options(0), options(1)]), apart);
}

#[test]
fn an_upstream_asked_with_another_account_is_another_source() {
    let origin = FakeUpstream::start(Behaviour::answer(|request| {
        let of = request.header("X-Key").unwrap_or_default();
        Response::json(200, &json!({"plan": of.len(), "path": request.path}))
    }));
    let (redis, address) = (RedisServer::start(), origin.address());
    let config = "[resource.plan]
path = \"/plan\"
source = { http = \"${BASE}/plan\", headers = { \"X-Key\" = \"${ACCOUNT}\" } }
ttl = { memory = \"1h\", redis = \"1h\" }
";
    let base = format!("http://{address}/a");
    let with = |base: &str, account: &str| {
        LarderOptions::new(config)
            .env("REDIS_URL", &redis.url())
            .env("BASE", base)
            .env("ACCOUNT", account)
    };
    let (first, second) = ("hunter2", "another-secret");
    let plan = |options: &LarderOptions| {
        let (shared, body) = read(&Larder::start(options), "/plan");
        (
            shared,
            body["plan"].as_u64().unwrap(),
            body["path"].as_str().unwrap().to_owned(),
        )
    };
    let a = || "/a/plan".to_owned();
    assert_eq!(plan(&with(&base, first)), (false, 7, a()));
    assert_eq!(plan(&with(&base, first)), (true, 7, a()));
    assert_eq!(plan(&with(&base, second)), (false, 14, a()));
    let elsewhere = format!("http://{address}/b");
    assert_eq!(
        plan(&with(&elsewhere, first)),
        (false, 7, "/b/plan".to_owned())
    );
    let kept = redis.everything();
    let kept = String::from_utf8_lossy(&kept);
    for secret in [first, second, &address.to_string()] {
        assert!(!kept.contains(secret), "{kept}");
    }
}

#[test]
fn news_of_another_account_or_of_the_sandbox_are_others() {
    let (redis, news) = (RedisServer::start(), News::start());
    let path = "/articles?category=science";
    let usual = NewsConfig::default().options(&news, &redis);
    let shared = |options: &LarderOptions| read(&Larder::start(options), path);
    assert!(!shared(&usual).0);
    assert!(
        shared(&usual).0,
        "one account is one, whatever database its articles go to"
    );
    let (also, body) = shared(&usual.clone().env("NEWSAPI_KEY", "another-key-of-newsapi"));
    assert!(!also && !titles(&body).is_empty());
    assert_eq!(news.calls(), (2, 2));
    let own = format!("http://{}/v2", news.newsapi.address());
    let made_up = usual
        .without_env("NEWSAPI_KEY")
        .with_config_text(&own, "https://newsapi.org/v2");
    let (also, body) = shared(&made_up);
    assert_eq!((also, &body["sandbox"]), (false, &json!(true)));
    assert_eq!(news.newsapi.calls(), 2);
    let kept = redis.everything();
    assert!(!String::from_utf8_lossy(&kept).contains(NEWSAPI_KEY));
}
