//! The forms that values have on the wire to Postgres, both ways: its binary types as JSON, JSON and text as its binary types.
//!
//! Promise: what Postgres holds becomes the JSON that a reader expects, exactly: `numeric` a number with all its digits, moments
//! RFC 3339, `json` itself, arrays arrays, the rest text. What JSON has no number for, NaN and the infinities, is a string. The
//! other way a value becomes just the type that is wanted, or the error says what that type takes. No bytes make it panic.
//! Refuses types that have no one natural form (money, ranges, points, rows): a query casts them.

mod array;
mod calendar;
mod canonical;
mod given;
mod interval;
mod network;
mod numeric;
mod shown;
mod uuid;

use std::fmt;

use postgres::types::{Kind, Type};

pub(super) use canonical::{canonical, canonical_float, canonical_kind, is_canonical};
pub(super) use given::{encode, sqlite_number};
pub(super) use shown::{write_base64, write_float, write_json};

/// A value that has no form in the type on the other side.
#[derive(Debug)]
pub(super) enum Misfit {
    /// What was given as a parameter does not fit; this is what would.
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

/// Bytes that are read from their beginning; `None` past the end.
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_be_bytes)
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    fn i16(&mut self) -> Option<i16> {
        self.array().map(i16::from_be_bytes)
    }

    fn i32(&mut self) -> Option<i32> {
        self.array().map(i32::from_be_bytes)
    }

    fn i64(&mut self) -> Option<i64> {
        self.array().map(i64::from_be_bytes)
    }
}

/// The type itself, for a domain the type it stands on.
pub(super) fn base(ty: &Type) -> &Type {
    match ty.kind() {
        Kind::Domain(inner) => base(inner),
        _ => ty,
    }
}

/// Whether its binary form is its text.
pub(super) fn is_text(ty: &Type) -> bool {
    let plain = [Type::TEXT, Type::VARCHAR, Type::BPCHAR, Type::NAME];
    plain.contains(ty)
        || matches!(*ty, Type::UNKNOWN | Type::XML)
        || matches!(ty.kind(), Kind::Enum(_))
        || ty.name() == "citext"
}

/// Whether its values are labels.
pub(super) fn is_enum(ty: &Type) -> bool {
    matches!(ty.kind(), Kind::Enum(_))
}

/// Whether it takes any string.
fn is_plain_text(ty: &Type) -> bool {
    is_text(ty) && !matches!(ty.kind(), Kind::Enum(_))
}

fn is_json(ty: &Type) -> bool {
    matches!(*base(ty), Type::JSON | Type::JSONB)
}

/// Whether values of this type can be written as JSON, and be given.
pub(super) fn is_known(ty: &Type) -> bool {
    let ty = base(ty);
    match ty.kind() {
        Kind::Array(element) => is_known(element),
        _ if is_text(ty) => true,
        _ => matches!(
            *ty,
            Type::BOOL
                | Type::INT2
                | Type::INT4
                | Type::INT8
                | Type::OID
                | Type::FLOAT4
                | Type::FLOAT8
                | Type::NUMERIC
                | Type::CHAR
                | Type::UUID
                | Type::JSON
                | Type::JSONB
                | Type::BYTEA
                | Type::DATE
                | Type::TIME
                | Type::TIMETZ
                | Type::TIMESTAMP
                | Type::TIMESTAMPTZ
                | Type::INTERVAL
                | Type::INET
                | Type::CIDR
                | Type::MACADDR
                | Type::MACADDR8
                | Type::BIT
                | Type::VARBIT
                | Type::VOID
        ),
    }
}

/// The name that SQL has for a type: `int4[]`.
pub(super) fn type_name(ty: &Type) -> String {
    match ty.kind() {
        Kind::Array(element) => format!("{}[]", element.name()),
        _ => ty.name().to_owned(),
    }
}

/// What a parameter of this type takes, as the end of `has to be …`.
pub(super) fn wanted(ty: &Type) -> String {
    let ty = base(ty);
    match ty.kind() {
        Kind::Array(element) if is_plain_text(base(element)) => {
            return "an array of strings".to_owned();
        }
        Kind::Array(element) => return format!("an array, each of it {}", wanted(element)),
        Kind::Enum(labels) => return format!("one of {}", labels.join(", ")),
        _ => {}
    }
    match *ty {
        Type::BOOL => "true or false".to_owned(),
        Type::INT2 => whole(i16::MIN, i16::MAX),
        Type::INT4 => whole(i32::MIN, i32::MAX),
        Type::INT8 => whole(i64::MIN, i64::MAX),
        Type::OID => whole(u32::MIN, u32::MAX),
        Type::FLOAT4 => "a number that four bytes can hold".to_owned(),
        Type::FLOAT8 => "a number that eight bytes can hold".to_owned(),
        Type::NUMERIC => "a number".to_owned(),
        Type::UUID => "a UUID".to_owned(),
        Type::JSON | Type::JSONB => "JSON".to_owned(),
        Type::BYTEA => "base64".to_owned(),
        Type::DATE => "a date such as 2026-03-01".to_owned(),
        Type::TIME => "a time such as 13:05:00".to_owned(),
        Type::TIMETZ => "a time with its offset such as 13:05:00+01:00".to_owned(),
        Type::TIMESTAMP => "a date and time such as 2026-03-01T13:05:00".to_owned(),
        Type::TIMESTAMPTZ => {
            "a date and time with its offset such as 2026-03-01T13:05:00Z".to_owned()
        }
        Type::INTERVAL => "an ISO 8601 duration such as P1DT2H".to_owned(),
        Type::INET => "an IP address".to_owned(),
        Type::CIDR => "a network such as 10.0.0.0/8".to_owned(),
        Type::MACADDR | Type::MACADDR8 => "a MAC address".to_owned(),
        Type::BIT | Type::VARBIT => "zeros and ones".to_owned(),
        Type::CHAR => "one ASCII character".to_owned(),
        _ if is_text(ty) => "text without NUL characters".to_owned(),
        _ => format!("of type {}", type_name(ty)),
    }
}

/// As `wanted`, for JSON that is no string.
fn wanted_of_json(ty: &Type) -> String {
    match base(ty) {
        ty if is_plain_text(ty) => "a string".to_owned(),
        &Type::BYTEA => "a string of base64".to_owned(),
        &Type::CHAR => "a string of one ASCII character".to_owned(),
        ty => wanted(ty),
    }
}

fn whole<T: fmt::Display>(from: T, to: T) -> String {
    format!("a whole number from {from} to {to}")
}
