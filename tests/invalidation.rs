//! Invalidation: what it names, how soon it holds, and that it holds whatever fails.
//!
//! The data says its version, TTLs are hours and nothing is stale by age, so an old version is always one that an invalidation
//! should have ended.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::client::{Answer, Pending};
use crate::support::larder::{ADMIN_KEY, Larder, LarderOptions};
use crate::support::news::{CATEGORIES, path};
use crate::support::proxy::{FaultProxy, Scope};
use crate::support::redis::RedisServer;
use crate::support::upstream::Behaviour;
use crate::support::versions::{Versions, VersionsConfig, version, version_in};
use crate::support::{SOON, free_address, the_usual_redis_port, until, until_some};

/// The bound of [`VersionsConfig`]'s default.
const PATIENCE: Duration = Duration::from_secs(1);

/// For a test in which trust must not end by itself.
const LONG_PATIENCE: &str = "1m";

/// Replicas on one Redis, the second of them behind a proxy.
struct Two {
    // Ended in this order.
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
        let near = Larder::start(&config.options(&versions, redis.address()));
        let far = Larder::start(&config.options(&versions, proxy.address()));
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

    /// Both have a category in memory. Gives the version that they have.
    fn warm(&self, category: &str) -> u64 {
        let [near, far] = self.both().map(|replica| warm(replica, category));
        assert_eq!(near, far);
        near
    }

    /// Changes a category and has one replica invalidate it. Gives the new version and what was answered.
    fn change(&self, replica: &Larder, category: &str) -> (u64, Change) {
        let version = self.versions.publish(category);
        (version, invalidate(replica, &category_tag(category)))
    }
}

/// What the answer to an invalidation says.
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

/// Invalidates where nothing is wrong: it is not pending.
#[track_caller]
fn invalidate_now(larder: &Larder, names: &Value) -> Change {
    let change = invalidate(larder, names);
    assert!(!change.pending, "{change:?}");
    change
}

fn is_from_memory(answer: &Answer) -> bool {
    answer.the("Cache-Status").starts_with("larder-memory; hit")
}

/// Whether the next read is answered from memory.
fn is_warm(larder: &Larder, category: &str) -> bool {
    is_from_memory(&larder.get(&path(category)).expect(200))
}

/// Reads a category until it comes from memory, and gives its version.
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
    until(SOON, "the replica trusts its bus", || {
        bus(larder)["trusted"] == true
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

/// Reads until well past the bound, and panics if a read that began later than that after the acknowledgement is older.
#[track_caller]
fn never_old_after(
    patience: Duration,
    change: &Change,
    replicas: &[&Larder],
    category: &str,
    new: u64,
) {
    let mut past = 0;
    while past < 20 {
        for larder in replicas {
            let late = change.acknowledged.elapsed();
            let answer = larder.get(&path(category));
            let found = version_in(&answer, category);
            assert!(
                found == new || late <= patience,
                "v{found} for a read {late:?} after v{new} was acknowledged: {answer}"
            );
            past += u32::from(late > patience);
        }
    }
}

/// Sends a read and leaves its answer for later.
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

// ---------------------------------------------------------------------------------------------------------------------------
// What it names

#[test]
fn holds_here_at_once_and_there_soon() {
    let two = Two::start();
    assert_eq!(two.warm("science"), 1);
    let (new, change) = two.change(&two.near, "science");
    assert_eq!(version(&two.near, "science"), new);
    until_heard(&two.far, &change.clock);
    assert_eq!(version(&two.far, "science"), new);
    assert_eq!(two.warm("science"), new);
    // One load brought it, for both.
    assert_eq!(two.versions.calls(), 2);

    let later = invalidate_now(&two.far, &category_tag("health"));
    let number = |clock: &str| clock.parse::<u64>().unwrap();
    assert!(number(&later.clock) > number(&change.clock));
}

#[test]
fn names_tags_keys_paths_or_everything_and_nothing_else() {
    let two = Two::start();
    let three = ["science", "health", "sports"];
    let dropped_by = |names: &Value| {
        for category in three {
            two.warm(category);
        }
        let old: Vec<u64> = three
            .iter()
            .map(|one| two.versions.publish(one) - 1)
            .collect();
        let change = invalidate_now(&two.near, names);
        until_heard(&two.far, &change.clock);
        let [near, far] = two.both().map(|replica| {
            let zipped = three.into_iter().zip(&old);
            let gone = zipped.filter(|(one, old)| version(replica, one) > **old);
            gone.map(|(one, _)| one).collect::<Vec<_>>()
        });
        assert_eq!(near, far, "{names}");
        // Those that were not named have the newest version for the next case too.
        invalidate_now(&two.near, &json!({"all": true}));
        near
    };
    let entry = two
        .near
        .get("/cache/entry?path=/articles%3Fcategory%3Dscience");
    // Nothing is there before the first read, which is no error of the server.
    assert!(entry.status < 500, "{entry}");
    two.warm("science");
    let entry = two
        .near
        .get("/cache/entry?path=/articles%3Fcategory%3Dscience")
        .expect(200);
    let key = entry.json()["key"].as_str().unwrap().to_owned();

    assert_eq!(
        dropped_by(&json!({"tags": ["category:science"]})),
        ["science"]
    );
    assert_eq!(
        dropped_by(&json!({"tags": ["category:science", "category:sports"]})),
        ["science", "sports"]
    );
    assert_eq!(dropped_by(&json!({"tags": ["articles"]})), three);
    assert_eq!(
        dropped_by(&json!({"paths": ["/articles?category=health"]})),
        ["health"]
    );
    // A view is cut from the same entry, and neither order nor what is unknown makes another one.
    assert_eq!(
        dropped_by(&json!({"paths": ["/articles?limit=3&category=health&x=y"]})),
        ["health"]
    );
    assert_eq!(dropped_by(&json!({"keys": [key]})), ["science"]);
    assert_eq!(
        dropped_by(
            &json!({"keys": [key], "paths": ["/articles?category=health"], "tags": ["category:sports"]})
        ),
        three
    );
    assert_eq!(dropped_by(&json!({"all": true})), three);
    assert_eq!(
        dropped_by(&json!({"tags": ["category:nothing", "category:"]})),
        [""; 0]
    );
    assert_eq!(
        dropped_by(&json!({"keys": ["articles?category=no"]})),
        [""; 0]
    );
}

#[test]
fn hard_ends_a_value_and_soft_makes_it_stale() {
    let two = Two::with(&VersionsConfig {
        while_revalidate: "1h",
        ..VersionsConfig::default()
    });
    assert_eq!(two.warm("science"), 1);
    let new = two.versions.publish("science");
    two.versions.upstream.hold();
    let names = json!({"tags": ["category:science"], "soft": true});
    let change = invalidate_now(&two.near, &names);
    until_heard(&two.far, &change.clock);
    // The old one, at once, while the source says nothing.
    for replica in two.both() {
        let stale = replica.get(&path("science"));
        assert_eq!(version_in(&stale, "science"), 1);
        assert!(stale.the("Cache-Status").contains("fwd=stale"), "{stale}");
    }
    two.versions.upstream.release();
    for replica in two.both() {
        until(SOON, "it is renewed", || version(replica, "science") == new);
    }

    let (newer, change) = two.change(&two.near, "science");
    assert_eq!(version(&two.near, "science"), newer);
    until_heard(&two.far, &change.clock);
    assert_eq!(version(&two.far, "science"), newer);
}

#[test]
fn soft_keeps_a_value_for_when_the_source_fails() {
    let two = Two::with(&VersionsConfig {
        if_error: "1h",
        ..VersionsConfig::default()
    });
    assert_eq!(two.warm("science"), 1);
    two.versions.upstream.behave(Behaviour::Close);
    let names = json!({"tags": ["category:science"], "soft": true});
    let change = invalidate_now(&two.near, &names);
    until_heard(&two.far, &change.clock);
    for replica in two.both() {
        let stale = replica.get(&path("science"));
        assert_eq!(version_in(&stale, "science"), 1);
        assert!(
            stale.the("Cache-Status").contains("stale-if-error"),
            "{stale}"
        );
    }
    // A hard one after the soft one: the copy is never an answer again. What is left is the archive, which says what it is.
    invalidate_now(&two.near, &category_tag("science"));
    let answer = two.near.get(&path("science"));
    let archived = || answer.json()["archived"] == true;
    assert!(answer.status == 502 || archived(), "{answer}");
}

// ---------------------------------------------------------------------------------------------------------------------------
// Why it holds

#[test]
fn a_load_from_before_fills_no_tier() {
    let two = Two::start();
    let upstream = &two.versions.upstream;
    upstream.hold_answers();
    let before = begin_read(&two.far, "science");
    until_calls(&two.versions, 1);
    let (new, change) = two.change(&two.near, "science");
    upstream.pass_new();
    // Waits for no load from before, though a replica holds the lease for one.
    assert_eq!(version(&two.near, "science"), new);
    upstream.release();
    // Its own caller began before the write.
    assert!([1, new].contains(&finish(before, "science")));
    until_heard(&two.far, &change.clock);
    never_old_after(Duration::ZERO, &change, &two.both(), "science", new);
    let third =
        Larder::start(&VersionsConfig::default().options(&two.versions, two.redis.address()));
    assert_eq!(version(&third, "science"), new);
}

#[test]
fn a_load_from_before_that_ends_last_does_not_come_back() {
    let two = Two::start();
    let upstream = &two.versions.upstream;
    upstream.hold_answers();
    let before = begin_read(&two.near, "science");
    until_calls(&two.versions, 1);
    let (new, change) = two.change(&two.near, "science");
    upstream.pass_new();
    until_heard(&two.far, &change.clock);
    assert_eq!(two.warm("science"), new);
    upstream.release();
    assert!([1, new].contains(&finish(before, "science")));
    never_old_after(Duration::ZERO, &change, &two.both(), "science", new);
}

#[test]
fn nobody_joins_a_load_from_before() {
    let two = Two::start();
    let upstream = &two.versions.upstream;
    upstream.hold_answers();
    let before: Vec<Pending> = (0..3).map(|_| begin_read(&two.near, "science")).collect();
    until_calls(&two.versions, 1);
    let (new, _) = two.change(&two.near, "science");
    let after: Vec<Pending> = (0..3).map(|_| begin_read(&two.near, "science")).collect();
    // The first load is still held, so this is another one.
    until_calls(&two.versions, 2);
    upstream.release();
    for read in before {
        assert!([1, new].contains(&finish(read, "science")));
    }
    for read in after {
        assert_eq!(finish(read, "science"), new);
    }
    assert_eq!(two.versions.calls(), 2);
}

#[test]
fn nobody_joins_a_load_from_before_on_another_replica() {
    let two = Two::start();
    let upstream = &two.versions.upstream;
    upstream.hold_answers();
    let loads = begin_read(&two.near, "science");
    until_calls(&two.versions, 1);
    let waits = begin_read(&two.far, "science");
    let (new, change) = two.change(&two.near, "science");
    until_heard(&two.far, &change.clock);
    let after = begin_read(&two.far, "science");
    until_calls(&two.versions, 2);
    upstream.release();
    for read in [loads, waits] {
        assert!([1, new].contains(&finish(read, "science")));
    }
    assert_eq!(finish(after, "science"), new);
    never_old_after(Duration::ZERO, &change, &two.both(), "science", new);
}

#[test]
fn a_storm_of_them_is_no_storm_of_loads() {
    let two = Two::start();
    let upstream = &two.versions.upstream;
    upstream.hold_answers();
    let mut reads = Vec::new();
    for _ in 0..30 {
        let (new, _) = two.change(&two.near, "science");
        reads.push((new, begin_read(&two.near, "science")));
    }
    until_calls(&two.versions, 2);
    upstream.release();
    for (least, read) in reads {
        assert!(finish(read, "science") >= least);
    }
    // The overtaken one and the newest, twice: what was held, and what then was asked again.
    assert!(two.versions.calls() <= 4, "{} loads", two.versions.calls());
}

#[test]
fn a_late_copy_from_redis_is_not_kept() {
    let two = Two::with(&VersionsConfig {
        patience: LONG_PATIENCE,
        redis_timeout: "20s",
        connect_timeout: "20s",
        ..VersionsConfig::default()
    });
    assert_eq!(version(&two.near, "science"), 1);
    // It is in Redis. The far one asks for it, and the answer is on its way while its bus works.
    two.proxy.stall_to_client_only(Scope::Others);
    let gets = || -> u64 {
        let stats: String = two.redis.cli(&["INFO", "stats"]);
        let hits = stats
            .lines()
            .find_map(|line| line.strip_prefix("keyspace_hits:"));
        hits.unwrap().parse().unwrap()
    };
    let before = gets();
    let late = begin_read(&two.far, "science");
    until(SOON, "Redis is asked", || gets() > before);
    let (new, change) = two.change(&two.near, "science");
    until_heard(&two.far, &change.clock);
    two.proxy.restore();
    assert!([1, new].contains(&finish(late, "science")));
    never_old_after(Duration::ZERO, &change, &two.both(), "science", new);
}

/// One replica's bus is cut, 50 invalidations pass, one of them of what it holds; then it is back.
fn missed_while_cut_off(log_length: u32) {
    let two = Two::with(&VersionsConfig {
        log_length,
        ..VersionsConfig::default()
    });
    for category in CATEGORIES {
        assert_eq!(two.warm(category), 1);
    }
    let calls = two.versions.calls();
    let repaired = |larder: &Larder| bus(larder)["gaps_repaired"].as_u64().unwrap();
    let before = repaired(&two.far);

    two.proxy.cut_bus();
    let mut last = None;
    for number in 0..50 {
        last = Some(if number == 20 {
            let (_, change) = two.change(&two.near, "science");
            change
        } else {
            invalidate_now(&two.near, &json!({"tags": [format!("other:{number}")]}))
        });
    }
    two.proxy.restore();
    until_trusted(&two.far);
    until_heard(&two.far, &last.unwrap().clock);
    assert!(repaired(&two.far) > before, "{}", bus(&two.far));

    for category in CATEGORIES {
        for replica in two.both() {
            let answer = replica.get(&path(category));
            let named = category == "science";
            assert_eq!(version_in(&answer, category), 1 + u64::from(named));
            assert!(named || is_from_memory(&answer), "{category}: {answer}");
        }
    }
    assert_eq!(two.versions.calls(), calls + 1);
}

#[test]
fn a_gap_is_read_from_the_log_and_drops_only_what_was_named() {
    missed_while_cut_off(10_000);
}

#[test]
fn a_gap_that_the_log_no_longer_covers_drops_only_what_was_named() {
    missed_while_cut_off(10);
}

#[test]
fn a_lost_message_is_found_and_repaired_on_the_same_connection() {
    let two = Two::start();
    assert_eq!((two.warm("science"), two.warm("health")), (1, 1));
    let accepted = two.proxy.accepted();
    two.proxy.lose_messages();
    let (new, change) = two.change(&two.near, "science");
    two.proxy.restore();
    never_old_after(PATIENCE, &change, &[&two.far], "science", new);
    until_heard(&two.far, &change.clock);
    until_trusted(&two.far);
    assert!(bus(&two.far)["gaps_repaired"].as_u64().unwrap() >= 1);
    assert!(is_warm(&two.far, "health"));
    // Nothing was closed, so this was no reconnect; the pool may open what it likes.
    assert!(two.proxy.subscribers() >= 1 && two.proxy.accepted() <= accepted + 8);
}

#[test]
fn a_lost_message_is_found_when_the_replica_invalidates_something_itself() {
    let two = Two::with(&VersionsConfig {
        // The echo shows the gap too: this is about the replica's own invalidation, which must not hide it.
        patience: "2s",
        ..VersionsConfig::default()
    });
    assert_eq!((two.warm("science"), two.warm("health")), (1, 1));
    two.proxy.lose_messages();
    let (new, change) = two.change(&two.near, "science");
    let (other, own) = two.change(&two.far, "health");
    two.proxy.restore();
    assert_eq!(version(&two.far, "health"), other);
    never_old_after(Duration::from_secs(2), &change, &[&two.far], "science", new);
    until_heard(&two.far, &own.clock);
    assert_eq!(version(&two.far, "science"), new);
}

#[test]
fn a_half_open_bus_is_not_trusted_for_longer_than_patience() {
    let two = Two::start();
    assert_eq!(two.warm("science"), 1);
    two.proxy.stall_to_client_only(Scope::Bus);
    let (new, change) = two.change(&two.near, "science");
    never_old_after(PATIENCE, &change, &[&two.far], "science", new);
    assert_eq!(bus(&two.far)["trusted"], false);
    // Without trust it asks Redis each time.
    assert!(!is_warm(&two.far, "science"));
    let calls = two.versions.calls();
    let found = two.far.get(&path("science")).expect(200);
    assert!(
        found.the("Cache-Status").starts_with("larder-redis; hit"),
        "{found}"
    );
    assert_eq!(two.versions.calls(), calls);

    two.proxy.restore();
    until_trusted(&two.far);
    assert_eq!(two.warm("science"), new);
}

#[test]
fn a_replica_that_reaches_nothing_asks_the_source() {
    type Isolation = fn(&FaultProxy);
    let ways: [Isolation; 4] = [
        FaultProxy::cut,
        FaultProxy::stall,
        FaultProxy::stall_to_client,
        FaultProxy::stall_to_server,
    ];
    let two = Two::start();
    for isolate in ways {
        let old = two.warm("science");
        isolate(&two.proxy);
        let (new, change) = two.change(&two.near, "science");
        assert_eq!(new, old + 1);
        assert!(!change.pending);
        never_old_after(PATIENCE, &change, &[&two.far], "science", new);
        two.proxy.restore();
        until_trusted(&two.far);
        never_old_after(PATIENCE, &change, &two.both(), "science", new);
    }
}

#[test]
fn a_replica_that_reaches_nothing_serves_memory_for_blind_ttl() {
    let two = Two::with(&VersionsConfig {
        blind_ttl: Some("3s"),
        ..VersionsConfig::default()
    });
    assert_eq!(two.warm("science"), 1);
    two.proxy.cut();
    let (new, change) = two.change(&two.near, "science");
    until(SOON, "trust ends", || bus(&two.far)["trusted"] == false);
    // For this resource a blind replica may be late by so much, and no more.
    let blind = two.far.get(&path("science"));
    assert!(
        is_from_memory(&blind) || change.acknowledged.elapsed() > Duration::from_secs(3),
        "{blind}"
    );
    let bound = PATIENCE + Duration::from_secs(3);
    never_old_after(bound, &change, &[&two.far], "science", new);
}

#[test]
fn a_redis_restored_from_an_old_snapshot_brings_nothing_back() {
    let mut two = Two::start();
    assert_eq!(two.warm("science"), 1);
    let old = two.redis.snapshot();
    let (new, change) = two.change(&two.near, "science");
    until_heard(&two.far, &change.clock);
    assert_eq!(two.warm("science"), new);
    // The far one hears nothing of the new history: its pool finds old values beside old names.
    two.proxy.cut_bus();
    two.redis.restore(&old);
    never_old_after(Duration::ZERO, &change, &two.both(), "science", new);
    never_old_after(PATIENCE, &change, &two.both(), "science", new);
    two.proxy.restore();
    two.both_trust();
    never_old_after(Duration::ZERO, &change, &two.both(), "science", new);

    // What was loaded before is invalid, all of it: this was changed and never invalidated.
    let newer = two.versions.publish("health");
    assert_eq!(two.near.get(&path("health")).status, 200);
    assert_eq!(version(&two.near, "health"), newer);
    // And the new history works.
    let (newest, change) = two.change(&two.far, "science");
    until_heard(&two.near, &change.clock);
    assert_eq!(two.warm("science"), newest);
}

#[test]
fn a_redis_that_comes_back_empty_makes_everything_invalid() {
    for on_reset in [false, true] {
        let mut two = Two::with(&VersionsConfig {
            while_revalidate: "1h",
            on_reset,
            ..VersionsConfig::default()
        });
        assert_eq!(two.warm("science"), 1);
        // Changed without a word to anyone: only the loss of the history makes replicas ask again.
        let new = two.versions.publish("science");
        two.redis.restart();
        let restarted = Instant::now();
        for replica in two.both() {
            let answer = until_some(SOON, "it is no hit", || {
                let late = restarted.elapsed();
                let answer = replica.get(&path("science")).expect(200);
                let hit = is_from_memory(&answer) && version_in(&answer, "science") == 1;
                assert!(
                    !hit || late <= PATIENCE,
                    "{late:?} after the restart: {answer}"
                );
                (!hit).then_some(answer)
            });
            if on_reset {
                until(SOON, "it is renewed", || version(replica, "science") == new);
            } else {
                assert_eq!(version_in(&answer, "science"), new, "{answer}");
            }
        }
    }
}

#[test]
fn a_history_whose_clock_is_behind_is_another_history() {
    let mut two = Two::start();
    // As by a host whose clock is years ahead.
    let ahead = 4_000_000_000_000_000_u64;
    let state = "{larder:bus}:state";
    two.redis
        .cli::<i64>(&["HSET", state, "clock", &ahead.to_string()]);
    assert_eq!(version(&two.near, "science"), 1);
    let (new, change) = two.change(&two.near, "science");
    assert!(change.clock.parse::<u64>().unwrap() > ahead);
    until_heard(&two.far, &change.clock);
    assert_eq!(two.warm("science"), new);
    // And now by one that is right.
    two.redis.restart();
    let behind = until_some(SOON, "Redis takes an invalidation", || {
        let (_, change) = two.change(&two.near, "science");
        (!change.pending).then_some(change)
    });
    assert!(behind.clock.parse::<u64>().unwrap() < ahead);
    two.both_trust();
    let (newest, change) = two.change(&two.near, "science");
    never_old_after(PATIENCE, &change, &two.both(), "science", newest);
    assert_eq!(two.warm("science"), newest);
    let (newest, change) = two.change(&two.far, "science");
    never_old_after(PATIENCE, &change, &two.both(), "science", newest);
}

#[test]
fn a_redis_that_evicts_part_of_the_state_brings_nothing_back() {
    for part in ["state", "names", "log"] {
        let two = Two::start();
        assert_eq!(two.warm("science"), 1);
        // The far one has no trust, and so depends on what Redis says.
        two.proxy.stall_to_client_only(Scope::Bus);
        until(SOON, "trust ends", || bus(&two.far)["trusted"] == false);
        let (new, change) = two.change(&two.near, "science");
        assert_eq!(
            two.redis
                .cli::<i64>(&["DEL", &format!("{{larder:bus}}:{part}")]),
            1,
            "{part}"
        );
        never_old_after(Duration::ZERO, &change, &two.both(), "science", new);
        two.proxy.restore();
        two.both_trust();
        never_old_after(Duration::ZERO, &change, &two.both(), "science", new);
        let (newer, change) = two.change(&two.near, "science");
        never_old_after(PATIENCE, &change, &two.both(), "science", newer);
        assert_eq!(two.warm("science"), newer, "{part}");
    }
}

#[test]
fn a_redis_that_is_flushed_makes_everything_invalid() {
    let two = Two::start();
    assert_eq!(two.warm("science"), 1);
    let new = two.versions.publish("science");
    two.redis.cli::<()>(&["FLUSHALL"]);
    let flushed = Instant::now();
    for replica in two.both() {
        until(SOON, "what was loaded before is no answer", || {
            let late = flushed.elapsed();
            let found = version(replica, "science");
            assert!(found == new || late <= PATIENCE, "{late:?} after the flush");
            found == new
        });
    }
    two.both_trust();
    let (newer, change) = two.change(&two.far, "science");
    never_old_after(PATIENCE, &change, &two.both(), "science", newer);
}

#[test]
fn a_full_redis_takes_it() {
    let two = Two::start();
    assert_eq!(two.warm("science"), 1);
    two.redis.make_full();
    for replica in two.both() {
        let (new, change) = two.change(replica, "science");
        assert!(!change.pending, "{change:?}");
        assert_eq!(version(replica, "science"), new);
        never_old_after(PATIENCE, &change, &two.both(), "science", new);
    }
    two.both_trust();
}

// ---------------------------------------------------------------------------------------------------------------------------
// Where Redis does not take it

/// A Redis that takes no invalidation, until it is mended: each is pending, holds where it was made, and arrives in the end.
fn pends(break_it: impl FnOnce(&mut RedisServer), mend: impl FnOnce(&mut RedisServer)) {
    let mut two = Two::start();
    assert_eq!((two.warm("science"), two.warm("health")), (1, 1));
    break_it(&mut two.redis);
    let (first, change) = two.change(&two.near, "science");
    assert!(change.pending, "{change:?}");
    // Here at once, and from no tier: the old value may well stand in Redis still.
    assert_eq!(version(&two.near, "science"), first);
    assert_eq!(bus(&two.near)["pending"], 1);
    // The latest for each name.
    let (new, change) = two.change(&two.near, "science");
    assert!(change.pending, "{change:?}");
    assert_eq!(version(&two.near, "science"), new);
    assert_eq!(bus(&two.near)["pending"], 1);
    let (other, change) = two.change(&two.near, "health");
    assert!(change.pending, "{change:?}");
    assert_eq!(version(&two.near, "health"), other);
    assert_eq!(bus(&two.near)["pending"], 2);

    mend(&mut two.redis);
    until_nothing_pends(&two.near);
    let delivered = Change {
        acknowledged: Instant::now(),
        ..change
    };
    never_old_after(PATIENCE, &delivered, &two.both(), "science", new);
    never_old_after(PATIENCE, &delivered, &two.both(), "health", other);
    two.both_trust();
    let (last, change) = two.change(&two.near, "science");
    assert!(!change.pending, "{change:?}");
    never_old_after(PATIENCE, &change, &two.both(), "science", last);
}

#[test]
fn it_is_pending_while_redis_is_read_only() {
    pends(
        |redis| redis.make_read_only(),
        |redis| redis.make_writable(),
    );
}

#[test]
fn it_is_pending_while_redis_is_gone() {
    pends(RedisServer::kill, RedisServer::restart);
}

#[test]
fn it_is_pending_while_redis_is_silent() {
    pends(|redis| redis.pause(), |redis| redis.resume());
}

#[test]
fn it_is_pending_while_redis_permits_nothing() {
    pends(
        |redis| {
            redis.cli(&[
                "ACL", "SETUSER", "default", "-eval", "-evalsha", "-fcall", "-publish",
            ])
        },
        |redis| redis.cli(&["ACL", "SETUSER", "default", "+@all"]),
    );
}

#[test]
fn a_pending_one_survives_that_redis_comes_back_with_an_old_snapshot() {
    let mut two = Two::start();
    assert_eq!(two.warm("science"), 1);
    let old = two.redis.snapshot();
    two.redis.kill();
    let (new, change) = two.change(&two.near, "science");
    assert!(change.pending, "{change:?}");
    two.redis.restore(&old);
    until_nothing_pends(&two.near);
    let delivered = Change {
        acknowledged: Instant::now(),
        ..change
    };
    assert_eq!(version(&two.near, "science"), new);
    never_old_after(PATIENCE, &delivered, &two.both(), "science", new);
}

// ---------------------------------------------------------------------------------------------------------------------------
// Alone

#[test]
fn a_replica_that_never_had_a_redis_is_trusted() {
    let _nobody = the_usual_redis_port();
    let versions = Versions::start();
    let larder = Larder::start(&VersionsConfig::default().options_alone(&versions));
    assert_eq!(warm(&larder, "science"), 1);
    assert_eq!(bus(&larder)["trusted"], true);
    let new = versions.publish("science");
    let change = invalidate_now(&larder, &category_tag("science"));
    assert_eq!(version(&larder, "science"), new);
    // Long past any patience, memory is still believed.
    until(SOON, "the patience is over", || {
        assert_eq!(warm(&larder, "science"), new);
        change.acknowledged.elapsed() > 2 * PATIENCE
    });
    assert_eq!(versions.calls(), 2);
    let later = invalidate_now(&larder, &json!({"all": true}));
    let number = |clock: &str| clock.parse::<u64>().unwrap();
    assert!(number(&later.clock) > number(&change.clock));
    assert_eq!(bus(&larder)["pending"], 0);
}

#[test]
fn a_replica_whose_redis_is_not_there_is_blind_and_not_alone() {
    let versions = Versions::start();
    let larder = Larder::start(&VersionsConfig::default().options(&versions, free_address()));
    assert_eq!(version(&larder, "science"), 1);
    assert_eq!(bus(&larder)["trusted"], false);
    let new = versions.publish("science");
    let change = invalidate(&larder, &category_tag("science"));
    assert!(change.pending, "{change:?}");
    assert_eq!(version(&larder, "science"), new);
}

// ---------------------------------------------------------------------------------------------------------------------------
// Reading what one has written

#[test]
fn a_read_after_a_clock_is_never_older_on_any_replica() {
    let two = Two::with(&VersionsConfig {
        patience: LONG_PATIENCE,
        ..VersionsConfig::default()
    });
    let after = |replica: &Larder, clock: &str| {
        let call = replica.call("GET", &path("science")).key(ADMIN_KEY);
        call.header("Larder-After", clock).send()
    };
    assert_eq!(two.warm("science"), 1);
    two.proxy.stall_to_client_only(Scope::Bus);
    let (new, change) = two.change(&two.near, "science");
    // It has not heard of it, and may say so for a minute; but not to whoever wrote it.
    assert_eq!(version(&two.far, "science"), 1);
    assert_eq!(version_in(&after(&two.far, &change.clock), "science"), new);
    assert_eq!(version_in(&after(&two.near, &change.clock), "science"), new);
    // And when it cannot ask Redis either.
    let (newer, change) = two.change(&two.near, "science");
    two.proxy.stall();
    assert_eq!(
        version_in(&after(&two.far, &change.clock), "science"),
        newer
    );
    two.proxy.restore();
    until_heard(&two.far, &change.clock);

    // One that is known costs nothing.
    two.warm("science");
    for old in ["0", "1", &change.clock] {
        assert!(is_from_memory(&after(&two.far, old)), "{old}");
    }
    for nonsense in ["soon", "-1", "1.5", "99999999999999999999999999"] {
        after(&two.far, nonsense).problem(400);
    }
}

// ---------------------------------------------------------------------------------------------------------------------------
// What operators see

#[test]
fn an_entry_says_why_it_is_the_answer() {
    let two = Two::start();
    let place = "/cache/entry?path=/articles%3Fcategory%3Dscience";
    assert_eq!(two.warm("science"), 1);
    let entry = two.near.get(place).expect(200).json();
    assert_eq!(entry["resource"], "articles", "{entry}");
    assert_eq!(entry["key"], "articles?category=science", "{entry}");
    assert_eq!(entry["tier"], "memory", "{entry}");
    assert_eq!(entry["state"], "fresh", "{entry}");
    let number = |entry: &Value, field: &str| {
        entry[field]
            .as_u64()
            .unwrap_or_else(|| panic!("no {field}: {entry}"))
    };
    assert!(
        number(&entry, "bytes") > 0 && number(&entry, "age_ms") < 60_000,
        "{entry}"
    );
    assert!(number(&entry, "ttl_left_ms") > 3_000_000, "{entry}");
    let parts = entry["parts"]
        .as_array()
        .unwrap_or_else(|| panic!("{entry}"));
    assert_eq!(parts.len(), 1, "{entry}");
    let part = &parts[0];
    assert!(part["key"].as_str().unwrap().contains("newsapi"), "{entry}");
    for one in [&entry, part] {
        let fields = [
            "resource",
            "key",
            "tier",
            "state",
            "age_ms",
            "ttl_left_ms",
            "load_clock",
            "load_ms",
            "bytes",
        ];
        for field in fields {
            assert!(one.get(field).is_some(), "no {field}: {one}");
        }
    }
    let names = |entry: &Value| -> HashSet<String> {
        let tags = entry["tags"]
            .as_array()
            .unwrap_or_else(|| panic!("{entry}"));
        tags.iter()
            .map(|tag| {
                assert!(tag.get("invalidated").is_some(), "{entry}");
                tag["name"].as_str().unwrap().to_owned()
            })
            .collect()
    };
    let wanted = ["articles", "category:science"].map(str::to_owned);
    assert!(names(part).is_superset(&HashSet::from(wanted)), "{entry}");

    // After an invalidation it is no answer any more, and says so.
    two.change(&two.near, "science");
    let dead = two.near.get(place);
    assert!(
        dead.status == 404 || dead.json()["state"] != "fresh",
        "{dead}"
    );

    two.near.get("/cache/entry").problem(400);
    two.near
        .get("/cache/entry?path=/articles%3Fcategory%3Dnone")
        .problem(400);
    two.near.get("/cache/entry?path=/nothing").problem(404);
}

#[test]
fn the_live_replicas_are_listed() {
    let mut two = Two::start();
    let listed = |larder: &Larder| -> Vec<Value> {
        let body = larder.get("/cache/replicas").expect(200).json();
        body["replicas"]
            .as_array()
            .unwrap_or_else(|| panic!("{body}"))
            .clone()
    };
    for replica in two.both() {
        until(SOON, "both are listed", || listed(replica).len() == 2);
    }
    let replicas = listed(&two.near);
    let ids: HashSet<&str> = replicas
        .iter()
        .map(|one| one["id"].as_str().unwrap())
        .collect();
    assert_eq!(ids.len(), 2, "{replicas:?}");
    let binds: HashSet<String> = replicas
        .iter()
        .map(|one| one["bind"].as_str().unwrap().to_owned())
        .collect();
    let expected = two.both().map(|replica| replica.address().to_string());
    assert_eq!(binds, HashSet::from(expected));
    for one in &replicas {
        assert_eq!(one["version"], env!("CARGO_PKG_VERSION"), "{one}");
        assert!(one["uptime_ms"].is_u64(), "{one}");
        assert!(one["clock"].is_string(), "{one}");
        assert!(one["trusted"].is_boolean(), "{one}");
        assert!(
            one["trust_left_ms"]
                .as_u64()
                .is_some_and(|left| left <= 1000),
            "{one}"
        );
    }
    assert!(
        replicas.iter().any(|one| one["trusted"] == true),
        "{replicas:?}"
    );

    two.far.stop();
    until(SOON, "one is left", || listed(&two.near).len() == 1);
}

#[test]
fn the_bus_is_in_the_stats() {
    let two = Two::start();
    let clock_before = bus(&two.far)["clock"].clone();
    assert!(clock_before.is_string(), "{clock_before}");
    let change = invalidate_now(&two.near, &json!({"all": true}));
    until_heard(&two.far, &change.clock);
    let bus = bus(&two.far);
    assert_eq!(bus["trusted"], true, "{bus}");
    assert_eq!(bus["clock"], change.clock.as_str(), "{bus}");
    assert!(
        bus["gaps_repaired"].is_u64() && bus["pending"] == 0,
        "{bus}"
    );
}

#[test]
fn only_an_admin_may() {
    let two = Two::start();
    let (_, reader) = two.near.create_key(&json!({"name": "reader"}));
    for (method, target) in [
        ("POST", "/cache/invalidate"),
        ("GET", "/cache/entry?path=/articles%3Fcategory%3Dscience"),
        ("GET", "/cache/replicas"),
    ] {
        let call = || {
            let call = two.near.call(method, target);
            if method == "POST" {
                call.json(&json!({"all": true}))
            } else {
                call
            }
        };
        let nobody = call().send();
        nobody.problem(401);
        assert_eq!(nobody.the("WWW-Authenticate"), "Bearer");
        call().key("lk_nobody").send().problem(401);
        call().key(&reader).send().problem(403);
        call().key(ADMIN_KEY).send().expect(200);

        let other = if method == "POST" { "GET" } else { "POST" };
        let wrong = two.near.call(other, target).key(ADMIN_KEY).send();
        wrong.problem(405);
        assert!(wrong.the("Allow").contains(method), "{wrong}");
    }
}

#[test]
fn a_request_that_does_not_fit_is_refused_and_changes_nothing() {
    let two = Two::start();
    assert_eq!(two.warm("science"), 1);
    for body in [
        json!([]),
        json!({}),
        json!({"tags": []}),
        json!({"tags": "category:science"}),
        json!({"tags": [7]}),
        json!({"tags": [""]}),
        json!({"keys": [null]}),
        json!({"paths": ["science"]}),
        json!({"paths": ["/nothing"]}),
        json!({"paths": ["/articles?category=none"]}),
        json!({"all": "yes"}),
        json!({"all": false}),
        json!({"all": true, "soft": 1}),
        json!({"all": true, "softly": true}),
        // One good name does not carry a bad one.
        json!({"tags": ["category:science"], "paths": ["/nothing"]}),
    ] {
        let refused = two.near.post("/cache/invalidate", &body);
        assert_eq!(refused.status, 422, "{body}: {refused}");
        assert!(!refused.problem(422).is_empty());
    }
    let post = || two.near.call("POST", "/cache/invalidate").key(ADMIN_KEY);
    let json = || post().header("Content-Type", "application/json");
    json().body("{\"all\":").send().problem(400);
    json().body("").send().problem(400);
    post()
        .header("Content-Type", "text/plain")
        .body("{\"all\":true}")
        .send()
        .problem(415);
    json().body(vec![b' '; 1 << 20]).send().problem(413);
    assert!(is_warm(&two.near, "science"));
    assert_eq!(two.versions.calls(), 1);
}

#[test]
fn the_command_does_it_through_a_running_server() {
    let two = Two::start();
    let url = format!("http://{}", two.near.address());
    // The key is in the environment, never on the command line.
    let shell = LarderOptions::unconfigured().env("THE_KEY", ADMIN_KEY);
    let run_with = |shell: &LarderOptions, arguments: &[&str]| {
        let mut words = vec!["invalidate"];
        words.extend_from_slice(arguments);
        let output = shell.run(&words);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let said = text(&output.stdout) + &text(&output.stderr);
        assert!(!said.contains(ADMIN_KEY), "{said}");
        (output.status.code(), said)
    };
    let run = |arguments: &[&str]| {
        let mut words = arguments.to_vec();
        words.extend(["--url", &url, "--key-env", "THE_KEY"]);
        run_with(&shell, &words)
    };
    let all = ["science", "health"];
    let dropped_by = |arguments: &[&str]| {
        for category in all {
            two.warm(category);
            two.versions.publish(category);
        }
        let old = all.map(|category| warm(&two.near, category));
        let (code, said) = run(arguments);
        assert_eq!(code, Some(0), "{arguments:?}: {said}");
        let changed = all.into_iter().zip(old);
        let changed: Vec<&str> = changed
            .filter(|(category, old)| version(&two.near, category) > *old)
            .map(|(category, _)| category)
            .collect();
        invalidate_now(&two.near, &json!({"all": true}));
        changed
    };
    assert_eq!(dropped_by(&["--tag", "category:science"]), ["science"]);
    assert_eq!(
        dropped_by(&["--tag", "category:science", "--tag", "category:health"]),
        all
    );
    assert_eq!(
        dropped_by(&["--path", "/articles?category=health"]),
        ["health"]
    );
    assert_eq!(
        dropped_by(&["--key", "articles?category=health"]),
        ["health"]
    );
    assert_eq!(
        dropped_by(&[
            "--key",
            "articles?category=health",
            "--tag",
            "category:science"
        ]),
        all
    );
    assert_eq!(dropped_by(&["--all"]), all);
    // Nothing may be served stale here, so soft drops it as well.
    assert_eq!(
        dropped_by(&["--tag", "category:science", "--soft"]),
        ["science"]
    );

    for wrong in [
        &[][..],
        &["--soft"],
        &["--tag"],
        &["--everything"],
        &["--all", "--url", "not a url"],
    ] {
        let (code, said) = run_with(&shell, wrong);
        assert_eq!(code, Some(2), "{wrong:?}: {said}");
    }
    let nobody = format!("http://{}", free_address());
    let failing: [(&LarderOptions, &[&str]); 3] = [
        (&shell, &["--all", "--url", &nobody, "--key-env", "THE_KEY"]),
        (
            &shell.clone().env("THE_KEY", "lk_wrong"),
            &["--all", "--url", &url, "--key-env", "THE_KEY"],
        ),
        (
            &shell,
            &["--path", "/nothing", "--url", &url, "--key-env", "THE_KEY"],
        ),
    ];
    for (shell, arguments) in failing {
        let (code, said) = run_with(shell, arguments);
        assert_eq!(code, Some(1), "{arguments:?}: {said}");
        assert!(
            !said.trim().is_empty(),
            "{arguments:?} fails without a word"
        );
    }
}

#[test]
fn a_revoked_key_is_refused_there_long_before_the_poll() {
    let (redis, versions) = (RedisServer::start(), Versions::start());
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let config = VersionsConfig {
        // Polled every half of it.
        patience: "10m",
        ..VersionsConfig::default()
    };
    let options = config
        .options(&versions, redis.address())
        .in_folder(&folder);
    let replicas = Larder::start_many(2, &options);
    for replica in &replicas {
        until_trusted(replica);
    }
    let status =
        |larder: &Larder, key: &str| larder.call("GET", &path("science")).key(key).send().status;
    let (id, key) = replicas[0].create_key(&json!({"name": "reader"}));
    until(SOON, "the other one knows the key", || {
        status(&replicas[1], &key) == 200
    });
    replicas[0].delete(&format!("/keys/{id}")).expect(204);
    assert_eq!(status(&replicas[0], &key), 401);
    until(SOON, "the other one refuses it", || {
        status(&replicas[1], &key) == 401
    });
}
