//! Reads whose parameters are the members of a JSON body: by `POST` and by `QUERY`.

mod admin;
mod bodies;
mod connections;
mod exact;
mod long;
mod long_keys;

use serde_json::{Value, json};

use testkit::client::{Answer, Call};
use testkit::larder::{ADMIN_KEY, Larder, LarderOptions};
use testkit::upstream::{Behaviour, FakeUpstream, Response};
use testkit::{SOON, until};

/// An upstream that answers with the parameters of its query, unescaped.
fn echo() -> FakeUpstream {
    FakeUpstream::start(Behaviour::answer(|request| {
        let params = ["question", "language", "n", "sure"];
        let given = params.into_iter().filter_map(|name| {
            let value = request.param(name)?;
            Some((name.to_owned(), Value::String(value)))
        });
        Response::json(200, &Value::Object(given.collect()))
    }))
}

/// The resource `answer`, whose question goes to `upstream`. It is read by the methods `read`.
fn config(upstream: &FakeUpstream, read: &str) -> String {
    format!(
        "[resource.answer]
path = \"/answers/{{room}}\"
read = {read}
params.room = {{ type = \"string\" }}
params.question = {{ type = \"string\", required = true, max_length = 65536 }}
params.language = {{ type = \"string\", one_of = [\"en\", \"de\"], default = \"en\" }}
params.n = {{ type = \"integer\" }}
params.sure = {{ type = \"boolean\" }}
source = {{ http = \"{}/{{room}}\", query = {{ question = \"{{question}}\", language = \"{{language}}\", n = \"{{n}}\", sure = \"{{sure}}\" }} }}
ttl = {{ memory = \"1h\", redis = \"1h\" }}
tags = [\"answers\", \"question:{{question}}\"]
",
        upstream.base_url()
    )
}

/// A larder with that resource, read by both methods that have a body, and its upstream.
fn start() -> (FakeUpstream, Larder) {
    let upstream = echo();
    let config = config(&upstream, "[\"POST\", \"QUERY\"]");
    let larder = Larder::start(&LarderOptions::new(&config));
    (upstream, larder)
}

/// The methods of a question.
const METHODS: [&str; 2] = ["POST", "QUERY"];

/// A question with this body, as JSON.
fn asking(larder: &Larder, method: &'static str, body: impl Into<Vec<u8>>) -> Call {
    larder
        .call(method, "/answers/1")
        .key(ADMIN_KEY)
        .header("Content-Type", "application/json")
        .body(body)
}

fn ask(larder: &Larder, method: &'static str, body: impl Into<Vec<u8>>) -> Answer {
    asking(larder, method, body).send()
}

/// Whether memory had it.
fn is_hit(answer: &Answer) -> bool {
    answer.the("Cache-Status").starts_with("larder-memory; hit")
}

#[test]
fn a_question_is_answered_from_the_same_tiers_as_a_get() {
    let (upstream, larder) = start();
    let asked = json!({"question": "why?"}).to_string();
    let first = ask(&larder, "POST", asked.clone()).expect(200);
    assert_eq!(first.json(), json!({"question": "why?", "language": "en"}));
    assert!(!is_hit(&first));
    assert_eq!(first.the("Cache-Control"), "no-store");
    assert_eq!(first.the("Content-Type"), "application/json");
    assert_eq!(first.header("Accept-Query"), None);
    let tag = first.the("ETag").to_owned();
    // The method is no part of the key.
    let second = ask(&larder, "QUERY", asked.clone()).expect(200);
    assert!(is_hit(&second), "{second}");
    assert_eq!(second.body, first.body);
    assert_eq!(second.the("Cache-Control"), "private, no-cache");
    assert_eq!(second.the("Accept-Query"), "application/json");
    assert_eq!(second.the("ETag"), tag);
    for header in ["Age", "X-Request-Id"] {
        second.the(header);
    }
    assert_eq!(upstream.calls(), 1);
    // A condition is one for QUERY alone.
    for (method, status) in METHODS.into_iter().zip([200, 304]) {
        let call = asking(&larder, method, asked.clone());
        let answer = call.header("If-None-Match", &tag).send().expect(status);
        assert_eq!(answer.the("ETag"), tag);
    }
    // Other parameters are other questions: those of the path, too.
    ask(&larder, "QUERY", r#"{"question":"why?","language":"de"}"#).expect(200);
    let elsewhere = larder.call("QUERY", "/answers/2").key(ADMIN_KEY);
    let elsewhere = elsewhere.json(&json!({"question": "why?"})).send();
    assert!(!is_hit(&elsewhere.expect(200)));
    assert_eq!(upstream.calls(), 3);
    let stats = larder.stats();
    assert_eq!(stats["resources"]["answer"]["hits"], 3, "{stats}");
    assert_eq!(stats["resources"]["answer"]["misses"], 3, "{stats}");
}

#[test]
fn a_resource_is_read_by_the_methods_that_it_declares() {
    let upstream = echo();
    let allowed = |read: &str| {
        let larder = Larder::start(&LarderOptions::new(&config(&upstream, read)));
        let refused = |method| {
            let answer = larder.call(method, "/answers/1?question=x").key(ADMIN_KEY);
            let answer = answer.json(&json!({"question": "x"})).send();
            let refused = answer.status == 405;
            refused.then(|| {
                let accepted = answer.header("Accept-Query").is_some();
                (answer.the("Allow").to_owned(), accepted)
            })
        };
        let methods = ["GET", "HEAD", "POST", "QUERY", "PUT", "OPTIONS", "query"];
        let all = methods.map(|method| (method, refused(method)));
        let (taken, refused): (Vec<_>, Vec<_>) = all.into_iter().partition(|(_, no)| no.is_none());
        let told: Vec<_> = refused.into_iter().filter_map(|(_, told)| told).collect();
        assert!(told.iter().all(|one| *one == told[0]), "{told:?}");
        let taken: Vec<_> = taken.into_iter().map(|(method, _)| method).collect();
        (taken.join(" "), told[0].0.clone(), told[0].1)
    };
    for (read, taken, allow, accepts) in [
        ("[\"GET\"]", "GET HEAD", "GET, HEAD", false),
        ("[\"POST\"]", "POST", "POST", false),
        ("[\"QUERY\", \"POST\"]", "POST QUERY", "POST, QUERY", true),
        (
            "[\"QUERY\", \"GET\"]",
            "GET HEAD QUERY",
            "GET, HEAD, QUERY",
            true,
        ),
    ] {
        let expected = (taken.to_owned(), allow.to_owned(), accepts);
        assert_eq!(allowed(read), expected, "{read}");
    }
}

#[test]
fn a_get_and_a_question_with_the_same_values_are_one_entry() {
    let upstream = echo();
    let larder = Larder::start(&LarderOptions::new(&config(
        &upstream,
        "[\"GET\", \"POST\", \"QUERY\"]",
    )));
    ask(&larder, "QUERY", r#"{"question":"a b","n":7}"#).expect(200);
    for target in [
        "/answers/1?n=7&question=a%20b",
        "/answers/1?question=a+b&n=07&language=en",
    ] {
        let answer = larder.get(target).expect(200);
        assert!(is_hit(&answer), "{answer}");
        assert_eq!(answer.header("Accept-Query"), None);
        let head = larder
            .call("HEAD", target)
            .key(ADMIN_KEY)
            .send()
            .expect(200);
        assert!(is_hit(&head), "{head}");
    }
    // A body may have lines, and then so may the query.
    ask(&larder, "POST", r#"{"question":"a\nb\tc\r"}"#).expect(200);
    let lines = larder.get("/answers/1?question=a%0Ab%09c%0D").expect(200);
    assert!(is_hit(&lines), "{lines}");
    larder.get("/answers/1?question=a%00b").problem(400);
    assert_eq!(upstream.calls(), 2);
}

#[test]
fn an_answer_after_a_change_is_not_older() {
    let (upstream, larder) = start();
    let body = r#"{"question":"x"}"#;
    for method in METHODS {
        ask(&larder, method, body).expect(200);
        let calls = upstream.calls();
        let change = larder.post("/cache/invalidate", &json!({"tags": ["question:x"]}));
        let clock = change.expect(200).the("Larder-Clock").to_owned();
        let after = |clock: &str| {
            asking(&larder, method, body)
                .header("Larder-After", clock)
                .send()
        };
        assert!(!is_hit(&after(&clock).expect(200)));
        assert!(is_hit(&after(&clock).expect(200)));
        assert_eq!(upstream.calls(), calls + 1);
        assert!(after("soon").problem(400).contains("Larder-After"));
    }
}

#[test]
fn an_answer_that_is_absent_or_fails_is_told_as_to_a_get() {
    let (upstream, larder) = start();
    upstream.behave(Behaviour::always(Response::text(404, "none")));
    for method in METHODS {
        let answer = ask(&larder, method, r#"{"question":"none"}"#);
        answer.problem(404);
        assert_eq!(answer.the("Cache-Control"), "no-store");
        assert_eq!(answer.header("Accept-Query").is_some(), method == "QUERY");
    }
    assert_eq!(upstream.calls(), 1, "the absence is kept");
    upstream.behave(Behaviour::always(Response::text(500, "down")));
    for method in METHODS {
        let answer = ask(&larder, method, r#"{"question":"down"}"#);
        answer.problem(502);
        assert_eq!(answer.the("Cache-Status"), "larder-memory; fwd=miss");
    }
}

#[test]
fn the_log_has_the_method_of_a_question_and_nothing_of_its_body() {
    let upstream = echo();
    let options = LarderOptions::new(&config(&upstream, "[\"POST\", \"QUERY\"]"));
    let larder = Larder::start(&options.env("RUST_LOG", "debug"));
    for method in METHODS {
        ask(&larder, method, r#"{"question":"x"}"#).expect(200);
        ask(&larder, method, r#"{"question":"x","secret-word":1}"#).problem(422);
        let line = format!("{method} /answers/1 200 larder-");
        until(SOON, "the log has it", || larder.log().contains(&line));
        let line = format!("{method} /answers/1 422 -");
        until(SOON, "the log has it", || larder.log().contains(&line));
    }
    assert!(!larder.log().contains("secret-word"), "{}", larder.log());
}
