//! W3C Trace Context: the trace of a request goes on to the upstreams and into the log. It is no
//! part of a key.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use serde_json::json;

use testkit::client::Call;
use testkit::larder::{ADMIN_KEY, Larder, LarderOptions};
use testkit::news::{News, NewsConfig};
use testkit::redis::RedisServer;
use testkit::upstream::{Behaviour, FakeUpstream, Request, Response};
use testkit::{SOON, until};

const FIRST: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SECOND: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "00f067aa0ba902b7";

fn parent(trace_id: &str) -> String {
    format!("00-{trace_id}-{PARENT}-01")
}

fn options(origin: &FakeUpstream) -> LarderOptions {
    let at = origin.address();
    LarderOptions::new(&format!(
        "[resource.thing]
path = \"/thing/{{id}}\"
params.id = {{ type = \"string\" }}
source = {{ http = \"http://{at}/thing/{{id}}\" }}
ttl = {{ memory = \"1h\", redis = \"1h\" }}
stale = {{ while_revalidate = \"1h\" }}
tags = [\"thing:{{id}}\"]
[resource.more]
params.id = {{ type = \"string\", required = true }}
source = {{ http = \"http://{at}/more/{{id}}\" }}
ttl = {{ memory = \"1h\", redis = \"1h\" }}
[resource.both]
path = \"/both/{{id}}\"
params.id = {{ type = \"string\" }}
source = {{ parts = [\"thing\", \"more\"] }}
[resource.declared]
path = \"/declared\"
source = {{ http = \"http://{at}/declared\", headers = {{ TraceParent = \"the-operators-own\" }} }}
ttl = {{ memory = \"1h\", redis = \"1h\" }}
"
    ))
    .env("RUST_LOG", "info,access=debug")
}

fn origin() -> FakeUpstream {
    let count = AtomicUsize::new(0);
    FakeUpstream::start(Behaviour::answer(move |request| {
        let number = count.fetch_add(1, Ordering::SeqCst);
        match request.path.strip_prefix("/thing/moved") {
            Some("") => Response::text(302, "").with("Location", "/thing/moved/there"),
            _ => Response::json(200, &json!({ request.path.as_str(): number })),
        }
    }))
}

fn call(larder: &Larder, path: &str, parents: &[&str]) -> Call {
    let call = larder.call("GET", path).key(ADMIN_KEY);
    let add = |call: Call, parent: &&str| call.header("TraceParent", parent);
    parents.iter().fold(call, add)
}

/// The trace id and the parent id that a call to the upstream had.
fn sent(request: &Request) -> (&str, &str) {
    let lines = request.headers.iter();
    let lines = lines.filter(|(name, _)| name.eq_ignore_ascii_case("traceparent"));
    let lines: Vec<&str> = lines.map(|(_, value)| value.as_str()).collect();
    let [line] = lines[..] else {
        panic!("not one traceparent: {request:?}");
    };
    let fields: Vec<&str> = line.split('-').collect();
    let ["00", trace_id, parent_id, "01"] = fields[..] else {
        panic!("{line}");
    };
    assert_eq!((trace_id.len(), parent_id.len()), (32, 16), "{line}");
    (trace_id, parent_id)
}

/// The lines of the log with this text.
fn lines(larder: &Larder, text: &str) -> Vec<String> {
    let log = larder.log();
    let found = log.lines().filter(|line| line.contains(text));
    found.map(str::to_owned).collect()
}

#[test]
fn a_load_continues_the_trace_of_its_request() {
    let origin = origin();
    let larder = Larder::start(&options(&origin));
    let state = "congo=t61rcWkgMzE,rojo=00f067aa0ba902b7";
    let asked = call(&larder, "/thing/a", &[&parent(FIRST)])
        .header("tracestate", state)
        .header("X-Request-Id", "req-1");
    asked.send().expect(200);
    let requests = origin.requests();
    let (trace_id, parent_id) = sent(&requests[0]);
    assert_eq!(trace_id, FIRST);
    assert_ne!(parent_id, PARENT);
    assert_ne!(parent_id, "0000000000000000");
    assert_eq!(requests[0].header("tracestate"), Some(state));

    // Another trace finds the entry: a trace is no part of a key.
    let again = call(&larder, "/thing/a", &[&parent(SECOND)]).header("X-Request-Id", "req-2");
    let answer = again.send().expect(200);
    assert!(
        answer.the("Cache-Status").starts_with("larder-memory; hit"),
        "{answer}"
    );
    assert_eq!(origin.calls(), 1);

    let named = |id: &str, trace: &str| format!(" id={id} trace={trace}");
    let first = lines(&larder, &named("req-1", FIRST));
    assert!(
        first.iter().any(|line| line.contains("] miss thing?id=a ")),
        "{first:?}"
    );
    assert!(
        first
            .iter()
            .any(|line| line.contains("] GET /thing/a 200 ")),
        "{first:?}"
    );
    let second = lines(&larder, &named("req-2", SECOND));
    assert!(
        second
            .iter()
            .all(|line| line.contains("] GET /thing/a 200 ")),
        "{second:?}"
    );
    assert_eq!((first.len(), second.len()), (2, 1));
}

#[test]
fn a_request_without_a_valid_trace_is_answered_and_starts_none() {
    let origin = origin();
    let larder = Larder::start(&options(&origin));
    let valid = parent(FIRST);
    let upper = parent(&FIRST.to_uppercase());
    let zero = format!("00-{FIRST}-0000000000000000-01");
    for (number, parents) in [
        &[][..],
        &[""],
        &["nonsense"],
        &[&upper],
        &[&zero],
        &[&valid, &valid],
    ]
    .into_iter()
    .enumerate()
    {
        let asked = call(&larder, &format!("/thing/{number}"), parents);
        asked.header("tracestate", "a=1").send().expect(200);
        let request = origin.requests().pop().unwrap();
        for name in ["traceparent", "tracestate"] {
            assert_eq!(request.header(name), None, "{parents:?}");
        }
    }
    assert_eq!(lines(&larder, "trace="), [""; 0]);
    // An invalid tracestate costs only itself.
    let asked = call(&larder, "/thing/x", &[&valid]).header("tracestate", "A=1");
    asked.send().expect(200);
    let request = origin.requests().pop().unwrap();
    assert_eq!(sent(&request).0, FIRST);
    assert_eq!(request.header("tracestate"), None);
}

#[test]
fn readers_that_share_a_load_share_the_trace_of_the_first() {
    let origin = origin();
    let larder = Arc::new(Larder::start(&options(&origin)));
    origin.hold();
    let ask = |trace_id: &str| {
        let call = call(&larder, "/thing/a", &[&parent(trace_id)]);
        thread::spawn(move || call.send().expect(200).body)
    };
    let first = ask(FIRST);
    until(SOON, "the upstream is asked", || origin.calls() == 1);
    let second = ask(SECOND);
    origin.release();
    assert_eq!(first.join().unwrap(), second.join().unwrap());
    assert_eq!(origin.calls(), 1);
    assert_eq!(sent(&origin.requests()[0]).0, FIRST);
}

#[test]
fn a_refresh_continues_the_trace_of_the_request_that_started_it() {
    let origin = origin();
    let larder = Larder::start(&options(&origin));
    call(&larder, "/thing/a", &[&parent(FIRST)])
        .send()
        .expect(200);
    let soft = json!({"tags": ["thing:a"], "soft": true});
    larder.post("/cache/invalidate", &soft).expect(200);
    origin.hold();
    let stale = call(&larder, "/thing/a", &[&parent(SECOND)])
        .send()
        .expect(200);
    origin.release();
    assert!(stale.the("Cache-Status").contains("fwd=stale"), "{stale}");
    until(SOON, "it is refreshed", || origin.calls() == 2);
    assert_eq!(sent(&origin.requests()[1]).0, SECOND);
    until(SOON, "the refresh is logged", || {
        let refreshed = lines(&larder, "] refresh thing?id=a ");
        refreshed
            .iter()
            .any(|line| line.ends_with(&format!(" trace={SECOND}")))
    });
}

#[test]
fn each_part_and_each_redirect_is_a_call_of_its_own() {
    let origin = origin();
    let larder = Larder::start(&options(&origin));
    call(&larder, "/both/a", &[&parent(FIRST)])
        .send()
        .expect(200);
    call(&larder, "/thing/moved", &[&parent(FIRST)])
        .send()
        .expect(200);
    let requests = origin.requests();
    let mut paths: Vec<&str> = requests
        .iter()
        .map(|request| request.path.as_str())
        .collect();
    paths.sort_unstable();
    assert_eq!(
        paths,
        ["/more/a", "/thing/a", "/thing/moved", "/thing/moved/there"]
    );
    let mut parents = vec![PARENT];
    for request in &requests {
        let (trace_id, parent_id) = sent(request);
        assert_eq!(trace_id, FIRST);
        assert!(!parents.contains(&parent_id), "{requests:?}");
        parents.push(parent_id);
    }
    let composite = lines(&larder, "] miss both?id=a ");
    assert!(
        composite[0].ends_with(&format!(" trace={FIRST}")),
        "{composite:?}"
    );
}

#[test]
fn both_news_upstreams_get_the_trace() {
    let (redis, news) = (RedisServer::start(), News::start());
    let larder = Larder::start(&NewsConfig::default().options(&news, &redis));
    call(&larder, "/articles?category=science", &[&parent(FIRST)])
        .send()
        .expect(200);
    let (one, other) = (news.newsapi.requests(), news.guardian.requests());
    let ((first, one), (second, other)) = (sent(&one[0]), sent(&other[0]));
    assert_eq!((first, second), (FIRST, FIRST));
    assert_ne!(one, other);
}

#[test]
fn a_declared_header_goes_before_the_trace() {
    let origin = origin();
    let larder = Larder::start(&options(&origin));
    let asked = call(&larder, "/declared", &[&parent(FIRST)]);
    asked.header("tracestate", "a=1").send().expect(200);
    let request = &origin.requests()[0];
    assert_eq!(request.header("traceparent"), Some("the-operators-own"));
    assert_eq!(
        request
            .head
            .to_ascii_lowercase()
            .matches("traceparent")
            .count(),
        1
    );
    assert_eq!(request.header("tracestate"), None);
}
