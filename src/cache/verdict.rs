//! Verdicts: what may be done with a copy.
//!
//! Two questions decide: what became of the names that it depends on, and how old it is. Where nobody can tell the first, since
//! neither the bus nor Redis answers, a resource's `blind_ttl` says for how long that is borne.

use std::sync::Arc;

use super::clock::{Micros, micros};
use super::coherence::{Dependency, Name, Stamp, Standing};
use super::core::Core;
use super::entry::Entry;
use super::error::LoadError;
use super::key::Key;
use super::outcome::{Answer, Outcome, Staleness, Trace};
use super::policy::{Freshness, Policy};

impl Core {
    /// What a value depends on whose load has this stamp.
    pub(crate) fn depend(&self, stamp: Stamp, names: &Arc<[Name]>) -> Box<[Dependency]> {
        Box::new([self.mirror.dependency(stamp, names)])
    }

    /// What may be done now with a copy whose fresh life ends at `until`.
    pub(crate) fn judge(&self, entry: &Entry, until: Micros, policy: &Policy) -> Freshness {
        let (sharp, now) = (entry.ends_sharply(), self.clock.now());
        match self.mirror.standing(&entry.dependencies) {
            Standing::Valid => policy.judge(sharp, until, now),
            // Its fresh life ended with the invalidation, whose clock is close to the time of Redis. Pending ones have none yet.
            Standing::Soft(clock) => {
                let ended = if clock == 0 {
                    now
                } else {
                    self.clock.local_of_redis(clock).min(now)
                };
                policy.judge(sharp, until.min(ended), now)
            }
            Standing::Invalid => Freshness::Dead,
            Standing::OtherHistory if self.mirror.invalidated_since_reset(&entry.dependencies) => {
                Freshness::Dead
            }
            Standing::OtherHistory => policy.judge_after_reset(sharp, entry.loaded_at, now),
        }
    }

    /// The same for a copy at hand that no tier calls fresh: one from Redis past its life there, or one that was in memory.
    pub(crate) fn judge_stale(&self, entry: &Entry, policy: &Policy) -> Freshness {
        self.judge(entry, entry.ends.memory_until, policy)
    }

    /// Keeps a stale copy for a while without a new attempt, after one that failed.
    pub(crate) fn hold(&self, key: &Key, stale: &Entry, policy: &Policy, error: &LoadError) {
        let now = self.clock.now();
        let (reason, pause) = match error {
            LoadError::Spent { retry_after, .. } => {
                (Staleness::Spent, policy.memory.min(*retry_after))
            }
            _ => (Staleness::Held, policy.memory / 10),
        };
        let mut held = stale.clone();
        held.hold = Some((now + micros(pause), reason));
        self.memory
            .fill(key.clone(), Arc::new(held), policy, &self.clock);
    }

    /// Whether memory may be served although nobody can tell what became of it: neither the bus nor Redis answers, and the
    /// resource bears with it for that long.
    pub(super) fn may_serve_blind(&self, entry: &Entry, policy: &Policy, now: Micros) -> bool {
        !self.redis.pool().is_up() && self.bears_blindness(entry, policy, now)
    }

    fn bears_blindness(&self, entry: &Entry, policy: &Policy, now: Micros) -> bool {
        let since = self.mirror.trust_until().max(entry.loaded_at);
        policy
            .blind_ttl
            .is_none_or(|blind| now < since.saturating_add(micros(blind)))
    }

    /// Whether a copy may be the answer now that its renewal has failed: as far as policy bears it, and one that nobody can vouch
    /// for only where it may stand in for an error, counted from the end of what blindness is borne.
    pub(crate) fn may_stand_in(&self, entry: &Entry, policy: &Policy) -> bool {
        let now = self.clock.now();
        if self.judge_stale(entry, policy) == Freshness::Dead {
            return false;
        }
        if self.mirror.is_trusted(now) || self.redis.pool().is_up() {
            return true;
        }
        let borne = match policy.blind_ttl {
            Some(blind) => self
                .mirror
                .trust_until()
                .max(entry.loaded_at)
                .saturating_add(micros(blind)),
            None => entry.ends.memory_until,
        };
        now < borne.saturating_add(micros(policy.stale.if_error))
    }

    /// A fresh copy from memory for a reader whose question Redis has just failed to answer.
    pub(crate) fn serve_blind(&self, entry: &Arc<Entry>, policy: &Policy) -> Option<Answer> {
        let now = self.clock.now();
        let fresh = now < entry.ends.memory_until
            && self.mirror.standing(&entry.dependencies) == Standing::Valid;
        (fresh && self.bears_blindness(entry, policy, now)).then(|| Answer {
            entry: entry.clone(),
            outcome: Outcome::MemoryHit,
            trace: Trace::default(),
        })
    }
}
