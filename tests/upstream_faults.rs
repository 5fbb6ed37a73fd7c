//! Upstreams that answer badly, slowly or not at all, one of them or both.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;

use testkit::larder::{Larder, LarderOptions};
use testkit::news::{
    GUARDIAN_KEY, NEWSAPI_KEY, News, NewsConfig, guardian_error, newsapi_error, titles,
};
use testkit::redis::RedisServer;
use testkit::upstream::{Behaviour, FakeUpstream, Response};
use testkit::{SOON, until};

const PATH: &str = "/articles?category=technology";

/// Every failure that both upstreams can have, and whether it takes time.
fn failures() -> Vec<(&'static str, Behaviour, bool)> {
    let always = Behaviour::always;
    let whole = || Response::text(200, &" ".repeat(2000));
    vec![
        (
            "429 of NewsAPI",
            always(newsapi_error(429, "rateLimited", "Slow down.")),
            false,
        ),
        (
            "429 of The Guardian",
            always(guardian_error(429, "API rate limit exceeded")),
            false,
        ),
        (
            "429 with a time",
            always(Response::text(429, "").with("Retry-After", "3600")),
            false,
        ),
        (
            "401",
            always(newsapi_error(401, "apiKeyInvalid", "Your key is bad.")),
            false,
        ),
        (
            "500 with JSON",
            always(newsapi_error(500, "unexpectedError", "Oh.")),
            false,
        ),
        (
            "500 with HTML",
            always(Response::text(500, "<html>no</html>")),
            false,
        ),
        ("503 with nothing", always(Response::text(503, "")), false),
        (
            "503 with a time, cut short",
            Behaviour::Truncated(Response::text(503, "busy").with("Retry-After", "1")),
            false,
        ),
        (
            "429 cut short",
            Behaviour::Truncated(Response::text(429, "<html>too many</html>")),
            false,
        ),
        (
            "404 with a long page",
            always(Response::text(404, &"<p>no</p>".repeat(600_000))),
            false,
        ),
        (
            "500 in an unknown coding",
            always(Response::text(500, "oh").with("Content-Encoding", "br")),
            false,
        ),
        (
            "200 in an unknown coding",
            always(Response::text(200, "{}").with("Content-Encoding", "zstd")),
            false,
        ),
        ("204", always(Response::text(204, "")), false),
        (
            "200 with an error of NewsAPI",
            always(newsapi_error(200, "apiKeyDisabled", "No.")),
            false,
        ),
        (
            "200 with an error of The Guardian",
            always(Response::json(
                200,
                &json!({"response": {"status": "error", "message": "No."}}),
            )),
            false,
        ),
        (
            "200 with HTML",
            always(Response::text(200, "<html>Welcome</html>")),
            false,
        ),
        ("200 with nothing", always(Response::text(200, "")), false),
        (
            "200 with JSON of another kind",
            always(Response::json(200, &json!([1, {"a": null}]))),
            false,
        ),
        (
            "deep JSON",
            always(Response::text(200, &"[".repeat(200_000))),
            false,
        ),
        (
            "no end of it",
            always(Response::text(200, &" ".repeat(32 << 20))),
            false,
        ),
        ("garbage", Behaviour::Garbage, false),
        ("a truncated body", Behaviour::Truncated(whole()), false),
        ("nothing at all", Behaviour::Close, false),
        ("silence", Behaviour::Silence, true),
        ("a byte a second", Behaviour::ByteASecond(whole()), true),
    ]
}

fn quick() -> NewsConfig {
    NewsConfig {
        upstream_timeout: "1s",
        ..NewsConfig::default()
    }
}

#[test]
fn a_failing_upstream_leaves_the_other_ones_articles() {
    for (name, failure, _) in failures() {
        for bad in ["newsapi", "guardian"] {
            let (redis, news) = (RedisServer::start(), News::start());
            let (broken, other) = match bad {
                "newsapi" => (&news.newsapi, "guardian"),
                _ => (&news.guardian, "newsapi"),
            };
            broken.behave(failure.clone());
            let larder = quick().start(&news, &redis);
            let began = Instant::now();
            let answer = larder.get(PATH).expect(200);
            assert!(
                began.elapsed() < Duration::from_secs(5),
                "{bad}, {name}: {:?}",
                began.elapsed()
            );
            let body = answer.json();
            assert_eq!(body["partial"], true, "{bad}, {name}: {body}");
            let titles = titles(&body);
            assert_eq!(titles.len(), 5, "{bad}, {name}: {body}");
            assert!(
                titles.iter().all(|title| title.starts_with(other)),
                "{bad}, {name}: {body}"
            );
            assert!(
                !answer.mentions(NEWSAPI_KEY) && !answer.mentions(GUARDIAN_KEY),
                "{answer}"
            );
        }
    }
}

#[test]
fn an_unreachable_upstream_leaves_the_other_ones_articles() {
    let (redis, mut news) = (RedisServer::start(), News::start());
    let options = quick().options(&news, &redis);
    // Nothing listens at its old address any more.
    news.guardian = FakeUpstream::start(Behaviour::Close);
    let body = Larder::start(&options).get(PATH).expect(200).json();
    assert_eq!(body["partial"], true);
    assert_eq!(titles(&body).len(), 5);
}

#[test]
fn a_partial_answer_is_whole_soon_and_costs_the_other_no_call() {
    let (redis, news) = (RedisServer::start(), News::start());
    let config = NewsConfig {
        memory: "100s",
        redis: "100s",
        ..quick()
    };
    news.guardian
        .behave(Behaviour::always(guardian_error(500, "Oh.")));
    let larder = config.start(&news, &redis);
    assert_eq!(larder.get(PATH).expect(200).json()["partial"], true);
    // A tenth of its TTL, and the header says so.
    let hit = larder.get(PATH).expect(200);
    assert!(hit.memory_ttl() <= 10, "{hit}");
    news.mend();
    until(SOON, "the articles of both are there", || {
        let body = larder.get(PATH).expect(200).json();
        body.get("partial").is_none_or(|partial| partial == false) && titles(&body).len() == 10
    });
    assert_eq!(news.newsapi.calls(), 1);
}

#[test]
fn two_failing_upstreams_cold_are_a_problem_document() {
    for (name, failure, slow) in failures() {
        let (redis, news) = (RedisServer::start(), News::start());
        news.behave(&failure);
        let larder = quick().start(&news, &redis);
        let began = Instant::now();
        let answer = larder.get(PATH);
        assert!(
            began.elapsed() < Duration::from_secs(5),
            "{name}: {:?}",
            began.elapsed()
        );
        // A slow source and a spent quota may have a status of their own.
        let expected: &[u16] = match slow {
            true => &[502, 504],
            false if name.starts_with("429") => &[502, 503],
            false => &[502],
        };
        assert!(expected.contains(&answer.status), "{name}: {answer}");
        answer.problem(answer.status);
        for secret in [NEWSAPI_KEY, GUARDIAN_KEY, "panicked", "src/"] {
            assert!(!answer.mentions(secret), "{name}: {answer}");
        }
        // The failure does no lasting harm.
        news.mend();
        if !name.starts_with("429") {
            until(SOON, "it is served again", || {
                larder.get(PATH).status == 200
            });
        }
    }
}

#[test]
fn two_failing_upstreams_warm_are_a_stale_answer() {
    let (redis, news) = (RedisServer::start(), News::start());
    let config = NewsConfig {
        memory: "1s",
        redis: "1s",
        ..quick()
    };
    let larder = config.start(&news, &redis);
    let fresh = larder.get(PATH).expect(200).json();
    news.publish();
    for (name, failure, _) in failures() {
        news.behave(&failure);
        until(SOON, "it is stale", || {
            let answer = larder.get(PATH).expect(200);
            let body = answer.json();
            assert_eq!(body["articles"], fresh["articles"], "{name}: {answer}");
            answer.the("Cache-Status").contains("fwd=stale")
        });
    }
    assert!(larder.stats()["source"]["stale_served"].as_u64().unwrap() > 0);
}

#[test]
fn a_failing_upstream_keeps_its_stale_articles_beside_the_new_ones() {
    let (redis, news) = (RedisServer::start(), News::start());
    let config = NewsConfig {
        memory: "1s",
        redis: "1s",
        ..quick()
    };
    let larder = config.start(&news, &redis);
    larder.get(PATH).expect(200);
    news.publish();
    news.guardian
        .behave(Behaviour::always(guardian_error(500, "Oh.")));
    until(SOON, "the new ones are there", || {
        let titles = titles(&larder.get(PATH).expect(200).json());
        titles.iter().filter(|title| title.ends_with("r2")).count() == 5
            && titles.iter().filter(|title| title.ends_with("r1")).count() == 5
    });
}

#[test]
fn two_failing_upstreams_cold_with_an_archive_are_the_archive() {
    let news = News::start();
    let (redis, other_redis) = (RedisServer::start(), RedisServer::start());
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let on =
        |redis: &RedisServer| -> LarderOptions { quick().options(&news, redis).in_folder(&folder) };
    let larder = Larder::start(&on(&redis));
    let loaded = titles(&larder.get(PATH).expect(200).json());

    // A larder with the same database and an empty cache.
    let cold = Larder::start(&on(&other_redis));
    news.behave(&Behaviour::always(Response::text(500, "")));
    let mut body = json!(null);
    until(SOON, "the archive is served", || {
        let answer = cold.get(PATH);
        if answer.status != 200 {
            answer.problem(502);
            return false;
        }
        body = answer.json();
        true
    });
    assert_eq!(body["archived"], true, "{body}");
    assert_eq!(titles(&body), loaded);
    // Views work on the archive, too.
    let one = cold
        .get(&format!("{PATH}&source=guardian&limit=1"))
        .expect(200)
        .json();
    assert_eq!(titles(&one), ["guardian technology 0 r1"]);
    // This one was never loaded.
    cold.get("/articles?category=sports").problem(502);

    news.mend();
    until(SOON, "the archive makes room for what is new", || {
        let body = cold.get(PATH).expect(200).json();
        body.get("archived")
            .is_none_or(|archived| archived == false)
    });
}
