//! Values of the caller's own types, held in memory as they are.

use super::*;

fn load<T: Send + 'static>(value: T) -> impl FnOnce() -> Result<T, String> + Send + 'static {
    move || Ok(value)
}

#[test]
fn a_load_says_whether_its_value_is_another_one() {
    let (cache, policy) = (cache(), hour());
    let texts = cache.typed::<String>("text", 1).unwrap();
    for value in ["a", "a", "b"] {
        let load = load(value.to_owned());
        texts.get_or_load("k", &policy, load).unwrap();
        texts.invalidate("k", Purge::Hard);
    }
    let totals = cache.typed.tally.totals();
    let loads = [LoadResult::First, LoadResult::Same, LoadResult::Changed];
    assert_eq!(loads.map(|result| totals.loads_by(result)), [1, 1, 1]);
}

#[test]
fn a_value_weighs_its_json_and_its_type_or_what_the_caller_says() {
    let weight = |heavier: Option<usize>, text: &str| {
        let cache = cache();
        let mut texts = cache.typed::<String>("text", 1).unwrap();
        if let Some(weight) = heavier {
            texts = texts.weighed_by(move |text| text.len() * weight);
        }
        let load = load(text.to_owned());
        texts.get_or_load("k", &hour(), load).unwrap();
        cache.memory().bytes
    };
    let empty = weight(Some(0), "abc");
    assert_eq!(weight(Some(1000), "abc") - empty, 3000);
    let quotes = 2;
    let of_type = size_of::<String>() as u64;
    assert_eq!(weight(None, "abc") - empty, 3 + quotes + of_type);
}

#[test]
fn a_stale_value_that_stands_in_is_the_one_that_was_there() {
    let hour = Duration::from_secs(3600);
    let (cache, policy) = (cache(), policy(hour, Duration::ZERO, hour));
    let texts = cache.typed::<String>("text", 1).unwrap();
    let (first, _) = texts.get_or_load("k", &policy, load("v".into())).unwrap();
    texts.invalidate("k", Purge::Soft);
    // Nobody would renew it: a lookup without a load does not give it.
    assert!(texts.get("k", &policy).is_none());
    let failed = || Err::<String, _>("no");
    let (second, outcome) = texts.get_or_load("k", &policy, failed).unwrap();
    assert_eq!(outcome, Outcome::Stale(Staleness::IfError));
    let (third, outcome) = texts.get_or_load("k", &policy, failed).unwrap();
    assert_eq!(outcome, Outcome::Stale(Staleness::BackingOff));
    assert!(Arc::ptr_eq(&first, &second) && Arc::ptr_eq(&second, &third));
    assert!(outcome.is_hit() && !Outcome::Stale(Staleness::IfError).is_hit());
}

#[test]
fn a_lookup_without_a_load_neither_begins_one_nor_waits() {
    let (cache, policy) = (cache(), hour());
    let texts = cache.typed::<String>("text", 1).unwrap();
    assert!(texts.get("k", &policy).is_none());
    let (begun, has_begun) = mpsc::channel();
    let (release, gate) = mpsc::channel::<()>();
    let loading = texts.get_or_load_blocking("k", &policy, move || {
        begun.send(()).unwrap();
        gate.recv().unwrap();
        Ok::<_, String>("v".to_owned())
    });
    has_begun.recv().unwrap();
    assert!(texts.get("k", &policy).is_none());
    release.send(()).unwrap();
    let fresh = texts.get_or_load("k", &policy, || Err::<String, _>("it is loaded"));
    drop(loading);
    let (value, outcome) = texts.get("k", &policy).unwrap();
    assert!(Arc::ptr_eq(&value, &fresh.unwrap().0));
    assert_eq!(outcome, Outcome::MemoryHit);
    let nothing = || Ok::<Option<String>, String>(None);
    texts.find_or_load("absent", &policy, nothing).unwrap();
    assert!(texts.get("absent", &policy).is_none());
    assert_eq!(cache.stats().loads, 2);
}

/// Its bytes are as many as it says, and decode as one more.
struct Wrong;

impl Codec<u8> for Wrong {
    fn name(&self) -> &str {
        "wrong"
    }

    fn encode(&self, value: &u8) -> Result<Vec<u8>, CodecError> {
        if *value == 0 {
            return Err("there is no nothing".into());
        }
        Ok(vec![*value])
    }

    fn decode(&self, bytes: &[u8]) -> Result<u8, CodecError> {
        match bytes {
            [1] => panic!("one is too much"),
            [2] => Err("two is one too many".into()),
            [value] => Ok(*value),
            _ => Err("not one byte".into()),
        }
    }
}

#[test]
fn a_codec_that_fails_fails_the_load_and_strands_nobody() {
    let (cache, policy) = (cache(), hour());
    let bytes = cache.typed_with::<u8>("byte", 1, Wrong).unwrap();
    for (value, why) in [
        (
            0,
            "the value cannot be stored as wrong: there is no nothing",
        ),
        (1, "the load panicked"),
        (
            2,
            "the value cannot be stored as wrong: two is one too many",
        ),
    ] {
        let error = bytes.get_or_load(value, &policy, load(value)).unwrap_err();
        assert_eq!(error.to_string(), why);
        assert!(bytes.get(value, &policy).is_none());
    }
    assert_eq!(*bytes.get_or_load(3, &policy, load(3)).unwrap().0, 3);
    assert_eq!(cache.stats().failed_loads, 3);
}
