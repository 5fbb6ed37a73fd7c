//! The identity of a history.

use std::fmt;

use crate::random::seed;

/// The random identity of one history of changes. Clocks of two histories are never compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HistoryId(pub u64);

impl HistoryId {
    /// An identity that no other history has.
    pub(crate) fn random() -> HistoryId {
        HistoryId(seed())
    }

    /// Parses what `Display` writes.
    pub(crate) fn parse(text: &str) -> Option<HistoryId> {
        u64::from_str_radix(text, 16).ok().map(HistoryId)
    }
}

impl fmt::Display for HistoryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_id_is_parsed_as_it_is_written() {
        let id = HistoryId::random();
        assert_eq!(HistoryId::parse(&id.to_string()), Some(id));
        assert_eq!(HistoryId::parse("x"), None);
    }
}
