//! The judgement of a memory hit: was this replica still allowed to serve that copy?
//!
//! The audit asks Redis for the record behind the answer. [`judge`] compares the hit with the
//! record. It is pure, and it does not use the mirror: an error of the mirror is what it looks for.
//!
//! Everything is compared on Redis's clock. A hit is illegal only if it is by every moment at which
//! it can have been.

use std::collections::HashMap;
use std::sync::Arc;

use super::dependency::{Dependency, Stamp};
use super::history::HistoryState;
use super::message::Message;
use super::target::{InvalidationTarget, Purge};
use crate::clock::{Micros, RedisMoment, drift};

/// A load and its targets: what one part of a copy depends on, or all of it.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    pub(crate) stamp: Stamp,
    pub(crate) names: Arc<[InvalidationTarget]>,
}

impl From<&Dependency> for Part {
    // Without the history: a hit that waits for its audit must not keep that in memory.
    fn from(dependency: &Dependency) -> Part {
        Part {
            stamp: dependency.stamp,
            names: dependency.names.clone(),
        }
    }
}

/// When a hit was, compared with the clocks of the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HitMoment {
    /// Every invalidation with a lower clock is older than the hit by more than `max_staleness` and
    /// the error of the clock's offset. `None`: that cannot be told, because Redis's clock was set
    /// lately.
    pub(crate) illegal_below: Option<u64>,
    /// The error of the clock's offset, in microseconds.
    pub(crate) error: Micros,
}

impl HitMoment {
    /// The moment of a hit at `at` on Redis's clock, if that is known.
    pub(crate) fn new(at: Option<RedisMoment>, max_staleness: Micros) -> HitMoment {
        let Some(at) = at else {
            return HitMoment {
                illegal_below: None,
                error: 0,
            };
        };
        // The replica measures `max_staleness` on its own clock.
        let longest = max_staleness + drift(max_staleness);
        HitMoment {
            illegal_below: Some(at.earliest.saturating_sub(longest)),
            error: at.latest - at.earliest,
        }
    }
}

/// What Redis says of the record.
pub(crate) struct Record {
    /// `None`: the record is not whole, so a new history is about to begin.
    pub(crate) state: Option<HistoryState>,
    /// Redis's time as it said so.
    pub(crate) time: Micros,
    /// The clock of the last hard invalidation of each target.
    pub(crate) hard: HashMap<InvalidationTarget, u64>,
}

/// What the audit found. A later variant weighs more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verdict {
    /// Nothing that the copy depends on was invalidated hard since its load began.
    Same,
    /// The first such invalidation was not older than the bound when the copy was served.
    Newer,
    /// The record does not tell.
    Unknown,
    /// The copy was served for longer than `max_staleness` after the invalidation with this clock.
    Illegal(u64),
}

/// Judges a hit of a copy with these parts. `log`: the messages after the lowest load clock, as far
/// as they are needed. `None` is the result without a log if only the log can tell.
pub(crate) fn judge(
    parts: &[Part],
    hit: &HitMoment,
    record: &Record,
    log: Option<&[Message]>,
) -> Option<Verdict> {
    let mut gravest = Verdict::Same;
    let mut told = true;
    for part in parts {
        match judge_part(part, hit, record, log) {
            Some(verdict) => gravest = gravest.max(verdict),
            None => told = false,
        }
    }
    (told || matches!(gravest, Verdict::Illegal(_))).then_some(gravest)
}

fn judge_part(
    part: &Part,
    hit: &HitMoment,
    record: &Record,
    log: Option<&[Message]>,
) -> Option<Verdict> {
    let loaded = part.stamp.clock;
    let own = |state: &HistoryState| state.history == part.stamp.history;
    let Some(state) = record.state.filter(own) else {
        return Some(Verdict::Unknown);
    };
    let of_names = part.names.iter().filter_map(|name| record.hard.get(name));
    let last = of_names.fold(state.hard_watermark, |last, clock| last.max(*clock));
    if last <= loaded {
        // What was invalidated and forgotten since cannot be told.
        let forgotten = state.pruned_to > loaded;
        return Some(if forgotten {
            Verdict::Unknown
        } else {
            Verdict::Same
        });
    }
    let Some(illegal_below) = hit.illegal_below else {
        return Some(Verdict::Unknown);
    };
    if last < illegal_below {
        return Some(Verdict::Illegal(last));
    }
    // Then its clocks are no times, and one that looks young may be old.
    if state.clock > record.time.saturating_add(hit.error) {
        return Some(Verdict::Unknown);
    }
    log.map(|log| judge_by_log(part, illegal_below, log))
}

/// By the first hard invalidation after the load; the last one is young.
fn judge_by_log(part: &Part, illegal_below: u64, log: &[Message]) -> Verdict {
    let Stamp { history, clock, .. } = part.stamp;
    let later = log.partition_point(|message| message.clock <= clock);
    let later = log.get(later..).unwrap_or_default();
    // Nothing is missing between two messages if the later one names no clock between them.
    let mut reached = clock;
    for message in later {
        if message.history != history || message.before > reached {
            return Verdict::Unknown;
        }
        reached = message.clock;
        if reached >= illegal_below {
            return Verdict::Newer;
        }
        let ends =
            |target: &InvalidationTarget| target.is_everything() || part.names.contains(target);
        if message.purge == Some(Purge::Hard) && message.targets.iter().any(ends) {
            return Verdict::Illegal(message.clock);
        }
    }
    // It ends before the invalidation that the names have.
    Verdict::Unknown
}

#[cfg(test)]
mod tests {
    use super::super::history_id::HistoryId;
    use super::*;

    use Verdict::{Illegal, Newer, Same, Unknown};

    const ID: HistoryId = HistoryId(1);
    /// When the copy was loaded, the bound, and the time of the audit.
    const LOADED: u64 = 1000;
    const BOUND: u64 = 2000;
    const TIME: u64 = 5000;
    const ERROR: u64 = 10;
    const HIT: HitMoment = HitMoment {
        illegal_below: Some(BOUND),
        error: ERROR,
    };

    fn tag(name: &str) -> InvalidationTarget {
        InvalidationTarget::tag(name)
    }

    fn part(history: HistoryId, clock: u64, names: &[&str]) -> Part {
        let stamp = Stamp {
            history,
            clock,
            sequence: 0,
        };
        let names = names.iter().map(|name| tag(name)).collect();
        Part { stamp, names }
    }

    fn state() -> HistoryState {
        HistoryState {
            history: ID,
            clock: 4000,
            hard_watermark: 500,
            soft_watermark: 0,
            pruned_to: 0,
            first_clock: 500,
        }
    }

    fn record(hard: &[(&str, u64)]) -> Record {
        let hard = hard.iter().map(|(name, clock)| (tag(name), *clock));
        Record {
            state: Some(state()),
            time: TIME,
            hard: hard.collect(),
        }
    }

    /// A hard invalidation of one tag.
    fn message(before: u64, clock: u64, name: &str) -> Message {
        Message {
            history: ID,
            clock,
            before,
            purge: Some(Purge::Hard),
            targets: vec![tag(name)],
            replica: "other".to_owned(),
        }
    }

    fn judge_one(record: &Record, log: Option<&[Message]>) -> Option<Verdict> {
        judge(&[part(ID, LOADED, &["a", "k"])], &HIT, record, log)
    }

    #[test]
    fn the_last_hard_invalidation_tells_most() {
        for (hard, expected) in [
            (vec![], Some(Same)),
            (vec![("a", 0), ("k", 0)], Some(Same)),
            (vec![("a", 999), ("other", 1500)], Some(Same)),
            // A load that takes the clock of an invalidation began after it.
            (vec![("a", LOADED)], Some(Same)),
            (vec![("a", LOADED + 1)], Some(Illegal(LOADED + 1))),
            (vec![("k", BOUND - 1)], Some(Illegal(BOUND - 1))),
            (vec![("a", 1500), ("k", 1800)], Some(Illegal(1800))),
            // From the bound on only the log tells which was the first one.
            (vec![("a", BOUND)], None),
            (vec![("a", 1500), ("k", BOUND)], None),
            (vec![("a", 9_000_000)], None),
        ] {
            assert_eq!(judge_one(&record(&hard), None), expected, "{hard:?}");
        }
    }

    #[test]
    fn the_watermark_is_an_invalidation_of_every_name() {
        for (hard_watermark, expected) in [
            (LOADED, Some(Same)),
            (LOADED + 1, Some(Illegal(LOADED + 1))),
            (BOUND, None),
        ] {
            let state = HistoryState {
                hard_watermark,
                ..state()
            };
            let record = Record {
                state: Some(state),
                ..record(&[])
            };
            assert_eq!(judge_one(&record, None), expected, "{hard_watermark}");
        }
    }

    #[test]
    fn what_the_record_does_not_tell_is_unknown() {
        let with = |state: Option<HistoryState>, clock| Record {
            state,
            ..record(&[("a", clock)])
        };
        // Not whole, another history, or names forgotten since the load.
        assert_eq!(judge_one(&with(None, 1500), None), Some(Unknown));
        let other = HistoryState {
            history: HistoryId(2),
            ..state()
        };
        assert_eq!(judge_one(&with(Some(other), 1500), None), Some(Unknown));
        let pruned = |pruned_to| HistoryState {
            pruned_to,
            ..state()
        };
        let forgotten = with(Some(pruned(LOADED + 1)), 0);
        assert_eq!(judge_one(&forgotten, None), Some(Unknown));
        assert_eq!(judge_one(&with(Some(pruned(LOADED)), 0), None), Some(Same));
        // What is still known tells all the same.
        let known = with(Some(pruned(LOADED + 1)), 1500);
        assert_eq!(judge_one(&known, None), Some(Illegal(1500)));
    }

    #[test]
    fn young_clocks_tell_nothing_while_the_clock_of_the_record_is_ahead() {
        let log = [message(LOADED, BOUND, "a")];
        for (clock, last, expected) in [
            (TIME + ERROR, BOUND, Newer),
            (TIME + ERROR + 1, BOUND, Unknown),
            // A clock is never earlier than its moment, so one that looks old is.
            (TIME + ERROR + 1, BOUND - 1, Illegal(BOUND - 1)),
            (TIME + ERROR + 1, LOADED, Same),
        ] {
            let record = Record {
                state: Some(HistoryState { clock, ..state() }),
                ..record(&[("a", last)])
            };
            assert_eq!(judge_one(&record, Some(&log)), Some(expected), "{clock}");
        }
    }

    #[test]
    fn with_a_clock_that_was_set_lately_no_hit_is_illegal() {
        let hit = HitMoment::new(None, 1);
        let parts = [part(ID, LOADED, &["a"])];
        for (last, expected) in [(LOADED, Same), (LOADED + 1, Unknown), (BOUND, Unknown)] {
            let record = record(&[("a", last)]);
            assert_eq!(judge(&parts, &hit, &record, Some(&[])), Some(expected));
        }
    }

    #[test]
    fn the_first_one_after_the_load_decides_by_the_log() {
        let soft = |message: Message| Message {
            purge: Some(Purge::Soft),
            ..message
        };
        let begun = |message: Message| Message {
            purge: None,
            targets: vec![InvalidationTarget::everything()],
            ..message
        };
        let other = |message: Message| Message {
            history: HistoryId(2),
            ..message
        };
        let first = |clock, name: &str| message(LOADED, clock, name);
        let young = |before| message(before, BOUND + 7, "a");
        for (log, expected) in [
            (vec![first(BOUND, "a")], Newer),
            (vec![first(BOUND - 1, "a")], Illegal(BOUND - 1)),
            (vec![first(1100, "a"), young(1100)], Illegal(1100)),
            (vec![first(1100, "k"), young(1100)], Illegal(1100)),
            (vec![first(1100, "*"), young(1100)], Illegal(1100)),
            // Of other names, soft, or the begin of the history: no hard invalidation of this.
            (vec![first(1100, "other"), young(1100)], Newer),
            (vec![soft(first(1100, "a")), young(1100)], Newer),
            (vec![begun(first(1100, "a")), young(1100)], Newer),
            // Before the load.
            (
                vec![
                    message(800, 900, "a"),
                    message(900, LOADED, "a"),
                    young(LOADED),
                ],
                Newer,
            ),
            // Trimmed: what was before the first message is not told.
            (vec![], Unknown),
            (vec![young(LOADED + 1)], Unknown),
            (vec![first(1100, "other"), young(1200)], Unknown),
            (vec![message(LOADED + 1, 1100, "a"), young(1100)], Unknown),
            // It ends before the last one, or is of another history.
            (vec![first(1100, "other")], Unknown),
            (vec![other(first(1100, "a")), young(1100)], Unknown),
        ] {
            let record = record(&[("a", BOUND + 7)]);
            assert_eq!(judge_one(&record, Some(&log)), Some(expected), "{log:?}");
        }
    }

    #[test]
    fn the_gravest_verdict_of_any_part_counts() {
        let parts = [part(ID, LOADED, &["a"]), part(ID, 3000, &["b"])];
        let log = [message(LOADED, BOUND, "a")];
        for (a, b, expected) in [
            (LOADED, 3000, Some(Same)),
            (LOADED, 2500, Some(Same)),
            (1500, 3000, Some(Illegal(1500))),
            (BOUND, 2500, Some(Newer)),
        ] {
            let record = record(&[("a", a), ("b", b)]);
            assert_eq!(judge(&parts, &HIT, &record, Some(&log)), expected);
        }
        // One that is illegal needs no log for the other; an unknown one does.
        let other = [part(ID, LOADED, &["a"]), part(HistoryId(2), 3000, &["b"])];
        let young = record(&[("a", BOUND)]);
        assert_eq!(judge(&other, &HIT, &young, None), None);
        assert_eq!(judge(&other, &HIT, &young, Some(&log)), Some(Unknown));
        let old = record(&[("a", 1500)]);
        assert_eq!(judge(&other, &HIT, &old, None), Some(Illegal(1500)));
    }

    #[test]
    fn the_bound_counts_from_the_earliest_moment_of_the_hit() {
        let at = RedisMoment {
            earliest: 10_000_000,
            latest: 10_000_300,
        };
        let hit = HitMoment::new(Some(at), 1_000_000);
        assert_eq!(hit.error, 300);
        let longest = 1_000_000 + drift(1_000_000);
        assert_eq!(hit.illegal_below, Some(10_000_000 - longest));
    }
}
