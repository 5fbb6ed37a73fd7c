//! Starting, being ready, being told something new, and ending well.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use regex_lite::Regex;
use rustix::process::Signal;
use serde_json::json;

use crate::support::larder::{ADMIN_KEY, Larder, LarderOptions};
use crate::support::news::{News, NewsConfig, titles};
use crate::support::postgres::PostgresServer;
use crate::support::redis::RedisServer;
use crate::support::upstream::Behaviour;
use crate::support::{SOON, free_address, the_usual_redis_port, until};

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
fn the_grace_is_kept_to_the_millisecond() {
    let (redis, news) = (RedisServer::start(), News::start());
    let config = NewsConfig {
        server: "shutdown_grace = \"2500ms\"",
        upstream_timeout: "50s",
        ..NewsConfig::default()
    };
    let mut larder = config.start(&news, &redis);
    news.behave(&Behaviour::Silence);
    let _in_flight = larder.call("GET", PATH).key(ADMIN_KEY).connect().unwrap();
    until(SOON, "the upstreams are asked", || news.calls() == (1, 1));
    let told = Instant::now();
    larder.stop();
    // Whole seconds would be two. What ends it is its own timer and not the server's, which would be at three or later.
    let took = told.elapsed();
    assert!(took >= Duration::from_millis(2500), "{took:?}");
    let log = larder.log();
    assert!(log.contains("the grace is over"), "{log}");
}

#[test]
fn a_configuration_that_is_gone_changes_nothing() {
    let (redis, news) = (RedisServer::start(), News::start());
    let config = NewsConfig {
        public: true,
        ..NewsConfig::default()
    };
    let named = config.options(&news, &redis);
    for options in [named.clone(), named.with_config_to_be_found()] {
        let larder = Larder::start(&options);
        larder.call("GET", PATH).send().expect(200);
        larder.reload_without_file();
        until(SOON, "the log says what is missing", || {
            let log = larder.log();
            log.contains("nothing is changed") && log.contains("cannot be read")
        });
        // The built-in one has it for keys only.
        larder.call("GET", PATH).send().expect(200);
        // Once there is one again it is taken.
        let private = NewsConfig {
            public: false,
            ..config.clone()
        };
        larder.reload(&private.text(&news));
        until(SOON, "the new one is taken over", || {
            larder.call("GET", PATH).send().status == 401
        });
    }
}

#[test]
fn another_address_is_named_unless_the_command_line_has_one() {
    let (redis, news) = (RedisServer::start(), News::start());
    let config = NewsConfig::default();
    let (first, second) = (free_address(), free_address());
    let bound = |at: SocketAddr| format!("[server]\nbind = \"{at}\"");
    let options = config
        .options(&news, &redis)
        .with_config_text("[server]", &bound(first));
    let other = NewsConfig {
        patience: "2s",
        ..config
    };
    let other = other.text(&news).replace("[server]", &bound(second));
    let by_file = Larder::start(&options.clone().bound_by_its_configuration(first));
    let by_command = Larder::start(&options);
    for larder in [&by_file, &by_command] {
        larder.reload(&other);
        until(SOON, "the log names what waits for a restart", || {
            larder.log().contains("coherence.patience")
        });
    }
    assert!(by_file.log().contains("server.bind"), "{}", by_file.log());
    let log = by_command.log();
    assert!(!log.contains("server.bind"), "{log}");
}

#[test]
fn ends_while_the_database_is_frozen() {
    let (redis, news) = (RedisServer::start(), News::start());
    let mut postgres = PostgresServer::start();
    let config = NewsConfig::default();
    let options = config.options(&news, &redis);
    let mut larder = Larder::start(&options.env("DATABASE_URL", &postgres.url()));
    let (_, key) = larder.create_key(&json!({"name": "reader"}));
    let get = |larder: &Larder| larder.call("GET", PATH).key(&key).send().status;
    assert_eq!(get(&larder), 200);

    postgres.freeze();
    // Whoever asks the database is told that it is away, in bounded time; who does not need it notices nothing.
    let began = Instant::now();
    let refused = larder.post("/keys", &json!({"name": "x"}));
    refused.problem(503);
    assert!(began.elapsed() < Duration::from_secs(15), "{refused}");
    assert_eq!(get(&larder), 200);
    larder.call("GET", "/healthz").send().expect(200);
    // A reload asks nobody, not even for the rate of the keys.
    let other = NewsConfig {
        rate: "1/1h",
        ..config
    };
    larder.reload(&other.text(&news));
    until(SOON, "the new rate is in force", || get(&larder) == 429);

    // Three seconds for the times of last use and five for the archive, where there is something to write.
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
    // A key of somebody who is no admin does not count as the first.
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
    let log = larder.log();
    let form = Regex::new("lk_[0-9A-Za-z]{12}_[0-9A-Za-z]{32}").unwrap();
    let key = form.find(&log).unwrap_or_else(|| panic!("no key: {log}"));
    let keys = larder.call("GET", "/keys").key(key.as_str()).send();
    keys.expect(200);
}

#[test]
fn what_is_no_http_leaves_no_line_in_the_log() {
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
        // Until it is closed: whatever there is to log is logged by then.
        let _ = stream.read_to_end(&mut answer);
    }
    larder.get(PATH).expect(200);
    let log = larder.log();
    assert!(!log[before.len()..].contains("ERROR"), "{log}");
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
