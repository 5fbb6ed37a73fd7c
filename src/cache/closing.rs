//! Closing: how the threads of a cache learn that its last clone is gone.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// See the module. One is shared by a cache and its bus.
#[derive(Debug, Default)]
pub(crate) struct Closing {
    /// Whether the cache is closed. Held for the time of a look.
    closed: Mutex<bool>,
    told: Condvar,
}

impl Closing {
    fn lock(&self) -> MutexGuard<'_, bool> {
        self.closed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells every thread that looks or pauses.
    pub(crate) fn close(&self) {
        *self.lock() = true;
        self.told.notify_all();
    }

    pub(crate) fn is_closed(&self) -> bool {
        *self.lock()
    }

    /// Pauses for `limit`, or until the cache is closed.
    pub(crate) fn pause(&self, limit: Duration) {
        let wait = self
            .told
            .wait_timeout_while(self.lock(), limit, |closed| !*closed);
        drop(wait);
    }
}
