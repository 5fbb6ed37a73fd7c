//! Permits for writes: how many changes may run at one time.
//!
//! Promise: writes that wait for one locked row never occupy all connections. A pool of two or more
//! keeps at least one connection for reads, and a large pool keeps a quarter.

use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// The permits of one pool.
pub(super) struct WritePermits {
    /// Protects the count of free permits.
    free: Mutex<u32>,
    freed: Condvar,
}

impl WritePermits {
    /// The permits of a pool with this many connections.
    pub(super) fn of_pool(size: u32) -> WritePermits {
        let reads = (size / 4).max(1);
        WritePermits {
            free: Mutex::new(size.saturating_sub(reads).max(1)),
            freed: Condvar::new(),
        }
    }

    /// Waits for a permit. `None` if none is free within `limit`.
    pub(super) fn acquire(&self, limit: Duration) -> Option<WritePermit<'_>> {
        let mut free = self.free.lock();
        self.freed
            .wait_while_for(&mut free, |free| *free == 0, limit);
        *free = free.checked_sub(1)?;
        Some(WritePermit(self))
    }
}

/// A permit, which is free again when this is dropped.
pub(super) struct WritePermit<'a>(&'a WritePermits);

impl Drop for WritePermit<'_> {
    fn drop(&mut self) {
        *self.0.free.lock() += 1;
        self.0.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_of_a_pool_is_for_reads_and_a_permit_comes_back() {
        for (size, writes) in [(0, 1), (1, 1), (2, 1), (3, 2), (4, 3), (8, 6), (100, 75)] {
            let permits = WritePermits::of_pool(size);
            let acquire = || permits.acquire(Duration::ZERO);
            let mut acquired: Vec<_> = std::iter::from_fn(acquire).collect();
            assert_eq!(acquired.len(), writes, "{size}");
            acquired.pop();
            assert!(acquire().is_some());
        }
    }
}
