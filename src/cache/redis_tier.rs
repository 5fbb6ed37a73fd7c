//! The Redis tier: batched reads, fills, leases.
//!
//! Reads that wait at the same time share one MGET: two threads drain the queue, so that a thousand waiting readers cost two
//! connections and a few round trips, while a lone one pays just its own. A read that Redis does not answer is told so; nothing
//! here is an error to a reader.
//!
//! Leases only save work. Whoever holds one is the only replica to load a key; correctness never needs them.

use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use redis::Script;

use super::coherence::{Clocks, Kind, Mirror, Name, Scripts, Stamp, State};
use super::error::LoadError;
use super::key::Key;
use super::redis_pool::{RedisDown, RedisPool};

/// Threads that read.
const READERS: usize = 2;
/// Keys in one MGET, so that the reply to large values still comes within the time that a reply may take.
const BATCH: usize = 64;
/// How long a failed load is told to those who waited for it on other replicas.
const FAILURE_TOLD: Duration = Duration::from_millis(500);

/// How long a lease lives unless it is renewed.
const LEASE: Duration = Duration::from_secs(2);
/// How often leases are renewed.
pub(crate) const RENEW_EVERY: Duration = Duration::from_millis(500);

/// The leases that this replica holds: token and key of each.
#[derive(Debug, Default)]
pub(crate) struct Held(Mutex<HashMap<String, String>>);

impl Held {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, token: &str, key: &str) {
        self.lock().insert(token.to_owned(), key.to_owned());
    }

    fn forget(&self, token: &str) {
        self.lock().remove(token);
    }

    /// Renews them all in one script.
    pub(crate) fn renew(&self, connection: &mut redis::Connection) -> redis::RedisResult<()> {
        let held: Vec<(String, String)> = self.lock().clone().into_iter().collect();
        if held.is_empty() {
            return Ok(());
        }
        let script = Script::new(include_str!("coherence/renew.lua"));
        let mut call = script.prepare_invoke();
        call.arg(LEASE.as_millis() as u64);
        for (token, key) in &held {
            call.key(key).arg(token);
        }
        call.invoke(connection)
    }
}

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
    Won(Stamp),
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
    mirror: Arc<Mirror>,
    scripts: Arc<Scripts>,
    held: Arc<Held>,
    fill: Script,
    release: Script,
}

#[derive(Clone)]
struct Names {
    prefix: Arc<str>,
}

impl Names {
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
    now: VecDeque<Ask>,
    later: BinaryHeap<Later>,
    closed: bool,
}

struct Later {
    due: Instant,
    ask: Ask,
}

/// One read that waits.
struct Ask {
    value: String,
    /// What the value depends on, where Redis is to tell what became of it, since the mirror cannot.
    checked: Option<Arc<[Name]>>,
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
    pub(crate) fn start(
        pool: RedisPool,
        prefix: &str,
        mirror: Arc<Mirror>,
        scripts: Arc<Scripts>,
    ) -> Result<RedisTier, String> {
        let queue = Arc::<Queue>::default();
        for _ in 0..READERS {
            let (queue, pool) = (queue.clone(), pool.clone());
            let (mirror, scripts) = (mirror.clone(), scripts.clone());
            std::thread::Builder::new()
                .name("redis-read".into())
                .spawn(move || queue.serve(&pool, &mirror, &scripts))
                .map_err(|error| format!("cannot start a thread: {error}"))?;
        }
        Ok(RedisTier {
            pool,
            names: Names {
                prefix: prefix.into(),
            },
            queue,
            mirror,
            scripts,
            held: Arc::default(),
            fill: Script::new(include_str!("fill.lua")),
            release: Script::new(include_str!("release.lua")),
        })
    }

    pub(crate) fn pool(&self) -> &RedisPool {
        &self.pool
    }

    /// Reads `key` and gives what was found to `reply`, on a reader's thread, not before `pause` has passed; at once, here, while
    /// Redis is down. `checked`: the names of the value, if Redis is to be asked what became of them as well; the mirror knows
    /// it by the time of the reply.
    pub(crate) fn read(
        &self,
        key: &Key,
        checked: Option<Arc<[Name]>>,
        pause: Duration,
        reply: impl FnOnce(Read) + Send + 'static,
    ) {
        if !self.pool.is_up() {
            return reply(Read::Down);
        }
        let ask = Ask {
            value: self.names.value(key),
            checked,
            reply: Box::new(reply),
        };
        let mut waiting = self
            .queue
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if pause.is_zero() {
            waiting.now.push_back(ask);
        } else {
            waiting.later.push(Later {
                due: Instant::now() + pause,
                ask,
            });
        }
        drop(waiting);
        self.queue.work.notify_one();
    }

    /// The leases that this replica holds: they are short, and renewed while their loads run, so that one that nobody gives back is
    /// no hindrance for long.
    pub(crate) fn held(&self) -> &Arc<Held> {
        &self.held
    }

    /// Asks for the right to load `key`, which depends on `names`. `seen`: the id of the load whose value
    /// was found, if any; `waited_for`: the token of the lease that stood in the way before. The mirror knows by then what became
    /// of the names.
    pub(crate) fn lease(
        &self,
        key: &Key,
        names: &[Name],
        token: &str,
        seen: &[u8],
        waited_for: Option<&str>,
    ) -> Result<Lease, RedisDown> {
        let begun = self.mirror.pending.begun();
        let ttl = LEASE.as_millis().to_string();
        let keys = [self.names.value(key), self.names.lease(key)];
        let keys = [keys[0].as_str(), keys[1].as_str()];
        let arguments = [
            token.as_bytes(),
            ttl.as_bytes(),
            seen,
            waited_for.unwrap_or_default().as_bytes(),
        ];
        let (kind, what, state, clocks) = self
            .pool
            .run(|connection| self.scripts.lease(connection, keys, arguments, names))?;
        learn(&self.mirror, &state, names, &clocks);
        let text = || String::from_utf8_lossy(&what).into_owned();
        match kind.as_slice() {
            b"newer" => Ok(Lease::Newer(what.into())),
            b"held" => Ok(Lease::Held(text())),
            b"failed" => Ok(Lease::Failed(LoadError::from_wire(&text()))),
            b"won" => {
                self.held.note(token, keys[1]);
                Ok(Lease::Won(Stamp {
                    epoch: state.epoch,
                    clock: state.clock,
                    begun,
                }))
            }
            _ => Err(RedisDown::Refused(
                "an answer that is none of larder's".into(),
            )),
        }
    }

    /// Asks what became of these names; the mirror knows it then.
    pub(crate) fn ask_names(&self, key: &Key, names: &[Name]) -> Result<(), RedisDown> {
        let value = self.names.value(key);
        let read = self
            .pool
            .run(|connection| self.scripts.read(connection, &value, names))?;
        learn(&self.mirror, &read.state, names, &read.clocks);
        Ok(())
    }

    /// Stores an envelope for `ttl`, or with an empty one drops what is there, and gives the lease back. Returns whether that was
    /// done: not if a later load is at it.
    pub(crate) fn fill(
        &self,
        key: &Key,
        token: &str,
        envelope: &[u8],
        ttl: Duration,
    ) -> Result<bool, RedisDown> {
        self.held.forget(token);
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
        self.held.forget(token);
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

/// Takes over what a reply said of these names.
fn learn(mirror: &Mirror, state: &State, names: &[Name], clocks: &Clocks) {
    mirror.saw(state);
    let era = mirror.era();
    if era.epoch() != state.epoch {
        return;
    }
    for (name, (hard, soft)) in names.iter().zip(clocks) {
        for (kind, clock) in [(Kind::Hard, *hard), (Kind::Soft, *soft)] {
            if clock > 0 {
                era.apply(name, kind, clock);
            }
        }
    }
}

impl Queue {
    fn serve(&self, pool: &RedisPool, mirror: &Mirror, scripts: &Scripts) {
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
                let found = match pool.read(|connection| scripts.read(connection, &value, &names)) {
                    Ok(read) => {
                        learn(mirror, &read.state, &names, &read.clocks);
                        read.value
                            .map_or(Read::Miss, |bytes| Read::Hit(bytes.into()))
                    }
                    Err(_) => Read::Down,
                };
                give(reply, found);
            }
        }
    }

    /// All that waits or has become due, up to a batch; waits until there is something. `None` when the tier is gone.
    fn drain(&self) -> Option<Vec<Ask>> {
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
