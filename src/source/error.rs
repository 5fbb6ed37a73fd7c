//! The texts in errors of sources. No text shows a secret.

use std::time::Duration;

use crate::quantity::format_duration;
use larder_cache::Secret;

/// The longest text of an upstream that is passed on, in characters.
const LONGEST: usize = 200;

/// A wait as text, rounded up to seconds.
pub(super) fn in_seconds(wait: Duration) -> String {
    format_duration(Duration::from_secs(wait.as_secs_f64().ceil() as u64))
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
        assert_eq!(in_seconds(Duration::from_millis(59_100)), "1m");
    }
}
