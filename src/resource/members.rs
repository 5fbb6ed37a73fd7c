//! The members of a JSON object, as the parameters of a read.
//!
//! Promise: a number keeps every digit, and a text is exactly what the JSON means. Two objects with
//! the same members are the same question, whatever their order, spaces and escapes.

use std::borrow::Cow;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The members of one object, in its order.
#[derive(Debug)]
pub struct Members<'b>(Vec<(Cow<'b, str>, Member<'b>)>);

/// The value of a member, as far as a parameter can have it.
#[derive(Debug)]
pub(super) enum Member<'b> {
    /// A text.
    Text(Cow<'b, str>),
    /// A number, as it is written.
    Number(&'b str),
    /// A boolean.
    Boolean(bool),
    /// What no parameter can be: null, an array, an object, a text with half a surrogate.
    Other,
}

/// A member occurs more than once.
#[derive(Debug)]
pub(super) struct Repeated;

impl<'b> Members<'b> {
    /// Reads an object. A member that occurs twice is an error of its parameter, not of the object.
    ///
    /// # Errors
    /// If `json` is not JSON, or not an object.
    pub fn parse(json: &'b [u8]) -> Result<Members<'b>, serde_json::Error> {
        serde_json::from_slice(json)
    }

    /// The value of the member `name`, if there is one.
    pub(super) fn find(&self, name: &str) -> Result<Option<&Member<'b>>, Repeated> {
        let mut named = self.0.iter().filter(|(known, _)| known == name);
        let found = named.next();
        match named.next() {
            None => Ok(found.map(|(_, value)| value)),
            Some(_) => Err(Repeated),
        }
    }

    /// The names of all members.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| &**name)
    }
}

impl<'b> Member<'b> {
    fn of(raw: &'b RawValue) -> Member<'b> {
        let raw = raw.get();
        match raw.as_bytes().first() {
            Some(b'"') => text(raw).map_or(Member::Other, Member::Text),
            Some(b'-' | b'0'..=b'9') => Member::Number(raw),
            Some(b't') => Member::Boolean(true),
            Some(b'f') => Member::Boolean(false),
            _ => Member::Other,
        }
    }
}

/// The text that a JSON string means. `None`: it has half a surrogate, which no text has.
fn text(raw: &str) -> Option<Cow<'_, str>> {
    if raw.contains('\\') {
        return serde_json::from_str(raw).ok().map(Cow::Owned);
    }
    raw.get(1..raw.len() - 1).map(Cow::Borrowed)
}

impl<'de: 'b, 'b> Deserialize<'de> for Members<'b> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Members<'b>, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some((name, value)) = map.next_entry::<&RawValue, &RawValue>()? {
                    // A name with half a surrogate is no parameter's. It is told as it is written.
                    let name = text(name.get()).unwrap_or(Cow::Borrowed(name.get()));
                    members.push((name, Member::of(value)));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(json: &str) -> Result<String, serde_json::Error> {
        let Members(members) = Members::parse(json.as_bytes())?;
        let shown = members
            .iter()
            .map(|(name, value)| format!("{name}: {value:?}"));
        Ok(shown.collect::<Vec<_>>().join(", "))
    }

    #[test]
    fn a_member_is_what_its_json_means() {
        for (json, expected) in [
            ("{}", ""),
            (r#" { "a" : "x" } "#, "a: Text(\"x\")"),
            (
                r#"{"\u0061":"\u0078\n\"\ud83d\ude00"}"#,
                "a: Text(\"x\\n\\\"😀\")",
            ),
            (
                r#"{"a":9007199254740993,"b":-1.50e+400}"#,
                "a: Number(\"9007199254740993\"), b: Number(\"-1.50e+400\")",
            ),
            (
                r#"{"a":true,"b":false}"#,
                "a: Boolean(true), b: Boolean(false)",
            ),
            (
                r#"{"a":null,"b":[{}],"c":{"d":1}}"#,
                "a: Other, b: Other, c: Other",
            ),
            (r#"{"a":"\ud800","b":"\udc00x"}"#, "a: Other, b: Other"),
            (r#"{"\ud800":1}"#, "\"\\ud800\": Number(\"1\")"),
            (r#"{"a":1,"a":2}"#, "a: Number(\"1\"), a: Number(\"2\")"),
            ("{\"a\":\"\u{7f}é\"}", "a: Text(\"\\u{7f}é\")"),
        ] {
            assert_eq!(shown(json).unwrap(), expected, "{json}");
        }
    }

    #[test]
    fn what_is_no_object_is_told_from_what_is_no_json() {
        for (json, is_json) in [
            ("[1]", true),
            ("7", true),
            ("null", true),
            ("\"x\"", true),
            ("", false),
            ("{\"a\":1", false),
            ("{\"a\":1}x", false),
            ("{\"a\":01}", false),
            ("{\"a\":'x'}", false),
            ("{a:1}", false),
            ("{\"a\":\"\n\"}", false),
            ("{\"a\":\"\\x\"}", false),
            ("{\"a\":NaN}", false),
            ("{\"a\":1,}", false),
        ] {
            let error = shown(json).unwrap_err();
            assert_eq!(error.is_data(), is_json, "{json}: {error}");
        }
        assert!(Members::parse(b"{\"a\":\"\xff\"}").is_err());
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(30_000), "]".repeat(30_000));
        assert_eq!(shown(&deep).unwrap(), "a: Other");
    }

    #[test]
    fn a_member_is_found_once() {
        let members = Members::parse(br#"{"a":1,"b":2,"\u0062":2}"#).unwrap();
        assert!(matches!(members.find("a"), Ok(Some(Member::Number("1")))));
        assert!(matches!(members.find("b"), Err(Repeated)));
        assert!(matches!(members.find("c"), Ok(None)));
        assert_eq!(members.names().collect::<Vec<_>>(), ["a", "b", "b"]);
    }
}
