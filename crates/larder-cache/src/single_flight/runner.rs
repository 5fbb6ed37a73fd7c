//! Readers that run the load of their flight themselves: a future in the reader's own task, or a
//! closure on its own thread. So a loader may borrow from its caller, and it runs on the caller's
//! runtime. The cache starts no task and needs no runtime.
//!
//! Everything else about such a flight is as with any other: it reads Redis, waits for a permit and
//! takes the lease. Only then does it hand over the load, by [`Flight::hand_over`], to a reader
//! who runs it. Each reader that waits has brought a loader, so the load survives its runner:
//!
//! 1. A and B ask for one key. A leads the flight, and B follows. Neither loader has begun.
//! 2. The flight has its permit and its lease, and hands the load over. A takes it, and polls its
//!    loader.
//! 3. A is dropped, at whatever await point. Its loader is dropped first. Then A puts the load
//!    back, with permit, lease and load clock, and wakes B.
//! 4. B takes the load and runs its own loader. The result has the load clock of step 2, which is
//!    older than B's load: at worst that is a needless miss.
//! 5. If B is dropped, too, nobody is left who could run the load. It is given up: the lease goes
//!    back without a reason, so that the next reader, here or on another replica, loads at once.
//!
//! A reader that is dropped in step 1 or 2, before it has taken the load, leaves the number of
//! runners. If nobody is left when the load is handed over, it is given up as in step 5. A flight
//! that is being given up takes no more readers: one that comes then leads a flight of its own.
//!
//! A follower may have brought a loader for a thread of the cache instead. In step 5 the flight
//! begins again with that one ([`Leader::give_up`]).
//!
//! A loader that panics has failed: everybody gets that error, as with a load on a thread.
//!
//! Not covered: a runner that is neither polled nor dropped, such as a future that a `select!` has
//! set aside. The load waits for it, as everything that such a future holds does.

use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use super::{Flight, Joined, Leader, Role, too_slow, wait_for};
use crate::answer::LookupResult;
use crate::error::LoadError;
use crate::interest::Reader;
use crate::request::Loaded;

/// A load that a runner takes. Called once, with what became of it; with `None` if no runner is
/// left.
pub(super) type OpenLoad = Box<dyn FnOnce(Option<Ran>) + Send>;

/// A load that its runner has made.
pub(crate) struct Ran {
    pub(crate) result: Result<Loaded, LoadError>,
    pub(crate) took: Duration,
    /// Whether this thread may block for what is left to do.
    pub(crate) may_block: bool,
}

/// The runners of one flight.
#[derive(Default)]
pub(super) struct Runners {
    /// Whether the load will be handed to them.
    pub(super) are_asked: bool,
    /// Whether none was left for the load, so that it is being given up.
    pub(super) gave_up: bool,
    /// Whether another replica makes the load.
    elsewhere: bool,
    /// Where each is woken, by its number. `None`: it is about to look.
    wakers: BTreeMap<u64, Option<Waker>>,
    next: u64,
    /// The load, while nobody runs it.
    open: Option<OpenLoad>,
    /// The number of the runner that has taken the load.
    taken_by: Option<u64>,
}

impl Runners {
    /// Adds one, and returns its number.
    pub(super) fn add(&mut self) -> u64 {
        let number = self.next;
        self.next += 1;
        self.wakers.insert(number, None);
        number
    }

    /// All that wait.
    pub(super) fn take_wakers(&mut self) -> impl Iterator<Item = Waker> {
        self.wakers.values_mut().filter_map(Option::take)
    }

    /// Has `waker` woken with the runner of this number. Returns the one from before, to be dropped
    /// without the lock.
    fn wait(&mut self, number: u64, waker: &Waker) -> Option<Waker> {
        let left = self.wakers.get_mut(&number)?;
        if left.as_ref().is_some_and(|left| left.will_wake(waker)) {
            return None;
        }
        left.replace(waker.clone())
    }

    /// Puts `load` there for a runner to take. Returns who is to be woken for it; or the load, if
    /// no runner is left.
    fn put(&mut self, load: OpenLoad) -> Result<Option<Waker>, OpenLoad> {
        if self.wakers.is_empty() {
            self.gave_up = true;
            return Err(load);
        }
        self.open = Some(load);
        self.taken_by = None;
        Ok(self.take_wakers().next())
    }
}

impl Flight {
    /// Hands the load over to the first runner that takes it. `load` is called with its result, in
    /// the runner's task or on its thread; or with `None`, here or where the last runner is
    /// dropped. It has the flight's leader.
    pub(crate) fn hand_over(&self, load: impl FnOnce(Option<Ran>) + Send + 'static) {
        let put = {
            let mut state = self.state.lock();
            state.runners.elsewhere = false;
            state.runners.put(Box::new(load))
        };
        match put {
            Ok(waker) => waker.into_iter().for_each(Waker::wake),
            Err(load) => load(None),
        }
    }
}

impl Leader {
    /// Notes that another replica makes the load, so that a runner may take a stale copy and leave.
    pub(crate) fn loads_elsewhere(&self) {
        let wakers: Vec<Waker> = {
            let mut state = self.flight.state.lock();
            state.runners.elsewhere = true;
            state.runners.take_wakers().collect()
        };
        wakers.into_iter().for_each(Waker::wake);
    }
}

/// A reader that brought a loader of its own: see the module.
pub(crate) struct Runner {
    flight: Arc<Flight>,
    role: Role,
    number: u64,
    /// The load, while this reader runs it.
    load: Option<OpenLoad>,
    /// Counts it as a reader, until it is dropped.
    _reader: Option<Reader>,
}

impl Runner {
    pub(super) fn new(joined: Joined) -> Runner {
        Runner {
            flight: joined.flight,
            role: joined.role,
            number: joined.runner.unwrap_or_default(),
            load: None,
            _reader: joined.reader,
        }
    }

    /// The answer. Polls `loader` in this task if the load falls to this reader.
    pub(crate) async fn answer(
        mut self,
        loader: impl Future<Output = Result<Loaded, LoadError>>,
    ) -> LookupResult {
        if let Some(answer) = poll_fn(|context| self.poll_next(context)).await {
            return answer;
        }
        let began = Instant::now();
        let result = {
            let mut loader = pin!(loader);
            let polled = poll_fn(|context| {
                let polled = catch_unwind(AssertUnwindSafe(|| loader.as_mut().poll(context)));
                match polled {
                    Ok(polled) => polled.map(Some),
                    Err(_) => Poll::Ready(None),
                }
            });
            polled.await
        };
        let result = result.unwrap_or_else(|| Err(self.panicked()));
        self.has_run(result, began.elapsed(), false);
        poll_fn(|context| self.poll_end(context)).await
    }

    /// The same on this thread, which waits for at most `limit` until there is an answer or the
    /// load falls to this reader.
    pub(crate) fn answer_here(
        mut self,
        limit: Duration,
        loader: impl FnOnce() -> Result<Loaded, LoadError>,
    ) -> LookupResult {
        match wait_for(limit, |context| self.poll_next(context)) {
            None => return too_slow(),
            Some(Some(answer)) => return answer,
            Some(None) => {}
        }
        let began = Instant::now();
        let result = catch_unwind(AssertUnwindSafe(loader));
        let result = result.unwrap_or_else(|_| Err(self.panicked()));
        self.has_run(result, began.elapsed(), true);
        wait_for(limit, |context| self.poll_end(context)).unwrap_or_else(too_slow)
    }

    fn panicked(&self) -> LoadError {
        log::error!("the load of {} panicked", self.flight.key);
        LoadError::panicked()
    }

    fn has_run(&mut self, result: Result<Loaded, LoadError>, took: Duration, may_block: bool) {
        if let Some(load) = self.load.take() {
            load(Some(Ran {
                result,
                took,
                may_block,
            }));
        }
    }

    /// Who runs the load leads. Until somebody does, it is the reader that began the flight.
    fn role(&self, runners: &Runners) -> Role {
        match runners.taken_by {
            Some(number) if number == self.number => Role::Leader,
            Some(_) => Role::Follower,
            None => self.role,
        }
    }

    /// The answer; or `None` if the load is this reader's to run now.
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<LookupResult>> {
        let mut state = self.flight.state.lock();
        // A stale copy that is offered meanwhile is for the others. If the leader took it and left,
        // nobody would renew it.
        let role = self.role(&state.runners);
        let answer = if role == Role::Leader && !state.runners.elsewhere {
            state.end(role)
        } else {
            state.answer(role)
        };
        if answer.is_some() {
            return Poll::Ready(answer);
        }
        if let Some(load) = state.runners.open.take() {
            self.load = Some(load);
            state.runners.taken_by = Some(self.number);
            return Poll::Ready(None);
        }
        let before = state.runners.wait(self.number, context.waker());
        drop(state);
        drop(before);
        Poll::Pending
    }

    /// The result of the flight.
    fn poll_end(&mut self, context: &mut Context<'_>) -> Poll<LookupResult> {
        let mut state = self.flight.state.lock();
        if let Some(result) = state.end(self.role(&state.runners)) {
            return Poll::Ready(result);
        }
        let before = state.runners.wait(self.number, context.waker());
        drop(state);
        drop(before);
        Poll::Pending
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        let mut state = self.flight.state.lock();
        let waker = state.runners.wakers.remove(&self.number);
        // Its own, or one that it was woken for and did not take.
        let load = self.load.take().or_else(|| state.runners.open.take());
        let put = load.map(|load| state.runners.put(load));
        drop(state);
        // Without the lock: a waker can be the last owner of a task that holds another runner.
        drop(waker);
        match put {
            None => {}
            Some(Ok(next)) => next.into_iter().for_each(Waker::wake),
            Some(Err(load)) => load(None),
        }
    }
}
