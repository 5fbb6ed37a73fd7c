//! Values as larder hands them to a database, and rows as it gets them back: the same for Postgres and SQLite.
//!
//! Promise: a value is turned into the type that the statement wants, or refused with a text that says what it takes; nothing
//! is rounded, cut or guessed. Refuses to hand out `numeric`, arrays and the like as values: rows that are to become JSON are
//! written by `rows.rs`, without this detour.

use std::sync::Arc;

use bytes::BytesMut;
use postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};
use serde_json::value::RawValue;

use super::error::DatabaseError;
use super::wire::{self, Misfit};

/// One value of a parameter or a column.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Nothing.
    Null,
    /// True or false; SQLite has 0 and 1 for it.
    Bool(bool),
    /// Any integer.
    Int(i64),
    /// A floating point number.
    Real(f64),
    /// Text; also JSON, UUIDs, dates and enums, and the digits of a number, as a URL has them.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
    /// The text of a JSON value other than null, with all its digits, as a client sent it. It is kept to its JSON type: `"7"`
    /// is no number.
    Json(String),
}

impl From<&str> for Value {
    fn from(text: &str) -> Value {
        Value::Text(text.to_owned())
    }
}

impl From<&RawValue> for Value {
    fn from(json: &RawValue) -> Value {
        match json.get() {
            "null" => Value::Null,
            text => Value::Json(text.to_owned()),
        }
    }
}

macro_rules! from {
    ($($given:ty => $variant:ident),*) => {
        $(impl From<$given> for Value {
            fn from(given: $given) -> Value {
                Value::$variant(given.into())
            }
        })*
    };
}
from!(String => Text, i64 => Int, u32 => Int, bool => Bool);

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(given: Option<T>) -> Value {
        given.map_or(Value::Null, Into::into)
    }
}

impl Value {
    fn kind(&self) -> &'static str {
        match self {
            Value::Null => "null",
            Value::Bool(_) => "a boolean",
            Value::Int(_) => "an integer",
            Value::Real(_) => "a number",
            Value::Text(_) => "text",
            Value::Bytes(_) => "bytes",
            Value::Json(_) => "JSON",
        }
    }

    /// The text that this is, in JSON or not.
    pub(super) fn text(&self) -> Option<String> {
        match self {
            Value::Text(text) => Some(text.clone()),
            Value::Json(json) => serde_json::from_str(json).ok(),
            _ => None,
        }
    }

    /// The value as SQLite keeps it: by its JSON type, arrays and objects as their text. Errors with what fits instead.
    pub(super) fn for_sqlite(&self) -> Result<rusqlite::types::ToSqlOutput<'_>, String> {
        use rusqlite::types::{ToSqlOutput, Value as Owned, ValueRef};
        let json = match self {
            Value::Null => return Ok(ToSqlOutput::Borrowed(ValueRef::Null)),
            Value::Bool(b) => return Ok(ToSqlOutput::from(*b)),
            Value::Int(i) => return Ok(ToSqlOutput::from(*i)),
            Value::Real(x) => return Ok(ToSqlOutput::from(*x)),
            Value::Text(text) => return Ok(ToSqlOutput::from(text.as_str())),
            Value::Bytes(bytes) => return Ok(ToSqlOutput::from(bytes.as_slice())),
            Value::Json(json) => json.as_str(),
        };
        let owned = match json.as_bytes().first() {
            Some(b't' | b'f') => Owned::Integer((json == "true").into()),
            Some(b'"') => Owned::Text(
                serde_json::from_str(json).map_err(|_| "text of whole characters".to_owned())?,
            ),
            Some(b'[' | b'{') => return Ok(ToSqlOutput::from(json)),
            _ => wire::sqlite_number(json)?,
        };
        Ok(ToSqlOutput::Owned(owned))
    }

    /// Whether this is an integer too large for `wanted`. Compared as a bigint it finds no row, which is the right answer.
    pub(super) fn overflows(&self, wanted: &Type) -> bool {
        let whole = match self {
            Value::Int(i) => *i,
            Value::Text(text) => match text.parse() {
                Ok(whole) => whole,
                Err(_) => return false,
            },
            _ => return false,
        };
        match *wire::base(wanted) {
            Type::INT4 => i32::try_from(whole).is_err(),
            Type::INT2 => i16::try_from(whole).is_err(),
            _ => false,
        }
    }
}

type Refusal = Box<dyn std::error::Error + Sync + Send>;

impl ToSql for Value {
    fn to_sql(&self, ty: &Type, out: &mut BytesMut) -> Result<IsNull, Refusal> {
        Ok(wire::encode(self, ty, out)?)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

impl<'a> FromSql<'a> for Value {
    fn from_sql(ty: &Type, raw: &'a [u8]) -> Result<Value, Refusal> {
        let ty = wire::base(ty);
        Ok(match *ty {
            Type::BOOL => Value::Bool(bool::from_sql(ty, raw)?),
            Type::INT2 => Value::Int(i16::from_sql(ty, raw)?.into()),
            Type::INT4 => Value::Int(i32::from_sql(ty, raw)?.into()),
            Type::INT8 => Value::Int(i64::from_sql(ty, raw)?),
            Type::OID => Value::Int(u32::from_sql(ty, raw)?.into()),
            // By way of its text: 0.1 as float4 is then 0.1 and not 0.10000000149.
            Type::FLOAT4 => Value::Real(f32::from_sql(ty, raw)?.to_string().parse()?),
            Type::FLOAT8 => Value::Real(f64::from_sql(ty, raw)?),
            Type::BYTEA => Value::Bytes(raw.to_vec()),
            Type::VOID => Value::Null,
            Type::JSON => Value::Text(std::str::from_utf8(raw)?.to_owned()),
            Type::JSONB => {
                Value::Text(std::str::from_utf8(raw.get(1..).unwrap_or_default())?.to_owned())
            }
            _ if wire::is_text(ty)
                || matches!(
                    *ty,
                    Type::UUID | Type::TIMESTAMPTZ | Type::TIMESTAMP | Type::DATE
                ) =>
            {
                let mut json = Vec::new();
                wire::write_json(ty, Some(raw), &mut json)?;
                Value::Text(serde_json::from_slice(&json)?)
            }
            _ => {
                return Err(Misfit::Found(format!(
                    "a column of type {}: cast it in the query, to text or float8",
                    ty.name()
                ))
                .into());
            }
        })
    }

    fn from_sql_null(_: &Type) -> Result<Value, Refusal> {
        Ok(Value::Null)
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

impl rusqlite::types::FromSql for Value {
    fn column_result(
        value: rusqlite::types::ValueRef<'_>,
    ) -> rusqlite::types::FromSqlResult<Value> {
        use rusqlite::types::ValueRef;
        Ok(match value {
            ValueRef::Null => Value::Null,
            ValueRef::Integer(i) => Value::Int(i),
            ValueRef::Real(x) => Value::Real(x),
            // SQLite stores whatever bytes it is given; a text that is none is no reason to lose the row.
            ValueRef::Text(text) => Value::Text(String::from_utf8_lossy(text).into_owned()),
            ValueRef::Blob(bytes) => Value::Bytes(bytes.to_vec()),
        })
    }
}

/// One row of a result, read by the names of its columns.
#[derive(Clone, Debug)]
pub(super) struct Row {
    names: Arc<[String]>,
    values: Vec<Value>,
}

impl Row {
    pub(super) fn new(names: Arc<[String]>, values: Vec<Value>) -> Row {
        Row { names, values }
    }

    /// Names and values, in the order of the query.
    pub(super) fn columns(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.names.iter().map(String::as_str).zip(&self.values)
    }

    /// The value of a column; `None` if the query has no such column.
    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        self.columns()
            .find(|(column, _)| *column == name)
            .map(|(_, value)| value)
    }

    /// A column that always holds an integer.
    pub(super) fn int(&self, name: &str) -> Result<i64, DatabaseError> {
        self.optional_int(name)?
            .ok_or_else(|| self.wrong(name, "an integer"))
    }

    /// A column that always holds a text.
    pub(super) fn text(&self, name: &str) -> Result<&str, DatabaseError> {
        self.optional_text(name)?
            .ok_or_else(|| self.wrong(name, "text"))
    }

    /// A column that always holds true or false.
    pub(super) fn bool(&self, name: &str) -> Result<bool, DatabaseError> {
        match self.get(name) {
            Some(Value::Bool(b)) => Ok(*b),
            Some(Value::Int(i @ (0 | 1))) => Ok(*i == 1),
            _ => Err(self.wrong(name, "a boolean")),
        }
    }

    /// A column that holds an integer or null.
    pub(super) fn optional_int(&self, name: &str) -> Result<Option<i64>, DatabaseError> {
        match self.get(name) {
            Some(Value::Int(i)) => Ok(Some(*i)),
            Some(Value::Null) => Ok(None),
            _ => Err(self.wrong(name, "an integer")),
        }
    }

    /// A column that holds a text or null.
    pub(super) fn optional_text(&self, name: &str) -> Result<Option<&str>, DatabaseError> {
        match self.get(name) {
            Some(Value::Text(text)) => Ok(Some(text)),
            Some(Value::Null) => Ok(None),
            _ => Err(self.wrong(name, "text")),
        }
    }

    fn wrong(&self, name: &str, wanted: &str) -> DatabaseError {
        let found = self.get(name).map_or("not there", Value::kind);
        DatabaseError::Failed(format!("column {name} should hold {wanted} but is {found}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_read_by_name_and_strictly() {
        let names: Arc<[String]> = ["id", "name", "admin", "gone"].map(str::to_owned).into();
        let values = vec![
            Value::Int(1),
            Value::from("ada"),
            Value::Int(1),
            Value::Null,
        ];
        let row = Row::new(names, values);
        assert_eq!(row.int("id").unwrap(), 1);
        assert_eq!(row.text("name").unwrap(), "ada");
        assert!(row.bool("admin").unwrap());
        assert_eq!(row.optional_int("gone").unwrap(), None);
        assert_eq!(row.optional_text("gone").unwrap(), None);
        for wrong in [
            row.int("name").unwrap_err(),
            row.text("gone").unwrap_err(),
            row.bool("nowhere").unwrap_err(),
        ] {
            assert!(matches!(wrong, DatabaseError::Failed(_)), "{wrong}");
        }
    }
}
