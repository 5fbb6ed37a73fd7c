//! The audit of memory hits: what it finds where a replica has not heard of an invalidation.

use std::sync::Arc;
use std::time::{Duration, Instant};

use larder_cache::{
    Answer, AuditCounts, Cache, InvalidationTarget, Key, Lifetime, LoadError, Loaded, Outcome,
    Policy, Purge, Staleness, TaggedKey, Value,
};
use testkit::proxy::FaultProxy;
use testkit::redis::RedisServer;
use testkit::{SOON, until};

use super::child::{Child, role, threads};
use super::{builder, policy};

const HOUR: Duration = Duration::from_secs(3600);

/// A trusted cache that looks at this share of its hits.
fn audited(url: &str, share: f64, max_staleness: Duration) -> Cache {
    let cache = builder(url)
        .audit(share)
        .max_staleness(max_staleness)
        .build()
        .unwrap();
    assert!(cache.redis().wait_up(SOON) && cache.wait_trusted(SOON));
    cache
}

fn key() -> Key {
    Key::new(1, NAME)
}

fn answer(
    cache: &Cache,
    policy: &Policy,
    run: impl FnOnce() -> Result<Loaded, LoadError> + Send + 'static,
) -> Answer {
    let request = super::request((NAME, TAG), policy, &Arc::default(), move |_| run());
    cache.answer(request, SOON).unwrap()
}

fn value() -> Result<Loaded, LoadError> {
    let value = Value::Present("v".into());
    Ok(Loaded::new(value, Lifetime::Policy))
}

fn failed() -> Result<Loaded, LoadError> {
    Err(LoadError::Failed("no".into()))
}

/// A hit in memory, if memory is trusted.
fn hit(cache: &Cache) -> Option<Outcome> {
    cache
        .get(key().as_str(), &policy(), None)
        .map(|answer| answer.outcome)
}

/// The hits that were looked at.
fn found(counts: AuditCounts) -> u64 {
    counts.same + counts.newer + counts.illegal + counts.unknown
}

/// The hits that were chosen.
fn chosen(counts: AuditCounts) -> u64 {
    found(counts) + counts.skipped + counts.waiting
}

#[track_caller]
fn until_found(cache: &Cache, count: u64) -> AuditCounts {
    until(SOON, "the hits are looked at", || {
        found(cache.audits()) >= count
    });
    cache.audits()
}

/// Waits until so many hits were looked at or skipped. A hit is skipped also if the audit's thread
/// holds the lock at that very moment.
#[track_caller]
fn until_settled(cache: &Cache, count: u64) -> AuditCounts {
    until(SOON, "the hits are looked at or skipped", || {
        let counts = cache.audits();
        found(counts) + counts.skipped >= count
    });
    cache.audits()
}

/// The name of the thing in its key.
const NAME: &str = "thing?id=7";
/// A tag of the thing.
const TAG: &str = "thing:7";

#[test]
fn a_hit_of_what_nobody_invalidated_is_the_same() {
    let redis = RedisServer::start();
    let cache = audited(&redis.url(), 1.0, HOUR);
    answer(&cache, &policy(), value);
    assert_eq!(cache.audits(), AuditCounts::default(), "a load is no hit");
    let keys = redis.keys("*");
    for _ in 0..30 {
        assert_eq!(hit(&cache), Some(Outcome::MemoryHit));
    }
    let counts = until_settled(&cache, 30);
    let expected = AuditCounts {
        same: 30 - counts.skipped,
        skipped: counts.skipped,
        ..AuditCounts::default()
    };
    assert_eq!(counts, expected);
    assert!(counts.same > 0, "{counts:?}");
    assert_eq!(redis.keys("*"), keys, "the audit makes no key");
}

#[test]
fn a_hit_of_what_was_invalidated_in_silence_is_newer_within_max_staleness() {
    let redis = RedisServer::start();
    let cache = audited(&redis.url(), 1.0, HOUR);
    answer(&cache, &policy(), value);
    redis.invalidate_silently(TAG, redis.time());
    assert_eq!(hit(&cache), Some(Outcome::MemoryHit));
    let counts = until_found(&cache, 1);
    assert_eq!((counts.newer, found(counts)), (1, 1), "{counts:?}");
}

#[test]
fn a_hit_of_what_was_invalidated_in_silence_is_illegal_after_max_staleness() {
    let redis = RedisServer::start();
    let cache = audited(&redis.url(), 1.0, Duration::from_millis(200));
    answer(&cache, &policy(), value);
    redis.invalidate_silently(TAG, redis.time());
    until(SOON, "a hit is illegal", || {
        hit(&cache);
        cache.audits().illegal > 0
    });
    until(SOON, "none waits", || cache.audits().waiting == 0);
    let before = cache.audits();
    assert_eq!((before.same, before.unknown), (0, 0), "{before:?}");
    // The last invalidation is young for ever now. The first one after the load is still old.
    redis.invalidate_silently(TAG, redis.time() + 2 * HOUR.as_micros() as u64);
    until(SOON, "a hit is looked at", || {
        hit(&cache);
        found(cache.audits()) > found(before)
    });
    until(SOON, "none waits", || cache.audits().waiting == 0);
    let counts = cache.audits();
    let others = |counts: AuditCounts| (counts.same, counts.newer, counts.unknown);
    assert_eq!(others(counts), others(before), "all the more are illegal");
}

#[test]
fn a_hit_that_the_record_does_not_tell_about_is_unknown() {
    type Damage = fn(&RedisServer);
    let trimmed: Damage = |redis| {
        redis.invalidate_silently(TAG, redis.time());
        redis.cli::<u64>(&["XTRIM", "{larder:bus}:log", "MAXLEN", "0"]);
    };
    let other_history: Damage = |redis| {
        let id = "00000000000f0e0d";
        redis.cli::<()>(&["HSET", "{larder:bus}:state", "epoch", id]);
        let sentinel = format!("e:{id}");
        redis.cli::<()>(&["ZADD", "{larder:bus}:names", "+inf", &sentinel]);
    };
    let not_whole: Damage = |redis| redis.cli(&["DEL", "{larder:bus}:names"]);
    let other_server: Damage = |redis| {
        let id = "0".repeat(40);
        redis.cli::<()>(&["HSET", "{larder:bus}:state", "run_id", &id]);
    };
    let ahead: Damage = |redis| {
        redis.invalidate_silently(TAG, redis.time());
        let clock = (redis.time() + HOUR.as_micros() as u64).to_string();
        redis.cli::<()>(&["HSET", "{larder:bus}:state", "clock", &clock]);
    };
    for (what, damage) in [
        ("a trimmed log", trimmed),
        ("another history", other_history),
        ("a record that is not whole", not_whole),
        ("a record that another server wrote", other_server),
        ("a clock that is ahead of Redis's time", ahead),
    ] {
        let redis = RedisServer::start();
        // The next ping is far off, so the replica does not notice the damage itself.
        let cache = audited(&redis.url(), 1.0, HOUR);
        answer(&cache, &policy(), value);
        damage(&redis);
        assert_eq!(hit(&cache), Some(Outcome::MemoryHit), "{what}");
        let counts = until_found(&cache, 1);
        assert_eq!((counts.unknown, found(counts)), (1, 1), "{what} {counts:?}");
    }
}

#[test]
fn a_question_that_redis_does_not_answer_is_asked_later() {
    let redis = RedisServer::start();
    let proxy = FaultProxy::start(redis.address());
    let url = format!("redis://{}", proxy.address());
    let cache = audited(&url, 1.0, HOUR);
    answer(&cache, &policy(), value);
    proxy.cut();
    until(SOON, "Redis is gone", || !cache.redis().answers());
    // Trust still holds: the last ping was sent within the hour.
    for _ in 0..40 {
        assert_eq!(hit(&cache), Some(Outcome::MemoryHit));
    }
    let counts = cache.audits();
    let waiting = 40 - counts.skipped;
    assert_eq!(
        (counts.waiting, chosen(counts)),
        (waiting, 40),
        "{counts:?}"
    );
    redis.invalidate_silently(TAG, redis.time());
    proxy.restore();
    let counts = until_settled(&cache, 40);
    assert_eq!((counts.newer, chosen(counts)), (waiting, 40), "{counts:?}");
    assert!(counts.newer > 0, "{counts:?}");
}

#[test]
fn neither_stale_answers_nor_those_within_disconnected_ttl_are_looked_at() {
    let redis = RedisServer::start();
    let proxy = FaultProxy::start(redis.address());
    let url = format!("redis://{}", proxy.address());
    let cache = audited(&url, 1.0, Duration::from_millis(200));
    let lenient = policy().stale(Duration::ZERO, HOUR);
    answer(&cache, &lenient, value);
    cache.invalidate(&[InvalidationTarget::tag(TAG)], Purge::Soft);
    let before = chosen(cache.audits());
    let mut backing_off = 0;
    until(SOON, "the stale copy is served from memory", || {
        // Again where the pause after the failure is over.
        let failed = answer(&cache, &lenient, failed).outcome;
        assert!(matches!(failed, Outcome::Stale(_)), "{failed:?}");
        for _ in 0..20 {
            let copy = cache.get(key().as_str(), &lenient, None);
            backing_off += u32::from(copy.is_some_and(|copy| {
                assert_eq!(copy.outcome, Outcome::Stale(Staleness::BackingOff));
                true
            }));
        }
        backing_off >= 20
    });
    assert_eq!(chosen(cache.audits()), before, "stale answers");

    let other = audited(&url, 1.0, Duration::from_millis(200));
    answer(&other, &policy(), value);
    proxy.cut();
    let gone = || !other.bus().trusted && !other.redis().answers();
    until(SOON, "neither bus nor Redis is reached", gone);
    let before = chosen(other.audits());
    for _ in 0..50 {
        assert_eq!(hit(&other), Some(Outcome::MemoryHit));
    }
    assert_eq!(chosen(other.audits()), before, "disconnected answers");
}

#[test]
fn at_most_500_hits_a_second_are_looked_at_and_1000_wait() {
    let redis = RedisServer::start();
    let cache = audited(&redis.url(), 1.0, HOUR);
    answer(&cache, &policy(), value);
    let began = Instant::now();
    let hits = 5000;
    for _ in 0..hits {
        assert_eq!(hit(&cache), Some(Outcome::MemoryHit));
    }
    let counts = cache.audits();
    let commands = began.elapsed().as_millis() as u64 / 50 + 1;
    assert!(found(counts) <= 25 * commands, "{counts:?}");
    assert!(counts.waiting <= 1000 && counts.skipped > 0, "{counts:?}");
    assert_eq!(chosen(counts), hits, "every hit is accounted for");
    until(SOON, "none waits", || cache.audits().waiting == 0);
    let counts = cache.audits();
    assert_eq!(counts.same + counts.skipped, hits, "{counts:?}");
}

#[test]
fn each_cache_of_a_thread_looks_at_its_own_share() {
    let redis = RedisServer::start();
    let [all, some] = [1.0, 0.01].map(|share| {
        let cache = audited(&redis.url(), share, HOUR);
        answer(&cache, &policy(), value);
        cache
    });
    // Both by turns, then each for a while.
    for _ in 0..10_000 {
        hit(&all);
        hit(&some);
    }
    for _ in 0..10_000 {
        hit(&some);
    }
    assert_eq!(chosen(all.audits()), 10_000);
    // 200 are expected. Six standard deviations are 84.
    let counts = some.audits();
    assert!(chosen(counts).abs_diff(200) < 84, "{counts:?}");
}

#[test]
fn an_audit_that_is_off_asks_nothing_and_has_no_thread() {
    if let Some((role, url)) = role() {
        let share = if role == "off" { 0.0 } else { 1.0 };
        let cache = audited(&url, share, HOUR);
        let audits = || threads().iter().filter(|name| *name == "audit").count();
        answer(&cache, &policy(), value);
        assert_eq!(audits(), 0, "there is nothing to do yet");
        for _ in 0..100 {
            assert_eq!(hit(&cache), Some(Outcome::MemoryHit));
        }
        if role == "off" {
            assert_eq!(cache.audits(), AuditCounts::default());
            assert_eq!(audits(), 0);
        } else {
            until_settled(&cache, 100);
            assert_eq!(audits(), 1);
            drop(cache);
            until(SOON, "its thread has ended", || audits() == 0);
        }
        return;
    }
    let test = "audit::an_audit_that_is_off_asks_nothing_and_has_no_thread";
    for role in ["off", "on"] {
        let redis = RedisServer::start();
        Child::start(test, role, &redis.url()).end();
    }
}

#[test]
fn a_cache_that_is_alone_has_no_record_to_look_at() {
    let cache = Cache::builder().audit(1.0).build().unwrap();
    let numbers = cache.typed::<i32>("number", 1).unwrap();
    for _ in 0..3 {
        numbers
            .get_or_load(TaggedKey::new(), &policy(), || Ok::<i32, String>(1))
            .unwrap();
    }
    assert_eq!(cache.audits(), AuditCounts::default());
}

#[test]
fn a_share_is_a_number_from_0_to_1() {
    for share in [-0.1, 1.1, f64::NAN, f64::INFINITY] {
        let refused = Cache::builder().audit(share).build().err();
        assert_eq!(
            refused,
            Some(format!(
                "the share of the audit is {share}; valid: a number from 0 to 1"
            ))
        );
    }
}
