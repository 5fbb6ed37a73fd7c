//! Situations that must occur in some run. Without them the promises would hold trivially.

use stateright::Property;

use super::reads::Place;
use super::state::*;
use super::steps::Coherence;

pub(super) fn properties() -> Vec<Property<Coherence>> {
    vec![
        Property::sometimes(
            "memory answers with a value loaded after a write",
            |_, state| answered(state, Place::Memory),
        ),
        Property::sometimes(
            "Redis answers with a value loaded after a write",
            |_, state| answered(state, Place::Redis),
        ),
        Property::sometimes("a read without trust is answered by Redis", |_, state| {
            any(state, |r| {
                !state.trusted(r) && state.found_in_redis(r).is_some()
            })
        }),
        Property::sometimes("a load is joined", |_, state| {
            any(state, |r| {
                state.joinable(r).is_some_and(|flight| !flight.copy)
            })
        }),
        Property::sometimes("a join is refused", |_, state| {
            any(state, |r| {
                state.replicas[r].flights[0].is_some() && state.joinable(r).is_none()
            })
        }),
        Property::sometimes("an overtaken load runs beside the newest", |_, state| {
            any(state, |r| {
                state.replicas[r].flights.iter().all(Option::is_some)
            })
        }),
        Property::sometimes("a stale fill of Redis", |_, state: &State| {
            let Redis {
                history,
                tag,
                value,
                ..
            } = state.redis;
            value.is_some_and(|value| {
                value.late && value.load.history == history && value.load.clock < tag
            })
        }),
        Property::sometimes("a stale copy enters memory", |_, state| {
            any(state, |r| {
                state.replicas[r].memory.is_some_and(|entry| entry.late)
            })
        }),
        Property::sometimes("memory is passed over for want of trust", |_, state| {
            any(state, |r| {
                state.replicas[r].memory.is_some() && !state.trusted(r)
            })
        }),
        Property::sometimes("a message shows a gap", |_, state| {
            any(state, |r| match state.replicas[r].inbox[0] {
                Some(message @ Message::Invalidated { history, .. }) => {
                    history == state.replicas[r].mirror.history && state.shows_gap(r, message)
                }
                _ => false,
            })
        }),
        Property::sometimes("an echo shows a gap", |_, state| {
            any(state, |r| match state.replicas[r].inbox[0] {
                Some(message @ Message::Echo { history, clock, .. }) => {
                    let mirror = state.replicas[r].mirror;
                    history == mirror.history
                        && clock > mirror.applied
                        && state.shows_gap(r, message)
                }
                _ => false,
            })
        }),
        // In an unbroken history: a clock below `applied` alone is no proof of a broken one.
        Property::sometimes(
            "an echo arrives below applied, in one history",
            |_, state| {
                any(state, |r| match state.replicas[r].inbox[0] {
                    Some(Message::Echo { history, clock, .. }) => {
                        state.histories == 1
                            && history == 1
                            && clock < state.replicas[r].mirror.applied
                    }
                    _ => false,
                })
            },
        ),
        Property::sometimes(
            "a restored value that nobody may be given",
            |_, state: &State| {
                let value = state.redis.value;
                state.finds_new_history(Connection::Pool)
                    && value.is_some_and(|value| value.version < state.due)
            },
        ),
        Property::sometimes("memory answers in a new history", |_, state| {
            any(state, |r| {
                state
                    .found_in_memory(r)
                    .is_some_and(|entry| entry.load.history > 1)
            })
        }),
        Property::sometimes(
            "a trusted mirror has not heard of the new history",
            |_, state| {
                any(state, |r| {
                    state.trusted(r) && state.replicas[r].mirror.history < state.redis.history
                })
            },
        ),
        Property::sometimes(
            "a value in Redis is blocked by a pending purge",
            |_, state| {
                any(state, |r| {
                    state.replicas[r].mirror.pending && state.replicas[r].pool
                }) && state.redis.value.is_some()
            },
        ),
    ]
}

/// The situations that inserts are about.
pub(super) fn of_inserts() -> Vec<Property<Coherence>> {
    vec![
        Property::sometimes("memory answers with an inserted value", |_, state| {
            any(state, |r| {
                state
                    .found_in_memory(r)
                    .is_some_and(|entry| entry.inserted && entry.version > 1)
            })
        }),
        Property::sometimes("Redis answers with an inserted value", |_, state| {
            any(state, |r| {
                state
                    .found_in_redis(r)
                    .is_some_and(|entry| entry.inserted && entry.version > 1)
            })
        }),
        Property::sometimes("a value is inserted while it is pending", |_, state| {
            any(state, |r| {
                let held = state.found_in_memory(r).is_some_and(|entry| entry.inserted);
                held && state.replicas[r].mirror.pending
            })
        }),
        Property::sometimes(
            "a value is older than the version that is due",
            |_, state| {
                any(state, |r| {
                    let caller = state.replicas[r].caller;
                    caller.is_some_and(|caller| caller.version < state.due)
                })
            },
        ),
        Property::sometimes("the tag is invalidated before the fill", |_, state| {
            any(state, |r| {
                let fill = state.replicas[r].caller.and_then(|caller| caller.fill);
                fill.is_some_and(|fill| fill.clock < state.redis.tag)
            })
        }),
        Property::sometimes("the fill meets a newer value in Redis", |_, state| {
            any(state, |r| {
                let fill = state.replicas[r].caller.and_then(|caller| caller.fill);
                let value = state.redis.value.map(|value| value.load.clock);
                fill.is_some_and(|fill| Some(fill.clock) < value)
            })
        }),
        Property::sometimes("a load from before meets an inserted value", |_, state| {
            any(state, |r| {
                let loads = state.replicas[r].flights.iter().flatten();
                let value = state.redis.value.filter(|value| value.inserted);
                let mut clocks = loads.map(|flight| flight.entry.load.clock);
                value.is_some_and(|value| clocks.any(|clock| clock < value.load.clock))
            })
        }),
    ]
}

fn any(state: &State, holds: impl Fn(usize) -> bool) -> bool {
    (0..state.replicas.len()).any(holds)
}

fn answered(state: &State, place: Place) -> bool {
    any(state, |r| {
        let mut answers = state.answers(r).into_iter().flatten();
        answers.any(|answer| answer.place == place && answer.version > 1)
    })
}
