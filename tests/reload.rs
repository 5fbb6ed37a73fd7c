//! Reloading the configuration.

use std::net::SocketAddr;

use testkit::larder::{Larder, LarderOptions};
use testkit::news::{News, NewsConfig};
use testkit::redis::RedisServer;
use testkit::{SOON, free_address, until};

const PATH: &str = "/articles?category=science";

#[test]
fn a_reload_reads_the_configuration_again() {
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
    // The cached values are still there, because nothing that makes them has changed.
    assert_eq!(news.calls(), (1, 1));

    // An invalid file changes nothing, and the log names its errors.
    let wrong = config.text(&news).replace("soft_timeout", "soft_timeuot");
    larder.reload(&wrong);
    until(SOON, "the error is logged", || {
        larder.log().contains("soft_timeuot")
    });
    assert!(open(&larder));

    // Settings that cannot change at run time are named in the log. The others are applied.
    let other = NewsConfig {
        max_staleness: "2s",
        ..config
    };
    larder.reload(&other.text(&news));
    until(SOON, "it is no longer public", || !open(&larder));
    until(SOON, "the log names what waits for a restart", || {
        larder.log().contains("coherence.max_staleness")
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
        // The built-in configuration, which needs a key, has not replaced the file.
        larder.call("GET", PATH).send().expect(200);
        // A new file is applied again.
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
        max_staleness: "2s",
        ..config
    };
    let other = other.text(&news).replace("[server]", &bound(second));
    let by_file = Larder::start(&options.clone().bound_by_its_configuration(first));
    let by_command = Larder::start(&options);
    for larder in [&by_file, &by_command] {
        larder.reload(&other);
        until(SOON, "the log names what waits for a restart", || {
            larder.log().contains("coherence.max_staleness")
        });
    }
    assert!(by_file.log().contains("server.bind"), "{}", by_file.log());
    let log = by_command.log();
    assert!(!log.contains("server.bind"), "{log}");
}

#[test]
fn the_log_names_what_a_new_configuration_adds_changes_and_removes() {
    let shipped = include_str!("../config.toml");
    let larder = Larder::start(&LarderOptions::new(shipped));
    larder.get("/users/1").expect(200);
    // A snippet from the documentation instead of the whole file.
    let snippet = "[resource.users]\npath = \"/users\"\nsource = { sql = \"user_by_id\" }\nparams.id = { type = \"integer\" }\n\
                   ttl = { memory = \"10s\", redis = \"1m\" }\n[resource.mine]\npath = \"/mine\"\n\
                   source = { news = [\"guardian\"] }\nttl = { memory = \"10s\", redis = \"1m\" }\n";
    larder.reload(snippet);
    until(SOON, "the new one is taken over", || {
        larder.get("/users/1").status == 404
    });
    until(SOON, "the log names the resources", || {
        let log = larder.log();
        log.contains("resources added mine; changed users; removed ")
            && log.contains("articles, user, employee")
    });
    assert!(!larder.log().contains("declares no resource"));
    larder.reload("[server]\n");
    until(SOON, "the log warns", || {
        larder.log().contains("declares no resource")
    });
    assert!(larder.log().contains("resources removed users, mine"));
    let checked = LarderOptions::new("[server]\n").run(&["check"]);
    assert_eq!(checked.status.code(), Some(0));
    let said = String::from_utf8(checked.stderr).unwrap();
    assert!(said.contains("warning: declares no resource"), "{said}");
}

#[test]
fn what_only_moves_in_the_file_is_no_change() {
    let shipped = include_str!("../config.toml");
    let larder = Larder::start(&LarderOptions::new(shipped));
    larder.reload(&format!("# A comment.\n\n{shipped}"));
    until(SOON, "it is reloaded", || {
        larder.log().contains("reloaded:")
    });
    let log = larder.log();
    assert!(log.contains("reloaded: no resource changed"), "{log}");
}

#[test]
fn a_new_http_upstream_is_taken_over_and_a_new_news_upstream_takes_a_restart() {
    let larder = Larder::start(&LarderOptions::new("[server]\n"));
    larder.reload(include_str!("../config.toml"));
    until(SOON, "the log says what takes a restart", || {
        larder
            .log()
            .contains("upstream newsapi is new, which requires a restart")
    });
    // The upstream is this larder itself, so that it answers.
    let here = format!(
        "[resource.health]\npath = \"/health\"\nsource = {{ http = \"http://{}/healthz\", upstream = \"new\" }}\n\
         ttl = {{ memory = \"1m\", redis = \"1m\" }}\n[upstream.new]\nquota = [\"1/1d\"]\n",
        larder.address()
    );
    larder.reload(&here);
    until(SOON, "it is served", || larder.get("/health").status == 200);
}
