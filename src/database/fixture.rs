//! Databases for tests: a SQLite file and a Postgres database, each empty, each gone afterwards.

use std::ops::Deref;
use std::sync::Arc;

use tempfile::TempDir;
use testkit::postgres::PostgresServer;

use super::{Database, DatabaseSettings};
use larder_cache::Secret;

/// An empty database that nobody has opened.
#[derive(Clone)]
pub(crate) struct Place {
    url: String,
    _folder: Option<Arc<TempDir>>,
}

impl Place {
    /// A SQLite file.
    pub(crate) fn sqlite() -> Place {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", folder.path().join("larder.db").display());
        Place {
            url,
            _folder: Some(Arc::new(folder)),
        }
    }

    /// A database on the Postgres server that the tests share.
    pub(crate) fn postgres() -> Place {
        Place::postgres_with("")
    }

    /// The same, made with these options of `CREATE DATABASE`.
    pub(crate) fn postgres_with(options: &str) -> Place {
        let url = PostgresServer::shared().new_database_with(options);
        Place {
            url: format!("{url}?sslmode=disable"),
            _folder: None,
        }
    }

    /// Runs SQL on this Postgres database as the superuser of its server.
    pub(crate) fn administer(&self, sql: &str) -> Result<(), postgres::Error> {
        let name = self.url.rsplit('/').next().unwrap();
        let name = name.split('?').next().unwrap();
        PostgresServer::shared()
            .administrator(name)
            .batch_execute(sql)
    }

    pub(crate) fn settings(&self) -> DatabaseSettings {
        DatabaseSettings {
            url: Some(Secret::new(self.url.as_str())),
            ..DatabaseSettings::default()
        }
    }

    /// Opens it with a pool of its own, as one more replica would.
    pub(crate) fn open(&self) -> Opened {
        self.open_with(DatabaseSettings::default().pool)
    }

    /// As `open`, with so many connections.
    pub(crate) fn open_with(&self, pool: u32) -> Opened {
        let settings = DatabaseSettings {
            pool,
            ..self.settings()
        };
        Opened {
            database: Database::open(&settings).unwrap(),
            place: self.clone(),
        }
    }

    /// Opens it with the schema in place.
    pub(crate) fn migrated(&self) -> Opened {
        let database = self.open();
        database.migrate().unwrap();
        database
    }
}

/// A database that is open, and is there for as long as this is: its pool opens connections
/// whenever it likes.
pub(crate) struct Opened {
    database: Database,
    place: Place,
}

impl Opened {
    /// Where it is.
    pub(crate) fn place(&self) -> &Place {
        &self.place
    }
}

impl Deref for Opened {
    type Target = Database;

    fn deref(&self) -> &Database {
        &self.database
    }
}

/// Runs a test on an empty database of each kind.
pub(crate) fn each_bare(test: impl Fn(&Place)) {
    test(&Place::sqlite());
    test(&Place::postgres());
}

/// Runs a test on a database of each kind that has the schema.
pub(crate) fn each(test: impl Fn(&Database)) {
    each_bare(|place| test(&place.migrated()));
}

/// Runs any SQL.
pub(crate) fn batch(database: &Database, sql: &str) {
    database.transaction(|tx| tx.batch(sql)).unwrap();
}
