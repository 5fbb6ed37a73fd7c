//! What a write is given: parameters of the path and the query, and fields of the body, together as the statement wants them.
//!
//! A parameter of the path has the value of the path. Any other parameter of the statement takes
//! the field of the body with its name. If the body has none, it takes the query parameter of that
//! name, such as the filter of the list to which a POST adds.
//!
//! Promise: a field that the statement does not name, or that is not within what is declared, is refused by its name before the
//! database is asked. Numbers keep their digits.

use std::collections::{BTreeMap, HashMap};

use regex_lite::Regex;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::database::{self, Canonical};

use super::Resource;
use super::parameter::Arguments;
use super::settings::{FieldSettings, ParamKind, ParamValue};
use super::write::{Write, WriteError};

/// What a write is done with: every parameter of the statement.
pub struct Given {
    /// Of the path and the query, by name.
    values: Vec<(String, ParamValue)>,
    /// Those of the statement, in its order.
    pub(super) parameters: Vec<database::SqlValue>,
    /// All of them and the fields of the body, as they stand in a tag, by name.
    texts: HashMap<String, String>,
    /// Their canonical texts, where those are others.
    canonical: HashMap<String, String>,
}

impl Write {
    /// Whether its statement takes anything from the body.
    pub fn takes_body(&self, resource: &Resource) -> bool {
        self.body_fields(resource).next().is_some()
    }

    /// Whether its statement takes something that the body alone can say.
    pub fn needs_body(&self, resource: &Resource) -> bool {
        let of_query = |name: &str| resource.key_params.iter().any(|p| p.settings.name == name);
        self.body_fields(resource).any(|name| !of_query(name))
    }

    /// The parameters of the statement that are none of the path's.
    fn body_fields<'w>(&'w self, resource: &'w Resource) -> impl Iterator<Item = &'w String> {
        let parameters = self.settings.query.parameters().iter();
        parameters.filter(|name| !resource.settings.has_in_path(name))
    }

    /// Whether the database calls both values of the parameter `name` equal, by their type alone: 7
    /// in a body is `/rows/7` where a string of the path is compared with a number. Texts that
    /// differ in case or spaces are not equal here, since it is the path's that would be written.
    fn is_equal(
        &self,
        resource: &Resource,
        name: &str,
        of_path: &ParamValue,
        raw: &RawValue,
    ) -> bool {
        let taken = self.texts.parameters.get(name);
        let canonical = resource
            .canonical(name)
            .or(taken.map(|taken| &taken.canonical));
        let canonical = canonical.filter(|canonical| match canonical {
            Canonical::Type(_) => true,
            Canonical::Sqlite => !raw.get().starts_with('"'),
            Canonical::Caseless(_) | Canonical::Opaque => false,
        });
        canonical.is_some_and(|canonical| {
            let text = canonical.text(&raw.into());
            text.is_some() && text == canonical.text(&of_path.into())
        })
    }

    /// Takes together what the path, the query and the body say. What the statement names and none
    /// of them says is null.
    ///
    /// # Errors
    /// [`WriteError::Parameter`] or [`WriteError::Field`]: what does not fit first.
    pub fn given(
        &self,
        resource: &Resource,
        arguments: Arguments<'_>,
        body: &BTreeMap<String, Box<RawValue>>,
    ) -> Result<Given, WriteError> {
        let known: Vec<&String> = self.body_fields(resource).collect();
        let values = resource
            .values_for(arguments, &|name| known.iter().any(|known| *known == name))
            .map_err(WriteError::Parameter)?;
        let read: BTreeMap<&String, Value> =
            body.iter().map(|(name, raw)| (name, read(raw))).collect();
        for (name, value) in &read {
            let name = *name;
            let of_path = values.iter().find(|(known, _)| known == name);
            if let Some((_, of_path)) = of_path.filter(|_| resource.settings.has_in_path(name)) {
                // What a client read it may send back as it is.
                if !is_same(of_path, value) && !self.is_equal(resource, name, of_path, &body[name])
                {
                    return Err(WriteError::Field {
                        field: name.clone(),
                        valid: format!("{of_path}, as in the path, or left out"),
                    });
                }
            } else if !known.contains(&name) {
                return Err(WriteError::Field {
                    field: name.clone(),
                    valid: match known.as_slice() {
                        [] => "a body without fields".to_owned(),
                        some => {
                            let names: Vec<&str> = some.iter().map(|name| name.as_str()).collect();
                            format!("the fields are {}", names.join(", "))
                        }
                    },
                });
            }
        }
        for (field, pattern) in &self.fields {
            field.judge(pattern.as_ref(), read.get(&field.name))?;
        }
        let is_field = |name: &str| body.contains_key(name) && !resource.settings.has_in_path(name);
        let parameter = |name: &String| {
            let argument = values.iter().find(|(known, _)| known == name);
            match (body.get(name).filter(|_| is_field(name)), argument) {
                (Some(raw), _) => (&**raw).into(),
                (None, Some((_, value))) => value.into(),
                (None, None) => database::SqlValue::Null,
            }
        };
        let text = |(name, value): (&&String, &Value)| {
            let text = match value {
                Value::String(text) => text.clone(),
                Value::Number(_) | Value::Bool(_) => body.get(*name)?.get().to_owned(),
                _ => return None,
            };
            // As it will be read back: 7.0 in a place of whole numbers is 7.
            let taken = self.texts.parameters.get(*name);
            let form = taken.and_then(|taken| taken.form);
            let written = form.and_then(|form| form.canonical(&text));
            Some(((*name).clone(), written.unwrap_or(text)))
        };
        let mut texts: HashMap<String, String> = read.iter().filter_map(text).collect();
        let canonical = body.iter().filter_map(|(name, raw)| {
            let canonical = &self.texts.parameters.get(name)?.canonical;
            Some((name.clone(), canonical.text(&(&**raw).into())?))
        });
        let mut canonical: HashMap<String, String> = canonical.collect();
        // Behind the fields: where the body repeats the path, the path's text is the one in the key.
        let arguments = values.iter().filter(|(name, _)| !is_field(name));
        texts.extend(
            arguments
                .clone()
                .map(|(name, value)| ((*name).to_owned(), value.to_string())),
        );
        canonical.extend(arguments.filter_map(|(name, _)| {
            Some(((*name).to_owned(), resource.canonical_of(&values, name)?))
        }));
        Ok(Given {
            parameters: self
                .settings
                .query
                .parameters()
                .iter()
                .map(parameter)
                .collect(),
            texts,
            canonical,
            values: values
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .collect(),
        })
    }
}

impl Given {
    pub(super) fn values(&self) -> Vec<(&str, ParamValue)> {
        let values = self.values.iter();
        values
            .map(|(name, value)| (name.as_str(), value.clone()))
            .collect()
    }

    /// How the parameter or field of this name stands in a tag.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        self.texts.get(name).cloned()
    }

    /// Its canonical text; its own where it has none.
    pub(super) fn canonical(&self, name: &str) -> Option<String> {
        let canonical = self.canonical.get(name).or_else(|| self.texts.get(name));
        canonical.cloned()
    }
}

impl FieldSettings {
    fn judge(&self, pattern: Option<&Regex>, value: Option<&Value>) -> Result<(), WriteError> {
        let fits = match (value, &self.kind) {
            (None | Some(Value::Null), _) => !self.required,
            (Some(Value::String(text)), ParamKind::Text { .. }) => self.kind.takes(text, pattern),
            (Some(Value::Number(number)), ParamKind::Integer { min, max }) => {
                number.as_i64().is_some_and(|n| (*min..=*max).contains(&n))
            }
            (Some(Value::Bool(_)), ParamKind::Boolean) => true,
            _ => false,
        };
        if fits {
            return Ok(());
        }
        Err(WriteError::Field {
            field: self.name.clone(),
            valid: self.kind.to_string(),
        })
    }
}

/// What a field says, its digits aside.
fn read(raw: &RawValue) -> Value {
    // It was read as JSON once already.
    serde_json::from_str(raw.get()).unwrap_or_default()
}

/// Whether a field of the body says what the path says.
fn is_same(of_path: &ParamValue, value: &Value) -> bool {
    match (of_path, value) {
        (ParamValue::Text(a), Value::String(b)) => a == b,
        (ParamValue::Integer(a), Value::Number(b)) => b.as_i64() == Some(*a),
        (ParamValue::Boolean(a), Value::Bool(b)) => a == b,
        _ => false,
    }
}
