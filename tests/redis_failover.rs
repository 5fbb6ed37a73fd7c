//! Redis failover: an address that leads to another server, cut connections, and a Redis that
//! returns.

use std::sync::mpsc;
use std::thread;

use larder_cache::{Cache, RedisDown, RedisSettings};
use serde_json::{Value, json};

use testkit::larder::Larder;
use testkit::news::{CATEGORIES, path};
use testkit::proxy::FaultProxy;
use testkit::redis::RedisServer;
use testkit::versions::{Versions, VersionsConfig, version_in};
use testkit::{SOON, until};

use super::cache;

/// A primary and its replica, a proxy in front of the primary, and a larder that knows only the
/// proxy.
struct Moving {
    larder: Larder,
    proxy: FaultProxy,
    old: RedisServer,
    new: RedisServer,
    versions: Versions,
}

impl Moving {
    fn start() -> Moving {
        let (old, new) = (RedisServer::start(), RedisServer::start());
        new.replicate(&old);
        let proxy = FaultProxy::start(old.address());
        let versions = Versions::start();
        let options = VersionsConfig::default().options(&versions, proxy.address());
        let larder = Larder::start(&options);
        until(SOON, "Redis is up", || redis(&larder)["up"] == true);
        Moving {
            larder,
            proxy,
            old,
            new,
            versions,
        }
    }

    /// The replica becomes the primary. Connections to the old primary stay open.
    fn move_over(&self) {
        self.old.fail_over_to(&self.new);
        self.proxy.set_target(self.new.address());
    }

    fn invalidate(&self, category: &str) -> (u64, bool) {
        let version = self.versions.publish(category);
        let names = json!({"tags": [format!("category:{category}")]});
        let answer = self.larder.post("/cache/invalidate", &names);
        (version, answer.json()["pending"] == true)
    }

    /// Loads a category again. Returns whether Redis has stored it.
    fn load(&self, category: &str) -> bool {
        let (version, _) = self.invalidate(category);
        let answer = self.larder.get(&path(category)).expect(200);
        assert_eq!(version_in(&answer, category), version, "{answer}");
        answer.the("Cache-Status").contains("; stored")
    }
}

fn redis(larder: &Larder) -> Value {
    larder.stats()["redis"].clone()
}

#[test]
fn an_address_that_moves_takes_everything_with_it() {
    let moving = Moving::start();
    assert!(CATEGORIES.iter().all(|category| moving.load(category)));
    moving.move_over();
    until(SOON, "Redis is up", || redis(&moving.larder)["up"] == true);
    until(SOON, "nobody is left at the old one", || {
        moving.old.clients() == 0
    });
    for category in CATEGORIES {
        assert!(moving.load(category), "{}", redis(&moving.larder));
    }
    assert_eq!(moving.larder.stats()["bus"]["pending"], 0);

    // And back. No request is sent until larder has noticed.
    moving.new.fail_over_to(&moving.old);
    moving.proxy.set_target(moving.old.address());
    until(SOON, "nobody is left at the new one", || {
        moving.new.clients() == 0
    });
    until(SOON, "Redis is up", || redis(&moving.larder)["up"] == true);
    for category in CATEGORIES {
        assert!(moving.load(category), "{}", redis(&moving.larder));
    }
}

#[test]
fn the_first_call_after_the_move_is_made_at_the_new_place() {
    let moving = Moving::start();
    assert!(moving.load("science"));
    // At once, because nothing is written meanwhile.
    moving.new.make_writable();
    moving.proxy.set_target(moving.new.address());
    moving.old.make_read_only();
    // The pool's connections lead to a server that answers that it is read-only.
    let (version, pending) = moving.invalidate("science");
    assert!(!pending, "{}", redis(&moving.larder));
    let answer = moving.larder.get(&path("science")).expect(200);
    assert_eq!(version_in(&answer, "science"), version);
    assert!(answer.the("Cache-Status").contains("; stored"), "{answer}");
    assert_eq!(redis(&moving.larder)["up"], true);
}

#[test]
fn a_primary_that_is_promoted_later_is_found() {
    let moving = Moving::start();
    assert!(moving.load("science"));
    // The address moves first, so for a while it leads to a replica, which takes no writes.
    moving.proxy.set_target(moving.new.address());
    moving.proxy.close_all();
    until(SOON, "a replica takes no fills", || {
        redis(&moving.larder)["state"] == "read-only"
    });
    assert_eq!(redis(&moving.larder)["up"], false);
    let (version, pending) = moving.invalidate("health");
    assert!(pending);
    let answer = moving.larder.get(&path("health")).expect(200);
    assert_eq!(version_in(&answer, "health"), version);
    moving.old.fail_over_to(&moving.new);
    until(SOON, "Redis is up", || redis(&moving.larder)["up"] == true);
    until(SOON, "it is delivered", || {
        moving.larder.stats()["bus"]["pending"] == 0
    });
    assert!(moving.load("science"));
}

#[test]
fn a_killed_connection_says_nothing_of_the_server() {
    let moving = Moving::start();
    assert!(moving.load("science"));
    // A connection that is cut while it opens is taken for the loss of Redis. So wait until the bus
    // is connected.
    let subscribed = || {
        until(SOON, "the bus is back", || {
            let subscribers: String = moving.old.cli(&["CLIENT", "LIST", "TYPE", "pubsub"]);
            !subscribers.is_empty()
        });
    };
    for _ in 0..5 {
        subscribed();
        // Cuts all connections but those of the bus.
        let killed: i64 = moving
            .old
            .cli(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
        assert!(killed > 0);
        let (_, pending) = moving.invalidate("science");
        assert!(!pending, "{}", redis(&moving.larder));
        for category in CATEGORIES {
            assert!(moving.load(category), "{}", redis(&moving.larder));
        }
        assert_eq!(redis(&moving.larder)["up"], true);
        // Cuts those of the bus, then all.
        moving.old.cli::<i64>(&["CLIENT", "KILL", "TYPE", "pubsub"]);
        assert!(moving.load("health"), "{}", redis(&moving.larder));
        subscribed();
        moving.proxy.close_all();
        for category in CATEGORIES {
            assert!(moving.load(category), "{}", redis(&moving.larder));
        }
        assert_eq!(redis(&moving.larder)["up"], true);
    }
    let log = moving.larder.log();
    assert!(!log.contains("Redis connection lost"), "{log}");
}

fn ping(cache: &Cache) -> Result<String, RedisDown> {
    let pool = cache.redis();
    pool.run(|connection| redis::cmd("PING").query(connection))
}

/// A connection from before an outage must not be used after it. Here it is in use all the time.
#[test]
fn nothing_from_before_an_outage_is_left_when_redis_is_found() {
    let mut server = RedisServer::start();
    let cache = cache(&server);
    for used_before in [false, true] {
        if used_before {
            assert!(ping(&cache).is_ok());
        }
        let (taken, is_taken) = mpsc::channel();
        let (back, is_back) = mpsc::channel::<()>();
        thread::scope(|scope| {
            let pool = cache.redis();
            let old = scope.spawn(move || {
                pool.run(|connection| {
                    taken.send(()).unwrap();
                    is_back.recv().unwrap();
                    redis::cmd("PING").query::<String>(connection)
                })
            });
            is_taken.recv().unwrap();
            server.kill();
            until(SOON, "it is known without a request", || {
                !cache.redis().is_up()
            });
            server.restart();
            assert!(cache.redis().wait_up(SOON));
            back.send(()).unwrap();
            assert_eq!(old.join().unwrap(), Err(RedisDown::Unreachable));
        });
        for _ in 0..50 {
            assert!(
                cache.redis().is_up(),
                "one dead connection says nothing of the server"
            );
            assert_eq!(ping(&cache).as_deref(), Ok("PONG"));
        }
    }
}

/// The same for connections that are idle in the pool.
#[test]
fn connections_that_lay_in_the_pool_during_an_outage_are_not_used() {
    let mut server = RedisServer::start();
    let cache = cache(&server);
    // As many as the pool can hold.
    let count = RedisSettings::default().pool as usize;
    let all = std::sync::Barrier::new(count);
    thread::scope(|scope| {
        for _ in 0..count {
            let (cache, all) = (&cache, &all);
            scope.spawn(move || {
                let held = cache.redis().run(|connection| {
                    all.wait();
                    redis::cmd("PING").query::<String>(connection)
                });
                assert!(held.is_ok());
            });
        }
    });
    server.kill();
    until(SOON, "it is known without a request", || {
        !cache.redis().is_up()
    });
    server.restart();
    assert!(cache.redis().wait_up(SOON));
    let errors = cache.redis().errors();
    for _ in 0..50 {
        assert_eq!(ping(&cache).as_deref(), Ok("PONG"));
    }
    assert_eq!(cache.redis().errors(), errors);
}

#[test]
fn no_request_waits_for_a_redis_that_the_bus_knows_to_be_gone() {
    let mut server = RedisServer::start();
    let proxy = FaultProxy::start(server.address());
    let versions = Versions::start();
    let options = VersionsConfig::default().options(&versions, proxy.address());
    let larder = Larder::start(&options);
    until(SOON, "Redis is up", || redis(&larder)["up"] == true);
    larder.get(&path("science")).expect(200);
    for fault in ["killed", "cut"] {
        match fault {
            "killed" => server.kill(),
            _ => proxy.cut(),
        }
        // No request has needed Redis.
        until(SOON, "it is known without a request", || {
            redis(&larder)["up"] == false
        });
        let errors = redis(&larder)["errors"].clone();
        for category in CATEGORIES {
            let answer = larder.get(&path(category)).expect(200);
            let timing = answer.header("Server-Timing").unwrap_or_default();
            assert!(!timing.contains("redis;"), "{fault}: {answer}");
        }
        // A call that is not made can neither wait nor fail.
        assert_eq!(redis(&larder)["errors"], errors, "{fault}");
        match fault {
            "killed" => server.restart(),
            _ => proxy.restore(),
        }
        until(SOON, "Redis is up", || redis(&larder)["up"] == true);
    }
}
