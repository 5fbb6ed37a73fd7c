//! FLOOR 0: the two-tier cache.
//!
//! [`Cache`] is the one door. A value is bytes under a [`Key`]; it is served from this process's memory, else from Redis, else it
//! is made by a [`Load`] on a blocking thread, and both tiers are filled on the way back. The core is synchronous and knows
//! neither HTTP nor SQL: a [`Ticket`] is a plain `Future` that needs no runtime, and it can be waited for on a thread.
//!
//! Promises: [`Cache::get`] never blocks and never waits for a lock that a load can hold. One key is loaded once at a time in this
//! process, and once across all replicas while Redis is up. A tier that fails is a miss, never an error. A load that began before
//! a change is told from one that began after it by its load clock.
//!
//! # In a program of your own
//!
//! [`Cache::builder`] makes one, [`Typed::get_or_load`] asks it:
//!
//! ```
//! use std::time::Duration;
//!
//! use larder_cache::{Cache, InvalidationTarget, Policy, Purge, TaggedKey};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Serialize, Deserialize)]
//! struct User {
//!     name: String,
//! }
//!
//! fn from_the_database(id: u64) -> Result<User, String> {
//!     Ok(User { name: format!("user {id}") })
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // Memory alone. With `.redis("redis://...")` it shares values and invalidations with every process that does the same.
//! let cache = Cache::builder().memory(64 << 20).prefix("shop").build()?;
//! // Fresh for 10 s in this process and for a minute in Redis; older for a day where a load fails.
//! let policy = Policy::new(Duration::from_secs(10), Duration::from_secs(60))
//!     .stale(Duration::ZERO, Duration::from_secs(86_400));
//!
//! // The name and the version are what other processes know the type by.
//! let users = cache.typed::<User>("user", 1)?;
//! let wanted = TaggedKey::new().with("id", 42).tag("user:42");
//! let (user, outcome) = users.get_or_load(wanted, &policy, || from_the_database(42))?;
//! println!("{} {outcome:?}", user.name);
//!
//! // After a change, in every process that shares the Redis:
//! let done = cache.invalidate(&[InvalidationTarget::tag("user:42")], Purge::Hard);
//! assert!(!done.is_pending());
//! # Ok(())
//! # }
//! ```
//!
//! - [`Cache::typed`] names a type and its version. A value is what serde_json writes and reads
//!   back as it was: one that JSON would change (`NaN`, `Some(None)`, a map with keys that are no
//!   text) is an error of its load, which says where it stands.
//! - [`TaggedKey`] says which value of the type, and its tags. `Ok(None)` from [`Typed::find_or_load`]
//!   is kept as an absence.
//! - [`Outcome`] says how it was found: in memory, in Redis, by a load, or stale and why.
//! - [`Typed::get_or_load`] blocks while it is not in memory. An async server awaits
//!   [`Typed::get_or_load_async`], which takes no thread, and calls [`Cache::invalidate`] off its
//!   workers, since that asks Redis.
//! - Threads of its own: with a Redis a few for that, and one for each load that runs. They end
//!   with the last clone of the cache: see [`Cache`].
//! - A cache in a `static` is never dropped: before such a program ends, [`Cache::wait_delivered`]
//!   waits for what is pending.
//!
//! `examples/embedded.rs` and `examples/actix.rs` are whole programs.

mod answer;
mod builder;
mod clock;
mod coherence;
mod composition;
mod entry;
mod envelope;
mod error;
mod failures;
mod fair_queue;
mod faithful;
mod freshness;
mod interest;
mod invalidation;
mod key;
mod loaders;
mod lookup;
mod memory;
mod open;
mod outcome;
mod policy;
mod random;
mod redis_tier;
mod request;
mod secret;
mod settings;
mod shares;
mod single_flight;
mod stats;
mod status;
#[cfg(test)]
mod tests;
mod tiers;
mod typed;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use self::coherence::bus::{self, BusParts};
use self::coherence::{Mirror, Scripts, Seen};
use self::failures::Failures;
use self::freshness::Evidence;
use self::interest::Behalf;
use self::loaders::Loaders;
use self::lookup::{Accepts, begin};
use self::memory::MemoryTier;
use self::open::Open;
use self::redis_tier::RedisTier;
use self::settings::RedisChoice;
use self::single_flight::Flights;
use self::tiers::Tiers;
use self::typed::TypedParts;

pub use self::answer::{Answer, LookupResult, Trace};
pub use self::builder::CacheBuilder;
pub use self::clock::{Clock, Micros, micros};
pub use self::coherence::{Dependency, HistoryId, InvalidationTarget, Purge, Stamp};
#[doc(hidden)] // For the server.
pub use self::entry::hash;
pub use self::entry::{Backoff, Entry, Extras, Value};
#[doc(hidden)] // For benches/micro alone: no embedder has a use for these bytes.
pub use self::envelope::{decode as decode_envelope, encode as encode_envelope};
pub use self::error::LoadError;
pub use self::fair_queue::Caller;
pub use self::freshness::Decision;
pub use self::invalidation::InvalidationReceipt;
#[doc(hidden)] // For the server.
pub use self::key::unescaped;
pub use self::key::{Key, KeyText, Tag, escape_into};
pub use self::loaders::ShareStatus;
pub use self::outcome::{Outcome, Staleness};
pub use self::policy::{Expiry, Lifetime, Policy, StaleRules};
pub use self::random::random;
pub use self::redis_tier::fault::{RedisDown, RedisState};
pub use self::redis_tier::pool::RedisPool;
pub use self::redis_tier::url::check_redis_url;
#[doc(hidden)] // For the server.
pub use self::redis_tier::url::unknown_option;
pub use self::request::{
    CacheItem, Compose, Composition, LastResort, Load, LoadContext, Loaded, Producer, Request,
    Revalidation,
};
pub use self::secret::Secret;
pub use self::settings::{
    CoherenceSettings, Eviction, LoadSettings, MemorySettings, RedisSettings,
};
pub use self::single_flight::Ticket;
pub use self::stats::{Tally, Totals};
pub use self::status::{BusState, MemorySize, Replica};
pub use self::typed::{TaggedKey, Typed, TypedTicket};

/// How long Redis may take to reply to the bus at least, unless `max_staleness` is shorter; otherwise
/// five times what the pool allows.
const BUS_REPLY: Duration = Duration::from_millis(500);

/// How long names are remembered at least.
const NAMES_KEPT: Duration = Duration::from_secs(3600);

/// The two-tier cache. Cheap to clone; clones are the same cache.
///
/// It closes with its last clone, and with the last [`Typed`] and [`TypedTicket`] made from it. That
/// blocks only while an invalidation is pending, for [`CacheBuilder::delivery`] (a second by
/// default) at most. Its threads and its connections to Redis end within a second of that; a thread
/// that runs a load ends with the load. A name server that does not answer can hold a thread
/// longer.
#[derive(Clone)]
pub struct Cache {
    tiers: Arc<Tiers>,
    bus: Arc<BusParts>,
    typed: Arc<TypedParts>,
    open: Arc<Open>,
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
        coherence: &CoherenceSettings,
    ) -> Result<Cache, String> {
        let (choice, standalone) = match redis.url {
            Some(_) => (RedisChoice::Configured, false),
            None => (RedisChoice::Default, true),
        };
        Cache::assemble(memory, redis, choice, loads, coherence, standalone)
    }

    /// `standalone`: until a Redis is found there is nobody else to hear from.
    fn assemble(
        memory: &MemorySettings,
        redis: &RedisSettings,
        choice: RedisChoice,
        loads: &LoadSettings,
        coherence: &CoherenceSettings,
        standalone: bool,
    ) -> Result<Cache, String> {
        let mirror = Arc::new(Mirror::alone(standalone));
        let clock = Arc::new(Clock::new());
        let scripts = Arc::new(Scripts::new(&redis.prefix));
        let tier = Arc::new(MemoryTier::new(memory));
        let drop_memory = tier.clone();
        let saw = Box::new(move |seen| match seen {
            Seen::Same | Seen::Retired | Seen::Other => {}
            // What was loaded alone has no place in a history that others write, too.
            Seen::First => drop_memory.clear(),
        });
        let pool = RedisPool::start(
            redis,
            choice,
            mirror.clone(),
            clock.clone(),
            scripts.clone(),
            saw,
        )?;
        let reply = BUS_REPLY
            .max(redis.timeout * 5)
            .min(coherence.max_staleness);
        let redis = RedisTier::start(pool, &redis.prefix, mirror.clone(), scripts.clone())?;
        let parts = Arc::new(BusParts {
            mirror: mirror.clone(),
            clock: clock.clone(),
            scripts,
            settings: coherence.clone(),
            replica: format!("{:016x}", random()),
            longest_life: AtomicU64::new(micros(NAMES_KEPT)),
            about: Mutex::default(),
            started: Instant::now(),
            gaps_repaired: AtomicU64::new(0),
            listeners: Mutex::default(),
            held: redis.held().clone(),
            reply,
            closed: AtomicBool::new(false),
        });
        let tiers = Arc::new(Tiers {
            memory: tier,
            redis,
            flights: Arc::new(Flights::new()),
            failures: Failures::new(),
            loaders: Loaders::new(loads.clone()),
            mirror,
            clock,
            max_staleness: coherence.max_staleness,
        });
        let open = Arc::new(Open::new(tiers.clone(), parts.clone()));
        if tiers.redis.pool().is_used() {
            let pool = tiers.redis.pool();
            bus::start(&parts, pool.connector(), pool.health().clone())?;
        }
        Ok(Cache {
            tiers,
            bus: parts,
            typed: Arc::default(),
            open,
        })
    }

    /// What memory may answer with under the key of this text. `after`: a clock of an invalidation
    /// that the reader knows of; the answer must not be older. Does not block.
    pub fn get(&self, key: &str, policy: &Policy, after: Option<u64>) -> Option<Answer> {
        self.get_at(key, policy, after, self.tiers.clock.now())
    }

    /// The same for a reader who came at `now` by [`Cache::clock`], not long ago, and has looked at
    /// the clock already.
    pub fn get_at(
        &self,
        key: &str,
        policy: &Policy,
        after: Option<u64>,
        now: Micros,
    ) -> Option<Answer> {
        self.tiers.look(key, policy, after, now)
    }

    /// A claim to the answer for `request`: from Redis, from a load that is under way, or from one that this call begins. Does
    /// not block; the ticket can be awaited or waited for.
    pub fn fetch(&self, request: Request) -> Ticket {
        self.fetch_for(request, Caller::default())
    }

    /// The same on behalf of `caller`: where loads have to wait, callers take turns.
    pub fn fetch_for(&self, request: Request, caller: Caller) -> Ticket {
        self.begin(request, caller, Accepts::Copies(Evidence::NotAsked))
    }

    /// The same for a reader who knows of an invalidation with the clock `after`, which this replica
    /// may not have heard of yet: asks Redis first what was invalidated, and loads anew if Redis does
    /// not answer. A clock that no history can have given yet is no reason to load. Blocks for that
    /// round trip.
    pub fn fetch_after(&self, request: Request, caller: Caller, after: u64) -> Ticket {
        let tiers = &self.tiers;
        let accepts = if tiers.has_heard(after) && tiers.mirror.is_trusted(tiers.clock.now()) {
            Accepts::Copies(Evidence::NotAsked)
        } else {
            let targets = request.producer.targets(&request.item);
            match tiers.ask(&request.item.key, &targets) {
                Evidence::Verified => Accepts::Copies(Evidence::Verified),
                _ if tiers.is_ahead(after) => Accepts::Copies(Evidence::NotAsked),
                _ => Accepts::NewLoad,
            }
        };
        self.begin(request, caller, accepts)
    }

    fn begin(&self, request: Request, caller: Caller, accepts: Accepts) -> Ticket {
        begin(&self.tiers, request, &Behalf::Reader(caller), accepts, None)
    }

    /// Memory, else Redis, else the source, waiting on this thread for at most `limit`.
    ///
    /// # Errors
    /// What the load ended with, if no stale copy may stand in for it.
    pub fn answer(&self, request: Request, limit: Duration) -> LookupResult {
        match self.get(request.item.key.as_str(), &request.item.policy, None) {
            Some(answer) => Ok(answer),
            None => self.fetch(request).wait(limit),
        }
    }

    /// Sets a part of `max_loads` and `max_queue` aside for each of the shares with these names,
    /// which loads of other shares cannot take: see [`CacheItem::share`]. One that is not named here
    /// has its part from its first load on.
    pub fn set_aside(&self, shares: impl IntoIterator<Item = Arc<str>>) {
        self.tiers.loaders.set_aside(shares);
    }

    /// What runs and waits of each share of the loads.
    pub fn shares(&self) -> Vec<ShareStatus> {
        self.tiers.loaders.status()
    }

    /// Names are remembered for as long as an entry can live: for this long at least, or longer if that was said before.
    pub fn remember_names_for(&self, longest_life: Duration) {
        let keep = longest_life.max(NAMES_KEPT);
        self.bus
            .longest_life
            .fetch_max(micros(keep), Ordering::Relaxed);
    }

    /// The connections to Redis, for what else all replicas count together.
    pub fn redis(&self) -> &RedisPool {
        self.tiers.redis.pool()
    }

    /// This replica's time.
    pub fn clock(&self) -> &Arc<Clock> {
        &self.tiers.clock
    }
}

/// Compiles and runs the example in the crate's page.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadmeExample;
