//! Postgres, or SQLite if none is configured: pools, migrations, named queries, and the tables in
//! which larder itself keeps keys, archived articles and the outbox.
//!
//! Promise: every call ends with a value or with a [`DatabaseError`] that says what to do next, and
//! every wait has a bound: [`CHECKOUT`] for a connection, twice that for one that writes,
//! [`STATEMENT`] for a statement, 250 ms for each idle connection that turns out dead, and 15 s for
//! a host that vanished. One bound is missing: the client has no timeout of its own, so a server
//! that freezes within a statement while its host lives on holds the callers of that statement, at
//! most as many as the pool is large. Everybody else gets `Unavailable`.
//!
//! Invariant: values travel as parameters, never as SQL. A `Database` must not be used on an async
//! worker, where the Postgres client panics: call it from plain or blocking threads. It may be
//! dropped anywhere.

mod archive;
mod canonical;
mod deliverer;
mod describe;
mod error;
#[cfg(test)]
pub(crate) mod fixture;
mod json_rows;
mod key_form;
mod key_rate;
mod keys;
mod library;
mod migration;
mod outbox;
mod pool;
mod pooler;
mod postgres_connection;
mod postgres_error;
mod postgres_pool;
mod postgres_url;
mod query;
mod rights;
mod row;
mod session;
mod settings;
mod sql_value;
mod sqlite_error;
mod sqlite_file;
mod sqlite_pool;
mod sqlite_statement;
#[cfg(test)]
mod tests;
mod tls;
mod token;
mod transaction;
mod watches;
mod wire;
mod write_permits;

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use larder_cache::random;
use parking_lot::Mutex;
use r2d2::ManageConnection;

pub use archive::{Archive, ArchivedArticle};
pub use canonical::{Canonical, Letters};
pub use deliverer::Deliverer;
pub use describe::{Description, describe_all};
pub use error::DatabaseError;
pub use json_rows::{ReturnedRow, Shape, WriteResult};
pub(crate) use key_form::presumed_key_id;
pub use key_form::{key_hash, key_id};
pub use key_rate::KeyRate;
pub use keys::{CreatedKey, KeyChanges, KeyCursor, KeyMark, KeyRow, Keys, NewKey};
pub use library::load_query;
pub use outbox::{Outbox, OutboxRow};
pub use query::{Parameter, Query};
pub use settings::{DatabaseKind, DatabaseSettings};
pub use sql_value::SqlValue;
pub use transaction::{Isolation, Transaction};
pub use watches::{Watch, WatchedColumn};
pub(crate) use wire::parse_uuid;

use pool::{LastAnswer, Pool};
use postgres_connection::PostgresConnection;
use postgres_pool::PostgresManager;
use row::Row;
use session::Session;
use sqlite_pool::SqliteManager;
use transaction::READ_ONLY;

/// How long to wait for a connection of the pool.
pub const CHECKOUT: Duration = Duration::from_secs(2);
/// How long the database may work on one statement.
pub const STATEMENT: Duration = Duration::from_secs(10);
/// Connections for larder's own statements, beside those of the pool. At most two of them write at
/// one time.
pub const OWN_CONNECTIONS: u32 = 3;

/// Whether `url` names a Postgres server. Errors with what is wrong, such as `names no host`. The
/// error never quotes the URL.
pub fn check_postgres_url(url: &str) -> Result<(), String> {
    postgres_url::parse(url).map(drop)
}

/// A database and its pools of connections. Cheap to clone.
#[derive(Clone)]
pub struct Database(Arc<Shared>);

struct Shared {
    /// For the statements of resources.
    resources: Pool,
    /// For larder's own statements: keys, archive, outbox, pings. A resource's statement that waits
    /// for a lock or a slow disk takes none of these connections.
    own: Pool,
    /// Opens connections outside both pools. `None` for SQLite.
    dedicated: Option<PostgresManager>,
    /// See [`Database::identity`].
    identity: OnceLock<Arc<str>>,
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Database({})", self.kind())
    }
}

impl Database {
    /// Connects, within five seconds. Errors with the reason if it cannot.
    pub fn open(settings: &DatabaseSettings) -> Result<Database, DatabaseError> {
        let url = settings.url();
        let last_answer: LastAnswer = Arc::new(Mutex::new(Instant::now()));
        let mut dedicated = None;
        let (resources, own) = match DatabaseKind::of_url(url) {
            Some(DatabaseKind::Postgres) => {
                let manager = PostgresManager::new(url, STATEMENT)?;
                dedicated = Some(manager.another());
                let own = manager.another();
                // Outside the pool, which would retry until its time is up and could not tell a
                // wrong password from a server that is away. The pool then begins with this
                // connection: on a busy machine, opening a second one takes longer than a checkout
                // may.
                let first = manager.connect_first()?;
                manager.keep(first);
                (
                    Pool::postgres(manager, settings.pool, 3, last_answer.clone()),
                    Pool::postgres(own, OWN_CONNECTIONS, 1, last_answer),
                )
            }
            Some(DatabaseKind::Sqlite) => {
                let manager = SqliteManager::new(url)?;
                let own = manager.clone();
                (
                    Pool::sqlite(manager, settings.pool, last_answer.clone()),
                    Pool::sqlite(own, OWN_CONNECTIONS, last_answer),
                )
            }
            None => {
                return Err(DatabaseError::Misconfigured(
                    "the database URL begins with neither postgres:// nor sqlite://".to_owned(),
                ));
            }
        };
        Ok(Database(Arc::new(Shared {
            resources,
            own,
            dedicated,
            identity: OnceLock::new(),
        })))
    }

    /// Which database this is.
    pub fn kind(&self) -> DatabaseKind {
        self.0.resources.kind()
    }

    /// Brings the schema up to date and returns how many migrations that took. Errors with
    /// [`DatabaseError::Misconfigured`] if the schema is newer than this program.
    pub fn migrate(&self) -> Result<usize, DatabaseError> {
        self.0.resources.run(migration::run)
    }

    /// A random text that identifies this database, whatever URL leads to it. It is made once and
    /// is part of a dump. Read once per process. The schema has to be up to date.
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
                let new = format!("{:016x}{:016x}", random(), random());
                // Of several replicas that start together, the first one's is kept.
                self.execute("identity_make", &[("id", new.into())])?;
                read()?.ok_or_else(|| {
                    DatabaseError::Failed("the database has no identity".to_owned())
                })?
            }
        };
        Ok(self.0.identity.get_or_init(|| id.into()).clone())
    }

    /// Whether the database answers, within six seconds. Asks on one of larder's own connections,
    /// so resources that wait do not count. If all of those are in use as well, it counts as
    /// answering if any statement was answered lately, or if a new connection is: a busy database
    /// is not a dead one.
    pub fn ping(&self) -> Result<(), DatabaseError> {
        self.0.own.ping(self.0.dedicated.as_ref())
    }

    /// The rows of a query as JSON: one object, or an array. `None` if one row is expected and
    /// there is none. Ends within [`STATEMENT`]. The query cannot write: on Postgres its
    /// transaction is READ ONLY, on SQLite such a query is refused.
    ///
    /// Errors with [`DatabaseError::Failed`] if there are several rows where one is expected, or
    /// more than 4 MiB of JSON, and with [`DatabaseError::Unfit`] if a parameter is not of its
    /// type. A whole number that is too large for the column it is compared with is no error: it
    /// finds no row. If the connection was lost, or if the schema was changed after the query was
    /// prepared, the query runs once more.
    pub fn read(
        &self,
        query: &Query,
        parameters: &[Parameter<'_>],
        shape: Shape,
    ) -> Result<Option<Vec<u8>>, DatabaseError> {
        let pool = &self.0.resources;
        pool.run_read_only(|mut session| match session.kind() {
            DatabaseKind::Postgres => Transaction::run_from(session, READ_ONLY, |transaction| {
                transaction.read(query, parameters, shape)
            }),
            // A single statement sees a single state.
            DatabaseKind::Sqlite => session.read(query, parameters, shape),
        })
    }

    /// Runs `work` in a transaction: all of it takes effect, or nothing if it fails.
    pub fn transaction<T>(
        &self,
        work: impl FnMut(&mut Transaction<'_>) -> Result<T, DatabaseError>,
    ) -> Result<T, DatabaseError> {
        self.0.resources.transaction(Isolation::Plain, work)
    }

    /// Runs `work` in a transaction that may write. Runs it again from its beginning, after a
    /// growing pause, if it conflicts with a transaction at the same time or if the schema was
    /// changed after a statement was prepared: at most 20 times, and not after [`STATEMENT`]. Then
    /// it errors with [`DatabaseError::Contended`]. Some connections of the pool are reserved for
    /// reads: errors with [`DatabaseError::Unavailable`] if the others are in use for all of
    /// [`CHECKOUT`].
    pub fn change<T>(
        &self,
        isolation: Isolation,
        work: impl FnMut(&mut Transaction<'_>) -> Result<T, DatabaseError>,
    ) -> Result<T, DatabaseError> {
        self.0.resources.change(isolation, work)
    }

    /// The parameters and columns of a query, which is not run. Errors with
    /// [`DatabaseError::Misconfigured`] if the database refuses the query, if two columns have one
    /// name, or if a column or a parameter has a type without a JSON form.
    pub fn describe(&self, query: &Query) -> Result<Description, DatabaseError> {
        self.0.resources.run(|session| {
            let begin = match session.kind() {
                DatabaseKind::Postgres => READ_ONLY,
                DatabaseKind::Sqlite => "BEGIN",
            };
            describe::describe(&mut Transaction::begin(session, begin)?, query)
        })
    }

    /// Every watch that the database has; none on SQLite.
    pub fn watches(&self) -> Result<Vec<Watch>, DatabaseError> {
        match self.kind() {
            DatabaseKind::Sqlite => Ok(Vec::new()),
            DatabaseKind::Postgres => {
                let pool = &self.0.resources;
                pool.run(|mut session| watches::of_session(&mut session))
            }
        }
    }

    /// The API keys.
    pub fn keys(&self) -> Keys<'_> {
        Keys(self)
    }

    /// The archived articles.
    pub fn archive(&self) -> Archive<'_> {
        Archive(self)
    }

    /// The outbox of changes that are still to be invalidated.
    pub fn outbox(&self) -> Outbox<'_> {
        Outbox(self)
    }

    /// The rows of larder's own query `name`.
    fn query(
        &self,
        name: &'static str,
        parameters: &[Parameter<'_>],
    ) -> Result<Vec<Row>, DatabaseError> {
        self.query_in(&self.0.own, name, parameters)
    }

    /// As [`Database::query`], if it takes the place of a load: on the connections of resources, as
    /// many such queries may wait.
    fn query_as_load(
        &self,
        name: &'static str,
        parameters: &[Parameter<'_>],
    ) -> Result<Vec<Row>, DatabaseError> {
        self.query_in(&self.0.resources, name, parameters)
    }

    fn query_in(
        &self,
        pool: &Pool,
        name: &'static str,
        parameters: &[Parameter<'_>],
    ) -> Result<Vec<Row>, DatabaseError> {
        let query = library::own(name, self.kind())?;
        pool.run_read_only(|mut session| session.query(query, parameters))
    }

    /// Runs larder's own query `name` outside a transaction and returns how many rows it changed.
    fn execute(
        &self,
        name: &'static str,
        parameters: &[Parameter<'_>],
    ) -> Result<u64, DatabaseError> {
        let query = library::own(name, self.kind())?;
        let _permit = self.0.own.write_permit()?;
        let write = |mut session: Session<'_>| session.write(query, parameters);
        Ok(self.0.own.run(write)?.changed)
    }

    /// Runs larder's own writes in a transaction.
    fn own_transaction<T>(
        &self,
        work: impl FnMut(&mut Transaction<'_>) -> Result<T, DatabaseError>,
    ) -> Result<T, DatabaseError> {
        let _permit = self.0.own.write_permit()?;
        self.0.own.transaction(Isolation::Plain, work)
    }

    /// A connection to Postgres that is the caller's alone. `None` for SQLite.
    fn dedicated_connection(&self) -> Option<Result<PostgresConnection, DatabaseError>> {
        self.0.dedicated.as_ref().map(ManageConnection::connect)
    }
}

/// Milliseconds since 1970.
fn unix_ms() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
