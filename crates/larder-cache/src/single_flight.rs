//! Single-flight: readers of one key share one load.
//!
//! Three types to read first:
//!
//! - [`Flights`] is the table. [`Flights::join`] makes a reader the leader or a follower of a load.
//! - [`Leader`] is the guard of the one who loads. It stamps the load, can offer a stale copy
//!   early, and ends the flight. If it is dropped, by a panic too, the flight ends with an error.
//! - [`Ticket`] is a reader's claim to the result. It is a future, can be waited for on a thread,
//!   or takes a callback. It also gives a stale copy, if the leader has one at hand.
//!
//! [`Flight`] is what they share: one load, its stamp, and who waits. A [`Runner`] is a reader that
//! runs the load itself: see `runner.rs`.
//!
//! Invariant: a key is in the table exactly while a [`Leader`] of it is alive. A leader that is
//! dropped takes its own flight out of the table and wakes every reader, so that a load that panics
//! strands nobody.

mod runner;

use std::collections::HashMap;
use std::future::Future;
use std::hash::BuildHasher;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use parking_lot::{Mutex, MutexGuard};

use super::answer::{Answer, LookupResult};
use super::coherence::Dependency;
use super::error::LoadError;
use super::interest::{Behalf, Interest, Reader};
use super::key::Key;
use super::outcome::{Outcome, Staleness};

use self::runner::Runners;

pub(crate) use self::runner::{Ran, Runner};

const SHARDS: usize = 16;
/// Loads of one key at one time.
const RUNNING: usize = 2;

/// Makes a stale answer for a reader who will not wait to the end. `None`: it may not be served any
/// more.
type StaleAnswer = Box<dyn Fn() -> Option<Answer> + Send>;

/// Begins a load; must not block.
type Start = Box<dyn FnOnce(Leader) + Send>;

/// The flights under way.
pub(crate) struct Flights {
    /// Each lock protects the flights of the keys that hash to it. Held while a reader joins or a
    /// flight leaves, never while a load begins.
    shards: [Mutex<HashMap<Key, OfKey, RandomState>>; SHARDS],
    hasher: RandomState,
}

/// The flights of one key: two at most, the overtaken one and the newest, so that a storm of
/// invalidations is no storm of loads. A third is queued.
#[derive(Default)]
struct OfKey {
    running: Vec<Arc<Flight>>,
    queued: Option<Queued>,
}

/// A flight that begins when another one of its key has ended.
struct Queued {
    flight: Arc<Flight>,
    start: Start,
    /// Whether it asks the source whatever the tiers have.
    is_new_load: bool,
}

/// One load and those who wait for it.
pub(crate) struct Flight {
    key: Key,
    /// Protects all that changes during the load. Held for a look or a change, never while a reader
    /// is woken.
    state: Mutex<FlightState>,
    interest: Arc<Interest>,
}

#[derive(Default)]
struct FlightState {
    /// What the load depends on, stamped as it began, and when that was.
    began: Option<(Dependency, Instant)>,
    /// Whether a reader may have joined before `began` was stored. Its stamp can be older than that
    /// reader.
    joined_unstamped: bool,
    /// Whether it may bring a copy that was checked against the local mirror only.
    unverified: bool,
    /// Makes the answer that is served at once to every reader, for as long as it gives one.
    early: Option<StaleAnswer>,
    /// Makes the answer for readers that do not wait to the end.
    fallback: Option<StaleAnswer>,
    result: Option<LookupResult>,
    waiters: Vec<Waiter>,
    /// How often all waiters were woken.
    wakes: u64,
    /// The readers that brought a loader to run themselves.
    runners: Runners,
    /// Begins a load by another reader's loader, if no runner is left for this one.
    spare: Option<Start>,
}

enum Waiter {
    Task(Waker),
    Callback(Box<dyn FnOnce(LookupResult) + Send>, Role),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Leader,
    Follower,
}

impl Flights {
    pub(crate) fn new() -> Flights {
        Flights {
            shards: Default::default(),
            hasher: RandomState::default(),
        }
    }

    fn shard(&self, key: &Key) -> MutexGuard<'_, HashMap<Key, OfKey, RandomState>> {
        self.shards[self.hasher.hash_one(key) as usize % SHARDS].lock()
    }

    /// Joins a running flight of `key` if `joinable` says that it can serve this reader; else the
    /// queued one; else leads a new one. `start` begins that: at once, here, or when another flight
    /// of the key has ended. `is_new_load`: only a load from the source serves this reader. A
    /// queued flight that would be content with less is begun by this `start` then.
    pub(crate) fn join(
        self: &Arc<Self>,
        key: &Key,
        behalf: &Behalf,
        joinable: impl Fn(&Flight) -> bool,
        is_new_load: bool,
        start: impl FnOnce(Leader) + Send + 'static,
    ) -> Ticket {
        let joined = self.board(key, behalf, joinable, is_new_load, false, start);
        Ticket::waiting(joined)
    }

    /// The same for a reader that runs the load itself if it comes to that: the `start` of such a
    /// reader hands the load over by [`Flight::hand_over`].
    pub(crate) fn join_to_run(
        self: &Arc<Self>,
        key: &Key,
        behalf: &Behalf,
        joinable: impl Fn(&Flight) -> bool,
        start: impl FnOnce(Leader) + Send + 'static,
    ) -> Runner {
        Runner::new(self.board(key, behalf, joinable, false, true, start))
    }

    fn board(
        self: &Arc<Self>,
        key: &Key,
        behalf: &Behalf,
        joinable: impl Fn(&Flight) -> bool,
        is_new_load: bool,
        runs: bool,
        start: impl FnOnce(Leader) + Send + 'static,
    ) -> Joined {
        let mut shard = self.shard(key);
        let of_key = match shard.get_mut(key) {
            Some(of_key) => of_key,
            None => shard.entry(key.clone()).or_default(),
        };
        let newest = of_key.running.last().filter(|flight| joinable(flight));
        if let Some(joined) = newest.and_then(|flight| flight.follow(behalf, runs)) {
            if !runs {
                joined.flight.leave_spare(start);
            }
            return joined;
        }
        // It begins later than this reader came, so it can serve it whatever is invalidated.
        if let Some(queued) = &mut of_key.queued
            && let Some(joined) = queued.flight.follow(behalf, runs)
        {
            if is_new_load && !queued.is_new_load {
                queued.start = Box::new(start);
                queued.is_new_load = true;
                joined.flight.state.lock().runners.are_asked = runs;
            } else if !runs {
                joined.flight.leave_spare(start);
            }
            return joined;
        }
        let mut state = FlightState::default();
        state.runners.are_asked = runs;
        let runner = runs.then(|| state.runners.add());
        let flight = Arc::new(Flight {
            key: key.clone(),
            state: Mutex::new(state),
            interest: Arc::default(),
        });
        let joined = Joined {
            reader: flight.interest.board(behalf).flatten(),
            flight: flight.clone(),
            role: Role::Leader,
            runner,
        };
        if of_key.running.len() < RUNNING {
            of_key.running.push(flight.clone());
            drop(shard);
            start(Leader {
                flights: self.clone(),
                flight,
            });
        } else {
            of_key.queued = Some(Queued {
                flight,
                start: Box::new(start),
                is_new_load,
            });
        }
        joined
    }

    /// Gives `answer` to those who wait for a flight of `key` that began before this process's
    /// invalidation with this number. The flight goes on for its own sake, and nobody joins it.
    pub(crate) fn give(&self, key: &Key, sequence: u64, answer: &Answer) {
        let running = match self.shard(key).get(key) {
            Some(of_key) => of_key.running.clone(),
            None => return,
        };
        for flight in running {
            let waiters = {
                let mut state = flight.state.lock();
                let began = state.began.as_ref();
                let began_before = began.is_some_and(|(of, _)| of.stamp.sequence < sequence);
                if !began_before || state.joined_unstamped || state.result.is_some() {
                    continue;
                }
                state.result = Some(Ok(answer.clone()));
                state.take_waiters()
            };
            flight.wake(waiters);
        }
    }

    /// Takes `flight` out of the table. Returns the queued one, if that may begin now.
    fn leave(&self, flight: &Arc<Flight>) -> Option<Queued> {
        let mut shard = self.shard(&flight.key);
        let of_key = shard.get_mut(&flight.key)?;
        of_key
            .running
            .retain(|running| !Arc::ptr_eq(running, flight));
        if of_key.running.len() < RUNNING
            && let Some(queued) = of_key.queued.take()
        {
            of_key.running.push(queued.flight.clone());
            return Some(queued);
        }
        if of_key.running.is_empty() {
            shard.remove(&flight.key);
        }
        None
    }
}

/// A reader's place in a flight.
struct Joined {
    flight: Arc<Flight>,
    role: Role,
    /// `None`: on behalf of a composite, whose readers count.
    reader: Option<Reader>,
    /// Its number among the runners.
    runner: Option<u64>,
}

impl Flight {
    /// Looks at what the load depends on, when it began, and whether its result is unverified:
    /// [`Leader::set_unverified`]. `None` before it has begun.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&Dependency, Instant, bool) -> T) -> Option<T> {
        let mut state = self.state.lock();
        let Some((dependency, began)) = state.began.as_ref() else {
            state.joined_unstamped = true;
            return None;
        };
        Some(look(dependency, *began, state.unverified))
    }

    /// Takes part as a follower. `None`: it was closed, or its load is being given up.
    fn follow(self: &Arc<Flight>, behalf: &Behalf, runs: bool) -> Option<Joined> {
        let mut state = self.state.lock();
        if state.runners.gave_up {
            return None;
        }
        let reader = self.interest.board(behalf)?;
        Some(Joined {
            flight: self.clone(),
            role: Role::Follower,
            reader,
            runner: runs.then(|| state.runners.add()),
        })
    }

    /// Keeps `start` for the case that no runner is left for a load that was begun for them.
    fn leave_spare(&self, start: impl FnOnce(Leader) + Send + 'static) {
        let mut state = self.state.lock();
        if state.runners.are_asked && state.spare.is_none() {
            state.spare = Some(Box::new(start));
        }
    }

    fn wake(&self, waiters: Vec<Waiter>) {
        for waiter in waiters {
            match waiter {
                Waiter::Task(waker) => waker.wake(),
                Waiter::Callback(callback, role) => {
                    let mut state = self.state.lock();
                    let Some(answer) = state.answer(role) else {
                        state.waiters.push(Waiter::Callback(callback, role));
                        continue;
                    };
                    drop(state);
                    // A panic there is that reader's own bug: the others wait, and so does the next
                    // flight.
                    if catch_unwind(AssertUnwindSafe(|| callback(answer))).is_err() {
                        log::error!("what waits for {} panicked", self.key);
                    }
                }
            }
        }
    }
}

impl FlightState {
    fn answer(&self, role: Role) -> Option<LookupResult> {
        let early = || self.early.as_ref()?().map(Ok);
        self.end(role).or_else(early)
    }

    /// The result, if the flight has ended.
    fn end(&self, role: Role) -> Option<LookupResult> {
        let mut result = self.result.clone()?;
        if let (Ok(answer), Role::Follower) = (&mut result, role) {
            answer.outcome = answer.outcome.for_follower();
        }
        Some(result)
    }

    /// All who wait, to be woken without the lock.
    fn take_waiters(&mut self) -> Vec<Waiter> {
        self.wakes += 1;
        let mut waiters = std::mem::take(&mut self.waiters);
        waiters.extend(self.runners.take_wakers().map(Waiter::Task));
        waiters
    }
}

/// The guard of the one who loads: it ends the flight, at the latest when it is dropped.
pub(crate) struct Leader {
    flights: Arc<Flights>,
    flight: Arc<Flight>,
}

impl Leader {
    /// Stores the dependencies of the load as it begins, and again when there is a better stamp.
    /// Once there is an answer by [`Flights::give`], it is not younger than that, and nobody joins.
    pub(crate) fn stamp(&self, dependency: Dependency) {
        let mut state = self.flight.state.lock();
        if state.result.is_some() {
            return;
        }
        let began = state.began.take();
        let began = began.map_or_else(Instant::now, |(_, began)| began);
        state.began = Some((dependency, began));
    }

    /// Marks the flight's result as unverified: it was checked against the local mirror only, so
    /// only readers that trust the mirror may join.
    pub(crate) fn set_unverified(&self, unverified: bool) {
        self.flight.state.lock().unverified = unverified;
    }

    /// Its flight.
    pub(crate) fn flight(&self) -> &Arc<Flight> {
        &self.flight
    }

    /// Who waits for the flight.
    pub(crate) fn interest(&self) -> &Arc<Interest> {
        &self.flight.interest
    }

    /// Serves the answers of `early`, as long as it gives one, to readers that wait and to those
    /// that come. The flight goes on as a refresh.
    pub(crate) fn offer(&self, early: impl Fn() -> Option<Answer> + Send + 'static) {
        self.flight.interest.set_refresh();
        let (waiters, before) = {
            let mut state = self.flight.state.lock();
            let before = state.early.replace(Box::new(early));
            (state.take_waiters(), before)
        };
        // Without the lock: it holds a value, and a value may do anything when it is dropped.
        drop(before);
        self.flight.wake(waiters);
    }

    /// Keeps `fallback` for readers that do not wait to the end.
    pub(crate) fn set_fallback(&self, fallback: impl Fn() -> Option<Answer> + Send + 'static) {
        let before = self
            .flight
            .state
            .lock()
            .fallback
            .replace(Box::new(fallback));
        drop(before);
    }

    /// Ends the flight. Those who got an answer by [`Flights::give`] keep that.
    pub(crate) fn end(self, result: LookupResult) {
        let mut state = self.flight.state.lock();
        let late = match state.result {
            None => {
                state.result = Some(result);
                None
            }
            Some(_) => Some(result),
        };
        drop(state);
        drop(late);
        // Dropping it does the rest, as for a flight that ends by a panic.
    }

    /// Ends the flight of a load that no runner is left for. If a reader waits that brought another
    /// loader, the flight begins again by that.
    pub(crate) fn give_up(self) {
        let spare = {
            // A reader that joins does two things under this lock: it follows, and it leaves its
            // loader here.
            let _shard = self.flights.shard(&self.flight.key);
            let mut state = self.flight.state.lock();
            let spare = state.spare.take();
            if spare.is_some() {
                state.runners.are_asked = false;
                state.runners.gave_up = false;
            }
            spare
        };
        match spare {
            Some(start) => start(self),
            // Dropping it ends the flight.
            None => drop(self),
        }
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        // Out of the table first: a reader that comes now must begin a load of its own, or find the
        // value in memory.
        let queued = self.flights.leave(&self.flight);
        let (waiters, offers) = {
            let mut state = self.flight.state.lock();
            state
                .result
                .get_or_insert_with(|| Err(LoadError::Failed("the load was given up".into())));
            let offers = (
                state.fallback.take(),
                state.early.take(),
                state.spare.take(),
            );
            (state.take_waiters(), offers)
        };
        // Outside the lock: a fallback may hold tickets of other flights.
        drop(offers);
        self.flight.wake(waiters);
        if let Some(Queued { flight, start, .. }) = queued {
            start(Leader {
                flights: self.flights.clone(),
                flight,
            });
        }
    }
}

/// A reader's claim to an answer: a future, or something to wait for on a thread. A load that has
/// not begun when the last ticket to it is dropped is not made.
pub struct Ticket(Claim);

enum Claim {
    /// Met already; `None` once the answer was taken.
    Ready(Option<Answer>),
    Waiting {
        flight: Arc<Flight>,
        role: Role,
        /// `None`: on behalf of a composite, whose readers count.
        reader: Option<Reader>,
        /// The waker that was left with the flight, and how often the flight had woken its readers
        /// by then.
        left: Option<(Waker, u64)>,
    },
}

impl Ticket {
    /// A claim that is met already.
    pub(crate) fn ready(answer: Answer) -> Ticket {
        Ticket(Claim::Ready(Some(answer)))
    }

    fn waiting(joined: Joined) -> Ticket {
        let Joined {
            flight,
            role,
            reader,
            ..
        } = joined;
        Ticket(Claim::Waiting {
            flight,
            role,
            reader,
            left: None,
        })
    }

    /// A stale answer for a reader who has waited as long as its resource allows, if there is a
    /// copy.
    pub fn stale(&self) -> Option<Answer> {
        let Claim::Waiting { flight, reader, .. } = &self.0 else {
            return None;
        };
        let mut answer = flight.state.lock().fallback.as_ref()?()?;
        if let Some(reader) = reader {
            reader.set_refresh();
        }
        answer.outcome = Outcome::Stale(Staleness::SoftTimeout);
        Some(answer)
    }

    /// Records that the reader may be gone. The ticket still gets the result of a load that runs or
    /// can begin at once, but the load no longer waits in the queue for this reader.
    pub fn step_back(&mut self) {
        if let Claim::Waiting {
            reader: Some(reader),
            ..
        } = &mut self.0
        {
            reader.step_back();
        }
    }

    /// The answer or a stale copy, as far as there is one now.
    pub(crate) fn answer_or_stale(&self) -> Option<Answer> {
        match &self.0 {
            Claim::Ready(answer) => answer.clone(),
            Claim::Waiting { flight, role, .. } => {
                let now = flight.state.lock().answer(*role);
                now.and_then(Result::ok).or_else(|| self.stale())
            }
        }
    }

    /// Calls `callback` with the answer, once: here, if there is one already.
    pub(crate) fn on_answer(&self, callback: impl FnOnce(LookupResult) + Send + 'static) {
        let answer = match &self.0 {
            Claim::Ready(answer) => answer.clone().ok_or_else(taken_twice),
            Claim::Waiting { flight, role, .. } => {
                let mut state = flight.state.lock();
                match state.answer(*role) {
                    Some(answer) => answer,
                    None => {
                        let waiter = Waiter::Callback(Box::new(callback), *role);
                        return state.waiters.push(waiter);
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
    pub fn wait(self, limit: Duration) -> LookupResult {
        self.wait_or_stale(None, limit)
    }

    /// The same, but after `soft` with a stale copy, if there is one.
    ///
    /// # Errors
    /// As [`Ticket::wait`].
    pub fn wait_or_stale(self, soft: Option<Duration>, limit: Duration) -> LookupResult {
        let began = Instant::now();
        let mut ticket = self;
        if let Some(soft) = soft.filter(|soft| *soft < limit) {
            if let Some(result) = wait_for(soft, |context| Pin::new(&mut ticket).poll(context)) {
                return result;
            }
            if let Some(stale) = ticket.stale() {
                return Ok(stale);
            }
        }
        let left = limit.saturating_sub(began.elapsed());
        wait_for(left, |context| Pin::new(&mut ticket).poll(context)).unwrap_or_else(too_slow)
    }
}

/// Waits on this thread until `poll` is ready, at most for `limit`.
fn wait_for<T>(limit: Duration, mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> Option<T> {
    struct Unpark(std::thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let began = Instant::now();
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(ready) = poll(&mut context) {
            return Some(ready);
        }
        let left = limit.saturating_sub(began.elapsed());
        if left.is_zero() {
            return None;
        }
        std::thread::park_timeout(left);
    }
}

/// The result for a reader who has waited for as long as it may.
fn too_slow() -> LookupResult {
    Err(LoadError::TooSlow("the load took too long".into()))
}

impl Future for Ticket {
    type Output = LookupResult;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<LookupResult> {
        match &mut self.0 {
            Claim::Ready(answer) => Poll::Ready(answer.take().ok_or_else(taken_twice)),
            Claim::Waiting {
                flight, role, left, ..
            } => {
                let mut state = flight.state.lock();
                if let Some(result) = state.answer(*role) {
                    return Poll::Ready(result);
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

fn taken_twice() -> LoadError {
    LoadError::Bug("the answer of a ticket was taken twice".into())
}

#[cfg(test)]
mod tests;
