//! The permits of loads, and the threads that they run on.
//!
//! Promise: at most `max_loads` run at once and at most `max_queue` wait; any more are refused at
//! once. Loads that are slow together, such as all loads from one upstream, draw on one share of
//! both. Each share has permits set aside that no other can take (`shares.rs`). Within a share
//! callers take turns (`fair_queue.rs`). A load that nobody waits for any more leaves the queue.
//!
//! A job that blocks runs on a thread. A thread starts when there is work for it. It ends after a
//! while without work, or with the last clone of the loaders. A job that does not block is called
//! by whoever hands out its permit. A job that panics ends itself, not its thread.
//!
//! A load may go on after its job, in the task of a reader: it takes its [`Permit`] along, and
//! still counts as one that runs.

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
    /// It does its work now, here.
    Now,
    /// There is no room for it. It is called on another job's thread, so it must not block.
    Refused,
    /// Nobody waits for it any more. It must not block.
    Left,
}

/// Something to do with a permit.
pub(crate) struct Job {
    /// The share that it draws on.
    pub(crate) share: Arc<str>,
    /// Who waits for it.
    pub(crate) interest: Arc<Interest>,
    /// Whether its work may block, and so needs a thread.
    pub(crate) blocks: bool,
    pub(crate) work: Work,
}

/// The work of a job. Called once, with what becomes of it, and with its permit if it is its turn.
/// The permit is given back after the call, unless the work takes it.
pub(crate) type Work = Box<dyn FnOnce(Turn, &mut Option<Permit>) + Send>;

/// What is left of a load that has begun. It is called with its permit, as [`Work`] is.
type Rest = Box<dyn FnOnce(&mut Option<Permit>) + Send>;

/// The right of one load to run. It is given back when this is dropped.
pub(crate) struct Permit {
    share: usize,
    /// `None`: it was handed on.
    loaders: Option<Arc<LoadersInner>>,
}

impl Permit {
    /// Has `work` done on a thread, which gives it this permit. If there is no thread for it, it is
    /// done here. Does not block otherwise. It is done also if the loaders are closed meanwhile.
    pub(crate) fn resume(mut self, work: impl FnOnce(&mut Option<Permit>) + Send + 'static) {
        let Some(loaders) = self.loaders.take() else {
            return;
        };
        let ready = Ready::Begun(Box::new(work));
        if let Some(ready) = loaders.resume(self.share, ready) {
            let mut permit = Some(loaders.permit(self.share));
            loaders.run(self.share, ready, &mut permit);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(loaders) = self.loaders.take() {
            loaders.release(self.share);
        }
    }
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
    /// What has a permit of the share with this index, for the next thread.
    ready: VecDeque<(usize, Ready)>,
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

    /// Takes no more jobs, and waits until those that run have ended, or `limit` has passed.
    /// Returns how many still run.
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
        match self.0.submit(job) {
            Placed::Waits => {}
            Placed::Here(share, job) => self.0.run_here(share, job),
            Placed::Not(job, turn) => notify(job, turn, &mut None),
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
            notify(job, Turn::Refused, &mut None);
        }
    }
}

/// What a thread takes.
enum Ready {
    Job(Job),
    /// The rest of a load: see [`Permit::resume`].
    Begun(Rest),
}

/// Where a new job is.
enum Placed {
    /// In the queue, or on its way to a thread.
    Waits,
    /// It has a permit of the share with this index, and is to be called here.
    Here(usize, Job),
    /// This one does not run: the new job, or one that made room for it.
    Not(Job, Turn),
}

/// Calls a job with what becomes of it, outside of any lock. A panic there is a bug, and ends that
/// job alone.
fn notify(job: Job, turn: Turn, permit: &mut Option<Permit>) {
    if catch_unwind(AssertUnwindSafe(|| (job.work)(turn, permit))).is_err() {
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
                        notify(job, Turn::Left, &mut None);
                    }
                }
            }
        })
    }

    fn submit(self: &Arc<LoadersInner>, job: Job) -> Placed {
        let mut state = self.state.lock();
        if state.closed {
            return Placed::Not(job, Turn::Refused);
        }
        let share = state.share(&job.share);
        if state.has_no_queue(share) && state.running.try_reserve(share) {
            if !job.blocks {
                return Placed::Here(share, job);
            }
            state.ready.push_back((share, Ready::Job(job)));
            return match self.call_thread(&mut state) {
                Some((share, Ready::Job(job))) => {
                    state.running.release(share);
                    Placed::Not(job, Turn::Refused)
                }
                _ => Placed::Waits,
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
        match state.wait(share, id, job) {
            None => Placed::Waits,
            Some((job, turn)) => Placed::Not(job, turn),
        }
    }

    /// Has a thread take this, which has a permit already. Returns it if no thread can.
    fn resume(self: &Arc<LoadersInner>, share: usize, ready: Ready) -> Option<Ready> {
        let mut state = self.state.lock();
        if state.closed && state.threads == 0 {
            return Some(ready);
        }
        state.ready.push_back((share, ready));
        self.call_thread(&mut state).map(|(_, ready)| ready)
    }

    /// Sees to it that a thread takes what is ready. If there is none and none can be started,
    /// returns the newest, which would never be run.
    fn call_thread(self: &Arc<LoadersInner>, state: &mut LoadersState) -> Option<(usize, Ready)> {
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
                    return match state.threads {
                        0 => state.ready.pop_back(),
                        _ => None,
                    };
                }
            }
        }
        self.work.notify_one();
        None
    }

    /// Gives back a permit of the share with this index, and hands it to a job that waits.
    fn release(self: &Arc<LoadersInner>, share: usize) {
        let (here, stuck) = {
            let mut state = self.state.lock();
            state.running.release(share);
            let here = state.fill();
            let count = state.ready.len();
            let stuck: Vec<(usize, Ready)> = (0..count)
                .filter_map(|_| self.call_thread(&mut state))
                .collect();
            (here, stuck)
        };
        for (share, ready) in stuck {
            // Given back after the call.
            let mut permit = Some(self.permit(share));
            match ready {
                Ready::Job(job) => notify(job, Turn::Refused, &mut None),
                Ready::Begun(_) => self.run(share, ready, &mut permit),
            }
        }
        for (share, job) in here {
            self.run_here(share, job);
        }
    }

    /// Calls a job that does not block, which has a permit of the share with this index.
    fn run_here(self: &Arc<LoadersInner>, share: usize, job: Job) {
        let mut permit = Some(self.permit(share));
        self.run(share, Ready::Job(job), &mut permit);
    }

    fn permit(self: &Arc<LoadersInner>, share: usize) -> Permit {
        Permit {
            share,
            loaders: Some(self.clone()),
        }
    }

    /// Calls a job, if anybody still wants it, or the rest of a load.
    fn run(&self, share: usize, ready: Ready, permit: &mut Option<Permit>) {
        let job = match ready {
            Ready::Job(job) => job,
            Ready::Begun(rest) => {
                if catch_unwind(AssertUnwindSafe(|| rest(permit))).is_err() {
                    log::error!("a load panicked");
                }
                return;
            }
        };
        if !job.interest.close_if_unwanted(Step::Begin) {
            return notify(job, Turn::Now, permit);
        }
        notify(job, Turn::Left, &mut None);
        if let Some(share) = self.state.lock().shares.get_mut(share) {
            share.left += 1;
        }
    }

    fn serve(self: Arc<LoadersInner>) {
        let mut state = self.state.lock();
        loop {
            if let Some((share, ready)) = state.ready.pop_front() {
                state.idle -= 1;
                drop(state);
                let mut permit = Some(self.permit(share));
                self.run(share, ready, &mut permit);
                // First idle, then without the permit: the next job is for this thread.
                self.state.lock().idle += 1;
                drop(permit);
                state = self.state.lock();
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

    /// Whether no job of the share with this index waits.
    fn has_no_queue(&self, share: usize) -> bool {
        let share = self.shares.get(share);
        share.is_some_and(|share| share.queue.is_empty())
    }

    /// Gives the free permits to run to jobs that wait, the shares in turn. Those that block are
    /// ready for a thread then. Returns the others, each with the index of its share.
    fn fill(&mut self) -> Vec<(usize, Job)> {
        let mut here = Vec::new();
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
            if job.blocks {
                self.ready.push_back((share, Ready::Job(job)));
            } else {
                here.push((share, job));
            }
        }
        here
    }

    /// Takes no more jobs and returns those that have not begun.
    fn close(&mut self) -> Vec<Job> {
        self.closed = true;
        let mut left = Vec::new();
        for (share, ready) in std::mem::take(&mut self.ready) {
            match ready {
                Ready::Job(job) => {
                    self.running.release(share);
                    left.push(job);
                }
                // A thread that is there or on its way ends it.
                Ready::Begun(_) => self.ready.push_back((share, ready)),
            }
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
