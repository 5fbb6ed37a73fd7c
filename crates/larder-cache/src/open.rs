//! An open cache. It is closed when the last of its clones is dropped.

use std::sync::Arc;
use std::time::Duration;

use super::bus::Bus;
use super::tiers::Tiers;

/// How long closing waits for pending invalidations, unless the builder says otherwise.
pub(super) const DELIVERY: Duration = Duration::from_secs(1);

/// See the module. Every clone of a cache has it. No thread of the cache has it, except a load that
/// was given a clone.
pub(super) struct Open {
    tiers: Arc<Tiers>,
    bus: Arc<Bus>,
    /// How long closing may wait.
    pub(super) delivery: Duration,
}

impl Open {
    pub(super) fn new(tiers: Arc<Tiers>, bus: Arc<Bus>) -> Open {
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
        if let Some(audit) = &self.tiers.audit {
            audit.close();
        }
        // Loads first: a read that ends with the tier must not begin a load.
        self.tiers.loaders.close();
        self.tiers.redis.close();
    }
}
