//! Why it holds: a test for each way in which two-tier caches lose an invalidation.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{
    LONG_PATIENCE, PATIENCE, Two, begin_read, bus, finish, invalidate_now, is_from_memory, is_warm,
    never_old_after, until_calls, until_heard, until_trusted,
};
use crate::support::client::Pending;
use crate::support::larder::Larder;
use crate::support::news::{CATEGORIES, path};
use crate::support::proxy::{FaultProxy, Scope};
use crate::support::versions::{VersionsConfig, version, version_in};
use crate::support::{SOON, until};

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
    // The overtaken one and the newest, and what was asked again when they ended.
    assert!(two.versions.calls() <= 5, "{} loads", two.versions.calls());
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
    // With a connection at hand, so that what is held up is the answer and not the connecting.
    assert_eq!(version(&two.far, "health"), 1);
    // It is in Redis. The far one asks for it, and the answer is on its way while its bus works.
    two.proxy.stall_to_client_only(Scope::Others);
    let gets = || -> u64 {
        let stats: String = two.redis.cli(&["INFO", "commandstats"]);
        let calls = stats.lines().filter_map(|line| {
            let gets = line
                .strip_prefix("cmdstat_mget:")
                .or(line.strip_prefix("cmdstat_get:"));
            gets?
                .strip_prefix("calls=")?
                .split(',')
                .next()?
                .parse::<u64>()
                .ok()
        });
        calls.sum()
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
fn a_lost_message_is_found_and_repaired() {
    let two = Two::start();
    assert_eq!((two.warm("science"), two.warm("health")), (1, 1));
    let repaired = || bus(&two.far)["gaps_repaired"].as_u64().unwrap();
    let before = repaired();
    // Nothing is closed: to the replica it looks as if there had been no message.
    two.proxy.lose_messages();
    let (new, change) = two.change(&two.near, "science");
    two.proxy.restore();
    never_old_after(PATIENCE, &change, &[&two.far], "science", new);
    until_heard(&two.far, &change.clock);
    until_trusted(&two.far);
    assert!(repaired() > before);
    assert!(is_warm(&two.far, "health"));
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
    until(SOON, "trust ends", || bus(&two.far)["trusted"] == false);
    never_old_after(Duration::ZERO, &change, &two.both(), "science", new);
    two.proxy.restore();
    two.both_trust();
    never_old_after(Duration::ZERO, &change, &two.both(), "science", new);
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
        let clock = bus(&two.near)["clock"].clone();
        two.redis.restart();
        let restarted = Instant::now();
        if on_reset {
            until(SOON, "it is part of the new history", || {
                let bus = bus(&two.near);
                bus["trusted"] == true && bus["clock"] != clock
            });
            let stale = two.near.get(&path("science"));
            assert_eq!(version_in(&stale, "science"), 1);
            assert!(stale.the("Cache-Status").contains("fwd=stale"), "{stale}");
        }
        for replica in two.both() {
            until(SOON, "it is renewed", || {
                let late = restarted.elapsed();
                let answer = replica.get(&path("science"));
                let old = version_in(&answer, "science") == 1;
                let allowed = on_reset && !is_from_memory(&answer)
                    || is_from_memory(&answer) && late <= PATIENCE;
                assert!(!old || allowed, "{late:?} after the restart: {answer}");
                version_in(&answer, "science") == new
            });
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
    until(SOON, "Redis takes an invalidation", || {
        let (_, change) = two.change(&two.near, "science");
        !change.pending
    });
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
