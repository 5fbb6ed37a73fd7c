//! The threads that loads run on.
//!
//! Promise: at most `max_loads` run at once and at most `max_queue` wait; any more are refused at
//! once. Loads that are slow together, such as all loads from one upstream, draw on one share of
//! both. Each share has permits set aside that no other can take (`shares.rs`). Within a share
//! callers take turns (`fair_queue.rs`). A load that nobody waits for any more leaves the queue.
//!
//! A thread starts when there is work for it. It ends after a while without work, or with the last
//! clone of the loaders. A job that panics ends itself, not its thread.

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::fair_queue::FairQueue;
use super::interest::{Change, Interest, Slot, Step};
use super::settings::LoadSettings;
use super::shares::Permits;
use super::thread;

/// How long a thread stays without work.
const IDLE: Duration = Duration::from_secs(10);
/// How often a process that ends looks whether loads still run.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// What becomes of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// It does its work now, on this thread.
    Now,
    /// There is no room for it. It is called on another job's thread, so it must not block.
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
    /// The upstream, the database, or another group of sources that are slow together.
    pub name: Arc<str>,
    /// Loads that run.
    pub running: usize,
    /// Loads that wait for a permit.
    pub waiting: usize,
    /// Loads that were refused because the queue was full.
    pub refused: u64,
    /// Loads that left the queue because nobody waited for them any more.
    pub left: u64,
}

/// See the module. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Loaders(Arc<LoadersInner>);

struct LoadersInner {
    /// Protects the queues and the permits. Held for a push or a pop, never while a job is called.
    state: Mutex<LoadersState>,
    /// Wakes a thread that waits for work.
    work: Condvar,
}

struct LoadersState {
    shares: Vec<Share>,
    indices: HashMap<Arc<str>, usize>,
    running: Permits,
    waiting: Permits,
    /// Jobs that have a permit to run, for the next thread.
    ready: VecDeque<(usize, Job)>,
    threads: usize,
    idle: usize,
    /// The share that is looked at first when a permit to run is free.
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

impl Loaders {
    pub(crate) fn new(limits: LoadSettings) -> Loaders {
        Loaders(Arc::new(LoadersInner {
            state: Mutex::new(LoadersState {
                shares: Vec::new(),
                indices: HashMap::new(),
                running: Permits::new(limits.max_loads),
                waiting: Permits::new(limits.max_queue),
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

    /// Sets permits aside for the shares of these names before their first job. A share that is not
    /// named has some from its first job on. They are never taken back: a process knows as many as
    /// were ever configured.
    pub(crate) fn set_aside(&self, names: impl IntoIterator<Item = Arc<str>>) {
        let mut state = self.0.state.lock();
        for name in names {
            state.share(&name);
        }
    }

    /// Takes no more jobs, and waits until those that run have ended, or `limit` has passed. Returns
    /// how many still run.
    pub(crate) fn finish(&self, limit: Duration) -> usize {
        self.close();
        let began = Instant::now();
        loop {
            let running = self.0.state.lock().running.all_taken();
            let left = limit.saturating_sub(began.elapsed());
            if running == 0 || left.is_zero() {
                return running;
            }
            std::thread::sleep(left.min(LOOK_EVERY));
        }
    }

    /// Has `job` run as soon as there is a permit for it: at once, or after a wait in the queue.
    /// Does not block.
    pub(crate) fn submit(&self, job: Job) {
        if let Some((job, turn)) = self.0.submit(job) {
            notify(job, turn);
        }
    }

    pub(crate) fn status(&self) -> Vec<ShareStatus> {
        let state = self.0.state.lock();
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
        let waiting = self.0.state.lock().close();
        self.0.work.notify_all();
        for job in waiting {
            notify(job, Turn::Refused);
        }
    }
}

/// Calls a job with what becomes of it, outside of any lock. A panic there is a bug, and ends that
/// job alone.
fn notify(job: Job, turn: Turn) {
    if catch_unwind(AssertUnwindSafe(|| (job.work)(turn))).is_err() {
        log::error!("a load panicked");
    }
}

impl LoadersInner {
    /// The slot of the job with this id, for those who wait for it. It outlives the job.
    fn slot(self: &Arc<LoadersInner>, share: usize, id: u64) -> Slot {
        let inner: Weak<LoadersInner> = Arc::downgrade(self);
        Arc::new(move |change| {
            let Some(inner) = inner.upgrade() else {
                return;
            };
            let mut state = inner.state.lock();
            match change {
                Change::MoreCallers(callers) => {
                    if let Some(share) = state.shares.get_mut(share) {
                        let each = callers.iter();
                        each.for_each(|caller| share.queue.also_for(id, *caller));
                    }
                }
                Change::ReaderLeft => {
                    let left = state.leave_if_unwanted(share, id);
                    drop(state);
                    if let Some(job) = left {
                        notify(job, Turn::Left);
                    }
                }
            }
        })
    }

    /// Returns the job that is to be notified that it does not run.
    fn submit(self: &Arc<LoadersInner>, job: Job) -> Option<(Job, Turn)> {
        let mut state = self.state.lock();
        if state.closed {
            return Some((job, Turn::Refused));
        }
        let share = state.share(&job.share);
        if state.shares.get(share)?.queue.is_empty() && state.running.try_reserve(share) {
            state.ready.push_back((share, job));
            return match self.call_thread(&mut state) {
                true => None,
                // Without any thread it would never be run.
                false => {
                    state.running.release(share);
                    let (_, job) = state.ready.pop_back()?;
                    Some((job, Turn::Refused))
                }
            };
        }
        let id = state.next_id;
        state.next_id += 1;
        // First the slot, then the look:
        //
        // 1. The slot is set.
        // 2. The last reader leaves. It finds the slot, and waits for this lock.
        // 3. The look below finds that nobody wants the job.
        //
        // The other way round, a reader that leaves between the look and the slot finds no slot,
        // and the job waits for nobody.
        job.interest.set_slot(Some(self.slot(share, id)));
        state.wait(share, id, job)
    }

    /// Sees to it that a thread takes what is ready; `false`: there is none and none can be
    /// started.
    fn call_thread(self: &Arc<LoadersInner>, state: &mut LoadersState) -> bool {
        if state.ready.len() > state.idle {
            let mine = self.clone();
            match thread::spawn("load", move || mine.serve()) {
                Ok(()) => {
                    state.threads += 1;
                    // Until it takes its first job it is one that waits for work.
                    state.idle += 1;
                }
                Err(error) => {
                    log::error!("{error}, for loads");
                    return state.threads > 0;
                }
            }
        }
        self.work.notify_one();
        true
    }

    fn serve(self: Arc<LoadersInner>) {
        let mut state = self.state.lock();
        loop {
            if let Some((share, job)) = state.ready.pop_front() {
                state.idle -= 1;
                drop(state);
                let turn = if job.interest.close_if_unwanted(Step::Begin) {
                    Turn::Left
                } else {
                    Turn::Now
                };
                notify(job, turn);
                state = self.state.lock();
                state.idle += 1;
                state.running.release(share);
                if turn == Turn::Left
                    && let Some(share) = state.shares.get_mut(share)
                {
                    share.left += 1;
                }
                state.fill();
                // This thread takes the first of them.
                for _ in 1..state.ready.len() {
                    self.call_thread(&mut state);
                }
                continue;
            }
            if state.closed {
                state.threads -= 1;
                state.idle -= 1;
                return;
            }
            let waited = self.work.wait_for(&mut state, IDLE);
            if waited.timed_out() && state.ready.is_empty() {
                state.threads -= 1;
                state.idle -= 1;
                return;
            }
        }
    }
}

impl LoadersState {
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
        let of_share = self.shares.get_mut(share)?;
        if job.interest.close_if_unwanted(Step::Wait) {
            of_share.left += 1;
            return Some((job, Turn::Left));
        }
        let callers = job.interest.callers();
        if self.waiting.try_reserve(share) {
            of_share.queue.push(id, job, &callers);
            return None;
        }
        of_share.refused += 1;
        match of_share.queue.make_room(&callers) {
            Some(refused) => {
                of_share.queue.push(id, job, &callers);
                refused.interest.set_slot(None);
                Some((refused, Turn::Refused))
            }
            None => {
                job.interest.set_slot(None);
                Some((job, Turn::Refused))
            }
        }
    }

    /// Gives the free permits to run to jobs that wait, the shares in turn.
    fn fill(&mut self) {
        let count = self.shares.len();
        let mut passed = 0;
        while passed < count {
            let share = self.next_share % count;
            self.next_share = (share + 1) % count;
            let queue = self.shares.get_mut(share).map(|share| &mut share.queue);
            let waiting = queue.filter(|queue| !queue.is_empty());
            let job = waiting
                .filter(|_| self.running.try_reserve(share))
                .and_then(FairQueue::pop);
            let Some(job) = job else {
                passed += 1;
                continue;
            };
            passed = 0;
            self.waiting.release(share);
            job.interest.set_slot(None);
            self.ready.push_back((share, job));
        }
    }

    /// Takes no more jobs and returns those that have not begun.
    fn close(&mut self) -> Vec<Job> {
        self.closed = true;
        let mut left = Vec::new();
        for (share, job) in std::mem::take(&mut self.ready) {
            self.running.release(share);
            left.push(job);
        }
        for (index, share) in self.shares.iter_mut().enumerate() {
            while let Some(job) = share.queue.pop() {
                self.waiting.release(index);
                job.interest.set_slot(None);
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
        self.waiting.release(share);
        Some(job)
    }
}

#[cfg(test)]
mod tests;
