//! Shared parts of larder's tests: real servers, a network that fails, clients, ports, and a way to
//! wait.
//!
//! A guard owns each server and stops it by its process id when the test ends, passed or failed. A
//! missing program fails the test with the name of the package to install. Nothing is skipped.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout
)]

pub mod audits;
pub mod client;
pub mod larder;
pub mod news;
pub mod pgbouncer;
pub mod postgres;
pub mod postgres_program;
pub mod process;
pub mod programs;
pub mod prometheus;
pub mod proxy;
pub mod redis;
pub mod sandbox;
pub mod tls;
pub mod upstream;
pub mod versions;

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// The limit of a wait. Generous: only a failing test waits this long.
pub const SOON: Duration = Duration::from_secs(20);

/// Waits until `condition` holds. Panics with `what` if it does not within `deadline`.
#[track_caller]
pub fn until(deadline: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    until_some(deadline, what, || condition().then_some(()));
}

/// Waits until `attempt` returns something. Panics with `what` if it does not within `deadline`.
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

/// Reserves port 6379, where larder looks for a Redis when none is configured. One test at a time
/// has it, across processes.
///
/// Panics if a server already listens there.
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

/// A free address on this machine.
///
/// Ports are below the kernel's range for outgoing connections, so a stopped server can start again
/// at its port. Each process starts its search at another port, since test runners start one
/// process per test.
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
