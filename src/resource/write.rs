//! Writes: one statement in one transaction, and then the invalidation of what it made untrue.
//!
//! Promise: a write that fails leaves nothing behind. One that is committed is invalidated before its caller has the answer; on
//! Postgres the names are committed together with the data, so that also a process that dies in between owes nothing. Values travel
//! beside the statement and never in it. With a precondition nothing is written over what the caller has not seen.

use std::collections::{BTreeMap, HashSet};

use regex_lite::Regex;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::cache::{Acknowledged, Cache, Kind, Name};
use crate::database::{self, Database, DatabaseError, Isolation, Transaction, WrittenRow};

use super::form::Forms;
use super::origin::Origin;
use super::parameter::{Arguments, BadParameter};
use super::settings::{FieldSettings, ParamKind, ParamValue, WriteMethod, WriteSettings};
use super::view::entity_tag;
use super::{Resource, text_of};

/// One way in which a resource is written.
pub struct Write {
    settings: WriteSettings,
    /// The fields of which something is known beforehand.
    fields: Vec<(FieldSettings, Option<Regex>)>,
    /// What the database makes of texts, by the names of the parameters.
    forms: Forms,
    database: Database,
}

/// What a write is done with: every parameter of the statement.
pub struct Given {
    /// Of the path, by name.
    values: Vec<(String, ParamValue)>,
    /// Those of the statement.
    parameters: Vec<(String, database::Value)>,
    /// Fields of the body, as they would stand in a tag.
    texts: Vec<(String, String)>,
}

/// What the caller wants to be true before anything is written (RFC 9110, section 13.1.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Precondition {
    /// There is such a thing: `If-Match: *`.
    Exists,
    /// There is none: `If-None-Match: *` (section 13.1.2).
    Absent,
    /// It is one of these, by strong comparison; each entity tag with its quotes.
    Is(Vec<String>),
    /// It is none of these, whether they are strong or weak.
    IsNot(Vec<String>),
}

/// A write that was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// What the statement returned: the object of its row, an array of several. `None`: it returned none.
    pub json: Option<Vec<u8>>,
    /// Where to find what was made, if the operator says.
    pub location: Option<String>,
    /// What became of the invalidation.
    pub acknowledged: Acknowledged,
}

/// A write that was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WriteError {
    /// A parameter of the path or the query does not fit.
    Parameter(BadParameter),
    /// A field of the body does not fit.
    Field {
        /// Which.
        field: String,
        /// What would be right.
        valid: String,
    },
    /// It goes against what else is in the database: a duplicate, a missing reference.
    Conflict {
        /// The field that does, where that is known.
        field: Option<String>,
        /// Why.
        why: String,
    },
    /// There is no such thing.
    Absent,
    /// It is not what the caller's precondition says.
    Changed,
    /// What the precondition speaks of does not come from the database, or not all of it, so it cannot be decided.
    Undecidable,
    /// The database did not do it.
    Database(DatabaseError),
}

/// How a transaction ended.
enum Ending {
    Done(Vec<WrittenRow>, Vec<String>, Option<database::OutboxRow>),
    GivenUp(WriteError),
}

impl Precondition {
    fn holds(&self, current: Option<&[u8]>) -> bool {
        let among = |tags: &[String], json| {
            let current = entity_tag(crate::cache::hash(json));
            tags.contains(&current)
        };
        match (self, current) {
            (Precondition::Exists, current) => current.is_some(),
            (Precondition::Absent, current) => current.is_none(),
            (Precondition::Is(tags), Some(json)) => among(tags, json),
            (Precondition::Is(_), None) => false,
            (Precondition::IsNot(tags), Some(json)) => {
                let strong = |tag: &String| tag.trim_start_matches("W/").to_owned();
                !among(&tags.iter().map(strong).collect::<Vec<_>>(), json)
            }
            (Precondition::IsNot(_), None) => true,
        }
    }
}

impl Write {
    pub(super) fn new(
        settings: &WriteSettings,
        forms: Forms,
        database: Database,
    ) -> Result<Write, String> {
        let compiled = |field: &FieldSettings| -> Result<_, String> {
            Ok((field.clone(), field.kind.compiled()?))
        };
        Ok(Write {
            fields: settings
                .fields
                .iter()
                .map(compiled)
                .collect::<Result<_, _>>()?,
            settings: settings.clone(),
            forms,
            database,
        })
    }

    /// By which method.
    pub fn method(&self) -> WriteMethod {
        self.settings.method
    }

    /// Whether its statement takes anything from the body.
    pub fn takes_body(&self, resource: &Resource) -> bool {
        self.body_fields(resource).next().is_some()
    }

    /// The parameters of the statement that are none of the resource's.
    fn body_fields<'w>(&'w self, resource: &'w Resource) -> impl Iterator<Item = &'w String> {
        let parameters = self.settings.query.parameters().iter();
        let of_path = |name: &str| resource.key_params.iter().any(|p| p.settings.name == name);
        parameters.filter(move |name| !of_path(name))
    }

    /// Takes together what the path, the query and the body say. A field that the statement names and the body does not is null.
    ///
    /// # Errors
    /// [`WriteError::Parameter`] or [`WriteError::Field`]: what does not fit first.
    pub fn given(
        &self,
        resource: &Resource,
        arguments: Arguments<'_>,
        body: &BTreeMap<String, Box<RawValue>>,
    ) -> Result<Given, WriteError> {
        let values = resource.values(arguments).map_err(WriteError::Parameter)?;
        let known: Vec<&String> = self.body_fields(resource).collect();
        let read: BTreeMap<&String, Value> =
            body.iter().map(|(name, raw)| (name, read(raw))).collect();
        for (name, value) in &read {
            let name = *name;
            if let Some((_, of_path)) = values.iter().find(|(known, _)| known == name) {
                // What a client read it may send back as it is.
                if !is_same(of_path, value) {
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
        let parameter = |name: &String| {
            let of_path = values.iter().find(|(known, _)| known == name);
            let value = match of_path {
                Some((_, value)) => value.into(),
                None => body
                    .get(name)
                    .map_or(database::Value::Null, |raw| (&**raw).into()),
            };
            (name.clone(), value)
        };
        let text = |(name, value): (&&String, &Value)| {
            let text = match value {
                Value::String(text) => text.clone(),
                Value::Number(_) | Value::Bool(_) => body.get(*name)?.get().to_owned(),
                _ => return None,
            };
            // As it will be read back: 7.0 in a place of whole numbers is 7.
            let form = self.forms.get(*name);
            let written = form.and_then(|form| form.canonical(&text));
            Some(((*name).clone(), written.unwrap_or(text)))
        };
        Ok(Given {
            parameters: self
                .settings
                .query
                .parameters()
                .iter()
                .map(parameter)
                .collect(),
            texts: read.iter().filter_map(text).collect(),
            values: values
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .collect(),
        })
    }

    /// Writes, and invalidates what is out of date then. Blocks.
    ///
    /// # Errors
    /// Whatever it is, nothing was written.
    pub fn run(
        &self,
        resource: &Resource,
        given: &Given,
        precondition: Option<&Precondition>,
        cache: &Cache,
    ) -> Result<Written, WriteError> {
        let isolation = match precondition {
            // What is read is still so when the write is committed, or it is not committed.
            Some(_) => Isolation::Serializable,
            None => Isolation::Plain,
        };
        let reads = resource.origin.as_ref().is_some_and(Origin::is_sql);
        if precondition.is_some() && resource.is_read() && !reads {
            return Err(WriteError::Undecidable);
        }
        let mut given_up = None;
        let done = self.database.change(isolation, |transaction| {
            match self.change(transaction, resource, given, precondition)? {
                Ending::Done(rows, names, left) => Ok((rows, names, left)),
                Ending::GivenUp(why) => {
                    given_up = Some(why);
                    // An error, so that whatever the statement did besides is undone.
                    Err(DatabaseError::Invalid("the write was given up".to_owned()))
                }
            }
        });
        let (rows, names, left) = match (done, given_up) {
            (Ok(done), _) => done,
            (Err(_), Some(why)) => return Err(why),
            (Err(error), None) => return Err(refused(error)),
        };
        let spoken: Vec<Name> = names.iter().map(|name| Name::tag(name)).collect();
        let acknowledged = cache.invalidate(&spoken, Kind::Hard);
        if let Some(row) = left
            && !acknowledged.is_pending()
            && let Err(error) = self.database.outbox().delivered(row)
        {
            // Then it is delivered once more, which does no harm.
            log::warn!("the outbox keeps what was delivered: {error}");
        }
        let location = self.settings.location.as_ref();
        Ok(Written {
            location: location.zip(rows.first()).map(|(location, row)| {
                let text = |name: &str| row.text(name).or_else(|| given.text(name));
                location.render(text).as_str().to_owned()
            }),
            json: match rows.as_slice() {
                [] => None,
                [row] => Some(row.json.clone()),
                several => Some(array(several)),
            },
            acknowledged,
        })
    }

    fn change(
        &self,
        transaction: &mut Transaction<'_>,
        resource: &Resource,
        given: &Given,
        precondition: Option<&Precondition>,
    ) -> Result<Ending, DatabaseError> {
        let values = given.values();
        if let Some(precondition) = precondition {
            let current = match &resource.origin {
                Some(origin) => origin.current(transaction, &values)?,
                None => None,
            };
            if !precondition.holds(current.as_deref()) {
                return Ok(Ending::GivenUp(WriteError::Changed));
            }
        }
        let written = transaction.write(&self.settings.query, &given.borrowed())?;
        if written.changed == 0 && written.rows.is_empty() {
            return Ok(Ending::GivenUp(WriteError::Absent));
        }
        let names = self.names(resource, given, &written.rows);
        let left = transaction.leave_in_outbox(&names)?;
        Ok(Ending::Done(written.rows, names, left))
    }

    /// What is out of date: the entry of this very path and what the operator says, or else all that this entry depends on; both for
    /// what the request names and for each row that came back.
    fn names(&self, resource: &Resource, given: &Given, rows: &[WrittenRow]) -> Vec<String> {
        let own = resource.request_of(&given.values(), 0, "");
        let templates = self.settings.invalidates.as_ref();
        let own: Vec<Name> = match (own, templates) {
            (None, _) => Vec::new(),
            (Some(own), Some(_)) => vec![Name::from(&own.subject.key)],
            (Some(own), None) => own.making.names(&own.subject).to_vec(),
        };
        let mut names: Vec<String> = own.iter().map(|name| name.as_str().to_owned()).collect();
        let mut known: HashSet<String> = names.iter().cloned().collect();
        for template in templates.unwrap_or(&resource.settings.tags) {
            let mut add = |text_of: &dyn Fn(&str) -> Option<String>| {
                let name = template.render(text_of).as_str().to_owned();
                if known.insert(name.clone()) {
                    names.push(name);
                }
            };
            // A statement that changes the very column by which it finds its row leaves two names out of date.
            if template.params().all(|name| given.text(name).is_some()) {
                add(&|name| given.text(name));
            }
            for row in rows {
                add(&|name| row.text(name).or_else(|| given.text(name)));
            }
        }
        names
    }
}

impl Given {
    fn values(&self) -> Vec<(&str, ParamValue)> {
        let values = self.values.iter();
        values
            .map(|(name, value)| (name.as_str(), value.clone()))
            .collect()
    }

    fn borrowed(&self) -> Vec<database::Parameter<'_>> {
        let parameters = self.parameters.iter();
        parameters
            .map(|(name, value)| (name.as_str(), value.clone()))
            .collect()
    }

    /// How the parameter or field of this name stands in a tag.
    fn text(&self, name: &str) -> Option<String> {
        text_of(&self.values(), name).or_else(|| {
            let found = self.texts.iter().find(|(known, _)| known == name);
            found.map(|(_, text)| text.clone())
        })
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

fn array(rows: &[WrittenRow]) -> Vec<u8> {
    let mut json = vec![b'['];
    for (at, row) in rows.iter().enumerate() {
        if at > 0 {
            json.push(b',');
        }
        json.extend_from_slice(&row.json);
    }
    json.push(b']');
    json
}

fn refused(error: DatabaseError) -> WriteError {
    match error {
        DatabaseError::Unfit { parameter, valid } => WriteError::Field {
            field: parameter,
            valid,
        },
        DatabaseError::Conflict { field, what } => WriteError::Conflict { field, why: what },
        other => WriteError::Database(other),
    }
}
