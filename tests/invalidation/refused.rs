//! Where Redis does not take it, and where there is no Redis.

use std::time::Instant;

use serde_json::json;

use super::{
    Change, PATIENCE, Two, bus, category_tag, invalidate, invalidate_now, never_old_after,
    until_nothing_pends, warm,
};
use crate::support::larder::Larder;
use crate::support::redis::RedisServer;
use crate::support::versions::{Versions, VersionsConfig, version};
use crate::support::{SOON, free_address, the_usual_redis_port, until};

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
        |redis| redis.cli(&["ACL", "SETUSER", "default", "-eval", "-evalsha", "-publish"]),
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
