//! A record of the log as one JSON object on one line.
//!
//! Promise: whatever a message has in it, its line is valid JSON, and no reader of lines sees two.
//! `timestamp`, `level`, `target` and `message` are always there and come first. The fields of the
//! record follow under their own names.

use jiff::Timestamp;
use log::Record;
use log::kv::{Error, Key, Value, VisitSource, VisitValue};
use serde_json::{Map, Value as Json};

/// The line of a record, with its line end.
pub(super) fn line(record: &Record<'_>) -> String {
    let mut members = Map::new();
    let mut add = |name: &str, text: String| members.insert(name.to_owned(), Json::String(text));
    // RFC 3339, in UTC, with milliseconds.
    add("timestamp", format!("{:.3}", Timestamp::now()));
    add("level", record.level().to_string());
    add("target", record.target().to_owned());
    add("message", record.args().to_string());
    // No member fails.
    let _ = record.key_values().visit(&mut Members(&mut members));
    let mut line = on_one_line(Json::Object(members).to_string());
    line.push('\n');
    line
}

/// The same JSON. What some readers take for the end of a line, or act on, is escaped: JSON asks
/// for that only below U+0020.
fn on_one_line(json: String) -> String {
    let is_odd = |c: char| matches!(c, '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}');
    if !json.contains(is_odd) {
        return json;
    }
    let mut line = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        if is_odd(c) {
            line.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            line.push(c);
        }
    }
    line
}

/// Adds the fields of a record. A field without a value is left out, and so is one whose name is
/// taken.
struct Members<'m>(&'m mut Map<String, Json>);

impl<'kvs> VisitSource<'kvs> for Members<'_> {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), Error> {
        let mut json = AsJson(Json::Null);
        value.visit(&mut json)?;
        if !json.0.is_null() && !self.0.contains_key(key.as_str()) {
            self.0.insert(key.as_str().to_owned(), json.0);
        }
        Ok(())
    }
}

/// A field's value: a number, `true` or `false` as such, all else as text.
struct AsJson(Json);

impl VisitValue<'_> for AsJson {
    fn visit_any(&mut self, value: Value<'_>) -> Result<(), Error> {
        self.0 = value.to_string().into();
        Ok(())
    }

    fn visit_null(&mut self) -> Result<(), Error> {
        Ok(())
    }

    fn visit_u64(&mut self, value: u64) -> Result<(), Error> {
        self.0 = value.into();
        Ok(())
    }

    fn visit_i64(&mut self, value: i64) -> Result<(), Error> {
        self.0 = value.into();
        Ok(())
    }

    fn visit_u128(&mut self, value: u128) -> Result<(), Error> {
        let small = u64::try_from(value).map(Json::from);
        self.0 = small.unwrap_or_else(|_| value.to_string().into());
        Ok(())
    }

    fn visit_f64(&mut self, value: f64) -> Result<(), Error> {
        self.0 = value.into();
        Ok(())
    }

    fn visit_bool(&mut self, value: bool) -> Result<(), Error> {
        self.0 = value.into();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use log::Level;

    #[test]
    fn fields_are_members_after_the_four_that_are_always_there() {
        let fields: [(&str, Value<'_>); 9] = [
            ("request_id", Value::from("r-1")),
            ("trace_id", Value::from_any(&())),
            ("status", Value::from(200)),
            ("took", Value::from(7_u128)),
            ("many", Value::from(u128::MAX)),
            ("share", Value::from(0.5)),
            ("below", Value::from(-1)),
            ("is", Value::from(true)),
            ("message", Value::from("another")),
        ];
        let record = Record::builder()
            .level(Level::Warn)
            .target("larder::x")
            .args(format_args!("what happened"))
            .key_values(&fields)
            .build();
        let line = line(&record);
        let json: Map<String, Json> = serde_json::from_str(&line).unwrap();
        let names: Vec<&str> = json.keys().map(String::as_str).collect();
        assert_eq!(
            names,
            [
                "timestamp",
                "level",
                "target",
                "message",
                "request_id",
                "status",
                "took",
                "many",
                "share",
                "below",
                "is"
            ]
        );
        assert_eq!(json["level"], "WARN");
        assert_eq!(json["target"], "larder::x");
        assert_eq!(json["message"], "what happened");
        assert_eq!((&json["status"], &json["took"]), (&200.into(), &7.into()));
        assert_eq!(json["many"], u128::MAX.to_string());
        assert_eq!(
            (&json["share"], &json["below"]),
            (&0.5.into(), &(-1).into())
        );
        assert_eq!(json["is"], true);
        let written = json["timestamp"].as_str().unwrap();
        assert_eq!(written.len(), "2026-01-02T03:04:05.678Z".len(), "{written}");
        assert!(
            written.ends_with('Z') && written.parse::<Timestamp>().is_ok(),
            "{written}"
        );
    }

    #[test]
    fn a_message_of_any_characters_is_one_line() {
        let all: String = (0..0x3000).filter_map(char::from_u32).collect();
        let line = line(&Record::builder().args(format_args!("{all}")).build());
        let body = line.strip_suffix('\n').unwrap();
        let is_odd = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
        assert!(!body.contains(is_odd));
        let json: Map<String, Json> = serde_json::from_str(body).unwrap();
        assert_eq!(json["message"], all);
    }
}
