//! A connection to Postgres, the statements it has prepared, and how a statement runs.
//!
//! Promise: after a change of the schema a statement is prepared anew, and a value is refused only
//! if the present schema refuses it. A whole number that is too large for its place is sent as a
//! bigint if the caller wants that, so that it finds no row instead of being an error. What ends
//! one connection makes the others of its pool prove that they live before their next use.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use postgres::error::Severity;
use postgres::types::{ToSql, Type};
use postgres::{Client, Statement};

use super::error::DatabaseError;
use super::query::Query;
use super::settings::DatabaseKind;
use super::sql_value::SqlValue;
use super::{postgres_error, wire};

/// How long a connection may be idle and still be handed out untested.
pub(super) const TRUSTED_IDLE: Duration = Duration::from_secs(1);

/// The SQLSTATE of a statement name that the server does not know.
const UNKNOWN_STATEMENT: &str = "26000";

/// The SQLSTATEs of a statement that was valid when it was prepared and is not any more: its result
/// or a parameter has another type now, or a table, column, function, operator or type was replaced
/// or dropped, or the server still looks for the old one.
const OUTDATED: [&str; 14] = [
    "0A000", "42703", "42704", "42725", "42804", "42809", "42846", "42883", "42P01", "42P02",
    "42P08", "42P10", "42P18", "XX000",
];

/// What one connection of a pool found out and the others have to know.
#[derive(Default)]
pub(super) struct Findings {
    /// How many changes of the schema were noticed.
    schema: AtomicU64,
    /// When a connection was last found lost. Connections that were last used before that may be
    /// lost too.
    lost: Mutex<Option<Instant>>,
}

/// What happens to a whole number that is too large for its place.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum TooLarge {
    /// It is sent as a bigint and finds no row. If the query casts it down again, it is an error.
    FindsNothing,
    /// It is an error.
    Unfit,
}

impl TooLarge {
    /// Whether `value` has to be sent as a bigint where `expected` is the type.
    fn widens(self, value: &SqlValue, expected: &Type) -> bool {
        self == TooLarge::FindsNothing && value.overflows(expected)
    }

    fn widens_any(self, values: &[&SqlValue], statement: &Statement) -> bool {
        let mut places = values.iter().zip(statement.params());
        places.any(|(value, expected)| self.widens(value, expected))
    }
}

/// When the statement that ran was prepared.
enum Prepared {
    /// For an earlier run, so the schema may have been changed since.
    Earlier,
    /// For this run.
    Now {
        /// The error if the query itself casts a bigint down.
        casts_down: Option<DatabaseError>,
    },
}

/// Why a statement failed: an error of the server or the client, or one of larder's own.
pub(super) enum StatementError {
    Postgres(postgres::Error),
    Own(DatabaseError),
}

impl From<postgres::Error> for StatementError {
    fn from(error: postgres::Error) -> StatementError {
        StatementError::Postgres(error)
    }
}

impl From<DatabaseError> for StatementError {
    fn from(error: DatabaseError) -> StatementError {
        StatementError::Own(error)
    }
}

/// A connection and its prepared statements.
pub(super) struct PostgresConnection {
    pub(super) client: Client,
    statements: HashMap<String, Statement>,
    /// A moment at which it was certainly alive: before the question that it answered last. The
    /// answer itself may be read much later, when the connection is lost already.
    pub(super) last_used: Instant,
    /// The connection must not be used again: it is lost, or a transaction on it could not be
    /// ended.
    pub(super) spoilt: bool,
    /// The [`Findings::schema`] when `statements` was last emptied.
    schema: u64,
    findings: Arc<Findings>,
}

impl PostgresConnection {
    /// `asked`: before its first question.
    pub(super) fn new(
        client: Client,
        asked: Instant,
        findings: Arc<Findings>,
    ) -> PostgresConnection {
        PostgresConnection {
            client,
            statements: HashMap::new(),
            last_used: asked,
            spoilt: false,
            schema: findings.schema.load(Ordering::Relaxed),
            findings,
        }
    }

    /// The statement of `sql`, prepared at its first use.
    pub(super) fn prepared(&mut self, sql: &str) -> Result<Statement, postgres::Error> {
        match self.known(sql) {
            Some(known) => Ok(known),
            None => self.prepare_anew(sql),
        }
    }

    /// The statement that `sql` was prepared as. `None` if that was not yet, or before a change of
    /// the schema that any connection of the pool noticed.
    fn known(&mut self, sql: &str) -> Option<Statement> {
        let schema = self.findings.schema.load(Ordering::Relaxed);
        if self.schema != schema {
            self.statements.clear();
            self.schema = schema;
        }
        self.statements.get(sql).cloned()
    }

    /// Prepares `sql` and keeps the statement in place of an older one.
    fn prepare_anew(&mut self, sql: &str) -> Result<Statement, postgres::Error> {
        let statement = self.client.prepare(sql)?;
        self.statements.insert(sql.to_owned(), statement.clone());
        Ok(statement)
    }

    /// Makes every connection of the pool prepare its statements anew.
    fn schema_changed(&self) {
        self.findings.schema.fetch_add(1, Ordering::Relaxed);
    }

    /// Marks the connection as lost if this error ends it.
    pub(super) fn check_lost(&mut self, error: &postgres::Error) {
        let ended = match error.as_db_error() {
            // An unknown statement name means that a pooler in between reset the session, and the
            // settings are gone as well.
            Some(error) => {
                matches!(
                    error.parsed_severity(),
                    Some(Severity::Fatal | Severity::Panic)
                ) || error.code().code() == UNKNOWN_STATEMENT
            }
            None => postgres_error::is_lost(error),
        };
        if ended {
            self.lost();
        }
    }

    /// Marks the connection as lost. What ended it may have ended the idle connections of the pool
    /// as well, so each of them is tested before its next use.
    fn lost(&mut self) {
        self.spoilt = true;
        *self.findings.lost.lock() = Some(Instant::now());
    }

    /// Whether it can serve nobody any more.
    pub(super) fn is_lost(&self) -> bool {
        self.spoilt || self.client.is_closed()
    }

    /// Whether it was used so recently that it may be handed out untested.
    pub(super) fn is_trusted(&self) -> bool {
        let lost = *self.findings.lost.lock();
        self.last_used.elapsed() < TRUSTED_IDLE && lost.is_none_or(|lost| self.last_used > lost)
    }

    /// Errors unless the server answers within `limit`.
    pub(super) fn prove(&mut self, limit: Duration) -> Result<(), postgres::Error> {
        let asked = Instant::now();
        let proven = self.client.is_valid(limit);
        if proven.is_err() {
            self.lost();
        }
        proven?;
        self.last_used = asked;
        Ok(())
    }

    /// Hands the prepared statement of a query and its values to `work`. `work` is called a second
    /// time only if the first call sent nothing. Errors with [`DatabaseError::Contended`] if the
    /// schema was changed after the statement was prepared: a later transaction prepares it anew.
    pub(super) fn run<T>(
        &mut self,
        query: &Query,
        values: &[&SqlValue],
        too_large: TooLarge,
        mut work: impl FnMut(
            &mut Client,
            &Statement,
            &[&(dyn ToSql + Sync)],
        ) -> Result<T, StatementError>,
    ) -> Result<T, DatabaseError> {
        self.last_used = Instant::now();
        let sql = query.text(DatabaseKind::Postgres);
        let parameters: Vec<&(dyn ToSql + Sync)> = values.iter().map(|value| *value as _).collect();
        let known = self.known(sql);
        if let Some(known) = &known
            && !too_large.widens_any(values, known)
        {
            match work(&mut self.client, known, &parameters) {
                // The value does not fit the schema as it was. Whether it fits the present one,
                // only the server knows.
                Err(StatementError::Postgres(error)) if is_misfit(&error) => {}
                result => return self.finish(query, values, known, Prepared::Earlier, result),
            }
        }
        let described = self.described(sql, known)?;
        let (statement, casts_down) = self.widened(query, described, values, too_large)?;
        let result = work(&mut self.client, &statement, &parameters);
        let prepared = Prepared::Now { casts_down };
        self.finish(query, values, &statement, prepared, result)
    }

    /// Errors with [`DatabaseError::Unfit`] if a value is not of the type of its place in the
    /// query. Nothing is run.
    pub(super) fn check(
        &mut self,
        query: &Query,
        values: &[&SqlValue],
    ) -> Result<(), DatabaseError> {
        let sql = query.text(DatabaseKind::Postgres);
        let fit = |known: &Statement| postgres_error::fit(query, known.params(), values);
        let known = self.known(sql);
        if known.as_ref().is_some_and(|known| fit(known).is_ok()) {
            return Ok(());
        }
        // Whether it fits the present schema, only the server knows.
        let described = self.described(sql, known)?;
        fit(&described)
    }

    /// Prepares `sql` anew. If its parameters are not those of `known` any more, the schema was
    /// changed.
    fn described(
        &mut self,
        sql: &str,
        known: Option<Statement>,
    ) -> Result<Statement, DatabaseError> {
        let described = self
            .prepare_anew(sql)
            .map_err(|error| self.prepare_failed(error))?;
        if known.is_some_and(|known| known.params() != described.params()) {
            self.schema_changed();
        }
        Ok(described)
    }

    /// The statement to run: `described`, or one that takes a bigint wherever a number is too
    /// large. With the latter comes the error for a query that casts the bigint down itself.
    fn widened(
        &mut self,
        query: &Query,
        described: Statement,
        values: &[&SqlValue],
        too_large: TooLarge,
    ) -> Result<(Statement, Option<DatabaseError>), DatabaseError> {
        let places = || values.iter().zip(described.params());
        let widens = |(value, expected): (&&SqlValue, &Type)| too_large.widens(value, expected);
        let Some(at) = places().position(widens) else {
            return Ok((described, None));
        };
        let types: Vec<Type> = places()
            .map(|place| match widens(place) {
                true => Type::INT8,
                false => place.1.clone(),
            })
            .collect();
        let valid = wire::expected(&described.params()[at]);
        let unfit = DatabaseError::unfit(&query.parameters()[at], valid);
        let sql = query.text(DatabaseKind::Postgres);
        match self.client.prepare_typed(sql, &types) {
            Ok(statement) => Ok((statement, Some(unfit))),
            // Something takes no bigint, such as a function.
            Err(error) if is_mistyped(&error) => Err(unfit),
            Err(error) => Err(self.prepare_failed(error)),
        }
    }

    /// The result of a statement that ran, with its error explained.
    fn finish<T>(
        &mut self,
        query: &Query,
        values: &[&SqlValue],
        statement: &Statement,
        prepared: Prepared,
        result: Result<T, StatementError>,
    ) -> Result<T, DatabaseError> {
        let sql = query.text(DatabaseKind::Postgres);
        let error = match result {
            Ok(result) => return Ok(result),
            Err(StatementError::Own(error)) => {
                self.statements.remove(sql);
                return Err(error);
            }
            Err(StatementError::Postgres(error)) => error,
        };
        self.check_lost(&error);
        let code = error.as_db_error().map(|error| error.code().code());
        if code.is_some() {
            // After a change of the schema this statement may fail for good, and one that is
            // prepared anew may not.
            self.statements.remove(sql);
        }
        match (prepared, code) {
            (Prepared::Earlier, Some(code)) if OUTDATED.contains(&code) => {
                self.schema_changed();
                Err(outdated())
            }
            (_, Some(UNKNOWN_STATEMENT)) => Err(self.prepare_failed(error)),
            (
                Prepared::Now {
                    casts_down: Some(unfit),
                },
                Some("22003"),
            ) => Err(unfit),
            _ => Err(postgres_error::of_statement(
                error,
                query,
                statement.params(),
                values,
            )),
        }
    }

    /// The error of a statement that could not be prepared.
    fn prepare_failed(&mut self, error: postgres::Error) -> DatabaseError {
        self.check_lost(&error);
        let code = error.as_db_error().map(|error| error.code().code());
        if code == Some(UNKNOWN_STATEMENT) {
            self.schema_changed();
            return outdated();
        }
        error.into()
    }
}

fn outdated() -> DatabaseError {
    DatabaseError::Contended("conflict: the schema was changed at the same time".to_owned())
}

/// Whether the client refused a value, so that nothing was sent.
fn is_misfit(error: &postgres::Error) -> bool {
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref());
    matches!(cause, Some(wire::Misfit::Parameter(_)))
}

/// Whether the types of the parameters are wrong: no such function, operator or cast, or several.
fn is_mistyped(error: &postgres::Error) -> bool {
    let codes = ["42883", "42725", "42804", "42846", "42P08", "42P18"];
    let error = error.as_db_error();
    error.is_some_and(|error| codes.contains(&error.code().code()))
}
