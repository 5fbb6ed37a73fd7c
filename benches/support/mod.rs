//! Shared parts of the benches: replicas, requests, and how a figure is printed.

// Each bench uses some of it.
#![allow(dead_code)]

pub mod propagation;

use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use larder_cache::Secret;
use larder_cache::{
    Cache, CacheItem, CoherenceSettings, InvalidationTarget, Key, Lifetime, Load, LoadSettings,
    Loaded, MemorySettings, Policy, Producer, Purge, RedisSettings, Request, Tag, Value,
};
use testkit::redis::RedisServer;

pub const SOON: Duration = Duration::from_secs(10);

/// How many messages were ever put into the log.
pub fn messages(redis: &RedisServer, prefix: &str) -> u64 {
    let log = format!("{{{prefix}:bus}}:log");
    let about: std::collections::HashMap<String, redis::Value> =
        redis.cli(&["XINFO", "STREAM", &log]);
    redis::from_redis_value(about["entries-added"].clone()).unwrap()
}

pub fn newest_subscriber(redis: &RedisServer) -> u64 {
    let all: String = redis.cli(&["CLIENT", "LIST", "TYPE", "pubsub"]);
    let ids = all.lines().filter_map(|line| {
        let id = line.strip_prefix("id=")?.split(' ').next()?;
        id.parse::<u64>().ok()
    });
    ids.max().expect("somebody listens")
}

pub fn replica(redis: &RedisServer, prefix: &str, max_staleness: Duration) -> Cache {
    replica_at(redis.url(), prefix, max_staleness)
}

pub fn replica_at(url: String, prefix: &str, max_staleness: Duration) -> Cache {
    let settings = RedisSettings {
        url: Some(Secret::new(url)),
        prefix: prefix.to_owned(),
        connect_timeout: Duration::from_secs(5),
        timeout: Duration::from_secs(5),
        ..RedisSettings::default()
    };
    let coherence = CoherenceSettings {
        max_staleness,
        ..CoherenceSettings::default()
    };
    let cache = Cache::start(
        &MemorySettings::default(),
        &settings,
        &LoadSettings::default(),
        &coherence,
    )
    .unwrap();
    assert!(cache.redis().wait_up(SOON) && cache.wait_trusted(SOON));
    cache
}

/// A cache of memory alone.
pub fn alone(memory: &MemorySettings, loads: &LoadSettings) -> Cache {
    let cache = Cache::start(
        memory,
        &RedisSettings::default(),
        loads,
        &CoherenceSettings::default(),
    )
    .unwrap();
    cache.redis().wait_first_look(SOON);
    assert!(
        !cache.redis().is_up(),
        "a Redis at 127.0.0.1:6379 is in the way: these figures are of memory alone"
    );
    assert!(cache.wait_trusted(SOON));
    cache
}

/// Invalidates and returns the clock. Panics if the invalidation is pending.
pub fn acknowledged(cache: &Cache, names: &[InvalidationTarget]) -> u64 {
    let told = cache.invalidate(names, Purge::Hard);
    told.clock.expect("Redis takes it")
}

pub fn quantile(mut of: Vec<f64>, share: f64) -> f64 {
    of.sort_by(f64::total_cmp);
    of[((of.len() - 1) as f64 * share).round() as usize]
}

pub fn time(seconds: f64) -> String {
    if seconds.abs() < 0.01 {
        format!("{:.0} µs", seconds * 1e6)
    } else {
        format!("{:.0} ms", seconds * 1e3)
    }
}

/// A look-up of `key`, whose load brings `value`.
pub fn request(
    key: Key,
    policy: Arc<Policy>,
    tags: impl IntoIterator<Item = Tag>,
    value: impl FnOnce() -> Value + Send + 'static,
) -> Request {
    Request {
        item: CacheItem {
            key,
            policy,
            tags: tags.into_iter().collect(),
            share: "test".into(),
            label: "bench".into(),
            note: Default::default(),
            jitter: 0,
            tally: Arc::default(),
        },
        producer: Producer::Load(Load {
            limit: SOON,
            run: Box::new(|_| Ok(Loaded::new(value(), Lifetime::Policy))),
        }),
    }
}

/// Everything in it lives for an hour.
struct OneHour;

impl<V> moka::Expiry<Key, V> for OneHour {
    fn expire_after_create(&self, _: &Key, _: &V, _: Instant) -> Option<Duration> {
        Some(Duration::from_secs(3600))
    }
}

/// A map as the memory tier has it, and nothing around it.
pub fn bare_moka<V: Clone + Send + Sync + 'static>() -> moka::sync::Cache<Key, V, Hasher> {
    moka::sync::Cache::builder()
        .max_capacity(16 << 30)
        .weigher(|_: &Key, _: &V| 1000)
        .expire_after(OneHour)
        .eviction_policy(moka::policy::EvictionPolicy::lru())
        .build_with_hasher(Hasher::default())
}

type Hasher = foldhash::fast::RandomState;

#[track_caller]
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < SOON, "not in time: {what}");
        thread::sleep(Duration::from_micros(200));
    }
}

/// Resident memory of this process, in bytes.
pub fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes: u64 = line
        .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .unwrap();
    kilobytes * 1024
}

pub fn first_line(path: &str) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.split(' ').next().unwrap_or_default().to_owned()
}

pub fn processor() -> String {
    let all = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = all.lines().find(|line| line.starts_with("model name"));
    let name = name.and_then(|line| line.split_once(": "));
    name.map_or("unknown".into(), |(_, name)| name.to_owned())
}

pub fn rustc() -> String {
    let said = Command::new("rustc").arg("--version").output();
    said.map_or("rustc unknown".into(), |said| {
        String::from_utf8_lossy(&said.stdout).trim().to_owned()
    })
}

/// The machine and the programs of the figures.
pub fn machine(redis: &RedisServer) -> String {
    format!(
        "{} cores ({}), Redis {} on the same machine over loopback, {}, larder {}",
        thread::available_parallelism().unwrap(),
        processor(),
        redis.version(),
        rustc(),
        env!("CARGO_PKG_VERSION"),
    )
}
