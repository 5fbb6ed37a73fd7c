//! Questions that real clients ask: curl, and Python's requests. By POST and by QUERY, again and
//! with a condition, and wrong ones.

use testkit::larder::{ADMIN_KEY, Larder, LarderOptions};
use testkit::programs::{curl, python};
use testkit::sandbox::Sandbox;

/// A larder before a sandbox that answers at once.
fn start() -> (Sandbox, Larder) {
    let sandbox = Sandbox::start(&["--latency", "0ms"]);
    let config = r#"
[resource.answer]
path = "/answers"
read = ["POST", "QUERY"]
params.question = { type = "string", required = true, max_length = 4000 }
params.language = { type = "string", one_of = ["en", "de"], default = "en" }
ttl = { memory = "1h", redis = "1h" }
tags = ["answers"]

[resource.answer.source]
http = "SANDBOX/v1/chat/completions"
method = "POST"
headers = { Authorization = "Bearer ${AI_KEY}" }
json = { model = "small-1", temperature = 0, messages = [{ role = "user", content = "{question} (answer in {language})" }] }
pick = "/choices/0/message/content"
store_if = { "/choices/0/finish_reason" = "stop" }
"#;
    let config = config.replace("SANDBOX", &sandbox.base_url());
    let larder = Larder::start(&LarderOptions::new(&config).env("AI_KEY", "secret"));
    (sandbox, larder)
}

/// How many questions larder has asked the source.
fn loads(larder: &Larder) -> u64 {
    larder.stats()["source"]["loads"].as_u64().unwrap()
}

/// What curl got.
#[derive(Debug)]
struct Got {
    status: String,
    head: String,
    body: String,
}

impl Got {
    fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        let found = lines.find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value)
    }
}

struct Curl<'l> {
    larder: &'l Larder,
}

impl Curl<'_> {
    /// Runs curl on the resource with the key and these arguments.
    #[track_caller]
    fn run(&self, arguments: &[&str]) -> Got {
        self.run_without_key(
            &[
                &["-H", &format!("Authorization: Bearer {ADMIN_KEY}")],
                arguments,
            ]
            .concat(),
        )
    }

    #[track_caller]
    fn run_without_key(&self, arguments: &[&str]) -> Got {
        let url = format!("http://{}/answers", self.larder.address());
        let output = curl(&[&["-i", &url], arguments].concat());
        let said = String::from_utf8(output.stdout).unwrap();
        let wrong = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "curl {arguments:?}: {wrong}\n{said}"
        );
        let (head, body) = said.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().to_owned();
        Got {
            status,
            head: head.to_owned(),
            body: body.to_owned(),
        }
    }

    /// A question by this method.
    #[track_caller]
    fn ask(&self, method: &str, body: &str, arguments: &[&str]) -> Got {
        let own = [
            "-X",
            method,
            "-H",
            "Content-Type: application/json",
            "-d",
            body,
        ];
        self.run(&[&own, arguments].concat())
    }

    /// Fails unless the answer is a problem with this status that has this text. Returns the
    /// answer.
    #[track_caller]
    fn refused(&self, got: Got, status: &str, says: &str) -> Got {
        assert_eq!(got.status, status, "{got:?}");
        assert_eq!(
            got.header("content-type"),
            Some("application/problem+json"),
            "{got:?}"
        );
        assert!(got.body.contains(says), "{got:?}");
        got
    }
}

#[test]
fn curl_asks_by_post_and_by_query() {
    let (_sandbox, larder) = start();
    let curl = Curl { larder: &larder };
    let question = r#"{"question":"What is a cache?","language":"en"}"#;
    let first = curl.ask("POST", question, &[]);
    assert_eq!(first.status, "200", "{first:?}");
    assert!(
        first.body.ends_with("What is a cache? (answer in en)\""),
        "{first:?}"
    );
    assert_eq!(first.header("cache-control"), Some("no-store"), "{first:?}");
    // The same question, spelled in other ways.
    for spelled in [
        question,
        r#"{ "language": "en", "question": "What is a cache?" }"#,
        r#"{"question":"What is a c\u0061che?"}"#,
    ] {
        for method in ["POST", "QUERY"] {
            let again = curl.ask(method, spelled, &[]);
            assert_eq!((&again.status, &again.body), (&first.status, &first.body));
            let from = again.header("cache-status").unwrap();
            assert!(from.starts_with("larder-memory; hit"), "{again:?}");
        }
    }
    assert_eq!(loads(&larder), 1);
    let other = curl.ask("QUERY", r#"{"question":"what is a cache?"}"#, &[]);
    assert_ne!(other.body, first.body);
    assert_eq!(loads(&larder), 2);
}

#[test]
fn curl_asks_with_a_condition() {
    let (_sandbox, larder) = start();
    let curl = Curl { larder: &larder };
    let question = r#"{"question":"What is a cache?"}"#;
    let first = curl.ask("QUERY", question, &[]);
    assert!(
        first
            .header("accept-query")
            .is_some_and(|types| types.contains("application/json"))
    );
    let condition = format!("If-None-Match: {}", first.header("etag").unwrap());
    let known = curl.ask("QUERY", question, &["-H", &condition]);
    assert_eq!((&*known.status, &*known.body), ("304", ""));
    assert_eq!(known.header("etag"), first.header("etag"));
    let by_post = curl.ask("POST", question, &["-H", &condition]);
    assert_eq!((&*by_post.status, &by_post.body), ("200", &first.body));
    let other = curl.ask("QUERY", r#"{"question":"Why?"}"#, &["-H", &condition]);
    assert_eq!(other.status, "200");
}

#[test]
fn curl_gets_an_error_that_says_what_is_wrong() {
    let (_sandbox, larder) = start();
    let curl = Curl { larder: &larder };
    for method in ["POST", "QUERY"] {
        let ask = |body: &str| curl.ask(method, body, &[]);
        curl.refused(ask("{\"question\":"), "400", "JSON");
        curl.refused(ask("[]"), "422", "a JSON object");
        curl.refused(ask("{}"), "422", "question");
        curl.refused(ask(r#"{"question":7}"#), "422", "question");
        curl.refused(ask(r#"{"question":null}"#), "422", "question");
        curl.refused(
            ask(r#"{"question":"a","langauge":"en"}"#),
            "422",
            "langauge",
        );
        curl.refused(
            ask(r#"{"question":"a","language":"fr"}"#),
            "422",
            "language",
        );
        curl.refused(ask("{\"question\":\"\\u0000\"}"), "422", "question");
        let long = format!("{{\"question\":\"{}\"}}", "a".repeat(4001));
        curl.refused(ask(&long), "422", "question");
        let huge = format!("{{\"question\":\"{}\"}}", "a".repeat(64 << 10));
        curl.refused(ask(&huge), "413", "65536 bytes");
        // Without a type, curl says that the body is a form.
        let form = curl.run(&["-X", method, "-d", r#"{"question":"a"}"#]);
        let form = curl.refused(form, "415", "application/json");
        assert!(form.header("accept-query").is_some(), "{form:?}");
        let keyless = curl.run_without_key(&["-X", method, "-d", "{}"]);
        let keyless = curl.refused(keyless, "401", "");
        assert_eq!(keyless.header("www-authenticate"), Some("Bearer"));
    }
    let got = curl.refused(curl.run(&[]), "405", "POST, QUERY");
    assert_eq!(got.header("allow"), Some("POST, QUERY"), "{got:?}");
    assert_eq!(loads(&larder), 0);
}

#[test]
fn python_requests_asks_by_both_methods() {
    let (_sandbox, larder) = start();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/questions.py");
    let url = format!("http://{}/answers", larder.address());
    python(script, &[&url, ADMIN_KEY]);
    // What the script counts.
    assert_eq!(loads(&larder), 4);
}
