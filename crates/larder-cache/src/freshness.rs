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

/// Whether a reader may wait for a load under way, whose names stand like this since it began. What
/// it brings is as good as a copy without age, so the policy plays no part.
pub(crate) fn may_join(standing: Standing, evidence: Evidence) -> bool {
    let to_come = CopyFacts {
        // Of another history or purged, however: a load that begins now is better.
        validity: Validity::new(standing, |clock| clock, || true),
        fresh_until: Micros::MAX,
        loaded_at: 0,
        load_time: 0,
        trust_until: 0,
        forbids_stale: true,
    };
    decide(&to_come, evidence, &Policy::default(), 0) == Decision::Serve
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
mod tests {
    use super::*;
    use crate::policy::StaleRules;
    use proptest::prelude::*;
    use std::time::Duration;

    use Decision::{OnlyIfLoadFails, Refuse, Serve, ServeAndRefresh};
    use Evidence::{NotAsked, Trusted, Unreachable, Verified};
    use Validity::{HardPurged, OtherHistory, SoftPurgePending, SoftPurged, Valid};

    const S: Micros = 1_000_000;
    // When the load began and ended, when trust ended, and when the TTLs in memory and Redis end.
    const BEGAN: Micros = 1000 * S;
    const LOADED: Micros = 1001 * S;
    const TRUST_ENDED: Micros = 1005 * S;
    const MEMORY_UNTIL: Micros = 1030 * S;
    const REDIS_UNTIL: Micros = 1300 * S;

    fn copy(validity: Validity) -> CopyFacts {
        CopyFacts {
            validity,
            fresh_until: MEMORY_UNTIL,
            loaded_at: LOADED,
            load_time: LOADED - BEGAN,
            trust_until: TRUST_ENDED,
            forbids_stale: false,
        }
    }

    /// Stale for 60 s while it is renewed, for 600 s where that fails.
    fn policy(disconnected_ttl: Option<u64>, on_reset: bool) -> Policy {
        Policy {
            memory: Duration::from_secs(30),
            redis: Duration::from_secs(300),
            stale: StaleRules {
                while_revalidate: Duration::from_secs(60),
                if_error: Duration::from_secs(600),
                on_reset,
            },
            disconnected_ttl: disconnected_ttl.map(Duration::from_secs),
            ..Policy::default()
        }
    }

    const PURGED_AT: Micros = 1010 * S;
    const ALL: [Validity; 7] = [
        Valid,
        SoftPurged(PURGED_AT),
        SoftPurged(MEMORY_UNTIL + 5 * S),
        SoftPurgePending,
        HardPurged,
        OtherHistory { invalidated: false },
        OtherHistory { invalidated: true },
    ];

    #[test]
    fn vouched_for_a_copy_is_judged_by_purges_and_age() {
        // Seconds of the clock, and what may be done then; the moments are those at which something
        // changes.
        type Row = (Validity, bool, [(Micros, Decision); 6]);
        let (valid, too_old) = (Valid, Refuse(Refusal::TooOld));
        let purged = Refuse(Refusal::HardPurged);
        let other = Refuse(Refusal::OtherHistory);
        let rows: [Row; 9] = [
            // Fresh to 1030, then 60 s and 600 s.
            (
                valid,
                false,
                [
                    (1001, Serve),
                    (1029, Serve),
                    (1030, ServeAndRefresh),
                    (1089, ServeAndRefresh),
                    (1090, OnlyIfLoadFails),
                    (1630, too_old),
                ],
            ),
            // Purged at 1010: both windows count from there.
            (
                SoftPurged(PURGED_AT),
                false,
                [
                    (1010, ServeAndRefresh),
                    (1029, ServeAndRefresh),
                    (1069, ServeAndRefresh),
                    (1070, OnlyIfLoadFails),
                    (1609, OnlyIfLoadFails),
                    (1610, too_old),
                ],
            ),
            // Purged after its end: the end counts.
            (
                SoftPurged(MEMORY_UNTIL + 5 * S),
                false,
                [
                    (1035, ServeAndRefresh),
                    (1089, ServeAndRefresh),
                    (1090, OnlyIfLoadFails),
                    (1500, OnlyIfLoadFails),
                    (1629, OnlyIfLoadFails),
                    (1630, too_old),
                ],
            ),
            // By a clock ahead of ours: it happened just now.
            (
                SoftPurged(PURGED_AT),
                false,
                [
                    (1002, ServeAndRefresh),
                    (1005, ServeAndRefresh),
                    (1009, ServeAndRefresh),
                    (1010, ServeAndRefresh),
                    (1070, OnlyIfLoadFails),
                    (1610, too_old),
                ],
            ),
            // Without a clock yet it happened just now, unless the fresh life was over before.
            (
                SoftPurgePending,
                false,
                [
                    (1002, ServeAndRefresh),
                    (1029, ServeAndRefresh),
                    (1089, ServeAndRefresh),
                    (1090, OnlyIfLoadFails),
                    (1629, OnlyIfLoadFails),
                    (1630, too_old),
                ],
            ),
            (
                HardPurged,
                true,
                [
                    (1001, purged),
                    (1029, purged),
                    (1030, purged),
                    (1090, purged),
                    (1629, purged),
                    (1630, purged),
                ],
            ),
            // From before a reset: stale since its load, if the policy says so.
            (
                OtherHistory { invalidated: false },
                true,
                [
                    (1001, ServeAndRefresh),
                    (1060, ServeAndRefresh),
                    (1061, OnlyIfLoadFails),
                    (1600, OnlyIfLoadFails),
                    (1601, too_old),
                    (1700, too_old),
                ],
            ),
            (
                OtherHistory { invalidated: false },
                false,
                [
                    (1001, other),
                    (1029, other),
                    (1061, other),
                    (1090, other),
                    (1600, other),
                    (1700, other),
                ],
            ),
            (
                OtherHistory { invalidated: true },
                true,
                [
                    (1001, other),
                    (1029, other),
                    (1061, other),
                    (1090, other),
                    (1600, other),
                    (1700, other),
                ],
            ),
        ];
        for (validity, on_reset, moments) in rows {
            for (at, expected) in moments {
                for evidence in [Trusted, Verified] {
                    // Without a word on being disconnected, or with any: it plays no part.
                    for disconnected_ttl in [None, Some(0), Some(20)] {
                        let policy = policy(disconnected_ttl, on_reset);
                        let decision = decide(&copy(validity), evidence, &policy, at * S);
                        assert_eq!(decision, expected, "{validity:?} {evidence:?} at {at}");
                    }
                }
            }
        }
    }

    #[test]
    fn past_memory_but_fresh_in_redis_it_is_served_from_redis_alone() {
        let (policy, at) = (policy(None, false), 1100 * S);
        let from_redis = CopyFacts {
            fresh_until: REDIS_UNTIL,
            ..copy(Valid)
        };
        assert_eq!(decide(&copy(Valid), Trusted, &policy, at), OnlyIfLoadFails);
        for evidence in [Trusted, Verified] {
            assert_eq!(decide(&from_redis, evidence, &policy, at), Serve);
        }
        assert_eq!(
            decide(&from_redis, Verified, &policy, REDIS_UNTIL),
            ServeAndRefresh
        );
    }

    #[test]
    fn what_forbids_stale_use_is_refused_from_its_end_on() {
        for (validity, on_reset, fresh) in [
            (Valid, false, Serve),
            (
                SoftPurged(PURGED_AT),
                false,
                Refuse(Refusal::StaleForbidden),
            ),
            (SoftPurgePending, false, Refuse(Refusal::StaleForbidden)),
            (HardPurged, false, Refuse(Refusal::HardPurged)),
            (
                OtherHistory { invalidated: false },
                true,
                Refuse(Refusal::StaleForbidden),
            ),
        ] {
            let sharp = CopyFacts {
                forbids_stale: true,
                ..copy(validity)
            };
            for evidence in [Trusted, Verified, Unreachable] {
                let at = |at| decide(&sharp, evidence, &policy(None, on_reset), at * S);
                assert_eq!(at(1029), fresh, "{validity:?} {evidence:?}");
                let after = match fresh {
                    Serve => Refuse(Refusal::StaleForbidden),
                    refused => refused,
                };
                assert_eq!(at(1030), after, "{validity:?} {evidence:?}");
            }
        }
    }

    #[test]
    fn without_a_question_nothing_is_served() {
        for validity in ALL {
            for at in [1001, 1029, 1030, 1090, 1700] {
                for disconnected_ttl in [None, Some(0), Some(20)] {
                    let policy = policy(disconnected_ttl, true);
                    let refused = Refuse(Refusal::NotAsked);
                    assert_eq!(decide(&copy(validity), NotAsked, &policy, at * S), refused);
                }
            }
        }
    }

    #[test]
    fn with_nobody_reachable_fresh_copies_are_served_for_disconnected_ttl_and_others_stand_in() {
        let (if_fails, too_old) = (OnlyIfLoadFails, Refuse(Refusal::TooOld));
        let disconnected = Refuse(Refusal::Disconnected);
        let (purged, other) = (Refuse(Refusal::HardPurged), Refuse(Refusal::OtherHistory));
        // Trust ended at 1005. Standing in ends 600 s after disconnected_ttl, or after the memory
        // TTL.
        type Row = (Validity, Option<u64>, [(Micros, Decision); 6]);
        let rows: [Row; 12] = [
            (
                Valid,
                None,
                [
                    (1006, Serve),
                    (1029, Serve),
                    (1030, if_fails),
                    (1090, if_fails),
                    (1629, if_fails),
                    (1630, too_old),
                ],
            ),
            (
                Valid,
                Some(0),
                [
                    (1006, if_fails),
                    (1029, if_fails),
                    (1030, if_fails),
                    (1604, if_fails),
                    (1605, disconnected),
                    (1629, disconnected),
                ],
            ),
            (
                Valid,
                Some(20),
                [
                    (1006, Serve),
                    (1024, Serve),
                    (1025, if_fails),
                    (1624, if_fails),
                    (1625, disconnected),
                    (1629, disconnected),
                ],
            ),
            // Longer than its life: age ends it first.
            (
                Valid,
                Some(900),
                [
                    (1006, Serve),
                    (1029, Serve),
                    (1030, if_fails),
                    (1090, if_fails),
                    (1629, if_fails),
                    (1630, too_old),
                ],
            ),
            (
                SoftPurged(PURGED_AT),
                None,
                [
                    (1010, if_fails),
                    (1029, if_fails),
                    (1070, if_fails),
                    (1609, if_fails),
                    (1610, too_old),
                    (1629, too_old),
                ],
            ),
            (
                SoftPurged(PURGED_AT),
                Some(0),
                [
                    (1010, if_fails),
                    (1029, if_fails),
                    (1070, if_fails),
                    (1604, if_fails),
                    (1605, disconnected),
                    (1610, too_old),
                ],
            ),
            (
                SoftPurgePending,
                Some(20),
                [
                    (1010, if_fails),
                    (1029, if_fails),
                    (1070, if_fails),
                    (1624, if_fails),
                    (1625, disconnected),
                    (1630, too_old),
                ],
            ),
            (
                HardPurged,
                None,
                [
                    (1006, purged),
                    (1029, purged),
                    (1030, purged),
                    (1090, purged),
                    (1629, purged),
                    (1630, purged),
                ],
            ),
            (
                HardPurged,
                Some(20),
                [
                    (1006, purged),
                    (1024, purged),
                    (1025, purged),
                    (1090, purged),
                    (1624, purged),
                    (1625, purged),
                ],
            ),
            // From before a reset, with the policy's leave: stale since its load.
            (
                OtherHistory { invalidated: false },
                None,
                [
                    (1006, if_fails),
                    (1029, if_fails),
                    (1061, if_fails),
                    (1600, if_fails),
                    (1601, too_old),
                    (1630, too_old),
                ],
            ),
            (
                OtherHistory { invalidated: false },
                Some(0),
                [
                    (1006, if_fails),
                    (1029, if_fails),
                    (1061, if_fails),
                    (1600, if_fails),
                    (1601, too_old),
                    (1605, too_old),
                ],
            ),
            (
                OtherHistory { invalidated: true },
                None,
                [
                    (1006, other),
                    (1029, other),
                    (1061, other),
                    (1600, other),
                    (1601, other),
                    (1630, other),
                ],
            ),
        ];
        for (validity, disconnected_ttl, moments) in rows {
            for (at, expected) in moments {
                let policy = policy(disconnected_ttl, true);
                let decision = decide(&copy(validity), Unreachable, &policy, at * S);
                assert_eq!(
                    decision, expected,
                    "{validity:?} {disconnected_ttl:?} at {at}"
                );
            }
        }
        let refused = decide(
            &copy(OtherHistory { invalidated: false }),
            Unreachable,
            &policy(None, false),
            1006 * S,
        );
        assert_eq!(refused, Refuse(Refusal::OtherHistory));
    }

    #[test]
    fn disconnected_ttl_counts_from_the_begin_of_the_load_where_that_is_later() {
        let later = CopyFacts {
            loaded_at: 1017 * S,
            load_time: 2 * S,
            ..copy(Valid)
        };
        let at = |at| decide(&later, Unreachable, &policy(Some(10), false), at * S);
        assert_eq!(
            [1024, 1025, 1624, 1625].map(at),
            [
                Serve,
                OnlyIfLoadFails,
                OnlyIfLoadFails,
                Refuse(Refusal::Disconnected)
            ]
        );
        assert!(later.is_within_disconnected_ttl(&policy(Some(10), false), 1024 * S));
        assert!(!later.is_within_disconnected_ttl(&policy(Some(10), false), 1025 * S));
        assert!(later.is_within_disconnected_ttl(&policy(None, false), Micros::MAX));
    }

    #[test]
    fn a_load_under_way_is_joined_only_if_nothing_was_purged_and_somebody_vouches() {
        for (evidence, joined) in [(Trusted, true), (Verified, true), (NotAsked, false)] {
            assert_eq!(may_join(Standing::Valid, evidence), joined, "{evidence:?}");
            for standing in [
                Standing::Soft(1),
                Standing::SoftPending,
                Standing::Invalid,
                Standing::OtherHistory,
            ] {
                assert!(!may_join(standing, evidence), "{standing:?} {evidence:?}");
            }
        }
    }

    #[test]
    fn a_source_may_confirm_what_was_not_purged_hard_and_is_of_this_history() {
        let confirmable = ALL.map(Validity::is_confirmable);
        assert_eq!(confirmable, [true, true, true, true, false, false, false]);
    }

    proptest! {
        #[test]
        fn the_decision_only_gets_stricter_with_time(
            validity in prop_oneof![
                Just(Valid),
                (0..4000 * S).prop_map(SoftPurged),
                Just(SoftPurgePending),
                Just(HardPurged),
                any::<bool>().prop_map(|invalidated| OtherHistory { invalidated }),
            ],
            evidence in prop_oneof![Just(Trusted), Just(Verified), Just(Unreachable), Just(NotAsked)],
            (fresh_until, loaded_at, load_time, trust_until) in (0..3000 * S, 0..3000 * S, 0..100 * S, 0..3000 * S),
            forbids_stale: bool,
            disconnected_ttl in proptest::option::of(0..2000u64),
            (while_revalidate, if_error, on_reset) in (0..1000u64, 0..1000u64, any::<bool>()),
            (a, b) in (0..6000 * S, 0..6000 * S),
        ) {
            let copy = CopyFacts { validity, fresh_until, loaded_at, load_time, trust_until, forbids_stale };
            let policy = Policy {
                stale: StaleRules {
                    while_revalidate: Duration::from_secs(while_revalidate),
                    if_error: Duration::from_secs(if_error),
                    on_reset,
                },
                disconnected_ttl: disconnected_ttl.map(Duration::from_secs),
                ..Policy::default()
            };
            // All reasons to refuse are as strict.
            let strictness = |evidence, now| match decide(&copy, evidence, &policy, now) {
                Refuse(_) => Refuse(Refusal::TooOld),
                allowed => allowed,
            };
            let at = |now| strictness(evidence, now);
            prop_assert!(at(a.min(b)) <= at(a.max(b)));
            // Nor does less evidence allow more.
            prop_assert!(strictness(Trusted, a) <= strictness(Unreachable, a));
            prop_assert!(strictness(Unreachable, a) <= strictness(NotAsked, a));
        }
    }
}
