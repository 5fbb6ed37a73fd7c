//! Entry <-> bytes in Redis; versioned, checksummed, never panics on any bytes.
//!
//! Layout, integers little-endian: `LDR` and the version (4 bytes), the id of the load (8), XXH3 of
//! all that follows (8), flags (1), history id (8), load clock (8), end of the load on Redis's
//! clock (8, microseconds), freshness lifetime (8, microseconds), duration of the load (8,
//! microseconds), the validator as length (2; 0: none) and text, then the body to the end. The tags
//! are not in it: whoever looks for a key knows them.
//!
//! Rolling deployments: a replica reads its own version only and takes any other for a miss. Two
//! versions side by side cost loads, never wrong answers. The id of the load stays where it is in
//! every version, since the lease script compares it.

use std::time::Duration;

use bytes::Bytes;

use super::clock::Clock;
use super::coherence::{Dependency, HistoryId, Stamp};
use super::entry::{Entry, Extras, Value};
use super::key::hash;
use super::policy::{Lifetime, Policy};

const HEAD: &[u8; 4] = b"LDR\x03";
const SUMMED_FROM: usize = 20;
const ABSENT: u8 = 1;
const SHORTENED: u8 = 2;
const MAX_AGE: u8 = 4;
const MUST_REVALIDATE: u8 = 8;

/// The bytes that stand for `entry` in Redis. `load_id`: a new one for each load and each
/// confirmation.
pub fn encode(entry: &Entry, load_id: u64, fresh_for: Duration, clock: &Clock) -> Vec<u8> {
    let body = entry.value.bytes();
    let validator = entry.validator().unwrap_or_default();
    let mut out = Vec::with_capacity(SUMMED_FROM + 43 + validator.len() + body.len());
    out.extend_from_slice(HEAD);
    out.extend_from_slice(&load_id.to_le_bytes());
    out.extend_from_slice(&[0; 8]);
    let absent = if entry.value.is_absent() { ABSENT } else { 0 };
    let lifetime = match entry.lifetime() {
        // A value that is not stored gets no envelope.
        Lifetime::Policy | Lifetime::NoStore => 0,
        Lifetime::Shortened => SHORTENED,
        Lifetime::MaxAge(_) => MAX_AGE,
        Lifetime::MustRevalidate(_) => MUST_REVALIDATE,
    };
    out.push(absent | lifetime);
    for number in [
        entry.own.stamp.history.0,
        entry.own.stamp.clock,
        clock.redis_of_local(entry.loaded_at),
        super::clock::micros(fresh_for),
        entry.load_time,
    ] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    out.extend_from_slice(&(validator.len() as u16).to_le_bytes());
    out.extend_from_slice(validator.as_bytes());
    out.extend_from_slice(body);
    let sum = hash(&out[SUMMED_FROM..]);
    out[12..SUMMED_FROM].copy_from_slice(&sum.to_le_bytes());
    out
}

/// The entry that `bytes` stand for. It expires by this replica's `policy`. `own` returns what a
/// value depends on whose load has that stamp. `None` for bytes that are not an envelope of this
/// version, or a damaged one.
pub fn decode(
    bytes: &Bytes,
    own: impl FnOnce(Stamp) -> Dependency,
    policy: &Policy,
    jitter: u64,
    clock: &Clock,
) -> Option<Entry> {
    if bytes.get(..4)? != HEAD || hash(bytes.get(SUMMED_FROM..)?) != number(bytes, 12)? {
        return None;
    }
    let flags = *bytes.get(SUMMED_FROM)?;
    let [history, load_clock, loaded_at, fresh_for, load_time] =
        [0, 1, 2, 3, 4].map(|i| number(bytes, SUMMED_FROM + 1 + 8 * i));
    let mut at = SUMMED_FROM + 41;
    let validator = Some(text(bytes, &mut at)?).filter(|validator| !validator.is_empty());
    let value = if flags & ABSENT == 0 {
        Value::Present(bytes.slice(at..))
    } else {
        Value::Absent
    };
    let said = Duration::from_micros(fresh_for?);
    let lifetime = match flags & !ABSENT {
        0 => Lifetime::Policy,
        SHORTENED => Lifetime::Shortened,
        MAX_AGE => Lifetime::MaxAge(said),
        MUST_REVALIDATE => Lifetime::MustRevalidate(said),
        _ => return None,
    };
    // Not in the future, however the clocks were set meanwhile.
    let loaded_at = clock.local_of_redis(loaded_at?).min(clock.now());
    let fresh_until = loaded_at.checked_add(fresh_for?)?;
    let own = own(Stamp {
        history: HistoryId(history?),
        clock: load_clock?,
        sequence: 0,
    });
    let expiry = policy.expiry(
        value.is_absent(),
        lifetime,
        jitter,
        fresh_until,
        clock.now(),
    );
    let extras = Extras {
        lifetime,
        validator: validator.map(Into::into),
        ..Extras::default()
    };
    Some(Entry::new(
        value, own, loaded_at, load_time?, expiry, extras,
    ))
}

/// The beginning of an envelope of a load with this stamp, for the fill script, which compares the
/// version, the history and the load clock where they are.
pub(crate) fn head(stamp: Stamp) -> [u8; SUMMED_FROM + 17] {
    let mut head = [0; SUMMED_FROM + 17];
    head[..4].copy_from_slice(HEAD);
    head[21..29].copy_from_slice(&stamp.history.0.to_le_bytes());
    head[29..].copy_from_slice(&stamp.clock.to_le_bytes());
    head
}

/// The id of the load that made the envelope, where the lease script finds it. Empty for bytes that
/// are too short.
pub(crate) fn load_id(bytes: &[u8]) -> &[u8] {
    bytes.get(4..12).unwrap_or_default()
}

fn number(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// The text at `at`, after its length in two bytes. Moves `at` behind it.
fn text<'a>(bytes: &'a [u8], at: &mut usize) -> Option<&'a str> {
    let (length, rest) = bytes.get(*at..)?.split_first_chunk()?;
    let text = rest.get(..u16::from_le_bytes(*length).into())?;
    *at += 2 + text.len();
    std::str::from_utf8(text).ok()
}

#[cfg(test)]
mod tests {
    use super::super::policy::{Expiry, StaleRules};
    use super::*;
    use std::sync::Arc;

    use proptest::prelude::*;

    fn policy() -> Policy {
        Policy {
            memory: Duration::from_secs(30),
            redis: Duration::from_secs(300),
            absent: Duration::from_secs(5),
            stale: StaleRules::default(),
            soft_timeout: None,
            disconnected_ttl: None,
            revalidate: Duration::ZERO,
            exact_ttl: false,
            retry_at_once: false,
        }
    }

    fn own(stamp: Stamp) -> Dependency {
        Dependency::unknown(stamp, Arc::default())
    }

    fn entry(body: Option<Vec<u8>>, extras: Extras, clock: &Clock) -> Entry {
        let value = body.map_or(Value::Absent, |body| Value::Present(body.into()));
        let stamp = Stamp {
            history: HistoryId(8),
            clock: 9,
            sequence: 0,
        };
        let never = Expiry {
            memory_until: 0,
            fresh_until: 0,
        };
        Entry::new(value, own(stamp), clock.now(), 12_000, never, extras)
    }

    fn envelope(body: Vec<u8>, clock: &Clock) -> Vec<u8> {
        let extras = Extras {
            lifetime: Lifetime::Shortened,
            validator: Some("\"abc\"\n".into()),
            ..Extras::default()
        };
        let entry = entry(Some(body), extras, clock);
        encode(&entry, 7, Duration::from_secs(1), clock)
    }

    proptest! {
        #[test]
        fn round_trips(
            body: Option<Vec<u8>>,
            validator in proptest::option::of(".{1,20}"),
            lifetime in prop_oneof![
                Just(Lifetime::Policy),
                Just(Lifetime::Shortened),
                Just(Lifetime::MaxAge(Duration::from_secs(60))),
                Just(Lifetime::MustRevalidate(Duration::from_secs(60))),
            ],
        ) {
            let clock = Clock::new();
            clock.heard_redis(clock.now() + 3_000_000, clock.now());
            let validator = validator.map(Into::into);
            let extras = Extras { lifetime, validator, ..Extras::default() };
            let before = entry(body, extras, &clock);
            let bytes = Bytes::from(encode(&before, 7, Duration::from_secs(60), &clock));
            prop_assert_eq!(load_id(&bytes), 7u64.to_le_bytes());
            let after = decode(&bytes, own, &policy(), 0, &clock).unwrap();
            prop_assert_eq!(&after.value, &before.value);
            prop_assert_eq!(after.validator(), before.validator());
            prop_assert_eq!(
                (after.hash, after.stamp(), after.loaded_at, after.load_time, after.lifetime()),
                (before.hash, before.stamp(), before.loaded_at, before.load_time, before.lifetime())
            );
            prop_assert_eq!(after.expiry.fresh_until, before.loaded_at + 60_000_000);
        }

        #[test]
        fn survives_any_bytes(bytes: Vec<u8>) {
            prop_assert!(decode(&bytes.into(), own, &policy(), 0, &Clock::new()).is_none());
        }

        #[test]
        fn refuses_a_damaged_envelope(body: Vec<u8>, at: prop::sample::Index, flip in 1..=255u8) {
            let clock = Clock::new();
            let mut bytes = envelope(body, &clock);
            // All but the load's id is covered by the checksum or compared.
            let at = at.index(bytes.len() - 8);
            let at = if at < 4 { at } else { at + 8 };
            bytes[at] ^= flip;
            prop_assert!(decode(&bytes.into(), own, &policy(), 0, &clock).is_none());
        }

        #[test]
        fn survives_a_body_that_ends_early(body: Vec<u8>, cut: prop::sample::Index) {
            let clock = Clock::new();
            let mut bytes = envelope(body, &clock);
            bytes.truncate(cut.index(bytes.len()));
            // Also with a checksum that fits the rest: the lengths inside must not be believed.
            if bytes.len() > SUMMED_FROM {
                let sum = hash(&bytes[SUMMED_FROM..]);
                bytes[12..SUMMED_FROM].copy_from_slice(&sum.to_le_bytes());
            }
            let _ = decode(&bytes.into(), own, &policy(), 0, &clock);
        }
    }
}
