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
    let policy = Policy {
        disconnected_ttl: Some(Duration::from_secs(60)),
        ..Policy::default()
    };
    let may_join = |standing, evidence, now| {
        let load = LoadFacts {
            standing,
            began: 100 * S,
            trust_until: 50 * S,
        };
        may_join(load, evidence, &policy, now)
    };
    for (evidence, now, joined) in [
        (Trusted, 1000, true),
        (Verified, 1000, true),
        (NotAsked, 101, false),
        // As a copy in memory would be served then.
        (Unreachable, 159, true),
        (Unreachable, 160, false),
    ] {
        let now = now * S;
        assert_eq!(
            may_join(Standing::Valid, evidence, now),
            joined,
            "{evidence:?}"
        );
        for standing in [
            Standing::Soft(1),
            Standing::SoftPending,
            Standing::Invalid,
            Standing::OtherHistory,
        ] {
            let joins = may_join(standing, evidence, now);
            assert!(!joins, "{standing:?} {evidence:?}");
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
