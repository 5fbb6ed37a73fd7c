//! Which database larder uses, and how much of it.

use std::fmt;
use std::time::Duration;

use larder_cache::Secret;

/// The database if none is configured.
const DEFAULT_URL: &str = "sqlite://larder.db";

/// Which database, and how much of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabaseSettings {
    /// `postgres://…` or `sqlite://…`; `None` is a SQLite file in the working directory.
    pub url: Option<Secret>,
    /// The most connections at one time; at least 1.
    pub pool: u32,
    /// How long an article stays in the archive after a source last listed it.
    pub archive: Duration,
}

impl DatabaseSettings {
    /// The URL, or the default.
    pub(super) fn url(&self) -> &str {
        self.url.as_ref().map_or(DEFAULT_URL, Secret::reveal)
    }
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

/// The databases that larder supports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DatabaseKind {
    /// A Postgres server, which replicas share.
    Postgres,
    /// A file, for one machine.
    Sqlite,
}

impl DatabaseKind {
    /// The database that a URL's scheme names; `None` for any other scheme.
    pub fn of_url(url: &str) -> Option<DatabaseKind> {
        match url.split_once("://")?.0 {
            "postgres" | "postgresql" => Some(DatabaseKind::Postgres),
            "sqlite" => Some(DatabaseKind::Sqlite),
            _ => None,
        }
    }

    /// The placeholder of a statement's parameter with this number, from 1.
    pub(super) fn placeholder(self, number: usize) -> String {
        match self {
            DatabaseKind::Postgres => format!("${number}"),
            DatabaseKind::Sqlite => format!("?{number}"),
        }
    }
}

impl fmt::Display for DatabaseKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DatabaseKind::Postgres => "postgres",
            DatabaseKind::Sqlite => "sqlite",
        })
    }
}
