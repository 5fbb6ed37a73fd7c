//! The forms that values have on the wire to Postgres, both ways: its binary types as JSON, JSON and text as its binary types.
//!
//! Promise: what Postgres holds becomes the JSON that a reader expects, exactly: `numeric` a number with all its digits, moments
//! RFC 3339, `json` itself, arrays arrays, the rest text. What JSON has no number for, NaN and the infinities, is a string. The
//! other way a value becomes just the type that is wanted, or the error says what that type takes. No bytes make it panic.
//! Refuses types that have no one natural form (money, ranges, points, rows): a query casts them.

mod array;
mod calendar;
mod network;
mod numeric;

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::{BufMut, BytesMut};
use postgres::types::{IsNull, Kind, Type};
use serde_json::value::RawValue;

use super::value::Value;
use calendar::Offset;
use network::Network;
use numeric::Decimal;

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

/// Writes what a column holds, NULL for `None`. Errors with [`Misfit::Found`].
pub(super) fn write_json(ty: &Type, raw: Option<&[u8]>, out: &mut Vec<u8>) -> Result<(), Misfit> {
    let Some(raw) = raw else {
        out.extend_from_slice(b"null");
        return Ok(());
    };
    let mut reader = Reader(raw);
    match write_value(base(ty), &mut reader, out) {
        Some(()) if reader.0.is_empty() => Ok(()),
        _ => Err(Misfit::Found(format!(
            "a value of type {} that cannot be read",
            type_name(ty)
        ))),
    }
}

fn write_value(ty: &Type, raw: &mut Reader<'_>, out: &mut Vec<u8>) -> Option<()> {
    if let Kind::Array(element) = ty.kind() {
        return array::write(element, raw, out);
    }
    let text = match *ty {
        Type::BOOL => return json(&(raw.u8()? != 0), out),
        Type::INT2 => return json(&raw.i16()?, out),
        Type::INT4 => return json(&raw.i32()?, out),
        Type::INT8 => return json(&raw.i64()?, out),
        Type::OID => return json(&raw.array().map(u32::from_be_bytes)?, out),
        Type::FLOAT4 => {
            let number = raw.array().map(f32::from_be_bytes)?;
            return if number.is_finite() {
                json(&number, out)
            } else {
                write_float(number.into(), out)
            };
        }
        Type::FLOAT8 => return write_float(raw.array().map(f64::from_be_bytes)?, out),
        Type::NUMERIC => return numeric::write(raw, out),
        Type::JSON => {
            out.extend_from_slice(raw.take(raw.0.len())?);
            return Some(());
        }
        // A number for the version of the form comes first.
        Type::JSONB if raw.u8()? == 1 => {
            out.extend_from_slice(raw.take(raw.0.len())?);
            return Some(());
        }
        Type::VOID => {
            raw.take(raw.0.len())?;
            out.extend_from_slice(b"null");
            return Some(());
        }
        Type::BYTEA => return write_base64(raw.take(raw.0.len())?, out),
        // One byte, as Postgres writes it; zero is the empty text.
        Type::CHAR => match raw.u8()? {
            0 => String::new(),
            byte @ ..0x80 => char::from(byte).to_string(),
            byte => format!("\\{byte:03o}"),
        },
        Type::UUID => uuid_text(raw.array()?),
        Type::DATE => calendar::date(raw)?,
        Type::TIME => calendar::time(raw)?,
        Type::TIMETZ => calendar::time_with_offset(raw)?,
        Type::TIMESTAMP => calendar::timestamp(raw, "")?,
        Type::TIMESTAMPTZ => calendar::timestamp(raw, "Z")?,
        Type::INTERVAL => calendar::interval(raw)?,
        Type::INET | Type::CIDR => network::inet(raw)?,
        Type::MACADDR => network::mac(raw, 6)?,
        Type::MACADDR8 => network::mac(raw, 8)?,
        Type::BIT | Type::VARBIT => network::bits(raw)?,
        _ if is_text(ty) => {
            let text = std::str::from_utf8(raw.take(raw.0.len())?).ok()?;
            return json(text, out);
        }
        _ => return None,
    };
    json(text.as_str(), out)
}

/// Writes the shortest text that reads as the same number; as a string what is none.
pub(super) fn write_float(number: f64, out: &mut Vec<u8>) -> Option<()> {
    if number.is_finite() {
        return json(&number, out);
    }
    let text = match number {
        f64::INFINITY => "Infinity",
        f64::NEG_INFINITY => "-Infinity",
        _ => "NaN",
    };
    json(text, out)
}

/// Writes bytes as a string of base64, in the standard alphabet and padded.
pub(super) fn write_base64(bytes: &[u8], out: &mut Vec<u8>) -> Option<()> {
    json(BASE64.encode(bytes).as_str(), out)
}

fn json<T: serde::Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) -> Option<()> {
    serde_json::to_writer(out, value).ok()
}

/// Writes `value` in the form that `ty` has on the wire. Errors with [`Misfit::Given`], which says what that type takes.
pub(super) fn encode(value: &Value, ty: &Type, out: &mut BytesMut) -> Result<IsNull, Misfit> {
    let ty = base(ty);
    let done = match value {
        Value::Null => return Ok(IsNull::Yes),
        Value::Json(text) => return encode_json(text, ty, out),
        Value::Bytes(bytes) if *ty == Type::BYTEA => Some(out.extend_from_slice(bytes)),
        Value::Bytes(_) => None,
        Value::Bool(_) | Value::Int(_) | Value::Real(_) if is_json(ty) => {
            let text = match value {
                Value::Bool(b) => b.to_string(),
                Value::Int(i) => i.to_string(),
                Value::Real(x) if x.is_finite() => float_text(*x),
                _ => return Err(Misfit::Given(wanted(ty))),
            };
            return encode_json(&text, ty, out);
        }
        Value::Bool(b) if *ty == Type::BOOL => Some(out.put_u8((*b).into())),
        Value::Bool(_) => None,
        Value::Int(i) if is_text(ty) && !matches!(ty.kind(), Kind::Enum(_)) => {
            Some(out.extend_from_slice(i.to_string().as_bytes()))
        }
        Value::Int(i) => encode_number(&i.to_string(), ty, out),
        Value::Real(x) => match *ty {
            Type::FLOAT8 => Some(out.put_f64(*x)),
            Type::FLOAT4 => Some(out.put_f32(*x as f32)),
            Type::NUMERIC if x.is_finite() => encode_number(&float_text(*x), ty, out),
            _ => None,
        },
        Value::Text(text) => match *ty {
            Type::JSON | Type::JSONB => return encode_json(text, ty, out),
            Type::BOOL => match text.as_str() {
                "true" => Some(out.put_u8(1)),
                "false" => Some(out.put_u8(0)),
                _ => None,
            },
            _ => encode_number(text, ty, out).or_else(|| encode_string(text, ty, out)),
        },
    };
    done.map(|()| IsNull::No)
        .ok_or_else(|| Misfit::Given(wanted(ty)))
}

fn float_text(number: f64) -> String {
    let mut text = Vec::new();
    let _ = write_float(number, &mut text);
    String::from_utf8(text).unwrap_or_default()
}

/// As `encode`, for the text of a JSON value, which is kept to its JSON type.
fn encode_json(text: &str, ty: &Type, out: &mut BytesMut) -> Result<IsNull, Misfit> {
    let ty = base(ty);
    let misfit = || Misfit::Given(wanted(ty));
    if text == "null" {
        return Ok(IsNull::Yes);
    }
    if is_json(ty) {
        serde_json::from_str::<&RawValue>(text).map_err(|_| misfit())?;
        if *ty == Type::JSONB {
            out.put_u8(1);
        }
        out.extend_from_slice(text.as_bytes());
        return Ok(IsNull::No);
    }
    let done = match (text.as_bytes().first(), ty.kind()) {
        (Some(b'['), Kind::Array(element)) => return array::encode(text, element, out, misfit),
        (Some(b'"'), _) => {
            let text: String = serde_json::from_str(text).map_err(|_| misfit())?;
            match *ty {
                // A decimal may come as a string, lest a client rounds it.
                Type::NUMERIC => encode_number(&text, ty, out),
                _ => None,
            }
            .or_else(|| encode_string(&text, ty, out))
        }
        (Some(b't' | b'f'), _) if *ty == Type::BOOL => Some(out.put_u8((text == "true").into())),
        (Some(b'-' | b'0'..=b'9'), _) => encode_number(text, ty, out),
        _ => None,
    };
    done.map(|()| IsNull::No).ok_or_else(misfit)
}

/// Writes a number in JSON's form; `None` if it is none, or `ty` cannot hold it.
fn encode_number(text: &str, ty: &Type, out: &mut BytesMut) -> Option<()> {
    let numbers = [Type::INT2, Type::INT4, Type::INT8, Type::OID, Type::NUMERIC];
    let floats = [Type::FLOAT4, Type::FLOAT8];
    if !numbers.contains(ty) && !floats.contains(ty) {
        return None;
    }
    let number = Decimal::parse(text)?;
    match *ty {
        Type::NUMERIC => {
            let mut raw = Vec::new();
            number.write(&mut raw)?;
            out.extend_from_slice(&raw);
        }
        Type::INT2 => out.put_i16(i16::try_from(number.whole()?).ok()?),
        Type::INT4 => out.put_i32(i32::try_from(number.whole()?).ok()?),
        Type::INT8 => out.put_i64(number.whole()?),
        Type::OID => out.put_u32(u32::try_from(number.whole()?).ok()?),
        _ => {
            let wide: f64 = text.parse().ok().filter(|x: &f64| x.is_finite())?;
            let narrow: f32 = text.parse().ok()?;
            // Decimals are what a float rounds by nature; a whole number means itself.
            let whole = number.whole();
            let same = |x: f64| whole.is_none_or(|whole| x as i128 == i128::from(whole));
            match *ty {
                Type::FLOAT8 if same(wide) => out.put_f64(wide),
                Type::FLOAT4 if narrow.is_finite() && same(narrow.into()) => out.put_f32(narrow),
                _ => return None,
            }
        }
    }
    Some(())
}

/// A number in JSON's form as SQLite keeps it. Errors with what fits instead.
pub(super) fn sqlite_number(text: &str) -> Result<rusqlite::types::Value, String> {
    use rusqlite::types::Value;
    if let Ok(whole) = text.parse() {
        return Ok(Value::Integer(whole));
    }
    // Digits alone: as a float it would be another number.
    if text.bytes().all(|c| c == b'-' || c.is_ascii_digit()) {
        return Err(whole(i64::MIN, i64::MAX));
    }
    let real = text.parse().ok().filter(|x: &f64| x.is_finite());
    real.map(Value::Real).ok_or_else(|| wanted(&Type::FLOAT8))
}

/// Writes a text; `None` if `ty` is none that text stands for, or the text is no such thing.
fn encode_string(text: &str, ty: &Type, out: &mut BytesMut) -> Option<()> {
    match *ty {
        Type::UUID => out.extend_from_slice(&uuid_from(text)?),
        Type::BYTEA => out.extend_from_slice(&BASE64.decode(text).ok()?),
        Type::NUMERIC => numeric::write_special(text, out)?,
        Type::FLOAT4 | Type::FLOAT8 => {
            let number = match text {
                "NaN" => f64::NAN,
                "Infinity" => f64::INFINITY,
                "-Infinity" => f64::NEG_INFINITY,
                _ => return None,
            };
            match *ty {
                Type::FLOAT8 => out.put_f64(number),
                _ => out.put_f32(number as f32),
            }
        }
        Type::TIMESTAMPTZ => {
            out.extend_from_slice(&calendar::timestamp_from(text, Offset::Needed)?);
        }
        Type::TIMESTAMP => {
            out.extend_from_slice(&calendar::timestamp_from(text, Offset::Refused)?);
        }
        Type::DATE => out.extend_from_slice(&calendar::date_from(text)?),
        Type::TIME => out.extend_from_slice(&calendar::time_from(text)?),
        Type::TIMETZ => {
            let (time, offset) = calendar::time_with_offset_from(text)?;
            out.extend_from_slice(&time);
            out.extend_from_slice(&offset);
        }
        Type::INTERVAL => out.extend_from_slice(&calendar::interval_from(text)?),
        Type::INET => out.extend_from_slice(&network::inet_from(text, Network::Host)?),
        Type::CIDR => out.extend_from_slice(&network::inet_from(text, Network::Whole)?),
        Type::MACADDR => out.extend_from_slice(&network::mac_from(text, 6)?),
        Type::MACADDR8 => out.extend_from_slice(&network::mac_from(text, 8)?),
        Type::BIT | Type::VARBIT => out.extend_from_slice(&network::bits_from(text)?),
        Type::CHAR => match text.as_bytes() {
            [] => out.put_u8(0),
            [byte @ 1..0x80] => out.put_u8(*byte),
            _ => return None,
        },
        // Postgres keeps no NUL in a text.
        _ if is_text(ty) && !text.contains('\0') => out.extend_from_slice(text.as_bytes()),
        _ => return None,
    }
    Some(())
}

/// What a parameter of this type takes, as the end of `has to be …`.
pub(super) fn wanted(ty: &Type) -> String {
    let ty = base(ty);
    match ty.kind() {
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

fn whole<T: fmt::Display>(from: T, to: T) -> String {
    format!("a whole number from {from} to {to}")
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
}
