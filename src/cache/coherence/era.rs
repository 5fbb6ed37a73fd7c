//! An era: one history of changes, and everything that may be compared with its clocks.
//!
//! A new history is a new era, whole, so that no clock of the old one is left behind. A name has a cell with the clocks of its last
//! invalidations.
//!
//! Invariants: a cell only grows. A cell that an entry still points to is never removed. `last` is advanced by the subscriber
//! alone: what this replica invalidated itself, or saw in a reply, sets cells at once and leaves `last`, or a message lost before
//! it would look heard.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::super::clock::Clock;
use super::name::{Kind, Name};

const SHARDS: usize = 16;

/// The random identity of one history of changes. Clocks of two histories are never compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Epoch(pub u64);

impl Epoch {
    /// An identity that no other history has.
    pub(crate) fn random() -> Epoch {
        Epoch(getrandom::u64().unwrap_or_else(|_| {
            // A machine without randomness: what differs between two processes and two calls must do.
            let now = Clock::new().now();
            now.rotate_left(20) ^ u64::from(std::process::id())
        }))
    }

    /// The identity that `text` stands for, as `Display` writes it.
    pub(crate) fn parse(text: &str) -> Option<Epoch> {
        u64::from_str_radix(text, 16).ok().map(Epoch)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// The state of a history as Redis tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) epoch: Epoch,
    pub(crate) clock: u64,
    pub(crate) floor: u64,
    pub(crate) soft_floor: u64,
    pub(crate) pruned_to: u64,
    /// The clock that it began with.
    pub(crate) begun: u64,
}

/// The clocks of the last invalidations of one name.
#[derive(Debug, Default)]
pub(crate) struct Cell {
    pub(super) hard: AtomicU64,
    pub(super) soft: AtomicU64,
}

impl Cell {
    fn raise(&self, kind: Kind, clock: u64) {
        let cell = if kind == Kind::Hard {
            &self.hard
        } else {
            &self.soft
        };
        cell.fetch_max(clock, Ordering::AcqRel);
    }

    pub(super) fn newest(&self) -> u64 {
        self.hard
            .load(Ordering::Acquire)
            .max(self.soft.load(Ordering::Acquire))
    }
}

type Cells = HashMap<Name, Arc<Cell>, foldhash::fast::RandomState>;

/// One history, and all that may be compared with its clocks.
#[derive(Debug)]
pub(crate) struct Era {
    epoch: Epoch,
    /// The clock that it began with.
    pub(super) begun: u64,
    /// The highest clock that the bus brought.
    last: AtomicU64,
    /// What was loaded below is invalid: the highest of the floor and of what was pruned.
    pub(super) dead_below: AtomicU64,
    /// What was loaded below is stale.
    pub(super) soft_below: AtomicU64,
    shards: [Mutex<Cells>; SHARDS],
    hasher: foldhash::fast::RandomState,
}

impl Era {
    pub(super) fn new(epoch: Epoch, begun: u64, last: u64) -> Era {
        Era {
            epoch,
            begun,
            last: AtomicU64::new(last),
            dead_below: AtomicU64::new(0),
            soft_below: AtomicU64::new(0),
            shards: Default::default(),
            hasher: Default::default(),
        }
    }

    pub(crate) fn epoch(&self) -> Epoch {
        self.epoch
    }

    pub(crate) fn last(&self) -> u64 {
        self.last.load(Ordering::Acquire)
    }

    /// Everything up to `clock` was heard: for the subscriber, and for a process that is alone.
    pub(crate) fn heard(&self, clock: u64) {
        self.last.fetch_max(clock, Ordering::AcqRel);
    }

    pub(super) fn shard(&self, name: &Name) -> MutexGuard<'_, Cells> {
        use std::hash::BuildHasher;
        let shard = self.hasher.hash_one(name) as usize % SHARDS;
        self.shards[shard]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn cell(&self, name: &Name) -> Arc<Cell> {
        let mut shard = self.shard(name);
        if let Some(cell) = shard.get(name) {
            return cell.clone();
        }
        let cell = Arc::<Cell>::default();
        shard.insert(name.clone(), cell.clone());
        cell
    }

    /// Notes that `name` was invalidated at `clock`. A maximum: order and repetition do not matter.
    pub(crate) fn apply(&self, name: &Name, kind: Kind, clock: u64) {
        if !name.is_everything() {
            self.cell(name).raise(kind, clock);
        } else if kind == Kind::Hard {
            self.dead_below.fetch_max(clock, Ordering::AcqRel);
        } else {
            self.soft_below.fetch_max(clock, Ordering::AcqRel);
        }
    }

    /// Notes floors and what was pruned: what was loaded below that is dead. Not what was loaded at it, which is after it: the clock
    /// stands still until the next invalidation, and nothing that is loaded by then could be kept.
    pub(crate) fn apply_state(&self, state: &State) {
        let dead = state.floor.max(state.pruned_to);
        self.dead_below.fetch_max(dead, Ordering::AcqRel);
        self.soft_below
            .fetch_max(state.soft_floor, Ordering::AcqRel);
    }

    /// Forgets names that no entry depends on and that were invalidated before `clock`: what was loaded before them is dead from now on.
    /// And those before which all is dead already, such as what Redis has forgotten.
    pub(super) fn prune(&self, clock: u64) {
        let dead_below = self.dead_below.load(Ordering::Acquire);
        for shard in &self.shards {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            let mut highest = 0;
            shard.retain(|_, cell| {
                let newest = cell.newest();
                // Only this map points to it, and nobody can take a pointer while the map is locked.
                let gone = Arc::strong_count(cell) == 1 && (newest < clock || newest <= dead_below);
                if gone {
                    highest = highest.max(newest);
                }
                !gone
            });
            // Still locked: who finds the cell gone finds what it loaded before to be dead.
            self.dead_below.fetch_max(highest, Ordering::AcqRel);
        }
    }

    /// How many names are known.
    pub(crate) fn names(&self) -> usize {
        let len = |shard: &Mutex<Cells>| shard.lock().unwrap_or_else(PoisonError::into_inner).len();
        self.shards.iter().map(len).sum()
    }
}
