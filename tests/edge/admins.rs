//! The audit log of admins, and the counting of unknown keys.

use std::io::Write;

use serde_json::{Value, json};

use super::{GUILTY, config, connect, read_to_end, statuses, upstream};
use testkit::client::Session;
use testkit::larder::{ADMIN_KEY, Larder, LarderOptions};
use testkit::upstream::FakeUpstream;

fn larder() -> (FakeUpstream, Larder) {
    let upstream = upstream();
    let larder = Larder::start(&LarderOptions::new(&config("", &upstream)));
    (upstream, larder)
}

/// The log line that contains all of these texts.
#[track_caller]
fn line(larder: &Larder, texts: &[&str]) {
    let log = larder.log();
    let found = log
        .lines()
        .any(|line| texts.iter().all(|text| line.contains(text)));
    assert!(found, "no line with {texts:?} in:\n{log}");
}

#[test]
fn what_an_admin_does_is_in_the_log_with_who_and_what() {
    let (_upstream, larder) = larder();
    let call = |method, target: &str, id: &str, key: &str, body: Option<Value>| {
        let call = larder
            .call(method, target)
            .key(key)
            .header("X-Request-Id", id);
        match body {
            Some(body) => call.json(&body).send(),
            None => call.send(),
        }
    };
    let made = json!({"name": "deploy bot", "admin": true});
    let made = call("POST", "/keys", "req-1", ADMIN_KEY, Some(made))
        .expect(201)
        .json();
    let (bot, key) = (made["id"].as_str().unwrap(), made["key"].as_str().unwrap());
    line(
        &larder,
        &[
            "created",
            bot,
            "\"deploy bot\"",
            "admin: true",
            "by the key admin \"LARDER_ADMIN_KEY\"",
            "id=req-1",
        ],
    );

    let by_bot = format!("by the key {bot} \"deploy bot\"");
    let invalidate = |id, body| call("POST", "/cache/invalidate", id, key, Some(body)).expect(200);
    invalidate("req-2", json!({"all": true}));
    line(&larder, &["invalidated", "everything", &by_bot, "id=req-2"]);
    invalidate("req-3", json!({"tags": ["a b", "c"], "soft": true}));
    line(
        &larder,
        &["invalidated", "a b", "(soft)", &by_bot, "id=req-3"],
    );
    let many: Vec<String> = (0..100).map(|n| format!("tag{n}")).collect();
    invalidate("req-4", json!({ "tags": many }));
    line(
        &larder,
        &["invalidated", "and 90 more", &by_bot, "id=req-4"],
    );

    let target = format!("/keys/{bot}");
    call("DELETE", &target, "req-5", ADMIN_KEY, None).expect(204);
    line(&larder, &["revoked", bot, "LARDER_ADMIN_KEY", "id=req-5"]);
    // Refused actions are not logged as done, and no key is logged.
    call("DELETE", &target, "req-6", ADMIN_KEY, None).problem(404);
    call(
        "POST",
        "/keys",
        "req-7",
        ADMIN_KEY,
        Some(json!({"name": ""})),
    )
    .problem(422);
    let log = larder.log();
    for absent in ["req-6", "req-7", key, ADMIN_KEY] {
        assert!(!log.contains(absent), "{absent} in:\n{log}");
    }
}

#[test]
fn unknown_keys_are_counted_and_slowed_by_address_and_valid_ones_pass() {
    let (_upstream, larder) = larder();
    let (_, valid) = larder.create_key(&json!({"name": "reader"}));
    let guess = |n: usize| {
        format!("GET /closed/1 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer guess-{n}\r\n\r\n")
    };
    let mut seen = Vec::new();
    for round in 0..20 {
        let mut stream = connect(GUILTY, larder.address()).unwrap();
        let guesses: String = (0..100).map(|n| guess(100 * round + n)).collect();
        let _ = stream.write_all(guesses.as_bytes());
        seen.extend(statuses(&read_to_end(&mut stream)));
    }
    // The rest of the 2,000 keys were not looked up: after thirty guesses, each one needs a permit.
    let count = |status| seen.iter().filter(|seen| **seen == status).count();
    assert!(count(401) >= 30 && count(401) < 60, "{seen:?}");
    assert_eq!(count(401) + count(429), seen.len());
    assert!(seen.len() < 100, "{}", seen.len());
    let stats = larder.stats();
    assert_eq!(stats["unknown_keys"]["refused"], seen.len());
    assert_eq!(stats["unknown_keys"]["slowed"], count(429));
    let log = larder.log();
    assert_eq!(
        log.matches("unknown API keys in a minute").count(),
        1,
        "{log}"
    );
    assert!(
        log.contains(&GUILTY.to_string()) && !log.contains("guess-"),
        "{log}"
    );

    // A valid key from the same address, as behind a proxy.
    for n in 0..5 {
        let mut stream = connect(GUILTY, larder.address()).unwrap();
        write!(stream, "GET /closed/1 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {valid}\r\nConnection: close\r\n\r\n")
            .unwrap();
        assert_eq!(statuses(&read_to_end(&mut stream)), [200]);
        let mut stream = connect(GUILTY, larder.address()).unwrap();
        stream.write_all(guess(n).as_bytes()).unwrap();
        let refused = read_to_end(&mut stream);
        assert!(refused.contains("retry-after: "), "{refused}");
    }
    // Another address has thirty guesses of its own. A request without a key is not a guess.
    let other = larder.call("GET", "/closed/1").key("guess").send();
    other.problem(401);
    for _ in 0..50 {
        larder.call("GET", "/closed/1").send().problem(401);
    }
}

#[test]
fn a_session_survives_a_wrong_key() {
    let (_upstream, larder) = larder();
    let mut session = Session::connect(larder.address()).unwrap();
    session.get("/closed/1", "wrong").unwrap().problem(401);
    session.get("/closed/1", ADMIN_KEY).unwrap().expect(200);
}

#[test]
fn a_file_that_may_not_grow_is_an_error_and_not_the_end() {
    let upstream = upstream();
    // In blocks of 512 bytes: enough for a new database, but not for its log.
    let options = LarderOptions::new(&config("", &upstream)).limited("ulimit -f 1600");
    let mut larder = Larder::start(&options);
    larder.get("/closed/1").expect(200);
    let full = (0..2_000).any(|n| {
        let made = larder.post("/keys", &json!({"name": format!("key {n}")}));
        assert!([201, 503].contains(&made.status), "{made}");
        made.status == 503
    });
    assert!(full, "the limit was never met");
    larder.call("GET", "/healthz").send().expect(200);
    larder.get("/closed/1").expect(200);
    assert_eq!(larder.stop().code(), Some(0));
}
