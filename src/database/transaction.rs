//! Transactions: all that they do, or nothing.
//!
//! Promise: a transaction whose function fails or panics leaves nothing behind, and its connection
//! goes back to the pool only if that is certain. One in which a statement failed is not committed,
//! whatever its function makes of the error; one whose function says so is undone without any
//! error. Refuses to try again after anything but a conflict with another transaction or a BEGIN
//! that found its connection lost: one that was lost later may have committed.

use std::cell::Cell;
use std::thread;
use std::time::{Duration, Instant};

use super::error::DatabaseError;
use super::query::{Parameter, Query};
use super::rows::{Shape, Written};
use super::session::Session;
use super::value::Row;
use super::{CHECKOUT, Database, DatabaseKind, Pool, STATEMENT, library};

/// How far a change is kept apart from others at the same time. SQLite lets one write after the other in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// Each statement sees what is committed when it begins (READ COMMITTED): enough for one statement.
    Plain,
    /// As if the transactions ran one after the other (SERIALIZABLE): what was read is still so when it commits.
    Serializable,
}

/// The pause before the second attempt; each further one is twice as long, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(320);
const MOST_ATTEMPTS: u32 = 20;

impl Database {
    /// Runs `work` in a transaction: all that it does, or nothing where it fails.
    pub fn transaction<T>(
        &self,
        work: impl FnOnce(&mut Transaction<'_>) -> Result<T, DatabaseError>,
    ) -> Result<T, DatabaseError> {
        self.begun_once(&self.0.pool, work)
    }

    /// The same on a connection of `pool`.
    pub(super) fn begun_once<T>(
        &self,
        pool: &Pool,
        work: impl FnOnce(&mut Transaction<'_>) -> Result<T, DatabaseError>,
    ) -> Result<T, DatabaseError> {
        let mut work = Some(work);
        self.begun(pool, Isolation::Plain, |transaction| match work.take() {
            Some(work) => work(transaction),
            None => Err(DatabaseError::Failed("it ran already".to_owned())),
        })
    }

    /// Runs `work` in a transaction. Where BEGIN finds its connection lost nothing was done, so
    /// BEGIN is tried on another, once.
    fn begun<T>(
        &self,
        pool: &Pool,
        isolation: Isolation,
        mut work: impl FnMut(&mut Transaction<'_>) -> Result<T, DatabaseError>,
    ) -> Result<T, DatabaseError> {
        let has_begun = Cell::new(false);
        let mut attempt = || {
            self.attempt(pool, |session| {
                session.transaction(isolation, |transaction| {
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

    /// Runs `work` in a transaction that may write. Where it conflicts with another at the same
    /// time it is run again, from the beginning, with a growing pause between, and so it is where
    /// the schema was changed since a statement was prepared: at most 20 times, and never begun
    /// again after [`STATEMENT`]. Then it errors with [`DatabaseError::Contended`]. Changes leave
    /// some connections of the pool to reads: one that finds all of the others at work for
    /// [`CHECKOUT`] errors with [`DatabaseError::Unavailable`].
    pub fn change<T>(
        &self,
        isolation: Isolation,
        mut work: impl FnMut(&mut Transaction<'_>) -> Result<T, DatabaseError>,
    ) -> Result<T, DatabaseError> {
        let deadline = Instant::now() + STATEMENT;
        let mut attempt = 1;
        loop {
            // The place is free again during the pause.
            let result = match self.0.writes.take(CHECKOUT) {
                Some(_place) => self.begun(&self.0.pool, isolation, &mut work),
                None => Err(DatabaseError::Unavailable(
                    "no connection for this write: too many writes are waiting already".to_owned(),
                )),
            };
            let pause = pause(attempt);
            match result {
                Err(DatabaseError::Contended(_))
                    if attempt < MOST_ATTEMPTS && Instant::now() + pause < deadline =>
                {
                    thread::sleep(pause);
                    attempt += 1;
                }
                ended => return ended,
            }
        }
    }

    /// The rows that a query gives, as JSON: one object, or an array. `None` if one row is asked for and there is none. It ends
    /// within [`STATEMENT`]. It cannot write: on Postgres the transaction is READ ONLY, on SQLite such a query is refused.
    ///
    /// Errors with [`DatabaseError::Failed`] if there are more rows than one where one is asked
    /// for, or more than 4 MiB of them, and with [`DatabaseError::Unfit`] if a parameter is not
    /// what the query wants. A whole number that is too large for the column that it is compared
    /// with is none: it finds no row. Where its connection was lost, or the schema was changed
    /// since the query was prepared, it runs once more.
    pub fn read(
        &self,
        query: &Query,
        given: &[Parameter<'_>],
        shape: Shape,
    ) -> Result<Option<Vec<u8>>, DatabaseError> {
        self.look_up(&self.0.pool, |mut session| match session.kind() {
            DatabaseKind::Postgres => {
                session.transaction_from(READ_ONLY, |tx| tx.read(query, given, shape))
            }
            // One statement sees one state.
            DatabaseKind::Sqlite => session.read(query, given, shape),
        })
    }
}

/// Up to half of a pause is left out, so that two that conflict do not meet again.
fn pause(attempt: u32) -> Duration {
    let whole = (FIRST_PAUSE * (1 << (attempt - 1).min(16))).min(LONGEST_PAUSE);
    let mut random = [0];
    // Without random bytes the pause is whole.
    let _ = getrandom::fill(&mut random);
    whole - whole / 512 * u32::from(random[0])
}

pub(super) const READ_ONLY: &str = "BEGIN READ ONLY";

impl<'a> Session<'a> {
    /// Runs `work` in a transaction that may write.
    pub(super) fn transaction<T>(
        self,
        isolation: Isolation,
        work: impl FnOnce(&mut Transaction<'_>) -> Result<T, DatabaseError>,
    ) -> Result<T, DatabaseError> {
        let begin = match (self.kind(), isolation) {
            (DatabaseKind::Postgres, Isolation::Plain) => "BEGIN",
            (DatabaseKind::Postgres, Isolation::Serializable) => {
                "BEGIN ISOLATION LEVEL SERIALIZABLE"
            }
            // One that reads first and writes later could otherwise not get the write lock without starting over.
            (DatabaseKind::Sqlite, _) => "BEGIN IMMEDIATE",
        };
        self.transaction_from(begin, work)
    }

    /// Runs `work` between `begin` and COMMIT, or ROLLBACK where it fails or is undone.
    fn transaction_from<T>(
        self,
        begin: &str,
        work: impl FnOnce(&mut Transaction<'_>) -> Result<T, DatabaseError>,
    ) -> Result<T, DatabaseError> {
        let mut transaction = self.begin(begin)?;
        let result = work(&mut transaction)?;
        if let Some(error) = transaction.failed.take() {
            return Err(error);
        }
        if transaction.undone {
            return Ok(result);
        }
        transaction.session.batch("COMMIT")?;
        transaction.open = false;
        Ok(result)
    }

    /// A transaction that ends in ROLLBACK unless something else ends it.
    pub(super) fn begin(self, begin: &str) -> Result<Transaction<'a>, DatabaseError> {
        let mut transaction = Transaction {
            session: self,
            open: false,
            failed: None,
            undone: false,
        };
        transaction.session.batch(begin)?;
        transaction.open = true;
        Ok(transaction)
    }
}

/// A transaction that is open; dropped without a COMMIT it is rolled back.
pub struct Transaction<'a> {
    session: Session<'a>,
    open: bool,
    /// The first error of a statement. Postgres would answer a COMMIT after it with a ROLLBACK, and call that success.
    failed: Option<DatabaseError>,
    /// Its function has a value to give and wants nothing to be written.
    undone: bool,
}

impl<'a> Transaction<'a> {
    /// The rows that a query gives, as JSON, as [`Database::read`] does it. On Postgres the query may lock what it reads.
    pub fn read(
        &mut self,
        query: &Query,
        given: &[Parameter<'_>],
        shape: Shape,
    ) -> Result<Option<Vec<u8>>, DatabaseError> {
        self.run(|session| session.read(query, given, shape))
    }

    /// Runs a statement that writes. A value that its place cannot hold is [`DatabaseError::Unfit`], also a whole number that is
    /// too large; what goes against a constraint is that or [`DatabaseError::Conflict`]. The transaction is lost then.
    pub fn write(
        &mut self,
        query: &Query,
        given: &[Parameter<'_>],
    ) -> Result<Written, DatabaseError> {
        self.run(|session| session.write(query, given))
    }

    /// Has all that this transaction does undone when its function ends, whose value is handed out all the same: for what is no
    /// error of the database.
    pub fn undo(&mut self) {
        self.undone = true;
    }

    /// Which database this is in.
    pub(super) fn kind(&self) -> DatabaseKind {
        self.session.kind()
    }

    /// The rows that larder's own query `name` gives.
    pub(super) fn query(
        &mut self,
        name: &'static str,
        given: &[Parameter<'_>],
    ) -> Result<Vec<Row>, DatabaseError> {
        let query = library::own(name, self.session.kind())?;
        self.query_this(query, given)
    }

    /// Runs larder's own query `name` and returns how many rows it changed.
    pub(super) fn execute(
        &mut self,
        name: &'static str,
        given: &[Parameter<'_>],
    ) -> Result<u64, DatabaseError> {
        let query = library::own(name, self.session.kind())?;
        self.execute_this(query, given)
    }

    /// Runs SQL of larder's own that takes no values, of one statement or several.
    pub(super) fn batch(&mut self, sql: &str) -> Result<(), DatabaseError> {
        self.run(|session| session.batch(sql))
    }

    /// As `query`, for one that is not among the named ones.
    pub(super) fn query_this(
        &mut self,
        query: &Query,
        given: &[Parameter<'_>],
    ) -> Result<Vec<Row>, DatabaseError> {
        self.run(|session| session.query(query, given))
    }

    /// As `execute`, for one that is not among the named ones.
    pub(super) fn execute_this(
        &mut self,
        query: &Query,
        given: &[Parameter<'_>],
    ) -> Result<u64, DatabaseError> {
        self.run(|session| session.execute(query, given))
    }

    /// The connection itself, for what is no statement.
    pub(super) fn session(&mut self) -> &mut Session<'a> {
        &mut self.session
    }

    fn run<T>(
        &mut self,
        work: impl FnOnce(&mut Session<'a>) -> Result<T, DatabaseError>,
    ) -> Result<T, DatabaseError> {
        let result = work(&mut self.session);
        if let (Err(error), None) = (&result, &self.failed) {
            self.failed = Some(error.clone());
        }
        result
    }
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        if self.open && self.session.batch("ROLLBACK").is_err() {
            match &mut self.session {
                Session::Postgres(connection) => connection.spoilt = true,
                // SQLite has rolled back by itself where ROLLBACK finds no transaction; the manager asks it.
                Session::Sqlite(_) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::super::value::Value;
    use super::*;

    #[test]
    fn a_transaction_that_fails_or_panics_leaves_nothing_and_its_connection_is_good() {
        fixture::each_bare(|place| {
            let database = place.open_with(1);
            database
                .transaction(|tx| tx.batch("CREATE TABLE t (id BIGINT PRIMARY KEY)"))
                .unwrap();
            let insert = |tx: &mut Transaction<'_>| {
                let query = Query::parse("insert", "INSERT INTO t VALUES (:id)")?;
                tx.execute_this(&query, &[("id", Value::Int(1))])
            };

            let failed = database.transaction(|tx| {
                insert(tx)?;
                insert(tx)
            });
            assert!(
                matches!(failed, Err(DatabaseError::Conflict { .. })),
                "{failed:?}"
            );
            let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                database.transaction::<()>(|tx| {
                    insert(tx)?;
                    panic!("on purpose");
                })
            }));
            assert!(panicked.is_err());
            let count = |tx: &mut Transaction<'_>| {
                let query = Query::parse("count", "SELECT count(*) AS n FROM t")?;
                tx.query_this(&query, &[])?[0].int("n")
            };
            assert_eq!(database.transaction(count).unwrap(), 0);
            assert_eq!(database.transaction(insert).unwrap(), 1);
            assert_eq!(database.transaction(count).unwrap(), 1);
        });
    }
}
