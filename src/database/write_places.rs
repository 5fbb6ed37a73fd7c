//! The places of writes: how many changes may be at work at one time.
//!
//! Promise: writes that wait for one locked row never hold all connections: of a pool of two or more at least one, and of a large
//! one a quarter, is left to reads. Refuses nothing at once: who finds no place waits for one.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

/// The places that are free, of those that a pool has for writes.
pub(super) struct WritePlaces {
    free: Mutex<u32>,
    freed: Condvar,
}

impl WritePlaces {
    /// Those of a pool of so many connections.
    pub(super) fn of_pool(size: u32) -> WritePlaces {
        let reads = (size / 4).max(1);
        WritePlaces {
            free: Mutex::new(size.saturating_sub(reads).max(1)),
            freed: Condvar::new(),
        }
    }

    /// A place, once there is one; `None` if there is none within `limit`.
    pub(super) fn take(&self, limit: Duration) -> Option<WritePlace<'_>> {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self
            .freed
            .wait_timeout_while(free, limit, |free| *free == 0);
        let (mut free, _) = waited.unwrap_or_else(PoisonError::into_inner);
        *free = free.checked_sub(1)?;
        Some(WritePlace(self))
    }
}

/// A place that is taken, until it is dropped.
pub(super) struct WritePlace<'a>(&'a WritePlaces);

impl Drop for WritePlace<'_> {
    fn drop(&mut self) {
        *self.0.free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.0.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_of_a_pool_is_for_reads_and_a_place_comes_back() {
        for (size, writes) in [(0, 1), (1, 1), (2, 1), (3, 2), (4, 3), (8, 6), (100, 75)] {
            let places = WritePlaces::of_pool(size);
            let mut taken: Vec<_> = std::iter::from_fn(|| places.take(Duration::ZERO)).collect();
            assert_eq!(taken.len(), writes, "{size}");
            taken.pop();
            assert!(places.take(Duration::ZERO).is_some());
        }
    }
}
