//! The time of this replica: microseconds that never run backwards, and the offset to Redis's
//! clock.
//!
//! Promise: [`Clock::now`] is monotonic. It starts at the system's time of day and then follows the
//! monotonic clock, so setting the system's clock ends no TTL. The age of a value that another
//! replica loaded is computed on Redis's time. Every replica knows its own offset to that, so the
//! clocks of two machines are never compared.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Microseconds since 1970 by the clock of this process.
pub type Micros = u64;

/// See the module.
#[derive(Debug)]
pub struct Clock {
    start: Instant,
    start_micros: Micros,
    /// Redis's time minus ours, in microseconds.
    redis_offset: AtomicI64,
}

impl Default for Clock {
    fn default() -> Clock {
        Clock::new()
    }
}

impl Clock {
    /// A clock that begins now.
    pub fn new() -> Clock {
        let since_1970 = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Clock {
            start: Instant::now(),
            start_micros: micros(since_1970),
            redis_offset: AtomicI64::new(0),
        }
    }

    /// The present moment.
    pub fn now(&self) -> Micros {
        self.start_micros + micros(self.start.elapsed())
    }

    /// The time of `instant`.
    pub fn at(&self, instant: Instant) -> Micros {
        self.start_micros + micros(instant.saturating_duration_since(self.start))
    }

    /// Takes over `redis_time`, which Redis's clock showed at some moment between `sent` and now.
    pub(crate) fn heard_redis(&self, redis_time: Micros, sent: Micros) {
        let middle = sent + (self.now().saturating_sub(sent)) / 2;
        self.redis_offset
            .store(redis_time.wrapping_sub(middle) as i64, Ordering::Relaxed);
    }

    /// A time of ours on Redis's clock.
    pub(crate) fn redis_of_local(&self, local: Micros) -> Micros {
        local.wrapping_add_signed(self.redis_offset.load(Ordering::Relaxed))
    }

    /// A time of Redis's on our clock.
    pub(crate) fn local_of_redis(&self, redis: Micros) -> Micros {
        redis.wrapping_sub(self.redis_offset.load(Ordering::Relaxed) as u64)
    }
}

/// A duration in whole microseconds, at most `u64::MAX` of them.
pub fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redis_time_goes_both_ways() {
        let clock = Clock::new();
        let now = clock.now();
        for redis in [now - 5_000_000, now, now + 7_000_000] {
            clock.heard_redis(redis, clock.now());
            assert_eq!(clock.local_of_redis(clock.redis_of_local(now)), now);
            let apart = clock.redis_of_local(now).abs_diff(redis);
            assert!(apart < 1_000_000, "{apart}");
        }
    }
}
