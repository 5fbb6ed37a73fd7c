//! Reads from Redis, many at once.
//!
//! Reads that wait at the same time share one MGET. Two threads drain the queue, so a thousand
//! waiting readers cost two connections and a few round trips, and a single one pays just its own.
//! A read that also asks for the clocks of its targets is a script of its own. If Redis does not
//! answer, the reader is told so.

use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};

use super::commands::RedisCommand;
use super::pool::RedisPool;
use crate::coherence::{InvalidationTarget, Mirror, Scripts};

/// Keys in one MGET. With more of them, a reply of large values could exceed the time of a reply.
const BATCH: usize = 64;

/// The result of a read.
pub(crate) enum Read {
    /// An envelope that is not decoded yet.
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
    /// Protects the reads that wait. Never locked during a round trip.
    waiting: Mutex<Waiting>,
    /// Notified when there is work, or when the queue is closed.
    work: Condvar,
}

#[derive(Default)]
struct Waiting {
    now: VecDeque<Ask>,
    /// By the time when each is due, and a number that no other has.
    later: BTreeMap<(Instant, u64), Ask>,
    next_number: u64,
    closed: bool,
}

/// One read that waits.
pub(super) struct Ask {
    pub(super) value: String,
    /// The targets that the value depends on, if Redis is asked for their clocks as well.
    pub(super) targets: Option<Arc<[InvalidationTarget]>>,
    pub(super) reply: Reply,
}

impl Queue {
    /// Queues a read. It begins after `pause`.
    pub(super) fn push(&self, ask: Ask, pause: Duration) {
        let mut waiting = self.waiting.lock();
        if waiting.closed {
            drop(waiting);
            return give(ask.reply, Read::Down);
        }
        if pause.is_zero() {
            waiting.now.push_back(ask);
        } else {
            let due = (Instant::now() + pause, waiting.next_number);
            waiting.next_number += 1;
            waiting.later.insert(due, ask);
        }
        drop(waiting);
        self.work.notify_one();
    }

    /// Queues reads that begin now, together.
    pub(super) fn push_all(&self, asks: Vec<Ask>) {
        let mut waiting = self.waiting.lock();
        if waiting.closed {
            drop(waiting);
            return asks.into_iter().for_each(|ask| give(ask.reply, Read::Down));
        }
        waiting.now.extend(asks);
        drop(waiting);
        self.work.notify_one();
    }

    /// Ends the threads that serve it. Readers that wait get [`Read::Down`].
    pub(super) fn close(&self) {
        let mut waiting = self.waiting.lock();
        waiting.closed = true;
        let now = std::mem::take(&mut waiting.now);
        let later = std::mem::take(&mut waiting.later);
        drop(waiting);
        self.work.notify_all();
        // Outside the lock: a reply may ask again.
        now.into_iter()
            .chain(later.into_values())
            .for_each(|ask| give(ask.reply, Read::Down));
    }

    /// Reads for those who wait, until the queue is closed.
    pub(super) fn serve(&self, pool: &RedisPool, mirror: &Mirror, scripts: &Scripts) {
        while let Some(batch) = self.drain() {
            let (plain, checked): (Vec<Ask>, Vec<Ask>) =
                batch.into_iter().partition(|ask| ask.targets.is_none());
            if !plain.is_empty() {
                read_together(pool, plain);
            }
            for Ask {
                value,
                targets,
                reply,
            } in checked
            {
                let targets = targets.unwrap_or_default();
                let found = pool.read_as(RedisCommand::Read, |connection| {
                    let (value, read) = scripts.read(connection, &value, &targets)?;
                    mirror.learn(&read.state, &targets, &read.clocks)?;
                    Ok(value)
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

    /// The reads that wait or have become due, up to a batch. Waits until there is one. `None` when
    /// the queue is closed.
    fn drain(&self) -> Option<Vec<Ask>> {
        let mut waiting = self.waiting.lock();
        loop {
            if waiting.closed {
                return None;
            }
            let now = Instant::now();
            let Waiting {
                now: ready, later, ..
            } = &mut *waiting;
            while let Some(next) = later.first_entry().filter(|next| next.key().0 <= now) {
                ready.push_back(next.remove());
            }
            if !waiting.now.is_empty() {
                let count = waiting.now.len().min(BATCH);
                let batch = waiting.now.drain(..count).collect();
                if !waiting.now.is_empty() {
                    self.work.notify_one();
                }
                return Some(batch);
            }
            match waiting.later.keys().next().copied() {
                Some((due, _)) => drop(self.work.wait_until(&mut waiting, due)),
                None => self.work.wait(&mut waiting),
            }
        }
    }
}

fn read_together(pool: &RedisPool, asks: Vec<Ask>) {
    let found = pool.read_as(RedisCommand::Read, |connection| {
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

/// Gives a reader its result. A panic of the reader is a bug. It ends that lookup, not the thread
/// that all others read on.
fn give(reply: Reply, found: Read) {
    if catch_unwind(AssertUnwindSafe(|| reply(found))).is_err() {
        log::error!("a look-up panicked");
    }
}
