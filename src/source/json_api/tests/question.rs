//! Requests with a body, and which of their answers are kept.

use super::*;
use proptest::prelude::*;
use serde_json::json;
use testkit::upstream::{Behaviour, Request, Response};

const METHODS: [SourceMethod; 2] = [SourceMethod::Post, SourceMethod::Query];

/// The template that has this form. Its texts are read as templates.
fn body(form: &Json) -> JsonTemplate {
    match form {
        Json::String(text) => JsonTemplate::Text(template(text)),
        Json::Array(items) => JsonTemplate::Array(items.iter().map(body).collect()),
        Json::Object(members) => {
            let members = members.iter();
            JsonTemplate::Object(
                members
                    .map(|(name, value)| (name.clone(), body(value)))
                    .collect(),
            )
        }
        literal => JsonTemplate::Literal(literal.clone()),
    }
}

/// An API that asks `server` with a body of this form.
fn question(
    server: &FakeUpstream,
    form: &Json,
    change: impl FnOnce(&mut JsonApiSettings),
) -> JsonApi {
    let mut settings = settings(&server.base_url());
    settings.method = SourceMethod::Post;
    settings.json = Some(body(form));
    change(&mut settings);
    let upstream = HttpUpstream::new(&HttpUpstreamSettings::new("quotes"), None);
    JsonApi::new(&settings, upstream).unwrap()
}

fn context() -> LoadContext {
    LoadContext {
        deadline: Instant::now() + LONG,
        revalidation: None,
    }
}

fn answers(body: &Json) -> FakeUpstream {
    FakeUpstream::start(Behaviour::always(Response::json(200, body)))
}

/// What the upstream gets for a body of this form and these parameters.
fn asked(server: &FakeUpstream, api: &JsonApi, params: &[(&str, Json)]) -> Request {
    api.load(params, context(), None).unwrap();
    server.requests().pop().unwrap()
}

#[test]
fn the_body_is_the_template_with_its_places_filled() {
    let server = answers(&json!([]));
    let form = json!({
        "z": 0, "big": i64::MIN, "half": 0.5, "one": 1.0, "no": false,
        "messages": [{"role": "user", "content": "{q} (in {lang})"}, "{n}", "{yes}"],
        "q": "{q}", "n": "{n}", "as text": "{n} {yes}",
        "key": "Bearer ${KEY}", "graphql": "query {{ user(id: {n}) {{ name }} }}",
    });
    let api = question(&server, &form, |settings| {
        settings.headers = named(&[("X-Lang", "{lang}"), ("X-N", "{n}")]);
        settings.query = named(&[("yes", "{yes}")]);
    });
    let params = [
        ("q", json!("say \"hi\"\n${HOME} {lang} }}")),
        ("n", json!(9_007_199_254_740_993_i64)),
        ("lang", json!("en")),
        ("yes", json!(true)),
    ];
    let request = asked(&server, &api, &params);
    assert_eq!(request.method, "POST");
    assert_eq!(request.query, "yes=true");
    assert_eq!(request.header("X-N"), Some("9007199254740993"));
    assert_eq!(request.header("Content-Type"), Some("application/json"));
    assert_eq!(request.header("Accept"), Some("application/json"));
    let expected = json!({
        "z": 0, "big": i64::MIN, "half": 0.5, "one": 1.0, "no": false,
        "messages": [
            {"role": "user", "content": "say \"hi\"\n${HOME} {lang} }} (in en)"},
            9_007_199_254_740_993_i64,
            true,
        ],
        "q": "say \"hi\"\n${HOME} {lang} }}",
        "n": 9_007_199_254_740_993_i64,
        "as text": "9007199254740993 true",
        "key": format!("Bearer {KEY}"),
        "graphql": "query { user(id: 9007199254740993) { name } }",
    });
    // As text: members keep their order, and 1.0 is not 1.
    assert_eq!(request.json().to_string(), expected.to_string());
    assert_eq!(request.body, expected.to_string().into_bytes());
}

#[test]
fn the_operator_may_name_another_media_type() {
    let server = answers(&json!([]));
    for method in METHODS {
        let api = question(&server, &json!({}), |settings| {
            settings.method = method;
            settings.headers = named(&[("content-type", "application/graphql+json")]);
        });
        let request = asked(&server, &api, &[]);
        assert_eq!(request.method, method.name());
        let kinds = request
            .headers
            .iter()
            .filter(|(name, _)| name == "content-type");
        let kinds: Vec<&str> = kinds.map(|(_, kind)| &**kind).collect();
        assert_eq!(kinds, ["application/graphql+json"]);
    }
}

#[test]
fn a_place_without_a_value_takes_its_member_or_element_away_and_nothing_else() {
    let server = answers(&json!([]));
    let form = json!({
        "q": "{q}", "lang": "{lang}",
        "text": "{q} in {lang}",
        "list": ["{lang}", "a", "{lang}?", {"lang": "{lang}", "q": "{q}"}, ["{lang}"]],
        "inner": {"lang": "{lang}"},
    });
    let api = question(&server, &form, |_| {});
    let request = asked(&server, &api, &[("q", json!(7))]);
    assert_eq!(
        request.json(),
        json!({"q": 7, "list": ["a", {"q": 7}, []], "inner": {}})
    );
    let all = asked(&server, &api, &[("q", json!("x")), ("lang", json!(""))]);
    assert_eq!(
        all.json(),
        json!({
            "q": "x", "lang": "", "text": "x in ",
            "list": ["", "a", "?", {"lang": "", "q": "x"}, [""]],
            "inner": {"lang": ""},
        })
    );
}

#[test]
fn a_post_without_a_body_says_that_it_has_none() {
    let server = answers(&json!([]));
    let api = question(&server, &json!({}), |settings| settings.json = None);
    let request = asked(&server, &api, &[]);
    assert_eq!(request.method, "POST");
    assert_eq!(request.header("Content-Length"), Some("0"));
    assert_eq!(request.header("Content-Type"), None);
}

#[test]
fn the_answers_to_a_body_are_values_absence_or_errors_as_those_to_a_get() {
    let wide = format!("[\"{}\"]", "x".repeat(5 << 20));
    for method in METHODS {
        let ask = |behaviour: Behaviour| {
            let server = FakeUpstream::start(behaviour);
            let api = question(&server, &json!({"q": "{q}"}), |settings| {
                settings.method = method;
                settings.pick = Some("/0".to_owned());
            });
            let outcome = api.load(&[("q", json!("x"))], context(), None);
            assert_eq!(server.calls(), 1, "{outcome:?}");
            outcome
        };
        let always = |response| ask(Behaviour::always(response));
        assert_eq!(new(always(Response::text(201, "[1.50]"))).0, "1.50");
        for status in [204, 404, 410] {
            assert!(is_absent(&always(Response::text(status, ""))));
        }
        assert!(is_absent(&always(Response::text(200, "[]"))));
        for status in [429, 503] {
            let slow = Response::text(status, "").with("Retry-After", "7");
            let paused = LoadError::Paused {
                what: format!("quotes answered {status}"),
                retry_after: Duration::from_secs(7),
                whole_source: false,
            };
            assert_eq!(always(slow), Err(paused));
        }
        for (response, words) in [
            (Response::text(500, "oops"), "quotes answered 500"),
            (
                Response::text(304, "").with("ETag", "\"v1\""),
                "quotes answered 304",
            ),
            (
                Response::text(200, "{}"),
                "quotes answered 200 with nothing at /0",
            ),
            (
                Response::text(200, "<html>"),
                "quotes answered 200 with invalid JSON (no content type)",
            ),
            (
                Response::text(200, &wide),
                "quotes answered with more than 4MiB",
            ),
        ] {
            assert_eq!(always(response).unwrap_err().to_string(), words);
        }
        let whole = Response::text(200, "[1.50]");
        for behaviour in [
            Behaviour::Close,
            Behaviour::Garbage,
            Behaviour::Truncated(whole),
        ] {
            let outcome = ask(behaviour);
            assert!(matches!(outcome, Err(LoadError::Failed(_))), "{outcome:?}");
        }
    }
}

#[test]
fn an_upstream_that_does_not_answer_a_body_is_too_slow() {
    let server = FakeUpstream::start(Behaviour::Silence);
    for method in METHODS {
        let api = question(&server, &json!({}), |settings| settings.method = method);
        let brief = LoadContext {
            deadline: Instant::now() + Duration::from_millis(100),
            revalidation: None,
        };
        let error = api.load::<&str>(&[], brief, None).unwrap_err();
        assert!(matches!(error, LoadError::TooSlow(_)), "{error:?}");
    }
    assert_eq!(server.calls(), 2);
}

#[test]
fn a_quota_holds_for_bodies_too() {
    let server = answers(&json!([]));
    let mut upstream = HttpUpstreamSettings::new("quotes");
    upstream.quota = vec!["1/1h".parse().unwrap()];
    let mut at = settings(&server.base_url());
    (at.method, at.json) = (SourceMethod::Post, Some(body(&json!({}))));
    let api = JsonApi::new(&at, HttpUpstream::new(&upstream, None)).unwrap();
    new(api.load::<&str>(&[], context(), None));
    let spent = api.load::<&str>(&[], context(), None);
    assert!(matches!(spent, Err(LoadError::Spent { .. })), "{spent:?}");
    assert_eq!(server.calls(), 1);
}

#[test]
fn a_query_may_be_confirmed_and_a_post_is_always_asked_anew() {
    let server = FakeUpstream::start(Behaviour::answer(|request| {
        Response::json(200, &json!(1))
            .with("ETag", "\"v1\"")
            .with("Cache-Control", "max-age=60")
            .unless_known(request)
    }));
    for (method, condition) in [
        (SourceMethod::Post, None),
        (SourceMethod::Query, Some("\"v1\"")),
    ] {
        let api = question(&server, &json!({}), |settings| settings.method = method);
        let (_, validator, lifetime) = new(api.load::<&str>(&[], context(), None));
        assert_eq!(validator.is_some(), condition.is_some());
        assert!(matches!(lifetime, Lifetime::MaxAge(left) if left > Duration::from_secs(50)));
        let copy = Revalidation {
            value: Bytes::from_static(b"the copy"),
            validator: "\"v1\"\n\n".into(),
        };
        let again = LoadContext {
            revalidation: Some(copy),
            ..context()
        };
        let (value, ..) = new(api.load::<&str>(&[], again, None));
        let expected = if condition.is_some() { "the copy" } else { "1" };
        assert_eq!(value, expected);
        let request = server.requests().pop().unwrap();
        assert_eq!(request.header("If-None-Match"), condition);
        assert_eq!(request.header("If-Modified-Since"), None);
    }
}

#[test]
fn an_answer_that_is_not_to_be_stored_is_an_answer_all_the_same() {
    let stop = |reason: &str| json!({"choices": [{"reason": reason, "text": "hi"}], "n": 1.0});
    let conditions = |all: &[(&str, Json)]| {
        let one = |(pointer, values): &(&str, Json)| {
            let values = values.as_array().unwrap().clone();
            ((*pointer).to_owned(), values)
        };
        all.iter().map(one).collect::<Vec<_>>()
    };
    let reason = "/choices/0/reason";
    for (store_if, answer, is_stored) in [
        (vec![], stop("length"), true),
        (vec![(reason, json!(["stop"]))], stop("stop"), true),
        (vec![(reason, json!(["stop"]))], stop("length"), false),
        (vec![(reason, json!(["end", "stop"]))], stop("stop"), true),
        // All of them have to hold.
        (
            vec![(reason, json!(["stop"])), ("/n", json!([1]))],
            stop("stop"),
            true,
        ),
        (
            vec![(reason, json!(["stop"])), ("/n", json!([2]))],
            stop("stop"),
            false,
        ),
        (
            vec![(reason, json!(["stop"])), ("/m", json!([1]))],
            stop("stop"),
            false,
        ),
        // The whole body is judged, not the picked part.
        (vec![("", json!(["hi"]))], stop("stop"), false),
        (vec![("", json!([stop("stop")]))], stop("stop"), true),
    ] {
        let server = answers(&answer);
        for method in SourceMethod::ALL {
            let api = question(&server, &json!({}), |settings| {
                settings.method = method;
                if method == SourceMethod::Get {
                    settings.json = None;
                }
                settings.ttl = TtlFrom::Resource;
                settings.pick = Some("/choices/0/text".to_owned());
                settings.store_if = conditions(&store_if);
            });
            let (value, _, lifetime) = new(api.load::<&str>(&[], context(), None));
            assert_eq!(value, "\"hi\"");
            let expected = if is_stored {
                Lifetime::Policy
            } else {
                Lifetime::NoStore
            };
            assert_eq!(lifetime, expected, "{store_if:?} {answer}");
        }
    }
    // What has no body is not judged.
    let server = FakeUpstream::start(Behaviour::always(Response::text(404, "")));
    let api = question(&server, &json!({}), |settings| {
        settings.store_if = conditions(&[(reason, json!(["stop"]))]);
        settings.ttl = TtlFrom::Resource;
    });
    let absent = api.load::<&str>(&[], context(), None);
    assert_eq!(absent, Ok(Loaded::new(Value::Absent, Lifetime::Policy)));
}

#[test]
fn a_secret_in_a_body_is_in_no_error() {
    let echo = Behaviour::answer(|request| {
        let body = String::from_utf8_lossy(&request.body).replace('\n', "");
        Response::text(200, "no").with("Content-Type", &format!("text/{body}"))
    });
    let server = FakeUpstream::start(echo);
    let api = question(&server, &json!(["${QUOTES}", "${KEY}", "${LINES}"]), |_| {});
    let error = api.load::<&str>(&[], context(), None).unwrap_err();
    assert_eq!(
        error.to_string(),
        "quotes answered 200 with invalid JSON (text/[\"***\",\"***\",\"***\"])"
    );
    assert!(!format!("{api:?}").contains("s3cr3t"));
}

/// Texts that could leave their place if the body were put together as text.
fn odd() -> impl Strategy<Value = Json> {
    let fixed = [
        "\"",
        "\\",
        "\\\"",
        "{",
        "}",
        "{{",
        "{q}",
        "{other}",
        "${HOME}",
        "\n",
        "\r\n",
        "\u{0}",
        "\u{7f}",
        "\u{2028}",
        "\u{fffd}",
        "\u{feff}",
        "😀",
        "\",\"x\":\"",
        "\"}]}",
        "</script>",
    ];
    prop_oneof![
        prop::sample::select(fixed.to_vec()).prop_map(Json::from),
        prop::collection::vec(any::<char>(), 0..40)
            .prop_map(|chars| Json::from(chars.into_iter().collect::<String>())),
        prop::sample::select(vec![0, 9_007_199_254_740_993, i64::MIN, i64::MAX])
            .prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        any::<bool>().prop_map(Json::from),
    ]
}

#[test]
fn the_upstream_parses_exactly_the_value_and_nothing_else_changes() {
    let server = answers(&json!([]));
    let form = json!({
        "alone": "{q}",
        "within": "<{q}|{other}> {{q}} {q}",
        "list": ["{q}", 1.5, "{q}!"],
        "deep": {"a": {"b": [{"c": "{q}", "d": null}]}, "e": "as it is {{}} $"},
        "last": 12_345_678_901_234_567_890_u64,
    });
    let api = question(&server, &form, |_| {});
    proptest!(|(q in odd(), other in odd())| {
        let request = asked(&server, &api, &[("q", q.clone()), ("other", other.clone())]);
        let as_text = |value: &Json| match value {
            Json::String(text) => text.clone(),
            other => other.to_string(),
        };
        let (q_text, other_text) = (as_text(&q), as_text(&other));
        let expected = json!({
            "alone": q,
            "within": format!("<{q_text}|{other_text}> {{q}} {q_text}"),
            "list": [q, 1.5, format!("{q_text}!")],
            "deep": {"a": {"b": [{"c": q, "d": null}]}, "e": "as it is {} $"},
            "last": 12_345_678_901_234_567_890_u64,
        });
        prop_assert_eq!(request.json(), expected);
    });
}
