//! News: where an answer comes from, what it contains, and how it ages.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use testkit::larder::Larder;
use testkit::news::{GUARDIAN_KEY, NEWSAPI_KEY, News, NewsConfig, titles};
use testkit::redis::RedisServer;
use testkit::upstream::{Behaviour, Response};
use testkit::{SOON, until};

#[test]
fn articles_come_from_the_source_then_from_memory_and_elsewhere_from_redis() {
    let (redis, news) = (RedisServer::start(), News::start());
    let replicas = Larder::start_many(2, &NewsConfig::default().options(&news, &redis));
    let path = "/articles?category=technology";

    let first = replicas[0].get(path).expect(200);
    assert_eq!(first.json()["cached"], false);
    assert_eq!(
        first.the("Cache-Status"),
        "larder-redis; fwd=miss; stored, larder-memory; fwd=miss"
    );

    let second = replicas[0].get(path).expect(200);
    assert_eq!(second.json()["cached"], true);
    assert!(
        second
            .the("Cache-Status")
            .starts_with("larder-memory; hit; ttl="),
        "{second}"
    );

    let elsewhere = replicas[1].get(path).expect(200);
    assert_eq!(elsewhere.json()["cached"], true);
    let status = elsewhere.the("Cache-Status");
    assert!(status.starts_with("larder-redis; hit; ttl="), "{elsewhere}");
    assert!(status.ends_with(", larder-memory; fwd=miss"), "{elsewhere}");

    for other in [&second, &elsewhere] {
        assert_eq!(other.json()["articles"], first.json()["articles"]);
        assert!(other.text().ends_with("\"cached\":true}"), "{other}");
    }
    assert_eq!(news.calls(), (1, 1));
    // One key for each upstream's part, and none for the composite.
    assert_eq!(redis.keys("larder:v:*").len(), 2);

    let counted = |replica: &Larder| {
        let stats = replica.stats();
        let articles = &stats["resources"]["articles"];
        assert_eq!(articles["hits"], stats["hits"], "{stats}");
        (stats["hits"].clone(), stats["misses"].clone())
    };
    assert_eq!(counted(&replicas[0]), (json!(1), json!(1)));
    assert_eq!(counted(&replicas[1]), (json!(1), json!(0)));
    assert_eq!(replicas[0].stats()["hit_rate_percent"], 50.0);
}

#[test]
fn articles_have_one_form_and_come_newest_first() {
    let (redis, news) = (RedisServer::start(), News::with(3));
    let larder = NewsConfig::default().start(&news, &redis);
    let answer = larder.get("/articles?category=technology").expect(200);
    assert!(answer.the("Content-Type").starts_with("application/json"));
    let body = answer.json();
    assert_eq!(
        titles(&body),
        [
            "newsapi technology 0 r1",
            "guardian technology 0 r1",
            "newsapi technology 1 r1",
            "guardian technology 1 r1",
            "newsapi technology 2 r1",
            "guardian technology 2 r1",
        ]
    );
    assert_eq!(body["total"], 6);
    for exception in ["partial", "archived", "sandbox"] {
        assert!(
            body.get(exception).is_none_or(|flag| flag == false),
            "{answer}"
        );
    }
    let guardian = body["articles"][1].as_object().unwrap();
    let mut fields: Vec<&str> = guardian.keys().map(String::as_str).collect();
    fields.sort_unstable();
    let mut expected = [
        "title",
        "description",
        "url",
        "image",
        "author",
        "source",
        "published_at",
        "category",
    ];
    expected.sort_unstable();
    assert_eq!(fields, expected);
    // The upstream's HTML is removed.
    assert_eq!(guardian["description"], "What happened & why");
    assert_eq!(guardian["author"], "B. Byline");
    assert_eq!(guardian["source"], "guardian");
    assert_eq!(guardian["category"], "technology");
    assert_eq!(guardian["url"], "https://www.theguardian.com/technology/0");
    assert_eq!(
        guardian["image"],
        "https://media.guim.co.uk/technology/0.jpg"
    );
    let published = guardian["published_at"].as_str().unwrap();
    published.parse::<jiff::Timestamp>().unwrap();
    assert!(published.ends_with('Z'), "{published}");
    assert_eq!(body["articles"][0]["source"], "the-wire");
}

#[test]
fn articles_of_one_url_are_one_and_those_without_a_url_are_dropped() {
    let (redis, news) = (RedisServer::start(), News::with(1));
    let shared = "https://www.theguardian.com/science/0";
    let article = |url: Value, title: Value, source: Value| {
        json!({
            "source": source, "author": null, "title": title, "description": null, "url": url,
            "urlToImage": "javascript:alert(1)", "publishedAt": "2026-01-01T00:00:00Z", "content": null,
        })
    };
    let named = |name: &str| json!({"id": null, "name": name});
    let articles = json!([
        article(json!(shared), json!("The same again"), named("Elsewhere")),
        article(
            json!("https://e.com/removed"),
            json!("[Removed]"),
            named("[Removed]")
        ),
        article(Value::Null, json!("No address"), named("X")),
        article(json!("https://e.com/untitled"), Value::Null, named("X")),
        article(json!("javascript:alert(1)"), json!("A trap"), named("X")),
        article(json!("https://e.com/1"), json!("Kept"), named("BBC News")),
        article(
            json!("https://e.com/1"),
            json!("Kept twice"),
            named("BBC News")
        ),
    ]);
    let answer = json!({"status": "ok", "totalResults": 7, "articles": articles});
    news.newsapi
        .behave(Behaviour::always(Response::json(200, &answer)));
    let larder = NewsConfig::default().start(&news, &redis);
    let body = larder.get("/articles?category=science").expect(200).json();
    let articles = body["articles"].as_array().unwrap();
    let mut urls: Vec<&str> = articles
        .iter()
        .map(|a| a["url"].as_str().unwrap())
        .collect();
    urls.sort_unstable();
    assert_eq!(urls, ["https://e.com/1", shared]);
    let kept = articles
        .iter()
        .find(|a| a["url"] == "https://e.com/1")
        .unwrap();
    assert_eq!(kept["source"], "bbc-news");
    assert!(!body.to_string().contains("javascript:"), "{body}");
}

/// An answer of NewsAPI with these articles, unchanged.
fn newsapi(articles: &[String]) -> Response {
    let articles = articles.join(",");
    Response::text(
        200,
        &format!("\u{feff}{{\"status\":\"ok\",\"totalResults\":1e400,\"articles\":[{articles}]}}"),
    )
}

fn newsapi_article(number: usize, title: &str, more: &str) -> String {
    format!(
        "{{\"title\":\"{title}\",\"url\":\"https://wire.example/{number}\",\"publishedAt\":\"2026-01-01T00:00:0{number}Z\"{more}}}"
    )
}

/// An answer of The Guardian with these results, unchanged.
fn guardian(results: &[String]) -> Response {
    let results = results.join(",");
    Response::text(
        200,
        &format!(
            "\u{feff}{{\"response\":{{\"status\":\"ok\",\"total\":1e400,\"results\":[{results}]}}}}"
        ),
    )
}

fn guardian_result(number: usize, title: &str, trail: &str) -> String {
    format!(
        "{{\"webTitle\":\"{title}\",\"webUrl\":\"https://paper.example/{number}\",\"webPublicationDate\":\"2026-01-01T00:00:0{number}Z\",\"fields\":{{\"trailText\":\"{trail}\"}}}}"
    )
}

#[test]
fn an_article_that_cannot_be_read_costs_itself_alone() {
    let (redis, news) = (RedisServer::start(), News::start());
    let deep = format!(",\"deep\":{}{}", "[".repeat(1000), "]".repeat(1000));
    news.newsapi.behave(Behaviour::always(newsapi(&[
        newsapi_article(0, "half a pair \\ud83d", ""),
        newsapi_article(1, "the other half", ",\"author\":\"\\udc00\""),
        newsapi_article(2, "a number", ",\"score\":1e400"),
        newsapi_article(3, "too deep", &deep),
        newsapi_article(4, "good \\ud83d\\ude00", ""),
    ])));
    news.guardian.behave(Behaviour::always(guardian(&[
        guardian_result(0, "half a pair \\ud83d", ""),
        guardian_result(1, "good", "half \\ude00 a pair"),
        guardian_result(2, "good too", "1e400"),
    ])));
    let larder = NewsConfig::default().start(&news, &redis);
    let body = larder.get("/articles?category=science").expect(200).json();
    assert_eq!(titles(&body), ["good 😀", "good too"]);
    assert!(body.get("partial").is_none(), "{body}");
}

#[test]
fn an_article_has_plain_text_as_a_browser_shows_it() {
    let texts = [
        ("It&#146;s &amp; it&rsquo;s", "It’s & it’s"),
        (
            "r&ocirc;le of &laquo;x&raquo; &copy 2026",
            "rôle of «x» © 2026",
        ),
        (
            "<a title='a > b'>link</a><script>alert('<b>')</script>!",
            "link!",
        ),
        (
            "one<br>two<p>three</p><!-- x > y -->four",
            "one two three four",
        ),
        ("&amp;lt;b> AT&T 5 < 6 &#8212;", "&lt;b> AT&T 5 < 6 —"),
    ];
    let (redis, news) = (RedisServer::start(), News::start());
    let articles = texts.iter().enumerate().map(|(number, (html, _))| {
        let more = format!(",\"description\":\"{html}\",\"author\":\"{html}\"");
        newsapi_article(9 - number, html, &more)
    });
    let results = texts.iter().enumerate();
    let results = results.map(|(number, (html, _))| guardian_result(4 - number, html, html));
    let articles: Vec<String> = articles.collect();
    let results: Vec<String> = results.collect();
    news.newsapi.behave(Behaviour::always(newsapi(&articles)));
    news.guardian.behave(Behaviour::always(guardian(&results)));
    let larder = NewsConfig::default().start(&news, &redis);
    let body = larder.get("/articles?category=science").expect(200).json();
    let shown = body["articles"].as_array().unwrap();
    let expected = texts.iter().chain(&texts).map(|(_, text)| *text);
    for (article, text) in shown.iter().zip(expected) {
        assert_eq!(article["title"], text, "{article}");
        assert_eq!(article["description"], text, "{article}");
    }
    assert_eq!(shown.len(), 10);
    assert_eq!(shown[0]["author"], texts[0].1);
}

#[test]
fn news_asks_each_upstream_in_its_own_way() {
    let (redis, news) = (RedisServer::start(), News::start());
    let larder = NewsConfig::default().start(&news, &redis);
    for (path, category, section) in [
        ("/articles?category=sports", "sports", "sport|football"),
        (
            "/articles?category=health",
            "health",
            "society|lifeandstyle",
        ),
        ("/articles", "general", "world|uk-news|us-news"),
    ] {
        larder.get(path).expect(200);
        let newsapi = news.newsapi.requests().pop().unwrap();
        assert_eq!(newsapi.path, "/v2/top-headlines");
        assert_eq!(newsapi.param("category").as_deref(), Some(category));
        assert_eq!(newsapi.param("pageSize").as_deref(), Some("100"));
        assert_eq!(newsapi.header("X-Api-Key"), Some(NEWSAPI_KEY));
        assert!(!newsapi.query.contains(NEWSAPI_KEY), "{newsapi:?}");
        assert!(newsapi.header("User-Agent").unwrap().starts_with("larder/"));

        let guardian = news.guardian.requests().pop().unwrap();
        assert_eq!(guardian.path, "/search");
        assert_eq!(guardian.param("section").as_deref(), Some(section));
        assert_eq!(guardian.param("page-size").as_deref(), Some("50"));
        assert_eq!(guardian.param("order-by").as_deref(), Some("newest"));
        assert_eq!(
            guardian.param("show-fields").as_deref(),
            Some("trailText,byline,thumbnail")
        );
        assert_eq!(guardian.param("api-key").as_deref(), Some(GUARDIAN_KEY));
    }
    assert_eq!(news.calls(), (3, 3));
}

#[test]
fn an_expired_list_of_articles_is_loaded_again() {
    let (redis, news) = (RedisServer::start(), News::start());
    let config = NewsConfig {
        memory: "1s",
        redis: "2s",
        ..NewsConfig::default()
    };
    let larder = config.start(&news, &redis);
    let began = Instant::now();
    larder.get("/articles?category=health").expect(200);
    news.publish();
    until(SOON, "the new articles are served", || {
        let body = larder.get("/articles?category=health").expect(200).json();
        titles(&body)[0].ends_with("r2")
    });
    // Jitter takes off a tenth at most.
    assert!(began.elapsed() >= Duration::from_millis(1800));
    // Each upstream's part has its own jitter, so the second may expire a little later.
    until(SOON, "both are asked again", || {
        larder.get("/articles?category=health").expect(200);
        let (newsapi, guardian) = news.calls();
        newsapi >= 2 && guardian >= 2
    });
}

#[test]
fn a_stale_list_of_articles_is_served_while_it_is_renewed() {
    let (redis, news) = (RedisServer::start(), News::start());
    let config = NewsConfig {
        memory: "1s",
        redis: "1s",
        while_revalidate: "1h",
        ..NewsConfig::default()
    };
    let larder = config.start(&news, &redis);
    let path = "/articles?category=health";
    larder.get(path).expect(200);
    news.publish();
    news.newsapi.hold();
    news.guardian.hold();
    until(SOON, "it is stale", || {
        let answer = larder.get(path).expect(200);
        assert_eq!(answer.json()["cached"], true, "{answer}");
        assert!(titles(&answer.json())[0].ends_with("r1"), "{answer}");
        answer.the("Cache-Status").contains("fwd=stale")
    });
    until(SOON, "it is renewed behind the answers", || {
        larder.get(path).expect(200);
        news.calls() == (2, 2)
    });
    news.newsapi.release();
    news.guardian.release();
    until(SOON, "the new articles are served", || {
        titles(&larder.get(path).expect(200).json())[0].ends_with("r2")
    });
}

#[test]
fn a_reader_waits_no_longer_than_the_soft_timeout() {
    let (redis, news) = (RedisServer::start(), News::start());
    let config = NewsConfig {
        memory: "1s",
        redis: "1s",
        soft_timeout: "300ms",
        ..NewsConfig::default()
    };
    let larder = config.start(&news, &redis);
    let path = "/articles?category=health";
    larder.get(path).expect(200);
    news.publish();
    news.newsapi.hold();
    news.guardian.hold();
    until(SOON, "it is stale", || {
        let began = Instant::now();
        let answer = larder.get(path).expect(200);
        let stale = answer.the("Cache-Status").contains("fwd=stale");
        assert!(
            !stale || began.elapsed() >= Duration::from_millis(290),
            "{answer}"
        );
        assert!(titles(&answer.json())[0].ends_with("r1"), "{answer}");
        stale
    });
    news.newsapi.release();
    news.guardian.release();
    until(SOON, "the load that went on is served", || {
        titles(&larder.get(path).expect(200).json())[0].ends_with("r2")
    });
}

#[test]
fn articles_come_from_the_sandbox_without_a_key() {
    let (redis, news) = (RedisServer::start(), News::start());
    let (official, own) = (
        ["https://newsapi.org/v2", "https://content.guardianapis.com"],
        [
            format!("http://{}/v2", news.newsapi.address()),
            format!("http://{}", news.guardian.address()),
        ],
    );
    for missing in [&["NEWSAPI_KEY"][..], &["NEWSAPI_KEY", "GUARDIAN_API_KEY"]] {
        // At its official address a source without a key makes no call. At another address it is
        // called all the same.
        let mut options = NewsConfig::default().options(&news, &redis);
        for (at, key) in missing.iter().enumerate() {
            options = options
                .without_env(key)
                .with_config_text(&own[at], official[at]);
        }
        let larder = Larder::start(&options);
        let body = larder.get("/articles?category=business").expect(200).json();
        assert_eq!(body["sandbox"], true, "{body}");
        assert!(body["total"].as_u64().unwrap() > 0, "{body}");
        assert!(larder.log().contains("sandbox"), "{}", larder.log());
    }
    assert_eq!(news.newsapi.calls(), 0);
}
