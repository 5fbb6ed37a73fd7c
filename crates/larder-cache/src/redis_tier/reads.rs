//! Reads from Redis, many at once.
//!
//! Reads that wait at the same time share one MGET: two threads drain the queue, so that a thousand waiting readers cost two
//! connections and a few round trips, while a lone one pays just its own. A read that asks what became of its names as well is a
//! script of its own. One that Redis does not answer is told so.

use std::collections::{BinaryHeap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::pool::RedisPool;
use crate::coherence::{InvalidationTarget, Mirror, Scripts};

/// Keys in one MGET, so that the reply to large values still comes within the time that a reply may take.
const BATCH: usize = 64;

/// What a read found.
pub(crate) enum Read {
    /// An envelope, not looked into yet.
    Hit(Bytes),
    /// Nothing.
    Miss,
    /// No answer.
    Down,
}

pub(super) type Reply = Box<dyn FnOnce(Read) + Send>;

/// See the module.
#[derive(Default)]
pub(super) struct Queue {
    /// Held for the time of a push or a drain, never during a round trip.
    state: Mutex<Waiting>,
    work: Condvar,
}

#[derive(Default)]
struct Waiting {
    now: VecDeque<Ask>,
    later: BinaryHeap<Later>,
    closed: bool,
}

struct Later {
    due: Instant,
    ask: Ask,
}

/// One read that waits.
pub(super) struct Ask {
    pub(super) value: String,
    /// What the value depends on, where Redis is to tell what became of it, since the mirror cannot.
    pub(super) checked: Option<Arc<[InvalidationTarget]>>,
    pub(super) reply: Reply,
}

impl Ord for Later {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        // The heap gives its greatest first: the one that is due first.
        other.due.cmp(&self.due)
    }
}

impl PartialOrd for Later {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Later {
    fn eq(&self, other: &Self) -> bool {
        self.due == other.due
    }
}

impl Eq for Later {}

impl Queue {
    /// Has a read made, not before `pause` has passed.
    pub(super) fn push(&self, ask: Ask, pause: Duration) {
        let mut waiting = self.lock();
        if waiting.closed {
            drop(waiting);
            return give(ask.reply, Read::Down);
        }
        if pause.is_zero() {
            waiting.now.push_back(ask);
        } else {
            waiting.later.push(Later {
                due: Instant::now() + pause,
                ask,
            });
        }
        drop(waiting);
        self.work.notify_one();
    }

    /// Ends the threads that serve it. Reads that wait are told that there is no answer.
    pub(super) fn close(&self) {
        let mut waiting = self.lock();
        waiting.closed = true;
        let now = std::mem::take(&mut waiting.now);
        let later = std::mem::take(&mut waiting.later);
        drop(waiting);
        self.work.notify_all();
        // Outside the lock: a reply may ask again.
        let later = later.into_iter().map(|later| later.ask);
        now.into_iter()
            .chain(later)
            .for_each(|ask| give(ask.reply, Read::Down));
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the reads that wait, until it is closed.
    pub(super) fn serve(&self, pool: &RedisPool, mirror: &Mirror, scripts: &Scripts) {
        while let Some(batch) = self.drain() {
            let (plain, checked): (Vec<Ask>, Vec<Ask>) =
                batch.into_iter().partition(|ask| ask.checked.is_none());
            if !plain.is_empty() {
                read_together(pool, plain);
            }
            for Ask {
                value,
                checked: names,
                reply,
            } in checked
            {
                let names = names.unwrap_or_default();
                let found = pool.read(|connection| {
                    let read = scripts.read(connection, &value, &names)?;
                    mirror.learn(&read.state, &names, &read.clocks)?;
                    Ok(read.value)
                });
                let found = match found {
                    Ok(Some(bytes)) => Read::Hit(bytes.into()),
                    Ok(None) => Read::Miss,
                    Err(_) => Read::Down,
                };
                give(reply, found);
            }
        }
    }

    /// All that waits or has become due, up to a batch; waits until there is something. `None` when the tier is gone.
    fn drain(&self) -> Option<Vec<Ask>> {
        let mut waiting = self.lock();
        loop {
            if waiting.closed {
                return None;
            }
            let now = Instant::now();
            while waiting.later.peek().is_some_and(|later| later.due <= now) {
                let Some(due) = waiting.later.pop() else {
                    break;
                };
                waiting.now.push_back(due.ask);
            }
            if !waiting.now.is_empty() {
                let count = waiting.now.len().min(BATCH);
                let batch = waiting.now.drain(..count).collect();
                if !waiting.now.is_empty() {
                    self.work.notify_one();
                }
                return Some(batch);
            }
            waiting = match waiting.later.peek() {
                Some(next) => {
                    let left = next.due.saturating_duration_since(now);
                    self.work
                        .wait_timeout(waiting, left)
                        .unwrap_or_else(PoisonError::into_inner)
                        .0
                }
                None => self
                    .work
                    .wait(waiting)
                    .unwrap_or_else(PoisonError::into_inner),
            };
        }
    }
}

fn read_together(pool: &RedisPool, asks: Vec<Ask>) {
    let found = pool.read(|connection| {
        let mut mget = redis::cmd("MGET");
        for ask in &asks {
            mget.arg(&ask.value);
        }
        mget.query::<Vec<redis::Value>>(connection)
    });
    match found {
        Ok(values) if values.len() == asks.len() => {
            for (ask, value) in asks.into_iter().zip(values) {
                let found = match value {
                    redis::Value::BulkString(bytes) => Read::Hit(bytes.into()),
                    _ => Read::Miss,
                };
                give(ask.reply, found);
            }
        }
        _ => asks.into_iter().for_each(|ask| give(ask.reply, Read::Down)),
    }
}

/// Gives what was found to who asked. A panic there is a bug, and ends that look-up, not the thread that all others read on.
fn give(reply: Reply, found: Read) {
    if catch_unwind(AssertUnwindSafe(|| reply(found))).is_err() {
        log::error!("a look-up panicked");
    }
}
