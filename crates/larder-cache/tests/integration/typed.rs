//! Values of the caller's own types, over a real Redis. Two caches stand for two programs.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;

use larder_cache::{
    Cache, Codec, CodecError, Error, Inserted, InvalidationTarget, Json, Outcome, Purge,
    RedisCommand, TaggedKey, Typed,
};
use serde::{Deserialize, Serialize};

use super::{policy, steady, trusted};
use testkit::redis::RedisServer;

/// The types of a program before and after they were moved.
mod before {
    use super::*;

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    pub(super) struct User {
        pub(super) name: String,
    }
}

mod after {
    use super::*;

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    pub(super) struct Person {
        pub(super) name: String,
    }

    /// Another type that would accept nearly any JSON.
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    pub(super) struct Account {
        pub(super) balance: Option<i64>,
    }
}

#[test]
fn programs_share_what_has_one_name_and_version() {
    let redis = RedisServer::start();
    let (one, other) = (trusted(&redis.url()), trusted(&redis.url()));
    let ada = || TaggedKey::new().with("id", 1);
    let users = one.typed::<before::User>("user", 1).unwrap();
    let load = || {
        Ok::<_, String>(before::User {
            name: "Ada".to_owned(),
        })
    };
    assert_eq!(
        users.get_or_load(ada(), &policy(), load).unwrap().1,
        Outcome::Loaded
    );
    let people = other.typed::<after::Person>("user", 1).unwrap();
    let (found, outcome) = people
        .get_or_load(ada(), &policy(), || Err::<after::Person, _>("it is there"))
        .unwrap();
    assert_eq!((found.name.as_str(), outcome), ("Ada", Outcome::RedisHit));
    // Another version or another name is not found.
    for (name, version) in [("user", 2), ("person", 1)] {
        let others = other.typed::<after::Person>(name, version).unwrap();
        let error = others.get_or_load(ada(), &policy(), || Err::<after::Person, _>("not there"));
        assert_eq!(error.unwrap_err(), Error::Load(Arc::new("not there")));
    }
    assert_eq!(other.stats().unreadable, 0);
}

#[test]
fn another_type_under_one_name_is_a_miss_that_is_counted() {
    let redis = RedisServer::start();
    let (one, other) = (trusted(&redis.url()), trusted(&redis.url()));
    let users = one.typed::<before::User>("thing", 1).unwrap();
    let load = || {
        Ok::<_, String>(before::User {
            name: "Ada".to_owned(),
        })
    };
    users
        .get_or_load(TaggedKey::new(), &policy(), load)
        .unwrap();
    // serde alone would read a user as an account that has no balance.
    let accounts = other.typed::<after::Account>("thing", 1).unwrap();
    let load = || Ok::<_, String>(after::Account { balance: Some(7) });
    let (found, outcome) = accounts
        .get_or_load(TaggedKey::new(), &policy(), load)
        .unwrap();
    assert_eq!((found.balance, outcome), (Some(7), Outcome::Loaded));
    assert!(other.stats().unreadable > 0);
    assert_eq!(other.stats().misses, 1);
    let load = || Err::<after::Account, _>("memory has it");
    let (found, outcome) = accounts
        .get_or_load(TaggedKey::new(), &policy(), load)
        .unwrap();
    assert_eq!((found.balance, outcome), (Some(7), Outcome::MemoryHit));
    assert_eq!(other.stats().hits, 1);
    // Within one program this is a mistake, and reported as an error.
    let error = one.typed::<u8>("thing", 1).err().unwrap();
    assert!(
        error.contains("`thing`, version 1,") && error.contains("User"),
        "{error}"
    );
    assert!(one.typed::<u8>("thing", 2).is_ok());
    assert!(one.typed::<u8>("a thing", 1).is_err());
}

#[test]
fn a_value_that_json_cannot_keep_is_an_error_of_its_load() {
    let cache = Cache::builder().build().unwrap();
    let maps = cache.typed::<HashMap<(u8, u8), u8>>("map", 1).unwrap();
    let load = || Ok::<_, String>(HashMap::from([((1, 2), 3)]));
    let error = maps
        .get_or_load(TaggedKey::new(), &policy(), load)
        .unwrap_err();
    assert!(
        error.to_string().contains("key must be a string"),
        "{error}"
    );
    let numbers = cache.typed::<f64>("float", 1).unwrap();
    let error = numbers
        .get_or_load(TaggedKey::new(), &policy(), || Ok::<_, String>(f64::NAN))
        .unwrap_err();
    assert!(
        error.to_string().contains("JSON cannot represent NaN"),
        "{error}"
    );
    let nested = cache.typed::<Vec<Option<Option<u8>>>>("nested", 1).unwrap();
    let awaited = nested.get_or_load_blocking(TaggedKey::new(), &policy(), || {
        Ok::<_, String>(vec![Some(None)])
    });
    let error = actix_web::rt::System::new().block_on(awaited).unwrap_err();
    assert!(error.to_string().contains("one null"), "{error}");
}

#[test]
fn one_value_is_invalidated_by_its_key() {
    let cache = Cache::builder().build().unwrap();
    let numbers = cache.typed::<u8>("number", 1).unwrap();
    let of = |n| TaggedKey::new().with("a=b&c", n);
    let ask = |n: u8, value: u8| {
        let load = move || Ok::<_, String>(value);
        *numbers.get_or_load(of(n), &policy(), load).unwrap().0
    };
    assert_eq!((ask(1, 1), ask(2, 2)), (1, 2));
    numbers.invalidate(of(1), Purge::Hard);
    assert_eq!((ask(1, 3), ask(2, 4)), (3, 2));
}

/// JSON, and how often each direction was taken.
#[derive(Clone, Default)]
struct Counting {
    encoded: Arc<AtomicUsize>,
    decoded: Arc<AtomicUsize>,
}

impl Counting {
    fn counts(&self) -> (usize, usize) {
        let get = |count: &AtomicUsize| count.load(Ordering::SeqCst);
        (get(&self.encoded), get(&self.decoded))
    }
}

impl Codec<before::User> for Counting {
    fn name(&self) -> &str {
        "counting"
    }

    fn encode(&self, value: &before::User) -> Result<Vec<u8>, CodecError> {
        self.encoded.fetch_add(1, Ordering::SeqCst);
        Json.encode(value)
    }

    fn decode(&self, bytes: &[u8]) -> Result<before::User, CodecError> {
        self.decoded.fetch_add(1, Ordering::SeqCst);
        Json.decode(bytes)
    }
}

fn user(name: &str) -> before::User {
    before::User {
        name: name.to_owned(),
    }
}

/// Asks for user 1 on eight threads at one time. All get one and the same value.
fn ask_together(users: &Typed<before::User>) -> Arc<before::User> {
    let start = Barrier::new(8);
    let ask = || {
        start.wait();
        let load = || Ok::<_, String>(user("Ada"));
        users.get_or_load(1, &policy(), load).unwrap().0
    };
    let values: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(ask)).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    assert!(values.iter().all(|value| Arc::ptr_eq(value, &values[0])));
    values[0].clone()
}

#[test]
fn a_value_is_made_once_in_each_process_and_shared_by_its_readers() {
    let redis = RedisServer::start();
    let (one, other) = (steady(&redis.url()), steady(&redis.url()));
    let (here, there) = (Counting::default(), Counting::default());
    let users = one.typed_with("user", 1, here.clone()).unwrap();
    let loaded = ask_together(&users);
    assert_eq!(here.counts(), (1, 1));
    let users = other.typed_with("user", 1, there.clone()).unwrap();
    let from_redis = ask_together(&users);
    assert_eq!(*from_redis, *loaded);
    assert_eq!(there.counts(), (0, 1));
    for _ in 0..100 {
        let hit = users.get_or_load(1, &policy(), || Err::<before::User, _>("it is there"));
        let (value, outcome) = hit.unwrap();
        assert_eq!(outcome, Outcome::MemoryHit);
        assert!(Arc::ptr_eq(&value, &from_redis));
    }
    assert_eq!(there.counts(), (0, 1));
    assert_eq!((one.stats().loads, other.stats().loads), (1, 0));
}

#[test]
fn codecs_of_two_names_never_read_each_others_bytes() {
    let redis = RedisServer::start();
    let (one, other) = (steady(&redis.url()), steady(&redis.url()));
    let json = one.typed::<before::User>("user", 1).unwrap();
    let load = || Ok::<_, String>(user("Ada"));
    json.get_or_load(1, &policy(), load).unwrap();
    let counting = Counting::default();
    let counted = other.typed_with("user", 1, counting.clone()).unwrap();
    assert!(counted.get(1, &policy()).is_none());
    assert_eq!(counting.counts(), (0, 0));
    // By its key, whatever the codec.
    counted.get_or_load(1, &policy(), load).unwrap();
    one.invalidate(&json.target(1), Purge::Hard);
    testkit::until(testkit::SOON, "the other one has heard", || {
        counted.get(1, &policy()).is_none()
    });
    assert!(json.get(1, &policy()).is_none());
}

#[test]
fn a_lookup_without_a_load_takes_what_memory_or_redis_has() {
    let redis = RedisServer::start();
    let (one, other) = (steady(&redis.url()), steady(&redis.url()));
    let (here, there) = (
        one.typed::<String>("text", 1).unwrap(),
        other.typed::<String>("text", 1).unwrap(),
    );
    assert!(there.get(1, &policy()).is_none());
    let load = || Ok::<_, String>("v".to_owned());
    let key = || TaggedKey::from(1).tag("t");
    let (loaded, _) = here.get_or_load(key(), &policy(), load).unwrap();
    let (same, outcome) = here.get(key(), &policy()).unwrap();
    assert!(Arc::ptr_eq(&loaded, &same));
    assert_eq!(outcome, Outcome::MemoryHit);
    let (found, outcome) = there.get(key(), &policy()).unwrap();
    assert_eq!((found.as_str(), outcome), ("v", Outcome::RedisHit));
    let awaited = there.get_async(key(), &policy());
    let (again, outcome) = actix_web::rt::System::new().block_on(awaited).unwrap();
    assert!(Arc::ptr_eq(&found, &again));
    assert_eq!(outcome, Outcome::MemoryHit);
    let stats = other.stats();
    assert_eq!(
        (stats.redis_hits, stats.memory_hits, stats.misses),
        (1, 1, 1)
    );
    // What was invalidated is in neither tier.
    other.invalidate(&InvalidationTarget::tag("t"), Purge::Hard);
    assert!(there.get(key(), &policy()).is_none());
    assert_eq!(one.stats().loads + other.stats().loads, 1);
}

#[test]
fn many_keys_are_one_question_to_redis() {
    let redis = RedisServer::start();
    let (one, other) = (steady(&redis.url()), steady(&redis.url()));
    let (here, there) = (
        one.typed::<u32>("number", 1).unwrap(),
        other.typed::<u32>("number", 1).unwrap(),
    );
    for n in 0..40 {
        let load = move || Ok::<_, String>(n * n);
        here.get_or_load(n, &policy(), load).unwrap();
    }
    there.get(7, &policy()).unwrap();
    let reads = || other.metrics().redis(RedisCommand::Read).durations.count();
    let before = reads();
    // Some that are there, one of them in memory, and some that are not.
    let found = there.get_many((0..50).rev(), &policy());
    assert_eq!(reads() - before, 1);
    let found: Vec<_> = found
        .into_iter()
        .map(|found| found.map(|(value, outcome)| (*value, outcome)))
        .collect();
    let expected: Vec<_> = (0..50)
        .rev()
        .map(|n| match n {
            7 => Some((49, Outcome::MemoryHit)),
            0..40 => Some((n * n, Outcome::RedisHit)),
            _ => None,
        })
        .collect();
    assert_eq!(found, expected);
    // All are in memory now.
    let awaited = there.get_many_async(0..40, &policy());
    let found = actix_web::rt::System::new().block_on(awaited);
    let is_hit = |found: &Option<(_, Outcome)>| matches!(found, Some((_, Outcome::MemoryHit)));
    assert!(found.iter().all(is_hit));
    assert_eq!(reads() - before, 1);
    assert!(there.get_many(Vec::<u32>::new(), &policy()).is_empty());
}

#[test]
fn a_value_that_the_caller_has_is_held_here_and_decoded_once_elsewhere() {
    let redis = RedisServer::start();
    let (one, other) = (steady(&redis.url()), steady(&redis.url()));
    let (here, there) = (
        one.typed::<f64>("number", 1).unwrap(),
        other.typed::<f64>("number", 1).unwrap(),
    );
    let key = || TaggedKey::from(1).tag("numbers");
    let since = one.stamp();
    let done = here.insert(key(), 1.5, &since, &policy()).unwrap();
    assert_eq!(done.inserted, Inserted::Shared);
    let (value, outcome) = here.get(key(), &policy()).unwrap();
    assert_eq!((*value, outcome), (1.5, Outcome::MemoryHit));
    let (value, outcome) = there.get(key(), &policy()).unwrap();
    assert_eq!((*value, outcome), (1.5, Outcome::RedisHit));
    // From before a change.
    one.invalidate(&InvalidationTarget::tag("numbers"), Purge::Hard);
    let done = here.insert(key(), 1.5, &since, &policy()).unwrap();
    assert_eq!(done.inserted, Inserted::Changed);
    assert!(here.get(key(), &policy()).is_none());
    // One that cannot be kept ends the old one.
    let since = one.stamp();
    here.insert(key(), 2.5, &since, &policy()).unwrap();
    let error = here.insert(key(), f64::NAN, &one.stamp(), &policy());
    let error = error.unwrap_err().to_string();
    assert!(error.contains("JSON cannot represent NaN"), "{error}");
    assert!(here.get(key(), &policy()).is_none());
}

#[test]
fn a_redis_that_is_gone_is_a_miss_of_a_lookup_without_a_load() {
    let mut redis = RedisServer::start();
    let cache = steady(&redis.url());
    let texts = cache.typed::<String>("text", 1).unwrap();
    let load = || Ok::<_, String>("v".to_owned());
    texts.get_or_load(1, &policy(), load).unwrap();
    redis.stop();
    let found = texts.get_many([1, 2], &policy());
    assert!(found[0].is_some() && found[1].is_none());
}

#[cfg(feature = "postcard")]
#[test]
fn postcard_keeps_values_or_refuses_them() {
    use larder_cache::Postcard;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Gap {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        left_out: Option<u8>,
        after: u8,
    }

    let redis = RedisServer::start();
    let (one, other) = (steady(&redis.url()), steady(&redis.url()));
    // What JSON cannot keep.
    type Maps = HashMap<(u8, u8), Option<Option<f64>>>;
    let here = one.typed_with::<Maps>("maps", 1, Postcard).unwrap();
    let value = HashMap::from([((1, 2), Some(None)), ((3, 4), Some(Some(f64::INFINITY)))]);
    let loaded = value.clone();
    let load = move || Ok::<_, String>(loaded);
    here.get_or_load(1, &policy(), load).unwrap();
    let there = other.typed_with::<Maps>("maps", 1, Postcard).unwrap();
    let (found, outcome) = there.get(1, &policy()).unwrap();
    assert_eq!((&*found, outcome), (&value, Outcome::RedisHit));
    let gaps = one.typed_with::<Gap>("gap", 1, Postcard).unwrap();
    let load = || {
        Ok::<_, String>(Gap {
            left_out: None,
            after: 7,
        })
    };
    let error = gaps.get_or_load(1, &policy(), load).unwrap_err();
    assert!(error.to_string().contains("stored as postcard"), "{error}");
    // Bytes that are longer than the value.
    let words = one.typed_with::<(u8, u8)>("word", 1, Postcard).unwrap();
    let load = || Ok::<_, String>((1, 2));
    words.get_or_load(1, &policy(), load).unwrap();
    let bytes = other.typed_with::<u8>("word", 1, Postcard).unwrap();
    assert!(bytes.get(1, &policy()).is_none());
    assert_eq!(other.stats().unreadable, 1);
}
