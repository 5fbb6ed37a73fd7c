//! What has become of a value that a caller has read, since before it was read.

use super::dependency::Stamp;
use super::history::Earlier;
use super::mirror::Standing;

/// Whether anything that a value depends on was invalidated after `since`, which was taken before
/// the value was read. `record`: what the record said of these targets right before the value's own
/// invalidation.
///
/// A soft purge counts as well: the value would be fresh again without a load.
pub(crate) fn standing_since(since: Stamp, record: &Earlier) -> Standing {
    let state = &record.state;
    if state.history != since.history {
        return Standing::OtherHistory;
    }
    // A target that was forgotten may have been invalidated at any clock up to `pruned_to`.
    let floors = [state.hard_watermark, state.pruned_to];
    let hard = record.purges.iter().map(|last| last.hard).chain(floors);
    let soft = record.purges.iter().map(|last| last.soft);
    let soft = soft.fold(state.soft_watermark, u64::max);
    if hard.max() > Some(since.clock) {
        Standing::Invalid
    } else if soft > since.clock {
        Standing::Soft(soft)
    } else {
        Standing::Valid
    }
}

#[cfg(test)]
mod tests {
    use super::super::history::{HistoryState, LastPurges};
    use super::super::history_id::HistoryId;
    use super::*;

    #[test]
    fn a_value_stands_unless_something_was_invalidated_after_the_stamp() {
        let since = Stamp {
            history: HistoryId(1),
            clock: 10,
            sequence: 0,
        };
        let none = HistoryState {
            history: HistoryId(1),
            clock: 99,
            hard_watermark: 0,
            soft_watermark: 0,
            pruned_to: 0,
            first_clock: 1,
        };
        let hard = |clock| LastPurges {
            hard: clock,
            soft: 0,
        };
        let soft = |clock| LastPurges {
            hard: 0,
            soft: clock,
        };
        let (hard_watermark, soft_watermark, pruned_to) = (11, 11, 11);
        use Standing::{Invalid, OtherHistory, Soft, Valid};
        for (what, state, purges, standing) in [
            ("nothing", none, vec![], Valid),
            ("at the stamp", none, vec![hard(10), soft(10)], Valid),
            ("the first", none, vec![hard(11), hard(0)], Invalid),
            ("the last", none, vec![hard(0), hard(11)], Invalid),
            ("softly", none, vec![hard(0), soft(11)], Soft(11)),
            ("both ways", none, vec![soft(12), hard(11)], Invalid),
            (
                "a clear before",
                HistoryState {
                    hard_watermark: 10,
                    ..none
                },
                vec![],
                Valid,
            ),
            (
                "a clear",
                HistoryState {
                    hard_watermark,
                    ..none
                },
                vec![],
                Invalid,
            ),
            (
                "a soft clear",
                HistoryState {
                    soft_watermark,
                    ..none
                },
                vec![],
                Soft(11),
            ),
            (
                "names forgotten",
                HistoryState { pruned_to, ..none },
                vec![],
                Invalid,
            ),
            (
                "another history, whose clock is behind",
                HistoryState {
                    history: HistoryId(2),
                    clock: 3,
                    ..none
                },
                vec![hard(3)],
                OtherHistory,
            ),
        ] {
            let record = Earlier { state, purges };
            assert_eq!(standing_since(since, &record), standing, "{what}");
        }
    }
}
