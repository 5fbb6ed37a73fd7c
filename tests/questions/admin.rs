//! `/cache/entry` and `/cache/invalidate` for questions: by the resource and its parameters.

use serde_json::{Value, json};

use super::{ask, is_hit, start};
use testkit::client::Answer;
use testkit::larder::{ADMIN_KEY, Larder, LarderOptions};

/// Percent-encoded, as a value of a query.
fn escaped(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02x}")).collect()
}

fn entry_of_query(larder: &Larder, resource: &str, params: &Value) -> Answer {
    let params = escaped(&params.to_string());
    larder.get(&format!("/cache/entry?resource={resource}&params={params}"))
}

fn entry_of_body(larder: &Larder, method: &'static str, body: &Value) -> Answer {
    let call = larder.call(method, "/cache/entry").key(ADMIN_KEY);
    call.json(body).send()
}

#[track_caller]
fn assert_field(refused: &Answer, field: &str) {
    refused.problem(422);
    assert_eq!(refused.json()["field"], field, "{refused}");
}

#[test]
fn the_entry_of_a_question_is_shown_by_its_parameters() {
    let (_upstream, larder) = start();
    let question = "why?\n\"a\\b\" \u{1f600} & so=on";
    ask(&larder, "POST", json!({"question": question}).to_string()).expect(200);
    let params = json!({"question": question, "room": "1"});
    let shown = entry_of_query(&larder, "answer", &params)
        .expect(200)
        .json();
    assert_eq!(
        (&shown["resource"], &shown["state"]),
        (&json!("answer"), &json!("fresh"))
    );
    // Order, a default that is written out, and the way to ask make no difference.
    let again = json!({"room": "1", "language": "en", "question": question});
    let body = json!({"resource": "answer", "params": again});
    for answer in [
        entry_of_query(&larder, "answer", &again),
        entry_of_body(&larder, "POST", &body),
        entry_of_body(&larder, "QUERY", &body),
    ] {
        let other = answer.expect(200).json();
        for member in ["key", "load_clock", "bytes", "tags"] {
            assert_eq!(other[member], shown[member], "{other}");
        }
    }
    let another = json!({"resource": "answer", "params": {"question": question, "room": "2"}});
    let none = entry_of_body(&larder, "POST", &another).expect(200).json();
    assert_eq!(none["state"], "none", "{none}");
    // A question that is too long for a URL. Its key is a hash.
    let long = "long ".repeat(1_000);
    ask(&larder, "QUERY", json!({"question": long}).to_string()).expect(200);
    let body = json!({"resource": "answer", "params": {"question": long, "room": "1"}});
    let shown = entry_of_body(&larder, "QUERY", &body).expect(200).json();
    assert_eq!(shown["state"], "fresh", "{shown}");
    assert!(
        shown["key"].as_str().unwrap().starts_with("answer?sha256:"),
        "{shown}"
    );
}

#[test]
fn an_entry_that_is_asked_for_wrongly_is_refused_by_name() {
    let (upstream, larder) = start();
    let full = json!({"question": "q", "room": "1"});
    for (params, name) in [
        (json!({"room": "1"}), "question"),
        (json!({"question": "q"}), "room"),
        (json!({"question": 7, "room": "1"}), "question"),
        (json!({"question": null, "room": "1"}), "question"),
        (json!({"question": "a\u{0}", "room": "1"}), "question"),
        (
            json!({"question": "q", "room": "1", "language": "fr"}),
            "language",
        ),
        (json!({"question": "q", "room": "1", "n": "7"}), "n"),
        (json!({"question": "q", "room": "1", "other": 1}), "other"),
        (json!(["question"]), "params"),
        (json!(null), "params"),
    ] {
        let refused = entry_of_query(&larder, "answer", &params);
        refused.problem(400);
        assert_eq!(refused.json()["parameter"], name, "{refused}");
        let body = json!({"resource": "answer", "params": params});
        for method in ["POST", "QUERY"] {
            assert_field(&entry_of_body(&larder, method, &body), name);
        }
        assert_field(&larder.post("/cache/invalidate", &body), name);
    }
    for (query, name) in [
        ("", "path"),
        ("?resource=answer", "params"),
        ("?params=%7B%7D", "resource"),
        ("?resource=answer&params=%7B", "params"),
        ("?path=/answers/1&resource=answer&params=%7B%7D", "path"),
    ] {
        let refused = larder.get(&format!("/cache/entry{query}"));
        refused.problem(400);
        assert_eq!(refused.json()["parameter"], name, "{refused}");
    }
    for (body, field) in [
        (json!({}), "body"),
        (json!({"resource": "answer"}), "params"),
        (json!({"params": full}), "resource"),
        (json!({"resource": 7, "params": full}), "resource"),
        (
            json!({"path": "/x", "resource": "answer", "params": full}),
            "body",
        ),
        (json!({"paths": ["/x"]}), "paths"),
    ] {
        assert_field(&entry_of_body(&larder, "POST", &body), field);
    }
    for body in [
        json!({"path": "/nothing"}),
        json!({"resource": "nothing", "params": full}),
    ] {
        entry_of_body(&larder, "POST", &body).problem(404);
    }
    entry_of_query(&larder, "nothing", &full).problem(404);
    // Half a surrogate is a text that no JSON can mean. A name that occurs twice is told.
    for (params, name) in [
        (r#"{"question":"\ud800","room":"1"}"#, "question"),
        (r#"{"question":"a","question":"b","room":"1"}"#, "question"),
    ] {
        let call = larder.call("POST", "/cache/invalidate").key(ADMIN_KEY);
        let call = call.header("Content-Type", "application/json");
        let body = format!(r#"{{"resource":"answer","params":{params}}}"#);
        assert_field(&call.body(body).send(), name);
    }
    // A path alone does not say which question is meant.
    let refused = larder.get("/cache/entry?path=/answers/1");
    refused.problem(400);
    let told = [
        refused,
        entry_of_body(&larder, "QUERY", &json!({"path": "/answers/1"})),
        larder.post("/cache/invalidate", &json!({"paths": ["/answers/1"]})),
    ];
    for answer in told {
        assert!(
            answer.mentions("POST, QUERY") && answer.mentions("answer"),
            "{answer}"
        );
        assert!(answer.mentions("params"), "{answer}");
    }
    assert_eq!(upstream.calls(), 0);
    let other = larder.call("PUT", "/cache/entry").key(ADMIN_KEY).send();
    other.problem(405);
    assert_eq!(other.the("Allow"), "GET, HEAD, POST, QUERY");
    let nobody = larder.call("QUERY", "/cache/entry").json(&json!({})).send();
    nobody.problem(401);
    let text = larder
        .call("QUERY", "/cache/entry")
        .key(ADMIN_KEY)
        .body("{}")
        .send();
    text.problem(415);
}

#[test]
fn a_question_is_invalidated_by_its_parameters_and_no_other_is() {
    let (_upstream, larder) = start();
    let (short, long) = ("why?\n\"x\" {y}", "long ".repeat(1_000));
    let body = |question: &str, language: &str| {
        json!({"question": question, "language": language}).to_string()
    };
    let hits = |question: &str, language: &str| {
        is_hit(&ask(&larder, "QUERY", body(question, language)).expect(200))
    };
    for question in [short, &long] {
        for language in ["en", "de"] {
            assert!(!hits(question, language));
            assert!(hits(question, language));
        }
        // The default is left out.
        let params = json!({"room": "1", "question": question});
        let wish = json!({"resource": "answer", "params": params});
        let done = larder.post("/cache/invalidate", &wish).expect(200).json();
        assert!(
            done["clock"].is_string() && done["matched"] == json!([]),
            "{done}"
        );
        assert!(!hits(question, "en"));
        assert!(hits(question, "de"));
        // Beside other names, by which nothing is found.
        let wish = json!({"resource": "answer", "params": {"room": "1", "question": question, "language": "de"},
                          "keys": ["answer?x=y"], "tags": ["nothing"], "soft": false});
        larder.post("/cache/invalidate", &wish).expect(200);
        assert!(hits(question, "en"));
        assert!(!hits(question, "de"));
    }
    // A key is what `/cache/entry` shows, also if it is a hash.
    let params = json!({"room": "1", "question": long});
    let wish = json!({"resource": "answer", "params": params});
    let shown = entry_of_body(&larder, "POST", &wish).expect(200).json();
    assert!(hits(&long, "en"));
    larder
        .post("/cache/invalidate", &json!({"keys": [shown["key"]]}))
        .expect(200);
    assert!(!hits(&long, "en"));
}

#[test]
fn a_question_of_64_kib_is_shown_and_invalidated() {
    let config = "[resource.size]\npath = \"/size\"\nread = [\"POST\"]\nsource = { sql = \"size\" }
         params.text = { type = \"string\", required = true, max_length = 65536 }
         ttl = { memory = \"1h\", redis = \"1h\" }\n";
    let statement = "SELECT length(:text) AS size, random() AS a";
    let larder = Larder::start(&LarderOptions::new(config).statement("size", statement));
    let envelope = json!({"text": ""}).to_string().len();
    let params = json!({"text": "x".repeat((64 << 10) - envelope)});
    let read = || larder.post("/size", &params).expect(200).json();
    let first = read();
    assert_eq!(first["size"], (64 << 10) - envelope);
    let wish = json!({"resource": "size", "params": params});
    let shown = entry_of_body(&larder, "QUERY", &wish).expect(200).json();
    assert_eq!(shown["state"], "fresh", "{shown}");
    let call = larder.call("POST", "/cache/invalidate").key(ADMIN_KEY);
    let call = call.header("Expect", "100-continue").json(&wish);
    // This client takes what comes after the interim answer for its body.
    let interim = call.send().expect(100);
    assert!(interim.mentions("HTTP/1.1 200 OK"), "{interim}");
    assert_ne!(read(), first);
    // One byte more is refused by the read.
    let longer = json!({"text": "x".repeat((64 << 10) - envelope + 1)});
    larder.post("/size", &longer).problem(413);
    let call = larder.call("POST", "/cache/entry").key(ADMIN_KEY);
    let call = call.header("Content-Type", "application/json");
    call.body("x".repeat((128 << 10) + 1)).send().problem(413);
}

const PEOPLE: &str = "
[resource.name]
params.id = { type = \"integer\", min = 1, required = true }
source = { sql = \"name\" }
ttl = { memory = \"1h\", redis = \"1h\" }
[resource.mood]
params.id = { type = \"integer\", min = 1, required = true }
source = { sql = \"mood\" }
ttl = { memory = \"1h\", redis = \"1h\" }
[resource.person]
path = \"/people/{id}\"
params.id = { type = \"integer\", min = 1, required = true }
source = { parts = [\"name\", \"mood\"] }
";

#[test]
fn a_read_by_get_and_a_part_without_a_path_are_named_by_parameters_too() {
    let options = LarderOptions::new(PEOPLE)
        .statement(
            "name",
            "SELECT CAST(:id AS INTEGER) AS id, random() AS name",
        )
        .statement(
            "mood",
            "SELECT CAST(:id AS INTEGER) AS id, random() AS mood",
        );
    let larder = Larder::start(&options);
    let read = || {
        let person = larder.get("/people/7").expect(200).json();
        [person["name"].clone(), person["mood"].clone()]
    };
    let invalidate = |resource: &str| {
        let wish = json!({"resource": resource, "params": {"id": 7.0}});
        larder.post("/cache/invalidate", &wish).expect(200);
    };
    let first = read();
    assert_eq!(read(), first);
    let shown = entry_of_query(&larder, "person", &json!({"id": 7}))
        .expect(200)
        .json();
    let by_path = larder.get("/cache/entry?path=/people/7").expect(200).json();
    assert_eq!(shown["key"], by_path["key"]);
    assert_eq!(shown["parts"][1]["resource"], "mood", "{shown}");
    let part = entry_of_query(&larder, "mood", &json!({"id": 7}))
        .expect(200)
        .json();
    assert_eq!(part["key"], shown["parts"][1]["key"], "{part}");
    let body = json!({"path": "/people/7"});
    let same = entry_of_body(&larder, "QUERY", &body).expect(200).json();
    assert_eq!(same["key"], by_path["key"]);

    invalidate("mood");
    let second = read();
    assert_eq!(second[0], first[0]);
    assert_ne!(second[1], first[1]);
    invalidate("person");
    let third = read();
    assert!(third[0] != second[0] && third[1] != second[1], "{third:?}");
    // A number of the path is a number here, and its limits hold.
    for wrong in [json!({"id": "7"}), json!({"id": 0}), json!({})] {
        let wish = json!({"resource": "person", "params": wrong});
        assert_field(&larder.post("/cache/invalidate", &wish), "id");
    }
    let nothing = json!({"resource": "nothing", "params": {}});
    assert_field(&larder.post("/cache/invalidate", &nothing), "resource");
    assert_eq!(read(), third, "what is refused changes nothing");
}

#[test]
fn a_part_of_a_question_may_have_several_lines() {
    let param = "params.question = { type = \"string\", required = true }";
    let ttl = "ttl = { memory = \"1h\", redis = \"1h\" }";
    let config = format!(
        "[resource.echo]\n{param}\nsource = {{ sql = \"echo\" }}\n{ttl}
         [resource.chance]\n{param}\nsource = {{ sql = \"chance\" }}\n{ttl}
         [resource.both]\npath = \"/both\"\nread = [\"POST\"]\n{param}
         source = {{ parts = [\"echo\", \"chance\"] }}\n"
    );
    let options = LarderOptions::new(&config)
        .statement("echo", "SELECT :question AS echo, random() AS a")
        .statement("chance", "SELECT random() AS b WHERE :question <> ''");
    let larder = Larder::start(&options);
    let params = json!({"question": "why?\n\twhy?"});
    let read = || larder.post("/both", &params).expect(200).json();
    let first = read();
    assert_eq!(first["echo"], params["question"]);
    let part = entry_of_query(&larder, "chance", &params)
        .expect(200)
        .json();
    assert_eq!(part["state"], "fresh", "{part}");
    let wish = json!({"resource": "chance", "params": params});
    larder.post("/cache/invalidate", &wish).expect(200);
    let second = read();
    assert_eq!(second["a"], first["a"]);
    assert_ne!(second["b"], first["b"]);
    // By the key of the composite, its parts go with it.
    let both = entry_of_query(&larder, "both", &params).expect(200).json();
    let keys = json!({"keys": [both["key"]]});
    larder.post("/cache/invalidate", &keys).expect(200);
    let third = read();
    assert!(third["a"] != second["a"] && third["b"] != second["b"]);
}

#[test]
fn the_command_invalidates_a_question() {
    let (_upstream, larder) = start();
    let url = format!("http://{}", larder.address());
    let shell = LarderOptions::unconfigured().env("LARDER_ADMIN_KEY", ADMIN_KEY);
    let run = |arguments: &[&str]| {
        let words = [&["invalidate", "--url", &url], arguments].concat();
        let output = shell.run(&words);
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(said).unwrap())
    };
    let body = json!({"question": "why?"}).to_string();
    ask(&larder, "POST", body.clone()).expect(200);
    let params = json!({"question": "why?", "room": "1"}).to_string();
    let named = ["--resource", "answer", "--params", &params];
    let (code, said) = run(&[&named[..], &["--strict"]].concat());
    assert_eq!(code, Some(0), "{said}");
    assert!(!is_hit(&ask(&larder, "POST", body.clone()).expect(200)));
    // Its own exit code for a tag that nothing can have, beside the question.
    let (code, said) = run(&[&named[..], &["--strict", "--soft", "--tag", "nobody:1"]].concat());
    assert_eq!(code, Some(1), "{said}");
    assert!(
        !is_hit(&ask(&larder, "POST", body).expect(200)),
        "it was done nevertheless"
    );
    for (wrong, code) in [
        (&["--resource", "answer"][..], 2),
        (&["--params", "{}"], 2),
        (&["--resource", "answer", "--params", "{"], 2),
        (&["--resource", "answer", "--params", "[]"], 1),
        (&["--resource", "answer", "--params", "{}"], 1),
    ] {
        let (exit, said) = run(wrong);
        assert_eq!(exit, Some(code), "{wrong:?}: {said}");
    }
    let (_, said) = run(&["--resource", "answer", "--params", "{\"room\":\"1\"}"]);
    assert!(said.contains("question"), "{said}");
}
