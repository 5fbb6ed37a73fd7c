//! What a write takes from a request: parameters of the path and the query, and fields of the body.
//!
//! A parameter of the path has the value of the path. Any other parameter of the statement takes
//! the field of the body with its name. If the body has none, it takes the query parameter of that
//! name, such as the filter of the list to which a POST adds.
//!
//! Promise: a field that the statement does not have, or that is not valid as declared, is refused
//! by its name before the database is asked. Numbers keep their digits.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use regex_lite::Regex;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::database::{self, Canonical, DatabaseError, Query};

use super::Resource;
use super::argument::{Arguments, BadParameter, ParamValue, Wrong};
use super::canonical::{Spelling, StatementTypes};
use super::settings::{FieldSettings, ParamKind, WriteSettings};
use super::values::value_of;
use super::write_error::WriteError;

/// What the statement of a write takes.
pub(super) struct InputReader {
    query: Arc<Query>,
    fields: Vec<Field>,
    types: StatementTypes,
}

/// The declaration of a field of the body.
struct Field {
    settings: FieldSettings,
    pattern: Option<Regex>,
}

/// The values of one write.
pub struct WriteInput {
    /// The parameters of the path and the query, by name.
    values: Vec<(String, ParamValue)>,
    /// The parameters that have their value from the path or the query.
    outside_body: HashSet<String>,
    /// The statement's parameters, in its order.
    pub(super) parameters: Vec<database::SqlValue>,
    /// The texts of all parameters and fields as they stand in a tag, by name.
    texts: HashMap<String, String>,
    /// Their canonical texts, where those are others.
    canonical: HashMap<String, String>,
}

impl InputReader {
    pub(super) fn new(
        settings: &WriteSettings,
        types: StatementTypes,
    ) -> Result<InputReader, String> {
        let compiled = |field: &FieldSettings| -> Result<_, String> {
            Ok(Field {
                pattern: field.kind.compiled()?,
                settings: field.clone(),
            })
        };
        let fields = settings.fields.iter().map(compiled);
        Ok(InputReader {
            query: settings.query.clone(),
            fields: fields.collect::<Result<_, _>>()?,
            types,
        })
    }

    /// How the database makes the values of a returned column canonical.
    pub(super) fn canonical_of_column(&self, name: &str) -> Option<&Canonical> {
        self.types.columns.get(name)
    }

    /// Whether the database calls both values of the parameter `name` equal, by their type alone: 7
    /// in a body is `/rows/7` if a string of the path is compared with a number. Texts that differ
    /// in case or spaces are not equal here, because the write uses the path's text.
    fn is_equal(
        &self,
        resource: &Resource,
        name: &str,
        of_path: &ParamValue,
        raw: &RawValue,
    ) -> bool {
        let sql_type = self.types.parameters.get(name);
        let canonical = resource
            .names
            .canonical(name)
            .or(sql_type.map(|sql_type| &sql_type.canonical));
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

    /// The body with each declared whole number in its one spelling: 7.0 and 7e0 are 7.
    fn spelled(&self, body: &BTreeMap<String, Box<RawValue>>) -> BTreeMap<String, Box<RawValue>> {
        let mut body = body.clone();
        for FieldSettings { name, kind, .. } in self.fields.iter().map(|field| &field.settings) {
            if let (ParamKind::Integer { .. }, Some(raw)) = (kind, body.get_mut(name)) {
                let plain = Spelling::Integer.canonical(raw.get());
                if let Some(plain) = plain.and_then(|text| RawValue::from_string(text).ok()) {
                    *raw = plain;
                }
            }
        }
        body
    }

    /// Checks and joins the values of the path, the query and the body. A parameter of the
    /// statement without a value is null.
    ///
    /// # Errors
    /// [`WriteError::Parameter`] or [`WriteError::Field`]: the first value that is not valid.
    pub(super) fn read(
        &self,
        resource: &Resource,
        arguments: Arguments<'_>,
        body: &BTreeMap<String, Box<RawValue>>,
    ) -> Result<WriteInput, WriteError> {
        let body = &self.spelled(body);
        let settings = resource.settings();
        let known: Vec<&String> = settings.body_fields(&self.query).collect();
        let may_be_missing = |name: &str| known.iter().any(|known| *known == name);
        let values = resource
            .values(arguments, &may_be_missing)
            .map_err(WriteError::Parameter)?;
        let fields: BTreeMap<&String, Value> =
            body.iter().map(|(name, raw)| (name, parsed(raw))).collect();
        for (name, value) in &fields {
            let name = *name;
            let of_path = value_of(&values, name);
            if let Some(of_path) = of_path.filter(|_| resource.settings().has_in_path(name)) {
                // A client may send back what it read, the path's own parameter included.
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
        for field in &self.fields {
            field.check(fields.get(&field.settings.name))?;
        }
        let in_path = |name: &str| resource.settings().has_in_path(name);
        let is_field = |name: &str| body.contains_key(name) && !in_path(name);
        let parameter = |name: &String| {
            let field = body.get(name).filter(|_| is_field(name));
            match (field, value_of(&values, name)) {
                (Some(raw), _) => (&**raw).into(),
                (None, Some(value)) => value.into(),
                (None, None) => database::SqlValue::Null,
            }
        };
        let text = |(name, value): (&&String, &Value)| {
            let text = match value {
                Value::String(text) => text.clone(),
                Value::Number(_) | Value::Bool(_) => body.get(*name)?.get().to_owned(),
                _ => return None,
            };
            // As the database returns it: 7.0 in an integer column is 7.
            let sql_type = self.types.parameters.get(*name);
            let spelling = sql_type.and_then(|sql_type| sql_type.spelling);
            let canonical = spelling.and_then(|spelling| spelling.canonical(&text));
            Some(((*name).clone(), canonical.unwrap_or(text)))
        };
        let mut texts: HashMap<String, String> = fields.iter().filter_map(text).collect();
        let canonical = body.iter().filter_map(|(name, raw)| {
            let canonical = &self.types.parameters.get(name)?.canonical;
            Some((name.clone(), canonical.text(&(&**raw).into())?))
        });
        let mut canonical: HashMap<String, String> = canonical.collect();
        // After the fields: if the body repeats the path, the path's text is the one in the key.
        for (name, value) in values.iter().filter(|(name, _)| !is_field(name)) {
            texts.insert((*name).to_owned(), value.to_string());
            if let Some(text) = resource.names.canonical_text(&values, name) {
                canonical.insert((*name).to_owned(), text);
            }
        }
        let parameters = self.query.parameters().iter().map(parameter).collect();
        let values = values.into_iter();
        let outside_body = values.clone().map(|(name, _)| name);
        let outside_body = outside_body.filter(|name| !is_field(name));
        Ok(WriteInput {
            outside_body: outside_body.map(str::to_owned).collect(),
            parameters,
            texts,
            canonical,
            values: values
                .map(|(name, value)| (name.to_owned(), value))
                .collect(),
        })
    }
}

impl WriteInput {
    /// Why the database refused these values.
    pub(super) fn refused(&self, error: DatabaseError) -> WriteError {
        match error {
            DatabaseError::Unfit { parameter, valid } if self.outside_body.contains(&parameter) => {
                WriteError::Parameter(BadParameter {
                    name: parameter,
                    wrong: Wrong::NotValid,
                    valid,
                })
            }
            other => other.into(),
        }
    }

    /// The values of the path and the query.
    pub(super) fn values(&self) -> Vec<(&str, ParamValue)> {
        let values = self.values.iter();
        values
            .map(|(name, value)| (name.as_str(), value.clone()))
            .collect()
    }

    /// The text of a parameter or field as it stands in a tag.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        self.texts.get(name).cloned()
    }

    /// Its canonical text, or its own if it has no other.
    pub(super) fn canonical(&self, name: &str) -> Option<String> {
        let canonical = self.canonical.get(name).or_else(|| self.texts.get(name));
        canonical.cloned()
    }
}

impl Field {
    fn check(&self, value: Option<&Value>) -> Result<(), WriteError> {
        let FieldSettings {
            name,
            kind,
            required,
        } = &self.settings;
        let fits = match (value, kind) {
            (None | Some(Value::Null), _) => !required,
            (Some(Value::String(text)), ParamKind::Text { .. }) => {
                kind.takes(text, self.pattern.as_ref(), false)
            }
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
            field: name.clone(),
            valid: kind.to_string(),
        })
    }
}

/// The value of a field. Its numbers may have lost digits.
fn parsed(raw: &RawValue) -> Value {
    // A RawValue is valid JSON.
    serde_json::from_str(raw.get()).unwrap_or_default()
}

/// Whether a field of the body has the value of the path.
fn is_same(of_path: &ParamValue, value: &Value) -> bool {
    match (of_path, value) {
        (ParamValue::Text(a), Value::String(b)) => a == b,
        (ParamValue::Integer(a), Value::Number(b)) => b.as_i64() == Some(*a),
        (ParamValue::Boolean(a), Value::Bool(b)) => a == b,
        _ => false,
    }
}
