//! Writes: one statement in one transaction, and then the invalidation of what it made untrue.
//!
//! Promise: a write that fails leaves nothing behind. One that is committed is invalidated before its caller has the answer; on
//! Postgres the names are committed together with the data, so that also a process that dies in between owes nothing. Values travel
//! beside the statement and never in it. With a precondition nothing is written over what the caller has not seen.

use std::collections::HashSet;

use regex_lite::Regex;

use crate::database::{Database, DatabaseError, Isolation, OutboxRow, ReturnedRow, Transaction};
use larder_cache::{Cache, InvalidationReceipt, InvalidationTarget, Purge};

use super::Resource;
use super::form::Texts;
use super::given::Given;
use super::origin::Origin;
use super::parameter::BadParameter;
use super::settings::{FieldSettings, WriteMethod, WriteSettings};
use super::sql::named;
use super::view::entity_tag;

/// One way in which a resource is written.
pub struct Write {
    pub(super) settings: WriteSettings,
    /// The fields of which something is known beforehand.
    pub(super) fields: Vec<(FieldSettings, Option<Regex>)>,
    /// How the database takes the values of the statement.
    pub(super) texts: Texts,
    database: Database,
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
    pub acknowledged: InvalidationReceipt,
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

/// What a transaction did.
struct Done {
    rows: Vec<ReturnedRow>,
    /// What is out of date once it is committed.
    names: Vec<String>,
    left: Option<OutboxRow>,
}

impl Precondition {
    fn holds(&self, current: Option<&[u8]>) -> bool {
        let among = |tags: &[String], json| {
            let current = entity_tag(larder_cache::hash(json));
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
        texts: Texts,
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
            texts,
            database,
        })
    }

    /// By which method.
    pub fn method(&self) -> WriteMethod {
        self.settings.method
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
        let done = self.database.change(isolation, |transaction| {
            let done = self.change(transaction, resource, given, precondition)?;
            if done.is_err() {
                // Also whatever the statement did besides.
                transaction.undo();
            }
            Ok(done)
        });
        let Done { rows, names, left } = done.map_err(refused)??;
        let spoken: Vec<InvalidationTarget> = names
            .iter()
            .map(|name| InvalidationTarget::tag(name))
            .collect();
        let acknowledged = cache.invalidate(&spoken, Purge::Hard);
        if let Some(row) = left {
            let outbox = self.database.outbox();
            let told = if acknowledged.is_pending() {
                outbox.hand_over(row)
            } else {
                outbox.delivered(row)
            };
            if let Err(error) = told {
                // Then it is delivered once more, or two seconds later, which does no harm.
                log::warn!("the outbox row of a completed write could not be updated: {error}");
            }
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

    /// The inner error is why the write is given up.
    fn change(
        &self,
        transaction: &mut Transaction<'_>,
        resource: &Resource,
        given: &Given,
        precondition: Option<&Precondition>,
    ) -> Result<Result<Done, WriteError>, DatabaseError> {
        let values = given.values();
        if let Some(precondition) = precondition {
            let current = match &resource.origin {
                Some(origin) => origin.current(transaction, &values)?,
                None => None,
            };
            if !precondition.holds(current.as_deref()) {
                return Ok(Err(WriteError::Changed));
            }
        }
        let query = &self.settings.query;
        let parameters = named(query, given.parameters.iter().cloned());
        let written = transaction.write(query, &parameters)?;
        if written.changed == 0 && written.rows.is_empty() {
            return Ok(Err(WriteError::Absent));
        }
        let names = self.names(resource, given, &written.rows);
        let left = transaction.leave_in_outbox(&names)?;
        Ok(Ok(Done {
            rows: written.rows,
            names,
            left,
        }))
    }

    /// The names to invalidate: those of this path's own entry and the `invalidates` templates, by
    /// default all that this entry depends on; for what the request names and for each row that
    /// came back. Each template gives the value's own text and its canonical one, as the tags of
    /// entries do.
    fn names(&self, resource: &Resource, given: &Given, rows: &[ReturnedRow]) -> Vec<String> {
        let values = given.values();
        let templates = self.settings.invalidates.as_ref();
        let own: Vec<InvalidationTarget> = match (resource.request_of(&values, 0, ""), templates) {
            (None, _) => Vec::new(),
            (Some(_), Some(_)) => resource.own_names(&resource.own_values(&values)),
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
                add(&|name| given.canonical(name));
            }
            for row in rows {
                add(&|name| row.text(name).or_else(|| given.text(name)));
                add(&|name| match row.text(name) {
                    Some(text) => {
                        let column = self.texts.columns.get(name);
                        let canonical = resource.canonical(name).or(column);
                        let canonical = canonical.and_then(|one| one.text(&text.as_str().into()));
                        canonical.or(Some(text))
                    }
                    None => given.canonical(name),
                });
            }
        }
        names
    }
}

fn array(rows: &[ReturnedRow]) -> Vec<u8> {
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
        // Such as a division by what was given.
        DatabaseError::Invalid(_) => WriteError::Field {
            field: "body".to_owned(),
            valid: "values that the statement can work with".to_owned(),
        },
        other => WriteError::Database(other),
    }
}
