//! An upstream's quota: how many calls in how long, kept by all replicas together through Redis.
//!
//! Promise: no window of a rate's length, wherever it begins, holds more bookings than its count (a sliding-window log, not a
//! counter per clock minute that lets twice as many through around the turn). A call is booked on every rate or on none.
//!
//! Two books are kept. Redis has everyone's bookings; this process has its own, and both must have room: a Redis that comes back
//! empty does not hand this process a second budget. Without a Redis its own book decides alone, so then each replica may spend
//! the whole quota.
//!
//! A booking is for now or for an instant to come. Whoever booked waits for it; a call that is then not made is not given back,
//! since what an upstream has counted cannot be known.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use redis::{RedisResult, Script};

use crate::cache::{RedisDown, RedisPool};
use crate::quantity::Rate;

/// No place is free in time; nothing was booked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spent {
    /// How long until one is free.
    pub retry_after: Duration,
}

/// A question to Redis on a connection that the other side provides.
pub type Ask<'a> = dyn FnMut(&mut redis::Connection) -> RedisResult<(u8, u64)> + 'a;

type Run = dyn Fn(&mut Ask<'_>) -> Option<(u8, u64)> + Send + Sync;

/// Where all replicas book. Cheap to clone.
#[derive(Clone)]
pub struct QuotaStore {
    prefix: String,
    script: Arc<Script>,
    run: Arc<Run>,
}

impl QuotaStore {
    /// A store in the cache's Redis, its keys beginning with `prefix`.
    pub fn in_redis(pool: RedisPool, prefix: impl Into<String>) -> QuotaStore {
        let refusing = AtomicBool::new(false);
        QuotaStore::new(prefix, move |ask| {
            let outcome = pool.run(|connection| ask(connection));
            match &outcome {
                Ok(_) => refusing.store(false, Ordering::Relaxed),
                // The pool tells of an outage itself.
                Err(RedisDown::Unreachable) => {}
                Err(RedisDown::Refused(why)) => {
                    if !refusing.swap(true, Ordering::Relaxed) {
                        log::warn!(
                            "Redis refuses to keep quotas, so each replica may spend all of one: {why}"
                        );
                    }
                }
            }
            outcome.ok()
        })
    }

    /// A store whose keys begin with `prefix`. `run` lends a connection to its argument and returns what that returns, or
    /// `None`, soon, while there is no Redis.
    pub fn new(
        prefix: impl Into<String>,
        run: impl Fn(&mut Ask<'_>) -> Option<(u8, u64)> + Send + Sync + 'static,
    ) -> QuotaStore {
        QuotaStore {
            prefix: prefix.into(),
            script: Arc::new(Script::new(include_str!("quota.lua"))),
            run: Arc::new(run),
        }
    }

    /// Books for `earliest` from now or later but not after `latest` from now; `None` if Redis could not be asked.
    fn book(
        &self,
        upstream: &str,
        rates: &[Rate],
        earliest: Duration,
        latest: Duration,
    ) -> Option<Booked> {
        let mut call = self.script.prepare_invoke();
        call.arg(micros(earliest)).arg(micros(latest));
        for rate in rates {
            // The braces keep an upstream's keys together in a cluster.
            call.key(format!("{{{}:q:{upstream}}}:{rate}", self.prefix));
            call.arg(rate.count).arg(micros(rate.per));
        }
        let (booked, wait) = (self.run)(&mut |connection| call.invoke(connection))?;
        let wait = Duration::from_micros(wait);
        Some(if booked == 1 {
            Booked::In(wait)
        } else {
            Booked::NotBefore(wait)
        })
    }
}

/// What Redis answered, as waits from then.
enum Booked {
    In(Duration),
    NotBefore(Duration),
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// The quota of one upstream, as this process sees it.
pub struct Quota {
    upstream: String,
    rates: Vec<Rate>,
    store: Option<QuotaStore>,
    book: Mutex<Book>,
}

impl fmt::Debug for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rates: Vec<String> = self.rates.iter().map(Rate::to_string).collect();
        write!(f, "Quota({} {rates:?})", self.upstream)
    }
}

impl Quota {
    /// A quota of which this process has spent nothing yet. No rates: only [`Quota::hold`] limits it.
    pub fn new(upstream: impl Into<String>, rates: Vec<Rate>, store: Option<QuotaStore>) -> Quota {
        Quota {
            upstream: upstream.into(),
            rates,
            store,
            book: Mutex::default(),
        }
    }

    /// Books a call and returns when it may be made: blocks until then, which is never after `deadline`. If there is no place
    /// before the deadline it books nothing and returns at once.
    pub fn book(&self, deadline: Instant) -> Result<(), Spent> {
        let at = self.reserve(deadline)?;
        std::thread::sleep(at.saturating_duration_since(Instant::now()));
        Ok(())
    }

    /// Books nothing for this long: the upstream itself says that its quota is spent.
    pub fn hold(&self, time: Duration) {
        self.lock().close(Instant::now() + time);
    }

    fn reserve(&self, deadline: Instant) -> Result<Instant, Spent> {
        // Held while Redis is asked, or two callers would both count on the last place in this process's book.
        let mut book = self.lock();
        let now = Instant::now();
        let earliest = book.earliest(now, &self.rates);
        if earliest > deadline {
            // Also the answer while Redis is known to have no place: it is not asked again before there can be one.
            return Err(Spent {
                retry_after: earliest - now,
            });
        }
        let shared = match &self.store {
            Some(store) if !self.rates.is_empty() => {
                store.book(&self.upstream, &self.rates, earliest - now, deadline - now)
            }
            _ => None,
        };
        // Redis counted its wait from a moment that is past by now, so this instant is no earlier than the one it booked.
        let at = match shared {
            Some(Booked::In(wait)) => earliest.max(Instant::now() + wait),
            Some(Booked::NotBefore(retry_after)) => {
                book.close(Instant::now() + retry_after);
                return Err(Spent { retry_after });
            }
            None => earliest,
        };
        book.enter(at, now, &self.rates);
        Ok(at)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Book> {
        // Nothing in there panics halfway through a change.
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// This process's own bookings, oldest first, as far back as any rate looks.
#[derive(Default)]
struct Book {
    entries: VecDeque<Instant>,
    /// There is no place before this, by Redis's word or the upstream's.
    closed_until: Option<Instant>,
}

impl Book {
    /// The first instant that a call may be booked for.
    fn earliest(&self, now: Instant, rates: &[Rate]) -> Instant {
        // Bookings never go back in time: then only the window that ends with this one can be too full.
        let after = [self.closed_until, self.entries.back().copied()];
        let counted = rates.iter().filter_map(|rate| {
            let first = self.entries.len().checked_sub(rate.count as usize)?;
            Some(*self.entries.get(first)? + rate.per + Duration::from_micros(1))
        });
        after
            .into_iter()
            .flatten()
            .chain(counted)
            .fold(now, Instant::max)
    }

    fn enter(&mut self, at: Instant, now: Instant, rates: &[Rate]) {
        let most = rates
            .iter()
            .map(|rate| rate.count as usize)
            .max()
            .unwrap_or(0);
        let longest = rates.iter().map(|rate| rate.per).max().unwrap_or_default();
        if most > 0 {
            self.entries.push_back(at);
        }
        while self.entries.len() > most
            || self
                .entries
                .front()
                .is_some_and(|first| *first + longest < now)
        {
            self.entries.pop_front();
        }
    }

    fn close(&mut self, until: Instant) {
        self.closed_until = self.closed_until.max(Some(until));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::process::{Child, Command, Stdio};
    use std::sync::atomic::AtomicUsize;

    const DAY: Duration = Duration::from_secs(86_400);

    fn rates(rates: &[&str]) -> Vec<Rate> {
        rates.iter().map(|rate| rate.parse().unwrap()).collect()
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(1)
    }

    /// A window is too full if a booking and the `count`-th after it lie within `per`.
    fn assert_no_window_is_too_full(bookings: &[u64], rates: &[Rate]) {
        assert!(bookings.is_sorted(), "{bookings:?}");
        for rate in rates {
            for window in bookings.windows(rate.count as usize + 1) {
                let width = window[window.len() - 1] - window[0];
                assert!(
                    u128::from(width) > rate.per.as_micros(),
                    "{rate}: {bookings:?}"
                );
            }
        }
    }

    proptest! {
        #[test]
        fn no_window_of_this_process_is_ever_too_full(
            rates in proptest::collection::vec((1_u32..6, 1_u64..200), 1..4),
            steps in proptest::collection::vec((0_u64..60, 0_u64..150), 1..80),
        ) {
            let rates: Vec<Rate> = rates
                .into_iter()
                .map(|(count, per)| Rate { count, per: Duration::from_micros(per) })
                .collect();
            let (mut book, start) = (Book::default(), Instant::now());
            let (mut now, mut bookings) = (start, Vec::new());
            for (pass, patience) in steps {
                now += Duration::from_micros(pass);
                let at = book.earliest(now, &rates);
                if at <= now + Duration::from_micros(patience) {
                    book.enter(at, now, &rates);
                    bookings.push(u64::try_from((at - start).as_micros()).unwrap());
                }
            }
            assert_no_window_is_too_full(&bookings, &rates);
        }
    }

    #[test]
    fn a_place_that_comes_in_time_is_waited_for() {
        let quota = Quota::new("guardian", rates(&["2/200ms"]), None);
        let start = Instant::now();
        for _ in 0..3 {
            quota.book(start + Duration::from_secs(5)).unwrap();
        }
        assert!(start.elapsed() >= Duration::from_millis(200));
    }

    #[test]
    fn one_that_does_not_is_spent_and_books_nothing() {
        let quota = Quota::new("newsapi", rates(&["1/1h", "3/1d"]), None);
        quota.book(soon()).unwrap();
        for _ in 0..5 {
            let Spent { retry_after } = quota.book(soon()).unwrap_err();
            assert!(
                retry_after > Duration::from_secs(3_500)
                    && retry_after < Duration::from_secs(3_601)
            );
        }
        assert_eq!(quota.lock().entries.len(), 1);
    }

    #[test]
    fn a_hold_keeps_even_a_quota_without_rates() {
        let quota = Quota::new("newsapi", Vec::new(), None);
        quota.book(soon()).unwrap();
        quota.hold(DAY);
        quota.hold(Duration::from_secs(1));
        let Spent { retry_after } = quota.book(soon()).unwrap_err();
        assert!(retry_after > Duration::from_secs(86_000), "{retry_after:?}");
    }

    struct Redis {
        server: Child,
        folder: tempfile::TempDir,
    }

    impl Drop for Redis {
        fn drop(&mut self) {
            let _ = self.server.kill();
            let _ = self.server.wait();
        }
    }

    impl Redis {
        fn start() -> Redis {
            let folder = tempfile::tempdir().unwrap();
            let server = Command::new("redis-server")
                .args(["--port", "0", "--save", "", "--unixsocket"])
                .arg(folder.path().join("socket"))
                .current_dir(folder.path())
                .stdout(Stdio::null())
                .spawn()
                .expect("redis-server must be installed");
            let redis = Redis { server, folder };
            let patience = Instant::now() + Duration::from_secs(20);
            while redis.try_connect().is_none() {
                assert!(Instant::now() < patience, "redis-server did not start");
                std::thread::yield_now();
            }
            redis
        }

        fn url(&self) -> String {
            format!(
                "redis+unix://{}",
                self.folder.path().join("socket").display()
            )
        }

        fn try_connect(&self) -> Option<redis::Connection> {
            connect(&self.url())
        }

        fn connect(&self) -> redis::Connection {
            self.try_connect().unwrap()
        }

        /// A replica's quota, and how often it asked Redis.
        fn quota(&self, rates: Vec<Rate>) -> (Quota, Arc<AtomicUsize>) {
            let (url, asked) = (self.url(), Arc::new(AtomicUsize::new(0)));
            let counter = asked.clone();
            let store = QuotaStore::new("test", move |ask| {
                counter.fetch_add(1, Ordering::SeqCst);
                ask(&mut connect(&url)?).ok()
            });
            (Quota::new("newsapi", rates, Some(store)), asked)
        }

        fn log(&self, rate: &str) -> Vec<u64> {
            let key = format!("{{test:q:newsapi}}:{rate}");
            redis::cmd("LRANGE")
                .arg(key)
                .arg(0)
                .arg(-1)
                .query(&mut self.connect())
                .unwrap()
        }
    }

    fn connect(url: &str) -> Option<redis::Connection> {
        let mut connection = redis::Client::open(url).ok()?.get_connection().ok()?;
        redis::cmd("PING").query::<String>(&mut connection).ok()?;
        Some(connection)
    }

    #[test]
    fn replicas_share_one_budget() {
        let redis = Redis::start();
        let replicas = [(); 3].map(|()| redis.quota(rates(&["7/1d"])).0);
        let booked = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for replica in &replicas {
                for _ in 0..10 {
                    scope.spawn(|| match replica.book(soon() + Duration::from_secs(60)) {
                        Ok(()) => booked.fetch_add(1, Ordering::SeqCst),
                        Err(_) => 0,
                    });
                }
            }
        });
        assert_eq!(booked.into_inner(), 7);
        assert_eq!(redis.log("7/1d").len(), 7);
    }

    #[test]
    fn the_caches_own_pool_will_do() {
        let redis = Redis::start();
        let cache = crate::cache::Cache::start(
            &crate::cache::MemorySettings::default(),
            &crate::cache::RedisSettings {
                url: Some(crate::secret::Secret::new(redis.url())),
                ..crate::cache::RedisSettings::default()
            },
            &crate::cache::LoadSettings::default(),
            &crate::cache::CoherenceSettings::default(),
        )
        .unwrap();
        assert!(cache.redis().wait_up(Duration::from_secs(20)));
        let store = QuotaStore::in_redis(cache.redis().clone(), "test");
        let quota = Quota::new("newsapi", rates(&["1/1d"]), Some(store));
        quota.book(soon() + DAY / 48).unwrap();
        assert_eq!(redis.log("1/1d").len(), 1);
    }

    #[test]
    fn rates_are_booked_together_or_not_at_all() {
        let redis = Redis::start();
        let (first, _) = redis.quota(rates(&["10/1d", "1/1h"]));
        let (second, _) = redis.quota(rates(&["10/1d", "1/1h"]));
        first.book(soon() + DAY / 48).unwrap();
        let Spent { retry_after } = second.book(soon()).unwrap_err();
        assert!(
            retry_after > Duration::from_secs(3_500) && retry_after <= Duration::from_secs(3_601)
        );
        assert_eq!((redis.log("10/1d").len(), redis.log("1/1h").len()), (1, 1));
        assert!(second.lock().entries.is_empty());
    }

    #[test]
    fn no_shared_window_is_ever_too_full() {
        let redis = Redis::start();
        let rates = rates(&["3/20ms", "5/50ms"]);
        let replicas = [(); 4].map(|()| redis.quota(rates.clone()).0);
        let bookings = Mutex::new(std::collections::BTreeSet::new());
        std::thread::scope(|scope| {
            for replica in &replicas {
                let (bookings, redis) = (&bookings, &redis);
                scope.spawn(move || {
                    for _ in 0..10 {
                        replica
                            .reserve(Instant::now() + Duration::from_secs(20))
                            .unwrap();
                        // The log keeps its last five: each booking is seen by whoever made it, or by one soon after it.
                        bookings.lock().unwrap().extend(redis.log("5/50ms"));
                    }
                });
            }
        });
        let bookings: Vec<u64> = bookings.into_inner().unwrap().into_iter().collect();
        assert!(bookings.len() >= 10, "{}", bookings.len());
        assert_no_window_is_too_full(&bookings, &rates);
    }

    #[test]
    fn no_booking_goes_before_one_that_is_to_come() {
        let redis = Redis::start();
        let (first, _) = redis.quota(rates(&["9/1d"]));
        let (second, _) = redis.quota(rates(&["9/1d"]));
        let latest = soon() + Duration::from_secs(600);
        first.hold(Duration::from_secs(300));
        let held = first.reserve(latest).unwrap();
        // In the shared book the other replica comes after it.
        let after = second.reserve(latest).unwrap();
        assert!(
            after - Duration::from_secs(290) > Instant::now(),
            "{after:?}"
        );
        assert!(redis.log("9/1d").is_sorted());
        // And in that replica's own, once it is alone.
        drop(redis);
        assert!(second.reserve(latest).unwrap() >= after.max(held) - Duration::from_secs(1));
        assert!(second.lock().entries.iter().is_sorted());
    }

    #[test]
    fn an_emptied_redis_gives_no_second_budget() {
        let redis = Redis::start();
        let (quota, _) = redis.quota(rates(&["2/1d"]));
        quota.book(soon() + DAY / 48).unwrap();
        quota.book(soon() + DAY / 48).unwrap();
        redis::cmd("FLUSHALL").exec(&mut redis.connect()).unwrap();
        quota.book(soon()).unwrap_err();
    }

    #[test]
    fn without_redis_this_process_keeps_the_quota_alone() {
        let redis = Redis::start();
        let (quota, asked) = redis.quota(rates(&["2/1d"]));
        quota.book(soon() + DAY / 48).unwrap();
        drop(redis);
        quota.book(soon() + DAY / 48).unwrap();
        assert_eq!(asked.load(Ordering::SeqCst), 2);
        quota.book(soon()).unwrap_err();
    }

    #[test]
    fn while_spent_redis_is_not_asked() {
        let redis = Redis::start();
        let (spender, _) = redis.quota(rates(&["1/1d"]));
        spender.book(soon() + DAY / 48).unwrap();
        let (quota, asked) = redis.quota(rates(&["1/1d"]));
        for _ in 0..5 {
            let Spent { retry_after } = quota.book(soon()).unwrap_err();
            assert!(retry_after > Duration::from_secs(86_000), "{retry_after:?}");
        }
        assert_eq!(asked.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn its_keys_expire() {
        let redis = Redis::start();
        let (quota, _) = redis.quota(rates(&["1/1h"]));
        quota.book(soon() + DAY / 48).unwrap();
        let left: i64 = redis::cmd("PTTL")
            .arg("{test:q:newsapi}:1/1h")
            .query(&mut redis.connect())
            .unwrap();
        assert!(left > 3_500_000 && left <= 3_600_002, "{left}");
    }

    #[test]
    fn a_booking_by_a_wrong_clock_is_forgotten() {
        let redis = Redis::start();
        let year_2100 = 4_102_444_800_000_000_u64;
        redis::cmd("RPUSH")
            .arg("{test:q:newsapi}:1/1h")
            .arg(year_2100)
            .exec(&mut redis.connect())
            .unwrap();
        let (quota, _) = redis.quota(rates(&["1/1h"]));
        quota.book(soon() + DAY / 48).unwrap();
        assert!(redis.log("1/1h")[0] < year_2100);
    }
}
