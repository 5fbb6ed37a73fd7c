//! A statement on SQLite: prepared once per connection, bound to its values, and interrupted when its time is up, as the server
//! does it on Postgres.

use std::time::{Duration, Instant};

use super::DatabaseKind;
use super::error::DatabaseError;
use super::query::Query;
use super::refusal;
use super::rows::{self, Columns, Declared};
use super::value::Value;

/// A statement that is bound.
pub(super) struct SqliteStatement<'a> {
    query: &'a Query,
    pub(super) statement: rusqlite::CachedStatement<'a>,
    _limit: Limit<'a>,
}

impl<'a> SqliteStatement<'a> {
    /// It has `most` from now on.
    pub(super) fn bind(
        connection: &'a rusqlite::Connection,
        query: &'a Query,
        values: &[&Value],
        most: Duration,
    ) -> Result<SqliteStatement<'a>, DatabaseError> {
        let mut statement = connection.prepare_cached(query.text(DatabaseKind::Sqlite))?;
        for ((at, name), value) in query.parameters().iter().enumerate().zip(values) {
            let value = value.for_sqlite();
            let value = value.map_err(|valid| refusal::unfit(name, valid))?;
            statement.raw_bind_parameter(at + 1, value)?;
        }
        Ok(SqliteStatement {
            query,
            statement,
            _limit: Limit::set(connection, most)?,
        })
    }

    /// Runs one that returns no rows, and gives how many it changed.
    pub(super) fn execute(&mut self) -> Result<usize, DatabaseError> {
        let ran = self.statement.raw_execute();
        ran.map_err(|error| refusal::of_sqlite(error, self.query.parameters()))
    }

    /// Hands each row to `row`, with the function that writes its values.
    pub(super) fn each_row(
        &mut self,
        mut row: impl FnMut(
            &Columns,
            &mut dyn FnMut(usize, &mut Vec<u8>) -> Result<(), DatabaseError>,
        ) -> Result<(), DatabaseError>,
    ) -> Result<(), DatabaseError> {
        let query = self.query;
        let explain = |error| refusal::of_sqlite(error, query.parameters());
        let mut rows = self.statement.raw_query();
        let mut known: Option<(Columns, Vec<Declared>)> = None;
        while let Some(found) = rows.next().map_err(explain)? {
            // Not before the first row: only then has SQLite prepared anew what the schema has changed under.
            let (columns, declared) = match &known {
                Some(known) => known,
                None => {
                    let columns = found.as_ref().columns();
                    let declared = columns.iter().map(|c| Declared::of(c.decl_type()));
                    known.insert((
                        Columns::new(query, columns.iter().map(|c| c.name()))?,
                        declared.collect(),
                    ))
                }
            };
            row(columns, &mut |at, out| {
                rows::sqlite_cell(found.get_ref(at)?, declared[at], out)
            })?;
        }
        Ok(())
    }
}

/// Ends statements of a SQLite connection that take too long, while it lives.
struct Limit<'a>(&'a rusqlite::Connection);

impl Limit<'_> {
    fn set(connection: &rusqlite::Connection, most: Duration) -> Result<Limit<'_>, DatabaseError> {
        let deadline = Instant::now() + most;
        // Steps of SQLite's machine, some of which take longer than others: well below a millisecond.
        connection.progress_handler(10_000, Some(move || Instant::now() >= deadline))?;
        Ok(Limit(connection))
    }
}

impl Drop for Limit<'_> {
    fn drop(&mut self) {
        // Fails for a connection that is not larder's own only.
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
        let count = |numbers: i64, most: Duration| {
            let values = [&Value::Int(numbers)];
            let mut bound = SqliteStatement::bind(&connection, &query, &values, most)?;
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
