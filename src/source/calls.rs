//! The calls to one upstream, counted by how they ended.

use std::sync::atomic::{AtomicU64, Ordering};

use larder_cache::LoadError;

/// Counters of the calls since this process started.
#[derive(Debug, Default)]
pub struct Calls {
    usable: AtomicU64,
    failed: AtomicU64,
    timed_out: AtomicU64,
    paused: AtomicU64,
    spent: AtomicU64,
}

impl Calls {
    /// Counts a call by how it ended. A call that the quota did not allow was not made, and counts
    /// as spent.
    pub(super) fn count<T>(&self, ended: &Result<T, LoadError>) {
        let counter = match ended {
            Ok(_) => &self.usable,
            Err(LoadError::TooSlow(_)) => &self.timed_out,
            Err(LoadError::Paused { .. }) => &self.paused,
            Err(LoadError::Spent { .. }) => &self.spent,
            Err(_) => &self.failed,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// How many there were of each result. `ok`: an answer that could be used, absence included.
    pub fn by_result(&self) -> [(&'static str, u64); 5] {
        [
            ("ok", &self.usable),
            ("failed", &self.failed),
            ("timed_out", &self.timed_out),
            ("paused", &self.paused),
            ("spent", &self.spent),
        ]
        .map(|(result, counter)| (result, counter.load(Ordering::Relaxed)))
    }
}
