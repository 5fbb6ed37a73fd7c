//! A key or a tag that is long is known by its hash: in both tiers, in the record of what was
//! invalidated, and to the operator.

use serde_json::{Value, json};

use super::{ask, config, echo, is_hit};
use testkit::larder::{Larder, LarderOptions};
use testkit::postgres::PostgresServer;
use testkit::redis::RedisServer;
use testkit::upstream::FakeUpstream;
use testkit::{SOON, until};

/// The longest name that stands for itself, in bytes.
const LONGEST: usize = 512;

fn start(count: usize) -> (FakeUpstream, RedisServer, Vec<Larder>) {
    let (upstream, redis) = (echo(), RedisServer::start());
    let config = config(&upstream, "[\"GET\", \"POST\", \"QUERY\"]");
    let options = LarderOptions::new(&config).env("REDIS_URL", &redis.url());
    let replicas = Larder::start_many(count, &options);
    (upstream, redis, replicas)
}

/// The name of the key of this question, if it is short.
fn whole_key(question: &str) -> String {
    format!("answer?language=en&question={question}&room=1")
}

/// Whether memory had the answer.
fn known(larder: &Larder, question: &str) -> bool {
    let body = json!({"question": question}).to_string();
    is_hit(&ask(larder, "QUERY", body).expect(200))
}

/// What larder says of the entry of this question.
fn entry(larder: &Larder, question: &str) -> Value {
    let path = format!("/cache/entry?path=/answers/1%3Fquestion%3D{question}");
    larder.get(&path).expect(200).json()
}

#[test]
fn a_name_is_hashed_from_513_bytes_on() {
    let (upstream, _redis, larders) = start(1);
    let larder = &larders[0];
    let fits = "x".repeat(LONGEST - whole_key("").len());
    // Equal up to their last byte.
    let questions = [fits.clone(), format!("{fits}y"), format!("{fits}z")];
    for (at, question) in questions.iter().enumerate() {
        assert!(!known(larder, question));
        assert!(known(larder, question));
        let get = larder.get(&format!("/answers/1?question={question}"));
        assert!(is_hit(&get.expect(200)));
        let key = entry(larder, question)["key"].as_str().unwrap().to_owned();
        if at == 0 {
            assert_eq!(key, whole_key(question));
        } else {
            assert!(
                key.starts_with("answer?sha256:") && key.len() == 14 + 64,
                "{key}"
            );
        }
    }
    assert_eq!(upstream.calls(), questions.len());
}

#[test]
fn whoever_names_it_means_it() {
    let (_upstream, redis, larders) = start(2);
    let [near, far] = &larders[..] else {
        unreachable!()
    };
    let question = "why".repeat(600);
    let escaped = format!("{question}%3F");
    let question = format!("{question}?");
    let warm = || {
        for larder in [near, far] {
            until(SOON, "it is in memory", || known(larder, &question));
        }
    };
    warm();
    let shown = entry(near, &escaped);
    let key = shown["key"].as_str().unwrap();
    let tags = shown["tags"].as_array().unwrap().iter();
    let tags: Vec<&str> = tags.map(|tag| tag["name"].as_str().unwrap()).collect();
    assert_eq!(tags[0], "answers");
    assert!(tags[1].starts_with("question:sha256:"), "{shown}");
    assert!(tags.iter().all(|tag| tag.len() <= LONGEST), "{shown}");
    for names in [
        json!({"keys": [key]}),
        json!({"keys": [whole_key(&escaped)]}),
        json!({"tags": [tags[1]]}),
        json!({"tags": [format!("question:{escaped}")]}),
        json!({"tags": [format!("question:{question}")]}),
        json!({"paths": [format!("/answers/1?question={escaped}")]}),
    ] {
        warm();
        near.post("/cache/invalidate", &names).expect(200);
        assert!(!known(near, &question), "{names}");
        until(SOON, "the other replica heard it", || {
            let redis_hit = ask(far, "QUERY", json!({"question": question}).to_string());
            let status = redis_hit.expect(200).the("Cache-Status").to_owned();
            status.starts_with("larder-redis; hit")
        });
    }
    // Nothing in Redis is named by a text as long as the question.
    for key in redis.keys("*") {
        assert!(key.len() <= LONGEST + 40, "{key}");
    }
    let names: Vec<String> = redis.cli(&["ZRANGE", "{larder:bus}:names", "0", "-1"]);
    let hard = format!("h:{}", tags[1]);
    assert!(names.contains(&hard), "{names:?}");
    assert!(
        names.iter().all(|name| name.len() <= LONGEST + 2),
        "{names:?}"
    );
}

#[test]
fn the_trigger_of_a_watched_table_may_write_a_long_name() {
    let (upstream, postgres) = (echo(), PostgresServer::start());
    let url = postgres.new_database();
    let config = config(&upstream, "[\"QUERY\"]");
    let larder = Larder::start(&LarderOptions::new(&config).env("DATABASE_URL", &url));
    let mut sql = postgres.connect(&url);
    sql.batch_execute(
        "CREATE TABLE questions (id SERIAL, asked TEXT);
         SELECT larder_watch('questions', 'question:{asked}')",
    )
    .unwrap();
    let (changed, other) = ("a\n".repeat(5_000), "b\n".repeat(5_000));
    for question in [&changed, &other] {
        until(SOON, "it is in memory", || known(&larder, question));
    }
    let calls = upstream.calls();
    sql.execute("INSERT INTO questions (asked) VALUES ($1)", &[&changed])
        .unwrap();
    until(SOON, "the change is heard of", || !known(&larder, &changed));
    assert!(known(&larder, &other));
    assert_eq!(upstream.calls(), calls + 1);
}
