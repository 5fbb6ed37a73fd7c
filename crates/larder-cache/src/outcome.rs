//! How a lookup ended. This one value feeds the headers, the counters, the log line and the
//! `cached` field.

/// How a lookup ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Memory had it.
    MemoryHit,
    /// Redis had it.
    RedisHit,
    /// This lookup's own load brought it.
    Loaded,
    /// It waited for a load that another lookup, here or on another replica, had begun.
    Collapsed,
    /// A stale copy was served.
    Stale(Staleness),
}

/// How a lookup ended, without the reason for a stale answer: each lookup has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LookupEnd {
    /// Memory had a fresh copy.
    Memory,
    /// Redis had a fresh copy.
    Redis,
    /// Its own load brought the value.
    Loaded,
    /// It waited for the load of another lookup.
    Collapsed,
    /// It got a stale copy.
    Stale,
    /// It got no value.
    Failed,
}

impl LookupEnd {
    /// All ends.
    pub const ALL: [LookupEnd; 6] = [
        LookupEnd::Memory,
        LookupEnd::Redis,
        LookupEnd::Loaded,
        LookupEnd::Collapsed,
        LookupEnd::Stale,
        LookupEnd::Failed,
    ];

    /// The word for it in a log line and in a metric.
    pub fn word(self) -> &'static str {
        match self {
            LookupEnd::Memory => "memory",
            LookupEnd::Redis => "redis",
            LookupEnd::Loaded => "loaded",
            LookupEnd::Collapsed => "collapsed",
            LookupEnd::Stale => "stale",
            LookupEnd::Failed => "failed",
        }
    }
}

impl From<Outcome> for LookupEnd {
    fn from(outcome: Outcome) -> LookupEnd {
        match outcome {
            Outcome::MemoryHit => LookupEnd::Memory,
            Outcome::RedisHit => LookupEnd::Redis,
            Outcome::Loaded => LookupEnd::Loaded,
            Outcome::Collapsed => LookupEnd::Collapsed,
            Outcome::Stale(_) => LookupEnd::Stale,
        }
    }
}

/// Why a stale copy was served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Staleness {
    /// A load in the background refreshes it (stale-while-revalidate).
    WhileRevalidate,
    /// The load took longer than the resource's soft timeout; it goes on.
    SoftTimeout,
    /// The load that this lookup waited for has failed (stale-if-error).
    IfError,
    /// A load failed a moment ago, and is not tried again yet.
    BackingOff,
    /// The source's quota is spent.
    Spent,
}

impl Staleness {
    /// All reasons.
    pub const ALL: [Staleness; 5] = [
        Staleness::WhileRevalidate,
        Staleness::SoftTimeout,
        Staleness::IfError,
        Staleness::BackingOff,
        Staleness::Spent,
    ];

    /// The word for it in a log line and in a metric.
    pub fn word(self) -> &'static str {
        match self {
            Staleness::WhileRevalidate => "stale-while-revalidate",
            Staleness::SoftTimeout => "soft-timeout",
            Staleness::IfError => "stale-if-error",
            Staleness::BackingOff => "backing-off",
            Staleness::Spent => "quota-spent",
        }
    }
}

impl Outcome {
    /// One word for a log line.
    pub fn word(self) -> &'static str {
        match self {
            Outcome::Stale(why) => why.word(),
            fresh => LookupEnd::from(fresh).word(),
        }
    }

    /// Whether it was a hit: there was a value, and nobody waited for a load.
    pub fn is_hit(self) -> bool {
        !self.waited()
    }

    /// Whether the lookup waited for a source, as leader or as follower: then it was no hit.
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

    /// How the lookup of a follower ended, if that of its leader ended like this.
    pub(crate) fn for_follower(self) -> Outcome {
        if self == Outcome::Loaded {
            Outcome::Collapsed
        } else {
            self
        }
    }

    /// How the lookup of a composite ended whose parts ended like these: as the part that took the
    /// longest way.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_and_each_end_has_its_place() {
        let places = Staleness::ALL.map(|why| why as usize);
        assert_eq!(places, [0, 1, 2, 3, 4]);
        let places = LookupEnd::ALL.map(|end| end as usize);
        assert_eq!(places, [0, 1, 2, 3, 4, 5]);
    }
}
