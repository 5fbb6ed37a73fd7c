//! A rate limit for one key: GCRA, the generic cell rate algorithm (ITU-T I.371), in one atomic number.
//!
//! Promise: `count` requests pass at once, and then one every `per / count`. A refused request uses
//! nothing up. Keys share no lock; requests of one key meet only in a compare-and-swap.
//!
//! Invariant: the number is the time at which the full allowance is available again. It is at most
//! `per` ahead of every clock that set it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::quantity::Rate;

/// The decision on one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Whether the request may pass.
    pub allowed: bool,
    /// How many requests may pass in `window`.
    pub limit: u32,
    /// The time that `limit` is for.
    pub window: Duration,
    /// How many more may pass right now.
    pub remaining: u32,
    /// How long until `limit` may pass again.
    pub reset: Duration,
    /// How long until the next may pass; zero if `remaining` is not.
    pub retry_after: Duration,
}

/// The state of one limit.
#[derive(Debug)]
pub struct Limiter {
    rate: Rate,
    /// What each request uses of the allowance, in nanoseconds.
    each: u64,
    begun: Instant,
    /// The theoretical arrival time, in nanoseconds after `begun`.
    full_at: AtomicU64,
}

impl Limiter {
    /// A limit with its full allowance.
    pub fn new(rate: Rate) -> Limiter {
        Limiter {
            rate,
            each: (nanos(rate.per) / u64::from(rate.count)).max(1),
            begun: Instant::now(),
            full_at: AtomicU64::new(0),
        }
    }

    /// The rate that it allows.
    pub fn rate(&self) -> Rate {
        self.rate
    }

    /// Counts one request at `now`, if it may pass.
    pub fn check(&self, now: Instant) -> Decision {
        let now = nanos(now.saturating_duration_since(self.begun));
        let mut seen = self.full_at.load(Ordering::Relaxed);
        loop {
            // A rate's `per` is at most a hundred years, so sums stay below the 584 years of a u64.
            let full_at = seen.max(now) + self.each;
            // `per` rounded down to a multiple of `each`: with the remainder one more would pass.
            if full_at - now > self.each * u64::from(self.rate.count) {
                return self.decide(false, seen, now);
            }
            match self.full_at.compare_exchange_weak(
                seen,
                full_at,
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) => return self.decide(true, full_at, now),
                Err(newer) => seen = newer,
            }
        }
    }

    fn decide(&self, allowed: bool, full_at: u64, now: u64) -> Decision {
        let (each, count) = (self.each, u64::from(self.rate.count));
        let used = full_at.saturating_sub(now);
        let room = (each * count).saturating_sub(used);
        Decision {
            allowed,
            limit: self.rate.count,
            window: self.rate.per,
            remaining: u32::try_from(room / each).unwrap_or(u32::MAX),
            reset: Duration::from_nanos(used),
            retry_after: Duration::from_nanos(each.saturating_sub(room)),
        }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limiter(rate: &str) -> Limiter {
        Limiter::new(rate.parse().unwrap())
    }

    #[test]
    fn a_burst_passes_and_then_one_at_a_time() {
        let limiter = limiter("3/6s");
        let at = |ms: u64| limiter.begun + Duration::from_millis(ms);
        for remaining in [2, 1, 0] {
            let decision = limiter.check(at(0));
            assert!(decision.allowed);
            assert_eq!(decision.remaining, remaining);
        }
        let refused = limiter.check(at(500));
        assert_eq!(
            refused,
            Decision {
                allowed: false,
                limit: 3,
                window: Duration::from_secs(6),
                remaining: 0,
                reset: Duration::from_millis(5_500),
                retry_after: Duration::from_millis(1_500),
            }
        );
        assert!(
            !limiter.check(at(1_999)).allowed,
            "a refused request neither helps nor costs"
        );
        assert!(limiter.check(at(2_000)).allowed);
        assert!(!limiter.check(at(2_000)).allowed);
        let rested = limiter.check(at(60_000));
        assert_eq!(
            (rested.allowed, rested.remaining, rested.retry_after),
            (true, 2, Duration::ZERO)
        );
    }

    #[test]
    fn a_rate_that_does_not_divide_allows_its_count_and_no_more() {
        for rate in ["7/1s", "600/1m", "4000000000/1ms", "1/36500d", "3/1ms"] {
            let limiter = limiter(rate);
            let now = limiter.begun;
            let tries = limiter.rate.count.min(2_000);
            assert!((0..tries).all(|_| limiter.check(now).allowed), "{rate}");
            assert_eq!(
                limiter.check(now).allowed,
                limiter.rate.count > tries,
                "{rate}"
            );
        }
    }

    #[test]
    fn threads_together_get_no_more_than_the_count() {
        let limiter = limiter("1000/1h");
        let now = limiter.begun;
        let allowed: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| (0..500).filter(|_| limiter.check(now).allowed).count()))
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .sum()
        });
        assert_eq!(allowed, 1_000);
    }
}
