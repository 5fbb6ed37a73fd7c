//! Readers that run the load themselves, without Redis.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::AtomicBool;
use std::task::{Context, Poll, Wake, Waker};

use super::*;
use crate::lookup::begin_to_run;
use crate::single_flight::Runner;

fn runner(cache: &Cache, name: &str, policy: &Arc<Policy>) -> Runner {
    begin_to_run(&cache.tiers, item(name, policy), Caller::default(), None)
}

/// A cache without a Redis, which starts no thread for loads of runners.
fn alone(at_once: usize, waiting: usize) -> Cache {
    let builder = Cache::builder().loads(at_once, waiting);
    builder.build().unwrap()
}

fn running(cache: &Cache) -> usize {
    cache.shares().iter().map(|share| share.running).sum()
}

/// A task that is polled by hand.
struct Task<'f> {
    future: Pin<Box<dyn Future<Output = LookupResult> + 'f>>,
    woken: Arc<Woken>,
}

#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

impl<'f> Task<'f> {
    fn new(future: impl Future<Output = LookupResult> + 'f) -> Task<'f> {
        let woken = Arc::new(Woken::default());
        woken.clone().wake();
        Task {
            future: Box::pin(future),
            woken,
        }
    }

    fn is_woken(&self) -> bool {
        self.woken.0.load(Ordering::SeqCst)
    }

    fn poll(&mut self) -> Poll<LookupResult> {
        self.woken.0.store(false, Ordering::SeqCst);
        let waker = Waker::from(self.woken.clone());
        self.future.as_mut().poll(&mut Context::from_waker(&waker))
    }

    /// Polls it whenever it is woken, to its end.
    #[track_caller]
    fn finish(mut self) -> LookupResult {
        let deadline = Instant::now() + LONG;
        loop {
            if self.is_woken()
                && let Poll::Ready(result) = self.poll()
            {
                return result;
            }
            assert!(Instant::now() < deadline, "it hangs");
            std::thread::yield_now();
        }
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

async fn loads(body: &str, after: usize) -> Result<Loaded, LoadError> {
    pending(after).await;
    present(body)
}

/// A loader that never ends.
async fn hangs() -> Result<Loaded, LoadError> {
    std::future::pending().await
}

async fn panics() -> Result<Loaded, LoadError> {
    pending(1).await;
    panic!("a load may panic")
}

#[test]
fn a_future_that_borrows_is_polled_in_its_own_task_and_a_closure_runs_on_its_own_thread() {
    let (cache, policy) = (alone(1, 1), hour());
    let (here, body) = (std::thread::current().id(), String::from("v"));
    let mut polls = 0;
    let loader = async {
        pending(3).await;
        polls += 1;
        assert_eq!(std::thread::current().id(), here);
        present(&body)
    };
    let mut task = Task::new(runner(&cache, "k", &policy).answer(loader));
    for _ in 0..3 {
        assert!(task.poll().is_pending() && running(&cache) == 1);
    }
    let Poll::Ready(loaded) = task.poll() else {
        panic!("it has ended");
    };
    assert_eq!(text(&loaded), ("v".into(), Outcome::Loaded));
    drop(task);
    assert_eq!((polls, running(&cache)), (1, 0));
    let hit = cache.get(Key::new(1, "k").as_str(), &policy, None);
    assert_eq!(hit.unwrap().outcome, Outcome::MemoryHit);

    let mut calls = 0;
    let loaded = runner(&cache, "closure", &policy).answer_here(LONG, || {
        calls += 1;
        assert_eq!(std::thread::current().id(), here);
        present(&body)
    });
    assert_eq!((text(&loaded).1, calls), (Outcome::Loaded, 1));
    assert_eq!(running(&cache), 0);
}

#[test]
fn a_leader_that_is_dropped_at_any_await_point_leaves_the_load_to_a_follower() {
    for polls in 0..=4 {
        for follower_polled in [false, true] {
            let (cache, policy) = (alone(1, 1), hour());
            let mut leader = Task::new(runner(&cache, "k", &policy).answer(loads("1", 4)));
            let mut follower = Task::new(runner(&cache, "k", &policy).answer(loads("2", 1)));
            for _ in 0..polls {
                assert!(leader.poll().is_pending());
            }
            if follower_polled && polls > 0 {
                assert!(follower.poll().is_pending() && !follower.is_woken());
            }
            drop(leader);
            assert!(follower.is_woken(), "after {polls} polls");
            assert_eq!(running(&cache), 1, "the permit stays with the load");
            let loaded = follower.finish();
            assert_eq!(text(&loaded), ("2".into(), Outcome::Loaded));
            assert_eq!(running(&cache), 0);
        }
    }
}

#[test]
fn a_follower_that_is_dropped_holds_up_nobody() {
    let (cache, policy) = (alone(1, 1), hour());
    let mut leader = Task::new(runner(&cache, "k", &policy).answer(loads("1", 2)));
    assert!(leader.poll().is_pending());
    let mut followers: Vec<Task> = (0..3)
        .map(|_| Task::new(runner(&cache, "k", &policy).answer(loads("2", 1))))
        .collect();
    for follower in &mut followers {
        assert!(follower.poll().is_pending());
    }
    drop(followers.remove(1));
    drop(leader);
    // One of them is woken to run the load, and leaves instead.
    let next = followers.iter().position(Task::is_woken).unwrap();
    drop(followers.remove(next));
    assert!(followers[0].is_woken());
    let loaded = followers.remove(0).finish();
    assert_eq!(text(&loaded), ("2".into(), Outcome::Loaded));
    assert_eq!(running(&cache), 0);
}

#[test]
fn a_load_that_nobody_is_left_for_is_given_up_and_the_next_reader_loads() {
    for polls in 0..=2 {
        let (cache, policy) = (alone(1, 1), hour());
        let mut leader = Task::new(runner(&cache, "k", &policy).answer(hangs()));
        let mut follower = Task::new(runner(&cache, "k", &policy).answer(hangs()));
        for _ in 0..polls {
            assert!(leader.poll().is_pending() && follower.poll().is_pending());
        }
        drop(leader);
        if polls > 0 {
            assert!(follower.poll().is_pending(), "it hangs in its own loader");
        }
        drop(follower);
        assert_eq!(running(&cache), 0, "the permit is given back");
        // No pause either: nothing has failed.
        let loaded = Task::new(runner(&cache, "k", &policy).answer(loads("3", 1))).finish();
        assert_eq!(text(&loaded), ("3".into(), Outcome::Loaded));
        let totals = cache.typed_totals();
        assert_eq!(totals.load_errors, 0);
    }
}

#[test]
fn a_follower_with_a_loader_for_a_thread_takes_over_too() {
    let (cache, policy) = (alone(1, 1), hour());
    let mut leader = Task::new(runner(&cache, "k", &policy).answer(hangs()));
    assert!(leader.poll().is_pending());
    let tickets: Vec<Ticket> = ["2", "3"]
        .into_iter()
        .map(|body| cache.fetch(loading("k", &policy, move || present(body))))
        .collect();
    let mut other = Task::new(runner(&cache, "k", &policy).answer(hangs()));
    assert!(other.poll().is_pending());
    drop(leader);
    // A runner comes first, since it has the permit.
    assert!(other.is_woken() && other.poll().is_pending());
    drop(other);
    for ticket in tickets {
        // The first of them brought the loader.
        assert_eq!(text(&ticket.wait(LONG)).0, "2");
    }
    let deadline = Instant::now() + LONG;
    while running(&cache) > 0 {
        assert!(Instant::now() < deadline);
    }
}

#[test]
fn a_loader_that_panics_has_failed_for_all_who_wait() {
    let (cache, policy) = (alone(1, 1), Arc::new((*hour()).clone().retry_at_once()));
    let mut leader = Task::new(runner(&cache, "k", &policy).answer(panics()));
    assert!(leader.poll().is_pending());
    let mut follower = Task::new(runner(&cache, "k", &policy).answer(loads("2", 1)));
    assert!(follower.poll().is_pending());
    let panicked = LoadError::Failed("the load panicked".into());
    assert_eq!(leader.finish().unwrap_err(), panicked);
    assert_eq!(follower.finish().unwrap_err(), panicked);
    let here = runner(&cache, "k", &policy).answer_here(LONG, || panic!("a load may panic"));
    assert_eq!(here.unwrap_err(), panicked);
    assert_eq!(running(&cache), 0);
    let next = Task::new(runner(&cache, "k", &policy).answer(loads("2", 0))).finish();
    assert_eq!(text(&next), ("2".into(), Outcome::Loaded));
}

#[test]
fn loads_of_runners_have_the_limits_of_all_loads() {
    let (cache, policy) = (alone(1, 1), hour());
    let mut first = Task::new(runner(&cache, "1", &policy).answer(hangs()));
    assert!(first.poll().is_pending());
    let mut second = Task::new(runner(&cache, "2", &policy).answer(loads("2", 0)));
    assert!(second.poll().is_pending() && !second.is_woken());
    let refused = Task::new(runner(&cache, "3", &policy).answer(loads("3", 0))).finish();
    assert_eq!(refused.unwrap_err(), LoadError::Overloaded);
    // One that waits and is dropped leaves its place to another, on a thread or not.
    drop(second);
    let on_a_thread = cache.fetch(loading("4", &policy, || present("4")));
    let refused = Task::new(runner(&cache, "5", &policy).answer(loads("5", 0))).finish();
    assert_eq!(refused.unwrap_err(), LoadError::Overloaded);
    // The permit of a load that was given up goes to the next in the queue.
    drop(first);
    assert_eq!(text(&on_a_thread.wait(LONG)).0, "4");

    let (release, gate) = mpsc::channel::<()>();
    let (started, starts) = mpsc::channel();
    let held = cache.fetch(loading("held", &policy, move || {
        started.send(()).unwrap();
        gate.recv().unwrap();
        present("v")
    }));
    starts.recv_timeout(LONG).unwrap();
    let mut waits = Task::new(runner(&cache, "6", &policy).answer(loads("6", 0)));
    assert!(waits.poll().is_pending() && !waits.is_woken());
    release.send(()).unwrap();
    assert_eq!(text(&waits.finish()).0, "6");
    assert_eq!(text(&held.wait(LONG)).0, "v");
}

#[test]
fn the_reader_that_renews_waits_and_the_others_get_the_stale_copy() {
    let test = TestClock::new();
    let cache = Cache::builder().test_clock(&test).build().unwrap();
    let policy = policy(Duration::from_secs(10), LONG, LONG);
    let first = Task::new(runner(&cache, "k", &policy).answer(loads("1", 0))).finish();
    assert_eq!(text(&first).0, "1");
    test.advance(Duration::from_secs(10));
    let mut renews = Task::new(runner(&cache, "k", &policy).answer(loads("2", 2)));
    assert!(renews.poll().is_pending());
    let stale = ("1".to_owned(), Outcome::Stale(Staleness::WhileRevalidate));
    let other = Task::new(runner(&cache, "k", &policy).answer(hangs())).finish();
    assert_eq!(text(&other), stale);
    let other = cache.fetch(loading("k", &policy, || present("never")));
    assert_eq!(text(&other.wait(LONG)), stale);
    assert_eq!(text(&renews.finish()), ("2".into(), Outcome::Loaded));
    // If it fails, the stale copy stands in for as long as policy allows.
    test.advance(Duration::from_secs(10));
    let fails = async { failed() };
    let copy = Task::new(runner(&cache, "k", &policy).answer(fails)).finish();
    assert_eq!(
        text(&copy),
        ("2".into(), Outcome::Stale(Staleness::IfError))
    );
}

#[test]
fn threads_and_tasks_share_one_load() {
    let (cache, policy) = (alone(4, 4), hour());
    let mut leader = Task::new(runner(&cache, "k", &policy).answer(hangs()));
    assert!(leader.poll().is_pending());
    let (joined, joins) = mpsc::channel();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|number| {
                let (cache, policy, joined) = (&cache, &policy, joined.clone());
                scope.spawn(move || {
                    let runner = runner(cache, "k", policy);
                    joined.send(()).unwrap();
                    let body = number.to_string();
                    text(&runner.answer_here(LONG, || present(&body)))
                })
            })
            .collect();
        (0..4).for_each(|_| joins.recv_timeout(LONG).unwrap());
        drop(leader);
        let found: Vec<(String, Outcome)> = threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect();
        let of = |outcome| found.iter().filter(|found| found.1 == outcome).count();
        assert_eq!((of(Outcome::Loaded), of(Outcome::Collapsed)), (1, 3));
        assert!(found.iter().all(|one| one.0 == found[0].0));
    });
}
