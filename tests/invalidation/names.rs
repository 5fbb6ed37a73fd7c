//! The targets of an invalidation, and the effect of a hard and a soft purge.

use serde_json::{Value, json};

use super::{Two, category_tag, invalidate, invalidate_now, until_heard, until_trusted, warm};
use testkit::larder::{Larder, LarderOptions};
use testkit::news::path;
use testkit::redis::RedisServer;
use testkit::upstream::Behaviour;
use testkit::versions::{VersionsConfig, version, version_in};
use testkit::{SOON, until};

#[test]
fn holds_here_at_once_and_there_soon() {
    let two = Two::start();
    assert_eq!(two.warm("science"), 1);
    let (new, change) = two.change(&two.near, "science");
    assert_eq!(version(&two.near, "science"), new);
    until_heard(&two.far, &change.clock);
    assert_eq!(version(&two.far, "science"), new);
    assert_eq!(two.warm("science"), new);
    // One load filled both replicas.
    assert_eq!(two.versions.calls(), 2);

    let later = invalidate_now(&two.far, &category_tag("health"));
    let number = |clock: &str| clock.parse::<u64>().unwrap();
    assert!(number(&later.clock) > number(&change.clock));
}

#[test]
fn names_tags_keys_paths_or_everything_and_nothing_else() {
    let two = Two::start();
    let three = ["science", "health", "sports"];
    let dropped_by = |names: &Value| {
        for category in three {
            two.warm(category);
        }
        let old: Vec<u64> = three
            .iter()
            .map(|one| two.versions.publish(one) - 1)
            .collect();
        let change = invalidate_now(&two.near, names);
        until_heard(&two.far, &change.clock);
        let [near, far] = two.both().map(|replica| {
            let zipped = three.into_iter().zip(&old);
            let gone = zipped.filter(|(one, old)| version(replica, one) > **old);
            gone.map(|(one, _)| one).collect::<Vec<_>>()
        });
        assert_eq!(near, far, "{names}");
        // The others must have the newest version for the next case, too.
        let change = invalidate_now(&two.near, &json!({"all": true}));
        until_heard(&two.far, &change.clock);
        near
    };
    let entry = two
        .near
        .get("/cache/entry?path=/articles%3Fcategory%3Dscience");
    // There is no entry before the first read, but that is no error of the server.
    assert!(entry.status < 500, "{entry}");
    two.warm("science");
    let entry = two
        .near
        .get("/cache/entry?path=/articles%3Fcategory%3Dscience")
        .expect(200);
    let key = entry.json()["key"].as_str().unwrap().to_owned();

    assert_eq!(
        dropped_by(&json!({"tags": ["category:science"]})),
        ["science"]
    );
    assert_eq!(
        dropped_by(&json!({"tags": ["category:science", "category:sports"]})),
        ["science", "sports"]
    );
    assert_eq!(dropped_by(&json!({"tags": ["articles"]})), three);
    assert_eq!(
        dropped_by(&json!({"paths": ["/articles?category=health"]})),
        ["health"]
    );
    // A view is made from the same entry. Another order and unknown parameters make no other entry.
    assert_eq!(
        dropped_by(&json!({"paths": ["/articles?limit=3&category=health&x=y"]})),
        ["health"]
    );
    assert_eq!(dropped_by(&json!({"keys": [key]})), ["science"]);
    assert_eq!(
        dropped_by(
            &json!({"keys": [key], "paths": ["/articles?category=health"], "tags": ["category:sports"]})
        ),
        three
    );
    assert_eq!(dropped_by(&json!({"all": true})), three);
    assert_eq!(
        dropped_by(&json!({"tags": ["category:nothing", "category:"]})),
        [""; 0]
    );
    assert_eq!(
        dropped_by(&json!({"keys": ["articles?category=no"]})),
        [""; 0]
    );
}

#[test]
fn hard_ends_a_value_and_soft_makes_it_stale() {
    let two = Two::with(&VersionsConfig {
        while_revalidate: "1h",
        ..VersionsConfig::default()
    });
    assert_eq!(two.warm("science"), 1);
    let new = two.versions.publish("science");
    two.versions.upstream.hold();
    let names = json!({"tags": ["category:science"], "soft": true});
    let change = invalidate_now(&two.near, &names);
    until_heard(&two.far, &change.clock);
    // The old version, at once, while the source does not answer.
    for replica in two.both() {
        let stale = replica.get(&path("science"));
        assert_eq!(version_in(&stale, "science"), 1);
        assert!(stale.the("Cache-Status").contains("fwd=stale"), "{stale}");
    }
    two.versions.upstream.release();
    for replica in two.both() {
        until(SOON, "it is renewed", || version(replica, "science") == new);
    }

    let (newer, change) = two.change(&two.near, "science");
    assert_eq!(version(&two.near, "science"), newer);
    until_heard(&two.far, &change.clock);
    assert_eq!(version(&two.far, "science"), newer);
}

#[test]
fn soft_keeps_a_value_for_when_the_source_fails() {
    let two = Two::with(&VersionsConfig {
        if_error: "1h",
        ..VersionsConfig::default()
    });
    assert_eq!(two.warm("science"), 1);
    two.versions.upstream.behave(Behaviour::Close);
    let names = json!({"tags": ["category:science"], "soft": true});
    let change = invalidate_now(&two.near, &names);
    until_heard(&two.far, &change.clock);
    for replica in two.both() {
        let stale = replica.get(&path("science"));
        assert_eq!(version_in(&stale, "science"), 1);
        assert!(
            stale.the("Cache-Status").contains("stale-if-error"),
            "{stale}"
        );
    }
    // A hard purge after the soft one: the copy is never served again. Only the archive is left,
    // and its answer says so.
    invalidate_now(&two.near, &category_tag("science"));
    let answer = two.near.get(&path("science"));
    let archived = || answer.json()["archived"] == true;
    assert!(answer.status == 502 || archived(), "{answer}");
}

#[test]
fn a_write_without_a_name_leaves_the_bus_alone() {
    let redis = RedisServer::start();
    let config = "
[resource.note]
path = \"/notes\"
write.POST.sql = \"note_add\"
";
    let options = LarderOptions::new(config)
        .env("REDIS_URL", &redis.url())
        .statement(
            "note_add",
            "INSERT INTO users (name, email) VALUES (:name, 'a@example.org')",
        );
    let replicas = Larder::start_many(2, &options);
    replicas.iter().for_each(until_trusted);
    for replica in &replicas {
        let done = replica.post("/notes", &json!({"name": "n"})).expect(201);
        assert!(done.header("Larder-Clock").is_some(), "{done}");
    }
    // They heard this message after the other one, so they have heard the other one without harm.
    let done = invalidate(&replicas[0], &json!({"tags": ["later"]}));
    until(SOON, "both have heard of it", || {
        replicas
            .iter()
            .all(|replica| replica.stats()["bus"]["clock"] == done.clock.as_str())
    });
    for replica in &replicas {
        assert!(!replica.log().contains("bus is lost"));
    }
}

#[test]
fn a_message_that_cannot_be_read_costs_nobody_the_bus() {
    let two = Two::start();
    let version = two.warm("science");
    let strange: u32 = two
        .redis
        .cli(&["PUBLISH", "{larder:bus}", "{\"none\":\"of larder's\"}"]);
    assert_eq!(strange, 2, "both listen");
    let (next, _) = two.change(&two.near, "science");
    assert!(next > version);
    until(SOON, "the other one has heard", || {
        warm(&two.far, "science") == next
    });
    for replica in two.both() {
        assert!(!replica.log().contains("bus is lost"));
    }
}
