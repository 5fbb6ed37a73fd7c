//! The audit of a server's memory hits: what `/metrics` and the log say of it.

use testkit::audits::Audits;
use testkit::larder::Larder;
use testkit::news::path;
use testkit::redis::RedisServer;
use testkit::versions::{Versions, VersionsConfig, version, version_in};
use testkit::{SOON, until};

use super::{Two, is_from_memory, until_trusted};

fn config() -> VersionsConfig {
    VersionsConfig {
        audit: 1.0,
        ..VersionsConfig::default()
    }
}

/// Something wrote an invalidation into the record and published nothing. No replica can hear of
/// that, so each breaks the bound, and the audit says so.
#[test]
fn a_hit_that_comes_too_late_is_counted_and_logged_with_its_key() {
    let (redis, versions) = (RedisServer::start(), Versions::start());
    let larder = Larder::start(&config().options(&versions, redis.address()));
    assert_eq!(version(&larder, "science"), 1);
    until_trusted(&larder);
    redis.invalidate_silently("category:science", redis.time());
    until(SOON, "a hit is illegal", || {
        assert_eq!(version(&larder, "science"), 1);
        Audits::of(&larder).illegal > 0
    });
    let log = larder.log();
    let line = log.lines().find(|line| line.contains("illegal memory hit"));
    let line = line.unwrap();
    assert!(line.contains("WARN"), "{line}");
    assert!(line.contains("articles?category=science: served"), "{line}");
    // Others are not affected.
    let before = Audits::of(&larder);
    assert_eq!(version(&larder, "sports"), 1);
    assert_eq!(version(&larder, "sports"), 1);
    let after = Audits::of(&larder);
    assert_eq!(after.illegal, before.illegal);
    assert!(after.same > before.same, "{before:?} {after:?}");
}

/// A replica misses what the other one invalidates. It serves the old version for a while and loses
/// trust in time, so its hits are `newer` and none is illegal.
#[test]
fn hits_of_a_replica_that_misses_messages_are_newer_and_none_is_illegal() {
    let two = Two::with(&config());
    assert_eq!(two.warm("science"), 1);
    two.proxy.lose_messages();
    let (new, _) = two.change(&two.near, "science");
    let mut hits = 0;
    until(SOON, "the new version is served", || {
        let answer = two.far.get(&path("science")).expect(200);
        let old = version_in(&answer, "science") < new;
        hits += u64::from(old && is_from_memory(&answer));
        !old
    });
    let found = Audits::of(&two.far);
    assert!(
        hits > 0 && found.newer + found.skipped >= hits,
        "{hits} {found:?}"
    );
    assert_eq!(found.illegal, 0, "{found:?}");
}
