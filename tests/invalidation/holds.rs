//! Each test is one way in which two-tier caches lose an invalidation, and shows that larder does
//! not.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{
    LONG_MAX_STALENESS, MAX_STALENESS, Two, begin_read, bus, finish, invalidate_now,
    is_from_memory, is_warm, never_old_after, until_calls, until_heard, until_trusted,
};
use testkit::client::Pending;
use testkit::larder::Larder;
use testkit::news::{CATEGORIES, path};
use testkit::proxy::{FaultProxy, Scope};
use testkit::versions::{VersionsConfig, version, version_in};
use testkit::{SOON, until};

#[test]
fn a_load_from_before_fills_no_tier() {
    let two = Two::start();
    let upstream = &two.versions.upstream;
    upstream.hold_answers();
    let before = begin_read(&two.far, "science");
    until_calls(&two.versions, 1);
    let (new, change) = two.change(&two.near, "science");
    upstream.pass_new();
    // It does not wait for the earlier load, though a replica has the lease for it.
    assert_eq!(version(&two.near, "science"), new);
    upstream.release();
    // Its own reader began before the write.
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
    // Trust must not end meanwhile: without it, readers do not join the second load either.
    let two = Two::with(&VersionsConfig {
        max_staleness: LONG_MAX_STALENESS,
        ..VersionsConfig::default()
    });
    let upstream = &two.versions.upstream;
    upstream.hold_answers();
    let before: Vec<Pending> = (0..3).map(|_| begin_read(&two.near, "science")).collect();
    until_calls(&two.versions, 1);
    let (new, _) = two.change(&two.near, "science");
    let after: Vec<Pending> = (0..3).map(|_| begin_read(&two.near, "science")).collect();
    // The source still holds the first load back, so this is another one.
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
    let mut reads = vec![(1, begin_read(&two.near, "science"))];
    until_calls(&two.versions, 1);
    for _ in 0..30 {
        let (new, _) = two.change(&two.near, "science");
        reads.push((new, begin_read(&two.near, "science")));
    }
    until_calls(&two.versions, 2);
    upstream.release();
    for (least, read) in reads {
        assert!(finish(read, "science") >= least);
    }
    // The overtaken load, the newest one, and the loads that began when these ended.
    let calls = two.versions.calls();
    assert!(calls <= 5, "{calls} loads");
}

#[test]
fn a_late_copy_from_redis_is_not_kept() {
    let two = Two::with(&VersionsConfig {
        max_staleness: LONG_MAX_STALENESS,
        redis_timeout: "20s",
        connect_timeout: "20s",
        ..VersionsConfig::default()
    });
    assert_eq!(version(&two.near, "science"), 1);
    // With an open connection, so that the answer is delayed and not the connecting.
    assert_eq!(version(&two.far, "health"), 1);
    // Redis has the value. The far one asks for it, and the answer is under way while its bus
    // works.
    two.proxy.stall_to_client_only(Scope::Others);
    let gets = || two.redis.calls("mget") + two.redis.calls("get");
    let before = gets();
    let late = begin_read(&two.far, "science");
    until(SOON, "Redis is asked", || gets() > before);
    let (new, change) = two.change(&two.near, "science");
    until_heard(&two.far, &change.clock);
    two.proxy.restore();
    assert!([1, new].contains(&finish(late, "science")));
    never_old_after(Duration::ZERO, &change, &two.both(), "science", new);
}

/// The bus of one replica is cut. Meanwhile there are 50 invalidations, one of them of a value that
/// the replica has. Then the bus is restored.
fn missed_while_cut_off(log_length: u32) {
    let two = Two::with(&VersionsConfig {
        log_length,
        // On a busy machine trust may end for a moment. Then Redis answers for a value that memory
        // has.
        max_staleness: "10s",
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

/// Waits until the message that names this was sent and lost.
fn until_lost(two: &Two, name: &str) {
    until(SOON, "the message is lost", || two.proxy.has_lost(name));
}

#[test]
fn a_lost_message_is_found_and_repaired() {
    let two = Two::start();
    assert_eq!((two.warm("science"), two.warm("health")), (1, 1));
    let repaired = || bus(&two.far)["gaps_repaired"].as_u64().unwrap();
    let before = repaired();
    // No connection is closed: the replica cannot tell this from silence.
    two.proxy.lose_messages();
    let (new, change) = two.change(&two.near, "science");
    until_lost(&two, "category:science");
    two.proxy.restore();
    never_old_after(MAX_STALENESS, &change, &[&two.far], "science", new);
    until_heard(&two.far, &change.clock);
    until_trusted(&two.far);
    assert!(repaired() > before);
    assert!(is_warm(&two.far, "health"));
}

#[test]
fn a_lost_message_is_found_by_the_next_one() {
    let two = Two::with(&VersionsConfig {
        // No echo shows it earlier.
        max_staleness: LONG_MAX_STALENESS,
        ..VersionsConfig::default()
    });
    assert_eq!((two.warm("science"), two.warm("health")), (1, 1));
    two.proxy.lose_messages();
    let (new, _) = two.change(&two.near, "science");
    until_lost(&two, "category:science");
    two.proxy.restore();
    let (other, next) = two.change(&two.near, "health");
    until_heard(&two.far, &next.clock);
    assert_eq!(version(&two.far, "health"), other);
    assert_eq!(version(&two.far, "science"), new);
}

#[test]
fn a_lost_message_is_found_when_the_replica_invalidates_something_itself() {
    let two = Two::with(&VersionsConfig {
        // An echo would show the gap, too. Here the replica's own invalidation must not hide it.
        max_staleness: "2s",
        ..VersionsConfig::default()
    });
    assert_eq!((two.warm("science"), two.warm("health")), (1, 1));
    two.proxy.lose_messages();
    let (new, change) = two.change(&two.near, "science");
    let (other, own) = two.change(&two.far, "health");
    until_lost(&two, "category:health");
    two.proxy.restore();
    assert_eq!(version(&two.far, "health"), other);
    never_old_after(Duration::from_secs(2), &change, &[&two.far], "science", new);
    until_heard(&two.far, &own.clock);
    assert_eq!(version(&two.far, "science"), new);
}

#[test]
fn a_half_open_bus_is_not_trusted_for_longer_than_max_staleness() {
    let two = Two::start();
    assert_eq!(two.warm("science"), 1);
    two.proxy.stall_to_client_only(Scope::Bus);
    let (new, change) = two.change(&two.near, "science");
    never_old_after(MAX_STALENESS, &change, &[&two.far], "science", new);
    assert_eq!(bus(&two.far)["trusted"], false);
    // Without trust it asks Redis each time.
    assert!(!is_warm(&two.far, "science"));
    until(SOON, "Redis has it", || {
        let found = two.far.get(&path("science")).expect(200);
        found.the("Cache-Status").starts_with("larder-redis; hit")
    });

    two.proxy.restore();
    until_trusted(&two.far);
    assert_eq!(two.warm("science"), new);
}

#[test]
fn an_echo_that_comes_late_is_trusted_from_when_its_ping_was_sent() {
    let two = Two::start();
    // The round trip takes a good part of `max_staleness`.
    let way = Duration::from_millis(200);
    two.proxy.delay(way);
    let slow = Instant::now();
    let far = two.far.address().to_string();
    let trust_left = || {
        let replicas = two.near.get("/cache/replicas").expect(200).json()["replicas"].clone();
        let all = replicas.as_array().unwrap().clone();
        let far = all.iter().find(|replica| replica["bind"] == far.as_str());
        far.map_or(0, |far| far["trust_left_ms"].as_u64().unwrap())
    };
    until(SOON, "what it heard before is over", || {
        slow.elapsed() > 2 * MAX_STALENESS
    });
    let most = (MAX_STALENESS - 2 * way).as_millis() as u64;
    let (mut trusted, mut left) = (0, 0);
    until(SOON, "it is trusted now and then", || {
        left = trust_left();
        assert!(left <= most, "{left} ms of trust are left");
        trusted += u32::from(left > 0);
        trusted > 5
    });
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
        never_old_after(MAX_STALENESS, &change, &[&two.far], "science", new);
        two.proxy.restore();
        until_trusted(&two.far);
        never_old_after(MAX_STALENESS, &change, &two.both(), "science", new);
    }
}

#[test]
fn a_replica_that_reaches_nothing_serves_memory_for_disconnected_ttl() {
    let two = Two::with(&VersionsConfig {
        disconnected_ttl: Some("3s"),
        ..VersionsConfig::default()
    });
    assert_eq!(two.warm("science"), 1);
    two.proxy.cut();
    let (new, change) = two.change(&two.near, "science");
    until(SOON, "trust ends", || bus(&two.far)["trusted"] == false);
    // A disconnected replica may serve this resource from memory for `disconnected_ttl`, but no
    // longer.
    let disconnected = two.far.get(&path("science"));
    assert!(
        is_from_memory(&disconnected) || change.acknowledged.elapsed() > Duration::from_secs(3),
        "{disconnected}"
    );
    let bound = MAX_STALENESS + Duration::from_secs(3);
    never_old_after(bound, &change, &[&two.far], "science", new);
}

#[test]
fn a_late_load_of_a_replica_that_reaches_nothing_is_not_served_for_longer() {
    let two = Two::with(&VersionsConfig {
        disconnected_ttl: Some("2s"),
        ..VersionsConfig::default()
    });
    let bound = MAX_STALENESS + Duration::from_secs(2);
    two.proxy.cut();
    until(SOON, "it is disconnected", || {
        bus(&two.far)["trusted"] == false && two.far.stats()["redis"]["up"] == false
    });
    let upstream = &two.versions.upstream;
    upstream.hold_answers();
    let before = begin_read(&two.far, "science");
    until_calls(&two.versions, 1);
    let (new, change) = two.change(&two.near, "science");
    assert!(!change.pending);
    upstream.pass_new();
    until(SOON, "the bound is over", || {
        change.acknowledged.elapsed() > bound
    });
    // `disconnected_ttl` counts from the begin of this load, which was before the change.
    upstream.release();
    assert!([1, new].contains(&finish(before, "science")));
    never_old_after(bound, &change, &[&two.far], "science", new);
}
