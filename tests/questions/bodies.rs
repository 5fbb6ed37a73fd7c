//! Every kind of body that does not fit, and in which order a question is refused.

use serde_json::json;

use super::{METHODS, ask, asking, config, echo, is_hit, start};
use crate::edge::{exchange, statuses};
use testkit::larder::{ADMIN_KEY, Larder, LarderOptions};

/// As much as a body may have.
const LIMIT: usize = 64 << 10;

/// A question with so many bytes of JSON.
fn of_length(length: usize) -> String {
    let around = r#"{"question":""}"#.len();
    format!(r#"{{"question":"{}"}}"#, "x".repeat(length - around))
}

#[test]
fn what_is_no_json_is_400() {
    let (upstream, larder) = start();
    let bodies: [&[u8]; 20] = [
        b"",
        b" ",
        b"{",
        b"}",
        b"[",
        b"[1,",
        b"nul",
        b"question=x",
        b"{\"question\":\"x\"",
        b"{\"question\":\"x\"}}",
        b"{\"question\":\"x\"} x",
        b"{\"question\":\"x\",}",
        b"{'question':'x'}",
        b"{question:\"x\"}",
        b"{\"question\":\"a\nb\"}",
        b"{\"question\":\"\\x\"}",
        b"{\"question\":\"\xff\"}",
        b"{\"question\":\"x\",\"n\":01}",
        b"{\"question\":\"x\",\"n\":NaN}",
        b"\xef\xbb\xbf{\"question\":\"x\"}",
    ];
    for method in METHODS {
        for body in bodies {
            let detail = ask(&larder, method, body).problem(400);
            assert!(detail.contains("not JSON"), "{detail}");
        }
    }
    assert_eq!(upstream.calls(), 0);
}

#[test]
fn a_member_that_does_not_fit_is_422_and_is_named() {
    let (upstream, larder) = start();
    let deep = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    let with = |rest: &str| format!(r#"{{"question":"x",{rest}}}"#);
    let question = |json: &str| format!(r#"{{"question":{json}}}"#);
    let mut bodies = vec![
        ("[]".to_owned(), "body"),
        ("null".to_owned(), "body"),
        ("7".to_owned(), "body"),
        ("\"x\"".to_owned(), "body"),
        (deep(1000), "body"),
        ("{}".to_owned(), "question"),
        (with("\"colour\":\"red\""), "colour"),
        (with("\"Question\":\"x\""), "Question"),
        (with("\"\":1"), ""),
        (with(r#""\ud800":1"#), r#""\ud800""#),
        (with(&format!("\"deep\":{}", deep(10_000))), "deep"),
        // The path has it.
        (with("\"room\":\"1\""), "room"),
        (with("\"room\":\"2\""), "room"),
        (with("\"question\":\"x\""), "question"),
        (with(r#""\u0071uestion":"y""#), "question"),
        (with("\"language\":\"fr\""), "language"),
        (with("\"language\":\"EN\""), "language"),
        (with("\"language\":\"\""), "language"),
        (question("\"\""), "question"),
        (question(&deep(10_000)), "question"),
    ];
    for text in [
        "\\ud800",
        "\\udc00",
        "a\\ud83dx",
        "\\udc00\\ud800",
        "\\u0000",
        "a\\u0000",
        "\\u0007",
        "\\u001b[2J",
        "\\u000b",
        "\\u007f",
        "\u{7f}",
        "\\u0085",
        "\u{85}",
    ] {
        bodies.push((question(&format!("\"{text}\"")), "question"));
    }
    for wrong in ["null", "7", "true", "[\"x\"]", "{\"x\":1}"] {
        bodies.push((question(wrong), "question"));
    }
    for wrong in [
        "null",
        "\"7\"",
        "\"\"",
        "true",
        "[7]",
        "7.5",
        "1.00000000000000000001",
        "1e400",
        "-1e400",
        "1e-1",
        "1e19",
        "9223372036854775808",
        "-9223372036854775809",
        "9223372036854775808.0",
        "18446744073709551616",
    ] {
        bodies.push((with(&format!("\"n\":{wrong}")), "n"));
    }
    for wrong in ["null", "\"true\"", "1", "0", "[]", "{}"] {
        bodies.push((with(&format!("\"sure\":{wrong}")), "sure"));
    }
    for method in METHODS {
        for (body, member) in &bodies {
            let answer = ask(&larder, method, body.as_str());
            let detail = answer.problem(422);
            assert!(
                detail.starts_with(&format!("`{member}` is invalid; valid: ")),
                "{body}: {detail}"
            );
            assert_eq!(answer.json()["field"], *member, "{answer}");
            assert_eq!(answer.header("Accept-Query").is_some(), method == "QUERY");
        }
    }
    let unknown = ask(&larder, "POST", with("\"colour\":1")).problem(422);
    assert!(
        unknown.ends_with("valid: question, language, n, sure"),
        "{unknown}"
    );
    let twice = ask(&larder, "POST", with("\"question\":\"x\"")).problem(422);
    assert!(
        twice.ends_with("valid: a member that occurs once"),
        "{twice}"
    );
    let missing = ask(&larder, "POST", "{}").problem(422);
    assert!(missing.ends_with("characters; it is required"), "{missing}");
    assert_eq!(upstream.calls(), 0);
}

#[test]
fn a_body_has_at_most_64_kib() {
    let upstream = echo();
    // No URL is as long as this question.
    let config = config(&upstream, "[\"POST\", \"QUERY\"]");
    let config = config.replace("question = \"{question}\", ", "");
    let larder = Larder::start(&LarderOptions::new(&config));
    for method in METHODS {
        ask(&larder, method, of_length(LIMIT)).expect(200);
        let detail = ask(&larder, method, of_length(LIMIT + 1)).problem(413);
        assert!(detail.contains("65536"), "{detail}");
        // Without a declared length, too. The last byte arrives in a chunk of its own.
        for (length, status) in [(LIMIT, 200), (LIMIT + 1, 413)] {
            let body = of_length(length);
            let (first, last) = body.split_at(length - 1);
            let all = exchange(
                &larder,
                &format!(
                    "{method} /answers/1 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ADMIN_KEY}\r\n\
                     Content-Type: application/json\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n\
                     {:x}\r\n{first}\r\n1\r\n{last}\r\n0\r\n\r\n",
                    first.len()
                ),
            );
            assert_eq!(statuses(&all), [status], "{}", &all[..200]);
        }
    }
    assert_eq!(upstream.calls(), 1);
}

#[test]
fn a_question_is_refused_for_the_first_reason_in_order() {
    let upstream = echo();
    let public = config(&upstream, "[\"POST\", \"QUERY\"]")
        .replace("resource.answer", "resource.open")
        .replace("/answers/", "/open/")
        .replace(
            "read =",
            "public = true\nunknown_params = \"refuse\"\nread =",
        );
    let all = config(&upstream, "[\"POST\", \"QUERY\"]") + &public;
    let larder = Larder::start(&LarderOptions::new(&all));
    let (_, spent) = larder.create_key(&json!({"name": "spent", "rate": "1/1h"}));
    let fits = r#"{"question":"x"}"#;
    let json = "application/json";
    for method in METHODS {
        let send = |target: &str, key: &str, kind: &str, body: &str| {
            let mut call = larder.call(method, target);
            for (name, value) in [("Authorization", key), ("Content-Type", kind)] {
                if !value.is_empty() {
                    call = call.header(name, value);
                }
            }
            call.body(body).send()
        };
        let admin = format!("Bearer {ADMIN_KEY}");
        let (long, text) = (of_length(LIMIT + 1), "text/plain");
        send("/nowhere", "", text, &long).problem(404);
        send("/answers/1?question=x", "", text, &long).problem(401);
        send("/answers/1?question=x", "Bearer nobody", text, &long).problem(401);
        send("/answers/1?question=x", &admin, text, &long).problem(413);
        for kind in [
            "",
            text,
            "application/x-www-form-urlencoded",
            "application/jsonp",
            "text/json",
        ] {
            let answer = send("/answers/1?question=x", &admin, kind, "{");
            assert!(answer.problem(415).contains("application/json"), "{answer}");
            assert_eq!(answer.the("Accept-Query"), json);
        }
        for kind in [
            json,
            "application/JSON; charset=utf-8",
            "application/json;x",
        ] {
            send("/answers/1", &admin, kind, fits).expect(200);
        }
        // A parameter that belongs in the body. Others in the query are as for a GET.
        let detail = send("/answers/1?question=x", &admin, json, "{}").problem(400);
        assert!(
            detail.contains("parameter `question` is in the query"),
            "{detail}"
        );
        send("/answers/1?%71uestion", &admin, json, fits).problem(400);
        send("/answers/1?n=7", &admin, json, fits).problem(400);
        assert!(is_hit(
            &send("/answers/1?colour=red&room=2", &admin, json, fits).expect(200)
        ));
        send("/answers/1", &admin, json, "{").problem(400);
        send("/answers/%FF", &admin, json, fits).problem(400);
        // Where no key is needed and unknown parameters are refused.
        send("/open/1", "", text, fits).problem(415);
        send("/open/1", "", json, fits).expect(200);
        let detail = send("/open/1?colour=red", "", json, fits).problem(400);
        assert!(
            detail.contains("parameter `colour` is not known"),
            "{detail}"
        );
        send("/open/1?room=2", "", json, fits).problem(400);
    }
    let spent = format!("Bearer {spent}");
    let with = |body: &str, kind: &str| {
        let call = larder
            .call("QUERY", "/answers/1")
            .header("Authorization", &spent);
        call.header("Content-Type", kind).body(body).send()
    };
    with(fits, json).expect(200);
    let answer = with(&of_length(LIMIT + 1), "text/plain");
    answer.problem(429);
    answer.the("Retry-After");
    let twice = asking(&larder, "POST", fits).header("content-type", json);
    assert!(twice.send().problem(400).contains("Content-Type"));
}
