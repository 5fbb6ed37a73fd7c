//! Why a source gave nothing, split by what the caller does next, in words that name no secret.

use std::fmt;
use std::time::Duration;

use crate::quantity::format_duration;
use larder_cache::LoadError;
use larder_cache::Secret;

/// How much of an upstream's own words is passed on, in characters.
const LONGEST_WORDS: usize = 200;

/// A source that gave nothing. Its text is for logs and for answers alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceError {
    /// Nothing whole came before the deadline.
    TooSlow(String),
    /// Its quota is spent by the books that are kept here; it was not asked.
    Spent {
        /// Which source.
        what: String,
        /// How long until it may be asked again.
        retry_after: Duration,
    },
    /// It asks to be left alone for a while, as a 429 does.
    Paused {
        /// Which source, its status, and its own words if it gave any.
        what: String,
        /// How long until it may be asked again.
        retry_after: Duration,
        /// Whether that is so for all that it is asked for, or for this one thing.
        whole_source: bool,
    },
    /// It cannot be reached, refused, or answered what is no value.
    Failed(String),
}

impl fmt::Display for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SourceError::TooSlow(what) | SourceError::Failed(what) => f.write_str(what),
            SourceError::Spent { what, retry_after } => {
                write!(f, "{what}: quota spent, back in {}", whole(*retry_after))
            }
            SourceError::Paused {
                what, retry_after, ..
            } => write!(f, "{what}: not asked again for {}", whole(*retry_after)),
        }
    }
}

impl std::error::Error for SourceError {}

/// A wait in words, in whole seconds and none too few.
pub(super) fn whole(wait: Duration) -> String {
    format_duration(Duration::from_secs(wait.as_secs_f64().ceil() as u64))
}

impl From<SourceError> for LoadError {
    fn from(error: SourceError) -> LoadError {
        match error {
            SourceError::TooSlow(what) => LoadError::TooSlow(what),
            SourceError::Failed(what) => LoadError::Failed(what),
            SourceError::Spent { what, retry_after } => LoadError::Spent { what, retry_after },
            SourceError::Paused {
                what,
                retry_after,
                whole_source,
            } => LoadError::Paused {
                what,
                retry_after,
                whole_source,
            },
        }
    }
}

/// Another's words, fit to be shown: on one line, at most 200 characters, `***` in place of each secret. Where one
/// secret is a part of another the longer one comes first.
pub(crate) fn shown(words: &str, secrets: &[Secret]) -> String {
    // Control characters go first: without them a secret might be whole again.
    let mut line: String = words.chars().filter(|c| !c.is_control()).collect();
    for secret in secrets.iter().map(Secret::reveal) {
        if !secret.is_empty() {
            line = line.replace(secret, "***");
        }
    }
    match line.char_indices().nth(LONGEST_WORDS) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_words_are_made_fit_to_be_shown() {
        let key = [Secret::new("k3y")];
        assert_eq!(
            shown("bad key k3y, k\u{1b}3y\r\nnext", &key),
            "bad key ***, ***next"
        );
        assert_eq!(shown("as it is", &[]), "as it is");
        assert_eq!(shown("as it is", &[Secret::default()]), "as it is");
        let long = shown(&"é".repeat(500), &[]);
        assert_eq!(long, format!("{}…", "é".repeat(200)));
        // The secret goes before the words are cut, so no half of it is left at the cut.
        let cut = shown(&format!("{}k3y", "x".repeat(198)), &key);
        assert_eq!(cut, format!("{}**…", "x".repeat(198)));
    }

    #[test]
    fn says_when_a_quota_is_back() {
        let spent = SourceError::Spent {
            what: "newsapi".to_owned(),
            retry_after: Duration::from_millis(59_100),
        };
        assert_eq!(spent.to_string(), "newsapi: quota spent, back in 1m");
        assert_eq!(
            LoadError::from(spent).retry_after(),
            Some(Duration::from_millis(59_100))
        );
    }
}
