//! JSON pointers: the part of a JSON text, as the bytes that were sent.
//!
//! Numbers and strings are not parsed and written again, so `1.0`, `1e400` and numbers of fifty
//! digits stay as they are, and members keep their order. If an object has a member twice, the last
//! one counts.

use std::fmt;

use serde::Deserializer;
use serde::de::{self, DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// A JSON pointer (RFC 6901).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pointer {
    text: String,
    tokens: Vec<String>,
}

/// Why a pointer leads to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Nothing {
    /// The array is shorter: the item does not exist.
    PastTheEnd,
    /// There is no such member, or its parent is not an object or array. The answer does not have
    /// the expected form.
    Missing,
}

impl Pointer {
    /// Parses a pointer. `None` if `text` is not one.
    pub(super) fn parse(text: &str) -> Option<Pointer> {
        let tokens = match text.strip_prefix('/') {
            Some(rest) => rest.split('/').map(unescape).collect::<Option<_>>()?,
            None if text.is_empty() => Vec::new(),
            None => return None,
        };
        Some(Pointer {
            text: text.to_owned(),
            tokens,
        })
    }

    /// The part of `json` that it points to. `json` must be valid JSON.
    pub(super) fn find<'j>(&self, json: &'j str) -> Result<&'j str, Nothing> {
        let mut at = json;
        for token in &self.tokens {
            // Valid JSON fails only on a name whose escapes are not valid UTF-16.
            at = serde_json::Deserializer::from_str(at)
                .deserialize_any(Step(token))
                .unwrap_or(Err(Nothing::Missing))?;
        }
        Ok(at)
    }
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn unescape(token: &str) -> Option<String> {
    let mut out = String::new();
    let mut chars = token.chars();
    while let Some(c) = chars.next() {
        out.push(match c {
            '~' => match chars.next()? {
                '0' => '~',
                '1' => '/',
                _ => return None,
            },
            c => c,
        });
    }
    Some(out)
}

/// One step into a value.
struct Step<'t>(&'t str);

impl Step<'_> {
    /// The token as an index of an array: no sign, no leading zeros.
    fn index(&self) -> Option<usize> {
        let digits = self.0.bytes().all(|byte| byte.is_ascii_digit());
        let canonical = self.0 == "0" || !self.0.starts_with('0');
        // A number that is too large for usize is past the end of any array.
        (digits && canonical && !self.0.is_empty()).then(|| self.0.parse().unwrap_or(usize::MAX))
    }
}

impl<'j> Visitor<'j> for Step<'_> {
    type Value = Result<&'j str, Nothing>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'j>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = Err(Nothing::Missing);
        while let Some(same) = map.next_key_seed(IsName(self.0))? {
            if same {
                found = Ok(map.next_value::<&RawValue>()?.get());
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }

    fn visit_seq<A: SeqAccess<'j>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let index = self.index();
        let mut found = Err(index.map_or(Nothing::Missing, |_| Nothing::PastTheEnd));
        let mut at = 0;
        while let Some(item) = items.next_element::<&RawValue>()? {
            if Some(at) == index {
                found = Ok(item.get());
            }
            at += 1;
        }
        Ok(found)
    }
}

/// Reads a member's name and says whether it is this one.
struct IsName<'t>(&'t str);

impl<'j> DeserializeSeed<'j> for IsName<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'j>>(self, name: D) -> Result<bool, D::Error> {
        name.deserialize_str(self)
    }
}

impl Visitor<'_> for IsName<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E: de::Error>(self, name: &str) -> Result<bool, E> {
        Ok(name == self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BODY: &str = r#" {"data": {"items": [1.0, {"a/b": "x", "m~n": 1e400}], "": null, "é": true},
        "big":12345678901234567890123, "twice":1, "twice":2, "na\u006de":"escaped"} "#;

    fn find(pointer: &str) -> Result<&'static str, Nothing> {
        Pointer::parse(pointer).unwrap().find(BODY.trim())
    }

    #[test]
    fn a_part_keeps_its_very_bytes() {
        for (pointer, part) in [
            ("/data/items/0", "1.0"),
            ("/data/items/1", r#"{"a/b": "x", "m~n": 1e400}"#),
            ("/data/items/1/a~1b", "\"x\""),
            ("/data/items/1/m~0n", "1e400"),
            ("/big", "12345678901234567890123"),
            ("/data/", "null"),
            ("/data/é", "true"),
            ("/twice", "2"),
            ("/name", "\"escaped\""),
            ("", BODY.trim()),
        ] {
            assert_eq!(find(pointer), Ok(part), "{pointer}");
        }
    }

    #[test]
    fn what_is_not_there_is_told_from_what_is_past_the_end() {
        for pointer in ["/data/items/2", "/data/items/99999999999999999999999"] {
            assert_eq!(find(pointer), Err(Nothing::PastTheEnd), "{pointer}");
        }
        for pointer in [
            "/nothing",
            "/data/items/-",
            "/data/items/00",
            "/data/items/x",
            "/data/items/",
            "/big/0",
            "/name/x",
            "/data//x",
        ] {
            assert_eq!(find(pointer), Err(Nothing::Missing), "{pointer}");
        }
    }

    #[test]
    fn a_pointer_is_one_or_it_is_refused() {
        for wrong in ["a", "data/x", "/~", "/~2", "#/a"] {
            assert_eq!(Pointer::parse(wrong), None, "{wrong}");
        }
        assert_eq!(Pointer::parse("/a~01").unwrap().tokens, ["a~1"]);
    }

    proptest! {
        #[test]
        fn points_where_serde_json_does(text in "[a-c/~01]{0,6}", keys in prop::collection::vec("[a-c/~01]{0,2}", 0..4)) {
            let value: serde_json::Value = keys.iter().map(|key| (key.clone(), serde_json::json!([{ key: 1 }]))).collect::<serde_json::Map<_, _>>().into();
            let text = format!("/{text}");
            if let Some(pointer) = Pointer::parse(&text) {
                let json = value.to_string();
                let expected = value.pointer(&text).map(ToString::to_string);
                prop_assert_eq!(pointer.find(&json).ok().map(str::to_owned), expected);
            }
        }
    }
}
