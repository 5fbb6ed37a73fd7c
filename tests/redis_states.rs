//! A Redis that answers but refuses: each state is reported, costs no answer, and ends with its
//! cause.

use serde_json::{Value, json};

use testkit::larder::{Larder, LarderOptions};
use testkit::news::path;
use testkit::redis::{RedisServer, USER};
use testkit::versions::{Versions, VersionsConfig, version, version_in};
use testkit::{SOON, until};

fn redis(larder: &Larder) -> Value {
    larder.stats()["redis"].clone()
}

/// The state of Redis in `/readyz`.
fn readiness(larder: &Larder) -> (u16, Value) {
    let answer = larder.call("GET", "/readyz").send();
    (answer.status, answer.json()["redis"]["state"].clone())
}

#[track_caller]
fn until_state(larder: &Larder, state: &str) -> Value {
    until(SOON, &format!("Redis is {state}"), || {
        redis(larder)["state"] == state
    });
    let redis = redis(larder);
    assert_eq!(redis["up"], state == "up", "{redis}");
    assert_eq!(readiness(larder).1, state);
    redis
}

struct One {
    larder: Larder,
    redis: RedisServer,
    versions: Versions,
}

impl One {
    fn start() -> One {
        One::with(|options| options)
    }

    fn with(change: impl FnOnce(LarderOptions) -> LarderOptions) -> One {
        let (redis, versions) = (RedisServer::start(), Versions::start());
        let options = VersionsConfig::default().options(&versions, redis.address());
        let larder = Larder::start(&change(options));
        until_state(&larder, "up");
        One {
            larder,
            redis,
            versions,
        }
    }

    /// Changes a category. Returns whether its invalidation is pending.
    fn change(&self, category: &str) -> bool {
        let new = self.versions.publish(category);
        let names = json!({"tags": [format!("category:{category}")]});
        let answer = self.larder.post("/cache/invalidate", &names);
        assert_eq!(version(&self.larder, category), new, "{answer}");
        answer.json()["pending"] == true
    }

    /// Waits until Redis is up and stores loads again.
    #[track_caller]
    fn until_it_takes_fills(&self) {
        until_state(&self.larder, "up");
        until(SOON, "nothing is pending", || {
            self.larder.stats()["bus"]["pending"] == 0
        });
        let new = self.versions.publish("science");
        let names = json!({"tags": ["category:science"]});
        self.larder.post("/cache/invalidate", &names).expect(200);
        let answer = self.larder.get(&path("science"));
        assert_eq!(version_in(&answer, "science"), new);
        assert!(answer.the("Cache-Status").contains("; stored"), "{answer}");
    }
}

/// A state that begins while larder runs is noticed without a request.
fn comes_and_goes(
    state: &str,
    pending: bool,
    begin: impl FnOnce(&RedisServer),
    end: impl FnOnce(&RedisServer),
) {
    let one = One::start();
    assert!(!one.change("science"));
    begin(&one.redis);
    until_state(&one.larder, state);
    assert_eq!(one.change("science"), pending);
    assert_eq!(readiness(&one.larder).0, 200, "it is not required");
    end(&one.redis);
    one.until_it_takes_fills();
}

#[test]
fn a_read_only_redis_is_a_state_that_ends() {
    comes_and_goes(
        "read-only",
        true,
        RedisServer::make_read_only,
        RedisServer::make_writable,
    );
}

#[test]
fn a_redis_replica_without_its_primary_is_read_only() {
    comes_and_goes(
        "read-only",
        true,
        |redis| {
            redis.cli::<()>(&["CONFIG", "SET", "replica-serve-stale-data", "no"]);
            redis.make_read_only();
        },
        RedisServer::make_writable,
    );
}

#[test]
fn a_full_redis_is_a_state_that_ends() {
    // A full Redis still takes invalidations.
    comes_and_goes(
        "full",
        false,
        RedisServer::make_full,
        RedisServer::make_room,
    );
}

#[test]
fn a_redis_that_cannot_write_its_disk_is_a_state_that_ends() {
    comes_and_goes(
        "refusing",
        true,
        RedisServer::break_disk,
        RedisServer::mend_disk,
    );
}

#[test]
fn a_redis_without_enough_replicas_is_a_state_that_ends() {
    comes_and_goes(
        "refusing",
        true,
        |redis| redis.cli(&["CONFIG", "SET", "min-replicas-to-write", "1"]),
        |redis| redis.cli(&["CONFIG", "SET", "min-replicas-to-write", "0"]),
    );
}

#[test]
fn a_redis_that_permits_no_scripts_is_a_state_that_ends() {
    comes_and_goes(
        "not permitted",
        true,
        |redis| redis.cli(&["ACL", "SETUSER", "default", "-evalsha"]),
        |redis| redis.cli(&["ACL", "SETUSER", "default", "+evalsha"]),
    );
}

#[test]
fn a_redis_that_permits_no_fills_is_a_state_that_ends() {
    comes_and_goes(
        "not permitted",
        false,
        |redis| redis.cli(&["ACL", "SETUSER", "default", "-set"]),
        |redis| redis.cli(&["ACL", "SETUSER", "default", "+set"]),
    );
}

#[test]
fn a_redis_that_wants_another_password_is_not_permitted() {
    let redis = RedisServer::start();
    redis.cli::<()>(&["CONFIG", "SET", "requirepass", "secret-of-the-test"]);
    let versions = Versions::start();
    let options = VersionsConfig::default().options(&versions, redis.address());
    let url = |password: &str| format!("redis://:{password}@{}", redis.address());
    let right = options.clone().env("REDIS_URL", &url("secret-of-the-test"));
    let wrong = options.clone().env("REDIS_URL", &url("another-secret"));
    let none = options;
    let right = Larder::start(&right);
    until_state(&right, "up");
    assert_eq!(version(&right, "science"), 1);
    for options in [wrong, none] {
        let larder = Larder::start(&options);
        let state = until_state(&larder, "not permitted");
        assert_eq!(version(&larder, "science"), 1, "{state}");
        let log = larder.log();
        assert!(log.contains("password") || log.contains("NOAUTH"), "{log}");
        assert!(!log.contains("another-secret"), "{log}");
    }
    // The password changes for new connections only. Open ones stay authenticated.
    let mut connection = redis::Client::open(url("secret-of-the-test"))
        .unwrap()
        .get_connection()
        .unwrap();
    redis::cmd("CONFIG")
        .arg(&["SET", "requirepass", "the-next-one"])
        .exec(&mut connection)
        .unwrap();
    assert_eq!(version(&right, "health"), 1);
    assert_eq!(self::redis(&right)["up"], true);
    // Once disconnected, larder cannot connect again.
    redis::cmd("CLIENT")
        .arg(&["KILL", "TYPE", "normal"])
        .exec(&mut connection)
        .unwrap();
    until_state(&right, "not permitted");
}

#[test]
fn a_redis_that_is_loading_is_a_state_that_ends() {
    let mut redis = RedisServer::start();
    let many = "for i = 1, 10000 do redis.call('SET', 'other:' .. i, string.rep('x', 100)) end";
    redis.cli::<()>(&["EVAL", many, "0"]);
    let snapshot = redis.snapshot();
    let versions = Versions::start();
    let options = VersionsConfig::default().options(&versions, redis.address());
    redis.restore_and_go_on_loading(&snapshot);
    let larder = Larder::start(&options);
    until_state(&larder, "loading");
    assert_eq!(version(&larder, "science"), 1);
    redis.finish_loading();
    until_state(&larder, "up");
    // The same while larder runs.
    redis.restore_and_go_on_loading(&snapshot);
    until_state(&larder, "loading");
    assert_eq!(version(&larder, "science"), 1);
    redis.finish_loading();
    until_state(&larder, "up");
}

#[test]
fn a_required_redis_that_takes_no_writes_is_no_reason_to_be_ready() {
    let one = One::with(|options| options.with_config_text("[redis]", "[redis]\nrequired = true"));
    assert_eq!(readiness(&one.larder), (200, json!("up")));
    one.redis.make_full();
    until_state(&one.larder, "full");
    // Larder keeps its promises in this state.
    assert_eq!(readiness(&one.larder), (200, json!("full")));
    one.redis.make_room();
    until_state(&one.larder, "up");
    one.redis.make_read_only();
    until_state(&one.larder, "read-only");
    assert_eq!(readiness(&one.larder), (503, json!("read-only")));
    one.redis.make_writable();
    until(SOON, "it is ready", || {
        readiness(&one.larder) == (200, json!("up"))
    });
}

/// The rights that the documentation tells operators to grant.
#[test]
fn the_user_of_the_documentation_may_do_all_that_is_needed() {
    let text = include_str!("../docs/operations.md");
    let line = text
        .lines()
        .find(|line| line.starts_with("user larder on "))
        .unwrap();
    let rules = line.replace(">PASSWORD", ">pw");
    let (redis, versions) = (RedisServer::start(), Versions::start());
    let words: Vec<&str> = ["ACL", "SETUSER"]
        .into_iter()
        .chain(rules.split(' ').skip(1))
        .collect();
    redis.cli::<()>(&words);
    let url = format!("redis://larder:pw@{}", redis.address());
    let options = VersionsConfig::default().options(&versions, redis.address());
    let larder = Larder::start(&options.env("REDIS_URL", &url));
    let one = One {
        larder,
        redis,
        versions,
    };
    one.until_it_takes_fills();
    // A foreign value in place of the record exercises the rarely used commands.
    one.redis.cli::<()>(&["SET", "{larder:bus}:state", "foo"]);
    one.redis
        .cli::<()>(&["SET", "{larder:bus}:replicas", "foo"]);
    one.until_it_takes_fills();
    until(SOON, "the bus works", || {
        one.larder.stats()["bus"]["trusted"] == true
    });
    assert!(
        !one.larder.log().contains("may not"),
        "{}",
        one.larder.log()
    );
}

#[test]
fn the_right_that_is_missing_is_named() {
    for (right, command, what) in [
        ("-info", "INFO", "server"),
        ("-hset", "HSET", "{larder:bus}:state"),
        ("-time", "TIME", ""),
    ] {
        let (redis, versions) = (RedisServer::start(), Versions::start());
        redis.cli::<()>(&[
            "ACL", "SETUSER", "limited", "on", ">pw", "~*", "&*", "+@all", right,
        ]);
        let url = format!("redis://limited:pw@{}", redis.address());
        let options = VersionsConfig::default().options(&versions, redis.address());
        let larder = Larder::start(&options.env("REDIS_URL", &url));
        let state = until_state(&larder, "not permitted");
        let reason = state["reason"].as_str().unwrap();
        assert!(
            reason.contains(command) && reason.contains(what),
            "{reason}"
        );
        let log = larder.log();
        assert!(log.contains(reason), "{log}");
        assert_eq!(version(&larder, "science"), 1);
    }
}

#[test]
fn a_port_that_speaks_tls_and_one_that_does_not() {
    let (redis, versions) = (RedisServer::start_with_tls_and_user(), Versions::start());
    let authority = redis.certificates().authority.to_str().unwrap().to_owned();
    let tls_port = redis.url().rsplit(':').next().unwrap().to_owned();
    let plain_port = redis.address().port().to_string();
    let (user, password) = USER;
    for (scheme, port, says) in [
        ("rediss", &plain_port, "redis://"),
        ("redis", &tls_port, "rediss://"),
    ] {
        let url = format!("{scheme}://{user}:{password}@localhost:{port}");
        let options = VersionsConfig::default().options(&versions, redis.address());
        let options = options
            .env("REDIS_URL", &url)
            .env("SSL_CERT_FILE", &authority);
        let larder = Larder::start(&options);
        let line = "Redis does not answer at";
        until(SOON, "it says why", || larder.log().contains(line));
        let log = larder.log();
        let line = log.lines().find(|text| text.contains(line)).unwrap();
        assert!(line.contains(&format!("takes {says}")), "{line}");
        assert!(!log.contains(password), "{log}");
        assert_eq!(self::redis(&larder)["state"], "down");
    }
}

#[test]
fn an_address_that_nobody_has_is_not_taken_for_a_wrong_port() {
    for scheme in ["redis", "rediss"] {
        // A broadcast address, to which no connection can be opened.
        let url = format!("{scheme}://255.255.255.255:6379");
        let options = LarderOptions::new("").env("REDIS_URL", &url);
        let larder = Larder::start(&options);
        let line = "Redis does not answer at";
        until(SOON, "it says why", || larder.log().contains(line));
        let log = larder.log();
        let line = log.lines().find(|text| text.contains(line)).unwrap();
        assert!(line.contains("os error"), "{line}");
        for guess in ["protocol", "handshake", "takes redis"] {
            assert!(!line.contains(guess), "{line}");
        }
    }
}
