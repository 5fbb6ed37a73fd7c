//! FLOOR 0: threads. Every thread of the server starts here, and every background job is a
//! [`Worker`].
//!
//! Promise: [`Worker::stop`] returns within its limit, whatever the job does: the job ended, by
//! itself or by a panic, or its thread is left behind. A wake-up is never lost: one that comes
//! while the job is busy ends its next wait at once. Several that come meanwhile count as one.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// Starts a thread.
///
/// # Errors
/// If the system refuses. The message says which thread could not be started.
pub fn spawn_thread(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    let thread = std::thread::Builder::new().name(name.to_owned());
    thread.spawn(run).map_err(|error| {
        io::Error::new(
            error.kind(),
            format!("cannot start a thread ({name}): {error}"),
        )
    })
}

/// A background job on a thread of its own. Dropping it asks the job to stop and does not wait.
#[derive(Debug)]
pub struct Worker {
    signals: Signals,
    /// Protects the handle until the thread is joined.
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What a job is told from outside. Cheap to clone; clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Signals(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// Protects the flags.
    flags: Mutex<Flags>,
    /// Notified when a flag is set.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Flags {
    woken: bool,
    stopping: bool,
    ended: bool,
}

/// Why a job waits no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// Somebody woke it.
    Woken,
    /// The time is over.
    Elapsed,
    /// It is asked to stop: the job returns as soon as it can.
    Stop,
}

impl Worker {
    /// Runs `job` on a thread of this name.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn start(name: &str, job: impl FnOnce(&Signals) + Send + 'static) -> io::Result<Worker> {
        let signals = Signals::default();
        let own = signals.clone();
        let run = move || {
            // Dropped when the job ends, also when it panics.
            let ended = Ended(own);
            job(&ended.0);
        };
        let thread = spawn_thread(name, run)?;
        Ok(Worker {
            signals,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Ends the job's wait, or its next one if it is busy.
    pub fn wake(&self) {
        self.signals.set(|flags| flags.woken = true);
    }

    /// A function that does what [`Worker::wake`] does. It does not keep the job running.
    pub fn waker(&self) -> impl Fn() + Send + Sync + use<> {
        let signals = self.signals.clone();
        move || signals.set(|flags| flags.woken = true)
    }

    /// Asks the job to stop and waits for its end, for at most `limit`. Returns whether it ended.
    /// If it did not, its thread goes on alone. May be called again.
    pub fn stop(&self, limit: Duration) -> bool {
        self.signals.set(|flags| flags.stopping = true);
        let Shared { flags, changed } = &*self.signals.0;
        let mut flags = flags.lock();
        changed.wait_while_for(&mut flags, |flags| !flags.ended, limit);
        if !flags.ended {
            return false;
        }
        drop(flags);
        if let Some(thread) = self.thread.lock().take() {
            // A panic was printed when it happened.
            let _ = thread.join();
        }
        true
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.signals.set(|flags| flags.stopping = true);
    }
}

impl Signals {
    /// Waits for a wake-up, for at most `limit`. A request to stop comes before a wake-up.
    pub fn wait(&self, limit: Duration) -> Wake {
        let mut flags = self.0.flags.lock();
        let idle = |flags: &mut Flags| !flags.woken && !flags.stopping;
        self.0.changed.wait_while_for(&mut flags, idle, limit);
        if flags.stopping {
            Wake::Stop
        } else if std::mem::take(&mut flags.woken) {
            Wake::Woken
        } else {
            Wake::Elapsed
        }
    }

    /// Whether the job is asked to stop.
    pub fn is_stopping(&self) -> bool {
        self.0.flags.lock().stopping
    }

    fn set(&self, set: impl FnOnce(&mut Flags)) {
        set(&mut self.0.flags.lock());
        self.0.changed.notify_all();
    }
}

/// Says that the job ended when it is dropped.
struct Ended(Signals);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.set(|flags| flags.ended = true);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Instant;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn a_worker_is_woken_also_while_it_is_busy() {
        let (done, wait_done) = mpsc::channel();
        let (go_on, wait_go_on) = mpsc::channel::<()>();
        let worker = Worker::start("test", move |signals| {
            while signals.wait(LONG) == Wake::Woken {
                done.send(()).unwrap();
                wait_go_on.recv().unwrap();
            }
        })
        .unwrap();
        worker.wake();
        wait_done.recv_timeout(LONG).unwrap();
        // It is busy now. Two wake-ups count as one.
        worker.wake();
        worker.waker()();
        go_on.send(()).unwrap();
        wait_done.recv_timeout(LONG).unwrap();
        go_on.send(()).unwrap();
        assert!(worker.stop(LONG));
        assert!(wait_done.recv().is_err(), "it was woken twice, and ended");
    }

    #[test]
    fn a_worker_wakes_by_itself_when_its_time_is_over() {
        let (tell, told) = mpsc::channel();
        let _worker = Worker::start("test", move |signals| {
            let _ = tell.send(signals.wait(Duration::from_millis(1)));
        });
        assert_eq!(told.recv_timeout(LONG), Ok(Wake::Elapsed));
    }

    #[test]
    fn stopping_a_worker_whose_work_hangs_returns_within_the_limit() {
        let (release, released) = mpsc::channel::<()>();
        let worker = Worker::start("test", move |signals| {
            let _ = released.recv();
            assert!(signals.is_stopping());
        })
        .unwrap();
        let began = Instant::now();
        assert!(!worker.stop(Duration::from_millis(20)));
        assert!(began.elapsed() < LONG / 2);
        drop(release);
        assert!(worker.stop(LONG), "once the work goes on it ends");
        assert!(worker.stop(LONG), "also if it is asked again");
    }

    #[test]
    fn a_worker_whose_work_panics_has_ended() {
        let worker = Worker::start("test", |_| panic!("as it is meant to")).unwrap();
        assert!(worker.stop(LONG));
    }

    #[test]
    fn a_worker_that_is_dropped_is_asked_to_stop() {
        let (tell, told) = mpsc::channel();
        let worker = Worker::start("test", move |signals| {
            let _ = tell.send(signals.wait(Duration::MAX));
        });
        drop(worker);
        assert_eq!(told.recv_timeout(LONG), Ok(Wake::Stop));
    }
}
