//! Values of the caller's own types, over a real Redis. Two caches stand for two programs.

use std::collections::HashMap;

use larder_cache::{Cache, LoadError, Outcome, TaggedKey};
use serde::{Deserialize, Serialize};

use super::{policy, trusted};
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
        assert_eq!(
            error.unwrap_err(),
            LoadError::Failed("not there".to_owned())
        );
    }
    assert_eq!(other.typed_totals().unreadable, 0);
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
    assert!(other.typed_totals().unreadable > 0);
    assert_eq!(other.typed_totals().misses, 1);
    let load = || Err::<after::Account, _>("memory has it");
    let (found, outcome) = accounts
        .get_or_load(TaggedKey::new(), &policy(), load)
        .unwrap();
    assert_eq!((found.balance, outcome), (Some(7), Outcome::MemoryHit));
    assert_eq!(other.typed_totals().hits, 1);
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
    let awaited = nested.get_or_load_async(TaggedKey::new(), &policy(), || {
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
        numbers.get_or_load(of(n), &policy(), load).unwrap().0
    };
    assert_eq!((ask(1, 1), ask(2, 2)), (1, 2));
    cache.invalidate(&[numbers.name(&of(1))], larder_cache::Purge::Hard);
    assert_eq!((ask(1, 3), ask(2, 4)), (3, 2));
}
