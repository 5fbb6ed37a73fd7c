//! An era: one history of changes, and everything that may be compared with its clocks.
//!
//! A new history is a new era, whole, so that no clock of the old one is left behind. It knows the clocks of the last invalidations of
//! each name that was invalidated, and in a fixed number of slots the highest clock of all names with the same hash: a hit looks at
//! the slots of its names, and at the names themselves only where one of those is later than its load.
//!
//! Invariants: slots, clocks and `hard_watermark` only grow. A name is known before its slot is raised, and what was loaded before the last
//! invalidation of a name is dead before that name is forgotten. `last` is advanced by the subscriber alone: what this replica
//! invalidated itself, or saw in a reply, is noted at once and leaves `last`, or a message lost before it would look heard.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};

use super::name::{InvalidationTarget, Purge};
use crate::clock::Clock;

const SHARDS: usize = 16;
/// Half a megabyte of them. With as many invalidations since a load as there are slots, two in three of its hits look at a name itself.
const SLOTS: usize = 1 << 16;

/// The random identity of one history of changes. Clocks of two histories are never compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HistoryId(pub u64);

impl HistoryId {
    /// An identity that no other history has.
    pub(crate) fn random() -> HistoryId {
        HistoryId(getrandom::u64().unwrap_or_else(|_| {
            // A machine without randomness: what differs between two processes and two calls must do.
            let now = Clock::new().now();
            now.rotate_left(20) ^ u64::from(std::process::id())
        }))
    }

    /// The identity that `text` stands for, as `Display` writes it.
    pub(crate) fn parse(text: &str) -> Option<HistoryId> {
        u64::from_str_radix(text, 16).ok().map(HistoryId)
    }
}

impl fmt::Display for HistoryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// The state of a history as Redis tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) epoch: HistoryId,
    pub(crate) clock: u64,
    pub(crate) floor: u64,
    pub(crate) soft_floor: u64,
    pub(crate) pruned_to: u64,
    /// The clock that it began with.
    pub(crate) begun: u64,
}

/// The clocks of the last invalidations of one name; zero: none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Last {
    pub(super) hard: u64,
    pub(super) soft: u64,
}

impl Last {
    pub(super) fn newest(self) -> u64 {
        self.hard.max(self.soft)
    }
}

type Names = HashMap<InvalidationTarget, Last, foldhash::fast::RandomState>;

/// One history, and all that may be compared with its clocks.
#[derive(Debug)]
pub(crate) struct History {
    epoch: HistoryId,
    /// The clock that it began with.
    pub(super) begun: u64,
    /// The highest clock that the bus brought.
    last: AtomicU64,
    /// What was loaded below is invalid: the highest of the floor and of what was pruned.
    pub(super) hard_watermark: AtomicU64,
    /// What was loaded below is stale.
    pub(super) soft_watermark: AtomicU64,
    /// By the hash of a name: the highest clock of any name with it.
    slots: Box<[AtomicU64]>,
    shards: [RwLock<Names>; SHARDS],
    /// Whether it is over: then the names are gone, and the slots stand for them.
    over: AtomicBool,
}

impl History {
    pub(super) fn new(epoch: HistoryId, begun: u64, last: u64) -> History {
        History {
            epoch,
            begun,
            last: AtomicU64::new(last),
            hard_watermark: AtomicU64::new(0),
            soft_watermark: AtomicU64::new(0),
            slots: (0..SLOTS).map(|_| AtomicU64::new(0)).collect(),
            shards: Default::default(),
            over: AtomicBool::new(false),
        }
    }

    pub(crate) fn epoch(&self) -> HistoryId {
        self.epoch
    }

    pub(crate) fn last(&self) -> u64 {
        self.last.load(Ordering::Acquire)
    }

    /// Everything up to `clock` was heard: for the subscriber, and for a process that is alone.
    pub(crate) fn heard(&self, clock: u64) {
        self.last.fetch_max(clock, Ordering::AcqRel);
    }

    fn slot(&self, name: &InvalidationTarget) -> &AtomicU64 {
        &self.slots[name.short_hash() as usize % SLOTS]
    }

    fn shard(&self, name: &InvalidationTarget) -> &RwLock<Names> {
        // Other bits than those of the slot.
        &self.shards[(name.short_hash() >> 16) as usize % SHARDS]
    }

    /// The last invalidations of `name`, as far as they are known by name.
    pub(super) fn last_of(&self, name: &InvalidationTarget) -> Option<Last> {
        let shard = self.shard(name).read();
        let shard = shard.unwrap_or_else(PoisonError::into_inner);
        shard.get(name).copied()
    }

    /// The last invalidations of `name`, if there may be any after `clock`. Locks nothing where there is none, nor where another name
    /// with the same hash had none either.
    #[inline]
    pub(super) fn since(&self, name: &InvalidationTarget, clock: u64) -> Option<Last> {
        let newest = self.slot(name).load(Ordering::Acquire);
        if newest <= clock {
            return None;
        }
        let last = self.last_of(name).unwrap_or_default();
        // What was forgotten has left its mark by now, also where it was told again meanwhile by somebody who was late.
        let gone = if self.over.load(Ordering::Acquire) {
            newest
        } else {
            self.hard_watermark.load(Ordering::Acquire)
        };
        Some(Last {
            hard: last.hard.max(gone),
            soft: last.soft,
        })
    }

    /// Another history has taken its place. Entries that were loaded in this one may be there for long, and hold it: from now on it is no
    /// more than its slots, which take a name that shares one with another for invalidated when that was.
    pub(super) fn end(&self) {
        self.over.store(true, Ordering::Release);
        for shard in &self.shards {
            *shard.write().unwrap_or_else(PoisonError::into_inner) = Names::default();
        }
    }

    /// Notes that `name` was invalidated at `clock`. A maximum: order and repetition do not matter.
    pub(crate) fn apply(&self, name: &InvalidationTarget, kind: Purge, clock: u64) {
        if !name.is_everything() {
            let shard = self.shard(name).write();
            let mut shard = shard.unwrap_or_else(PoisonError::into_inner);
            let last = shard.entry(name.clone()).or_default();
            let of_kind = match kind {
                Purge::Hard => &mut last.hard,
                Purge::Soft => &mut last.soft,
            };
            *of_kind = clock.max(*of_kind);
            self.slot(name).fetch_max(clock, Ordering::AcqRel);
        } else if kind == Purge::Hard {
            self.hard_watermark.fetch_max(clock, Ordering::AcqRel);
        } else {
            self.soft_watermark.fetch_max(clock, Ordering::AcqRel);
        }
    }

    /// Notes floors and what was pruned: what was loaded below that is dead. Not what was loaded at it, which is after it: the clock
    /// stands still until the next invalidation, and nothing that is loaded by then could be kept.
    pub(crate) fn apply_state(&self, state: &State) {
        let dead = state.floor.max(state.pruned_to);
        self.hard_watermark.fetch_max(dead, Ordering::AcqRel);
        self.soft_watermark
            .fetch_max(state.soft_floor, Ordering::AcqRel);
    }

    /// Forgets names that were invalidated before `clock`: what was loaded before them is dead from now on. And those before which all
    /// is dead already, such as what Redis has forgotten.
    pub(super) fn prune(&self, clock: u64) {
        let hard_watermark = self.hard_watermark.load(Ordering::Acquire);
        for shard in &self.shards {
            let mut shard = shard.write().unwrap_or_else(PoisonError::into_inner);
            let mut highest = 0;
            shard.retain(|_, last| {
                let newest = last.newest();
                let gone = newest < clock || newest <= hard_watermark;
                if gone {
                    highest = highest.max(newest);
                }
                !gone
            });
            // Still locked: who finds the name gone finds what it loaded before to be dead.
            self.hard_watermark.fetch_max(highest, Ordering::AcqRel);
        }
    }

    /// Where more than `most` names are known, forgets those invalidated before `clock`, and all where that is not enough: for a process
    /// that is alone.
    pub(crate) fn make_room(&self, most: usize, clock: u64) {
        for clock in [clock, u64::MAX] {
            if self.names() > most {
                self.prune(clock);
            }
        }
    }

    /// How many names are known to have been invalidated.
    pub(crate) fn names(&self) -> usize {
        let len =
            |shard: &RwLock<Names>| shard.read().unwrap_or_else(PoisonError::into_inner).len();
        self.shards.iter().map(len).sum()
    }
}
