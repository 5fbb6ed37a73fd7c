//! An open cache: closed when the last of its clones is dropped.

use std::sync::Arc;
use std::time::Duration;

use super::coherence::bus::BusParts;
use super::tiers::Tiers;

/// How long closing waits for pending invalidations to be delivered, unless the builder says
/// otherwise.
pub(super) const DELIVERY: Duration = Duration::from_secs(1);

/// See the module. Every clone of a cache holds it; nothing that a thread of the cache runs does,
/// but for a load that was given a clone.
pub(super) struct Open {
    tiers: Arc<Tiers>,
    bus: Arc<BusParts>,
    /// How long closing may wait.
    pub(super) delivery: Duration,
}

impl Open {
    pub(super) fn new(tiers: Arc<Tiers>, bus: Arc<BusParts>) -> Open {
        Open {
            tiers,
            bus,
            delivery: DELIVERY,
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let pending = &self.tiers.mirror.pending;
        if !pending.wait_empty(self.delivery) {
            log::warn!(
                "{} pending invalidations are lost: Redis did not take them within {:?}",
                pending.len(),
                self.delivery
            );
        }
        self.bus.close();
        // Loads first: what a read that is given up would load has no place any more.
        self.tiers.loaders.close();
        self.tiers.redis.close();
    }
}
