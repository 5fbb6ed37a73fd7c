//! Parameters in the binary formats of Postgres, and JSON numbers as SQLite stores them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::{BufMut, BytesMut};
use postgres::types::{IsNull, Kind, Type};
use serde_json::value::RawValue;

use super::calendar::{self, Offset};
use super::misfit::Misfit;
use super::network::{self, HostBits};
use super::numeric::{self, Decimal};
use super::pg_type::{
    MAX_DIMENSIONS, base, expected, expected_in_json, is_json, is_plain_text, is_text,
};
use super::{interval, uuid};
use crate::database::sql_value::SqlValue;

/// Appends `value` in the format of `ty`. Errors with [`Misfit::Parameter`].
pub(in crate::database) fn encode(
    value: &SqlValue,
    ty: &Type,
    out: &mut BytesMut,
) -> Result<IsNull, Misfit> {
    let ty = base(ty);
    let done = match value {
        SqlValue::Null => return Ok(IsNull::Yes),
        SqlValue::Json(text) => return encode_json(text, ty, out),
        SqlValue::Text(text) if is_json(ty) => return encode_json(text, ty, out),
        SqlValue::Bool(b) if is_json(ty) => return encode_json(&b.to_string(), ty, out),
        SqlValue::Int(i) if is_json(ty) => return encode_json(&i.to_string(), ty, out),
        SqlValue::Real(x) if is_json(ty) && x.is_finite() => {
            return encode_json(&float_text(*x), ty, out);
        }
        SqlValue::Bytes(bytes) if *ty == Type::BYTEA => put(out, bytes),
        SqlValue::Bool(b) if *ty == Type::BOOL => put(out, &[(*b).into()]),
        SqlValue::Bytes(_) | SqlValue::Bool(_) => None,
        SqlValue::Int(i) if is_plain_text(ty) => put(out, i.to_string().as_bytes()),
        SqlValue::Int(i) => encode_number(&i.to_string(), ty, out),
        SqlValue::Real(x) => match *ty {
            Type::FLOAT8 => put(out, &x.to_be_bytes()),
            Type::FLOAT4 => put(out, &(*x as f32).to_be_bytes()),
            Type::NUMERIC if x.is_finite() => encode_number(&float_text(*x), ty, out),
            _ => None,
        },
        SqlValue::Text(text) if *ty == Type::BOOL => match text.as_str() {
            "true" => put(out, &[1]),
            "false" => put(out, &[0]),
            _ => None,
        },
        SqlValue::Text(text) => {
            encode_number(text, ty, out).or_else(|| encode_string(text, ty, out))
        }
    };
    done.map(|()| IsNull::No)
        .ok_or_else(|| Misfit::Parameter(expected(ty)))
}

fn put(out: &mut BytesMut, bytes: &[u8]) -> Option<()> {
    out.extend_from_slice(bytes);
    Some(())
}

/// The shortest text that reads back as this finite number.
fn float_text(number: f64) -> String {
    serde_json::to_string(&number).unwrap_or_default()
}

/// As [`encode`], for the text of a JSON value. Its JSON type counts: `"7"` is not a number.
fn encode_json(text: &str, ty: &Type, out: &mut BytesMut) -> Result<IsNull, Misfit> {
    let ty = base(ty);
    let misfit = || {
        Misfit::Parameter(match text.starts_with('"') {
            true => expected(ty),
            false => expected_in_json(ty),
        })
    };
    if text == "null" {
        return Ok(IsNull::Yes);
    }
    if is_json(ty) {
        serde_json::from_str::<&RawValue>(text).map_err(|_| misfit())?;
        if *ty == Type::JSONB {
            if has_nul(text) {
                return Err(misfit());
            }
            out.put_u8(1);
        }
        out.extend_from_slice(text.as_bytes());
        return Ok(IsNull::No);
    }
    let done = match (text.as_bytes().first(), ty.kind()) {
        (Some(b'['), Kind::Array(element)) => return encode_array(text, element, out, misfit),
        (Some(b'"'), _) => {
            let text: String = serde_json::from_str(text).map_err(|_| misfit())?;
            match *ty {
                // A decimal may come as a string, so that no client rounds it.
                Type::NUMERIC => encode_number(&text, ty, out),
                _ => None,
            }
            .or_else(|| encode_string(&text, ty, out))
        }
        (Some(b't' | b'f'), _) if *ty == Type::BOOL => put(out, &[(text == "true").into()]),
        (Some(b'-' | b'0'..=b'9'), _) => encode_number(text, ty, out),
        _ => None,
    };
    done.map(|()| IsNull::No).ok_or_else(misfit)
}

/// Whether a string or a name in this JSON has a NUL character, which is always an escape.
fn has_nul(json: &str) -> bool {
    json.match_indices(r"\u0000").any(|(at, _)| {
        let before = json[..at].bytes().rev();
        // An even number of backslashes before it escape each other.
        before.take_while(|byte| *byte == b'\\').count() % 2 == 0
    })
}

/// Appends the JSON array `text`. Errors with the first element that is not of its type, or with
/// `misfit` if the array itself is wrong: all arrays of one dimension must have one length. If the
/// elements are JSON themselves, inner arrays are elements and not dimensions.
fn encode_array(
    text: &str,
    element: &Type,
    out: &mut BytesMut,
    misfit: impl Fn() -> Misfit,
) -> Result<IsNull, Misfit> {
    let mut lengths = Vec::new();
    let mut elements = BytesMut::new();
    encode_dimension(text, element, 0, &mut lengths, &mut elements, &misfit)?;
    // An array without elements has no dimensions.
    if lengths.contains(&0) {
        lengths.clear();
    }
    let int = |number: usize| i32::try_from(number).map_err(|_| misfit());
    out.put_i32(int(lengths.len())?);
    // The flag for NULLs, which Postgres does not read.
    out.put_i32(0);
    out.put_u32(element.oid());
    for length in lengths {
        out.put_i32(int(length)?);
        // The lower bound.
        out.put_i32(1);
    }
    out.extend_from_slice(&elements);
    Ok(IsNull::No)
}

/// Appends the elements of one array at `depth`. `lengths` has the lengths of the dimensions met so
/// far.
fn encode_dimension(
    text: &str,
    element: &Type,
    depth: usize,
    lengths: &mut Vec<usize>,
    out: &mut BytesMut,
    misfit: &impl Fn() -> Misfit,
) -> Result<(), Misfit> {
    let parts: Vec<&RawValue> = serde_json::from_str(text).map_err(|_| misfit())?;
    match lengths.get(depth) {
        Some(length) if *length != parts.len() => return Err(misfit()),
        Some(_) => {}
        None if depth == MAX_DIMENSIONS || depth < lengths.len() => return Err(misfit()),
        None => lengths.push(parts.len()),
    }
    let nested = !is_json(element) && parts.first().is_some_and(|p| p.get().starts_with('['));
    for part in parts {
        if part.get().starts_with('[') && !is_json(element) {
            if !nested {
                return Err(misfit());
            }
            encode_dimension(part.get(), element, depth + 1, lengths, out, misfit)?;
            continue;
        }
        // An element beside an array, or at a depth where other elements are arrays.
        if nested || lengths.len() > depth + 1 {
            return Err(misfit());
        }
        let is_null = part.get() == "null";
        if is_plain_text(base(element)) && !is_null && !part.get().starts_with('"') {
            return Err(misfit());
        }
        let begin = out.len();
        out.put_i32(-1);
        if let IsNull::No = encode_json(part.get(), element, out)? {
            let length = i32::try_from(out.len() - begin - 4).map_err(|_| misfit())?;
            out[begin..begin + 4].copy_from_slice(&length.to_be_bytes());
        }
    }
    Ok(())
}

/// Appends a number that is written as in JSON. `None` if `text` is not one, or if `ty` cannot hold
/// it.
fn encode_number(text: &str, ty: &Type, out: &mut BytesMut) -> Option<()> {
    let numbers = [Type::INT2, Type::INT4, Type::INT8, Type::OID, Type::NUMERIC];
    let floats = [Type::FLOAT4, Type::FLOAT8];
    if !numbers.contains(ty) && !floats.contains(ty) {
        return None;
    }
    let number = Decimal::parse(text)?;
    match *ty {
        Type::NUMERIC => number.encode(out)?,
        Type::INT2 => out.put_i16(i16::try_from(number.whole()?).ok()?),
        Type::INT4 => out.put_i32(i32::try_from(number.whole()?).ok()?),
        Type::INT8 => out.put_i64(number.whole()?),
        Type::OID => out.put_u32(u32::try_from(number.whole()?).ok()?),
        _ => {
            let wide: f64 = text.parse().ok().filter(|x: &f64| x.is_finite())?;
            let narrow: f32 = text.parse().ok()?;
            // Floats round decimals by nature. A whole number has to stay the same number.
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

/// A number that is written as in JSON, as SQLite stores it. Errors with what would be valid.
pub(in crate::database) fn sqlite_number(text: &str) -> Result<rusqlite::types::Value, String> {
    if let Ok(whole) = text.parse() {
        return Ok(rusqlite::types::Value::Integer(whole));
    }
    // A whole number that no i64 holds. As a float it would be another number.
    if text.bytes().all(|c| c == b'-' || c.is_ascii_digit()) {
        return Err(expected(&Type::INT8));
    }
    let real = text.parse().ok().filter(|x: &f64| x.is_finite());
    real.map(rusqlite::types::Value::Real)
        .ok_or_else(|| expected(&Type::FLOAT8))
}

/// Appends a value that is written as text. `None` if `ty` has no values that are written as text,
/// or if this is not one of them.
fn encode_string(text: &str, ty: &Type, out: &mut BytesMut) -> Option<()> {
    match *ty {
        Type::UUID => put(out, uuid::parse_uuid(text)?.as_bytes()),
        Type::BYTEA => put(out, &BASE64.decode(text).ok()?),
        Type::NUMERIC => numeric::encode_special(text, out),
        Type::FLOAT4 | Type::FLOAT8 => {
            let is_special = matches!(text, "NaN" | "Infinity" | "-Infinity");
            let number: f64 = text.parse().ok().filter(|_| is_special)?;
            match *ty {
                Type::FLOAT8 => put(out, &number.to_be_bytes()),
                _ => put(out, &(number as f32).to_be_bytes()),
            }
        }
        Type::TIMESTAMPTZ => put(out, &calendar::encode_timestamp(text, Offset::Required)?),
        Type::TIMESTAMP => put(out, &calendar::encode_timestamp(text, Offset::Refused)?),
        Type::DATE => put(out, &calendar::encode_date(text)?),
        Type::TIME => put(out, &calendar::encode_time(text)?),
        Type::TIMETZ => {
            let (time, offset) = calendar::encode_time_with_offset(text)?;
            put(out, &time)?;
            put(out, &offset)
        }
        Type::INTERVAL => put(out, &interval::encode(text)?),
        Type::INET => put(out, &network::encode_inet(text, HostBits::Allowed)?),
        Type::CIDR => put(out, &network::encode_inet(text, HostBits::Refused)?),
        Type::MACADDR => put(out, &network::encode_mac(text, 6)?),
        Type::MACADDR8 => put(out, &network::encode_mac(text, 8)?),
        Type::BIT | Type::VARBIT => put(out, &network::encode_bits(text)?),
        Type::CHAR => match text.as_bytes() {
            [] => put(out, &[0]),
            [byte @ 1..0x80] => put(out, &[*byte]),
            _ => None,
        },
        // Postgres stores no NUL in a text.
        _ if is_text(ty) && !text.contains('\0') => put(out, text.as_bytes()),
        _ => None,
    }
}
