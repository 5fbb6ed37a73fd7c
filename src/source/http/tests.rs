//! Calls to servers that answer well, badly, slowly and not at all.

use super::*;
use std::io::Write;
use testkit::upstream::{FakeUpstream, respond};

mod bodies;
mod heads;

const KEY: &str = "s3cr3t-k3y";

fn client(timeout: Duration) -> HttpClient {
    let mut settings = HttpSettings::new("newsapi", timeout);
    settings.max_body = 1000;
    HttpClient::new(settings)
}

/// A call that carries the key both ways. Whatever comes of it must not show the key.
fn get(server: &FakeUpstream, timeout: Duration) -> Result<HttpAnswer, LoadError> {
    let key = [Secret::new(KEY)];
    let url = format!("{}/search", server.base_url());
    let request = HttpRequest {
        query: &[("q", "a b&c|d"), ("api-key", KEY)],
        headers: &[("X-Api-Key", KEY)],
        secrets: &key,
        ..HttpRequest::get(&url)
    };
    let outcome = client(timeout).ask(&request, Instant::now() + Duration::from_secs(10));
    if let Err(error) = &outcome {
        assert!(!format!("{error} {error:?}").contains(KEY), "{error}");
    }
    outcome
}

const PATIENT: Duration = Duration::from_secs(10);

#[test]
fn sends_what_it_was_given_and_who_it_is() {
    let server = FakeUpstream::raw(|mut stream, request| {
        respond(&mut stream, "200 OK", &[], request.as_bytes());
    });
    let answer = get(&server, PATIENT).unwrap();
    let seen = String::from_utf8(answer.body).unwrap().to_lowercase();
    assert!(
        seen.starts_with("get /search?q=a%20b%26c%7cd&api-key=s3cr3t-k3y http/1.1"),
        "{seen}"
    );
    let agent = format!("\r\nuser-agent: larder/{}\r\n", env!("CARGO_PKG_VERSION"));
    assert!(seen.contains(&agent), "{seen}");
    assert!(seen.contains("\r\nx-api-key: s3cr3t-k3y\r\n"), "{seen}");
}

#[test]
fn any_status_is_an_answer() {
    for status in ["429 Too Many Requests", "500 Oops", "404 Not Found"] {
        let server = FakeUpstream::raw(move |mut stream, _| {
            respond(&mut stream, status, &["Retry-After: 7"], b"body");
        });
        let answer = get(&server, PATIENT).unwrap();
        assert_eq!(answer.status.to_string(), status[..3]);
        assert_eq!(answer.body, b"body");
        assert_eq!(answer.header("Retry-After"), Some("7"));
    }
}

#[test]
fn retry_after_in_both_forms_and_in_none() {
    let now: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
    let seconds = |said| parse_retry_after(said, now).map(|wait| wait.as_secs());
    assert_eq!(seconds("120"), Some(120));
    assert_eq!(seconds("99999999999999999999999"), Some(u64::MAX));
    assert_eq!(seconds("Fri, 02 Jan 2026 03:05:05 GMT"), Some(60));
    assert_eq!(seconds("Fri, 02 Jan 2026 03:03:05 GMT"), Some(0));
    for wrong in ["", "-1", "soon", "1.5"] {
        assert_eq!(seconds(wrong), None, "{wrong}");
    }
}

#[test]
fn a_pause_is_as_long_as_the_upstream_says_and_no_longer_than_is_set() {
    let answer = |status, said: &str| {
        let mut headers = HeaderMap::new();
        if !said.is_empty() {
            headers.insert("retry-after", said.parse().unwrap());
        }
        HttpAnswer {
            status,
            headers,
            body: Vec::new(),
        }
    };
    let mut settings = HttpSettings::new("newsapi", PATIENT);
    assert_eq!(settings.max_pause, Duration::from_secs(60));
    for (max, said, pause) in [
        (60, "7", 7),
        (60, " 7 ", 7),
        (60, "0", 1),
        (60, "61", 60),
        (60, "99999999999999999999", 60),
        (60, "Fri, 31 Dec 9999 23:59:59 GMT", 60),
        (60, "Friday, 02-Jan-26 03:05:05 GMT", 1),
        (60, "Fri Jan  2 03:05:05 2026", 1),
        // What cannot be read is a minute, as far as that is allowed.
        (3600, "-1", 60),
        (3600, "1.5", 60),
        (3600, "1, 2", 60),
        (3600, "never", 60),
        (3600, "", 60),
        (10, "never", 10),
        (3600, "3000", 3000),
    ] {
        settings.max_pause = Duration::from_secs(max);
        let client = HttpClient::new(settings.clone());
        let found = client.pause(&answer(429, said));
        assert_eq!(found, Duration::from_secs(pause), "{said}");
    }
    let asks = |status, said| answer(status, said).asks_to_wait();
    assert!(asks(429, "") && asks(503, "1") && asks(503, "never"));
    assert!(!asks(503, "") && !asks(500, "1") && !asks(200, "1"));
}

#[test]
fn a_truncated_body_is_an_error() {
    let server = FakeUpstream::raw(|mut stream, _| {
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{\"half\":")
            .unwrap();
    });
    let error = get(&server, PATIENT).unwrap_err();
    assert!(matches!(error, LoadError::Failed(_)), "{error:?}");
    let server = FakeUpstream::raw(|mut stream, _| {
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n{\"half\":")
            .unwrap();
    });
    let error = get(&server, PATIENT).unwrap_err();
    assert!(matches!(error, LoadError::Failed(_)), "{error:?}");
}

#[test]
fn a_connection_closed_with_nothing_is_an_error() {
    let server = FakeUpstream::raw(|_, _| {});
    let error = get(&server, PATIENT).unwrap_err();
    assert_eq!(
        error.to_string(),
        "newsapi closed the connection before its answer was complete"
    );
}

#[test]
fn nobody_there_and_what_is_no_http_are_errors() {
    let mut gone = FakeUpstream::raw(|_, _| {});
    gone.stop();
    let error = get(&gone, PATIENT).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("newsapi could not be asked: "),
        "{error}"
    );
    let server = FakeUpstream::raw(|mut stream, request| {
        // It even says the key back.
        stream.write_all(request.as_bytes()).unwrap();
    });
    let error = get(&server, PATIENT).unwrap_err();
    assert!(matches!(error, LoadError::Failed(_)), "{error:?}");
}

/// The call ends at its deadline, neither before nor long after.
fn ends_at_its_deadline(server: &FakeUpstream) {
    let timeout = Duration::from_millis(300);
    let start = Instant::now();
    let error = get(server, timeout).unwrap_err();
    let took = start.elapsed();
    assert_eq!(
        error,
        LoadError::TooSlow("newsapi did not answer in time".to_owned())
    );
    assert!(took >= timeout && took < PATIENT / 2, "{took:?}");
}

#[test]
fn silence_ends_at_the_deadline() {
    ends_at_its_deadline(&FakeUpstream::raw(|mut stream, _| {
        // Until the client hangs up.
        let _ = stream.read(&mut [0]);
    }));
}

#[test]
fn a_byte_at_a_time_ends_at_the_deadline() {
    // Within the head, and within the body.
    for at_once in [9, 40] {
        ends_at_its_deadline(&FakeUpstream::raw(move |mut stream, _| {
            let mut answer = b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n".to_vec();
            answer.resize(900, b'x');
            let (start, drip) = answer.split_at(at_once);
            let mut open = stream.write_all(start).is_ok();
            for byte in drip {
                if open {
                    std::thread::sleep(Duration::from_millis(50));
                    open = stream.write_all(&[*byte]).is_ok();
                }
            }
        }));
    }
}

#[test]
fn a_deadline_that_has_passed_calls_nobody() {
    let server = FakeUpstream::raw(|mut stream, _| respond(&mut stream, "200 OK", &[], b""));
    let error = get(&server, Duration::ZERO).unwrap_err();
    assert!(matches!(error, LoadError::TooSlow(_)));
    assert_eq!(server.calls(), 0);
}

#[test]
fn a_body_may_be_as_large_as_the_limit_and_no_larger() {
    let server = FakeUpstream::raw(|mut stream, _| {
        respond(&mut stream, "200 OK", &[], &[b'x'; 1000]);
    });
    assert_eq!(get(&server, PATIENT).unwrap().body.len(), 1000);
    let server = FakeUpstream::raw(|mut stream, _| {
        respond(&mut stream, "200 OK", &[], &[b'x'; 1001]);
    });
    let error = get(&server, PATIENT).unwrap_err();
    assert_eq!(error.to_string(), "newsapi answered with more than 1000B");
    // Endless, and its length unsaid.
    let server = FakeUpstream::raw(|mut stream, _| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
        while stream.write_all(&[b'x'; 500]).is_ok() {}
    });
    let error = get(&server, PATIENT).unwrap_err();
    assert_eq!(error.to_string(), "newsapi answered with more than 1000B");
}

/// `python3 -c 'import gzip,sys; sys.stdout.buffer.write(gzip.compress(b"hello, packed world", 9,
/// mtime=0))'`
const PACKED: &[u8] = &[
    31, 139, 8, 0, 0, 0, 0, 0, 2, 3, 203, 72, 205, 201, 201, 215, 81, 40, 72, 76, 206, 78, 77, 81,
    40, 207, 47, 202, 73, 1, 0, 72, 239, 46, 204, 19, 0, 0, 0,
];
/// A hundred thousand zeros, likewise.
const BOMB: &[u8] = &[
    31, 139, 8, 0, 0, 0, 0, 0, 2, 3, 237, 193, 49, 1, 0, 0, 0, 194, 160, 245, 79, 109, 13, 15, 160,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    128, 87, 3, 125, 149, 17, 212, 160, 134, 1, 0,
];

#[test]
fn gzip_is_unpacked_and_the_limit_counts_what_it_unpacks_to() {
    let server = FakeUpstream::raw(|mut stream, _| {
        respond(&mut stream, "200 OK", &["Content-Encoding: gzip"], PACKED);
    });
    assert_eq!(get(&server, PATIENT).unwrap().body, b"hello, packed world");
    let server = FakeUpstream::raw(|mut stream, _| {
        respond(&mut stream, "200 OK", &["Content-Encoding: gzip"], BOMB);
    });
    let error = get(&server, PATIENT).unwrap_err();
    assert_eq!(error.to_string(), "newsapi answered with more than 1000B");
    let server = FakeUpstream::raw(|mut stream, _| {
        respond(
            &mut stream,
            "200 OK",
            &["Content-Encoding: gzip"],
            b"not gzip at all",
        );
    });
    assert_eq!(
        get(&server, PATIENT).unwrap_err().to_string(),
        "newsapi answered with a body that cannot be decompressed"
    );
}

#[test]
fn a_coding_is_known_by_each_of_its_spellings_or_named() {
    for header in [
        "Content-Encoding: GZIP",
        "Content-Encoding: x-gzip",
        "Content-Encoding: identity, gzip",
        "Content-Encoding: identity\r\nContent-Encoding: Gzip",
    ] {
        let server = FakeUpstream::raw(move |mut stream, request| {
            assert!(
                request
                    .to_lowercase()
                    .contains("\r\naccept-encoding: gzip\r\n")
            );
            respond(&mut stream, "200 OK", &[header], PACKED);
        });
        let answer = get(&server, PATIENT).unwrap();
        assert_eq!(answer.body, b"hello, packed world", "{header}");
    }
    for (header, told) in [
        ("Content-Encoding: br", "`br`"),
        ("Content-Encoding: gzip, Zstd", "`Zstd`"),
        ("Content-Encoding: s3cr3t-k3y", "`***`"),
    ] {
        let server = FakeUpstream::raw(move |mut stream, _| {
            respond(&mut stream, "200 OK", &[header], PACKED);
        });
        assert_eq!(
            get(&server, PATIENT).unwrap_err().to_string(),
            format!(
                "newsapi answered with the content coding {told}, which is not supported: gzip was asked for"
            )
        );
    }
    // Packed twice, it is the text in the end that counts.
    let server = FakeUpstream::raw(|mut stream, _| {
        respond(
            &mut stream,
            "200 OK",
            &["Content-Encoding: gzip, identity"],
            BOMB,
        );
    });
    let error = get(&server, PATIENT).unwrap_err();
    assert_eq!(error.to_string(), "newsapi answered with more than 1000B");
}

#[test]
fn a_redirect_to_another_host_is_not_followed() {
    let other = FakeUpstream::raw(|mut stream, _| respond(&mut stream, "200 OK", &[], b"caught"));
    let elsewhere = format!("Location: {}/?api-key={KEY}", other.base_url());
    let server = FakeUpstream::raw(move |mut stream, _| {
        respond(&mut stream, "302 Found", &[&elsewhere], b"");
    });
    let error = get(&server, PATIENT).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("newsapi redirects (302) to http://127.0.0.1,"),
        "{error}"
    );
    assert_eq!(other.calls(), 0);
    for location in ["//evil.example/", "https://127.0.0.1/", "\\\\evil"] {
        let header = format!("Location: {location}");
        let server = FakeUpstream::raw(move |mut stream, _| {
            respond(&mut stream, "301 Moved Permanently", &[&header], b"");
        });
        assert!(
            matches!(get(&server, PATIENT), Err(LoadError::Failed(_))),
            "{location}"
        );
    }
}

#[test]
fn a_redirect_within_the_origin_is_followed() {
    for (location, target) in [
        ("/v2/search?page=1#x", "/v2/search?page=1"),
        ("target", "/target"),
        ("../slash/", "/slash/"),
        ("?page=2", "/search?page=2"),
        ("caf\u{e9}", "/caf%C3%A9"),
    ] {
        let head = format!("Location: {location}");
        // Its body is not needed, and cannot be had.
        let server = FakeUpstream::raw(move |mut stream, request| {
            if request.starts_with("GET /search?q=") {
                let head = format!("HTTP/1.1 308 Permanent Redirect\r\n{head}\r\n");
                let _ = stream.write_all(head.as_bytes());
                let _ = stream.write_all(b"Content-Length: 50\r\n\r\n<html>");
            } else {
                respond(&mut stream, "200 OK", &[], request.as_bytes());
            }
        });
        let body = String::from_utf8(get(&server, PATIENT).unwrap().body).unwrap();
        let line = format!("GET {target} HTTP/1.1");
        assert!(body.starts_with(&line), "{location}: {body}");
    }
    let circle = FakeUpstream::raw(|mut stream, _| {
        respond(&mut stream, "302 Found", &["Location: /again"], b"");
    });
    assert_eq!(
        get(&circle, PATIENT).unwrap_err().to_string(),
        "newsapi redirects in circles"
    );
}

#[test]
fn a_connection_is_used_again_after_an_answer_without_a_body() {
    for head in [
        "304 Not Modified\r\nContent-Length: 50\r\nContent-Encoding: gzip",
        "304 Not Modified",
        "204 No Content",
    ] {
        let server = FakeUpstream::raw(move |mut stream, _| {
            // All that comes on this one connection, which counts as one request.
            let (mut seen, mut byte) = (b"\r\n\r\n".to_vec(), [0]);
            loop {
                if seen.ends_with(b"\r\n\r\n") {
                    let _ = stream.write_all(format!("HTTP/1.1 {head}\r\n\r\n").as_bytes());
                }
                match stream.read(&mut byte) {
                    Ok(1) => seen.push(byte[0]),
                    _ => return,
                }
            }
        });
        let client = client(PATIENT);
        for _ in 0..3 {
            let url = server.base_url();
            let get = HttpRequest::get(&url);
            let answer = client.ask(&get, Instant::now() + PATIENT).unwrap();
            assert_eq!(answer.status.to_string(), head[..3]);
            assert!(answer.body.is_empty());
        }
        assert_eq!(server.calls(), 1, "{head}");
    }
}

#[test]
fn a_body_where_none_may_be_does_not_reach_the_next_answer() {
    // It comes with the head, or so late that the next request was sent already.
    for late in [false, true] {
        let server = FakeUpstream::raw(move |mut stream, _| {
            let head = "HTTP/1.1 204 No Content\r\nContent-Length: 11\r\n\r\n";
            let answer = if late {
                head.to_owned()
            } else {
                format!("{head}not a body!")
            };
            let _ = stream.write_all(answer.as_bytes());
            // Until the next request, or the client hangs up.
            if let Ok(1..) = stream.read(&mut [0; 1000]) {
                let _ = stream.write_all(format!("not a body!{head}").as_bytes());
            }
        });
        let client = client(PATIENT);
        let url = server.base_url();
        let get = HttpRequest::get(&url);
        for _ in 0..4 {
            let answer = client.ask(&get, Instant::now() + PATIENT).unwrap();
            assert_eq!((answer.status, answer.body.len()), (204, 0));
        }
        assert_eq!(server.calls(), 4, "late: {late}");
    }
}

#[test]
fn this_machine_is_known() {
    for here in [
        "http://127.0.0.1:9/",
        "http://localhost/",
        "http://[::1]:80/",
    ] {
        assert!(is_this_machine(&here.parse().unwrap()), "{here}");
    }
    for there in [
        "http://newsapi.org/",
        "http://10.0.0.1/",
        "http://localhost.example/",
    ] {
        assert!(!is_this_machine(&there.parse().unwrap()), "{there}");
    }
}
