//! The rate limit of an API key, as the database stores it.

use std::fmt;

use super::error::DatabaseError;
use crate::quantity::{RATE_FORM, Rate};

/// The rate limit of a key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeyRate {
    /// The configured default.
    #[default]
    Configured,
    /// This rate.
    Limited(Rate),
    /// No limit.
    Unlimited,
}

impl KeyRate {
    /// Reads `unlimited` or a rate such as `600/1m`.
    pub fn parse(text: &str) -> Result<KeyRate, DatabaseError> {
        match text {
            "unlimited" => Ok(KeyRate::Unlimited),
            _ => text.parse().map(KeyRate::Limited).map_err(|()| {
                DatabaseError::Invalid(format!("{text:?} is neither \"unlimited\" nor {RATE_FORM}"))
            }),
        }
    }

    /// The text that [`KeyRate::parse`] reads. `None` for the configured default.
    pub fn text(&self) -> Option<String> {
        match self {
            KeyRate::Configured => None,
            KeyRate::Limited(rate) => Some(rate.to_string()),
            KeyRate::Unlimited => Some("unlimited".to_owned()),
        }
    }
}

impl fmt::Display for KeyRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text().as_deref().unwrap_or("default"))
    }
}
