//! The headers of an answer, and the order in which a request is refused.

use testkit::client::Answer;
use testkit::larder::{ADMIN_KEY, Larder};
use testkit::news::{News, NewsConfig, titles};
use testkit::redis::RedisServer;
use testkit::{SOON, until};

const PATH: &str = "/articles?category=science";

fn one(config: &NewsConfig) -> (RedisServer, News, Larder) {
    let (redis, news) = (RedisServer::start(), News::start());
    let larder = config.start(&news, &redis);
    (redis, news, larder)
}

#[test]
fn a_client_with_the_current_etag_gets_304() {
    let (_redis, _news, larder) = one(&NewsConfig::default());
    let tag = until_memory_hit(&larder);
    assert_eq!(ask(&larder, "\"something-else\"").status, 200);
    for tags in [
        &tag,
        &format!("\"something-else\", {tag}"),
        &format!("W/{}", tag.trim_start_matches("W/")),
    ] {
        let unchanged = ask(&larder, tags).expect(304);
        assert!(unchanged.body.is_empty(), "{tags}");
        assert_eq!(unchanged.the("ETag"), tag);
        assert_eq!(unchanged.the("Cache-Control"), "private, no-cache");
    }
}

#[test]
fn entity_tags_may_stand_on_several_lines() {
    let (_redis, _news, larder) = one(&NewsConfig::default());
    let tag = until_memory_hit(&larder);
    for tags in [["\"other\"", &tag], [&tag, "\"other\""]] {
        let call = larder.call("GET", PATH).key(ADMIN_KEY);
        let call = call.header("If-None-Match", tags[0]);
        call.header("If-None-Match", tags[1]).send().expect(304);
    }
}

#[test]
fn head_is_answered_wherever_get_is() {
    let (_redis, _news, larder) = one(&NewsConfig::default());
    for target in [
        PATH,
        "/cache/stats",
        "/cache/entry?path=/articles",
        "/cache/replicas",
        "/keys",
        "/healthz",
        "/readyz",
    ] {
        let head = larder.call("HEAD", target).key(ADMIN_KEY).send();
        assert_eq!(head.status, 200, "{target}: {head}");
        let kind = head.the("Content-Type");
        assert!(kind.starts_with("application/json"), "{target}: {head}");
    }
    let other = larder.call("PUT", "/keys").key(ADMIN_KEY).send();
    other.problem(405);
    assert_eq!(other.the("Allow"), "GET, HEAD, POST");
    larder.call("HEAD", "/keys").send().expect(401);
}

#[test]
fn a_path_may_be_escaped_where_it_need_not_be() {
    let (_redis, news, larder) = one(&NewsConfig::default());
    larder.get(PATH).expect(200);
    let (path, query) = PATH.split_once('?').unwrap();
    let escaped = path.replace('a', "%61").replace('s', "%73");
    larder.get(&format!("{escaped}?{query}")).expect(200);
    assert_eq!(news.calls(), (1, 1), "it is the same thing");
    larder.get("/%6beys").expect(200);
    larder.get("/%2farticles").problem(404);
}

#[test]
fn a_client_with_an_old_etag_gets_the_new_body() {
    let (_redis, news, larder) = one(&NewsConfig {
        memory: "1s",
        redis: "1s",
        ..NewsConfig::default()
    });
    let tag = until_memory_hit(&larder);
    news.publish();
    until(SOON, "a changed answer is sent whole", || {
        let answer = ask(&larder, &tag);
        answer.status == 200 && titles(&answer.json())[0].ends_with("r2")
    });
    assert_ne!(until_memory_hit(&larder), tag);
}

/// The answer to a client that has these entity tags.
fn ask(larder: &Larder, tags: &str) -> Answer {
    let call = larder.call("GET", PATH).key(ADMIN_KEY);
    call.header("If-None-Match", tags).send()
}

/// The entity tag of an answer from memory.
fn until_memory_hit(larder: &Larder) -> String {
    let mut tag = String::new();
    until(SOON, "an answer comes from memory", || {
        let answer = larder.get(PATH).expect(200);
        tag = answer.the("ETag").to_owned();
        assert!(tag.starts_with('"') || tag.starts_with("W/\""), "{answer}");
        answer.the("Cache-Status").starts_with("larder-memory; hit")
    });
    tag
}

#[test]
fn a_client_asks_again_unless_the_resource_lets_it_keep() {
    let (_redis, _news, larder) = one(&NewsConfig::default());
    for _ in 0..2 {
        let answer = larder.get(PATH).expect(200);
        assert_eq!(answer.the("Cache-Control"), "private, no-cache");
        assert!(answer.the("Age").parse::<u32>().unwrap() < 30, "{answer}");
    }

    let (_redis, _news, larder) = one(&NewsConfig {
        client_ttl: Some("10s"),
        ..NewsConfig::default()
    });
    for _ in 0..2 {
        let answer = larder.get(PATH).expect(200);
        let age: u32 = answer.the("Age").parse().unwrap();
        let keep = answer
            .the("Cache-Control")
            .strip_prefix("private, max-age=");
        let keep: u32 = keep.unwrap_or_else(|| panic!("{answer}")).parse().unwrap();
        assert!(keep > 0 && keep <= age + 10, "{answer}");
    }
}

#[test]
fn a_miss_says_where_its_time_went() {
    let (_redis, _news, larder) = one(&NewsConfig::default());
    let miss = larder.get(PATH).expect(200);
    let timing = miss.the("Server-Timing");
    for part in ["memory;dur=", "redis;dur=", "source;dur="] {
        assert!(timing.contains(part), "{miss}");
    }
    let hit = larder.get(PATH).expect(200);
    assert_eq!(hit.header("Server-Timing"), None, "{hit}");
}

#[test]
fn the_rate_headers_say_what_a_key_has_left() {
    let (_redis, _news, larder) = one(&NewsConfig::default());
    let (_, key) = larder.create_key(&serde_json::json!({"name": "reader", "rate": "50/1m"}));
    let answer = larder.call("GET", PATH).key(&key).send().expect(200);
    assert!(answer.the("RateLimit-Policy").contains("50"), "{answer}");
    assert!(answer.the("RateLimit").contains("49"), "{answer}");
}

#[test]
fn a_request_has_an_id() {
    let (_redis, _news, larder) = one(&NewsConfig::default());
    let given = larder
        .call("GET", PATH)
        .key(ADMIN_KEY)
        .header("X-Request-Id", "from-the-caller-7421")
        .send();
    assert_eq!(given.the("X-Request-Id"), "from-the-caller-7421");
    until(SOON, "the id is logged", || {
        larder.log().contains("from-the-caller-7421")
    });
    let made: Vec<String> = (0..2)
        .map(|_| larder.get(PATH).the("X-Request-Id").to_owned())
        .collect();
    assert!(!made[0].is_empty());
    assert_ne!(made[0], made[1]);
    // An error has an id, too.
    assert!(
        !larder
            .call("GET", PATH)
            .send()
            .the("X-Request-Id")
            .is_empty()
    );
}

#[test]
fn a_request_is_refused_for_the_first_reason_in_order() {
    let (_redis, news, larder) = one(&NewsConfig::default());
    let (_, reader) = larder.create_key(&serde_json::json!({"name": "reader", "rate": "1/1h"}));
    let status = |method, target: &str, key: Option<&str>| {
        let mut call = larder.call(method, target);
        if let Some(key) = key {
            call = call.key(key);
        }
        let answer = call.send();
        answer.problem(answer.status);
        (answer.status, answer)
    };
    // First the unknown route (404), then the method, then the key, then its rights.
    assert_eq!(status("GET", "/nowhere", None).0, 404);
    assert_eq!(status("DELETE", "/nowhere", Some("wrong")).0, 404);
    let (refused, answer) = status("POST", "/articles?category=politics", None);
    assert_eq!(refused, 405);
    assert!(answer.the("Allow").contains("GET"), "{answer}");
    let (refused, answer) = status("GET", "/articles?category=politics", None);
    assert_eq!((refused, answer.the("WWW-Authenticate")), (401, "Bearer"));
    assert_eq!(status("GET", "/cache/stats", Some("wrong")).0, 401);
    assert_eq!(status("GET", "/cache/stats", Some(&reader)).0, 403);
    assert_eq!(
        status("GET", "/articles?category=politics", Some(ADMIN_KEY)).0,
        400
    );
    assert_eq!(news.calls(), (0, 0));
    // The rate comes before the parameters. Whether or not a refusal counts, the second request
    // exceeds the rate.
    larder.call("GET", PATH).key(&reader).send();
    let (refused, answer) = status("GET", "/articles?category=politics", Some(&reader));
    assert_eq!(refused, 429);
    assert!(
        answer.the("Retry-After").parse::<u32>().unwrap() > 0,
        "{answer}"
    );
}

#[test]
fn the_ttl_is_that_of_the_tier_that_is_named() {
    let (redis, news) = (RedisServer::start(), News::start());
    let folder = std::sync::Arc::new(tempfile::tempdir().unwrap());
    let ttl = "ttl = { memory = \"30s\", redis = \"5m\" }";
    let users = format!(
        "[resource.user]\npath = \"/users/{{id}}\"\nparams.id = {{ type = \"integer\" }}\nsource = {{ sql = \"user_by_id\" }}\n{ttl}\n\
         [resource.status]\nparams.id = {{ type = \"integer\" }}\nsource = {{ sql = \"employee_status\" }}\n{ttl}\n\
         [resource.profile]\nparams.id = {{ type = \"integer\" }}\nsource = {{ sql = \"employee_profile\" }}\n{ttl}\n\
         [resource.employee]\npath = \"/employees/{{id}}\"\nparams.id = {{ type = \"integer\" }}\nsource = {{ parts = [\"profile\", \"status\"] }}\n[server]\n"
    );
    let options = NewsConfig::default().options(&news, &redis);
    let options = options
        .with_config_text("[server]\n", &users)
        .in_folder(&folder);
    let replicas = Larder::start_many(2, &options);
    // A plain value, and two composites.
    for path in ["/users/1", PATH, "/employees/1"] {
        replicas[0].get(path).expect(200);
        let near = replicas[1].get(path).expect(200);
        let status = near.the("Cache-Status");
        let ttl = status
            .strip_prefix("larder-redis; hit; ttl=")
            .and_then(|rest| rest.strip_suffix(", larder-memory; fwd=miss"));
        let ttl: u64 = ttl.and_then(|ttl| ttl.parse().ok()).expect(status);
        // Less the jitter, a tenth at most, and the time that this takes.
        assert!((200..=300).contains(&ttl), "{path}: {near}");
        let again = replicas[1].get(path).expect(200);
        assert!((1..=30).contains(&again.memory_ttl()), "{path}: {again}");
        let age: u64 = again.the("Age").parse().unwrap();
        assert!(age < 100, "{path}: {again}");
    }
}

#[test]
fn the_ttl_of_a_stale_answer_is_negative() {
    let (_redis, news, larder) = one(&NewsConfig {
        memory: "1s",
        redis: "1s",
        while_revalidate: "1h",
        ..NewsConfig::default()
    });
    larder.get(PATH).expect(200);
    news.newsapi.hold();
    news.guardian.hold();
    let mut stale = None;
    until(SOON, "it is stale", || {
        let answer = larder.get(PATH).expect(200);
        let is_stale = answer.the("Cache-Status").contains("fwd=stale");
        stale = is_stale.then_some(answer);
        is_stale
    });
    let stale = stale.unwrap();
    let status = stale.the("Cache-Status");
    let ttl = status.strip_prefix("larder-memory; fwd=stale; detail=stale-while-revalidate; ttl=-");
    let past: u64 = ttl.and_then(|ttl| ttl.parse().ok()).expect(status);
    let age: u64 = stale.the("Age").parse().unwrap();
    // It was fresh for a second less the jitter.
    assert!(past >= 1 && past <= age + 1, "{stale}");
    news.newsapi.release();
    news.guardian.release();
}
