//! A connection while one caller has it: statements on their own.
//!
//! Promise: a statement with its values ends within [`STATEMENT`] or is interrupted. Refuses to read with a statement that writes.

use std::sync::Arc;

use postgres::fallible_iterator::FallibleIterator;

use super::error::DatabaseError;
use super::postgres_pool::PostgresConnection;
use super::postgres_statement::TooLarge;
use super::query::{Parameter, Query};
use super::rows::{self, Columns, Reading, Returned, Shape, Written};
use super::sqlite_statement::SqliteStatement;
use super::value::Row;
use super::{DatabaseKind, STATEMENT};

/// One connection of either kind.
pub(super) enum Session<'a> {
    Postgres(&'a mut PostgresConnection),
    Sqlite(&'a rusqlite::Connection),
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
            Session::Postgres(connection) => {
                let ran = connection.client.batch_execute(sql);
                if let Err(error) = &ran {
                    connection.note_error(error);
                }
                ran?;
            }
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
                let mut bound = SqliteStatement::bind(connection, query, &values, STATEMENT)?;
                let names: Arc<[String]> = bound
                    .statement
                    .column_names()
                    .into_iter()
                    .map(str::to_owned)
                    .collect();
                let mut rows = bound.statement.raw_query();
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
                let mut bound = SqliteStatement::bind(connection, query, &values, STATEMENT)?;
                Ok(bound.execute()? as u64)
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
                    let mut reading = Reading::new(query, shape);
                    let mut rows = client.query_raw(statement, values.iter().copied())?;
                    while let Some(row) = rows.next()? {
                        reading.row(&columns, |at, out| rows::postgres_cell(&row, at, out))?;
                    }
                    Ok(reading.finish())
                },
            ),
            Session::Sqlite(connection) => {
                let mut bound = SqliteStatement::bind(connection, query, &values, STATEMENT)?;
                if !bound.statement.readonly() {
                    return Err(DatabaseError::Misconfigured(format!(
                        "query {}: it writes, and a resource is read with it",
                        query.name()
                    )));
                }
                if bound.statement.column_count() == 0 {
                    return Err(no_rows(query));
                }
                let mut reading = Reading::new(query, shape);
                bound.each_row(|columns, cell| reading.row(columns, cell))?;
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
        match self {
            Session::Postgres(connection) => connection.run(
                query,
                &values,
                TooLarge::Unfit,
                |client, statement, values| {
                    let columns = Columns::of_statement(query, statement)?;
                    let mut written = Returned::new(query);
                    let mut rows = client.query_raw(statement, values.iter().copied())?;
                    while let Some(row) = rows.next()? {
                        let cell = |at, out: &mut Vec<u8>| rows::postgres_cell(&row, at, out);
                        written.row(columns.written(cell)?)?;
                    }
                    Ok(written.finish(rows.rows_affected().unwrap_or(0)))
                },
            ),
            Session::Sqlite(connection) => {
                let mut bound = SqliteStatement::bind(connection, query, &values, STATEMENT)?;
                let mut written = Returned::new(query);
                let before = connection.total_changes();
                if bound.statement.column_count() == 0 {
                    bound.execute()?;
                } else {
                    bound.each_row(|columns, cell| written.row(columns.written(cell)?))?;
                }
                let changed = match connection.changes() {
                    // What SQLite counts is the last statement that changed something, which a SELECT is not.
                    _ if bound.statement.readonly() => 0,
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
