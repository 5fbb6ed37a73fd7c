//! The tiers, and the parts that every lookup shares: look into memory, judge a copy, keep an
//! entry.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::answer::{Answer, Trace};
use super::audit::Audit;
use super::clock::{Clock, Micros, micros};
use super::coherence::{InvalidationTarget, Mirror, Stamp, Standing};
use super::entry::{Backoff, Entry, Value};
use super::envelope;
use super::error::LoadError;
use super::failures::{Aftermath, Failures};
use super::freshness::{CopyFacts, Decision, Evidence, Validity, decide};
use super::key::Key;
use super::loaders::Loaders;
use super::memory::MemoryTier;
use super::object::Hold;
use super::outcome::Outcome;
use super::policy::Policy;
use super::random::random;
use super::redis_tier::RedisTier;
use super::request::CacheItem;
use super::single_flight::Flights;

/// The next clock of a history is the last one plus one, or Redis's time, whichever is later. A
/// clock that is this far ahead of both does not belong to the history known here. Two readings of
/// Redis's time differ by much less, even after an outage.
const AHEAD: Duration = Duration::from_secs(3600);

/// See the module.
pub(crate) struct Tiers {
    pub(crate) memory: Arc<MemoryTier>,
    pub(crate) redis: RedisTier,
    pub(crate) flights: Arc<Flights>,
    pub(crate) failures: Failures,
    pub(crate) loaders: Loaders,
    pub(crate) mirror: Arc<Mirror>,
    pub(crate) clock: Arc<Clock>,
    pub(crate) max_staleness: Duration,
    /// `None`: it is switched off, or there is no Redis to ask.
    pub(crate) audit: Option<Arc<Audit>>,
}

impl Tiers {
    /// What memory may answer with to a reader who came at `now`. `after`: a clock of the history
    /// that the reader has seen; the answer must not be older. Does not block, and waits for no
    /// lock that a load can hold.
    #[inline]
    pub(crate) fn look(
        &self,
        key: &str,
        policy: &Policy,
        after: Option<u64>,
        now: Micros,
    ) -> Option<Answer> {
        self.serve(self.memory.get(key)?, policy, after, now)
    }

    /// The answer that `entry`, from memory, is to such a reader.
    pub(crate) fn serve(
        &self,
        entry: Arc<Entry>,
        policy: &Policy,
        after: Option<u64>,
        now: Micros,
    ) -> Option<Answer> {
        let evidence = self.evidence(now);
        if evidence == Evidence::NotAsked || after.is_some_and(|clock| self.may_be_older(clock)) {
            return None;
        }
        // A copy from before a reset is never fresh. Without a backoff it is not served here, so
        // the mirror's lock is not taken for it.
        let in_backoff = entry.backoff().is_some();
        let copy = self.facts(&entry, entry.expiry.memory_until, policy, in_backoff);
        let outcome = match decide(&copy, evidence, policy, now) {
            Decision::Serve => {
                if let Some(audit) = &self.audit
                    && evidence == Evidence::Trusted
                {
                    audit.hit(&entry, now);
                }
                Outcome::MemoryHit
            }
            // Its reload failed a moment ago, and is not tried again yet.
            Decision::ServeAndRefresh | Decision::OnlyIfLoadFails => {
                let backoff = entry.backoff()?;
                let covered =
                    evidence == Evidence::Trusted || copy.is_within_disconnected_ttl(policy, now);
                if now >= backoff.until || !covered {
                    return None;
                }
                Outcome::Stale(backoff.reason)
            }
            Decision::Refuse(_) => return None,
        };
        Some(Answer {
            entry,
            outcome,
            trace: Trace::default(),
        })
    }

    /// Whether memory may be older than this clock, which a reader has seen. While Redis cannot be
    /// asked, a clock that is of no history known here is no reason to refuse.
    fn may_be_older(&self, clock: u64) -> bool {
        !self.has_heard(clock) && (self.redis.pool().answers() || !self.is_ahead(clock))
    }

    /// Whether the bus has brought everything up to this clock.
    pub(crate) fn has_heard(&self, clock: u64) -> bool {
        self.mirror.history().applied() >= clock
    }

    /// Whether the history that is known here cannot have given this clock yet: see [`AHEAD`]. The
    /// clock is then of an earlier history, and all that is valid now was loaded after that; or it
    /// is of no history at all.
    pub(crate) fn is_ahead(&self, clock: u64) -> bool {
        let redis_time = self.clock.redis_of_local(self.clock.now());
        let latest = self.mirror.history().applied().max(redis_time);
        clock > latest.saturating_add(micros(AHEAD))
    }

    /// The evidence for copies at `now`, for a reader who has not asked Redis.
    pub(crate) fn evidence(&self, now: Micros) -> Evidence {
        if self.mirror.is_trusted(now) {
            Evidence::Trusted
        } else if self.redis.pool().answers() {
            Evidence::NotAsked
        } else {
            Evidence::Unreachable
        }
    }

    /// The same for a lookup that has `heard` this from Redis. It does not matter here whether
    /// Redis is up, because it may refuse every question.
    pub(crate) fn evidence_after(&self, heard: Evidence, now: Micros) -> Evidence {
        if self.mirror.is_trusted(now) {
            Evidence::Trusted
        } else {
            heard
        }
    }

    /// Asks Redis what was invalidated of these targets. The mirror has learned it afterwards.
    /// Blocks for the round trip.
    pub(crate) fn ask(&self, key: &Key, targets: &[InvalidationTarget]) -> Evidence {
        match self.redis.ask_names(key, targets) {
            Ok(()) => Evidence::Verified,
            Err(_) => Evidence::Unreachable,
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
        let copy = self.facts(entry, entry.expiry.memory_until, policy, true);
        decide(&copy, evidence, policy, now)
    }

    /// The copy of `item` that these bytes from Redis are; `targets` is what it depends on. With
    /// `hold` it holds an object, and bytes that are none count as unreadable.
    pub(crate) fn copy_of(
        &self,
        item: &CacheItem,
        targets: &Arc<[InvalidationTarget]>,
        hold: Option<&Hold>,
        bytes: &Bytes,
    ) -> Option<Entry> {
        let own = |stamp| self.mirror.dependency(stamp, targets);
        let entry = envelope::decode(bytes, own, &item.policy, random(), &self.clock)?;
        let (Some(hold), Value::Present(value)) = (hold, &entry.value) else {
            return Some(entry);
        };
        match hold(value) {
            Ok(object) => Some(entry.holding(object)),
            Err(_) => {
                item.tally.count_unreadable();
                None
            }
        }
    }

    /// What may be done now with a copy from Redis, which has just said what was invalidated of it,
    /// or the mirror was trusted.
    pub(crate) fn decide_redis_copy(&self, entry: &Entry, policy: &Policy) -> Decision {
        let copy = self.facts(entry, entry.expiry.fresh_until, policy, true);
        decide(&copy, Evidence::Verified, policy, self.clock.now())
    }

    /// What the decision needs to know of a copy. Its fresh life ends at `fresh_until` in the tier
    /// where it was found. `may_lock`: whether the mirror's lock may be taken, which tells what was
    /// invalidated of a copy from before a reset.
    #[inline(always)]
    pub(crate) fn facts(
        &self,
        entry: &Entry,
        fresh_until: Micros,
        policy: &Policy,
        may_lock: bool,
    ) -> CopyFacts {
        let standing = self.mirror.standing(entry.dependencies());
        // If the policy refuses such a copy anyway, nothing is asked.
        let invalidated_since_reset = || {
            may_lock
                && policy.stale.on_reset
                && self.mirror.invalidated_since_reset(entry.dependencies())
        };
        CopyFacts {
            validity: Validity::new(
                standing,
                |clock| self.clock.local_of_redis(clock),
                invalidated_since_reset,
            ),
            fresh_until,
            loaded_at: entry.loaded_at,
            load_time: entry.load_time,
            trust_until: self.mirror.trust_until(),
            forbids_stale: entry.forbids_stale(),
        }
    }

    /// Whether any of these targets was invalidated since history stood at this point.
    pub(crate) fn is_invalidated_since(
        &self,
        at: Stamp,
        targets: &Arc<[InvalidationTarget]>,
    ) -> bool {
        let dependency = self.mirror.dependency(at, targets);
        let since = std::iter::once(&dependency);
        match self.mirror.standing(since.clone()) {
            Standing::Invalid | Standing::Soft(_) | Standing::SoftPending => true,
            Standing::OtherHistory => self.mirror.invalidated_since_reset(since),
            Standing::Valid => false,
        }
    }

    /// Keeps an entry of `item` in memory, as long as it is of any use there, and returns it.
    pub(crate) fn keep(&self, item: &CacheItem, entry: Entry) -> Arc<Entry> {
        let key = item.key.clone();
        self.memory.fill(key, entry, &item.policy).0
    }

    /// Keeps a stale copy after its reload has failed: see [`Aftermath`]. Returns the copy, and the
    /// outcome for the readers that waited for the reload.
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
}
