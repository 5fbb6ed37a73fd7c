//! Tags written by a person: read like the path of a request, with a warning if no entry can have
//! one.

use serde_json::json;

use testkit::larder::{ADMIN_KEY, Larder, LarderOptions};
use testkit::postgres::PostgresServer;
use testkit::redis::RedisServer;

const CONFIG: &str = "
[resource.city]
path = \"/city/{city}\"
params.city = { type = \"string\" }
source = { sql = \"count\", many = true }
ttl = { memory = \"1h\", redis = \"1h\" }
tags = [\"city:{city}\", \"cities\"]
[resource.user]
path = \"/user/{id}\"
params.id = { type = \"integer\", min = 1, max = 9999 }
source = { sql = \"count\", many = true }
ttl = { memory = \"1h\", redis = \"1h\" }
tags = [\"user:{id}\", \"city:{id}\"]
[resource.category]
path = \"/category/{category}\"
params.category = { type = \"string\", one_of = [\"technology\", \"science\"] }
params.page = { type = \"string\" }
source = { sql = \"count\", many = true }
ttl = { memory = \"1h\", redis = \"1h\" }
tags = [\"category:{category}\", \"page:{category}:{page}\"]
[resource.thing]
path = \"/thing/{id}\"
params.id = { type = \"string\", pattern = \"[0-9a-f-]+\" }
source = { sql = \"thing\", many = true }
ttl = { memory = \"1h\", redis = \"1h\" }
tags = [\"thing:{id}\"]
";

fn options(redis: &RedisServer) -> LarderOptions {
    LarderOptions::new(CONFIG)
        .statement("count", "SELECT 1 AS n")
        .statement("thing", "SELECT 1 AS n WHERE CAST(:id AS text) <> ''")
        .env("REDIS_URL", &redis.url())
}

fn is_warm(larder: &Larder, path: &str) -> bool {
    let answer = larder.get(path).expect(200);
    answer.the("Cache-Status").starts_with("larder-memory; hit")
}

#[test]
fn a_tag_is_read_as_the_path_of_a_request_is() {
    let redis = RedisServer::start();
    let larder = Larder::start(&options(&redis));
    for (path, tag, templates) in [
        ("/city/S%C3%A3o%20Paulo", "city:São Paulo", 1),
        ("/city/S%C3%A3o%20Paulo", "city:S%C3%A3o%20Paulo", 1),
        ("/city/S%C3%A3o%20Paulo", "city:S%c3%a3o Paulo", 1),
        ("/city/a+b", "city:a+b", 1),
        ("/city/a%2Bb", "city:a%2bb", 1),
        ("/city/100%25", "city:100%", 1),
        ("/city/a-b.c_d~e", "city:%61%2db%2ec_d%7E%65", 1),
        ("/city/a%3Ab", "city:a:b", 1),
        ("/user/7", "user:007", 1),
        ("/user/7", "user:7", 1),
        // Two resources have this tag, each in its own spelling.
        ("/user/7", "city:007", 2),
        ("/city/007", "city:007", 2),
        ("/category/science", "category:science", 1),
        ("/category/science", "category:%73cience", 1),
        ("/category/science", "page:science:", 1),
        ("/category/science?page=a:b", "page:science:a:b", 1),
        ("/city/x", "cities", 1),
    ] {
        larder.get(path).expect(200);
        assert!(is_warm(&larder, path), "{path}");
        let answer = larder
            .post("/cache/invalidate", &json!({"tags": [tag]}))
            .expect(200);
        let matched = json!([{"tag": tag, "templates": templates}]);
        assert_eq!(answer.json()["matched"], matched, "{tag}");
        assert!(!is_warm(&larder, path), "{path} after {tag}");
    }
    for tag in [
        "city",
        "citty:x",
        "category:tecnology",
        "user:abc",
        "user:10000",
        "user:",
        "thing:xyz",
        "city:%ff",
        "categorie:science",
    ] {
        let answer = larder
            .post("/cache/invalidate", &json!({"tags": [tag]}))
            .expect(200);
        let matched = json!([{"tag": tag, "templates": 0}]);
        assert_eq!(answer.json()["matched"], matched, "{tag}");
    }
    // Letters that only look alike are different: nothing is normalised.
    let path = "/city/S%C3%A3o%20Paulo";
    larder.get(path).expect(200);
    larder
        .post(
            "/cache/invalidate",
            &json!({"tags": ["city:Sa\u{303}o Paulo"]}),
        )
        .expect(200);
    assert!(is_warm(&larder, path));
}

#[test]
fn a_uuid_in_capitals_is_the_same_tag_and_a_watch_has_templates_too() {
    let (redis, postgres) = (RedisServer::start(), PostgresServer::start());
    let url = postgres.new_database();
    let options = options(&redis)
        .statement("thing", "SELECT 1 AS n WHERE :id::uuid IS NOT NULL")
        .env("DATABASE_URL", &url);
    let larder = Larder::start(&options);
    let path = "/thing/6ba7b810-9dad-11d1-80b4-00c04fd430c8";
    larder.get(path).expect(200);
    assert!(is_warm(&larder, path));
    let matched = |tag: &str| {
        let answer = larder
            .post("/cache/invalidate", &json!({"tags": [tag]}))
            .expect(200);
        answer.json()["matched"][0]["templates"].as_u64()
    };
    // The parameter's pattern allows no request with this spelling. The value itself can be
    // requested.
    assert_eq!(
        matched("thing:6BA7B810-9DAD-11D1-80B4-00C04FD430C8"),
        Some(1)
    );
    assert!(!is_warm(&larder, path));
    assert_eq!(matched("order:7"), Some(0));
    let watch = "CREATE TABLE orders (id int); SELECT larder_watch('orders', 'order:{id}')";
    postgres.connect(&url).batch_execute(watch).unwrap();
    assert_eq!(matched("order:7"), Some(1));
}

#[test]
fn the_command_tells_how_many_templates_can_make_a_tag() {
    let redis = RedisServer::start();
    let larder = Larder::start(&options(&redis));
    let url = format!("http://{}", larder.address());
    let invalidate = |arguments: &[&str]| {
        let all = [&["invalidate", "--url", &url], arguments].concat();
        let output = LarderOptions::unconfigured()
            .env("LARDER_ADMIN_KEY", ADMIN_KEY)
            .run(&all);
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (
            output.status.code(),
            text(output.stdout),
            text(output.stderr),
        )
    };
    let path = "/city/S%C3%A3o%20Paulo";
    larder.get(path).expect(200);
    assert!(is_warm(&larder, path));
    let (code, out, err) = invalidate(&["--tag", "city:São Paulo", "--tag", "city:7", "--strict"]);
    assert_eq!(code, Some(0), "{err}");
    assert!(
        out.contains("tag city:São Paulo: matches 1 template\n"),
        "{out}"
    );
    assert!(out.contains("tag city:7: matches 2 templates\n"), "{out}");
    assert!(!is_warm(&larder, path));
    let (code, _, err) = invalidate(&["--tag", "citty:x"]);
    assert_eq!(code, Some(0), "{err}");
    assert!(err.contains("tag citty:x: matches no template"), "{err}");
    assert_eq!(invalidate(&["--tag", "citty:x", "--strict"]).0, Some(1));
    assert_eq!(
        invalidate(&["--path", "/city/x", "--all", "--strict"]).0,
        Some(0)
    );
}
