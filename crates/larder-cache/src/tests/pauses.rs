//! Sources that may be asked again at a known time.

use super::*;

fn spent(seconds: u64) -> Result<Loaded, LoadError> {
    Err(LoadError::Spent {
        what: "a".into(),
        retry_after: Duration::from_secs(seconds),
    })
}

fn paused(seconds: u64, whole_source: bool) -> Result<Loaded, LoadError> {
    Err(LoadError::Paused {
        what: "a".into(),
        retry_after: Duration::from_secs(seconds),
        whole_source,
    })
}

fn hour_and_stale() -> Arc<Policy> {
    let hour = Duration::from_secs(3600);
    policy(hour, Duration::ZERO, hour)
}

fn left(cache: &Cache, until: u64) -> Duration {
    Duration::from_micros(until.saturating_sub(cache.clock().now()))
}

#[test]
fn a_composite_without_a_part_lives_until_that_can_be_asked_for() {
    for (back, least) in [(60, 50), (36_000, 3_000)] {
        let (cache, policy) = (cache(), hour());
        let request = composed(&policy, move || spent(back), || present("b"), None);
        let partial = cache.answer(request, LONG).unwrap();
        let left = left(&cache, partial.entry.expiry.memory_until);
        assert!(left > Duration::from_secs(least), "{left:?}");
        assert!(left <= Duration::from_secs(back.min(3600)), "{left:?}");
    }
}

#[test]
fn a_last_resort_stands_in_until_a_part_can_be_asked_for() {
    let (cache, policy) = (cache(), hour());
    let archive: LastResort = Box::new(|| present("archived").ok());
    let request = composed(&policy, || spent(60), || paused(90, true), Some(archive));
    assert_eq!(text(&cache.answer(request, LONG)).0, "archived");
    let kept = cache
        .get("0000000000000001:composite", &policy, None)
        .unwrap();
    let left = left(&cache, kept.entry.expiry.memory_until);
    assert!(
        left > Duration::from_secs(50) && left <= Duration::from_secs(60),
        "{left:?}"
    );
}

#[test]
fn a_composite_with_a_stale_part_is_renewed_when_that_can_be_asked_for() {
    type Failing = fn() -> Result<Loaded, LoadError>;
    let failing: [(Failing, Staleness); 3] = [
        (|| spent(1), Staleness::Spent),
        (|| paused(1, false), Staleness::Spent),
        (|| paused(1, true), Staleness::Spent),
    ];
    for (fails, told) in failing {
        let (cache, policy) = (cache(), hour_and_stale());
        let first = composed(&policy, || present("a"), || present("b"), None);
        assert_eq!(text(&cache.answer(first, LONG)).0, "a+b");
        cache.invalidate(&[InvalidationTarget::key("part-a")], Purge::Soft);
        let began = Instant::now();
        let stale = cache.answer(composed(&policy, fails, failed, None), LONG);
        assert_eq!(text(&stale), ("a+b".into(), Outcome::Stale(told)));
        // During the pause no source is asked, neither for the part nor for the composite.
        let (entry, now) = (stale.unwrap().entry, cache.clock().now());
        let backoff = entry.backoff().unwrap();
        assert_eq!(backoff.reason, told);
        assert!(backoff.until <= now + 1_000_000);
        let renewed = loop {
            let request = composed(&policy, || present("new"), failed, None);
            let answer = cache.answer(request, LONG);
            if text(&answer).0 != "a+b" {
                break answer;
            }
            assert!(began.elapsed() < LONG, "the pause does not end");
            std::thread::yield_now();
        };
        assert_eq!(text(&renewed), ("new+b".into(), Outcome::Loaded));
        assert!(began.elapsed() >= Duration::from_secs(1));
    }
}

#[test]
fn a_composite_is_renewed_a_second_after_the_quota_of_a_part_was_spent_not_after_its_ttl() {
    // As with a quota of one call a second: a missing or stale part can be loaded after that
    // second.
    for has_stale_part in [false, true] {
        let (cache, policy) = (cache(), hour_and_stale());
        if has_stale_part {
            let first = composed(&policy, || present("old"), || present("b"), None);
            assert_eq!(text(&cache.answer(first, LONG)).0, "old+b");
            cache.invalidate(&[InvalidationTarget::key("part-a")], Purge::Soft);
        }
        let began = Instant::now();
        let without = cache.answer(composed(&policy, || spent(1), || present("b"), None), LONG);
        let answer = without.as_ref().unwrap();
        assert_eq!(
            text(&without).0,
            if has_stale_part { "old+b" } else { "-+b" }
        );
        let entry = &answer.entry;
        let again = entry
            .backoff()
            .map_or(entry.expiry.memory_until, |pause| pause.until);
        assert!(left(&cache, again) <= Duration::from_secs(1));
        let renewed = loop {
            let request = composed(&policy, || present("new"), failed, None);
            let answer = cache.answer(request, LONG);
            if text(&answer).0.starts_with("new") {
                break answer;
            }
            assert!(began.elapsed() < LONG, "it lives as long as its TTL");
            std::thread::yield_now();
        };
        assert_eq!(text(&renewed), ("new+b".into(), Outcome::Loaded));
        assert!(began.elapsed() >= Duration::from_secs(1));
    }
}

#[test]
fn a_pause_ends_for_what_is_invalidated() {
    for whole_source in [false, true] {
        for kind in [Purge::Hard, Purge::Soft] {
            for name in [
                InvalidationTarget::key("k"),
                InvalidationTarget::tag("t"),
                InvalidationTarget::everything(),
            ] {
                let (cache, policy) = (cache(), hour());
                let ask = |key: &str, tag: &str, fails: bool| {
                    let mut request = loading(key, &policy, move || {
                        if fails {
                            paused(3600, whole_source)
                        } else {
                            present("v")
                        }
                    });
                    request.item.tags = Box::new([Tag::new(tag)]);
                    cache.answer(request, LONG).map(|answer| answer.outcome)
                };
                ask("k", "t", true).unwrap_err();
                let error = ask("k", "t", false).unwrap_err();
                assert!(
                    error.retry_after().unwrap() > Duration::from_secs(3500),
                    "{error}"
                );
                let other = ask("other", "o", false);
                assert_eq!(other.is_err(), whole_source, "{other:?}");
                cache.invalidate(std::slice::from_ref(&name), kind);
                // Asked again, and paused again by its new answer.
                ask("k", "t", true).unwrap_err();
                ask("k", "t", false).unwrap_err();
                cache.invalidate(std::slice::from_ref(&name), kind);
                assert_eq!(ask("k", "t", false), Ok(Outcome::Loaded), "{name:?}");
                let rest = ask("yet another", "o", false);
                let waits = whole_source && !name.is_everything();
                assert_eq!(rest.is_err(), waits, "{name:?} {rest:?}");
            }
        }
    }
}
