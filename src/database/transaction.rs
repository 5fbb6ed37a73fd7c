//! Transactions: all of their work takes effect, or nothing.
//!
//! Promise: a transaction whose function fails or panics leaves nothing behind, and its connection
//! goes back to the pool only if that is certain. A transaction in which a statement failed is
//! never committed, even if its function ignores the error. A function may also have its
//! transaction undone without an error.

use super::error::DatabaseError;
use super::json_rows::{Shape, WriteResult};
use super::library;
use super::outbox::OutboxRow;
use super::query::{Parameter, Query};
use super::row::Row;
use super::session::Session;
use super::settings::DatabaseKind;

/// How far a change is isolated from others at the same time. SQLite runs one write after the other
/// in either case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// READ COMMITTED: each statement sees what is committed when it begins. Enough for a single
    /// statement.
    Plain,
    /// SERIALIZABLE: as if the transactions ran one after the other. What was read is still true at
    /// the commit.
    Serializable,
}

/// How a transaction that only reads begins on Postgres.
pub(super) const READ_ONLY: &str = "BEGIN READ ONLY";

/// An open transaction. Dropped without a COMMIT, it is rolled back.
pub struct Transaction<'a> {
    session: Session<'a>,
    open: bool,
    /// The first error of a statement. Postgres would answer a later COMMIT with a ROLLBACK, and
    /// report success.
    failed: Option<DatabaseError>,
    /// The function asked for a rollback without an error.
    undone: bool,
}

impl<'a> Transaction<'a> {
    /// Runs `work` in a transaction that may write.
    pub(super) fn run<T>(
        session: Session<'a>,
        isolation: Isolation,
        work: impl FnOnce(&mut Transaction<'_>) -> Result<T, DatabaseError>,
    ) -> Result<T, DatabaseError> {
        let begin = match (session.kind(), isolation) {
            (DatabaseKind::Postgres, Isolation::Plain) => "BEGIN",
            (DatabaseKind::Postgres, Isolation::Serializable) => {
                "BEGIN ISOLATION LEVEL SERIALIZABLE"
            }
            // Without IMMEDIATE, a transaction that reads first and writes later may fail to get
            // the write lock and would have to start over.
            (DatabaseKind::Sqlite, _) => "BEGIN IMMEDIATE",
        };
        Transaction::run_from(session, begin, work)
    }

    /// Runs `work` between `begin` and COMMIT, or ROLLBACK if it fails or is undone.
    pub(super) fn run_from<T>(
        session: Session<'a>,
        begin: &str,
        work: impl FnOnce(&mut Transaction<'_>) -> Result<T, DatabaseError>,
    ) -> Result<T, DatabaseError> {
        let mut transaction = Transaction::begin(session, begin)?;
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

    /// A transaction that is rolled back when it is dropped.
    pub(super) fn begin(
        session: Session<'a>,
        begin: &str,
    ) -> Result<Transaction<'a>, DatabaseError> {
        let mut transaction = Transaction {
            session,
            open: false,
            failed: None,
            undone: false,
        };
        transaction.session.batch(begin)?;
        transaction.open = true;
        Ok(transaction)
    }

    /// The rows of a query as JSON, as [`Database::read`](super::Database::read) gives them. On
    /// Postgres the query may lock what it reads.
    pub fn read(
        &mut self,
        query: &Query,
        parameters: &[Parameter<'_>],
        shape: Shape,
    ) -> Result<Option<Vec<u8>>, DatabaseError> {
        self.remember(|session| session.read(query, parameters, shape))
    }

    /// Checks the values of a statement without running it. Errors with [`DatabaseError::Unfit`] if
    /// a value is not of its type, as far as that is known before the statement runs.
    pub fn check(
        &mut self,
        query: &Query,
        parameters: &[Parameter<'_>],
    ) -> Result<(), DatabaseError> {
        self.remember(|session| session.check(query, parameters))
    }

    /// Runs a statement that writes. Errors with [`DatabaseError::Unfit`] if a value is not of its
    /// type, also if a whole number is too large for it. A violated constraint is that error or
    /// [`DatabaseError::Conflict`]. After an error the transaction cannot be committed.
    pub fn write(
        &mut self,
        query: &Query,
        parameters: &[Parameter<'_>],
    ) -> Result<WriteResult, DatabaseError> {
        self.remember(|session| session.write(query, parameters))
    }

    /// Has the transaction rolled back when its function returns `Ok`. The value is returned all
    /// the same.
    pub fn undo(&mut self) {
        self.undone = true;
    }

    /// Leaves `names` in the outbox, to be committed with this transaction's writes: call it after
    /// the statements that write. A name is written like a tag, or `*` for everything. Names that
    /// the triggers of watched tables left as well are removed, so that none is delivered twice.
    ///
    /// The caller invalidates the names right after the commit and then calls
    /// [`Outbox::delivered`](super::Outbox::delivered). If it dies before that, another replica
    /// invalidates them two seconds later. `None` if there are no names, or on SQLite, where larder
    /// is the only writer.
    pub fn leave_in_outbox(
        &mut self,
        names: &[String],
    ) -> Result<Option<OutboxRow>, DatabaseError> {
        if names.is_empty() || self.kind() == DatabaseKind::Sqlite {
            return Ok(None);
        }
        let names = serde_json::Value::from(names).to_string();
        let rows = self.query("outbox_leave", &[("names", names.into())])?;
        rows.first()
            .map(|row| row.int("id").map(OutboxRow))
            .transpose()
    }

    /// Which database this is.
    pub(super) fn kind(&self) -> DatabaseKind {
        self.session.kind()
    }

    /// The rows of larder's own query `name`.
    pub(super) fn query(
        &mut self,
        name: &'static str,
        parameters: &[Parameter<'_>],
    ) -> Result<Vec<Row>, DatabaseError> {
        let query = library::own(name, self.session.kind())?;
        self.query_this(query, parameters)
    }

    /// Runs larder's own query `name` and returns how many rows it changed.
    pub(super) fn execute(
        &mut self,
        name: &'static str,
        parameters: &[Parameter<'_>],
    ) -> Result<u64, DatabaseError> {
        let query = library::own(name, self.session.kind())?;
        self.execute_this(query, parameters)
    }

    /// Runs larder's own SQL, which has no parameters and may have several statements.
    pub(super) fn batch(&mut self, sql: &str) -> Result<(), DatabaseError> {
        self.remember(|session| session.batch(sql))
    }

    /// As [`Transaction::query`], for a query without a name.
    pub(super) fn query_this(
        &mut self,
        query: &Query,
        parameters: &[Parameter<'_>],
    ) -> Result<Vec<Row>, DatabaseError> {
        self.remember(|session| session.query(query, parameters))
    }

    /// As [`Transaction::execute`], for a query without a name.
    pub(super) fn execute_this(
        &mut self,
        query: &Query,
        parameters: &[Parameter<'_>],
    ) -> Result<u64, DatabaseError> {
        Ok(self.write(query, parameters)?.changed)
    }

    /// The connection, for what is not a statement.
    pub(super) fn session(&mut self) -> &mut Session<'a> {
        &mut self.session
    }

    /// Does `work` and remembers the first error.
    fn remember<T>(
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
                // SQLite fails here if it has rolled back already. If not, `has_broken` of the
                // manager finds the transaction still open.
                Session::Sqlite(_) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::super::sql_value::SqlValue;
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
                tx.execute_this(&query, &[("id", SqlValue::Int(1))])
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
