//! A pool of connections to either database, and the rules for every use of a connection: what is
//! tried again, and what a failure means.
//!
//! Promise: work that changes nothing runs a second time if its connection was lost. A transaction
//! is begun again only if its BEGIN found the connection lost, because a connection that is lost
//! later may have committed. A transaction that conflicted with another one runs again from its
//! beginning, up to `MAX_ATTEMPTS` times.

use std::cell::Cell;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use r2d2::ManageConnection;
use scheduled_thread_pool::ScheduledThreadPool;

use super::error::DatabaseError;
use super::postgres_pool::{PostgresManager, PostgresPool};
use super::session::Session;
use super::settings::DatabaseKind;
use super::sqlite_file::SqliteFile;
use super::sqlite_pool::SqliteManager;
use super::transaction::{Isolation, Transaction};
use super::write_permits::{WritePermit, WritePermits};
use super::{CHECKOUT, STATEMENT};

/// How long a ping waits for a connection, and then for the answer.
const PING: Duration = Duration::from_secs(1);
/// The pause before the second attempt. Each later one is twice as long, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(320);
const MAX_ATTEMPTS: u32 = 20;

/// When the database last answered a statement. The pools of one database share it.
pub(super) type LastAnswer = Arc<Mutex<Instant>>;

/// A pool of connections.
pub(super) struct Pool {
    connections: Connections,
    permits: WritePermits,
    last_answer: LastAnswer,
}

enum Connections {
    Postgres(PostgresPool),
    Sqlite(r2d2::Pool<SqliteManager>, Arc<SqliteFile>),
}

/// Why an attempt failed.
struct Failed {
    error: DatabaseError,
    /// The connection is lost, so nobody knows whether the last statement ran.
    lost: bool,
}

impl From<DatabaseError> for Failed {
    fn from(error: DatabaseError) -> Failed {
        Failed { error, lost: false }
    }
}

impl Pool {
    /// A pool of `size` connections, of which `openers` may be opened at one time.
    pub(super) fn postgres(
        manager: PostgresManager,
        size: u32,
        openers: usize,
        last_answer: LastAnswer,
    ) -> Pool {
        let pool = PostgresPool::new(build(manager, size, openers));
        Pool::new(Connections::Postgres(pool), size, last_answer)
    }

    /// A pool of `size` connections.
    pub(super) fn sqlite(manager: SqliteManager, size: u32, last_answer: LastAnswer) -> Pool {
        let file = manager.file.clone();
        let pool = build(manager, size, 1);
        Pool::new(Connections::Sqlite(pool, file), size, last_answer)
    }

    fn new(connections: Connections, size: u32, last_answer: LastAnswer) -> Pool {
        Pool {
            connections,
            permits: WritePermits::of_pool(size),
            last_answer,
        }
    }

    pub(super) fn kind(&self) -> DatabaseKind {
        match self.connections {
            Connections::Postgres(_) => DatabaseKind::Postgres,
            Connections::Sqlite(..) => DatabaseKind::Sqlite,
        }
    }

    /// Runs `work` on a connection, once.
    pub(super) fn run<T>(
        &self,
        work: impl FnOnce(Session<'_>) -> Result<T, DatabaseError>,
    ) -> Result<T, DatabaseError> {
        self.attempt(work).map_err(|failed| failed.error)
    }

    /// Runs `work`, which changes nothing. Runs it again, on another connection, if its own was
    /// lost, and if the schema was changed after its statement was prepared. Each of these once,
    /// and neither after [`STATEMENT`].
    pub(super) fn run_read_only<T>(
        &self,
        work: impl Fn(Session<'_>) -> Result<T, DatabaseError>,
    ) -> Result<T, DatabaseError> {
        let began = Instant::now();
        let (mut lost, mut contended) = (false, false);
        loop {
            let failed = match self.attempt(&work) {
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

    /// Runs `work` in a transaction, once. If BEGIN finds the connection lost, nothing was done, so
    /// BEGIN is tried on another connection, once.
    pub(super) fn transaction<T>(
        &self,
        isolation: Isolation,
        mut work: impl FnMut(&mut Transaction<'_>) -> Result<T, DatabaseError>,
    ) -> Result<T, DatabaseError> {
        let has_begun = Cell::new(false);
        let mut attempt = || {
            self.attempt(|session| {
                Transaction::run(session, isolation, |transaction| {
                    has_begun.set(true);
                    work(transaction)
                })
            })
        };
        let first = attempt();
        let done = match first {
            Err(failed) if failed.lost && !has_begun.get() => attempt(),
            done => done,
        };
        done.map_err(|failed| failed.error)
    }

    /// Runs `work` in a transaction that writes, until it conflicts with no other one; see
    /// [`Database::change`](super::Database::change).
    pub(super) fn change<T>(
        &self,
        isolation: Isolation,
        mut work: impl FnMut(&mut Transaction<'_>) -> Result<T, DatabaseError>,
    ) -> Result<T, DatabaseError> {
        let deadline = Instant::now() + STATEMENT;
        let mut attempt = 1;
        loop {
            // Holds no permit during the pause.
            let result = self
                .write_permit()
                .and_then(|_permit| self.transaction(isolation, &mut work));
            let pause = pause(attempt);
            match result {
                Err(DatabaseError::Contended(_))
                    if attempt < MAX_ATTEMPTS && Instant::now() + pause < deadline =>
                {
                    thread::sleep(pause);
                    attempt += 1;
                }
                ended => return ended,
            }
        }
    }

    /// The right to use a connection for a write.
    pub(super) fn write_permit(&self) -> Result<WritePermit<'_>, DatabaseError> {
        self.permits.acquire(CHECKOUT).ok_or_else(|| {
            DatabaseError::Unavailable(
                "timed out waiting for a connection: too many writes are waiting already"
                    .to_owned(),
            )
        })
    }

    fn attempt<T>(
        &self,
        work: impl FnOnce(Session<'_>) -> Result<T, DatabaseError>,
    ) -> Result<T, Failed> {
        let (result, lost) = match &self.connections {
            Connections::Postgres(pool) => {
                let pool = pool.pool()?;
                let mut connection = pool.get().map_err(|error| checkout(pool, &error))?;
                let result = work(Session::Postgres(&mut connection));
                let lost = result.is_err() && connection.is_lost();
                (result, lost)
            }
            Connections::Sqlite(pool, file) => {
                file.must_be_there()?;
                let connection = pool.get().map_err(|error| checkout(pool, &error))?;
                let done = work(Session::Sqlite(&connection));
                // What was written into a file that was removed meanwhile is lost.
                (
                    done.and_then(|done| file.must_be_there().map(|()| done)),
                    false,
                )
            }
        };
        if !matches!(result, Err(DatabaseError::Unavailable(_))) {
            *self.last_answer.lock() = Instant::now();
        }
        result.map_err(|error| Failed { error, lost })
    }

    /// Whether the database answers; see [`Database::ping`](super::Database::ping). If no
    /// connection can be had, `dedicated` opens one more.
    pub(super) fn ping(&self, dedicated: Option<&PostgresManager>) -> Result<(), DatabaseError> {
        let result = match &self.connections {
            Connections::Postgres(pool) => {
                let pool = pool.pool()?;
                let mut answer = pool.get_timeout(PING).map(|mut one| one.prove(PING));
                if let Ok(Err(_)) = answer {
                    // This connection may have been lost while it was idle. The next one is either
                    // tested or new.
                    answer = pool.get_timeout(PING).map(|mut one| one.prove(PING));
                }
                match answer {
                    Ok(answer) => Ok(answer?),
                    Err(_) if self.is_busy(pool) => return Ok(()),
                    Err(error) => match dedicated {
                        Some(manager) if pool.state().idle_connections == 0 => {
                            manager.connect().and_then(|mut new| Ok(new.prove(PING)?))
                        }
                        _ => Err(checkout(pool, &error)),
                    },
                }
            }
            Connections::Sqlite(pool, file) => {
                file.must_be_there()?;
                match pool.get_timeout(PING) {
                    Ok(connection) => Ok(connection.query_row(
                        "SELECT count(*) FROM sqlite_schema",
                        [],
                        |_| Ok(()),
                    )?),
                    Err(_) if self.is_busy(pool) => return Ok(()),
                    Err(error) => Err(checkout(pool, &error)),
                }
            }
        };
        if result.is_ok() {
            *self.last_answer.lock() = Instant::now();
        }
        result
    }

    /// Whether all connections are in use by a database that answered lately: a statement that runs
    /// now may have begun before that.
    fn is_busy<M: ManageConnection>(&self, pool: &r2d2::Pool<M>) -> bool {
        let state = pool.state();
        state.connections == pool.max_size()
            && state.idle_connections == 0
            && self.last_answer.lock().elapsed() < STATEMENT
    }
}

/// A random half is taken off the pause, so that two that conflicted do not meet again.
fn pause(attempt: u32) -> Duration {
    let whole = (FIRST_PAUSE * (1 << (attempt - 1).min(16))).min(LONGEST_PAUSE);
    let mut random = [0];
    // Without random bytes nothing is taken off.
    let _ = getrandom::fill(&mut random);
    whole - whole / 512 * u32::from(random[0])
}

/// `openers` is how many connections may be opened at one time, each on a thread of its own.
fn build<M: ManageConnection>(manager: M, size: u32, openers: usize) -> r2d2::Pool<M> {
    r2d2::Pool::builder()
        .thread_pool(Arc::new(ScheduledThreadPool::new(openers)))
        .max_size(size.max(1))
        .min_idle(Some(1))
        .connection_timeout(CHECKOUT)
        // r2d2 would log every attempt while the database is away. The callers report it.
        .error_handler(Box::new(r2d2::NopErrorHandler))
        .build_unchecked(manager)
}

/// The error of a pool that had no connection to give. r2d2's own text is "timed out waiting for
/// connection", followed by the last error if there was one.
fn checkout<M: ManageConnection>(pool: &r2d2::Pool<M>, error: &r2d2::Error) -> DatabaseError {
    let text = error.to_string();
    DatabaseError::Unavailable(match text.split_once(": ") {
        Some((_, why)) => format!("no connection to the database: {why}"),
        None if pool.state().connections < pool.max_size() => {
            "timed out opening a connection to the database".to_owned()
        }
        None => "timed out waiting for a connection to the database: all are in use".to_owned(),
    })
}
