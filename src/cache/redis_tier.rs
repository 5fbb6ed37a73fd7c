//! The Redis tier: batched reads, fills, leases.
//!
//! Reads that wait at the same time share one MGET: two threads drain the queue, so that a thousand waiting readers cost two
//! connections and a few round trips, while a lone one pays just its own. A read that Redis does not answer is told so; nothing
//! here is an error to a reader.
//!
//! Leases only save work. Whoever holds one is the only replica to load a key; correctness never needs them.

use std::collections::{BinaryHeap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use redis::Script;

use super::coherence::Epoch;
use super::error::LoadError;
use super::key::Key;
use super::redis_pool::{RedisDown, RedisPool};

/// Threads that read.
const READERS: usize = 2;
/// Keys in one MGET, so that the reply to large values still comes within the time that a reply may take.
const BATCH: usize = 64;
/// How long a failed load is told to those who waited for it on other replicas.
const FAILURE_TOLD: Duration = Duration::from_millis(500);

/// What a read found.
pub(crate) enum Read {
    /// An envelope, not looked into yet.
    Hit(Bytes),
    /// Nothing.
    Miss,
    /// No answer.
    Down,
}

/// What became of a wish to load.
pub(crate) enum Lease {
    /// The caller is to load; these are its stamps.
    Won { epoch: Epoch, clock: u64 },
    /// Another load filled the key since the caller looked.
    Newer(Bytes),
    /// The load with this token is at it.
    Held(String),
    /// The load that the caller waited for failed.
    Failed(LoadError),
}

type Reply = Box<dyn FnOnce(Read) + Send>;

/// See the module.
pub(crate) struct RedisTier {
    pool: RedisPool,
    names: Names,
    queue: Arc<Queue>,
    lease: Script,
    fill: Script,
    release: Script,
}

#[derive(Clone)]
struct Names {
    prefix: Arc<str>,
}

impl Names {
    fn state(&self) -> String {
        format!("{{{}:bus}}:state", self.prefix)
    }

    fn value(&self, key: &Key) -> String {
        format!("{}:v:{}", self.prefix, key.as_str())
    }

    fn lease(&self, key: &Key) -> String {
        format!("{}:l:{}", self.prefix, key.as_str())
    }
}

#[derive(Default)]
struct Queue {
    /// Held for the time of a push or a drain, never during a round trip.
    state: Mutex<Waiting>,
    work: Condvar,
}

#[derive(Default)]
struct Waiting {
    now: VecDeque<(String, Reply)>,
    later: BinaryHeap<Later>,
    closed: bool,
}

struct Later {
    due: Instant,
    value: String,
    reply: Reply,
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

impl RedisTier {
    /// The tier over `pool`.
    ///
    /// # Errors
    /// If no thread can be started.
    pub(crate) fn start(pool: RedisPool, prefix: &str) -> Result<RedisTier, String> {
        let queue = Arc::<Queue>::default();
        for _ in 0..READERS {
            let (queue, pool) = (queue.clone(), pool.clone());
            std::thread::Builder::new()
                .name("redis-read".into())
                .spawn(move || queue.serve(&pool))
                .map_err(|error| format!("cannot start a thread: {error}"))?;
        }
        Ok(RedisTier {
            pool,
            names: Names {
                prefix: prefix.into(),
            },
            queue,
            lease: Script::new(include_str!("lease.lua")),
            fill: Script::new(include_str!("fill.lua")),
            release: Script::new(include_str!("release.lua")),
        })
    }

    pub(crate) fn pool(&self) -> &RedisPool {
        &self.pool
    }

    /// Reads `key` and gives what was found to `reply`, on a reader's thread; at once, here, while Redis is down.
    pub(crate) fn read(&self, key: &Key, reply: impl FnOnce(Read) + Send + 'static) {
        if !self.pool.is_up() {
            return reply(Read::Down);
        }
        let mut waiting = self
            .queue
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        waiting
            .now
            .push_back((self.names.value(key), Box::new(reply)));
        drop(waiting);
        self.queue.work.notify_one();
    }

    /// The same, not before `pause` has passed.
    pub(crate) fn read_later(
        &self,
        pause: Duration,
        key: &Key,
        reply: impl FnOnce(Read) + Send + 'static,
    ) {
        let later = Later {
            due: Instant::now() + pause,
            value: self.names.value(key),
            reply: Box::new(reply),
        };
        self.queue
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .later
            .push(later);
        self.queue.work.notify_one();
    }

    /// Asks for the right to load `key` for as long as `ttl`. `seen`: the id of the load whose value was found, if any;
    /// `waited_for`: the token of the lease that stood in the way before.
    pub(crate) fn lease(
        &self,
        key: &Key,
        token: &str,
        ttl: Duration,
        seen: &[u8],
        waited_for: Option<&str>,
    ) -> Result<Lease, RedisDown> {
        let reply: Vec<redis::Value> = self.pool.run(|connection| {
            self.lease
                .key(self.names.state())
                .key(self.names.value(key))
                .key(self.names.lease(key))
                .arg(token)
                .arg(ttl.as_millis() as u64)
                .arg(seen)
                .arg(waited_for.unwrap_or_default())
                .invoke(connection)
        })?;
        lease_of(reply)
            .ok_or_else(|| RedisDown::Refused("an answer that is none of larder's".into()))
    }

    /// Stores an envelope for `ttl` and gives the lease back. Returns whether it was stored: not if a later load is at it.
    pub(crate) fn fill(
        &self,
        key: &Key,
        token: &str,
        envelope: &[u8],
        ttl: Duration,
    ) -> Result<bool, RedisDown> {
        self.pool.run(|connection| {
            self.fill
                .key(self.names.value(key))
                .key(self.names.lease(key))
                .arg(token)
                .arg(envelope)
                .arg(ttl.as_millis().max(1) as u64)
                .invoke(connection)
        })
    }

    /// Gives the lease back after a failure.
    pub(crate) fn release(
        &self,
        key: &Key,
        token: &str,
        why: &LoadError,
    ) -> Result<bool, RedisDown> {
        self.pool.run(|connection| {
            self.release
                .key(self.names.lease(key))
                .arg(token)
                .arg(why.to_wire())
                .arg(FAILURE_TOLD.as_millis() as u64)
                .invoke(connection)
        })
    }
}

impl Drop for RedisTier {
    fn drop(&mut self) {
        self.queue
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .closed = true;
        self.queue.work.notify_all();
    }
}

fn lease_of(reply: Vec<redis::Value>) -> Option<Lease> {
    let mut parts = reply.into_iter().map(|value| match value {
        redis::Value::BulkString(bytes) => bytes,
        redis::Value::SimpleString(text) => text.into_bytes(),
        _ => Vec::new(),
    });
    let kind = parts.next()?;
    let first = parts.next()?;
    Some(match kind.as_slice() {
        b"newer" => Lease::Newer(first.into()),
        b"held" => Lease::Held(String::from_utf8(first).ok()?),
        b"failed" => Lease::Failed(LoadError::from_wire(&String::from_utf8_lossy(&first))),
        b"won" => Lease::Won {
            epoch: Epoch::parse(std::str::from_utf8(&first).ok()?)?,
            clock: std::str::from_utf8(&parts.next()?).ok()?.parse().ok()?,
        },
        _ => return None,
    })
}

impl Queue {
    fn serve(&self, pool: &RedisPool) {
        while let Some(batch) = self.drain() {
            let found = pool.run(|connection| {
                let mut mget = redis::cmd("MGET");
                for (value, _) in &batch {
                    mget.arg(value);
                }
                mget.query::<Vec<redis::Value>>(connection)
            });
            match found {
                Ok(values) if values.len() == batch.len() => {
                    for ((_, reply), value) in batch.into_iter().zip(values) {
                        reply(match value {
                            redis::Value::BulkString(bytes) => Read::Hit(bytes.into()),
                            _ => Read::Miss,
                        });
                    }
                }
                _ => batch.into_iter().for_each(|(_, reply)| reply(Read::Down)),
            }
        }
    }

    /// All that waits or has become due, up to a batch; waits until there is something. `None` when the tier is gone.
    fn drain(&self) -> Option<Vec<(String, Reply)>> {
        let mut waiting = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if waiting.closed {
                return None;
            }
            let now = Instant::now();
            while waiting.later.peek().is_some_and(|later| later.due <= now) {
                let Some(due) = waiting.later.pop() else {
                    break;
                };
                waiting.now.push_back((due.value, due.reply));
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
