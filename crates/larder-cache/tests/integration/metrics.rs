//! Every figure after a known traffic. Two caches over one Redis stand for two replicas.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use larder_cache::stats::Snapshot;
use larder_cache::{
    Cache, EvictionCause, InvalidationOrigin, InvalidationTarget, Key, Lifetime, LoadContext,
    LoadError, LoadResult, Loaded, LookupEnd, LookupResult, Policy, Purge, RedisCommand, Request,
    Staleness, TaggedKey, Tally, Value,
};
use testkit::redis::RedisServer;
use testkit::{SOON, until};

use super::{builder, policy};

const HOUR: Duration = Duration::from_secs(3600);
const NONE: Duration = Duration::ZERO;

/// A replica with one resource.
struct Replica {
    cache: Cache,
    tally: Arc<Tally>,
}

type Source = Box<dyn FnOnce(LoadContext) -> Result<Loaded, LoadError> + Send>;

/// A source that says this.
fn says(text: &'static str) -> Source {
    let value = Value::Present(text.into());
    Box::new(|_| Ok(Loaded::new(value, Lifetime::Policy)))
}

fn says_nothing() -> Source {
    Box::new(|_| Ok(Loaded::new(Value::Absent, Lifetime::Policy)))
}

fn fails() -> Source {
    Box::new(|_| Err(LoadError::Failed("no".into())))
}

fn never() -> Source {
    Box::new(|_| panic!("a tier has it"))
}

impl Replica {
    /// One that trusts its memory for the whole test, however slow the machine is: then each lookup
    /// reads from Redis once at most.
    #[track_caller]
    fn start(redis: &RedisServer) -> Replica {
        let cache = builder(&redis.url()).max_staleness(HOUR).build().unwrap();
        assert!(cache.redis().wait_up(SOON) && cache.wait_trusted(SOON));
        Replica {
            cache,
            tally: Arc::default(),
        }
    }

    fn request(&self, name: &str, policy: &Policy, run: Source) -> Request {
        super::request((name, "all"), policy, &self.tally, run)
    }

    /// A read, counted as a server counts it.
    fn read(&self, name: &str, policy: &Policy, run: Source) -> LookupResult {
        let key = Key::new(1, name);
        if let Some(answer) = self.cache.get(key.as_str(), policy, None) {
            self.tally.count_hit(&answer);
            return Ok(answer);
        }
        let unanswered = self.tally.begin();
        let result = self.cache.fetch(self.request(name, policy, run)).wait(SOON);
        unanswered.end(&result);
        result
    }

    /// The number of requests of each outcome that had any.
    fn requests(&self) -> Vec<(&'static str, u64)> {
        let totals = self.tally.totals();
        let all = LookupEnd::ALL.map(|end| (end.word(), totals.ended(end)));
        all.into_iter().filter(|(_, count)| *count > 0).collect()
    }

    /// The number of loads of each result that had any.
    fn loads(&self) -> Vec<(&'static str, u64)> {
        let totals = self.tally.totals();
        let all = LoadResult::ALL.map(|result| (result.word(), totals.loads_by(result)));
        all.into_iter().filter(|(_, count)| *count > 0).collect()
    }

    /// How many commands of each sort took a duration, and how many of them failed. The others
    /// depend on time: the watcher tries a fill now and then.
    fn commands(&self) -> [(u64, u64); 4] {
        let metrics = self.cache.metrics();
        use RedisCommand::{Fill, Invalidate, Lease, Read};
        [Read, Lease, Fill, Invalidate].map(|command| {
            let of = metrics.redis(command);
            assert_eq!(of.command, command);
            (of.durations.count(), of.errors)
        })
    }

    /// Targets by origin, hard and soft.
    fn invalidated(&self) -> [(u64, u64); 3] {
        let metrics = self.cache.metrics();
        InvalidationOrigin::ALL.map(|origin| {
            let of = |purge| metrics.invalidated(origin, purge);
            (of(Purge::Hard), of(Purge::Soft))
        })
    }

    /// By size, expired, invalidated.
    fn evicted(&self) -> [u64; 3] {
        let memory = self.cache.metrics().memory;
        EvictionCause::ALL.map(|cause| memory.evicted(cause))
    }
}

/// Invalidates on `one`, and waits until `other` has heard.
#[track_caller]
fn invalidate(one: &Replica, other: &Replica, names: &[&str], purge: Purge) {
    let targets = names.iter().map(|name| InvalidationTarget::key(name));
    let targets: Vec<_> = targets.collect();
    let clock = one.cache.invalidate(&targets, purge).clock.unwrap();
    for replica in [one, other] {
        until(SOON, "the invalidation is heard", || {
            replica.cache.has_heard(clock)
        });
    }
}

#[test]
fn two_replicas_count_exactly_what_they_did() {
    let redis = RedisServer::start();
    let (a, b) = (Replica::start(&redis), Replica::start(&redis));
    let policy = Policy {
        absent: HOUR,
        ..policy()
    };
    assert_eq!((a.commands(), a.invalidated()), ([(0, 0); 4], [(0, 0); 3]));

    // Loaded by one, found in Redis by the other, then in memory.
    a.read("k", &policy, says("1")).unwrap();
    for replica in [&a, &b, &b, &a] {
        replica.read("k", &policy, never()).unwrap();
    }
    assert_eq!(a.requests(), [("memory", 2), ("loaded", 1)]);
    assert_eq!(b.requests(), [("memory", 1), ("redis", 1)]);
    assert_eq!(a.loads(), [("first", 1)]);
    assert_eq!(b.loads(), []);
    // Read, lease, fill, invalidate.
    assert_eq!(a.commands(), [(1, 0), (1, 0), (1, 0), (0, 0)]);
    assert_eq!(b.commands(), [(1, 0), (0, 0), (0, 0), (0, 0)]);

    // A hard purge: what it ended is known all the same.
    invalidate(&a, &b, &["k"], Purge::Hard);
    a.read("k", &policy, says("2")).unwrap();
    b.read("k", &policy, never()).unwrap();
    assert_eq!(a.loads(), [("changed", 1), ("first", 1)]);
    assert_eq!((a.evicted(), b.evicted()), ([0, 0, 1], [0, 0, 1]));

    // A soft purge of two targets at once, by the other. A copy that is stale is replaced.
    invalidate(&b, &a, &["k", "elsewhere"], Purge::Soft);
    b.read("k", &policy, says("2")).unwrap();
    a.read("k", &policy, never()).unwrap();
    assert_eq!(b.loads(), [("same", 1)]);
    assert_eq!((a.evicted(), b.evicted()), ([0, 0, 1], [0, 0, 1]));

    // To absent, still absent, and back.
    for (run, outcome) in [
        (says_nothing(), "absent"),
        (says_nothing(), "absent"),
        (says("2"), "changed"),
    ] {
        let before = b.tally.totals();
        invalidate(&a, &b, &["k"], Purge::Hard);
        b.read("k", &policy, run).unwrap();
        let after = b.tally.totals();
        for result in LoadResult::ALL {
            let more = after.loads_by(result) - before.loads_by(result);
            assert_eq!(more, u64::from(result.word() == outcome), "{result:?}");
        }
    }
    // A load that fails gives its lease back and fills nothing.
    let misses = a.tally.totals().redis_misses;
    a.read("f", &policy, fails()).unwrap_err();
    assert_eq!(a.tally.totals().redis_misses, misses + 1);
    // As an outbox delivers it.
    let tags = [InvalidationTarget::tag("x"), InvalidationTarget::tag("y")];
    let receipt = a
        .cache
        .invalidate_from(InvalidationOrigin::Outbox, &tags, Purge::Hard);
    let clock = receipt.clock.unwrap();
    until(SOON, "the outbox is heard", || b.cache.has_heard(clock));
    // Nothing at all.
    a.cache.invalidate(&[], Purge::Hard);

    assert_eq!(
        a.requests(),
        [("memory", 2), ("redis", 1), ("loaded", 2), ("failed", 1)]
    );
    assert_eq!(b.requests(), [("memory", 1), ("redis", 2), ("loaded", 4)]);
    assert_eq!(a.loads(), [("changed", 1), ("first", 1), ("failed", 1)]);
    assert_eq!(b.loads(), [("changed", 1), ("same", 1), ("absent", 2)]);
    assert_eq!(a.commands(), [(4, 0), (4, 0), (2, 0), (5, 0)]);
    assert_eq!(b.commands(), [(6, 0), (4, 0), (4, 0), (1, 0)]);
    // Here, heard, from the outbox: hard and soft.
    assert_eq!(a.invalidated(), [(4, 0), (0, 2), (2, 0)]);
    assert_eq!(b.invalidated(), [(0, 2), (6, 0), (0, 0)]);
    assert_eq!(a.tally.load_durations().count(), a.tally.totals().loads);
    assert_eq!(b.tally.load_durations().count(), 4);
    for replica in [&a, &b] {
        // A load ends a moment before its thread is free.
        until(SOON, "no load runs", || {
            let metrics = replica.cache.metrics();
            (metrics.loads_running, metrics.loads_waiting) == (0, 0)
        });
        let metrics = replica.cache.metrics();
        let state = replica.cache.bus();
        assert!(metrics.redis_up && metrics.bus.trusted);
        assert!(metrics.bus.echo_age.unwrap() < HOUR);
        assert_eq!(metrics.bus.gaps_repaired, state.gaps_repaired);
        assert_eq!(
            (metrics.bus.pending, replica.cache.redis().errors()),
            (0, 0)
        );
        assert_eq!(metrics.memory.entries, 1);
    }
}

#[test]
fn a_predecessor_is_found_in_either_tier_and_a_confirmation_is_told() {
    let redis = RedisServer::start();
    let (a, b) = (Replica::start(&redis), Replica::start(&redis));
    let redis_only = Policy::new(NONE, HOUR);
    let memory_only = Policy::new(HOUR, NONE);
    // In Redis, loaded and invalidated by another replica, and never in memory here.
    a.read("redis", &redis_only, says("v")).unwrap();
    invalidate(&a, &b, &["redis"], Purge::Hard);
    b.read("redis", &redis_only, says("v")).unwrap();
    assert_eq!(b.loads(), [("same", 1)]);
    // In memory, and Redis is not asked.
    let before = a.commands();
    a.read("memory", &memory_only, says("v")).unwrap();
    for text in ["v", "w"] {
        invalidate(&b, &a, &["memory"], Purge::Hard);
        a.read("memory", &memory_only, says(text)).unwrap();
    }
    assert_eq!(a.commands(), before);
    assert_eq!(a.loads(), [("changed", 1), ("same", 1), ("first", 2)]);
    // Expired in both tiers, and kept for its source to confirm.
    let brief = Policy {
        revalidate: HOUR,
        ..policy()
    };
    let confirmable = |value: Value| {
        Ok(Loaded {
            validator: Some("v1".into()),
            ..Loaded::new(value, Lifetime::MaxAge(NONE))
        })
    };
    let first: Source = Box::new(move |_| confirmable(Value::Present("v".into())));
    let confirms: fn() -> Source = || {
        Box::new(|context| {
            let shown = context.revalidation.unwrap();
            Ok(Loaded {
                validator: Some(shown.validator),
                ..Loaded::new(Value::Present(shown.value), Lifetime::MaxAge(NONE))
            })
        })
    };
    // The same bytes at another place were sent once more.
    let sends_again: Source = Box::new(move |context| {
        let shown = context.revalidation.unwrap();
        confirmable(Value::present(shown.value.to_vec()))
    });
    a.read("confirmed", &brief, first).unwrap();
    for run in [confirms(), sends_again] {
        b.read("confirmed", &brief, run).unwrap();
    }
    a.read("confirmed", &brief, confirms()).unwrap();
    assert_eq!(b.loads(), [("same", 2), ("confirmed", 1)]);
    let expected = [("changed", 1), ("same", 1), ("confirmed", 1), ("first", 3)];
    assert_eq!(a.loads(), expected);
}

#[test]
fn stale_answers_are_counted_by_their_reason() {
    let redis = RedisServer::start();
    let a = Replica::start(&redis);
    let stale = |while_revalidate, if_error| policy().stale(while_revalidate, if_error);
    let (renewed, kept) = (stale(HOUR, HOUR), stale(NONE, HOUR));
    for (name, policy) in [("renewed", &renewed), ("kept", &kept)] {
        a.read(name, policy, says("v")).unwrap();
    }
    let all = [InvalidationTarget::tag("all")];
    assert!(!a.cache.invalidate(&all, Purge::Soft).is_pending());
    // Served at once, and loaded behind.
    a.read("renewed", &renewed, says("v")).unwrap();
    until(SOON, "it is renewed", || a.tally.totals().loads == 3);
    // Served since the load fails, and then while it is not tried again.
    a.read("kept", &kept, fails()).unwrap();
    a.read("kept", &kept, fails()).unwrap();
    let totals = a.tally.totals();
    for (why, count) in [
        (Staleness::WhileRevalidate, 1),
        (Staleness::SoftTimeout, 0),
        (Staleness::IfError, 1),
        (Staleness::BackingOff, 1),
        (Staleness::Spent, 0),
    ] {
        assert_eq!(totals.stale_by(why), count, "{why:?}");
    }
    assert_eq!(a.requests(), [("loaded", 2), ("stale", 3)]);
    assert_eq!(a.loads(), [("same", 1), ("first", 2), ("failed", 1)]);
    assert_eq!((totals.hits, totals.misses), (2, 3));
}

#[test]
fn entries_are_evicted_for_room_and_by_age() {
    let redis = RedisServer::start();
    let cache = builder(&redis.url())
        .max_staleness(HOUR)
        .memory(20_000)
        .build()
        .unwrap();
    assert!(cache.redis().wait_up(SOON) && cache.wait_trusted(SOON));
    let a = Replica {
        cache,
        tally: Arc::default(),
    };
    let brief = Policy::new(Duration::from_millis(1), NONE);
    // It may have expired before memory has it. Then it is not kept at all.
    until(SOON, "one has expired", || {
        a.read("brief", &brief, says("v")).unwrap();
        a.evicted()[EvictionCause::Expired as usize] > 0
    });
    let entries = || a.cache.metrics().memory.entries;
    until(SOON, "the last one has expired", || entries() == 0);
    let [_, expired, _] = a.evicted();
    for i in 0..100 {
        a.read(&format!("k{i}"), &policy(), says("v")).unwrap();
    }
    let memory = a.cache.metrics().memory;
    assert_eq!(memory.limit_bytes, 20_000);
    assert!(memory.bytes <= memory.limit_bytes && memory.entries > 0);
    assert_eq!(memory.evictions, [100 - memory.entries, expired, 0]);
}

#[test]
fn a_command_that_redis_refuses_is_an_error_and_what_waits_for_redis_is_pending() {
    let mut redis = RedisServer::start();
    let a = Replica::start(&redis);
    redis.make_full();
    a.read("k", &policy(), says("v")).unwrap();
    assert_eq!(a.commands(), [(1, 0), (1, 0), (1, 1), (0, 0)]);
    redis.make_room();
    redis.kill();
    until(SOON, "Redis is gone", || !a.cache.redis().answers());
    let before = a.commands();
    let tag = [InvalidationTarget::tag("all")];
    assert!(a.cache.invalidate(&tag, Purge::Hard).is_pending());
    a.read("k", &policy(), says("w")).unwrap();
    let metrics = a.cache.metrics();
    assert!(!metrics.redis_up);
    assert_eq!(metrics.bus.pending, 1);
    assert_eq!(
        a.commands(),
        before,
        "nothing is sent to a Redis that is gone"
    );
    assert_eq!(a.invalidated(), [(1, 0), (0, 0), (0, 0)]);
    assert_eq!(a.loads(), [("changed", 1), ("first", 1)]);
    // The bus delivers it. It is no invalidation of its own.
    let invalidations = before[RedisCommand::Invalidate as usize].0;
    redis.restart();
    until(SOON, "it is delivered", || a.cache.bus().pending == 0);
    assert!(a.commands()[RedisCommand::Invalidate as usize].0 > invalidations);
    assert_eq!(a.invalidated(), [(1, 0), (0, 0), (0, 0)]);
}

#[test]
fn loads_that_run_and_wait_are_told() {
    let redis = RedisServer::start();
    let cache = builder(&redis.url()).loads(1, 8).build().unwrap();
    let a = Replica {
        cache,
        tally: Arc::default(),
    };
    let (started, running) = mpsc::channel();
    let (release, gate) = mpsc::channel::<()>();
    let slow: Source = Box::new(move |context| {
        started.send(()).unwrap();
        gate.recv().unwrap();
        says("v")(context)
    });
    let policy = policy();
    let mut tickets = vec![a.cache.fetch(a.request("slow", &policy, slow))];
    running.recv().unwrap();
    let more = ["b", "c"].map(|name| a.cache.fetch(a.request(name, &policy, says("v"))));
    tickets.extend(more);
    let loads = || {
        let metrics = a.cache.metrics();
        (metrics.loads_running, metrics.loads_waiting)
    };
    until(SOON, "the others wait", || loads() == (1, 2));
    assert_eq!(a.tally.totals().loads, 0, "a load counts when it has ended");
    release.send(()).unwrap();
    for ticket in tickets {
        ticket.wait(SOON).unwrap();
    }
    until(SOON, "no load runs", || loads() == (0, 0));
    assert_eq!(a.loads(), [("first", 3)]);
}

#[test]
fn a_typed_lookup_whose_reader_leaves_is_counted_once() {
    let cache = Cache::builder().build().unwrap();
    let texts = cache.typed::<String>("text", 1).unwrap();
    let (release, gate) = mpsc::channel::<()>();
    let load = move || {
        let _ = gate.recv();
        Ok::<_, String>("v".to_owned())
    };
    let key = || TaggedKey::new().with("id", 1);
    drop(texts.get_or_load_blocking(key(), &policy(), load));
    assert_eq!((cache.stats().hits, cache.stats().misses), (0, 1));
    release.send(()).ok();
    let again = || Ok::<_, String>("v".to_owned());
    texts.get_or_load(key(), &policy(), again).unwrap();
    texts.get_or_load(key(), &policy(), again).unwrap();
    let stats = cache.stats();
    assert_eq!((stats.hits + stats.misses, stats.failed_loads), (3, 0));
}

#[test]
fn no_lookup_of_many_threads_is_lost_or_counted_twice() {
    const THREADS: u64 = 8;
    const EACH: u64 = 500;
    let redis = RedisServer::start();
    let replicas = [Replica::start(&redis), Replica::start(&redis)];
    let (policy, made) = (policy(), AtomicU64::new(0));
    let made = Arc::new(made);
    // Threads come and go.
    for round in 0..4 {
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let (replicas, policy, made) = (&replicas, &policy, &made);
                scope.spawn(move || {
                    for i in 0..EACH / 4 {
                        let name = format!("k{}", (thread * 7 + i * 3 + round) % 20);
                        let replica = &replicas[(thread % 2) as usize];
                        let made = made.clone();
                        let source: Source = Box::new(move |context| {
                            made.fetch_add(1, Ordering::Relaxed);
                            says("v")(context)
                        });
                        replica.read(&name, policy, source).unwrap();
                        if i % 25 == 0 {
                            let target = [InvalidationTarget::key(&name)];
                            replica.cache.invalidate(&target, Purge::Hard);
                        }
                    }
                });
            }
        });
    }
    let (mut loads, mut durations) = (0, Vec::<Snapshot>::new());
    for replica in &replicas {
        let totals = replica.tally.totals();
        let each: u64 = LookupEnd::ALL.iter().map(|end| totals.ended(*end)).sum();
        assert_eq!(each, THREADS * EACH / 2);
        assert_eq!(totals.hits + totals.misses, each);
        assert_eq!(totals.failed, 0);
        loads += totals.loads;
        assert_eq!(totals.loads_by(LoadResult::Changed), 0);
        durations.push(replica.tally.load_durations());
        let here = replica.invalidated()[InvalidationOrigin::Here as usize].0;
        assert_eq!(here, THREADS / 2 * 4 * (EACH / 4).div_ceil(25));
    }
    assert_eq!(loads, made.load(Ordering::Relaxed));
    assert_eq!(durations.into_iter().sum::<Snapshot>().count(), loads);
    // Each replica hears what the other one has sent, and not its own.
    let sent = replicas[0].invalidated()[InvalidationOrigin::Here as usize];
    for replica in &replicas {
        until(SOON, "all is heard", || {
            replica.invalidated()[InvalidationOrigin::Heard as usize] == sent
        });
    }
}
