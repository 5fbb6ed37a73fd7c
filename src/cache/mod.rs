//! FLOOR 0: the two-tier cache.
//!
//! [`Cache`] is the one door. A value is bytes under a [`Key`]; it is served from this process's memory, else from Redis, else it
//! is made by a [`Load`] on a blocking thread, and both tiers are filled on the way back. The core is synchronous and knows
//! neither HTTP nor SQL: a [`Ticket`] is a plain `Future` that needs no runtime, and it can be waited for on a thread.
//!
//! Promises: [`Cache::get`] never blocks and never waits for a lock that a load can hold. One key is loaded once at a time in this
//! process, and once across all replicas while Redis is up. A tier that fails is a miss, never an error. A load that began before
//! a change is told from one that began after it by its load clock.

mod breaker;
mod clock;
mod coherence;
mod compose;
mod core;
mod entry;
mod envelope;
mod error;
mod flight;
mod key;
mod loaders;
mod memory_tier;
mod miss;
mod outcome;
mod policy;
mod random;
mod redis_pool;
mod redis_tier;
mod request;
mod settings;
mod stats;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use self::coherence::{Mirror, Seen};
use self::core::Core;
use self::flight::Flights;
use self::loaders::Loaders;
use self::memory_tier::MemoryTier;
use self::redis_tier::RedisTier;

pub use self::clock::{Clock, Micros, micros};
pub use self::coherence::Epoch;
pub use self::entry::{Entry, Value};
pub use self::error::LoadError;
pub use self::flight::{Ending, Ticket};
pub use self::key::{Key, KeyText, Tag, escape_into};
pub use self::outcome::{Answer, Outcome, Staleness, Trace};
pub use self::policy::{Ends, Freshness, Life, Policy, StaleRules};
pub use self::random::random;
pub use self::redis_pool::{RedisDown, RedisPool};
pub use self::request::{Compose, Composition, LastResort, Load, Loaded, Making, Request, Subject};
pub use self::settings::{
    CoherenceSettings, Eviction, LoadSettings, MemorySettings, RedisSettings,
};
pub use self::stats::{Tally, Totals};

/// The two-tier cache. Cheap to clone; clones are the same cache.
#[derive(Clone)]
pub struct Cache(Arc<Core>);

/// What memory holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemorySize {
    /// Entries.
    pub entries: u64,
    /// Their weight: bodies, keys and bookkeeping.
    pub bytes: u64,
    /// Entries that went for room, so far.
    pub evictions: u64,
}

impl Cache {
    /// A cache over this process's memory and the Redis of these settings, which is looked for in the background.
    ///
    /// # Errors
    /// If the Redis URL is not valid or a thread cannot be started. A Redis that is down is no error.
    pub fn start(
        memory: &MemorySettings,
        redis: &RedisSettings,
        loads: &LoadSettings,
    ) -> Result<Cache, String> {
        let mirror = Arc::new(Mirror::alone());
        let clock = Arc::new(Clock::new());
        let tier = Arc::new(MemoryTier::new(memory));
        let drop_memory = tier.clone();
        let saw = Box::new(move |seen| match seen {
            Seen::Same => {}
            // What was loaded alone has no place in a history that others write, too.
            Seen::First => drop_memory.clear(),
            Seen::Other => log::warn!(
                "Redis has lost its data or got old data back: what was loaded before is invalid"
            ),
        });
        let pool = RedisPool::start(redis, mirror.clone(), clock.clone(), saw)?;
        Ok(Cache(Arc::new(Core {
            memory: tier,
            redis: RedisTier::start(pool, &redis.prefix)?,
            flights: Arc::new(Flights::new()),
            loaders: Loaders::new(loads.clone()),
            mirror,
            clock,
        })))
    }

    /// What memory may answer with under the key of this text. Does not block.
    pub fn get(&self, key: &str, policy: &Policy) -> Option<Answer> {
        self.0.look(key, policy)
    }

    /// A claim to the answer for `request`: from Redis, from a load that is under way, or from one that this call begins. Does
    /// not block; the ticket can be awaited or waited for.
    pub fn fetch(&self, request: Request) -> Ticket {
        self.0.fetch(request)
    }

    /// Memory, else Redis, else the source, waiting on this thread for at most `limit`.
    ///
    /// # Errors
    /// What the load ended with, if no stale copy may stand in for it.
    pub fn get_or_load(&self, request: Request, limit: Duration) -> Ending {
        match self.get(request.subject.key.as_str(), &request.subject.policy) {
            Some(answer) => Ok(answer),
            None => self.fetch(request).wait(limit),
        }
    }

    /// The connections to Redis, for what else all replicas count together.
    pub fn redis(&self) -> &RedisPool {
        self.0.redis.pool()
    }

    /// This replica's time.
    pub fn clock(&self) -> &Arc<Clock> {
        &self.0.clock
    }

    /// Whether no Redis was ever found, so that this process is alone.
    pub fn is_alone(&self) -> bool {
        self.0.mirror.is_alone()
    }

    /// What memory holds now.
    pub fn memory_size(&self) -> MemorySize {
        let (entries, bytes, evictions) = self.0.memory.size();
        MemorySize {
            entries,
            bytes,
            evictions,
        }
    }
}
