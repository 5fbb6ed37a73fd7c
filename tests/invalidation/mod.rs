//! Invalidation: its targets, how soon it holds, and that it holds whatever fails.
//!
//! The data contain their version. TTLs are hours, and nothing becomes stale by age. So an old
//! version is always one that an invalidation should have ended.

mod audited;
mod history;
mod holds;
mod names;
mod pruning;
mod record;
mod refused;
mod seen;

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use testkit::client::{Answer, Pending};
use testkit::larder::{ADMIN_KEY, Larder, LarderOptions};
use testkit::news::path;
use testkit::proxy::FaultProxy;
use testkit::redis::RedisServer;
use testkit::versions::{Versions, VersionsConfig, version_in};
use testkit::{SOON, until, until_some};

/// The default `max_staleness` of [`VersionsConfig`].
const MAX_STALENESS: Duration = Duration::from_secs(1);

/// For a test in which trust must not end, and no ping may be sent meanwhile: the interval of
/// pings, a quarter of it, is longer than any wait.
const LONG_MAX_STALENESS: &str = "2m";

/// Replicas on one Redis, the second of them behind a proxy.
struct Two {
    // Dropped in this order.
    near: Larder,
    far: Larder,
    proxy: FaultProxy,
    redis: RedisServer,
    versions: Versions,
}

impl Two {
    fn start() -> Two {
        Two::with(&VersionsConfig::default())
    }

    fn with(config: &VersionsConfig) -> Two {
        let (redis, versions) = (RedisServer::start(), Versions::start());
        let proxy = FaultProxy::start(redis.address());
        let near = config.options(&versions, redis.address());
        let far = config.options(&versions, proxy.address());
        Two::start_with([&near, &far], proxy, redis, versions)
    }

    /// Starts the near one and the far one, and waits until both trust their buses.
    fn start_with(
        [near, far]: [&LarderOptions; 2],
        proxy: FaultProxy,
        redis: RedisServer,
        versions: Versions,
    ) -> Two {
        let [near, far] = [near, far].map(Larder::start);
        let two = Two {
            near,
            far,
            proxy,
            redis,
            versions,
        };
        two.both_trust();
        two
    }

    fn both(&self) -> [&Larder; 2] {
        [&self.near, &self.far]
    }

    fn both_trust(&self) {
        for replica in self.both() {
            until_trusted(replica);
        }
    }

    /// Loads a category into the memory of both. Returns its version.
    fn warm(&self, category: &str) -> u64 {
        let [near, far] = self.both().map(|replica| warm(replica, category));
        assert_eq!(near, far);
        near
    }

    /// Changes a category, and has one replica invalidate it. Returns the new version and the
    /// answer.
    fn change(&self, replica: &Larder, category: &str) -> (u64, Change) {
        let version = self.versions.publish(category);
        (version, invalidate(replica, &category_tag(category)))
    }
}

/// The answer to an invalidation.
#[derive(Debug)]
struct Change {
    clock: String,
    pending: bool,
    acknowledged: Instant,
}

fn category_tag(category: &str) -> Value {
    json!({"tags": [format!("category:{category}")]})
}

/// Invalidates, and checks the form of the answer.
#[track_caller]
fn invalidate(larder: &Larder, names: &Value) -> Change {
    let answer = larder.post("/cache/invalidate", names);
    let acknowledged = Instant::now();
    let body = answer.json();
    let pending = body["pending"].as_bool();
    let pending = pending.unwrap_or_else(|| panic!("{answer}"));
    assert_eq!(answer.status, if pending { 202 } else { 200 }, "{answer}");
    let clock = body["clock"].as_str().unwrap_or_default().to_owned();
    if !pending {
        assert!(
            clock.parse::<u64>().is_ok_and(|clock| clock > 0),
            "{answer}"
        );
        assert_eq!(answer.the("Larder-Clock"), clock);
    }
    Change {
        clock,
        pending,
        acknowledged,
    }
}

/// Invalidates while nothing is broken: it must not be pending.
#[track_caller]
fn invalidate_now(larder: &Larder, names: &Value) -> Change {
    let change = invalidate(larder, names);
    assert!(!change.pending, "{change:?}");
    change
}

fn is_from_memory(answer: &Answer) -> bool {
    answer.the("Cache-Status").starts_with("larder-memory; hit")
}

/// Reads once, and says whether memory answered.
fn is_warm(larder: &Larder, category: &str) -> bool {
    is_from_memory(&larder.get(&path(category)).expect(200))
}

/// Reads a category until it comes from memory. Returns its version.
#[track_caller]
fn warm(larder: &Larder, category: &str) -> u64 {
    until_some(SOON, "an answer comes from memory", || {
        let answer = larder.get(&path(category)).expect(200);
        is_from_memory(&answer).then(|| version_in(&answer, category))
    })
}

fn bus(larder: &Larder) -> Value {
    larder.stats()["bus"].clone()
}

#[track_caller]
fn until_trusted(larder: &Larder) {
    // The bus has connections of its own, so it can be back a moment before the pool is.
    until(SOON, "the replica trusts its bus and has a pool", || {
        let stats = larder.stats();
        stats["bus"]["trusted"] == true && stats["redis"]["state"] != "down"
    });
}

#[track_caller]
fn until_nothing_pends(larder: &Larder) {
    until(SOON, "nothing is pending", || bus(larder)["pending"] == 0);
}

/// Waits until a replica has heard of everything up to this clock.
#[track_caller]
fn until_heard(larder: &Larder, clock: &str) {
    let wanted: u64 = clock.parse().unwrap();
    until(SOON, "the replica hears of it", || {
        let bus = bus(larder);
        let heard = bus["clock"].as_str().unwrap_or_else(|| panic!("{bus}"));
        heard.parse::<u64>().unwrap() >= wanted
    });
}

/// Reads until well after the bound. Panics if a read that began after the bound, counted from the
/// acknowledgement, returns an older version.
#[track_caller]
fn never_old_after(
    max_staleness: Duration,
    change: &Change,
    replicas: &[&Larder],
    category: &str,
    new: u64,
) {
    let mut past = 0;
    while past < 10 {
        for larder in replicas {
            let late = change.acknowledged.elapsed();
            let answer = larder.get(&path(category));
            let found = version_in(&answer, category);
            assert!(
                found == new || late <= max_staleness,
                "v{found} for a read {late:?} after v{new} was acknowledged: {answer}"
            );
            past += u32::from(late > max_staleness);
        }
    }
}

/// Sends a read. Its answer is read later.
fn begin_read(larder: &Larder, category: &str) -> Pending {
    let call = larder.call("GET", &path(category)).key(ADMIN_KEY);
    call.connect().unwrap()
}

fn finish(pending: Pending, category: &str) -> u64 {
    version_in(&pending.finish().unwrap(), category)
}

fn until_calls(versions: &Versions, calls: usize) {
    until(SOON, &format!("call {calls} to the source"), || {
        versions.calls() >= calls
    });
}
