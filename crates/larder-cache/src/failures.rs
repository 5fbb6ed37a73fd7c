//! Loads that failed a moment ago, and are not tried again yet.
//!
//! Promise: a source that is down is asked for one key once in a while, not once for each reader,
//! so its quota is not spent on refusals. The pause doubles with each failure, from a second to a
//! tenth of the key's TTL, and to half a minute at most. It ends with a success.
//!
//! A policy can do without these pauses: [`Policy::retry_at_once`].
//!
//! A source that asks to be left alone is left alone for the time that it names: for that key, or
//! altogether. An invalidation after the pause began lifts it for the keys that it names, on every
//! replica.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::clock::{Micros, micros};
use super::coherence::Stamp;
use super::error::LoadError;
use super::key::Key;
use super::outcome::Staleness;
use super::policy::Policy;
use super::request::CacheItem;

/// The first pause, if a tenth of the TTL is longer.
const FIRST: Duration = Duration::from_secs(1);
/// The longest pause. A value with a TTL of a day must not be missing for hours after its source
/// has come back.
const LONGEST: Duration = Duration::from_secs(30);
/// Keys that are remembered.
const MOST: u64 = 10_000;

/// See the module.
pub(crate) struct Failures {
    keys: moka::sync::Cache<Key, Failure, foldhash::fast::RandomState>,
    /// Pauses of whole sources, by the share that their loads draw on. The lock is held for one
    /// look or one change.
    sources: Mutex<HashMap<Arc<str>, Failure>>,
}

#[derive(Clone)]
struct Failure {
    /// How many there were in a row.
    count: u32,
    until: Micros,
    error: LoadError,
    /// Where the history of invalidations stood then.
    at: Stamp,
}

impl Failures {
    pub(crate) fn new() -> Failures {
        let map = moka::sync::Cache::builder().max_capacity(MOST);
        Failures {
            keys: map.build_with_hasher(foldhash::fast::RandomState::default()),
            sources: Mutex::default(),
        }
    }

    /// The reason why `item` may not be loaded now. `None`: it may. `lifted` says whether anything
    /// that `item` depends on was invalidated since that point of history.
    pub(crate) fn pause_of(
        &self,
        item: &CacheItem,
        now: Micros,
        lifted: impl Fn(Stamp) -> bool,
    ) -> Option<LoadError> {
        let of_key = self.keys.get(item.key.as_str());
        let of_source = || self.sources.lock().get(&item.share).cloned();
        let holds = |failure: &Failure| failure.still_holds(now, &lifted);
        let failure = of_key.filter(holds).or_else(|| of_source().filter(holds))?;
        let retry_after = Duration::from_micros(failure.until - now);
        Some(match failure.error {
            LoadError::Paused {
                what, whole_source, ..
            } => LoadError::Paused {
                what,
                retry_after,
                whole_source,
            },
            error => LoadError::BackingOff {
                what: error.to_string(),
                slow: matches!(error, LoadError::TooSlow(_)),
                retry_after,
            },
        })
    }

    /// Notes that a load of `item` failed, at `now` and at this point of history.
    pub(crate) fn note(&self, item: &CacheItem, error: &LoadError, now: Micros, at: Stamp) {
        let (key, policy) = (&item.key, &item.policy);
        let before = self.keys.get(key.as_str());
        let before = before.map_or(0, |failure| failure.count);
        let (count, pause) = match error {
            LoadError::Failed(_) | LoadError::Own(_) | LoadError::TooSlow(_) => {
                if policy.retry_at_once {
                    return;
                }
                let ttl = if policy.redis.is_zero() {
                    policy.memory
                } else {
                    policy.redis
                };
                let longest = (ttl / 10).min(LONGEST);
                (before + 1, (FIRST * (1 << before.min(16))).min(longest))
            }
            LoadError::Paused { retry_after, .. } => (before, *retry_after),
            // No source was asked, or none could have answered. The quota's own book says when it
            // is back, and asking the book costs nothing.
            LoadError::Spent { .. }
            | LoadError::Overloaded
            | LoadError::BackingOff { .. }
            | LoadError::Unfit { .. }
            | LoadError::Bug(_) => return,
        };
        let failure = Failure {
            count,
            until: now.saturating_add(micros(pause)),
            error: error.clone(),
            at,
        };
        match error {
            LoadError::Paused {
                whole_source: true, ..
            } => drop(self.sources.lock().insert(item.share.clone(), failure)),
            _ => self.keys.insert(key.clone(), failure),
        }
    }

    /// Forgets the failures of `key`: a load has succeeded.
    pub(crate) fn clear(&self, key: &Key) {
        // Nearly always there is nothing to forget.
        if self.keys.contains_key(key.as_str()) {
            self.keys.invalidate(key.as_str());
        }
    }
}

impl Failure {
    fn still_holds(&self, now: Micros, lifted: impl Fn(Stamp) -> bool) -> bool {
        let paused = matches!(self.error, LoadError::Paused { .. });
        now < self.until && !(paused && lifted(self.at))
    }
}

/// The consequences of a failed load for the copy at hand. Every place that keeps a copy after a
/// failure, or waits for a failed part, asks [`Aftermath::of`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Aftermath {
    /// How long the copy is served without another attempt: until an attempt makes sense, but no
    /// longer than a fresh copy would be.
    pub(crate) pause: Duration,
    /// The outcome for readers that waited for the load.
    pub(crate) for_waiters: Staleness,
    /// The outcome for readers that come during the pause.
    pub(crate) for_later: Staleness,
}

impl Aftermath {
    pub(crate) fn of(error: &LoadError, policy: &Policy) -> Aftermath {
        let unknown = if policy.retry_at_once {
            Duration::ZERO
        } else {
            (policy.memory / 10).min(LONGEST)
        };
        let (for_waiters, for_later) = match error {
            error if error.is_spent() => (Staleness::Spent, Staleness::Spent),
            error if error.is_known() => (Staleness::BackingOff, Staleness::BackingOff),
            _ => (Staleness::IfError, Staleness::BackingOff),
        };
        Aftermath {
            pause: error.retry_after().unwrap_or(unknown).min(policy.memory),
            for_waiters,
            for_later,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::coherence::HistoryId;
    use super::super::policy::StaleRules;
    use super::super::request::Note;
    use super::*;

    const S: Micros = 1_000_000;
    const SECOND: Duration = Duration::from_secs(1);
    const AT: Stamp = Stamp {
        history: HistoryId(1),
        clock: 7,
        sequence: 0,
    };

    fn policy(memory: Duration, redis: Duration) -> Policy {
        Policy {
            memory,
            redis,
            absent: Duration::ZERO,
            stale: StaleRules::default(),
            soft_timeout: None,
            disconnected_ttl: None,
            revalidate: Duration::ZERO,
            exact_ttl: false,
            retry_at_once: false,
        }
    }

    fn item(key: &str, policy: Policy) -> CacheItem {
        CacheItem {
            key: Key::new(1, key),
            policy: policy.into(),
            tags: Box::default(),
            share: "quotes".into(),
            label: "quotes".into(),
            note: Note::default(),
            jitter: 0,
            tally: Arc::default(),
        }
    }

    fn paused(seconds: u64, whole_source: bool) -> LoadError {
        LoadError::Paused {
            what: "quotes answered 429".into(),
            retry_after: SECOND * seconds as u32,
            whole_source,
        }
    }

    #[test]
    fn pauses_double_up_to_a_tenth_of_the_ttl() {
        let failures = Failures::new();
        let held = |item: &CacheItem, now| failures.pause_of(item, now, |_| true);
        let error = LoadError::Failed("no".into());
        let k = item("k", policy(30 * SECOND, 50 * SECOND));
        for pause in [1, 2, 4, 5, 5] {
            failures.note(&k, &error, 100 * S, AT);
            let pause = Duration::from_secs(pause);
            assert_eq!(held(&k, 100 * S).unwrap().retry_after(), Some(pause));
        }
        let expected = LoadError::BackingOff {
            what: "no".into(),
            slow: false,
            retry_after: SECOND,
        };
        assert_eq!(held(&k, 104 * S), Some(expected));
        assert_eq!(held(&k, 105 * S), None);
        failures.clear(&k.key);
        failures.note(&k, &error, 100 * S, AT);
        assert_eq!(held(&k, 101 * S), None);
        let short = item("s", policy(SECOND / 2, Duration::ZERO));
        failures.note(&short, &error, 0, AT);
        assert!(held(&short, S / 20 - 1).is_some() && held(&short, S / 20).is_none());
    }

    #[test]
    fn without_pauses_only_a_source_that_asks_for_one_gets_it() {
        let failures = Failures::new();
        let policy = policy(30 * SECOND, 300 * SECOND).retry_at_once();
        let k = item("k", policy.clone());
        let held = |now| failures.pause_of(&k, now, |_| false);
        for error in [
            LoadError::Failed("no".into()),
            LoadError::own("no"),
            LoadError::TooSlow("no".into()),
        ] {
            failures.note(&k, &error, 100 * S, AT);
            assert_eq!(held(100 * S), None, "{error:?}");
            assert_eq!(Aftermath::of(&error, &policy).pause, Duration::ZERO);
        }
        failures.note(&k, &paused(60, false), 100 * S, AT);
        assert_eq!(held(150 * S), Some(paused(10, false)));
        assert_eq!(Aftermath::of(&paused(5, false), &policy).pause, 5 * SECOND);
    }

    #[test]
    fn a_pause_is_of_one_key_or_of_the_whole_source_and_can_be_lifted() {
        let policy = policy(30 * SECOND, 300 * SECOND);
        let (a, b) = (item("a", policy.clone()), item("b", policy.clone()));
        let other = CacheItem {
            share: "others".into(),
            ..item("c", policy)
        };
        for whole in [false, true] {
            let failures = Failures::new();
            let held = |item: &CacheItem, now| failures.pause_of(item, now, |_| false);
            failures.note(&a, &paused(60, whole), 100 * S, AT);
            assert_eq!(held(&a, 150 * S), Some(paused(10, whole)));
            assert_eq!(held(&b, 150 * S), whole.then(|| paused(10, true)));
            assert_eq!(held(&other, 150 * S), None);
            assert_eq!(held(&a, 160 * S), None);
            // Each looks at its own names.
            assert_eq!(failures.pause_of(&a, 150 * S, |at| at == AT), None);
        }
    }

    #[test]
    fn one_function_says_how_long_a_copy_is_kept_without_a_load_and_what_is_told() {
        use Staleness::{BackingOff, IfError, Spent};
        let spent = |seconds| LoadError::Spent {
            what: "guardian".into(),
            retry_after: Duration::from_secs(seconds),
        };
        let held = LoadError::BackingOff {
            what: "no".into(),
            slow: false,
            retry_after: 2 * SECOND,
        };
        let failed = LoadError::Failed("no".into());
        let slow = LoadError::TooSlow("no".into());
        let day = Duration::from_secs(86_400);
        for (error, memory, pause, for_waiters, for_later) in [
            (spent(1), 30 * SECOND, SECOND, Spent, Spent),
            (spent(3600), 30 * SECOND, 30 * SECOND, Spent, Spent),
            (paused(5, false), 30 * SECOND, 5 * SECOND, Spent, Spent),
            (paused(90, true), 30 * SECOND, 30 * SECOND, Spent, Spent),
            (
                held.clone(),
                30 * SECOND,
                2 * SECOND,
                BackingOff,
                BackingOff,
            ),
            (held, SECOND, SECOND, BackingOff, BackingOff),
            (
                LoadError::Overloaded,
                30 * SECOND,
                SECOND,
                BackingOff,
                BackingOff,
            ),
            (failed.clone(), 30 * SECOND, 3 * SECOND, IfError, BackingOff),
            (slow, 30 * SECOND, 3 * SECOND, IfError, BackingOff),
            (failed.clone(), day, LONGEST, IfError, BackingOff),
            (failed, Duration::ZERO, Duration::ZERO, IfError, BackingOff),
        ] {
            let expected = Aftermath {
                pause,
                for_waiters,
                for_later,
            };
            let policy = policy(memory, memory);
            assert_eq!(Aftermath::of(&error, &policy), expected, "{error:?}");
        }
    }
}
