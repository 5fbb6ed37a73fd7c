//! The time of this replica: microseconds that never run backwards, and the offset to Redis's
//! clock.
//!
//! Promise: [`Clock::now`] is monotonic. It starts at the system's time of day and then follows the
//! monotonic clock, so setting the system's clock ends no TTL. The age of a value that another
//! replica loaded is computed on Redis's time. Every replica knows its own offset to that, so the
//! clocks of two machines are never compared.
//!
//! In an embedder's test, a [`TestClock`] takes the place of the monotonic clock.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

/// Microseconds since 1970 by the clock of this process.
pub type Micros = u64;

/// A time for tests that stands still until the test moves it: see
/// [`CacheBuilder::test_clock`](super::CacheBuilder::test_clock). Clones are the same clock.
///
/// ```
/// use std::time::Duration;
///
/// use larder_cache::{Cache, Policy, TaggedKey, TestClock};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let clock = TestClock::new();
/// let cache = Cache::builder().test_clock(&clock).build()?;
/// let policy = Policy::new(Duration::from_secs(60), Duration::ZERO).exact_ttl();
/// let numbers = cache.typed::<u8>("number", 1)?;
/// let waited = || {
///     let found = numbers.get_or_load(TaggedKey::new(), &policy, || Ok::<u8, String>(1));
///     found.map(|(_, outcome)| outcome.waited())
/// };
///
/// assert!(waited()?);
/// clock.advance(Duration::from_secs(59));
/// assert!(!waited()?);
/// clock.advance(Duration::from_secs(1));
/// assert!(waited()?);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Default)]
pub struct TestClock(Arc<TestTime>);

#[derive(Default)]
struct TestTime {
    /// In microseconds, since it was made.
    moved: AtomicU64,
    /// Protects the list. It is locked while they are called.
    listeners: Mutex<Vec<OnMove>>,
}

/// Called after a test has moved its clock. Returns whether to call it again.
type OnMove = Box<dyn Fn() -> bool + Send + Sync>;

impl TestClock {
    /// A clock that stands at the present moment.
    pub fn new() -> TestClock {
        TestClock::default()
    }

    /// Moves it forward. Whatever has expired by then is gone when this returns.
    pub fn advance(&self, by: Duration) {
        self.0.moved.fetch_add(micros(by), Ordering::Relaxed);
        self.0.listeners.lock().retain(|listener| listener());
    }

    fn moved(&self) -> Micros {
        self.0.moved.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for TestClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TestClock({:?})", Duration::from_micros(self.moved()))
    }
}

/// See the module.
#[derive(Debug)]
pub struct Clock {
    start: Instant,
    start_micros: Micros,
    /// Has the place of the monotonic clock in a test.
    test: Option<TestClock>,
    /// Redis's time minus ours, in microseconds.
    redis_offset: AtomicI64,
    /// Protects the bounds of that offset. `None`: Redis's time was never heard.
    bounds: Mutex<Option<OffsetBounds>>,
}

/// A moment on Redis's clock. It is not known exactly: it lies between these two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RedisMoment {
    pub(crate) earliest: Micros,
    pub(crate) latest: Micros,
}

/// The bounds of Redis's time minus ours, as of one moment. A reply gives them: its time was shown
/// after the question was sent and before the reply arrived. So a quick reply gives narrow bounds,
/// and a slow one leaves those of the replies before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct OffsetBounds {
    least: i64,
    most: i64,
    /// The moment, on our clock.
    at: Micros,
    /// No reply since then contradicts those before it. One that does shows that Redis's clock was
    /// set.
    steady_since: Micros,
}

impl OffsetBounds {
    /// These bounds at `now`, with those that a reply gave.
    fn with(self, least: i64, most: i64, now: Micros) -> OffsetBounds {
        let drifted = drift(now.saturating_sub(self.at)) as i64;
        let (lower, upper) = (
            least.max(self.least - drifted),
            most.min(self.most + drifted),
        );
        let steady = lower <= upper;
        OffsetBounds {
            least: if steady { lower } else { least },
            most: if steady { upper } else { most },
            at: now,
            steady_since: if steady { self.steady_since } else { now },
        }
    }
}

/// How far two clocks can drift apart in this time: each runs wrong by at most 500 microseconds a
/// second, which is what `adjtimex` allows.
pub(crate) fn drift(time: Micros) -> Micros {
    time / 1000 + 1
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
            test: None,
            redis_offset: AtomicI64::new(0),
            bounds: Mutex::default(),
        }
    }

    /// The same, moved by a test.
    pub(crate) fn of_test(test: &TestClock) -> Clock {
        Clock {
            test: Some(test.clone()),
            ..Clock::new()
        }
    }

    /// Calls `listener` after each move of a test, until it returns `false`. Nothing else moves a
    /// clock.
    pub(crate) fn on_move(&self, listener: impl Fn() -> bool + Send + Sync + 'static) {
        if let Some(test) = &self.test {
            test.0.listeners.lock().push(Box::new(listener));
        }
    }

    /// Whether a test moves it.
    pub(crate) fn is_of_test(&self) -> bool {
        self.test.is_some()
    }

    /// The present moment.
    pub fn now(&self) -> Micros {
        match &self.test {
            None => self.start_micros + micros(self.start.elapsed()),
            Some(test) => self.start_micros + test.moved(),
        }
    }

    /// The time of `instant`, which was not long ago.
    pub fn at(&self, instant: Instant) -> Micros {
        match &self.test {
            None => self.start_micros + micros(instant.saturating_duration_since(self.start)),
            Some(_) => self.now(),
        }
    }

    /// Takes over `redis_time`, which Redis's clock showed at some moment between `sent` and now.
    pub(crate) fn heard_redis(&self, redis_time: Micros, sent: Micros) {
        let now = self.now();
        let middle = sent + (now.saturating_sub(sent)) / 2;
        let offset_at = |local: Micros| redis_time.wrapping_sub(local) as i64;
        self.redis_offset
            .store(offset_at(middle), Ordering::Relaxed);
        let (least, most) = (offset_at(now), offset_at(sent));
        let mut bounds = self.bounds.lock();
        *bounds = Some(match *bounds {
            Some(known) => known.with(least, most, now),
            None => OffsetBounds {
                least,
                most,
                at: now,
                steady_since: 0,
            },
        });
    }

    /// The moment `local` on Redis's clock. `None` if Redis's time was never heard, or its clock
    /// was set after `steady_since`, a time of ours.
    pub(crate) fn redis_moment(&self, local: Micros, steady_since: Micros) -> Option<RedisMoment> {
        let bounds = (*self.bounds.lock())?;
        let drifted = drift(bounds.at.abs_diff(local)) as i64;
        (bounds.steady_since <= steady_since).then(|| RedisMoment {
            earliest: local.saturating_add_signed(bounds.least - drifted),
            latest: local.saturating_add_signed(bounds.most + drifted),
        })
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

    const S: Micros = 1_000_000;

    #[test]
    fn a_clock_of_a_test_stands_still_until_it_is_moved() {
        let test = TestClock::new();
        let clock = Clock::of_test(&test);
        let began = clock.now();
        let (told, heard) = std::sync::mpsc::channel();
        clock.on_move(move || told.send(()).is_ok());
        assert_eq!(clock.at(Instant::now()), began);
        test.clone().advance(Duration::from_millis(1500));
        assert_eq!(clock.now(), began + 1_500_000);
        assert_eq!(clock.at(Instant::now()), began + 1_500_000);
        assert!(heard.try_recv().is_ok() && heard.try_recv().is_err());
        drop(heard);
        test.advance(Duration::from_micros(1));
        assert_eq!(clock.now(), began + 1_500_001);
        assert!(test.0.listeners.lock().is_empty());
        assert!(!Clock::new().is_of_test());
    }

    #[test]
    fn a_quick_reply_narrows_the_bounds_and_a_slow_one_leaves_them() {
        let first = OffsetBounds {
            least: 4_000_000,
            most: 4_100_000,
            at: 100 * S,
            steady_since: 0,
        };
        let quick = first.with(4_050_000, 4_050_200, 101 * S);
        assert_eq!((quick.least, quick.most), (4_050_000, 4_050_200));
        let slow = quick.with(3_900_000, 4_400_000, 102 * S);
        // Wider only by what the clocks can have drifted in a second.
        let drifted = drift(S) as i64;
        let widened = (4_050_000 - drifted, 4_050_200 + drifted);
        assert_eq!((slow.least, slow.most), widened);
        assert_eq!((slow.at, slow.steady_since), (102 * S, 0));
    }

    #[test]
    fn a_reply_that_contradicts_the_bounds_shows_that_redis_clock_was_set() {
        let known = OffsetBounds {
            least: 4_000_000,
            most: 4_000_200,
            at: 100 * S,
            steady_since: 7,
        };
        for (least, most) in [(14_000_000, 14_000_300), (-20, 30)] {
            let set = known.with(least, most, 101 * S);
            assert_eq!((set.least, set.most), (least, most));
            assert_eq!(set.steady_since, 101 * S);
            assert_eq!(set.with(least, most, 102 * S).steady_since, 101 * S);
        }
    }

    #[test]
    fn a_moment_on_redis_clock_is_told_with_its_error() {
        let clock = Clock::new();
        assert_eq!(clock.redis_moment(clock.now(), 0), None);
        let sent = clock.now();
        clock.heard_redis(sent + 5 * S, sent);
        let moment = clock.redis_moment(sent, sent).unwrap();
        assert!(moment.earliest <= sent + 5 * S && sent + 5 * S <= moment.latest);
        // Ten seconds before, the error is greater by what can have drifted.
        let before = clock.redis_moment(sent - 10 * S, sent).unwrap();
        let error = |moment: RedisMoment| moment.latest - moment.earliest;
        assert!(error(before) >= error(moment) + 2 * drift(9 * S));
        // Redis's clock is set: moments before that are not known any more.
        clock.heard_redis(sent + 50 * S, clock.now());
        assert_eq!(clock.redis_moment(sent, sent), None);
        assert!(clock.redis_moment(sent, clock.now()).is_some());
    }
}
