//! A cached function, in two processes that share a Redis.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use larder_cache::{Cache, InvalidationTarget, Outcome, Purge, Wrapped};

use super::{policy, steady};
use testkit::redis::RedisServer;
use testkit::{SOON, until};

type Sum = Wrapped<(i64, Vec<i64>), i64, String>;

/// The sum of some numbers, and how often it was worked out.
fn sum(cache: &Cache) -> (Sum, Arc<AtomicUsize>) {
    let calls = Arc::new(AtomicUsize::new(0));
    let count = calls.clone();
    let sum = move |(first, rest): (i64, Vec<i64>)| {
        count.fetch_add(1, Ordering::SeqCst);
        let checked = rest.iter().try_fold(first, |sum, n| sum.checked_add(*n));
        checked.ok_or_else(|| "too large".to_owned())
    };
    let sum = cache.wrap("sum", policy(), sum).unwrap();
    let sum = sum.tagged_by(|(first, _), key| key.tag(format_args!("from:{first}")));
    (sum, calls)
}

#[test]
fn one_call_is_made_for_two_processes_until_it_is_invalidated() {
    let redis = RedisServer::start();
    let (one, other) = (steady(&redis.url()), steady(&redis.url()));
    let ((here, calls), (there, calls_there)) = (sum(&one), sum(&other));
    let arguments = || (1, vec![2, 3]);
    let ask = |sum: &Sum| {
        let (value, outcome) = sum.call(arguments()).unwrap();
        (*value, outcome)
    };
    assert_eq!(ask(&here), (6, Outcome::Loaded));
    assert_eq!(ask(&there), (6, Outcome::RedisHit));
    assert_eq!(ask(&there.clone()), (6, Outcome::MemoryHit));
    // Other arguments, and an error. Right after it no new attempt is made.
    assert_eq!(*there.call((1, vec![])).unwrap().0, 1);
    for _ in 0..2 {
        let error = there.call((i64::MAX, vec![1])).unwrap_err();
        assert_eq!(error.to_string(), "too large");
    }
    assert_eq!(calls_there.load(Ordering::SeqCst), 2);
    for target in [
        here.target(&arguments()).unwrap(),
        InvalidationTarget::tag("from:1"),
        InvalidationTarget::tag("sum"),
    ] {
        let before = calls.load(Ordering::SeqCst);
        assert!(!one.invalidate(&target, Purge::Hard).is_pending());
        assert_eq!(ask(&here), (6, Outcome::Loaded));
        assert_eq!(calls.load(Ordering::SeqCst), before + 1);
        until(SOON, "the other one has heard", || {
            ask(&there).1 == Outcome::RedisHit
        });
    }
    assert_eq!(calls_there.load(Ordering::SeqCst), 2);
}

#[test]
fn arguments_that_json_cannot_tell_apart_are_refused() {
    let cache = Cache::builder().build().unwrap();
    let half = |x: f64| Ok::<_, String>(x / 2.0);
    let half = cache.wrap("half", policy(), half).unwrap();
    assert_eq!(*half.call(3.0).unwrap().0, 1.5);
    let error = half.call(f64::NAN).unwrap_err().to_string();
    let why = "the arguments of `half` cannot be a key: JSON cannot represent NaN";
    assert_eq!(error, why);
    assert!(half.target(&f64::INFINITY).is_err());
}
