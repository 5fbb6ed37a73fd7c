//! The JSON of an answer with a list. Each item is read by itself, so an invalid item costs only
//! itself.

use std::borrow::Cow;
use std::collections::HashMap;

use serde_json::Value;
use serde_json::value::RawValue;

use super::article::text;

/// An object whose members are not parsed yet.
#[derive(Default)]
pub(super) struct Members<'a>(HashMap<String, &'a RawValue>);

/// The body as text, without a byte order mark. Bytes that are not UTF-8 become replacement
/// characters.
pub(super) fn body_text(body: &[u8]) -> Cow<'_, str> {
    let mark: &[u8] = b"\xef\xbb\xbf";
    String::from_utf8_lossy(body.strip_prefix(mark).unwrap_or(body))
}

impl<'a> Members<'a> {
    /// The members of the object `json`. None if it is not an object.
    pub(super) fn of(json: &'a str) -> Members<'a> {
        serde_json::from_str(json).map(Members).unwrap_or_default()
    }

    /// The members of the member `name`. None if it is not an object.
    pub(super) fn object(&self, name: &str) -> Members<'a> {
        self.0
            .get(name)
            .map_or_else(Members::default, |member| Members::of(member.get()))
    }

    /// The text of the member `name`. `None` if it is not a text, or blank.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        let value: Value = serde_json::from_str(self.0.get(name)?.get()).ok()?;
        text(Some(&value))
    }

    /// The valid items of the list `name`. `None` if it is not a list.
    pub(super) fn list(&self, name: &str) -> Option<impl Iterator<Item = Value> + use<'a>> {
        let items: Vec<&'a RawValue> = serde_json::from_str(self.0.get(name)?.get()).ok()?;
        let read = |item: &'a RawValue| serde_json::from_str(item.get()).ok();
        Some(items.into_iter().filter_map(read))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_that_cannot_be_read_costs_that_item() {
        let body = br#" {"n":1e400,"status":"ok","list":[1,"\ud800",{"a":1e400},"b",[[]],{"c":"\udc00\ud800"}],"o":{"m":" x "}} "#;
        for body in [body.to_vec(), [b"\xef\xbb\xbf", &body[..]].concat()] {
            let text = body_text(&body);
            let members = Members::of(&text);
            let list: Vec<Value> = members.list("list").unwrap().collect();
            assert_eq!(serde_json::json!(list), serde_json::json!([1, "b", [[]]]));
            assert_eq!(members.text("status").as_deref(), Some("ok"));
            assert_eq!(members.object("o").text("m").as_deref(), Some("x"));
            assert!(members.list("status").is_none() && members.list("none").is_none());
            assert_eq!(members.text("n"), None);
            assert_eq!(members.object("list").text("m"), None);
        }
    }

    #[test]
    fn one_that_is_nested_too_deep_or_is_no_text_costs_itself() {
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        let body = format!("{{\"list\":[1,{deep},2]}}");
        let items: Vec<Value> = Members::of(&body).list("list").unwrap().collect();
        assert_eq!(items, [1, 2]);
        let body = b"{\"list\":[\"caf\xe9\",\"b\"]}";
        let text = body_text(body);
        let items: Vec<Value> = Members::of(&text).list("list").unwrap().collect();
        assert_eq!(items, ["caf\u{fffd}", "b"]);
    }
}
