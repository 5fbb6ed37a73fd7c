//! What an entry depends on: its targets, and where its load stands in history.

use std::sync::Arc;

use super::history::{History, LastPurges};
use super::history_id::HistoryId;
use super::target::InvalidationTarget;
use crate::clock::Micros;

/// Where a load stands in history: taken before its source is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The history that the clock belongs to.
    pub history: HistoryId,
    /// The load clock: the value lacks what was invalidated later.
    pub clock: u64,
    /// How many invalidations this process had begun when the load began. Zero for a value that was
    /// loaded elsewhere.
    pub sequence: u64,
}

impl Stamp {
    /// Whether its load began later, as far as the clocks can tell: never of another history.
    pub(crate) fn is_later_than(self, other: Stamp) -> bool {
        self.history == other.history && self.clock > other.clock
    }
}

/// A moment in the history of invalidations: see [`Cache::stamp`](crate::Cache::stamp).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Since {
    pub(crate) stamp: Stamp,
    /// The moment on the cache's clock.
    pub(crate) taken_at: Micros,
    /// Which cache gave it: the other two mean something in that cache only.
    pub(super) cache: HistoryId,
}

/// One load and the targets that its value depends on: one part of an entry, or all of it.
#[derive(Clone, Debug)]
pub struct Dependency {
    /// Where its load stands.
    pub stamp: Stamp,
    /// The targets whose invalidation ends it.
    pub names: Arc<[InvalidationTarget]>,
    /// The history that its load was part of, if that was in force here then.
    pub(super) history: Option<Arc<History>>,
}

impl Dependency {
    /// One of a history that nobody here knows. Nothing can tell whether it was invalidated, so an
    /// entry with it is given to the readers that wait for it, and never again.
    pub fn unknown(stamp: Stamp, names: Arc<[InvalidationTarget]>) -> Dependency {
        Dependency {
            stamp,
            names,
            history: None,
        }
    }

    /// Each target with the clock of its last invalidation, if one is known.
    pub(crate) fn invalidated(
        &self,
    ) -> impl Iterator<Item = (InvalidationTarget, Option<u64>)> + '_ {
        self.names.iter().map(|target| {
            let history = self.history.as_ref();
            let last = history.and_then(|history| history.last_purges(target));
            (target.clone(), last.map(LastPurges::newest))
        })
    }
}
