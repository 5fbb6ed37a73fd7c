//! The life of the process: start, readiness, and shutdown.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use testkit::larder::{ADMIN_KEY, Larder, LarderOptions};
use testkit::news::{News, NewsConfig, titles};
use testkit::postgres::PostgresServer;
use testkit::proxy::FaultProxy;
use testkit::redis::RedisServer;
use testkit::upstream::Behaviour;
use testkit::{SOON, free_address, the_usual_redis_port, until};

const PATH: &str = "/articles?category=science";

#[test]
fn larder_drains_when_it_is_asked_to_end() {
    let (redis, news) = (RedisServer::start(), News::start());
    let config = NewsConfig {
        server: "drain_delay = \"3s\"\nshutdown_grace = \"20s\"",
        ..NewsConfig::default()
    };
    let mut larder = config.start(&news, &redis);
    larder.get("/articles").expect(200);
    news.newsapi.hold();
    let in_flight = larder.call("GET", PATH).key(ADMIN_KEY).connect().unwrap();
    until(SOON, "the upstream is asked", || news.newsapi.calls() == 2);

    let told = Instant::now();
    larder.signal(Signal::TERM);
    until(SOON, "it says that it drains", || {
        larder.call("GET", "/readyz").send().status == 503
    });
    // The load balancer may not have noticed yet, so new requests are still served.
    larder.get("/articles").expect(200);
    larder.call("GET", "/healthz").send().expect(200);
    until(SOON, "it takes no more connections", || {
        larder.call("GET", "/healthz").try_send().is_err()
    });
    assert!(
        told.elapsed() >= Duration::from_secs(3),
        "{:?}",
        told.elapsed()
    );
    // A request from before is served to its end.
    news.newsapi.release();
    let answer = in_flight.finish().unwrap().expect(200);
    assert_eq!(titles(&answer.json()).len(), 10);
    assert_eq!(larder.ended().code(), Some(0), "{}", larder.log());
}

#[test]
fn larder_logs_at_the_end_which_invalidations_are_pending() {
    let (redis, news) = (RedisServer::start(), News::start());
    let proxy = FaultProxy::start(redis.address());
    let config = NewsConfig::default();
    let options = config.options_at(&news, &format!("redis://{}", proxy.address()));
    for lost in [true, false] {
        let mut larder = Larder::start(&options);
        until(SOON, "it hears the bus", || {
            larder.stats()["bus"]["trusted"] == true
        });
        proxy.cut();
        let tags = json!({"tags": ["category:science", "category:health"]});
        let answer = larder.post("/cache/invalidate", &tags).expect(202);
        assert_eq!(answer.json()["pending"], true);
        if !lost {
            proxy.restore();
            until(SOON, "it is delivered", || {
                larder.stats()["bus"]["pending"] == 0
            });
        }
        larder.signal(Signal::TERM);
        assert_eq!(larder.ended().code(), Some(0), "{}", larder.log());
        let told = "2 pending invalidations are lost";
        assert_eq!(larder.log().contains(told), lost, "{}", larder.log());
        proxy.restore();
    }
}

#[test]
fn larder_ends_at_once_when_nothing_is_in_flight() {
    let (redis, news) = (RedisServer::start(), News::start());
    for signal in [Signal::TERM, Signal::INT] {
        let mut larder = NewsConfig::default().start(&news, &redis);
        larder.get(PATH).expect(200);
        let told = Instant::now();
        larder.signal(signal);
        assert_eq!(larder.ended().code(), Some(0), "{}", larder.log());
        assert!(
            told.elapsed() < Duration::from_secs(5),
            "{:?}",
            told.elapsed()
        );
    }
}

/// How long a server with this `[server]` table takes to end while such a request is in flight, and
/// its log.
fn stopped_while_a_source_says_nothing(server: &'static str) -> (Duration, String) {
    let (redis, news) = (RedisServer::start(), News::start());
    let config = NewsConfig {
        server,
        upstream_timeout: "50s",
        ..NewsConfig::default()
    };
    let mut larder = config.start(&news, &redis);
    news.behave(&Behaviour::Silence);
    let _in_flight = larder.call("GET", PATH).key(ADMIN_KEY).connect().unwrap();
    until(SOON, "the upstreams are asked", || news.calls() == (1, 1));
    let told = Instant::now();
    larder.stop();
    (told.elapsed(), larder.log())
}

#[test]
fn larder_ends_within_its_grace_when_a_source_is_silent() {
    let (took, _) = stopped_while_a_source_says_nothing("shutdown_grace = \"1s\"");
    assert!(took < Duration::from_secs(6), "{took:?}");
}

#[test]
fn the_shutdown_grace_is_kept_to_the_millisecond() {
    // In whole seconds this would be two. The server's own timer would fire after three or later.
    let (took, log) = stopped_while_a_source_says_nothing("shutdown_grace = \"2500ms\"");
    assert!(took >= Duration::from_millis(2500), "{took:?}");
    assert!(log.contains("the grace is over"), "{log}");
}

#[test]
fn larder_ends_while_the_database_is_frozen() {
    let (redis, news) = (RedisServer::start(), News::start());
    let mut postgres = PostgresServer::start();
    let config = NewsConfig::default();
    let options = config.options(&news, &redis);
    let mut larder = Larder::start(&options.env("DATABASE_URL", &postgres.url()));
    let (_, key) = larder.create_key(&json!({"name": "reader"}));
    let get = |larder: &Larder| larder.call("GET", PATH).key(&key).send().status;
    assert_eq!(get(&larder), 200);

    postgres.freeze();
    // A request that needs the database gets an error in bounded time. Others notice nothing.
    let began = Instant::now();
    let refused = larder.post("/keys", &json!({"name": "x"}));
    refused.problem(503);
    assert!(began.elapsed() < Duration::from_secs(15), "{refused}");
    assert_eq!(get(&larder), 200);
    larder.call("GET", "/healthz").send().expect(200);
    // A reload does not ask the database, not even for the rate of the keys.
    let other = NewsConfig {
        rate: "1/1h",
        ..config
    };
    larder.reload(&other.text(&news));
    until(SOON, "the new rate is in force", || get(&larder) == 429);

    // Three seconds for the times of last use, and five for the archive if there is something to
    // write.
    larder.get("/articles?category=health").expect(200);
    let told = Instant::now();
    let status = larder.stop();
    assert_eq!(status.code(), Some(0), "{}", larder.log());
    assert!(told.elapsed() < Duration::from_secs(15));
    postgres.thaw();
}

#[test]
fn a_first_key_that_cannot_be_printed_is_made_again() {
    let (redis, news) = (RedisServer::start(), News::start());
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let options = NewsConfig::default()
        .options(&news, &redis)
        .without_env("LARDER_ADMIN_KEY")
        .in_folder(&folder);
    // A key without admin rights does not count as the first.
    let reader = options.run(&["key", "create", "--name", "reader"]);
    assert!(reader.status.success(), "{reader:?}");

    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let bind = free_address().to_string();
    let refused = options.run_into(&["serve", "--bind", &bind], full);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("first API key cannot be printed"), "{said}");
    let list = options.run(&["key", "list"]);
    let list = String::from_utf8_lossy(&list.stdout).into_owned();
    assert!(list.contains("reader") && !list.contains("admin"), "{list}");

    let larder = Larder::start(&options);
    let key = larder.first_key().expect("a first key");
    larder.call("GET", "/keys").key(&key).send().expect(200);
}

#[test]
fn a_request_that_is_not_http_leaves_no_line_in_the_log() {
    let (redis, news) = (RedisServer::start(), News::start());
    let larder = NewsConfig::default().start(&news, &redis);
    larder.get(PATH).expect(200);
    let before = larder.log();
    for _ in 0..20 {
        let mut stream = TcpStream::connect(larder.address()).unwrap();
        stream
            .write_all(b"\x16\x03\x01 no http at all\r\n\r\n")
            .unwrap();
        let mut answer = Vec::new();
        // Until the connection is closed: by then everything is logged.
        let _ = stream.read_to_end(&mut answer);
    }
    larder.get(PATH).expect(200);
    let log = larder.log();
    assert!(!log[before.len()..].contains("ERROR"), "{log}");
}

#[test]
fn readyz_says_how_each_dependency_is() {
    let (redis, news) = (RedisServer::start(), News::start());
    let larder = NewsConfig::default().start(&news, &redis);
    let with_redis = |state: &str| {
        json!({
            "status": "ready",
            "database": {"state": "up", "kind": "sqlite"},
            "redis": {"state": state, "required": false},
        })
    };
    let says = |state: &str| {
        let ready = larder.call("GET", "/readyz").send().expect(200);
        ready.json() == with_redis(state)
    };
    until(SOON, "Redis is up", || says("up"));
    drop(redis);
    until(SOON, "Redis is down, which is no reason", || says("down"));
}

/// The one test that needs the usual port of Redis.
#[test]
fn larder_serves_with_nothing_configured() {
    let usual = the_usual_redis_port();
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let options = LarderOptions::unconfigured().in_folder(&folder);
    let mut first = Larder::start(&options);
    let log = first.log();
    assert!(
        log.contains("sandbox") && log.to_lowercase().contains("redis"),
        "{log}"
    );
    assert!(log.contains("curl "), "{log}");
    assert!(fs::exists(folder.path().join("larder.db")).unwrap());

    let key = first.first_key().expect("a first key");
    let key = key.as_str();
    let body = first.call("GET", PATH).key(key).send().expect(200).json();
    assert_eq!(body["sandbox"], true, "{body}");
    assert!(body["total"].as_u64().unwrap() > 0, "{body}");
    first.call("GET", "/keys").key(key).send().expect(200);
    assert_eq!(first.stop().code(), Some(0));

    // The first key is created only once and stays valid.
    let second = Larder::start(&options);
    assert_eq!(second.first_key(), None, "{}", second.log());
    let call = |target: &str| second.call("GET", target).key(key).send().expect(200);
    call(PATH);
    assert_eq!(call("/cache/stats").json()["redis"]["up"], false);

    // A Redis that starts later is found.
    let redis = RedisServer::start_at(usual.address);
    until(SOON, "it finds the Redis", || {
        call("/cache/stats").json()["redis"]["up"] == true
    });
    until(SOON, "it fills the Redis", || {
        call("/articles?category=health");
        call("/articles?category=sports");
        call("/articles?category=business");
        !redis.keys("larder:v:*").is_empty()
    });
}

#[test]
fn many_larders_may_start_together_on_an_empty_database() {
    let (redis, news, postgres) = (RedisServer::start(), News::start(), PostgresServer::start());
    let options = NewsConfig::default()
        .options(&news, &redis)
        .without_env("LARDER_ADMIN_KEY");
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let file = format!("sqlite://{}", folder.path().join("shared.db").display());
    for url in [postgres.new_database(), file] {
        let replicas = Larder::start_many(4, &options.clone().env("DATABASE_URL", &url));
        let made: Vec<String> = replicas.iter().filter_map(Larder::first_key).collect();
        assert_eq!(made.len(), 1, "one first admin key between them");
        for replica in &replicas {
            until(SOON, "every replica knows it", || {
                replica.call("GET", "/keys").key(&made[0]).send().status == 200
            });
        }
    }
}

#[test]
fn larder_comes_back_after_a_crash_with_what_redis_holds() {
    let (redis, news) = (RedisServer::start(), News::start());
    let options = NewsConfig::default().options(&news, &redis);
    let mut crashes = Larder::start(&options);
    crashes.get(PATH).expect(200);
    // Killed during a load, so its lease stays until it expires.
    news.newsapi.hold();
    let _lost = crashes
        .call("GET", "/articles?category=health")
        .key(ADMIN_KEY)
        .connect()
        .unwrap();
    until(SOON, "the upstream is asked", || news.newsapi.calls() == 2);
    crashes.kill();
    news.newsapi.release();

    let next = Larder::start(&options);
    let kept = next.get(PATH).expect(200);
    assert!(
        kept.the("Cache-Status").starts_with("larder-redis; hit"),
        "{kept}"
    );
    let body = next.get("/articles?category=health").expect(200).json();
    assert_eq!(titles(&body).len(), 10, "{body}");
}

#[test]
fn larder_refuses_an_address_that_is_taken() {
    let (redis, news) = (RedisServer::start(), News::start());
    let larder = NewsConfig::default().start(&news, &redis);
    let bind = larder.address().to_string();
    let taken = NewsConfig::default()
        .options(&news, &redis)
        .run(&["serve", "--bind", &bind]);
    assert_eq!(taken.status.code(), Some(1));
    let said = String::from_utf8_lossy(&taken.stderr).into_owned();
    assert!(said.contains(&bind), "{said}");
}
