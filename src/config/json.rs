//! JSON in the configuration: a TOML value stands for the JSON value of the same kind.
//!
//! TOML has no null. JSON has no dates, and no numbers that are infinite or not a number.

use serde_json::{Number, Value as Json};

use super::reader::{Setting, Shape};
use crate::source::JsonTemplate;
use crate::template::Template;

const LITERAL_FORM: &str = "a text without {name} and ${NAME}";
const NAME_FORM: &str = "a name without places: it is sent as it is";

/// The template that `value` is. `text` reads one of its texts. Reports all errors.
pub(super) fn template(
    value: &Setting<'_>,
    text: &dyn Fn(&Setting<'_>) -> Option<Template>,
) -> Option<JsonTemplate> {
    match value.shape()? {
        Shape::Text(_) => text(value).map(JsonTemplate::Text),
        Shape::Array(items) => {
            let items: Vec<_> = items.iter().map(|item| template(item, text)).collect();
            items
                .into_iter()
                .collect::<Option<_>>()
                .map(JsonTemplate::Array)
        }
        Shape::Table(table) => {
            let members = table.entries().into_iter().map(|(name, member)| {
                let is_plain = !has_place(name);
                if !is_plain {
                    member.fault("has a place in its name", NAME_FORM);
                }
                let member = template(&member, text).filter(|_| is_plain)?;
                Some((name.to_owned(), member))
            });
            let members: Vec<_> = members.collect();
            members
                .into_iter()
                .collect::<Option<_>>()
                .map(JsonTemplate::Object)
        }
        other => scalar(value, &other).map(JsonTemplate::Literal),
    }
}

/// The JSON value that `value` is, its texts as they are. Reports all errors.
pub(super) fn literal(value: &Setting<'_>) -> Option<Json> {
    match value.shape()? {
        Shape::Text(text) if has_place(text) => {
            value.fault("has a place, and is compared as it is", LITERAL_FORM);
            None
        }
        Shape::Text(text) => Some(Json::from(text)),
        Shape::Array(items) => {
            let items: Vec<_> = items.iter().map(literal).collect();
            items.into_iter().collect::<Option<_>>().map(Json::Array)
        }
        Shape::Table(table) => {
            let members = table.entries().into_iter();
            let members: Vec<_> = members
                .map(|(name, member)| Some((name.to_owned(), literal(&member)?)))
                .collect();
            members.into_iter().collect::<Option<_>>().map(Json::Object)
        }
        other => scalar(value, &other),
    }
}

/// The number or the boolean `value`, which has this shape. Reports what JSON has not.
fn scalar(value: &Setting<'_>, shape: &Shape<'_>) -> Option<Json> {
    let (found, valid) = match shape {
        Shape::Boolean(yes) => (Some(Json::from(*yes)), ""),
        Shape::Integer(digits, radix) => (
            integer(digits, *radix).map(Json::from),
            "a whole number from -9223372036854775808 to 18446744073709551615",
        ),
        Shape::Float(text) => {
            let number = text.parse().ok().and_then(Number::from_f64);
            (number.map(Json::Number), "a finite number, as JSON has it")
        }
        _ => (None, "a text such as \"2026-01-02\": JSON has no dates"),
    };
    value.or_wrong(found, valid)
}

fn integer(digits: &str, radix: u32) -> Option<Number> {
    let signed = i64::from_str_radix(digits, radix).map(Number::from);
    signed
        .or_else(|_| u64::from_str_radix(digits, radix).map(Number::from))
        .ok()
}

/// Whether a text has a `{name}` or a `${NAME}`, where somebody may expect a value. Other braces,
/// as in JSON, are no place.
pub(super) fn has_place(text: &str) -> bool {
    let mut opened = text.split('{').skip(1);
    opened.any(|rest| {
        let inside = rest.split_once('}').map_or("", |(inside, _)| inside);
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
        !inside.is_empty() && inside.chars().all(fits)
    })
}
