//! Views: cut from one load, with no call and no entry of their own.

use testkit::larder::ADMIN_KEY;
use testkit::news::{News, NewsConfig, titles};
use testkit::redis::RedisServer;

#[test]
fn every_view_is_cut_from_one_load() {
    let (redis, news) = (RedisServer::start(), News::with(30));
    let larder = NewsConfig::default().start(&news, &redis);
    let get = |query: &str| {
        let body = larder
            .get(&format!("/articles?category=science{query}"))
            .expect(200)
            .json();
        let all = titles(&body);
        assert_eq!(body["total"], all.len(), "{query}");
        all
    };
    let all = get("&limit=100");
    assert_eq!(all.len(), 60);
    let places = larder.stats()["total_keys"].clone();

    assert_eq!(get(""), all[..20]);
    for limit in [1, 3, 59, 60, 61] {
        assert_eq!(get(&format!("&limit={limit}")), all[..limit.min(60)]);
    }
    for (source, prefix) in [("guardian", "guardian "), ("the-wire", "newsapi ")] {
        let own: Vec<&String> = all
            .iter()
            .filter(|title| title.starts_with(prefix))
            .collect();
        assert_eq!(own.len(), 30);
        assert_eq!(
            get(&format!("&source={source}&limit=100"))
                .iter()
                .collect::<Vec<_>>(),
            own
        );
        assert_eq!(
            get(&format!("&limit=2&source={source}"))
                .iter()
                .collect::<Vec<_>>(),
            own[..2]
        );
    }
    assert!(get("&source=nobody").is_empty());

    assert_eq!(news.calls(), (1, 1));
    assert_eq!(larder.stats()["total_keys"], places);
    assert_eq!(redis.keys("larder:v:*").len(), 2);
}

#[test]
fn every_way_to_write_a_view_is_one_key() {
    let (redis, news) = (RedisServer::start(), News::start());
    let larder = NewsConfig::default().start(&news, &redis);
    let first = larder
        .get("/articles?category=technology")
        .expect(200)
        .json();
    for same in [
        "/articles?limit=20&category=technology",
        "/articles?category=technology&limit=20",
        "/articles?category=%74echnology",
        "/articles?c%61tegory=technology",
        "/articles?category=technology&utm_source=mail",
        "/articles?&category=technology&",
    ] {
        let answer = larder.get(same).expect(200);
        assert!(
            answer.the("Cache-Status").starts_with("larder-memory; hit"),
            "{same}: {answer}"
        );
        assert_eq!(answer.json()["articles"], first["articles"], "{same}");
    }
    assert_eq!(news.calls(), (1, 1));
}

#[test]
fn two_views_are_two_things_to_a_client() {
    let (redis, news) = (RedisServer::start(), News::start());
    let larder = NewsConfig::default().start(&news, &redis);
    larder.get("/articles?category=science").expect(200);
    let tag = |target: &str| larder.get(target).expect(200).the("ETag").to_owned();
    let one = tag("/articles?category=science&limit=1");
    let two = tag("/articles?category=science&limit=2");
    assert_ne!(one, two);
    let asked = |target: &str, tag: &str| {
        let call = larder
            .call("GET", target)
            .key(ADMIN_KEY)
            .header("If-None-Match", tag);
        call.send().status
    };
    assert_eq!(asked("/articles?category=science&limit=1", &one), 304);
    assert_eq!(asked("/articles?category=science&limit=2", &one), 200);
}
