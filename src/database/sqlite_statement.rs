//! A statement on SQLite: prepared once per connection, bound to its values, and interrupted when
//! its time is up, as the server does on Postgres.

use std::time::{Duration, Instant};

use super::error::DatabaseError;
use super::json_rows::{self, Columns, DeclaredType};
use super::query::Query;
use super::settings::DatabaseKind;
use super::sql_value::SqlValue;
use super::sqlite_error;

/// A statement that is bound to its values.
pub(super) struct SqliteStatement<'a> {
    query: &'a Query,
    pub(super) statement: rusqlite::CachedStatement<'a>,
    _timeout: Timeout<'a>,
}

impl<'a> SqliteStatement<'a> {
    /// Prepares and binds the statement. From now on it may take `limit`.
    pub(super) fn bind(
        connection: &'a rusqlite::Connection,
        query: &'a Query,
        values: &[&SqlValue],
        limit: Duration,
    ) -> Result<SqliteStatement<'a>, DatabaseError> {
        let mut statement = connection.prepare_cached(query.text(DatabaseKind::Sqlite))?;
        for ((at, name), value) in query.parameters().iter().enumerate().zip(values) {
            let value = value.for_sqlite();
            let value = value.map_err(|valid| DatabaseError::unfit(name, valid))?;
            statement.raw_bind_parameter(at + 1, value)?;
        }
        Ok(SqliteStatement {
            query,
            statement,
            _timeout: Timeout::set(connection, limit)?,
        })
    }

    /// Runs a statement that returns no rows.
    pub(super) fn execute(&mut self) -> Result<(), DatabaseError> {
        let ran = self.statement.raw_execute().map(drop);
        ran.map_err(|error| sqlite_error::of_statement(error, self.query.parameters()))
    }

    /// Hands each row to `row`, with the function that appends the value of a column.
    pub(super) fn each_row(
        &mut self,
        mut row: impl FnMut(
            &Columns,
            &mut dyn FnMut(usize, &mut Vec<u8>) -> Result<(), DatabaseError>,
        ) -> Result<(), DatabaseError>,
    ) -> Result<(), DatabaseError> {
        let query = self.query;
        let explain = |error| sqlite_error::of_statement(error, query.parameters());
        let mut rows = self.statement.raw_query();
        let mut known: Option<(Columns, Vec<DeclaredType>)> = None;
        while let Some(found) = rows.next().map_err(explain)? {
            // After the first step only: that is when SQLite prepares a statement anew after a
            // change of the schema.
            let (columns, declared) = match &known {
                Some(known) => known,
                None => {
                    let columns = found.as_ref().columns();
                    let declared = columns.iter().map(|c| DeclaredType::parse(c.decl_type()));
                    known.insert((
                        Columns::new(query, columns.iter().map(|c| c.name()))?,
                        declared.collect(),
                    ))
                }
            };
            row(columns, &mut |at, out| {
                json_rows::sqlite_cell(found.get_ref(at)?, declared[at], out)
            })?;
        }
        Ok(())
    }
}

/// Interrupts the statements of a connection after a limit, until it is dropped.
struct Timeout<'a>(&'a rusqlite::Connection);

impl Timeout<'_> {
    fn set(
        connection: &rusqlite::Connection,
        limit: Duration,
    ) -> Result<Timeout<'_>, DatabaseError> {
        let deadline = Instant::now() + limit;
        // Asks every 10000 instructions of SQLite's machine, which take well below a millisecond.
        connection.progress_handler(10_000, Some(move || Instant::now() >= deadline))?;
        Ok(Timeout(connection))
    }
}

impl Drop for Timeout<'_> {
    fn drop(&mut self) {
        // Fails only on a connection that is not owned, which larder never has.
        let _ = self.0.progress_handler(0, None::<fn() -> bool>);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_on_sqlite_is_ended_when_its_time_is_up_and_the_next_one_is_not() {
        let connection = rusqlite::Connection::open_in_memory().unwrap();
        let sql = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :most)
                   SELECT count(*) FROM n";
        let query = Query::parse("count", sql).unwrap();
        let count = |numbers: i64, limit: Duration| {
            let values = [&SqlValue::Int(numbers)];
            let mut bound = SqliteStatement::bind(&connection, &query, &values, limit)?;
            let mut rows = bound.statement.raw_query();
            let row = rows.next()?.unwrap();
            Ok(row.get::<_, i64>(0)?)
        };
        let error: DatabaseError = count(i64::MAX, Duration::ZERO).unwrap_err();
        assert!(matches!(error, DatabaseError::TooSlow(_)), "{error:?}");
        let unbound = sql.replace(":most", "100000");
        let unbound = connection.query_row(&unbound, [], |row| row.get::<_, i64>(0));
        assert_eq!(unbound, Ok(100_000), "the limit went with its statement");
        assert_eq!(count(100_000, Duration::from_secs(60)), Ok(100_000));
    }
}
