//! Builds a cache to embed, with the settings that differ from the defaults.

use std::sync::Arc;
use std::time::Duration;

use super::clock::{Clock, TestClock};
use super::open::DELIVERY;
use super::settings::{
    CoherenceSettings, Eviction, LoadSettings, MemorySettings, RedisChoice, RedisSettings,
};
use super::typed::TypedShared;
use super::{Cache, Policy, StaleRules};
use crate::secret::Secret;

/// See [`Cache::builder`].
pub struct CacheBuilder {
    memory: MemorySettings,
    redis: RedisSettings,
    loads: LoadSettings,
    coherence: CoherenceSettings,
    delivery: Duration,
    typed: TypedShared,
    clock: Clock,
}

impl Cache {
    /// A cache to embed: 256 MiB of memory, and no Redis unless [`CacheBuilder::redis`] says where
    /// one is.
    ///
    /// ```
    /// use larder_cache::{Cache, InvalidationTarget, Policy, Purge, TaggedKey};
    /// use std::time::Duration;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let cache = Cache::builder().memory(64 << 20).build()?;
    /// let policy = Policy::new(Duration::from_secs(30), Duration::from_secs(300));
    /// let squares = cache.typed::<u64>("square", 1)?;
    /// let of = |n: u64| TaggedKey::new().with("of", n).tag("squares");
    ///
    /// let (value, outcome) = squares.get_or_load(of(12), &policy, || Ok::<u64, String>(12 * 12))?;
    /// assert_eq!(*value, 144);
    /// assert!(!outcome.is_hit());
    ///
    /// let (value, outcome) = squares.get_or_load(of(12), &policy, || Err::<u64, _>("not asked"))?;
    /// assert_eq!(*value, 144);
    /// assert!(outcome.is_hit());
    ///
    /// cache.invalidate(&InvalidationTarget::tag("squares"), Purge::Hard);
    /// let (value, _) = squares.get_or_load(of(12), &policy, || Ok::<u64, String>(1))?;
    /// assert_eq!(*value, 1);
    /// # Ok(())
    /// # }
    /// ```
    pub fn builder() -> CacheBuilder {
        CacheBuilder {
            memory: MemorySettings::default(),
            redis: RedisSettings::default(),
            loads: LoadSettings::default(),
            coherence: CoherenceSettings::default(),
            delivery: DELIVERY,
            typed: TypedShared::default(),
            clock: Clock::new(),
        }
    }
}

impl CacheBuilder {
    /// Room in memory, in bytes, for values, keys and bookkeeping. 256 MiB by default.
    pub fn memory(mut self, bytes: u64) -> CacheBuilder {
        self.memory.max_bytes = bytes;
        self
    }

    /// Which entry makes room when memory is full. By default the least recently used one.
    pub fn eviction(mut self, eviction: Eviction) -> CacheBuilder {
        self.memory.eviction = eviction;
        self
    }

    /// The URL of Redis, `redis://` or `rediss://`, with user and password. While Redis does not
    /// answer, invalidations are pending. Without a URL the cache uses memory only and opens no
    /// connection.
    pub fn redis(mut self, url: &str) -> CacheBuilder {
        self.redis.url = Some(Secret::new(url));
        self
    }

    /// How long a connection to Redis may take to open, 250 ms by default, and how long a reply may
    /// take, 100 ms by default. A reply that takes longer is a miss.
    pub fn redis_timeouts(mut self, connect: Duration, reply: Duration) -> CacheBuilder {
        self.redis.connect_timeout = connect;
        self.redis.timeout = reply;
        self
    }

    /// Memory only, whatever [`CacheBuilder::redis`] said before. For tests of a program that uses
    /// Redis in production.
    pub fn memory_only(mut self) -> CacheBuilder {
        self.redis.url = None;
        self
    }

    /// The prefix of every key in Redis, `larder` by default. Caches with the same prefix share
    /// values and invalidations.
    pub fn prefix(mut self, prefix: &str) -> CacheBuilder {
        self.redis.prefix = prefix.to_owned();
        self
    }

    /// How long after an acknowledged invalidation another process may still serve the old value,
    /// whatever fails. A second by default. It must be several times the round trip to Redis.
    pub fn max_staleness(mut self, max_staleness: Duration) -> CacheBuilder {
        self.coherence.max_staleness = max_staleness;
        self
    }

    /// The share of memory hits that are compared with the record in Redis behind the answer, from
    /// 0 to 1. One in a thousand by default, and at most 500 a second. [`Cache::audits`] has the
    /// result: an illegal hit breaks the bound that [`CacheBuilder::max_staleness`] sets.
    pub fn audit(mut self, share: f64) -> CacheBuilder {
        self.coherence.audit = share;
        self
    }

    /// Loads at one time, each on a thread (64 by default), and loads that wait for one (1024 by
    /// default); past it
    /// [`LoadError::Overloaded`](super::LoadError::Overloaded).
    pub fn loads(mut self, at_once: usize, waiting: usize) -> CacheBuilder {
        self.loads.max_loads = at_once;
        self.loads.max_queue = waiting;
        self
    }

    /// How long a load is expected to take at most, 10 s by default. Whoever waits for it gives up
    /// after twice that and ten seconds. A load that hangs for ever keeps its thread for ever, so
    /// set a timeout on what it calls.
    pub fn load_timeout(mut self, limit: Duration) -> CacheBuilder {
        self.typed.load_timeout = limit;
        self
    }

    /// How long dropping the last clone waits for Redis to take the pending invalidations, a second
    /// by default. If none is pending it does not wait. Those that Redis has not taken by then are
    /// lost, so a program that invalidates and then ends may want more time.
    pub fn delivery(mut self, limit: Duration) -> CacheBuilder {
        self.delivery = limit;
        self
    }

    /// For tests: has `clock` for its time, so that a test need not sleep until something expires.
    /// TTLs, stale times, pauses after a failed load and the bound on staleness follow it. What
    /// Redis measures does not, nor how long a thread waits: test with memory alone
    /// ([`CacheBuilder::memory_only`]), or expect values to live on in Redis.
    pub fn test_clock(mut self, clock: &TestClock) -> CacheBuilder {
        self.clock = Clock::of_test(clock);
        self
    }

    /// The cache. Redis is looked for in the background, so this neither waits for it nor fails
    /// without it;
    /// [`Cache::wait_trusted`] waits.
    ///
    /// # Errors
    /// If the Redis URL or the share of the audit is not valid, or a thread cannot be started.
    pub fn build(self) -> Result<Cache, String> {
        let choice = match self.redis.url {
            Some(_) => RedisChoice::Configured,
            None => RedisChoice::None,
        };
        let mut cache = Cache::assemble(
            &self.memory,
            &self.redis,
            choice,
            &self.loads,
            &self.coherence,
            choice == RedisChoice::None,
            self.clock,
        )?;
        cache.typed = Arc::new(self.typed);
        // No clone exists yet.
        if let Some(open) = Arc::get_mut(&mut cache.open) {
            open.delivery = self.delivery;
        }
        Ok(cache)
    }
}

impl Policy {
    /// Fresh for `memory` without asking anyone, and for `redis` at all; zero switches that tier
    /// off. Absence is remembered for five seconds or less, and nothing is served stale.
    pub fn new(memory: Duration, redis: Duration) -> Policy {
        Policy {
            memory,
            redis,
            absent: memory.max(redis).min(Duration::from_secs(5)),
            ..Policy::default()
        }
    }

    /// Also serves a value past its TTL: at once for `while_revalidate`, while a load renews it,
    /// and for `if_error` if that load fails (RFC 5861).
    pub fn stale(self, while_revalidate: Duration, if_error: Duration) -> Policy {
        Policy {
            stale: StaleRules {
                while_revalidate,
                if_error,
                ..self.stale
            },
            ..self
        }
    }

    /// Each TTL is as long as it says: see [`Policy::exact_ttl`](Policy#structfield.exact_ttl).
    pub fn exact_ttl(self) -> Policy {
        Policy {
            exact_ttl: true,
            ..self
        }
    }

    /// No pause after a failed load: see
    /// [`Policy::retry_at_once`](Policy#structfield.retry_at_once).
    pub fn retry_at_once(self) -> Policy {
        Policy {
            retry_at_once: true,
            ..self
        }
    }
}
