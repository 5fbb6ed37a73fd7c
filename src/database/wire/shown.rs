//! Columns of Postgres as JSON, from their binary form.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use postgres::types::{Kind, Type};

use super::{
    Misfit, Reader, array, base, calendar, interval, is_text, network, numeric, type_name, uuid,
};

/// Writes what a column holds, NULL for `None`. Errors with [`Misfit::Found`].
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
        Type::UUID => uuid::text(raw.array()?),
        Type::DATE => calendar::date(raw)?,
        Type::TIME => calendar::time(raw)?,
        Type::TIMETZ => calendar::time_with_offset(raw)?,
        Type::TIMESTAMP => calendar::timestamp(raw, "")?,
        Type::TIMESTAMPTZ => calendar::timestamp(raw, "Z")?,
        Type::INTERVAL => interval::write(raw)?,
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
pub(in crate::database) fn write_float(number: f64, out: &mut Vec<u8>) -> Option<()> {
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
pub(in crate::database) fn write_base64(bytes: &[u8], out: &mut Vec<u8>) -> Option<()> {
    json(BASE64.encode(bytes).as_str(), out)
}

fn json<T: serde::Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) -> Option<()> {
    serde_json::to_writer(out, value).ok()
}
