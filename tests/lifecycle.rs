//! Starting, being ready, being told something new, and ending well.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use regex_lite::Regex;
use rustix::process::Signal;

use crate::support::larder::{ADMIN_KEY, Larder, LarderOptions};
use crate::support::news::{News, NewsConfig, titles};
use crate::support::postgres::PostgresServer;
use crate::support::redis::RedisServer;
use crate::support::upstream::Behaviour;
use crate::support::{SOON, the_usual_redis_port, until};

const PATH: &str = "/articles?category=science";

#[test]
fn drains_when_it_is_asked_to_end() {
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
    // The load balancer may not have noticed yet: whoever comes is served.
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
    // Who came before is served to the end.
    news.newsapi.release();
    let answer = in_flight.finish().unwrap().expect(200);
    assert_eq!(titles(&answer.json()).len(), 10);
    assert_eq!(larder.ended().code(), Some(0), "{}", larder.log());
}

#[test]
fn ends_at_once_when_nothing_is_in_flight() {
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

#[test]
fn ends_within_its_grace_when_a_source_says_nothing() {
    let (redis, news) = (RedisServer::start(), News::start());
    let config = NewsConfig {
        server: "shutdown_grace = \"1s\"",
        upstream_timeout: "50s",
        ..NewsConfig::default()
    };
    let mut larder = config.start(&news, &redis);
    news.behave(&Behaviour::Silence);
    let _in_flight = larder.call("GET", PATH).key(ADMIN_KEY).connect().unwrap();
    until(SOON, "the upstreams are asked", || news.calls() == (1, 1));
    let told = Instant::now();
    larder.stop();
    assert!(
        told.elapsed() < Duration::from_secs(6),
        "{:?}",
        told.elapsed()
    );
}

#[test]
fn reads_its_configuration_again_when_told() {
    let (redis, news) = (RedisServer::start(), News::start());
    let config = NewsConfig::default();
    let larder = config.start(&news, &redis);
    larder.get(PATH).expect(200);
    let open = |larder: &Larder| larder.call("GET", PATH).send().status == 200;
    assert!(!open(&larder));

    let public = NewsConfig {
        public: true,
        ..config.clone()
    };
    larder.reload(&public.text(&news));
    until(SOON, "it is public", || open(&larder));
    // What was cached is still there: nothing that makes the value has changed.
    assert_eq!(news.calls(), (1, 1));

    // A wrong one changes nothing, and the log says what is wrong with it.
    let wrong = config.text(&news).replace("soft_timeout", "soft_timeuot");
    larder.reload(&wrong);
    until(SOON, "the error is logged", || {
        larder.log().contains("soft_timeuot")
    });
    assert!(open(&larder));

    // What cannot change while it runs is named, and the rest is taken.
    let other = NewsConfig {
        patience: "2s",
        ..config
    };
    larder.reload(&other.text(&news));
    until(SOON, "it is no longer public", || !open(&larder));
    until(SOON, "the log names what waits for a restart", || {
        larder.log().contains("coherence.patience")
    });
    assert_eq!(news.calls(), (1, 1));
}

#[test]
fn health_asks_whether_it_is_ready() {
    let (redis, news) = (RedisServer::start(), News::start());
    let mut larder = NewsConfig::default().start(&news, &redis);
    let url = format!("http://{}", larder.address());
    let health = |arguments: &[&str], bind: &str| {
        let options = LarderOptions::unconfigured().env("LARDER_BIND", bind);
        options.run(arguments).status.code()
    };
    let bind = larder.address().to_string();
    assert_eq!(health(&["health", "--url", &url], "127.0.0.1:1"), Some(0));
    // Without a URL it asks the larder of its own configuration: that is what a container's health check runs.
    assert_eq!(health(&["health"], &bind), Some(0));
    assert_eq!(
        health(&["health"], &format!("0.0.0.0:{}", larder.address().port())),
        Some(0)
    );
    larder.stop();
    assert_eq!(health(&["health", "--url", &url], &bind), Some(1));
    assert_eq!(health(&["health"], &bind), Some(1));
}

#[test]
fn ready_says_how_each_dependency_is() {
    let (redis, news) = (RedisServer::start(), News::start());
    let larder = NewsConfig::default().start(&news, &redis);
    let ready = larder.call("GET", "/readyz").send().expect(200);
    let body = ready.json().to_string();
    assert!(
        body.contains("redis") && body.contains("database"),
        "{ready}"
    );
}

#[test]
fn check_prints_what_is_declared_or_every_error() {
    let news = News::start();
    let config = NewsConfig::default().text(&news);
    let check = |text: &str| {
        let output = LarderOptions::new(text).run(&["check"]);
        let all = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(all).unwrap())
    };
    let (code, table) = check(&config);
    assert_eq!(code, Some(0), "{table}");
    for column in [
        "articles",
        "/articles",
        "30s",
        "5m",
        "newsapi",
        "guardian",
        "category",
    ] {
        assert!(table.contains(column), "{column}: {table}");
    }

    let wrong = config
        .replace("workers = 2", "wrokers = 2")
        .replace("memory = \"30s\"", "memory = \"10m\"")
        .replace("category:{category}", "category:{kind}");
    let (code, errors) = check(&wrong);
    assert_eq!(code, Some(2), "{errors}");
    for named in [
        "server.wrokers",
        "workers",
        "resource.articles.ttl.memory",
        "resource.articles.tags",
        "kind",
    ] {
        assert!(errors.contains(named), "{named}: {errors}");
    }
    // A server does not start with it either.
    let mut refuses = Larder::spawn(&LarderOptions::new(&wrong));
    assert_eq!(refuses.ended().code(), Some(2), "{}", refuses.log());
    assert!(
        refuses.log().contains("server.wrokers"),
        "{}",
        refuses.log()
    );
}

#[test]
fn the_command_line_is_checked() {
    let run = |arguments: &[&str]| LarderOptions::unconfigured().run(arguments);
    for fine in [
        &["--help"][..],
        &["--version"],
        &["serve", "--help"],
        &["key", "--help"],
    ] {
        let output = run(fine);
        assert_eq!(output.status.code(), Some(0), "{fine:?}");
        assert!(
            String::from_utf8_lossy(&output.stdout).contains("larder"),
            "{fine:?}"
        );
    }
    for wrong in [
        &["sreve"][..],
        &["serve", "--no-such-thing"],
        &["serve", "--bind", "nowhere"],
    ] {
        assert_eq!(run(wrong).status.code(), Some(2), "{wrong:?}");
    }
    let missing = run(&["check", "--config", "/no/such/file.toml"]);
    assert_eq!(missing.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("/no/such/file.toml"));
}

/// The one test that needs the usual port of Redis.
#[test]
fn serves_with_nothing_configured() {
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

    let form = Regex::new("lk_[0-9A-Za-z]{12}_[0-9A-Za-z]{32}").unwrap();
    let key = form
        .find(&log)
        .unwrap_or_else(|| panic!("no key: {log}"))
        .as_str();
    let body = first.call("GET", PATH).key(key).send().expect(200).json();
    assert_eq!(body["sandbox"], true, "{body}");
    assert!(body["total"].as_u64().unwrap() > 0, "{body}");
    first.call("GET", "/keys").key(key).send().expect(200);
    assert_eq!(first.stop().code(), Some(0));

    // The key is made once, and lives on.
    let second = Larder::start(&options);
    assert!(!form.is_match(&second.log()), "{}", second.log());
    let call = |target: &str| second.call("GET", target).key(key).send().expect(200);
    call(PATH);
    assert_eq!(call("/cache/stats").json()["redis"]["up"], false);

    // A Redis that appears is taken into use.
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
fn many_may_start_together_on_an_empty_database() {
    let (redis, news, postgres) = (RedisServer::start(), News::start(), PostgresServer::start());
    let options = NewsConfig::default()
        .options(&news, &redis)
        .without_env("LARDER_ADMIN_KEY");
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let file = format!("sqlite://{}", folder.path().join("shared.db").display());
    for url in [postgres.new_database(), file] {
        let replicas = Larder::start_many(4, &options.clone().env("DATABASE_URL", &url));
        let form = Regex::new("lk_[0-9A-Za-z]{12}_[0-9A-Za-z]{32}").unwrap();
        let mut made: Vec<String> = replicas
            .iter()
            .filter_map(|replica| Some(form.find(&replica.log())?.as_str().to_owned()))
            .collect();
        made.sort();
        assert_eq!(made.len(), 1, "one first admin key between them");
        for replica in &replicas {
            until(SOON, "every replica knows it", || {
                replica.call("GET", "/keys").key(&made[0]).send().status == 200
            });
        }
    }
}

#[test]
fn comes_back_after_a_crash_with_what_redis_holds() {
    let (redis, news) = (RedisServer::start(), News::start());
    let options = NewsConfig::default().options(&news, &redis);
    let mut crashes = Larder::start(&options);
    crashes.get(PATH).expect(200);
    // In the middle of a load, so that it holds the right to load until that runs out.
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
fn refuses_an_address_that_is_taken() {
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
