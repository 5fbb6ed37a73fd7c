//! Where invalidations come from, and how many targets each brought.

use std::sync::atomic::{AtomicU64, Ordering};

use super::target::Purge;

/// Where an invalidation comes from, as this replica sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum InvalidationOrigin {
    /// This replica: a write, or a request to invalidate.
    Here,
    /// Another replica, whose message this one has heard or found in the log.
    Heard,
    /// The outbox of a database, which this replica delivers.
    Outbox,
}

impl InvalidationOrigin {
    /// All origins.
    pub const ALL: [InvalidationOrigin; 3] = [
        InvalidationOrigin::Here,
        InvalidationOrigin::Heard,
        InvalidationOrigin::Outbox,
    ];

    /// The word for it in a metric.
    pub fn word(self) -> &'static str {
        match self {
            InvalidationOrigin::Here => "here",
            InvalidationOrigin::Heard => "heard",
            InvalidationOrigin::Outbox => "outbox",
        }
    }
}

/// How many targets were invalidated, by origin and purge.
#[derive(Debug, Default)]
pub(crate) struct InvalidatedTargets(
    [[AtomicU64; Purge::ALL.len()]; InvalidationOrigin::ALL.len()],
);

impl InvalidatedTargets {
    pub(crate) fn count(&self, origin: InvalidationOrigin, purge: Purge, targets: usize) {
        let count = &self.0[origin as usize][purge as usize];
        count.fetch_add(targets as u64, Ordering::Relaxed);
    }

    pub(crate) fn of(&self, origin: InvalidationOrigin, purge: Purge) -> u64 {
        self.0[origin as usize][purge as usize].load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_origin_and_purge_has_its_count() {
        let targets = InvalidatedTargets::default();
        let mut number = 0;
        for origin in InvalidationOrigin::ALL {
            for purge in Purge::ALL {
                number += 1;
                targets.count(origin, purge, number);
                targets.count(origin, purge, number);
            }
        }
        let all =
            InvalidationOrigin::ALL.map(|origin| Purge::ALL.map(|purge| targets.of(origin, purge)));
        assert_eq!(all, [[2, 4], [6, 8], [10, 12]]);
    }
}
