//! The same question in other words of JSON is the same, and its values arrive as they are.

use serde_json::{Value, json};

use super::{METHODS, ask, is_hit, start};

#[test]
fn how_a_question_is_written_makes_no_other() {
    let (upstream, larder) = start();
    for (at, method) in METHODS.into_iter().enumerate() {
        let q = format!("why {at}?");
        let body = json!({"question": q, "n": 7, "sure": true});
        ask(&larder, method, body.to_string()).expect(200);
        for same in [
            format!(r#"{{"sure":true,"n":7,"question":"{q}"}}"#),
            format!("\r\n\t{{ \"n\" : 7 ,\n\"question\":\"{q}\" , \"sure\" :true }} "),
            format!(r#"{{"language":"en","question":"{q}","n":7,"sure":true}}"#),
            format!(r#"{{"\u0071uestion":"wh\u0079 {at}?","\u006e":7,"sure":true}}"#),
            format!(r#"{{"question":"{q}","n":7.0,"sure":true}}"#),
            format!(r#"{{"question":"{q}","n":7e0,"sure":true}}"#),
            format!(r#"{{"question":"{q}","n":0.7E+1,"sure":true}}"#),
            format!(r#"{{"question":"{q}","n":700.00e-2,"sure":true}}"#),
        ] {
            let answer = ask(&larder, method, same.clone()).expect(200);
            assert!(is_hit(&answer), "{same}: {answer}");
        }
        // Another value is another question.
        for other in [
            format!(r#"{{"question":"{q} ","n":7,"sure":true}}"#),
            format!(r#"{{"question":"Why {at}?","n":7,"sure":true}}"#),
            format!(r#"{{"question":"{q}","n":-7,"sure":true}}"#),
            format!(r#"{{"question":"{q}","n":7,"sure":false}}"#),
            format!(r#"{{"question":"{q}","sure":true}}"#),
            format!(r#"{{"question":"{q}"}}"#),
        ] {
            let answer = ask(&larder, method, other.clone()).expect(200);
            assert!(!is_hit(&answer), "{other}: {answer}");
        }
    }
    assert_eq!(upstream.calls(), 14);
}

#[test]
fn a_value_arrives_as_it_is() {
    let (_upstream, larder) = start();
    let texts = [
        "\"",
        "\\",
        "\\\"",
        "{",
        "}",
        "{question}",
        "${HOME}",
        "{{",
        "a\nb",
        "\r\n",
        "\t",
        "&n=8#x",
        "%00",
        "%",
        "+",
        " ",
        "/../",
        "\",\"n\":8,\"x\":\"",
        "é",
        "😀",
        "\u{2028}",
        "\u{202e}",
        "\u{feff}",
        "null",
        "7",
        "'; DROP TABLE x; --",
        "\u{fffd}",
        "\u{ffff}",
        "\u{10ffff}",
    ];
    for method in METHODS {
        for text in texts {
            let answer = ask(&larder, method, json!({"question": text}).to_string()).expect(200);
            assert_eq!(answer.json(), json!({"question": text, "language": "en"}));
        }
        // A pair of surrogates is one character, and an escape is what it stands for.
        let pair = ask(&larder, method, r#"{"question":"\ud83d\ude00\/\u000A"}"#).expect(200);
        assert_eq!(pair.json()["question"], "😀/\n");
        for (number, sent) in [
            ("9007199254740993", "9007199254740993"),
            ("9007199254740993.0", "9007199254740993"),
            ("9223372036854775807", "9223372036854775807"),
            ("-9223372036854775808", "-9223372036854775808"),
            ("922337203685477580.7e1", "9223372036854775807"),
            ("-0", "0"),
            ("-0.0e9", "0"),
            ("1e18", "1000000000000000000"),
        ] {
            let body = format!(r#"{{"question":"x","n":{number},"sure":false}}"#);
            let answer = ask(&larder, method, body).expect(200).json();
            let expected = json!({"question": "x", "language": "en", "n": sent, "sure": "false"});
            assert_eq!(answer, expected, "{number}");
        }
    }
    let without = ask(&larder, "POST", r#"{"question":"x"}"#).expect(200);
    assert_eq!(without.json().get("n"), None::<&Value>);
}
