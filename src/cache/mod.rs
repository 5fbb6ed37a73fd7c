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
mod failures;
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

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use self::coherence::bus::{self, BusParts, Listener};
use self::coherence::{Mirror, Scripts, Seen};
use self::core::{Core, Proof};
use self::failures::Failures;
use self::flight::Flights;
use self::loaders::Loaders;
use self::memory_tier::MemoryTier;
use self::redis_tier::RedisTier;

pub use self::clock::{Clock, Micros, micros};
pub use self::coherence::{Dependency, Epoch, Kind, Name, Stamp};
pub use self::entry::{Entry, Value};
pub use self::error::LoadError;
pub use self::flight::{Ending, Ticket};
pub use self::key::{Key, KeyText, Tag, escape_into};
pub use self::outcome::{Answer, Outcome, Staleness, Trace};
pub use self::policy::{Ends, Freshness, Life, Policy, StaleRules};
pub use self::random::random;
pub use self::redis_pool::{RedisDown, RedisPool};
pub use self::request::{
    Attempt, Compose, Composition, LastResort, Load, Loaded, Making, Previous, Request, Subject,
};
pub use self::settings::{
    CoherenceSettings, Eviction, LoadSettings, MemorySettings, RedisSettings,
};
pub use self::stats::{Tally, Totals};

/// How long names are remembered at least.
const NAMES_KEPT: Duration = Duration::from_secs(3600);
/// How long a replica that has gone is kept in the list of those that are not shown.
const REPLICA_FORGOTTEN: Duration = Duration::from_secs(60);

/// The two-tier cache. Cheap to clone; clones are the same cache.
#[derive(Clone)]
pub struct Cache {
    core: Arc<Core>,
    bus: Arc<BusParts>,
}

/// An invalidation that is in force here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acknowledged {
    /// Its clock, by which a read elsewhere can ask not to be older. `None`: pending.
    pub clock: Option<u64>,
}

impl Acknowledged {
    /// Whether it holds on this replica only, until Redis can be told.
    pub fn is_pending(&self) -> bool {
        self.clock.is_none()
    }
}

/// How the bus is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BusState {
    /// Whether this replica would have heard of any change that was acknowledged longer ago than `patience`.
    pub trusted: bool,
    /// The highest clock that it has heard.
    pub clock: u64,
    /// How often messages were missing and were made up for.
    pub gaps_repaired: u64,
    /// Names whose invalidation Redis has not taken yet.
    pub pending: usize,
    /// Names that this replica keeps the last invalidation of.
    pub names: usize,
}

/// A replica as it last spoke of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replica {
    /// Who it is.
    pub id: String,
    /// What it says of itself, a JSON object.
    pub about: String,
}

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
        coherence: &CoherenceSettings,
    ) -> Result<Cache, String> {
        Cache::assemble(memory, redis, loads, coherence, redis.url.is_none())
    }

    /// `standalone`: until a Redis is found there is nobody else to hear from.
    fn assemble(
        memory: &MemorySettings,
        redis: &RedisSettings,
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
            Seen::Same | Seen::Retired => {}
            // What was loaded alone has no place in a history that others write, too.
            Seen::First => drop_memory.clear(),
            Seen::Other => {
                log::warn!(
                    "Redis has lost its data or got old data back: what was loaded before is invalid"
                );
            }
        });
        let pool = RedisPool::start(redis, mirror.clone(), clock.clone(), scripts.clone(), saw)?;
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
            stop: AtomicBool::new(false),
            waking: Default::default(),
        });
        bus::start(&parts, redis.pool().connector())?;
        Ok(Cache {
            core: Arc::new(Core {
                memory: tier,
                redis,
                flights: Arc::new(Flights::new()),
                failures: Failures::new(),
                loaders: Loaders::new(loads.clone()),
                mirror,
                clock,
                patience: coherence.patience,
            }),
            bus: parts,
        })
    }

    /// What memory may answer with under the key of this text, to a reader who knows of changes up to the clock `after` (zero: of
    /// none). Does not block.
    pub fn get(&self, key: &str, policy: &Policy, after: u64) -> Option<Answer> {
        self.core.look(key, policy, after)
    }

    /// A claim to the answer for `request`: from Redis, from a load that is under way, or from one that this call begins. Does
    /// not block; the ticket can be awaited or waited for.
    pub fn fetch(&self, request: Request) -> Ticket {
        self.core.fetch(request, Proof::Mirror)
    }

    /// The same for a reader who knows of a change with the clock `after` that this replica may not have heard of yet: asks Redis
    /// what became of the names first, and loads anew if it does not answer. Blocks for that round trip.
    pub fn fetch_after(&self, request: Request, after: u64) -> Ticket {
        let core = &self.core;
        if core.has_heard(after) && core.mirror.is_trusted(core.clock.now()) {
            return core.fetch(request, Proof::Mirror);
        }
        let names = request.making.names(&request.subject);
        match core.redis.ask_names(&request.subject.key, &names) {
            Ok(()) => core.fetch(request, Proof::Verified),
            Err(_) => core.fetch(request, Proof::Fresh),
        }
    }

    /// Memory, else Redis, else the source, waiting on this thread for at most `limit`.
    ///
    /// # Errors
    /// What the load ended with, if no stale copy may stand in for it.
    pub fn get_or_load(&self, request: Request, limit: Duration) -> Ending {
        match self.get(request.subject.key.as_str(), &request.subject.policy, 0) {
            Some(answer) => Ok(answer),
            None => self.fetch(request).wait(limit),
        }
    }

    /// Invalidates what these names speak of, here at once and on every replica within `patience`. Blocks for a round trip to
    /// Redis. While Redis cannot take it, it holds here and waits to be delivered.
    pub fn invalidate(&self, names: &[Name], kind: Kind) -> Acknowledged {
        let (core, bus) = (&self.core, &self.bus);
        // First here: nothing loaded before may be served from now on, whatever becomes of the rest.
        let batch = core.mirror.pending.begin(names, kind);
        if core.mirror.is_alone() && !core.redis.pool().is_configured() {
            let era = core.mirror.era();
            let clock = (era.last() + 1).max(core.clock.now());
            names.iter().for_each(|name| era.apply(name, kind, clock));
            era.heard(clock);
            // A Redis that appeared meanwhile began a history in which nothing of the old one is left.
            core.mirror.pending.settle(&batch);
            self.tell_listeners(names, kind);
            return Acknowledged { clock: Some(clock) };
        }
        let length = bus.settings.log_length;
        let sent = core.redis.pool().run(|connection| {
            bus.scripts.invalidate(
                connection,
                kind,
                names.iter().cloned(),
                &bus.replica,
                length,
            )
        });
        let clock = match sent {
            Ok((epoch, clock)) => {
                let era = core.mirror.era();
                if era.epoch() == epoch {
                    names.iter().for_each(|name| era.apply(name, kind, clock));
                    core.mirror.pending.settle(&batch);
                } else {
                    // A history that is not known here yet: until the bus knows it, the batch stands in the way, and is delivered
                    // once more.
                    core.mirror.pending.fail(&batch);
                }
                Some(clock)
            }
            Err(down) => {
                core.mirror.pending.fail(&batch);
                log::warn!(
                    "{} names are invalidated here only, until Redis can be told: {down}",
                    names.len()
                );
                None
            }
        };
        self.tell_listeners(names, kind);
        Acknowledged { clock }
    }

    fn tell_listeners(&self, names: &[Name], kind: Kind) {
        let listeners = self
            .bus
            .listeners
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        names
            .iter()
            .for_each(|name| listeners.iter().for_each(|listener| listener(name, kind)));
    }

    /// Has `listener` told of each name that is invalidated, here or elsewhere. It must not block.
    pub fn on_invalidation(&self, listener: impl Fn(&Name, Kind) + Send + Sync + 'static) {
        let listener: Listener = Box::new(listener);
        self.bus
            .listeners
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(listener);
    }

    /// How the bus is.
    pub fn bus(&self) -> BusState {
        let mirror = &self.core.mirror;
        let era = mirror.era();
        BusState {
            trusted: mirror.is_trusted(self.core.clock.now()),
            clock: era.last(),
            gaps_repaired: self.bus.gaps_repaired.load(Ordering::Relaxed),
            pending: mirror.pending.len(),
            names: era.names(),
        }
    }

    /// Waits until memory is trusted, or `limit` has passed. Returns whether it is.
    pub fn wait_trusted(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        while !self.bus().trusted && Instant::now() < deadline {
            std::thread::park_timeout(Duration::from_millis(2));
        }
        self.bus().trusted
    }

    /// What this replica tells the others of itself: the members of a JSON object, without its braces.
    pub fn describe(&self, members: &str) {
        *self
            .bus
            .about
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = members.to_owned();
    }

    /// The replicas that were heard of lately, this one among them. Blocks for a round trip.
    ///
    /// # Errors
    /// [`RedisDown`] if Redis cannot be asked.
    pub fn replicas(&self) -> Result<Vec<Replica>, RedisDown> {
        let bus = &self.bus;
        let (now, said) = self
            .core
            .redis
            .pool()
            .run(|connection| bus.scripts.replicas(connection))?;
        let lately = micros(bus.settings.patience * 3);
        let (live, gone): (Vec<_>, Vec<_>) = said
            .into_iter()
            .partition(|(_, time, _)| now.saturating_sub(*time) <= lately);
        for (id, time, _) in gone {
            if now.saturating_sub(time) > micros(REPLICA_FORGOTTEN) {
                let _ = self
                    .core
                    .redis
                    .pool()
                    .run(|connection| bus.scripts.forget_replica(connection, &id));
            }
        }
        Ok(live
            .into_iter()
            .map(|(id, _, about)| Replica { id, about })
            .collect())
    }

    /// Who this replica is.
    pub fn replica(&self) -> &str {
        &self.bus.replica
    }

    /// Whether everything up to this clock was heard here.
    pub fn has_heard(&self, clock: u64) -> bool {
        self.core.has_heard(clock)
    }

    /// Names are remembered for as long as an entry can live. The longest life that any resource gives its entries.
    pub fn remember_names_for(&self, longest_life: Duration) {
        let keep = longest_life.max(NAMES_KEPT);
        self.bus.longest_life.store(micros(keep), Ordering::Relaxed);
    }

    /// The entry in memory under the key of this text, whether or not it may be served, and what may be done with it.
    pub fn inspect(&self, key: &str, policy: &Policy) -> Option<(Arc<Entry>, Freshness)> {
        let entry = self.core.memory.get(key)?;
        let freshness = self.core.judge_stale(&entry, policy);
        Some((entry, freshness))
    }

    /// The names that an entry depends on, each with the clock of its last invalidation that is known here.
    pub fn invalidated(&self, entry: &Entry) -> Vec<(Name, Option<u64>)> {
        let mut all: Vec<(Name, Option<u64>)> = Vec::new();
        for (name, clock) in entry.dependencies.iter().flat_map(Dependency::invalidated) {
            if !all.iter().any(|(known, _)| *known == name) {
                all.push((name, clock));
            }
        }
        all
    }

    /// What this replica says of itself, as the others hear it.
    pub fn about(&self) -> serde_json::Value {
        let said = bus::about(&self.bus);
        let mut about: serde_json::Value = serde_json::from_str(&said).unwrap_or_default();
        about["id"] = self.replica().into();
        about
    }

    /// The connections to Redis, for what else all replicas count together.
    pub fn redis(&self) -> &RedisPool {
        self.core.redis.pool()
    }

    /// This replica's time.
    pub fn clock(&self) -> &Arc<Clock> {
        &self.core.clock
    }

    /// Whether no Redis was ever found, so that this process is alone.
    pub fn is_alone(&self) -> bool {
        self.core.mirror.is_alone()
    }

    /// What memory holds now.
    pub fn memory_size(&self) -> MemorySize {
        let (entries, bytes, evictions) = self.core.memory.size();
        MemorySize {
            entries,
            bytes,
            evictions,
        }
    }
}
