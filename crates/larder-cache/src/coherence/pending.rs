//! Invalidations that Redis has not taken yet.
//!
//! While one waits, its names stand in the way of everything here that was loaded before it, by a counter of this process: no
//! clock of Redis's exists for it yet. A value that came from elsewhere has no place in that count, and is refused as well.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::mirror::Dependency;
use super::name::{InvalidationTarget, Purge};

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    /// Invalidations that this process has begun, those that were taken at once included.
    begun: AtomicU64,
    /// How many wait: read on every hit, before anything is locked.
    waiting: AtomicUsize,
    /// The latest of each name and kind.
    names: Mutex<Waiting>,
    /// Told when something was settled; its lock is `names`.
    settled: Condvar,
}

type Waiting = HashMap<(InvalidationTarget, Purge), Wait>;

#[derive(Clone, Copy, Debug)]
struct Wait {
    /// Its place in this process's count.
    begun: u64,
    /// Whether its own call to Redis failed: until then it is that call's to deliver, and a second one would only come later and
    /// invalidate what was loaded in between.
    failed: bool,
}

/// Invalidations to be delivered together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Batch {
    pub(crate) kind: Purge,
    /// Each with its place in this process's count.
    pub(crate) names: Vec<(InvalidationTarget, u64)>,
}

impl Pending {
    /// How many invalidations this process has begun.
    pub(crate) fn begun(&self) -> u64 {
        self.begun.load(Ordering::Acquire)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.load(Ordering::Acquire) == 0
    }

    /// Names that wait.
    pub(crate) fn len(&self) -> usize {
        self.waiting.load(Ordering::Acquire)
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on these names stand in the way of what was loaded before.
    pub(crate) fn begin(&self, names: &[InvalidationTarget], kind: Purge) -> Batch {
        let mut waiting = self.lock();
        // Under the lock, so that a load that begins now is either counted before or finds the names here.
        let begun = self.begun.fetch_add(1, Ordering::AcqRel) + 1;
        let names: Vec<(InvalidationTarget, u64)> =
            names.iter().map(|name| (name.clone(), begun)).collect();
        for (name, begun) in &names {
            waiting.insert(
                (name.clone(), kind),
                Wait {
                    begun: *begun,
                    failed: false,
                },
            );
        }
        self.waiting.store(waiting.len(), Ordering::Release);
        Batch { kind, names }
    }

    /// Redis has not taken these: they are to be delivered later. Returns whether there was nothing of that kind before.
    pub(crate) fn fail(&self, batch: &Batch) -> bool {
        let mut waiting = self.lock();
        let first = !waiting.values().any(|wait| wait.failed);
        for (name, begun) in &batch.names {
            if let Some(wait) = waiting.get_mut(&(name.clone(), batch.kind))
                && wait.begun == *begun
            {
                wait.failed = true;
            }
        }
        first
    }

    /// Redis has taken these. A later one of the same name goes on waiting.
    pub(crate) fn settle(&self, batch: &Batch) {
        let mut waiting = self.lock();
        for (name, begun) in &batch.names {
            let key = (name.clone(), batch.kind);
            if waiting.get(&key).is_some_and(|wait| wait.begun == *begun) {
                waiting.remove(&key);
            }
        }
        self.waiting.store(waiting.len(), Ordering::Release);
        self.settled.notify_all();
    }

    /// Waits until nothing waits, or `limit` has passed. Returns whether nothing does.
    pub(crate) fn wait_empty(&self, limit: Duration) -> bool {
        if self.is_empty() {
            return true;
        }
        let (waiting, _) = self
            .settled
            .wait_timeout_while(self.lock(), limit, |waiting| !waiting.is_empty())
            .unwrap_or_else(PoisonError::into_inner);
        waiting.is_empty()
    }

    /// What waits to be delivered, of each kind.
    pub(crate) fn batches(&self, most: usize) -> Vec<Batch> {
        let waiting = self.lock();
        let of = |kind| {
            let names: Vec<(InvalidationTarget, u64)> = waiting
                .iter()
                .filter(|((_, of), wait)| *of == kind && wait.failed)
                .take(most)
                .map(|((name, _), wait)| (name.clone(), wait.begun))
                .collect();
            (!names.is_empty()).then_some(Batch { kind, names })
        };
        [Purge::Hard, Purge::Soft]
            .into_iter()
            .filter_map(of)
            .collect()
    }

    /// The strictest kind that waits for a name of these, begun after their loads. Locks nothing while nothing waits.
    pub(crate) fn standing_in_the_way<'d>(
        &self,
        dependencies: impl Iterator<Item = &'d Dependency> + Clone,
    ) -> Option<Purge> {
        if self.is_empty() {
            return None;
        }
        let waiting = self.lock();
        let stands = |kind: Purge| {
            dependencies.clone().any(|dependency| {
                let after = |name: &InvalidationTarget| {
                    waiting
                        .get(&(name.clone(), kind))
                        .is_some_and(|wait| wait.begun > dependency.stamp.begun)
                };
                after(&InvalidationTarget::everything()) || dependency.names.iter().any(after)
            })
        };
        [Purge::Hard, Purge::Soft]
            .into_iter()
            .find(|kind| stands(*kind))
    }
}
