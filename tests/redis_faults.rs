//! Redis stopped, silent, slow, full, or holding corrupt values: answers come all the same.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use testkit::larder::Larder;
use testkit::news::{CATEGORIES, News, NewsConfig, path, titles};
use testkit::proxy::FaultProxy;
use testkit::redis::{RedisServer, USER};
use testkit::{SOON, until};

/// The articles of a category, all ten of them.
#[track_caller]
fn all_of(larder: &Larder, category: &str) {
    let body = larder.get(&path(category)).expect(200).json();
    assert_eq!(titles(&body).len(), 10, "{body}");
}

fn sees_redis(larder: &Larder, up: bool) {
    until(SOON, &format!("redis is up: {up}"), || {
        larder.stats()["redis"]["up"] == up
    });
}

/// Waits until a load of one replica is a hit in Redis for the other. Each attempt uses another
/// category.
fn until_shared(replicas: &[Larder], mut categories: impl Iterator<Item = &'static str>) {
    until(SOON, "the replicas share what they load", || {
        let category = categories.next().expect("a category not asked for yet");
        all_of(&replicas[0], category);
        let elsewhere = replicas[1].get(&path(category)).expect(200);
        elsewhere
            .the("Cache-Status")
            .starts_with("larder-redis; hit")
    });
}

#[test]
fn a_redis_that_comes_after_the_start_is_found() {
    let mut redis = RedisServer::start();
    redis.stop();
    let news = News::start();
    let replicas = Larder::start_many(2, &NewsConfig::default().options(&news, &redis));
    for replica in &replicas {
        all_of(replica, "science");
        let again = replica.get(&path("science")).expect(200);
        assert!(
            again.the("Cache-Status").starts_with("larder-memory; hit"),
            "{again}"
        );
        assert_eq!(replica.stats()["redis"]["up"], false);
    }
    assert_eq!(news.calls(), (2, 2));

    redis.restart();
    for replica in &replicas {
        sees_redis(replica, true);
    }
    until_shared(
        &replicas,
        CATEGORIES.into_iter().filter(|one| *one != "science"),
    );
}

#[test]
fn a_redis_that_is_killed_and_restarted_costs_no_answer() {
    let mut redis = RedisServer::start();
    let news = News::start();
    let config = NewsConfig {
        memory: "1s",
        redis: "2s",
        redis_timeout: "250ms",
        ..NewsConfig::default()
    };
    let replicas = Larder::start_many(2, &config.options(&news, &redis));
    for replica in &replicas {
        all_of(replica, "science");
    }
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        for (replica, category) in replicas.iter().zip(["science", "health"]) {
            let over = &over;
            scope.spawn(move || {
                // At least once after the end, so that this also reads the values that came back.
                loop {
                    let last = over.load(Ordering::SeqCst);
                    all_of(replica, category);
                    if last {
                        break;
                    }
                }
            });
        }
        let _ends = End(&over);
        redis.kill();
        for replica in &replicas {
            sees_redis(replica, false);
            for category in CATEGORIES {
                all_of(replica, category);
            }
        }
        redis.restart();
        for replica in &replicas {
            sees_redis(replica, true);
        }
    });
    until_shared(&replicas, CATEGORIES.into_iter().cycle());
}

/// Stops the readers, even if the test fails early.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn a_network_that_fails_in_every_way_costs_no_answer() {
    let (redis, news) = (RedisServer::start(), News::start());
    let proxy = FaultProxy::start(redis.address());
    let config = NewsConfig {
        redis_timeout: "100ms",
        ..NewsConfig::default()
    };
    let options = config.options_at(&news, &format!("redis://{}", proxy.address()));
    type Fault = (&'static str, fn(&FaultProxy));
    let faults: [Fault; 4] = [
        ("business", FaultProxy::cut),
        ("health", FaultProxy::stall),
        ("science", FaultProxy::stall_to_client),
        ("sports", |proxy| proxy.delay(Duration::from_millis(400))),
    ];
    let larder = Larder::start(&options);
    sees_redis(&larder, true);
    all_of(&larder, "technology");
    for (category, fault) in faults {
        fault(&proxy);
        let began = Instant::now();
        all_of(&larder, category);
        all_of(&larder, category);
        // Whatever Redis does, an answer takes at most a few of its timeouts plus the time of the
        // source.
        assert!(
            began.elapsed() < Duration::from_secs(5),
            "{category}: {:?}",
            began.elapsed()
        );
        sees_redis(&larder, false);
        proxy.restore();
        sees_redis(&larder, true);
    }
    // It also starts while Redis takes connections and does not answer.
    proxy.stall();
    let late = Larder::start(&options);
    all_of(&late, "technology");
}

#[test]
fn a_frozen_redis_costs_no_answer() {
    let (redis, news) = (RedisServer::start(), News::start());
    let config = NewsConfig {
        redis_timeout: "100ms",
        ..NewsConfig::default()
    };
    let larder = config.start(&news, &redis);
    all_of(&larder, "science");
    redis.pause();
    for category in CATEGORIES {
        all_of(&larder, category);
    }
    sees_redis(&larder, false);
    redis.resume();
    sees_redis(&larder, true);
}

#[test]
fn a_full_redis_leaves_values_in_memory() {
    let (redis, news) = (RedisServer::start(), News::start());
    let larder = NewsConfig::default().start(&news, &redis);
    let _: () = redis.cli(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    let _: () = redis.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    for category in CATEGORIES {
        all_of(&larder, category);
        all_of(&larder, category);
    }
    // Memory kept the values that Redis did not take.
    assert_eq!(news.calls(), (7, 7));
}

#[test]
fn a_required_redis_decides_start_and_readiness() {
    let mut redis = RedisServer::start();
    let news = News::start();
    let config = NewsConfig {
        redis_required: true,
        ..NewsConfig::default()
    };
    let options = config.options(&news, &redis);
    redis.stop();
    let mut refuses = Larder::spawn(&options);
    assert_eq!(refuses.ended().code(), Some(1), "{}", refuses.log());
    assert!(
        refuses.log().to_lowercase().contains("redis"),
        "{}",
        refuses.log()
    );

    redis.restart();
    let larder = Larder::start(&options);
    all_of(&larder, "science");
    let ready = || larder.call("GET", "/readyz").send().status;
    redis.kill();
    until(SOON, "not ready without it", || ready() == 503);
    assert_eq!(larder.call("GET", "/healthz").send().status, 200);
    redis.restart();
    until(SOON, "ready with it", || ready() == 200);
}

#[test]
fn a_corrupt_value_in_redis_is_a_miss() {
    let (redis, news) = (RedisServer::start(), News::start());
    // Without the memory tier every request reads Redis.
    let config = NewsConfig {
        memory: "0s",
        ..NewsConfig::default()
    };
    let larder = config.start(&news, &redis);
    all_of(&larder, "science");
    let keys = redis.keys("larder:v:*");
    assert_eq!(keys.len(), 2, "{keys:?}");
    let mut connection = redis.connect();
    let whole: Vec<Vec<u8>> = keys
        .iter()
        .map(|key| redis::cmd("GET").arg(key).query(&mut connection).unwrap())
        .collect();

    type Corruption = (&'static str, fn(&[u8]) -> Vec<u8>);
    let flipped = |bytes: &[u8], at: usize| {
        let mut bytes = bytes.to_vec();
        bytes[at] ^= 0x40;
        bytes
    };
    let flips: Vec<(String, Vec<Vec<u8>>)> = [0.0, 0.1, 0.25, 0.5, 0.75, 0.999]
        .iter()
        .map(|share| {
            let flip = |bytes: &Vec<u8>| flipped(bytes, (bytes.len() as f64 * share) as usize);
            (
                format!("a bit at {share}"),
                whole.iter().map(flip).collect(),
            )
        })
        .collect();
    let corruptions: [Corruption; 7] = [
        ("nothing", |_| Vec::new()),
        ("text", |_| b"hello".to_vec()),
        ("zeros", |bytes| vec![0; bytes.len()]),
        ("ones", |bytes| vec![0xff; bytes.len()]),
        ("a half", |bytes| bytes[..bytes.len() / 2].to_vec()),
        ("all but the last byte", |bytes| {
            bytes[..bytes.len() - 1].to_vec()
        }),
        ("one byte more", |bytes| [bytes, b"x"].concat()),
    ];
    let all = corruptions
        .iter()
        .map(|(name, corrupt)| {
            let values = whole.iter().map(|bytes| corrupt(bytes)).collect();
            ((*name).to_owned(), values)
        })
        .chain(flips);
    let mut calls = 1;
    for (name, values) in all {
        for (key, value) in keys.iter().zip(values) {
            let () = redis::cmd("SET")
                .arg(key)
                .arg(value)
                .arg("KEEPTTL")
                .query(&mut connection)
                .unwrap();
        }
        all_of(&larder, "science");
        calls += 1;
        assert_eq!(news.calls(), (calls, calls), "{name}");
        // The load stored a valid value in its place.
        let again = larder.get(&path("science")).expect(200);
        assert!(
            again.the("Cache-Status").starts_with("larder-redis; hit"),
            "{name}: {again}"
        );
    }

    // A key of another type: every command on it fails.
    for key in &keys {
        let _: () = redis.cli(&["DEL", key]);
        let _: () = redis.cli(&["RPUSH", key, "not", "a", "value"]);
    }
    all_of(&larder, "science");
    assert_eq!(news.calls(), (calls + 1, calls + 1));
}

#[test]
fn redis_is_used_with_tls_and_a_user_of_its_own() {
    let (redis, news) = (RedisServer::start_with_tls_and_user(), News::start());
    let config = NewsConfig::default();
    let untrusting = config.options(&news, &redis);
    let authority = redis.certificates().authority.to_str().unwrap();
    let trusting = untrusting.clone().env("SSL_CERT_FILE", authority);

    let replicas = Larder::start_many(2, &trusting);
    for replica in &replicas {
        sees_redis(replica, true);
    }
    all_of(&replicas[0], "science");
    let elsewhere = replicas[1].get(&path("science")).expect(200);
    assert!(
        elsewhere
            .the("Cache-Status")
            .starts_with("larder-redis; hit"),
        "{elsewhere}"
    );
    assert_eq!(news.calls(), (1, 1));

    // A larder that does not trust the certificate authority works without Redis.
    let alone = Larder::start(&untrusting);
    all_of(&alone, "science");
    assert_eq!(alone.stats()["redis"]["up"], false);

    for larder in replicas.iter().chain([&alone]) {
        assert!(
            !larder.log().contains(USER.1),
            "the password of Redis is logged"
        );
    }
}
