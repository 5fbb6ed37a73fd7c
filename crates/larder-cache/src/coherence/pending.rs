//! Pending invalidations: those that this process has begun and Redis has not confirmed yet.
//!
//! A pending invalidation has no clock of Redis yet. It is ordered by a sequence number of this
//! process instead. While it is pending, it blocks everything here that was loaded before it began,
//! and every value that carries one of its targets and was loaded by another process.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::dependency::Dependency;
use super::target::{InvalidationTarget, Purge};

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    /// How many invalidations this process has begun, those confirmed at once included.
    sequence: AtomicU64,
    /// The length of `queue`. Every memory hit reads it before anything is locked.
    count: AtomicUsize,
    /// The latest of each target and purge.
    queue: Mutex<Queue>,
    /// Notified when something was settled. Its lock is `queue`.
    settled: Condvar,
}

type Queue = HashMap<(InvalidationTarget, Purge), Queued>;

#[derive(Clone, Copy, Debug)]
struct Queued {
    sequence: u64,
    /// Whether its own call to Redis failed, so that the bus has to deliver it. Until then that
    /// call delivers it. A second delivery would come later and invalidate what was loaded in
    /// between.
    failed: bool,
}

/// Invalidations that are sent to Redis together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Batch {
    pub(crate) purge: Purge,
    /// Each target with its sequence number.
    pub(crate) targets: Vec<(InvalidationTarget, u64)>,
}

impl Batch {
    pub(crate) fn targets(&self) -> impl Iterator<Item = &InvalidationTarget> {
        self.targets.iter().map(|(target, _)| target)
    }
}

impl Pending {
    /// How many invalidations this process has begun.
    pub(crate) fn sequence(&self) -> u64 {
        self.sequence.load(Ordering::Acquire)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many targets are pending.
    pub(crate) fn len(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    /// From now on these targets block everything that was loaded before.
    pub(crate) fn begin(&self, targets: &[InvalidationTarget], purge: Purge) -> Batch {
        self.begin_locked(&mut self.queue.lock(), targets, purge)
    }

    /// The same, a hard one, for a target whose new value is at hand. `value` is what that depends
    /// on, stamped before it was read. Returns also the strictest purge that is pending and began
    /// after the stamp.
    pub(crate) fn begin_insert(
        &self,
        target: &InvalidationTarget,
        value: &Dependency,
    ) -> (Batch, Option<Purge>) {
        let mut queue = self.queue.lock();
        let after_stamp = strictest(&queue, std::iter::once(value));
        let batch = self.begin_locked(&mut queue, std::slice::from_ref(target), Purge::Hard);
        (batch, after_stamp)
    }

    fn begin_locked(
        &self,
        queue: &mut Queue,
        targets: &[InvalidationTarget],
        purge: Purge,
    ) -> Batch {
        // Under the lock: a load that begins now either has a lower number or finds the targets.
        let sequence = self.sequence.fetch_add(1, Ordering::AcqRel) + 1;
        let failed = false;
        for target in targets {
            queue.insert((target.clone(), purge), Queued { sequence, failed });
        }
        self.count.store(queue.len(), Ordering::Release);
        let targets = targets.iter().map(|target| (target.clone(), sequence));
        Batch {
            purge,
            targets: targets.collect(),
        }
    }

    /// Redis has not taken this batch: the bus delivers it later. Returns whether nothing else
    /// waits for delivery.
    pub(crate) fn fail(&self, batch: &Batch) -> bool {
        let mut queue = self.queue.lock();
        let first = !queue.values().any(|queued| queued.failed);
        for (target, sequence) in &batch.targets {
            if let Some(queued) = queue.get_mut(&(target.clone(), batch.purge))
                && queued.sequence == *sequence
            {
                queued.failed = true;
            }
        }
        first
    }

    /// Redis has taken this batch. A later invalidation of the same target stays pending.
    pub(crate) fn settle(&self, batch: &Batch) {
        let mut queue = self.queue.lock();
        for (target, sequence) in &batch.targets {
            let key = (target.clone(), batch.purge);
            let queued = queue.get(&key);
            if queued.is_some_and(|queued| queued.sequence == *sequence) {
                queue.remove(&key);
            }
        }
        self.count.store(queue.len(), Ordering::Release);
        self.settled.notify_all();
    }

    /// Waits until nothing is pending, or `limit` has passed. Returns whether nothing is.
    pub(crate) fn wait_empty(&self, limit: Duration) -> bool {
        if self.is_empty() {
            return true;
        }
        let mut queue = self.queue.lock();
        self.settled
            .wait_while_for(&mut queue, |queue| !queue.is_empty(), limit);
        queue.is_empty()
    }

    /// What the bus has to deliver: at most `most` targets of each purge.
    pub(crate) fn to_deliver(&self, most: usize) -> Vec<Batch> {
        let queue = self.queue.lock();
        let batch = |purge| {
            let targets: Vec<(InvalidationTarget, u64)> = queue
                .iter()
                .filter(|((_, of), queued)| *of == purge && queued.failed)
                .take(most)
                .map(|((target, _), queued)| (target.clone(), queued.sequence))
                .collect();
            (!targets.is_empty()).then_some(Batch { purge, targets })
        };
        [Purge::Hard, Purge::Soft]
            .into_iter()
            .filter_map(batch)
            .collect()
    }

    /// The strictest pending purge of what depends on these. Takes no lock while nothing is
    /// pending.
    #[inline(always)]
    pub(crate) fn blocks<'d>(
        &self,
        dependencies: impl Iterator<Item = &'d Dependency> + Clone,
    ) -> Option<Purge> {
        if self.is_empty() {
            return None;
        }
        self.strictest_in_queue(dependencies)
    }

    /// Apart from [`Pending::blocks`], so that a memory hit makes no call while nothing is pending.
    #[cold]
    fn strictest_in_queue<'d>(
        &self,
        dependencies: impl Iterator<Item = &'d Dependency> + Clone,
    ) -> Option<Purge> {
        strictest(&self.queue.lock(), dependencies)
    }
}

/// The strictest purge in the queue of what depends on these.
fn strictest<'d>(
    queue: &Queue,
    dependencies: impl Iterator<Item = &'d Dependency> + Clone,
) -> Option<Purge> {
    let blocked_by = |purge: Purge| {
        dependencies.clone().any(|dependency| {
            let began_later = |target: &InvalidationTarget| {
                queue
                    .get(&(target.clone(), purge))
                    .is_some_and(|queued| queued.sequence > dependency.stamp.sequence)
            };
            began_later(&InvalidationTarget::everything())
                || dependency.names.iter().any(began_later)
        })
    };
    [Purge::Hard, Purge::Soft]
        .into_iter()
        .find(|purge| blocked_by(*purge))
}

#[cfg(test)]
mod tests {
    use super::super::dependency::Stamp;
    use super::super::history_id::HistoryId;
    use super::*;

    fn tags(names: &[&str]) -> Vec<InvalidationTarget> {
        names
            .iter()
            .map(|name| InvalidationTarget::tag(name))
            .collect()
    }

    /// What depends on `name` and was loaded when this process had begun `sequence` invalidations.
    fn loaded(sequence: u64, name: &str) -> Dependency {
        let stamp = Stamp {
            history: HistoryId(1),
            clock: 10,
            sequence,
        };
        Dependency::unknown(stamp, tags(&[name]).into())
    }

    fn blocks(pending: &Pending, dependency: &Dependency) -> Option<Purge> {
        pending.blocks([dependency].into_iter())
    }

    #[test]
    fn a_pending_invalidation_blocks_what_was_loaded_before_it() {
        let pending = Pending::default();
        let before = loaded(pending.sequence(), "a");
        assert_eq!(blocks(&pending, &before), None);
        let batch = pending.begin(&tags(&["a"]), Purge::Hard);
        assert_eq!(blocks(&pending, &before), Some(Purge::Hard));
        assert_eq!(blocks(&pending, &loaded(0, "a")), Some(Purge::Hard));
        let after = loaded(pending.sequence(), "a");
        assert_eq!(blocks(&pending, &after), None);
        assert_eq!(blocks(&pending, &loaded(0, "b")), None);
        pending.settle(&batch);
        assert_eq!((blocks(&pending, &before), pending.len()), (None, 0));
    }

    #[test]
    fn a_pending_purge_of_everything_blocks_every_target() {
        let pending = Pending::default();
        pending.begin(&[InvalidationTarget::everything()], Purge::Soft);
        assert_eq!(blocks(&pending, &loaded(0, "a")), Some(Purge::Soft));
        pending.begin(&tags(&["a"]), Purge::Hard);
        let strictest = blocks(&pending, &loaded(0, "a"));
        assert_eq!(strictest, Some(Purge::Hard));
    }

    #[test]
    fn only_what_redis_refused_is_delivered_later() {
        let pending = Pending::default();
        let refused = pending.begin(&tags(&["a"]), Purge::Hard);
        let under_way = pending.begin(&tags(&["b"]), Purge::Soft);
        assert!(pending.to_deliver(10).is_empty());
        assert!(pending.fail(&refused), "the first of an outage");
        assert!(!pending.fail(&under_way), "not the first");
        assert_eq!(pending.to_deliver(10), [refused.clone(), under_way]);
        let many = pending.begin(&tags(&["c", "d", "e"]), Purge::Hard);
        pending.fail(&many);
        let sizes = pending.to_deliver(2);
        let sizes: Vec<usize> = sizes.iter().map(|batch| batch.targets.len()).collect();
        assert_eq!(sizes, [2, 1], "at most two of each purge");
    }

    #[test]
    fn a_later_invalidation_of_the_same_target_stays_pending() {
        let pending = Pending::default();
        let first = pending.begin(&tags(&["a"]), Purge::Hard);
        pending.fail(&first);
        let later = pending.begin(&tags(&["a"]), Purge::Hard);
        pending.settle(&first);
        let between = loaded(1, "a");
        assert_eq!(blocks(&pending, &between), Some(Purge::Hard));
        pending.fail(&first);
        assert!(
            pending.to_deliver(10).is_empty(),
            "the later call delivers it"
        );
        pending.settle(&later);
        assert!(pending.is_empty() && pending.wait_empty(Duration::ZERO));
    }

    #[test]
    fn waiting_ends_when_the_last_pending_invalidation_is_settled() {
        let pending = Pending::default();
        let batch = pending.begin(&tags(&["a"]), Purge::Hard);
        assert!(!pending.wait_empty(Duration::ZERO));
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| pending.wait_empty(Duration::from_secs(60)));
            pending.settle(&batch);
            assert!(waiter.join().unwrap());
        });
    }
}
