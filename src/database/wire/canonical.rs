//! The canonical text of a value, made from its binary format. All values that `=` of their type
//! calls equal have one canonical text. sql/postgres/0007_canonical_text.sql makes the same texts.

use postgres::types::{Kind, Type};

use super::decode::{special_float, write_json};
use super::network;
use super::numeric::Decimal;
use super::pg_type::{base, is_text};
use super::reader::Reader;

/// The absolute values of the floats that are written as decimals: from here,
const SMALLEST_DECIMAL: f64 = 1e-6;
/// to below here.
const DECIMAL_LIMIT: f64 = 1e15;

/// The canonical text of a value of this type. `None` if these are not the bytes of one.
pub(in crate::database) fn canonical(ty: &Type, raw: &[u8]) -> Option<String> {
    let ty = base(ty);
    let mut reader = Reader(raw);
    Some(match *ty {
        Type::NUMERIC => {
            let text = json_text(ty, raw)?;
            Decimal::parse(&text).map_or(text, |number| number.plain())
        }
        Type::FLOAT4 => canonical_narrow(reader.array().map(f32::from_be_bytes)?),
        Type::FLOAT8 => canonical_float(reader.array().map(f64::from_be_bytes)?),
        // Trailing spaces are padding.
        Type::BPCHAR => json_text(ty, raw)?.trim_end_matches(' ').to_owned(),
        Type::INTERVAL => interval_length(&mut reader)?,
        Type::INET | Type::CIDR => network::canonical_inet(&mut reader)?,
        _ => json_text(ty, raw)?,
    })
}

/// The name of the rule that makes the canonical texts of this type. Types that share a rule have
/// the same text for the same value.
pub(in crate::database) fn canonical_kind(ty: &Type) -> &str {
    let ty = base(ty);
    match *ty {
        Type::INT2 | Type::INT4 | Type::INT8 | Type::OID | Type::NUMERIC => "number",
        Type::FLOAT4 | Type::FLOAT8 => "float",
        Type::INET | Type::CIDR => "address",
        _ if is_text(ty) => "text",
        _ => ty.name(),
    }
}

/// Whether larder has a canonical text for the values of this type.
pub(in crate::database) fn is_canonical(ty: &Type) -> bool {
    let ty = base(ty);
    let none = [Type::JSON, Type::JSONB, Type::XML, Type::VOID];
    !matches!(ty.kind(), Kind::Array(_)) && !none.contains(ty)
}

/// The value's JSON; of a string, its text.
fn json_text(ty: &Type, raw: &[u8]) -> Option<String> {
    let mut json = Vec::new();
    write_json(ty, Some(raw), &mut json).ok()?;
    if json.starts_with(b"\"") {
        return serde_json::from_slice(&json).ok();
    }
    String::from_utf8(json).ok()
}

/// A float as a decimal if fifteen digits hold it, else its bits. Not the shortest digits that hold
/// it: Postgres and larder choose these differently.
pub(in crate::database) fn canonical_float(number: f64) -> String {
    if let Some(name) = special_float(number) {
        return name.to_owned();
    }
    if number == 0.0 {
        return "0".to_owned();
    }
    decimal(format!("{number:.14e}"), number, |text| {
        text.parse().ok() == Some(number)
    })
    .unwrap_or_else(|| format!("0x{:016x}", number.to_bits()))
}

fn canonical_narrow(number: f32) -> String {
    let wide = f64::from(number);
    decimal(format!("{number:.5e}"), wide, |text| {
        text.parse().ok() == Some(number)
    })
    .unwrap_or_else(|| canonical_float(wide))
}

fn decimal(digits: String, number: f64, same: impl Fn(&str) -> bool) -> Option<String> {
    let plain = (SMALLEST_DECIMAL..DECIMAL_LIMIT).contains(&number.abs()) && same(&digits);
    plain.then(|| Decimal::parse(&digits).map(|number| number.plain()))?
}

/// The length by which Postgres compares intervals: a month has 30 days, a day 24 hours.
fn interval_length(raw: &mut Reader<'_>) -> Option<String> {
    let (micros, days, months) = (raw.i64()?, raw.i32()?, raw.i32()?);
    let days = i128::from(days) + i128::from(months) * 30;
    let micros = i128::from(micros) + days * 86_400_000_000;
    let seconds = Decimal::parse(&format!("{micros}e-6"))?.plain();
    Some(format!("PT{seconds}S"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_decimals_where_few_digits_hold_them() {
        for (number, text) in [
            (0.1, "0.1"),
            (-2.5, "-2.5"),
            (-0.0, "0"),
            (123_456_789_012_345.0, "123456789012345"),
            (0.000_001, "0.000001"),
            (1e15, "0x430c6bf526340000"),
            (1e-7, "0x3e7ad7f29abcaf48"),
            (f64::NAN, "NaN"),
            (f64::NEG_INFINITY, "-Infinity"),
        ] {
            assert_eq!(canonical_float(number), text);
        }
        for (number, text) in [
            (0.1_f32, "0.1"),
            (16_777_216.0, "16777216"),
            (1e30, "0x46293e5940000000"),
        ] {
            assert_eq!(canonical_narrow(number), text);
        }
    }

    #[test]
    fn an_interval_is_as_long_as_its_parts() {
        let of = |text: &str| canonical(&Type::INTERVAL, &super::super::interval::encode(text)?);
        for text in ["P1D", "PT24H", "PT86400S"] {
            assert_eq!(of(text).as_deref(), Some("PT86400S"), "{text}");
        }
        assert_eq!(of("P1M").as_deref(), Some("PT2592000S"));
        assert_eq!(of("P-1MT0.5S").as_deref(), Some("PT-2591999.5S"));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_survived(raw in proptest::collection::vec(proptest::num::u8::ANY, 0..24)) {
            for ty in [Type::NUMERIC, Type::FLOAT4, Type::FLOAT8, Type::INTERVAL, Type::INET, Type::BPCHAR, Type::JSONB] {
                let _ = canonical(&ty, &raw);
            }
        }
    }
}
