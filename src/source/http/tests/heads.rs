//! Answers of which the status and the head say all.

use super::*;

/// Answers with this head, then does `rest` to the connection.
fn after_head(
    head: &'static str,
    rest: impl Fn(&mut std::net::TcpStream) + Send + Sync + 'static,
) -> FakeUpstream {
    FakeUpstream::raw(move |mut stream, _| {
        let _ = stream.write_all(format!("HTTP/1.1 {head}\r\n\r\n").as_bytes());
        rest(&mut stream);
    })
}

const HEADS: [&str; 13] = [
    "404 Not Found",
    "410 Gone",
    "503 Service Unavailable\r\nRetry-After: 7",
    "429 Too Many Requests\r\nRetry-After: 7",
    "401 Unauthorized",
    "403 Forbidden",
    "400 Bad Request",
    "426 Upgrade Required",
    "500 Internal Server Error",
    "302 Found",
    "300 Multiple Choices",
    "206 Partial Content",
    "418 I'm a teapot",
];

fn assert_head_counts(server: &FakeUpstream, head: &str) {
    let answer = get(server, PATIENT).unwrap();
    assert_eq!(answer.status.to_string(), head[..3]);
    assert_eq!(
        answer.header("Retry-After").is_some(),
        head.contains("Retry-After")
    );
    assert!(answer.body.len() <= 16 << 10, "{head}");
}

#[test]
fn a_body_that_is_too_long_changes_nothing() {
    for head in HEADS {
        let server = after_head(
            head,
            |stream| {
                while stream.write_all(&[b'x'; 5 << 10]).is_ok() {}
            },
        );
        assert_head_counts(&server, head);
    }
}

#[test]
fn a_body_that_is_cut_short_changes_nothing() {
    for head in HEADS {
        for length in ["Content-Length: 50", "Transfer-Encoding: chunked"] {
            let whole: &'static str = format!("{head}\r\n{length}").leak();
            let server = after_head(whole, |stream| drop(stream.write_all(b"9\r\n{\"half\":")));
            assert_head_counts(&server, head);
        }
    }
}

#[test]
fn a_body_that_never_comes_changes_nothing() {
    let head = "404 Not Found\r\nContent-Length: 50";
    let server = after_head(head, |stream| {
        // Until the client hangs up.
        let _ = stream.read(&mut [0]);
    });
    let answer = get(&server, Duration::from_millis(300)).unwrap();
    assert_eq!((answer.status, answer.body.len()), (404, 0));
}

#[test]
fn a_body_that_cannot_be_unpacked_changes_nothing() {
    for coding in ["br", "gzip", "GZIP, deflate", "compress"] {
        let head = format!("404 Not Found\r\nContent-Length: 8\r\nContent-Encoding: {coding}");
        let server = after_head(head.leak(), |stream| drop(stream.write_all(b"no gzip!")));
        assert_eq!(get(&server, PATIENT).unwrap().status, 404, "{coding}");
    }
}

#[test]
fn the_words_of_an_error_are_unpacked_and_its_connection_is_used_again() {
    let server = FakeUpstream::raw(|mut stream, _| {
        let head = format!(
            "HTTP/1.1 404 Not Found\r\nContent-Encoding: x-gzip\r\nContent-Length: {}\r\n\r\n",
            PACKED.len()
        );
        // All that comes on this one connection, which counts as one request.
        let (mut seen, mut byte) = (b"\r\n\r\n".to_vec(), [0]);
        loop {
            if seen.ends_with(b"\r\n\r\n") {
                let _ = stream.write_all(&[head.as_bytes(), PACKED].concat());
            }
            match stream.read(&mut byte) {
                Ok(1) => seen.push(byte[0]),
                _ => return,
            }
        }
    });
    let client = client(PATIENT);
    let url = server.base_url();
    for _ in 0..3 {
        let get = HttpRequest::get(&url);
        let answer = client.ask(&get, Instant::now() + PATIENT).unwrap();
        assert_eq!(answer.body, b"hello, packed world");
    }
    assert_eq!(server.calls(), 1);
}
