//! The log of the real binary, line by line: as JSON and as text, from the start to the end, and
//! with what clients and upstreams may put into it.

use std::collections::BTreeSet;

use jiff::Timestamp;
use regex_lite::Regex;
use serde_json::{Map, Value, json};

use testkit::larder::{ADMIN_KEY, Larder, LarderOptions};
use testkit::news::{News, NewsConfig, guardian_error, newsapi_error};
use testkit::redis::RedisServer;
use testkit::upstream::{Behaviour, FakeUpstream, Response};
use testkit::{SOON, until};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

fn config(origin: &FakeUpstream) -> String {
    let at = origin.address();
    format!(
        "[resource.thing]
path = \"/thing/{{id}}\"
params.id = {{ type = \"string\" }}
source = {{ http = \"http://{at}/thing/{{id}}\" }}
ttl = {{ memory = \"1h\", redis = \"1h\" }}
tags = [\"thing:{{id}}\"]
[resource.row]
params.id = {{ type = \"string\" }}
source = {{ sql = \"row\" }}
ttl = {{ memory = \"1h\", redis = \"1h\" }}
[resource.both]
path = \"/both/{{id}}\"
params.id = {{ type = \"string\" }}
source = {{ parts = [\"row\", \"thing\"] }}
"
    )
}

fn options(origin: &FakeUpstream) -> LarderOptions {
    LarderOptions::new(&config(origin))
        .statement("row", "SELECT :id AS row")
        .env("RUST_LOG", "info,access=debug")
}

fn json_options(origin: &FakeUpstream) -> LarderOptions {
    options(origin).env("LARDER_LOG", "json")
}

/// An upstream that fails with this reason for things that begin with `bad`.
fn origin(reason: &'static str) -> FakeUpstream {
    FakeUpstream::start(Behaviour::answer(move |request| {
        if request.path.starts_with("/thing/bad") {
            Response::text(200, "no JSON").with("Content-Type", reason)
        } else {
            Response::json(200, &json!({"thing": request.path}))
        }
    }))
}

/// The lines of a log, each of which must be an object with the members that are always there.
#[track_caller]
fn parsed(log: &str) -> Vec<Map<String, Value>> {
    let parse = |line: &str| -> Map<String, Value> {
        let json: Map<String, Value> =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        let names: Vec<&str> = json.keys().take(4).map(String::as_str).collect();
        assert_eq!(names, ["timestamp", "level", "target", "message"], "{line}");
        let text = |name: &str| json[name].as_str().unwrap();
        let time = text("timestamp");
        assert!(time.parse::<Timestamp>().is_ok(), "{line}");
        assert_eq!(time.len(), "2026-01-02T03:04:05.678Z".len(), "{line}");
        assert!(
            ["ERROR", "WARN", "INFO", "DEBUG"].contains(&text("level")),
            "{line}"
        );
        assert!(
            !text("target").is_empty() && !text("message").is_empty(),
            "{line}"
        );
        json
    };
    assert!(log.ends_with('\n'), "a line is cut:\n{log}");
    log.lines().map(parse).collect()
}

/// The one line whose message contains this text.
#[track_caller]
fn the<'l>(lines: &'l [Map<String, Value>], text: &str) -> &'l Map<String, Value> {
    let has = |line: &&Map<String, Value>| line["message"].as_str().unwrap().contains(text);
    let found: Vec<_> = lines.iter().filter(has).collect();
    let [line] = found[..] else {
        panic!("{} lines with {text:?} in {lines:#?}", found.len());
    };
    line
}

#[test]
fn every_line_of_a_life_is_json() {
    let (mut redis, origin) = (RedisServer::start(), origin("text/html"));
    let options = json_options(&origin)
        .env("REDIS_URL", &redis.url())
        .env("RUST_LOG", "info,larder=loud,access=debug");
    let mut larder = Larder::start(&options);
    let ask = |path: &str, id: &str| {
        let call = larder.call("GET", path).key(ADMIN_KEY);
        call.header("X-Request-Id", id)
            .header("traceparent", &format!("00-{TRACE}-00f067aa0ba902b7-01"))
            .send()
    };
    ask("/thing/a", "req-1").expect(200);
    ask("/thing/a", "req-2").expect(200);
    ask("/thing/bad", "req-3").problem(502);
    ask("/both/b", "req-4").expect(200);
    ask("/nowhere", "req-5").problem(404);
    let named = larder.call("POST", "/cache/invalidate").key(ADMIN_KEY);
    let named = named.header("X-Request-Id", "req-6");
    named.json(&json!({"tags": ["thing:a"]})).send().expect(200);
    larder.reload("[resource.broken]\npath = 7\nttl = \"soon\"");
    until(SOON, "the file is refused", || {
        larder.log().contains("nothing is changed")
    });
    larder.reload(&config(&origin).replace("/both/", "/all/"));
    until(SOON, "the file is applied", || {
        larder.log().contains("reloaded")
    });
    redis.kill();
    until(SOON, "Redis is missed", || {
        larder.log().contains("Redis connection lost")
    });
    redis.restart();
    until(SOON, "Redis is back", || {
        larder.log().matches("Redis is up").count() == 2
    });
    assert!(larder.stop().success());

    let lines = parsed(&larder.log());
    let levels: BTreeSet<&str> = lines
        .iter()
        .map(|line| line["level"].as_str().unwrap())
        .collect();
    assert_eq!(levels, BTreeSet::from(["DEBUG", "ERROR", "INFO", "WARN"]));
    for text in [
        "larder=loud",
        "listening on http://",
        "the configuration is not valid; nothing is changed:\n",
        "draining",
        "stopping",
    ] {
        the(&lines, text);
    }

    let miss = the(&lines, "miss thing?id=a ");
    assert_eq!(miss["target"], "larder_cache::lookup");
    for (name, value) in [
        ("event", "miss"),
        ("resource", "thing"),
        ("key", "thing?id=a"),
        ("request_id", "req-1"),
        ("trace_id", TRACE),
    ] {
        assert_eq!(miss[name], value, "{miss:?}");
    }
    assert!(
        miss["duration_ms"].is_u64() && miss["source_ms"].is_u64(),
        "{miss:?}"
    );
    assert!(
        !miss["message"].as_str().unwrap().contains("req-1"),
        "{miss:?}"
    );
    let failed = the(&lines, "miss thing?id=bad ");
    assert_eq!(
        (&failed["level"], &failed["request_id"]),
        (&"WARN".into(), &"req-3".into())
    );
    assert!(
        failed["error"].as_str().unwrap().contains("text/html"),
        "{failed:?}"
    );
    let composite = the(&lines, "miss both?id=b ");
    assert_eq!(
        (&composite["resource"], &composite["trace_id"]),
        (&"both".into(), &TRACE.into())
    );
    let hit = the(&lines, "GET /thing/a 200 larder-memory; hit");
    assert_eq!(
        (&hit["method"], &hit["path"]),
        (&"GET".into(), &"/thing/a".into())
    );
    assert_eq!(
        (&hit["status"], &hit["request_id"]),
        (&200.into(), &"req-2".into())
    );
    assert!(
        hit["cache_status"]
            .as_str()
            .unwrap()
            .starts_with("larder-memory; hit")
    );
    assert_eq!(the(&lines, "GET /nowhere 404")["status"], 404);
    let by_admin = the(&lines, "invalidated: ");
    assert_eq!(
        (&by_admin["by_key"], &by_admin["request_id"]),
        (&"admin".into(), &"req-6".into())
    );
}

/// What a client may send as an id, and as a part of a path, to look like another line.
const IDS: [&str; 4] = [
    r#"","level":"ERROR","message":"forged"#,
    r#"\u000a{"message":"forged"}"#,
    r"\",
    "[2026-01-02T03:04:05Z_ERROR_forged]",
];
const VALUES: [&str; 4] = [
    "%0A%5B2026-01-02T03:04:05Z%20ERROR%20forged%5D%20x",
    "%0D%1B%5B2K%7B%22message%22%3A%22forged%22%7D",
    "%E2%80%A8%C2%85%E2%80%AEforged",
    "a%20id%3Dforged%20trace%3Dforged",
];
/// What an upstream says: the text of an error repeats it.
const REASON: &str = r#"text/x"},{"message":"forged"#;
const WORDS: &str =
    "no\n\r\u{1b}[2K\u{85}\u{2028}\u{202e}[2026-01-02T03:04:05Z ERROR forged] \"x\\";

/// Sends all of these. Returns the log when the requests are in it.
fn attack(options: LarderOptions) -> String {
    let mut larder = Larder::start(&options);
    for (number, id) in IDS.iter().enumerate() {
        for value in VALUES {
            for path in ["/thing/", "/thing/bad", "/both/", "/nowhere/"] {
                let call = larder.call("GET", &format!("{path}{value}{number}?q={value}"));
                // An upstream's answer differs, so no status is expected.
                call.key(ADMIN_KEY).header("X-Request-Id", id).send();
            }
        }
        let call = larder.call("POST", "/cache/invalidate").key(ADMIN_KEY);
        let call = call.header("X-Request-Id", id);
        call.json(&json!({"tags": ["\u{2028}forged\"\\", "a b"], "keys": ["x\\\"y"]}))
            .send();
        // The name of a key has no control character.
        larder.post("/keys", &json!({ "name": WORDS })).problem(422);
        let name: String = WORDS.chars().filter(|c| !c.is_control()).collect();
        larder.post("/keys", &json!({ "name": name })).expect(201);
    }
    larder.stop();
    larder.log()
}

/// The log of a larder whose news upstreams answer with these words.
fn log_of_words(format: &str) -> String {
    let (redis, news) = (RedisServer::start(), News::start());
    news.newsapi
        .behave(Behaviour::always(newsapi_error(500, "odd", WORDS)));
    news.guardian
        .behave(Behaviour::always(guardian_error(500, WORDS)));
    let options = NewsConfig::default().options(&news, &redis);
    let mut larder = Larder::start(&options.env("LARDER_LOG", format));
    larder.get("/articles?category=science").problem(502);
    larder.stop();
    let log = larder.log();
    assert!(log.contains("miss articles?category=science"), "{log}");
    log
}

/// Control characters but the line feed, separators of lines, and what reorders a line.
fn has_odd_characters(log: &str) -> bool {
    let is_odd = |c: char| c != '\n' && (c.is_control() || matches!(c, '\u{2028}'..='\u{202e}'));
    log.contains(is_odd)
}

#[test]
fn no_client_and_no_upstream_can_forge_a_line_of_json() {
    let origin = origin(REASON);
    let log = attack(json_options(&origin));
    let lines = parsed(&log);
    let words = log_of_words("json");
    let separates = |c: char| c != '\n' && (c.is_control() || matches!(c, '\u{2028}' | '\u{2029}'));
    assert!(
        !log.contains(separates) && !words.contains(separates),
        "{log}{words}"
    );
    parsed(&words);
    let requests = lines.iter().filter(|line| line["target"] == "access");
    assert_eq!(requests.count(), IDS.len() * VALUES.len() * 4);
    for id in IDS {
        let with_id = lines
            .iter()
            .filter(|line| line.get("request_id") == Some(&id.into()));
        let messages: Vec<&str> = with_id
            .map(|line| line["message"].as_str().unwrap())
            .collect();
        assert!(
            messages
                .iter()
                .any(|message| message.starts_with("invalidated"))
        );
        assert!(messages.iter().any(|message| message.starts_with("miss ")));
    }
    assert!(lines.iter().all(|line| line["message"] != "forged"));
}

#[test]
fn no_client_and_no_upstream_can_forge_a_line_of_text() {
    let origin = origin(REASON);
    let log = attack(options(&origin));
    let log = format!("{log}{}", log_of_words("text"));
    assert!(!has_odd_characters(&log), "{log}");
    let form = r"^\[\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ (ERROR|WARN |INFO |DEBUG) ([\w:]+)\] \S";
    let form = Regex::new(form).unwrap();
    let mut requests = 0;
    for line in log.lines() {
        // A further line of a message is indented.
        let begins = form.captures(line);
        assert!(begins.is_some() || line.starts_with("    "), "{line}");
        requests += usize::from(begins.is_some_and(|begins| &begins[2] == "access"));
    }
    assert_eq!(requests, IDS.len() * VALUES.len() * 4);
}

#[test]
fn another_format_is_refused_and_an_empty_one_is_text() {
    let origin = origin("text/html");
    let refused = options(&origin).env("LARDER_LOG", "xml").run(&["check"]);
    assert_eq!(refused.status.code(), Some(2));
    let said = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(
        said,
        "environment: LARDER_LOG: is \"xml\"; valid: text, json\n"
    );
    let text = Larder::start(&options(&origin).env("LARDER_LOG", ""));
    assert!(text.log().starts_with("[20"), "{}", text.log());
}

#[test]
fn a_server_that_does_not_start_says_so_in_its_format() {
    let broken = LarderOptions::new("[server]\nbind = 7\nworkers = \"many\"");
    let broken = broken.with_config_to_be_found();
    let serve = |format| broken.clone().env("LARDER_LOG", format).run(&["serve"]);
    let (text, json) = (serve("text"), serve("json"));
    assert_eq!((text.status.code(), json.status.code()), (Some(2), Some(2)));
    let text = String::from_utf8(text.stderr).unwrap();
    let lines = parsed(&String::from_utf8(json.stderr).unwrap());
    let [line] = &lines[..] else {
        panic!("{lines:?}");
    };
    assert_eq!(line["level"], "ERROR");
    assert_eq!(format!("{}\n", line["message"].as_str().unwrap()), text);
    assert!(
        text.contains("server.bind") && text.contains("server.workers"),
        "{text}"
    );
    // Nothing hides it.
    let quiet = broken
        .env("LARDER_LOG", "json")
        .env("RUST_LOG", "off")
        .run(&["serve"]);
    assert_eq!(parsed(&String::from_utf8(quiet.stderr).unwrap()).len(), 1);
}
