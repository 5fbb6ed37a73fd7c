//! Secrets: upstream keys, API keys and passwords appear in no log, answer or key, whatever is
//! logged.

use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::json;

use testkit::larder::{ADMIN_KEY, Larder, LarderOptions};
use testkit::news::{GUARDIAN_KEY, NEWSAPI_KEY, News, NewsConfig, guardian_error, newsapi_error};
use testkit::postgres::{self, PostgresServer};
use testkit::redis::RedisServer;
use testkit::upstream::{Behaviour, Response};
use testkit::{SOON, free_address, until};

#[test]
fn no_upstream_key_is_logged_stored_or_answered() {
    let (redis, news) = (RedisServer::start(), News::start());
    let config = NewsConfig {
        memory: "1s",
        redis: "1s",
        if_error: "1s",
        upstream_timeout: "1s",
        server: "max_queue = 7",
        ..NewsConfig::default()
    };
    let options = config.options(&news, &redis).env("RUST_LOG", "trace");
    let mut larder = Larder::start(&options);
    let (_, api_key) = larder.create_key(&json!({"name": "reader"}));
    let api_secret = api_key.rsplit('_').next().unwrap();

    // Upstreams that repeat the key that they were sent, and that redirect larder to another host.
    let to = |host: SocketAddr| {
        let there = format!("http://{host}/elsewhere");
        Behaviour::always(Response::text(302, "").with("Location", &there))
    };
    let behaviours = [
        None,
        Some(echo(|key| newsapi_error(401, "apiKeyInvalid", key))),
        Some(echo(|key| newsapi_error(429, key, key))),
        Some(echo(|key| guardian_error(403, key))),
        Some(echo(|key| {
            let error = json!({"status": "error", "message": key});
            Response::json(400, &json!({"response": error}))
        })),
        Some(echo(|key| Response::text(500, key))),
        Some(echo(|key| Response::text(200, key).with("X-Echo", key))),
        Some(to(news.newsapi.address())),
        Some(to(news.guardian.address())),
        Some(Behaviour::Garbage),
        Some(Behaviour::Close),
        Some(Behaviour::Silence),
    ];
    let paths = [
        "/articles?category=technology",
        "/articles?category=science&limit=1",
        "/articles?category=nonsense",
        "/readyz",
        "/cache/stats",
        "/cache/entry?path=/articles%3Fcategory%3Dtechnology",
        "/metrics",
        "/openapi.json",
        "/keys",
        "/nowhere",
    ];
    let mut stored = Vec::new();
    for behaviour in behaviours {
        match &behaviour {
            Some(behaviour) => news.behave(behaviour),
            None => news.mend(),
        }
        for path in paths {
            for key in [ADMIN_KEY, api_key.as_str()] {
                let answer = larder.call("GET", path).key(key).send();
                for secret in [NEWSAPI_KEY, GUARDIAN_KEY, ADMIN_KEY, api_secret] {
                    assert!(!answer.mentions(secret), "{path}: {answer}");
                }
            }
        }
        stored.extend(redis.everything());
    }
    // Each upstream got its own key and never the other one's.
    let (asked_newsapi, asked_guardian) = (news.newsapi.requests(), news.guardian.requests());
    assert!(
        asked_newsapi
            .iter()
            .any(|request| request.header("X-Api-Key") == Some(NEWSAPI_KEY))
    );
    assert!(
        asked_guardian
            .iter()
            .any(|request| request.query.contains(GUARDIAN_KEY))
    );
    for request in asked_newsapi {
        assert!(
            !format!("{request:?}").contains(GUARDIAN_KEY),
            "{request:?}"
        );
    }
    for request in asked_guardian {
        assert!(!format!("{request:?}").contains(NEWSAPI_KEY), "{request:?}");
    }

    larder.stop();
    let log = larder.log();
    assert!(
        log.contains("DEBUG"),
        "this test reads a log at its most talkative"
    );
    let stored = String::from_utf8_lossy(&stored);
    assert!(
        stored.contains("larder:v:"),
        "this test reads what Redis holds"
    );
    for secret in [NEWSAPI_KEY, GUARDIAN_KEY, ADMIN_KEY, api_secret] {
        let line = log.lines().find(|line| line.contains(secret));
        assert_eq!(line, None, "a secret is logged");
        assert!(!stored.contains(secret), "a secret is in Redis");
    }
}

/// An upstream that answers with the key that it was sent.
fn echo(answer: fn(&str) -> Response) -> Behaviour {
    Behaviour::answer(move |request| {
        let header = request.header("X-Api-Key").map(str::to_owned);
        let key = header.or_else(|| request.param("api-key"));
        answer(&format!("the key {} is bad", key.unwrap_or_default()))
    })
}

#[test]
fn no_password_of_a_database_is_logged() {
    let (redis, news) = (RedisServer::start(), News::start());
    let mut postgres = PostgresServer::start();
    let config = NewsConfig::default().options(&news, &redis);
    let good = config
        .env("RUST_LOG", "trace")
        .env("DATABASE_URL", &postgres.url());
    let hidden = |log: &str| {
        let line = log.lines().find(|line| line.contains(postgres::PASSWORD));
        assert_eq!(line, None, "a password is logged");
    };
    let mut larder = Larder::start(&good);
    larder.get("/articles").expect(200);
    postgres.stop();
    until(SOON, "it notices", || {
        larder.call("GET", "/readyz").send().status == 503
    });
    larder.stop();
    hidden(&larder.log());

    // It does not start without its database, and its log names no password.
    let mut refuses = Larder::spawn(&good);
    assert_eq!(refuses.ended().code(), Some(1), "{}", refuses.log());
    hidden(&refuses.log());
}

#[test]
fn no_password_of_redis_is_logged() {
    let news = News::start();
    let password = "a-redis-password-in-a-url";
    let url = format!("redis://somebody:{password}@{}", free_address());
    let options = NewsConfig::default().options_at(&news, &url);
    let mut larder = Larder::start(&options.env("RUST_LOG", "trace"));
    larder.get("/articles").expect(200);
    assert!(!larder.get("/readyz").mentions(password));
    larder.stop();
    assert!(!larder.log().contains(password), "a password is logged");
}

#[test]
fn a_wrong_configuration_is_named_without_what_is_secret_in_it() {
    let news = News::start();
    let config = NewsConfig::default().text(&news);
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let secret = "this-must-not-be-shown";
    let check = |options: LarderOptions, names: &str| {
        let output = options.in_folder(&folder).run(&["check"]);
        let all = [output.stdout, output.stderr].concat();
        let all = String::from_utf8_lossy(&all);
        assert_eq!(output.status.code(), Some(2), "{all}");
        assert!(all.contains(names), "{all}");
        assert!(!all.contains(secret), "{all}");
    };
    let valid = LarderOptions::new(&config);
    check(
        valid
            .clone()
            .env("REDIS_URL", &format!("http://u:{secret}@host")),
        "REDIS_URL",
    );
    check(
        valid
            .clone()
            .env("DATABASE_URL", &format!("mysql://u:{secret}@host/db")),
        "DATABASE_URL",
    );
    // Too short for a key.
    check(
        valid.env("LARDER_ADMIN_KEY", &secret[..10]),
        "LARDER_ADMIN_KEY",
    );
    let with_password = config.replace(
        &format!("http://{}", news.guardian.address()),
        &format!("http://u:{secret}@host"),
    );
    check(
        LarderOptions::new(&with_password),
        "upstream.guardian.base_url",
    );
}

#[test]
fn no_value_from_the_environment_is_shown() {
    const HEADER: &str = "a-header-secret-0123";
    const IN_URL: &str = "a-url-secret-4567";
    let redis = RedisServer::start();
    // It repeats whatever it is sent, in each of its failures.
    let origin = testkit::upstream::FakeUpstream::start(Behaviour::answer(|request| {
        let said = format!(
            "{} {} {:?}",
            request.path,
            request.query,
            request.header("X-Key")
        );
        match request.param("how").as_deref() {
            Some("good") => Response::json(200, &json!({"value": 1})),
            Some("refused") => Response::text(403, &said),
            Some("spent") => Response::text(429, &said),
            Some("elsewhere") => {
                Response::text(302, "").with("Location", &format!("http://{IN_URL}.example/{said}"))
            }
            Some("nowhere") => Response::text(302, "").with("Location", &format!("http://{said}")),
            Some("packed") => Response::text(200, "").with("Content-Encoding", &said),
            _ => Response::text(200, &said),
        }
    }));
    let config = format!(
        "[resource.quote]
path = \"/quote/{{how}}\"
params.how = {{ type = \"string\" }}
source = {{ http = \"http://{}/${{PLACE}}\", headers = {{ \"X-Key\" = \"${{QUOTE_KEY}}\" }}, query = {{ how = \"{{how}}\", token = \"${{PLACE}}\" }} }}
ttl = {{ memory = \"1s\", redis = \"1s\" }}
",
        origin.address()
    );
    let options = LarderOptions::new(&config)
        .env("RUST_LOG", "trace")
        .env("REDIS_URL", &redis.url())
        .env("QUOTE_KEY", HEADER)
        .env("PLACE", IN_URL);
    let checked = options.run(&["check"]);
    let shown = [checked.stdout, checked.stderr].concat();
    let mut seen = String::from_utf8_lossy(&shown).into_owned();
    assert!(seen.contains("${PLACE}"), "{seen}");
    let mut larder = Larder::start(&options);
    for how in [
        "good",
        "refused",
        "spent",
        "elsewhere",
        "nowhere",
        "packed",
        "garbled",
    ] {
        let path = format!("/quote/{how}");
        seen += &larder.get(&path).to_string();
        seen += &larder.get(&format!("/cache/entry?path={path}")).to_string();
    }
    origin.behave(Behaviour::Close);
    seen += &larder.get("/quote/closed").to_string();
    seen += &larder.get("/cache/stats").to_string();
    let asked = origin.requests();
    assert!(asked.iter().all(|request| {
        request.header("X-Key") == Some(HEADER) && request.path == format!("/{IN_URL}")
    }));
    let stored = redis.everything();
    larder.stop();
    seen += &larder.log();
    seen += &String::from_utf8_lossy(&stored);
    assert!(
        seen.contains("larder:v:"),
        "this test reads what Redis holds"
    );
    for secret in [HEADER, IN_URL] {
        let line = seen.lines().find(|line| line.contains(secret));
        assert_eq!(line, None, "a secret is shown");
    }
}

#[test]
fn a_written_value_is_not_logged() {
    const VALUE: &str = "a-value-that-is-nobodys-business";
    let config = include_str!("../config.toml");
    let mut larder = Larder::start(&LarderOptions::new(config).env("RUST_LOG", "debug"));
    let body = json!({"name": VALUE, "email": format!("{VALUE}@example.org")});
    larder.post("/users", &body).expect(201);
    larder
        .post("/users", &json!({"name": VALUE, "email": VALUE}))
        .problem(422);
    larder.stop();
    let log = larder.log();
    assert!(log.contains("/users"), "this test reads the access log");
    assert!(!log.contains(VALUE), "{log}");
}

#[test]
fn a_password_of_any_characters_reaches_redis_as_it_is() {
    let redis = RedisServer::start();
    for password in [
        "abc%41def",
        "a/b",
        "p@ss:w?rd#[1]",
        "größe & 100%",
        "with space",
    ] {
        let grant = format!(">{password}");
        redis.cli::<()>(&[
            "ACL", "SETUSER", "app", "reset", "on", &grant, "~*", "&*", "+@all",
        ]);
        let config = format!(
            "[redis]\nurl = \"redis://app:${{PASSWORD}}@{}\"\nrequired = true\n",
            redis.address()
        );
        // A variable that was read from a file ends in a line end.
        let options = LarderOptions::new(&config).env("PASSWORD", &format!("{password}\n"));
        let larder = Larder::start(&options);
        let up = larder.stats()["redis"]["up"].clone();
        assert_eq!(up, json!(true), "{password}: {}", larder.log());
    }
}
