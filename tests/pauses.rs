//! Pauses: an upstream that asks for a pause is not called for a while, and an admin can end the
//! pause.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use testkit::client::Answer;
use testkit::larder::{Larder, LarderOptions};
use testkit::redis::RedisServer;
use testkit::upstream::{Behaviour, FakeUpstream, Response};
use testkit::{SOON, until};

/// An absurd value from an upstream.
const FOR_EVER: &str = "99999999999999999999";

/// An origin whose things exist. While it is busy, those that begin with `busy` fail.
fn origin(retry_after: &'static str) -> (FakeUpstream, Arc<AtomicBool>) {
    let busy = Arc::new(AtomicBool::new(true));
    let says = busy.clone();
    let origin = FakeUpstream::start(Behaviour::answer(move |request| {
        if says.load(Ordering::SeqCst) && request.path.starts_with("/busy") {
            Response::text(429, "<html>").with("Retry-After", retry_after)
        } else {
            Response::json(200, &json!({"at": request.path}))
        }
    }));
    (origin, busy)
}

fn options(origin: &FakeUpstream, upstream: &str) -> LarderOptions {
    LarderOptions::new(&format!(
        "[resource.thing]
path = \"/thing/{{id}}\"
params.id = {{ type = \"string\" }}
source = {{ http = \"http://{}/{{id}}\", upstream = \"things\" }}
ttl = {{ memory = \"1h\", redis = \"1h\" }}
tags = [\"thing:{{id}}\"]
public = true
[upstream.things]
{upstream}
",
        origin.address()
    ))
}

/// Asks, expects a refusal, and returns how long the pause still lasts.
#[track_caller]
fn paused(larder: &Larder, path: &str) -> u64 {
    let answer: Answer = larder.get(path);
    answer.problem(502);
    answer.the("Retry-After").parse().unwrap()
}

#[test]
fn a_source_without_a_quota_pauses_for_one_path_and_a_minute_at_most() {
    for (retry_after, least) in [
        (FOR_EVER, 1),
        ("86400", 1),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 1),
        ("Friday, 31-Dec-49 23:59:59 GMT", 1),
        ("Fri Dec 31 23:59:59 9999", 1),
        ("-1", 1),
        ("soon", 1),
    ] {
        let (origin, _) = origin(retry_after);
        let larder = Larder::start(&options(&origin, ""));
        for _ in 0..3 {
            let wait = paused(&larder, "/thing/busy");
            assert!((least..=60).contains(&wait), "{retry_after}: {wait}");
        }
        assert_eq!(origin.calls_to("/busy"), 1, "{retry_after}");
        // Other keys are not paused.
        larder.get("/thing/a").expect(200);
        larder.get("/thing/b").expect(200);
        assert_eq!(origin.calls(), 3);
    }
}

#[test]
fn a_source_with_a_quota_pauses_altogether_for_the_time_that_is_set() {
    let (origin, _) = origin(FOR_EVER);
    let upstream = "quota = [\"100/1m\"]\nmax_pause = \"20m\"";
    let larder = Larder::start(&options(&origin, upstream));
    for path in ["/thing/busy", "/thing/a", "/thing/b"] {
        let wait = paused(&larder, path);
        assert!((1000..=1200).contains(&wait), "{path}: {wait}");
    }
    assert_eq!(origin.calls(), 1);
}

#[test]
fn an_invalidation_ends_a_pause_on_every_replica() {
    let ways: [fn(&str) -> Value; 4] = [
        |id| json!({"tags": [format!("thing:{id}")]}),
        |id| json!({"paths": [format!("/thing/{id}")], "soft": true}),
        |id| json!({"keys": [format!("thing?id={id}")]}),
        |_| json!({"all": true}),
    ];
    for upstream in ["", "quota = [\"1000/1m\"]"] {
        let (redis, (origin, busy)) = (RedisServer::start(), origin(FOR_EVER));
        let options = options(&origin, upstream).env("REDIS_URL", &redis.url());
        let replicas = Larder::start_many(2, &options);
        for (number, way) in ways.iter().enumerate() {
            busy.store(true, Ordering::SeqCst);
            let (named, other) = (format!("busy{number}"), format!("busy{number}-other"));
            for replica in &replicas {
                for id in [&named, &other] {
                    paused(replica, &format!("/thing/{id}"));
                }
            }
            busy.store(false, Ordering::SeqCst);
            let calls = origin.calls();
            for replica in &replicas {
                paused(replica, &format!("/thing/{named}"));
            }
            assert_eq!(origin.calls(), calls);
            let wish = way(&named);
            replicas[0].post("/cache/invalidate", &wish).expect(200);
            for replica in &replicas {
                until(SOON, "it is asked again", || {
                    replica.get(&format!("/thing/{named}")).status == 200
                });
                // Keys that the invalidation does not name stay paused.
                let rest = replica.get(&format!("/thing/{other}"));
                let expected = if wish.get("all").is_some() { 200 } else { 502 };
                assert_eq!(rest.status, expected, "{wish}: {rest}");
            }
        }
    }
}

#[test]
fn a_stale_copy_is_served_during_a_pause_and_the_source_is_asked_after_it() {
    let (origin, busy) = origin("1");
    busy.store(false, Ordering::SeqCst);
    let options = options(&origin, "").with_config_text(
        "public = true",
        "public = true\nstale = { if_error = \"1h\" }",
    );
    let larder = Larder::start(&options);
    larder.get("/thing/busy").expect(200);
    busy.store(true, Ordering::SeqCst);
    larder
        .post(
            "/cache/invalidate",
            &json!({"tags": ["thing:busy"], "soft": true}),
        )
        .expect(200);
    let stale = larder.get("/thing/busy").expect(200);
    assert!(
        stale.the("Cache-Status").contains("detail=quota-spent"),
        "{stale}"
    );
    busy.store(false, Ordering::SeqCst);
    until(SOON, "it is renewed", || {
        let answer = larder.get("/thing/busy").expect(200);
        answer.the("Cache-Status").starts_with("larder-memory; hit")
    });
}
