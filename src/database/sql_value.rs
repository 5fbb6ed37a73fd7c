//! One value of a parameter or a column, for Postgres and SQLite alike.
//!
//! Promise: a parameter is encoded in the type that the statement expects, or refused with a text
//! that says what that type takes. Nothing is rounded, cut or guessed. Larder's own queries get
//! their columns as such values; types such as `numeric` and arrays are refused there. The rows of
//! resources become JSON directly, in `json_rows.rs`.

use bytes::BytesMut;
use postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};
use serde_json::value::RawValue;

use super::wire::{self, Misfit};

/// One value of a parameter or a column.
#[derive(Clone, Debug, PartialEq)]
pub enum SqlValue {
    /// NULL.
    Null,
    /// A boolean. SQLite stores 0 or 1.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// A floating point number.
    Real(f64),
    /// Text, and every type that is written as text: JSON, UUIDs, dates, enums, and numbers as a
    /// URL has them.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
    /// The text of a JSON value other than null, exactly as a client sent it. Its JSON type counts:
    /// `"7"` is not a number.
    Json(String),
}

impl From<&str> for SqlValue {
    fn from(text: &str) -> SqlValue {
        SqlValue::Text(text.to_owned())
    }
}

impl From<&RawValue> for SqlValue {
    fn from(json: &RawValue) -> SqlValue {
        match json.get() {
            "null" => SqlValue::Null,
            text => SqlValue::Json(text.to_owned()),
        }
    }
}

macro_rules! from {
    ($($from:ty => $variant:ident),*) => {
        $(impl From<$from> for SqlValue {
            fn from(value: $from) -> SqlValue {
                SqlValue::$variant(value.into())
            }
        })*
    };
}
from!(String => Text, i64 => Int, u32 => Int, bool => Bool);

impl<T: Into<SqlValue>> From<Option<T>> for SqlValue {
    fn from(value: Option<T>) -> SqlValue {
        value.map_or(SqlValue::Null, Into::into)
    }
}

impl SqlValue {
    /// What it is, for error messages.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            SqlValue::Null => "null",
            SqlValue::Bool(_) => "a boolean",
            SqlValue::Int(_) => "an integer",
            SqlValue::Real(_) => "a number",
            SqlValue::Text(_) => "text",
            SqlValue::Bytes(_) => "bytes",
            SqlValue::Json(_) => "JSON",
        }
    }

    /// Its text, if it is text or a JSON string.
    pub(super) fn text(&self) -> Option<String> {
        match self {
            SqlValue::Text(text) => Some(text.clone()),
            SqlValue::Json(json) => serde_json::from_str(json).ok(),
            _ => None,
        }
    }

    /// The value as SQLite stores it. JSON is stored by its type, arrays and objects as their text.
    /// Errors with what would be valid.
    pub(super) fn for_sqlite(&self) -> Result<rusqlite::types::ToSqlOutput<'_>, String> {
        use rusqlite::types::{ToSqlOutput, Value as Owned, ValueRef};
        let json = match self {
            SqlValue::Null => return Ok(ToSqlOutput::Borrowed(ValueRef::Null)),
            SqlValue::Bool(b) => return Ok(ToSqlOutput::from(*b)),
            SqlValue::Int(i) => return Ok(ToSqlOutput::from(*i)),
            SqlValue::Real(x) => return Ok(ToSqlOutput::from(*x)),
            SqlValue::Text(text) => return Ok(ToSqlOutput::from(text.as_str())),
            SqlValue::Bytes(bytes) => return Ok(ToSqlOutput::from(bytes.as_slice())),
            SqlValue::Json(json) => json.as_str(),
        };
        let owned = match json.as_bytes().first() {
            Some(b't' | b'f') => Owned::Integer((json == "true").into()),
            Some(b'"') => Owned::Text(
                serde_json::from_str(json)
                    .map_err(|_| "text without unpaired surrogates".to_owned())?,
            ),
            Some(b'[' | b'{') => return Ok(ToSqlOutput::from(json)),
            _ => wire::sqlite_number(json)?,
        };
        Ok(ToSqlOutput::Owned(owned))
    }

    /// Whether this is a whole number of 64 bits that is too large for `expected`.
    pub(super) fn overflows(&self, expected: &Type) -> bool {
        let whole: Option<i64> = match self {
            SqlValue::Int(i) => Some(*i),
            SqlValue::Text(text) => text.parse().ok(),
            _ => None,
        };
        whole.is_some_and(|whole| match *wire::base(expected) {
            Type::INT4 => i32::try_from(whole).is_err(),
            Type::INT2 => i16::try_from(whole).is_err(),
            _ => false,
        })
    }
}

type BoxError = Box<dyn std::error::Error + Sync + Send>;

impl ToSql for SqlValue {
    fn to_sql(&self, ty: &Type, out: &mut BytesMut) -> Result<IsNull, BoxError> {
        Ok(wire::encode(self, ty, out)?)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

impl<'a> FromSql<'a> for SqlValue {
    fn from_sql(ty: &Type, raw: &'a [u8]) -> Result<SqlValue, BoxError> {
        let ty = wire::base(ty);
        Ok(match *ty {
            Type::BOOL => SqlValue::Bool(bool::from_sql(ty, raw)?),
            Type::INT2 => SqlValue::Int(i16::from_sql(ty, raw)?.into()),
            Type::INT4 => SqlValue::Int(i32::from_sql(ty, raw)?.into()),
            Type::INT8 => SqlValue::Int(i64::from_sql(ty, raw)?),
            Type::OID => SqlValue::Int(u32::from_sql(ty, raw)?.into()),
            // By way of its text, so that a float4 of 0.1 is 0.1 and not 0.10000000149.
            Type::FLOAT4 => SqlValue::Real(f32::from_sql(ty, raw)?.to_string().parse()?),
            Type::FLOAT8 => SqlValue::Real(f64::from_sql(ty, raw)?),
            Type::BYTEA => SqlValue::Bytes(raw.to_vec()),
            Type::VOID => SqlValue::Null,
            Type::JSON => SqlValue::Text(std::str::from_utf8(raw)?.to_owned()),
            Type::JSONB => {
                SqlValue::Text(std::str::from_utf8(raw.get(1..).unwrap_or_default())?.to_owned())
            }
            _ if wire::is_text(ty)
                || matches!(
                    *ty,
                    Type::UUID | Type::TIMESTAMPTZ | Type::TIMESTAMP | Type::DATE
                ) =>
            {
                let mut json = Vec::new();
                wire::write_json(ty, Some(raw), &mut json)?;
                SqlValue::Text(serde_json::from_slice(&json)?)
            }
            _ => {
                return Err(Misfit::Column(format!(
                    "larder cannot read type {}: cast it in the query, to text or float8",
                    ty.name()
                ))
                .into());
            }
        })
    }

    fn from_sql_null(_: &Type) -> Result<SqlValue, BoxError> {
        Ok(SqlValue::Null)
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

impl rusqlite::types::FromSql for SqlValue {
    fn column_result(
        value: rusqlite::types::ValueRef<'_>,
    ) -> rusqlite::types::FromSqlResult<SqlValue> {
        use rusqlite::types::ValueRef;
        Ok(match value {
            ValueRef::Null => SqlValue::Null,
            ValueRef::Integer(i) => SqlValue::Int(i),
            ValueRef::Real(x) => SqlValue::Real(x),
            // SQLite does not check that a text is UTF-8.
            ValueRef::Text(text) => SqlValue::Text(String::from_utf8_lossy(text).into_owned()),
            ValueRef::Blob(bytes) => SqlValue::Bytes(bytes.to_vec()),
        })
    }
}
