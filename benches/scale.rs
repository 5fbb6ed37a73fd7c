//! The costs that grow with a cache, as tables in Markdown: `cargo bench --bench scale`, about two
//! minutes and 3 GiB of memory.
//!
//! The cost of a hit by entries, tags and bytes, beside the bare maps; the memory of an entry
//! beyond key and body; invalidations a second by replicas; and a mirror with a million names.
//! Starts its own `redis-server`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    unreachable_pub
)]

mod support;

use std::collections::HashMap;
use std::fmt::Write;
use std::hint::black_box;
use std::ops::Range;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use larder_cache::{
    Cache, InvalidationTarget, Key, LoadSettings, MemorySettings, Policy, Request, Tag, Ticket,
    Value,
};

use testkit::redis::RedisServer;

use support::{
    SOON, acknowledged, alone, bare_moka, first_line, machine, quantile, replica, request,
    resident, time, until,
};

// The program's own allocator: memory is measured.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const HOUR: Duration = Duration::from_secs(3600);

fn main() {
    // `cargo test --all-targets` runs this, too, without asking for figures.
    if !std::env::args().any(|argument| argument == "--bench") {
        println!("figures are made by: cargo bench --bench scale");
        return;
    }
    let (began, load_before) = (Instant::now(), first_line("/proc/loadavg"));
    let redis = RedisServer::start_as_shipped();
    memory_per_entry();
    entries();
    tags_and_bytes();
    invalidations(&redis);
    million_names(&redis);
    println!(
        "\n{}; load average {load_before} before; {:.0} s.",
        machine(&redis),
        began.elapsed().as_secs_f64(),
    );
}

/// A cache that is alone and has room.
fn roomy() -> Cache {
    alone(
        &MemorySettings {
            max_bytes: 16 << 30,
            ..MemorySettings::default()
        },
        &LoadSettings {
            max_loads: 4,
            max_queue: 1 << 20,
        },
    )
}

struct Things {
    policy: Arc<Policy>,
    tags: usize,
    body: Bytes,
}

impl Things {
    fn new(tags: usize, bytes: usize) -> Things {
        Things {
            policy: Arc::new(Policy::new(HOUR, Duration::ZERO)),
            tags,
            body: vec![b'x'; bytes].into(),
        }
    }

    fn key(number: usize) -> Key {
        Key::new(1, &format!("thing?id={number:07}"))
    }

    /// Puts these things into memory, each with a body that it shares with nobody, and that
    /// somebody was given once.
    fn fill(&self, cache: &Cache, numbers: Range<usize>) {
        const AT_ONCE: usize = 1000;
        for from in numbers.clone().step_by(AT_ONCE) {
            let some = from..numbers.end.min(from + AT_ONCE);
            let tickets: Vec<Ticket> = some
                .map(|number| cache.fetch(self.request(number)))
                .collect();
            for ticket in tickets {
                drop(ticket.wait(SOON).unwrap().entry.value.bytes().clone());
            }
        }
    }

    fn request(&self, number: usize) -> Request {
        let body = Bytes::copy_from_slice(&self.body);
        let tags = (0..self.tags).map(|tag| Tag::new(&format!("tag{tag}:{number:07}")));
        let value = move || Value::Present(body);
        request(Things::key(number), self.policy.clone(), tags, value)
    }

    /// Nanoseconds of a hit, asking for these in turn.
    fn hit(&self, cache: &Cache, order: &[usize]) -> f64 {
        let get = |key: &str| cache.get(key, &self.policy, None).is_some();
        per_lookup(order, get)
    }
}

/// Nanoseconds of one look-up: of those in this order, the median of some rounds. The key is
/// written anew each time, as a request does it.
fn per_lookup(order: &[usize], get: impl Fn(&str) -> bool) -> f64 {
    let mut key = String::new();
    let rounds = (0..9).map(|_| {
        let began = Instant::now();
        for number in order {
            key.clear();
            let _ = write!(key, "{:016x}:thing?id={number:07}", 1);
            assert!(black_box(get(black_box(&key))), "a hit");
        }
        began.elapsed().as_secs_f64() * 1e9 / order.len() as f64
    });
    quantile(rounds.collect(), 0.5)
}

/// Numbers below `below`, in no order.
fn shuffled(below: usize, count: usize) -> Vec<usize> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    (0..count)
        .map(|_| usize::try_from(next() % below as u64).unwrap())
        .collect()
}

fn entries() {
    println!(
        "\n| entries (100 bytes, 1 tag) | a hit, 1000 of them | moka by itself | a hit, any of them | moka by itself | `HashMap` of `Arc`, any of them |\n|--:|--:|--:|--:|--:|--:|"
    );
    let (cache, things) = (roomy(), Things::new(1, 100));
    let moka = bare_moka::<Arc<Bytes>>();
    let mut filled = 0;
    for count in [1_000, 10_000, 100_000, 1_000_000] {
        things.fill(&cache, filled..count);
        filled = count;
        let few: Vec<usize> = (0..100_000).map(|at| at % 1000 * (count / 1000)).collect();
        let any = shuffled(count, 200_000);
        let body = || Arc::new(Bytes::copy_from_slice(&things.body));
        let map: HashMap<Key, Arc<Bytes>, foldhash::fast::RandomState> = (0..count)
            .map(|number| (Things::key(number), body()))
            .collect();
        for number in 0..count {
            moka.insert(Things::key(number), body());
        }
        moka.run_pending_tasks();
        let is_body = |body: Arc<Bytes>| body[99] == b'x';
        let of_map = |key: &str| map.get(key).cloned().is_some_and(is_body);
        let of_moka = |key: &str| moka.get(key).is_some_and(is_body);
        println!(
            "| {count} | {:.0} ns | {:.0} ns | {:.0} ns | {:.0} ns | {:.0} ns |",
            things.hit(&cache, &few),
            per_lookup(&few, of_moka),
            things.hit(&cache, &any),
            per_lookup(&any, of_moka),
            per_lookup(&any, of_map),
        );
    }
}

fn tags_and_bytes() {
    println!("\n| bytes of the body | 1 tag | 4 tags | 16 tags |\n|--:|--:|--:|--:|");
    let order = shuffled(100, 100_000);
    for bytes in [100, 4 << 10, 64 << 10, 1 << 20] {
        let costs = [1, 4, 16].map(|tags| {
            let (cache, things) = (roomy(), Things::new(tags, bytes));
            things.fill(&cache, 0..100);
            format!("{:.0} ns", things.hit(&cache, &order))
        });
        println!("| {bytes} | {} |", costs.join(" | "));
    }
}

fn memory_per_entry() {
    const COUNT: usize = 200_000;
    println!(
        "| tags of its own | memory of an entry beyond key and body ({COUNT} of 100 bytes, resident) |\n|--:|--:|"
    );
    // Of an entry as small as can be.
    let moka = bare_moka::<()>();
    let fill = |numbers: Range<usize>| {
        for number in numbers {
            moka.insert(Things::key(number), ());
        }
        moka.run_pending_tasks();
    };
    fill(0..20_000);
    let before = resident();
    fill(20_000..20_000 + COUNT);
    let each = (resident() - before) as f64 / COUNT as f64;
    let key = Things::key(0).as_str().len();
    println!(
        "| moka by itself, with no value | {:.0} bytes |",
        each - key as f64
    );
    std::mem::forget(moka);
    for tags in [0, 1, 4] {
        let (cache, things) = (roomy(), Things::new(tags, 100));
        // What the first ones need is not what an entry needs.
        things.fill(&cache, 0..20_000);
        let before = resident();
        things.fill(&cache, 20_000..20_000 + COUNT);
        let each = (resident() - before) as f64 / COUNT as f64;
        let itself = Things::key(0).as_str().len() + things.body.len();
        println!("| {tags} | {:.0} bytes |", each - itself as f64);
        // Until the next: what is freed now, the next one would use again.
        std::mem::forget(cache);
    }
}

fn invalidations(redis: &RedisServer) {
    const SPAN: Duration = Duration::from_secs(2);
    println!(
        "\n| replicas | invalidations of one tag a second, 1 thread | 4 threads | the others had heard all, after the last |\n|--:|--:|--:|--:|"
    );
    for count in [1, 2, 4, 8] {
        let prefix = format!("rates-{count}");
        let replicas: Vec<Cache> = (0..count)
            .map(|_| replica(redis, &prefix, Duration::from_secs(1)))
            .collect();
        let mut lag = Duration::ZERO;
        let rates = [1, 4].map(|threads| {
            let began = Instant::now();
            let done: Vec<(u64, u64)> = thread::scope(|scope| {
                let threads: Vec<_> = (0..threads)
                    .map(|thread| {
                        let first = &replicas[0];
                        scope.spawn(move || {
                            let (mut count, mut last) = (0, 0);
                            while began.elapsed() < SPAN {
                                let name = InvalidationTarget::tag(&format!(
                                    "tag:{thread}:{}",
                                    count % 250
                                ));
                                last = acknowledged(first, &[name]);
                                count += 1;
                            }
                            (count, last)
                        })
                    })
                    .collect();
                let threads = threads.into_iter();
                threads.map(|thread| thread.join().unwrap()).collect()
            });
            let ended = Instant::now();
            let count: u64 = done.iter().map(|(count, _)| count).sum();
            let last = done.iter().map(|(_, last)| *last).max().unwrap();
            let all_heard = || replicas.iter().all(|replica| replica.has_heard(last));
            until("all have heard all", all_heard);
            lag = lag.max(ended.elapsed());
            count as f64 / (ended - began).as_secs_f64()
        });
        println!(
            "| {count} | {:.0} | {:.0} | {} |",
            rates[0],
            rates[1],
            time(lag.as_secs_f64())
        );
    }
}

fn million_names(redis: &RedisServer) {
    const NAMES: usize = 1_000_000;
    const BATCH: usize = 500;
    let first = replica(redis, "names", Duration::from_secs(1));
    let things = Things::new(1, 100);
    things.fill(&first, 0..1000);
    let order = shuffled(1000, 100_000);
    let hit_before = things.hit(&first, &order);
    let (before, began) = (resident(), Instant::now());
    let mut last = 0;
    for from in (0..NAMES).step_by(BATCH) {
        let names: Vec<InvalidationTarget> = (from..from + BATCH)
            .map(|number| InvalidationTarget::tag(&format!("user:{number:07}")))
            .collect();
        last = acknowledged(&first, &names);
    }
    until("it is heard", || first.has_heard(last));
    let took = began.elapsed().as_secs_f64();
    let bytes = (resident() - before) as f64 / NAMES as f64;
    let hit = things.hit(&first, &order);
    let began = Instant::now();
    let second = replica(redis, "names", Duration::from_secs(1));
    let joined = began.elapsed().as_secs_f64();
    until("it has heard all", || second.has_heard(last));
    println!(
        "\n| the mirror with {} names | |\n|---|--:|",
        first.bus().targets
    );
    println!(
        "| invalidated, {BATCH} at a time | {:.0} names/s |",
        NAMES as f64 / took
    );
    println!("| memory of each | {bytes:.0} bytes |");
    println!("| a hit before | {hit_before:.0} ns |");
    println!("| a hit now | {hit:.0} ns |");
    println!(
        "| another replica starts and is trusted after | {} |",
        time(joined)
    );
}
