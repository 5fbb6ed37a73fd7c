//! The threads that loads run on.
//!
//! Promise: at most `max_loads` run at once and at most `max_queue` wait; what comes on top is
//! refused at once. What is slow together, such as all loads from one upstream, draws on one share
//! of both, and leaves the others what is set aside for them (`shares.rs`). Within a share callers
//! take turns (`fair_queue.rs`). A load that nobody waits for any more leaves the queue.
//!
//! A thread is started when there is work for it and ends after a while without, or with the last
//! clone of the loaders. A job that panics ends itself, not its thread.

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use super::fair_queue::{Caller, FairQueue};
use super::interest::{Interest, Step};
use super::settings::LoadSettings;
use super::shares::Places;

/// How long a thread stays without work.
const IDLE: Duration = Duration::from_secs(10);

/// What becomes of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// It is to do its work, here.
    Now,
    /// There is no room for it. It is told so on another job's thread, so it must not block.
    Refused,
    /// Nobody waits for it any more. It must not block.
    Left,
}

/// Something to do on a thread.
pub(crate) struct Job {
    /// The share that it draws on.
    pub(crate) share: Arc<str>,
    /// Who waits for it.
    pub(crate) interest: Arc<Interest>,
    /// Called once, with what becomes of it.
    pub(crate) work: Box<dyn FnOnce(Turn) + Send>,
}

/// One share of the loads, as it is now and since the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShareStatus {
    /// The upstream, or what else is slow together.
    pub name: Arc<str>,
    /// Loads that run.
    pub running: usize,
    /// Loads that wait for a place.
    pub waiting: usize,
    /// Loads that were refused for want of room.
    pub refused: u64,
    /// Loads that left the queue because nobody waited for them any more.
    pub left: u64,
}

/// See the module. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Loaders(Arc<Inner>);

struct Inner {
    /// Held for the time of a push or a pop, never while a job runs or is told anything.
    state: Mutex<State>,
    work: Condvar,
}

struct State {
    shares: Vec<Share>,
    indices: HashMap<Arc<str>, usize>,
    running: Places,
    waiting: Places,
    /// Jobs that have a place to run, for the next thread.
    ready: VecDeque<(usize, Job)>,
    threads: usize,
    idle: usize,
    /// The share that is looked at first when a place to run is free.
    next_share: usize,
    next_id: u64,
    closed: bool,
}

struct Share {
    name: Arc<str>,
    queue: FairQueue<Job>,
    refused: u64,
    left: u64,
}

/// Where a job waits. Cheap to clone; outlives the job.
#[derive(Clone)]
pub(crate) struct Place {
    inner: Weak<Inner>,
    share: usize,
    id: u64,
}

impl Loaders {
    pub(crate) fn new(limits: LoadSettings) -> Loaders {
        Loaders(Arc::new(Inner {
            state: Mutex::new(State {
                shares: Vec::new(),
                indices: HashMap::new(),
                running: Places::new(limits.max_loads),
                waiting: Places::new(limits.max_queue),
                ready: VecDeque::new(),
                threads: 0,
                idle: 0,
                next_share: 0,
                next_id: 0,
                closed: false,
            }),
            work: Condvar::new(),
        }))
    }

    /// Sets places aside for the shares of these names before their first job. A share that is not
    /// named has some from its first job on. They are never taken back: a process knows as many as
    /// were ever configured.
    pub(crate) fn set_aside(&self, names: impl IntoIterator<Item = Arc<str>>) {
        let mut state = self.0.lock();
        for name in names {
            state.share(&name);
        }
    }

    /// Has `job` run as soon as there is a place for it: at once, or after a wait in the queue.
    /// Does not block.
    pub(crate) fn submit(&self, job: Job) {
        let told = self.0.submit(&self.0, job);
        told.into_iter().for_each(|(job, turn)| tell(job, turn));
    }

    pub(crate) fn status(&self) -> Vec<ShareStatus> {
        let state = self.0.lock();
        let shares = state.shares.iter().enumerate();
        let of = |(index, share): (usize, &Share)| ShareStatus {
            name: share.name.clone(),
            running: state.running.taken(index),
            waiting: share.queue.len(),
            refused: share.refused,
            left: share.left,
        };
        shares.map(of).collect()
    }

    /// Takes no more jobs, refuses those that wait, and ends each thread with the job that it runs.
    pub(crate) fn close(&self) {
        let waiting = self.0.lock().close();
        self.0.work.notify_all();
        for job in waiting {
            tell(job, Turn::Refused);
        }
    }
}

impl Place {
    /// Has the job that waits here wait for these callers, too.
    pub(crate) fn also_for(&self, callers: &[Caller]) {
        let Some(inner) = self.inner.upgrade() else {
            return;
        };
        let mut state = inner.lock();
        if let Some(share) = state.shares.get_mut(self.share) {
            let each = callers.iter();
            each.for_each(|caller| share.queue.also_for(self.id, *caller));
        }
    }

    /// Takes the job that waits here out of the queue, if nobody waits for it.
    pub(crate) fn leave_if_unwanted(&self) {
        let Some(inner) = self.inner.upgrade() else {
            return;
        };
        let left = inner.lock().leave_if_unwanted(self.share, self.id);
        if let Some(job) = left {
            tell(job, Turn::Left);
        }
    }
}

/// Tells a job what becomes of it, outside of any lock. A panic there is a bug, and ends that job
/// alone.
fn tell(job: Job, turn: Turn) {
    if catch_unwind(AssertUnwindSafe(|| (job.work)(turn))).is_err() {
        log::error!("a load panicked");
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the jobs that are to be told that they do not run.
    fn submit(&self, own: &Arc<Inner>, job: Job) -> Option<(Job, Turn)> {
        let mut state = self.lock();
        if state.closed {
            return Some((job, Turn::Refused));
        }
        let share = state.share(&job.share);
        if state.running.has_room(share) && state.shares.get(share)?.queue.is_empty() {
            state.running.take(share);
            state.ready.push_back((share, job));
            return match self.call_thread(own, &mut state) {
                true => None,
                // Without any thread it would never be run.
                false => {
                    state.running.give_back(share);
                    let (_, job) = state.ready.pop_back()?;
                    Some((job, Turn::Refused))
                }
            };
        }
        let id = state.next_id;
        state.next_id += 1;
        // First the place, then the look: whoever leaves in between finds the place, and waits for
        // this lock.
        job.interest.set_place(Some(Place {
            inner: Arc::downgrade(own),
            share,
            id,
        }));
        state.wait(share, id, job)
    }

    /// Sees to it that a thread takes what is ready; `false`: there is none and none can be
    /// started.
    fn call_thread(&self, own: &Arc<Inner>, state: &mut State) -> bool {
        if state.ready.len() > state.idle {
            let mine = own.clone();
            let started = std::thread::Builder::new()
                .name("load".into())
                .spawn(move || mine.serve());
            match started {
                Ok(_) => {
                    state.threads += 1;
                    // Until it takes its first job it is one that waits for work.
                    state.idle += 1;
                }
                Err(error) => {
                    log::error!("cannot start a thread for loads: {error}");
                    return state.threads > 0;
                }
            }
        }
        self.work.notify_one();
        true
    }

    fn serve(self: Arc<Inner>) {
        let mut state = self.lock();
        loop {
            if let Some((share, job)) = state.ready.pop_front() {
                state.idle -= 1;
                drop(state);
                let turn = if job.interest.close_if_unwanted(Step::Begin) {
                    Turn::Left
                } else {
                    Turn::Now
                };
                tell(job, turn);
                state = self.lock();
                state.idle += 1;
                state.running.give_back(share);
                if turn == Turn::Left
                    && let Some(share) = state.shares.get_mut(share)
                {
                    share.left += 1;
                }
                state.fill();
                // This thread takes the first of them.
                for _ in 1..state.ready.len() {
                    self.call_thread(&self, &mut state);
                }
                continue;
            }
            if state.closed {
                state.threads -= 1;
                state.idle -= 1;
                return;
            }
            let (next, waited) = self
                .work
                .wait_timeout(state, IDLE)
                .unwrap_or_else(PoisonError::into_inner);
            state = next;
            if waited.timed_out() && state.ready.is_empty() {
                state.threads -= 1;
                state.idle -= 1;
                return;
            }
        }
    }
}

impl State {
    /// The index of the share with this name, which is new if there is none.
    fn share(&mut self, name: &Arc<str>) -> usize {
        if let Some(index) = self.indices.get(name) {
            return *index;
        }
        let index = self.shares.len();
        self.shares.push(Share {
            name: name.clone(),
            queue: FairQueue::default(),
            refused: 0,
            left: 0,
        });
        self.indices.insert(name.clone(), index);
        self.running.divide(index + 1);
        self.waiting.divide(index + 1);
        index
    }

    /// Puts a job into the queue of its share, if it may wait there; returns the one that is not in
    /// it then.
    fn wait(&mut self, share: usize, id: u64, job: Job) -> Option<(Job, Turn)> {
        let has_room = self.waiting.has_room(share);
        let of_share = self.shares.get_mut(share)?;
        if job.interest.close_if_unwanted(Step::Wait) {
            of_share.left += 1;
            return Some((job, Turn::Left));
        }
        let callers = job.interest.callers();
        if has_room {
            of_share.queue.push(id, job, &callers);
            self.waiting.take(share);
            return None;
        }
        of_share.refused += 1;
        match of_share.queue.make_room(&callers) {
            Some(refused) => {
                of_share.queue.push(id, job, &callers);
                refused.interest.set_place(None);
                Some((refused, Turn::Refused))
            }
            None => {
                job.interest.set_place(None);
                Some((job, Turn::Refused))
            }
        }
    }

    /// Gives the places to run that are free to jobs that wait, the shares in turn.
    fn fill(&mut self) {
        let count = self.shares.len();
        let mut passed = 0;
        while passed < count {
            let share = self.next_share % count;
            self.next_share = (share + 1) % count;
            let queue = self.shares.get_mut(share).map(|share| &mut share.queue);
            let job = queue
                .filter(|_| self.running.has_room(share))
                .and_then(FairQueue::pop);
            let Some(job) = job else {
                passed += 1;
                continue;
            };
            passed = 0;
            self.waiting.give_back(share);
            self.running.take(share);
            job.interest.set_place(None);
            self.ready.push_back((share, job));
        }
    }

    /// Takes no more jobs and returns those that have not begun.
    fn close(&mut self) -> Vec<Job> {
        self.closed = true;
        let mut left = Vec::new();
        for (share, job) in std::mem::take(&mut self.ready) {
            self.running.give_back(share);
            left.push(job);
        }
        for (index, share) in self.shares.iter_mut().enumerate() {
            while let Some(job) = share.queue.pop() {
                self.waiting.give_back(index);
                job.interest.set_place(None);
                left.push(job);
            }
        }
        left
    }

    fn leave_if_unwanted(&mut self, share: usize, id: u64) -> Option<Job> {
        let of_share = self.shares.get_mut(share)?;
        let interest = &of_share.queue.get(id)?.interest;
        if !interest.close_if_unwanted(Step::Wait) {
            return None;
        }
        let job = of_share.queue.remove(id)?;
        of_share.left += 1;
        self.waiting.give_back(share);
        Some(job)
    }
}

#[cfg(test)]
mod tests;
