//! Many requests at once: one call to each upstream, few threads, and no more loads than allowed.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;

use testkit::client::Session;
use testkit::larder::{ADMIN_KEY, Larder};
use testkit::news::{CATEGORIES, News, NewsConfig, path, titles};
use testkit::redis::RedisServer;
use testkit::{SOON, until};

#[test]
fn a_thousand_requests_over_four_processes_are_one_call_to_each_upstream() {
    let (redis, news) = (RedisServer::start(), News::start());
    let config = NewsConfig {
        redis_timeout: "5s",
        upstream_timeout: "30s",
        ..NewsConfig::default()
    };
    let replicas = Larder::start_many(4, &config.options(&news, &redis));
    news.newsapi.hold();
    news.guardian.hold();
    let waiting: Vec<_> = (0..1000)
        .map(|i| {
            let call = replicas[i % 4].call("GET", "/articles?category=technology");
            call.key(ADMIN_KEY).connect().unwrap()
        })
        .collect();
    until(SOON, "the first calls arrive", || {
        let (newsapi, guardian) = news.calls();
        newsapi >= 1 && guardian >= 1
    });
    news.newsapi.release();
    news.guardian.release();
    for pending in waiting {
        let body = pending.finish().unwrap().expect(200).json();
        assert_eq!(titles(&body).len(), 10);
        assert!(
            body.get("partial").is_none_or(|partial| partial == false),
            "{body}"
        );
    }
    assert_eq!(news.calls(), (1, 1));
}

#[test]
fn a_crowd_at_a_stale_entry_renews_it_once() {
    let (redis, news) = (RedisServer::start(), News::start());
    let config = NewsConfig {
        memory: "1s",
        redis: "1s",
        while_revalidate: "1h",
        redis_timeout: "5s",
        upstream_timeout: "30s",
        ..NewsConfig::default()
    };
    let replicas = Larder::start_many(2, &config.options(&news, &redis));
    let path = "/articles?category=technology";
    replicas[0].get(path).expect(200);
    news.newsapi.hold();
    news.guardian.hold();
    // From Redis, or already stale: in either case without waiting for the upstreams.
    replicas[1].get(path).expect(200);
    for replica in &replicas {
        until(SOON, "it is stale", || {
            replica
                .get(path)
                .expect(200)
                .the("Cache-Status")
                .contains("fwd=stale")
        });
    }
    let waiting: Vec<_> = (0..200)
        .map(|i| {
            replicas[i % 2]
                .call("GET", path)
                .key(ADMIN_KEY)
                .connect()
                .unwrap()
        })
        .collect();
    // All of them are answered, though the upstreams do not answer.
    for pending in waiting {
        assert_eq!(pending.finish().unwrap().expect(200).json()["cached"], true);
    }
    until(SOON, "it is renewed", || {
        replicas[0].get(path).expect(200);
        news.calls() == (2, 2)
    });
}

#[test]
fn hits_in_redis_take_few_threads() {
    let (redis, news) = (RedisServer::start(), News::start());
    let config = NewsConfig {
        memory: "0s",
        redis_timeout: "5s",
        ..NewsConfig::default()
    };
    let larder = config.start(&news, &redis);
    let path = "/articles?category=technology";
    larder.get(path).expect(200);

    const CONNECTIONS: usize = 256;
    const EACH: usize = 40;
    let answered = AtomicUsize::new(0);
    let mut most = 0;
    thread::scope(|scope| {
        for _ in 0..CONNECTIONS {
            scope.spawn(|| {
                let mut session = Session::connect(larder.address()).unwrap();
                for _ in 0..EACH {
                    let answer = session.get(path, ADMIN_KEY).unwrap().expect(200);
                    assert!(
                        answer.the("Cache-Status").starts_with("larder-redis; hit"),
                        "{answer}"
                    );
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        until(SOON * 3, "all of them are answered", || {
            most = most.max(larder.threads());
            answered.load(Ordering::Relaxed) == CONNECTIONS * EACH
        });
    });
    assert!(most < 40, "{most} threads");
    assert_eq!(news.calls(), (1, 1));
}

#[test]
fn loads_past_the_queue_are_refused_at_once() {
    let (redis, news) = (RedisServer::start(), News::start());
    let config = NewsConfig {
        server: "max_loads = 1\nmax_queue = 1",
        upstream_timeout: "30s",
        ..NewsConfig::default()
    };
    let larder = config.start(&news, &redis);
    news.newsapi.hold();
    news.guardian.hold();
    let (answers, arrived) = mpsc::channel();
    for category in &CATEGORIES[..6] {
        let call = larder.call("GET", &path(category));
        let pending = call.key(ADMIN_KEY).connect().unwrap();
        let answers = answers.clone();
        thread::spawn(move || answers.send(pending.finish().unwrap()));
    }
    // There is room for two loads, and so for at most two of the six to wait.
    for _ in 0..4 {
        let refused = arrived.recv_timeout(SOON).unwrap();
        refused.problem(503);
        assert!(
            refused.the("Retry-After").parse::<u32>().unwrap() >= 1,
            "{refused}"
        );
    }
    news.newsapi.release();
    news.guardian.release();
    let mut served = 0;
    for _ in 0..2 {
        served += usize::from(arrived.recv_timeout(SOON).unwrap().status == 200);
    }
    assert!(served >= 1, "nobody was served");
}
