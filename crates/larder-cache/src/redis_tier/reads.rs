//! Reads from Redis, many at once.
//!
//! Reads that wait at the same time share one MGET. Two threads drain the queue, so a thousand
//! waiting readers cost two connections and a few round trips, and a single one pays just its own.
//! A read that also asks for the clocks of its targets is a script of its own. A look-up that waits
//! for another replica reads the lease as well, so waiting takes neither a thread nor a permit to
//! load. If Redis does not answer, the reader is told so.

use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};

use super::commands::RedisCommand;
use super::pool::RedisPool;
use crate::coherence::{InvalidationTarget, Mirror, Scripts};
use crate::error::LoadError;

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

/// Who has the lease of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LeaseState {
    /// The load with this token.
    Held(String),
    /// Nobody. The load with this token failed a moment ago.
    Failed(String, LoadError),
    /// Nobody.
    Free,
    /// It was not asked for, or Redis did not answer.
    Unknown,
}

impl LeaseState {
    /// The state that the scripts write as this text.
    fn of(lease: redis::Value) -> LeaseState {
        let redis::Value::BulkString(bytes) = lease else {
            return LeaseState::Free;
        };
        let text = String::from_utf8_lossy(&bytes);
        if let Some((token, why)) = text.strip_prefix('!').and_then(|text| text.split_once(' ')) {
            return LeaseState::Failed(token.to_owned(), LoadError::from_wire(why));
        }
        match text.split_once(':') {
            Some((_, token)) => LeaseState::Held(token.to_owned()),
            None => LeaseState::Free,
        }
    }
}

pub(super) type Reply = Box<dyn FnOnce(Read, LeaseState) + Send>;

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
    /// The key of the lease, if that is read as well.
    pub(super) lease: Option<String>,
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
            return give(ask.reply, Read::Down, LeaseState::Unknown);
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
            return asks
                .into_iter()
                .for_each(|ask| give(ask.reply, Read::Down, LeaseState::Unknown));
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
            .for_each(|ask| give(ask.reply, Read::Down, LeaseState::Unknown));
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
                lease,
                targets,
                reply,
            } in checked
            {
                let targets = targets.unwrap_or_default();
                let found = pool.read_as(RedisCommand::Read, |connection| {
                    let (value, read) = scripts.read(connection, &value, &targets)?;
                    mirror.learn(&read.state, &targets, &read.clocks)?;
                    let Some(lease) = &lease else {
                        return Ok((value, LeaseState::Unknown));
                    };
                    // Not GET: that is an error for a key of another type.
                    let lease: Vec<redis::Value> =
                        redis::cmd("MGET").arg(lease).query(connection)?;
                    let lease = lease.into_iter().next();
                    Ok((value, LeaseState::of(lease.unwrap_or(redis::Value::Nil))))
                });
                let (found, lease) = match found {
                    Ok((Some(bytes), lease)) => (Read::Hit(bytes.into()), lease),
                    Ok((None, lease)) => (Read::Miss, lease),
                    Err(_) => (Read::Down, LeaseState::Unknown),
                };
                give(reply, found, lease);
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
            mget.arg(&ask.value).arg(&ask.lease);
        }
        mget.query::<Vec<redis::Value>>(connection)
    });
    let keys = asks.iter().map(|ask| 1 + usize::from(ask.lease.is_some()));
    match found {
        Ok(values) if values.len() == keys.sum::<usize>() => {
            let mut values = values.into_iter();
            let mut next = || values.next().unwrap_or(redis::Value::Nil);
            for ask in asks {
                let found = match next() {
                    redis::Value::BulkString(bytes) => Read::Hit(bytes.into()),
                    _ => Read::Miss,
                };
                let lease = match ask.lease {
                    Some(_) => LeaseState::of(next()),
                    None => LeaseState::Unknown,
                };
                give(ask.reply, found, lease);
            }
        }
        _ => asks
            .into_iter()
            .for_each(|ask| give(ask.reply, Read::Down, LeaseState::Unknown)),
    }
}

/// Gives a reader its result. A panic of the reader is a bug. It ends that lookup, not the thread
/// that all others read on.
fn give(reply: Reply, found: Read, lease: LeaseState) {
    if catch_unwind(AssertUnwindSafe(|| reply(found, lease))).is_err() {
        log::error!("a look-up panicked");
    }
}
