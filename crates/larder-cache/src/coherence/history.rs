//! One history: an unbroken run of the record of invalidations that Redis keeps.
//!
//! A history has a random [`HistoryId`] and a clock that each invalidation advances. When Redis
//! loses its data or gets old data back, a new history begins. It is a new [`History`] here, so no
//! clock of the old one can be compared with a clock of the new one.
//!
//! A history knows the clocks of the last invalidations of each target. It also keeps a fixed
//! number of slots; a slot holds the highest clock of all targets with the same hash. A memory hit
//! reads the slots of its targets. It looks up a target itself only if the slot is later than its
//! load.
//!
//! Invariants:
//! - Slots, clocks and watermarks only grow.
//! - A target is stored before its slot is raised.
//! - Before a target is forgotten, the hard watermark is raised to its last invalidation.
//! - Only the subscriber advances `applied`. A replica's own invalidation and a reply of the pool
//!   are applied at once and leave `applied` alone. Otherwise a message that was lost before them
//!   would look as if it had arrived.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::RwLock;

use super::history_id::HistoryId;
use super::message::{Echo, Message};
use super::target::{InvalidationTarget, Purge};

/// In tests there are few shards and slots: the model makes millions of histories.
const SHARDS: usize = if cfg!(test) { 2 } else { 16 };
/// Half a megabyte of slots. After as many invalidations as there are slots, two of three hits that
/// were loaded before them look up a target.
pub(super) const SLOTS: usize = if cfg!(test) { 1 << 6 } else { 1 << 16 };

/// The state of a history as a reply of Redis gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HistoryState {
    pub(crate) history: HistoryId,
    pub(crate) clock: u64,
    /// Entries loaded below this clock are invalid.
    pub(crate) hard_watermark: u64,
    /// Entries loaded below this clock are stale.
    pub(crate) soft_watermark: u64,
    /// The highest clock of any target that Redis has forgotten.
    pub(crate) pruned_to: u64,
    /// The clock that the history began with.
    pub(crate) first_clock: u64,
}

/// The clocks of the last hard and the last soft invalidation of one target; zero if there was
/// none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LastPurges {
    pub(crate) hard: u64,
    pub(crate) soft: u64,
}

impl LastPurges {
    pub(crate) fn newest(self) -> u64 {
        self.hard.max(self.soft)
    }
}

/// What a record said at one moment: its state, and the last invalidations of some targets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Earlier {
    pub(crate) state: HistoryState,
    /// In the order of the targets.
    pub(crate) purges: Vec<LastPurges>,
}

/// What a message of the channel meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Received {
    /// It was the next one, and is applied.
    Applied,
    /// It had been applied before, from the log.
    Known,
    /// Something before it is missing here, or it belongs to another history.
    Gap,
}

/// What the messages of the log mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogReceived {
    /// They follow what was applied here, and are applied.
    Applied,
    /// They do not reach back to what was applied here: all targets have to be read.
    Trimmed,
    /// They are of another history.
    OtherHistory,
    /// They contradict what was applied here: Redis got old data back.
    Rewritten,
}

type Targets = HashMap<InvalidationTarget, LastPurges, foldhash::fast::RandomState>;

/// One history, and everything that may be compared with its clocks.
#[derive(Debug)]
pub(crate) struct History {
    id: HistoryId,
    first_clock: u64,
    /// Every message up to this clock was applied.
    applied: AtomicU64,
    /// The highest clock that a reply of Redis gave.
    seen: AtomicU64,
    /// Entries loaded below this clock are invalid. The highest of Redis's hard watermark and of
    /// every clock that was forgotten.
    hard_watermark: AtomicU64,
    /// Entries loaded below this clock are stale.
    soft_watermark: AtomicU64,
    /// By the hash of a target: the highest clock of any target with that hash.
    slots: Box<[AtomicU64]>,
    /// Each lock protects the targets of one part of the hashes.
    shards: [RwLock<Targets>; SHARDS],
    /// Set when another history took its place. Then the targets are gone, and the slots stand for
    /// them.
    ended: AtomicBool,
}

impl History {
    /// A history of which everything up to `applied` was applied.
    pub(crate) fn new(id: HistoryId, first_clock: u64, applied: u64) -> History {
        History {
            id,
            first_clock,
            applied: AtomicU64::new(applied),
            seen: AtomicU64::new(0),
            hard_watermark: AtomicU64::new(0),
            soft_watermark: AtomicU64::new(0),
            slots: (0..SLOTS).map(|_| AtomicU64::new(0)).collect(),
            shards: Default::default(),
            ended: AtomicBool::new(false),
        }
    }

    pub(crate) fn id(&self) -> HistoryId {
        self.id
    }

    /// The clock up to which every message was applied; zero before the subscriber caught up.
    pub(crate) fn applied(&self) -> u64 {
        self.applied.load(Ordering::Acquire)
    }

    /// The highest clock that is known: heard on the bus, or given by a reply. Whatever was
    /// invalidated up to it was invalidated before this call, heard here or not. So a load that
    /// begins now may have it for its clock.
    pub(crate) fn newest(&self) -> u64 {
        self.applied().max(self.seen.load(Ordering::Acquire))
    }

    /// A reply of Redis gave this clock.
    pub(crate) fn see(&self, clock: u64) {
        self.seen.fetch_max(clock, Ordering::AcqRel);
    }

    pub(crate) fn hard_watermark(&self) -> u64 {
        self.hard_watermark.load(Ordering::Acquire)
    }

    pub(crate) fn soft_watermark(&self) -> u64 {
        self.soft_watermark.load(Ordering::Acquire)
    }

    /// Whether everything was invalidated since this history began.
    pub(crate) fn was_flushed(&self) -> bool {
        self.hard_watermark() > self.first_clock
    }

    /// Everything up to `clock` was applied. For the subscriber, and for a process that is alone.
    pub(crate) fn advance(&self, clock: u64) {
        self.applied.fetch_max(clock, Ordering::AcqRel);
    }

    fn slot(&self, target: &InvalidationTarget) -> &AtomicU64 {
        &self.slots[target.short_hash() as usize % SLOTS]
    }

    fn shard(&self, target: &InvalidationTarget) -> &RwLock<Targets> {
        // Other bits than those of the slot.
        &self.shards[(target.short_hash() >> 16) as usize % SHARDS]
    }

    /// The last invalidations of `target`, unless they were forgotten.
    pub(crate) fn last_purges(&self, target: &InvalidationTarget) -> Option<LastPurges> {
        self.shard(target).read().get(target).copied()
    }

    /// What is known here, as a reply of Redis would say it.
    pub(crate) fn recall(&self, targets: &[InvalidationTarget]) -> Earlier {
        let last = |target| self.last_purges(target).unwrap_or_default();
        let purges = targets.iter().map(last).collect();
        // After the targets: before one is forgotten, the watermark is raised.
        Earlier {
            state: HistoryState {
                history: self.id,
                clock: self.newest(),
                hard_watermark: self.hard_watermark(),
                soft_watermark: self.soft_watermark(),
                pruned_to: 0,
                first_clock: self.first_clock,
            },
            purges,
        }
    }

    /// The last invalidations of `target`, or `None` if there was none after `clock`. Takes no lock
    /// unless `target`, or another target in its slot, was invalidated after `clock`.
    #[inline]
    pub(crate) fn purges_after(
        &self,
        target: &InvalidationTarget,
        clock: u64,
    ) -> Option<LastPurges> {
        let newest = self.slot(target).load(Ordering::Acquire);
        if newest <= clock {
            return None;
        }
        let last = self.last_purges(target).unwrap_or_default();
        // Read after the target. If the target was forgotten, the watermark was raised before that,
        // also if somebody late has stored it again with an older clock.
        let forgotten = if self.ended.load(Ordering::Acquire) {
            newest
        } else {
            self.hard_watermark()
        };
        Some(LastPurges {
            hard: last.hard.max(forgotten),
            soft: last.soft,
        })
    }

    /// Another history has taken the place of this one. Entries that were loaded in it may keep it
    /// alive for long, so it gives up its targets. From now on a target counts as invalidated when
    /// any target in its slot was.
    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::Release);
        for shard in &self.shards {
            *shard.write() = Targets::default();
        }
    }

    /// Applies an invalidation of `target` at `clock`. Takes a maximum, so order and repetition do
    /// not matter.
    pub(crate) fn apply(&self, target: &InvalidationTarget, purge: Purge, clock: u64) {
        if !target.is_everything() {
            let mut shard = self.shard(target).write();
            let last = shard.entry(target.clone()).or_default();
            let of_purge = match purge {
                Purge::Hard => &mut last.hard,
                Purge::Soft => &mut last.soft,
            };
            *of_purge = clock.max(*of_purge);
            self.slot(target).fetch_max(clock, Ordering::AcqRel);
        } else if purge == Purge::Hard {
            self.hard_watermark.fetch_max(clock, Ordering::AcqRel);
        } else {
            self.soft_watermark.fetch_max(clock, Ordering::AcqRel);
        }
    }

    /// Raises the watermarks. Strictly below: the clock advances only with an invalidation, so a
    /// load that is stamped with the watermark itself began after it.
    pub(crate) fn apply_state(&self, state: &HistoryState) {
        self.see(state.clock);
        let hard = state.hard_watermark.max(state.pruned_to);
        self.hard_watermark.fetch_max(hard, Ordering::AcqRel);
        self.soft_watermark
            .fetch_max(state.soft_watermark, Ordering::AcqRel);
    }

    /// Applies a message of the channel, if it is the next one.
    pub(crate) fn receive(&self, message: &Message) -> Received {
        if message.history != self.id {
            return Received::Gap;
        }
        if message.clock <= self.applied() {
            return Received::Known;
        }
        // A later clock before it: a message was lost. An earlier one: what was applied last is no
        // part of this history, so Redis got old data back.
        if message.before != self.applied() {
            return Received::Gap;
        }
        self.apply_message(message);
        Received::Applied
    }

    /// Whether exactly the messages up to the clock of this echo were applied. A lower clock is no
    /// match either: the log may have been read since the ping, or Redis got old data back and
    /// still runs.
    pub(crate) fn is_at(&self, echo: &Echo) -> bool {
        echo.history == self.id && echo.clock == self.applied()
    }

    /// Whether every message up to the clock of this echo was applied.
    pub(crate) fn has_applied(&self, echo: &Echo) -> bool {
        echo.history == self.id && echo.clock <= self.applied()
    }

    /// Applies the messages that the log holds after `applied`.
    pub(crate) fn receive_log(&self, messages: &[Message]) -> LogReceived {
        let applied = self.applied();
        if messages.iter().any(|message| message.history != self.id) {
            return LogReceived::OtherHistory;
        }
        let chained = messages
            .windows(2)
            .all(|pair| pair[1].before == pair[0].clock);
        match messages.first() {
            _ if !chained => LogReceived::Rewritten,
            Some(first) if first.before < applied => LogReceived::Rewritten,
            Some(first) if first.before == applied => {
                messages
                    .iter()
                    .for_each(|message| self.apply_message(message));
                LogReceived::Applied
            }
            _ => LogReceived::Trimmed,
        }
    }

    fn apply_message(&self, message: &Message) {
        if let Some(purge) = message.purge {
            for target in &message.targets {
                self.apply(target, purge, message.clock);
            }
        }
        self.advance(message.clock);
    }

    /// Forgets targets whose last invalidation is below `clock`, or not above the hard watermark.
    /// Raises the hard watermark to the highest clock that is forgotten.
    pub(crate) fn prune(&self, clock: u64) {
        let hard_watermark = self.hard_watermark();
        for shard in &self.shards {
            let mut shard = shard.write();
            let mut highest = 0;
            shard.retain(|_, last| {
                let newest = last.newest();
                let forget = newest < clock || newest <= hard_watermark;
                if forget {
                    highest = highest.max(newest);
                }
                !forget
            });
            // Before the lock is released: a reader that no longer finds the target finds the
            // watermark raised.
            self.hard_watermark.fetch_max(highest, Ordering::AcqRel);
        }
    }

    /// For a process that is alone. If more than `most` targets are known, forgets those whose last
    /// invalidation is below `clock`. If there are still too many, forgets all.
    pub(crate) fn make_room(&self, most: usize, clock: u64) {
        for clock in [clock, u64::MAX] {
            if self.target_count() > most {
                self.prune(clock);
            }
        }
    }

    /// How many targets are known.
    pub(crate) fn target_count(&self) -> usize {
        self.shards.iter().map(|shard| shard.read().len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: HistoryId = HistoryId(1);

    fn tag(name: &str) -> InvalidationTarget {
        InvalidationTarget::tag(name)
    }

    fn message(before: u64, clock: u64, name: &str) -> Message {
        Message {
            history: ID,
            clock,
            before,
            purge: Some(Purge::Hard),
            targets: vec![tag(name)],
            replica: String::new(),
        }
    }

    #[test]
    fn an_old_clock_of_a_target_is_not_set_over_a_newer_one() {
        let history = History::new(ID, 1, 10);
        history.apply(&tag("a"), Purge::Hard, 12);
        history.apply(&tag("a"), Purge::Soft, 15);
        history.apply(&tag("a"), Purge::Hard, 11);
        let last = LastPurges { hard: 12, soft: 15 };
        assert_eq!(history.last_purges(&tag("a")), Some(last));
        assert_eq!(history.purges_after(&tag("a"), 14), Some(last));
        assert_eq!(history.purges_after(&tag("a"), 15), None);
        assert_eq!(history.applied(), 10, "only the subscriber advances it");
    }

    #[test]
    fn a_message_is_applied_in_its_turn_only() {
        let history = History::new(ID, 1, 10);
        assert_eq!(history.receive(&message(10, 12, "a")), Received::Applied);
        assert_eq!(history.applied(), 12);
        assert_eq!(history.receive(&message(10, 12, "b")), Received::Known);
        assert_eq!(
            history.receive(&message(14, 15, "b")),
            Received::Gap,
            "the one with clock 14 was lost"
        );
        assert_eq!(
            history.receive(&message(11, 15, "b")),
            Received::Gap,
            "12 is no part of that history"
        );
        let other = Message {
            history: HistoryId(2),
            ..message(12, 15, "b")
        };
        assert_eq!(history.receive(&other), Received::Gap);
        assert_eq!(
            (history.applied(), history.last_purges(&tag("b"))),
            (12, None)
        );
    }

    #[test]
    fn the_message_of_a_new_history_advances_the_clock_and_invalidates_nothing() {
        let history = History::new(ID, 1, 10);
        let begin = Message {
            purge: None,
            ..message(10, 12, "a")
        };
        assert_eq!(history.receive(&begin), Received::Applied);
        assert_eq!((history.applied(), history.target_count()), (12, 0));
    }

    #[test]
    fn the_log_is_applied_if_it_follows_what_was_applied() {
        let history = || History::new(ID, 1, 10);
        let (next, then) = (message(10, 12, "a"), message(12, 13, "b"));

        let whole = history();
        assert_eq!(
            whole.receive_log(&[next.clone(), then.clone()]),
            LogReceived::Applied
        );
        assert_eq!((whole.applied(), whole.target_count()), (13, 2));

        let trimmed = history();
        assert_eq!(
            trimmed.receive_log(std::slice::from_ref(&then)),
            LogReceived::Trimmed
        );
        assert_eq!(trimmed.receive_log(&[]), LogReceived::Trimmed);
        assert_eq!((trimmed.applied(), trimmed.target_count()), (10, 0));

        let broken = [next.clone(), message(11, 13, "b")];
        assert_eq!(history().receive_log(&broken), LogReceived::Rewritten);
        let earlier = [message(9, 12, "a")];
        assert_eq!(history().receive_log(&earlier), LogReceived::Rewritten);
        let other = Message {
            history: HistoryId(2),
            ..then
        };
        assert_eq!(
            history().receive_log(&[next, other]),
            LogReceived::OtherHistory
        );
    }
}
