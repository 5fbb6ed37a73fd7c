//! Request heads and bodies that do not arrive.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use super::{GUILTY, config, connect, read_to_end, statuses, upstream};
use testkit::larder::{ADMIN_KEY, Larder, LarderOptions};

const FAST: &str = "head_timeout = \"300ms\"\nbody_timeout = \"300ms\"";

fn larder(server: &str) -> (testkit::upstream::FakeUpstream, Larder) {
    let upstream = upstream();
    let larder = Larder::start(&LarderOptions::new(&config(server, &upstream)));
    (upstream, larder)
}

/// Sends `bytes`, then `drop` again and again until the connection ends. Returns all that was
/// received.
fn trickle(larder: &Larder, bytes: &str, drop: &str) -> String {
    let mut stream = connect(GUILTY, larder.address()).unwrap();
    stream.write_all(bytes.as_bytes()).unwrap();
    let mut writer = stream.try_clone().unwrap();
    let drop = drop.to_owned();
    let feeding = thread::spawn(move || {
        while writer.write_all(drop.as_bytes()).is_ok() {
            thread::sleep(Duration::from_millis(20));
        }
    });
    let all = read_to_end(&mut stream);
    let _ = stream.shutdown(std::net::Shutdown::Both);
    feeding.join().unwrap();
    all
}

#[test]
fn every_head_has_its_time() {
    let (_upstream, larder) = larder(FAST);
    let whole = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
    for (before, answers) in [
        (String::new(), vec![408]),
        (whole.to_owned(), vec![200, 408]),
        (whole.repeat(3), vec![200, 200, 200, 408]),
        (
            "GET /open/1 HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
            vec![200, 408],
        ),
    ] {
        let all = trickle(
            &larder,
            &format!("{before}GET /healthz HTTP/1.1\r\nX: "),
            "a",
        );
        assert_eq!(statuses(&all), answers, "{all}");
        let (_, last) = all.rsplit_once("HTTP/1.1 408").unwrap();
        let (head, body) = last.split_once("\r\n\r\n").unwrap();
        assert!(head.contains("connection: close"), "{all}");
        assert!(
            head.contains(&format!("content-length: {}", body.len())),
            "{all}"
        );
        let problem: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(problem["status"], 408);
    }
}

#[test]
fn a_connection_on_which_nothing_comes_ends_without_a_word() {
    let (_upstream, larder) = larder(FAST);
    let mut silent = connect(GUILTY, larder.address()).unwrap();
    assert_eq!(read_to_end(&mut silent), "");
    // A connection that was used a while ago ends, too.
    let mut used = connect(GUILTY, larder.address()).unwrap();
    used.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        .unwrap();
    assert_eq!(statuses(&read_to_end(&mut used)), [200]);
}

#[test]
fn line_ends_before_a_request_are_part_of_its_time() {
    let (_upstream, larder) = larder(FAST);
    assert_eq!(statuses(&trickle(&larder, "", "\r\n")), [408]);
}

#[test]
fn a_body_has_its_time() {
    let (_upstream, larder) = larder(FAST);
    let head = format!(
        "POST /keys HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ADMIN_KEY}\r\nContent-Type: application/json\r\n"
    );
    let sized = trickle(
        &larder,
        &format!("{head}Content-Length: 5000\r\n\r\n{{"),
        " ",
    );
    assert_eq!(statuses(&sized), [408], "{sized}");
    assert!(sized.contains("within 300ms"), "{sized}");
    let chunked = format!("{head}Transfer-Encoding: chunked\r\n\r\n");
    let chunked = trickle(&larder, &chunked, "1\r\n \r\n");
    assert_eq!(statuses(&chunked)[0], 408, "{chunked}");
    // A request whose head and body have arrived is served.
    let mut late = connect(GUILTY, larder.address()).unwrap();
    let body = r#"{"name":"late"}"#;
    let length = body.len();
    let whole = format!("{head}Connection: close\r\nContent-Length: {length}\r\n\r\n{body}");
    late.write_all(whole.as_bytes()).unwrap();
    assert_eq!(statuses(&read_to_end(&mut late)), [201]);
}

#[test]
fn a_body_that_nobody_wants_does_not_hold_its_connection() {
    let (_upstream, larder) = larder(FAST);
    for (request, status) in [
        ("GET /open/1 HTTP/1.1\r\nHost: x\r\n", 200),
        (
            "POST /keys HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer nobody\r\n",
            401,
        ),
        ("DELETE /nowhere HTTP/1.1\r\nHost: x\r\n", 404),
    ] {
        let chunked = format!("{request}Transfer-Encoding: chunked\r\n\r\n");
        let all = trickle(&larder, &chunked, "1\r\n \r\n");
        assert_eq!(statuses(&all)[0], status, "{all}");
        let sized = format!("{request}Content-Length: 50000\r\n\r\n");
        let all = trickle(&larder, &sized, " ");
        assert_eq!(statuses(&all)[0], status, "{all}");
    }
}

#[test]
fn a_slow_source_is_no_slow_client() {
    let (upstream, larder) = larder(FAST);
    upstream.set_latency(Duration::from_secs(1));
    let mut stream = connect(GUILTY, larder.address()).unwrap();
    // The next request arrives while the first one waits, and is answered.
    stream
        .write_all(b"GET /open/1 HTTP/1.1\r\nHost: x\r\n\r\nGET /open/1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .unwrap();
    assert_eq!(statuses(&read_to_end(&mut stream)), [200, 200]);
}

#[test]
fn half_a_request_behind_a_whole_one_has_its_time_as_well() {
    let (upstream, larder) = larder(FAST);
    upstream.hold();
    let mut stream: TcpStream = connect(GUILTY, larder.address()).unwrap();
    stream
        .write_all(b"GET /open/1 HTTP/1.1\r\nHost: x\r\n\r\nGET /open/1 HTTP/1.1\r\nHo")
        .unwrap();
    testkit::until(testkit::SOON, "it waits", || upstream.calls() == 1);
    upstream.release();
    let mut first = [0; 12];
    stream.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");
    // The connection ends, though the client sends nothing more.
    read_to_end(&mut stream);
}
