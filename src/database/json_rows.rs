//! Rows of a result as JSON, encoded directly from what the database sent.
//!
//! Promise: an object has its members in the order of the columns. A result is one object or one
//! array, and at most `MAX_RESULT` large. A result is refused if two columns have one name, or if
//! it has several rows where one is expected.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use postgres::Statement;
use postgres::types::{FromSql, Type};
use rusqlite::types::ValueRef;
use serde_json::value::RawValue;

use super::error::DatabaseError;
use super::query::Query;
use super::wire;

/// The most bytes of JSON in one result: 4 MiB, the limit on the body of an HTTP source.
pub(super) const MAX_RESULT: usize = 4 << 20;

/// How many rows a resource has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// At most one, which is an object.
    One,
    /// Any number, in an array of objects.
    Many,
}

/// What a statement that writes did.
#[derive(Clone, Debug)]
pub struct WriteResult {
    /// How many rows it changed. For a SELECT on Postgres, how many it read; for a view on SQLite,
    /// how many its triggers changed.
    pub changed: u64,
    /// The rows of its RETURNING.
    pub rows: Vec<ReturnedRow>,
}

/// A row that a statement returned.
#[derive(Clone, Debug)]
pub struct ReturnedRow {
    /// The row as a JSON object.
    pub json: Vec<u8>,
    names: Arc<[String]>,
    /// The place of each column's value in `json`.
    values: Vec<Range<usize>>,
}

impl ReturnedRow {
    /// A column as plain text, for a tag or a path: a string's text, everything else as its JSON.
    /// `None` for NULL, and if there is no such column.
    pub fn text(&self, column: &str) -> Option<String> {
        let at = self.names.iter().position(|name| name == column)?;
        let value = std::str::from_utf8(self.json.get(self.values.get(at)?.clone())?).ok()?;
        match value {
            "null" => None,
            quoted if quoted.starts_with('"') => serde_json::from_str(quoted).ok(),
            plain => Some(plain.to_owned()),
        }
    }
}

/// The rows that a write has returned so far.
pub(super) struct ReturnedRows<'a> {
    query: &'a Query,
    rows: Vec<ReturnedRow>,
    size: usize,
}

impl ReturnedRows<'_> {
    pub(super) fn new(query: &Query) -> ReturnedRows<'_> {
        ReturnedRows {
            query,
            rows: Vec::new(),
            size: 0,
        }
    }

    /// Errors with [`DatabaseError::Failed`] if the rows are larger than a result may be.
    pub(super) fn push(&mut self, row: ReturnedRow) -> Result<(), DatabaseError> {
        self.size += row.json.len() + 1;
        if self.size > MAX_RESULT {
            let what = "the returned rows are larger than 4 MiB; return fewer columns, or none";
            return Err(self.query.failed(what));
        }
        self.rows.push(row);
        Ok(())
    }

    pub(super) fn finish(self, changed: u64) -> WriteResult {
        WriteResult {
            changed,
            rows: self.rows,
        }
    }
}

/// The columns of a result.
pub(super) struct Columns {
    names: Arc<[String]>,
    /// What stands before each value in JSON: `{"id":` or `,"id":`.
    keys: Vec<String>,
}

impl Columns {
    /// Errors with [`DatabaseError::Misconfigured`] if two columns have one name.
    pub(super) fn new<'a>(
        query: &Query,
        names: impl IntoIterator<Item = &'a str>,
    ) -> Result<Columns, DatabaseError> {
        let names: Arc<[String]> = names.into_iter().map(str::to_owned).collect();
        let mut seen = HashSet::new();
        if let Some(name) = names.iter().find(|name| !seen.insert(name.as_str())) {
            let what = format_args!("two columns are called {name}; rename one with AS");
            return Err(query.misconfigured(what));
        }
        let key = |(at, name): (usize, &String)| {
            let sign = if at == 0 { '{' } else { ',' };
            format!("{sign}{}:", serde_json::Value::from(name.as_str()))
        };
        let keys = names.iter().enumerate().map(key).collect();
        Ok(Columns { names, keys })
    }

    /// The columns of a prepared statement. Errors also if a column's type has no JSON form.
    pub(super) fn of_statement(
        query: &Query,
        statement: &Statement,
    ) -> Result<Columns, DatabaseError> {
        for column in statement.columns() {
            if !wire::is_supported(column.type_()) {
                return Err(query.misconfigured(format_args!(
                    "column {} is of type {}, which has no JSON form: \
                     cast it in the query, for example to text",
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

    /// Appends one row as an object. `cell` appends the value of a column.
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

    /// One row as an object of its own.
    pub(super) fn row(
        &self,
        mut cell: impl FnMut(usize, &mut Vec<u8>) -> Result<(), DatabaseError>,
    ) -> Result<ReturnedRow, DatabaseError> {
        let (mut json, mut values) = (Vec::new(), Vec::new());
        self.write(&mut json, |at, out| {
            let begin = out.len();
            cell(at, out)?;
            values.push(begin..out.len());
            Ok(())
        })?;
        Ok(ReturnedRow {
            json,
            names: self.names.clone(),
            values,
        })
    }
}

/// The JSON of a result that is being read, row by row.
pub(super) struct JsonResult<'a> {
    query: &'a Query,
    shape: Shape,
    out: Vec<u8>,
    rows: usize,
}

impl JsonResult<'_> {
    pub(super) fn new(query: &Query, shape: Shape) -> JsonResult<'_> {
        JsonResult {
            query,
            shape,
            out: Vec::new(),
            rows: 0,
        }
    }

    pub(super) fn push(
        &mut self,
        columns: &Columns,
        cell: impl FnMut(usize, &mut Vec<u8>) -> Result<(), DatabaseError>,
    ) -> Result<(), DatabaseError> {
        if self.shape == Shape::One && self.rows == 1 {
            let what = "it returns more than one row where one is expected";
            return Err(self.query.failed(what));
        }
        if self.shape == Shape::Many {
            self.out.push(if self.rows == 0 { b'[' } else { b',' });
        }
        self.rows += 1;
        columns.write(&mut self.out, cell)?;
        if self.out.len() > MAX_RESULT {
            let what = "its result is larger than 4 MiB; set a LIMIT";
            return Err(self.query.failed(what));
        }
        Ok(())
    }

    /// The JSON. `None` if one row is expected and there is none.
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

/// The bytes that Postgres sent for one column; `None` is NULL.
pub(super) struct RawColumn<'a>(pub(super) Option<&'a [u8]>);

impl<'a> FromSql<'a> for RawColumn<'a> {
    fn from_sql(
        _: &Type,
        raw: &'a [u8],
    ) -> Result<RawColumn<'a>, Box<dyn std::error::Error + Sync + Send>> {
        Ok(RawColumn(Some(raw)))
    }

    fn from_sql_null(_: &Type) -> Result<RawColumn<'a>, Box<dyn std::error::Error + Sync + Send>> {
        Ok(RawColumn(None))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

/// Appends one column of a row from Postgres.
pub(super) fn postgres_cell(
    row: &postgres::Row,
    at: usize,
    out: &mut Vec<u8>,
) -> Result<(), DatabaseError> {
    let RawColumn(raw) = row.try_get(at)?;
    let column = &row.columns()[at];
    wire::write_json(column.type_(), raw, out)
        .map_err(|misfit| DatabaseError::Failed(format!("column {}: {misfit}", column.name())))
}

/// What the declaration of a SQLite column says beyond the storage class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DeclaredType {
    Bool,
    Json,
    Other,
}

impl DeclaredType {
    /// Reads the type of a CREATE TABLE. An expression has none.
    pub(super) fn parse(declaration: Option<&str>) -> DeclaredType {
        let declaration = declaration.unwrap_or_default().to_ascii_uppercase();
        match declaration.as_str() {
            "BOOLEAN" | "BOOL" => DeclaredType::Bool,
            "JSON" => DeclaredType::Json,
            _ => DeclaredType::Other,
        }
    }
}

/// Appends one value from SQLite.
pub(super) fn sqlite_cell(
    value: ValueRef<'_>,
    declared: DeclaredType,
    out: &mut Vec<u8>,
) -> Result<(), DatabaseError> {
    let done = match (value, declared) {
        (ValueRef::Null, _) => serde_json::to_writer(out, &()).ok(),
        (ValueRef::Integer(bit @ (0 | 1)), DeclaredType::Bool) => {
            serde_json::to_writer(out, &(bit == 1)).ok()
        }
        (ValueRef::Integer(number), _) => serde_json::to_writer(out, &number).ok(),
        (ValueRef::Real(number), _) => wire::write_float(number, out),
        (ValueRef::Text(text), _) => {
            // SQLite does not check that a text is UTF-8.
            let text = String::from_utf8_lossy(text);
            let json = (declared == DeclaredType::Json)
                .then(|| serde_json::from_str::<&RawValue>(&text).ok())
                .flatten();
            match json {
                Some(json) => serde_json::to_writer(out, json).ok(),
                None => serde_json::to_writer(out, &*text).ok(),
            }
        }
        (ValueRef::Blob(bytes), _) => wire::write_base64(bytes, out),
    };
    done.ok_or_else(|| DatabaseError::Failed("a value cannot be written as JSON".to_owned()))
}
