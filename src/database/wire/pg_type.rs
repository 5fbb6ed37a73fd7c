//! What larder knows about a type of Postgres: how it is stored, what it is called, what it takes.

use postgres::types::{Kind, Type};

/// The dimensions that an array of Postgres may have.
pub(super) const MAX_DIMENSIONS: usize = 6;

/// The type itself, or the type that a domain is defined over.
pub(in crate::database) fn base(ty: &Type) -> &Type {
    match ty.kind() {
        Kind::Domain(inner) => base(inner),
        _ => ty,
    }
}

/// Whether its binary format is its text.
pub(in crate::database) fn is_text(ty: &Type) -> bool {
    let plain = [Type::TEXT, Type::VARCHAR, Type::BPCHAR, Type::NAME];
    plain.contains(ty)
        || matches!(*ty, Type::UNKNOWN | Type::XML)
        || is_enum(ty)
        || ty.name() == "citext"
}

/// Whether its values are labels.
pub(in crate::database) fn is_enum(ty: &Type) -> bool {
    matches!(ty.kind(), Kind::Enum(_))
}

/// Whether it takes any string.
pub(super) fn is_plain_text(ty: &Type) -> bool {
    is_text(ty) && !is_enum(ty)
}

pub(super) fn is_json(ty: &Type) -> bool {
    matches!(*base(ty), Type::JSON | Type::JSONB)
}

/// Whether larder can decode columns and encode parameters of this type.
pub(in crate::database) fn is_supported(ty: &Type) -> bool {
    let ty = base(ty);
    match ty.kind() {
        Kind::Array(element) => is_supported(element),
        _ => is_enum(ty) || *ty == Type::VOID || takes(ty).is_some(),
    }
}

/// The type's name in SQL, such as `int4[]`.
pub(in crate::database) fn type_name(ty: &Type) -> String {
    match ty.kind() {
        Kind::Array(element) => format!("{}[]", element.name()),
        _ => ty.name().to_owned(),
    }
}

/// What a parameter of this type takes: the end of a sentence that begins with `must be`.
pub(in crate::database) fn expected(ty: &Type) -> String {
    let ty = base(ty);
    match ty.kind() {
        Kind::Array(element) if is_plain_text(base(element)) => "an array of strings".to_owned(),
        Kind::Array(element) => format!("an array, each element {}", expected(element)),
        Kind::Enum(labels) => format!("one of {}", labels.join(", ")),
        _ => match takes(ty) {
            Some(text) => text.to_owned(),
            None => format!("of type {}", type_name(ty)),
        },
    }
}

/// As [`expected`], for every supported type that is not an array, an enum or a domain. `None` for
/// any other type.
fn takes(ty: &Type) -> Option<&'static str> {
    Some(match *ty {
        Type::BOOL => "true or false",
        Type::INT2 => "a whole number from -32768 to 32767",
        Type::INT4 => "a whole number from -2147483648 to 2147483647",
        Type::INT8 => "a whole number from -9223372036854775808 to 9223372036854775807",
        Type::OID => "a whole number from 0 to 4294967295",
        Type::FLOAT4 => "a number that four bytes can hold",
        Type::FLOAT8 => "a number that eight bytes can hold",
        Type::NUMERIC => "a number",
        Type::UUID => "a UUID",
        Type::JSON => "JSON",
        Type::JSONB => "JSON without NUL characters",
        Type::BYTEA => "base64",
        Type::DATE => "a date such as 2026-03-01",
        Type::TIME => "a time such as 13:05:00",
        Type::TIMETZ => "a time with its offset such as 13:05:00+01:00",
        Type::TIMESTAMP => "a date and time such as 2026-03-01T13:05:00",
        Type::TIMESTAMPTZ => "a date and time with its offset such as 2026-03-01T13:05:00Z",
        Type::INTERVAL => "an ISO 8601 duration such as P1DT2H",
        Type::INET => "an IP address",
        Type::CIDR => "a network such as 10.0.0.0/8",
        Type::MACADDR | Type::MACADDR8 => "a MAC address",
        Type::BIT | Type::VARBIT => "zeros and ones",
        Type::CHAR => "one ASCII character",
        _ if is_plain_text(ty) => "text without NUL characters",
        _ => return None,
    })
}

/// As [`expected`], for a JSON value that is not a string.
pub(super) fn expected_in_json(ty: &Type) -> String {
    match base(ty) {
        ty if is_plain_text(ty) => "a string".to_owned(),
        &Type::BYTEA => "a string of base64".to_owned(),
        &Type::CHAR => "a string of one ASCII character".to_owned(),
        ty => expected(ty),
    }
}
