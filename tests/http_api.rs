//! An HTTP API as a resource: declared in a few lines, cached and revalidated.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use serde_json::json;

use testkit::larder::{Larder, LarderOptions};
use testkit::redis::RedisServer;
use testkit::upstream::{Behaviour, FakeUpstream, Request, Response};
use testkit::{SOON, until};

/// An origin that answers with `script`.
fn origin(script: impl Fn(&Request) -> Response + Send + Sync + 'static) -> FakeUpstream {
    FakeUpstream::start(Behaviour::answer(script))
}

/// An object that counts the calls for it: `{"count":1}`, then 2.
fn counting() -> impl Fn() -> Response + Send + Sync + 'static {
    let calls = AtomicUsize::new(0);
    move || {
        Response::json(
            200,
            &json!({"count": calls.fetch_add(1, Ordering::SeqCst) + 1}),
        )
    }
}

/// The configuration that the documentation shows, for this origin.
fn quotes(origin: &FakeUpstream) -> String {
    format!(
        "[resource.quote]
path = \"/quote/{{symbol}}\"
params.symbol = {{ type = \"string\", pattern = \"[A-Z]{{1,5}}\" }}
source = {{ http = \"http://{}/v1/quote/{{symbol}}\", headers = {{ \"X-Key\" = \"${{QUOTE_KEY}}\" }}, upstream = \"quotes\" }}
ttl = {{ memory = \"1h\", redis = \"1h\" }}
[upstream.quotes]
timeout = \"2s\"
quota = [\"60/1m\"]
",
        origin.address()
    )
}

const KEY: &str = "a-quote-key-that-nobody-may-see";

#[test]
fn ten_lines_make_an_http_resource() {
    let origin = origin(|request| match request.path.as_str() {
        "/v1/quote/AAPL" => Response::text(200, r#"{"price": 1.10, "n": 12345678901234567890}"#)
            .with("Content-Type", "application/json"),
        "/v1/quote/DOWN" => Response::text(500, "oh no"),
        _ => Response::text(404, "nothing here"),
    });
    let config = quotes(&origin);
    assert!(config.lines().count() <= 10);
    let larder = Larder::start(&LarderOptions::new(&config).env("QUOTE_KEY", KEY));
    let first = larder.get("/quote/AAPL").expect(200);
    assert_eq!(
        first.text(),
        r#"{"price": 1.10, "n": 12345678901234567890}"#
    );
    assert!(first.the("ETag").starts_with('"'), "{first}");
    let second = larder.get("/quote/AAPL").expect(200);
    assert!(
        second.the("Cache-Status").starts_with("larder-memory; hit"),
        "{second}"
    );
    assert_eq!(origin.calls(), 1);
    assert_eq!(origin.requests()[0].header("X-Key"), Some(KEY));

    for _ in 0..2 {
        larder.get("/quote/NONE").problem(404);
    }
    assert_eq!(origin.calls(), 2, "absence is cached");
    let failed = larder.get("/quote/DOWN");
    failed.problem(502);
    larder.get("/quote/down").problem(400);
    larder.get("/quote/..%2F..").problem(400);
    for text in [failed.to_string(), larder.log()] {
        assert!(!text.contains(KEY), "{text}");
    }
    origin.behave(Behaviour::Silence);
    larder.get("/quote/SLOW").problem(504);
    origin.behave(Behaviour::always(Response::text(200, "<html>")));
    larder.get("/quote/HTML").problem(502);
}

#[test]
fn a_quota_is_shared_and_spent_once() {
    let answer = counting();
    let origin = origin(move |_| answer());
    let redis = RedisServer::start();
    let config = quotes(&origin).replace("60/1m", "3/1h");
    let options = LarderOptions::new(&config)
        .env("QUOTE_KEY", KEY)
        .env("REDIS_URL", &redis.url());
    let replicas = Larder::start_many(2, &options);
    for symbol in ["A", "B", "C"] {
        for replica in &replicas {
            replica.get(&format!("/quote/{symbol}")).expect(200);
        }
    }
    for replica in &replicas {
        let spent = replica.get("/quote/D");
        spent.problem(503);
        let wait: u64 = spent.the("Retry-After").parse().unwrap();
        assert!(wait > 3000, "{spent}");
    }
    assert_eq!(origin.calls(), 3);
    until(SOON, "it is said once", || {
        replicas
            .iter()
            .any(|replica| replica.log().contains("quota"))
    });
}

#[test]
fn the_upstream_can_set_the_ttl() {
    let answer = counting();
    let origin = origin(move |request| {
        let answer = answer();
        match request.path.as_str() {
            "/long" => answer.with("Cache-Control", "public, max-age=3600"),
            "/never" => answer.with("Cache-Control", "no-store"),
            "/aged" => answer.with("Cache-Control", "max-age=60").with("Age", "60"),
            _ => answer,
        }
    });
    let config = format!(
        "[resource.any]
path = \"/any/{{name}}\"
params.name = {{ type = \"string\" }}
source = {{ http = \"http://{}/{{name}}\", pick = \"/count\" }}
ttl = \"upstream\"
",
        origin.address()
    );
    let redis = RedisServer::start();
    let options = LarderOptions::new(&config).env("REDIS_URL", &redis.url());
    let replicas = Larder::start_many(2, &options);
    let get = |name: &str| {
        let path = format!("/any/{name}");
        replicas
            .iter()
            .map(|replica| replica.get(&path).expect(200).text())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        get("long"),
        ["1", "1"],
        "one load for both replicas, for an hour"
    );
    assert_eq!(get("long"), ["1", "1"]);
    assert_eq!(get("never"), ["2", "3"]);
    assert_eq!(get("aged"), ["4", "5"]);
    assert_eq!(get("unsaid"), ["6", "7"]);
    assert_eq!(origin.calls(), 7);
    let stored = redis.keys("larder:v:*");
    assert_eq!(stored.len(), 1, "what may not be kept is not: {stored:?}");
    let hit = replicas[0].get("/any/long").expect(200);
    assert!((3000..=3600).contains(&hit.memory_ttl()), "{hit}");
}

#[test]
fn a_stale_entry_is_confirmed_without_a_new_body() {
    let version = Arc::new(AtomicU32::new(1));
    let now = version.clone();
    let origin = origin(move |request| {
        let tag = format!("\"v{}\"", now.load(Ordering::SeqCst));
        Response::text(200, &format!("{{\"version\": {tag:?}}}"))
            .with("Content-Type", "application/json")
            .with("ETag", &tag)
            .unless_known(request)
    });
    let config = format!(
        "[resource.doc]
path = \"/doc\"
source = {{ http = \"http://{}/doc\" }}
ttl = {{ memory = \"200ms\", redis = \"200ms\" }}
tags = [\"doc\"]
",
        origin.address()
    );
    let redis = RedisServer::start();
    let options = LarderOptions::new(&config).env("REDIS_URL", &redis.url());
    let larder = Larder::start(&options);
    let first = larder.get("/doc").expect(200);
    let loads = |at_least: usize| {
        until(SOON, "another load", || {
            let again = larder.get("/doc").expect(200);
            assert_eq!(again.text(), first.text());
            assert_eq!(again.the("ETag"), first.the("ETag"), "the very same value");
            origin.calls() >= at_least
        })
    };
    loads(3);
    let conditions = |from: usize| -> Vec<Option<String>> {
        origin.requests()[from..]
            .iter()
            .map(|request| request.header("If-None-Match").map(str::to_owned))
            .collect()
    };
    let seen = conditions(0);
    assert_eq!(seen[0], None);
    assert!(
        seen[1..].iter().all(|tag| tag.as_deref() == Some("\"v1\"")),
        "{seen:?}"
    );
    version.store(2, Ordering::SeqCst);
    until(SOON, "the new version", || {
        larder.get("/doc").text() != first.text()
    });
    // After an invalidation the value is fetched anew, whatever the upstream would confirm.
    let before = origin.calls();
    larder
        .post("/cache/invalidate", &json!({"tags": ["doc"]}))
        .expect(200);
    larder.get("/doc").expect(200);
    assert_eq!(conditions(before)[0], None);
    // Another replica confirms the value that this one stored in Redis.
    let other = Larder::start(&options);
    let before = origin.calls();
    until(SOON, "what Redis has is no longer fresh", || {
        other.get("/doc").expect(200);
        origin.calls() > before
    });
    assert_eq!(conditions(before)[0].as_deref(), Some("\"v2\""));
}

#[test]
fn what_is_wrong_with_an_api_is_told_by_check() {
    let config = "[resource.a]
path = \"/a/{x}\"
params.x = { type = \"string\" }
source = { http = \"ftp://host/{x}\", pick = \"no-pointer\" }
ttl = { memory = \"1s\", redis = \"5s\" }
[resource.b]
path = \"/b/{x}\"
params.x = { type = \"string\" }
source = { http = \"https://{x}/\", headers = { \"X-Key\" = \"${NOT_SET}\" } }
ttl = \"upstraem\"
[resource.c]
path = \"/c\"
source = { http = \"https://host/{y}\", query = { q = \"{z}\" } }
ttl = { memory = \"1s\", redis = \"5s\" }
[upstream.nobodys]
timeout = \"2s\"
";
    let checked = LarderOptions::new(config).run(&["check"]);
    let said = String::from_utf8_lossy(&checked.stderr).into_owned();
    assert_eq!(checked.status.code(), Some(2), "{said}");
    for (line, key) in [
        (4, "resource.a.source.http"),
        (4, "resource.a.source.pick"),
        (9, "resource.b.source.headers.X-Key"),
        (10, "resource.b.ttl"),
        (13, "resource.c.source.http"),
        (13, "resource.c.source.query.q"),
        (15, "upstream.nobodys"),
    ] {
        assert!(
            said.contains(&format!("toml:{line}: {key}")),
            "{line} {key}: {said}"
        );
    }
}
