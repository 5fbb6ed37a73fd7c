//! Postgres's binary formats, both ways: columns become JSON, parameters become what their type
//! expects.
//!
//! Promise: decoding is exact. A `numeric` becomes a number with all its digits, a timestamp
//! RFC 3339, `json` itself, an array an array, and the rest text. JSON has no number for NaN and
//! the infinities, so these become strings. Encoding either yields exactly the value in the type
//! of its parameter, or an error that says what that type takes. No input bytes cause a panic.
//! Types without one natural JSON form (money, ranges, points, rows) are refused: a query has to
//! cast them.

mod calendar;
mod canonical;
mod decode;
mod encode;
mod form;
mod interval;
mod misfit;
mod network;
mod numeric;
mod pg_type;
mod reader;
mod uuid;

pub(super) use canonical::{canonical, canonical_float, canonical_kind, is_canonical};
pub(super) use decode::{write_base64, write_float, write_json};
pub(super) use encode::{encode, sqlite_number};
pub(super) use form::json_form;
pub(super) use misfit::Misfit;
pub(super) use pg_type::{base, expected, is_enum, is_supported, is_text, type_name};
pub(crate) use uuid::parse_uuid;
