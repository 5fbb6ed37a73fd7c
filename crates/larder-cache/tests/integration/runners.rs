//! Loads that their callers run: futures on several runtimes, and closures that borrow.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use larder_cache::{
    Cache, Error, Inserted, InvalidationTarget, Lifetime, LoadError, Outcome, Policy, Purge,
    Staleness, TaggedKey, TestClock, Typed,
};

use super::{policy, trusted};
use testkit::redis::RedisServer;
use testkit::{SOON, until};

type Found = Result<(Arc<u32>, Outcome), Error<String>>;

fn numbers(cache: &Cache) -> Typed<u32> {
    cache.typed::<u32>("number", 1).unwrap()
}

fn of(n: u32) -> TaggedKey {
    TaggedKey::new().with("n", n).tag("numbers")
}

/// Runs `future` on this thread, without any runtime.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    let deadline = Instant::now() + SOON;
    loop {
        if let Poll::Ready(ready) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return ready;
        }
        assert!(Instant::now() < deadline, "it hangs");
        thread::park_timeout(SOON);
    }
}

/// Is pending `count` times, and wakes its task each time.
async fn pending(mut count: usize) {
    poll_fn(|context| {
        if count == 0 {
            return Poll::Ready(());
        }
        count -= 1;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

async fn loads(n: u32, after: usize) -> Result<u32, String> {
    pending(after).await;
    Ok(n)
}

fn value(found: Found) -> (u32, Outcome) {
    let (value, outcome) = found.unwrap();
    (*value, outcome)
}

fn running(cache: &Cache) -> usize {
    cache.shares().iter().map(|share| share.running).sum()
}

/// The leases in Redis.
fn leases(redis: &RedisServer) -> Vec<String> {
    redis.cli(&["KEYS", "larder:l:*"])
}

/// A future that is polled by hand, and knows whether it was woken.
struct Task<'f, T> {
    future: Pin<Box<dyn Future<Output = T> + 'f>>,
    woken: Arc<Woken>,
}

struct Woken {
    is: AtomicBool,
    thread: thread::Thread,
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.is.store(true, Ordering::SeqCst);
        self.thread.unpark();
    }
}

impl<'f, T> Task<'f, T> {
    fn new(future: impl Future<Output = T> + 'f) -> Task<'f, T> {
        let woken = Arc::new(Woken {
            is: AtomicBool::new(true),
            thread: thread::current(),
        });
        Task {
            future: Box::pin(future),
            woken,
        }
    }

    /// Polls it once it is woken. `None`: it was never woken.
    fn poll(&mut self) -> Option<Poll<T>> {
        let deadline = Instant::now() + SOON;
        while !self.woken.is.swap(false, Ordering::SeqCst) {
            if Instant::now() >= deadline {
                return None;
            }
            thread::park_timeout(SOON);
        }
        let waker = Waker::from(self.woken.clone());
        Some(self.future.as_mut().poll(&mut Context::from_waker(&waker)))
    }
}

#[test]
fn a_load_is_a_future_of_whatever_runtime() {
    let redis = RedisServer::start();
    let (cache, other) = (trusted(&redis.url()), trusted(&redis.url()));
    let (numbers, elsewhere) = (numbers(&cache), numbers(&other));
    let policy = policy();
    // On a thread that no runtime knows.
    let found = block_on(numbers.get_or_load_async(of(1), &policy, loads(1, 3)));
    assert_eq!(value(found), (1, Outcome::Loaded));

    // Tasks of tokio on several threads, with a loader that needs that runtime.
    let tokio = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let counted = Arc::new(AtomicUsize::new(0));
    let tasks: Vec<_> = (0..20)
        .map(|_| {
            let (numbers, counted, policy) = (numbers.clone(), counted.clone(), policy.clone());
            tokio.spawn(async move {
                let load = async {
                    counted.fetch_add(1, Ordering::SeqCst);
                    let brought = tokio::spawn(async { 2 }).await;
                    brought.map_err(|error| error.to_string())
                };
                numbers.get_or_load_async(of(2), &policy, load).await
            })
        })
        .collect();
    for task in tasks {
        assert_eq!(value(tokio.block_on(task).unwrap()).0, 2);
    }
    assert_eq!(counted.load(Ordering::SeqCst), 1, "one load for all");

    // A future that is not `Send`, on actix.
    let system = actix_web::rt::System::new();
    let local = std::rc::Rc::new(3);
    let load = async {
        let here = local.clone();
        let brought = actix_web::rt::spawn(async move { *here }).await;
        brought.map_err(|error| error.to_string())
    };
    let found = system.block_on(numbers.get_or_load_async(of(3), &policy, load));
    assert_eq!(value(found), (3, Outcome::Loaded));

    // smol, with a loader that waits for smol's own thread.
    let load = async { Ok::<u32, String>(smol::unblock(|| 4).await) };
    let found = smol::block_on(numbers.get_or_load_async(of(4), &policy, load));
    assert_eq!(value(found), (4, Outcome::Loaded));

    // Each of them has filled both tiers.
    for n in 1..=4 {
        let never = async || Err::<u32, _>("it is there".to_owned());
        let here = block_on(numbers.get_or_load_async(of(n), &policy, never()));
        assert_eq!(value(here), (n, Outcome::MemoryHit));
        let there = block_on(elsewhere.get_or_load_async(of(n), &policy, never()));
        assert_eq!(value(there), (n, Outcome::RedisHit));
    }
    assert_eq!((running(&cache), leases(&redis).len()), (0, 0));
}

#[test]
fn a_load_that_is_dropped_at_any_await_point_gives_back_its_lease_and_hangs_nobody() {
    let redis = RedisServer::start();
    let (cache, other) = (trusted(&redis.url()), trusted(&redis.url()));
    let (numbers, elsewhere) = (numbers(&cache), numbers(&other));
    let policy = policy();
    // Redis is read, the lease is taken, the loader is polled, Redis is filled.
    for (n, polls) in (0..8).enumerate() {
        let key = || of(n as u32);
        let mut task = Task::new(numbers.get_or_load_async(key(), &policy, loads(1, 3)));
        let ended = (0..polls).any(|_| task.poll().expect("it is woken").is_ready());
        drop(task);
        // The next reader, on another replica, need not wait for the lease to expire.
        let began = Instant::now();
        let found = block_on(elsewhere.get_or_load_async(key(), &policy, loads(2, 0)));
        let (found, _) = value(found);
        assert!(
            found == 2 || found == 1 && polls > 4,
            "{found} after {polls} polls"
        );
        assert!(!ended || found == 1);
        assert!(began.elapsed() < SOON);
        until(SOON, "the permit and the lease are free", || {
            running(&cache) == 0 && leases(&redis).is_empty()
        });
    }
}

#[test]
fn a_follower_takes_over_the_load_of_one_that_is_dropped_with_its_lease() {
    let redis = RedisServer::start();
    let cache = trusted(&redis.url());
    let (numbers, policy) = (numbers(&cache), policy());
    let polled = AtomicUsize::new(0);
    let hangs = async {
        polled.fetch_add(1, Ordering::SeqCst);
        std::future::pending::<Result<u32, String>>().await
    };
    let mut leader = Task::new(numbers.get_or_load_async(of(1), &policy, hangs));
    while polled.load(Ordering::SeqCst) == 0 {
        assert!(leader.poll().expect("it is woken").is_pending());
    }
    let lease = || redis.cli::<String>(&["GET", &leases(&redis)[0]]);
    let before = lease();
    // Followers of three kinds.
    let mut follower = Task::new(numbers.get_or_load_async(of(1), &policy, loads(2, 1)));
    assert!(follower.poll().unwrap().is_pending());
    thread::scope(|scope| {
        let (began, begins) = mpsc::channel();
        let (numbers, policy) = (&numbers, &policy);
        let borrows = scope.spawn(move || {
            began.send(()).unwrap();
            numbers.get_or_load_here(of(1), policy, || Ok::<u32, String>(3))
        });
        begins.recv().unwrap();
        let on_thread = numbers.get_or_load_blocking(of(1), policy, || Ok::<u32, String>(4));
        assert_eq!(lease(), before, "one load has the lease");
        drop(leader);
        let (taken, outcome) = loop {
            if let Poll::Ready(found) = follower.poll().unwrap() {
                break value(found);
            }
        };
        assert_eq!(taken, 2);
        assert_eq!(outcome, Outcome::Loaded);
        assert_eq!(value(block_on(on_thread)), (2, Outcome::Collapsed));
        assert_eq!(value(borrows.join().unwrap()).0, 2);
    });
    until(SOON, "the permit and the lease are free", || {
        running(&cache) == 0 && leases(&redis).is_empty()
    });
}

#[test]
fn a_future_that_never_ends_is_dropped_by_its_callers_timeout() {
    let redis = RedisServer::start();
    let cache = trusted(&redis.url());
    let (numbers, policy) = (numbers(&cache), policy());
    let hangs = || std::future::pending::<Result<u32, String>>();
    let tokio = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    tokio.block_on(async {
        let brief = Duration::from_millis(20);
        let ask =
            || tokio::time::timeout(brief, numbers.get_or_load_async(of(1), &policy, hangs()));
        // A leader and followers, each of which takes the load over and hangs in turn.
        let (a, b, c) = (ask(), ask(), ask());
        let (a, b, c) = tokio::join!(a, b, c);
        assert!(a.is_err() && b.is_err() && c.is_err());
        let found = numbers.get_or_load_async(of(1), &policy, loads(5, 1));
        let found = tokio::time::timeout(SOON, found)
            .await
            .expect("it does not hang");
        assert_eq!(value(found).0, 5);
    });
}

#[test]
fn a_loader_that_panics_is_an_error_for_all_who_wait_and_the_runtime_goes_on() {
    let cache = Cache::builder().build().unwrap();
    let (numbers, policy) = (numbers(&cache), policy().retry_at_once());
    async fn panics() -> Result<u32, String> {
        pending(1).await;
        panic!("a load may panic")
    }
    let tokio = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    tokio.block_on(async {
        let ask = || numbers.get_or_load_async(of(1), &policy, panics());
        let (a, b) = tokio::join!(ask(), ask());
        for found in [a, b] {
            let Err(Error::Cache(LoadError::Failed(why))) = found else {
                panic!("{found:?}");
            };
            assert_eq!(why, "the load panicked");
        }
        let found = numbers.get_or_load_async(of(1), &policy, loads(1, 0)).await;
        assert_eq!(value(found), (1, Outcome::Loaded));
    });
}

#[test]
fn the_loaders_own_error_comes_back_to_all_who_waited_here_and_as_text_elsewhere() {
    #[derive(Debug, PartialEq)]
    struct NoStation(u32);
    impl std::fmt::Display for NoStation {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(f, "station {} is not there", self.0)
        }
    }
    let redis = RedisServer::start();
    let (cache, other) = (trusted(&redis.url()), trusted(&redis.url()));
    let (numbers, elsewhere) = (numbers(&cache), numbers(&other));
    let policy = policy();
    let (release, gate) = mpsc::channel::<()>();
    let (started, starts) = mpsc::channel();
    let leader = numbers.get_or_load_blocking(of(1), &policy, move || {
        started.send(()).unwrap();
        let _ = gate.recv();
        Err::<u32, _>(NoStation(1))
    });
    starts.recv().unwrap();
    let mut follower =
        Task::new(numbers.get_or_load_async(of(1), &policy, async { Err::<u32, _>(NoStation(2)) }));
    assert!(follower.poll().unwrap().is_pending());
    let reads = redis.calls("mget");
    let mut replica = Task::new(
        elsewhere.get_or_load_async(of(1), &policy, async { Err::<u32, _>(NoStation(3)) }),
    );
    assert!(replica.poll().unwrap().is_pending());
    // One read, and another once it waits for the lease.
    until(SOON, "it waits for the load here", || {
        redis.calls("mget") >= reads + 2
    });
    release.send(()).unwrap();
    let Err(Error::Load(one)) = block_on(leader) else {
        panic!("the leader's own error");
    };
    let Some(Poll::Ready(Err(Error::Load(same)))) = follower.poll() else {
        panic!("the follower gets the leader's");
    };
    assert!(Arc::ptr_eq(&one, &same) && *one == NoStation(1));
    let far = loop {
        if let Poll::Ready(far) = replica.poll().unwrap() {
            break far.unwrap_err();
        }
    };
    assert!(far.load().is_none(), "{far:?}");
    assert_eq!(far.to_string(), "station 1 is not there");
    // During the pause, the cache says so itself.
    let paused = numbers.get_or_load_here(of(1), &policy, || Err::<u32, _>(NoStation(4)));
    let Err(Error::Cache(LoadError::BackingOff { what, .. })) = paused else {
        panic!("{paused:?}");
    };
    assert_eq!(what, "station 1 is not there");
}

#[test]
fn loaders_borrow_from_their_callers() {
    let cache = Cache::builder().build().unwrap();
    let (numbers, policy) = (numbers(&cache), policy());
    let table = [10, 20, 30];
    let mut asked = Vec::new();
    let found = numbers.get_or_load_here(of(1), &policy, || {
        asked.push(1);
        Ok::<u32, String>(table[1])
    });
    assert_eq!(value(found), (20, Outcome::Loaded));
    let load = async {
        asked.push(2);
        pending(2).await;
        Ok::<u32, String>(table[2])
    };
    let found = block_on(numbers.get_or_load_async(of(2), &policy, load));
    assert_eq!(value(found), (30, Outcome::Loaded));
    assert_eq!(asked, [1, 2]);
    let absent = numbers.find_or_load_here(of(3), &policy, || Ok::<Option<u32>, String>(None));
    assert_eq!(absent.unwrap(), (None, Outcome::Loaded));
    let load = async { Ok::<Option<u32>, String>(table.first().copied()) };
    let absent = block_on(numbers.find_or_load_async(of(3), &policy, load));
    assert_eq!(absent.unwrap(), (None, Outcome::MemoryHit));
}

#[test]
fn a_value_says_how_long_it_lives_and_a_test_moves_the_clock() {
    let clock = TestClock::new();
    let cache = Cache::builder().test_clock(&clock).build().unwrap();
    // A number lives for so many seconds.
    let numbers = numbers(&cache).lifetime_from(|n| match n {
        0 => Lifetime::NoStore,
        n => Lifetime::MaxAge(Duration::from_secs((*n).into())),
    });
    let minute = Duration::from_secs(60);
    let policy = Policy::new(minute, Duration::ZERO).exact_ttl();
    let ask = |n: u32| {
        let found = numbers.get_or_load_here(of(n), &policy, || Ok::<u32, String>(n));
        value(found).1
    };
    assert_eq!([5, 90, 0].map(ask), [Outcome::Loaded; 3]);
    assert_eq!(
        [5, 90, 0].map(ask),
        [Outcome::MemoryHit, Outcome::MemoryHit, Outcome::Loaded]
    );
    clock.advance(Duration::from_micros(4_999_999));
    assert_eq!(ask(5), Outcome::MemoryHit);
    clock.advance(Duration::from_micros(1));
    assert_eq!([5, 90].map(ask), [Outcome::Loaded, Outcome::MemoryHit]);
    // No longer than policy says.
    clock.advance(Duration::from_secs(54));
    assert_eq!(ask(90), Outcome::MemoryHit);
    clock.advance(Duration::from_secs(1));
    assert_eq!(ask(90), Outcome::Loaded);
    // Memory is empty, not only unwilling.
    clock.advance(Duration::from_secs(3600));
    assert_eq!(cache.memory().entries, 0);
    // So does one that is inserted.
    let insert = |n: u32| {
        let receipt = numbers.insert(of(n), n, &cache.stamp(), &policy);
        receipt.unwrap().inserted
    };
    assert_eq!(
        [insert(5), insert(0)],
        [Inserted::Here, Inserted::NotCached]
    );
    assert_eq!([5, 0].map(ask), [Outcome::MemoryHit, Outcome::Loaded]);
    clock.advance(Duration::from_secs(5));
    assert_eq!(ask(5), Outcome::Loaded);
}

#[test]
fn pauses_and_stale_times_follow_the_clock_of_a_test() {
    let clock = TestClock::new();
    let cache = Cache::builder().test_clock(&clock).build().unwrap();
    let numbers = numbers(&cache);
    let second = Duration::from_secs(1);
    let policy = Policy::new(100 * second, Duration::ZERO)
        .stale(10 * second, 50 * second)
        .exact_ttl();
    let fails = |policy: &Policy| {
        numbers.get_or_load_here(of(1), policy, || Err::<u32, _>("no".to_owned()))
    };
    assert!(fails(&policy).unwrap_err().load().is_some());
    assert!(fails(&policy).unwrap_err().load().is_none(), "it pauses");
    clock.advance(second);
    assert!(fails(&policy).unwrap_err().load().is_some());
    let at_once = policy.clone().retry_at_once();
    clock.advance(100 * second);
    for _ in 0..3 {
        assert!(fails(&at_once).unwrap_err().load().is_some());
    }
    let found = numbers.get_or_load_here(of(1), &policy, || Ok::<u32, String>(1));
    assert_eq!(value(found), (1, Outcome::Loaded));
    // A loader for a thread of the cache renews behind the answer.
    clock.advance(105 * second);
    let renewed = numbers.get_or_load(of(1), &policy, || Ok::<u32, String>(2));
    let stale = Outcome::Stale(Staleness::WhileRevalidate);
    assert_eq!(value(renewed), (1, stale));
    until(SOON, "it is renewed", || {
        let found = numbers.get_or_load(of(1), &policy, || Ok::<u32, String>(2));
        value(found) == (2, Outcome::MemoryHit)
    });
    // Past that, it stands in for a load that fails; and then not any more.
    clock.advance(120 * second);
    assert_eq!(
        value(fails(&at_once)),
        (2, Outcome::Stale(Staleness::IfError))
    );
    clock.advance(31 * second);
    assert!(fails(&at_once).is_err());
}

#[test]
fn a_change_during_a_load_is_not_lost_whoever_runs_it() {
    let cache = Cache::builder().build().unwrap();
    let (numbers, policy) = (numbers(&cache), policy());
    let mut leader = Task::new(numbers.get_or_load_async(of(1), &policy, loads(1, 2)));
    assert!(leader.poll().unwrap().is_pending());
    cache.invalidate(&[InvalidationTarget::tag("numbers")], Purge::Hard);
    // One who comes after the change does not join that load.
    let found = block_on(numbers.get_or_load_async(of(1), &policy, loads(2, 0)));
    assert_eq!(value(found), (2, Outcome::Loaded));
    loop {
        // This read was under way when it changed.
        if let Poll::Ready(found) = leader.poll().unwrap() {
            assert_eq!(value(found).0, 1);
            break;
        }
    }
    let found = block_on(numbers.get_or_load_async(of(1), &policy, loads(3, 0)));
    assert!(value(found).0 != 1);
}
