//! Arrays in Postgres's binary form: JSON arrays, one within the other for several dimensions.
//!
//! Refuses JSON whose inner arrays differ in length, which no Postgres array has. Where the elements are JSON themselves, arrays
//! within the outer one are elements.

use bytes::{BufMut, BytesMut};
use postgres::types::{IsNull, Type};
use serde_json::value::RawValue;

use super::given::encode_json;
use super::{Misfit, Reader, base, is_json, is_plain_text, write_json};

/// The dimensions that Postgres allows.
const MOST_DIMENSIONS: usize = 6;

/// Writes the array; `element` is the type of what it holds. `None`: these are not the bytes of one.
pub(super) fn write(element: &Type, raw: &mut Reader<'_>, out: &mut Vec<u8>) -> Option<()> {
    let dimensions = usize::try_from(raw.i32()?).ok()?;
    let (_has_null, _oid) = (raw.i32()?, raw.i32()?);
    if dimensions > MOST_DIMENSIONS {
        return None;
    }
    let mut lengths = [0; MOST_DIMENSIONS];
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
            // -1, or any other length below zero, is NULL.
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

/// Writes the JSON array `text` for Postgres. Errors with the first element that does not fit, or if the array itself does not.
pub(super) fn encode(
    text: &str,
    element: &Type,
    out: &mut BytesMut,
    misfit: impl Fn() -> Misfit,
) -> Result<IsNull, Misfit> {
    let mut lengths = Vec::new();
    let mut elements = BytesMut::new();
    collect(text, element, 0, &mut lengths, &mut elements, &misfit)?;
    // Without an element there are no dimensions.
    if lengths.contains(&0) {
        lengths.clear();
    }
    let int = |number: usize| i32::try_from(number).map_err(|_| misfit());
    out.put_i32(int(lengths.len())?);
    // Whether there is a NULL: Postgres finds that out for itself.
    out.put_i32(0);
    out.put_u32(element.oid());
    for length in lengths {
        out.put_i32(int(length)?);
        out.put_i32(1);
    }
    out.extend_from_slice(&elements);
    Ok(IsNull::No)
}

/// Goes through one array of dimension `depth`; `lengths` has those of the dimensions so far met.
fn collect(
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
        None if depth == MOST_DIMENSIONS || depth < lengths.len() => return Err(misfit()),
        None => lengths.push(parts.len()),
    }
    let nested = !is_json(element) && parts.first().is_some_and(|p| p.get().starts_with('['));
    for part in parts {
        if part.get().starts_with('[') && !is_json(element) {
            if !nested {
                return Err(misfit());
            }
            collect(part.get(), element, depth + 1, lengths, out, misfit)?;
            continue;
        }
        // An element beside an array, or on a level where others hold arrays.
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
