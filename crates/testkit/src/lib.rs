//! What larder's tests need: servers that are started and stopped, a network that fails, clients, a way to wait, and ports.
//!
//! A guard owns each server and ends it by its process id when the test is over, whether that passed or not. A program that is
//! not installed fails the test with a message that says what to install; nothing is skipped.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout
)]

pub mod client;
pub mod larder;
pub mod news;
pub mod pgbouncer;
pub mod postgres;
pub mod postgres_program;
pub mod process;
pub mod proxy;
pub mod redis;
pub mod tls;
pub mod upstream;
pub mod versions;

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How long a test waits for what should happen soon. Generous: it is only ever waited out by a test that fails.
pub const SOON: Duration = Duration::from_secs(20);

/// Waits until `condition` holds, and panics with `what` when it does not within `deadline`.
#[track_caller]
pub fn until(deadline: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    until_some(deadline, what, || condition().then_some(()));
}

/// Waits until `attempt` gives something, and panics with `what` when it does not within `deadline`.
#[track_caller]
pub fn until_some<T>(deadline: Duration, what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + deadline;
    loop {
        if let Some(found) = attempt() {
            return found;
        }
        assert!(Instant::now() < end, "not within {deadline:?}: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// The port where a Redis is looked for when none is configured, kept for one test at a time, whichever process runs it.
///
/// Panics when somebody listens there.
pub fn the_usual_redis_port() -> UsualPort {
    let lock = std::env::temp_dir().join("larder-tests-6379.lock");
    let lock = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(lock)
        .unwrap();
    lock.lock().unwrap();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 6379));
    assert!(
        TcpListener::bind(address).is_ok(),
        "this test needs port 6379: stop the Redis that listens there"
    );
    UsualPort {
        address,
        _lock: lock,
    }
}

/// The right to use that port.
pub struct UsualPort {
    pub address: SocketAddr,
    _lock: File,
}

/// An address on this machine that nobody listens at.
///
/// Ports come from below the range that the kernel takes for outgoing connections, so a server that was stopped can be started
/// at its port again. Each process begins at a place of its own, since test runners start one process per test.
pub fn free_address() -> SocketAddr {
    const FIRST: u16 = 10_000;
    const COUNT: u16 = 22_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = (std::process::id() % 440) as u16 * 50;
    for _ in 0..COUNT {
        let offset = (start + NEXT.fetch_add(1, Ordering::Relaxed) % COUNT) % COUNT;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, FIRST + offset));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
    panic!("no free port from {FIRST} on");
}
