//! API keys: rights, rates, and how soon a revoked key is refused.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::edge::{exchange, statuses};
use testkit::larder::{ADMIN_KEY, Larder, LarderOptions};
use testkit::news::{News, NewsConfig};
use testkit::postgres::PostgresServer;
use testkit::redis::RedisServer;
use testkit::{SOON, free_address, until};

const PATH: &str = "/articles?category=science";

/// The default `max_staleness` of `NewsConfig`.
const MAX_STALENESS: Duration = Duration::from_secs(1);

fn status(larder: &Larder, key: &str) -> u16 {
    larder.call("GET", PATH).key(key).send().status
}

/// The same from another address, where unknown keys are counted separately.
fn status_elsewhere(larder: &Larder, key: &str) -> u16 {
    let request = format!(
        "GET {PATH} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {key}\r\n\r\n"
    );
    statuses(&exchange(larder, &request))[0]
}

#[test]
fn a_request_without_a_valid_key_is_refused() {
    let (redis, news) = (RedisServer::start(), News::start());
    let larder = NewsConfig::default().start(&news, &redis);
    let (id, key) = larder.create_key(&json!({"name": "reader"}));
    assert_eq!(status(&larder, &key), 200);

    let secret = key.rsplit('_').next().unwrap();
    let other = key.replace(secret, &secret.chars().rev().collect::<String>());
    let longer = format!("{key}x");
    for authorization in [
        None,
        Some("Bearer".to_owned()),
        Some("Bearer ".to_owned()),
        Some("Bearer nonsense".to_owned()),
        Some("Bearer lk_".to_owned()),
        Some(format!("Bearer {id}")),
        Some(format!("Bearer {other}")),
        Some(format!("Bearer {longer}")),
        Some(format!("Bearer {}", &key[..key.len() - 1])),
        Some(format!("Basic {key}")),
        Some(key.clone()),
        Some(format!("Bearer {}", &ADMIN_KEY[1..])),
    ] {
        let mut call = larder.call("GET", PATH);
        if let Some(value) = &authorization {
            call = call.header("Authorization", value);
        }
        let answer = call.send();
        answer.problem(401);
        assert_eq!(
            answer.the("WWW-Authenticate"),
            "Bearer",
            "{authorization:?}"
        );
        assert!(!answer.mentions(secret), "{answer}");
        // Only a well-formed key can have been revoked.
        let is_key = authorization.is_some_and(|value| value.trim_end().starts_with("Bearer "));
        assert_eq!(answer.mentions("revoked"), is_key, "{answer}");
    }
    // Public routes need no key.
    for open in ["/healthz", "/readyz"] {
        larder.call("GET", open).send().expect(200);
    }
}

#[test]
fn a_key_without_admin_rights_may_only_read() {
    let (redis, news) = (RedisServer::start(), News::start());
    let larder = NewsConfig::default().start(&news, &redis);
    let (reader_id, reader) = larder.create_key(&json!({"name": "reader"}));
    let (_, admin) = larder.create_key(&json!({"name": "second admin", "admin": true}));
    for (method, target) in [
        ("GET", "/cache/stats"),
        ("GET", "/keys"),
        ("POST", "/keys"),
        ("DELETE", &format!("/keys/{reader_id}")),
    ] {
        let call = larder.call(method, target).key(&reader);
        call.json(&json!({"name": "x"})).send().problem(403);
    }
    let list = larder.call("GET", "/keys").key(&admin).send().expect(200);
    assert!(
        list.mentions("second admin") && list.mentions(&reader_id),
        "{list}"
    );
    assert_eq!(status(&larder, &reader), 200);
}

#[test]
fn a_public_resource_needs_no_key() {
    let (redis, news) = (RedisServer::start(), News::start());
    let config = NewsConfig {
        public: true,
        ..NewsConfig::default()
    };
    let larder = config.start(&news, &redis);
    larder.call("GET", PATH).send().expect(200);
    larder.call("GET", "/keys").send().problem(401);
}

#[test]
fn a_key_is_made_shown_once_and_listed() {
    let (redis, news) = (RedisServer::start(), News::start());
    let larder = NewsConfig::default().start(&news, &redis);
    let answer = larder
        .post("/keys", &json!({"name": "the app", "rate": "7/1s"}))
        .expect(201);
    let made = answer.json();
    let (id, key) = (made["id"].as_str().unwrap(), made["key"].as_str().unwrap());
    assert_eq!(made["name"], "the app");
    assert!(key.starts_with(&format!("lk_{id}_")), "{made}");

    let listed = || {
        let list = larder.get("/keys").expect(200).json();
        let keys = list["keys"].as_array().unwrap().clone();
        keys.into_iter().find(|entry| entry["id"] == id)
    };
    let entry = listed().unwrap();
    assert_eq!(
        (&entry["name"], &entry["rate"]),
        (&json!("the app"), &json!("7/1s"))
    );
    assert_eq!(entry["admin"], false);
    assert!(
        !entry["created_at"].is_null() && entry["last_used_at"].is_null(),
        "{entry}"
    );
    let secret = key.rsplit('_').next().unwrap();
    assert!(!larder.get("/keys").mentions(secret));

    larder.delete(&format!("/keys/{id}")).expect(204);
    assert!(listed().is_none());
    larder.delete(&format!("/keys/{id}")).problem(404);
}

#[test]
fn a_request_for_an_invalid_key_is_refused() {
    let (redis, news) = (RedisServer::start(), News::start());
    let larder = NewsConfig::default().start(&news, &redis);
    let before = larder.get("/keys").expect(200).json();
    for body in [
        json!({}),
        json!([]),
        json!({"name": 7}),
        json!({"name": ""}),
        json!({"name": "   "}),
        json!({"name": "x".repeat(101)}),
        json!({"name": "a\u{1b}[31mred"}),
        json!({"name": "x", "rate": "fast"}),
        json!({"name": "x", "rate": "0/1m"}),
        json!({"name": "x", "admin": "yes"}),
    ] {
        larder.post("/keys", &body).problem(422);
    }
    let post = || larder.call("POST", "/keys").key(ADMIN_KEY);
    let twice = post()
        .header("Content-Type", "application/json")
        .body(r#"{"name":"x","admin":false,"admin":true}"#)
        .send();
    twice.problem(422);
    assert_eq!(twice.json()["field"], "admin");
    let cut = post()
        .header("Content-Type", "application/json")
        .body("{\"name\":");
    cut.send().problem(400);
    let text = post()
        .header("Content-Type", "text/plain")
        .body("{\"name\":\"x\"}");
    text.send().problem(415);
    assert_eq!(larder.get("/keys").expect(200).json(), before);
}

#[test]
fn a_body_that_does_not_come_is_not_waited_for() {
    let (redis, news) = (RedisServer::start(), News::start());
    let larder = NewsConfig::default().start(&news, &redis);
    let began = Instant::now();
    let never = larder.call("POST", "/keys").key(ADMIN_KEY);
    let never = never
        .header("Content-Type", "application/json")
        .header("Content-Length", "20")
        .send();
    never.problem(408);
    assert!(never.the("Connection").eq_ignore_ascii_case("close"));
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
}

#[test]
fn a_key_has_a_rate_of_its_own() {
    let (redis, news) = (RedisServer::start(), News::start());
    let config = NewsConfig {
        rate: "4/1h",
        ..NewsConfig::default()
    };
    let larder = config.start(&news, &redis);
    let allowed = |body: serde_json::Value| {
        let (_, key) = larder.create_key(&body);
        let mut allowed = 0;
        for _ in 0..10 {
            let answer = larder.call("GET", PATH).key(&key).send();
            if answer.status == 200 {
                allowed += 1;
                continue;
            }
            answer.problem(429);
            let wait: u32 = answer.the("Retry-After").parse().unwrap();
            assert!((1..=3600).contains(&wait), "{answer}");
        }
        allowed
    };
    assert_eq!(allowed(json!({"name": "by default"})), 4);
    assert_eq!(allowed(json!({"name": "slow", "rate": "2/1h"})), 2);
    assert_eq!(allowed(json!({"name": "fast", "rate": "100/1m"})), 10);
    assert_eq!(allowed(json!({"name": "free", "rate": "unlimited"})), 10);
}

/// Revokes a key on one replica, and waits until another one refuses it.
fn revoked_here_at_once_and_there_within_max_staleness(options: &LarderOptions) {
    let replicas = Larder::start_many(2, options);
    // A key made here works there as soon as that replica has heard of it.
    let (id, key) = replicas[0].create_key(&json!({"name": "reader"}));
    assert_eq!(status(&replicas[0], &key), 200);
    until(SOON, "the other replica knows the key", || {
        status_elsewhere(&replicas[1], &key) == 200
    });

    replicas[0].delete(&format!("/keys/{id}")).expect(204);
    let acknowledged = Instant::now();
    assert_eq!(status(&replicas[0], &key), 401);
    loop {
        let began = acknowledged.elapsed();
        let status = status(&replicas[1], &key);
        if status == 401 {
            break;
        }
        assert!(
            began <= MAX_STALENESS,
            "{status} for a request {began:?} after the key was revoked"
        );
    }
}

/// The address of a Redis that does not run.
fn no_redis() -> String {
    format!("redis://{}", free_address())
}

#[test]
fn a_revoked_key_is_refused_on_every_database_with_redis_and_without() {
    let (redis, news, postgres) = (RedisServer::start(), News::start(), PostgresServer::start());
    for redis_url in [redis.url(), no_redis()] {
        let options = NewsConfig::default().options_at(&news, &redis_url);
        let folder = Arc::new(tempfile::tempdir().unwrap());
        revoked_here_at_once_and_there_within_max_staleness(&options.clone().in_folder(&folder));
        let options = options.env("DATABASE_URL", &postgres.new_database());
        revoked_here_at_once_and_there_within_max_staleness(&options);
    }
}

#[test]
fn the_key_commands_do_the_same_beside_a_running_server() {
    let (redis, news) = (RedisServer::start(), News::start());
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let options = NewsConfig::default()
        .options(&news, &redis)
        .in_folder(&folder);
    let larder = Larder::start(&options);
    let run = |arguments: &[&str]| {
        let output = options.run(arguments);
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        (
            output.status.code().unwrap(),
            text(&output.stdout),
            text(&output.stderr),
        )
    };

    let (code, out, err) = run(&[
        "key",
        "create",
        "--name",
        "from the shell",
        "--rate",
        "3/1h",
    ]);
    assert_eq!(code, 0, "{err}");
    let key = out.trim_end();
    assert!(key.starts_with("lk_") && key.lines().count() == 1, "{out}");
    assert!(!err.contains(key), "{err}");
    until(SOON, "the server knows the key", || {
        status(&larder, key) == 200
    });

    let (code, list, _) = run(&["key", "list"]);
    let id = key.split('_').nth(1).unwrap();
    let secret = key.split('_').nth(2).unwrap();
    let line = list.lines().find(|line| line.contains(id));
    let line = line.unwrap_or_else(|| panic!("{list}"));
    assert!(
        code == 0 && line.contains("from the shell") && line.contains("3/1h"),
        "{list}"
    );
    assert!(!list.contains(secret), "{list}");

    assert_eq!(run(&["key", "revoke", id]).0, 0);
    until(MAX_STALENESS * 2, "the server refuses the key", || {
        status(&larder, key) == 401
    });
    assert_eq!(run(&["key", "revoke", id]).0, 1);
    for wrong in [
        &["key", "create"][..],
        &["key", "create", "--name", "x", "--rate", "fast"],
        &[
            "key",
            "create",
            "--name",
            "x",
            "--rate",
            "1/1s",
            "--unlimited",
        ],
        &["key"],
    ] {
        assert_eq!(run(wrong).0, 2, "{wrong:?}");
    }
}

#[test]
fn known_keys_work_while_the_database_is_down() {
    let (redis, news) = (RedisServer::start(), News::start());
    let mut postgres = PostgresServer::start();
    let options = NewsConfig::default().options(&news, &redis);
    let larder = Larder::start(&options.env("DATABASE_URL", &postgres.url()));
    let (_, key) = larder.create_key(&json!({"name": "reader"}));
    assert_eq!(status(&larder, &key), 200);
    let ready = || larder.call("GET", "/readyz").send().status;

    postgres.stop();
    until(SOON, "not ready without its database", || ready() == 503);
    assert_eq!(status(&larder, &key), 200);
    assert_eq!(
        status(&larder, "lk_000000000000_00000000000000000000000000000000"),
        401
    );
    // This one is not in the cache, so it is loaded, though it cannot be archived.
    let other = larder.call("GET", "/articles?category=health").key(&key);
    other.send().expect(200);
    let refused = larder.post("/keys", &json!({"name": "x"}));
    assert!(refused.status >= 500, "{refused}");
    refused.problem(refused.status);
    assert!(
        !refused.mentions("SELECT") && !refused.mentions("INSERT"),
        "{refused}"
    );

    postgres.restart();
    until(SOON, "ready with it", || ready() == 200);
    larder.create_key(&json!({"name": "y"}));
}

#[test]
fn a_long_list_comes_in_pages_and_a_short_one_as_it_is() {
    let larder = Larder::start(&LarderOptions::new(""));
    for name in ["a", "b", "c", "d", "e"] {
        larder.create_key(&json!({"name": name}));
    }
    let all = larder.get("/keys").expect(200).json();
    assert_eq!(all["keys"].as_array().unwrap().len(), 5);
    assert!(all.get("next").is_none(), "{all}");
    let mut paged = Vec::new();
    let mut path = "/keys?limit=2".to_owned();
    loop {
        let page = larder.get(&path).expect(200).json();
        let keys = page["keys"].as_array().unwrap();
        assert!(keys.len() <= 2, "{page}");
        paged.extend(keys.clone());
        let Some(next) = page.get("next") else { break };
        // A client that revokes each key that it lists can go on where the page ended.
        let last = keys.last().unwrap()["id"].as_str().unwrap();
        larder.delete(&format!("/keys/{last}")).expect(204);
        path = format!("/keys?limit=2&after={}", next.as_str().unwrap());
    }
    assert_eq!(Value::from(paged), all["keys"]);
    assert_eq!(
        larder.get("/keys").json()["keys"].as_array().unwrap().len(),
        3
    );
    for wrong in ["limit=0", "limit=10001", "limit=x", "after=x", "after="] {
        larder.get(&format!("/keys?{wrong}")).problem(400);
    }
}
