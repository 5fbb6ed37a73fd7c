//! Loads that failed a moment ago, and are not tried again yet.
//!
//! Promise: a source that is down is asked for one key once in a while, not once for each reader: its quota is not spent on
//! refusals. The pause doubles from failure to failure, from a second to a tenth of the key's TTL, half a minute at most, and ends with a success.

use std::time::Duration;

use super::clock::{Micros, micros};
use super::error::LoadError;
use super::key::Key;
use super::policy::Policy;

/// The first pause, where a tenth of the TTL is longer.
const FIRST: Duration = Duration::from_secs(1);
/// The longest pause: a value that lives for a day is not to be missing for hours after its source has come back.
const LONGEST: Duration = Duration::from_secs(30);
/// Keys that are remembered.
const MOST: u64 = 10_000;

/// See the module.
pub(crate) struct Failures(moka::sync::Cache<Key, Failure, foldhash::fast::RandomState>);

#[derive(Clone)]
struct Failure {
    /// How many there were in a row.
    count: u32,
    until: Micros,
    error: LoadError,
}

impl Failures {
    pub(crate) fn new() -> Failures {
        let map = moka::sync::Cache::builder().max_capacity(MOST);
        Failures(map.build_with_hasher(foldhash::fast::RandomState::default()))
    }

    /// Why `key` is not to be loaded now, if it is not.
    pub(crate) fn held(&self, key: &Key, now: Micros) -> Option<LoadError> {
        let failure = self
            .0
            .get(key.as_str())
            .filter(|failure| now < failure.until)?;
        let (what, slow) = (
            failure.error.to_string(),
            matches!(failure.error, LoadError::TooSlow(_)),
        );
        Some(LoadError::Held {
            what,
            slow,
            retry_after: Duration::from_micros(failure.until - now),
        })
    }

    /// Notes a failure of the source; returns until when it is not asked again.
    pub(crate) fn note(
        &self,
        key: &Key,
        error: &LoadError,
        policy: &Policy,
        now: Micros,
    ) -> Micros {
        let ttl = if policy.redis.is_zero() {
            policy.memory
        } else {
            policy.redis
        };
        let longest = (ttl / 10).min(LONGEST);
        let pause = match error {
            // The quota's own book tells when it is back, and asking that costs nothing.
            LoadError::Spent { retry_after, .. } => {
                return now + micros(policy.memory.min(*retry_after));
            }
            // Nobody was asked, or for nothing that could be had.
            LoadError::Overloaded | LoadError::Held { .. } | LoadError::Unfit { .. } => return now,
            LoadError::Failed(_) | LoadError::TooSlow(_) => {
                let count = self.0.get(key.as_str()).map_or(0, |failure| failure.count);
                let pause = (FIRST * (1 << count.min(16))).min(longest);
                let failure = Failure {
                    count: count + 1,
                    until: now + micros(pause),
                    error: error.clone(),
                };
                self.0.insert(key.clone(), failure);
                pause
            }
        };
        now + micros(pause)
    }

    /// Forgets the failures of `key`: a load has succeeded.
    pub(crate) fn clear(&self, key: &Key) {
        // Nearly always there is nothing to forget.
        if self.0.contains_key(key.as_str()) {
            self.0.invalidate(key.as_str());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::policy::StaleRules;
    use super::*;

    const S: Micros = 1_000_000;

    #[test]
    fn pauses_double_up_to_a_tenth_of_the_ttl() {
        let policy = Policy {
            memory: Duration::from_secs(30),
            redis: Duration::from_secs(50),
            absent: Duration::ZERO,
            stale: StaleRules::default(),
            soft_timeout: None,
            blind_ttl: None,
            revalidate: Duration::ZERO,
        };
        let (failures, key) = (Failures::new(), Key::new(1, "k"));
        let error = LoadError::Failed("no".into());
        for pause in [1, 2, 4, 5, 5] {
            assert_eq!(
                failures.note(&key, &error, &policy, 100 * S),
                (100 + pause) * S
            );
        }
        let held = LoadError::Held {
            what: "no".into(),
            slow: false,
            retry_after: Duration::from_secs(1),
        };
        assert_eq!(failures.held(&key, 104 * S), Some(held));
        assert_eq!(failures.held(&key, 105 * S), None);
        failures.clear(&key);
        assert_eq!(failures.note(&key, &error, &policy, 100 * S), 101 * S);
        let short = Policy {
            redis: Duration::ZERO,
            memory: Duration::from_millis(500),
            ..policy
        };
        assert_eq!(failures.note(&Key::new(1, "s"), &error, &short, 0), S / 20);
    }
}
