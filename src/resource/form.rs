//! How the database takes the values of a statement: which spellings of a parameter are one key,
//! and which values have one tag.
//!
//! Two things are kept apart. A *form* makes one spelling of several that mean the very same value:
//! a UUID in capitals, a whole number with zeros before it. Keys are made of it, and the statement
//! is given it. A *canonical text* is one for all values that the database calls equal, though they
//! may differ: 1.50 and 1.5, or `Ada` and `ada` where a column is citext. Tags are made of it, so
//! that whatever changes a row reaches every entry that was made of it, and entries of values that
//! differ are never mixed up.

use std::collections::HashMap;

use crate::database::{Canonical, Description, parse_uuid};

/// The one spelling of a value that has several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// A UUID.
    Uuid,
    /// A whole number.
    Integer,
}

/// How the database takes one parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Taken {
    /// The spelling that stands in keys; `None`: each as it came.
    pub(super) form: Option<Form>,
    /// The text that stands in tags.
    pub(super) canonical: Canonical,
}

/// How the database takes the parameters of one statement, and the canonical texts of its columns;
/// by name.
#[derive(Clone, Debug, Default)]
pub(super) struct Texts {
    pub(super) parameters: HashMap<String, Taken>,
    pub(super) columns: HashMap<String, Canonical>,
}

impl Form {
    /// The form that goes with a type, by the database's name for it.
    fn of_type(name: &str) -> Option<Form> {
        match name {
            "uuid" => Some(Form::Uuid),
            "int2" | "int4" | "int8" => Some(Form::Integer),
            _ => None,
        }
    }

    /// The one way of writing `text`; `None` where that is how it is written, or it is nothing of this form. Allocates nothing for
    /// what is plainly written so, as nearly all are.
    pub(super) fn canonical(self, text: &str) -> Option<String> {
        if self.is_plain(text) {
            return None;
        }
        self.written(text).filter(|written| written != text)
    }

    /// Whether `text` is seen to be canonical at a glance. Some that are have to be looked at more closely.
    fn is_plain(self, text: &str) -> bool {
        let mut bytes = text.bytes();
        match self {
            Form::Uuid => {
                text.len() == 36
                    && bytes.enumerate().all(|(at, byte)| match at {
                        8 | 13 | 18 | 23 => byte == b'-',
                        _ => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
                    })
            }
            // So few digits are within an i64.
            Form::Integer => {
                matches!(bytes.next(), Some(b'1'..=b'9'))
                    && text.len() <= 18
                    && bytes.all(|byte| byte.is_ascii_digit())
            }
        }
    }

    fn written(self, text: &str) -> Option<String> {
        match self {
            Form::Uuid => parse_uuid(text).map(|uuid| uuid.to_string()),
            Form::Integer => integer(text),
        }
    }
}

/// How the database takes the values of a statement.
pub(super) fn of_statement(description: &Description) -> Texts {
    let parameters = description.parameters.iter();
    let taken = |((name, kind), canonical): (&(String, String), &Canonical)| {
        let form = Form::of_type(kind);
        let canonical = canonical.clone();
        (name.clone(), Taken { form, canonical })
    };
    let columns = description.columns.iter().cloned();
    Texts {
        parameters: parameters
            .zip(&description.parameter_texts)
            .map(taken)
            .collect(),
        columns: columns
            .zip(description.column_texts.iter().cloned())
            .collect(),
    }
}

/// Also of a number with a fraction of nothing but zeros, or with an exponent: `7.0` and `7e0` are 7 in JSON.
fn integer(text: &str) -> Option<String> {
    if let Ok(number) = text.trim().parse::<i64>() {
        return Some(number.to_string());
    }
    let number: f64 = text.trim().parse().ok()?;
    // Up to 2^53 an f64 has every whole number.
    let whole = number.fract() == 0.0 && number.abs() <= 9_007_199_254_740_992.0;
    whole.then(|| format!("{}", number as i64))
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
            for form in [Form::Uuid, Form::Integer] {
                if form.is_plain(&text) {
                    prop_assert_eq!(form.written(&text), Some(text.clone()));
                }
            }
        }
    }

    #[test]
    fn most_are_plain() {
        for (form, text) in [
            (Form::Uuid, "6ba7b810-9dad-11d1-80b4-00c04fd430c8"),
            (Form::Integer, "7"),
            (Form::Integer, "999999999999999999"),
        ] {
            assert!(form.is_plain(text), "{text}");
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
            let written = Form::Uuid.canonical(spelling);
            assert_eq!(written.as_deref().unwrap_or(spelling), small);
        }
        for spelling in ["7", "07", "+7", " 7", "7.0", "7e0", "0.7e1"] {
            let written = Form::Integer.canonical(spelling);
            assert_eq!(written.as_deref().unwrap_or(spelling), "7", "{spelling}");
        }
        for (form, text) in [
            (Form::Uuid, "6ba7b810"),
            (Form::Uuid, "é"),
            (Form::Integer, "7.5"),
            (Form::Integer, "x"),
            (Form::Integer, "1e400"),
            (Form::Integer, "9223372036854775807"),
        ] {
            assert_eq!(form.canonical(text), None, "{text}");
        }
    }
}
