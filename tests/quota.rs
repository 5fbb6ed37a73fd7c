//! Quotas: all replicas together stay within an upstream's quota. While something can be served, a
//! spent quota is not an error.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use testkit::larder::Larder;
use testkit::news::{CATEGORIES, News, NewsConfig, guardian_error, path, titles};
use testkit::redis::RedisServer;
use testkit::upstream::{Behaviour, FakeUpstream, Request};
use testkit::{SOON, until};

#[test]
fn two_replicas_share_one_quota() {
    let (redis, news) = (RedisServer::start(), News::start());
    let config = NewsConfig {
        newsapi_quota: &["4/1h"],
        guardian_quota: &["5/1h", "100/1d"],
        ..NewsConfig::default()
    };
    let replicas = Larder::start_many(2, &config.options(&news, &redis));
    let answers: Vec<_> = thread::scope(|scope| {
        let asks: Vec<_> = (0..28)
            .map(|i| {
                let replica = &replicas[i % 2];
                scope.spawn(move || replica.get(&path(CATEGORIES[i / 2 % 7])))
            })
            .collect();
        asks.into_iter().map(|ask| ask.join().unwrap()).collect()
    });
    assert_eq!(news.calls(), (4, 5));
    for answer in &answers {
        match answer.status {
            200 => {}
            // This one was never loaded, and now no load is allowed.
            status => {
                answer.problem(status);
                assert!(matches!(status, 502 | 503), "{answer}");
            }
        }
    }
    assert!(answers.iter().any(|answer| answer.status == 200));
    // The same holds for later requests.
    for category in CATEGORIES {
        for replica in &replicas {
            replica.get(&path(category));
        }
    }
    assert_eq!(news.calls(), (4, 5));
}

#[test]
fn a_quota_holds_when_redis_comes_back_empty() {
    let (mut redis, news) = (RedisServer::start(), News::start());
    let config = NewsConfig {
        newsapi_quota: &["2/1h"],
        guardian_quota: &["2/1h"],
        ..NewsConfig::default()
    };
    let larder = config.start(&news, &redis);
    for category in &CATEGORIES[..2] {
        larder.get(&path(category)).expect(200);
    }
    redis.kill();
    larder.get(&path(CATEGORIES[2]));
    redis.restart();
    until(SOON, "redis is up", || {
        larder.stats()["redis"]["up"] == true
    });
    for category in CATEGORIES {
        larder.get(&path(category));
    }
    assert_eq!(news.calls(), (2, 2));
    for upstream in ["newsapi", "guardian"] {
        let line = format!("the quota of {upstream} is spent, back in ");
        until(SOON, "the log says so", || larder.log().contains(&line));
        assert_eq!(larder.log().matches(&line).count(), 1, "{}", larder.log());
    }
}

/// Waits until each replica knows of the others, which takes half a second.
fn know_each_other(replicas: &[Larder], redis: &RedisServer) {
    for upstream in ["newsapi", "guardian"] {
        let key = format!("{{larder:q:{upstream}}}:calls");
        until(SOON, "all replicas have checked in", || {
            let here: usize = redis.cli(&["ZCOUNT", &key, "-inf", "(0"]);
            here == replicas.len()
        });
        // A check-in returns all replicas. So after a check-in that is later than this time, a
        // replica knows of all.
        let time: Vec<f64> = redis.cli(&["TIME"]);
        let latest = -(time[0] * 1e6 + time[1]);
        until(SOON, "all were heard again", || {
            let heard: usize = redis.cli(&["ZCOUNT", &key, "-inf", &format!("({latest:.0}")]);
            heard == replicas.len()
        });
    }
}

#[test]
fn two_replicas_keep_a_quota_when_redis_comes_back_empty() {
    let (mut redis, news) = (RedisServer::start(), News::start());
    let config = NewsConfig {
        newsapi_quota: &["3/1h"],
        guardian_quota: &["4/1h"],
        ..NewsConfig::default()
    };
    let replicas = Larder::start_many(2, &config.options(&news, &redis));
    for (category, replica) in CATEGORIES.into_iter().zip([0, 0, 1]) {
        replicas[replica].get(&path(category)).expect(200);
    }
    assert_eq!(news.calls(), (3, 3));
    know_each_other(&replicas, &redis);
    redis.restart();
    let everything = || {
        thread::scope(|scope| {
            for (i, category) in CATEGORIES.into_iter().skip(3).enumerate() {
                let replica = &replicas[i % 2];
                scope.spawn(move || replica.get(&path(category)));
            }
        });
    };
    until(SOON, "the last place is given", || {
        everything();
        news.calls().1 == 4
    });
    everything();
    assert_eq!(news.calls(), (3, 4));
}

#[test]
fn calls_made_without_redis_count_when_it_is_back() {
    let (mut redis, news) = (RedisServer::start(), News::start());
    let config = NewsConfig {
        newsapi_quota: &["3/1h"],
        guardian_quota: &["3/1h"],
        ..NewsConfig::default()
    };
    let replicas = Larder::start_many(2, &config.options(&news, &redis));
    know_each_other(&replicas, &redis);
    redis.kill();
    for (category, replica) in CATEGORIES.into_iter().zip(&replicas) {
        replica.get(&path(category)).expect(200);
    }
    assert_eq!(news.calls(), (2, 2));
    redis.restart();
    for upstream in ["newsapi", "guardian"] {
        let key = format!("{{larder:q:{upstream}}}:calls");
        until(SOON, "both calls are entered", || {
            redis.cli::<usize>(&["ZCOUNT", &key, "(0", "+inf"]) == 2
        });
    }
    for category in &CATEGORIES[2..] {
        for replica in &replicas {
            replica.get(&path(category));
        }
    }
    assert_eq!(news.calls(), (3, 3));
}

#[test]
fn a_quota_spent_by_one_upstream_is_a_partial_answer_for_its_whole_ttl() {
    let (redis, news) = (RedisServer::start(), News::start());
    let config = NewsConfig {
        memory: "100s",
        redis: "100s",
        newsapi_quota: &["1/1h"],
        ..NewsConfig::default()
    };
    let larder = config.start(&news, &redis);
    larder.get(&path("science")).expect(200);
    let body = larder.get(&path("health")).expect(200).json();
    assert_eq!(body["partial"], true, "{body}");
    assert!(
        titles(&body)
            .iter()
            .all(|title| title.starts_with("guardian ")),
        "{body}"
    );
    // The quota is spent for an hour, so an earlier attempt makes no sense.
    let hit = larder.get(&path("health")).expect(200);
    assert!(hit.memory_ttl() > 60, "{hit}");
    assert_eq!(news.calls(), (1, 2));
}

#[test]
fn a_quota_spent_warm_is_a_stale_answer() {
    let (redis, news) = (RedisServer::start(), News::start());
    let config = NewsConfig {
        memory: "1s",
        redis: "1s",
        newsapi_quota: &["1/1h"],
        guardian_quota: &["1/1h"],
        ..NewsConfig::default()
    };
    let larder = config.start(&news, &redis);
    larder.get(&path("science")).expect(200);
    news.publish();
    until(SOON, "it is stale", || {
        let answer = larder.get(&path("science")).expect(200);
        assert!(titles(&answer.json())[0].ends_with("r1"), "{answer}");
        answer.the("Cache-Status").contains("fwd=stale")
    });
    assert_eq!(news.calls(), (1, 1));
}

#[test]
fn a_quota_spent_cold_with_an_archive_is_the_archive() {
    let news = News::start();
    let (redis, other_redis) = (RedisServer::start(), RedisServer::start());
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let free = NewsConfig::default();
    let larder = Larder::start(&free.options(&news, &redis).in_folder(&folder));
    larder.get(&path("science")).expect(200);

    let tight = NewsConfig {
        newsapi_quota: &["1/1h"],
        guardian_quota: &["1/1h"],
        ..NewsConfig::default()
    };
    let cold = Larder::start(&tight.options(&news, &other_redis).in_folder(&folder));
    cold.get(&path("health")).expect(200);
    until(SOON, "the archive is served", || {
        let answer = cold.get(&path("science"));
        answer.status == 200 && answer.json()["archived"] == true
    });
    assert_eq!(news.calls(), (2, 2));
}

#[test]
fn a_quota_that_comes_back_in_time_is_waited_for() {
    let (redis, news) = (RedisServer::start(), News::start());
    let config = NewsConfig {
        guardian_quota: &["1/1s"],
        ..NewsConfig::default()
    };
    let larder = config.start(&news, &redis);
    thread::scope(|scope| {
        for category in &CATEGORIES[..4] {
            let larder = &larder;
            scope.spawn(move || {
                let body = larder.get(&path(category)).expect(200).json();
                assert_eq!(titles(&body).len(), 10, "{body}");
            });
        }
    });
    let mut at: Vec<_> = times(&news.guardian);
    at.sort();
    for pair in at.windows(2) {
        // They are sent a second apart. The rest is the time on the way.
        assert!(pair[1] - pair[0] >= Duration::from_millis(900), "{at:?}");
    }
}

#[test]
fn a_composite_is_renewed_when_the_quota_of_its_part_is_back() {
    let (redis, news) = (RedisServer::start(), News::start());
    let config = NewsConfig {
        memory: "1h",
        redis: "1h",
        upstream_timeout: "1s",
        guardian_quota: &["1/2s"],
        ..NewsConfig::default()
    };
    let larder = config.start(&news, &redis);
    larder.get(&path("science")).expect(200);
    news.publish();
    let wish = serde_json::json!({"tags": ["category:science"], "soft": true});
    larder.post("/cache/invalidate", &wish).expect(200);
    // The Guardian's quota is full for two seconds. The part keeps its articles for that time, not
    // for an hour.
    until(SOON, "both have been asked again", || {
        let titles = titles(&larder.get(&path("science")).expect(200).json());
        titles.len() == 10 && titles.iter().all(|title| title.ends_with("r2"))
    });
    assert_eq!(news.calls(), (2, 2));
}

fn times(upstream: &FakeUpstream) -> Vec<std::time::Instant> {
    upstream
        .requests()
        .iter()
        .map(|request: &Request| request.at)
        .collect()
}

#[test]
fn a_429_of_the_upstream_counts_as_a_spent_quota() {
    let (redis, news) = (RedisServer::start(), News::start());
    let spent = guardian_error(429, "API rate limit exceeded").with("Retry-After", "3600");
    news.guardian.behave(Behaviour::always(spent));
    let config = NewsConfig {
        memory: "100s",
        redis: "100s",
        ..NewsConfig::default()
    };
    let larder = config.start(&news, &redis);
    let body = larder.get(&path("science")).expect(200).json();
    assert_eq!(body["partial"], true, "{body}");
    let hit = larder.get(&path("science")).expect(200);
    assert!(
        hit.the("Cache-Status").starts_with("larder-memory; hit"),
        "{hit}"
    );
    assert_eq!(news.calls(), (1, 1));
}
