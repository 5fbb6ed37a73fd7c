//! Cache headers of an answer without a value, and parameters that nobody declared.

use super::{config, upstream};
use testkit::larder::{Larder, LarderOptions};
use testkit::redis::RedisServer;
use testkit::upstream::{Behaviour, Response};

#[test]
fn an_absence_says_where_it_comes_from() {
    let (upstream, redis) = (upstream(), RedisServer::start());
    let options = LarderOptions::new(&config("", &upstream)).env("REDIS_URL", &redis.url());
    let replicas = Larder::start_many(2, &options);
    let none = |replica: &Larder| {
        let answer = replica.get("/open/none");
        answer.problem(404);
        assert_eq!(answer.the("Cache-Control"), "no-store");
        answer
    };
    let first = none(&replicas[0]);
    assert_eq!(
        first.the("Cache-Status"),
        "larder-redis; fwd=miss; stored, larder-memory; fwd=miss"
    );
    assert!(first.header("Server-Timing").is_some() && first.the("Age") == "0");
    assert!(none(&replicas[0]).memory_ttl() > 3000);
    let elsewhere = none(&replicas[1]);
    assert!(
        elsewhere
            .the("Cache-Status")
            .starts_with("larder-redis; hit; ttl="),
        "{elsewhere}"
    );
    assert_eq!(upstream.calls(), 1);
    // The source itself says that the thing is gone.
    upstream.behave(Behaviour::always(Response::text(410, "gone")));
    let gone = replicas[0].get("/open/gone");
    assert!(gone.header("Cache-Status").is_some(), "{gone}");
    // A failed lookup did ask the source. A request without a lookup has no `Cache-Status`.
    upstream.behave(Behaviour::always(Response::text(500, "oh no")));
    let failed = replicas[0].get("/open/failed");
    failed.problem(502);
    assert_eq!(failed.the("Cache-Status"), "larder-memory; fwd=miss");
    let unknown = replicas[0].get("/nowhere");
    unknown.problem(404);
    assert_eq!(unknown.header("Cache-Status"), None);
}

#[test]
fn unknown_parameters_are_ignored_or_refused_as_the_resource_says() {
    let upstream = upstream();
    let text = config("", &upstream);
    let strict = text.replace(
        "path = \"/closed/{id}\"",
        "path = \"/closed/{id}\"\nunknown_params = \"refuse\"\nparams.size = { type = \"integer\" }\nparams.color = { type = \"string\" }",
    );
    let larder = Larder::start(&LarderOptions::new(&strict));
    for query in ["?catgory=toys", "?a&b=1&&c", "?%zz=1"] {
        let target = format!("/open/1{query}");
        larder.get(&target).expect(200);
    }
    assert_eq!(upstream.calls(), 1, "they are no part of the key");
    larder.get("/closed/1?size=1&color=red&").expect(200);
    larder.get("/closed/1?%73ize=1").expect(200);
    for (query, name) in [
        ("?sise=1", "sise"),
        ("?size=1&colour=red", "colour"),
        ("?Size=1", "Size"),
        ("?id=2", "id"),
        ("?co%6Cour=red", "colour"),
        ("?=1", ""),
    ] {
        let answer = larder.get(&format!("/closed/1{query}"));
        let detail = answer.problem(400);
        assert_eq!(answer.json()["parameter"], name, "{answer}");
        assert!(detail.contains("size, color"), "{answer}");
    }
    // The path in an invalidation is checked like that of a request.
    let wrong = larder.post(
        "/cache/invalidate",
        &serde_json::json!({"paths": ["/closed/1?sise=1"]}),
    );
    assert!(wrong.problem(422).contains("sise"), "{wrong}");
}
