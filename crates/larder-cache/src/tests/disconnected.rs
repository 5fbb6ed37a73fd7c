//! A replica that reaches neither the bus nor Redis: what its lookups serve.

use super::*;
use crate::coherence::HistoryState;

/// A cache that was never connected, and whose Redis is known to be down.
fn disconnected() -> Cache {
    disconnected_with(CoherenceSettings::default().max_staleness)
}

fn disconnected_with(max_staleness: Duration) -> Cache {
    let cache = assembled(false, max_staleness);
    let pool = cache.redis();
    pool.wait_first_look(LONG);
    let deadline = Instant::now() + LONG;
    while pool.answers() {
        assert!(Instant::now() < deadline, "nobody listens there");
        std::thread::yield_now();
    }
    cache
}

fn policy_of(disconnected_ttl: Option<Duration>, if_error: Duration) -> Arc<Policy> {
    let lenient = policy(LONG, Duration::ZERO, if_error);
    Arc::new(Policy {
        disconnected_ttl,
        ..(*lenient).clone()
    })
}

#[test]
fn memory_is_served_for_disconnected_ttl_and_to_its_end_without_one() {
    let cache = disconnected();
    for (ttl, outcome) in [
        (None, Outcome::MemoryHit),
        (Some(LONG), Outcome::MemoryHit),
        (Some(Duration::ZERO), Outcome::Loaded),
    ] {
        let (key, policy) = (format!("{ttl:?}"), policy_of(ttl, Duration::ZERO));
        let load = || cache.answer(loading(&key, &policy, || present("v")), LONG);
        assert_eq!(text(&load()), ("v".into(), Outcome::Loaded));
        assert_eq!(text(&load()), ("v".into(), outcome), "{ttl:?}");
    }
}

#[test]
fn past_disconnected_ttl_a_copy_stands_in_for_a_load_that_fails_and_is_not_offered_before() {
    let cache = disconnected();
    let policy = policy_of(Some(Duration::ZERO), LONG);
    let first = cache.answer(loading("k", &policy, || present("v")), LONG);
    assert_eq!(text(&first).1, Outcome::Loaded);
    let (release, gate) = mpsc::channel::<()>();
    let ticket = cache.fetch(loading("k", &policy, move || {
        gate.recv().unwrap();
        failed()
    }));
    // A reader whose time is up gets the copy. One that waits learns first whether the load fails.
    let deadline = Instant::now() + LONG;
    let copy = loop {
        if let Some(copy) = ticket.stale() {
            break copy;
        }
        assert!(Instant::now() < deadline);
    };
    assert_eq!(copy.outcome, Outcome::Stale(Staleness::SoftTimeout));
    release.send(()).unwrap();
    let stale = Outcome::Stale(Staleness::IfError);
    assert_eq!(text(&ticket.wait(LONG)), ("v".into(), stale));
}

#[test]
fn past_both_a_copy_is_never_served() {
    let cache = disconnected();
    let policy = policy_of(Some(Duration::ZERO), Duration::ZERO);
    cache
        .answer(loading("k", &policy, || present("v")), LONG)
        .unwrap();
    let ending = cache.answer(loading("k", &policy, failed), LONG);
    assert_eq!(ending.unwrap_err(), LoadError::Failed("no".into()));
}

#[test]
fn a_copy_that_nobody_vouches_for_is_at_hand_again_once_trust_is_back() {
    let cache = disconnected();
    let mirror = &cache.tiers.mirror;
    mirror.observe(&HistoryState {
        history: HistoryId(7),
        clock: 1,
        hard_watermark: 0,
        soft_watermark: 0,
        pruned_to: 0,
        first_clock: 1,
    });
    let policy = policy_of(Some(Duration::ZERO), Duration::ZERO);
    let first = cache.answer(loading("k", &policy, || present("v")), LONG);
    assert_eq!(text(&first).1, Outcome::Loaded);
    let (started, running) = mpsc::channel();
    let (release, gate) = mpsc::channel::<()>();
    let ticket = cache.fetch(loading("k", &policy, move || {
        started.send(()).unwrap();
        gate.recv().unwrap();
        failed()
    }));
    running.recv().unwrap();
    assert!(ticket.stale().is_none());
    mirror.extend_trust(&mirror.history(), Micros::MAX);
    let copy = ticket.stale().map(|copy| copy.outcome);
    assert_eq!(copy, Some(Outcome::Stale(Staleness::SoftTimeout)));
    release.send(()).unwrap();
    let stale = Outcome::Stale(Staleness::IfError);
    assert_eq!(text(&ticket.wait(LONG)), ("v".into(), stale));
}

#[test]
fn a_reader_who_knows_of_an_invalidation_gets_a_new_load() {
    let cache = disconnected();
    let policy = policy_of(None, Duration::ZERO);
    let load = |body| loading("k", &policy, move || present(body));
    assert_eq!(text(&cache.answer(load("old"), LONG)).0, "old");
    let now = cache.clock().now();
    let key = Key::new(1, "k");
    // A possible clock, and one that no history has given yet.
    for (after, served, body) in [(now, false, "new"), (u64::MAX, true, "new")] {
        let in_memory = cache.get(key.as_str(), &policy, Some(after));
        assert_eq!(in_memory.is_some(), served, "{after}");
        let answer = cache.fetch_after(load("new"), 0, after).wait(LONG);
        assert_eq!(text(&answer).0, body);
    }
}

#[test]
fn a_composite_past_disconnected_ttl_is_made_anew_and_stands_in_where_no_part_is_there() {
    let cache = disconnected();
    let policy = policy_of(Some(Duration::ZERO), LONG);
    let first = composed(&policy, || present("a"), || present("b"), None);
    assert_eq!(text(&cache.answer(first, LONG)).0, "a+b");
    let second = composed(&policy, || present("c"), || present("d"), None);
    assert_eq!(
        text(&cache.answer(second, LONG)),
        ("c+d".into(), Outcome::Loaded)
    );
    let strict = policy_of(Some(Duration::ZERO), Duration::ZERO);
    let mut third = composed(&strict, failed, failed, None);
    third.item.policy = policy;
    let stale = Outcome::Stale(Staleness::IfError);
    assert_eq!(text(&cache.answer(third, LONG)), ("c+d".into(), stale));
}

#[test]
fn a_load_under_way_is_joined_if_it_began_within_max_staleness_or_as_long_as_a_copy_is_served() {
    let (long, short) = (Duration::from_secs(3600), Duration::from_millis(4));
    for (max_staleness, disconnected_ttl, outcome) in [
        (long, Some(Duration::ZERO), Outcome::Collapsed),
        (short, Some(Duration::ZERO), Outcome::Loaded),
        (short, None, Outcome::Collapsed),
    ] {
        let cache = disconnected_with(max_staleness);
        let policy = policy_of(disconnected_ttl, Duration::ZERO);
        let (started, running) = mpsc::channel();
        let (release, gate) = mpsc::channel::<()>();
        let first = cache.fetch(loading("k", &policy, move || {
            started.send(()).unwrap();
            gate.recv().unwrap();
            present("first")
        }));
        running.recv().unwrap();
        let began = Instant::now();
        while max_staleness == short && began.elapsed() < max_staleness {
            std::thread::yield_now();
        }
        let second = cache.fetch(loading("k", &policy, || present("second")));
        if outcome == Outcome::Loaded {
            assert_eq!(text(&second.wait(LONG)), ("second".into(), outcome));
            release.send(()).unwrap();
        } else {
            release.send(()).unwrap();
            assert_eq!(text(&second.wait(LONG)), ("first".into(), outcome));
        }
        assert_eq!(text(&first.wait(LONG)), ("first".into(), Outcome::Loaded));
    }
}
