//! How a look-up ended. This one value feeds the headers, the counters, the log line and the `cached` field.

use std::sync::Arc;
use std::time::Duration;

use super::entry::Entry;

/// How a look-up ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Memory had it.
    MemoryHit,
    /// Redis had it.
    RedisHit,
    /// This look-up's own load brought it.
    Loaded,
    /// It waited for a load that another look-up, here or on another replica, had begun.
    Collapsed,
    /// It got a copy that is past its TTL.
    Stale(Staleness),
}

/// Why a stale copy was served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Staleness {
    /// It is being renewed in the background.
    WhileRevalidate,
    /// The load took longer than the resource's soft timeout; it goes on.
    SoftTimeout,
    /// The load that this look-up waited for failed.
    IfError,
    /// A load failed a moment ago, and is not tried again yet.
    BackingOff,
    /// The source's quota is spent.
    Spent,
}

impl Outcome {
    /// Whether the look-up waited for a source, as leader or as follower: then it was no hit.
    pub fn waited(self) -> bool {
        match self {
            Outcome::Loaded | Outcome::Collapsed => true,
            Outcome::Stale(Staleness::SoftTimeout | Staleness::IfError) => true,
            Outcome::Stale(
                Staleness::WhileRevalidate | Staleness::BackingOff | Staleness::Spent,
            ) => false,
            Outcome::MemoryHit | Outcome::RedisHit => false,
        }
    }

    /// What a follower of a look-up that ended like this says of its own.
    pub(crate) fn for_follower(self) -> Outcome {
        if self == Outcome::Loaded {
            Outcome::Collapsed
        } else {
            self
        }
    }

    /// How the look-up of a whole ended whose parts ended like these: by the part that took the longest way.
    pub(crate) fn of_parts(parts: impl Iterator<Item = Outcome>) -> Outcome {
        parts
            .max_by_key(|outcome| outcome.distance())
            .unwrap_or(Outcome::MemoryHit)
    }

    fn distance(self) -> u8 {
        match self {
            Outcome::MemoryHit => 0,
            Outcome::RedisHit => 1,
            Outcome::Stale(Staleness::WhileRevalidate) => 2,
            Outcome::Stale(Staleness::BackingOff) => 3,
            Outcome::Stale(Staleness::Spent) => 4,
            Outcome::Collapsed => 5,
            Outcome::Loaded => 6,
            Outcome::Stale(Staleness::SoftTimeout) => 7,
            Outcome::Stale(Staleness::IfError) => 8,
        }
    }
}

/// What a look-up gives.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The value with its stamps.
    pub entry: Arc<Entry>,
    /// How it was come by.
    pub outcome: Outcome,
    /// What that took.
    pub trace: Trace,
}

/// Where the time of a look-up went. `None`: that tier was not asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    /// Asking Redis.
    pub redis: Option<Duration>,
    /// Asking the source.
    pub source: Option<Duration>,
    /// Whether Redis took what the load brought.
    pub stored: bool,
}

impl Trace {
    /// Of two parts side by side, the longer time each.
    pub(crate) fn beside(self, other: Trace) -> Trace {
        Trace {
            redis: self.redis.max(other.redis),
            source: self.source.max(other.source),
            stored: self.stored || other.stored,
        }
    }
}

impl Outcome {
    /// One word for a log line.
    pub fn word(self) -> &'static str {
        match self {
            Outcome::MemoryHit => "memory",
            Outcome::RedisHit => "redis",
            Outcome::Loaded => "loaded",
            Outcome::Collapsed => "collapsed",
            Outcome::Stale(Staleness::WhileRevalidate) => "stale-while-revalidate",
            Outcome::Stale(Staleness::SoftTimeout) => "soft-timeout",
            Outcome::Stale(Staleness::IfError) => "stale-if-error",
            Outcome::Stale(Staleness::BackingOff) => "held",
            Outcome::Stale(Staleness::Spent) => "quota-spent",
        }
    }
}
