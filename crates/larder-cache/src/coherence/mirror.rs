//! The mirror: what this replica knows of the history of changes.
//!
//! It has one [`History`] in force, and whether that can be trusted. An entry keeps the names that it depends on with their hashes, so that
//! a hit compares one number for each with the clock of its load, and nearly always looks up nothing.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use redis::RedisResult;

use super::era::{History, HistoryId, Last, State};
use super::name::{InvalidationTarget, Purge};
use super::pending::Pending;
use super::scripts::Clocks;
use crate::clock::{Clock, Micros};
use crate::redis_tier::fault::over;

/// Trust that never ends: nobody else is there to be heard.
const FOREVER: Micros = Micros::MAX;
/// How often the log tells at most that another history has taken the place of the known one.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// Where a load stands in history: taken before its source is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Of which history.
    pub epoch: HistoryId,
    /// Its clock: what was invalidated later is not in the value.
    pub clock: u64,
    /// How many invalidations this process had begun by then; zero for a value that came from elsewhere.
    pub begun: u64,
}

/// What was read, and the names that it depends on: one part of an entry, or all of it.
#[derive(Clone, Debug)]
pub struct Dependency {
    /// Where its load stands.
    pub stamp: Stamp,
    /// The names.
    pub names: Arc<[InvalidationTarget]>,
    /// The history that its load was part of, if that was in force here then.
    era: Option<Arc<History>>,
}

impl Dependency {
    /// One of a history that nobody here knows: nothing can tell what becomes of it, so what depends on it is served to those who
    /// waited for it, and never again.
    pub fn unknown(stamp: Stamp, names: Arc<[InvalidationTarget]>) -> Dependency {
        Dependency {
            stamp,
            names,
            era: None,
        }
    }

    /// Each name with the clock of its last invalidation, if any is known.
    pub(crate) fn invalidated(
        &self,
    ) -> impl Iterator<Item = (InvalidationTarget, Option<u64>)> + '_ {
        self.names.iter().map(|name| {
            let last = self.era.as_ref().and_then(|era| era.last_of(name));
            (name.clone(), last.map(Last::newest))
        })
    }
}

/// What has become of an entry since its load began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Nothing that it depends on was invalidated.
    Valid,
    /// It was made stale by the invalidation with this clock.
    Soft(u64),
    /// A soft purge is pending: Redis has not given it a clock yet.
    SoftPending,
    /// It was invalidated: never to be served again.
    Invalid,
    /// It is of another history.
    OtherHistory,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Mirror {
    /// The epoch of the era in force: what a memory hit compares first.
    epoch: AtomicU64,
    era: ArcSwap<History>,
    /// The epochs that were in force and are no more, with what was loaded below being invalid by then. Held while an era is
    /// replaced.
    retired: Mutex<HashMap<HistoryId, u64>>,
    alone: AtomicBool,
    /// Until when this replica can prove that it would have heard.
    trust_until: AtomicU64,
    /// Tells of trust that was extended; its lock is `retired`.
    extended: Condvar,
    /// When the log last told of a history that took another's place.
    told: Mutex<Option<Instant>>,
    /// Invalidations that Redis has not taken yet.
    pub(crate) pending: Pending,
}

/// What a look at the history showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// The history that was known already.
    Same,
    /// The first of a Redis after this replica had been alone.
    First,
    /// Another history: Redis lost its data or got old data back.
    Other,
    /// A history that is over.
    Retired,
}

impl Mirror {
    /// A history of this process alone. `standalone`: nobody else can be there, so it is trusted.
    pub(crate) fn alone(standalone: bool) -> Mirror {
        let era = History::new(HistoryId::random(), 1, 1);
        Mirror {
            epoch: AtomicU64::new(era.epoch().0),
            era: ArcSwap::from_pointee(era),
            retired: Mutex::default(),
            alone: AtomicBool::new(true),
            trust_until: AtomicU64::new(if standalone { FOREVER } else { 0 }),
            extended: Condvar::new(),
            told: Mutex::default(),
            pending: Pending::default(),
        }
    }

    pub(crate) fn epoch(&self) -> HistoryId {
        HistoryId(self.epoch.load(Ordering::Acquire))
    }

    pub(crate) fn era(&self) -> Arc<History> {
        self.era.load_full()
    }

    /// The stamp of a load that cannot ask Redis: behind is safe.
    pub(crate) fn stamp(&self) -> Stamp {
        let begun = self.pending.begun();
        let era = self.era.load();
        Stamp {
            epoch: era.epoch(),
            clock: era.last(),
            begun,
        }
    }

    /// Takes over the state of a history that a connection saw: a new era, if it is not the known one.
    pub(crate) fn saw(&self, state: &State) -> Seen {
        if self.epoch() == state.epoch && !self.is_alone() {
            self.era.load().apply_state(state);
            return Seen::Same;
        }
        let mut retired = self.retired();
        // A reply that was on its way while a new history began: epochs have no order, so what is over is remembered.
        if retired.contains_key(&state.epoch) {
            return Seen::Retired;
        }
        if self.epoch() == state.epoch {
            self.era.load().apply_state(state);
            return Seen::Same;
        }
        let seen = if self.alone.swap(false, Ordering::AcqRel) {
            Seen::First
        } else {
            self.tell_of_loss();
            Seen::Other
        };
        // Nothing was heard of it yet: `last` is zero until the subscriber has caught up, and so is trust.
        let era = History::new(state.epoch, state.begun, 0);
        era.apply_state(state);
        self.trust_until.store(0, Ordering::Release);
        self.epoch.store(state.epoch.0, Ordering::Release);
        let before = self.era.swap(Arc::new(era));
        // Last: whoever raises it later finds in `applied` that its history is over. Readers who want it wait for the lock.
        fence(Ordering::SeqCst);
        retired.insert(
            before.epoch(),
            before.hard_watermark.load(Ordering::Acquire),
        );
        before.end();
        seen
    }

    /// Where it happens again and again, as with a Redis that evicts the history itself, one line
    /// in a while says so.
    fn tell_of_loss(&self) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let lately = told.is_some_and(|told| now - told < TELL_EVERY);
        let level = if lately {
            log::Level::Debug
        } else {
            *told = Some(now);
            log::Level::Warn
        };
        log::log!(
            level,
            "Redis has lost its data or got old data back: what was loaded before is invalid"
        );
    }

    /// Notes what Redis has taken into the history `epoch`. Returns whether that history is in force, and was so to
    /// the end of it: otherwise nobody may rely on it here.
    pub(crate) fn applied<'n>(
        &self,
        epoch: HistoryId,
        names: impl Iterator<Item = &'n InvalidationTarget>,
        kind: Purge,
        clock: u64,
    ) -> bool {
        let era = self.era();
        if era.epoch() != epoch {
            return false;
        }
        names.for_each(|name| era.apply(name, kind, clock));
        // With the fence in `saw`: either that sees what was raised, or this sees that the history is over.
        fence(Ordering::SeqCst);
        self.epoch() == epoch
    }

    /// Whether this history was in force here once and is no more.
    pub(crate) fn is_over(&self, epoch: HistoryId) -> bool {
        self.retired().contains_key(&epoch)
    }

    /// Takes over what a reply of Redis said of these names.
    ///
    /// # Errors
    /// If it is of a history that is over: a connection to a Redis that was left for another one. It proves nothing.
    pub(crate) fn learn(
        &self,
        state: &State,
        names: &[InvalidationTarget],
        clocks: &Clocks,
    ) -> RedisResult<()> {
        self.saw(state);
        let era = self.era();
        if era.epoch() != state.epoch {
            return Err(over());
        }
        for (name, (hard, soft)) in names.iter().zip(clocks) {
            for (kind, clock) in [(Purge::Hard, *hard), (Purge::Soft, *soft)] {
                if clock > 0 {
                    era.apply(name, kind, clock);
                }
            }
        }
        Ok(())
    }

    fn retired(&self) -> MutexGuard<'_, HashMap<HistoryId, u64>> {
        self.retired.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether no Redis was ever found.
    pub(crate) fn is_alone(&self) -> bool {
        self.alone.load(Ordering::Acquire)
    }

    /// Whether this replica would have heard of any change acknowledged longer ago than `max_staleness`.
    pub(crate) fn is_trusted(&self, now: Micros) -> bool {
        now < self.trust_until.load(Ordering::Acquire)
    }

    /// Until when it is trusted, or when it lost its trust; zero if it never had any.
    pub(crate) fn trust_until(&self) -> Micros {
        self.trust_until.load(Ordering::Acquire)
    }

    /// Only for the subscriber: trusted until `until`, as far as `era` is still in force.
    pub(super) fn trust(&self, era: &History, until: Micros) {
        let _retired = self.retired();
        if self.epoch() == era.epoch() && !self.is_alone() {
            self.trust_until.fetch_max(until, Ordering::AcqRel);
            self.extended.notify_all();
        }
    }

    /// Waits until it is trusted, or `limit` has passed. Returns whether it is.
    pub(crate) fn wait_trusted(&self, clock: &Clock, limit: Duration) -> bool {
        let distrusted = |_: &mut _| !self.is_trusted(clock.now());
        drop(
            self.extended
                .wait_timeout_while(self.retired(), limit, distrusted),
        );
        self.is_trusted(clock.now())
    }

    /// What a value depends on, whose load has this stamp. If that is of another history than the one in force, it stays so for good.
    pub(crate) fn dependency(&self, stamp: Stamp, names: &Arc<[InvalidationTarget]>) -> Dependency {
        let era = self.era();
        Dependency {
            stamp,
            names: names.clone(),
            era: (era.epoch() == stamp.epoch).then_some(era),
        }
    }

    /// Whether anything that these depend on was invalidated since the history in force began: what is older than it, and stale by
    /// its resource's leave, falls with that.
    pub(crate) fn invalidated_since_reset<'d>(
        &self,
        dependencies: impl Iterator<Item = &'d Dependency> + Clone,
    ) -> bool {
        // First, as in `standing`.
        if self.pending.standing_in_the_way(dependencies.clone()) == Some(Purge::Hard) {
            return true;
        }
        let era = self.era.load();
        let hit = |name: &InvalidationTarget| era.last_of(name).is_some_and(|last| last.hard > 0);
        // What was invalidated in its own history stays so: that is still at hand.
        let before = |dependency: &Dependency| {
            let Stamp { epoch, clock, .. } = dependency.stamp;
            let own = dependency.era.as_ref();
            let gone = |name: &InvalidationTarget| {
                own?.since(name, clock).filter(|last| last.hard > clock)
            };
            dependency.names.iter().any(|name| gone(name).is_some())
                || self
                    .retired()
                    .get(&epoch)
                    .is_some_and(|hard_watermark| *hard_watermark > clock)
        };
        dependencies.clone().any(before)
            || era.hard_watermark.load(Ordering::Acquire) > era.begun
            || dependencies
                .flat_map(|dependency| dependency.names.iter())
                .any(hit)
    }

    /// What has become of what depends on these. Nothing is looked up and nothing is locked, unless an invalidation is pending or one of
    /// the names was perhaps invalidated since its load: see [`History::since`].
    pub(crate) fn standing<'d>(
        &self,
        dependencies: impl Iterator<Item = &'d Dependency> + Clone,
    ) -> Standing {
        // What is pending before the epoch and the names: one that is delivered meanwhile has its clock there before it ceases to be
        // pending. The other way round it could be seen in neither place.
        let pending = self.pending.standing_in_the_way(dependencies.clone());
        if pending == Some(Purge::Hard) {
            return Standing::Invalid;
        }
        let epoch = self.epoch();
        let mut standing = Standing::Valid;
        for dependency in dependencies {
            let clock = dependency.stamp.clock;
            let own = dependency.era.as_deref();
            let Some(era) = own.filter(|era| era.epoch() == epoch) else {
                return Standing::OtherHistory;
            };
            if era.hard_watermark.load(Ordering::Acquire) > clock {
                return Standing::Invalid;
            }
            let mut soft = era.soft_watermark.load(Ordering::Acquire);
            for last in dependency
                .names
                .iter()
                .filter_map(|name| era.since(name, clock))
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
