//! `larder sandbox` over HTTP: its chat completions. tests/articles.rs has its news.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use testkit::client::{Answer, Call};
use testkit::sandbox::Sandbox;

const CHAT: &str = "/v1/chat/completions";

fn call(sandbox: &Sandbox, method: &'static str, target: &str) -> Call {
    Call::new(sandbox.address(), method, target)
}

fn ask(sandbox: &Sandbox, question: &str) -> Answer {
    let request = json!({
        "model": "small-1", "temperature": 0, "messages": [{"role": "user", "content": question}],
    });
    call(sandbox, "POST", CHAT).key("any").json(&request).send()
}

/// The `error` of an answer with this status.
#[track_caller]
fn error(answer: Answer, status: u16) -> Value {
    let is_said = |name: &str| answer.header(name).map(str::to_owned);
    assert_eq!(is_said("larder-sandbox").as_deref(), Some("true"));
    assert!(
        is_said("content-type")
            .unwrap()
            .starts_with("application/json")
    );
    let mut body = answer.expect(status).json();
    assert!(body["error"]["message"].is_string(), "{body}");
    body["error"].take()
}

#[test]
fn a_question_has_one_answer_in_every_process() {
    let sandboxes = [(), ()].map(|()| Sandbox::start(&["--latency", "0ms"]));
    let [one, other] = sandboxes.each_ref().map(|sandbox| {
        let answer = ask(sandbox, "What is a cache?").expect(200);
        assert_eq!(answer.header("larder-sandbox"), Some("true"));
        answer
    });
    assert_eq!(one.body, other.body);
    assert_eq!(ask(&sandboxes[0], "What is a cache?").body, one.body);
    assert_ne!(ask(&sandboxes[0], "What is a hit?").body, one.body);
    assert_eq!(one.json()["choices"][0]["finish_reason"], "stop");
}

#[test]
fn it_prints_where_everything_is() {
    let sandbox = Sandbox::start(&["--latency", "0ms"]);
    let log = sandbox.log();
    for line in [
        format!("base_url = \"{}/v2\"", sandbox.base_url()),
        format!("base_url = \"{}\"", sandbox.base_url()),
        format!("{}{CHAT}", sandbox.base_url()),
    ] {
        assert!(log.contains(&line), "{line} is not in\n{log}");
    }
    let elsewhere = call(&sandbox, "GET", "/").send().expect(404).json();
    assert!(elsewhere["message"].as_str().unwrap().contains(CHAT));
}

#[test]
fn requests_that_do_not_fit_are_errors_of_such_a_service() {
    let sandbox = Sandbox::start(&["--latency", "0ms"]);
    let post = || call(&sandbox, "POST", CHAT);
    for method in ["GET", "PUT", "DELETE", "QUERY"] {
        let answer = call(&sandbox, method, CHAT).send();
        assert_eq!(answer.header("allow"), Some("POST"), "{method}");
        error(answer, 405);
    }
    let news = call(&sandbox, "POST", "/search").send().expect(405);
    assert_eq!(news.header("allow"), Some("GET, HEAD"));
    let keyless = post().json(&json!({})).send();
    assert_eq!(keyless.header("www-authenticate"), Some("Bearer"));
    assert_eq!(error(keyless, 401)["code"], "invalid_api_key");
    let form = post().key("any").header("Content-Type", "text/plain");
    error(form.body("{}").send(), 415);
    let nothing = error(post().key("any").json(&json!({})).send(), 400);
    assert_eq!(nothing["param"], "model");
    let large = post().key("any").header("Content-Type", "application/json");
    error(large.body(vec![b' '; (1 << 20) + 1]).send(), 413);
}

#[test]
fn latency_and_failures_are_as_for_news() {
    let sandbox = Sandbox::start(&["--latency", "80ms", "--error-rate", "0.5"]);
    let begin = Instant::now();
    let statuses = [(); 4].map(|()| {
        let answer = ask(&sandbox, "What is a cache?");
        (
            answer.status,
            answer.header("retry-after").map(str::to_owned),
        )
    });
    assert!(begin.elapsed() >= Duration::from_millis(320));
    let busy = Some("1".to_owned());
    assert_eq!(
        statuses,
        [(200, None), (500, None), (200, None), (429, busy)]
    );
}
