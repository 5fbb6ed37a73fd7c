//! What a load brought, compared with what was known of the value before.

use super::entry::Entry;

/// How a load from the source ended.
///
/// A load is compared with the newest copy of its key that this replica has in memory, or has read
/// from Redis in the same lookup. The copy may be stale or invalidated: it is what the source said
/// before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LoadResult {
    /// Another value than the last one, or a value where there was none.
    Changed,
    /// The same value, sent again.
    Same,
    /// The source confirmed the copy that it was asked about, as by a 304.
    Confirmed,
    /// A value, and no copy was at hand to compare it with.
    First,
    /// The source has no such thing, whatever it said before.
    Absent,
    /// No value: the source failed, or was too slow.
    Failed,
}

impl LoadResult {
    /// All results.
    pub const ALL: [LoadResult; 6] = [
        LoadResult::Changed,
        LoadResult::Same,
        LoadResult::Confirmed,
        LoadResult::First,
        LoadResult::Absent,
        LoadResult::Failed,
    ];

    /// The word for it in a metric.
    pub fn word(self) -> &'static str {
        match self {
            LoadResult::Changed => "changed",
            LoadResult::Same => "same",
            LoadResult::Confirmed => "confirmed",
            LoadResult::First => "first",
            LoadResult::Absent => "absent",
            LoadResult::Failed => "failed",
        }
    }

    /// The result of a load that brought `loaded`, where `before` is the newest copy from before.
    /// Compares hashes.
    pub(crate) fn of(loaded: &Entry, before: Option<&Entry>) -> LoadResult {
        match before {
            _ if loaded.value.is_absent() => LoadResult::Absent,
            None => LoadResult::First,
            // An absent value has the hash of an empty one.
            Some(before) if before.value.is_absent() => LoadResult::Changed,
            Some(before) if before.hash == loaded.hash => LoadResult::Same,
            Some(_) => LoadResult::Changed,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::coherence::{Dependency, HistoryId, Stamp};
    use super::super::entry::{Extras, Value};
    use super::super::policy::Expiry;
    use super::*;

    use LoadResult::{Absent, Changed, First, Same};

    fn entry(value: &Value, loaded_at: u64) -> Entry {
        let stamp = Stamp {
            history: HistoryId(1),
            clock: loaded_at,
            sequence: 0,
        };
        let expiry = Expiry {
            memory_until: 0,
            fresh_until: 0,
        };
        let own = Dependency::unknown(stamp, Arc::default());
        Entry::new(value.clone(), own, loaded_at, 1, expiry, Extras::default())
    }

    #[test]
    fn a_load_is_compared_with_the_copy_from_before() {
        let value = |text: &str| Value::present(text.into());
        let (a, b, empty, none) = (value("a"), value("b"), value(""), Value::Absent);
        for (before, loaded, result) in [
            (None, &a, First),
            (None, &empty, First),
            (None, &none, Absent),
            (Some(&a), &a, Same),
            (Some(&a), &b, Changed),
            (Some(&a), &empty, Changed),
            (Some(&a), &none, Absent),
            (Some(&empty), &empty, Same),
            (Some(&none), &a, Changed),
            (Some(&none), &empty, Changed),
            (Some(&none), &none, Absent),
        ] {
            let before = before.map(|before| entry(before, 1));
            let compared = LoadResult::of(&entry(loaded, 2), before.as_ref());
            assert_eq!(compared, result, "{before:?} {loaded:?}");
        }
    }

    #[test]
    fn each_result_has_its_place_and_a_word_of_its_own() {
        for (at, result) in LoadResult::ALL.into_iter().enumerate() {
            assert_eq!(result as usize, at);
            let same = LoadResult::ALL.map(LoadResult::word);
            assert_eq!(
                same.iter().filter(|word| **word == result.word()).count(),
                1
            );
        }
    }
}
