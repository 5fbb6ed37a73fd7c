//! The model that `stateright` explores: where it starts, which steps there are, and what must
//! hold.

use std::fmt;

use stateright::{Model, Property};

use super::reads::Answer;
use super::state::*;

/// One step. The numbers are a replica and, where there are two, which of its flights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Write,
    Invalidate(usize),
    WriteAndInvalidate(usize),
    InvalidateOtherTag(usize),
    Load(usize),
    SourceAnswers(usize, usize),
    Look(usize),
    Fill(usize, usize),
    Remember(usize, usize),
    Stamp(usize),
    StampAndWrite(usize),
    BeginInsert(usize),
    FillInserted(usize),
    RememberInserted(usize),
    BeginHit(usize),
    Ping(usize),
    Deliver(usize),
    Lose(usize),
    Cut(usize),
    Reconnect(usize),
    Tick,
    LosePool(usize),
    RegainPool(usize),
    DeliverPending(usize),
    Snapshot,
    RestartEmpty,
    RestartFromSnapshot,
}

/// Which steps there are, beyond invalidations, pings, deliveries and time.
#[derive(Clone, Copy, Default)]
pub(super) struct Scope {
    /// Loads begin and fill. Without them the run lives on what it starts with.
    pub(super) loads: bool,
    /// Messages are lost, and a subscription ends without a word.
    pub(super) bus: bool,
    /// A tag that the key does not depend on is invalidated, too.
    pub(super) other_tag: bool,
    /// Redis restarts, empty or from a snapshot.
    pub(super) redis: bool,
    /// Redis refuses a replica its reads and writes, while its bus may go on.
    pub(super) pool: bool,
    /// Flights find values in Redis and copy them into memory.
    pub(super) copies: bool,
    /// The write and its invalidation are two steps, the lease and the source's answer too.
    ///
    /// Where they are one, nothing is missed: the protocol does not look at values. So no value is
    /// older for it than one that was read right after the lease and became old right before the
    /// invalidation.
    pub(super) apart: bool,
    /// Callers insert values that they have read or written.
    pub(super) inserts: bool,
    /// Start with nothing loaded and nobody connected. Otherwise both replicas have the value, as
    /// have Redis and a snapshot, and both have just heard an echo.
    pub(super) cold: bool,
}

/// The properties.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// That no promise is broken.
    Promises,
    /// That the situations that the promises are about occur at all.
    Reach,
    /// The same for what is said of inserts.
    ReachOfInserts,
}

#[derive(Clone, Copy)]
pub(super) struct Coherence {
    pub(super) without: Without,
    pub(super) scope: Scope,
    /// The steps that a run may have. The checker's own limit would also compute, and throw away,
    /// the states one step beyond.
    pub(super) depth: u8,
    pub(super) asked: Asked,
}

const EMPTY: Redis = Redis {
    history: NO_HISTORY,
    same_run: false,
    clock: 0,
    tag: 0,
    value: None,
};

impl Model for Coherence {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        let replica = Replica {
            mirror: MirrorState::ALONE,
            memory: None,
            hit: None,
            flights: [None; 2],
            caller: None,
            subscribed: false,
            inbox: [None; BACKLOG],
            pool: true,
            queued: None,
            own: 0,
        };
        let cold = State {
            without: self.without,
            source: 1,
            redis: EMPTY,
            snapshot: None,
            replicas: [replica; 2],
            acknowledged: [0; 2],
            due: 0,
            histories: 0,
            newer_was_replaced: false,
            steps: 0,
        };
        if self.scope.cold {
            return vec![cold];
        }
        // The clock is not at its lowest, so that an empty Redis starts below it.
        let value = Entry {
            version: 1,
            load: Load {
                history: 1,
                clock: 3,
                sequence: 0,
            },
            late: false,
            inserted: false,
        };
        let redis = Redis {
            history: 1,
            same_run: true,
            clock: 3,
            tag: 3,
            value: Some(value),
        };
        let replica = Replica {
            mirror: MirrorState {
                history: 1,
                applied: 3,
                newest: 3,
                tag: 3,
                trust_left: MAX_STALENESS,
                ..MirrorState::ALONE
            },
            memory: Some(value),
            subscribed: true,
            ..replica
        };
        vec![State {
            redis,
            snapshot: Some(redis),
            replicas: [replica; 2],
            histories: 1,
            ..cold
        }]
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        if state.steps >= self.depth {
            return;
        }
        if self.scope.apart {
            steps.push(Step::Write);
        }
        for r in 0..2 {
            self.steps_of_replica(state, r, steps);
        }
        steps.push(Step::Tick);
        if self.scope.redis {
            steps.push(Step::Snapshot);
            // A second restart before anybody has spoken to Redis is the first with other data.
            if state.redis.same_run {
                steps.push(Step::RestartEmpty);
                if state.snapshot.is_some() {
                    steps.push(Step::RestartFromSnapshot);
                }
            }
        }
    }

    fn next_state(&self, before: &State, step: Step) -> Option<State> {
        let mut state = *before;
        match step {
            Step::Write => state.write(),
            Step::Invalidate(r) => state.invalidate(r),
            Step::WriteAndInvalidate(r) => {
                state.write();
                state.invalidate(r);
            }
            Step::InvalidateOtherTag(r) => state.invalidate_other_tag(r),
            Step::Load(r) => state.load(r, !self.scope.apart),
            Step::SourceAnswers(r, flight) => state.source_answers(r, flight),
            Step::Look(r) => state.look(r),
            Step::Fill(r, flight) => state.fill(r, flight),
            Step::Remember(r, flight) => state.remember(r, flight),
            Step::Stamp(r) => state.stamp(r),
            Step::StampAndWrite(r) => {
                state.stamp(r);
                state.write_to_insert(r);
            }
            Step::BeginInsert(r) => state.begin_insert(r),
            Step::FillInserted(r) => state.fill_inserted(r),
            Step::RememberInserted(r) => state.remember_inserted(r),
            Step::BeginHit(r) => state.begin_hit(r),
            Step::Ping(r) => state.ping(r),
            Step::Deliver(r) => state.deliver(r),
            Step::Lose(r) => {
                state.replicas[r].take_message();
            }
            Step::Cut(r) => state.replicas[r].subscribed = false,
            Step::Reconnect(r) => state.reconnect(r),
            Step::Tick => state.tick(),
            Step::LosePool(r) => state.replicas[r].pool = false,
            Step::RegainPool(r) => state.replicas[r].pool = true,
            Step::DeliverPending(r) => state.deliver_pending(r),
            Step::Snapshot => state.snapshot = Some(state.redis),
            Step::RestartEmpty => state.restart(EMPTY),
            Step::RestartFromSnapshot => state.restart(state.snapshot?),
        }
        if !matches!(step, Step::RestartEmpty | Step::RestartFromSnapshot) {
            state.newer_was_replaced |= state.has_replaced_newer(before);
        }
        state.settle_down(before);
        // Only these steps may change nothing.
        let idle = matches!(
            step,
            Step::Fill(..) | Step::FillInserted(_) | Step::Ping(_) | Step::Tick | Step::Snapshot
        );
        if idle && state == *before {
            return None;
        }
        state.steps += 1;
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        match self.asked {
            Asked::Promises => {}
            Asked::Reach => return super::reach::properties(),
            Asked::ReachOfInserts => return super::reach::of_inserts(),
        }
        vec![
            Property::always("promise 1", |_, state| {
                every_answer(state, |answer| answer.version >= answer.here)
            }),
            Property::always("promise 3", |_, state| {
                every_answer(state, |answer| answer.version >= answer.everywhere)
            }),
            Property::always("promise 4", |_, state| {
                every_answer(state, |answer| {
                    !answer.late || answer.version >= answer.here.max(answer.everywhere)
                })
            }),
            Property::always("no fill replaces a newer value", |_, state: &State| {
                !state.newer_was_replaced
            }),
        ]
    }
}

fn every_answer(state: &State, holds: impl Fn(&Answer) -> bool) -> bool {
    (0..2).all(|r| state.answers(r).iter().flatten().all(&holds))
}

impl Coherence {
    fn steps_of_replica(&self, state: &State, r: usize, steps: &mut Vec<Step>) {
        let Coherence { scope, without, .. } = *self;
        let replica = &state.replicas[r];
        steps.push(match scope.apart {
            true => Step::Invalidate(r),
            false => Step::WriteAndInvalidate(r),
        });
        if scope.other_tag && replica.pool {
            steps.push(Step::InvalidateOtherTag(r));
        }
        // A reader that may join starts no flight, and no third load runs beside the newest and the
        // overtaken one.
        let [newest, overtaken] = replica.flights;
        if newest.is_none() || (overtaken.is_none() && state.joinable(r).is_none()) {
            if scope.loads {
                steps.push(Step::Load(r));
            }
            if scope.copies && state.found_in_redis(r).is_some() {
                steps.push(Step::Look(r));
            }
        }
        for (i, flight) in replica.flights.iter().enumerate() {
            match flight {
                None => {}
                Some(flight) if flight.entry.version == UNREAD => {
                    steps.push(Step::SourceAnswers(r, i));
                }
                Some(flight) => {
                    if !flight.copy && replica.pool {
                        steps.push(Step::Fill(r, i));
                    }
                    steps.push(Step::Remember(r, i));
                }
            }
        }
        match replica.caller {
            None if scope.inserts => steps.extend([Step::Stamp(r), Step::StampAndWrite(r)]),
            None => {}
            Some(Caller { fill: None, .. }) => steps.push(Step::BeginInsert(r)),
            Some(caller) => {
                if caller.taken && replica.pool {
                    steps.push(Step::FillInserted(r));
                }
                steps.push(Step::RememberInserted(r));
            }
        }
        if without == Without::DeadlineFirst && replica.hit.is_none() {
            steps.push(Step::BeginHit(r));
        }
        steps.push(Step::Ping(r));
        if replica.inbox[0].is_some() {
            steps.push(Step::Deliver(r));
            if scope.bus {
                steps.push(Step::Lose(r));
            }
        }
        if !replica.subscribed {
            steps.push(Step::Reconnect(r));
        } else if scope.bus {
            steps.push(Step::Cut(r));
        }
        if scope.pool {
            steps.push(match replica.pool {
                true => Step::LosePool(r),
                false => Step::RegainPool(r),
            });
            if replica.pool && replica.queued.is_some() {
                steps.push(Step::DeliverPending(r));
            }
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |r: usize| ["A", "B"][r];
        match *self {
            Step::Write => write!(f, "a write commits"),
            Step::Invalidate(r) => write!(f, "{} invalidates the tag", name(r)),
            Step::WriteAndInvalidate(r) => {
                write!(f, "a write commits and {} invalidates the tag", name(r))
            }
            Step::InvalidateOtherTag(r) => write!(f, "{} invalidates another tag", name(r)),
            Step::Load(r) => write!(f, "{} begins a load", name(r)),
            Step::SourceAnswers(r, _) => write!(f, "the source answers {}", name(r)),
            Step::Look(r) => write!(f, "{} finds the value in Redis", name(r)),
            Step::Fill(r, _) => write!(f, "{} fills Redis", name(r)),
            Step::Remember(r, _) => write!(f, "{} fills its memory", name(r)),
            Step::Stamp(r) => write!(
                f,
                "a caller on {} takes a stamp and reads the value",
                name(r)
            ),
            Step::StampAndWrite(r) => {
                write!(
                    f,
                    "a caller on {} takes a stamp and a write commits",
                    name(r)
                )
            }
            Step::BeginInsert(r) => write!(f, "{} begins to insert the caller's value", name(r)),
            Step::FillInserted(r) => write!(f, "{} fills Redis with the inserted value", name(r)),
            Step::RememberInserted(r) => {
                write!(f, "{} fills its memory with the inserted value", name(r))
            }
            Step::BeginHit(r) => write!(f, "a read on {} compares the clocks", name(r)),
            Step::Ping(r) => write!(f, "{} sends a ping", name(r)),
            Step::Deliver(r) => write!(f, "{} hears the next message", name(r)),
            Step::Lose(r) => write!(f, "the next message to {} is lost", name(r)),
            Step::Cut(r) => write!(f, "the bus of {} is cut", name(r)),
            Step::Reconnect(r) => write!(f, "{} subscribes anew and reads the state", name(r)),
            Step::Tick => write!(f, "half of max_staleness passes"),
            Step::LosePool(r) => write!(f, "the pool of {} loses Redis", name(r)),
            Step::RegainPool(r) => write!(f, "the pool of {} reaches Redis again", name(r)),
            Step::DeliverPending(r) => write!(f, "{} delivers what was pending", name(r)),
            Step::Snapshot => write!(f, "a snapshot of Redis is taken"),
            Step::RestartEmpty => write!(f, "Redis restarts empty, with a clock that is behind"),
            Step::RestartFromSnapshot => write!(f, "Redis restarts from the snapshot"),
        }
    }
}
