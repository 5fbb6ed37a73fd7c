//! Canonical texts: one text for all values that the database treats as equal. Tags contain them.
//!
//! Promise: two values that are equal by `=` of their type have the same canonical text. On
//! Postgres `larder_canonical` (sql/postgres/0007_canonical_text.sql) makes the same text from a
//! column, so the trigger of a watched table and a request name the same tag. Values that are not
//! equal have different texts, unless only the database could tell them apart. Then they share a
//! text, and an invalidation of one reaches the entries of both.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::BytesMut;
use postgres::types::{IsNull, Type};

use super::error::DatabaseError;
use super::sql_value::SqlValue;
use super::wire;

/// The text of all values of a type without canonical texts.
const ANY: &str = "*";

/// How the values of one parameter or column become canonical texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Canonical {
    /// By the rules of this Postgres type.
    Type(Type),
    /// citext: equal without regard to case, by the collation of this database.
    Caseless(Arc<Letters>),
    /// SQLite, where the column decides what is equal, and a statement does not tell the column.
    /// Numbers by their value, other text without regard to ASCII case and trailing spaces.
    Sqlite,
    /// The same text for all values.
    Opaque,
}

/// The lower case of each letter in one database. Letters that are their own lower case are left
/// out.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Letters(BTreeMap<char, String>);

impl Canonical {
    /// The canonical text of `value`. `None` if no row can hold it: it is null, or not a value of
    /// this type.
    pub fn text(&self, value: &SqlValue) -> Option<String> {
        match self {
            _ if *value == SqlValue::Null => None,
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

    /// The rule that makes the texts, named as `larder_kind` names it in the database. Under
    /// different rules one value may have different texts.
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
    /// The lower case of `text`. A final sigma becomes the other sigma, because the choice between
    /// them depends on the neighbours.
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

/// The letters of this database. `None` if it does not compare letter by letter, or if its encoding
/// is not UTF-8.
pub(super) fn letters(
    client: &mut postgres::Client,
) -> Result<Option<Arc<Letters>>, DatabaseError> {
    if !client.query_one("SELECT larder_folds()", &[])?.try_get(0)? {
        return Ok(None);
    }
    // No letter beyond this range has a case. Surrogates are not letters.
    let sql = "SELECT chr(code), lower(chr(code)) FROM generate_series(1, 131071) AS code
               WHERE code NOT BETWEEN 55296 AND 57343 AND lower(chr(code)) <> chr(code)";
    let mut letters = BTreeMap::new();
    for row in client.query(sql, &[])? {
        let (letter, lower): (&str, &str) = (row.try_get(0)?, row.try_get(1)?);
        letters.extend(letter.chars().next().map(|c| (c, lower.to_owned())));
    }
    Ok(Some(Arc::new(Letters(letters))))
}

/// The text of a value of unknown type: that of a URL, or of a JSON value.
fn plain(value: &SqlValue) -> Option<String> {
    Some(match value {
        SqlValue::Null | SqlValue::Bytes(_) => return None,
        SqlValue::Bool(yes) => yes.to_string(),
        SqlValue::Int(number) => number.to_string(),
        SqlValue::Real(number) => number.to_string(),
        SqlValue::Text(text) => text.clone(),
        SqlValue::Json(json) if json.starts_with('"') => serde_json::from_str(json).ok()?,
        SqlValue::Json(json) => json.clone(),
    })
}

/// The text for SQLite. Its NOCASE ignores the case of ASCII only, its RTRIM trailing spaces. TRUE
/// is 1, and a text that is compared with a number is converted to one if possible.
fn of_sqlite(text: &str) -> String {
    match text {
        "true" => return "1".to_owned(),
        "false" => return "0".to_owned(),
        _ => {}
    }
    let number = text.trim_matches([' ', '\t', '\n', '\u{b}', '\u{c}', '\r']);
    // The parser of Rust reads words such as "inf" as numbers.
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
        let json = |json: &str| Canonical::Sqlite.text(&SqlValue::Json(json.to_owned()));
        assert_eq!(json("1.0"), Some("1".to_owned()));
        assert_eq!(json("\"Ada\""), Some("ada".to_owned()));
    }

    #[test]
    fn a_value_that_no_row_can_hold_has_none() {
        let text = |ty, text: &str| Canonical::Type(ty).text(&text.into());
        assert_eq!(text(Type::INT4, "x"), None);
        assert_eq!(text(Type::UUID, "6ba7"), None);
        assert_eq!(text(Type::TIMESTAMP, "2026-03-01T00:00:00Z"), None);
        assert_eq!(Canonical::Opaque.text(&SqlValue::Null), None);
    }
}
