//! How often an API key may be used, as the database keeps it.

use std::fmt;

use super::error::DatabaseError;
use crate::quantity::{RATE_FORM, Rate};

/// How often a key may be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeyRate {
    /// As the configuration says for keys that name no rate.
    #[default]
    Configured,
    /// At this rate.
    Limited(Rate),
    /// As often as one likes.
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

    /// The text that [`KeyRate::parse`] reads; `None` for the configured one.
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
