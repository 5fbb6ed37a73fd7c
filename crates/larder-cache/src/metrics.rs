//! Metrics: the figures of a cache at one moment.
//!
//! They are plain numbers. What exports them chooses names, and takes the labels from the enums:
//! [`EvictionCause::word`], [`RedisCommand::word`] and so on. The lookups and loads of each
//! resource are in its [`Tally`](super::Tally).

use std::time::Duration;

use super::coherence::{InvalidationOrigin, Purge};
use super::load_result::LoadResult;
use super::memory::EvictionCause;
use super::redis_tier::commands::RedisCommand;
use super::stats::Snapshot;
use super::tally::Totals;

/// What the typed lookups of a cache found since it started, and what memory holds now: see
/// [`Cache::stats`](super::Cache::stats).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Lookups that got a value and waited for no load. Those that found that there is no such
    /// value are among them.
    pub hits: u64,
    /// All other lookups, those that got nothing included.
    pub misses: u64,
    /// Hits in memory, fresh ones.
    pub memory_hits: u64,
    /// Hits in Redis.
    pub redis_hits: u64,
    /// Hits on a copy past its TTL, as far as the policy allows them.
    pub stale_hits: u64,
    /// Loads that have ended, those in the background included. Lookups that waited for the load of
    /// another lookup add none.
    pub loads: u64,
    /// Of these loads, those that brought no value because they failed.
    pub failed_loads: u64,
    /// Values in Redis that the codec could not decode. Each was a miss.
    pub unreadable: u64,
    /// Entries in memory.
    pub entries: u64,
    /// The weight of these entries in bytes.
    pub bytes: u64,
    /// Entries that memory has lost, whatever the cause. One that a newer value replaced is none.
    pub evictions: u64,
}

impl Stats {
    /// `found_none`: lookups without a load that found no copy.
    pub(crate) fn new(totals: &Totals, found_none: u64, memory: &MemoryMetrics) -> Stats {
        Stats {
            hits: totals.hits,
            misses: totals.misses + found_none,
            memory_hits: totals.memory_hits,
            redis_hits: totals.redis_hits,
            stale_hits: totals.hits - totals.memory_hits - totals.redis_hits,
            loads: totals.loads,
            failed_loads: totals.loads_by(LoadResult::Failed),
            unreadable: totals.unreadable,
            entries: memory.entries,
            bytes: memory.bytes,
            evictions: memory.evictions.iter().sum(),
        }
    }
}

/// The figures of a cache at one moment: see [`Cache::metrics`](super::Cache::metrics). Numbers
/// that only grow count from the start of the cache.
#[derive(Clone, Debug)]
pub struct CacheMetrics {
    /// The memory tier.
    pub memory: MemoryMetrics,
    /// The commands to Redis, by [`RedisCommand`].
    pub redis: [CommandMetrics; RedisCommand::ALL.len()],
    /// Whether Redis takes fills, as far as is known.
    pub redis_up: bool,
    /// What was invalidated, by each origin and purge.
    pub invalidations: Vec<InvalidationMetrics>,
    /// The bus.
    pub bus: BusState,
    /// Loads that run, of all shares.
    pub loads_running: u64,
    /// Loads that wait for a permit, of all shares.
    pub loads_waiting: u64,
}

/// The memory tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryMetrics {
    /// How many entries.
    pub entries: u64,
    /// Their weight in bytes: bodies, keys and bookkeeping.
    pub bytes: u64,
    /// The weight that they may have together.
    pub limit_bytes: u64,
    /// How many entries were evicted, in the order of [`EvictionCause::ALL`].
    pub evictions: [u64; EvictionCause::ALL.len()],
}

impl MemoryMetrics {
    /// How many entries were evicted for this cause.
    pub fn evicted(&self, cause: EvictionCause) -> u64 {
        self.evictions[cause as usize]
    }
}

/// One sort of commands to Redis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandMetrics {
    /// What it is.
    pub command: RedisCommand,
    /// How long each took, the failed ones and the wait for a connection included. A command that
    /// is repeated on a new connection counts twice. While Redis is known to be gone, none is sent
    /// and none is counted.
    pub durations: Snapshot,
    /// How many of them failed.
    pub errors: u64,
}

/// What was invalidated by one origin, with one purge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidationMetrics {
    /// Where it came from.
    pub origin: InvalidationOrigin,
    /// What it did.
    pub purge: Purge,
    /// How many targets: a call or a message with three tags counts three. A target counts for each
    /// time that it was invalidated. A replica that finds the log trimmed reads what was
    /// invalidated meanwhile and counts nothing for it.
    pub targets: u64,
}

/// The state of the bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BusState {
    /// Whether this replica would have heard of any invalidation that was acknowledged longer ago
    /// than `max_staleness`.
    pub trusted: bool,
    /// Everything up to this clock was heard.
    pub clock: u64,
    /// The age of the newest echo, from the moment when its ping was sent: trust ends when this
    /// reaches `max_staleness`. `None` before the first echo, and in a process without Redis.
    pub echo_age: Option<Duration>,
    /// How often messages were missing and were fetched again.
    pub gaps_repaired: u64,
    /// How many targets are pending: Redis has not taken their invalidation yet.
    pub pending: usize,
    /// How many targets this replica knows the last invalidation of.
    pub targets: usize,
}

impl CacheMetrics {
    /// The commands of this sort.
    pub fn redis(&self, command: RedisCommand) -> &CommandMetrics {
        &self.redis[command as usize]
    }

    /// How many targets were invalidated like this.
    pub fn invalidated(&self, origin: InvalidationOrigin, purge: Purge) -> u64 {
        let of = |one: &&InvalidationMetrics| (one.origin, one.purge) == (origin, purge);
        let found = self.invalidations.iter().find(of);
        found.map_or(0, |one| one.targets)
    }
}
