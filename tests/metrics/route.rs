//! Who may read the metrics, in which format.

use serde_json::json;

use super::scrape::{OPEN_METRICS, Scrape};
use super::{config, options, origin};
use testkit::larder::{ADMIN_KEY, Larder, LarderOptions};

const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
const OPEN: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[test]
fn only_admins_may_read_them() {
    let larder = Larder::start(&options(&origin()));
    let (_, reader) = larder.create_key(&json!({"name": "reader"}));
    let (_, limited) = larder.create_key(&json!({"name": "a", "admin": true, "rate": "1/1h"}));
    let call = || larder.call("GET", "/metrics");
    assert_eq!(call().send().the("WWW-Authenticate"), "Bearer");
    call().send().problem(401);
    call().key("nobody").send().problem(401);
    call().key(&reader).send().problem(403);
    let answer = call().key(&limited).send().expect(200);
    assert!(answer.header("RateLimit").is_some());
    call().key(&limited).send().problem(429);
    let post = larder.call("POST", "/metrics").key(ADMIN_KEY).send();
    post.problem(405);
    assert_eq!(post.the("Allow"), "GET, HEAD");
}

#[test]
fn anyone_may_read_them_if_they_are_open() {
    let text = format!("[server]\nopen_metrics = true\n{}", config(&origin()));
    let larder = Larder::start(&LarderOptions::new(&text));
    let answer = larder.call("GET", "/metrics").send().expect(200);
    assert_eq!(answer.the("Content-Type"), TEXT);
    assert_eq!(answer.the("Cache-Control"), "no-store");
    // A key is not looked at, so a wrong one is not counted either.
    larder
        .call("GET", "/metrics")
        .key("nobody")
        .send()
        .expect(200);
    let scrape = Scrape::read(&answer.text());
    assert_eq!(scrape.get("larder_unknown_keys_total", &[]), 0.0);
    // The other admin routes are as they were.
    larder.call("GET", "/cache/stats").send().problem(401);
}

#[test]
fn the_client_chooses_the_format_and_the_series_are_the_same() {
    let origin = origin();
    let larder = Larder::start(&options(&origin));
    larder.get("/quotes/a").expect(200);
    let get = |method, accept: Option<&str>| {
        let call = larder.call(method, "/metrics").key(ADMIN_KEY);
        let call = match accept {
            Some(accept) => call.header("Accept", accept),
            None => call,
        };
        call.send().expect(200)
    };
    for (accept, kind) in [
        (None, TEXT),
        (Some("*/*"), TEXT),
        (Some("text/plain"), TEXT),
        (Some("application/json"), TEXT),
        (
            Some("application/openmetrics-text;q=0.2, text/plain;q=0.3"),
            TEXT,
        ),
        (Some(OPEN_METRICS), OPEN),
        (Some("application/openmetrics-text"), OPEN),
    ] {
        let answer = get("GET", accept);
        assert_eq!(answer.the("Content-Type"), kind, "{accept:?}");
        assert_eq!(answer.the("Vary"), "Accept");
        assert_eq!(answer.the("Cache-Control"), "no-store");
        assert_eq!(
            answer.text().ends_with("# EOF\n"),
            kind == OPEN,
            "{accept:?}"
        );
    }
    let head = get("HEAD", Some(OPEN_METRICS));
    assert_eq!(head.the("Content-Type"), OPEN);
    assert_eq!(head.body, b"");

    let (text, open) = (Scrape::of(&larder), Scrape::open(&larder));
    assert_eq!(text.shape(), open.shape());
    // A counter's family is called as its samples are in one format, and without `_total` in the
    // other. All other families have one name.
    let renamed = open.kinds.iter().map(|(name, kind)| match kind.as_str() {
        "counter" => (format!("{name}_total"), kind.clone()),
        _ => (name.clone(), kind.clone()),
    });
    assert_eq!(text.kinds, renamed.collect());
    text.check(None);
    open.check(Some(&text));
}
