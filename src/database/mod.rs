//! Postgres, or SQLite when none is configured: pools, migrations, named queries, and what larder itself keeps there.
//!
//! Promise: every call ends with a value or a [`DatabaseError`] that says what to do next, and every wait has a bound: [`CHECKOUT`]
//! for a connection, twice for one that is to write (and a quarter of a second for each that turns out dead), [`STATEMENT`] for a statement, a quarter of a minute
//! for a host that vanished. One is missing: a server that freezes within a statement while its host lives on holds those who
//! wait for it, as many as the pool is large, since the client has no timeout of its own; the others get `Unavailable`.
//!
//! Invariant: values travel as parameters, never as SQL. Refuses to be used on an async worker: the Postgres client panics
//! there, so call it from plain or blocking threads. A `Database` may be dropped anywhere.

mod archive;
mod canonical;
mod deliverer;
mod describe;
mod error;
#[cfg(test)]
pub(crate) mod fixture;
mod key_form;
mod key_rate;
mod keys;
mod library;
mod migration;
mod outbox;
mod pooler;
mod postgres_pool;
#[cfg(test)]
#[path = "../../tests/support/postgres_program.rs"]
#[allow(unreachable_pub)]
mod postgres_program;
#[cfg(test)]
mod postgres_server;
mod postgres_statement;
mod postgres_url;
mod query;
mod refusal;
mod rights;
mod rows;
mod session;
mod sqlite_pool;
mod sqlite_statement;
#[cfg(test)]
mod tests;
mod tls;
mod transaction;
mod value;
mod watches;
mod wire;
mod write_places;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use r2d2::ManageConnection;
use scheduled_thread_pool::ScheduledThreadPool;

use crate::secret::Secret;

pub use archive::{Archive, ArchivedArticle};
pub use canonical::{Canonical, Letters};
pub use deliverer::Deliverer;
pub use describe::{Description, describe_all, describe_with_watches};
pub use error::DatabaseError;
pub(crate) use key_form::presumed_key_id;
pub use key_form::{key_hash, key_id};
pub use key_rate::KeyRate;
pub use keys::{CreatedKey, KeyRow, Keys, NewKey};
pub use outbox::{Outbox, OutboxRow};
pub use query::{Parameter, Query};
pub use rows::{Shape, Written, WrittenRow};
pub use transaction::{Isolation, Transaction};
pub use value::Value;
pub use watches::{Watch, WatchedColumn};

use postgres_pool::{PostgresConnection, PostgresManager, PostgresPool};
use session::Session;
use sqlite_pool::SqliteManager;
use value::Row;
use write_places::WritePlaces;

/// How long to wait for a connection of the pool.
pub const CHECKOUT: Duration = Duration::from_secs(2);
/// How long Postgres may work on one statement.
pub const STATEMENT: Duration = Duration::from_secs(10);
/// How long [`Database::ping`] waits for the answer.
const PING: Duration = Duration::from_secs(1);
/// The database of a larder that is told of none.
const DEFAULT_URL: &str = "sqlite://larder.db";

/// Which database, and how much of it.
#[derive(Clone, Debug)]
pub struct DatabaseSettings {
    /// `postgres://…` or `sqlite://…`; `None` is a file in the working directory.
    pub url: Option<Secret>,
    /// Connections at one time; at least 1.
    pub pool: u32,
    /// How long an article stays in the archive after a source listed it last.
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

/// The databases that larder speaks to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DatabaseKind {
    /// A Postgres server, which replicas share.
    Postgres,
    /// A file, for one machine.
    Sqlite,
}

impl DatabaseKind {
    /// What a URL's scheme asks for; `None` if that is neither.
    pub fn of_url(url: &str) -> Option<DatabaseKind> {
        match url.split_once("://")?.0 {
            "postgres" | "postgresql" => Some(DatabaseKind::Postgres),
            "sqlite" => Some(DatabaseKind::Sqlite),
            _ => None,
        }
    }
}

/// Whether `url` is one of a Postgres that could be connected to. Errors with what is wrong, without quoting the URL.
pub fn check_postgres_url(url: &str) -> Result<(), DatabaseError> {
    postgres_url::parse(url).map(drop)
}

impl fmt::Display for DatabaseKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DatabaseKind::Postgres => "postgres",
            DatabaseKind::Sqlite => "sqlite",
        })
    }
}

enum Pool {
    Postgres(PostgresPool),
    Sqlite(r2d2::Pool<SqliteManager>),
}

struct Inner {
    pool: Pool,
    /// Opens connections that are not the pool's; none to a file.
    apart: Option<PostgresManager>,
    writes: WritePlaces,
    opened: Instant,
    /// When a statement last gave an answer, in milliseconds after `opened`.
    answered: AtomicU64,
}

/// A pool of connections. Cheap to clone.
#[derive(Clone)]
pub struct Database(Arc<Inner>);

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Database({})", self.kind())
    }
}

impl Database {
    /// Connects, within five seconds, and says plainly why it cannot.
    pub fn open(settings: &DatabaseSettings) -> Result<Database, DatabaseError> {
        let url = settings.url.as_ref().map_or(DEFAULT_URL, Secret::reveal);
        let mut apart = None;
        let pool = match DatabaseKind::of_url(url) {
            Some(DatabaseKind::Postgres) => {
                let manager = PostgresManager::new(url, STATEMENT)?;
                apart = Some(manager.another());
                // By hand first: the pool would try again until its time is up, and then not tell a wrong password apart. The pool
                // begins with this one: whoever asks first need not wait for a second to be opened, which on a busy machine takes
                // longer than a checkout may.
                let first = manager.connect_first()?;
                manager.keep(first);
                Pool::Postgres(PostgresPool::new(pool(manager, settings.pool, 3)))
            }
            Some(DatabaseKind::Sqlite) => {
                Pool::Sqlite(pool(SqliteManager::new(url)?, settings.pool, 1))
            }
            None => {
                return Err(DatabaseError::Misconfigured(
                    "the database URL begins with neither postgres:// nor sqlite://".to_owned(),
                ));
            }
        };
        Ok(Database(Arc::new(Inner {
            pool,
            apart,
            writes: WritePlaces::of_pool(settings.pool),
            opened: Instant::now(),
            answered: AtomicU64::new(0),
        })))
    }

    /// Which database this is.
    pub fn kind(&self) -> DatabaseKind {
        match self.0.pool {
            Pool::Postgres(_) => DatabaseKind::Postgres,
            Pool::Sqlite(_) => DatabaseKind::Sqlite,
        }
    }

    /// Brings the schema up to date and returns how many migrations that took. Errors with [`DatabaseError::Misconfigured`] if the
    /// database has a newer schema than this program.
    pub fn migrate(&self) -> Result<usize, DatabaseError> {
        self.with(migration::run)
    }

    /// Whether the database answers, within four seconds. While every connection is at work it counts as answering if one of
    /// them got an answer lately: a busy database is not a dead one.
    pub fn ping(&self) -> Result<(), DatabaseError> {
        let result = match &self.0.pool {
            Pool::Postgres(pool) => {
                let pool = pool.pool()?;
                match pool.get_timeout(PING) {
                    Ok(mut connection) => Ok(connection.prove(PING)?),
                    Err(_) if self.is_busy(&pool.state(), pool.max_size()) => return Ok(()),
                    Err(error) => Err(checkout(pool, &error)),
                }
            }
            Pool::Sqlite(pool) => match pool.get_timeout(PING) {
                Ok(connection) => Ok(connection.query_row(
                    "SELECT count(*) FROM sqlite_schema",
                    [],
                    |_| Ok(()),
                )?),
                Err(_) if self.is_busy(&pool.state(), pool.max_size()) => return Ok(()),
                Err(error) => Err(checkout(pool, &error)),
            },
        };
        if result.is_ok() {
            self.note_answer();
        }
        result
    }

    /// The rows that larder's own query `name` gives.
    fn query(
        &self,
        name: &'static str,
        given: &[Parameter<'_>],
    ) -> Result<Vec<Row>, DatabaseError> {
        let query = library::own(name, self.kind())?;
        self.with(|mut session| session.query(query, given))
    }

    /// Runs larder's own query `name` by itself and returns how many rows it changed.
    fn execute(&self, name: &'static str, given: &[Parameter<'_>]) -> Result<u64, DatabaseError> {
        let query = library::own(name, self.kind())?;
        self.with(|mut session| session.execute(query, given))
    }

    /// The API keys.
    pub fn keys(&self) -> Keys<'_> {
        Keys(self)
    }

    /// The articles of the past.
    pub fn archive(&self) -> Archive<'_> {
        Archive(self)
    }

    /// What others have changed behind larder's back.
    pub fn outbox(&self) -> Outbox<'_> {
        Outbox(self)
    }

    /// A connection to Postgres that is the caller's alone; `None`: this is SQLite.
    fn dedicated_connection(&self) -> Option<Result<PostgresConnection, DatabaseError>> {
        self.0.apart.as_ref().map(ManageConnection::connect)
    }

    fn with<T>(
        &self,
        work: impl FnOnce(Session<'_>) -> Result<T, DatabaseError>,
    ) -> Result<T, DatabaseError> {
        let result = match &self.0.pool {
            Pool::Postgres(pool) => {
                let pool = pool.pool()?;
                let mut connection = pool.get().map_err(|error| checkout(pool, &error))?;
                work(Session::Postgres(&mut connection))
            }
            Pool::Sqlite(pool) => {
                let connection = pool.get().map_err(|error| checkout(pool, &error))?;
                work(Session::Sqlite(&connection))
            }
        };
        if !matches!(result, Err(DatabaseError::Unavailable(_))) {
            self.note_answer();
        }
        result
    }

    fn is_busy(&self, state: &r2d2::State, size: u32) -> bool {
        let answered = Duration::from_millis(self.0.answered.load(Ordering::Relaxed));
        state.connections == size
            && state.idle_connections == 0
            && self.0.opened.elapsed() < answered + STATEMENT
    }

    fn note_answer(&self) {
        let now = u64::try_from(self.0.opened.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.answered.store(now, Ordering::Relaxed);
    }
}

/// `openers`: how many connections may be opened at one time, each on a thread.
fn pool<M: ManageConnection>(manager: M, size: u32, openers: usize) -> r2d2::Pool<M> {
    r2d2::Pool::builder()
        .thread_pool(Arc::new(ScheduledThreadPool::new(openers)))
        .max_size(size.max(1))
        .min_idle(Some(1))
        .connection_timeout(CHECKOUT)
        // Its logger would write a line for every attempt while the database is away; the callers report it.
        .error_handler(Box::new(r2d2::NopErrorHandler))
        .build_unchecked(manager)
}

/// r2d2's own text is "timed out waiting for connection", with the last error behind it if there was one.
fn checkout<M: ManageConnection>(pool: &r2d2::Pool<M>, error: &r2d2::Error) -> DatabaseError {
    let text = error.to_string();
    DatabaseError::Unavailable(match text.split_once(": ") {
        Some((_, why)) => format!("no connection to the database: {why}"),
        None if pool.state().connections < pool.max_size() => {
            "no connection to the database: none could be opened in time".to_owned()
        }
        None => "no connection to the database: all of them are at work".to_owned(),
    })
}

/// Milliseconds since 1970.
fn unix_ms() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
