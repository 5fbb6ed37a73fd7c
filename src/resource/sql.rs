//! A value from the database: a query whose parameters are the resource's.
//!
//! Promise: values travel beside the statement and never in it. No row is no such thing, not an error.

use std::sync::Arc;
use std::time::Duration;

use crate::database::{
    self, CHECKOUT, Database, DatabaseError, Query, STATEMENT, Shape, Transaction,
};
use larder_cache::{Lifetime, Load, LoadError, Loaded, Producer, Value};

use super::origin::Values;
use super::settings::{ParamValue, SqlSettings};

/// See the module.
pub(super) struct Sql {
    database: Database,
    query: Arc<Query>,
    shape: Shape,
    /// The database's own: see [`Database::identity`].
    place: Arc<str>,
}

impl Sql {
    /// How long a query may take, the wait for a connection included.
    pub(super) const LIMIT: Duration = CHECKOUT.saturating_add(STATEMENT);

    /// The share of the loads that all statements draw on: they wait for one database. No upstream
    /// can have a name with a space.
    pub(super) const SHARE: &str = "the database";

    /// Blocks: the database is asked who it is, once in a process.
    ///
    /// # Errors
    /// If it cannot be asked.
    pub(super) fn new(settings: &SqlSettings, database: Database) -> Result<Sql, String> {
        let place = database.identity();
        Ok(Sql {
            place: place.map_err(|error| format!("the database's identity: {error}"))?,
            database,
            query: settings.query.clone(),
            shape: settings.shape,
        })
    }

    /// The statement itself, and which database's rows it reads: two versions of it, or two
    /// databases, never read each other's values.
    pub(super) fn identity(&self) -> String {
        let (shape, query, kind) = (self.shape, &self.query, self.database.kind());
        format!("{shape:?} {query:?} {kind} {}", self.place)
    }

    pub(super) fn label(&self) -> &str {
        self.query.name()
    }

    /// The value as it is within `transaction`.
    pub(super) fn current(
        &self,
        transaction: &mut Transaction<'_>,
        values: &Values<'_>,
    ) -> Result<Option<Vec<u8>>, DatabaseError> {
        let given = named(&self.query, given(&self.query, values));
        transaction.read(&self.query, &given, self.shape)
    }

    pub(super) fn making(&self, values: &Values<'_>) -> Producer {
        let given = given(&self.query, values);
        let (database, query, shape) = (self.database.clone(), self.query.clone(), self.shape);
        let run = Box::new(move |_| {
            let found = database.read(&query, &named(&query, given), shape);
            let found = found.map_err(|error| failed(error, &query))?;
            let value = found.map_or(Value::Absent, Value::present);
            Ok(Loaded::new(value, Lifetime::Policy))
        });
        Producer::Load(Load {
            limit: Sql::LIMIT,
            run,
        })
    }
}

/// What `query` is given, by name; `given` is in the order of its parameters.
pub(super) fn named(
    query: &Query,
    given: impl IntoIterator<Item = database::SqlValue>,
) -> Vec<database::Parameter<'_>> {
    let names = query.parameters().iter().map(String::as_str);
    names.zip(given).collect()
}

/// What `query` is given of `values`: just the parameters that it names, in its order, null for one that is not there.
fn given(query: &Query, values: &Values<'_>) -> Vec<database::SqlValue> {
    let value_of = |name: &String| {
        let found = values.iter().find(|(known, _)| known == name);
        found.map_or(database::SqlValue::Null, |(_, value)| value.into())
    };
    query.parameters().iter().map(value_of).collect()
}

impl From<&ParamValue> for database::SqlValue {
    fn from(value: &ParamValue) -> database::SqlValue {
        match value {
            ParamValue::Text(text) => text.as_str().into(),
            ParamValue::Integer(number) => (*number).into(),
            ParamValue::Boolean(yes) => (*yes).into(),
        }
    }
}

fn failed(error: DatabaseError, query: &Query) -> LoadError {
    match error {
        // Such as a division by what was given, of which the database does not say where it stands.
        DatabaseError::Invalid(_) if !query.parameters().is_empty() => LoadError::Unfit {
            parameter: query.parameters().join(","),
            valid: "values that the statement can work with".to_owned(),
        },
        DatabaseError::Unfit { parameter, valid } => LoadError::Unfit { parameter, valid },
        DatabaseError::TooSlow(_) => LoadError::TooSlow("the database took too long".to_owned()),
        DatabaseError::Unavailable(why) => {
            log::warn!("the database: {why}");
            LoadError::Failed("the database gives no answer".to_owned())
        }
        other => {
            log::error!("the database: {other}");
            LoadError::Failed("the query failed".to_owned())
        }
    }
}
