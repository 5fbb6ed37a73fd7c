//! After a known traffic every count is exact, on each replica and in both texts.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::json;
use socket2::SockRef;

use super::scrape::Scrape;
use super::{options, origin};
use testkit::larder::{ADMIN_KEY, Larder};
use testkit::redis::RedisServer;
use testkit::upstream::Behaviour;
use testkit::{SOON, until};

/// A metric that must be there: its name in the text format, its type, its labels, and a label with
/// values that it must have.
type Row = (
    &'static str,
    &'static str,
    &'static [&'static str],
    (&'static str, &'static [&'static str]),
);

const CONTRACT: &[Row] = &[
    (
        "larder_build_info",
        "gauge",
        &["version"],
        ("version", &[env!("CARGO_PKG_VERSION")]),
    ),
    (
        "larder_requests_total",
        "counter",
        &["outcome", "resource"],
        ("outcome", OUTCOMES),
    ),
    (
        "larder_request_duration_seconds",
        "histogram",
        &["outcome"],
        ("outcome", OUTCOMES),
    ),
    (
        "larder_responses_total",
        "counter",
        &["status"],
        ("status", &["200", "304", "503"]),
    ),
    (
        "larder_loads_total",
        "counter",
        &["resource", "result"],
        ("result", RESULTS),
    ),
    (
        "larder_load_duration_seconds",
        "histogram",
        &["resource"],
        ("resource", &["quote"]),
    ),
    (
        "larder_stale_served_total",
        "counter",
        &["reason", "resource"],
        ("resource", &["quote"]),
    ),
    ("larder_memory_entries", "gauge", &[], NO_VALUES),
    ("larder_memory_bytes", "gauge", &[], NO_VALUES),
    ("larder_memory_limit_bytes", "gauge", &[], NO_VALUES),
    (
        "larder_memory_evictions_total",
        "counter",
        &["cause"],
        ("cause", CAUSES),
    ),
    ("larder_redis_up", "gauge", &[], NO_VALUES),
    (
        "larder_redis_duration_seconds",
        "histogram",
        &["command"],
        ("command", COMMANDS),
    ),
    (
        "larder_redis_errors_total",
        "counter",
        &["command"],
        ("command", COMMANDS),
    ),
    (
        "larder_invalidations_total",
        "counter",
        &["kind", "origin"],
        ("kind", &["hard", "soft"]),
    ),
    (
        "larder_invalidations_total",
        "counter",
        &["kind", "origin"],
        ("origin", ORIGINS),
    ),
    ("larder_bus_trusted", "gauge", &[], NO_VALUES),
    ("larder_bus_echo_age_seconds", "gauge", &[], NO_VALUES),
    ("larder_bus_gaps_repaired_total", "counter", &[], NO_VALUES),
    ("larder_pending_names", "gauge", &[], NO_VALUES),
    (
        "larder_audits_total",
        "counter",
        &["result"],
        ("result", AUDITS),
    ),
    (
        "larder_upstream_calls_total",
        "counter",
        &["result", "upstream"],
        ("upstream", &["quotes"]),
    ),
    (
        "larder_upstream_quota_remaining",
        "gauge",
        &["upstream", "window"],
        ("window", &["1h", "1d"]),
    ),
    ("larder_loads_running", "gauge", &[], NO_VALUES),
    ("larder_loads_waiting", "gauge", &[], NO_VALUES),
    ("process_resident_memory_bytes", "gauge", &[], NO_VALUES),
    ("process_cpu_seconds_total", "counter", &[], NO_VALUES),
    ("process_open_fds", "gauge", &[], NO_VALUES),
    ("process_start_time_seconds", "gauge", &[], NO_VALUES),
];
const OUTCOMES: &[&str] = &["memory", "redis", "loaded", "collapsed", "stale", "failed"];
const RESULTS: &[&str] = &["changed", "same", "confirmed", "first", "absent", "failed"];
const CAUSES: &[&str] = &["size", "expired", "invalidated"];
const COMMANDS: &[&str] = &["read", "lease", "fill", "invalidate"];
const ORIGINS: &[&str] = &["here", "heard", "outbox"];
const AUDITS: &[&str] = &["same", "newer", "illegal", "unknown"];
const NO_VALUES: (&str, &[&str]) = ("", &[]);

#[test]
fn every_metric_of_the_contract_is_there_with_its_type_and_its_labels() {
    let (redis, origin) = (RedisServer::start(), origin());
    let larder = Larder::start(&options(&origin).env("REDIS_URL", &redis.url()));
    until(SOON, "the bus has heard its first echo", || {
        let echo = "larder_bus_echo_age_seconds";
        !Scrape::of(&larder).labels(echo, &[]).is_empty()
    });
    // Before any traffic: an alert on a counter that is not there yet would miss its first event.
    let scrape = Scrape::of(&larder);
    for (name, kind, labels, (label, values)) in CONTRACT {
        assert_eq!(
            scrape.kinds.get(*name).map(String::as_str),
            Some(*kind),
            "{name}"
        );
        let (sample, extra) = match *kind {
            "histogram" => (format!("{name}_bucket"), Some("le")),
            _ => ((*name).to_owned(), None),
        };
        let found = scrape.labels(&sample, &[]);
        assert!(!found.is_empty(), "{name}");
        for (own, _) in found {
            let own: Vec<&str> = own.keys().map(String::as_str).collect();
            let mut wanted = [labels, extra.as_slice()].concat();
            wanted.sort_unstable();
            assert_eq!(own, wanted, "{name}");
        }
        for value in *values {
            scrape.sum(&sample, &[(label, value)]);
        }
    }
    scrape.check(None);
    assert!(scrape.get("process_resident_memory_bytes", &[]) > 1e6);
    assert!(scrape.get("process_open_fds", &[]) > 5.0);
    assert!(scrape.get("process_start_time_seconds", &[]) > 1.6e9);
    assert_eq!(scrape.get("larder_redis_up", &[]), 1.0);
    assert_eq!(
        scrape.get("larder_memory_limit_bytes", &[]),
        f64::from(256 << 20)
    );
}

#[test]
fn the_document_has_a_row_for_each_metric_and_no_other() {
    let scrape = Scrape::of(&Larder::start(&options(&origin())));
    let name = regex_lite::Regex::new(r"`((larder|process)_[a-z0-9_]+)`").unwrap();
    let rows = include_str!("../../docs/metrics.md").lines();
    let firsts = rows.filter_map(|row| row.strip_prefix("| ")?.split(" | ").next());
    let mut documented: Vec<String> = firsts
        .flat_map(|first| name.captures_iter(first))
        .map(|found| found[1].to_owned())
        .collect();
    documented.sort_unstable();
    let mut there: Vec<String> = scrape.kinds.into_keys().collect();
    // This one is absent without Redis.
    there.push("larder_bus_echo_age_seconds".to_owned());
    there.sort_unstable();
    assert_eq!(documented, there);
}

/// The counts of one outcome: by resource, as a part, and in the histogram.
#[track_caller]
fn outcomes(scrape: &Scrape, resource: &str) -> [f64; 6] {
    OUTCOMES
        .iter()
        .map(|outcome| {
            let labels = [("resource", resource), ("outcome", *outcome)];
            scrape.get("larder_requests_total", &labels)
        })
        .collect::<Vec<_>>()
        .try_into()
        .unwrap()
}

#[track_caller]
fn lookups_as_part(scrape: &Scrape, resource: &str, outcome: &str) -> f64 {
    let labels = [("resource", resource), ("outcome", outcome)];
    scrape.get("larder_part_lookups_total", &labels)
}

/// The histogram counts exactly the requests of each outcome.
#[track_caller]
fn assert_durations_agree(scrape: &Scrape) {
    for outcome in OUTCOMES {
        let labels = [("outcome", *outcome)];
        assert_eq!(
            scrape.get("larder_request_duration_seconds_count", &labels),
            scrape.sum("larder_requests_total", &labels),
            "{outcome}"
        );
    }
}

#[test]
fn every_read_is_counted_once_with_its_outcome_over_two_replicas() {
    let (redis, origin) = (RedisServer::start(), origin());
    let replicas = Larder::start_many(2, &options(&origin).env("REDIS_URL", &redis.url()));
    let [a, b] = &replicas[..] else {
        panic!("two replicas");
    };
    let (_, reader) = a.create_key(&json!({"name": "reader", "rate": "1/1h"}));
    let before = Scrape::of(a);
    // 200, 200, 304, 200: one load and three memory hits.
    let tag = a.get("/quotes/a").expect(200).the("ETag").to_owned();
    a.get("/quotes/a").expect(200);
    let unchanged = a.call("GET", "/quotes/a").key(ADMIN_KEY);
    unchanged.header("If-None-Match", &tag).send().expect(304);
    a.call("HEAD", "/quotes/a")
        .key(ADMIN_KEY)
        .send()
        .expect(200);
    // Absence is an answer, and is kept.
    a.get("/quotes/none").expect(404);
    a.get("/quotes/none").expect(404);
    a.get("/quotes/bad").expect(502);
    // A composite counts once, and so does each part as a part.
    a.get("/people/7").expect(200);
    a.get("/people/7").expect(200);
    a.get("/status/7").expect(200);
    // Not admitted reads: 404, 405, 400, 400, 401, 401, and 429 after one 200 that is admitted.
    a.get("/nothing/here").expect(404);
    a.delete("/quotes/a").expect(405);
    a.get("/quotes/a?page=x").expect(400);
    let after = a.call("GET", "/quotes/a").key(ADMIN_KEY);
    after.header("Larder-After", "x").send().expect(400);
    a.call("GET", "/quotes/a").send().expect(401);
    a.call("GET", "/quotes/a").key("nobody").send().expect(401);
    a.call("GET", "/quotes/a").key(&reader).send().expect(200);
    a.call("GET", "/quotes/a").key(&reader).send().expect(429);

    b.get("/quotes/a").expect(200);
    b.get("/quotes/a").expect(200);
    b.get("/people/7").expect(200);

    for scrape in [Scrape::of(a), Scrape::open(a)] {
        scrape.check(Some(&before));
        assert_eq!(outcomes(&scrape, "quote"), [5.0, 0.0, 2.0, 0.0, 0.0, 1.0]);
        assert_eq!(outcomes(&scrape, "person"), [1.0, 0.0, 1.0, 0.0, 0.0, 0.0]);
        assert_eq!(outcomes(&scrape, "status"), [1.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
        for part in ["name", "status"] {
            assert_eq!(lookups_as_part(&scrape, part, "loaded"), 1.0, "{part}");
        }
        assert_durations_agree(&scrape);
        let loads = |resource: &str, result: &str| {
            let labels = [("resource", resource), ("result", result)];
            scrape.get("larder_loads_total", &labels)
        };
        let of_quotes: Vec<f64> = RESULTS
            .iter()
            .map(|result| loads("quote", result))
            .collect();
        assert_eq!(of_quotes, [0.0, 0.0, 0.0, 1.0, 1.0, 1.0]);
        assert_eq!(
            (loads("name", "first"), loads("status", "first")),
            (1.0, 1.0)
        );
        let durations = [("resource", "quote")];
        assert_eq!(
            scrape.get("larder_load_duration_seconds_count", &durations),
            3.0
        );
        let calls = |upstream: &str, result: &str| {
            let labels = [("upstream", upstream), ("result", result)];
            scrape.get("larder_upstream_calls_total", &labels)
        };
        assert_eq!(
            (calls("quotes", "ok"), calls("quotes", "failed")),
            (2.0, 1.0)
        );
        assert_eq!(
            (calls("people", "ok"), calls("people", "failed")),
            (2.0, 0.0)
        );
        assert_eq!(scrape.get("larder_unknown_keys_total", &[]), 1.0);
    }
    for scrape in [Scrape::of(b), Scrape::open(b)] {
        assert_eq!(outcomes(&scrape, "quote"), [1.0, 1.0, 0.0, 0.0, 0.0, 0.0]);
        assert_eq!(outcomes(&scrape, "person").iter().sum::<f64>(), 1.0);
        assert_durations_agree(&scrape);
        assert_eq!(
            scrape.sum("larder_loads_total", &[("resource", "quote")]),
            0.0
        );
        assert_eq!(scrape.sum("larder_upstream_calls_total", &[]), 0.0);
    }
    // The quota is that of all replicas.
    for replica in [a, b] {
        until(SOON, "both know of three calls", || {
            let scrape = Scrape::of(replica);
            let left = |window| {
                let labels = [("upstream", "quotes"), ("window", window)];
                scrape.get("larder_upstream_quota_remaining", &labels)
            };
            (left("1h"), left("1d")) == (997.0, 4997.0)
        });
    }
    // The JSON of the statistics has the same counts.
    let stats = a.stats();
    assert_eq!(stats["resources"]["quote"]["hits"], 5, "{stats}");
    assert_eq!(stats["resources"]["quote"]["misses"], 3, "{stats}");
    assert_eq!(stats["memory"]["hits"], 7, "{stats}");
}

#[test]
fn every_response_is_counted_once_by_its_status() {
    let origin = origin();
    let larder = Larder::start(&options(&origin));
    larder.get("/quotes/a").expect(200);
    let raw = |request: &str| {
        let mut stream = TcpStream::connect(larder.address()).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut all = Vec::new();
        // The server may reset the connection after its answer, if the client sent too much.
        let _ = stream.read_to_end(&mut all);
        String::from_utf8_lossy(&all).into_owned()
    };
    let before = Scrape::of(&larder);
    larder.get("/quotes/a").expect(200);
    larder.get("/healthz").expect(200);
    larder.get("/nothing").expect(404);
    larder.call("GET", "/cache/stats").send().expect(401);
    larder.call("DELETE", "/healthz").send().expect(405);
    larder.get("/quotes/bad").expect(502);
    let key = json!({"name": "someone"});
    larder.post("/keys", &key).expect(201);
    larder.post("/keys", &json!({"name": 7})).expect(422);
    // Refused before a route is found: no HTTP, a head that is too large, a body that is not
    // wanted.
    assert!(raw("this is not HTTP\r\n\r\n").contains("400 Bad Request"));
    let begin = "GET / HTTP/1.1\r\nx: ";
    // No more than the server reads: if it left some unread, its end of the connection could
    // destroy the answer.
    let large = format!("{begin}{}", "x".repeat((128 << 10) - begin.len()));
    assert!(raw(&large).contains(" 431 "));
    let unwanted =
        "POST /healthz HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n";
    assert!(raw(unwanted).contains(" 417 "));
    // Several on one connection.
    let three = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n".repeat(2)
        + "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    assert_eq!(raw(&three).matches(" 200 OK").count(), 3);

    let grown = |status: &str| {
        Scrape::of(&larder).grown(&before, "larder_responses_total", &[("status", status)])
    };
    // What actix answers by itself is counted when the connection ends.
    until(SOON, "the refusals are counted", || {
        grown("400") + grown("431") == 2.0
    });
    for (status, count) in [
        ("201", 1.0),
        ("400", 1.0),
        ("401", 1.0),
        ("404", 1.0),
        ("405", 1.0),
        ("417", 1.0),
        ("422", 1.0),
        ("431", 1.0),
        ("502", 1.0),
        ("304", 0.0),
        ("500", 0.0),
        ("503", 0.0),
    ] {
        assert_eq!(grown(status), count, "{status}");
    }
    let (first, second) = (Scrape::of(&larder), Scrape::of(&larder));
    // The first scrape itself.
    assert_eq!(second.grown(&first, "larder_responses_total", &[]), 1.0);
}

#[test]
fn a_reader_that_leaves_before_its_answer_is_a_failed_read() {
    let origin = origin();
    let larder = Larder::start(&options(&origin));
    origin.hold();
    let mut asked = TcpStream::connect(larder.address()).unwrap();
    let head = format!(
        "GET /quotes/slow HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ADMIN_KEY}\r\n\r\n"
    );
    asked.write_all(head.as_bytes()).unwrap();
    until(SOON, "the load runs", || origin.calls() == 1);
    // Resets the connection.
    SockRef::from(&asked)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
    drop(asked);
    until(SOON, "the reader is counted", || {
        outcomes(&Scrape::of(&larder), "quote") == [0.0, 0.0, 0.0, 0.0, 0.0, 1.0]
    });
    origin.release();
    larder.get("/quotes/slow").expect(200);
    let scrape = Scrape::of(&larder);
    // It got no answer, so none is counted.
    for status in ["502", "503", "504"] {
        let failing = [("status", status)];
        assert_eq!(scrape.get("larder_responses_total", &failing), 0.0);
    }
    assert_eq!(
        scrape.sum("larder_requests_total", &[("resource", "quote")]),
        2.0
    );
    assert_durations_agree(&scrape);
}

#[test]
fn stale_answers_and_paused_upstreams_are_told_apart() {
    let origin = origin();
    let stale = "stale = { if_error = \"1h\" }\ntags = [\"quote:{symbol}\"]";
    let options = options(&origin).with_config_text("tags = [\"quote:{symbol}\"]", stale);
    let larder = Larder::start(&options);
    larder.get("/quotes/a").expect(200);
    let body = json!({"tags": ["quote:a"], "soft": true});
    larder.post("/cache/invalidate", &body).expect(200);
    let busy = testkit::upstream::Response::text(429, "later").with("Retry-After", "50");
    origin.behave(Behaviour::always(busy));
    larder.get("/quotes/a").expect(200);
    let scrape = Scrape::of(&larder);
    assert_eq!(outcomes(&scrape, "quote"), [0.0, 0.0, 1.0, 0.0, 1.0, 0.0]);
    assert_eq!(
        scrape.sum("larder_stale_served_total", &[("resource", "quote")]),
        1.0
    );
    let paused = [("upstream", "quotes"), ("result", "paused")];
    assert_eq!(scrape.get("larder_upstream_calls_total", &paused), 1.0);
    assert_durations_agree(&scrape);
}
