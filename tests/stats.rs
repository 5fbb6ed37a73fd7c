//! `/cache/stats`: each request is counted once, and every tier for each resource and part.

use serde_json::{Value, json};

use testkit::larder::{Larder, LarderOptions};
use testkit::news::{News, NewsConfig};
use testkit::redis::RedisServer;
use testkit::upstream::{Behaviour, FakeUpstream, Response};

/// Hits and misses.
fn of(counted: &Value) -> (u64, u64) {
    let number = |name: &str| counted[name].as_u64().unwrap();
    (number("hits"), number("misses"))
}

#[test]
fn a_part_that_is_loaded_each_time_is_counted() {
    // A value that may not be stored is loaded for each request.
    let answer = Response::json(200, &json!({"now": 1})).with("Cache-Control", "no-store");
    let origin = FakeUpstream::start(Behaviour::always(answer));
    let config = format!(
        "[resource.name]
params.id = {{ type = \"integer\" }}
source = {{ sql = \"employee_profile\" }}
ttl = {{ memory = \"1h\", redis = \"1h\" }}
[resource.now]
source = {{ http = \"http://{}/now\" }}
ttl = \"upstream\"
[resource.employee]
path = \"/employees/{{id}}\"
params.id = {{ type = \"integer\" }}
source = {{ parts = [\"name\", \"now\"] }}
",
        origin.address()
    );
    let redis = RedisServer::start();
    let larder = Larder::start(&LarderOptions::new(&config).env("REDIS_URL", &redis.url()));
    for _ in 0..3 {
        larder.get("/employees/1").expect(200);
    }
    let stats = larder.stats();
    let resources = &stats["resources"];
    assert_eq!(of(&resources["now"]), (0, 3), "{stats}");
    assert_eq!(resources["now"]["source"]["loads"], 3, "{stats}");
    assert_eq!(resources["now"]["hit_rate_percent"], 0.0);
    assert_eq!(origin.calls(), 3);
    assert_eq!(resources["name"]["source"]["loads"], 1, "{stats}");
    assert_eq!(of(&resources["name"]), (2, 1), "{stats}");
    // A request counts once, however many parts its answer has.
    assert_eq!(of(&stats), (0, 3), "{stats}");
    assert_eq!(of(&resources["employee"]), (0, 3), "{stats}");
    assert_eq!(stats["source"]["loads"], 3, "{stats}");
}

#[test]
fn each_resource_and_each_upstream_has_its_tiers() {
    let (redis, news) = (RedisServer::start(), News::start());
    let replicas = Larder::start_many(2, &NewsConfig::default().options(&news, &redis));
    let path = "/articles?category=sports";
    for larder in [&replicas[0], &replicas[0], &replicas[1], &replicas[1]] {
        larder.get(path).expect(200);
    }
    let tiers = |larder: &Larder, name: &str| {
        let stats = larder.stats();
        let one = stats["resources"][name].clone();
        (
            of(&one["memory"]),
            of(&one["redis"]),
            one["source"]["loads"].clone(),
        )
    };
    assert_eq!(tiers(&replicas[0], "articles"), ((1, 1), (0, 1), json!(1)));
    assert_eq!(tiers(&replicas[1], "articles"), ((1, 1), (1, 0), json!(0)));
    for part in ["articles.newsapi", "articles.guardian"] {
        assert_eq!(
            tiers(&replicas[0], part),
            ((0, 1), (0, 1), json!(1)),
            "{part}"
        );
        assert_eq!(
            tiers(&replicas[1], part),
            ((0, 1), (1, 0), json!(0)),
            "{part}"
        );
    }
    for replica in &replicas {
        let stats = replica.stats();
        let articles = &stats["resources"]["articles"];
        for tier in ["memory", "redis"] {
            assert_eq!(of(&stats[tier]), of(&articles[tier]), "{stats}");
        }
        assert_eq!(of(&stats), of(articles), "{stats}");
    }
}

#[test]
fn an_upstream_that_fails_is_told_by_its_name_and_counts_go_on_over_a_reload() {
    let (redis, news) = (RedisServer::start(), News::start());
    news.guardian
        .behave(Behaviour::always(Response::text(500, "oh no")));
    let config = NewsConfig::default();
    let larder = config.start(&news, &redis);
    larder.get("/articles?category=sports").expect(200);
    let errors = || {
        let stats = larder.stats();
        let of = |part: &str| stats["resources"][part]["source"]["errors"].clone();
        (
            of("articles.newsapi"),
            of("articles.guardian"),
            stats["source"]["errors"].clone(),
        )
    };
    let told = (json!(0), json!(1), json!(1));
    assert_eq!(errors(), told);
    larder.reload(&config.text(&news));
    assert_eq!(errors(), told);
}
