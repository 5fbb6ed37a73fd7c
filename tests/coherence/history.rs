//! What was seen from outside: reads, writes, and the moments at which a replica had nothing left to deliver.
//!
//! Every moment is taken from one monotonic clock, outside the replicas: just before a request is sent and just after its answer
//! has arrived. So a replica took a request up no earlier than `begin` and answered it no later than `end`, and whatever is wrong
//! by these moments is wrong by any clock.

use std::time::Duration;

/// Time since the history began.
pub type Moment = Duration;

/// The number of a value. A key begins with version 1, and each write of it makes the next one.
pub type Version = u64;

/// The version that a key has before anything is written.
pub const FIRST: Version = 1;

/// Where a replica says that an answer came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    Memory,
    Redis,
    Source,
    Unknown,
}

/// A read that was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Read {
    pub key: usize,
    pub replica: usize,
    pub begin: Moment,
    pub end: Moment,
    /// `None`: the answer holds no version of this key.
    pub version: Option<Version>,
    pub tier: Tier,
    /// The version of the write whose clock it carried in `Larder-After`.
    pub after: Option<Version>,
}

/// A change of the data and the invalidation that follows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Write {
    pub key: usize,
    /// The one that took the invalidation.
    pub replica: usize,
    pub version: Version,
    /// Before the data changed.
    pub begin: Moment,
    pub told: Told,
}

/// What the writer was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// Nothing, before the history ended.
    Nothing,
    InvalidationReceipt(Moment),
    /// That it holds on this replica, and is not delivered yet.
    Pending(Moment),
}

/// A replica said that no invalidation is pending there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settled {
    pub replica: usize,
    pub begin: Moment,
    pub end: Moment,
}

/// Everything that was seen, in no particular order.
#[derive(Clone, Debug, Default)]
pub struct History {
    pub reads: Vec<Read>,
    pub writes: Vec<Write>,
    pub settled: Vec<Settled>,
}

impl History {
    /// Takes over what another thread has seen.
    pub fn add(&mut self, other: History) {
        self.reads.extend(other.reads);
        self.writes.extend(other.writes);
        self.settled.extend(other.settled);
    }

    /// From when on every replica owes this write to its readers, up to the max_staleness that they have; `None` if that is not known.
    pub fn delivered(&self, write: &Write) -> Option<Moment> {
        match write.told {
            Told::Nothing => None,
            Told::InvalidationReceipt(at) => Some(at),
            Told::Pending(_) => self.settling(write).map(|settled| settled.end),
        }
    }

    /// What shows that a pending write was delivered: its replica was asked after it, and had nothing pending.
    pub fn settling(&self, write: &Write) -> Option<&Settled> {
        let Told::Pending(at) = write.told else {
            return None;
        };
        self.settled
            .iter()
            .filter(|settled| settled.replica == write.replica && settled.begin > at)
            .min_by_key(|settled| settled.end)
    }
}

impl Write {
    /// From when on its own replica owes it to its readers.
    pub fn held_here(&self) -> Option<Moment> {
        match self.told {
            Told::Nothing => None,
            Told::InvalidationReceipt(at) | Told::Pending(at) => Some(at),
        }
    }
}
