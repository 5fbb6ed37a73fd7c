//! The parts of a call, and invalid targets.

use super::super::target::Target;
use super::*;

#[test]
fn a_call_carries_everything_in_its_place() {
    let server = FakeUpstream::raw(|mut stream, request| {
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
    // A place without a value is left out if it stands alone.
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
        let absent = Ok(Loaded::new(Value::Absent, Lifetime::Policy));
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
            Ok(Loaded::new(Value::Absent, Lifetime::Policy)),
            "{lang:?}"
        );
    }
    assert_eq!(server.calls(), 0);
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
        ("ftp://h/", "is not an http:// or https:// URL"),
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
    let own = "is a header that larder sets itself";
    let expected = [
        (Place::Query(String::new()), "has no name".to_owned()),
        header("X Y", "is not a valid header name"),
        header("Host", own),
        header("If-None-Match", own),
        header("x-a", "is declared twice"),
        header(
            "x-a",
            "has a control character, perhaps in a variable's value",
        ),
        (Place::Pick, "is not a valid JSON pointer".to_owned()),
    ];
    assert_eq!(wrong(&all), expected);
    assert_eq!(all.params().collect::<Vec<_>>(), ["a", "b", "c"]);
    let mut body = settings("https://h/");
    body.json = Some(JsonTemplate::Text(template("{d} ${KEY}")));
    let pointer = |text: &str| (text.to_owned(), vec![Json::from("stop")]);
    body.store_if = vec![pointer("/a"), pointer("b"), pointer("/~2")];
    let no_pointer = |text: &str| {
        (
            Place::StoreIf(text.to_owned()),
            "is not a valid JSON pointer".to_owned(),
        )
    };
    let expected = [
        (
            Place::Json,
            "is a body, which a GET does not send".to_owned(),
        ),
        no_pointer("b"),
        no_pointer("/~2"),
    ];
    assert_eq!(wrong(&body), expected);
    assert_eq!(body.params().collect::<Vec<_>>(), ["d"]);
    body.store_if.truncate(1);
    for method in [SourceMethod::Post, SourceMethod::Query] {
        body.method = method;
        assert_eq!(wrong(&body), []);
    }
    body.json = None;
    let expected = (Place::Method, "is QUERY, which needs a body".to_owned());
    assert_eq!(wrong(&body), [expected]);
    body.method = SourceMethod::Post;
    assert_eq!(wrong(&body), []);
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
    // It must not change: replicas of two versions share values.
    assert_eq!(
        identity,
        "http \"${BASE}/{x}?a=${KEY}\" headers [] query [] pick None"
    );
    let mut others = vec![one.clone(); 11];
    others[0] = settings("${BASE}/{y}?a=${KEY}");
    others[1].pick = Some("/a".to_owned());
    others[2].headers = named(&[("A", "b")]);
    others[3].query = named(&[("A", "b")]);
    others[4].method = SourceMethod::Post;
    others[5].method = SourceMethod::Query;
    others[6].method = SourceMethod::Post;
    others[6].json = Some(JsonTemplate::Text(template("{x}")));
    others[7].method = SourceMethod::Post;
    others[7].json = Some(JsonTemplate::Text(template("{x}${KEY}")));
    others[8].method = SourceMethod::Post;
    others[8].json = Some(JsonTemplate::Literal(Json::from(1)));
    others[9].store_if = vec![("/a".to_owned(), vec![Json::from(1)])];
    others[10].store_if = vec![("/a".to_owned(), vec![Json::from("1")])];
    for other in &others {
        assert!(!other.identity().contains("s3cr3t"));
    }
    let mut identities: Vec<String> = others.iter().map(JsonApiSettings::identity).collect();
    identities.push(identity);
    identities.sort();
    identities.dedup();
    assert_eq!(identities.len(), 12);
    let ttl = JsonApiSettings {
        ttl: TtlFrom::Resource,
        ..one.clone()
    };
    assert_eq!(ttl.identity(), one.identity());
}

#[test]
fn what_is_filled_in_behind_the_host_is_a_value() {
    for (url, sent) in [
        ("https://h/${SLASH}/x", "https://h/t%2Fk/x"),
        ("https://h/a-${SLASH}?b", "https://h/a-t%2Fk?b"),
        (
            "${BASE}/${KEY}",
            "http://inner.example:81/root/s3cr3t%20k%26y",
        ),
    ] {
        let target = Target::build(&settings(url)).unwrap();
        assert_eq!(target.call(&|_| None).unwrap().url, sent, "{url}");
    }
}

#[test]
fn all_that_was_filled_in_is_masked() {
    let mut all = settings("https://h/${LONG}/${SHORT}");
    all.headers = named(&[("A", "${SLASH}")]);
    all.json = Some(JsonTemplate::Array(vec![
        JsonTemplate::Text(template("${LINES}")),
        JsonTemplate::Text(template("{q} ${QUOTES}")),
    ]));
    let target = Target::build(&all).unwrap();
    let words = "long-token token t/k t%2Fk a\nb a\\nb say \"hi\" say \\\"hi\\\"";
    assert_eq!(
        sanitized(words, target.secrets()),
        "*** *** *** *** *** *** *** ***"
    );
}
