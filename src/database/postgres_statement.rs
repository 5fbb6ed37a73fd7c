//! A statement on Postgres: prepared once per connection, and handed its values in the types that its places want.
//!
//! Promise: after a change of the schema a statement is prepared anew, and a value is refused only
//! if the present schema refuses it. If the caller wants it, a whole number that is too large for
//! the column is sent as a bigint, so that it finds no row instead of being an error.

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

impl TooLarge {
    /// Whether `value` has to go as a bigint to a place that wants `wanted`.
    fn is(self, value: &Value, wanted: &Type) -> bool {
        self == TooLarge::FindsNothing && value.overflows(wanted)
    }

    /// Whether any of `values` has to.
    fn is_in(self, values: &[&Value], statement: &Statement) -> bool {
        let mut places = values.iter().zip(statement.params());
        places.any(|(value, wanted)| self.is(value, wanted))
    }
}

/// When the statement that ran was prepared.
enum Prepared {
    /// For an earlier run: the schema may have been changed since.
    Earlier,
    /// For this run.
    Now {
        /// What is wrong if the query itself makes a bigint smaller again.
        casts_down: Option<DatabaseError>,
    },
}

/// The code of a statement that the server does not know under its name.
const UNKNOWN_STATEMENT: &str = "26000";

/// The codes with which a statement fails that was good when it was prepared: its result or a
/// parameter has another type now, a table, column, function, operator or type is another one or
/// gone, or the server still looks for the old one.
const OUTDATED: [&str; 14] = [
    "0A000", "42703", "42704", "42725", "42804", "42809", "42846", "42883", "42P01", "42P02",
    "42P08", "42P10", "42P18", "XX000",
];

fn outdated() -> DatabaseError {
    DatabaseError::Contended("the schema was changed meanwhile".to_owned())
}

/// Whether the client refused a value, so that nothing was sent.
fn is_misfit(error: &postgres::Error) -> bool {
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref());
    matches!(cause, Some(wire::Misfit::Given(_)))
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
        match self.known(sql) {
            Some(known) => Ok(known),
            None => self.prepare_anew(sql),
        }
    }

    /// Hands the statement of a query to `work`, with its values. `work` is called a second time
    /// only where the first call sent nothing. Errors with [`DatabaseError::Contended`] where the
    /// schema was changed since the statement was prepared: the same again, in another transaction,
    /// prepares it anew.
    pub(super) fn run<T>(
        &mut self,
        query: &Query,
        values: &[&Value],
        too_large: TooLarge,
        mut work: impl FnMut(&mut Client, &Statement, &[&(dyn ToSql + Sync)]) -> Result<T, Stopped>,
    ) -> Result<T, DatabaseError> {
        let sql = query.text(DatabaseKind::Postgres);
        let given: Vec<&(dyn ToSql + Sync)> = values.iter().map(|value| *value as _).collect();
        let known = self.known(sql);
        if let Some(known) = &known
            && !too_large.is_in(values, known)
        {
            match work(&mut self.client, known, &given) {
                // It does not fit what the schema was; whether it fits what the schema is, only the
                // server can tell.
                Err(Stopped::Postgres(error)) if is_misfit(&error) => {}
                result => return self.finish(query, values, known, Prepared::Earlier, result),
            }
        }
        let described = self
            .prepare_anew(sql)
            .map_err(|error| self.refused(error))?;
        if known.is_some_and(|known| known.params() != described.params()) {
            self.note_changed_schema();
        }
        let (statement, casts_down) = self.widened(query, described, values, too_large)?;
        let result = work(&mut self.client, &statement, &given);
        let prepared = Prepared::Now { casts_down };
        self.finish(query, values, &statement, prepared, result)
    }

    /// The statement to run in place of `described`: the same, or one whose places take a bigint
    /// where a number is too large for them. With the latter comes the error for a query that casts
    /// the bigint down itself.
    fn widened(
        &mut self,
        query: &Query,
        described: Statement,
        values: &[&Value],
        too_large: TooLarge,
    ) -> Result<(Statement, Option<DatabaseError>), DatabaseError> {
        let places = || values.iter().zip(described.params());
        let widens = |(value, wanted): (&&Value, &Type)| too_large.is(value, wanted);
        let Some(at) = places().position(widens) else {
            return Ok((described, None));
        };
        let types: Vec<Type> = places()
            .map(|place| match widens(place) {
                true => Type::INT8,
                false => place.1.clone(),
            })
            .collect();
        let valid = wire::wanted(&described.params()[at]);
        let unfit = refusal::unfit(&query.parameters()[at], valid);
        let sql = query.text(DatabaseKind::Postgres);
        match self.client.prepare_typed(sql, &types) {
            Ok(statement) => Ok((statement, Some(unfit))),
            // It is given to what takes no bigint, a function for one.
            Err(error) if is_mistyped(&error) => Err(unfit),
            Err(error) => Err(self.refused(error)),
        }
    }

    /// What became of a statement that ran.
    fn finish<T>(
        &mut self,
        query: &Query,
        values: &[&Value],
        statement: &Statement,
        prepared: Prepared,
        result: Result<T, Stopped>,
    ) -> Result<T, DatabaseError> {
        self.last_used = Instant::now();
        let sql = query.text(DatabaseKind::Postgres);
        let error = match result {
            Ok(result) => return Ok(result),
            Err(Stopped::Own(error)) => {
                self.forget(sql);
                return Err(error);
            }
            Err(Stopped::Postgres(error)) => error,
        };
        self.note_error(&error);
        let code = error.as_db_error().map(|refusal| refusal.code().code());
        if code.is_some() {
            // After a change of the schema it may fail for good, and prepared anew it may not.
            self.forget(sql);
        }
        match (prepared, code) {
            (Prepared::Earlier, Some(code)) if OUTDATED.contains(&code) => {
                self.note_changed_schema();
                Err(outdated())
            }
            (_, Some(UNKNOWN_STATEMENT)) => Err(self.refused(error)),
            (
                Prepared::Now {
                    casts_down: Some(unfit),
                },
                Some("22003"),
            ) => Err(unfit),
            _ => Err(refusal::of_statement(
                error,
                query,
                statement.params(),
                values,
            )),
        }
    }

    /// The error of a statement that was not prepared.
    fn refused(&mut self, error: postgres::Error) -> DatabaseError {
        self.note_error(&error);
        let code = error.as_db_error().map(|refusal| refusal.code().code());
        if code == Some(UNKNOWN_STATEMENT) {
            self.note_changed_schema();
            return outdated();
        }
        error.into()
    }
}

/// Whether the types of a statement's parameters are the trouble: no such function or operator, several of them, or no such cast.
fn is_mistyped(error: &postgres::Error) -> bool {
    let codes = ["42883", "42725", "42804", "42846", "42P08", "42P18"];
    let refusal = error.as_db_error();
    refusal.is_some_and(|refusal| codes.contains(&refusal.code().code()))
}
