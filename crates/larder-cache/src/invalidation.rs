//! Invalidation: here at once, then through Redis to everybody.
//!
//! Invariant: a name stands in the overlay before Redis is asked and until it has a clock in the mirror, so that there is no moment
//! after the call at which this replica serves what was loaded before.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Cache;
use super::coherence::bus::{Listener, MOST_NAMES};
use super::coherence::{Batch, InvalidationTarget, Purge};
use super::redis_tier::fault::over;

/// Names in one script: many more would hold up everybody else in Redis, and outlast the time a reply may take.
const NAMES_AT_ONCE: usize = 1000;

/// An invalidation that is in force here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidationReceipt {
    /// Its clock, by which a read elsewhere can ask not to be older. `None`: pending.
    pub clock: Option<u64>,
}

impl InvalidationReceipt {
    /// Whether it holds on this replica only, until Redis can be told.
    pub fn is_pending(&self) -> bool {
        self.clock.is_none()
    }
}

impl Cache {
    /// Invalidates what these names speak of, here at once and on every replica within `max_staleness`.
    /// Blocks for a round trip to Redis, and one more for each thousand names; in a cache that has
    /// just been made also until a configured Redis was looked for once, for four times what a
    /// connection may take at most: a second by default. While Redis cannot take it, it holds here
    /// and waits to be delivered; [`Cache::wait_delivered`] waits for that, and so does dropping
    /// the last clone. No names are no invalidation: acknowledged with the clock that was heard
    /// last.
    pub fn invalidate(&self, names: &[InvalidationTarget], kind: Purge) -> InvalidationReceipt {
        let mut done = InvalidationReceipt {
            clock: Some(self.tiers.mirror.era().last()),
        };
        // All of them here first, and only then the first of them elsewhere.
        let batches: Vec<Batch> = names
            .chunks(NAMES_AT_ONCE)
            .map(|some| self.tiers.mirror.pending.begin(some, kind))
            .collect();
        let unsent = Unsent {
            cache: self,
            batches: &batches,
        };
        for (some, batch) in names.chunks(NAMES_AT_ONCE).zip(&batches) {
            let clock = self.send(some, kind, batch);
            // Pending as a whole where any of them is.
            done.clock = done.clock.and(clock);
        }
        drop(unsent);
        done
    }

    /// Waits until Redis has taken every invalidation that is pending, or `limit` has passed.
    /// Returns whether none is pending.
    pub fn wait_delivered(&self, limit: Duration) -> bool {
        self.tiers.mirror.pending.wait_empty(limit)
    }

    /// One invalidation of names that stand in the overlay as `batch`. Returns its clock, if Redis has taken it.
    fn send(&self, names: &[InvalidationTarget], kind: Purge, batch: &Batch) -> Option<u64> {
        let (tiers, bus) = (&self.tiers, &self.bus);
        if tiers.mirror.is_alone() && !tiers.redis.pool().is_configured() {
            let era = tiers.mirror.era();
            let clock = (era.last() + 1).max(tiers.clock.now());
            names.iter().for_each(|name| era.apply(name, kind, clock));
            era.heard(clock);
            let kept = bus.longest_life.load(Ordering::Relaxed);
            era.make_room(MOST_NAMES, clock.saturating_sub(kept));
            // A Redis that appeared meanwhile began a history in which nothing of the old one is left.
            tiers.mirror.pending.settle(batch);
            self.tell_listeners(names, kind);
            return Some(clock);
        }
        if tiers.redis.pool().is_configured() {
            // Nothing is known to be down before the first look: what is not delivered now may end
            // with its process.
            tiers
                .redis
                .pool()
                .wait_first_look(tiers.redis.pool().longest_look());
        }
        let length = bus.settings.log_length;
        // Done twice it does no harm, so a connection that was cut while it lay in the pool is no
        // reason to leave it pending.
        let sent = tiers.redis.pool().read(|connection| {
            let (epoch, clock) = bus.scripts.invalidate(
                connection,
                kind,
                names.iter().cloned(),
                &bus.replica,
                length,
            )?;
            // A Redis that was left for another one has taken it: nobody who is with the other one hears of that.
            if tiers.mirror.is_over(epoch) {
                return Err(over());
            }
            Ok((epoch, clock))
        });
        let clock = match sent {
            Ok((epoch, clock)) => {
                if tiers.mirror.applied(epoch, names.iter(), kind, clock) {
                    tiers.mirror.pending.settle(batch);
                } else {
                    // A history that is not known here yet: until the bus knows it, the batch stands in the way, and is delivered
                    // once more.
                    tiers.mirror.pending.fail(batch);
                }
                Some(clock)
            }
            Err(down) => {
                // One line for an outage, whoever goes on invalidating.
                let level = if tiers.mirror.pending.fail(batch) {
                    log::Level::Warn
                } else {
                    log::Level::Debug
                };
                log::log!(
                    level,
                    "{} names are invalidated here only, until Redis can be told: {down}",
                    names.len()
                );
                None
            }
        };
        self.tell_listeners(names, kind);
        clock
    }

    fn tell_listeners(&self, names: &[InvalidationTarget], kind: Purge) {
        let listeners = self
            .bus
            .listeners
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        names
            .iter()
            .for_each(|name| listeners.iter().for_each(|listener| listener(name, kind)));
    }

    /// Has `listener` told of each name that is invalidated, here or elsewhere. It must not block.
    /// A listener that holds a clone of the cache keeps it open for ever.
    pub fn on_invalidation(
        &self,
        listener: impl Fn(&InvalidationTarget, Purge) + Send + Sync + 'static,
    ) {
        let listener: Listener = Box::new(listener);
        self.bus
            .listeners
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(listener);
    }
}

/// Batches that stand in the overlay. What is neither settled nor failed when this is dropped, since a listener has panicked, is left
/// to the bus to deliver.
struct Unsent<'a> {
    cache: &'a Cache,
    batches: &'a [Batch],
}

impl Drop for Unsent<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let pending = &self.cache.tiers.mirror.pending;
            self.batches.iter().for_each(|batch| {
                pending.fail(batch);
            });
        }
    }
}
