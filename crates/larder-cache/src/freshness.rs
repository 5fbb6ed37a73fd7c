//! The decision: may this copy be given to this reader now?
//!
//! Four things decide: what was invalidated since the copy's load began, how old it is, what the
//! policy allows, and what vouches for it. [`decide`] is pure: no clock, no lock, no I/O. Every
//! place that hands out a copy asks it.
//!
//! Invariant: with the same copy and the same evidence, a later moment never allows more.

use super::clock::{Micros, micros};
use super::coherence::Standing;
use super::policy::Policy;

/// What vouches for a copy, beside its age.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Evidence {
    /// The bus: this replica would have heard of any change older than `max_staleness`.
    Trusted,
    /// Redis: it said in this very lookup what was invalidated, and the mirror knows it now.
    Verified,
    /// Nobody: the bus is silent, and Redis is down or refused the question.
    Unreachable,
    /// Nobody yet: the bus is silent, and Redis can be asked.
    NotAsked,
}

/// What may be done with a copy now. A later variant allows less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Decision {
    /// Serve it.
    Serve,
    /// Serve it, and load a new value in the background.
    ServeAndRefresh,
    /// Serve it only if a new value cannot be loaded.
    OnlyIfLoadFails,
    /// Do not serve it, for this reason.
    Refuse(Refusal),
}

impl Decision {
    /// Whether the copy may be served at all.
    pub(crate) fn allows_use(self) -> bool {
        !matches!(self, Decision::Refuse(_))
    }
}

/// Why a copy is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// A hard purge ended it.
    HardPurged,
    /// It is of another history, and policy does not allow it as stale or something that it depends
    /// on was invalidated since.
    OtherHistory,
    /// Its fresh life is over, and its source forbids stale use.
    StaleForbidden,
    /// It is past every stale window of the policy.
    TooOld,
    /// Nobody can vouch for it, and `disconnected_ttl` and `stale.if_error` are over.
    Disconnected,
    /// Redis can be asked about it, and was not asked yet.
    NotAsked,
}

impl Refusal {
    /// Whether evidence that arrives later can lift it.
    pub(crate) fn lacks_evidence(self) -> bool {
        matches!(self, Refusal::Disconnected | Refusal::NotAsked)
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Refusal::HardPurged => "invalidated",
            Refusal::OtherHistory => "loaded before Redis lost its data",
            Refusal::StaleForbidden => "expired, and its source forbids stale use",
            Refusal::TooOld => "expired",
            Refusal::Disconnected => "disconnected for too long",
            Refusal::NotAsked => "not verified yet",
        })
    }
}

/// What the invalidations so far mean for a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Validity {
    /// Nothing that it depends on was invalidated since its load began.
    Valid,
    /// A soft purge ended its fresh life at this moment of the local clock.
    SoftPurged(Micros),
    /// A soft purge is pending: Redis has not given it a clock yet.
    SoftPurgePending,
    /// A hard purge: never serve it again.
    HardPurged,
    /// It is of another history: Redis has lost its data, or got old data back, since its load.
    OtherHistory {
        /// Whether anything that it depends on is known to be invalidated since.
        invalidated: bool,
    },
}

impl Validity {
    /// `to_local` turns a clock of the history, which is a time of Redis, into local time.
    /// `invalidated_since_reset` is asked only about a copy of another history.
    pub(crate) fn new(
        standing: Standing,
        to_local: impl FnOnce(u64) -> Micros,
        invalidated_since_reset: impl FnOnce() -> bool,
    ) -> Validity {
        match standing {
            Standing::Valid => Validity::Valid,
            Standing::Soft(clock) => Validity::SoftPurged(to_local(clock)),
            Standing::SoftPending => Validity::SoftPurgePending,
            Standing::Invalid => Validity::HardPurged,
            Standing::OtherHistory => Validity::OtherHistory {
                invalidated: invalidated_since_reset(),
            },
        }
    }

    /// Whether the source may confirm the copy instead of sending a new one. Whoever purges hard
    /// wants the value fetched again.
    pub(crate) fn is_confirmable(self) -> bool {
        matches!(
            self,
            Validity::Valid | Validity::SoftPurged(_) | Validity::SoftPurgePending
        )
    }
}

/// What the decision needs to know of one copy.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CopyFacts {
    pub(crate) validity: Validity,
    /// The end of its fresh life in the tier where it was found.
    pub(crate) fresh_until: Micros,
    /// When its load ended, and how long that took.
    pub(crate) loaded_at: Micros,
    pub(crate) load_time: Micros,
    /// When this replica's trust in its mirror ends, or ended.
    pub(crate) trust_until: Micros,
    /// Whether it may never be served past its fresh life.
    pub(crate) forbids_stale: bool,
}

impl CopyFacts {
    /// Whether `disconnected_ttl` still covers it at `now`; without one it always does.
    pub(crate) fn is_within_disconnected_ttl(&self, policy: &Policy, now: Micros) -> bool {
        self.disconnected_end(policy).is_none_or(|end| now < end)
    }

    fn disconnected_end(&self, policy: &Policy) -> Option<Micros> {
        let ttl = policy.disconnected_ttl?;
        // From the begin of its load, if that is later: the source may have changed a moment after
        // that, however late the load ended.
        let load_began = self.loaded_at.saturating_sub(self.load_time);
        let vouched_until = self.trust_until.max(load_began);
        Some(vouched_until.saturating_add(micros(ttl)))
    }
}

/// What may be done with `copy` at `now`.
///
/// With [`Evidence::Trusted`] and [`Evidence::Verified`], purges and age alone decide. With
/// [`Evidence::NotAsked`] nothing is served: Redis has to be asked first. With
/// [`Evidence::Unreachable`] a fresh copy is served for `disconnected_ttl`. After that, and for a
/// stale copy at once, it stands in for a failed load. That allowance ends `stale.if_error` after
/// the end of `disconnected_ttl`, or of the fresh life if there is no such limit.
// A memory hit makes this decision: inlined there, its facts need no place in memory.
#[inline(always)]
pub(crate) fn decide(
    copy: &CopyFacts,
    evidence: Evidence,
    policy: &Policy,
    now: Micros,
) -> Decision {
    match evidence {
        Evidence::Trusted | Evidence::Verified => by_purges_and_age(copy, policy, now),
        Evidence::NotAsked => Decision::Refuse(Refusal::NotAsked),
        Evidence::Unreachable => {
            let end = copy.disconnected_end(policy);
            let last = end
                .unwrap_or(copy.fresh_until)
                .saturating_add(micros(policy.stale.if_error));
            match by_purges_and_age(copy, policy, now) {
                Decision::Serve if end.is_none_or(|end| now < end) => Decision::Serve,
                refused @ Decision::Refuse(_) => refused,
                _ if now < last => Decision::OnlyIfLoadFails,
                _ => Decision::Refuse(Refusal::Disconnected),
            }
        }
    }
}

/// What the decision needs to know of a load under way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LoadFacts {
    /// What was invalidated of its names since it began.
    pub(crate) standing: Standing,
    /// When it began. Zero if it may bring a copy that was loaded earlier.
    pub(crate) began: Micros,
    /// When this replica's trust in its mirror ends, or ended.
    pub(crate) trust_until: Micros,
}

/// Whether a reader who comes at `now` may wait for a load under way. What it brings is as good as
/// a copy that is fresh for ever, so only `disconnected_ttl` of the policy plays a part.
pub(crate) fn may_join(load: LoadFacts, evidence: Evidence, policy: &Policy, now: Micros) -> bool {
    let to_come = CopyFacts {
        // Of another history or purged, however: a load that begins now is better.
        validity: Validity::new(load.standing, |clock| clock, || true),
        fresh_until: Micros::MAX,
        loaded_at: load.began,
        load_time: 0,
        trust_until: load.trust_until,
        forbids_stale: true,
    };
    decide(&to_come, evidence, policy, now) == Decision::Serve
}

#[inline(always)]
fn by_purges_and_age(copy: &CopyFacts, policy: &Policy, now: Micros) -> Decision {
    let stale_since = match copy.validity {
        Validity::Valid if now < copy.fresh_until => return Decision::Serve,
        Validity::Valid => copy.fresh_until,
        Validity::SoftPurged(at) => copy.fresh_until.min(at),
        Validity::SoftPurgePending => copy.fresh_until,
        Validity::OtherHistory { invalidated: false } if policy.stale.on_reset => copy.loaded_at,
        Validity::OtherHistory { .. } => return Decision::Refuse(Refusal::OtherHistory),
        Validity::HardPurged => return Decision::Refuse(Refusal::HardPurged),
    };
    // A purge whose clock lies ahead of this replica's reading of the time happened just now.
    let stale_for = now.saturating_sub(stale_since);
    if copy.forbids_stale {
        Decision::Refuse(Refusal::StaleForbidden)
    } else if stale_for < micros(policy.stale.while_revalidate) {
        Decision::ServeAndRefresh
    } else if stale_for < micros(policy.stale.if_error) {
        Decision::OnlyIfLoadFails
    } else {
        Decision::Refuse(Refusal::TooOld)
    }
}

#[cfg(test)]
mod tests;
