//! Questions on one connection: keep-alive, early refusals, slow bodies and `Expect`.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use serde_json::json;

use super::{METHODS, config, echo, start};
use crate::edge::{exchange, statuses};
use testkit::client::Session;
use testkit::larder::{ADMIN_KEY, Larder, LarderOptions};

const BODY: &str = r#"{"question":"x"}"#;

/// The head of a question, without the line that says how long its body is.
fn head(method: &str, key: &str) -> String {
    format!(
        "{method} /answers/1 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json\r\n"
    )
}

fn sized(method: &str, key: &str, body: &str) -> String {
    format!(
        "{}Content-Length: {}\r\n\r\n{body}",
        head(method, key),
        body.len()
    )
}

#[test]
fn one_connection_serves_one_question_after_another() {
    let (upstream, larder) = start();
    let mut session = Session::connect(larder.address()).unwrap();
    let key = format!("Bearer {ADMIN_KEY}");
    for _ in 0..3 {
        for (method, key, body, status) in [
            ("POST", &*key, json!({"question": "x"}), 200),
            ("QUERY", &*key, json!({"question": "x"}), 200),
            // Refused after the body was read.
            ("QUERY", &*key, json!({"question": 7}), 422),
            ("QUERY", &*key, json!({"question": "y"}), 200),
        ] {
            let headers = [("Authorization", key)];
            let answer = session.send(method, "/answers/1", &headers, Some(&body));
            answer.unwrap().expect(status);
        }
    }
    assert_eq!(upstream.calls(), 2);
    // One that is refused before its body was read is the last one, as a write is.
    for (method, target) in [
        ("POST", "/keys"),
        ("POST", "/answers/1"),
        ("QUERY", "/answers/1"),
    ] {
        let mut session = Session::connect(larder.address()).unwrap();
        let headers = [("Authorization", "Bearer nobody")];
        let answer = session.send(method, target, &headers, Some(&json!({"question": "x"})));
        assert_eq!(answer.unwrap().expect(401).the("Connection"), "close");
    }
    // All at once, without waiting for an answer.
    let many =
        sized("QUERY", ADMIN_KEY, BODY).repeat(3) + &sized("POST", ADMIN_KEY, BODY).repeat(3);
    let last = "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let all = exchange(&larder, &format!("{many}{last}"));
    assert_eq!(statuses(&all), [200; 7], "{all}");
}

#[test]
fn a_refusal_does_not_wait_for_the_body() {
    let (upstream, larder) = start();
    for method in METHODS {
        // The client sends a part of a large body, and waits.
        for (key, kind, length, status) in [
            ("nobody", "application/json", 60_000, 401),
            ("nobody", "application/json", 60_000_000, 401),
            (ADMIN_KEY, "application/json", 60_000_000, 413),
        ] {
            let mut stream = TcpStream::connect(larder.address()).unwrap();
            let head = head(method, key).replace("application/json", kind);
            write!(
                stream,
                "{head}Content-Length: {length}\r\n\r\n{{{}",
                " ".repeat(1000)
            )
            .unwrap();
            let mut first = [0; 12];
            stream.read_exact(&mut first).unwrap();
            assert_eq!(
                std::str::from_utf8(&first[9..]).unwrap(),
                status.to_string()
            );
            // What the client sends from here on is not read as a request.
            let _ = stream.write_all(b"}\r\n\r\nGET /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
            let _ = stream.shutdown(Shutdown::Write);
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest);
            assert_eq!(statuses(&String::from_utf8_lossy(&rest)), [0; 0]);
        }
    }
    assert_eq!(upstream.calls(), 0);
}

#[test]
fn the_body_of_a_question_has_its_time() {
    let upstream = echo();
    let config = "[server]\nbody_timeout = \"300ms\"\n".to_owned()
        + &config(&upstream, "[\"POST\", \"QUERY\"]");
    let larder = Larder::start(&LarderOptions::new(&config));
    for method in METHODS {
        let all = exchange(
            &larder,
            &format!("{}Content-Length: 50\r\n\r\n{{", head(method, ADMIN_KEY)),
        );
        assert_eq!(statuses(&all), [408], "{all}");
        assert!(
            all.contains("within 300ms") && all.contains("connection: close"),
            "{all}"
        );
        // One that is cut off is no question.
        let mut stream = TcpStream::connect(larder.address()).unwrap();
        write!(
            stream,
            "{}Content-Length: 50\r\n\r\n{BODY}",
            head(method, ADMIN_KEY)
        )
        .unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut all = String::new();
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        let _ = stream.read_to_string(&mut all);
        assert!(!all.contains(" 200 "), "{all}");
    }
    assert_eq!(upstream.calls(), 0);
}

#[test]
fn a_question_is_asked_for_only_from_who_may_ask_it() {
    let (upstream, larder) = start();
    let (_, reader) = larder.create_key(&json!({"name": "reader", "rate": "2/1h"}));
    // `100`, or the final answer; then what came after the body was sent.
    let expecting = |head: String| {
        let mut stream = TcpStream::connect(larder.address()).unwrap();
        write!(stream, "{head}Expect: 100-continue\r\n\r\n").unwrap();
        let mut first = [0; 12];
        stream.read_exact(&mut first).unwrap();
        let first = std::str::from_utf8(&first[9..]).unwrap().to_owned();
        if first == "100" {
            stream.write_all(BODY.as_bytes()).unwrap();
        }
        stream.shutdown(Shutdown::Write).unwrap();
        let mut rest = String::new();
        let _ = stream.read_to_string(&mut rest);
        (first, rest)
    };
    let length = format!("Content-Length: {}\r\n", BODY.len());
    for method in METHODS {
        // It counts once against the rate of the key, which is then spent.
        let (first, rest) = expecting(head(method, &reader) + &length);
        assert_eq!((&*first, statuses(&rest)), ("100", vec![200]), "{rest}");
    }
    assert_eq!(expecting(head("QUERY", &reader) + &length).0, "429");
    for method in METHODS {
        let admin = head(method, ADMIN_KEY);
        for (head, status) in [
            (head(method, "nobody") + &length, "401"),
            (admin.clone() + "Content-Length: 65537\r\n", "413"),
            (admin.replace("/json", "/xml") + &length, "415"),
        ] {
            let (first, rest) = expecting(head);
            assert_eq!(first, status, "{rest}");
            assert!(rest.contains("connection: close"), "{rest}");
            let accepts = rest.contains("accept-query: application/json");
            assert_eq!(accepts, status == "415" || method == "QUERY", "{rest}");
        }
    }
    assert_eq!(expecting(head("GET", ADMIN_KEY) + &length).0, "417");
    assert_eq!(upstream.calls(), 1);
}
