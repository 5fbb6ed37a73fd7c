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
mod postgres_statement;
mod postgres_url;
mod query;
mod refusal;
mod rights;
mod rows;
mod session;
mod sqlite_file;
mod sqlite_pool;
mod sqlite_statement;
#[cfg(test)]
mod tests;
mod tls;
mod token;
mod transaction;
mod value;
mod watches;
mod wire;
mod write_places;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use r2d2::ManageConnection;
use scheduled_thread_pool::ScheduledThreadPool;

use larder_cache::Secret;
use larder_cache::random;

pub use archive::{Archive, ArchivedArticle};
pub use canonical::{Canonical, Letters};
pub use deliverer::Deliverer;
pub use describe::{Description, describe_all, describe_with_watches};
pub use error::DatabaseError;
pub(crate) use key_form::presumed_key_id;
pub use key_form::{key_hash, key_id};
pub use key_rate::KeyRate;
pub use keys::{CreatedKey, KeyChanges, KeyMark, KeyPlace, KeyRow, Keys, NewKey};
pub use outbox::{Outbox, OutboxRow};
pub use query::{Parameter, Query};
pub use rows::{Shape, Written, WrittenRow};
pub use transaction::{Isolation, Transaction};
pub use value::Value;
pub use watches::{Watch, WatchedColumn};

use postgres_pool::{PostgresConnection, PostgresManager, PostgresPool};
use session::Session;
use sqlite_file::SqliteFile;
use sqlite_pool::SqliteManager;
use value::Row;
use write_places::WritePlaces;

/// How long to wait for a connection of the pool.
pub const CHECKOUT: Duration = Duration::from_secs(2);
/// How long Postgres may work on one statement.
pub const STATEMENT: Duration = Duration::from_secs(10);
/// Connections for larder's own statements, besides those of the pool: at most two of them write at
/// one time.
pub const OWN_CONNECTIONS: u32 = 3;
/// How long [`Database::ping`] waits for the answer.
const PING: Duration = Duration::from_secs(1);
/// The database of a larder that is told of none.
const DEFAULT_URL: &str = "sqlite://larder.db";

/// Which database, and how much of it.
#[derive(Clone, Debug, PartialEq, Eq)]
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

    /// How a statement has its parameter of this number, from 1.
    fn place(self, number: usize) -> String {
        match self {
            DatabaseKind::Postgres => format!("${number}"),
            DatabaseKind::Sqlite => format!("?{number}"),
        }
    }
}

/// Whether `url` is one of a Postgres that could be connected to. Errors with what is wrong, such
/// as `names no host`, without quoting the URL.
pub fn check_postgres_url(url: &str) -> Result<(), String> {
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
    Sqlite(r2d2::Pool<SqliteManager>, Arc<SqliteFile>),
}

struct Inner {
    /// For the statements of resources.
    pool: Pool,
    /// For larder's own: the keys, the archive, what was delivered, and whether the database
    /// answers. Statements of resources that wait, for a lock or a slow disk, take none of these.
    own: Pool,
    own_writes: WritePlaces,
    /// Opens connections that are not the pool's; none to a file.
    apart: Option<PostgresManager>,
    writes: WritePlaces,
    /// See [`Database::identity`].
    identity: OnceLock<Arc<str>>,
    opened: Instant,
    /// When a statement last gave an answer, in milliseconds after `opened`.
    answered: AtomicU64,
}

/// Why an attempt gave nothing.
struct Failed {
    error: DatabaseError,
    /// Its connection is lost. Whether the last statement ran cannot be told.
    lost: bool,
}

impl From<DatabaseError> for Failed {
    fn from(error: DatabaseError) -> Failed {
        Failed { error, lost: false }
    }
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
        let (pool, own) = match DatabaseKind::of_url(url) {
            Some(DatabaseKind::Postgres) => {
                let manager = PostgresManager::new(url, STATEMENT)?;
                apart = Some(manager.another());
                let own = manager.another();
                // By hand first: the pool would try again until its time is up, and then not tell a wrong password apart. The pool
                // begins with this one: whoever asks first need not wait for a second to be opened, which on a busy machine takes
                // longer than a checkout may.
                let first = manager.connect_first()?;
                manager.keep(first);
                (
                    Pool::Postgres(PostgresPool::new(pool(manager, settings.pool, 3))),
                    Pool::Postgres(PostgresPool::new(pool(own, OWN_CONNECTIONS, 1))),
                )
            }
            Some(DatabaseKind::Sqlite) => {
                let manager = SqliteManager::new(url)?;
                let (own, file) = (manager.another(), manager.file());
                (
                    Pool::Sqlite(pool(manager, settings.pool, 1), file.clone()),
                    Pool::Sqlite(pool(own, OWN_CONNECTIONS, 1), file),
                )
            }
            None => {
                return Err(DatabaseError::Misconfigured(
                    "the database URL begins with neither postgres:// nor sqlite://".to_owned(),
                ));
            }
        };
        Ok(Database(Arc::new(Inner {
            pool,
            own,
            own_writes: WritePlaces::of_pool(OWN_CONNECTIONS),
            apart,
            writes: WritePlaces::of_pool(settings.pool),
            identity: OnceLock::new(),
            opened: Instant::now(),
            answered: AtomicU64::new(0),
        })))
    }

    /// Which database this is.
    pub fn kind(&self) -> DatabaseKind {
        match self.0.pool {
            Pool::Postgres(_) => DatabaseKind::Postgres,
            Pool::Sqlite(..) => DatabaseKind::Sqlite,
        }
    }

    /// Brings the schema up to date and returns how many migrations that took. Errors with [`DatabaseError::Misconfigured`] if the
    /// database has a newer schema than this program.
    pub fn migrate(&self) -> Result<usize, DatabaseError> {
        self.with(migration::run)
    }

    /// Who this database is: a random text that is made once in each, whatever URL leads there, and
    /// that a dump brings along. Asked for once in a process. The schema has to be up to date.
    pub fn identity(&self) -> Result<Arc<str>, DatabaseError> {
        if let Some(known) = self.0.identity.get() {
            return Ok(known.clone());
        }
        let read = || -> Result<Option<String>, DatabaseError> {
            let rows = self.query("identity", &[])?;
            rows.first()
                .map(|row| row.text("id").map(str::to_owned))
                .transpose()
        };
        let id = match read()? {
            Some(id) => id,
            None => {
                let made = format!("{:016x}{:016x}", random(), random());
                // Of replicas that start together one makes it.
                self.execute("identity_make", &[("id", made.into())])?;
                read()?.ok_or_else(|| {
                    DatabaseError::Failed("the database has no identity".to_owned())
                })?
            }
        };
        Ok(self.0.identity.get_or_init(|| id.into()).clone())
    }

    /// Whether the database answers, within six seconds; on one of larder's own connections, so
    /// that what resources wait for does not count. While all of these are at work, too, it counts
    /// as answering if any statement got an answer lately, or if a new connection does: a busy
    /// database is not a dead one.
    pub fn ping(&self) -> Result<(), DatabaseError> {
        let result = match &self.0.own {
            Pool::Postgres(pool) => {
                let pool = pool.pool()?;
                let mut answer = pool.get_timeout(PING).map(|mut one| one.prove(PING));
                if let Ok(Err(_)) = answer {
                    // It may have been lost while it lay in the pool; the next one has proven that
                    // it lives, or is new.
                    answer = pool.get_timeout(PING).map(|mut one| one.prove(PING));
                }
                match answer {
                    Ok(answer) => Ok(answer?),
                    Err(_) if self.is_busy(&pool.state(), pool.max_size()) => return Ok(()),
                    Err(error) if pool.state().idle_connections == 0 => {
                        let new = self.dedicated_connection();
                        let proven = new.map(|new| Ok(new?.prove(PING)?));
                        proven.unwrap_or(Err(checkout(pool, &error)))
                    }
                    Err(error) => Err(checkout(pool, &error)),
                }
            }
            Pool::Sqlite(pool, file) => {
                file.must_be_there()?;
                match pool.get_timeout(PING) {
                    Ok(connection) => Ok(connection.query_row(
                        "SELECT count(*) FROM sqlite_schema",
                        [],
                        |_| Ok(()),
                    )?),
                    Err(_) if self.is_busy(&pool.state(), pool.max_size()) => return Ok(()),
                    Err(error) => Err(checkout(pool, &error)),
                }
            }
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
        self.look_up(&self.0.own, |mut session| session.query(query, given))
    }

    /// The same where it stands in for a load: on the connections of resources, of which there can
    /// be many that wait.
    fn query_as_load(
        &self,
        name: &'static str,
        given: &[Parameter<'_>],
    ) -> Result<Vec<Row>, DatabaseError> {
        let query = library::own(name, self.kind())?;
        self.look_up(&self.0.pool, |mut session| session.query(query, given))
    }

    /// Runs larder's own query `name` by itself and returns how many rows it changed.
    fn execute(&self, name: &'static str, given: &[Parameter<'_>]) -> Result<u64, DatabaseError> {
        let query = library::own(name, self.kind())?;
        let _place = self.own_place()?;
        self.on(&self.0.own, |mut session| session.execute(query, given))
    }

    /// Runs larder's own writes in a transaction: all that `work` does, or nothing where it fails.
    fn own_transaction<T>(
        &self,
        work: impl FnOnce(&mut Transaction<'_>) -> Result<T, DatabaseError>,
    ) -> Result<T, DatabaseError> {
        let _place = self.own_place()?;
        self.begun_once(&self.0.own, work)
    }

    /// The right to take one of larder's own connections for a write.
    fn own_place(&self) -> Result<impl Drop + '_, DatabaseError> {
        let place = self.0.own_writes.take(CHECKOUT);
        place.ok_or_else(|| {
            DatabaseError::Unavailable(
                "no connection is free for this write, and other writes are waiting already"
                    .to_owned(),
            )
        })
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

    /// Hands a connection of the pool to `work`.
    fn with<T>(
        &self,
        work: impl FnOnce(Session<'_>) -> Result<T, DatabaseError>,
    ) -> Result<T, DatabaseError> {
        self.on(&self.0.pool, work)
    }

    /// Hands a connection of `pool` to `work`.
    fn on<T>(
        &self,
        pool: &Pool,
        work: impl FnOnce(Session<'_>) -> Result<T, DatabaseError>,
    ) -> Result<T, DatabaseError> {
        self.attempt(pool, work).map_err(|failed| failed.error)
    }

    /// As [`Database::on`], for work that changes nothing: it runs again, on another connection,
    /// where its own was lost, and where the schema was changed since its statement was prepared.
    /// Once for either, and not after [`STATEMENT`].
    fn look_up<T>(
        &self,
        pool: &Pool,
        work: impl Fn(Session<'_>) -> Result<T, DatabaseError>,
    ) -> Result<T, DatabaseError> {
        let began = Instant::now();
        let (mut lost, mut contended) = (false, false);
        loop {
            let failed = match self.attempt(pool, &work) {
                Ok(done) => return Ok(done),
                Err(failed) => failed,
            };
            let again = match &failed.error {
                _ if began.elapsed() >= STATEMENT => false,
                _ if failed.lost => !std::mem::replace(&mut lost, true),
                DatabaseError::Contended(_) => !std::mem::replace(&mut contended, true),
                _ => false,
            };
            if !again {
                return Err(failed.error);
            }
        }
    }

    fn attempt<T>(
        &self,
        pool: &Pool,
        work: impl FnOnce(Session<'_>) -> Result<T, DatabaseError>,
    ) -> Result<T, Failed> {
        let (result, lost) = match pool {
            Pool::Postgres(pool) => {
                let pool = pool.pool()?;
                let mut connection = pool.get().map_err(|error| checkout(pool, &error))?;
                let result = work(Session::Postgres(&mut connection));
                let lost = result.is_err() && connection.is_lost();
                (result, lost)
            }
            Pool::Sqlite(pool, file) => {
                file.must_be_there()?;
                let connection = pool.get().map_err(|error| checkout(pool, &error))?;
                let done = work(Session::Sqlite(&connection));
                // What was written into a file that went meanwhile is not written.
                (
                    done.and_then(|done| file.must_be_there().map(|()| done)),
                    false,
                )
            }
        };
        if !matches!(result, Err(DatabaseError::Unavailable(_))) {
            self.note_answer();
        }
        result.map_err(|error| Failed { error, lost })
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
