//! Redis loses its history, or part of it: restored, empty, behind, evicted, flushed, full.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{
    LONG_MAX_STALENESS, MAX_STALENESS, Two, bus, invalidate, is_from_memory, never_old_after,
    until_heard, until_trusted,
};
use testkit::larder::Larder;
use testkit::news::path;
use testkit::proxy::Scope;
use testkit::redis::RedisServer;
use testkit::versions::{VersionsConfig, version, version_in};
use testkit::{SOON, until};

#[test]
fn a_redis_restored_from_an_old_snapshot_brings_nothing_back() {
    let mut two = Two::start();
    assert_eq!(two.warm("science"), 1);
    let old = two.redis.snapshot();
    let (new, change) = two.change(&two.near, "science");
    until_heard(&two.far, &change.clock);
    assert_eq!(two.warm("science"), new);
    // The far one hears nothing of the new history. Its pool finds old values beside old names.
    two.proxy.cut_bus();
    two.redis.restore(&old);
    until(SOON, "trust ends", || bus(&two.far)["trusted"] == false);
    // The far one first: a load of the near one would put the new value there.
    never_old_after(
        Duration::ZERO,
        &change,
        &[&two.far, &two.near],
        "science",
        new,
    );
    two.proxy.restore();
    two.both_trust();
    never_old_after(Duration::ZERO, &change, &two.both(), "science", new);
    // The new history works.
    let (newest, change) = two.change(&two.far, "science");
    until_heard(&two.near, &change.clock);
    assert_eq!(two.warm("science"), newest);
}

#[test]
fn a_replica_that_heard_of_nothing_does_not_believe_a_restored_redis() {
    let mut two = Two::start();
    assert_eq!(two.warm("science"), 1);
    let old = two.redis.snapshot();
    two.proxy.cut_bus();
    until(SOON, "trust ends", || bus(&two.far)["trusted"] == false);
    let (new, change) = two.change(&two.near, "science");
    assert!(!change.pending, "{change:?}");
    // No replica knows of the change, and Redis has the old value beside the old names.
    two.near.kill();
    two.redis.restore(&old);
    never_old_after(Duration::ZERO, &change, &[&two.far], "science", new);
}

#[test]
fn a_replica_that_starts_does_not_believe_a_restored_redis() {
    let mut two = Two::start();
    assert_eq!(two.warm("science"), 1);
    let old = two.redis.snapshot();
    let (new, change) = two.change(&two.near, "science");
    assert!(!change.pending, "{change:?}");
    two.near.kill();
    two.far.kill();
    two.redis.restore(&old);
    let options = VersionsConfig::default().options(&two.versions, two.redis.address());
    let third = Larder::start(&options);
    never_old_after(Duration::ZERO, &change, &[&third], "science", new);
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
        // Changed without an invalidation: replicas load again only because the history is lost.
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
                    || is_from_memory(&answer) && late <= MAX_STALENESS;
                assert!(!old || allowed, "{late:?} after the restart: {answer}");
                version_in(&answer, "science") == new
            });
        }
    }
}

#[test]
fn a_history_whose_clock_is_behind_is_another_history() {
    let mut two = Two::start();
    // As if by a host whose clock is years ahead.
    let ahead = 4_000_000_000_000_000_u64;
    let state = "{larder:bus}:state";
    two.redis
        .cli::<i64>(&["HSET", state, "clock", &ahead.to_string()]);
    assert_eq!(version(&two.near, "science"), 1);
    let (new, change) = two.change(&two.near, "science");
    assert!(change.clock.parse::<u64>().unwrap() > ahead);
    until_heard(&two.far, &change.clock);
    assert_eq!(two.warm("science"), new);
    // And now by a host whose clock is right.
    two.redis.restart();
    until(SOON, "Redis takes an invalidation", || {
        let (_, change) = two.change(&two.near, "science");
        !change.pending
    });
    two.both_trust();
    let (newest, change) = two.change(&two.near, "science");
    never_old_after(MAX_STALENESS, &change, &two.both(), "science", newest);
    assert_eq!(two.warm("science"), newest);
    let (newest, change) = two.change(&two.far, "science");
    never_old_after(MAX_STALENESS, &change, &two.both(), "science", newest);
}

#[test]
fn a_history_that_runs_backwards_is_over() {
    let two = Two::start();
    assert_eq!(two.warm("science"), 1);
    let parts = ["state", "names", "log"].map(|part| {
        let key = format!("{{larder:bus}}:{part}");
        let dump: Vec<u8> = two.redis.cli(&["DUMP", &key]);
        (key, dump)
    });
    two.proxy.cut_bus();
    until(SOON, "trust ends", || bus(&two.far)["trusted"] == false);
    let (new, change) = two.change(&two.near, "science");
    // Old data in the same Redis: no connection is lost and the run id stays. Only the near one has
    // heard of later invalidations.
    for (key, dump) in &parts {
        let mut restore = redis::cmd("RESTORE");
        restore.arg(key).arg(0).arg(dump).arg("REPLACE");
        restore.exec(&mut two.redis.connect()).unwrap();
    }
    never_old_after(MAX_STALENESS, &change, &[&two.far], "science", new);
    two.proxy.restore();
    two.both_trust();
    let (newest, change) = two.change(&two.far, "science");
    never_old_after(MAX_STALENESS, &change, &two.both(), "science", newest);
}

#[test]
fn a_history_that_was_set_back_is_told_by_the_next_message() {
    // Pings are rare, so only the message can show it.
    let config = VersionsConfig {
        max_staleness: LONG_MAX_STALENESS,
        ..VersionsConfig::default()
    };
    let two = Two::with(&config);
    assert_eq!(two.warm("science"), 1);
    let kept = two.redis.keys("*larder*").into_iter().map(|key| {
        let dump: Vec<u8> = two.redis.cli(&["DUMP", &key]);
        (key, dump)
    });
    let kept: Vec<_> = kept.collect();
    let (new, change) = two.change(&two.near, "science");
    assert!(!change.pending);
    for (key, dump) in &kept {
        let mut restore = redis::cmd("RESTORE");
        restore.arg(key).arg(0).arg(dump).arg("REPLACE");
        restore.exec(&mut two.redis.connect()).unwrap();
    }
    let other = invalidate(&two.near, &json!({"tags": ["something else"]}));
    assert!(!other.pending);
    until(SOON, "it is noticed", || {
        two.near.log().contains("got old data back")
    });
    // It has heard only of what Redis has now.
    let third = Larder::start(&config.options(&two.versions, two.redis.address()));
    until_trusted(&third);
    assert_eq!(version(&third, "science"), new);
}

#[test]
fn a_read_only_copy_that_lags_vouches_for_nothing() {
    let two = Two::start();
    assert_eq!(two.warm("science"), 1);
    // The near one stays with the first Redis, which is a read-only copy now. The far one uses the
    // Redis that replaced it.
    let other = RedisServer::start();
    two.redis.make_read_only();
    two.proxy.set_target(other.address());
    let clock = bus(&two.far)["clock"].clone();
    two.proxy.close_all();
    until(SOON, "the far one is part of the new history", || {
        let bus = bus(&two.far);
        bus["trusted"] == true && bus["clock"] != clock
    });
    // The first invalidation may get a connection that was closed while it was idle in the pool.
    until(SOON, "Redis takes an invalidation", || {
        !two.change(&two.far, "science").1.pending
    });
    let (new, change) = two.change(&two.far, "science");
    // The near one's connections are open, and the copy has the old value beside the old names.
    never_old_after(MAX_STALENESS, &change, &two.both(), "science", new);
}

#[test]
fn what_is_invalidated_reaches_the_redis_that_took_the_place_of_another() {
    let two = Two::start();
    assert_eq!(two.warm("science"), 1);
    // Another Redis takes its place. The bus of the far one uses the new one. Its pool had
    // connections to the first one, which still runs.
    let other = RedisServer::start();
    two.proxy.set_target(other.address());
    let clock = bus(&two.far)["clock"].clone();
    two.proxy.close_bus();
    until(SOON, "the far one is part of the new history", || {
        let bus = bus(&two.far);
        bus["trusted"] == true && bus["clock"] != clock
    });
    let third = VersionsConfig::default().options(&two.versions, other.address());
    let third = Larder::start(&third);
    until_trusted(&third);
    assert_eq!(version(&third, "science"), 1);
    let (new, change) = two.change(&two.far, "science");
    assert!(!change.pending, "the pool went with the bus");
    until_heard(&third, &change.clock);
    assert_eq!(version(&third, "science"), new);
    assert_eq!(version(&two.far, "science"), new);
}

#[test]
fn a_redis_that_evicts_part_of_the_state_brings_nothing_back() {
    for part in ["state", "names", "log"] {
        let two = Two::start();
        assert_eq!(two.warm("science"), 1);
        // The far one does not trust its bus, so it depends on Redis.
        two.proxy.stall_to_client_only(Scope::Bus);
        until(SOON, "trust ends", || bus(&two.far)["trusted"] == false);
        let (new, change) = two.change(&two.near, "science");
        assert_eq!(
            two.redis
                .cli::<i64>(&["DEL", &format!("{{larder:bus}}:{part}")]),
            1,
            "{part}"
        );
        // The far one first: a load of the near one would put the new value there.
        never_old_after(
            Duration::ZERO,
            &change,
            &[&two.far, &two.near],
            "science",
            new,
        );
        two.proxy.restore();
        two.both_trust();
        never_old_after(Duration::ZERO, &change, &two.both(), "science", new);
        let (newer, change) = two.change(&two.near, "science");
        never_old_after(MAX_STALENESS, &change, &two.both(), "science", newer);
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
            assert!(
                found == new || late <= MAX_STALENESS,
                "{late:?} after the flush"
            );
            found == new
        });
    }
    two.both_trust();
    let (newer, change) = two.change(&two.far, "science");
    never_old_after(MAX_STALENESS, &change, &two.both(), "science", newer);
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
        never_old_after(MAX_STALENESS, &change, &two.both(), "science", new);
    }
    two.both_trust();
}
