//! The cache in one process, without Redis. `tests/` tests it with a real one.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, mpsc};
use std::time::{Duration, Instant};

use super::*;

mod counts;
mod disconnected;
mod pauses;
mod revalidation;
mod runners;

const LONG: Duration = Duration::from_secs(20);

/// A cache that is alone and trusts itself.
fn cache() -> Cache {
    assembled(true, CoherenceSettings::default().max_staleness)
}

/// A cache with a Redis that cannot be reached.
fn assembled(standalone: bool, max_staleness: Duration) -> Cache {
    // A port on which nothing listens: it was reserved and closed again.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let redis = RedisSettings {
        url: Some(crate::secret::Secret::new(format!(
            "redis://127.0.0.1:{port}"
        ))),
        ..RedisSettings::default()
    };
    Cache::assemble(
        &MemorySettings::default(),
        &redis,
        RedisChoice::Configured,
        &LoadSettings {
            max_loads: 4,
            max_queue: 4,
        },
        &CoherenceSettings {
            max_staleness,
            ..CoherenceSettings::default()
        },
        standalone,
        Clock::new(),
    )
    .unwrap()
}

fn policy(memory: Duration, while_revalidate: Duration, if_error: Duration) -> Arc<Policy> {
    Arc::new(Policy {
        memory,
        redis: memory,
        absent: memory,
        stale: StaleRules {
            while_revalidate,
            if_error,
            on_reset: false,
        },
        soft_timeout: None,
        disconnected_ttl: None,
        revalidate: Duration::ZERO,
        exact_ttl: false,
        retry_at_once: false,
    })
}

fn item(name: &str, policy: &Arc<Policy>) -> CacheItem {
    CacheItem {
        key: Key::new(1, name),
        policy: policy.clone(),
        tags: Box::default(),
        share: "test".into(),
        label: "test".into(),
        note: Note::default(),
        jitter: random(),
        tally: Arc::default(),
    }
}

fn loading(
    name: &str,
    policy: &Arc<Policy>,
    run: impl FnOnce() -> Result<Loaded, LoadError> + Send + 'static,
) -> Request {
    let load = Load {
        limit: LONG,
        run: Box::new(|_| run()),
    };
    Request {
        item: item(name, policy),
        producer: Producer::Load(load),
    }
}

fn present(body: &str) -> Result<Loaded, LoadError> {
    Ok(Loaded::new(
        Value::Present(body.to_owned().into()),
        Lifetime::Policy,
    ))
}

fn failed() -> Result<Loaded, LoadError> {
    Err(LoadError::Failed("no".into()))
}

fn text(ending: &LookupResult) -> (String, Outcome) {
    let answer = ending.as_ref().unwrap();
    (
        String::from_utf8(answer.entry.value.bytes().to_vec()).unwrap(),
        answer.outcome,
    )
}

fn hour() -> Arc<Policy> {
    policy(Duration::from_secs(3600), Duration::ZERO, Duration::ZERO)
}

#[test]
fn a_thousand_readers_of_one_cold_key_make_one_load() {
    let (cache, policy) = (cache(), hour());
    let loads = Arc::new(AtomicUsize::new(0));
    let start = Arc::new(Barrier::new(50));
    let readers: Vec<_> = (0..50)
        .map(|_| {
            let (cache, policy, loads, start) =
                (cache.clone(), policy.clone(), loads.clone(), start.clone());
            std::thread::spawn(move || {
                start.wait();
                for _ in 0..20 {
                    let loads = loads.clone();
                    let request = loading("k", &policy, move || {
                        loads.fetch_add(1, Ordering::SeqCst);
                        present("v")
                    });
                    assert_eq!(text(&cache.answer(request, LONG)).0, "v");
                }
            })
        })
        .collect();
    readers
        .into_iter()
        .for_each(|reader| reader.join().unwrap());
    assert_eq!(loads.load(Ordering::SeqCst), 1);
}

#[test]
fn stale_is_served_at_once_and_renewed_behind() {
    let cache = cache();
    let brief = policy(Duration::from_millis(1), LONG, LONG);
    assert_eq!(
        text(&cache.answer(loading("k", &brief, || present("1")), LONG)).1,
        Outcome::Loaded
    );
    let deadline = Instant::now() + LONG;
    while cache.get(Key::new(1, "k").as_str(), &brief, None).is_some() {
        assert!(Instant::now() < deadline);
        std::thread::yield_now();
    }
    let (release, gate) = mpsc::channel::<()>();
    let renewal = loading("k", &brief, move || {
        gate.recv().unwrap();
        present("2")
    });
    let stale = Outcome::Stale(Staleness::WhileRevalidate);
    assert_eq!(text(&cache.answer(renewal, LONG)), ("1".into(), stale));
    release.send(()).unwrap();
    loop {
        // Each of these may begin the next renewal, which brings the same.
        let next = cache.answer(loading("k", &brief, || present("2")), LONG);
        if text(&next).0 == "2" {
            break;
        }
        assert!(Instant::now() < deadline);
    }
}

#[test]
fn a_load_that_fails_falls_back_to_the_stale_copy_and_is_not_tried_again_at_once() {
    let cache = cache();
    let brief = policy(Duration::from_millis(200), Duration::ZERO, LONG);
    cache
        .answer(loading("k", &brief, || present("1")), LONG)
        .unwrap();
    let key = Key::new(1, "k");
    let deadline = Instant::now() + LONG;
    while cache.get(key.as_str(), &brief, None).is_some() {
        assert!(Instant::now() < deadline);
        std::thread::yield_now();
    }
    let ending = cache.answer(loading("k", &brief, failed), LONG);
    assert_eq!(
        text(&ending),
        ("1".into(), Outcome::Stale(Staleness::IfError))
    );
    let other = cache.answer(loading("other", &brief, failed), LONG);
    assert_eq!(
        other.unwrap_err(),
        LoadError::Failed("no".into()),
        "without a copy it is an error"
    );
}

#[test]
fn absence_is_remembered_and_a_panicking_load_frees_its_readers() {
    let (cache, policy) = (cache(), hour());
    let absent = || Ok(Loaded::new(Value::Absent, Lifetime::Policy));
    assert!(
        cache
            .answer(loading("k", &policy, absent), LONG)
            .unwrap()
            .entry
            .value
            .is_absent()
    );
    let again = cache
        .answer(loading("k", &policy, || present("never")), LONG)
        .unwrap();
    assert!(again.entry.value.is_absent() && again.outcome == Outcome::MemoryHit);

    let ending = cache.answer(loading("p", &policy, || panic!("a load may panic")), LONG);
    assert!(matches!(ending, Err(LoadError::Failed(_))));
    // A pause, as after any failure, and then the next load.
    let deadline = Instant::now() + LONG;
    let next = || cache.answer(loading("p", &policy, || present("v")), LONG);
    assert!(
        matches!(next(), Err(LoadError::BackingOff { .. })),
        "the source is left alone for a while"
    );
    while next().is_err() {
        assert!(Instant::now() < deadline);
    }
    assert_eq!(text(&next()).0, "v");
}

#[test]
fn past_the_queue_a_load_is_refused() {
    let (cache, policy) = (cache(), hour());
    let (started, running) = mpsc::channel();
    let gates: Vec<_> = (0..8)
        .map(|i| {
            let (release, gate) = mpsc::channel::<()>();
            let started = started.clone();
            let ticket = cache.fetch(loading(&format!("k{i}"), &policy, move || {
                started.send(()).unwrap();
                gate.recv().unwrap();
                present("v")
            }));
            (release, ticket)
        })
        .collect();
    (0..4).for_each(|_| running.recv().unwrap());
    let refused = cache.answer(loading("late", &policy, || present("v")), LONG);
    assert_eq!(refused.unwrap_err(), LoadError::Overloaded);
    for (release, ticket) in gates {
        release.send(()).unwrap();
        assert_eq!(text(&ticket.wait(LONG)).0, "v");
    }
}

fn composed(
    policy: &Arc<Policy>,
    a: impl FnOnce() -> Result<Loaded, LoadError> + Send + 'static,
    b: impl FnOnce() -> Result<Loaded, LoadError> + Send + 'static,
    last_resort: Option<LastResort>,
) -> Request {
    let compose: Compose = Arc::new(|parts: &[LookupResult]| {
        let texts: Vec<_> = parts
            .iter()
            .map(|part| part.as_ref().map_or("-".into(), |_| text(part).0))
            .collect();
        present(&texts.join("+")).ok()
    });
    let parts = vec![loading("part-a", policy, a), loading("part-b", policy, b)];
    Request {
        item: item("composite", policy),
        producer: Producer::Compose(Composition {
            parts,
            compose,
            last_resort,
        }),
    }
}

#[test]
fn a_composite_is_made_of_its_parts_and_kept() {
    let (cache, policy) = (cache(), hour());
    let first = cache.answer(
        composed(&policy, || present("a"), || present("b"), None),
        LONG,
    );
    assert_eq!(text(&first), ("a+b".into(), Outcome::Loaded));
    let second = cache.answer(composed(&policy, failed, failed, None), LONG);
    assert_eq!(text(&second), ("a+b".into(), Outcome::MemoryHit));
}

#[test]
fn a_composite_falls_with_a_tag_that_none_of_its_parts_has() {
    let (cache, policy, key) = (cache(), hour(), Key::new(1, "composite"));
    let kept = || cache.get(key.as_str(), &policy, None).is_some();
    for kind in [Purge::Hard, Purge::Soft] {
        let mut request = composed(&policy, || present("a"), || present("b"), None);
        request.item.tags = Box::new([Tag::new("composite's")]);
        let made = cache.answer(request, LONG);
        assert_eq!(text(&made).0, "a+b");
        assert!(kept());
        cache.invalidate(&[InvalidationTarget::tag("composite's")], kind);
        assert!(!kept(), "{kind:?}");
    }
}

#[test]
fn a_composite_that_lacks_a_part_lives_a_tenth_and_spares_the_part_that_is_there() {
    let cache = cache();
    let policy = policy(Duration::from_secs(300), Duration::ZERO, Duration::ZERO);
    let partial = cache.answer(composed(&policy, failed, || present("b"), None), LONG);
    assert_eq!(text(&partial), ("-+b".into(), Outcome::Loaded));
    let entry = partial.unwrap().entry;
    let left = Duration::from_micros(entry.expiry.memory_until - cache.clock().now());
    assert!(
        left <= Duration::from_secs(30) && left > Duration::from_secs(20),
        "{left:?}"
    );
    assert_eq!(
        text(&cache.answer(loading("part-b", &policy, failed), LONG)).0,
        "b"
    );
}

#[test]
fn without_any_part_the_last_resort_answers_and_without_that_the_errors() {
    let (cache, policy) = (cache(), hour());
    let ending = cache.answer(composed(&policy, failed, failed, None), LONG);
    assert_eq!(ending.unwrap_err(), LoadError::Failed("no; no".into()));
    let archive: LastResort = Box::new(|| present("archived").ok());
    let ending = cache.answer(composed(&policy, failed, failed, Some(archive)), LONG);
    assert_eq!(text(&ending).0, "archived");
}
