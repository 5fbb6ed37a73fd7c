//! Values as the binary types of Postgres, and JSON numbers as SQLite keeps them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::{BufMut, BytesMut};
use postgres::types::{IsNull, Kind, Type};
use serde_json::value::RawValue;

use super::calendar::{self, Offset};
use super::network::{self, Network};
use super::numeric::{self, Decimal};
use super::{
    Misfit, array, base, interval, is_json, is_plain_text, is_text, uuid, wanted, wanted_of_json,
    whole, write_float,
};
use crate::database::value::Value;

/// Writes `value` in the form that `ty` has on the wire. Errors with [`Misfit::Given`], which says what that type takes.
pub(in crate::database) fn encode(
    value: &Value,
    ty: &Type,
    out: &mut BytesMut,
) -> Result<IsNull, Misfit> {
    let ty = base(ty);
    let done = match value {
        Value::Null => return Ok(IsNull::Yes),
        Value::Json(text) => return encode_json(text, ty, out),
        Value::Bytes(bytes) if *ty == Type::BYTEA => put(out, bytes),
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
        Value::Bool(b) if *ty == Type::BOOL => put(out, &[(*b).into()]),
        Value::Bool(_) => None,
        Value::Int(i) if is_plain_text(ty) => put(out, i.to_string().as_bytes()),
        Value::Int(i) => encode_number(&i.to_string(), ty, out),
        Value::Real(x) => match *ty {
            Type::FLOAT8 => put(out, &x.to_be_bytes()),
            Type::FLOAT4 => put(out, &(*x as f32).to_be_bytes()),
            Type::NUMERIC if x.is_finite() => encode_number(&float_text(*x), ty, out),
            _ => None,
        },
        Value::Text(text) => match *ty {
            Type::JSON | Type::JSONB => return encode_json(text, ty, out),
            Type::BOOL => match text.as_str() {
                "true" => put(out, &[1]),
                "false" => put(out, &[0]),
                _ => None,
            },
            _ => encode_number(text, ty, out).or_else(|| encode_string(text, ty, out)),
        },
    };
    done.map(|()| IsNull::No)
        .ok_or_else(|| Misfit::Given(wanted(ty)))
}

fn put(out: &mut BytesMut, bytes: &[u8]) -> Option<()> {
    out.extend_from_slice(bytes);
    Some(())
}

fn float_text(number: f64) -> String {
    let mut text = Vec::new();
    let _ = write_float(number, &mut text);
    String::from_utf8(text).unwrap_or_default()
}

/// As `encode`, for the text of a JSON value, which is kept to its JSON type.
pub(super) fn encode_json(text: &str, ty: &Type, out: &mut BytesMut) -> Result<IsNull, Misfit> {
    let ty = base(ty);
    let misfit = || {
        Misfit::Given(match text.starts_with('"') {
            true => wanted(ty),
            false => wanted_of_json(ty),
        })
    };
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
        (Some(b't' | b'f'), _) if *ty == Type::BOOL => put(out, &[(text == "true").into()]),
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
        Type::NUMERIC => number.write(out)?,
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
pub(in crate::database) fn sqlite_number(text: &str) -> Result<rusqlite::types::Value, String> {
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
        Type::UUID => out.extend_from_slice(&uuid::from(text)?),
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
        Type::INTERVAL => out.extend_from_slice(&interval::from(text)?),
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
