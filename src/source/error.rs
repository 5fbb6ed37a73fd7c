//! Why a source gave no value. The variants are split by what the caller does next, and no text
//! shows a secret.

use std::fmt;
use std::time::Duration;

use crate::quantity::format_duration;
use larder_cache::LoadError;
use larder_cache::Secret;

/// The longest text of an upstream that is passed on, in characters.
const LONGEST: usize = 200;

/// Why a source gave no value. Its text is for logs and for responses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceError {
    /// Timed out: no complete answer came before the deadline.
    TooSlow(String),
    /// Its quota is spent, as this process and Redis count it. It was not called.
    Spent {
        /// The source.
        what: String,
        /// How long until it may be called again.
        retry_after: Duration,
    },
    /// It answered that it must not be called for a while, such as with 429.
    Paused {
        /// The source, its status, and its own message if it has one.
        what: String,
        /// How long until it may be called again.
        retry_after: Duration,
        /// Whether that holds for every call to the source, or for this value only.
        whole_source: bool,
    },
    /// It could not be reached, refused, or answered with something that is not a value.
    Failed(String),
}

impl fmt::Display for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SourceError::TooSlow(what) | SourceError::Failed(what) => f.write_str(what),
            SourceError::Spent { what, retry_after } => {
                write!(
                    f,
                    "{what}: quota spent, back in {}",
                    in_seconds(*retry_after)
                )
            }
            SourceError::Paused {
                what, retry_after, ..
            } => write!(
                f,
                "{what}: not asked again for {}",
                in_seconds(*retry_after)
            ),
        }
    }
}

impl std::error::Error for SourceError {}

/// A wait as text, rounded up to seconds.
pub(super) fn in_seconds(wait: Duration) -> String {
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

/// The text of an upstream, made fit for logs and responses: one line of at most 200 characters,
/// with `***` in place of each secret. If one secret is part of another, the longer one must come
/// first.
pub(crate) fn sanitized(words: &str, secrets: &[Secret]) -> String {
    // Control characters first: a secret that they split would be complete again without them.
    let mut line: String = words.chars().filter(|c| !c.is_control()).collect();
    for secret in secrets.iter().map(Secret::reveal) {
        if !secret.is_empty() {
            line = line.replace(secret, "***");
        }
    }
    match line.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_words_are_made_fit_to_be_sanitized() {
        let key = [Secret::new("k3y")];
        assert_eq!(
            sanitized("bad key k3y, k\u{1b}3y\r\nnext", &key),
            "bad key ***, ***next"
        );
        assert_eq!(sanitized("as it is", &[]), "as it is");
        assert_eq!(sanitized("as it is", &[Secret::default()]), "as it is");
        let long = sanitized(&"é".repeat(500), &[]);
        assert_eq!(long, format!("{}…", "é".repeat(200)));
        // Secrets are replaced before the text is cut, so no half of one is left.
        let cut = sanitized(&format!("{}k3y", "x".repeat(198)), &key);
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
