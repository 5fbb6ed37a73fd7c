//! One connection: keep-alive, `Expect`, and headers that may stand only once.

use std::io::{Read, Write};

use serde_json::json;

use super::{GUILTY, config, connect, exchange, read_to_end, statuses, upstream};
use testkit::larder::{ADMIN_KEY, Larder, LarderOptions};
use testkit::upstream::FakeUpstream;
use testkit::{SOON, until};

fn larder() -> (FakeUpstream, Larder) {
    let upstream = upstream();
    let larder = Larder::start(&LarderOptions::new(&config("", &upstream)));
    (upstream, larder)
}

#[test]
fn nothing_is_served_behind_the_last_request() {
    let (upstream, larder) = larder();
    larder.get("/open/1").expect(200);
    let last =
        |target: &str| format!("GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let next = |target: &str| format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n");
    // A route of larder's own, a memory hit, and a load. The load is slow, so the next request
    // arrives before its answer.
    for target in ["/healthz", "/open/1", "/open/2"] {
        for behind in [
            next("/open/never"),
            next("/healthz").repeat(3),
            last("/open/never"),
        ] {
            let all = exchange(&larder, &format!("{}{behind}", last(target)));
            assert_eq!(statuses(&all), [200], "{target}: {all}");
            assert!(all.contains("connection: close"), "{target}: {all}");
        }
    }
    // A request of HTTP/1.0 closes the connection by default.
    let all = exchange(
        &larder,
        &format!("GET /open/1 HTTP/1.0\r\n\r\n{}", next("/open/never")),
    );
    assert_eq!(all.matches(" 200 OK").count(), 1, "{all}");
    // The 429 closes the connection, so no guess after it is looked at.
    let guess = "GET /closed/1 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer guess\r\n\r\n";
    let guesses = statuses(&exchange(&larder, &guess.repeat(100)));
    assert_eq!(guesses.last(), Some(&429));
    assert_eq!(guesses.iter().filter(|status| **status == 429).count(), 1);
    assert_eq!(upstream.calls_to("/never"), 0);
    // So is the answer to a request whose body is refused, whether or not the body has arrived.
    // Nothing is answered after any last answer.
    let expecting = "POST /cache/invalidate HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n{}";
    let no_body = "GET /open/1 HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n\r\n";
    for (refused, status) in [(expecting, 401), (no_body, 417)] {
        for behind in [&next("/open/never"), expecting, no_body] {
            let all = exchange(&larder, &format!("{refused}{behind}"));
            assert_eq!(statuses(&all), [status], "{all}");
            let all = exchange(&larder, &format!("{}{refused}", last("/open/1")));
            assert_eq!(statuses(&all), [200], "{all}");
        }
    }
    assert_eq!(upstream.calls_to("/never"), 0);
    // Requests before the last one are all served, even after answers to HTTP/1.0 whose buffers are
    // used again.
    for _ in 0..20 {
        exchange(&larder, "GET /open/1 HTTP/1.0\r\n\r\n");
        let all = exchange(
            &larder,
            &format!("{}{}", next("/open/1").repeat(3), last("/healthz")),
        );
        assert_eq!(statuses(&all), [200; 4], "{all}");
    }
}

#[test]
fn a_header_that_may_stand_once_is_refused_twice() {
    let (_upstream, larder) = larder();
    let (_, key) = larder.create_key(&json!({"name": "reader"}));
    let key = format!("Bearer {key}");
    let get = |headers: &[(&str, &str)]| {
        let mut call = larder.call("GET", "/closed/1");
        for (name, value) in headers {
            call = call.header(name, value);
        }
        call.send()
    };
    get(&[("Authorization", &key)]).expect(200);
    for (first, second) in [
        ("Bearer nobody", &*key),
        (&*key, "Bearer nobody"),
        (&*key, &*key),
    ] {
        let detail = get(&[("Authorization", first), ("authorization", second)]).problem(400);
        assert!(detail.contains("Authorization"), "{detail}");
    }
    let after = ("Larder-After", "1");
    let detail = get(&[("Authorization", &key), after, after]).problem(400);
    assert!(detail.contains("Larder-After"), "{detail}");
    let admin = format!("Bearer {ADMIN_KEY}");
    let post = |headers: &[(&str, &str)]| {
        let call = larder
            .call("POST", "/cache/invalidate")
            .header("Authorization", &admin);
        let call = call.body(r#"{"all":true}"#);
        let all = headers.iter();
        all.fold(call, |call, (name, value)| call.header(name, value))
            .send()
    };
    let json = ("Content-Type", "application/json");
    post(&[json]).expect(200);
    post(&[json, ("content-type", "text/plain")]).problem(400);
    // The HTTP library refuses repeated headers that frame a message.
    for twice in [
        ("Host", "y"),
        ("Content-Length", "12"),
        ("Content-Length", "13"),
    ] {
        assert_eq!(post(&[json, twice]).status, 400, "{twice:?}");
    }
    // Also on an admin's own routes.
    let stats = larder
        .call("GET", "/cache/stats")
        .header("Authorization", &admin);
    stats.header("Authorization", &admin).send().problem(400);
    // A list may span several lines.
    let tag = get(&[("Authorization", &key)]).the("ETag").to_owned();
    let tags = [
        ("Authorization", &*key),
        ("If-None-Match", "\"x\""),
        ("If-None-Match", &*tag),
    ];
    get(&tags).expect(304);
}

/// The first answer to a request that announces its body and waits: `100`, or the final answer.
fn expecting(larder: &Larder, request: &str, headers: &str, body: &str) -> (u16, String) {
    let mut stream = connect(GUILTY, larder.address()).unwrap();
    write!(
        stream,
        "{request} HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n{headers}\r\n"
    )
    .unwrap();
    let mut first = [0; 12];
    stream.read_exact(&mut first).unwrap();
    let first = std::str::from_utf8(&first[9..]).unwrap().parse().unwrap();
    if first == 100 {
        stream.write_all(body.as_bytes()).unwrap();
    }
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    (first, read_to_end(&mut stream))
}

#[test]
fn a_body_is_asked_for_only_from_who_may_send_it() {
    let (_upstream, larder) = larder();
    let (_, reader) = larder.create_key(&json!({"name": "reader"}));
    let (_, slow) = larder.create_key(&json!({"name": "slow", "rate": "2/1h", "admin": true}));
    let body = r#"{"name":"made"}"#;
    let headers = |key: &str, kind: &str, length: usize| {
        format!(
            "Authorization: Bearer {key}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n"
        )
    };
    let keys = |key: &str, kind: &str, length: usize| {
        expecting(&larder, "POST /keys", &headers(key, kind, length), body)
    };
    let json = "application/json";
    let (first, rest) = keys(ADMIN_KEY, json, body.len());
    assert_eq!((first, statuses(&rest)), (100, vec![201]), "{rest}");
    for (key, kind, length, status) in [
        ("nobody", json, body.len(), 401),
        (&*reader, json, body.len(), 403),
        (ADMIN_KEY, json, 1 << 20, 413),
        (ADMIN_KEY, "text/plain", body.len(), 415),
    ] {
        let (first, rest) = keys(key, kind, length);
        assert_eq!(first, status, "{rest}");
        assert!(rest.contains("connection: close"), "{rest}");
        assert!(rest.contains("application/problem+json"), "{rest}");
    }
    let none = format!("Content-Type: {json}\r\nContent-Length: {}\r\n", body.len());
    assert_eq!(
        expecting(&larder, "POST /cache/invalidate", &none, body).0,
        401
    );
    // Where no body is allowed: the client must ask again without it.
    for request in [
        "GET /open/1",
        "GET /cache/stats",
        "DELETE /keys/x",
        "POST /nowhere",
    ] {
        let headers = headers(ADMIN_KEY, json, body.len());
        assert_eq!(
            expecting(&larder, request, &headers, body).0,
            417,
            "{request}"
        );
    }
    // Each counts as one request of its key's rate.
    for _ in 0..2 {
        let (first, rest) = keys(&slow, json, body.len());
        assert_eq!((first, statuses(&rest)), (100, vec![201]), "{rest}");
    }
    assert_eq!(keys(&slow, json, body.len()).0, 429);
}

#[test]
fn a_requested_close_is_in_the_answer_while_the_server_stops() {
    let (upstream, mut larder) = larder();
    upstream.hold();
    let mut stream = connect(GUILTY, larder.address()).unwrap();
    stream
        .write_all(b"GET /open/1 HTTP/1.1\r\nHost: x\r\n\r\n")
        .unwrap();
    until(SOON, "it waits", || upstream.calls() == 1);
    larder.signal(rustix::process::Signal::TERM);
    until(SOON, "it stops", || larder.log().contains("stopping"));
    upstream.release();
    let all = read_to_end(&mut stream);
    assert_eq!(statuses(&all), [200], "{all}");
    assert!(all.contains("connection: close"), "{all}");
    assert_eq!(larder.ended().code(), Some(0), "{}", larder.log());
}
