//! What was observed from outside: reads, writes, and the moments at which a replica had no
//! invalidation pending.
//!
//! Every moment is taken from one monotonic clock, outside the replicas: just before a request is
//! sent, and just after its answer has arrived. So a replica received the request no earlier than
//! `begin` and answered no later than `end`. What is wrong by these moments is wrong by any clock.

use std::time::Duration;

/// Time since the history began.
pub type Moment = Duration;

/// The number of a value. A key begins with version 1, and each write of it makes the next one.
pub type Version = u64;

/// The version that a key has before anything is written.
pub const FIRST: Version = 1;

/// The tier of an answer, as its replica states it.
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
    /// The version of the write whose clock the request had in `Larder-After`.
    pub after: Option<Version>,
}

/// A change of the data and the invalidation that follows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Write {
    pub key: usize,
    /// The replica that was asked for the invalidation.
    pub replica: usize,
    pub version: Version,
    /// Before the data changed.
    pub begin: Moment,
    pub told: Told,
}

/// The answer to the invalidation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// No answer before the history ended.
    Nothing,
    InvalidationReceipt(Moment),
    /// Pending: it holds on this replica and is not delivered yet.
    Pending(Moment),
}

/// A replica said that no invalidation is pending there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settled {
    pub replica: usize,
    pub begin: Moment,
    pub end: Moment,
}

/// All observations, in no particular order.
#[derive(Clone, Debug, Default)]
pub struct History {
    pub reads: Vec<Read>,
    pub writes: Vec<Write>,
    pub settled: Vec<Settled>,
}

impl History {
    /// Adds the observations of another thread.
    pub fn add(&mut self, other: History) {
        self.reads.extend(other.reads);
        self.writes.extend(other.writes);
        self.settled.extend(other.settled);
    }

    /// When this write was delivered. From then on every replica has `max_staleness` to serve it.
    /// `None` if that is not known.
    pub fn delivered(&self, write: &Write) -> Option<Moment> {
        match write.told {
            Told::Nothing => None,
            Told::InvalidationReceipt(at) => Some(at),
            Told::Pending(_) => self.settling(write).map(|settled| settled.end),
        }
    }

    /// The observation that proves the delivery of a pending write: a later answer of its replica
    /// that nothing is pending there.
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
    /// When its own replica answered. From then on that replica must serve it.
    pub fn held_here(&self) -> Option<Moment> {
        match self.told {
            Told::Nothing => None,
            Told::InvalidationReceipt(at) | Told::Pending(at) => Some(at),
        }
    }
}
