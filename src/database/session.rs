//! A connection of either database while one caller has it: single statements.
//!
//! Promise: a statement with parameters ends within [`STATEMENT`] or is interrupted. Reading with a
//! statement that writes is refused.

use std::sync::Arc;

use postgres::fallible_iterator::FallibleIterator;

use super::STATEMENT;
use super::error::DatabaseError;
use super::json_rows::{self, Columns, JsonResult, ReturnedRows, Shape, WriteResult};
use super::postgres_connection::{PostgresConnection, TooLarge};
use super::query::{Parameter, Query};
use super::row::Row;
use super::settings::DatabaseKind;
use super::sqlite_statement::SqliteStatement;

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

    /// Runs larder's own SQL, which has no parameters and may have several statements.
    pub(super) fn batch(&mut self, sql: &str) -> Result<(), DatabaseError> {
        match self {
            Session::Postgres(connection) => {
                let ran = connection.client.batch_execute(sql);
                if let Err(error) = &ran {
                    connection.check_lost(error);
                }
                ran?;
            }
            Session::Sqlite(connection) => connection.execute_batch(sql)?,
        }
        Ok(())
    }

    /// The rows of one of larder's own queries.
    pub(super) fn query(
        &mut self,
        query: &Query,
        parameters: &[Parameter<'_>],
    ) -> Result<Vec<Row>, DatabaseError> {
        let values = query.bind(parameters)?;
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

    /// The rows as JSON. `None` if one row is expected and there is none. On Postgres the caller's
    /// transaction keeps the statement from writing.
    pub(super) fn read(
        &mut self,
        query: &Query,
        parameters: &[Parameter<'_>],
        shape: Shape,
    ) -> Result<Option<Vec<u8>>, DatabaseError> {
        let values = query.bind(parameters)?;
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
                    let mut result = JsonResult::new(query, shape);
                    let mut rows = client.query_raw(statement, values.iter().copied())?;
                    while let Some(row) = rows.next()? {
                        result.push(&columns, |at, out| json_rows::postgres_cell(&row, at, out))?;
                    }
                    Ok(result.finish())
                },
            ),
            Session::Sqlite(connection) => {
                let mut bound = SqliteStatement::bind(connection, query, &values, STATEMENT)?;
                if !bound.statement.readonly() {
                    let what = "it writes, but a resource is read with it";
                    return Err(query.misconfigured(what));
                }
                if bound.statement.column_count() == 0 {
                    return Err(no_rows(query));
                }
                let mut result = JsonResult::new(query, shape);
                bound.each_row(|columns, cell| result.push(columns, cell))?;
                Ok(result.finish())
            }
        }
    }

    /// Errors with [`DatabaseError::Unfit`] if a value is not of its type. SQLite checks the types
    /// of its columns only when the statement runs.
    pub(super) fn check(
        &mut self,
        query: &Query,
        parameters: &[Parameter<'_>],
    ) -> Result<(), DatabaseError> {
        let values = query.bind(parameters)?;
        match self {
            Session::Postgres(connection) => connection.check(query, &values),
            Session::Sqlite(_) => {
                for (name, value) in query.parameters().iter().zip(values) {
                    let bound = value.for_sqlite();
                    bound.map_err(|valid| DatabaseError::unfit(name, valid))?;
                }
                Ok(())
            }
        }
    }

    /// Runs a statement that writes. It may return rows.
    pub(super) fn write(
        &mut self,
        query: &Query,
        parameters: &[Parameter<'_>],
    ) -> Result<WriteResult, DatabaseError> {
        let values = query.bind(parameters)?;
        match self {
            Session::Postgres(connection) => connection.run(
                query,
                &values,
                TooLarge::Unfit,
                |client, statement, values| {
                    let columns = Columns::of_statement(query, statement)?;
                    let mut returned = ReturnedRows::new(query);
                    let mut rows = client.query_raw(statement, values.iter().copied())?;
                    while let Some(row) = rows.next()? {
                        let cell = |at, out: &mut Vec<u8>| json_rows::postgres_cell(&row, at, out);
                        returned.push(columns.row(cell)?)?;
                    }
                    Ok(returned.finish(rows.rows_affected().unwrap_or(0)))
                },
            ),
            Session::Sqlite(connection) => {
                let mut bound = SqliteStatement::bind(connection, query, &values, STATEMENT)?;
                let mut returned = ReturnedRows::new(query);
                let before = connection.total_changes();
                if bound.statement.column_count() == 0 {
                    bound.execute()?;
                } else {
                    bound.each_row(|columns, cell| returned.push(columns.row(cell)?))?;
                }
                let changed = match connection.changes() {
                    // SQLite counts the last statement that changed something, so after a SELECT
                    // the count is that of an earlier statement.
                    _ if bound.statement.readonly() => 0,
                    // A write to a view changes rows by triggers only.
                    0 => connection.total_changes() - before,
                    rows => rows,
                };
                Ok(returned.finish(changed))
            }
        }
    }
}

fn no_rows(query: &Query) -> DatabaseError {
    query.misconfigured("it returns no rows")
}
