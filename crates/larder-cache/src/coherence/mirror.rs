//! The mirror: what this replica knows of the history of invalidations.
//!
//! It has one [`History`] in force, and knows until when that can be trusted. The mirror takes no
//! I/O: whoever talks to Redis hands it the replies and messages.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use parking_lot::{Condvar, Mutex};

use super::dependency::{Dependency, Since, Stamp};
use super::history::{History, HistoryState, LastPurges};
use super::history_id::HistoryId;
use super::pending::{Batch, Pending};
use super::target::{InvalidationTarget, Purge};
use crate::clock::{Clock, Micros};

/// Trust that never ends: there is no other replica to hear from.
const FOREVER: Micros = Micros::MAX;
/// The log warns of a lost history at most this often.
const WARN_EVERY: Duration = Duration::from_secs(10);

/// What has become of an entry since its load began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Nothing that it depends on was invalidated.
    Valid,
    /// The invalidation with this clock made it stale.
    Soft(u64),
    /// A soft purge is pending: Redis has not given it a clock yet.
    SoftPending,
    /// It was invalidated: never to be served again.
    Invalid,
    /// It is of another history.
    OtherHistory,
}

/// What a reply of Redis showed about the history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Observed {
    /// The history in force.
    Known,
    /// The first history of a Redis. Until now this replica was alone.
    First,
    /// A new history: Redis lost its data or got old data back.
    New,
    /// A history that is over here.
    Retired,
}

/// A reply of a Redis whose history is over here: this replica left that Redis for another one. The
/// reply proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HistoryRetired;

/// See the module.
#[derive(Debug)]
pub(crate) struct Mirror {
    /// The id of the history in force. A memory hit compares it first.
    history_id: AtomicU64,
    history: ArcSwap<History>,
    /// The histories that are over, each with its hard watermark. Entries loaded below the
    /// watermark are invalid. The lock is held while the history in force is replaced.
    retired: Mutex<HashMap<HistoryId, u64>>,
    alone: AtomicBool,
    /// The id of the history that it began with, which no other mirror has.
    own: HistoryId,
    /// Held by an invalidation while the process is alone: nothing comes between what it reads and
    /// its clock.
    pub(crate) turn: Mutex<()>,
    /// Until then this replica can prove that it would have heard.
    trust_until: AtomicU64,
    /// Notified when trust was extended. Its lock is `retired`.
    extended: Condvar,
    /// Protects the time of the last warning of a lost history.
    warned: Mutex<Option<Instant>>,
    /// Invalidations that Redis has not confirmed yet.
    pub(crate) pending: Pending,
}

impl Mirror {
    /// A history of this process alone. `standalone`: no other replica can exist, so it is trusted.
    pub(crate) fn alone(standalone: bool) -> Mirror {
        let history = History::new(HistoryId::random(), 1, 1);
        Mirror {
            history_id: AtomicU64::new(history.id().0),
            own: history.id(),
            history: ArcSwap::from_pointee(history),
            retired: Mutex::default(),
            alone: AtomicBool::new(true),
            turn: Mutex::default(),
            trust_until: AtomicU64::new(if standalone { FOREVER } else { 0 }),
            extended: Condvar::new(),
            warned: Mutex::default(),
            pending: Pending::default(),
        }
    }

    /// The id of the history in force.
    pub(crate) fn history_id(&self) -> HistoryId {
        HistoryId(self.history_id.load(Ordering::Acquire))
    }

    /// The history in force.
    pub(crate) fn history(&self) -> Arc<History> {
        self.history.load_full()
    }

    /// The stamp of a load that cannot ask Redis. Its clock may be behind: that costs at most a
    /// needless miss.
    pub(crate) fn stamp(&self) -> Stamp {
        let sequence = self.pending.sequence();
        let history = self.history.load();
        Stamp {
            history: history.id(),
            clock: history.newest(),
            sequence,
        }
    }

    /// The moment of this call, for a value that is read after it.
    pub(crate) fn since(&self, now: Micros) -> Since {
        Since {
            stamp: self.stamp(),
            taken_at: now,
            cache: self.own,
        }
    }

    /// Whether this mirror gave `since`, and not that of another cache.
    pub(crate) fn gave(&self, since: &Since) -> bool {
        since.cache == self.own
    }

    /// Takes over the state that a reply of Redis gave. Begins a new history here if the reply is
    /// of one that is not known.
    pub(crate) fn observe(&self, state: &HistoryState) -> Observed {
        if self.history_id() == state.history && !self.is_alone() {
            self.history.load().apply_state(state);
            return Observed::Known;
        }
        let mut retired = self.retired.lock();
        // A reply that was under way while a new history began. Ids have no order, so the mirror
        // remembers the old ones.
        if retired.contains_key(&state.history) {
            return Observed::Retired;
        }
        if self.history_id() == state.history {
            self.history.load().apply_state(state);
            return Observed::Known;
        }
        let observed = if self.alone.swap(false, Ordering::AcqRel) {
            Observed::First
        } else {
            self.warn_of_loss();
            Observed::New
        };
        // Nothing of it was applied yet, and nothing is trusted, until the subscriber has caught
        // up.
        let history = History::new(state.history, state.first_clock, 0);
        history.apply_state(state);
        self.trust_until.store(0, Ordering::Release);
        self.history_id.store(state.history.0, Ordering::Release);
        let before = self.history.swap(Arc::new(history));
        // With the fence in `apply_invalidation`:
        // 1. here: the id is replaced, fence, the old watermark is read;
        // 2. there: the old watermark is raised, fence, the id is read.
        // Either 1 reads what 2 raised, or 2 reads the new id.
        fence(Ordering::SeqCst);
        retired.insert(before.id(), before.hard_watermark());
        before.end();
        observed
    }

    /// A Redis that evicts the history itself loses it again and again. Then one line in a while is
    /// a warning.
    fn warn_of_loss(&self) {
        let mut warned = self.warned.lock();
        let now = Instant::now();
        let lately = warned.is_some_and(|warned| now - warned < WARN_EVERY);
        let level = if lately {
            log::Level::Debug
        } else {
            *warned = Some(now);
            log::Level::Warn
        };
        log::log!(
            level,
            "Redis has lost its data or got old data back; everything loaded before is invalid"
        );
    }

    /// Redis has taken `batch` into `history` with this clock. Applies it and ends its pending
    /// state. Returns `false` if that history is not in force, or was replaced meanwhile. Then the
    /// batch stays pending: what depends on it cannot be compared with that clock here.
    pub(crate) fn confirm(&self, batch: &Batch, history: HistoryId, clock: u64) -> bool {
        let confirmed = self.apply_invalidation(batch, history, clock);
        if confirmed {
            self.pending.settle(batch);
        }
        confirmed
    }

    fn apply_invalidation(&self, batch: &Batch, id: HistoryId, clock: u64) -> bool {
        let history = self.history();
        if history.id() != id {
            return false;
        }
        for target in batch.targets() {
            history.apply(target, batch.purge, clock);
        }
        history.see(clock);
        // See `observe`.
        fence(Ordering::SeqCst);
        self.history_id() == id
    }

    /// Whether this history was in force here once and is over.
    pub(crate) fn is_retired(&self, history: HistoryId) -> bool {
        self.retired.lock().contains_key(&history)
    }

    /// Takes over what a reply of Redis said of these targets: the clocks of the last hard and the
    /// last soft invalidation of each.
    ///
    /// # Errors
    /// If the reply is of a history that is over.
    pub(crate) fn learn(
        &self,
        state: &HistoryState,
        targets: &[InvalidationTarget],
        clocks: &[LastPurges],
    ) -> Result<(), HistoryRetired> {
        self.observe(state);
        let history = self.history();
        if history.id() != state.history {
            return Err(HistoryRetired);
        }
        for (target, last) in targets.iter().zip(clocks) {
            for (purge, clock) in [(Purge::Hard, last.hard), (Purge::Soft, last.soft)] {
                if clock > 0 {
                    history.apply(target, purge, clock);
                }
            }
        }
        Ok(())
    }

    /// Whether no Redis was ever found.
    pub(crate) fn is_alone(&self) -> bool {
        self.alone.load(Ordering::Acquire)
    }

    /// Whether this replica would have heard of every invalidation that was acknowledged longer ago
    /// than `max_staleness`.
    pub(crate) fn is_trusted(&self, now: Micros) -> bool {
        now < self.trust_until.load(Ordering::Acquire)
    }

    /// Until when it is trusted, or when it lost its trust. Zero if it never had any.
    pub(crate) fn trust_until(&self) -> Micros {
        self.trust_until.load(Ordering::Acquire)
    }

    /// For the subscriber only: trusted until `until`, if `history` is still in force. Returns
    /// whether it is.
    pub(crate) fn extend_trust(&self, history: &History, until: Micros) -> bool {
        let _unreplaced = self.retired.lock();
        let in_force = self.history_id() == history.id() && !self.is_alone();
        if in_force {
            self.trust_until.fetch_max(until, Ordering::AcqRel);
            self.extended.notify_all();
        }
        in_force
    }

    /// Waits until it is trusted, or `limit` has passed. Returns whether it is.
    pub(crate) fn wait_trusted(&self, clock: &Clock, limit: Duration) -> bool {
        let mut retired = self.retired.lock();
        let distrusted = |_: &mut _| !self.is_trusted(clock.now());
        self.extended
            .wait_while_for(&mut retired, distrusted, limit);
        self.is_trusted(clock.now())
    }

    /// What a value with this stamp depends on. If the stamp is not of the history in force, the
    /// value is of another history for good.
    pub(crate) fn dependency(&self, stamp: Stamp, names: &Arc<[InvalidationTarget]>) -> Dependency {
        let history = self.history();
        let history = (history.id() == stamp.history).then_some(history);
        if let Some(history) = &history {
            // The stamp of a copy is a clock that Redis gave to the replica that loaded it.
            history.see(stamp.clock);
        }
        Dependency {
            stamp,
            names: names.clone(),
            history,
        }
    }

    /// Whether anything that these depend on was invalidated since the history in force began, or
    /// in their own history after their load. An entry from before a reset that policy allows as
    /// stale is invalid then.
    pub(crate) fn invalidated_since_reset<'d>(
        &self,
        dependencies: impl Iterator<Item = &'d Dependency> + Clone,
    ) -> bool {
        // First, as in `standing`.
        if self.pending.blocks(dependencies.clone()) == Some(Purge::Hard) {
            return true;
        }
        let in_own_history = |dependency: &Dependency| {
            let Stamp { history, clock, .. } = dependency.stamp;
            let own = dependency.history.as_ref();
            let purged = |target: &InvalidationTarget| {
                own.and_then(|own| own.purges_after(target, clock))
                    .is_some_and(|last| last.hard > clock)
            };
            dependency.names.iter().any(purged)
                || self
                    .retired
                    .lock()
                    .get(&history)
                    .is_some_and(|hard_watermark| *hard_watermark > clock)
        };
        let history = self.history.load();
        let purged = |target: &InvalidationTarget| {
            history
                .last_purges(target)
                .is_some_and(|last| last.hard > 0)
        };
        dependencies.clone().any(in_own_history)
            || history.was_flushed()
            || dependencies
                .flat_map(|dependency| dependency.names.iter())
                .any(purged)
    }

    /// What has become of an entry with these dependencies. Takes no lock and looks up no target,
    /// unless an invalidation is pending or [`History::purges_after`] has to.
    pub(crate) fn standing<'d>(
        &self,
        dependencies: impl Iterator<Item = &'d Dependency> + Clone,
    ) -> Standing {
        // Pending first, then the history. A delivery meanwhile does the opposite:
        // 1. it applies the clock to the history;
        // 2. it ends the pending state.
        // A reader that looked at the history first could miss both.
        let pending = self.pending.blocks(dependencies.clone());
        if pending == Some(Purge::Hard) {
            return Standing::Invalid;
        }
        let in_force = self.history_id();
        let mut standing = Standing::Valid;
        for dependency in dependencies {
            let clock = dependency.stamp.clock;
            let own = dependency.history.as_deref();
            let Some(history) = own.filter(|history| history.id() == in_force) else {
                return Standing::OtherHistory;
            };
            if history.hard_watermark() > clock {
                return Standing::Invalid;
            }
            let mut soft = history.soft_watermark();
            for last in dependency
                .names
                .iter()
                .filter_map(|target| history.purges_after(target, clock))
            {
                if last.hard > clock {
                    return Standing::Invalid;
                }
                soft = soft.max(last.soft);
            }
            if soft > clock {
                standing = Standing::Soft(soft);
            }
        }
        match (standing, pending) {
            (Standing::Valid, Some(Purge::Soft)) => Standing::SoftPending,
            _ => standing,
        }
    }
}

#[cfg(test)]
mod tests;
