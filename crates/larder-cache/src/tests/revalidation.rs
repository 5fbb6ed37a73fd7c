//! Lifetimes that a source declares, and copies that it confirms.

use super::*;
use crate::Refusal;

/// A value with this lifetime, which its source can confirm by `validator`.
fn confirmable(body: &str, life: Lifetime, validator: &str) -> Result<Loaded, LoadError> {
    Ok(Loaded {
        validator: Some(validator.into()),
        ..Loaded::new(Value::Present(body.to_owned().into()), life)
    })
}

/// A lookup that loads with `run`, which gets the copy that it may confirm.
fn confirming_load(
    name: &str,
    policy: &Arc<Policy>,
    run: impl FnOnce(Option<Revalidation>) -> Result<Loaded, LoadError> + Send + 'static,
) -> Request {
    let load = Load {
        limit: LONG,
        run: Box::new(|attempt| run(attempt.revalidation)),
    };
    Request {
        item: item(name, policy),
        producer: Producer::Load(load),
    }
}

/// No stale use, but a value is kept for an hour for its source to confirm.
fn confirming() -> Arc<Policy> {
    Arc::new(Policy {
        revalidate: Duration::from_secs(3600),
        ..(*hour()).clone()
    })
}

/// The source returns the copy that it was given, as after a 304.
fn confirms(previous: Option<Revalidation>) -> Result<Loaded, LoadError> {
    let previous = previous.expect("it has something to confirm");
    assert_eq!(&*previous.validator, "v1");
    Ok(Loaded {
        validator: Some("v2".into()),
        ..Loaded::new(Value::Present(previous.value), Lifetime::Policy)
    })
}

#[test]
fn an_expired_copy_is_confirmed_and_not_served_before() {
    let (cache, policy) = (cache(), confirming());
    let brief = Lifetime::MaxAge(Duration::ZERO);
    let first = cache
        .answer(
            loading("k", &policy, move || confirmable("v", brief, "v1")),
            LONG,
        )
        .unwrap();
    let key = Key::new(1, "k");
    assert!(cache.get(key.as_str(), &policy, None).is_none());
    let (_, freshness) = cache.inspect(key.as_str(), &policy).unwrap();
    assert_eq!(
        freshness,
        Decision::Refuse(Refusal::TooOld),
        "it is kept for its source alone"
    );
    // The same if the source fails: a copy that is kept for confirmation is not served.
    let other = cache.answer(
        loading("k2", &policy, move || confirmable("v", brief, "v1")),
        LONG,
    );
    other.unwrap();
    let failing = confirming_load("k2", &policy, |previous| {
        assert!(previous.is_some());
        failed()
    });
    cache.answer(failing, LONG).unwrap_err();

    let acknowledged = cache.invalidate(&[InvalidationTarget::tag("elsewhere")], Purge::Hard);
    let second = cache
        .answer(confirming_load("k", &policy, confirms), LONG)
        .unwrap();
    assert_eq!(second.outcome, Outcome::Loaded);
    let (before, after) = (&first.entry, &second.entry);
    assert_eq!((&after.value, after.hash), (&before.value, before.hash));
    assert_eq!(after.value.bytes().as_ptr(), before.value.bytes().as_ptr());
    assert!(after.loaded_at >= before.loaded_at);
    // It is pending, since there is no Redis: only the count of invalidations begun here tells the
    // two loads apart.
    assert!(acknowledged.is_pending() && after.stamp().sequence > before.stamp().sequence);
    let third = cache
        .answer(confirming_load("k", &policy, |_| failed()), LONG)
        .unwrap();
    assert_eq!(
        (third.outcome, third.entry.validator()),
        (Outcome::MemoryHit, Some("v2"))
    );
}

#[test]
fn what_was_invalidated_soft_is_confirmed_and_hard_is_fetched_anew() {
    for kind in [Purge::Soft, Purge::Hard] {
        let (cache, policy) = (cache(), confirming());
        let load = || loading("k", &policy, || confirmable("v", Lifetime::Policy, "v1"));
        cache.answer(load(), LONG).unwrap();
        cache.invalidate(&[InvalidationTarget::from(&Key::new(1, "k"))], kind);
        let shown = confirming_load("k", &policy, move |previous| {
            assert_eq!(previous.is_some(), kind == Purge::Soft);
            present("new")
        });
        let next = cache.answer(shown, LONG);
        assert_eq!(text(&next), ("new".into(), Outcome::Loaded));
    }
}

#[test]
fn what_its_source_cannot_confirm_is_not_kept_for_that() {
    let (cache, policy) = (cache(), confirming());
    let brief = Lifetime::MaxAge(Duration::ZERO);
    let long = "x".repeat(Loaded::LONGEST_VALIDATOR + 1);
    let absent = || {
        Ok(Loaded {
            validator: Some("v1".into()),
            ..Loaded::new(Value::Absent, Lifetime::MaxAge(Duration::ZERO))
        })
    };
    cache
        .answer(
            loading("none", &policy, move || {
                Ok(Loaded::new(Value::Present("v".into()), brief))
            }),
            LONG,
        )
        .unwrap();
    cache
        .answer(
            loading("long", &policy, move || confirmable("v", brief, &long)),
            LONG,
        )
        .unwrap();
    cache
        .answer(loading("absent", &policy, absent), LONG)
        .unwrap();
    for name in ["none", "long", "absent"] {
        assert!(
            cache.inspect(Key::new(1, name).as_str(), &policy).is_none(),
            "{name}"
        );
        let next = confirming_load(name, &policy, |previous| {
            assert_eq!(previous, None);
            present("new")
        });
        assert_eq!(text(&cache.answer(next, LONG)).0, "new");
    }
}

#[test]
fn what_is_not_kept_goes_to_those_who_wait_and_to_nobody_else() {
    let cache = cache();
    let policy = policy(LONG, LONG, LONG);
    let (started, running) = mpsc::channel();
    let (release, gate) = mpsc::channel::<()>();
    let leader = cache.fetch(loading("k", &policy, move || {
        started.send(()).unwrap();
        gate.recv().unwrap();
        confirmable("secret", Lifetime::NoStore, "v1")
    }));
    running.recv().unwrap();
    let follower = cache.fetch(loading("k", &policy, failed));
    release.send(()).unwrap();
    assert_eq!(text(&leader.wait(LONG)), ("secret".into(), Outcome::Loaded));
    assert_eq!(
        text(&follower.wait(LONG)),
        ("secret".into(), Outcome::Collapsed)
    );
    assert!(cache.inspect(Key::new(1, "k").as_str(), &policy).is_none());
    let next = cache.answer(loading("k", &policy, || present("next")), LONG);
    assert_eq!(text(&next), ("next".into(), Outcome::Loaded));

    // A composite of it is not kept either, whatever stale use the policy allows.
    let unkept = || Ok(Loaded::new(Value::Present("a".into()), Lifetime::NoStore));
    let composite = cache.answer(composed(&policy, unkept, || present("b"), None), LONG);
    assert_eq!(text(&composite), ("a+b".into(), Outcome::Loaded));
    assert!(
        cache
            .inspect(Key::new(1, "composite").as_str(), &policy)
            .is_none()
    );
}

#[test]
fn a_source_that_forbids_stale_use_is_obeyed_also_by_a_composite() {
    let cache = cache();
    let policy = policy(LONG, LONG, LONG);
    let ended = |name: &str, life: Lifetime| {
        cache
            .answer(
                loading(name, &policy, move || {
                    Ok(Loaded::new(Value::Present("v".into()), life))
                }),
                LONG,
            )
            .unwrap();
        cache.answer(loading(name, &policy, failed), LONG)
    };
    let stale = ended("lenient", Lifetime::MaxAge(Duration::ZERO)).unwrap();
    assert!(matches!(stale.outcome, Outcome::Stale(_)));
    ended("strict", Lifetime::MustRevalidate(Duration::ZERO)).unwrap_err();
    let strict = || {
        Ok(Loaded::new(
            Value::Present("a".into()),
            Lifetime::MustRevalidate(Duration::ZERO),
        ))
    };
    cache
        .answer(composed(&policy, strict, || present("b"), None), LONG)
        .unwrap();
    assert!(
        cache
            .inspect(Key::new(1, "composite").as_str(), &policy)
            .is_none()
    );
}
