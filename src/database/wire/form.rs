//! The JSON form of each type of Postgres: what `decode.rs` writes, as a schema can say it.

use postgres::types::{Kind, Type};

use super::pg_type::base;
use crate::database::json_form::JsonForm;

/// What the values of a supported type are in JSON.
pub(in crate::database) fn json_form(ty: &Type) -> JsonForm {
    let ty = base(ty);
    match ty.kind() {
        Kind::Array(element) => return JsonForm::Array(Box::new(json_form(element))),
        Kind::Enum(labels) => return JsonForm::OneOf(labels.clone()),
        _ => {}
    }
    let integer = |min: i64, max: i64| JsonForm::Integer { min, max };
    let text = |format: &'static str| JsonForm::Text {
        format: Some(format),
    };
    match *ty {
        Type::VOID => JsonForm::Null,
        Type::BOOL => JsonForm::Boolean,
        Type::INT2 => integer(i16::MIN.into(), i16::MAX.into()),
        Type::INT4 => integer(i32::MIN.into(), i32::MAX.into()),
        Type::INT8 => integer(i64::MIN, i64::MAX),
        Type::OID => integer(0, u32::MAX.into()),
        Type::FLOAT4 | Type::FLOAT8 => JsonForm::Number { exact: false },
        Type::NUMERIC => JsonForm::Number { exact: true },
        Type::JSON => JsonForm::Any,
        Type::JSONB => JsonForm::AnyWithoutNul,
        Type::BYTEA => JsonForm::Base64,
        Type::UUID => text("uuid"),
        Type::DATE => text("date"),
        Type::TIME => text("time-local"),
        Type::TIMETZ => text("time"),
        Type::TIMESTAMP => text("date-time-local"),
        Type::TIMESTAMPTZ => text("date-time"),
        Type::INTERVAL => text("duration"),
        _ => JsonForm::Text { format: None },
    }
}
