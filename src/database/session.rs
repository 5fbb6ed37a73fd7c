//! A connection while one caller has it: statements on their own.
//!
//! Promise: a statement is prepared once per connection, and again after a change of the schema. A statement on SQLite is
//! interrupted after [`STATEMENT`], as the server does it on Postgres. Refuses to read with a statement that writes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use postgres::fallible_iterator::FallibleIterator;
use postgres::types::{ToSql, Type};
use postgres::{Client, Statement};

use super::error::DatabaseError;
use super::postgres_pool::PostgresConnection;
use super::query::{Parameter, Query};
use super::refusal;
use super::rows::{self, Columns, Declared, Reading, Returned, Shape, Written};
use super::value::{Row, Value};
use super::{DatabaseKind, STATEMENT, wire};

/// One connection of either kind.
pub(super) enum Session<'a> {
    Postgres(&'a mut PostgresConnection),
    Sqlite(&'a rusqlite::Connection),
}

/// What becomes of a whole number that its place cannot hold.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum TooLarge {
    /// It goes as a bigint, and finds no row; what makes it smaller again does not fit.
    FindsNothing,
    /// It does not fit.
    Unfit,
}

impl Session<'_> {
    pub(super) fn kind(&self) -> DatabaseKind {
        match self {
            Session::Postgres(_) => DatabaseKind::Postgres,
            Session::Sqlite(_) => DatabaseKind::Sqlite,
        }
    }

    /// Runs SQL of larder's own that takes no values, of one statement or several.
    pub(super) fn batch(&mut self, sql: &str) -> Result<(), DatabaseError> {
        match self {
            Session::Postgres(connection) => connection.client.batch_execute(sql)?,
            Session::Sqlite(connection) => connection.execute_batch(sql)?,
        }
        Ok(())
    }

    pub(super) fn query(
        &mut self,
        query: &Query,
        given: &[Parameter<'_>],
    ) -> Result<Vec<Row>, DatabaseError> {
        let values = query.bind(given)?;
        match self {
            Session::Postgres(connection) => connection.run(
                query,
                &values,
                TooLarge::FindsNothing,
                |client, statement, values| {
                    let rows = client.query(statement, values)?;
                    let names: Arc<[String]> = statement
                        .columns()
                        .iter()
                        .map(|c| c.name().to_owned())
                        .collect();
                    let read = |row: &postgres::Row| {
                        let values = (0..row.len())
                            .map(|at| row.try_get(at))
                            .collect::<Result<_, _>>()?;
                        Ok(Row::new(names.clone(), values))
                    };
                    rows.iter().map(read).collect()
                },
            ),
            Session::Sqlite(connection) => {
                let mut statement = prepare(connection, query, &values)?;
                let names: Arc<[String]> = statement
                    .column_names()
                    .into_iter()
                    .map(str::to_owned)
                    .collect();
                let mut rows = statement.raw_query();
                let mut result = Vec::new();
                while let Some(row) = rows.next()? {
                    let values = (0..names.len())
                        .map(|at| row.get(at))
                        .collect::<Result<_, _>>()?;
                    result.push(Row::new(names.clone(), values));
                }
                Ok(result)
            }
        }
    }

    pub(super) fn execute(
        &mut self,
        query: &Query,
        given: &[Parameter<'_>],
    ) -> Result<u64, DatabaseError> {
        let values = query.bind(given)?;
        match self {
            Session::Postgres(connection) => connection.run(
                query,
                &values,
                TooLarge::FindsNothing,
                |client, statement, values| Ok(client.execute(statement, values)?),
            ),
            Session::Sqlite(connection) => {
                Ok(prepare(connection, query, &values)?.raw_execute()? as u64)
            }
        }
    }

    /// The rows as JSON; `None` where one is asked for and none is there. On Postgres it is the caller's transaction that keeps the
    /// statement from writing.
    pub(super) fn read(
        &mut self,
        query: &Query,
        given: &[Parameter<'_>],
        shape: Shape,
    ) -> Result<Option<Vec<u8>>, DatabaseError> {
        let values = query.bind(given)?;
        let mut reading = Reading::new(query, shape);
        match self {
            Session::Postgres(connection) => connection.run(
                query,
                &values,
                TooLarge::FindsNothing,
                |client, statement, values| {
                    let columns = Columns::of_statement(query, statement)?;
                    if columns.names().is_empty() {
                        return Err(no_rows(query).into());
                    }
                    let mut rows = client.query_raw(statement, values.iter().copied())?;
                    while let Some(row) = rows.next()? {
                        reading.row(&columns, |at, out| rows::postgres_cell(&row, at, out))?;
                    }
                    Ok(reading.finish())
                },
            ),
            Session::Sqlite(connection) => {
                let _limit = Limit::set(connection, STATEMENT)?;
                let mut statement = prepare(connection, query, &values)?;
                if !statement.readonly() {
                    return Err(DatabaseError::Misconfigured(format!(
                        "query {}: it writes, and a resource is read with it",
                        query.name()
                    )));
                }
                if statement.column_count() == 0 {
                    return Err(no_rows(query));
                }
                each_row(&mut statement, query, |columns, cell| {
                    reading.row(columns, cell)
                })?;
                Ok(reading.finish())
            }
        }
    }

    /// Runs a statement that writes, whether it returns rows or not.
    pub(super) fn write(
        &mut self,
        query: &Query,
        given: &[Parameter<'_>],
    ) -> Result<Written, DatabaseError> {
        let values = query.bind(given)?;
        let mut written = Returned::new(query);
        match self {
            Session::Postgres(connection) => connection.run(
                query,
                &values,
                TooLarge::Unfit,
                |client, statement, values| {
                    let columns = Columns::of_statement(query, statement)?;
                    let mut rows = client.query_raw(statement, values.iter().copied())?;
                    while let Some(row) = rows.next()? {
                        let cell = |at, out: &mut Vec<u8>| rows::postgres_cell(&row, at, out);
                        written.row(columns.written(cell)?)?;
                    }
                    Ok(written.finish(rows.rows_affected().unwrap_or(0)))
                },
            ),
            Session::Sqlite(connection) => {
                let _limit = Limit::set(connection, STATEMENT)?;
                let before = connection.total_changes();
                let mut statement = prepare(connection, query, &values)?;
                if statement.column_count() == 0 {
                    let ran = statement.raw_execute();
                    ran.map_err(|error| refusal::of_sqlite(error, query.parameters()))?;
                } else {
                    each_row(&mut statement, query, |columns, cell| {
                        written.row(columns.written(cell)?)
                    })?;
                }
                let changed = match connection.changes() {
                    // What SQLite counts is the last statement that changed something, which a SELECT is not.
                    _ if statement.readonly() => 0,
                    // A view changes no row itself; its triggers do.
                    0 => connection.total_changes() - before,
                    rows => rows,
                };
                Ok(written.finish(changed))
            }
        }
    }
}

fn no_rows(query: &Query) -> DatabaseError {
    DatabaseError::Misconfigured(format!("query {}: it returns no rows", query.name()))
}

/// Hands each row of a SQLite statement that is bound to `row`, with the function that writes its values.
fn each_row(
    statement: &mut rusqlite::Statement<'_>,
    query: &Query,
    mut row: impl FnMut(
        &Columns,
        &mut dyn FnMut(usize, &mut Vec<u8>) -> Result<(), DatabaseError>,
    ) -> Result<(), DatabaseError>,
) -> Result<(), DatabaseError> {
    let explain = |error| refusal::of_sqlite(error, query.parameters());
    let mut rows = statement.raw_query();
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

/// Why a statement on Postgres gave nothing: the server's word, or larder's.
pub(super) enum Stopped {
    Postgres(postgres::Error),
    Own(DatabaseError),
}

impl From<postgres::Error> for Stopped {
    fn from(error: postgres::Error) -> Stopped {
        Stopped::Postgres(error)
    }
}

impl From<DatabaseError> for Stopped {
    fn from(error: DatabaseError) -> Stopped {
        Stopped::Own(error)
    }
}

impl PostgresConnection {
    /// Prepares the query, unless it is, and hands it over with its values.
    fn run<T>(
        &mut self,
        query: &Query,
        values: &[&Value],
        too_large: TooLarge,
        work: impl FnOnce(&mut Client, &Statement, &[&(dyn ToSql + Sync)]) -> Result<T, Stopped>,
    ) -> Result<T, DatabaseError> {
        let sql = query.text(DatabaseKind::Postgres);
        let known = self.statements.get(sql).cloned();
        let was_known = known.is_some();
        let mut statement = match known {
            Some(statement) => statement,
            None => {
                let statement = self.client.prepare(sql)?;
                self.statements.insert(sql.to_owned(), statement.clone());
                statement
            }
        };
        let described = statement.clone();
        let widens = |(value, wanted): &(&&Value, &Type)| {
            too_large == TooLarge::FindsNothing && value.overflows(wanted)
        };
        let places = || values.iter().zip(described.params());
        let widened = places().position(|place| widens(&place));
        let too_large_at = |at: usize| {
            let valid = wire::wanted(&described.params()[at]);
            refusal::unfit(&query.parameters()[at], valid)
        };
        if let Some(at) = widened {
            let types: Vec<Type> = places()
                .map(|place| {
                    if widens(&place) {
                        Type::INT8
                    } else {
                        place.1.clone()
                    }
                })
                .collect();
            statement = match self.client.prepare_typed(sql, &types) {
                Ok(statement) => statement,
                // It is given to what takes no bigint, a function for one.
                Err(error) if is_mistyped(&error) => return Err(too_large_at(at)),
                Err(error) => return Err(error.into()),
            };
        }
        let given: Vec<&(dyn ToSql + Sync)> = values.iter().map(|value| *value as _).collect();
        let result = work(&mut self.client, &statement, &given);
        self.last_used = Instant::now();
        let stopped = match result {
            Ok(result) => return Ok(result),
            Err(stopped) => stopped,
        };
        // After a change of the schema a prepared statement fails for good, by the server's word or by larder's: prepared anew it
        // may not.
        self.statements.remove(sql);
        let error = match stopped {
            Stopped::Own(error) => return Err(error),
            Stopped::Postgres(error) => error,
        };
        let refused = error.as_db_error().map(|refusal| refusal.code().code());
        // The bigint was cast down by the query itself.
        if let (Some(at), Some("22003")) = (widened, refused) {
            return Err(too_large_at(at));
        }
        if was_known && refused == Some("0A000") {
            return Err(DatabaseError::Contended(
                "the schema was changed meanwhile".to_owned(),
            ));
        }
        Err(refusal::of_statement(
            error,
            query,
            statement.params(),
            values,
        ))
    }
}

/// Whether the types of a statement's parameters are the trouble: no such function or operator, several of them, or no such cast.
fn is_mistyped(error: &postgres::Error) -> bool {
    let codes = ["42883", "42725", "42804", "42846", "42P08", "42P18"];
    let refusal = error.as_db_error();
    refusal.is_some_and(|refusal| codes.contains(&refusal.code().code()))
}

fn prepare<'a>(
    connection: &'a rusqlite::Connection,
    query: &Query,
    values: &[&Value],
) -> Result<rusqlite::CachedStatement<'a>, DatabaseError> {
    let mut statement = connection.prepare_cached(query.text(DatabaseKind::Sqlite))?;
    for ((at, name), value) in query.parameters().iter().enumerate().zip(values) {
        let value = value.for_sqlite().map_err(|valid| DatabaseError::Unfit {
            parameter: name.clone(),
            valid,
        })?;
        statement.raw_bind_parameter(at + 1, value)?;
    }
    Ok(statement)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_on_sqlite_is_ended_when_its_time_is_up_and_the_next_one_is_not() {
        let connection = rusqlite::Connection::open_in_memory().unwrap();
        let count = |most: i64| {
            let sql = format!(
                "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {most})
                 SELECT count(*) FROM n"
            );
            connection.query_row(&sql, [], |row| row.get::<_, i64>(0))
        };
        let limit = Limit::set(&connection, Duration::ZERO).unwrap();
        let error = DatabaseError::from(count(i64::MAX).unwrap_err());
        assert!(matches!(error, DatabaseError::TooSlow(_)), "{error:?}");
        drop(limit);
        assert_eq!(count(100_000), Ok(100_000));
    }
}
