//! Canonical texts: one text for all values that the database calls equal. Tags are made of it.
//!
//! Promise: two values that `=` of their type calls equal have one canonical text. On Postgres
//! `larder_canonical` (sql/postgres/0007_canonical_text.sql) makes the same text of what a column
//! holds, so that a watched table names what a request has named. Values that are not equal have
//! two texts, except where only the database could tell them apart: then they share one, and an
//! invalidation of one reaches the entries of both.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::BytesMut;
use postgres::types::{IsNull, Type};

use super::error::DatabaseError;
use super::value::Value;
use super::wire;

/// The text of every value where equal values have no one text that larder could give.
const ANY: &str = "*";

/// How the values of one parameter or column become canonical texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Canonical {
    /// Values of this type of Postgres, by what larder writes for the value that it has read.
    Type(Type),
    /// citext: equal without regard to case, as this database has it.
    Caseless(Arc<Letters>),
    /// SQLite, where the column decides what is equal and a statement does not tell which column:
    /// numbers by their value, and other text without regard to ASCII case and to spaces at its
    /// end.
    Sqlite,
    /// One text for all values.
    Opaque,
}

/// What each letter is in lower case in one database; letters that stay as they are not listed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Letters(BTreeMap<char, String>);

impl Canonical {
    /// The canonical text of `value`. `None`: it is null, or no value of this type, so that no row
    /// can hold it.
    pub fn text(&self, value: &Value) -> Option<String> {
        match self {
            _ if *value == Value::Null => None,
            Canonical::Type(ty) => {
                let mut raw = BytesMut::new();
                match wire::encode(value, ty, &mut raw) {
                    Ok(IsNull::No) => wire::canonical(ty, &raw),
                    Ok(IsNull::Yes) | Err(_) => None,
                }
            }
            Canonical::Caseless(letters) => Some(letters.lower(&plain(value)?)),
            Canonical::Sqlite => Some(of_sqlite(&plain(value)?)),
            Canonical::Opaque => Some(ANY.to_owned()),
        }
    }

    /// The kind that `larder_kind` gives for a column of this type, as far as `larder_canonical`
    /// makes another text of it than of a text. Two places whose kinds differ may have two texts
    /// for one value.
    pub fn kind(&self) -> &str {
        match self {
            Canonical::Type(ty) => wire::canonical_kind(ty),
            Canonical::Caseless(_) => "citext",
            Canonical::Sqlite => "any",
            Canonical::Opaque => "opaque",
        }
    }
}

impl Letters {
    /// The lower case of `text`. The final sigma counts as the other one, since which of them
    /// stands in a text depends on its neighbours.
    fn lower(&self, text: &str) -> String {
        let mut lower = String::with_capacity(text.len());
        for letter in text.chars() {
            match self.0.get(&letter) {
                Some(other) => lower.push_str(other),
                None => lower.push(letter),
            }
        }
        lower.replace('ς', "σ")
    }
}

/// The letters of this database. `None`: it does not compare letter by letter, or its encoding is
/// not UTF-8.
pub(super) fn letters(
    client: &mut postgres::Client,
) -> Result<Option<Arc<Letters>>, DatabaseError> {
    if !client.query_one("SELECT larder_folds()", &[])?.try_get(0)? {
        return Ok(None);
    }
    // Beyond this no letter has a case. Surrogates are no letters.
    let sql = "SELECT chr(code), lower(chr(code)) FROM generate_series(1, 131071) AS code
               WHERE code NOT BETWEEN 55296 AND 57343 AND lower(chr(code)) <> chr(code)";
    let mut letters = BTreeMap::new();
    for row in client.query(sql, &[])? {
        let (letter, lower): (&str, &str) = (row.try_get(0)?, row.try_get(1)?);
        letters.extend(letter.chars().next().map(|c| (c, lower.to_owned())));
    }
    Ok(Some(Arc::new(Letters(letters))))
}

/// The text of a value without a type: that of a URL, or what a JSON value says.
fn plain(value: &Value) -> Option<String> {
    Some(match value {
        Value::Null | Value::Bytes(_) => return None,
        Value::Bool(yes) => yes.to_string(),
        Value::Int(number) => number.to_string(),
        Value::Real(number) => number.to_string(),
        Value::Text(text) => text.clone(),
        Value::Json(json) if json.starts_with('"') => serde_json::from_str(json).ok()?,
        Value::Json(json) => json.clone(),
    })
}

/// SQLite's NOCASE knows ASCII alone, its RTRIM spaces; true is 1 there, and a text that is
/// compared with a number is read as one where it is one.
fn of_sqlite(text: &str) -> String {
    match text {
        "true" => return "1".to_owned(),
        "false" => return "0".to_owned(),
        _ => {}
    }
    let number = text.trim_matches([' ', '\t', '\n', '\u{b}', '\u{c}', '\r']);
    // The parser would take words for the numbers that are none.
    let is_word = number.contains(|c: char| c.is_ascii_alphabetic() && !matches!(c, 'e' | 'E'));
    match number.parse::<f64>() {
        Ok(number) if !is_word => wire::canonical_float(number),
        _ => text.trim_end_matches(' ').to_ascii_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn on_sqlite_one_text_is_for_all_that_some_column_calls_equal() {
        let text = |text: &str| Canonical::Sqlite.text(&text.into()).unwrap();
        for (one, other) in [
            ("7", "07"),
            ("7", "7.0"),
            ("7", " 7"),
            ("7", "+7"),
            ("0.7e1", "7"),
            ("-0.0", "0"),
            ("1.50", "1.5"),
            ("9007199254740993", "9007199254740992"),
            ("Ada", "ada"),
            ("ada", "ada  "),
            ("true", "1"),
        ] {
            assert_eq!(text(one), text(other), "{one} {other}");
        }
        for (one, other) in [
            ("7", "8"),
            ("É", "é"),
            ("ada", " ada"),
            ("inf", "infinity"),
            ("a b", "ab"),
        ] {
            assert_ne!(text(one), text(other), "{one} {other}");
        }
        assert_eq!(text("1234567890"), "1234567890", "a person reads it");
        let json = |json: &str| Canonical::Sqlite.text(&Value::Json(json.to_owned()));
        assert_eq!(json("1.0"), Some("1".to_owned()));
        assert_eq!(json("\"Ada\""), Some("ada".to_owned()));
    }

    #[test]
    fn a_value_that_no_row_can_hold_has_none() {
        let text = |ty, text: &str| Canonical::Type(ty).text(&text.into());
        assert_eq!(text(Type::INT4, "x"), None);
        assert_eq!(text(Type::UUID, "6ba7"), None);
        assert_eq!(text(Type::TIMESTAMP, "2026-03-01T00:00:00Z"), None);
        assert_eq!(Canonical::Opaque.text(&Value::Null), None);
    }
}
