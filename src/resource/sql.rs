//! A value from the database: a query whose parameters are the resource's.
//!
//! Promise: values are bound as parameters and never become part of the statement's text. A query
//! without a row means that the value is absent; it is not an error.

use std::sync::Arc;
use std::time::Duration;

use crate::database::{
    self, CHECKOUT, Database, DatabaseError, Query, STATEMENT, Shape, Transaction,
};
use larder_cache::{Lifetime, Load, LoadError, Loaded, Note, Producer, Value};

use super::argument::ParamValue;
use super::settings::SqlSettings;
use super::values::{Values, value_of};

/// See the module.
pub(super) struct Sql {
    database: Database,
    query: Arc<Query>,
    shape: Shape,
    /// See [`Database::identity`].
    database_id: Arc<str>,
}

impl Sql {
    /// How long a query may take, including the wait for a connection.
    pub(super) const LIMIT: Duration = CHECKOUT.saturating_add(STATEMENT);

    /// The share of the load permits that all statements use, since they wait for one database. No
    /// upstream's name can have a space.
    pub(super) const SHARE: &str = "the database";

    /// Blocks: asks the database for its identity, once in a process.
    ///
    /// # Errors
    /// If the database does not answer.
    pub(super) fn new(settings: &SqlSettings, database: Database) -> Result<Sql, String> {
        let database_id = database.identity();
        Ok(Sql {
            database_id: database_id
                .map_err(|error| format!("the database's identity: {error}"))?,
            database,
            query: settings.query.clone(),
            shape: settings.shape,
        })
    }

    /// The statement and its database. Two versions of a statement, and two databases, never read
    /// each other's values.
    pub(super) fn identity(&self) -> String {
        let (shape, query, kind) = (self.shape, &self.query, self.database.kind());
        format!("{shape:?} {query:?} {kind} {}", self.database_id)
    }

    pub(super) fn label(&self) -> &str {
        self.query.name()
    }

    /// The value as `transaction` sees it.
    pub(super) fn current(
        &self,
        transaction: &mut Transaction<'_>,
        values: &Values<'_>,
    ) -> Result<Option<Vec<u8>>, DatabaseError> {
        let parameters = named(&self.query, bound(&self.query, values));
        transaction.read(&self.query, &parameters, self.shape)
    }

    /// `note` goes into the log line about a database that fails.
    pub(super) fn producer(&self, values: &Values<'_>, note: &Note) -> Producer {
        let bound = bound(&self.query, values);
        let note = note.clone();
        let (database, query, shape) = (self.database.clone(), self.query.clone(), self.shape);
        let run = Box::new(move |_| {
            let found = database.read(&query, &named(&query, bound), shape);
            let found = found.map_err(|error| failed(error, &query, &note))?;
            let value = found.map_or(Value::Absent, Value::present);
            Ok(Loaded::new(value, Lifetime::Policy))
        });
        Producer::Load(Load {
            limit: Sql::LIMIT,
            run,
        })
    }
}

/// The parameters of `query` by name. `values` are in the order of the parameters.
pub(super) fn named(
    query: &Query,
    values: impl IntoIterator<Item = database::SqlValue>,
) -> Vec<database::Parameter<'_>> {
    let names = query.parameters().iter().map(String::as_str);
    names.zip(values).collect()
}

/// The value of each parameter of `query`, in its order. A parameter without a value is null.
fn bound(query: &Query, values: &Values<'_>) -> Vec<database::SqlValue> {
    let value = |name: &String| value_of(values, name).map_or(database::SqlValue::Null, Into::into);
    query.parameters().iter().map(value).collect()
}

impl From<&ParamValue> for database::SqlValue {
    fn from(value: &ParamValue) -> database::SqlValue {
        match value {
            ParamValue::Text(text) => (&**text).into(),
            ParamValue::Integer(number) => (*number).into(),
            ParamValue::Boolean(yes) => (*yes).into(),
        }
    }
}

fn failed(error: DatabaseError, query: &Query, note: &Note) -> LoadError {
    let resource = note.resource.as_deref();
    let (request_id, trace_id) = (note.request_id.as_deref(), note.trace_id.as_deref());
    match error {
        // Such as a division by zero: the database does not say which parameter is wrong.
        DatabaseError::Invalid(_) if !query.parameters().is_empty() => LoadError::Unfit {
            parameter: query.parameters().join(","),
            valid: "values that the statement can work with".to_owned(),
        },
        DatabaseError::Unfit { parameter, valid } => LoadError::Unfit { parameter, valid },
        DatabaseError::TooSlow(_) => LoadError::TooSlow("the database took too long".to_owned()),
        DatabaseError::Unavailable(why) => {
            log::warn!(resource, request_id, trace_id; "the database: {why}");
            LoadError::Failed("the database gives no answer".to_owned())
        }
        other => {
            log::error!(resource, request_id, trace_id; "the database: {other}");
            LoadError::Failed("the query failed".to_owned())
        }
    }
}
