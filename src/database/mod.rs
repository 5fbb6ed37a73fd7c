//! FLOOR 1: the database.

use std::time::Duration;

use crate::secret::Secret;

/// Which database, and how much of it.
#[derive(Clone, Debug)]
pub struct DatabaseSettings {
    /// `postgres://…` or `sqlite://…`; `None` is a file in the working directory.
    pub url: Option<Secret>,
    /// Connections at one time; at least 1.
    pub pool: u32,
    /// How long an article is kept in the archive.
    pub archive: Duration,
}

impl Default for DatabaseSettings {
    fn default() -> DatabaseSettings {
        DatabaseSettings {
            url: None,
            pool: 8,
            archive: Duration::from_secs(30 * 86_400),
        }
    }
}
