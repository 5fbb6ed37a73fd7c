//! The JSON body of a request, made from a template and the parameters of a resource.
//!
//! Promise: a parameter cannot leave its place. It becomes one JSON value, or a part of one text,
//! and the serialiser writes both. A place without a value takes its member or its element away,
//! and nothing else.

use std::borrow::Cow;

use serde::{Serialize, Serializer};
use serde_json::Value as Json;

use crate::template::{Part, Template};

/// A JSON value with places.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JsonTemplate {
    /// A number or a boolean, sent as it is.
    Literal(Json),
    /// A text. If it is one parameter and nothing else, it is the parameter's value with its type.
    Text(Template),
    /// An array.
    Array(Vec<JsonTemplate>),
    /// An object, its members in order. Their names have no places.
    Object(Vec<(String, JsonTemplate)>),
}

/// The value of a parameter, if it has one.
pub(super) type Lookup<'l> = dyn Fn(&str) -> Option<&'l Json> + 'l;

impl JsonTemplate {
    /// All its texts, in order.
    pub(super) fn templates(&self) -> Vec<&Template> {
        match self {
            JsonTemplate::Literal(_) => Vec::new(),
            JsonTemplate::Text(text) => vec![text],
            JsonTemplate::Array(items) => items.iter().flat_map(JsonTemplate::templates).collect(),
            JsonTemplate::Object(members) => {
                let values = members.iter().map(|(_, value)| value);
                values.flat_map(JsonTemplate::templates).collect()
            }
        }
    }

    /// The body with these values.
    ///
    /// # Errors
    /// None that is known: nothing in a template is without a JSON form.
    pub(super) fn fill<'f>(&'f self, value: &'f Lookup<'f>) -> serde_json::Result<Vec<u8>> {
        serde_json::to_vec(&Filled {
            template: self,
            value,
        })
    }

    /// Whether each of its own places has a value.
    fn is_present(&self, value: &Lookup<'_>) -> bool {
        match self {
            JsonTemplate::Text(text) => text.params().all(|name| value(name).is_some()),
            JsonTemplate::Literal(_) | JsonTemplate::Array(_) | JsonTemplate::Object(_) => true,
        }
    }
}

/// A template with the values for its places.
struct Filled<'f> {
    template: &'f JsonTemplate,
    value: &'f Lookup<'f>,
}

impl Serialize for Filled<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let value = self.value;
        let filled = |template| Filled { template, value };
        match self.template {
            JsonTemplate::Literal(literal) => literal.serialize(serializer),
            JsonTemplate::Text(text) => match text.parts() {
                [Part::Param(name)] => value(name).serialize(serializer),
                parts => serializer.serialize_str(&joined(parts, value)),
            },
            JsonTemplate::Array(items) => {
                let present = items.iter().filter(|item| item.is_present(value));
                serializer.collect_seq(present.map(filled))
            }
            JsonTemplate::Object(members) => {
                let present = members
                    .iter()
                    .filter(|(_, member)| member.is_present(value));
                serializer.collect_map(present.map(|(name, member)| (name, filled(member))))
            }
        }
    }
}

/// The parts as one text.
fn joined(parts: &[Part], value: &Lookup<'_>) -> String {
    let mut joined = String::new();
    for part in parts {
        match part {
            Part::Text(text) => joined.push_str(text),
            Part::Filled(_, secret) => joined.push_str(secret.reveal()),
            Part::Param(name) => joined.push_str(&value(name).map_or("".into(), text)),
        }
    }
    joined
}

/// The text of a parameter's value, as a URL, a header or a longer text has it.
pub(super) fn text(value: &Json) -> Cow<'_, str> {
    match value {
        Json::String(text) => text.into(),
        other => other.to_string().into(),
    }
}
