//! Values as larder hands them to a database, and rows as it gets them back: the same for Postgres and SQLite.
//!
//! Promise: a value is turned into the type that the statement wants, or refused with a text that says which it is; nothing is
//! rounded, cut or guessed. Dates come back as text in RFC 3339. Refuses `numeric`, arrays and the like: a query casts them.

use std::fmt;
use std::sync::Arc;

use bytes::BytesMut;
use jiff::civil::{Date, DateTime};
use jiff::{SignedDuration, Timestamp};
use postgres::types::{FromSql, IsNull, Kind, ToSql, Type, to_sql_checked};
use r2d2_sqlite::rusqlite;

use super::error::DatabaseError;

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
    /// Text; also JSON, UUIDs, dates and enums.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
}

impl From<&str> for Value {
    fn from(text: &str) -> Value {
        Value::Text(text.to_owned())
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
from!(String => Text, i64 => Int, i32 => Int, u32 => Int, bool => Bool, f64 => Real, Vec<u8> => Bytes);

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
        }
    }

    /// Whether this is an integer too large for `wanted`. Compared as a bigint it finds no row, which is the right answer.
    pub(super) fn overflows(&self, wanted: &Type) -> bool {
        match (self, base(wanted)) {
            (Value::Int(i), &Type::INT4) => i32::try_from(*i).is_err(),
            (Value::Int(i), &Type::INT2) => i16::try_from(*i).is_err(),
            _ => false,
        }
    }
}

/// A value that has no form in the type on the other side.
#[derive(Debug)]
pub(super) enum Misfit {
    /// What was given as a parameter does not fit.
    Given(String),
    /// What a column holds cannot be read.
    Found(String),
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Misfit::Given(what) | Misfit::Found(what)) = self;
        f.write_str(what)
    }
}

impl std::error::Error for Misfit {}

type Refusal = Box<dyn std::error::Error + Sync + Send>;

/// The type itself, for a domain the type it stands on.
fn base(ty: &Type) -> &Type {
    match ty.kind() {
        Kind::Domain(inner) => base(inner),
        _ => ty,
    }
}

/// Postgres counts time from 2000-01-01; this is that in microseconds since 1970.
const POSTGRES_EPOCH: i64 = 946_684_800_000_000;
const POSTGRES_DAY_ZERO: Date = Date::constant(2000, 1, 1);

impl ToSql for Value {
    fn to_sql(&self, ty: &Type, out: &mut BytesMut) -> Result<IsNull, Refusal> {
        let ty = base(ty);
        let misfit = || {
            Refusal::from(Misfit::Given(format!(
                "{} where the query wants {}",
                self.kind(),
                ty.name()
            )))
        };
        match self {
            Value::Null => return Ok(IsNull::Yes),
            Value::Bool(b) if *ty == Type::BOOL => return b.to_sql(ty, out),
            Value::Bytes(bytes) if *ty == Type::BYTEA => return bytes.to_sql(ty, out),
            Value::Int(i) => match *ty {
                Type::INT8 => return i.to_sql(ty, out),
                Type::INT4 => return i32::try_from(*i).map_err(|_| misfit())?.to_sql(ty, out),
                Type::INT2 => return i16::try_from(*i).map_err(|_| misfit())?.to_sql(ty, out),
                Type::OID => return u32::try_from(*i).map_err(|_| misfit())?.to_sql(ty, out),
                // Past 2^53 a float has no place for every integer.
                Type::FLOAT8 if i.unsigned_abs() <= 1 << 53 => return (*i as f64).to_sql(ty, out),
                Type::FLOAT4 if i.unsigned_abs() <= 1 << 24 => return (*i as f32).to_sql(ty, out),
                Type::TEXT | Type::VARCHAR | Type::UNKNOWN => return i.to_string().to_sql(ty, out),
                _ => {}
            },
            Value::Real(x) => match *ty {
                Type::FLOAT8 => return x.to_sql(ty, out),
                Type::FLOAT4 => return (*x as f32).to_sql(ty, out),
                _ => {}
            },
            Value::Text(text) => return text_to_sql(text, ty, out).ok_or_else(misfit),
            _ => {}
        }
        Err(misfit())
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

/// Writes text in the form that `ty` has on the wire; `None` if it is no such thing.
fn text_to_sql(text: &str, ty: &Type, out: &mut BytesMut) -> Option<IsNull> {
    match *ty {
        Type::UUID => out.extend_from_slice(&uuid_from(text)?),
        Type::JSON => out.extend_from_slice(text.as_bytes()),
        Type::JSONB => {
            out.extend_from_slice(&[1]);
            out.extend_from_slice(text.as_bytes());
        }
        Type::TIMESTAMPTZ => {
            let at: Timestamp = text.parse().ok()?;
            out.extend_from_slice(&(at.as_microsecond() - POSTGRES_EPOCH).to_be_bytes());
        }
        Type::TIMESTAMP => {
            let at: DateTime = text.parse().ok()?;
            let since = at.duration_since(POSTGRES_DAY_ZERO.at(0, 0, 0, 0));
            out.extend_from_slice(&i64::try_from(since.as_micros()).ok()?.to_be_bytes());
        }
        Type::DATE => {
            let date: Date = text.parse().ok()?;
            let days = date.duration_since(POSTGRES_DAY_ZERO).as_hours() / 24;
            out.extend_from_slice(&i32::try_from(days).ok()?.to_be_bytes());
        }
        _ if <&str as ToSql>::accepts(ty)
            || matches!(ty.kind(), Kind::Enum(_))
            || *ty == Type::XML =>
        {
            // Postgres keeps no NUL in a text.
            if text.contains('\0') {
                return None;
            }
            out.extend_from_slice(text.as_bytes());
        }
        _ => return None,
    }
    Some(IsNull::No)
}

fn uuid_from(text: &str) -> Option<[u8; 16]> {
    let digits: Vec<u32> = text
        .chars()
        .filter(|c| *c != '-')
        .map(|c| c.to_digit(16))
        .collect::<Option<_>>()?;
    let mut bytes = [0; 16];
    if digits.len() != 32 {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = u8::try_from(pair[0] * 16 + pair[1]).ok()?;
    }
    Some(bytes)
}

fn uuid_text(bytes: [u8; 16]) -> String {
    let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    format!(
        "{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    )
}

impl<'a> FromSql<'a> for Value {
    fn from_sql(ty: &Type, raw: &'a [u8]) -> Result<Value, Refusal> {
        let ty = base(ty);
        let real = |x: f64| Ok(Value::Real(x));
        match *ty {
            Type::BOOL => bool::from_sql(ty, raw).map(Value::Bool),
            Type::INT2 => i16::from_sql(ty, raw).map(|i| Value::Int(i.into())),
            Type::INT4 => i32::from_sql(ty, raw).map(|i| Value::Int(i.into())),
            Type::INT8 => i64::from_sql(ty, raw).map(Value::Int),
            Type::OID => u32::from_sql(ty, raw).map(|i| Value::Int(i.into())),
            // By way of its text: 0.1 as float4 is then 0.1 and not 0.10000000149.
            Type::FLOAT4 => f32::from_sql(ty, raw).and_then(|x| real(x.to_string().parse()?)),
            Type::FLOAT8 => f64::from_sql(ty, raw).and_then(real),
            Type::BYTEA => Ok(Value::Bytes(raw.to_vec())),
            Type::VOID => Ok(Value::Null),
            Type::UUID => Ok(Value::Text(uuid_text(raw.try_into()?))),
            Type::JSONB => Ok(Value::Text(
                std::str::from_utf8(raw.get(1..).unwrap_or_default())?.to_owned(),
            )),
            Type::TIMESTAMPTZ => Ok(Value::Text(match i64::from_be_bytes(raw.try_into()?) {
                i64::MAX => "infinity".to_owned(),
                i64::MIN => "-infinity".to_owned(),
                at => Timestamp::from_microsecond(at.saturating_add(POSTGRES_EPOCH))?.to_string(),
            })),
            Type::TIMESTAMP => Ok(Value::Text(match i64::from_be_bytes(raw.try_into()?) {
                i64::MAX => "infinity".to_owned(),
                i64::MIN => "-infinity".to_owned(),
                at => {
                    let since = SignedDuration::from_micros(at);
                    POSTGRES_DAY_ZERO
                        .at(0, 0, 0, 0)
                        .checked_add(since)?
                        .to_string()
                }
            })),
            Type::DATE => Ok(Value::Text(match i32::from_be_bytes(raw.try_into()?) {
                i32::MAX => "infinity".to_owned(),
                i32::MIN => "-infinity".to_owned(),
                days => {
                    let since = SignedDuration::from_hours(i64::from(days) * 24);
                    POSTGRES_DAY_ZERO.checked_add(since)?.to_string()
                }
            })),
            _ if <&str as FromSql>::accepts(ty)
                || matches!(ty.kind(), Kind::Enum(_))
                || matches!(*ty, Type::JSON | Type::XML) =>
            {
                Ok(Value::Text(std::str::from_utf8(raw)?.to_owned()))
            }
            _ => Err(Misfit::Found(format!(
                "a column of type {}: cast it in the query, to text or float8",
                ty.name()
            ))
            .into()),
        }
    }

    fn from_sql_null(_: &Type) -> Result<Value, Refusal> {
        Ok(Value::Null)
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

impl rusqlite::ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<rusqlite::types::ToSqlOutput<'_>> {
        use rusqlite::types::{ToSqlOutput, ValueRef};
        Ok(ToSqlOutput::Borrowed(match self {
            Value::Null => ValueRef::Null,
            Value::Bool(b) => ValueRef::Integer((*b).into()),
            Value::Int(i) => ValueRef::Integer(*i),
            Value::Real(x) => ValueRef::Real(*x),
            Value::Text(text) => ValueRef::Text(text.as_bytes()),
            Value::Bytes(bytes) => ValueRef::Blob(bytes),
        }))
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
pub struct Row {
    names: Arc<[String]>,
    values: Vec<Value>,
}

impl Row {
    pub(super) fn new(names: Arc<[String]>, values: Vec<Value>) -> Row {
        Row { names, values }
    }

    /// Names and values, in the order of the query.
    pub fn columns(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.names.iter().map(String::as_str).zip(&self.values)
    }

    /// The value of a column; `None` if the query has no such column.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.columns()
            .find(|(column, _)| *column == name)
            .map(|(_, value)| value)
    }

    /// A column that always holds an integer.
    pub fn int(&self, name: &str) -> Result<i64, DatabaseError> {
        self.optional_int(name)?
            .ok_or_else(|| self.wrong(name, "an integer"))
    }

    /// A column that always holds a text.
    pub fn text(&self, name: &str) -> Result<&str, DatabaseError> {
        self.optional_text(name)?
            .ok_or_else(|| self.wrong(name, "text"))
    }

    /// A column that always holds true or false.
    pub fn bool(&self, name: &str) -> Result<bool, DatabaseError> {
        match self.get(name) {
            Some(Value::Bool(b)) => Ok(*b),
            Some(Value::Int(i @ (0 | 1))) => Ok(*i == 1),
            _ => Err(self.wrong(name, "a boolean")),
        }
    }

    /// A column that holds an integer or null.
    pub fn optional_int(&self, name: &str) -> Result<Option<i64>, DatabaseError> {
        match self.get(name) {
            Some(Value::Int(i)) => Ok(Some(*i)),
            Some(Value::Null) => Ok(None),
            _ => Err(self.wrong(name, "an integer")),
        }
    }

    /// A column that holds a text or null.
    pub fn optional_text(&self, name: &str) -> Result<Option<&str>, DatabaseError> {
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
    fn uuids_go_both_ways() {
        let text = "6ba7b810-9dad-11d1-80b4-00c04fd430c8";
        assert_eq!(uuid_text(uuid_from(text).unwrap()), text);
        for wrong in ["", "6ba7b810", "6ba7b810-9dad-11d1-80b4-00c04fd430cg", "é"] {
            assert_eq!(uuid_from(wrong), None, "{wrong}");
        }
    }

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
