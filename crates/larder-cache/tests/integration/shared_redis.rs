//! Two caches over one Redis, as two replicas.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use larder_cache::{
    Answer, Cache, InvalidationTarget, Lifetime, LoadError, Loaded, Outcome, Policy, Purge,
    Request, StaleRules, Staleness, Value,
};
use testkit::redis::RedisServer;
use testkit::{SOON, until};

use super::{builder, trusted};

fn cache(redis: &RedisServer) -> Cache {
    trusted(&redis.url())
}

fn start(redis: &RedisServer) -> Cache {
    builder(&redis.url()).build().unwrap()
}

fn policy(memory: u64, redis: u64) -> Policy {
    Policy {
        memory: Duration::from_millis(memory),
        redis: Duration::from_millis(redis),
        absent: Duration::from_millis(redis),
        stale: StaleRules::default(),
        soft_timeout: None,
        disconnected_ttl: None,
        revalidate: Duration::ZERO,
        exact_ttl: false,
        retry_at_once: false,
    }
}

const HOUR: u64 = 3_600_000;

fn request(
    policy: &Policy,
    run: impl FnOnce() -> Result<Loaded, LoadError> + Send + 'static,
) -> Request {
    super::request(
        ("thing?id=7", "thing:7"),
        policy,
        &Arc::default(),
        move |_| run(),
    )
}

fn present(text: &str) -> Result<Loaded, LoadError> {
    Ok(Loaded::new(
        Value::Present(text.to_owned().into()),
        Lifetime::Policy,
    ))
}

fn never() -> Result<Loaded, LoadError> {
    panic!("a tier has it")
}

fn ask(
    cache: &Cache,
    policy: &Policy,
    run: impl FnOnce() -> Result<Loaded, LoadError> + Send + 'static,
) -> Answer {
    cache.answer(request(policy, run), SOON).unwrap()
}

fn text(answer: &Answer) -> (&str, Outcome) {
    (
        std::str::from_utf8(answer.entry.value.bytes()).unwrap(),
        answer.outcome,
    )
}

#[test]
fn a_value_loaded_by_one_replica_is_found_in_redis_with_its_stamps_by_another() {
    let redis = RedisServer::start();
    let (a, b) = (cache(&redis), cache(&redis));
    let policy = policy(HOUR, HOUR);
    let loaded = ask(&a, &policy, || present("v"));
    assert_eq!(text(&loaded), ("v", Outcome::Loaded));
    assert!(loaded.trace.stored);
    let found = ask(&b, &policy, never);
    assert_eq!(text(&found), ("v", Outcome::RedisHit));
    let (l, f) = (&loaded.entry, &found.entry);
    assert_eq!(
        (l.stamp().history, l.stamp().clock, l.load_time),
        (f.stamp().history, f.stamp().clock, f.load_time)
    );
    assert_eq!(l.tags(), f.tags());
    assert!(
        l.stamp().clock > 0,
        "a load is stamped with the clock in Redis"
    );
    assert_eq!(text(&ask(&b, &policy, never)), ("v", Outcome::MemoryHit));
}

#[test]
fn each_load_has_an_id_of_its_own_though_its_value_is_the_same() {
    let redis = RedisServer::start();
    let (a, b) = (cache(&redis), cache(&redis));
    let policy = policy(HOUR, HOUR);
    let load_id =
        || redis.cli::<Vec<u8>>(&["GET", "larder:v:0000000000000001:thing?id=7"])[4..12].to_vec();
    let mut seen = Vec::new();
    for cache in [&a, &b, &a] {
        assert_eq!(
            text(&ask(cache, &policy, || present("v"))),
            ("v", Outcome::Loaded)
        );
        // The lease script recognises a new fill by this id.
        assert!(!seen.contains(&load_id()));
        seen.push(load_id());
        let told = cache.invalidate(&[InvalidationTarget::key("thing?id=7")], Purge::Hard);
        let clock = told.clock.unwrap();
        for cache in [&a, &b] {
            until(SOON, "the invalidation is heard", || cache.has_heard(clock));
        }
    }
}

#[test]
fn absence_is_shared_for_its_own_time() {
    let redis = RedisServer::start();
    let (a, b) = (cache(&redis), cache(&redis));
    let policy = Policy {
        absent: Duration::from_secs(1),
        ..policy(HOUR, HOUR)
    };
    let absent = || Ok(Loaded::new(Value::Absent, Lifetime::Policy));
    assert!(ask(&a, &policy, absent).entry.value.is_absent());
    assert!(ask(&b, &policy, never).entry.value.is_absent());
    for cache in [&a, &b] {
        until(SOON, "absence is forgotten", || {
            !ask(cache, &policy, || present("born"))
                .entry
                .value
                .is_absent()
        });
    }
}

#[test]
fn one_replica_loads_and_the_other_waits_for_it() {
    let redis = RedisServer::start();
    let (a, b) = (cache(&redis), cache(&redis));
    let policy = policy(HOUR, HOUR);
    let (started, running) = mpsc::channel();
    let (release, gate) = mpsc::channel::<()>();
    let first = a.fetch(request(&policy, move || {
        started.send(()).unwrap();
        gate.recv().unwrap();
        present("v")
    }));
    running.recv().unwrap();
    let second = b.fetch(request(&policy, never));
    let lease = "larder:l:0000000000000001:thing?id=7";
    assert_eq!(redis.cli::<i64>(&["EXISTS", lease]), 1);
    // One read by the first, one by the second, and another once the second waits.
    until(SOON, "the other waits for the lease", || {
        redis.calls("mget") >= 3
    });
    release.send(()).unwrap();
    assert_eq!(text(&first.wait(SOON).unwrap()), ("v", Outcome::Loaded));
    assert_eq!(text(&second.wait(SOON).unwrap()), ("v", Outcome::Collapsed));
    assert_eq!(
        redis.cli::<i64>(&["EXISTS", lease]),
        0,
        "a lease is given back with the fill"
    );
}

#[test]
fn a_reader_that_waits_for_a_failing_load_elsewhere_gets_its_error() {
    let redis = RedisServer::start();
    let (a, b) = (cache(&redis), cache(&redis));
    let policy = policy(HOUR, HOUR);
    let (started, running) = mpsc::channel();
    let (release, gate) = mpsc::channel::<()>();
    let first = a.fetch(request(&policy, move || {
        started.send(()).unwrap();
        gate.recv().unwrap();
        Err(LoadError::Failed("the source is down".into()))
    }));
    running.recv().unwrap();
    let loads = Arc::new(AtomicUsize::new(0));
    let counted = loads.clone();
    let second = b.fetch(request(&policy, move || {
        counted.fetch_add(1, Ordering::SeqCst);
        Err(LoadError::Failed("asked again".into()))
    }));
    // Wait until the second reader has met the lease, since the failure is announced only briefly.
    until(SOON, "the second one waits", || {
        redis
            .cli::<String>(&["INFO", "commandstats"])
            .contains("cmdstat_evalsha")
            && b.redis().is_up()
    });
    let stats = || redis.cli::<String>(&["INFO", "commandstats"]);
    until(SOON, "it has looked for the fill", || {
        let line = stats();
        let calls = line
            .lines()
            .find_map(|line| line.strip_prefix("cmdstat_mget:calls=")?.split(',').next());
        calls
            .and_then(|calls| calls.parse::<u32>().ok())
            .unwrap_or(0)
            >= 4
    });
    release.send(()).unwrap();
    let down = LoadError::Failed("the source is down".into());
    assert_eq!(first.wait(SOON).unwrap_err(), down);
    assert_eq!(second.wait(SOON).unwrap_err(), down);
    assert_eq!(loads.load(Ordering::SeqCst), 0);
    until(SOON, "who comes later tries anew", || {
        b.answer(request(&policy, || present("v")), SOON).is_ok()
    });
}

#[test]
fn a_lease_that_nobody_gives_back_runs_out() {
    let redis = RedisServer::start();
    let cache = cache(&redis);
    let lease = "larder:l:0000000000000001:thing?id=7";
    redis.cli::<String>(&["SET", lease, "0123456789abcdef", "PX", "300"]);
    assert_eq!(
        text(&ask(&cache, &policy(HOUR, HOUR), || present("v"))),
        ("v", Outcome::Loaded)
    );
}

#[test]
fn a_value_from_before_redis_lost_its_data_is_not_served() {
    for on_reset in [false, true] {
        let mut redis = RedisServer::start();
        let cache = cache(&redis);
        let stale = StaleRules {
            while_revalidate: Duration::from_secs(3600),
            if_error: Duration::from_secs(3600),
            on_reset,
        };
        let policy = Policy {
            stale,
            ..policy(HOUR, HOUR)
        };
        ask(&cache, &policy, || present("before"));
        let clock = cache.bus().clock;
        redis.restart();
        if on_reset {
            // Until then the copy cannot be verified, and a reader waits for the load.
            until(SOON, "the new history is trusted", || {
                // From one snapshot of the status: two reads may see trust in the old history and
                // then the new one.
                let bus = cache.bus();
                bus.trusted && bus.clock != clock
            });
        }
        // The watcher or the next reader finds the new history.
        let mut after = None;
        until(SOON, "the value of the lost history is no hit", || {
            let answer = ask(&cache, &policy, || present("after"));
            let hit = text(&answer) == ("before", Outcome::MemoryHit);
            after = (!hit).then_some(answer);
            after.is_some()
        });
        let after = after.unwrap();
        let expected = if on_reset {
            ("before", Outcome::Stale(Staleness::WhileRevalidate))
        } else {
            ("after", Outcome::Loaded)
        };
        assert_eq!(text(&after), expected);
    }
}

#[test]
fn a_value_restored_from_an_old_snapshot_is_not_served() {
    let redis = RedisServer::start();
    let cache = cache(&redis);
    let no_memory = policy(0, HOUR);
    ask(&cache, &no_memory, || present("old"));
    let name = "larder:v:0000000000000001:thing?id=7";
    let old: Vec<u8> = redis.cli(&["GET", name]);
    // As after restoring a snapshot: the value is back, the history is new.
    redis.cli::<i64>(&["DEL", "{larder:bus}:state"]);
    let other = start(&redis);
    assert!(other.redis().wait_up(SOON));
    let back: Vec<u8> = redis.cli(&["GET", name]);
    assert_eq!(back, old);
    assert_eq!(
        text(&ask(&other, &no_memory, || present("new"))),
        ("new", Outcome::Loaded)
    );
}

#[test]
fn memory_is_dropped_when_a_first_redis_appears() {
    let mut redis = RedisServer::start();
    redis.stop();
    let cache = start(&redis);
    assert!(!cache.redis().wait_first_look(SOON));
    let policy = policy(HOUR, HOUR);
    ask(&cache, &policy, || present("alone"));
    assert_eq!(
        text(&ask(&cache, &policy, never)),
        ("alone", Outcome::MemoryHit)
    );
    redis.restart();
    assert!(cache.redis().wait_up(SOON));
    assert_eq!(
        text(&ask(&cache, &policy, || present("together"))),
        ("together", Outcome::Loaded)
    );
}

#[test]
fn a_tier_that_is_off_is_not_used() {
    let redis = RedisServer::start();
    let cache = cache(&redis);
    let no_redis = policy(HOUR, 0);
    ask(&cache, &no_redis, || present("v"));
    assert_eq!(
        redis.cli::<Vec<String>>(&["KEYS", "larder:v:*"]),
        Vec::<String>::new()
    );
    assert_eq!(text(&ask(&cache, &no_redis, never)).1, Outcome::MemoryHit);
}

#[test]
fn readers_who_need_a_load_share_it() {
    let mut redis = RedisServer::start();
    let cache = cache(&redis);
    let policy = policy(HOUR, HOUR);
    assert!(
        cache
            .answer(request(&policy, || present("old")), SOON)
            .is_ok()
    );
    let last = cache.bus().clock;
    redis.kill();
    until(SOON, "Redis is gone", || !cache.redis().is_up());
    let loads = Arc::new(AtomicUsize::new(0));
    let (release, gate) = mpsc::channel::<()>();
    let gate = Arc::new(std::sync::Mutex::new(gate));
    // Each reader requires another invalidation, which has not arrived here.
    let tickets: Vec<_> = (1..=40)
        .map(|number| {
            let (loads, gate) = (loads.clone(), gate.clone());
            let load = move || {
                loads.fetch_add(1, Ordering::SeqCst);
                let _ = gate.lock().unwrap().recv();
                present("new")
            };
            cache.fetch_after(request(&policy, load), 0, last + number)
        })
        .collect();
    until(SOON, "two loads run", || loads.load(Ordering::SeqCst) == 2);
    drop(release);
    for ticket in tickets {
        assert_eq!(
            ticket.wait(SOON).unwrap().entry.value.bytes().as_ref(),
            b"new"
        );
    }
    // Two loads began at once, and one more when all 40 readers had come.
    assert_eq!(loads.load(Ordering::SeqCst), 3);
}
