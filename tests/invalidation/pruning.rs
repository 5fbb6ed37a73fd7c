//! Redis forgets a name when no entry can be older than its last invalidation, or when there are
//! too many names.
//!
//! An entry that was loaded at or before the clock of a forgotten name is invalid. So forgetting
//! costs a miss, never a stale answer.

use std::time::Duration;

use serde_json::json;

use super::{
    Two, bus, invalidate_now, is_from_memory, never_old_after, until_heard, until_trusted,
};
use testkit::larder::Larder;
use testkit::news::path;
use testkit::proxy::Scope;
use testkit::redis::RedisServer;
use testkit::versions::{VersionsConfig, version, version_in};
use testkit::{SOON, until};

const STATE: &str = "{larder:bus}:state";
const NAMES: &str = "{larder:bus}:names";

fn clock_of(redis: &RedisServer, member: &str) -> Option<u64> {
    let clock: Option<f64> = redis.cli(&["ZSCORE", NAMES, member]);
    clock.map(|clock| clock as u64)
}

fn pruned_to(redis: &RedisServer) -> u64 {
    redis.cli(&["HGET", STATE, "pruned_to"])
}

/// A replica that missed an invalidation cannot learn of it by name any more.
fn forgotten_while_away(away: impl FnOnce(&Two), back: impl FnOnce(&Two)) {
    let two = Two::start();
    assert_eq!((two.warm("science"), two.warm("health")), (1, 1));
    away(&two);
    until(SOON, "trust ends", || bus(&two.far)["trusted"] == false);
    let (new, change) = two.change(&two.near, "science");
    assert!(!change.pending, "{change:?}");
    let clock = change.clock.parse::<u64>().unwrap();
    assert_eq!(clock_of(&two.redis, "h:category:science"), Some(clock));

    assert_eq!(two.redis.forget_names(Duration::ZERO, 1_000_000), 1);
    assert_eq!(clock_of(&two.redis, "h:category:science"), None);
    assert_eq!(pruned_to(&two.redis), clock);
    // Only that watermark is left of it: the log has no entry either.
    two.redis
        .cli::<i64>(&["XTRIM", "{larder:bus}:log", "MAXLEN", "0"]);
    back(&two);

    // Redis and the memory of the far one still have the old value. The far one is asked first.
    never_old_after(Duration::ZERO, &change, &[&two.far], "science", new);
    let third =
        Larder::start(&VersionsConfig::default().options(&two.versions, two.redis.address()));
    assert_eq!(version(&third, "science"), new);
    never_old_after(Duration::ZERO, &change, &two.both(), "science", new);
    // An entry that no invalidation named was loaded before, too. It is missed once and then found
    // again.
    let calls = two.versions.calls();
    let answer = third.get(&path("health")).expect(200);
    assert_eq!(version_in(&answer, "health"), 1);
    assert_eq!(two.versions.calls(), calls + 1);
    assert!(is_from_memory(&third.get(&path("health"))));
}

#[test]
fn what_was_loaded_before_is_a_miss_where_redis_is_asked() {
    forgotten_while_away(|two| two.proxy.stall_to_client_only(Scope::Bus), |_| {});
}

#[test]
fn what_was_loaded_before_is_a_miss_where_the_bus_is_back() {
    forgotten_while_away(
        |two| two.proxy.cut_bus(),
        |two| {
            two.proxy.restore();
            until_trusted(&two.far);
        },
    );
}

#[test]
fn a_replica_forgets_names_that_no_entry_can_depend_on() {
    let two = Two::with(&VersionsConfig {
        max_staleness: "100ms",
        ..VersionsConfig::default()
    });
    let change = invalidate_now(&two.near, &json!({"tags": ["recent"]}));
    // As if it had been invalidated three hours ago, which is longer than any entry of this
    // configuration can live.
    let recent = change.clock.parse::<u64>().unwrap();
    let old = recent - 3 * 3_600_000_000;
    for member in ["h:old", "s:old"] {
        two.redis
            .cli::<i64>(&["ZADD", NAMES, &old.to_string(), member]);
    }
    until(SOON, "the old name is forgotten", || {
        clock_of(&two.redis, "h:old").is_none() && clock_of(&two.redis, "s:old").is_none()
    });
    assert_eq!(pruned_to(&two.redis), old);
    assert_eq!(clock_of(&two.redis, "h:recent"), Some(recent));
    // Later entries stay valid.
    two.both_trust();
    assert_eq!(two.warm("science"), 1);
    assert_eq!(two.versions.calls(), 1);
}

#[test]
fn where_there_are_too_many_the_oldest_go() {
    let two = Two::start();
    assert_eq!(two.warm("science"), 1);
    let clocks: Vec<u64> = (0..10)
        .map(|number| {
            let change = invalidate_now(&two.near, &json!({"tags": [format!("other:{number}")]}));
            until_heard(&two.far, &change.clock);
            change.clock.parse().unwrap()
        })
        .collect();
    // Forgetting frees memory, so a full Redis does not refuse it.
    two.redis.make_full();
    assert_eq!(two.redis.forget_names(Duration::from_secs(3600), 4), 6);
    two.redis.make_room();
    assert_eq!(pruned_to(&two.redis), clocks[5]);
    let left: Vec<bool> = (0..10)
        .map(|number| clock_of(&two.redis, &format!("h:other:{number}")).is_some())
        .collect();
    assert_eq!(left, [vec![false; 6], vec![true; 4]].concat());
    // An entry from before the watermark is a miss on each replica after its next ping.
    for replica in two.both() {
        until(SOON, "it is loaded anew", || {
            let entry = replica.get("/cache/entry?path=/articles%3Fcategory%3Dscience");
            let clock = entry.json()["parts"][0]["load_clock"].clone();
            assert_eq!(version(replica, "science"), 1);
            clock
                .as_str()
                .is_some_and(|clock| clock.parse::<u64>().unwrap() >= clocks[9])
        });
    }
    assert_eq!(two.versions.calls(), 2);
    // The history goes on.
    let (new, change) = two.change(&two.near, "science");
    never_old_after(super::MAX_STALENESS, &change, &two.both(), "science", new);
}
