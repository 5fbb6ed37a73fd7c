//! Invalid parameters are reported, and cost no call to an upstream and no entry in the cache.

use testkit::news::{News, NewsConfig};
use testkit::redis::RedisServer;

#[test]
fn every_invalid_parameter_is_400_and_says_what_is_valid() {
    let (redis, news) = (RedisServer::start(), News::start());
    let larder = NewsConfig::default().start(&news, &redis);
    // The query, its wrong parameter, and a part of what the answer says is valid.
    let bad = [
        ("category=politics", "category", "technology"),
        ("category=Technology", "category", "technology"),
        ("category=technology%20", "category", "technology"),
        ("category=technology%00", "category", "technology"),
        ("category=..%2F..%2Fetc", "category", "technology"),
        ("category=technology,science", "category", "technology"),
        ("category=%FF", "category", ""),
        ("category=", "category", ""),
        ("category", "category", ""),
        ("category=science&category=science", "category", ""),
        ("category=science&category=health", "category", ""),
        ("category=science&c%61tegory=health", "category", ""),
        ("limit=0", "limit", "100"),
        ("limit=101", "limit", "100"),
        ("limit=-1", "limit", "100"),
        ("limit=99999999999999999999999", "limit", "100"),
        ("limit=ten", "limit", "100"),
        ("limit=1.5", "limit", "100"),
        ("limit=1e1", "limit", "100"),
        ("limit=0x10", "limit", "100"),
        ("limit=%201", "limit", "100"),
        ("limit=", "limit", ""),
        ("limit=5&limit=5", "limit", ""),
        ("source=", "source", ""),
        ("source=guardian&source=guardian", "source", ""),
        ("source=%C3%28", "source", ""),
    ];
    for warm in [false, true] {
        if warm {
            larder.get("/articles").expect(200);
            larder.get("/articles?category=science").expect(200);
        }
        let (calls, places) = (news.calls(), redis.keys("larder:v:*"));
        for (query, parameter, valid) in bad {
            let detail = larder.get(&format!("/articles?{query}")).problem(400);
            assert!(detail.contains(parameter), "{query}: {detail}");
            assert!(detail.contains(valid), "{query}: {detail}");
        }
        assert_eq!(news.calls(), calls);
        assert_eq!(redis.keys("larder:v:*"), places);
    }
}

#[test]
fn no_odd_parameter_is_an_error_of_the_server() {
    let (redis, news) = (RedisServer::start(), News::start());
    let larder = NewsConfig::default().start(&news, &redis);
    let long = format!("source={}", "x".repeat(4000));
    let many = "a=1&".repeat(1000);
    for query in [
        "", "&", "=", "%", "%zz", "a=%", "=science", "a&b&c", "?", "+", &long, &many,
    ] {
        let answer = larder.get(&format!("/articles?{query}"));
        assert!(matches!(answer.status, 200 | 400), "{query}: {answer}");
    }
    // Parameters that do not change the value caused no second load, whether declared or not.
    assert_eq!(news.calls(), (1, 1));
}
