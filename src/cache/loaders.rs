//! The threads that loads run on.
//!
//! Promise: at most `max_loads` run at once and at most `max_queue` wait; what comes on top is refused at once. A thread is
//! started when there is work for it and ends after a while without. A job that panics ends itself, not its thread.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::settings::LoadSettings;

/// How long a thread stays without work.
const IDLE: Duration = Duration::from_secs(10);

pub(crate) type Job = Box<dyn FnOnce() + Send>;

/// See the module. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Loaders(Arc<Inner>);

struct Inner {
    limits: LoadSettings,
    /// Held for the time of a push or a pop, never while a job runs.
    state: Mutex<State>,
    work: Condvar,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Job>,
    threads: usize,
    running: usize,
    closed: bool,
}

impl Loaders {
    pub(crate) fn new(limits: LoadSettings) -> Loaders {
        Loaders(Arc::new(Inner {
            limits,
            state: Mutex::default(),
            work: Condvar::new(),
        }))
    }

    /// A place for one job, on a thread or in the queue; `None` if too many wait already.
    pub(crate) fn place(&self) -> Option<Place<'_>> {
        let inner = &self.0;
        let mut state = inner.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.closed {
            return None;
        }
        // Counted together: a job can still be in the queue while the thread that was started for it wakes up.
        let jobs = state.running + state.queue.len();
        if jobs >= inner.limits.max_loads + inner.limits.max_queue {
            return None;
        }
        if jobs >= state.threads && state.threads < inner.limits.max_loads {
            let mine = inner.clone();
            match std::thread::Builder::new()
                .name("load".into())
                .spawn(move || mine.serve())
            {
                Ok(_) => state.threads += 1,
                Err(error) => {
                    log::error!("cannot start a thread for loads: {error}");
                    // Without any thread the queue would never move.
                    if state.threads == 0 {
                        return None;
                    }
                }
            }
        }
        Some(Place { inner, state })
    }

    /// Takes no more jobs, drops those that wait, and ends each thread with the job that it runs.
    pub(crate) fn close(&self) {
        let inner = &self.0;
        let mut state = inner.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.closed = true;
        let waiting = std::mem::take(&mut state.queue);
        drop(state);
        inner.work.notify_all();
        // Outside the lock: what a job holds may ask for a place when it is dropped.
        drop(waiting);
    }
}

/// The right to run one job. Holds the queue's lock, so it is to be used at once.
pub(crate) struct Place<'a> {
    inner: &'a Inner,
    state: MutexGuard<'a, State>,
}

impl Place<'_> {
    /// Runs `job` as soon as a thread is free.
    pub(crate) fn run(mut self, job: Job) {
        self.state.queue.push_back(job);
        drop(self.state);
        self.inner.work.notify_one();
    }
}

impl Inner {
    fn serve(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(job) = state.queue.pop_front() {
                state.running += 1;
                drop(state);
                // The job's own guard tells its waiters; all that is left to do is to keep the thread.
                if catch_unwind(AssertUnwindSafe(job)).is_err() {
                    log::error!("a load panicked");
                }
                state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
                state.running -= 1;
                continue;
            }
            if state.closed {
                state.threads -= 1;
                return;
            }
            let (next, waited) = self
                .work
                .wait_timeout(state, IDLE)
                .unwrap_or_else(PoisonError::into_inner);
            state = next;
            if waited.timed_out() && state.queue.is_empty() {
                state.threads -= 1;
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn refuses_what_neither_runs_nor_waits_and_survives_a_panic() {
        let loaders = Loaders::new(LoadSettings {
            max_loads: 1,
            max_queue: 1,
        });
        let (release, gate) = mpsc::channel::<()>();
        let (done, finished) = mpsc::channel();
        let (started, running) = mpsc::channel();
        let end = done.clone();
        loaders.place().unwrap().run(Box::new(move || {
            started.send(()).unwrap();
            gate.recv().unwrap();
            end.send(1).unwrap();
            panic!("a load may panic");
        }));
        running.recv().unwrap();
        let end = done.clone();
        loaders
            .place()
            .expect("one may wait")
            .run(Box::new(move || end.send(2).unwrap()));
        assert!(loaders.place().is_none(), "a second may not");
        release.send(()).unwrap();
        assert_eq!((finished.recv().unwrap(), finished.recv().unwrap()), (1, 2));
    }
}
