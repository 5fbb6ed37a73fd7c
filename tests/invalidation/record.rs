//! Somebody else has changed the record in Redis: another type, not a number, ahead of every clock.

use std::time::Duration;

use super::{MAX_STALENESS, Two, bus, never_old_after, until_trusted};
use testkit::larder::Larder;
use testkit::news::path;
use testkit::versions::{VersionsConfig, version, version_in};
use testkit::{SOON, until};

/// How somebody changes the record: a list of commands.
type Damage = &'static [&'static [&'static str]];

const STATE: &str = "{larder:bus}:state";
const NAMES: &str = "{larder:bus}:names";
const LOG: &str = "{larder:bus}:log";

/// Whatever has replaced the record, entries from before are invalid, as after a loss, and the
/// history goes on.
fn is_a_new_history(damage: Damage) {
    let two = Two::start();
    assert_eq!(two.warm("science"), 1);
    // Changed without an invalidation: replicas load again only because the history is lost.
    let new = two.versions.publish("science");
    let mut connection = two.redis.connect();
    for words in damage {
        redis::cmd(words[0])
            .arg(&words[1..])
            .exec(&mut connection)
            .unwrap();
    }
    for replica in two.both() {
        until(
            SOON,
            &format!("what was loaded before is no answer: {damage:?}"),
            || version(replica, "science") == new,
        );
    }
    two.both_trust();
    for replica in two.both() {
        assert_eq!(replica.stats()["redis"]["up"], true, "{damage:?}");
        let (new, change) = two.change(replica, "science");
        assert!(!change.pending, "{damage:?}: {change:?}");
        never_old_after(MAX_STALENESS, &change, &two.both(), "science", new);
    }
    two.both_trust();
    let third =
        Larder::start(&VersionsConfig::default().options(&two.versions, two.redis.address()));
    until_trusted(&third);
}

#[test]
fn a_state_of_another_type_is_a_new_history() {
    is_a_new_history(&[&["SET", STATE, "foo"]]);
    is_a_new_history(&[&["DEL", STATE], &["RPUSH", STATE, "foo"]]);
}

#[test]
fn a_clock_that_is_no_number_is_a_new_history() {
    is_a_new_history(&[&["HSET", STATE, "clock", "soon"]]);
    is_a_new_history(&[&["HSET", STATE, "clock", "-7"]]);
    is_a_new_history(&[&["HSET", STATE, "clock", "1e15"]]);
    is_a_new_history(&[&["HSET", STATE, "clock", ""]]);
}

#[test]
fn a_clock_that_does_not_advance_is_a_new_history() {
    // Beyond 2^53, where Lua's numbers are not exact any more.
    is_a_new_history(&[&["HSET", STATE, "clock", "9007199254740993"]]);
    is_a_new_history(&[&["HSET", STATE, "clock", "9007199254740991"]]);
    is_a_new_history(&[&["HSET", STATE, "clock", "18446744073709551615"]]);
    is_a_new_history(&[&["HSET", STATE, "clock", "99999999999999999999999999"]]);
}

#[test]
fn an_epoch_or_a_floor_that_is_none_is_a_new_history() {
    is_a_new_history(&[&["HSET", STATE, "epoch", "foo"]]);
    is_a_new_history(&[&["HSET", STATE, "floor", "foo"]]);
    // Later than any clock so far.
    is_a_new_history(&[&["HSET", STATE, "floor", "9007199254740000"]]);
    is_a_new_history(&[&["HSET", STATE, "pruned_to", "9007199254740000"]]);
    is_a_new_history(&[&["HDEL", STATE, "soft"]]);
}

#[test]
fn names_or_a_log_of_another_type_are_a_new_history() {
    is_a_new_history(&[&["SET", NAMES, "foo"]]);
    is_a_new_history(&[&["DEL", NAMES], &["SADD", NAMES, "foo"]]);
    is_a_new_history(&[&["SET", LOG, "foo"]]);
    is_a_new_history(&[&["DEL", LOG], &["HSET", LOG, "foo", "bar"]]);
}

/// Redis gives the last possible clock once. The next one belongs to a new history.
///
/// A ping may begin the new history before the reply with the last clock is applied. Then the
/// invalidation is delivered to the new history, too, and acknowledged with a clock of that one. So
/// the messages tell which clocks were given.
#[test]
fn the_last_clock_is_given_once() {
    const LAST: &str = "9007199254740991";
    let two = Two::start();
    assert_eq!(two.warm("science"), 1);
    let mut connection = two.redis.connect();
    connection.set_read_timeout(Some(SOON)).unwrap();
    let mut messages = connection.as_pubsub();
    messages.subscribe("{larder:bus}").unwrap();
    two.redis
        .cli::<i64>(&["HSET", STATE, "clock", "9007199254740990"]);
    let mut clocks = Vec::new();
    for _ in 0..4 {
        let (new, change) = two.change(&two.near, "science");
        assert!(!change.pending, "{change:?}");
        never_old_after(MAX_STALENESS, &change, &two.both(), "science", new);
        clocks.push(change.clock);
    }
    let mut given: Vec<String> = Vec::new();
    while given.last() != clocks.last() {
        let message = messages.get_message().unwrap().get_payload_bytes().to_vec();
        let message: serde_json::Value = serde_json::from_slice(&message).unwrap();
        if message["k"] == "h" {
            given.push(message["c"].as_str().unwrap().to_owned());
        }
    }
    assert_eq!(given[0], LAST, "{given:?}");
    let number = |clock: &String| clock.parse::<u64>().unwrap();
    assert!(number(&given[1]) < number(&given[0]), "{given:?}");
    assert!(given[1..].is_sorted_by_key(number), "{given:?}");
    assert!(!given[1..].iter().any(|clock| clock == LAST), "{given:?}");
    assert!(clocks.iter().all(|clock| given.contains(clock)));
    two.both_trust();
}

/// A log whose last id is ahead of the clock takes no more entries.
#[test]
fn a_log_that_is_ahead_costs_no_invalidation() {
    let two = Two::start();
    assert_eq!(two.warm("science"), 1);
    two.redis
        .cli::<String>(&["XADD", LOG, "9007199254740000-0", "m", "foo"]);
    let (new, change) = two.change(&two.near, "science");
    assert!(!change.pending, "{change:?}");
    never_old_after(MAX_STALENESS, &change, &two.both(), "science", new);
    // Also for a replica that missed it, because its bus was cut.
    two.redis
        .cli::<String>(&["XADD", LOG, "9007199254740000-0", "m", "foo"]);
    two.proxy.cut_bus();
    until(SOON, "trust ends", || bus(&two.far)["trusted"] == false);
    let (new, change) = two.change(&two.near, "science");
    two.proxy.restore();
    two.both_trust();
    never_old_after(Duration::ZERO, &change, &two.both(), "science", new);
    assert_eq!(two.warm("science"), new);
}

/// A foreign value under the key of an entry, a lease or the replicas counts as missing.
#[test]
fn a_lease_of_another_type_is_none() {
    let two = Two::start();
    assert_eq!(two.warm("science"), 1);
    let value = two.redis.keys("larder:v:*").pop().unwrap();
    let lease = value.replace("larder:v:", "larder:l:");
    two.redis.cli::<i64>(&["RPUSH", &lease, "foo"]);
    two.redis.cli::<i64>(&["DEL", &value]);
    two.redis.cli::<i64>(&["RPUSH", &value, "foo"]);
    two.redis
        .cli::<()>(&["SET", "{larder:bus}:replicas", "foo"]);
    let (new, change) = two.change(&two.near, "science");
    assert!(!change.pending);
    let answer = two.near.get(&path("science"));
    assert_eq!(version_in(&answer, "science"), new);
    assert!(answer.the("Cache-Status").contains("; stored"), "{answer}");
    two.both_trust();
    until(SOON, "both are listed", || {
        let listed = two.near.get("/cache/replicas").expect(200).json();
        listed["replicas"]
            .as_array()
            .is_some_and(|all| all.len() == 2)
    });
}
