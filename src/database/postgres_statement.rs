//! A statement on Postgres: prepared once per connection, and handed its values in the types that its places want.
//!
//! Promise: after a change of the schema it is prepared anew. A whole number that is too large for what it is compared with goes
//! as a bigint where the caller wants that, so that it finds no row instead of being an error.

use std::time::Instant;

use postgres::types::{ToSql, Type};
use postgres::{Client, Statement};

use super::error::DatabaseError;
use super::postgres_pool::PostgresConnection;
use super::query::Query;
use super::value::Value;
use super::{DatabaseKind, refusal, wire};

/// What becomes of a whole number that its place cannot hold.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum TooLarge {
    /// It goes as a bigint, and finds no row; what makes it smaller again does not fit.
    FindsNothing,
    /// It does not fit.
    Unfit,
}

/// Why a statement on Postgres gave nothing: the server's word, or larder's.
pub(super) enum Stopped {
    Postgres(postgres::Error),
    Own(DatabaseError),
}

impl From<postgres::Error> for Stopped {
    fn from(error: postgres::Error) -> Stopped {
        Stopped::Postgres(error)
    }
}

impl From<DatabaseError> for Stopped {
    fn from(error: DatabaseError) -> Stopped {
        Stopped::Own(error)
    }
}

impl PostgresConnection {
    /// What `sql` is prepared as, which it is at its first use.
    pub(super) fn prepared(&mut self, sql: &str) -> Result<Statement, postgres::Error> {
        if let Some(known) = self.statements.get(sql) {
            return Ok(known.clone());
        }
        let statement = self.client.prepare(sql)?;
        self.statements.insert(sql.to_owned(), statement.clone());
        Ok(statement)
    }

    /// Hands the statement of a query to `work`, with its values.
    pub(super) fn run<T>(
        &mut self,
        query: &Query,
        values: &[&Value],
        too_large: TooLarge,
        work: impl FnOnce(&mut Client, &Statement, &[&(dyn ToSql + Sync)]) -> Result<T, Stopped>,
    ) -> Result<T, DatabaseError> {
        let sql = query.text(DatabaseKind::Postgres);
        let was_known = self.statements.contains_key(sql);
        let described = self.prepared(sql)?;
        let mut statement = described.clone();
        let widens = |(value, wanted): &(&&Value, &Type)| {
            too_large == TooLarge::FindsNothing && value.overflows(wanted)
        };
        let places = || values.iter().zip(described.params());
        let widened = places().position(|place| widens(&place));
        let too_large_at = |at: usize| {
            let valid = wire::wanted(&described.params()[at]);
            refusal::unfit(&query.parameters()[at], valid)
        };
        if let Some(at) = widened {
            let types: Vec<Type> = places()
                .map(|place| {
                    if widens(&place) {
                        Type::INT8
                    } else {
                        place.1.clone()
                    }
                })
                .collect();
            statement = match self.client.prepare_typed(sql, &types) {
                Ok(statement) => statement,
                // It is given to what takes no bigint, a function for one.
                Err(error) if is_mistyped(&error) => return Err(too_large_at(at)),
                Err(error) => return Err(error.into()),
            };
        }
        let given: Vec<&(dyn ToSql + Sync)> = values.iter().map(|value| *value as _).collect();
        let result = work(&mut self.client, &statement, &given);
        self.last_used = Instant::now();
        let stopped = match result {
            Ok(result) => return Ok(result),
            Err(stopped) => stopped,
        };
        // After a change of the schema a prepared statement fails for good, by the server's word or by larder's: prepared anew it
        // may not.
        self.statements.remove(sql);
        let error = match stopped {
            Stopped::Own(error) => return Err(error),
            Stopped::Postgres(error) => error,
        };
        let refused = error.as_db_error().map(|refusal| refusal.code().code());
        // The bigint was cast down by the query itself.
        if let (Some(at), Some("22003")) = (widened, refused) {
            return Err(too_large_at(at));
        }
        if was_known && refused == Some("0A000") {
            return Err(DatabaseError::Contended(
                "the schema was changed meanwhile".to_owned(),
            ));
        }
        Err(refusal::of_statement(
            error,
            query,
            statement.params(),
            values,
        ))
    }
}

/// Whether the types of a statement's parameters are the trouble: no such function or operator, several of them, or no such cast.
fn is_mistyped(error: &postgres::Error) -> bool {
    let codes = ["42883", "42725", "42804", "42846", "42P08", "42P18"];
    let refusal = error.as_db_error();
    refusal.is_some_and(|refusal| codes.contains(&refusal.code().code()))
}
