//! Clients that request much and do not read the answers.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::{GUILTY, INNOCENT, connect, connect_with};
use testkit::larder::{Larder, LarderOptions};
use testkit::upstream::{Behaviour, FakeUpstream, Response};
use testkit::{SOON, until};

const BODY: usize = 4 << 20;
const ASK: &[u8] = b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n";

fn upstream() -> FakeUpstream {
    let text = format!("\"{}\"", "x".repeat(BODY - 2));
    let big = Response::text(200, &text).with("Content-Type", "application/json");
    FakeUpstream::start(Behaviour::always(big))
}

fn config(server: &str, upstream: &FakeUpstream) -> String {
    format!(
        "[server]\n{server}\n[resource.big]\npath = \"/big\"\npublic = true\nsource = {{ http = \"http://{}/\" }}\n\
         ttl = {{ memory = \"1h\", redis = \"1h\" }}\n",
        upstream.address()
    )
}

/// The whole answer on a connection that stays open.
fn body_of(stream: &mut TcpStream) -> Option<usize> {
    stream.write_all(ASK).ok()?;
    let (mut read, mut buffer, mut head) = (0, vec![0; 1 << 16], None);
    loop {
        let length = stream.read(&mut buffer).ok().filter(|length| *length > 0)?;
        head = head.or_else(|| Some(4 + buffer.windows(4).position(|end| end == b"\r\n\r\n")?));
        read += length;
        if read >= head? + BODY {
            return Some(read - head?);
        }
    }
}

#[test]
fn a_body_that_nobody_takes_is_in_memory_once_and_its_clients_are_cut() {
    let upstream = upstream();
    let config = config("progress_timeout = \"4s\"", &upstream);
    let larder = Larder::start(&LarderOptions::new(&config));
    let mut innocent = connect(INNOCENT, larder.address()).unwrap();
    assert_eq!(body_of(&mut innocent), Some(BODY));
    let before = larder.resident();
    let stats = || larder.stats()["connections"].clone();

    let began = Instant::now();
    let mut guilty: Vec<TcpStream> = (0..100)
        .map(|_| {
            let mut stream = connect_with(GUILTY, larder.address(), Some(4096)).unwrap();
            stream.write_all(ASK).unwrap();
            stream
        })
        .collect();
    // One byte from each, so all of them are being answered.
    for stream in &mut guilty {
        stream.read_exact(&mut [0]).unwrap();
    }
    let (mut most, mut times) = (0, Vec::new());
    while stats()["open"].as_u64().unwrap() > 5 {
        let asked = Instant::now();
        let mut innocent = connect(INNOCENT, larder.address()).unwrap();
        assert_eq!(body_of(&mut innocent), Some(BODY));
        times.push(asked.elapsed());
        most = most.max(larder.resident());
        assert!(began.elapsed() < SOON, "they are not cut: {}", stats());
    }
    times.sort_unstable();
    let more = most.saturating_sub(before) >> 20;
    println!("{}", stats());
    println!(
        "innocent: {} requests, 0 errors, slowest {:?}; guilty: 100 requests, cut within {:?}, {more} MiB more",
        times.len(),
        times.last().unwrap(),
        began.elapsed()
    );
    assert!(more < 48, "{more} MiB more");
    assert_eq!(upstream.calls(), 1);
}

#[test]
fn a_client_that_reads_slowly_gets_the_whole_body() {
    let upstream = upstream();
    let larder = Larder::start(&LarderOptions::new(&config(
        "progress_timeout = \"5s\"",
        &upstream,
    )));
    let mut slow = connect_with(INNOCENT, larder.address(), Some(4096)).unwrap();
    slow.write_all(b"GET /big HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .unwrap();
    let (mut all, mut buffer) = (0, vec![0; 4096]);
    // As slow as the client's small buffer makes it: often full, but never for long.
    loop {
        let length = slow.read(&mut buffer).unwrap();
        if length == 0 {
            break;
        }
        all += length;
    }
    assert!(all > BODY, "{all}");
    assert_eq!(larder.stats()["connections"]["timed_out"], 0);
}

#[test]
fn a_client_that_reads_none_of_many_small_answers_is_cut() {
    let upstream = upstream();
    let larder = Larder::start(&LarderOptions::new(&config(
        "progress_timeout = \"500ms\"",
        &upstream,
    )));
    let mut guilty = connect_with(GUILTY, larder.address(), Some(4096)).unwrap();
    guilty
        .set_write_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let many = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n".repeat(200);
    // Until the server reads no more requests, because the client reads no answers. Then the server
    // ends the connection.
    while guilty.write_all(many.as_bytes()).is_ok() {}
    until(SOON, "it is cut", || {
        larder.stats()["connections"]["timed_out"] == 1
    });
    larder.call("GET", "/healthz").send().expect(200);
}
