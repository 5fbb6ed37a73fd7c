//! A read by `POST` or `QUERY` counts as one by `GET` does.

use serde_json::json;

use super::origin;
use super::scrape::Scrape;
use testkit::client::Answer;
use testkit::larder::{ADMIN_KEY, Larder, LarderOptions};

#[test]
fn a_read_by_body_counts_once_and_a_refused_one_does_not() {
    let origin = origin();
    let config = format!(
        "[resource.answer]
path = \"/answers\"
read = [\"GET\", \"POST\", \"QUERY\"]
params.question = {{ type = \"string\", required = true, max_length = 20 }}
source = {{ http = \"http://{}/{{question}}\" }}
ttl = {{ memory = \"1h\", redis = \"1h\", absent = \"1h\" }}
",
        origin.address()
    );
    let larder = Larder::start(&LarderOptions::new(&config));
    let (_, reader) = larder.create_key(&json!({"name": "reader", "rate": "1/1h"}));
    let ask = |method: &'static str, question: &str, key: &str| -> Answer {
        let call = larder.call(method, "/answers").key(key);
        call.json(&json!({"question": question})).send()
    };
    let before = Scrape::of(&larder);
    // One load, then hits by each method: they share the entry.
    let tag = ask("POST", "a", ADMIN_KEY)
        .expect(200)
        .the("ETag")
        .to_owned();
    ask("POST", "a", ADMIN_KEY).expect(200);
    ask("QUERY", "a", ADMIN_KEY).expect(200);
    larder.get("/answers?question=a").expect(200);
    let call = larder.call("QUERY", "/answers").key(ADMIN_KEY);
    let call = call.header("If-None-Match", &tag);
    call.json(&json!({"question": "a"})).send().expect(304);
    ask("QUERY", "none", ADMIN_KEY).expect(404);
    ask("POST", "none", ADMIN_KEY).expect(404);
    ask("POST", "bad", ADMIN_KEY).expect(502);
    ask("QUERY", "b", &reader).expect(200);
    // Refused: 429, 401, 405, 413, 415, 400, 400 and 422.
    ask("QUERY", "a", &reader).expect(429);
    let bare = |method: &'static str, path: &str| larder.call(method, path);
    bare("POST", "/answers").json(&json!({})).send().expect(401);
    bare("PUT", "/answers")
        .key(ADMIN_KEY)
        .json(&json!({}))
        .send()
        .expect(405);
    ask("POST", &"x".repeat(70_000), ADMIN_KEY).expect(413);
    bare("QUERY", "/answers")
        .key(ADMIN_KEY)
        .body("{}")
        .send()
        .expect(415);
    let malformed = bare("QUERY", "/answers").key(ADMIN_KEY);
    let malformed = malformed.header("Content-Type", "application/json");
    malformed.body("{").send().expect(400);
    let misplaced = bare("POST", "/answers?question=a").key(ADMIN_KEY);
    misplaced.json(&json!({"question": "a"})).send().expect(400);
    ask("POST", &"x".repeat(21), ADMIN_KEY).expect(422);

    for scrape in [Scrape::of(&larder), Scrape::open(&larder)] {
        scrape.check(Some(&before));
        // a: 3 hits and a 304; none: one hit.
        for (outcome, count) in [("memory", 5.0), ("loaded", 3.0), ("failed", 1.0)] {
            let of = [("resource", "answer"), ("outcome", outcome)];
            assert_eq!(scrape.get("larder_requests_total", &of), count, "{outcome}");
            let durations = "larder_request_duration_seconds_count";
            let took = scrape.get(durations, &[("outcome", outcome)]);
            assert_eq!(took, count, "{outcome}");
        }
        let all = scrape.sum("larder_requests_total", &[("resource", "answer")]);
        assert_eq!(all, 9.0);
        assert_eq!(
            scrape.sum("larder_loads_total", &[("resource", "answer")]),
            4.0
        );
        // Each answer counts once by its status, refused ones too.
        for (status, count) in [
            ("304", 1.0),
            ("404", 2.0),
            ("502", 1.0),
            ("429", 1.0),
            ("401", 1.0),
            ("405", 1.0),
            ("413", 1.0),
            ("415", 1.0),
            ("400", 2.0),
            ("422", 1.0),
        ] {
            let responses = "larder_responses_total";
            let grown = scrape.grown(&before, responses, &[("status", status)]);
            assert_eq!(grown, count, "{status}");
        }
    }
    let stats = larder.stats();
    assert_eq!(
        (&stats["hits"], &stats["misses"]),
        (&json!(5), &json!(4)),
        "{stats}"
    );
}
