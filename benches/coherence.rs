//! The figures of coherence, as a table in Markdown: `cargo bench --bench coherence`, about a
//! minute.
//!
//! Starts its own `redis-server` in a temporary folder. Several caches in this process are the
//! replicas. An invalidation is in force at a replica when its `on_invalidation` is called, after
//! the mirror has it; a `get` must then find nothing, or the run fails. No thread spins, so that a
//! machine with few cores measures the bus and not its own load.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    unreachable_pub
)]

mod support;

use std::hint::black_box;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use larder_cache::{Cache, Entry, InvalidationTarget, Key, random};

use testkit::redis::RedisServer;

use support::propagation::{Thing, listen, propagation, seconds};
use support::{
    SOON, acknowledged, bare_moka, first_line, machine, messages, newest_subscriber, quantile,
    replica, replica_at, resident, time, until,
};

// The program's own allocator: the memory of the mirror is measured.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const BODY: usize = 1024;

fn main() {
    // `cargo test --all-targets` runs this, too, without asking for figures.
    if !std::env::args().any(|argument| argument == "--bench") {
        println!("figures are made by: cargo bench --bench coherence");
        return;
    }
    let began = Instant::now();
    let load_before = first_line("/proc/loadavg");
    let redis = RedisServer::start_as_shipped();
    let mut rows = Vec::new();
    // First, while the process has no freed memory that it could use again.
    memory(&redis, &mut rows);
    propagated(&redis, &mut rows);
    for max_staleness in [Duration::from_secs(1), Duration::from_millis(250)] {
        repair(&redis, max_staleness, &mut rows);
    }
    half_open(&redis, &mut rows);
    hits(&redis, &mut rows);
    rates(&redis, &mut rows);

    println!("| Figure | Value |\n|---|---|");
    for (figure, value) in rows {
        println!("| {figure} | {value} |");
    }
    println!(
        "\n{}; load average {} before and {} after; {:.0} s.",
        machine(&redis),
        load_before,
        first_line("/proc/loadavg"),
        began.elapsed().as_secs_f64(),
    );
}

type Rows = Vec<(String, String)>;

fn row(rows: &mut Rows, figure: impl Into<String>, value: impl Into<String>) {
    rows.push((figure.into(), value.into()));
}

/// What one name costs where it is remembered.
fn memory(redis: &RedisServer, rows: &mut Rows) {
    const BATCH: usize = 500;
    const NAMES: usize = 200_000;
    let prefix = "memory";
    let cache = replica(redis, prefix, Duration::from_secs(1));
    let batch = |kind: &str, from: usize| {
        let names: Vec<InvalidationTarget> = (from..from + BATCH)
            .map(|i| InvalidationTarget::tag(&format!("{kind}:{i:06}")))
            .collect();
        acknowledged(&cache, &names)
    };
    // What the first ones need is not what a name needs.
    for from in (0..4 * BATCH).step_by(BATCH) {
        batch("none", from);
    }
    let (names, bytes) = (cache.bus().targets, resident());
    let last = (0..NAMES)
        .step_by(BATCH)
        .map(|from| batch("user", from))
        .max()
        .unwrap();
    until("the last one is heard", || cache.has_heard(last));
    let (names, bytes) = (cache.bus().targets - names, resident() - bytes);
    assert_eq!(names, NAMES);
    row(
        rows,
        format!(
            "Memory of the mirror per name ({names} names of 11 bytes, resident memory of the process)"
        ),
        format!("{:.0} bytes", bytes as f64 / names as f64),
    );
    let key = format!("{{{prefix}:bus}}:names");
    let bytes: u64 = redis.cli(&["MEMORY", "USAGE", &key, "SAMPLES", "0"]);
    row(
        rows,
        "The same name in Redis (`MEMORY USAGE` of the sorted set)",
        format!("{:.0} bytes", bytes as f64 / (names + 4 * BATCH) as f64),
    );
}

/// How soon an invalidation is in force at three others.
fn propagated(redis: &RedisServer, rows: &mut Rows) {
    let times = propagation(redis);
    let count = times.call.len();
    let what = |of: &str| format!("Propagation to 3 other replicas, {of} ({count} invalidations)");
    row(
        rows,
        what("from the call of `invalidate` to each of them"),
        spread(times.since_call),
    );
    row(
        rows,
        what("from the call to the last of the three"),
        spread(times.slowest),
    );
    row(
        rows,
        what("from the return of `invalidate` to each of them (negative: before it returned)"),
        spread(times.since_return),
    );
    row(
        rows,
        "The call of `invalidate` itself, one tag, 4 replicas",
        spread(times.call),
    );
}

/// How soon an invalidation is in force at a replica that its message did not reach.
fn repair(redis: &RedisServer, max_staleness: Duration, rows: &mut Rows) {
    const ROUNDS: usize = 40;
    let prefix = format!("repair-{}", max_staleness.as_millis());
    let first = replica(redis, &prefix, max_staleness);
    let other = replica(redis, &prefix, max_staleness);
    let told = listen(&other);
    let silent = SilentInvalidation::new(&prefix);
    let mut thing = Thing::new("thing", &[]);
    let mut lose =
        |how: &str, lost_invalidation: &mut dyn FnMut(&InvalidationTarget) -> Instant| {
            let mut times = Vec::new();
            for round in 0..ROUNDS {
                let name = thing.tag_anew(round);
                thing.fill(&other);
                // At any time between two pings, and not before this connection has brought an
                // echo.
                let beat = max_staleness.as_micros() as u64 / 4;
                thread::sleep(max_staleness / 4 + Duration::from_micros(20_000 + random() % beat));
                thing.fill(&other);
                let gaps = other.bus().gaps_repaired;
                let called = lost_invalidation(&name);
                let at = told.when(&name);
                thing.must_be_gone(&other);
                until("it is counted", || other.bus().gaps_repaired > gaps);
                times.push(seconds(called, at));
            }
            let worst = times.iter().copied().fold(f64::MIN, f64::max);
            row(
                rows,
                format!(
                    "Repair of a lost message, {how}, `max_staleness` {} ms ({ROUNDS} losses)",
                    max_staleness.as_millis()
                ),
                format!(
                    "{}, worst {} = {:.0} % of `max_staleness`",
                    spread(times),
                    time(worst),
                    100.0 * worst / max_staleness.as_secs_f64()
                ),
            );
        };
    let mut connection = redis.connect();
    lose(
        "dropped on a connection that goes on (the script without its `PUBLISH`)",
        &mut |name| {
            let called = Instant::now();
            silent.run(&mut connection, name.as_str());
            called
        },
    );
    lose("subscriber cut by `CLIENT KILL`", &mut |name| {
        // The one that subscribed last: every cut makes it so anew.
        let newest = newest_subscriber(redis);
        let () = redis.cli(&["CLIENT", "KILL", "ID", &newest.to_string()]);
        let called = Instant::now();
        acknowledged(&first, std::slice::from_ref(name));
        called
    });
}

/// How soon a replica stops trusting its memory when its subscriber's connection is open but
/// silent.
fn half_open(redis: &RedisServer, rows: &mut Rows) {
    const ROUNDS: usize = 8;
    let max_staleness = Duration::from_secs(1);
    let relay = Relay::start(redis.address().port());
    let cache = replica_at(relay.url(), "half-open", max_staleness);
    let (mut ends, mut comes_back) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        // At any time between two pings.
        thread::sleep(Duration::from_micros(random() % 250_000));
        assert!(cache.wait_trusted(SOON));
        let stalled = Instant::now();
        relay.hold_back(true);
        until("trust ends", || !cache.bus().trusted);
        ends.push(seconds(stalled, Instant::now()));
        let goes_on = Instant::now();
        relay.hold_back(false);
        assert!(cache.wait_trusted(SOON));
        comes_back.push(seconds(goes_on, Instant::now()));
    }
    let worst = ends.iter().copied().fold(f64::MIN, f64::max);
    row(
        rows,
        format!(
            "A subscriber that is half-open, until memory is not believed, `max_staleness` 1000 ms ({ROUNDS} times)"
        ),
        format!(
            "p50 {}, worst {} = {:.0} % of `max_staleness`",
            time(quantile(ends, 0.5)),
            time(worst),
            100.0 * worst / max_staleness.as_secs_f64()
        ),
    );
    row(
        rows,
        "From the moment at which it brings something again, until memory is believed",
        spread(comes_back),
    );
}

/// What a memory hit costs, next to the map that it looks into.
fn hits(redis: &RedisServer, rows: &mut Rows) {
    const TAGS: [usize; 4] = [0, 1, 4, 16];
    const ROUNDS: usize = 25;
    let cache = replica(redis, "hits", Duration::from_secs(1));
    let things = TAGS.map(|count| {
        let tags: Vec<String> = (0..count).map(|i| format!("tag:{i}")).collect();
        let tags: Vec<&str> = tags.iter().map(String::as_str).collect();
        let thing = Thing::new(&format!("thing?tags={count}"), &tags);
        thing.fill(&cache);
        thing
    });
    let bare = bare_moka();
    let plain = moka::sync::Cache::<Key, Arc<Entry>>::new(10_000);
    for thing in &things {
        let entry = cache.get(thing.text(), &thing.policy, None).unwrap().entry;
        let names = cache.invalidated(&entry).len();
        assert_eq!(names, thing.tags.len() + 1, "its key is a name, too");
        bare.insert(thing.key.clone(), entry.clone());
        plain.insert(thing.key.clone(), entry);
    }
    let of_bare = |text: &str| bare.get(text).is_some();
    let of_plain = |text: &str| plain.get(text).is_some();
    let mut costs = vec![Vec::new(); TAGS.len() + 2];
    // In turns, so that disturbances meet all of them.
    for _ in 0..ROUNDS {
        for (thing, costs) in things.iter().zip(&mut costs) {
            let get = |text: &str| cache.get(text, &thing.policy, None).is_some();
            costs.push(nanoseconds(thing.text(), get));
        }
        costs[TAGS.len()].push(nanoseconds(things[1].text(), of_bare));
        costs[TAGS.len() + 1].push(nanoseconds(things[1].text(), of_plain));
    }
    let medians: Vec<f64> = costs
        .into_iter()
        .map(|costs| quantile(costs, 0.5))
        .collect();
    let (bare, plain) = (medians[TAGS.len()], medians[TAGS.len() + 1]);
    for (tags, cost) in TAGS.iter().zip(&medians) {
        row(
            rows,
            format!("A memory hit (`Cache::get`, {BODY} bytes, one thread) with {tags} tags"),
            format!("{cost:.0} ns, {:.2} × bare moka", cost / bare),
        );
    }
    row(
        rows,
        "Bare moka `get` of the same value (its settings here: LRU, weighed, expiry per entry, foldhash)",
        format!("{bare:.0} ns"),
    );
    row(
        rows,
        "Bare moka `get` of the same value (`moka::sync::Cache::new`)",
        format!("{plain:.0} ns"),
    );
}

/// How many invalidations per second one replica makes.
fn rates(redis: &RedisServer, rows: &mut Rows) {
    const SPAN: Duration = Duration::from_millis(1500);
    for others in [0, 3] {
        let prefix = format!("rates-{others}");
        let start = || replica(redis, &prefix, Duration::from_secs(1));
        let first = start();
        let others: Vec<Cache> = (0..others).map(|_| start()).collect();
        for threads in [1, 4] {
            let so_far = || messages(redis, &prefix);
            let before = so_far();
            let began = Instant::now();
            let done: Vec<(u64, u64)> = thread::scope(|scope| {
                let work = |thread: usize| {
                    let first = &first;
                    move || {
                        let names: Vec<InvalidationTarget> = (0..250)
                            .map(|i| InvalidationTarget::tag(&format!("tag:{thread}:{i}")))
                            .collect();
                        let (mut count, mut last) = (0, 0);
                        for name in names.chunks(1).cycle() {
                            if began.elapsed() >= SPAN {
                                break;
                            }
                            last = acknowledged(first, name);
                            count += 1;
                        }
                        (count, last)
                    }
                };
                let threads: Vec<_> = (0..threads).map(|at| scope.spawn(work(at))).collect();
                threads
                    .into_iter()
                    .map(|thread| thread.join().unwrap())
                    .collect()
            });
            let ended = Instant::now();
            let count: u64 = done.iter().map(|(count, _)| count).sum();
            let last = done.iter().map(|(_, last)| *last).max().unwrap();
            let per_second = count as f64 / seconds(began, ended);
            let mut value = format!("{per_second:.0} /s");
            let messages = so_far() - before;
            value += &format!(", {:.2} messages each", messages as f64 / count as f64);
            if !first.bus().trusted {
                value += "; trust was lost meanwhile";
            }
            if !others.is_empty() {
                while !others.iter().all(|other| other.has_heard(last)) {
                    assert!(ended.elapsed() < SOON, "the others hear all of it");
                    thread::sleep(Duration::from_micros(100));
                }
                let lag = time(ended.elapsed().as_secs_f64());
                value += &format!("; all others had heard all of it {lag} after the last");
            }
            row(
                rows,
                format!(
                    "Invalidations of one tag, {threads} thread{}, {} replica{}",
                    if threads == 1 { "" } else { "s" },
                    others.len() + 1,
                    if others.is_empty() { "" } else { "s" },
                ),
                value,
            );
        }
    }
}

/// An invalidation whose message nobody gets: the script of the bus itself, without its `PUBLISH`.
struct SilentInvalidation {
    script: redis::Script,
    prefix: String,
}

impl SilentInvalidation {
    fn new(prefix: &str) -> SilentInvalidation {
        const WHOLE: &str = concat!(
            include_str!("../crates/larder-cache/src/coherence/call.lua"),
            include_str!("../crates/larder-cache/src/coherence/history.lua"),
            include_str!("../crates/larder-cache/src/coherence/invalidate.lua")
        );
        let silent = WHOLE.replace("call('PUBLISH', ARGV[2], message)", "");
        assert!(!silent.contains("PUBLISH") && WHOLE.contains("PUBLISH"));
        SilentInvalidation {
            script: redis::Script::new(&silent),
            prefix: prefix.to_owned(),
        }
    }

    fn run(&self, connection: &mut redis::Connection, name: &str) {
        let mut call = self.script.prepare_invoke();
        for key in ["state", "names", "log"] {
            call.key(format!("{{{}:bus}}:{key}", self.prefix));
        }
        // The history id is used only to begin a new history.
        for argument in ["0", "nobody", "h", "nobody", "10000", "1", name] {
            call.arg(argument);
        }
        let () = call.invoke(connection).unwrap();
    }
}

fn nanoseconds(text: &str, get: impl Fn(&str) -> bool) -> f64 {
    const GETS: u32 = 40_000;
    let began = Instant::now();
    let mut hits = 0;
    for _ in 0..GETS {
        hits += u32::from(black_box(get(black_box(text))));
    }
    let took = began.elapsed();
    assert_eq!(hits, GETS, "all of them are hits");
    took.as_secs_f64() * 1e9 / f64::from(GETS)
}

fn spread(times: Vec<f64>) -> String {
    let (middle, high) = (quantile(times.clone(), 0.5), quantile(times, 0.99));
    format!("p50 {}, p99 {}", time(middle), time(high))
}

/// A proxy between a replica and Redis. It can hold back messages to the replica's subscriber.
struct Relay {
    port: u16,
    held_back: Arc<(Mutex<bool>, Condvar)>,
}

impl Relay {
    fn start(redis: u16) -> Relay {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let held_back = Arc::<(Mutex<bool>, Condvar)>::default();
        let gate = held_back.clone();
        // Ends with the process.
        thread::spawn(move || {
            for client in listener.incoming() {
                let (client, gate) = (client.unwrap(), gate.clone());
                let server = TcpStream::connect(("127.0.0.1", redis)).unwrap();
                for end in [&client, &server] {
                    end.set_nodelay(true).unwrap();
                }
                let subscribed = Arc::<AtomicBool>::default();
                let (to_server, seen) = (pair(&client, &server), subscribed.clone());
                thread::spawn(move || {
                    relay(to_server, |bytes| {
                        if bytes.windows(9).any(|word| word == b"SUBSCRIBE") {
                            seen.store(true, Ordering::Release);
                        }
                    });
                });
                let to_client = pair(&server, &client);
                thread::spawn(move || {
                    relay(to_client, |_| {
                        if subscribed.load(Ordering::Acquire) {
                            let held = gate.0.lock().unwrap();
                            drop(gate.1.wait_while(held, |held| *held).unwrap());
                        }
                    });
                });
            }
        });
        Relay { port, held_back }
    }

    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    fn hold_back(&self, held: bool) {
        *self.held_back.0.lock().unwrap() = held;
        self.held_back.1.notify_all();
    }
}

fn pair(from: &TcpStream, to: &TcpStream) -> (TcpStream, TcpStream) {
    (from.try_clone().unwrap(), to.try_clone().unwrap())
}

/// Passes on all data, each piece after `before` has seen it, until either end closes.
fn relay((mut from, mut to): (TcpStream, TcpStream), mut before: impl FnMut(&[u8])) {
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        before(&buffer[..count]);
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}
