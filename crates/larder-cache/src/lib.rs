//! A two-tier cache: memory and Redis, with a bound on staleness.
//!
//! [`Cache`] is the one door. A value is bytes under a [`Key`]. It is served from this process's
//! memory, else from Redis; else a [`Load`] makes it on a blocking thread, and both tiers are
//! filled on the way back. The cache is synchronous and knows neither HTTP nor SQL. A [`Ticket`] is
//! a plain `Future` that needs no runtime, and a thread can wait for it.
//!
//! Promises:
//!
//! - [`Cache::get`] never blocks and never waits for a lock that a load can hold.
//! - A key is loaded once at a time in this process, and once across all replicas while Redis is
//!   up.
//! - A tier that fails is a miss, never an error.
//! - A value whose load began before an invalidation of it is not served after that invalidation:
//!   the load clock tells the two apart.
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
//! // Memory alone. With `.redis("redis://...")` it shares values and invalidations with every
//! // process that does the same.
//! let cache = Cache::builder().memory(64 << 20).prefix("shop").build()?;
//! // Fresh for 10 s in this process and for a minute in Redis; older for a day where a load fails.
//! let policy = Policy::new(Duration::from_secs(10), Duration::from_secs(60))
//!     .stale(Duration::ZERO, Duration::from_secs(86_400));
//!
//! // The name and the version are what other processes know the type by.
//! let users = cache.typed::<User>("user", 1)?;
//! let key = TaggedKey::new().with("id", 42).tag("user:42");
//! let (user, outcome) = users.get_or_load(key, &policy, || from_the_database(42))?;
//! println!("{} {outcome:?}", user.name);
//!
//! // After a change, in every process that shares the Redis:
//! let done = cache.invalidate(&InvalidationTarget::tag("user:42"), Purge::Hard);
//! assert!(!done.is_pending());
//! # Ok(())
//! # }
//! ```
//!
//! - [`Cache::typed`] names a type and its version. Memory holds the values themselves, and a hit
//!   there parses, copies and allocates nothing. Redis has what a [`Codec`] makes of them:
//!   [`Json`], unless [`Cache::typed_with`] says otherwise. A value that it cannot give back as it
//!   was (for JSON `NaN`, `Some(None)`, a map with keys that are no text) is an error of its load,
//!   which says where it stands.
//! - [`TaggedKey`] says which value of the type, and its tags. Anything that can be displayed is a
//!   key without tags. `Ok(None)` from [`Typed::find_or_load`] is kept as an absence.
//! - [`Typed::get`] and [`Typed::get_many`] take what the tiers have and begin no load.
//!   [`Cache::wrap`] makes a cached function of a function.
//! - [`Outcome`] says how it was found: in memory, in Redis, by a load, or stale and why.
//! - [`Typed::insert`] keeps a value that the caller has, unless it may be older than a change.
//! - [`Cache::invalidate`] takes tags, keys ([`Typed::target`]) and everything, hard or soft.
//!   [`Cache::subscribe`] tells what was invalidated, here and elsewhere.
//! - [`Typed::get_or_load`] blocks while it is not in memory. A thread of the cache runs the load;
//!   with [`Typed::get_or_load_here`] it is the caller's, and the load may borrow.
//! - An async server awaits [`Typed::get_or_load_async`], whose load is a future that its own task
//!   polls, on any runtime; or [`Typed::get_or_load_blocking`], if the load blocks. It calls
//!   [`Cache::invalidate`] off its workers, since that asks Redis.
//! - [`Error`] has the load's own error, or the cache's reason why there is no value.
//! - Tests move the time of a cache with a [`TestClock`].
//! - Threads of its own: with a Redis a few for that, and one for each load that runs. They end
//!   with the last clone of the cache: see [`Cache`].
//! - [`Cache::stats`] has the figures of lookups, loads and memory, and [`Cache::metrics`] those of
//!   Redis, of the bus and of invalidations. A program that uses [`Cache::fetch`] brings a
//!   [`Tally`] of its own in each [`CacheItem`], and counts in it what its readers got.
//! - A cache in a `static` is never dropped: before such a program ends, [`Cache::wait_delivered`]
//!   waits for what is pending.
//!
//! `examples/embedded.rs` and `examples/actix.rs` are whole programs.

mod answer;
mod audit;
mod builder;
mod bus;
mod clock;
mod codec;
mod coherence;
mod composition;
mod copies;
mod entry;
mod envelope;
mod error;
mod failures;
mod fair_queue;
mod faithful;
mod freshness;
mod insert;
mod interest;
mod invalidation;
mod key;
mod load_result;
mod loaders;
mod lookup;
mod memory;
mod metrics;
mod object;
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
pub mod stats;
mod subscription;
mod tagged_key;
mod tally;
#[cfg(test)]
mod tests;
mod thread;
mod tiers;
mod typed;
mod wrap;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use self::audit::Audit;
use self::bus::Bus;
use self::coherence::{Mirror, Scripts};
use self::failures::Failures;
use self::freshness::Evidence;
use self::insert::Insert;
use self::interest::Behalf;
use self::loaders::Loaders;
use self::lookup::{Accepts, begin};
use self::memory::MemoryTier;
use self::open::Open;
use self::redis_tier::RedisTier;
use self::settings::RedisChoice;
use self::single_flight::Flights;
use self::subscription::subscription;
use self::tiers::Tiers;
use self::typed::TypedShared;

pub use self::answer::{Answer, LookupResult, Trace};
pub use self::audit::AuditCounts;
pub use self::builder::CacheBuilder;
pub use self::bus::Replica;
pub use self::clock::{Clock, Micros, TestClock, micros};
#[cfg(feature = "postcard")]
pub use self::codec::Postcard;
pub use self::codec::{Codec, CodecError, Json};
pub use self::coherence::{
    Dependency, HistoryId, InvalidationOrigin, InvalidationTarget, Purge, Since, Stamp,
};
pub use self::entry::{Backoff, Entry, Extras, Value};
#[doc(hidden)] // For benches/micro alone: no embedder has a use for these bytes.
pub use self::envelope::{decode as decode_envelope, encode as encode_envelope};
pub use self::error::{Error, LoadError, OwnError};
pub use self::fair_queue::Caller;
pub use self::freshness::{Decision, Refusal};
pub use self::insert::{InsertReceipt, Inserted};
pub use self::invalidation::InvalidationReceipt;
#[doc(hidden)] // For the server.
pub use self::key::hash;
pub use self::key::{Key, KeyText, Tag, escape_into};
pub use self::load_result::LoadResult;
pub use self::loaders::ShareStatus;
pub use self::memory::EvictionCause;
pub use self::metrics::{
    BusState, CacheMetrics, CommandMetrics, InvalidationMetrics, MemoryMetrics, Stats,
};
pub use self::object::Object;
pub use self::outcome::{LookupEnd, Outcome, Staleness};
pub use self::policy::{Expiry, Lifetime, Policy, StaleRules};
pub use self::random::random;
pub use self::redis_tier::commands::RedisCommand;
pub use self::redis_tier::fault::{RedisDown, RedisState};
pub use self::redis_tier::pool::RedisPool;
pub use self::redis_tier::url::check_redis_url;
#[doc(hidden)] // For the server.
pub use self::redis_tier::url::unknown_option;
pub use self::request::{
    CacheItem, Compose, Composition, LastResort, Load, LoadContext, Loaded, Note, Producer,
    Request, Revalidation,
};
pub use self::secret::Secret;
pub use self::settings::{
    CoherenceSettings, Eviction, LoadSettings, MemorySettings, RedisSettings,
};
pub use self::single_flight::Ticket;
pub use self::subscription::{Heard, Subscription};
pub use self::tagged_key::TaggedKey;
pub use self::tally::{Tally, Totals, Unanswered};
pub use self::typed::{Typed, TypedTicket};
pub use self::wrap::Wrapped;

/// The two-tier cache. Cheap to clone; clones are the same cache.
///
/// It closes with its last clone, and with the last [`Typed`] and [`TypedTicket`] made from it.
/// That blocks only while an invalidation is pending, for [`CacheBuilder::delivery`] (a second by
/// default) at most. Its threads and its connections to Redis end within a second of that; a thread
/// that runs a load ends with the load. A name server that does not answer can hold a thread
/// longer.
#[derive(Clone)]
pub struct Cache {
    tiers: Arc<Tiers>,
    bus: Arc<Bus>,
    typed: Arc<TypedShared>,
    open: Arc<Open>,
}

impl Cache {
    /// A cache over this process's memory and the Redis of these settings, which is looked for in
    /// the background.
    ///
    /// # Errors
    /// If the Redis URL or the share of the audit is not valid, or a thread cannot be started. A
    /// Redis that is down is no error.
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
        let clock = Clock::new();
        Cache::assemble(memory, redis, choice, loads, coherence, standalone, clock)
    }

    /// `standalone`: until a Redis is found there is nobody else to hear from.
    fn assemble(
        memory: &MemorySettings,
        redis: &RedisSettings,
        choice: RedisChoice,
        loads: &LoadSettings,
        coherence: &CoherenceSettings,
        standalone: bool,
        clock: Clock,
    ) -> Result<Cache, String> {
        let share = coherence.audit;
        if !(0.0..=1.0).contains(&share) {
            return Err(format!(
                "the share of the audit is {share}; valid: a number from 0 to 1"
            ));
        }
        let mirror = Arc::new(Mirror::alone(standalone));
        let clock = Arc::new(clock);
        let scripts = Arc::new(Scripts::new(&redis.prefix));
        let tier = Arc::new(MemoryTier::new(memory, mirror.clone(), clock.clone()));
        let moved = Arc::downgrade(&tier);
        clock.on_move(move || moved.upgrade().map(|tier| tier.drop_expired()).is_some());
        // What was loaded alone has no place in a history that others write, too.
        let memory = tier.clone();
        let on_first_history = Box::new(move || memory.clear());
        let pool = RedisPool::start(
            redis,
            choice,
            mirror.clone(),
            clock.clone(),
            scripts.clone(),
            on_first_history,
        )?;
        let (pool_timeout, commands) = (redis.timeout, pool.commands().clone());
        let redis = RedisTier::start(pool, &redis.prefix, mirror.clone(), scripts.clone())?;
        let audit = (share > 0.0 && redis.pool().is_used()).then(|| {
            Audit::new(
                share,
                micros(coherence.max_staleness),
                mirror.clone(),
                clock.clone(),
                scripts.clone(),
                redis.pool().clone(),
            )
        });
        let bus = Arc::new(Bus::new(
            mirror.clone(),
            clock.clone(),
            scripts,
            coherence.clone(),
            redis.leases().clone(),
            commands,
            pool_timeout,
        ));
        let tiers = Arc::new(Tiers {
            memory: tier,
            redis,
            flights: Arc::new(Flights::new()),
            failures: Failures::new(),
            loaders: Loaders::new(loads.clone()),
            mirror,
            clock,
            max_staleness: coherence.max_staleness,
            audit,
        });
        let open = Arc::new(Open::new(tiers.clone(), bus.clone()));
        if tiers.redis.pool().is_used() {
            bus.start(tiers.redis.pool().connector())?;
        }
        Ok(Cache {
            tiers,
            bus,
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

    /// A claim to the answer for `request`: from Redis, from a load under way, or from one that
    /// this call begins. Does not block; the ticket can be awaited or waited for.
    pub fn fetch(&self, request: Request) -> Ticket {
        self.fetch_for(request, Caller::default())
    }

    /// The same on behalf of `caller`: if loads have to wait, callers take turns.
    pub fn fetch_for(&self, request: Request, caller: Caller) -> Ticket {
        self.begin(request, caller, Accepts::Copies(Evidence::NotAsked))
    }

    /// The same for a reader who knows of an invalidation with the clock `after`, which this
    /// replica may not have heard of yet: asks Redis first what was invalidated, and loads anew if
    /// Redis does not answer. A clock that no history can have given yet is no reason to load.
    /// Blocks for that round trip.
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

    /// Sets a part of `max_loads` and `max_queue` aside for each of the shares with these names;
    /// loads of other shares cannot take it. See [`CacheItem::share`]. A share that is not named
    /// here has its part from its first load on.
    pub fn set_aside(&self, shares: impl IntoIterator<Item = Arc<str>>) {
        self.tiers.loaders.set_aside(shares);
    }

    /// How many loads of each share run and wait.
    pub fn shares(&self) -> Vec<ShareStatus> {
        self.tiers.loaders.status()
    }

    /// Begins no more loads, and waits until those that run have ended, or `limit` has passed.
    /// Their results are stored also if nobody waits for them any more. Returns how many still run.
    /// For a program that ends: what misses memory and Redis afterwards fails.
    pub fn finish_loads(&self, limit: Duration) -> usize {
        self.tiers.loaders.finish(limit)
    }

    /// Invalidated targets are remembered for as long as an entry can live: for `longest_life`, an
    /// hour, or what an earlier call said, whichever is longest.
    pub fn remember_names_for(&self, longest_life: Duration) {
        self.bus.remember_for(longest_life);
    }

    /// Invalidates this target or these, here at once and on every replica within `max_staleness`.
    /// A target is a tag, the key of one value, or everything.
    ///
    /// Blocks for a round trip to Redis, and one more for each thousand targets. In a cache that
    /// has just been made, it also blocks until a configured Redis was looked for once: for four
    /// times what a connection may take at most, a second by default.
    ///
    /// While Redis cannot take it, it holds here and is pending. [`Cache::wait_delivered`] waits
    /// until it is delivered, and so does dropping the last clone. Without targets nothing is
    /// invalidated, and the receipt has the last clock that was heard.
    pub fn invalidate(
        &self,
        targets: &(impl AsRef<[InvalidationTarget]> + ?Sized),
        purge: Purge,
    ) -> InvalidationReceipt {
        self.invalidate_from(InvalidationOrigin::Here, targets.as_ref(), purge)
    }

    /// The same, counted as of this origin: see [`CacheMetrics::invalidations`].
    pub fn invalidate_from(
        &self,
        origin: InvalidationOrigin,
        targets: &[InvalidationTarget],
        purge: Purge,
    ) -> InvalidationReceipt {
        invalidation::invalidate(&self.tiers, &self.bus, origin, targets, purge)
    }

    /// The moment of this call in the history of invalidations, for [`Cache::insert`]. Take it
    /// before you read the value that you insert, or before you begin the write whose result it
    /// is. Asks nobody and does not block.
    pub fn stamp(&self) -> Since {
        self.tiers.mirror.since(self.tiers.clock.now())
    }

    /// Puts a value that the caller has into both tiers, as a load that began at `since` would:
    /// see [`Cache::stamp`]. `tags`: what it can be invalidated by, besides its key.
    ///
    /// First the key is invalidated, as by [`Cache::invalidate`], with a hard purge, whatever
    /// becomes of the value. Then the value is kept, unless something that it depends on was
    /// invalidated after `since`. Readers of this process that wait for a load of the key get it
    /// at once. Blocks for two round trips to Redis, and as [`Cache::invalidate`] does.
    ///
    /// A stamp that is older than it need be costs at most that the value is not kept. One that is
    /// taken after the value was read can bring back what was invalidated in between.
    pub fn insert(
        &self,
        key: &Key,
        tags: &[Tag],
        value: Value,
        policy: &Policy,
        since: &Since,
    ) -> InsertReceipt {
        self.insert_held(key, tags, (value, None, Lifetime::Policy), policy, since)
    }

    /// The same, with what memory holds in place of the value's bytes, and how much of its TTL the
    /// value is given.
    fn insert_held(
        &self,
        key: &Key,
        tags: &[Tag],
        (value, object, lifetime): (Value, Option<Object>, Lifetime),
        policy: &Policy,
        since: &Since,
    ) -> InsertReceipt {
        // Otherwise its tags could be forgotten before it expires, and it would be a miss then.
        self.remember_names_for(policy.longest_life());
        let value = Insert {
            key,
            tags,
            value,
            object,
            lifetime,
            policy,
            since,
        };
        insert::insert(&self.tiers, &self.bus, value)
    }

    /// Waits until Redis has taken every pending invalidation, or `limit` has passed. Returns
    /// whether none is pending.
    pub fn wait_delivered(&self, limit: Duration) -> bool {
        self.tiers.mirror.pending.wait_empty(limit)
    }

    /// Calls `listener` with each target that is invalidated, here or elsewhere. It must not block.
    /// A listener that holds a clone of the cache keeps it open for ever.
    pub fn on_invalidation(
        &self,
        listener: impl Fn(&InvalidationTarget, Purge) + Send + Sync + 'static,
    ) {
        self.bus.listen(move |target, purge| {
            listener(target, purge);
            true
        });
    }

    /// A receiver of each target that is invalidated from now on, once, here or elsewhere. It ends
    /// when the cache is closed, and does not keep it open. A reader that is more than 1,024
    /// targets behind loses some, and is told how many: it never holds up the cache.
    ///
    /// A process that cannot tell which targets it missed, since it was cut off for long or Redis
    /// lost its data, hears that everything was invalidated.
    pub fn subscribe(&self) -> Subscription {
        let (teller, subscription) = subscription();
        self.bus
            .listen(move |target, purge| teller.tell(target, purge));
        subscription
    }

    /// What the typed lookups of this cache have found so far, and what memory holds now. Tidies
    /// memory up first, which takes longer after many changes. [`Cache::metrics`] has the figures
    /// of Redis, of the bus and of invalidations.
    pub fn stats(&self) -> Stats {
        let (totals, memory) = (self.typed.tally.totals(), self.memory());
        let found_none = self.typed.found_none.load(Ordering::Relaxed);
        Stats::new(&totals, found_none, &memory)
    }

    /// How the bus is.
    pub fn bus(&self) -> BusState {
        let mirror = &self.tiers.mirror;
        let history = mirror.history();
        let age = |sent| Duration::from_micros(self.tiers.clock.now().saturating_sub(sent));
        BusState {
            trusted: mirror.is_trusted(self.tiers.clock.now()),
            clock: history.applied(),
            echo_age: self.bus.echoed().map(age),
            gaps_repaired: self.bus.gaps_repaired(),
            pending: mirror.pending.len(),
            targets: history.target_count(),
        }
    }

    /// What the audit of memory hits found. All zero if it is switched off, or there is no Redis.
    pub fn audits(&self) -> AuditCounts {
        let audit = self.tiers.audit.as_ref();
        audit.map(|audit| audit.counts()).unwrap_or_default()
    }

    /// Waits until memory is trusted and Redis can be asked, or `limit` has passed. Returns whether
    /// memory is trusted.
    pub fn wait_trusted(&self, limit: Duration) -> bool {
        let began = Instant::now();
        let trusted = self.tiers.mirror.wait_trusted(&self.tiers.clock, limit);
        if trusted && !self.is_alone() {
            // The bus has connections of its own and may be ready a moment before the pool.
            let left = limit.saturating_sub(began.elapsed());
            self.tiers.redis.pool().health().wait_answers(left);
        }
        trusted
    }

    /// Whether no Redis was ever found, so that this process is alone.
    pub fn is_alone(&self) -> bool {
        self.tiers.mirror.is_alone()
    }

    /// Whether everything up to this clock was heard here.
    pub fn has_heard(&self, clock: u64) -> bool {
        self.tiers.has_heard(clock)
    }

    /// The id of this replica.
    pub fn replica(&self) -> &str {
        self.bus.replica()
    }

    /// Sets what this replica says of itself to the others: the members of a JSON object, without
    /// its braces.
    pub fn describe(&self, members: &str) {
        self.bus.describe(members);
    }

    /// What this replica says of itself, as the others hear it.
    pub fn about(&self) -> serde_json::Value {
        let mut about: serde_json::Value =
            serde_json::from_str(&self.bus.about()).unwrap_or_default();
        about["id"] = self.replica().into();
        about
    }

    /// The replicas that spoke of themselves lately, this one among them. Blocks for a round trip.
    ///
    /// # Errors
    /// [`RedisDown`] if Redis cannot be asked.
    pub fn replicas(&self) -> Result<Vec<Replica>, RedisDown> {
        self.bus.replicas(self.tiers.redis.pool())
    }

    /// The entry in memory under the key of this text, whether or not it may be served, and what
    /// may be done with it while this replica is connected.
    pub fn inspect(&self, key: &str, policy: &Policy) -> Option<(Arc<Entry>, Decision)> {
        let (entry, now) = (self.tiers.memory.get(key)?, self.tiers.clock.now());
        let decision = self.tiers.decide(&entry, Evidence::Trusted, policy, now);
        Some((entry, decision))
    }

    /// The targets that an entry depends on, each with the clock of its last invalidation that is
    /// known here.
    pub fn invalidated(&self, entry: &Entry) -> Vec<(InvalidationTarget, Option<u64>)> {
        let mut all: Vec<(InvalidationTarget, Option<u64>)> = Vec::new();
        for (target, clock) in entry.dependencies().flat_map(Dependency::invalidated) {
            if !all.iter().any(|(known, _)| *known == target) {
                all.push((target, clock));
            }
        }
        all
    }

    /// What memory holds now, and what has left it. Tidies up first, which takes longer after many
    /// changes.
    pub fn memory(&self) -> MemoryMetrics {
        let (memory, contents) = (&self.tiers.memory, self.tiers.memory.contents());
        MemoryMetrics {
            entries: contents.entries,
            bytes: contents.bytes,
            limit_bytes: memory.max_bytes(),
            evictions: contents.evictions,
        }
    }

    /// The figures of this cache now, for an exporter of metrics. Takes some ten microseconds, and
    /// holds up no lookup. Those of one resource are in its [`Tally`], and those of all typed
    /// lookups in [`Cache::stats`].
    pub fn metrics(&self) -> CacheMetrics {
        let (redis, shares) = (self.redis(), self.shares());
        let invalidated = |origin| {
            Purge::ALL.map(|purge| InvalidationMetrics {
                origin,
                purge,
                targets: self.bus.invalidated().of(origin, purge),
            })
        };
        let sum = |of: fn(&ShareStatus) -> usize| shares.iter().map(of).sum::<usize>() as u64;
        CacheMetrics {
            memory: self.memory(),
            redis: RedisCommand::ALL.map(|command| {
                let (durations, errors) = redis.commands().of(command);
                CommandMetrics {
                    command,
                    durations,
                    errors,
                }
            }),
            redis_up: redis.is_up(),
            invalidations: InvalidationOrigin::ALL
                .into_iter()
                .flat_map(invalidated)
                .collect(),
            bus: self.bus(),
            loads_running: sum(|share| share.running),
            loads_waiting: sum(|share| share.waiting),
        }
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
