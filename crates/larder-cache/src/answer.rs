//! What a lookup gives: an entry, how it was found, and what that took.

use std::sync::Arc;
use std::time::Duration;

use super::entry::Entry;
use super::error::LoadError;
use super::outcome::Outcome;

/// How a lookup ended.
pub type LookupResult = Result<Answer, LoadError>;

/// What a lookup gives.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The value with its stamps.
    pub entry: Arc<Entry>,
    /// How it was found.
    pub outcome: Outcome,
    /// What that took.
    pub trace: Trace,
}

/// Where the time of a lookup went. `None`: that tier was not asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    /// Asking Redis.
    pub redis: Option<Duration>,
    /// Asking the source.
    pub source: Option<Duration>,
    /// Whether Redis stored what the load brought.
    pub stored: bool,
}

impl Trace {
    /// Of two parts looked up side by side: the longer time of each tier.
    pub(crate) fn beside(self, other: Trace) -> Trace {
        Trace {
            redis: self.redis.max(other.redis),
            source: self.source.max(other.source),
            stored: self.stored || other.stored,
        }
    }
}
