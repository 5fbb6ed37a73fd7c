//! Calls to a scripted server, and the results of its answers.

use super::*;
use crate::source::HttpUpstreamSettings;
use testkit::upstream::{FakeUpstream, respond};

mod question;
mod target;

const KEY: &str = "s3cr3t k&y";
const LONG: Duration = Duration::from_secs(10);

fn template(text: &str) -> Template {
    Template::parse(text, &|name| match name {
        "KEY" => Some(KEY.to_owned()),
        "BASE" => Some("http://inner.example:81/root".to_owned()),
        "LINES" => Some("a\nb".to_owned()),
        "LONG" => Some("long-token".to_owned()),
        "SHORT" => Some("token".to_owned()),
        "SLASH" => Some("t/k".to_owned()),
        "QUOTES" => Some("say \"hi\"".to_owned()),
        _ => None,
    })
    .unwrap()
}

fn settings(url: &str) -> JsonApiSettings {
    JsonApiSettings {
        url: template(url),
        headers: Vec::new(),
        query: Vec::new(),
        method: SourceMethod::Get,
        json: None,
        pick: None,
        store_if: Vec::new(),
        ttl: TtlFrom::Upstream,
    }
}

fn named(all: &[(&str, &str)]) -> Vec<(String, Template)> {
    let one = |(name, text): &(&str, &str)| ((*name).to_owned(), template(text));
    all.iter().map(one).collect()
}

/// An API at `server` with the key in all three places.
fn api(server: &FakeUpstream, change: impl FnOnce(&mut JsonApiSettings)) -> JsonApi {
    let mut settings = settings(&format!(
        "{}/quote/{{symbol}}?k=${{KEY}}",
        server.base_url()
    ));
    settings.headers = named(&[("X-Key", "Bearer ${KEY}"), ("X-Lang", "{lang}")]);
    settings.query = named(&[("q", "${KEY}"), ("day", "{day}"), ("to", "{day}!")]);
    change(&mut settings);
    let upstream = HttpUpstream::new(&HttpUpstreamSettings::new("quotes"), None);
    JsonApi::new(&settings, upstream).unwrap()
}

/// The result of a call, with a copy of this validator to confirm. No result may show the key.
fn fetch(
    api: &JsonApi,
    params: &[(&str, &str)],
    previous: Option<&str>,
) -> Result<Loaded, LoadError> {
    let copy = |validator: &str| Revalidation {
        value: Bytes::from_static(b"the copy"),
        validator: validator.into(),
    };
    let context = LoadContext {
        deadline: Instant::now() + LONG,
        revalidation: previous.map(copy),
    };
    let texts = params.iter().map(|(name, text)| (*name, Json::from(*text)));
    let outcome = api.load(&texts.collect::<Vec<_>>(), context, None);
    let printed = match &outcome {
        Err(error) => format!("{error} {error:?} {api:?}"),
        Ok(_) => format!("{api:?}"),
    };
    for form in [KEY, "s3cr3t"] {
        assert!(!printed.contains(form), "{printed}");
    }
    outcome
}

fn answering(
    status: &'static str,
    headers: &'static [&'static str],
    body: &'static [u8],
) -> FakeUpstream {
    FakeUpstream::raw(move |mut stream, _| respond(&mut stream, status, headers, body))
}

fn failure(api: &JsonApi) -> String {
    fetch(api, &[("symbol", "A")], None)
        .unwrap_err()
        .to_string()
}

fn new(fetched: Result<Loaded, LoadError>) -> (String, Option<String>, Lifetime) {
    let Ok(Loaded {
        value: Value::Present(body),
        validator,
        lifetime,
    }) = fetched
    else {
        panic!("{fetched:?}");
    };
    let body = String::from_utf8(body.to_vec()).unwrap();
    (body, validator.map(String::from), lifetime)
}

fn is_absent(fetched: &Result<Loaded, LoadError>) -> bool {
    matches!(fetched, Ok(loaded) if loaded.value.is_absent())
}

#[test]
fn a_value_keeps_its_bytes_whole_or_picked() {
    let server = answering(
        "200 OK",
        &["Cache-Control: max-age=60"],
        b" {\"z\": [1.0, 1e400], \"a\":12345678901234567890123}\n",
    );
    let whole = new(fetch(&api(&server, |_| {}), &[("symbol", "A")], None));
    assert_eq!(
        whole.0,
        "{\"z\": [1.0, 1e400], \"a\":12345678901234567890123}"
    );
    assert!(
        matches!(whole.2, Lifetime::MaxAge(left) if left <= Duration::from_secs(60) && left > Duration::from_secs(50))
    );
    let picked = |pointer: &str| {
        let api = api(&server, |settings| settings.pick = Some(pointer.to_owned()));
        fetch(&api, &[("symbol", "A")], None)
    };
    assert_eq!(new(picked("/z")).0, "[1.0, 1e400]");
    assert_eq!(new(picked("/a")).0, "12345678901234567890123");
    assert!(is_absent(&picked("/z/2")));
    assert_eq!(
        picked("/b").unwrap_err().to_string(),
        "quotes answered 200 with nothing at /b"
    );
}

#[test]
fn statuses_are_values_absence_or_errors() {
    for status in ["404 Not Found", "410 Gone", "204 No Content"] {
        let server = answering(status, &["Cache-Control: max-age=60, must-revalidate"], b"");
        let fetched = fetch(&api(&server, |_| {}), &[("symbol", "A")], None);
        assert!(
            matches!(
                fetched,
                Ok(Loaded {
                    value: Value::Absent,
                    lifetime: Lifetime::MustRevalidate(_),
                    validator: None,
                })
            ),
            "{fetched:?}"
        );
    }
    for status in ["200 OK", "201 Created", "203 Non-Authoritative Information"] {
        let server = answering(status, &[], b"[]");
        let (body, validator, life) = new(fetch(&api(&server, |_| {}), &[("symbol", "A")], None));
        assert_eq!(
            (&*body, validator, life),
            ("[]", None, Lifetime::MaxAge(Duration::ZERO))
        );
    }
    for (status, headers, body, words) in [
        ("500 Oops", &[][..], &b"{}"[..], "quotes answered 500"),
        (
            "401 Unauthorized",
            &[],
            b"s3cr3t k&y",
            "quotes answered 401",
        ),
        ("304 Not Modified", &[], b"", "quotes answered 304"),
        ("206 Partial Content", &[], b"{}", "quotes answered 206"),
        ("503 Busy", &[], b"", "quotes answered 503"),
        (
            "200 OK",
            &["Content-Type: text/html; x=s3cr3t k&y"],
            b"<html>",
            "quotes answered 200 with invalid JSON (text/html; x=***)",
        ),
        (
            "200 OK",
            &[],
            b"",
            "quotes answered 200 with invalid JSON (no content type)",
        ),
        (
            "200 OK",
            &["Content-Type: application/json"],
            b"{\"a\":",
            "quotes answered 200 with invalid JSON (application/json)",
        ),
        (
            "302 Found",
            &["Location: http://s3cr3t%20k%26y.example/"],
            b"",
            "quotes redirects (302) to elsewhere, which is not followed: the key is for its base URL alone",
        ),
    ] {
        let server = answering(status, headers, body);
        assert_eq!(failure(&api(&server, |_| {})), words);
    }
}

#[test]
fn an_upstream_that_wants_to_be_left_alone_says_for_how_long() {
    for status in ["429 Too Many Requests", "503 Service Unavailable"] {
        let server = answering(status, &["Retry-After: 30"], b"{}");
        for quota in [vec![], vec!["9/1h".parse().unwrap()]] {
            let mut upstream = HttpUpstreamSettings::new("quotes");
            (upstream.quota, upstream.max_pause) = (quota, Duration::from_secs(20));
            let whole_source = !upstream.quota.is_empty();
            let at = settings(&server.base_url());
            let api = JsonApi::new(&at, HttpUpstream::new(&upstream, None)).unwrap();
            let paused = LoadError::Paused {
                what: format!("quotes answered {}", &status[..3]),
                retry_after: Duration::from_secs(20),
                whole_source,
            };
            assert_eq!(fetch(&api, &[], None), Err(paused));
        }
    }
}

#[test]
fn absence_needs_no_body() {
    use std::io::Write;
    for status in ["404 Not Found", "410 Gone"] {
        // A page of 5 MiB, or half of a small one.
        for (length, sent) in [(5 << 20, 5 << 20), (50, 25)] {
            let server = FakeUpstream::raw(move |mut stream, _| {
                let head = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n");
                let _ = stream.write_all(head.as_bytes());
                let _ = stream.write_all(&vec![b'x'; sent]);
            });
            let fetched = fetch(&api(&server, |_| {}), &[("symbol", "A")], None);
            assert!(is_absent(&fetched), "{fetched:?}");
        }
    }
}

#[test]
fn what_is_handed_on_is_json_and_not_nested_too_deep() {
    let server = answering("200 OK", &[], b"\xef\xbb\xbf{\"a\": 1.50}\n");
    assert_eq!(
        new(fetch(&api(&server, |_| {}), &[("symbol", "A")], None)).0,
        "{\"a\": 1.50}"
    );
    let deep: &'static [u8] = [vec![b'['; 2_000_000], vec![b']'; 2_000_000]]
        .concat()
        .leak();
    let server = answering("200 OK", &["Content-Type: application/json"], deep);
    assert_eq!(
        failure(&api(&server, |_| {})),
        "quotes answered 200 with JSON nested more than 512 levels deep (application/json)"
    );
    // Even if the picked part is not nested so deeply.
    let picked = api(&server, |settings| settings.pick = Some("/0".to_owned()));
    assert!(failure(&picked).contains("nested more than 512 levels deep"));
}

#[test]
fn a_quota_that_comes_back_too_late_is_spent() {
    let server = answering("200 OK", &[], b"1");
    let mut upstream = HttpUpstreamSettings::new("quotes");
    upstream.quota = vec!["1/1h".parse().unwrap()];
    let mut at = settings("http://h/");
    at.url = template(&server.base_url());
    let api = JsonApi::new(&at, HttpUpstream::new(&upstream, None)).unwrap();
    new(fetch(&api, &[], None));
    assert!(matches!(
        fetch(&api, &[], None),
        Err(LoadError::Spent { .. })
    ));
    assert_eq!(server.calls(), 1);
}

#[test]
fn what_the_upstream_confirms_is_given_back_without_a_copy() {
    let server = FakeUpstream::raw(|mut stream, request| {
        if request.contains("if-none-match: \"v1\"\r\n") {
            // It repeats only its ETag, so the earlier headers still hold.
            respond(&mut stream, "304 Not Modified", &["ETag: \"v1\""], b"");
        } else {
            let headers = ["ETag: \"v1\"", "Cache-Control: max-age=60, must-revalidate"];
            respond(&mut stream, "200 OK", &headers, b"{\"price\": 1.50}");
        }
    });
    for ttl in [TtlFrom::Upstream, TtlFrom::Resource] {
        let api = api(&server, |settings| settings.ttl = ttl);
        let load = |previous: Option<Revalidation>| {
            let attempt = LoadContext {
                deadline: Instant::now() + LONG,
                revalidation: previous,
            };
            api.load(&[("symbol", Json::from("A"))], attempt, None)
                .unwrap()
        };
        let first = load(None);
        let previous = Revalidation {
            value: first.value.bytes().clone(),
            validator: first.validator.clone().unwrap(),
        };
        let second = load(Some(previous));
        assert_eq!(second.value, first.value);
        assert_eq!(second.value.bytes().as_ptr(), first.value.bytes().as_ptr());
        assert_eq!(second.validator, first.validator);
        for life in [first.lifetime, second.lifetime] {
            match ttl {
                TtlFrom::Resource => assert_eq!(life, Lifetime::Policy),
                TtlFrom::Upstream => {
                    assert!(
                        matches!(life, Lifetime::MustRevalidate(left) if left > Duration::from_secs(50))
                    )
                }
            }
        }
    }
    assert_eq!(server.calls(), 4);
}

#[test]
fn a_304_that_says_what_a_200_would_is_one_all_the_same() {
    use std::io::Write;
    let server = FakeUpstream::raw(|mut stream, _| {
        let _ = stream.write_all(
            b"HTTP/1.1 304 Not Modified\r\nConnection: close\r\nContent-Length: 50\r\nContent-Encoding: gzip\r\n\r\n",
        );
    });
    let fetched = fetch(
        &api(&server, |_| {}),
        &[("symbol", "A")],
        Some("\"v1\"\n\n"),
    );
    let confirmed = Loaded {
        value: Value::Present(Bytes::from_static(b"the copy")),
        lifetime: Lifetime::MaxAge(Duration::ZERO),
        validator: Some("\"v1\"\n\n".into()),
    };
    assert_eq!(fetched, Ok(confirmed));
}
