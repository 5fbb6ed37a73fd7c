//! The end of a cache: its threads, its connections, and what is pending.

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context, Waker};
use std::thread;
use std::time::{Duration, Instant};

use larder_cache::{Cache, Error, InvalidationTarget, Outcome, Purge, TaggedKey};

use super::child::{Child, ready, role, threads};
use super::{builder, policy, trusted};
use testkit::proxy::FaultProxy;
use testkit::redis::RedisServer;
use testkit::{SOON, until};

/// Five times the documented limit, since the machine may be busy.
const WITHIN: Duration = Duration::from_secs(5);

fn clients(redis: &mut redis::Connection) -> usize {
    let list: String = redis::cmd("CLIENT").arg("LIST").query(redis).unwrap();
    list.lines().count()
}

/// Makes twenty caches and drops them, some in use and some at once. Returns when nothing is left
/// of them.
fn twenty_caches_end(url: &str) {
    let client = redis::Client::open(url).unwrap();
    let mut control = client.get_connection().ok();
    let count = |control: &mut Option<redis::Connection>| control.as_mut().map(clients);
    let (before, clients_before) = (threads(), count(&mut control));
    for round in 0..20 {
        let cache = Cache::builder().redis(url).build().unwrap();
        if round % 2 == 0 {
            continue;
        }
        if control.is_some() {
            assert!(cache.wait_trusted(SOON));
        }
        let clone = cache.clone();
        let numbers = clone.typed::<i32>("number", 1).unwrap();
        drop(cache);
        let asked = numbers.get_or_load(TaggedKey::new().with("n", round), &policy(), move || {
            Ok::<i32, String>(round)
        });
        assert_eq!(*asked.unwrap().0, round);
    }
    until(WITHIN, "its threads have ended", || threads() == before);
    until(WITHIN, "its connections are closed", || {
        count(&mut control) == clients_before
    });
}

#[test]
fn threads_and_connections_end_with_the_last_clone() {
    if let Some((_, url)) = role() {
        return twenty_caches_end(&url);
    }
    let test = "closing::threads_and_connections_end_with_the_last_clone";
    let redis = RedisServer::start();
    Child::start(test, "with Redis", &redis.url()).end();
    let nobody = testkit::free_address();
    Child::start(test, "without", &format!("redis://{nobody}")).end();
}

#[test]
fn threads_and_connections_end_while_redis_has_stalled() {
    if let Some((role, url)) = role() {
        let before = threads();
        let cache = Cache::builder().redis(&url).build().unwrap();
        if role != "from the start" {
            assert!(cache.wait_trusted(SOON));
        }
        let numbers = cache.typed::<i32>("number", 1).unwrap();
        let load = || Ok::<i32, String>(1);
        numbers
            .get_or_load(TaggedKey::new(), &policy(), load)
            .unwrap();
        ready();
        if role != "idle" {
            assert!(
                cache
                    .invalidate(&[InvalidationTarget::everything()], Purge::Hard)
                    .is_pending()
            );
        }
        drop(numbers);
        let began = Instant::now();
        drop(cache);
        // A second if an invalidation is pending, else no time.
        assert!(began.elapsed() < WITHIN, "{:?}", began.elapsed());
        until(WITHIN, "its threads have ended", || threads() == before);
        return;
    }
    let test = "closing::threads_and_connections_end_while_redis_has_stalled";
    for role in ["idle", "pending", "from the start"] {
        let redis = RedisServer::start();
        let proxy = FaultProxy::start(redis.address());
        if role == "from the start" {
            proxy.stall();
        }
        let mut child = Child::start(test, role, &format!("redis://{}", proxy.address()));
        child.until_ready();
        proxy.stall();
        child.go_on();
        child.end();
    }
}

#[test]
fn a_load_that_runs_keeps_its_own_thread_alone() {
    if let Some((_, url)) = role() {
        let mut control = redis::Client::open(url.as_str())
            .unwrap()
            .get_connection()
            .unwrap();
        let (before, clients_before) = (threads(), clients(&mut control));
        let cache = Cache::builder().redis(&url).loads(1, 1).build().unwrap();
        assert!(cache.wait_trusted(SOON));
        let numbers = cache.typed::<i32>("number", 1).unwrap();
        let (started, starts) = mpsc::channel();
        let (release, gate) = mpsc::channel::<()>();
        let running = numbers.get_or_load_blocking(TaggedKey::new(), &policy(), move || {
            started.send(()).unwrap();
            gate.recv().map_err(|error| error.to_string())?;
            Ok::<i32, String>(1)
        });
        starts.recv().unwrap();
        let (began, begins) = mpsc::channel::<()>();
        let queued =
            numbers.get_or_load_blocking(TaggedKey::new().with("n", 2), &policy(), move || {
                began.send(()).map_err(|error| error.to_string())?;
                Ok::<i32, String>(2)
            });
        drop((running, queued, numbers, cache));
        let with_the_load = before.len() + 1;
        until(WITHIN, "all threads but its own have ended", || {
            threads().len() == with_the_load
        });
        until(WITHIN, "its connections are closed", || {
            clients(&mut control) == clients_before
        });
        release.send(()).unwrap();
        until(WITHIN, "its thread has ended", || threads() == before);
        assert!(begins.recv().is_err(), "nobody waits for the other load");
        return;
    }
    let redis = RedisServer::start();
    let test = "closing::a_load_that_runs_keeps_its_own_thread_alone";
    Child::start(test, "loads", &redis.url()).end();
}

#[test]
fn a_look_up_that_is_awaited_keeps_the_cache_open() {
    let redis = RedisServer::start();
    let cache = trusted(&redis.url());
    let numbers = cache.typed::<i32>("number", 1).unwrap();
    let (release, gate) = mpsc::channel::<()>();
    let awaited = numbers.get_or_load_blocking(TaggedKey::new(), &policy(), move || {
        gate.recv().map_err(|error| error.to_string())?;
        Ok::<i32, String>(1)
    });
    drop((numbers, cache));
    release.send(()).unwrap();
    let found: Result<(Arc<i32>, Outcome), Error<String>> =
        actix_web::rt::System::new().block_on(awaited);
    assert_eq!(found.unwrap(), (Arc::new(1), Outcome::Loaded));
    // Redis has it, too.
    let other = trusted(&redis.url()).typed::<i32>("number", 1).unwrap();
    let found = other.get_or_load(TaggedKey::new(), &policy(), || {
        Err::<i32, _>("Redis has it")
    });
    let (value, outcome) = found.unwrap();
    assert_eq!(*value, 1);
    // Collapsed: the first cache had answered its caller and was still filling Redis.
    assert!(
        matches!(outcome, Outcome::RedisHit | Outcome::Collapsed),
        "{outcome:?}"
    );
}

#[test]
fn a_cache_without_a_redis_url_looks_for_none() {
    if let Some((role, url)) = role() {
        let before = threads();
        let cache = match role.as_str() {
            "not told" => Cache::builder(),
            _ => Cache::builder().redis(&url).memory_only(),
        };
        let cache = cache.build().unwrap();
        assert_eq!(threads(), before, "there is nothing to do yet");
        assert!(!cache.redis().is_up() && !cache.redis().wait_first_look(SOON));
        assert!(cache.wait_trusted(SOON) && cache.is_alone());
        let numbers = cache.typed::<i32>("number", 1).unwrap();
        let ask = |n| {
            numbers.get_or_load(TaggedKey::new().tag("n"), &policy(), move || {
                Ok::<i32, String>(n)
            })
        };
        assert_eq!(ask(1).unwrap(), (Arc::new(1), Outcome::Loaded));
        assert_eq!(ask(2).unwrap(), (Arc::new(1), Outcome::MemoryHit));
        assert!(
            !cache
                .invalidate(&[InvalidationTarget::tag("n")], Purge::Hard)
                .is_pending()
        );
        assert_eq!(ask(3).unwrap(), (Arc::new(3), Outcome::Loaded));
        // Two at most: the second load may begin before the thread of the first is idle. A thread
        // that has just started has the name of the one that started it.
        until(WITHIN, "there are threads of loads alone", || {
            let (loads, others): (Vec<_>, Vec<_>) =
                threads().into_iter().partition(|name| name == "load");
            (1..=2).contains(&loads.len()) && others == before
        });
        drop((numbers, cache));
        until(WITHIN, "its thread has ended", || threads() == before);
        return;
    }
    // A Redis at the usual port is not used unless the program names it.
    let port = testkit::the_usual_redis_port();
    let redis = RedisServer::start_at(port.address);
    let test = "closing::a_cache_without_a_redis_url_looks_for_none";
    for role in ["not told", "told otherwise"] {
        Child::start(test, role, &redis.url()).end();
    }
    assert_eq!(redis.cli::<usize>(&["DBSIZE"]), 0);
}

#[test]
fn an_invalidation_right_after_the_start_is_delivered() {
    if let Some((_, url)) = role() {
        let cache = builder(&url).build().unwrap();
        let done = cache.invalidate(&[InvalidationTarget::tag("n")], Purge::Hard);
        assert!(!done.is_pending());
        return;
    }
    let redis = RedisServer::start();
    let cache = trusted(&redis.url());
    let numbers = cache.typed::<usize>("number", 1).unwrap();
    let ask = |n: usize| {
        let found = numbers.get_or_load(TaggedKey::new().tag("n"), &policy(), move || {
            Ok::<usize, String>(n)
        });
        *found.unwrap().0
    };
    let test = "closing::an_invalidation_right_after_the_start_is_delivered";
    for round in 0..9 {
        assert_eq!(ask(round), round);
        Child::start(test, "invalidates", &redis.url()).end();
        until(SOON, "it was heard", || ask(round + 1) == round + 1);
    }
}

#[test]
fn pending_invalidations_are_delivered_before_the_end() {
    let redis = RedisServer::start();
    let reader = trusted(&redis.url());
    let numbers = reader.typed::<i32>("number", 1).unwrap();
    let ask = |n: i32| {
        let found = numbers.get_or_load(TaggedKey::new().tag("n"), &policy(), move || {
            Ok::<i32, String>(n)
        });
        *found.unwrap().0
    };
    let proxy = FaultProxy::start(redis.address());
    let url = format!("redis://{}", proxy.address());
    for (round, waits) in [(1, true), (2, false)] {
        assert_eq!(ask(round), round);
        let writer = builder(&url).delivery(SOON).build().unwrap();
        assert!(writer.wait_trusted(SOON));
        proxy.cut();
        until(SOON, "it has noticed", || !writer.redis().is_up());
        assert!(
            writer
                .invalidate(&[InvalidationTarget::tag("n")], Purge::Hard)
                .is_pending()
        );
        assert!(!writer.wait_delivered(Duration::ZERO));
        let ends = thread::spawn(move || {
            if waits {
                assert!(writer.wait_delivered(SOON));
                assert_eq!(writer.bus().pending, 0);
            }
            drop(writer);
        });
        proxy.restore();
        ends.join().unwrap();
        until(SOON, "it was heard", || ask(round + 1) == round + 1);
    }
}

/// Has loads of all kinds under way and drops them with the cache. Returns when nothing is left of
/// it. `in_task`: the last clone is dropped in a task.
fn loads_under_way_end(url: &str, in_task: bool) {
    let mut control = redis::Client::open(url).unwrap().get_connection().ok();
    let (before, clients_before) = (threads(), control.as_mut().map(clients));
    let cache = builder(url).build().unwrap();
    if control.is_some() {
        assert!(cache.wait_trusted(SOON));
    }
    let numbers = cache.typed::<i32>("number", 1).unwrap();
    let policy = policy();
    let of = |n: i32| TaggedKey::new().with("n", n);
    let polls = AtomicUsize::new(0);
    let hangs = async || {
        polls.fetch_add(1, Ordering::SeqCst);
        std::future::pending::<Result<i32, String>>().await
    };
    let mut context = Context::from_waker(Waker::noop());
    // A future that loads, and one that follows it.
    let mut leader = Box::pin(numbers.get_or_load_async(of(1), &policy, hangs()));
    until(SOON, "its loader is polled", || {
        assert!(leader.as_mut().poll(&mut context).is_pending());
        polls.load(Ordering::SeqCst) == 1
    });
    let mut follower = Box::pin(numbers.get_or_load_async(of(1), &policy, hangs()));
    assert!(follower.as_mut().poll(&mut context).is_pending());
    // A ticket that waits for the same load.
    let ticket = numbers.get_or_load_blocking(of(1), &policy, || Ok::<i32, String>(1));
    // A load on a thread, and a ticket for it.
    let (started, starts) = mpsc::channel();
    let (release, gate) = mpsc::channel::<()>();
    let on_thread = numbers.get_or_load_blocking(of(2), &policy, move || {
        started.send(()).unwrap();
        gate.recv().map_err(|error| error.to_string())?;
        Ok::<i32, String>(2)
    });
    starts.recv().unwrap();
    // A subscription that a thread waits for, and one that nobody reads.
    let (mut heard, unread) = (cache.subscribe(), cache.subscribe());
    let listens = thread::spawn(move || while heard.recv().is_some() {});

    let began = Instant::now();
    drop((leader, follower, ticket, on_thread));
    if in_task {
        let owned = (numbers, cache);
        actix_web::rt::System::new().block_on(async move {
            let _last = owned;
        });
    } else {
        drop((numbers, cache));
    }
    assert!(began.elapsed() < WITHIN, "{:?}", began.elapsed());
    listens.join().unwrap();
    drop((unread, release));
    until(WITHIN, "its threads have ended", || threads() == before);
    until(WITHIN, "its connections are closed", || {
        control.as_mut().map(clients) == clients_before
    });
}

#[test]
fn loads_tickets_and_subscriptions_that_are_under_way_end_with_the_cache() {
    if let Some((role, url)) = role() {
        return loads_under_way_end(&url, role == "in a task");
    }
    let test = "closing::loads_tickets_and_subscriptions_that_are_under_way_end_with_the_cache";
    let redis = RedisServer::start();
    Child::start(test, "on a thread", &redis.url()).end();
    Child::start(test, "in a task", &redis.url()).end();
    let nobody = testkit::free_address();
    Child::start(test, "without Redis", &format!("redis://{nobody}")).end();
}

#[test]
fn a_load_that_is_dropped_while_redis_has_stalled_holds_up_nobody() {
    if let Some((_, url)) = role() {
        let before = threads();
        let cache = Cache::builder().redis(&url).build().unwrap();
        assert!(cache.wait_trusted(SOON));
        let numbers = cache.typed::<i32>("number", 1).unwrap();
        let polls = AtomicUsize::new(0);
        let hangs = async {
            polls.fetch_add(1, Ordering::SeqCst);
            std::future::pending::<Result<i32, String>>().await
        };
        let policy = policy();
        let mut load = Box::pin(numbers.get_or_load_async(TaggedKey::new(), &policy, hangs));
        let mut context = Context::from_waker(Waker::noop());
        until(SOON, "its loader is polled", || {
            assert!(load.as_mut().poll(&mut context).is_pending());
            polls.load(Ordering::SeqCst) == 1
        });
        ready();
        let began = Instant::now();
        // The lease goes back on a thread of the cache, which waits for Redis instead.
        drop(load);
        drop((numbers, cache));
        assert!(began.elapsed() < WITHIN, "{:?}", began.elapsed());
        until(WITHIN, "its threads have ended", || threads() == before);
        return;
    }
    let test = "closing::a_load_that_is_dropped_while_redis_has_stalled_holds_up_nobody";
    let redis = RedisServer::start();
    let proxy = FaultProxy::start(redis.address());
    let mut child = Child::start(test, "loads", &format!("redis://{}", proxy.address()));
    child.until_ready();
    proxy.stall();
    child.go_on();
    child.end();
}
