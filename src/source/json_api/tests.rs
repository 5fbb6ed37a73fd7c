//! Calls to a server that does what it is told, and what becomes of its answers.

use super::*;
use crate::cache::Previous;
use crate::source::HttpUpstreamSettings;
use crate::source::tiny_server::{TinyServer, respond};

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
        _ => None,
    })
    .unwrap()
}

fn settings(url: &str) -> JsonApiSettings {
    JsonApiSettings {
        url: template(url),
        headers: Vec::new(),
        query: Vec::new(),
        pick: None,
        ttl: TtlFrom::Upstream,
    }
}

fn named(all: &[(&str, &str)]) -> Vec<(String, Template)> {
    let one = |(name, text): &(&str, &str)| ((*name).to_owned(), template(text));
    all.iter().map(one).collect()
}

/// An API at `server` with the key in all three places.
fn api(server: &TinyServer, change: impl FnOnce(&mut JsonApiSettings)) -> JsonApi {
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

/// What a call gives. Whatever it is, it must not show the key.
fn fetch(
    api: &JsonApi,
    params: &[(&str, &str)],
    previous: Option<&str>,
) -> Result<Fetched, SourceError> {
    let outcome = api.fetch(params, previous, Instant::now() + LONG);
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
) -> TinyServer {
    TinyServer::start(move |mut stream, _| respond(&mut stream, status, headers, body))
}

fn failure(api: &JsonApi) -> String {
    fetch(api, &[("symbol", "A")], None)
        .unwrap_err()
        .to_string()
}

fn new(fetched: Result<Fetched, SourceError>) -> (String, Option<String>, Life) {
    let Ok(Fetched::New {
        body,
        validator,
        life,
    }) = fetched
    else {
        panic!("{fetched:?}");
    };
    let body = String::from_utf8(body.to_vec()).unwrap();
    (body, validator.map(String::from), life)
}

#[test]
fn a_call_carries_everything_in_its_place() {
    let server = TinyServer::start(|mut stream, request| {
        let seen = serde_json::json!(request).to_string();
        respond(&mut stream, "200 OK", &[], seen.as_bytes());
    });
    let api = api(&server, |_| {});
    let sent = |params: &[(&str, &str)]| -> String {
        serde_json::from_str(&new(fetch(&api, params, None)).0).unwrap()
    };
    let plain = sent(&[("symbol", "ACME"), ("day", "1 & 2"), ("lang", "zürich")]);
    let line = "GET /quote/ACME?k=s3cr3t%20k%26y&q=s3cr3t%20k%26y&day=1%20%26%202&to=1%20%26%202%21 HTTP/1.1\r\n";
    assert!(plain.starts_with(line), "{plain}");
    for header in [
        "x-key: Bearer s3cr3t k&y\r\n",
        "x-lang: zürich\r\n",
        "accept: application/json\r\n",
    ] {
        assert!(plain.contains(header), "{header} in {plain}");
    }
    // What is not given is left out where it stands alone.
    let bare = sent(&[("symbol", "A/B?c=d#e%2F")]);
    let line =
        "GET /quote/A%2FB%3Fc%3Dd%23e%252F?k=s3cr3t%20k%26y&q=s3cr3t%20k%26y&to=%21 HTTP/1.1\r\n";
    assert!(bare.starts_with(line), "{bare}");
    assert!(!bare.contains("x-lang"), "{bare}");
}

#[test]
fn a_value_that_would_leave_its_place_is_absent_and_nobody_is_asked() {
    let server = answering("200 OK", &[], b"1");
    let at = server.base_url();
    let api = |url: &str| {
        api(&server, |settings| {
            settings.url = template(&format!("{at}{url}"))
        })
    };
    for (url, value) in [
        ("/quote/{symbol}", "."),
        ("/quote/{symbol}", ".."),
        ("/quote/{symbol}/x", ".."),
        ("/quote/{symbol}", "../admin"),
        ("/quote/{symbol}", "a/../../b"),
        ("/quote/{symbol}", "..\\admin"),
        ("/quote/.{symbol}", "."),
        ("/quote/%2E{symbol}", "."),
        ("/quote/{symbol}{symbol}", "."),
    ] {
        let absent = Ok(Fetched::Absent { life: Life::Full });
        assert_eq!(
            fetch(&api(url), &[("symbol", value)], None),
            absent,
            "{url} {value}"
        );
    }
    let all = api("/quote/{symbol}");
    for lang in ["a\r\nX-Evil: 1", "a\0", "\u{85}"] {
        let params = [("symbol", "A"), ("lang", lang)];
        assert_eq!(
            fetch(&all, &params, None),
            Ok(Fetched::Absent { life: Life::Full }),
            "{lang:?}"
        );
    }
    assert_eq!(server.requests(), 0);
    for value in ["...", "a..b", "..a", "%2e%2e", "~", ".well-known"] {
        new(fetch(&all, &[("symbol", value)], None));
    }
}

#[test]
fn settings_are_checked_without_a_call_and_without_showing_a_secret() {
    let wrong = |settings: &JsonApiSettings| {
        let faults = settings.faults();
        assert!(!format!("{faults:?} {settings:?}").contains("s3cr3t"));
        faults
            .into_iter()
            .map(|fault| (fault.place, fault.problem))
            .collect::<Vec<_>>()
    };
    for (url, problem) in [
        ("ftp://h/", "is no http:// or https:// URL"),
        (
            "quote/{symbol}",
            "has a parameter in its scheme, host or port",
        ),
        (
            "https://{host}/x",
            "has a parameter in its scheme, host or port",
        ),
        (
            "https://h.example{x}/",
            "has a parameter in its scheme, host or port",
        ),
        (
            "https://h:{port}/",
            "has a parameter in its scheme, host or port",
        ),
        ("{base}/x", "has a parameter in its scheme, host or port"),
        (
            "https://u:${KEY}@h/",
            "has a user or a password in it, which belongs in a header",
        ),
        ("https:///x", "has no valid host"),
        ("https://h:0/", "has no valid port"),
        ("https://h:99999/", "has no valid port"),
        ("https://${KEY}/x", "has no valid host"),
        ("https://h/x#y", "has a fragment"),
        ("https://h/../x", "has . or .. as a part of its path"),
        (
            "https://h/a/%2e%2E/{x}",
            "has . or .. as a part of its path",
        ),
    ] {
        assert_eq!(
            wrong(&settings(url)),
            [(Place::Url, problem.to_owned())],
            "{url}"
        );
    }
    for url in [
        "https://h",
        "http://127.0.0.1:8080?x={x}",
        "https://[::1]:81/{a}/{b}.json?x={x}&y",
        "${BASE}/{x}",
        "${BASE}",
        "https://h/v1.0/x..y/{{}}",
    ] {
        assert_eq!(wrong(&settings(url)), [], "{url}");
    }
    let mut all = settings("https://h/{a}");
    all.headers = named(&[
        ("X Y", "1"),
        ("Host", "h"),
        ("If-None-Match", "*"),
        ("X-A", "1"),
        ("x-a", "${LINES}"),
    ]);
    all.query = named(&[("", "{b}"), ("q", "{c}")]);
    all.pick = Some("data".to_owned());
    let header = |name: &str, problem: &str| (Place::Header(name.to_owned()), problem.to_owned());
    let own = "is a header that larder writes itself";
    let expected = [
        (Place::Query(String::new()), "has no name".to_owned()),
        header("X Y", "is no name of a header"),
        header("Host", own),
        header("If-None-Match", own),
        header("x-a", "is there twice"),
        header(
            "x-a",
            "has a control character, perhaps in what a variable holds",
        ),
        (Place::Pick, "is no JSON pointer".to_owned()),
    ];
    assert_eq!(wrong(&all), expected);
    assert_eq!(all.params().collect::<Vec<_>>(), ["a", "b", "c"]);
}

#[test]
fn what_is_filled_in_may_be_a_base_url_and_is_no_part_of_the_identity() {
    let one = settings("${BASE}/{x}?a=${KEY}");
    let target = Target::build(&one).unwrap();
    let call = target.call(&|_| Some("v")).unwrap();
    assert_eq!(call.url, "http://inner.example:81/root/v?a=s3cr3t%20k%26y");
    let identity = one.identity();
    assert!(
        identity.contains("${BASE}/{x}?a=${KEY}") && !identity.contains("s3cr3t"),
        "{identity}"
    );
    let mut others = vec![
        settings("${BASE}/{y}?a=${KEY}"),
        one.clone(),
        one.clone(),
        one.clone(),
    ];
    others[1].pick = Some("/a".to_owned());
    others[2].headers = named(&[("A", "b")]);
    others[3].query = named(&[("A", "b")]);
    let mut identities: Vec<String> = others.iter().map(JsonApiSettings::identity).collect();
    identities.push(identity);
    identities.sort();
    identities.dedup();
    assert_eq!(identities.len(), 5);
    let ttl = JsonApiSettings {
        ttl: TtlFrom::Resource,
        ..one.clone()
    };
    assert_eq!(ttl.identity(), one.identity());
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
        matches!(whole.2, Life::Exactly(left) if left <= Duration::from_secs(60) && left > Duration::from_secs(50))
    );
    let picked = |pointer: &str| {
        let api = api(&server, |settings| settings.pick = Some(pointer.to_owned()));
        fetch(&api, &[("symbol", "A")], None)
    };
    assert_eq!(new(picked("/z")).0, "[1.0, 1e400]");
    assert_eq!(new(picked("/a")).0, "12345678901234567890123");
    assert!(matches!(picked("/z/2"), Ok(Fetched::Absent { .. })));
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
                Ok(Fetched::Absent {
                    life: Life::Strictly(_)
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
            ("[]", None, Life::Exactly(Duration::ZERO))
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
            "quotes answered 200 with what is no JSON (text/html; x=***)",
        ),
        (
            "200 OK",
            &[],
            b"",
            "quotes answered 200 with what is no JSON (no content type)",
        ),
        (
            "200 OK",
            &["Content-Type: application/json"],
            b"{\"a\":",
            "quotes answered 200 with what is no JSON (application/json)",
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
fn an_upstream_that_wants_to_be_left_alone_is_left_alone() {
    for status in ["429 Too Many Requests", "503 Service Unavailable"] {
        let server = answering(status, &["Retry-After: 30"], b"{}");
        let api = api(&server, |_| {});
        assert!(failure(&api).ends_with("quota spent, back in 30s"));
        let again = fetch(&api, &[("symbol", "B")], None).unwrap_err();
        assert!(matches!(again, SourceError::Spent { .. }), "{again:?}");
        assert_eq!(server.requests(), 1);
    }
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
        Err(SourceError::Spent { .. })
    ));
    assert_eq!(server.requests(), 1);
}

#[test]
fn what_the_upstream_confirms_is_given_back_without_a_copy() {
    let server = TinyServer::start(|mut stream, request| {
        if request.contains("if-none-match: \"v1\"\r\n") {
            // It repeats nothing but its ETag, so what it said before holds.
            respond(&mut stream, "304 Not Modified", &["ETag: \"v1\""], b"");
        } else {
            let headers = ["ETag: \"v1\"", "Cache-Control: max-age=60, must-revalidate"];
            respond(&mut stream, "200 OK", &headers, b"{\"price\": 1.50}");
        }
    });
    for ttl in [TtlFrom::Upstream, TtlFrom::Resource] {
        let api = api(&server, |settings| settings.ttl = ttl);
        let load = |previous: Option<Previous>| {
            let attempt = Attempt {
                deadline: Instant::now() + LONG,
                previous,
            };
            api.load(&[("symbol", "A")], attempt).unwrap()
        };
        let first = load(None);
        let previous = Previous {
            value: first.value.bytes().clone(),
            validator: first.validator.clone().unwrap(),
        };
        let second = load(Some(previous));
        assert_eq!(second.value, first.value);
        assert_eq!(second.value.bytes().as_ptr(), first.value.bytes().as_ptr());
        assert_eq!(second.validator, first.validator);
        for life in [first.life, second.life] {
            match ttl {
                TtlFrom::Resource => assert_eq!(life, Life::Full),
                TtlFrom::Upstream => {
                    assert!(matches!(life, Life::Strictly(left) if left > Duration::from_secs(50)))
                }
            }
        }
    }
    assert_eq!(server.requests(), 4);
}

#[test]
fn all_that_was_filled_in_is_masked() {
    let mut all = settings("https://h/${LONG}/${SHORT}");
    all.headers = named(&[("A", "${SLASH}")]);
    let target = Target::build(&all).unwrap();
    let words = "long-token token t/k t%2Fk";
    assert_eq!(shown(words, target.secrets()), "*** *** *** ***");
}
