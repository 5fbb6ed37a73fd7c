//! What is known of a copy, for [`decide`].

use std::sync::Arc;

use super::clock::{Micros, micros};
use super::coherence::{InvalidationTarget, Stamp, Standing};
use super::core::Core;
use super::entry::{Backoff, Entry};
use super::error::LoadError;
use super::failures::Aftermath;
use super::freshness::{CopyFacts, Decision, Evidence, Validity, decide};
use super::key::Key;
use super::outcome::Outcome;
use super::policy::Policy;
use super::request::CacheItem;

impl Core {
    /// What vouches for copies at `now`, for a lookup that has not asked Redis.
    pub(crate) fn evidence(&self, now: Micros) -> Evidence {
        if self.mirror.is_trusted(now) {
            Evidence::Trusted
        } else if self.redis.pool().answers() {
            Evidence::NotAsked
        } else {
            Evidence::Unreachable
        }
    }

    /// What may be done at `now` with a copy from memory, or one that Redis no longer calls fresh.
    pub(crate) fn decide(
        &self,
        entry: &Entry,
        evidence: Evidence,
        policy: &Policy,
        now: Micros,
    ) -> Decision {
        let copy = self.facts(entry, entry.expiry.memory_until, policy);
        decide(&copy, evidence, policy, now)
    }

    /// What the decision needs to know of a copy whose fresh life ends at `fresh_until` in the tier
    /// where it was found.
    #[inline]
    pub(crate) fn facts(&self, entry: &Entry, fresh_until: Micros, policy: &Policy) -> CopyFacts {
        let standing = self.mirror.standing(entry.dependencies());
        CopyFacts {
            validity: Validity::new(
                standing,
                |clock| self.clock.local_of_redis(clock),
                // Where the policy refuses the copy anyway, the lock of the record is not taken.
                || {
                    policy.stale.on_reset
                        && self.mirror.invalidated_since_reset(entry.dependencies())
                },
            ),
            fresh_until,
            loaded_at: entry.loaded_at,
            vouched_until: self.mirror.trust_until().max(entry.load_began()),
            forbids_stale: entry.forbids_stale(),
        }
    }

    /// Keeps a stale copy after its reload has failed: see [`Aftermath`]. Returns the copy, and what
    /// those readers are told who waited for the reload.
    pub(crate) fn back_off(
        &self,
        item: &CacheItem,
        stale: &Entry,
        error: &LoadError,
    ) -> (Arc<Entry>, Outcome) {
        let after = Aftermath::of(error, &item.policy);
        let backoff = Backoff {
            until: self.clock.now() + micros(after.pause),
            reason: after.for_later,
        };
        let entry = self.keep(item, stale.with_backoff(backoff));
        (entry, Outcome::Stale(after.for_waiters))
    }

    /// Whether any of these names was invalidated since history stood `at` this point.
    pub(crate) fn is_invalidated_since(
        &self,
        at: Stamp,
        names: &Arc<[InvalidationTarget]>,
    ) -> bool {
        let dependency = self.mirror.dependency(at, names);
        let since = std::iter::once(&dependency);
        match self.mirror.standing(since.clone()) {
            Standing::Invalid | Standing::Soft(_) | Standing::SoftPending => true,
            Standing::OtherHistory => self.mirror.invalidated_since_reset(since),
            Standing::Valid => false,
        }
    }

    /// Asks Redis what became of these names. Blocks for the round trip.
    pub(crate) fn ask(&self, key: &Key, names: &[InvalidationTarget]) -> Evidence {
        match self.redis.ask_names(key, names) {
            Ok(()) => Evidence::Verified,
            Err(_) => Evidence::Unreachable,
        }
    }
}
