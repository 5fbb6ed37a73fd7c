//! HTTP sources that are asked by POST and QUERY, and answers that are not to be stored: whole
//! servers, over a real Redis.

use serde_json::{Value, json};

use testkit::client::Answer;
use testkit::larder::{ADMIN_KEY, Larder, LarderOptions};
use testkit::redis::RedisServer;
use testkit::upstream::{Behaviour, FakeUpstream, Request, Response};
use testkit::{SOON, until};

const AI_KEY: &str = "an-ai-key\"with-quotes-0123456789";

/// A resource whose values come from `upstream`.
fn config(upstream: &FakeUpstream) -> String {
    let url = upstream.base_url();
    format!(
        r#"
[resource.answer]
path = "/answers"
params.question = {{ type = "string", max_length = 2000, required = true }}
params.language = {{ type = "string" }}
params.most = {{ type = "integer", default = 9007199254740993 }}
ttl = {{ memory = "1h", redis = "1h" }}
tags = ["answers"]

[resource.answer.source]
http = "{url}/v1/chat"
method = "POST"
headers = {{ Authorization = "Bearer ${{AI_KEY}}" }}
json = {{ model = "small-1", temperature = 0, most = "{{most}}", key = "${{AI_KEY}}", messages = [
    {{ role = "user", content = "{{question}}" }},
    {{ role = "system", content = "Answer in {{language}}." , language = "{{language}}" }},
] }}
pick = "/choices/0/content"
store_if = {{ "/choices/0/finish_reason" = ["stop", "end"] }}
"#
    )
}

fn options(upstream: &FakeUpstream, redis: &RedisServer) -> LarderOptions {
    LarderOptions::new(&config(upstream))
        .env("REDIS_URL", &redis.url())
        .env("AI_KEY", AI_KEY)
}

/// An upstream that ends its answers for this reason, and repeats the question in them.
fn ends_for(reason: &'static str) -> Behaviour {
    Behaviour::answer(move |request| completion(request, reason))
}

fn completion(request: &Request, reason: &str) -> Response {
    let question = &request.json()["messages"][0]["content"];
    let content = format!("{} ({reason})", question.as_str().unwrap());
    let choice = json!({"finish_reason": reason, "content": content});
    Response::json(200, &json!({ "choices": [choice] }))
}

fn path(question: &str) -> String {
    format!("/answers?question={question}")
}

/// The value of the load counter with this result.
fn loads(larder: &Larder, result: &str) -> u64 {
    let scrape = larder.get("/metrics").expect(200).text();
    let begin = format!("larder_loads_total{{resource=\"answer\",result=\"{result}\"}} ");
    let line = scrape.lines().find_map(|line| line.strip_prefix(&begin));
    line.unwrap_or_else(|| panic!("no {begin}in {scrape}"))
        .parse()
        .unwrap()
}

#[track_caller]
fn assert_not_stored(answer: &Answer) {
    let status = answer.the("Cache-Status");
    assert!(
        status.contains("fwd=") && !status.contains("stored"),
        "{status}"
    );
}

#[test]
fn a_question_is_asked_once_with_exactly_its_values() {
    let (redis, upstream) = (RedisServer::start(), FakeUpstream::start(ends_for("stop")));
    let replicas = Larder::start_many(2, &options(&upstream, &redis));
    let question =
        "say%20%22hi%22%20%7Bmost%7D%20%24%7BHOME%7D%20%7D%5D%20%E2%80%A8%20%F0%9F%98%80";
    let said = "say \"hi\" {most} ${HOME} }] \u{2028} 😀";
    let first = replicas[0].get(&path(question)).expect(200);
    assert_eq!(first.json(), json!(format!("{said} (stop)")));
    assert!(first.the("Cache-Status").contains("; stored"), "{first}");
    for larder in &replicas {
        let again = larder.get(&path(question)).expect(200);
        assert!(again.the("Cache-Status").contains("; hit"), "{again}");
        assert_eq!(again.body, first.body);
    }
    let requests = upstream.requests();
    assert_eq!(requests.len(), 1);
    assert_eq!(requests[0].method, "POST");
    let bearer = format!("Bearer {AI_KEY}");
    assert_eq!(requests[0].header("Authorization"), Some(&*bearer));
    let expected = json!({
        "model": "small-1", "temperature": 0, "most": 9_007_199_254_740_993_i64, "key": AI_KEY,
        "messages": [{"role": "user", "content": said}, {"role": "system"}],
    });
    assert_eq!(requests[0].json().to_string(), expected.to_string());
    replicas[0]
        .get(&format!("{}&language=en&most=-1", path(question)))
        .expect(200);
    let body = upstream.requests()[1].json();
    assert_eq!(body["most"], json!(-1));
    let system = json!({"role": "system", "content": "Answer in en.", "language": "en"});
    assert_eq!(body["messages"][1], system);
}

#[test]
fn what_a_body_asks_arrives_as_it_is() {
    let (redis, upstream) = (RedisServer::start(), FakeUpstream::start(ends_for("stop")));
    let options = options(&upstream, &redis).with_config_text(
        "[resource.answer]\n",
        "[resource.answer]\nread = [\"POST\"]\n",
    );
    let larder = Larder::start(&options);
    for (question, most) in [
        (
            "a \"quote\"\r\n\t{most} {{}} ${AI_KEY}",
            9_007_199_254_740_993_i64,
        ),
        ("\u{2028}\u{feff}😀\\", i64::MIN),
    ] {
        let body = json!({"question": question, "most": most});
        for is_hit in [false, true] {
            let answer = larder.post("/answers", &body).expect(200);
            assert_eq!(answer.json(), json!(format!("{question} (stop)")));
            assert_eq!(answer.the("Cache-Status").contains("; hit"), is_hit);
        }
        let sent = upstream.requests().pop().unwrap().json();
        assert_eq!(sent["messages"][0]["content"], json!(question));
        assert_eq!(sent["most"], json!(most));
    }
    assert_eq!(upstream.calls(), 2);
}

#[test]
fn an_answer_that_store_if_refuses_is_an_answer_and_is_in_no_tier() {
    let (redis, upstream) = (
        RedisServer::start(),
        FakeUpstream::start(ends_for("length")),
    );
    let larder = Larder::start(&options(&upstream, &redis));
    let answer = larder.get(&path("why")).expect(200);
    assert_eq!(answer.json(), json!("why (length)"));
    assert_not_stored(&answer);
    let kept = String::from_utf8_lossy(&redis.everything()).into_owned();
    assert!(
        !kept.contains("why (length)") && !kept.contains("larder:v:"),
        "{kept}"
    );
    let entry = larder.get("/cache/entry?path=/answers%3Fquestion%3Dwhy");
    assert_eq!(entry.expect(200).json()["state"], "none");
    // Each later caller asks anew. Without a copy from before there is nothing to compare with.
    for calls in 2..=3 {
        assert_not_stored(&larder.get(&path("why")).expect(200));
        assert_eq!(upstream.calls(), calls);
        assert_eq!(loads(&larder, "first") as usize, calls);
    }
    assert_eq!(loads(&larder, "failed"), 0);
    upstream.behave(ends_for("end"));
    let answer = larder.get(&path("why")).expect(200);
    assert!(answer.the("Cache-Status").contains("; stored"), "{answer}");
    let hit = larder.get(&path("why")).expect(200);
    assert!(hit.the("Cache-Status").contains("; hit"), "{hit}");
}

#[test]
fn another_replica_asks_for_itself_what_is_not_to_be_stored() {
    let (redis, upstream) = (
        RedisServer::start(),
        FakeUpstream::start(ends_for("length")),
    );
    let replicas = Larder::start_many(2, &options(&upstream, &redis));
    upstream.hold();
    let ask = |larder: &Larder| {
        let call = larder.call("GET", &path("why")).key(ADMIN_KEY);
        call.connect().unwrap()
    };
    let first = ask(&replicas[0]);
    until(SOON, "the first asks", || upstream.calls() == 1);
    let second = ask(&replicas[1]);
    upstream.release();
    for pending in [first, second] {
        let answer = pending.finish().unwrap().expect(200);
        assert_eq!(answer.json(), json!("why (length)"));
        assert_not_stored(&answer);
    }
    assert_eq!(upstream.calls(), 2);
    // Neither has left its lease behind.
    replicas[0].get(&path("why")).expect(200);
    assert_eq!(upstream.calls(), 3);
}

#[test]
fn a_stale_copy_goes_when_its_renewal_is_not_to_be_stored() {
    let (redis, upstream) = (RedisServer::start(), FakeUpstream::start(ends_for("stop")));
    let brief = r#"ttl = { memory = "1s", redis = "1s" }
stale = { while_revalidate = "1h", if_error = "1h" }"#;
    let options = options(&upstream, &redis)
        .with_config_text(r#"ttl = { memory = "1h", redis = "1h" }"#, brief);
    let larder = Larder::start(&options);
    larder.get(&path("why")).expect(200);
    upstream.behave(ends_for("length"));
    upstream.hold();
    until(SOON, "it is stale", || {
        let answer = larder.get(&path("why")).expect(200);
        // The copy serves until its renewal has ended.
        assert_eq!(answer.json(), json!("why (stop)"));
        answer.the("Cache-Status").contains("fwd=stale")
    });
    until(SOON, "it is renewed", || upstream.calls() == 2);
    upstream.release();
    until(SOON, "the copy is gone", || {
        let answer = larder.get(&path("why")).expect(200);
        if answer.json() == json!("why (stop)") {
            return false;
        }
        assert_eq!(answer.json(), json!("why (length)"));
        assert_not_stored(&answer);
        true
    });
    let kept = String::from_utf8_lossy(&redis.everything()).into_owned();
    assert!(!kept.contains("larder:v:"), "{kept}");
    // A copy was at hand, so the renewal is known to have changed it.
    assert_eq!(loads(&larder, "changed"), 1);
    // A failure is one: there is no copy to stand in.
    upstream.behave(Behaviour::always(Response::text(500, "")));
    larder.get(&path("why")).problem(502);
}

#[test]
fn what_asks_differently_shares_no_answer() {
    let (redis, upstream) = (RedisServer::start(), FakeUpstream::start(ends_for("stop")));
    let plain = options(&upstream, &redis);
    let query = r#"method = "QUERY""#;
    for (options, calls) in [
        (plain.clone(), 1),
        // The same again, with its answer in Redis.
        (plain.clone(), 1),
        (
            plain
                .clone()
                .with_config_text("temperature = 0", "temperature = 1"),
            2,
        ),
        (
            plain.clone().with_config_text(r#"method = "POST""#, query),
            3,
        ),
        (
            plain
                .clone()
                .with_config_text(r#"["stop", "end"]"#, r#""stop""#),
            4,
        ),
        (plain.clone().env("AI_KEY", "another"), 5),
        (plain.clone(), 5),
    ] {
        let larder = Larder::start(&options);
        larder.get(&path("why")).expect(200);
        assert_eq!(upstream.calls(), calls);
    }
    assert_eq!(upstream.requests()[2].method, "QUERY");
}

#[test]
fn a_query_is_confirmed_by_its_upstream() {
    let answer = |request: &Request| {
        completion(request, "stop")
            .with("ETag", "\"v1\"")
            .with("Cache-Control", "max-age=0")
            .unless_known(request)
    };
    let (redis, upstream) = (
        RedisServer::start(),
        FakeUpstream::start(Behaviour::answer(answer)),
    );
    let by_upstream = options(&upstream, &redis).with_config_text(
        r#"ttl = { memory = "1h", redis = "1h" }"#,
        r#"ttl = "upstream""#,
    );
    let query = by_upstream
        .clone()
        .with_config_text(r#"method = "POST""#, r#"method = "QUERY""#);
    for (options, confirmed) in [(query, true), (by_upstream, false)] {
        let larder = Larder::start(&options);
        for _ in 0..2 {
            let answer = larder.get(&path("why")).expect(200);
            assert_eq!(answer.json(), json!("why (stop)"));
        }
        let request = upstream.requests().pop().unwrap();
        assert_eq!(request.header("If-None-Match").is_some(), confirmed);
        assert_eq!(request.header("If-Modified-Since"), None);
        assert_eq!(loads(&larder, "confirmed"), u64::from(confirmed));
    }
}

#[test]
fn a_secret_of_a_body_is_logged_stored_and_answered_nowhere() {
    let (redis, upstream) = (RedisServer::start(), FakeUpstream::start(ends_for("stop")));
    let options = options(&upstream, &redis).env("RUST_LOG", "trace");
    let mut larder = Larder::start(&options);
    let echo = |status: u16| {
        Behaviour::answer(move |request| {
            let body = String::from_utf8_lossy(&request.body).into_owned();
            Response::text(status, &format!("<{body}>")).with("Content-Type", &body)
        })
    };
    let mut stored = Vec::new();
    for (at, behaviour) in [
        ends_for("stop"),
        echo(200),
        echo(400),
        echo(429),
        echo(500),
        Behaviour::Garbage,
        Behaviour::Close,
    ]
    .into_iter()
    .enumerate()
    {
        upstream.behave(behaviour);
        for path in [
            &path(&format!("q{at}"))[..],
            &format!("/cache/entry?path=/answers%3Fquestion%3Dq{at}"),
            "/cache/stats",
            "/metrics",
            "/openapi.json",
        ] {
            let answer = larder.get(path);
            for secret in secrets() {
                assert!(!answer.mentions(&secret), "{path}: {answer}");
            }
        }
        stored.extend(redis.everything());
    }
    assert_eq!(upstream.requests()[0].json()["key"], json!(AI_KEY));
    larder.stop();
    let (log, stored) = (larder.log(), String::from_utf8_lossy(&stored).into_owned());
    assert!(log.contains("DEBUG") && stored.contains("larder:v:"));
    for secret in secrets() {
        let line = log.lines().find(|line| line.contains(&secret));
        assert_eq!(line, None, "a secret is logged");
        assert!(!stored.contains(&secret), "a secret is in Redis");
    }
}

/// The key as it is, and as JSON has it.
fn secrets() -> [String; 2] {
    let json = Value::from(AI_KEY).to_string();
    [AI_KEY.to_owned(), json[1..json.len() - 1].to_owned()]
}

#[test]
fn check_accepts_it_and_reports_every_error() {
    let (redis, upstream) = (RedisServer::start(), FakeUpstream::start(ends_for("stop")));
    let fine = options(&upstream, &redis);
    let output = fine.run(&["check"]);
    assert!(output.status.success(), "{output:?}");
    let output = fine
        .with_config_text("temperature = 0", "temperature = nan")
        .with_config_text(r#"method = "POST""#, r#"method = "PUT""#)
        .with_config_text(r#""/choices/0/content""#, r#""choices""#)
        .run(&["check"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    for part in [
        "source.json.temperature: is nan",
        "source.method: is \"PUT\"",
        "source.pick: ",
    ] {
        assert!(said.contains(part), "{part} in {said}");
    }
}
