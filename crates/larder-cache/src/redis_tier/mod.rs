//! The Redis tier: reads, fills, leases.
//!
//! A read that Redis does not answer is told so; nothing here is an error to a reader.
//!
//! Leases only save work. Whoever holds one is the only replica to load a key; correctness never needs them.
//!
//! The folder is named `redis_tier` because a module named `redis` would hide the `redis` crate.
//! Arrows: `redis_tier` imports `coherence`, never the other way round.

pub(crate) mod breaker;
mod connection;
pub(crate) mod fault;
pub(crate) mod health;
pub(crate) mod leases;
pub(crate) mod pool;
pub(crate) mod reads;
pub(crate) mod url;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use redis::Script;

use self::fault::{RedisDown, unexpected};
use self::leases::{Held, LEASE};
use self::pool::RedisPool;
use self::reads::{Ask, Queue, Read};
use crate::coherence::{InvalidationTarget, Mirror, Scripts, Stamp};
use crate::error::LoadError;
use crate::key::Key;

/// Threads that read.
const READERS: usize = 2;
/// How long a failed load is told to those who waited for it on other replicas.
const FAILURE_TOLD: Duration = Duration::from_millis(500);

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
        let readers = if pool.is_used() { READERS } else { 0 };
        for _ in 0..readers {
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
            fill: Script::new(concat!(
                include_str!("../coherence/call.lua"),
                include_str!("fill.lua")
            )),
            release: Script::new(concat!(
                include_str!("../coherence/call.lua"),
                include_str!("release.lua")
            )),
        })
    }

    pub(crate) fn pool(&self) -> &RedisPool {
        &self.pool
    }

    /// Ends the threads and closes the connections, but for those that are at work: they follow
    /// when it is done.
    pub(crate) fn close(&self) {
        self.pool.close();
        self.queue.close();
    }

    /// Reads `key` and gives what was found to `reply`, on a reader's thread, not before `pause` has passed; at once, here, while
    /// Redis is down. `checked`: the names of the value, if Redis is to be asked what became of them as well; the mirror knows
    /// it by the time of the reply.
    pub(crate) fn read(
        &self,
        key: &Key,
        checked: Option<Arc<[InvalidationTarget]>>,
        pause: Duration,
        reply: impl FnOnce(Read) + Send + 'static,
    ) {
        if !self.pool.answers() {
            return reply(Read::Down);
        }
        let ask = Ask {
            value: self.names.value(key),
            checked,
            reply: Box::new(reply),
        };
        self.queue.push(ask, pause);
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
        names: &[InvalidationTarget],
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
        let (kind, what, state, _) = self.pool.run(|connection| {
            let reply = self.scripts.lease(connection, keys, arguments, names)?;
            self.mirror.learn(&reply.2, names, &reply.3)?;
            Ok(reply)
        })?;
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
            _ => Err(RedisDown::Refused(unexpected().to_string())),
        }
    }

    /// Asks what became of these names; the mirror knows it then.
    pub(crate) fn ask_names(
        &self,
        key: &Key,
        names: &[InvalidationTarget],
    ) -> Result<(), RedisDown> {
        let value = self.names.value(key);
        self.pool.run(|connection| {
            let read = self.scripts.read(connection, &value, names)?;
            self.mirror.learn(&read.state, names, &read.clocks)
        })
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
        self.queue.close();
    }
}
