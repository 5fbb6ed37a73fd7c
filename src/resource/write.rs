//! Writes: one statement in one transaction, then the invalidation of the values that it changed.
//!
//! Promise: a write that fails changes nothing. The invalidation of a committed write is done
//! before the caller gets the answer. On Postgres the invalidation is committed together with the
//! data, so it is delivered even if the process dies in between. Values are bound as parameters and
//! never become part of the statement's text. A write with a precondition never overwrites a value
//! that the caller has not seen.

use std::collections::{BTreeMap, HashSet};

use serde_json::value::RawValue;

use crate::database::{Database, DatabaseError, Isolation, OutboxRow, ReturnedRow, Transaction};
use larder_cache::{Cache, InvalidationReceipt, InvalidationTarget, Purge};

use super::Resource;
use super::argument::Arguments;
use super::canonical::StatementTypes;
use super::request_context::RequestContext;
use super::settings::{WriteMethod, WriteSettings};
use super::sql::named;
use super::view::entity_tag;
use super::write_error::WriteError;
use super::write_input::{InputReader, WriteInput};

/// One way to write a resource.
pub struct Write {
    settings: WriteSettings,
    input: InputReader,
    database: Database,
}

/// What must be true for the write to be done (RFC 9110, section 13.1.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Precondition {
    /// The value exists: `If-Match: *`.
    Exists,
    /// The value does not exist: `If-None-Match: *` (section 13.1.2).
    Absent,
    /// The value has one of these entity tags, by strong comparison. Each tag has its quotes.
    Is(Vec<String>),
    /// The value has none of these entity tags, by weak comparison.
    IsNot(Vec<String>),
}

/// The result of a write that was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// What the statement returned: an object for one row, an array for several. `None`: no rows.
    pub json: Option<Vec<u8>>,
    /// Where the written value is served, if the operator declared it.
    pub location: Option<String>,
    /// The receipt of the invalidation.
    pub receipt: InvalidationReceipt,
}

/// What a transaction did.
struct Done {
    rows: Vec<ReturnedRow>,
    /// The names to invalidate once it is committed.
    names: Vec<String>,
    outbox_row: Option<OutboxRow>,
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
        types: StatementTypes,
        database: Database,
    ) -> Result<Write, String> {
        Ok(Write {
            input: InputReader::new(settings, types)?,
            settings: settings.clone(),
            database,
        })
    }

    /// Its method.
    pub fn method(&self) -> WriteMethod {
        self.settings.method
    }

    /// Whether its statement takes any value from the body.
    pub fn takes_body(&self, resource: &Resource) -> bool {
        let mut fields = resource.settings().body_fields(&self.settings.query);
        fields.next().is_some()
    }

    /// Whether its statement takes a value that only the body can have.
    pub fn needs_body(&self, resource: &Resource) -> bool {
        resource.settings().needs_body(&self.settings.query)
    }

    /// Checks and joins the values of the path, the query and the body. A parameter of the
    /// statement without a value is null.
    ///
    /// # Errors
    /// [`WriteError::Parameter`] or [`WriteError::Field`]: the first value that is not valid.
    pub fn input(
        &self,
        resource: &Resource,
        arguments: Arguments<'_>,
        body: &BTreeMap<String, Box<RawValue>>,
    ) -> Result<WriteInput, WriteError> {
        self.input.read(resource, arguments, body)
    }

    /// Writes, then invalidates the values that it changed. Blocks.
    ///
    /// # Errors
    /// Nothing was written.
    pub fn run(
        &self,
        resource: &Resource,
        input: &WriteInput,
        precondition: Option<&Precondition>,
        cache: &Cache,
    ) -> Result<Written, WriteError> {
        let isolation = match precondition {
            // Otherwise the value could change between the check and the commit.
            Some(_) => Isolation::Serializable,
            None => Isolation::Plain,
        };
        let done = self.database.change(isolation, |transaction| {
            let done = self.change(transaction, resource, input, precondition)?;
            if done.is_err() {
                // The statement may have changed something before it was refused.
                transaction.undo();
            }
            Ok(done)
        });
        let Done {
            rows,
            names,
            outbox_row,
        } = done.map_err(|error| input.refused(error))??;
        let targets: Vec<InvalidationTarget> = names
            .iter()
            .map(|name| InvalidationTarget::tag(name))
            .collect();
        let receipt = cache.invalidate(&targets, Purge::Hard);
        if let Some(row) = outbox_row {
            let outbox = self.database.outbox();
            let updated = if receipt.is_pending() {
                outbox.hand_over(row)
            } else {
                outbox.delivered(row)
            };
            if let Err(error) = updated {
                // The row is then delivered once more, or two seconds later. Both are harmless.
                log::warn!("the outbox row of a completed write could not be updated: {error}");
            }
        }
        let location = self.settings.location.as_ref();
        Ok(Written {
            location: location.zip(rows.first()).map(|(location, row)| {
                let text = |name: &str| row.text(name).or_else(|| input.text(name));
                location.render(text).as_str().to_owned()
            }),
            json: match rows.as_slice() {
                [] => None,
                [row] => Some(row.json.clone()),
                several => Some(array(several)),
            },
            receipt,
        })
    }

    /// What happens inside the transaction. The inner error is the reason to roll it back.
    fn change(
        &self,
        transaction: &mut Transaction<'_>,
        resource: &Resource,
        input: &WriteInput,
        precondition: Option<&Precondition>,
    ) -> Result<Result<Done, WriteError>, DatabaseError> {
        let query = &self.settings.query;
        let parameters = named(query, input.parameters.iter().cloned());
        if let Some(precondition) = precondition {
            // A request that is refused in any case is not refused for its precondition (RFC 9110,
            // section 13.2.1).
            transaction.check(query, &parameters)?;
            if resource.is_read() && !resource.is_sql() {
                return Ok(Err(WriteError::Undecidable));
            }
            let current = resource.current(transaction, &input.values())?;
            if !precondition.holds(current.as_deref()) {
                return Ok(Err(WriteError::Changed));
            }
        }
        let written = transaction.write(query, &parameters)?;
        if written.changed == 0 && written.rows.is_empty() {
            return Ok(Err(WriteError::Absent));
        }
        let names = self.names(resource, input, &written.rows);
        let outbox_row = transaction.leave_in_outbox(&names)?;
        Ok(Ok(Done {
            rows: written.rows,
            names,
            outbox_row,
        }))
    }

    /// The names to invalidate: this path's key and the `invalidates` templates (by default
    /// everything that the resource depends on), rendered with the request's values and with each
    /// returned row. Each template is rendered with the values themselves and with their canonical
    /// texts, as the tags of entries are.
    fn names(&self, resource: &Resource, input: &WriteInput, rows: &[ReturnedRow]) -> Vec<String> {
        let values = input.values();
        let templates = self.settings.invalidates.as_ref();
        let own: Vec<InvalidationTarget> = match (
            resource.request_of(&values, 0, &RequestContext::default()),
            templates,
        ) {
            (None, _) => Vec::new(),
            (Some(_), Some(_)) => {
                let names = &resource.names;
                names.targets(&names.own_values(&values))
            }
            (Some(own), None) => own.producer.targets(&own.item).to_vec(),
        };
        let mut names: Vec<String> = own.iter().map(|name| name.as_str().to_owned()).collect();
        let mut known: HashSet<String> = names.iter().cloned().collect();
        for template in templates.unwrap_or(&resource.settings().tags) {
            let mut add = |text_of: &dyn Fn(&str) -> Option<String>| {
                let name = template.render(text_of).as_str().to_owned();
                if known.insert(name.clone()) {
                    names.push(name);
                }
            };
            // With the request's values and with the rows: a statement may change the column by
            // which it finds its row.
            if template.params().all(|name| input.text(name).is_some()) {
                add(&|name| input.text(name));
                add(&|name| input.canonical(name));
            }
            for row in rows {
                add(&|name| row.text(name).or_else(|| input.text(name)));
                add(&|name| match row.text(name) {
                    Some(text) => {
                        let column = self.input.canonical_of_column(name);
                        let canonical = resource.names.canonical(name).or(column);
                        let canonical = canonical.and_then(|one| one.text(&text.as_str().into()));
                        canonical.or(Some(text))
                    }
                    None => input.canonical(name),
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
