//! Verdicts: what may be done with a copy.
//!
//! Two questions decide: what became of the names that it depends on, and how old it is. Where nobody can tell the first, since
//! neither the bus nor Redis answers, a resource's `disconnected_ttl` says for how long that is borne.

use std::sync::Arc;

use super::clock::{Micros, micros};
use super::coherence::{InvalidationTarget, Stamp, Standing};
use super::core::Core;
use super::entry::Entry;
use super::error::LoadError;
use super::failures::Aftermath;
use super::key::Key;
use super::outcome::{Answer, Outcome, Trace};
use super::policy::{Freshness, Policy};
use super::request::CacheItem;

/// What Redis has said in this look-up of what became of the names. That it is up says nothing: it may refuse every question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    /// It was not asked: the mirror stands for the copies at hand, as long as it is trusted.
    Unasked,
    /// It answered, and the mirror knows it.
    Told,
    /// It was asked, and refused or did not answer: without trust this replica is blind.
    Silent,
}

impl Core {
    /// What may be done now with a copy whose fresh life ends at `until`.
    pub(crate) fn judge(&self, entry: &Entry, until: Micros, policy: &Policy) -> Freshness {
        let (sharp, now) = (entry.ends_sharply(), self.clock.now());
        match self.mirror.standing(entry.dependencies()) {
            Standing::Valid => policy.judge(sharp, until, now),
            // Its fresh life ended with the invalidation, whose clock is close to the time of Redis.
            Standing::Soft(clock) => {
                let ended = self.clock.local_of_redis(clock).min(now);
                policy.judge(sharp, until.min(ended), now)
            }
            Standing::SoftPending => policy.judge(sharp, until.min(now), now),
            Standing::Invalid => Freshness::Dead,
            Standing::OtherHistory if self.mirror.invalidated_since_reset(entry.dependencies()) => {
                Freshness::Dead
            }
            Standing::OtherHistory => policy.judge_after_reset(sharp, entry.loaded_at, now),
        }
    }

    /// The same for a copy at hand that no tier calls fresh: one from Redis past its life there, or one that was in memory.
    pub(crate) fn judge_stale(&self, entry: &Entry, policy: &Policy) -> Freshness {
        self.judge(entry, entry.ends.memory_until, policy)
    }

    /// Keeps a stale copy for a while without a new attempt, after one that failed. Returns the
    /// copy, and what its readers are told who waited for the attempt.
    pub(crate) fn hold(
        &self,
        subject: &CacheItem,
        stale: &Entry,
        error: &LoadError,
    ) -> (Arc<Entry>, Outcome) {
        let after = Aftermath::of(error, &subject.policy);
        let until = self.clock.now() + micros(after.hold);
        let mut held = stale.clone();
        let particulars = held.particulars.get_or_insert_default();
        particulars.hold = Some((until, after.told_later));
        (self.keep(subject, held), Outcome::Stale(after.told))
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

    /// Whether memory may be served although nobody can tell what became of it: neither the bus nor Redis answers, and the
    /// resource bears with it for that long.
    pub(super) fn may_serve_blind(&self, entry: &Entry, policy: &Policy, now: Micros) -> bool {
        !self.redis.pool().answers() && self.bears_blindness(entry, policy, now)
    }

    fn bears_blindness(&self, entry: &Entry, policy: &Policy, now: Micros) -> bool {
        self.blindness_ends(entry, policy)
            .is_none_or(|end| now < end)
    }

    /// Until when blindness is borne; `None`: to the end of the copy's life in memory.
    fn blindness_ends(&self, entry: &Entry, policy: &Policy) -> Option<Micros> {
        // From where the load began: what it read may have been changed a moment later, however late it ended.
        let since = self.mirror.trust_until().max(entry.load_began());
        policy
            .disconnected_ttl
            .map(|blind| since.saturating_add(micros(blind)))
    }

    /// Asks Redis what became of these names. Blocks for the round trip.
    pub(crate) fn ask(&self, key: &Key, names: &[InvalidationTarget]) -> Word {
        match self.redis.ask_names(key, names) {
            Ok(()) => Word::Told,
            Err(_) => Word::Silent,
        }
    }

    /// Whether a copy may be the answer now that its renewal has failed: as far as policy bears it, and one that nobody can vouch
    /// for only where it may stand in for an error, counted from the end of what blindness is borne.
    pub(crate) fn may_stand_in(&self, entry: &Entry, policy: &Policy, word: Word) -> bool {
        let now = self.clock.now();
        if self.judge_stale(entry, policy) == Freshness::Dead {
            return false;
        }
        if self.mirror.is_trusted(now) {
            return true;
        }
        match word {
            Word::Told => true,
            Word::Silent => {
                let borne = self.blindness_ends(entry, policy);
                now < borne
                    .unwrap_or(entry.ends.memory_until)
                    .saturating_add(micros(policy.stale.if_error))
            }
            // Trust ended on the way. Blindness is borne only where Redis was asked in vain.
            Word::Unasked => false,
        }
    }

    /// A fresh copy from memory for a reader whose question Redis has just failed to answer.
    pub(crate) fn serve_blind(&self, entry: &Arc<Entry>, policy: &Policy) -> Option<Answer> {
        let now = self.clock.now();
        let fresh = now < entry.ends.memory_until
            && self.mirror.standing(entry.dependencies()) == Standing::Valid;
        (fresh && self.bears_blindness(entry, policy, now)).then(|| Answer {
            entry: entry.clone(),
            outcome: Outcome::MemoryHit,
            trace: Trace::default(),
        })
    }
}
