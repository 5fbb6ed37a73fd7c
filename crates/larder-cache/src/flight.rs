//! Single-flight: readers of one key share one load.
//!
//! A flight can give an answer before it lands: a stale copy that policy allows to be served at once. It goes on all the same, and
//! what it brings is in the tiers for the next reader. Readers wait as futures, or on their own thread, or leave a callback.
//!
//! Invariant: a key is in the table exactly while its leader's [`Landing`] is alive. The landing takes its flight out by identity
//! and wakes every reader when it is dropped, so that a load that panics strands nobody.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Instant;

use super::coherence::Dependency;
use super::error::LoadError;
use super::interest::{Behalf, Interest};
use super::key::Key;
use super::outcome::Answer;
use super::ticket::Ticket;

const SHARDS: usize = 16;
/// Loads of one key at one time.
const RUNNING: usize = 2;

/// What a reader gets.
pub type LookupResult = Result<Answer, LoadError>;
/// Makes a stale answer for a reader who will not wait to the end.
type Fallback = Box<dyn Fn() -> Option<Answer> + Send>;

/// The flights under way.
pub(crate) struct Flights {
    shards: [Mutex<HashMap<Key, Lane, foldhash::fast::RandomState>>; SHARDS],
    hasher: foldhash::fast::RandomState,
}

/// The flights of one key: two at most, the overtaken one and the newest, so that a storm of invalidations is no storm of loads.
/// A third waits for a place.
#[derive(Default)]
struct Lane {
    running: Vec<Arc<Flight>>,
    next: Option<Next>,
}

/// A flight that waits for a place.
struct Next {
    flight: Arc<Flight>,
    start: Start,
    /// Whether it goes to the source whatever the tiers have.
    fresh: bool,
}

/// Begins a flight's way; must not block.
pub(crate) type Start = Box<dyn FnOnce(Landing) + Send>;

/// One load and those who wait for it.
pub(crate) struct Flight {
    state: Mutex<State>,
    interest: Arc<Interest>,
}

#[derive(Default)]
pub(super) struct State {
    /// What the load depends on, stamped as it began.
    dependency: Option<Dependency>,
    began: Option<Instant>,
    /// Whether it may bring a copy that only the mirror has let pass.
    unproven: bool,
    /// Served at once to whoever asks, as long as this gives it: it looks again each time.
    early: Option<Fallback>,
    pub(super) fallback: Option<Fallback>,
    ending: Option<LookupResult>,
    pub(super) waiters: Vec<Waiter>,
    /// How often all waiters were woken.
    pub(super) wakes: u64,
}

pub(super) enum Waiter {
    Task(Waker),
    Callback(Box<dyn FnOnce(LookupResult) + Send>, Role),
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Leader,
    Follower,
}

/// The leader's duty to end its flight.
pub(crate) struct Landing {
    flights: Arc<Flights>,
    flight: Arc<Flight>,
    key: Key,
}

impl Flights {
    pub(crate) fn new() -> Flights {
        Flights {
            shards: Default::default(),
            hasher: Default::default(),
        }
    }

    fn shard(&self, key: &Key) -> MutexGuard<'_, HashMap<Key, Lane, foldhash::fast::RandomState>> {
        use std::hash::BuildHasher;
        let shard = self.hasher.hash_one(key) as usize % SHARDS;
        self.shards[shard]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Joins a flight of `key` that `joinable` says could serve this reader, or the one that waits
    /// to begin, or leads a new one, on its way by `start`: at once, here, if there is a place for
    /// it. `fresh`: only a load from the source serves this reader. A flight that waits to begin
    /// and would be content with less takes its way then.
    pub(crate) fn join(
        self: &Arc<Self>,
        key: &Key,
        behalf: &Behalf,
        joinable: impl Fn(&Flight) -> bool,
        fresh: bool,
        start: impl FnOnce(Landing) + Send + 'static,
    ) -> Ticket {
        let mut shard = self.shard(key);
        let lane = shard.entry(key.clone()).or_default();
        let follow = |flight: &Arc<Flight>| {
            let reader = flight.interest.board(behalf)?;
            Some(Ticket::waiting(flight.clone(), Role::Follower, reader))
        };
        let newest = lane.running.last().filter(|flight| joinable(flight));
        if let Some(ticket) = newest.and_then(follow) {
            return ticket;
        }
        // It begins later than this reader did, so it can serve it whatever is invalidated.
        if let Some(next) = &mut lane.next
            && let Some(ticket) = follow(&next.flight)
        {
            if fresh && !next.fresh {
                next.start = Box::new(start);
                next.fresh = true;
            }
            return ticket;
        }
        let flight = Arc::new(Flight {
            state: Mutex::default(),
            interest: Arc::default(),
        });
        let reader = flight.interest.board(behalf).flatten();
        let ticket = Ticket::waiting(flight.clone(), Role::Leader, reader);
        if lane.running.len() < RUNNING {
            lane.running.push(flight.clone());
            drop(shard);
            start(Landing {
                flights: self.clone(),
                flight,
                key: key.clone(),
            });
        } else {
            lane.next = Some(Next {
                flight,
                start: Box::new(start),
                fresh,
            });
        }
        ticket
    }

    /// Takes `flight` out of the table, and gives the one that now has a place.
    fn leave(&self, key: &Key, flight: &Arc<Flight>) -> Option<Next> {
        let mut shard = self.shard(key);
        let lane = shard.get_mut(key)?;
        lane.running.retain(|running| !Arc::ptr_eq(running, flight));
        if lane.running.len() < RUNNING
            && let Some(next) = lane.next.take()
        {
            lane.running.push(next.flight.clone());
            return Some(next);
        }
        if lane.running.is_empty() {
            shard.remove(key);
        }
        None
    }
}

impl Flight {
    /// Looks at what the load depends on, when it began, and whether it may bring a copy that only the mirror has let pass; `None`
    /// before it has begun.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&Dependency, Instant, bool) -> T) -> Option<T> {
        let state = self.lock();
        let dependency = state.dependency.as_ref()?;
        Some(look(dependency, state.began?, state.unproven))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    pub(super) fn answer(&self, role: Role) -> Option<LookupResult> {
        if let Some(ending) = &self.ending {
            return Some(ending.clone().map(|answer| Answer {
                outcome: if role == Role::Follower {
                    answer.outcome.for_follower()
                } else {
                    answer.outcome
                },
                ..answer
            }));
        }
        self.early.as_ref()?().map(Ok)
    }
}

impl Landing {
    /// Notes what the load depends on, as it begins, and again when it has a better stamp.
    pub(crate) fn stamp(&self, dependency: Dependency) {
        let mut state = self.flight.lock();
        state.dependency = Some(dependency);
        state.began.get_or_insert_with(Instant::now);
    }

    /// Notes whether the flight may bring a copy that only the mirror has let pass, and which is for those only who trust it, too.
    pub(crate) fn set_unproven(&self, unproven: bool) {
        self.flight.lock().unproven = unproven;
    }

    /// Who waits for the flight.
    pub(crate) fn interest(&self) -> &Arc<Interest> {
        &self.flight.interest
    }

    /// Serves what `early` gives to those who wait and to those who come, as long as it gives it. The flight goes on.
    pub(crate) fn offer(&self, early: impl Fn() -> Option<Answer> + Send + 'static) {
        self.flight.interest.keep();
        let waiters = {
            let mut state = self.flight.lock();
            state.early = Some(Box::new(early));
            state.wakes += 1;
            std::mem::take(&mut state.waiters)
        };
        self.wake(waiters);
    }

    /// Has `fallback` at hand for those who will not wait to the end.
    pub(crate) fn set_fallback(&self, fallback: impl Fn() -> Option<Answer> + Send + 'static) {
        self.flight.lock().fallback = Some(Box::new(fallback));
    }

    /// Ends the flight.
    pub(crate) fn end(self, ending: LookupResult) {
        self.flight.lock().ending = Some(ending);
        // The rest is done on drop, as for a flight that ends by a panic.
    }

    fn wake(&self, waiters: Vec<Waiter>) {
        for waiter in waiters {
            match waiter {
                Waiter::Task(waker) => waker.wake(),
                Waiter::Callback(callback, role) => {
                    let answer = self.flight.lock().answer(role);
                    match answer {
                        // A panic there is a bug of that reader alone: the others wait, and so does
                        // the next flight.
                        Some(answer) => {
                            if catch_unwind(AssertUnwindSafe(|| callback(answer))).is_err() {
                                log::error!("what waits for {} panicked", self.key);
                            }
                        }
                        None => self
                            .flight
                            .lock()
                            .waiters
                            .push(Waiter::Callback(callback, role)),
                    }
                }
            }
        }
    }
}

impl Drop for Landing {
    fn drop(&mut self) {
        // Out of the table first: who comes now must begin a load of its own, or find the value in memory.
        let next = self.flights.leave(&self.key, &self.flight);
        let (waiters, fallback, early) = {
            let mut state = self.flight.lock();
            if state.ending.is_none() {
                state.ending = Some(Err(LoadError::Failed("the load was given up".into())));
            }
            (
                std::mem::take(&mut state.waiters),
                state.fallback.take(),
                state.early.take(),
            )
        };
        // Outside the lock: a fallback may hold tickets of other flights.
        drop((fallback, early));
        self.wake(waiters);
        if let Some(next) = next {
            (next.start)(Landing {
                flights: self.flights.clone(),
                flight: next.flight,
                key: self.key.clone(),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::{Entry, Extras, Value};
    use crate::outcome::{Outcome, Staleness, Trace};
    use crate::policy::Expiry;
    use crate::{HistoryId, Stamp};
    use std::sync::mpsc;
    use std::time::Duration;

    fn answer(body: &'static str, outcome: Outcome) -> Answer {
        let own = Dependency::unknown(
            Stamp {
                epoch: HistoryId(1),
                clock: 0,
                begun: 0,
            },
            Arc::default(),
        );
        let never = Expiry {
            memory_until: 0,
            fresh_until: 0,
        };
        let value = Value::Present(body.into());
        let entry = Entry::new(value, own, 0, 0, never, Extras::default());
        Answer {
            entry: Arc::new(entry),
            outcome,
            trace: Trace::default(),
        }
    }

    fn body(ending: &LookupResult) -> &[u8] {
        ending.as_ref().unwrap().entry.value.bytes()
    }

    const LONG: Duration = Duration::from_secs(20);

    /// Joins, or leads with the landing given back.
    fn join(flights: &Arc<Flights>, joinable: bool) -> (Ticket, Option<Landing>) {
        let (give, take) = mpsc::channel();
        let ticket = flights.join(
            &Key::new(1, "a"),
            &Behalf::Reader(0),
            |_| joinable,
            false,
            move |landing| drop(give.send(landing)),
        );
        (ticket, take.try_recv().ok())
    }

    #[test]
    fn one_leads_and_the_others_get_what_it_brings() {
        let flights = Arc::new(Flights::new());
        let (leader, landing) = join(&flights, true);
        let followers: Vec<_> = (0..20)
            .map(|_| {
                let (ticket, landing) = join(&flights, true);
                assert!(landing.is_none());
                std::thread::spawn(move || ticket.wait(LONG))
            })
            .collect();
        landing.unwrap().end(Ok(answer("x", Outcome::Loaded)));
        assert_eq!(leader.wait(LONG).unwrap().outcome, Outcome::Loaded);
        for follower in followers {
            let ending = follower.join().unwrap();
            assert_eq!(
                (body(&ending), ending.as_ref().unwrap().outcome),
                (&b"x"[..], Outcome::Collapsed)
            );
        }
        assert!(
            join(&flights, true).1.is_some(),
            "a flight that has landed is not joined"
        );
    }

    #[test]
    fn a_flight_that_could_not_serve_a_reader_is_not_joined_and_two_fly_at_most() {
        let flights = Arc::new(Flights::new());
        let (first, old) = join(&flights, false);
        let (second, new) = join(&flights, false);
        let (give, begun) = mpsc::channel();
        let third = flights.join(
            &Key::new(1, "a"),
            &Behalf::Reader(0),
            |_| false,
            false,
            move |landing| drop(give.send(landing)),
        );
        assert!(begun.try_recv().is_err(), "a third waits for a place");
        let (fourth, none) = join(&flights, false);
        assert!(none.is_none(), "and who comes then waits with it");
        old.unwrap().end(Ok(answer("1", Outcome::Loaded)));
        let landing = begun.try_recv().expect("the place is free");
        new.unwrap().end(Ok(answer("2", Outcome::Loaded)));
        landing.end(Ok(answer("3", Outcome::Loaded)));
        let bodies = [first, second, third, fourth].map(|ticket| body(&ticket.wait(LONG)).to_vec());
        assert_eq!(bodies, [b"1", b"2", b"3", b"3"].map(|body| body.to_vec()));
    }

    #[test]
    fn a_reader_that_panics_strands_nobody() {
        let flights = Arc::new(Flights::new());
        let (first, landing) = join(&flights, false);
        let (_, other) = join(&flights, false);
        let (next, _) = join(&flights, false);
        first.on_answer(|_| panic!("a reader's own bug"));
        let (told, answers) = mpsc::channel();
        first.on_answer(move |ending| drop(told.send(ending)));
        landing.unwrap().end(Ok(answer("x", Outcome::Loaded)));
        assert_eq!(body(&answers.try_recv().unwrap()), b"x");
        // The next flight has begun, and ends: nothing here takes its landing.
        assert!(next.wait(LONG).is_err());
        drop(other);
        assert!(
            flights
                .shards
                .iter()
                .all(|shard| shard.lock().unwrap().is_empty())
        );
    }

    #[test]
    fn who_needs_a_load_shares_the_next_one() {
        let flights = Arc::new(Flights::new());
        let (_, first) = join(&flights, false);
        let (_, second) = join(&flights, false);
        let (content, _) = join(&flights, false);
        let (give, begun) = mpsc::channel();
        let need = |number: usize| {
            let give = give.clone();
            flights.join(
                &Key::new(1, "a"),
                &Behalf::Reader(0),
                |_| false,
                true,
                move |landing| drop(give.send((number, landing))),
            )
        };
        let needs: Vec<Ticket> = (0..100).map(need).collect();
        assert!(begun.try_recv().is_err(), "two loads run at most");
        drop(first);
        let (number, landing) = begun.try_recv().expect("the place is free");
        assert_eq!(number, 0, "the way of the first that needs a load");
        landing.end(Ok(answer("new", Outcome::Loaded)));
        for ticket in needs.into_iter().chain([content]) {
            assert_eq!(body(&ticket.wait(LONG)), b"new");
        }
        drop(second);
        assert!(begun.try_recv().is_err(), "one load for all of them");
    }

    #[test]
    fn a_landing_that_is_lost_frees_the_key_and_its_readers() {
        let flights = Arc::new(Flights::new());
        let (_, landing) = join(&flights, true);
        let (follower, _) = join(&flights, true);
        let panicked = std::thread::spawn(move || {
            let _landing = landing;
            panic!("a load may panic");
        });
        assert!(panicked.join().is_err());
        assert!(matches!(follower.wait(LONG), Err(LoadError::Failed(_))));
        assert!(join(&flights, true).1.is_some());
    }

    #[test]
    fn an_offer_is_served_while_the_flight_goes_on() {
        let flights = Arc::new(Flights::new());
        let (leader, landing) = join(&flights, true);
        let landing = landing.unwrap();
        let (told, heard) = mpsc::channel();
        leader.on_answer(move |ending| told.send(ending).unwrap());
        let stale = Outcome::Stale(Staleness::WhileRevalidate);
        landing.offer(move || Some(answer("old", stale)));
        assert_eq!(body(&heard.recv().unwrap()), b"old");
        assert_eq!(
            body(&join(&flights, true).0.wait(LONG)),
            b"old",
            "who joins later gets it, too"
        );
        landing.offer(|| None);
        let (late, _) = join(&flights, true);
        landing.end(Ok(answer("new", Outcome::Loaded)));
        assert_eq!(body(&late.wait(LONG)), b"new", "an offer has its time");
    }

    #[test]
    fn who_will_wait_no_longer_gets_the_copy_at_hand() {
        let flights = Arc::new(Flights::new());
        let (ticket, landing) = join(&flights, true);
        assert!(ticket.stale().is_none());
        landing
            .as_ref()
            .unwrap()
            .set_fallback(|| Some(answer("old", Outcome::MemoryHit)));
        let copy = ticket.stale().unwrap();
        assert_eq!(copy.outcome, Outcome::Stale(Staleness::SoftTimeout));
        assert!(matches!(
            ticket.wait(Duration::from_millis(1)),
            Err(LoadError::TooSlow(_))
        ));
    }
}
