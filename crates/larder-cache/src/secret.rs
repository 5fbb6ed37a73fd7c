//! A string that must not be shown: an upstream key, a password in a URL.
//!
//! Promise: neither `Debug` nor `Display` prints it. Comparing it takes no longer if more of a
//! guess is right, so an attacker learns nothing from the time: see [`Secret::matches`].

use std::fmt;

/// A secret string. Printing it shows `***`.
#[derive(Clone, Default)]
pub struct Secret(String);

impl Secret {
    /// A secret with this text.
    pub fn new(text: impl Into<String>) -> Secret {
        Secret(text.into())
    }

    /// The text itself, for the one place that sends it.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Whether `guess` is the secret. Takes a time that depends on the length of `guess` only.
    pub fn matches(&self, guess: &str) -> bool {
        let (secret, guess) = (self.0.as_bytes(), guess.as_bytes());
        let mut difference = u8::from(secret.len() != guess.len());
        for (i, byte) in guess.iter().enumerate() {
            difference |= byte ^ secret.get(i % secret.len().max(1)).copied().unwrap_or(0);
        }
        difference == 0
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Secret) -> bool {
        self.matches(&other.0)
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::Secret;

    #[test]
    fn is_not_printed() {
        let secret = Secret::new("hunter2");
        assert_eq!(format!("{secret} {secret:?}"), "*** ***");
    }

    #[test]
    fn matches_only_itself() {
        let secret = Secret::new("abc");
        assert!(secret.matches("abc"));
        for wrong in ["", "ab", "abd", "abcabc", "abca"] {
            assert!(!secret.matches(wrong), "{wrong}");
        }
        assert!(!Secret::default().matches("a"));
    }
}
