//! The coherence protocol as an explicit-state model: two replicas, one key, one tag, one Redis, in
//! every order of steps.
//!
//! Promise: in no run of the stated length does a read return a value that promise 1 (here, at
//! once), 3 (everywhere, within `max_staleness`) or 4 (never resurrected) forbids, whatever is
//! lost, cut, refused, restarted or restored. If one call of the protocol is left out, the checker
//! finds a run with such a read, and prints it.
//!
//! A run begins with both replicas trusted and the value in every place, at least ten steps after a
//! cold start. All faults together are explored for 6 steps, those of the bus, of Redis and of the
//! pool each for 7 (about a million states each). Every counterexample has 7 steps at most. Walks
//! of up to 40 steps look further, at random.
//!
//! The mirrors are real: each step calls [`Mirror`], [`History`], [`Pending`] and [`Message`] as
//! the cache does, so the model cannot drift from them. What remains a twin, and why:
//! - Redis and its Lua: a real server cannot be forked a million times.
//! - The network, the bus's session and the pool, which only move bytes: what they decide on a
//!   message, an echo, a log or a reply is decided by the real history. The twin of
//!   `Session::catch_up` calls the same functions in the same order.
//! - Memory, flights and the order of a lookup (trust first, then standing).
//!
//! It leaves out: leases (anyone may load and fill at any time, which is more than leases allow),
//! soft purges and stale answers, `disconnected_ttl` (it is zero), TTLs, purges of everything,
//! pruning and eviction, a trimmed log, several keys and tags, a script that ran while its reply
//! was lost, a repair that is applied later than it was read, and promise 2, which is about time
//! alone.
//!
//! [`Mirror`]: super::Mirror
//! [`History`]: super::History
//! [`Pending`]: super::pending::Pending
//! [`Message`]: super::Message

// Counterexamples are for people to read.
#![allow(clippy::print_stdout)]

mod mirrors;
mod protocol;
mod reach;
mod reads;
mod sameness;
mod state;
mod steps;

use std::time::Instant;

use stateright::{Checker, HasDiscoveries, Model, UniformChooser};

use state::{State, Without};
use steps::{Asked, Coherence, Scope, Step};

/// Loads, fills, reads, joins, invalidations, pings, messages and time.
const CALM: Scope = Scope {
    loads: true,
    bus: false,
    other_tag: false,
    redis: false,
    pool: false,
    copies: true,
    apart: false,
    inserts: false,
    cold: false,
};
const BUS: Scope = Scope {
    bus: true,
    other_tag: true,
    ..CALM
};
const REDIS: Scope = Scope {
    redis: true,
    ..CALM
};
const POOL: Scope = Scope { pool: true, ..CALM };
/// Inserts beside invalidations and loads.
const INSERTS: Scope = Scope {
    inserts: true,
    copies: false,
    ..CALM
};
const ALL: Scope = Scope {
    redis: true,
    pool: true,
    ..BUS
};

/// Every run of the whole protocol of up to `depth` steps. One thread, so that no state is first
/// reached by a detour.
fn no_promise_is_broken(scope: Scope, depth: u8) {
    let start = Instant::now();
    let checker = Coherence {
        without: Without::Nothing,
        scope,
        depth,
        asked: Asked::Promises,
    }
    .checker()
    .finish_when(HasDiscoveries::AnyFailures)
    .spawn_bfs()
    .join();
    println!(
        "{} steps: {} states, {} of them different, in {:.1?}",
        depth,
        checker.state_count(),
        checker.unique_state_count(),
        start.elapsed()
    );
    refuse_discoveries(&checker);
    assert_eq!(checker.max_depth(), usize::from(depth) + 1);
}

fn refuse_discoveries(checker: &impl Checker<Coherence>) {
    let found = checker.discoveries();
    if let Some((promise, path)) = found.into_iter().next() {
        panic!("{promise} is broken:\n{}", story(&path.into_vec()));
    }
}

/// The shortest run that breaks a promise once a call is left out. Panics if there is none.
fn counterexample(without: Without, scope: Scope, most: u8) -> Vec<&'static str> {
    for depth in 1..=most {
        let checker = Coherence {
            without,
            scope,
            depth,
            asked: Asked::Promises,
        }
        .checker()
        .finish_when(HasDiscoveries::AnyFailures)
        .spawn_bfs()
        .join();
        let mut found: Vec<_> = checker.discoveries().into_iter().collect();
        found.sort_by_key(|(promise, _)| *promise);
        if let Some((_, path)) = found.first() {
            let broken: Vec<_> = found.iter().map(|(promise, _)| *promise).collect();
            println!("without {without:?}, {}:", broken.join(" and "));
            println!("{}", story(&path.clone().into_vec()));
            return broken;
        }
    }
    panic!("nothing is missed without {without:?} for {most} steps");
}

/// The promises that this run breaks once a call is left out. Panics if it breaks one without that,
/// or is not a run of the model. For a run that is too long to be found.
fn broken_by(without: Without, scope: Scope, run: &[Step]) -> Vec<&'static str> {
    let broken = |without| {
        let model = Coherence {
            without,
            scope,
            depth: u8::MAX,
            asked: Asked::Promises,
        };
        let mut state = model.init_states().remove(0);
        for step in run {
            let mut steps = Vec::new();
            model.actions(&state, &mut steps);
            assert!(steps.contains(step), "{step} is no step of this run");
            state = model.next_state(&state, *step).unwrap_or(state);
        }
        let of = |state| {
            let all = model.properties().into_iter();
            all.filter(move |promise| !(promise.condition)(&model, state))
                .map(|promise| promise.name)
                .collect::<Vec<_>>()
        };
        of(&state)
    };
    assert_eq!(broken(Without::Nothing), Vec::<&str>::new());
    broken(without)
}

/// A run in words, with the read that it ends in.
fn story(path: &[(State, Option<Step>)]) -> String {
    let steps = path.iter().filter_map(|(_, step)| *step);
    let mut lines: Vec<String> = steps.map(|step| format!("  {step}")).collect();
    let end = &path[path.len() - 1].0;
    for (r, name) in ["A", "B"].into_iter().enumerate() {
        for answer in end.answers(r).into_iter().flatten() {
            let needed = answer.here.max(answer.everywhere);
            if answer.version < needed {
                lines.push(format!(
                    "  a read on {name} is given version {} by {:?}, and {} is due",
                    answer.version, answer.place, needed
                ));
            }
        }
    }
    lines.join("\n")
}

// Promises 1, 3 and 4, for every run: "Why it holds".

#[test]
fn no_promise_is_broken_by_a_bus_that_loses() {
    no_promise_is_broken(BUS, 7);
}

#[test]
fn no_promise_is_broken_by_a_redis_that_restarts_empty_or_restored() {
    let scope = Scope {
        copies: false,
        ..REDIS
    };
    no_promise_is_broken(scope, 7);
}

#[test]
fn no_promise_is_broken_by_a_redis_that_refuses() {
    no_promise_is_broken(POOL, 7);
}

#[test]
fn no_promise_is_broken_by_all_of_these_at_once() {
    no_promise_is_broken(ALL, 6);
}

#[test]
fn no_promise_is_broken_after_a_cold_start() {
    no_promise_is_broken(Scope { cold: true, ..ALL }, 6);
}

/// The same with compound steps split up.
#[test]
fn no_promise_is_broken_when_writes_and_answers_come_apart() {
    no_promise_is_broken(Scope { apart: true, ..BUS }, 6);
}

#[test]
fn no_promise_is_broken_by_inserts() {
    no_promise_is_broken(
        Scope {
            copies: true,
            ..INSERTS
        },
        6,
    );
}

#[test]
fn no_promise_is_broken_by_inserts_and_a_bus_that_loses() {
    no_promise_is_broken(
        Scope {
            bus: true,
            ..INSERTS
        },
        6,
    );
}

#[test]
fn no_promise_is_broken_by_inserts_and_a_redis_that_restarts_empty_or_restored() {
    no_promise_is_broken(
        Scope {
            redis: true,
            ..INSERTS
        },
        6,
    );
}

#[test]
fn no_promise_is_broken_by_inserts_and_a_redis_that_refuses() {
    no_promise_is_broken(
        Scope {
            pool: true,
            ..INSERTS
        },
        6,
    );
}

#[test]
fn no_promise_is_broken_by_inserts_and_all_of_these_at_once() {
    no_promise_is_broken(
        Scope {
            inserts: true,
            ..ALL
        },
        5,
    );
}

/// Runs longer than any exhaustive search, picked at random; the seed makes them the same each
/// time.
#[test]
fn no_promise_is_broken_in_long_walks() {
    no_promise_is_broken_in_walks(ALL);
}

#[test]
fn no_promise_is_broken_in_long_walks_with_inserts() {
    no_promise_is_broken_in_walks(Scope {
        inserts: true,
        ..ALL
    });
}

fn no_promise_is_broken_in_walks(scope: Scope) {
    let start = Instant::now();
    let checker = Coherence {
        without: Without::Nothing,
        scope,
        depth: 40,
        asked: Asked::Promises,
    }
    .checker()
    .finish_when(HasDiscoveries::AnyFailures)
    .target_state_count(500_000)
    .spawn_simulation(7, UniformChooser)
    .join();
    println!(
        "walks of up to 40 steps: {} states in {:.1?}",
        checker.state_count(),
        start.elapsed()
    );
    refuse_discoveries(&checker);
}

/// The model is not vacuous: the situations that the promises are about do happen in it.
#[test]
fn everything_that_a_promise_is_about_happens() {
    everything_happens(ALL, Asked::Reach);
}

#[test]
fn everything_that_inserts_are_about_happens() {
    let scope = Scope {
        pool: true,
        ..INSERTS
    };
    everything_happens(scope, Asked::ReachOfInserts);
}

fn everything_happens(scope: Scope, asked: Asked) {
    let checker = Coherence {
        without: Without::Nothing,
        scope,
        depth: 6,
        asked,
    }
    .checker()
    .spawn_bfs()
    .join();
    for (name, path) in checker.discoveries() {
        println!("{name}:\n{}", story(&path.into_vec()));
    }
    checker.assert_properties();
}

// Teeth: one call is left out, and the checker finds the read that it prevents.

/// "The rule. An entry may be served only if nothing that it depends on was invalidated after its
/// load began."
#[test]
fn without_the_rule_a_late_fill_is_served() {
    let broken = counterexample(Without::Rule, CALM, 7);
    assert!(broken.contains(&"promise 4"));
}

/// A message whose "before" was not applied means that something was lost.
#[test]
fn without_gap_repair_a_lost_message_is_never_missed() {
    let scope = Scope {
        other_tag: false,
        ..BUS
    };
    let broken = counterexample(Without::GapRepair, scope, 7);
    assert_eq!(broken, ["promise 3"]);
}

/// "No echo, no trust."
#[test]
fn without_trust_a_bus_that_says_nothing_is_believed() {
    let broken = counterexample(Without::Trust, CALM, 7);
    assert_eq!(broken, ["promise 3"]);
}

/// "A reader joins only a flight whose result it could be served."
#[test]
fn without_the_join_check_a_read_joins_a_load_from_before_the_write() {
    let scope = Scope {
        copies: false,
        ..CALM
    };
    let broken = counterexample(Without::JoinCheck, scope, 7);
    assert!(broken.contains(&"promise 1"));
}

/// "Same history? Every new connection compares Redis's `run_id` with the one in the state."
#[test]
fn without_the_history_check_a_restored_snapshot_is_believed() {
    let broken = counterexample(Without::HistoryCheck, REDIS, 7);
    assert!(broken.contains(&"promise 1"));
}

/// "Without this on the pool, a replica that has lost the bus reads restored values beside restored
/// names."
#[test]
fn without_the_history_check_on_the_pool_a_restored_snapshot_is_believed() {
    let broken = counterexample(Without::HistoryCheckOnPool, REDIS, 7);
    assert!(broken.contains(&"promise 1"));
}

/// "The echo extends trust to the moment the ping was sent + `max_staleness`."
#[test]
fn without_the_time_of_the_ping_a_late_echo_is_trusted_for_too_long() {
    let broken = counterexample(Without::TrustFromPing, CALM, 7);
    assert_eq!(broken, ["promise 3"]);
}

/// Only the subscriber advances `applied`. Otherwise a message that was lost before it would look
/// as if it had arrived.
#[test]
fn without_applied_left_alone_an_own_invalidation_hides_a_lost_message() {
    let scope = Scope {
        loads: false,
        copies: false,
        ..BUS
    };
    let broken = counterexample(Without::AppliedLeftAlone, scope, 7);
    assert_eq!(broken, ["promise 3"]);
}

/// While an invalidation is pending, it blocks what was loaded before it.
#[test]
fn without_pending_a_refused_invalidation_holds_nothing_back() {
    let broken = counterexample(Without::Pending, POOL, 7);
    assert!(broken.contains(&"promise 1"));
}

/// Start and reconnect: subscribe, then read the state. All targets, not only the clock.
#[test]
fn without_the_targets_at_the_start_a_new_replica_believes_an_old_value() {
    let scope = Scope { cold: true, ..CALM };
    let broken = counterexample(Without::TargetsAtStart, scope, 7);
    assert!(broken.contains(&"promise 3"));
}

/// Clocks of two histories are never compared, nor applied to one another.
#[test]
fn without_the_history_of_a_reply_an_own_invalidation_is_too_low_to_count() {
    let broken = counterexample(Without::HistoryOfReply, REDIS, 7);
    assert_eq!(broken, ["promise 1"]);
}

/// A copy that the mirror let pass is as old as the mirror. Without trust its flight is not joined.
#[test]
fn without_trust_at_the_join_a_copy_from_redis_is_served_for_twice_max_staleness() {
    let broken = counterexample(Without::JoinOfCopy, CALM, 7);
    assert_eq!(broken, ["promise 3", "promise 4"]);
}

/// A hit looks at the deadline before the clocks. In the other order a repair between the two may
/// restore trust.
#[test]
fn without_the_deadline_first_a_hit_is_judged_by_clocks_older_than_its_trust() {
    let broken = counterexample(Without::DeadlineFirst, CALM, 7);
    assert_eq!(broken, ["promise 3"]);
}

// Teeth of inserts.

/// "Only if none of these is after `since`."
#[test]
fn without_the_clocks_since_the_stamp_an_old_value_is_inserted() {
    let broken = counterexample(Without::SinceStamp, INSERTS, 6);
    assert!(broken.contains(&"promise 1"));
}

/// The clocks of a stamp and of the record are compared only within one history.
#[test]
fn without_the_history_of_the_stamp_an_old_value_is_inserted_after_a_restart() {
    let scope = Scope {
        redis: true,
        loads: false,
        ..INSERTS
    };
    let broken = counterexample(Without::HistoryOfStamp, scope, 7);
    assert!(broken.contains(&"promise 1"));
}

/// "`since` is a stamp that the caller took before the value was read."
#[test]
fn with_a_stamp_from_after_the_read_an_old_value_is_inserted() {
    let broken = counterexample(Without::StampFirst, INSERTS, 6);
    assert!(broken.contains(&"promise 1"));
}

/// The script that invalidates gives the earlier clocks. A mirror may not have heard of them.
#[test]
fn without_the_record_a_mirror_that_lags_lets_an_old_value_in() {
    let broken = counterexample(Without::RecordDecides, INSERTS, 6);
    assert!(broken.contains(&"promise 1"));
}

/// What is pending here has no clock yet.
#[test]
fn without_what_is_pending_an_old_value_is_inserted() {
    let scope = Scope {
        pool: true,
        ..INSERTS
    };
    let broken = counterexample(Without::PendingSinceStamp, scope, 6);
    assert!(broken.contains(&"promise 1"));
}

/// "While the invalidation is pending the value holds here only, and goes when it is delivered."
#[test]
fn a_value_that_outlives_its_delivery_is_an_old_one() {
    let (a, b) = (0, 1);
    let run = [
        Step::LosePool(a),
        Step::Stamp(a),
        Step::WriteAndInvalidate(b),
        Step::BeginInsert(a),
        Step::RememberInserted(a),
        Step::Tick,
        Step::RegainPool(a),
        Step::DeliverPending(a),
        Step::Ping(a),
        Step::Deliver(a),
        Step::Deliver(a),
        Step::Deliver(a),
        Step::Tick,
    ];
    let scope = Scope {
        pool: true,
        ..INSERTS
    };
    let broken = broken_by(Without::EndedByDelivery, scope, &run);
    assert!(broken.contains(&"promise 3"));
}

/// "No fill, in either tier, replaces a value of a higher clock of its history."
#[test]
fn without_the_clocks_in_redis_a_late_fill_replaces_an_inserted_value() {
    let broken = counterexample(Without::NewerInRedis, INSERTS, 6);
    assert_eq!(broken, ["no fill replaces a newer value"]);
}

#[test]
fn without_the_clocks_in_memory_a_late_fill_replaces_a_newer_value() {
    // The older load was not overtaken: what was invalidated since is another tag.
    let (a, b) = (0, 1);
    let run = [
        Step::Load(a),
        Step::InvalidateOtherTag(b),
        Step::Load(b),
        Step::Fill(b, 0),
        Step::Tick,
        Step::Tick,
        Step::Look(a),
        Step::Remember(a, 0),
        Step::Remember(a, 1),
    ];
    let broken = broken_by(Without::NewerInMemory, BUS, &run);
    assert_eq!(broken, ["no fill replaces a newer value"]);
}
