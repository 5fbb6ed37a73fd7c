//! Invalidation: here at once, then through Redis on every replica.
//!
//! Invariant: a target is pending before Redis is asked, and until its clock is in the mirror. So
//! there is no moment after the call at which this replica serves what was loaded before it.

use super::bus::{Bus, MOST_TARGETS};
use super::coherence::{Batch, Invalidated, InvalidationOrigin, InvalidationTarget, Purge};
use super::redis_tier::commands::RedisCommand;
use super::redis_tier::fault::retired;
use super::tiers::Tiers;

/// Targets in one script. Many more would hold up everybody else in Redis, and take longer than a
/// reply may take.
const TARGETS_AT_ONCE: usize = 1000;

/// An invalidation that holds on this replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidationReceipt {
    /// Its clock. A read elsewhere can ask for an answer that is not older. `None`: pending.
    pub clock: Option<u64>,
}

impl InvalidationReceipt {
    /// Whether it holds on this replica only, until Redis takes it.
    pub fn is_pending(&self) -> bool {
        self.clock.is_none()
    }
}

/// See [`Cache::invalidate_from`](super::Cache::invalidate_from).
pub(crate) fn invalidate(
    tiers: &Tiers,
    bus: &Bus,
    origin: InvalidationOrigin,
    targets: &[InvalidationTarget],
    purge: Purge,
) -> InvalidationReceipt {
    let mut receipt = InvalidationReceipt {
        clock: Some(tiers.mirror.history().applied()),
    };
    // All of them here first, and only then the first of them elsewhere.
    let batches: Vec<Batch> = targets
        .chunks(TARGETS_AT_ONCE)
        .map(|targets| tiers.mirror.pending.begin(targets, purge))
        .collect();
    let batches = UnsentBatches { tiers, batches };
    bus.invalidated().count(origin, purge, targets.len());
    for batch in &batches.batches {
        let taken = send(tiers, bus, batch, &[]);
        bus.notify(batch.targets(), purge);
        // Pending if any of its batches is.
        receipt.clock = receipt.clock.and(taken.map(|taken| taken.clock));
    }
    receipt
}

/// Sends one batch that is pending already, and asks for the earlier clocks of `names`. `None`:
/// Redis has not taken it.
pub(crate) fn send(
    tiers: &Tiers,
    bus: &Bus,
    batch: &Batch,
    names: &[InvalidationTarget],
) -> Option<Invalidated> {
    let (mirror, pool) = (&tiers.mirror, tiers.redis.pool());
    if mirror.is_alone() && !pool.is_configured() {
        return Some(apply_alone(tiers, bus, batch, names));
    }
    if pool.is_configured() {
        // Before the first look Redis is not known to be down. What is not delivered now may be
        // lost with this process.
        pool.wait_first_look(pool.longest_look());
    }
    // A repeated invalidation does no harm, so a connection that was cut while it was idle is no
    // reason to leave it pending.
    let sent = pool.read_as(RedisCommand::Invalidate, |connection| {
        let (origin, log_length) = (bus.replica(), bus.log_length());
        let scripts = bus.scripts();
        let taken = scripts.invalidate(connection, batch, origin, log_length, names)?;
        // A Redis that was left for another one. Replicas of the other one do not hear of it.
        if mirror.is_retired(taken.earlier.state.history) {
            return Err(retired());
        }
        Ok(taken)
    });
    match sent {
        Ok(taken) => {
            if !mirror.confirm(batch, taken.earlier.state.history, taken.clock) {
                // The history is new here. The batch stays pending until the bus knows that
                // history, and is delivered once more.
                mirror.pending.fail(batch);
            }
            Some(taken)
        }
        Err(down) => {
            // One warning for an outage, whoever goes on invalidating.
            let level = if mirror.pending.fail(batch) {
                log::Level::Warn
            } else {
                log::Level::Debug
            };
            log::log!(
                level,
                "invalidated here only, until Redis takes it ({down}); targets: {}",
                batch.targets.len()
            );
            None
        }
    }
}

/// Invalidates in a process that is alone.
fn apply_alone(
    tiers: &Tiers,
    bus: &Bus,
    batch: &Batch,
    names: &[InvalidationTarget],
) -> Invalidated {
    let _turn = tiers.mirror.turn.lock();
    let history = tiers.mirror.history();
    let earlier = history.recall(names);
    let clock = (history.applied() + 1).max(tiers.clock.now());
    for target in batch.targets() {
        history.apply(target, batch.purge, clock);
    }
    history.advance(clock);
    history.make_room(MOST_TARGETS, clock.saturating_sub(bus.remembered()));
    // If a Redis appeared meanwhile, a new history began, in which nothing of this one is left.
    tiers.mirror.pending.settle(batch);
    Invalidated { clock, earlier }
}

/// Batches that are pending. If a listener panics, the bus delivers those that were not sent.
pub(crate) struct UnsentBatches<'c> {
    pub(crate) tiers: &'c Tiers,
    pub(crate) batches: Vec<Batch>,
}

impl Drop for UnsentBatches<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for batch in &self.batches {
                self.tiers.mirror.pending.fail(batch);
            }
        }
    }
}
