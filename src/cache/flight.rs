//! Single-flight: readers of one key share one load.
//!
//! A flight can give an answer before it lands: a stale copy that policy allows to be served at once. It goes on all the same, and
//! what it brings is in the tiers for the next reader. Readers wait as futures, or on their own thread, or leave a callback.
//!
//! Invariant: a key is in the table exactly while its leader's [`Landing`] is alive. The landing takes its flight out by identity
//! and wakes every reader when it is dropped, so that a load that panics strands nobody.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use super::error::LoadError;
use super::key::Key;
use super::outcome::{Answer, Outcome, Staleness};

const SHARDS: usize = 16;

/// What a reader gets.
pub type Ending = Result<Answer, LoadError>;
/// Makes a stale answer for a reader who will not wait to the end.
type Fallback = Box<dyn Fn() -> Option<Answer> + Send>;

/// The flights under way.
pub(crate) struct Flights {
    shards: [Mutex<HashMap<Key, Arc<Flight>, foldhash::fast::RandomState>>; SHARDS],
    hasher: foldhash::fast::RandomState,
}

/// One load and those who wait for it.
pub(crate) struct Flight {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Served at once to whoever asks until that moment.
    early: Option<(Answer, Instant)>,
    fallback: Option<Fallback>,
    ending: Option<Ending>,
    waiters: Vec<Waiter>,
    /// How often all waiters were woken.
    wakes: u64,
}

enum Waiter {
    Task(Waker),
    Callback(Box<dyn FnOnce(Ending) + Send>, Role),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Leader,
    Follower,
}

/// The leader's duty to end its flight.
pub(crate) struct Landing {
    flights: Arc<Flights>,
    flight: Arc<Flight>,
    key: Key,
}

/// A reader's claim to an answer: a future, or something to wait for on a thread.
pub struct Ticket(Claim);

enum Claim {
    Ready(Option<Answer>),
    Waiting {
        flight: Arc<Flight>,
        role: Role,
        /// The waker that was left with the flight, and how often the flight had woken its readers by then.
        left: Option<(Waker, u64)>,
    },
}

impl Flights {
    pub(crate) fn new() -> Flights {
        Flights {
            shards: Default::default(),
            hasher: Default::default(),
        }
    }

    fn shard(
        &self,
        key: &Key,
    ) -> MutexGuard<'_, HashMap<Key, Arc<Flight>, foldhash::fast::RandomState>> {
        use std::hash::BuildHasher;
        let shard = self.hasher.hash_one(key) as usize % SHARDS;
        self.shards[shard]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Joins the flight of `key`, or leads a new one: then there is a landing, too.
    pub(crate) fn join(self: &Arc<Self>, key: &Key) -> (Ticket, Option<Landing>) {
        let mut shard = self.shard(key);
        if let Some(flight) = shard.get(key) {
            return (
                Ticket(Claim::Waiting {
                    flight: flight.clone(),
                    role: Role::Follower,
                    left: None,
                }),
                None,
            );
        }
        let flight = Arc::new(Flight {
            state: Mutex::default(),
        });
        shard.insert(key.clone(), flight.clone());
        let landing = Landing {
            flights: self.clone(),
            flight: flight.clone(),
            key: key.clone(),
        };
        (
            Ticket(Claim::Waiting {
                flight,
                role: Role::Leader,
                left: None,
            }),
            Some(landing),
        )
    }
}

impl Flight {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn answer(&self, role: Role) -> Option<Ending> {
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
        let (answer, until) = self.early.as_ref()?;
        (Instant::now() < *until).then(|| Ok(answer.clone()))
    }
}

impl Landing {
    /// Serves `answer` to those who wait and to those who come within `for_long`. The flight goes on.
    pub(crate) fn offer(&self, answer: Answer, for_long: Duration) {
        let waiters = {
            let mut state = self.flight.lock();
            state.early = Some((answer, Instant::now() + for_long));
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
    pub(crate) fn end(self, ending: Ending) {
        self.flight.lock().ending = Some(ending);
        // The rest is done on drop, as for a flight that ends by a panic.
    }

    fn wake(&self, waiters: Vec<Waiter>) {
        for waiter in waiters {
            match waiter {
                Waiter::Task(waker) => waker.wake(),
                Waiter::Callback(callback, role) => {
                    let answer = self.flight.lock().answer(role);
                    callback(answer.unwrap_or(Err(LoadError::Overloaded)));
                }
            }
        }
    }
}

impl Drop for Landing {
    fn drop(&mut self) {
        // Out of the table first: who comes now must begin a load of its own, or find the value in memory.
        let mut shard = self.flights.shard(&self.key);
        if shard
            .get(&self.key)
            .is_some_and(|flight| Arc::ptr_eq(flight, &self.flight))
        {
            shard.remove(&self.key);
        }
        drop(shard);
        let (waiters, fallback) = {
            let mut state = self.flight.lock();
            if state.ending.is_none() {
                state.ending = Some(Err(LoadError::Failed("the load was given up".into())));
            }
            (std::mem::take(&mut state.waiters), state.fallback.take())
        };
        // Outside the lock: a fallback may hold tickets of other flights.
        drop(fallback);
        self.wake(waiters);
    }
}

impl Ticket {
    /// A claim that is met already.
    pub(crate) fn ready(answer: Answer) -> Ticket {
        Ticket(Claim::Ready(Some(answer)))
    }

    /// A stale answer for a reader who has waited as long as its resource allows, if there is a copy.
    pub fn stale(&self) -> Option<Answer> {
        let Claim::Waiting { flight, .. } = &self.0 else {
            return None;
        };
        let mut answer = flight.lock().fallback.as_ref()?()?;
        answer.outcome = Outcome::Stale(Staleness::SoftTimeout);
        Some(answer)
    }

    /// The answer or a stale copy, as far as there is one now.
    pub(crate) fn answer_or_stale(&self) -> Option<Answer> {
        match &self.0 {
            Claim::Ready(answer) => answer.clone(),
            Claim::Waiting { flight, role, .. } => {
                let now = flight.lock().answer(*role);
                now.and_then(Result::ok).or_else(|| self.stale())
            }
        }
    }

    /// Calls `callback` with the answer, once, here if there is one already.
    pub(crate) fn on_answer(&self, callback: impl FnOnce(Ending) + Send + 'static) {
        let answer = match &self.0 {
            Claim::Ready(answer) => answer.clone().ok_or(LoadError::Overloaded),
            Claim::Waiting { flight, role, .. } => {
                let mut state = flight.lock();
                match state.answer(*role) {
                    Some(answer) => answer,
                    None => {
                        state
                            .waiters
                            .push(Waiter::Callback(Box::new(callback), *role));
                        return;
                    }
                }
            }
        };
        callback(answer);
    }

    /// Waits on this thread, at most for `limit`.
    ///
    /// # Errors
    /// What the load ended with; `TooSlow` when the time is over.
    pub fn wait(self, limit: Duration) -> Ending {
        struct Unpark(std::thread::Thread);
        impl Wake for Unpark {
            fn wake(self: Arc<Self>) {
                self.0.unpark();
            }
        }
        let deadline = Instant::now() + limit;
        let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
        let mut context = Context::from_waker(&waker);
        let mut ticket = self;
        loop {
            if let Poll::Ready(ending) = Pin::new(&mut ticket).poll(&mut context) {
                return ending;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(LoadError::TooSlow("the load took too long".into()));
            }
            std::thread::park_timeout(left);
        }
    }
}

impl Future for Ticket {
    type Output = Ending;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Ending> {
        match &mut self.0 {
            Claim::Ready(answer) => Poll::Ready(answer.take().ok_or(LoadError::Overloaded)),
            Claim::Waiting { flight, role, left } => {
                let mut state = flight.lock();
                if let Some(ending) = state.answer(*role) {
                    return Poll::Ready(ending);
                }
                let waker = context.waker();
                let waits = left
                    .as_ref()
                    .is_some_and(|(left, wakes)| *wakes == state.wakes && left.will_wake(waker));
                if !waits {
                    state.waiters.push(Waiter::Task(waker.clone()));
                    *left = Some((waker.clone(), state.wakes));
                }
                Poll::Pending
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::Epoch;
    use crate::cache::entry::{Entry, Value};
    use crate::cache::outcome::Trace;
    use crate::cache::policy::{Ends, Life};
    use std::sync::mpsc;

    fn answer(body: &'static str, outcome: Outcome) -> Answer {
        let entry = Entry {
            value: Value::Present(body.into()),
            hash: 0,
            load_id: 0,
            epoch: Epoch(1),
            load_clock: 0,
            loaded_at: 0,
            load_time: Duration::ZERO,
            life: Life::Full,
            tags: Box::default(),
            ends: Ends {
                memory_until: 0,
                fresh_until: 0,
            },
            hold: None,
        };
        Answer {
            entry: Arc::new(entry),
            outcome,
            trace: Trace::default(),
        }
    }

    fn body(ending: &Ending) -> &[u8] {
        ending.as_ref().unwrap().entry.value.bytes()
    }

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn one_leads_and_the_others_get_what_it_brings() {
        let flights = Arc::new(Flights::new());
        let key = Key::new(1, "a");
        let (leader, landing) = flights.join(&key);
        let followers: Vec<_> = (0..20)
            .map(|_| {
                let (ticket, landing) = flights.join(&key);
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
            flights.join(&key).1.is_some(),
            "a flight that has landed is not joined"
        );
    }

    #[test]
    fn a_landing_that_is_lost_frees_the_key_and_its_readers() {
        let flights = Arc::new(Flights::new());
        let key = Key::new(1, "a");
        let (_, landing) = flights.join(&key);
        let (follower, _) = flights.join(&key);
        let panicked = std::thread::spawn(move || {
            let _landing = landing;
            panic!("a load may panic");
        });
        assert!(panicked.join().is_err());
        assert!(matches!(follower.wait(LONG), Err(LoadError::Failed(_))));
        assert!(flights.join(&key).1.is_some());
    }

    #[test]
    fn an_offer_is_served_while_the_flight_goes_on() {
        let flights = Arc::new(Flights::new());
        let key = Key::new(1, "a");
        let (leader, landing) = flights.join(&key);
        let landing = landing.unwrap();
        let (told, heard) = mpsc::channel();
        leader.on_answer(move |ending| told.send(ending).unwrap());
        landing.offer(
            answer("old", Outcome::Stale(Staleness::WhileRevalidate)),
            LONG,
        );
        assert_eq!(body(&heard.recv().unwrap()), b"old");
        assert_eq!(
            body(&flights.join(&key).0.wait(LONG)),
            b"old",
            "who joins later gets it, too"
        );
        landing.offer(
            answer("old", Outcome::Stale(Staleness::WhileRevalidate)),
            Duration::ZERO,
        );
        let (late, _) = flights.join(&key);
        landing.end(Ok(answer("new", Outcome::Loaded)));
        assert_eq!(body(&late.wait(LONG)), b"new", "an offer has its time");
    }

    #[test]
    fn who_will_wait_no_longer_gets_the_copy_at_hand() {
        let flights = Arc::new(Flights::new());
        let (ticket, landing) = flights.join(&Key::new(1, "a"));
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
