//! The Redis tier: reads, fills and leases, and the connections for them.
//!
//! A Redis that does not answer is a miss, never an error to a reader.
//!
//! A lease is the right to load one key across all replicas. Leases only save work: correctness
//! never needs them.
//!
//! The folder is named `redis_tier` because a module named `redis` would hide the `redis` crate.
//! Arrows: `bus` imports `redis_tier`, and `redis_tier` imports `coherence`, never the other way
//! round.

mod breaker;
pub(crate) mod commands;
pub(crate) mod connection;
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

use self::commands::RedisCommand;
use self::fault::RedisDown;
use self::leases::{Fill, LEASE, Leases};
use self::pool::RedisPool;
use self::reads::{Ask, LeaseState, Queue, Read};
use crate::coherence::{
    InvalidationTarget, Mirror, Scripts, Stamp, bytes, history_script, script, unexpected,
};
use crate::error::LoadError;
use crate::key::Key;
use crate::thread;

/// How many threads read.
const READERS: usize = 2;
/// How long a failure is kept for those who waited for its load on other replicas.
const FAILURE_KEPT: Duration = Duration::from_millis(500);

/// The answer to a request for a lease.
pub(crate) enum Lease {
    /// The caller has the lease and loads. This is the stamp of its load.
    Won(Stamp),
    /// Another load filled the key since the caller looked. This is its envelope.
    Newer(Bytes),
    /// Another load has the lease. This is its token, and where history stands now: nothing that
    /// the value depends on was invalidated between the begin of that load and now.
    Taken(String, Stamp),
    /// The load that the caller waited for failed.
    Failed(LoadError),
}

/// What became of a value that was to be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Filled {
    /// It is stored. What was to be dropped is dropped.
    Stored,
    /// A later load, or a later insert, has filled the key or is about to.
    Newer,
}

/// See the module.
pub(crate) struct RedisTier {
    pool: RedisPool,
    /// What every key in Redis begins with.
    prefix: String,
    queue: Arc<Queue>,
    mirror: Arc<Mirror>,
    scripts: Arc<Scripts>,
    leases: Arc<Leases>,
    lease: Script,
    release: Script,
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
            thread::spawn("redis-read", move || queue.serve(&pool, &mirror, &scripts))?;
        }
        Ok(RedisTier {
            pool,
            prefix: prefix.to_owned(),
            queue,
            mirror,
            scripts,
            leases: Arc::default(),
            lease: history_script(include_str!("lease.lua")),
            release: script(include_str!("release.lua")),
        })
    }

    /// Where the value of `key` is in Redis.
    fn value_key(&self, key: &Key) -> String {
        format!("{}:v:{}", self.prefix, key.as_str())
    }

    /// Where the lease of `key` is in Redis.
    fn lease_key(&self, key: &Key) -> String {
        format!("{}:l:{}", self.prefix, key.as_str())
    }

    pub(crate) fn pool(&self) -> &RedisPool {
        &self.pool
    }

    /// Whether it was closed: Redis is not asked any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.pool.health().is_ended()
    }

    /// The leases that this replica holds, for the bus to renew.
    pub(crate) fn leases(&self) -> &Arc<Leases> {
        &self.leases
    }

    /// Ends the threads and closes the connections. Those at work follow when their work is done.
    pub(crate) fn close(&self) {
        self.pool.close();
        self.queue.close();
    }

    /// Reads `key` on a reader's thread, and calls `reply` with the result. While Redis is down,
    /// calls it here at once. With `targets`, which the value depends on, Redis is asked for their
    /// clocks as well, and the mirror has learned them before the reply. `again`: how long to wait
    /// first, for a look-up that waits for the load of another replica. Then the lease is read as
    /// well, and the reply comes after that pause even if Redis is down.
    pub(crate) fn read(
        &self,
        key: &Key,
        targets: Option<Arc<[InvalidationTarget]>>,
        again: Option<Duration>,
        reply: impl FnOnce(Read, LeaseState) + Send + 'static,
    ) {
        if again.is_none() && !self.pool.answers() {
            return reply(Read::Down, LeaseState::Unknown);
        }
        let ask = Ask {
            value: self.value_key(key),
            lease: again.map(|_| self.lease_key(key)),
            targets,
            reply: Box::new(reply),
        };
        self.queue.push(ask, again.unwrap_or_default());
    }

    /// Asks for the lease of `key`, whose value depends on `targets`. The mirror has learned their
    /// clocks before this returns. `seen`: the id of the load whose value the caller found, or
    /// nothing. `waited_for`: the token of the lease that the caller waited for, if any.
    pub(crate) fn lease(
        &self,
        key: &Key,
        targets: &[InvalidationTarget],
        token: &str,
        seen: &[u8],
        waited_for: Option<&str>,
    ) -> Result<Lease, RedisDown> {
        let sequence = self.mirror.pending.sequence();
        let ttl = LEASE.as_millis().to_string();
        let (value, lease) = (self.value_key(key), self.lease_key(key));
        let keys = [value.as_str(), lease.as_str()];
        let arguments = [
            token.as_bytes(),
            ttl.as_bytes(),
            seen,
            waited_for.unwrap_or_default().as_bytes(),
        ];
        let reply = self.pool.run_as(RedisCommand::Lease, |connection| {
            let scripts = &self.scripts;
            let reply = scripts.ask_targets(connection, &self.lease, &keys, &arguments, targets)?;
            self.mirror.learn(&reply.state, targets, &reply.clocks)?;
            Ok(reply)
        })?;
        let refused = || RedisDown::Refused(unexpected().to_string());
        let [answer, what] = reply.values.as_slice() else {
            return Err(refused());
        };
        let what = bytes(what);
        let stamp = Stamp {
            history: reply.state.history,
            clock: reply.state.clock,
            sequence,
        };
        let text = || String::from_utf8_lossy(&what).into_owned();
        match bytes(answer).as_slice() {
            b"newer" => Ok(Lease::Newer(what.into())),
            b"taken" => Ok(Lease::Taken(text(), stamp)),
            b"failed" => Ok(Lease::Failed(LoadError::from_wire(&text()))),
            b"won" => {
                self.leases.add(token, &lease, stamp.clock);
                Ok(Lease::Won(stamp))
            }
            _ => Err(refused()),
        }
    }

    /// Asks Redis for the clocks of these targets. The mirror has learned them before this returns.
    pub(crate) fn ask_names(
        &self,
        key: &Key,
        targets: &[InvalidationTarget],
    ) -> Result<(), RedisDown> {
        let value = self.value_key(key);
        self.pool.run_as(RedisCommand::Read, |connection| {
            let (_, reply) = self.scripts.read(connection, &value, targets)?;
            Ok(self.mirror.learn(&reply.state, targets, &reply.clocks)?)
        })
    }

    /// Stores the value of a load with this stamp for `ttl`, as an envelope, and gives the lease
    /// back. An empty envelope drops what is stored. `token`: that of the lease; `None` for a value
    /// that comes from no load. If Redis cannot be reached, a value whose load had the lease is
    /// stored when Redis is back.
    pub(crate) fn fill(
        &self,
        key: &Key,
        token: Option<&str>,
        stamp: Stamp,
        envelope: &[u8],
        ttl: Duration,
    ) -> Result<Filled, RedisDown> {
        let held = token.and_then(|token| self.leases.remove(token));
        let (value, lease) = (self.value_key(key), self.lease_key(key));
        let fill = Fill {
            value: &value,
            lease: &lease,
            token: token.unwrap_or_default(),
            stamp,
            history: self.mirror.history_id(),
            envelope,
            ttl,
        };
        let answer = self.pool.run_as(RedisCommand::Fill, |connection| {
            self.leases.fill(connection, &fill)
        });
        if let (Err(RedisDown::Unreachable), Some(held)) = (&answer, held) {
            self.leases.fill_later(held, &fill);
        }
        match answer?.as_str() {
            "stored" => Ok(Filled::Stored),
            "newer" | "overtaken" => Ok(Filled::Newer),
            _ => Err(RedisDown::Refused(unexpected().to_string())),
        }
    }

    /// Gives the lease back after a load that failed. Returns whether this replica still had it.
    pub(crate) fn release(
        &self,
        key: &Key,
        token: &str,
        why: &LoadError,
    ) -> Result<bool, RedisDown> {
        self.release_with(key, token, &why.to_wire())
    }

    /// Gives the lease back of a load that was not made. Returns whether this replica still had it.
    pub(crate) fn give_back(&self, key: &Key, token: &str) -> Result<bool, RedisDown> {
        self.release_with(key, token, "")
    }

    fn release_with(&self, key: &Key, token: &str, why: &str) -> Result<bool, RedisDown> {
        self.leases.remove(token);
        self.pool.run_as(RedisCommand::Lease, |connection| {
            self.release
                .key(self.lease_key(key))
                .arg(token)
                .arg(why)
                .arg(FAILURE_KEPT.as_millis() as u64)
                .invoke(connection)
        })
    }
}

impl Drop for RedisTier {
    fn drop(&mut self) {
        self.queue.close();
    }
}
