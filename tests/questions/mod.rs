//! Reads whose parameters are the members of a JSON body: by `POST` and by `QUERY`.

mod admin;

use serde_json::{Value, json};

use testkit::client::{Answer, Call};
use testkit::larder::{ADMIN_KEY, Larder, LarderOptions};
use testkit::upstream::{Behaviour, FakeUpstream, Response};

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

/// The first word of where an answer came from: `hit` in memory, or `miss`.
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
