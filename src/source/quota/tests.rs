//! The quota of one process, and of several over a real Redis.

use super::*;
use proptest::prelude::*;
use std::sync::atomic::{AtomicUsize, Ordering};
use testkit::redis::RedisServer;

const CALLS: &str = "{test:q:newsapi}:calls";
const DAY: Duration = Duration::from_secs(86_400);

fn rates(rates: &[&str]) -> Vec<Rate> {
    rates.iter().map(|rate| rate.parse().unwrap()).collect()
}

#[test]
fn the_log_is_told_once_and_not_again_and_again() {
    let (mut told, start) = (Logged::default(), Instant::now());
    let at = |seconds| start + Duration::from_secs(seconds);
    assert!(!told.back());
    assert!(told.spent(at(0)));
    assert!(!told.spent(at(100)), "it is still spent");
    assert!(told.back());
    assert!(!told.back());
    assert!(told.spent(at(100)));
    assert!(told.back());
    assert!(
        !told.spent(at(101)) && !told.back(),
        "a quota of one a second is spent every second"
    );
    assert!(told.spent(at(160)));
}

fn until(what: &str, done: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::yield_now();
    }
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
        for (pass, wait) in steps {
            now += Duration::from_micros(pass);
            let at = book.earliest(now, &rates);
            if at <= now + Duration::from_micros(wait) {
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
            retry_after > Duration::from_secs(3_500) && retry_after < Duration::from_secs(3_601)
        );
    }
    assert_eq!(quota.core.book.lock().entries.len(), 1);
}

struct Redis(RedisServer);

impl Redis {
    fn start() -> Redis {
        Redis(RedisServer::start())
    }

    fn url(&self) -> String {
        self.0.socket_url()
    }

    fn connect(&self) -> redis::Connection {
        connect(&self.url()).unwrap()
    }

    fn store(&self) -> QuotaStore {
        let url = self.url();
        QuotaStore::new("test", move |ask| ask(&mut connect(&url)?).ok())
    }

    /// A replica's quota.
    fn replica(&self, rate: &str) -> Quota {
        Quota::new("newsapi", rates(&[rate]), Some(self.store()))
    }

    /// One that speaks to Redis only when it books, and how often it did.
    fn quota(&self, rates: Vec<Rate>) -> (Quota, Arc<AtomicUsize>) {
        let (store, asked) = (self.url(), Arc::new(AtomicUsize::new(0)));
        let counter = asked.clone();
        let store = QuotaStore::new("test", move |ask| {
            counter.fetch_add(1, Ordering::SeqCst);
            ask(&mut connect(&store)?).ok()
        });
        (Quota::without_keeper("newsapi", rates, Some(store)), asked)
    }

    /// The times of the calls that are booked.
    fn log(&self) -> Vec<u64> {
        let calls: Vec<(String, f64)> = redis::cmd("ZRANGEBYSCORE")
            .arg(CALLS)
            .arg("(0")
            .arg("+inf")
            .arg("WITHSCORES")
            .query(&mut self.connect())
            .unwrap();
        calls.into_iter().map(|(_, at)| at as u64).collect()
    }

    fn empty(&self) {
        redis::cmd("FLUSHALL").exec(&mut self.connect()).unwrap();
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
    assert_eq!(redis.log().len(), 7);
}

#[test]
fn the_caches_own_pool_will_do() {
    let redis = Redis::start();
    let cache = larder_cache::Cache::start(
        &larder_cache::MemorySettings::default(),
        &larder_cache::RedisSettings {
            url: Some(larder_cache::Secret::new(redis.url())),
            ..larder_cache::RedisSettings::default()
        },
        &larder_cache::LoadSettings::default(),
        &larder_cache::CoherenceSettings::default(),
    )
    .unwrap();
    assert!(cache.redis().wait_up(Duration::from_secs(20)));
    let store = QuotaStore::in_redis(cache.redis().clone(), "test");
    let quota = Quota::new("newsapi", rates(&["1/1d"]), Some(store));
    quota.book(soon() + DAY / 48).unwrap();
    assert_eq!(redis.log().len(), 1);
}

#[test]
fn rates_are_booked_together_or_not_at_all() {
    let redis = Redis::start();
    let (first, _) = redis.quota(rates(&["10/1d", "1/1h"]));
    let (second, _) = redis.quota(rates(&["10/1d", "1/1h"]));
    first.book(soon() + DAY / 48).unwrap();
    let Spent { retry_after } = second.book(soon()).unwrap_err();
    assert!(retry_after > Duration::from_secs(3_500) && retry_after <= Duration::from_secs(3_601));
    assert_eq!(redis.log().len(), 1);
    assert!(second.core.book.lock().entries.is_empty());
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
                        .core
                        .reserve(Instant::now() + Duration::from_secs(20))
                        .unwrap();
                    // None is forgotten while it counts: each booking is seen by whoever made it,
                    // or by one soon after it.
                    bookings.lock().extend(redis.log());
                }
            });
        }
    });
    let bookings: Vec<u64> = bookings.into_inner().into_iter().collect();
    assert!(bookings.len() >= 10, "{}", bookings.len());
    assert_no_window_is_too_full(&bookings, &rates);
}

#[test]
fn no_booking_goes_before_one_that_is_to_come() {
    let redis = Redis::start();
    let (first, _) = redis.quota(rates(&["9/1d"]));
    let (second, _) = redis.quota(rates(&["9/1d"]));
    let latest = soon() + Duration::from_secs(600);
    first
        .core
        .book
        .lock()
        .close(Instant::now() + Duration::from_secs(300));
    let held = first.core.reserve(latest).unwrap();
    // In the shared book the other replica comes after it.
    let after = second.core.reserve(latest).unwrap();
    assert!(
        after - Duration::from_secs(290) > Instant::now(),
        "{after:?}"
    );
    assert!(redis.log().is_sorted());
    // And in that replica's own, once it is alone.
    drop(redis);
    assert!(second.core.reserve(latest).unwrap() >= after.max(held) - Duration::from_secs(1));
    assert!(
        second
            .core
            .book
            .lock()
            .entries
            .iter()
            .is_sorted_by_key(|entry| entry.at)
    );
}

#[test]
fn an_emptied_redis_gives_no_second_budget() {
    let redis = Redis::start();
    let (quota, _) = redis.quota(rates(&["2/1d"]));
    quota.book(soon() + DAY / 48).unwrap();
    quota.book(soon() + DAY / 48).unwrap();
    redis.empty();
    quota.book(soon()).unwrap_err();
}

#[test]
fn without_redis_this_process_keeps_the_quota_alone() {
    let redis = Redis::start();
    let (quota, asked) = redis.quota(rates(&["2/1d"]));
    quota.book(soon() + DAY / 48).unwrap();
    drop(redis);
    quota.book(soon() + DAY / 48).unwrap();
    let so_far = asked.load(Ordering::SeqCst);
    quota.book(soon()).unwrap_err();
    assert_eq!(asked.load(Ordering::SeqCst), so_far);
}

/// Books with so much time on the replicas in turn, all at once; how many were booked.
fn booked(replicas: &[Quota], times: usize, wait: Duration) -> usize {
    std::thread::scope(|scope| {
        let books: Vec<_> = (0..times)
            .map(|i| scope.spawn(move || replicas[i % replicas.len()].book(soon() + wait)))
            .collect();
        let books = books.into_iter().map(|book| book.join().unwrap());
        books.filter(Result::is_ok).count()
    })
}

fn know_each_other(replicas: &[Quota; 2]) {
    until("the replicas know each other", || {
        // A name and a time of each.
        let known = |replica: &Quota| replica.core.book.lock().membership.others.len();
        replicas.iter().all(|replica| known(replica) == 4)
    });
}

#[test]
fn what_replicas_booked_outlives_a_redis_that_comes_back_empty() {
    let wait = Duration::from_secs(15);
    // Whoever is asked first afterwards has booked more, or less.
    for spent in [[2, 1], [1, 2], [1, 1]] {
        let mut redis = Redis::start();
        let replicas = [(); 2].map(|()| redis.replica("3/1d"));
        for (replica, times) in replicas.iter().zip(spent) {
            for _ in 0..times {
                replica.book(soon() + wait).unwrap();
            }
        }
        know_each_other(&replicas);
        redis.0.restart();
        let spent: usize = spent.into_iter().sum();
        assert_eq!(booked(&replicas, 6, wait), 3 - spent);
        assert_eq!(redis.log().len(), 3);
    }
}

#[test]
fn what_was_booked_without_redis_is_entered_when_it_is_back() {
    let mut redis = Redis::start();
    let wait = Duration::from_secs(15);
    let replicas = [(); 2].map(|()| redis.replica("4/1d"));
    for replica in &replicas {
        replica.book(soon() + wait).unwrap();
    }
    know_each_other(&replicas);
    redis.0.kill();
    replicas[0].book(soon() + wait).unwrap();
    redis.0.restart();
    // By itself, also while nobody books.
    until("all three are in Redis", || redis.log().len() == 3);
    assert_eq!(booked(&replicas, 6, wait), 1);
}

#[test]
fn an_old_copy_of_redis_is_noticed() {
    let redis = Redis::start();
    let (quota, _) = redis.quota(rates(&["9/1d"]));
    quota.book(soon() + DAY).unwrap();
    let copy: Vec<u8> = redis::cmd("DUMP")
        .arg(CALLS)
        .query(&mut redis.connect())
        .unwrap();
    quota.book(soon() + DAY).unwrap();
    redis::cmd("RESTORE")
        .arg(CALLS)
        .arg(0)
        .arg(copy)
        .arg("REPLACE")
        .exec(&mut redis.connect())
        .unwrap();
    assert_eq!(redis.log().len(), 1);
    quota.core.check_in();
    assert_eq!(redis.log().len(), 2);
}

#[test]
fn nothing_is_counted_twice() {
    let redis = Redis::start();
    let (quota, _) = redis.quota(rates(&["9000/1d"]));
    let now = Instant::now();
    // More than one script brings.
    for _ in 0..2_500 {
        quota.core.book.lock().enter(now, now, &quota.core.rates);
    }
    for _ in 0..3 {
        quota.core.book.lock().membership.unsynced = true;
        quota.core.check_in();
        assert_eq!(redis.log().len(), 2_500);
    }
    quota.book(soon() + DAY).unwrap();
    assert_eq!(redis.log().len(), 2_501);
}

#[test]
fn nor_is_a_booking_whose_answer_was_lost() {
    let redis = Redis::start();
    let (url, asked) = (redis.url(), AtomicUsize::new(0));
    let store = QuotaStore::new("test", move |ask| {
        let reply = ask(&mut connect(&url)?).ok();
        reply.filter(|_| asked.fetch_add(1, Ordering::SeqCst) % 2 == 0)
    });
    let quota = Quota::without_keeper("newsapi", rates(&["3/1d"]), Some(store));
    // With time it asks again; without, it enters the call itself and brings it later.
    quota.book(soon() + DAY).unwrap();
    quota.book(soon() + DAY).unwrap();
    assert_eq!(redis.log().len(), 2);
    quota.core.check_in();
    quota.book(soon()).unwrap();
    assert_eq!(quota.core.book.lock().entries.len(), 3);
    quota.core.check_in();
    assert_eq!(redis.log().len(), 3);
}

#[test]
fn one_that_has_gone_is_not_awaited_for_long() {
    let redis = Redis::start();
    let [stays, goes] = [(); 2].map(|()| redis.quota(rates(&["9/1d"])).0);
    for replica in [&goes, &stays] {
        replica.book(soon() + DAY).unwrap();
    }
    redis.empty();
    let Spent { retry_after } = stays.book(soon()).unwrap_err();
    assert!(retry_after <= Duration::from_secs(3), "{retry_after:?}");
    assert_eq!(redis.log().len(), 1);
    let start = Instant::now();
    stays.book(soon() + DAY).unwrap();
    assert!(start.elapsed() > Duration::from_secs(1));
    assert!(start.elapsed() < Duration::from_secs(10));
    // It was only away: better late than never.
    goes.core.check_in();
    assert_eq!(redis.log().len(), 3);
}

#[test]
fn one_replica_alone_awaits_nobody() {
    let redis = Redis::start();
    let quota = redis.replica("9/1d");
    quota.book(soon() + DAY).unwrap();
    redis.empty();
    // To wait for others would take more than a second.
    quota.book(soon() + Duration::from_millis(500)).unwrap();
    assert_eq!(redis.log().len(), 2);
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
fn what_no_window_holds_any_more_leaves_redis_and_nothing_is_to_be_evicted() {
    let redis = Redis::start();
    let (quota, _) = redis.quota(rates(&["1/1ms", "2/2ms"]));
    for _ in 0..9 {
        quota.book(soon() + DAY).unwrap();
    }
    assert!(redis.log().len() <= 3, "{:?}", redis.log());
    let left: i64 = redis::cmd("PTTL")
        .arg(CALLS)
        .query(&mut redis.connect())
        .unwrap();
    assert_eq!(left, -1);
}

#[test]
fn a_booking_by_a_wrong_clock_is_forgotten() {
    let redis = Redis::start();
    let year_2100 = 4_102_444_800_000_000_u64;
    redis::cmd("ZADD")
        .arg(CALLS)
        .arg(year_2100)
        .arg("someone-0")
        .exec(&mut redis.connect())
        .unwrap();
    let (quota, _) = redis.quota(rates(&["1/1h"]));
    quota.book(soon() + DAY / 48).unwrap();
    assert_eq!(redis.log().len(), 1);
    assert!(redis.log()[0] < year_2100);
}

#[test]
fn what_is_left_counts_the_calls_of_all_replicas_and_without_redis_its_own() {
    let redis = Redis::start();
    let [one, other] = [(); 2].map(|()| redis.quota(rates(&["9/1d", "4/1h"])).0);
    let left = |quota: &Quota| -> Vec<u64> { quota.left().iter().map(|(_, left)| *left).collect() };
    assert_eq!(left(&one), [9, 4]);
    one.book(soon() + DAY).unwrap();
    one.book(soon() + DAY).unwrap();
    assert_eq!(left(&one), [7, 2]);
    assert_eq!(left(&other), [9, 4], "it has not asked Redis yet");
    other.core.check_in();
    assert_eq!(left(&other), [7, 2]);
    other.book(soon() + DAY).unwrap();
    one.core.check_in();
    assert_eq!(left(&one), [6, 1]);
    let asking = other.core.book.lock();
    assert_eq!(left(&other), [6, 1], "as it was when Redis was asked last");
    drop(asking);
    drop(redis);
    other.core.check_in();
    assert_eq!(left(&other), [8, 3]);
    let alone = Quota::new("newsapi", rates(&["1/1h"]), None);
    alone.book(soon()).unwrap();
    assert_eq!(left(&alone), [0]);
}
