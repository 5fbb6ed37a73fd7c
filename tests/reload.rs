//! Being told to read the configuration again.

use std::net::SocketAddr;

use crate::support::larder::Larder;
use crate::support::news::{News, NewsConfig};
use crate::support::redis::RedisServer;
use crate::support::{SOON, free_address, until};

const PATH: &str = "/articles?category=science";

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
