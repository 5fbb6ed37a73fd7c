//! How the database takes the values of a statement: which texts of a parameter share a key, and
//! which values share a tag.
//!
//! Two things are kept apart.
//!
//! - A canonical *spelling* is one of several texts that mean the very same value: a UUID in
//!   capitals, a whole number with leading zeros. Keys use it, and the statement receives it.
//! - A canonical *text* ([`Canonical`]) is shared by all values that the database calls equal, even
//!   if they differ: 1.50 and 1.5, or `Ada` and `ada` in a citext column. Tags use it, so a change
//!   to a row reaches every entry made from it, and entries of different values never mix.

use std::collections::HashMap;

use crate::database::{Canonical, Description, parse_uuid};

/// A type whose values have several spellings, one of them canonical.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spelling {
    /// A UUID.
    Uuid,
    /// A whole number.
    Integer,
}

/// How the database takes one parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ParamType {
    /// The spelling in keys. `None`: each text as it came.
    pub(super) spelling: Option<Spelling>,
    /// The text in tags.
    pub(super) canonical: Canonical,
}

/// How the database takes the parameters of one statement, and the canonical texts of its columns,
/// by name.
#[derive(Clone, Debug, Default)]
pub(super) struct StatementTypes {
    pub(super) parameters: HashMap<String, ParamType>,
    pub(super) columns: HashMap<String, Canonical>,
}

impl StatementTypes {
    pub(super) fn of(description: &Description) -> StatementTypes {
        let parameters = description.parameters.iter();
        let param_type = |((name, kind), canonical): (&(String, String), &Canonical)| {
            let spelling = Spelling::of_type(kind);
            let canonical = canonical.clone();
            (
                name.clone(),
                ParamType {
                    spelling,
                    canonical,
                },
            )
        };
        let columns = description.columns.iter().cloned();
        StatementTypes {
            parameters: parameters
                .zip(&description.parameter_texts)
                .map(param_type)
                .collect(),
            columns: columns
                .zip(description.column_texts.iter().cloned())
                .collect(),
        }
    }
}

impl Spelling {
    /// The spelling of a type, by the database's name of the type.
    fn of_type(name: &str) -> Option<Spelling> {
        match name {
            "uuid" => Some(Spelling::Uuid),
            "int2" | "int4" | "int8" => Some(Spelling::Integer),
            _ => None,
        }
    }

    /// The canonical spelling of `text`. `None` if it is canonical already, or not of this type.
    /// Allocates nothing for a plainly canonical text, as nearly all are.
    pub(super) fn canonical(self, text: &str) -> Option<String> {
        if self.is_plain(text) {
            return None;
        }
        self.of(text).filter(|canonical| canonical != text)
    }

    /// Whether `text` is canonical at a glance. Some canonical texts need a closer look.
    fn is_plain(self, text: &str) -> bool {
        let mut bytes = text.bytes();
        match self {
            Spelling::Uuid => {
                text.len() == 36
                    && bytes.enumerate().all(|(at, byte)| match at {
                        8 | 13 | 18 | 23 => byte == b'-',
                        _ => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
                    })
            }
            // An i64 holds any 18 digits.
            Spelling::Integer => {
                matches!(bytes.next(), Some(b'1'..=b'9'))
                    && text.len() <= 18
                    && bytes.all(|byte| byte.is_ascii_digit())
            }
        }
    }

    fn of(self, text: &str) -> Option<String> {
        match self {
            Spelling::Uuid => parse_uuid(text).map(|uuid| uuid.to_string()),
            Spelling::Integer => whole_number(text).map(|number| number.to_string()),
        }
    }
}

/// The whole number that `text` is, exactly. A fraction of zeros and an exponent are allowed: in
/// JSON, `7.0` and `7e0` are 7. `None`: it is none, or an i64 does not hold it.
pub(super) fn whole_number(text: &str) -> Option<i64> {
    let text = text.trim();
    if let Ok(number) = text.parse() {
        return Some(number);
    }
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (sign, mantissa) = match mantissa.as_bytes().first()? {
        b'-' => ("-", &mantissa[1..]),
        b'+' => ("", &mantissa[1..]),
        _ => ("", mantissa),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let significant = digits.trim_end_matches('0');
    if significant.trim_start_matches('0').is_empty() {
        return Some(0);
    }
    // Its value is `significant` followed by so many zeros.
    let dropped = i64::try_from(digits.len() - significant.len()).ok()?;
    let zeros = i64::from(exponent) + dropped - i64::try_from(fraction.len()).ok()?;
    let zeros = usize::try_from(zeros).ok().filter(|zeros| *zeros < 20)?;
    format!("{sign}{significant}{}", "0".repeat(zeros))
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_plain_is_canonical(
            text in "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9A-F-]{34,37}|[-+0]?[0-9]{0,20}",
        ) {
            for spelling in [Spelling::Uuid, Spelling::Integer] {
                if spelling.is_plain(&text) {
                    prop_assert_eq!(spelling.of(&text), Some(text.clone()));
                }
            }
        }
    }

    #[test]
    fn most_are_plain() {
        for (spelling, text) in [
            (Spelling::Uuid, "6ba7b810-9dad-11d1-80b4-00c04fd430c8"),
            (Spelling::Integer, "7"),
            (Spelling::Integer, "999999999999999999"),
        ] {
            assert!(spelling.is_plain(text), "{text}");
        }
    }

    #[test]
    fn each_value_has_one_way_of_being_written() {
        let small = "6ba7b810-9dad-11d1-80b4-00c04fd430c8";
        for spelling in [
            small,
            "6BA7B810-9DAD-11D1-80B4-00C04FD430C8",
            "6ba7b8109dad11d180b400c04fd430c8",
            "{6ba7b810-9dad-11d1-80b4-00c04fd430c8}",
        ] {
            let canonical = Spelling::Uuid.canonical(spelling);
            assert_eq!(canonical.as_deref().unwrap_or(spelling), small);
        }
        for spelling in ["7", "07", "+7", " 7", "7.0", "7e0", "0.7e1"] {
            let canonical = Spelling::Integer.canonical(spelling);
            assert_eq!(canonical.as_deref().unwrap_or(spelling), "7", "{spelling}");
        }
        for (spelling, text) in [
            (Spelling::Uuid, "6ba7b810"),
            (Spelling::Uuid, "é"),
            (Spelling::Integer, "7.5"),
            (Spelling::Integer, "x"),
            (Spelling::Integer, "1e400"),
            (Spelling::Integer, "9223372036854775807"),
        ] {
            assert_eq!(spelling.canonical(text), None, "{text}");
        }
    }

    #[test]
    fn a_whole_number_is_exact_or_none() {
        for (text, number) in [
            ("7", 7),
            ("-0", 0),
            ("-0.0e5", 0),
            ("0e999999999", 0),
            ("7.000", 7),
            ("0.07e2", 7),
            ("700E-2", 7),
            ("-1.5e1", -15),
            (".5e1", 5),
            ("9007199254740993", 9_007_199_254_740_993),
            ("9007199254740993.0", 9_007_199_254_740_993),
            ("900719925474099.3e1", 9_007_199_254_740_993),
            ("9223372036854775807.0", i64::MAX),
            ("-9223372036854775808e0", i64::MIN),
            ("1e18", 1_000_000_000_000_000_000),
        ] {
            assert_eq!(whole_number(text), Some(number), "{text}");
        }
        for text in [
            "",
            "-",
            "e1",
            ".",
            "x",
            "7x",
            "7.5",
            "1.00000000000000000001",
            "7e-1",
            "1e400",
            "1e99999999999",
            "1e-400",
            "9223372036854775808",
            "9223372036854775808.0",
            "1e19",
            "0x10",
            "1_0",
            "--7",
            "NaN",
            "inf",
        ] {
            assert_eq!(whole_number(text), None, "{text}");
        }
    }
}
