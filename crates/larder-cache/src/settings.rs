//! Settings of the cache. The defaults are those of the documentation.

use std::time::Duration;

use crate::secret::Secret;

/// The memory tier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemorySettings {
    /// Room for bodies, keys and bookkeeping together, in bytes.
    pub max_bytes: u64,
    /// Which entry makes room when it is full.
    pub eviction: Eviction,
}

/// Which entry makes room for a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Eviction {
    /// The one that was not used for the longest time.
    Lru,
    /// The one that is used least often, by TinyLFU's estimate (Einziger, Friedman, Manes:
    /// "TinyLFU", 2017).
    TinyLfu,
}

impl Default for MemorySettings {
    fn default() -> Self {
        MemorySettings {
            max_bytes: 256 << 20,
            eviction: Eviction::Lru,
        }
    }
}

/// The Redis tier and the pool behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisSettings {
    /// Where it is, as `redis://` or `rediss://` with user and password. `None`: not configured;
    /// see [`RedisSettings::DEFAULT_URL`].
    pub url: Option<Secret>,
    /// Refuse to start, and to be ready, without it.
    pub required: bool,
    /// Connections at most.
    pub pool: u32,
    /// How long a connection may take to open.
    pub connect_timeout: Duration,
    /// How long a reply may take.
    pub timeout: Duration,
    /// What every key begins with.
    pub prefix: String,
}

impl RedisSettings {
    /// Where a Redis is looked for when none is configured.
    pub const DEFAULT_URL: &str = "redis://127.0.0.1:6379";
}

impl Default for RedisSettings {
    fn default() -> Self {
        RedisSettings {
            url: None,
            required: false,
            pool: 8,
            connect_timeout: Duration::from_millis(250),
            timeout: Duration::from_millis(100),
            prefix: "larder".to_owned(),
        }
    }
}

/// Which Redis a cache uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RedisChoice {
    /// The one whose URL is configured. Its absence is an outage.
    Configured,
    /// One that answers at [`RedisSettings::DEFAULT_URL`]. Without it the process is alone.
    Default,
    /// No Redis: no connection is opened and no thread is started.
    None,
}

/// The bound on staleness across replicas.
#[derive(Clone, Debug, PartialEq)]
pub struct CoherenceSettings {
    /// How long after an acknowledged invalidation a replica may still serve the old value,
    /// whatever fails.
    pub max_staleness: Duration,
    /// About how many invalidations the log in Redis keeps for replicas that missed some.
    pub log_length: u32,
    /// The share of memory hits that are compared with the record in Redis, behind the answer: from
    /// 0, none, to 1. At most 500 a second are. [`AuditCounts`](crate::AuditCounts) has the result.
    pub audit: f64,
}

impl Default for CoherenceSettings {
    fn default() -> Self {
        CoherenceSettings {
            max_staleness: Duration::from_secs(1),
            log_length: 10_000,
            audit: 0.001,
        }
    }
}

/// How many loads may run and wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadSettings {
    /// Loads from sources at one time.
    pub max_loads: usize,
    /// Loads that wait until one of those ends. Further loads are refused as overloaded.
    pub max_queue: usize,
}

impl Default for LoadSettings {
    fn default() -> Self {
        LoadSettings {
            max_loads: 64,
            max_queue: 1024,
        }
    }
}
