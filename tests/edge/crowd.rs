//! More connections than the server has places.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::{GUILTY, INNOCENT, config, connect, read_to_end, upstream};
use testkit::larder::{Larder, LarderOptions};
use testkit::{SOON, until};

const ASK: &[u8] = b"GET /open/1 HTTP/1.1\r\nHost: x\r\n\r\n";
const CROWD: usize = 1_000;

/// This process has the other ends.
fn allow_many_sockets() {
    let limit = getrlimit(Resource::Nofile);
    let current = limit.maximum;
    setrlimit(Resource::Nofile, Rlimit { current, ..limit }).unwrap();
}

/// The status of the next answer of a connection, which has a small body.
fn answered(stream: &mut TcpStream) -> Option<u16> {
    let mut buffer = [0; 4096];
    let length = stream.read(&mut buffer).ok().filter(|length| *length > 0)?;
    let text = std::str::from_utf8(&buffer[..length]).ok()?;
    text.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()
}

fn ask(from: Ipv4Addr, to: SocketAddr) -> Option<u16> {
    let mut stream = connect(from, to).ok()?;
    stream.write_all(ASK).ok()?;
    answered(&mut stream)
}

fn open(larder: &Larder, what: &str) -> u64 {
    larder.stats()["connections"][what].as_u64().unwrap()
}

/// The 99th percentile.
fn p99(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() * 99 / 100]
}

/// A thousand connections. Each reads one answer and then sends a byte of a head from time to time,
/// while others send 300 requests, each on its own connection. A connection that is closed is
/// opened again.
fn a_crowd_of_slow_heads(server: &str, limits: &'static str, innocent: Ipv4Addr) {
    allow_many_sockets();
    let upstream = upstream();
    let options = LarderOptions::new(&config(server, &upstream)).limited(limits);
    let larder = Larder::start(&options);
    assert_eq!(ask(INNOCENT, larder.address()), Some(200));
    let to = larder.address();
    let (done, rounds) = (AtomicBool::new(false), AtomicUsize::new(0));
    let (mut times, mut errors, mut whole) = (Vec::new(), 0, Duration::ZERO);
    let guilty = thread::scope(|scope| {
        let crowd = scope.spawn(|| {
            let (mut answers, mut times, mut cut) = (0, Vec::new(), 0);
            let mut begin = |cut: usize| {
                let began = Instant::now();
                let mut stream = connect(GUILTY, to).ok()?;
                stream.write_all(ASK).ok()?;
                if answered(&mut stream)? == 200 {
                    answers += 1;
                    times.push(began.elapsed());
                }
                stream.write_all(b"GET /open/1 HTTP/1.1\r\nX: ").ok()?;
                stream.set_nonblocking(true).ok()?;
                let _ = cut;
                Some(stream)
            };
            let mut crowd: Vec<_> = (0..CROWD).map(|_| begin(0)).collect();
            while !done.load(Ordering::Relaxed) {
                for slow in &mut crowd {
                    let alive = slow.as_mut().is_some_and(|slow| {
                        let ended = matches!(slow.read(&mut [0; 512]), Ok(0));
                        !ended && slow.write_all(b"a").is_ok()
                    });
                    if !alive {
                        cut += 1;
                        *slow = begin(cut);
                    }
                }
                rounds.fetch_add(1, Ordering::Relaxed);
            }
            (answers, times, cut)
        });
        until(SOON, "the crowd is there", || {
            rounds.load(Ordering::Relaxed) > 0
        });
        let began = Instant::now();
        for _ in 0..300 {
            let began = Instant::now();
            errors += usize::from(ask(innocent, to) != Some(200));
            times.push(began.elapsed());
        }
        whole += began.elapsed();
        done.store(true, Ordering::Relaxed);
        crowd.join().unwrap()
    });
    let (answers, mut guilty_times, cut) = guilty;
    println!(
        "innocent: 300 requests in {whole:?}, {errors} errors, p99 {:?}; guilty: {answers} requests, {cut} cut, p99 {:?}",
        p99(&mut times),
        p99(&mut guilty_times)
    );
    println!("{}", larder.stats()["connections"]);
    assert_eq!(errors, 0, "{}", larder.log());
    assert!(cut > 0);
    assert!(
        !larder.log().contains("Too many open files"),
        "{}",
        larder.log()
    );
}

#[test]
fn slow_heads_from_one_address_end_and_nobody_else_notices() {
    a_crowd_of_slow_heads("head_timeout = \"300ms\"", "ulimit -n 1024", INNOCENT);
}

#[test]
fn slow_heads_make_way_before_their_time_is_over() {
    a_crowd_of_slow_heads("head_timeout = \"1h\"", "ulimit -n 1024", INNOCENT);
}

#[test]
fn slow_heads_make_way_for_others_of_their_own_address() {
    a_crowd_of_slow_heads("head_timeout = \"1h\"", "ulimit -n 1024", GUILTY);
}

#[test]
fn a_low_limit_of_open_files_is_raised_as_far_as_it_may_be() {
    allow_many_sockets();
    let upstream = upstream();
    let options = LarderOptions::new(&config("", &upstream));
    let larder = Larder::start(&options.limited("ulimit -S -n 1024"));
    assert!(open(&larder, "max") > 1024, "{}", larder.log());
    let crowd: Vec<_> = (0..CROWD + 100)
        .map(|_| {
            let mut stream = connect(GUILTY, larder.address()).unwrap();
            stream.write_all(b"GET").unwrap();
            stream
        })
        .collect();
    assert_eq!(ask(INNOCENT, larder.address()), Some(200));
    assert_eq!(open(&larder, "displaced"), 0);
    drop(crowd);
}

#[test]
fn idle_connections_make_way_first_and_those_at_work_do_not() {
    let upstream = upstream();
    let config = config(
        "max_connections = 8\nworkers = 1\nhead_timeout = \"1h\"",
        &upstream,
    );
    let larder = Larder::start(&LarderOptions::new(&config));
    assert_eq!(open(&larder, "max"), 8);
    upstream.hold();
    let wait = |id: usize| {
        let mut stream = connect(GUILTY, larder.address()).unwrap();
        write!(
            stream,
            "GET /open/{id} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        stream
    };
    let mut working: Vec<_> = (0..7).map(wait).collect();
    until(SOON, "seven loads", || upstream.calls() == 7);
    let idle = connect(GUILTY, larder.address()).unwrap();
    // The idle connection has the eighth place. The request for the figures displaces it, and then
    // no idle one is left.
    until(SOON, "it made way", || open(&larder, "displaced") > 0);
    drop(idle);
    working.push(wait(7));
    until(SOON, "the eighth load", || upstream.calls() == 8);
    for _ in 0..3 {
        assert_eq!(ask(INNOCENT, larder.address()), None, "all places work");
    }
    upstream.release();
    for stream in &mut working {
        assert!(read_to_end(stream).starts_with("HTTP/1.1 200"));
    }
    until(SOON, "there are places again", || {
        ask(INNOCENT, larder.address()) == Some(200)
    });
    assert!(open(&larder, "refused") >= 3);
    assert!(
        larder.log().contains("connections are taken"),
        "{}",
        larder.log()
    );
}

#[test]
fn one_address_has_no_more_than_its_bound() {
    let upstream = upstream();
    let server = "max_connections_per_address = 2\nhead_timeout = \"1h\"";
    let larder = Larder::start(&LarderOptions::new(&config(server, &upstream)));
    upstream.hold();
    let mut working = Vec::new();
    for id in 0..2 {
        let mut stream = connect(GUILTY, larder.address()).unwrap();
        write!(
            stream,
            "GET /open/{id} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        working.push(stream);
    }
    until(SOON, "two loads", || upstream.calls() == 2);
    assert_eq!(ask(GUILTY, larder.address()), None);
    upstream.release();
    assert_eq!(
        ask(INNOCENT, larder.address()),
        Some(200),
        "another address has its own"
    );
    for stream in &mut working {
        assert!(read_to_end(stream).starts_with("HTTP/1.1 200"));
    }
    assert!(
        larder.log().contains("max_connections_per_address"),
        "{}",
        larder.log()
    );
}
