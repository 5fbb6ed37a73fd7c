//! Rows of a result as JSON, written straight from what the database sent.
//!
//! Promise: an object has its members in the order of the columns; a result is one object or one array and larger than `LARGEST`
//! in neither case. Refuses two columns of one name, and more than one row where one is expected.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use postgres::Statement;
use postgres::types::{FromSql, Type};
use rusqlite::types::ValueRef;
use serde_json::value::RawValue;

use super::error::DatabaseError;
use super::query::Query;
use super::wire::{self, Misfit};

/// The bytes of JSON that one result may have: 4 MiB, as much as the body of an HTTP source.
pub(super) const LARGEST: usize = 4 << 20;

/// What becomes of the rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// The one row is an object; no row is nothing.
    One,
    /// An array of objects; no row is an empty one.
    Many,
}

/// What a statement did.
#[derive(Clone, Debug)]
pub struct Written {
    /// How many rows it changed; for a SELECT on Postgres, how many it read; for a view on SQLite, how many its triggers changed.
    pub changed: u64,
    /// The rows that it returned: those of RETURNING.
    pub rows: Vec<WrittenRow>,
}

/// A row that a writing statement returned.
#[derive(Clone, Debug)]
pub struct WrittenRow {
    /// The row as a JSON object.
    pub json: Vec<u8>,
    names: Arc<[String]>,
    /// Where in `json` each column's value is.
    places: Vec<Range<usize>>,
}

impl WrittenRow {
    /// A column as plain text, for a tag or a path: a text itself, anything else as its JSON. `None` for NULL, and if there is no
    /// such column.
    pub fn text(&self, column: &str) -> Option<String> {
        let at = self.names.iter().position(|name| name == column)?;
        let value = std::str::from_utf8(self.json.get(self.places.get(at)?.clone())?).ok()?;
        match value {
            "null" => None,
            quoted if quoted.starts_with('"') => serde_json::from_str(quoted).ok(),
            plain => Some(plain.to_owned()),
        }
    }
}

/// The rows that a write returns, as they come.
pub(super) struct Returned<'a> {
    query: &'a Query,
    rows: Vec<WrittenRow>,
    size: usize,
}

impl Returned<'_> {
    pub(super) fn new(query: &Query) -> Returned<'_> {
        Returned {
            query,
            rows: Vec::new(),
            size: 0,
        }
    }

    /// Errors with [`DatabaseError::Failed`] once they are larger than a result may be.
    pub(super) fn row(&mut self, row: WrittenRow) -> Result<(), DatabaseError> {
        self.size += row.json.len() + 1;
        if self.size > LARGEST {
            return Err(DatabaseError::Failed(format!(
                "query {}: the rows that it returns are larger than 4 MiB; return fewer columns, or none",
                self.query.name()
            )));
        }
        self.rows.push(row);
        Ok(())
    }

    pub(super) fn finish(self, changed: u64) -> Written {
        Written {
            changed,
            rows: self.rows,
        }
    }
}

/// The columns of a result.
pub(super) struct Columns {
    names: Arc<[String]>,
    /// The names as JSON has them before a value: `{"id":` or `,"id":`.
    keys: Vec<String>,
}

impl Columns {
    /// Errors with [`DatabaseError::Misconfigured`] if two have one name.
    pub(super) fn new<'a>(
        query: &Query,
        names: impl IntoIterator<Item = &'a str>,
    ) -> Result<Columns, DatabaseError> {
        let names: Arc<[String]> = names.into_iter().map(str::to_owned).collect();
        let mut seen = HashSet::new();
        if let Some(twice) = names.iter().find(|name| !seen.insert(name.as_str())) {
            return Err(DatabaseError::Misconfigured(format!(
                "query {}: two columns are called {twice}; name one of them otherwise with AS",
                query.name()
            )));
        }
        let key = |(at, name): (usize, &String)| {
            let sign = if at == 0 { '{' } else { ',' };
            format!("{sign}{}:", serde_json::Value::from(name.as_str()))
        };
        let keys = names.iter().enumerate().map(key).collect();
        Ok(Columns { names, keys })
    }

    /// Those of a prepared statement. Errors also if a type has no form in JSON.
    pub(super) fn of_statement(
        query: &Query,
        statement: &Statement,
    ) -> Result<Columns, DatabaseError> {
        for column in statement.columns() {
            if !wire::is_known(column.type_()) {
                return Err(DatabaseError::Misconfigured(format!(
                    "query {}: column {} is of type {}, which has no form in JSON: cast it in the query, for example to text",
                    query.name(),
                    column.name(),
                    wire::type_name(column.type_())
                )));
            }
        }
        Columns::new(query, statement.columns().iter().map(|c| c.name()))
    }

    pub(super) fn names(&self) -> &[String] {
        &self.names
    }

    /// Writes one object, each value with `cell`.
    pub(super) fn write(
        &self,
        out: &mut Vec<u8>,
        mut cell: impl FnMut(usize, &mut Vec<u8>) -> Result<(), DatabaseError>,
    ) -> Result<(), DatabaseError> {
        for (at, key) in self.keys.iter().enumerate() {
            out.extend_from_slice(key.as_bytes());
            cell(at, out)?;
        }
        out.extend_from_slice(if self.keys.is_empty() { b"{}" } else { b"}" });
        Ok(())
    }

    /// As `write`, for a row that stands by itself.
    pub(super) fn written(
        &self,
        mut cell: impl FnMut(usize, &mut Vec<u8>) -> Result<(), DatabaseError>,
    ) -> Result<WrittenRow, DatabaseError> {
        let (mut json, mut places) = (Vec::new(), Vec::new());
        self.write(&mut json, |at, out| {
            let begin = out.len();
            cell(at, out)?;
            places.push(begin..out.len());
            Ok(())
        })?;
        Ok(WrittenRow {
            json,
            names: self.names.clone(),
            places,
        })
    }
}

/// A result that is being written, row by row.
pub(super) struct Reading<'a> {
    query: &'a Query,
    shape: Shape,
    out: Vec<u8>,
    rows: usize,
}

impl Reading<'_> {
    pub(super) fn new(query: &Query, shape: Shape) -> Reading<'_> {
        Reading {
            query,
            shape,
            out: Vec::new(),
            rows: 0,
        }
    }

    pub(super) fn row(
        &mut self,
        columns: &Columns,
        cell: impl FnMut(usize, &mut Vec<u8>) -> Result<(), DatabaseError>,
    ) -> Result<(), DatabaseError> {
        let failed = |what: &str| {
            Err(DatabaseError::Failed(format!(
                "query {}: {what}",
                self.query.name()
            )))
        };
        if self.shape == Shape::One && self.rows == 1 {
            return failed("more than one row where one is expected");
        }
        if self.shape == Shape::Many {
            self.out.push(if self.rows == 0 { b'[' } else { b',' });
        }
        self.rows += 1;
        columns.write(&mut self.out, cell)?;
        if self.out.len() > LARGEST {
            return failed("its result is larger than 4 MiB; set a LIMIT");
        }
        Ok(())
    }

    pub(super) fn finish(mut self) -> Option<Vec<u8>> {
        match (self.shape, self.rows) {
            (Shape::One, 0) => None,
            (Shape::One, _) => Some(self.out),
            (Shape::Many, 0) => Some(b"[]".to_vec()),
            (Shape::Many, _) => {
                self.out.push(b']');
                Some(self.out)
            }
        }
    }
}

/// What Postgres sent for one column, unread; `None` is NULL.
pub(super) struct Unread<'a>(pub(super) Option<&'a [u8]>);

impl<'a> FromSql<'a> for Unread<'a> {
    fn from_sql(
        _: &Type,
        raw: &'a [u8],
    ) -> Result<Unread<'a>, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Unread(Some(raw)))
    }

    fn from_sql_null(_: &Type) -> Result<Unread<'a>, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Unread(None))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

/// Writes one column of a row from Postgres.
pub(super) fn postgres_cell(
    row: &postgres::Row,
    at: usize,
    out: &mut Vec<u8>,
) -> Result<(), DatabaseError> {
    let Unread(raw) = row.try_get(at)?;
    let column = &row.columns()[at];
    wire::write_json(column.type_(), raw, out).map_err(|misfit| match misfit {
        Misfit::Given(what) | Misfit::Found(what) => {
            DatabaseError::Failed(format!("column {}: {what}", column.name()))
        }
    })
}

/// What the declaration of a SQLite column says beyond the storage class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Declared {
    Bool,
    Json,
    Other,
}

impl Declared {
    /// Of the type as CREATE TABLE has it; an expression has none.
    pub(super) fn of(declaration: Option<&str>) -> Declared {
        let declaration = declaration.unwrap_or_default().to_ascii_uppercase();
        match declaration.as_str() {
            "BOOLEAN" | "BOOL" => Declared::Bool,
            "JSON" => Declared::Json,
            _ => Declared::Other,
        }
    }
}

/// Writes one value from SQLite.
pub(super) fn sqlite_cell(
    value: ValueRef<'_>,
    declared: Declared,
    out: &mut Vec<u8>,
) -> Result<(), DatabaseError> {
    let done = match (value, declared) {
        (ValueRef::Null, _) => serde_json::to_writer(out, &()).ok(),
        (ValueRef::Integer(bit @ (0 | 1)), Declared::Bool) => {
            serde_json::to_writer(out, &(bit == 1)).ok()
        }
        (ValueRef::Integer(number), _) => serde_json::to_writer(out, &number).ok(),
        (ValueRef::Real(number), _) => wire::write_float(number, out),
        (ValueRef::Text(text), _) => {
            // SQLite stores whatever bytes it is given; a text that is none is no reason to lose the row.
            let text = String::from_utf8_lossy(text);
            let json = (declared == Declared::Json)
                .then(|| serde_json::from_str::<&RawValue>(&text).ok())
                .flatten();
            match json {
                Some(json) => serde_json::to_writer(out, json).ok(),
                None => serde_json::to_writer(out, &*text).ok(),
            }
        }
        (ValueRef::Blob(bytes), _) => wire::write_base64(bytes, out),
    };
    done.ok_or_else(|| DatabaseError::Failed("a value that cannot be written as JSON".to_owned()))
}
