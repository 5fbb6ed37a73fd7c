//! Columns of Postgres as JSON, decoded from their binary format.

use ::uuid::Uuid;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use postgres::types::{Kind, Type};

use super::misfit::Misfit;
use super::pg_type::{MAX_DIMENSIONS, base, is_text, type_name};
use super::reader::Reader;
use super::{calendar, interval, network, numeric};

/// Appends a column's value as JSON; `None` is NULL. Errors with [`Misfit::Column`].
pub(in crate::database) fn write_json(
    ty: &Type,
    raw: Option<&[u8]>,
    out: &mut Vec<u8>,
) -> Result<(), Misfit> {
    let Some(raw) = raw else {
        out.extend_from_slice(b"null");
        return Ok(());
    };
    let mut reader = Reader(raw);
    match write_value(base(ty), &mut reader, out) {
        Some(()) if reader.0.is_empty() => Ok(()),
        _ => Err(Misfit::Column(format!(
            "its value is not a valid {}",
            type_name(ty)
        ))),
    }
}

/// `None` if these are not the bytes of a value of this type.
fn write_value(ty: &Type, raw: &mut Reader<'_>, out: &mut Vec<u8>) -> Option<()> {
    if let Kind::Array(element) = ty.kind() {
        return write_array(element, raw, out);
    }
    let text = match *ty {
        Type::BOOL => return json(&(raw.u8()? != 0), out),
        Type::INT2 => return json(&raw.i16()?, out),
        Type::INT4 => return json(&raw.i32()?, out),
        Type::INT8 => return json(&raw.i64()?, out),
        Type::OID => return json(&raw.array().map(u32::from_be_bytes)?, out),
        Type::FLOAT4 => {
            let number = raw.array().map(f32::from_be_bytes)?;
            // As an f64 it would have more digits: 0.1 would be 0.10000000149011612.
            return match number.is_finite() {
                true => json(&number, out),
                false => write_float(number.into(), out),
            };
        }
        Type::FLOAT8 => return write_float(raw.array().map(f64::from_be_bytes)?, out),
        Type::NUMERIC => return numeric::decode(raw, out),
        Type::JSON => {
            out.extend_from_slice(raw.rest());
            return Some(());
        }
        // The first byte is the version of the format.
        Type::JSONB if raw.u8()? == 1 => {
            out.extend_from_slice(raw.rest());
            return Some(());
        }
        Type::VOID => {
            raw.rest();
            out.extend_from_slice(b"null");
            return Some(());
        }
        Type::BYTEA => return write_base64(raw.rest(), out),
        // One byte, printed as Postgres does. Zero is the empty text.
        Type::CHAR => match raw.u8()? {
            0 => String::new(),
            byte @ ..0x80 => char::from(byte).to_string(),
            byte => format!("\\{byte:03o}"),
        },
        Type::UUID => Uuid::from_bytes(raw.array()?).to_string(),
        Type::DATE => calendar::decode_date(raw)?,
        Type::TIME => calendar::decode_time(raw)?,
        Type::TIMETZ => calendar::decode_time_with_offset(raw)?,
        Type::TIMESTAMP => calendar::decode_timestamp(raw, "")?,
        Type::TIMESTAMPTZ => calendar::decode_timestamp(raw, "Z")?,
        Type::INTERVAL => interval::decode(raw)?,
        Type::INET | Type::CIDR => network::decode_inet(raw)?,
        Type::MACADDR => network::decode_mac(raw, 6)?,
        Type::MACADDR8 => network::decode_mac(raw, 8)?,
        Type::BIT | Type::VARBIT => network::decode_bits(raw)?,
        _ if is_text(ty) => return json(std::str::from_utf8(raw.rest()).ok()?, out),
        _ => return None,
    };
    json(text.as_str(), out)
}

/// Appends an array with elements of this type, nested once per dimension.
fn write_array(element: &Type, raw: &mut Reader<'_>, out: &mut Vec<u8>) -> Option<()> {
    let dimensions = usize::try_from(raw.i32()?).ok()?;
    let (_has_null, _oid) = (raw.i32()?, raw.i32()?);
    if dimensions > MAX_DIMENSIONS {
        return None;
    }
    let mut lengths = [0; MAX_DIMENSIONS];
    for length in &mut lengths[..dimensions] {
        *length = usize::try_from(raw.i32()?)
            .ok()
            .filter(|length| *length > 0)?;
        let _lower_bound = raw.i32()?;
    }
    if dimensions == 0 {
        out.extend_from_slice(b"[]");
        return Some(());
    }
    write_dimension(element, &lengths[..dimensions], raw, out)
}

fn write_dimension(
    element: &Type,
    lengths: &[usize],
    raw: &mut Reader<'_>,
    out: &mut Vec<u8>,
) -> Option<()> {
    let (length, inner) = lengths.split_first()?;
    out.push(b'[');
    for at in 0..*length {
        if at > 0 {
            out.push(b',');
        }
        if inner.is_empty() {
            // A negative length stands for NULL.
            let bytes = match usize::try_from(raw.i32()?) {
                Ok(length) => Some(raw.take(length)?),
                Err(_) => None,
            };
            write_json(element, bytes, out).ok()?;
        } else {
            write_dimension(element, inner, raw, out)?;
        }
    }
    out.push(b']');
    Some(())
}

/// Appends the shortest text that reads back as the same number. NaN and the infinities become
/// strings.
pub(in crate::database) fn write_float(number: f64, out: &mut Vec<u8>) -> Option<()> {
    match special_float(number) {
        Some(name) => json(name, out),
        None => json(&number, out),
    }
}

/// Postgres's name for NaN or an infinity; `None` for every other number.
pub(super) fn special_float(number: f64) -> Option<&'static str> {
    match number {
        f64::INFINITY => Some("Infinity"),
        f64::NEG_INFINITY => Some("-Infinity"),
        _ if number.is_nan() => Some("NaN"),
        _ => None,
    }
}

/// Appends bytes as a string of base64, in the standard alphabet and padded.
pub(in crate::database) fn write_base64(bytes: &[u8], out: &mut Vec<u8>) -> Option<()> {
    json(BASE64.encode(bytes).as_str(), out)
}

fn json<T: serde::Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) -> Option<()> {
    serde_json::to_writer(out, value).ok()
}
