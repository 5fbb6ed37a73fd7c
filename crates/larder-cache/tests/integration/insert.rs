//! Values that the caller has, over a real Redis.

use std::sync::{Arc, mpsc};
use std::time::Duration;

use larder_cache::{
    Answer, Cache, CacheItem, Composition, InsertReceipt, Inserted, InvalidationTarget, Key,
    Lifetime, Loaded, Outcome, Policy, Producer, Purge, Request, Since, Tag, Ticket, Value,
};
use testkit::proxy::FaultProxy;
use testkit::redis::RedisServer;
use testkit::{SOON, until};

use super::{builder, policy, trusted};

const KEY: &str = "thing?id=7";
const TAG: &str = "thing:7";

fn present(text: &str) -> Value {
    Value::Present(text.to_owned().into())
}

fn insert(cache: &Cache, text: &str, since: &Since) -> InsertReceipt {
    insert_by(cache, &policy(), present(text), since)
}

fn insert_by(cache: &Cache, policy: &Policy, value: Value, since: &Since) -> InsertReceipt {
    cache.insert(&Key::new(1, KEY), &[Tag::new(TAG)], value, policy, since)
}

fn begin(cache: &Cache, load: impl FnOnce() -> Value + Send + 'static) -> Ticket {
    cache.fetch(super::request(
        (KEY, TAG),
        &policy(),
        &Arc::default(),
        |_| Ok(Loaded::new(load(), Lifetime::Policy)),
    ))
}

/// What a reader gets, who loads `text` if no tier has a value.
fn read(cache: &Cache, text: &str) -> (String, Outcome) {
    let at_hand = cache.get(Key::new(1, KEY).as_str(), &policy(), None);
    let value = present(text);
    said(&at_hand.unwrap_or_else(|| begin(cache, || value).wait(SOON).unwrap()))
}

fn said(answer: &Answer) -> (String, Outcome) {
    let text = String::from_utf8_lossy(answer.entry.value.bytes()).into_owned();
    (text, answer.outcome)
}

fn got(text: &str, outcome: Outcome) -> (String, Outcome) {
    (text.to_owned(), outcome)
}

/// A load of the key under way: its ticket, and what lets it end.
struct Slow(Ticket, mpsc::Sender<()>);

impl Slow {
    /// Begins it. Returns when it asks its source.
    fn begin(cache: &Cache, text: &str) -> Slow {
        let (started, running) = mpsc::channel();
        let (release, gate) = mpsc::channel::<()>();
        let value = present(text);
        let ticket = begin(cache, move || {
            started.send(()).unwrap();
            gate.recv().unwrap();
            value
        });
        running.recv().unwrap();
        Slow(ticket, release)
    }

    fn end(self) -> (String, Outcome) {
        self.1.send(()).unwrap();
        said(&self.0.wait(SOON).unwrap())
    }
}

#[test]
fn an_inserted_value_is_in_memory_here_and_in_redis_for_the_others() {
    let redis = RedisServer::start();
    let (a, b) = (trusted(&redis.url()), trusted(&redis.url()));
    assert_eq!(read(&b, "old"), got("old", Outcome::Loaded));
    let since = a.stamp();
    let receipt = insert(&a, "new", &since);
    assert_eq!(receipt.inserted, Inserted::Shared);
    let clock = receipt.invalidation.clock.unwrap();
    assert_eq!(read(&a, "loaded"), got("new", Outcome::MemoryHit));
    until(SOON, "it is heard", || b.has_heard(clock));
    assert_eq!(read(&b, "loaded"), got("new", Outcome::RedisHit));
    assert_eq!(read(&b, "loaded"), got("new", Outcome::MemoryHit));
    let entry = a
        .get(Key::new(1, KEY).as_str(), &policy(), None)
        .unwrap()
        .entry;
    assert_eq!(entry.stamp().clock, clock);
    // By its tag as by its key.
    for target in [InvalidationTarget::tag(TAG), InvalidationTarget::key(KEY)] {
        let stamp = a.stamp();
        let clock = a.invalidate(&[target], Purge::Hard).clock.unwrap();
        until(SOON, "it is heard", || b.has_heard(clock));
        assert_eq!(read(&b, "loaded").1, Outcome::Loaded);
        assert_eq!(insert(&a, "older", &stamp).inserted, Inserted::Changed);
    }
}

#[test]
fn one_process_inserts_again_and_again() {
    let redis = RedisServer::start();
    let cache = trusted(&redis.url());
    for round in 0..20 {
        // The stamp knows of the insert before, whether or not its message has come back.
        let text = round.to_string();
        let receipt = insert(&cache, &text, &cache.stamp());
        assert_eq!(receipt.inserted, Inserted::Shared, "{text}");
        assert_eq!(read(&cache, "loaded"), got(&text, Outcome::MemoryHit));
    }
}

#[test]
fn a_value_that_was_read_before_a_change_is_not_kept() {
    let redis = RedisServer::start();
    let (a, b) = (trusted(&redis.url()), trusted(&redis.url()));
    let targets = [
        (InvalidationTarget::tag(TAG), Purge::Hard),
        (InvalidationTarget::tag(TAG), Purge::Soft),
        (InvalidationTarget::key(KEY), Purge::Hard),
        (InvalidationTarget::everything(), Purge::Soft),
        (InvalidationTarget::everything(), Purge::Hard),
    ];
    for (target, purge) in targets {
        let since = a.stamp();
        assert!(!b.invalidate(&[target], purge).is_pending());
        // Whether or not it has heard of that.
        let receipt = insert(&a, "old", &since);
        assert_eq!(receipt.inserted, Inserted::Changed);
        assert!(!receipt.invalidation.is_pending());
        for cache in [&a, &b] {
            let clock = receipt.invalidation.clock.unwrap();
            until(SOON, "it is heard", || cache.has_heard(clock));
            assert_ne!(read(cache, "new").0, "old");
        }
        // Something else may change.
        let since = a.stamp();
        b.invalidate(&[InvalidationTarget::tag("other")], Purge::Hard);
        assert_eq!(insert(&a, "current", &since).inserted, Inserted::Shared);
    }
}

#[test]
fn of_two_inserts_at_one_time_none_is_kept_that_may_be_the_older_one() {
    let redis = RedisServer::start();
    let (a, b) = (trusted(&redis.url()), trusted(&redis.url()));
    let (first, second) = (a.stamp(), b.stamp());
    assert_eq!(insert(&a, "a", &first).inserted, Inserted::Shared);
    assert_eq!(insert(&b, "b", &second).inserted, Inserted::Changed);
    // Both are gone: nobody knows which is the newer one.
    assert_eq!(read(&b, "c"), got("c", Outcome::Loaded));
}

#[test]
fn a_load_from_before_that_ends_late_replaces_nothing() {
    let redis = RedisServer::start();
    let (a, b) = (trusted(&redis.url()), trusted(&redis.url()));
    // The insert is made by the process that loads, and by another one.
    for inserts in [&a, &b] {
        let slow = Slow::begin(&a, "old");
        let receipt = insert(inserts, "new", &inserts.stamp());
        assert_eq!(receipt.inserted, Inserted::Shared);
        let clock = receipt.invalidation.clock.unwrap();
        until(SOON, "it is heard", || {
            a.has_heard(clock) && b.has_heard(clock)
        });
        if std::ptr::eq(inserts, &b) {
            assert_eq!(read(&a, "loaded").0, "new");
        }
        slow.end();
        let lease = format!("larder:l:{}", Key::new(1, KEY).as_str());
        // The reader had its answer before the load has ended.
        until(SOON, "the lease is given back", || {
            redis.cli::<i64>(&["EXISTS", &lease]) == 0
        });
        assert_eq!(read(&a, "loaded").0, "new");
        assert_eq!(read(&b, "loaded").0, "new");
        let others = trusted(&redis.url());
        assert_eq!(read(&others, "loaded"), got("new", Outcome::RedisHit));
        let told = a.invalidate(&[InvalidationTarget::key(KEY)], Purge::Hard);
        let clock = told.clock.unwrap();
        until(SOON, "it is heard", || b.has_heard(clock));
    }
}

#[test]
fn those_who_wait_for_a_load_from_before_get_the_inserted_value() {
    let redis = RedisServer::start();
    for cache in [trusted(&redis.url()), Cache::builder().build().unwrap()] {
        let slow = Slow::begin(&cache, "old");
        let follower = begin(&cache, || panic!("it follows"));
        let receipt = insert(&cache, "new", &cache.stamp());
        assert!(matches!(
            receipt.inserted,
            Inserted::Shared | Inserted::Here
        ));
        // Before the load ends.
        let told = said(&follower.wait(SOON).unwrap());
        assert_eq!(told, got("new", Outcome::Collapsed));
        assert_eq!(slow.end(), got("new", Outcome::Collapsed));
        assert_eq!(read(&cache, "loaded"), got("new", Outcome::MemoryHit));
    }
}

#[test]
fn those_who_wait_for_a_load_get_its_value_if_the_inserted_one_is_not_kept() {
    let redis = RedisServer::start();
    let cache = trusted(&redis.url());
    let since = cache.stamp();
    cache.invalidate(&[InvalidationTarget::tag(TAG)], Purge::Hard);
    let slow = Slow::begin(&cache, "new");
    assert_eq!(insert(&cache, "old", &since).inserted, Inserted::Changed);
    assert_eq!(slow.end(), got("new", Outcome::Loaded));
}

#[test]
fn a_lease_of_another_process_holds_up_no_insert() {
    let redis = RedisServer::start();
    let (a, b) = (trusted(&redis.url()), trusted(&redis.url()));
    let slow = Slow::begin(&a, "old");
    assert_eq!(insert(&b, "new", &b.stamp()).inserted, Inserted::Shared);
    slow.end();
    // A load that began after the insert is the newer one.
    b.invalidate(&[InvalidationTarget::key(KEY)], Purge::Hard);
    let since = b.stamp();
    let slow = Slow::begin(&a, "newest");
    assert_eq!(insert(&b, "newer", &since).inserted, Inserted::Shared);
    slow.end();
}

#[test]
fn while_it_is_pending_the_value_is_here_only_and_its_delivery_ends_it() {
    let redis = RedisServer::start();
    let proxy = FaultProxy::start(redis.address());
    let (a, b) = (
        trusted(&format!("redis://{}", proxy.address())),
        trusted(&redis.url()),
    );
    let since = a.stamp();
    assert_eq!(read(&b, "old"), got("old", Outcome::Loaded));
    proxy.cut();
    let receipt = insert(&a, "new", &since);
    assert!(receipt.invalidation.is_pending());
    assert_eq!(receipt.inserted, Inserted::Here);
    assert_eq!(read(&a, "loaded"), got("new", Outcome::MemoryHit));
    assert_eq!(read(&b, "loaded"), got("old", Outcome::MemoryHit));
    // What is pending here counts for the next one.
    assert_eq!(insert(&a, "older", &since).inserted, Inserted::Changed);
    assert_eq!(insert(&a, "newest", &a.stamp()).inserted, Inserted::Here);
    proxy.restore();
    assert!(a.wait_delivered(SOON));
    for cache in [&a, &b] {
        until(SOON, "both have heard", || {
            read(cache, "loaded").0 == "loaded"
        });
    }
}

#[test]
fn an_older_change_that_was_not_heard_ends_a_pending_value_at_its_delivery() {
    let redis = RedisServer::start();
    let proxy = FaultProxy::start(redis.address());
    let (a, b) = (
        trusted(&format!("redis://{}", proxy.address())),
        trusted(&redis.url()),
    );
    let since = a.stamp();
    proxy.cut();
    b.invalidate(&[InvalidationTarget::tag(TAG)], Purge::Hard);
    assert_eq!(insert(&a, "old", &since).inserted, Inserted::Here);
    proxy.restore();
    assert!(a.wait_delivered(SOON));
    assert_eq!(read(&a, "new"), got("new", Outcome::Loaded));
}

/// 1. A change is acknowledged elsewhere while this process is cut off, and cannot be heard here.
/// 2. A reader comes, and its load asks the source.
/// 3. A value from before the change is inserted. Memory may have it for those who bear its age.
#[test]
fn while_it_is_pending_those_who_wait_for_a_load_get_what_that_brings() {
    let redis = RedisServer::start();
    let proxy = FaultProxy::start(redis.address());
    let (a, b) = (
        trusted(&format!("redis://{}", proxy.address())),
        trusted(&redis.url()),
    );
    let since = a.stamp();
    proxy.cut();
    b.invalidate(&[InvalidationTarget::tag(TAG)], Purge::Hard);
    let slow = Slow::begin(&a, "new");
    let receipt = insert(&a, "old", &since);
    assert!(receipt.invalidation.is_pending());
    assert_eq!(slow.end(), got("new", Outcome::Loaded));
}

#[test]
fn a_stamp_from_before_redis_lost_its_data_keeps_nothing() {
    let mut redis = RedisServer::start();
    let cache = trusted(&redis.url());
    let before = cache.bus().clock;
    let since = cache.stamp();
    redis.restart();
    until(SOON, "the new history is trusted", || {
        let bus = cache.bus();
        bus.trusted && bus.clock != before
    });
    assert!(cache.redis().wait_up(SOON));
    let receipt = insert(&cache, "old", &since);
    assert_eq!(receipt.inserted, Inserted::NewHistory);
    assert_eq!(read(&cache, "new"), got("new", Outcome::Loaded));
    let other = Cache::builder().build().unwrap();
    let receipt = insert(&cache, "x", &other.stamp());
    assert_eq!(receipt.inserted, Inserted::NewHistory, "of another cache");
}

#[test]
fn redis_restarts_between_the_stamp_and_the_insert() {
    let mut redis = RedisServer::start();
    let cache = trusted(&redis.url());
    let since = cache.stamp();
    // The first command afterwards begins the new history, whoever sends it.
    redis.restart();
    let receipt = insert(&cache, "old", &since);
    if receipt.inserted == Inserted::Here {
        assert!(receipt.invalidation.is_pending());
        assert!(cache.wait_delivered(SOON));
    } else {
        assert_eq!(receipt.inserted, Inserted::NewHistory);
    }
    assert_eq!(read(&cache, "new"), got("new", Outcome::Loaded));
}

#[test]
fn a_stamp_from_before_the_first_redis_keeps_nothing() {
    let mut redis = RedisServer::start();
    redis.stop();
    let cache = builder(&redis.url()).build().unwrap();
    assert!(!cache.redis().wait_first_look(SOON));
    let since = cache.stamp();
    assert_eq!(insert(&cache, "alone", &since).inserted, Inserted::Here);
    redis.restart();
    assert!(cache.wait_trusted(SOON));
    assert_eq!(insert(&cache, "old", &since).inserted, Inserted::NewHistory);
    assert_eq!(read(&cache, "new").0, "new");
}

#[test]
fn a_full_redis_keeps_no_value_and_memory_does() {
    let redis = RedisServer::start();
    let (a, b) = (trusted(&redis.url()), trusted(&redis.url()));
    redis.make_full();
    let receipt = insert(&a, "new", &a.stamp());
    redis.make_room();
    assert!(!receipt.invalidation.is_pending());
    assert_eq!(receipt.inserted, Inserted::Here);
    assert_eq!(read(&a, "loaded"), got("new", Outcome::MemoryHit));
    assert_eq!(read(&b, "loaded"), got("loaded", Outcome::Loaded));
}

#[test]
fn without_a_redis_inserts_are_coherent_in_the_process() {
    let cache = Cache::builder().build().unwrap();
    let before = cache.stamp();
    let receipt = insert(&cache, "first", &cache.stamp());
    assert_eq!(receipt.inserted, Inserted::Here);
    assert!(!receipt.invalidation.is_pending());
    assert_eq!(read(&cache, "loaded"), got("first", Outcome::MemoryHit));
    assert_eq!(insert(&cache, "older", &before).inserted, Inserted::Changed);
    assert_eq!(read(&cache, "second"), got("second", Outcome::Loaded));
    let since = cache.stamp();
    cache.invalidate(&[InvalidationTarget::tag(TAG)], Purge::Hard);
    assert_eq!(insert(&cache, "older", &since).inserted, Inserted::Changed);
}

/// Threads write one value, each by an insert or an invalidation. Whoever reads afterwards never
/// gets a value from before a write that was acknowledged.
#[test]
fn without_a_redis_no_thread_reads_a_value_from_before_a_write() {
    use std::sync::atomic::{AtomicU64, Ordering};
    let cache = Cache::builder().build().unwrap();
    let (source, acknowledged) = (Arc::new(AtomicU64::new(0)), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for writer in 0..3 {
            let (cache, source, acknowledged) = (&cache, &source, &acknowledged);
            scope.spawn(move || {
                for round in 0..300 {
                    let since = cache.stamp();
                    let inserts = (round + writer) % 2 == 0;
                    // Every third one inserts what it has read.
                    let version = if round % 3 == 0 && inserts {
                        source.load(Ordering::SeqCst)
                    } else {
                        source.fetch_add(1, Ordering::SeqCst) + 1
                    };
                    if inserts {
                        insert(cache, &version.to_string(), &since);
                    } else {
                        cache.invalidate(&[InvalidationTarget::tag(TAG)], Purge::Hard);
                    }
                    acknowledged.fetch_max(version, Ordering::SeqCst);
                }
            });
        }
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..600 {
                    let due = acknowledged.load(Ordering::SeqCst);
                    let at_hand = cache.get(Key::new(1, KEY).as_str(), &policy(), None);
                    let source = source.clone();
                    let load = move || present(&source.load(Ordering::SeqCst).to_string());
                    let answer = at_hand.unwrap_or_else(|| begin(&cache, load).wait(SOON).unwrap());
                    let version: u64 = said(&answer).0.parse().unwrap();
                    assert!(version >= due, "{version} was read, and {due} was due");
                }
            });
        }
    });
}

#[test]
fn an_absent_value_is_inserted_for_its_own_time() {
    let redis = RedisServer::start();
    let (a, b) = (trusted(&redis.url()), trusted(&redis.url()));
    let receipt = insert_by(&a, &policy(), Value::Absent, &a.stamp());
    assert_eq!(receipt.inserted, Inserted::Shared);
    for cache in [&a, &b] {
        let found = begin(cache, || panic!("it is known to be absent"));
        assert!(found.wait(SOON).unwrap().entry.value.is_absent());
    }
    let never = Policy {
        absent: Duration::ZERO,
        ..policy()
    };
    let receipt = insert_by(&a, &never, Value::Absent, &a.stamp());
    assert_eq!(receipt.inserted, Inserted::NotCached);
    assert_eq!(read(&a, "loaded"), got("loaded", Outcome::Loaded));
}

#[test]
fn the_policy_says_which_tiers_get_an_inserted_value() {
    let redis = RedisServer::start();
    let cache = trusted(&redis.url());
    let value = format!("larder:v:{}", Key::new(1, KEY).as_str());
    let hour = Duration::from_secs(3600);
    for (memory, in_redis, told) in [
        (Duration::ZERO, hour, Inserted::Shared),
        (hour, Duration::ZERO, Inserted::Here),
        (Duration::ZERO, Duration::ZERO, Inserted::NotCached),
    ] {
        redis.cli::<i64>(&["DEL", &value]);
        let policy = Policy::new(memory, in_redis);
        let receipt = insert_by(&cache, &policy, present("v"), &cache.stamp());
        assert_eq!(receipt.inserted, told);
        assert_eq!(
            cache.inspect(Key::new(1, KEY).as_str(), &policy).is_some(),
            !memory.is_zero()
        );
        assert_eq!(
            redis.cli::<i64>(&["EXISTS", &value]) == 1,
            !in_redis.is_zero()
        );
    }
}

#[test]
fn a_composite_of_the_key_is_made_anew() {
    let redis = RedisServer::start();
    let cache = trusted(&redis.url());
    let composite = |part: &str| {
        let value = present(part);
        let part = super::request((KEY, TAG), &policy(), &Arc::default(), |_| {
            Ok(Loaded::new(value, Lifetime::Policy))
        });
        let request = super::request(
            ("all", "all"),
            &policy(),
            &Arc::default(),
            |_| unreachable!(),
        );
        let item = CacheItem {
            tags: Box::default(),
            ..request.item
        };
        let producer = Producer::Compose(Composition {
            parts: vec![part],
            compose: Arc::new(|parts| {
                let part = parts[0].as_ref().ok()?;
                Some(Loaded::new(part.entry.value.clone(), Lifetime::Policy))
            }),
            last_resort: None,
        });
        said(&cache.answer(Request { item, producer }, SOON).unwrap()).0
    };
    assert_eq!(composite("old"), "old");
    assert_eq!(
        insert(&cache, "new", &cache.stamp()).inserted,
        Inserted::Shared
    );
    assert_eq!(composite("loaded"), "new");
}
