//! Errors of Postgres and its client as a [`DatabaseError`], with the field if the server names
//! one.
//!
//! Promise: no text holds a value, neither of a row nor of a request. Postgres quotes values in its
//! details and in some messages. Names of columns, constraints and types are kept.

use postgres::error::DbError;
use postgres::types::{Kind, Type};

use super::error::{DatabaseError, NOT_NULL, NOT_UNIQUE, allowed_by};
use super::query::Query;
use super::sql_value::SqlValue;
use super::wire::{self, Misfit};

impl From<postgres::Error> for DatabaseError {
    fn from(error: postgres::Error) -> DatabaseError {
        if let Some(error) = error.as_db_error() {
            return of_server(error, &[]);
        }
        if let Some(misfit) = std::error::Error::source(&error).and_then(|e| e.downcast_ref()) {
            return match misfit {
                Misfit::Parameter(valid) => {
                    DatabaseError::Invalid(format!("invalid value: must be {valid}"))
                }
                Misfit::Column(what) => DatabaseError::Failed(what.clone()),
            };
        }
        DatabaseError::Unavailable(match is_lost(&error) {
            true => format!("connection lost: {}", chain(&error)),
            false => chain(&error),
        })
    }
}

/// Whether the client found the connection closed or broken.
pub(super) fn is_lost(error: &postgres::Error) -> bool {
    let cause = std::error::Error::source(error);
    error.is_closed() || cause.is_some_and(|cause| cause.is::<std::io::Error>())
}

/// The error of a failed attempt to connect: the server is away, or it refuses this user.
pub(super) fn of_connecting(error: &postgres::Error) -> DatabaseError {
    let Some(error) = error.as_db_error() else {
        return DatabaseError::Unavailable(chain(error));
    };
    match error.code().code() {
        // Invalid authorization, no such database, not allowed to connect to it.
        code if code.starts_with("28") || matches!(code, "3D000" | "42501") => {
            DatabaseError::Misconfigured(error.message().to_owned())
        }
        _ => DatabaseError::Unavailable(error.message().to_owned()),
    }
}

/// The error and its causes. The client's own text is often just "error connecting to server".
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}

/// Errors with [`DatabaseError::Unfit`] for the first value that is not of the type of its place.
pub(super) fn fit(
    query: &Query,
    types: &[Type],
    values: &[&SqlValue],
) -> Result<(), DatabaseError> {
    for ((name, ty), value) in query.parameters().iter().zip(types).zip(values) {
        if let Err(Misfit::Parameter(valid)) = wire::encode(value, ty, &mut Default::default()) {
            return Err(DatabaseError::unfit(name, valid));
        }
    }
    Ok(())
}

/// The error of a statement that ran with these values. Names the parameter if that is certain.
pub(super) fn of_statement(
    error: postgres::Error,
    query: &Query,
    types: &[Type],
    values: &[&SqlValue],
) -> DatabaseError {
    let places = || query.parameters().iter().zip(types).zip(values);
    let misfit = std::error::Error::source(&error).and_then(|e| e.downcast_ref());
    if let Some(Misfit::Parameter(_)) = misfit
        && let Err(unfit) = fit(query, types, values)
    {
        return unfit;
    }
    let Some(error) = error.as_db_error() else {
        return error.into();
    };
    // These codes come without a column. The parameter is named if only one can be meant.
    let suspects = |may: &dyn Fn(&Type, &SqlValue) -> bool| {
        let mut found = places().filter(|((_, ty), value)| may(wire::base(ty), value));
        match (found.next(), found.next()) {
            (Some(((name, ty), _)), None) => Some((name, wire::base(ty))),
            _ => None,
        }
    };
    let named = match error.code().code() {
        "22001" => longest(error.message()).and_then(|most| {
            let over = |ty: &Type, value: &SqlValue| {
                matches!(*ty, Type::VARCHAR | Type::BPCHAR)
                    && value.text().is_some_and(|text| text.chars().count() > most)
            };
            suspects(&over).map(|(name, _)| {
                DatabaseError::unfit(name, format!("at most {most} characters long"))
            })
        }),
        "22003" => suspects(&|ty, value| *ty == Type::NUMERIC && *value != SqlValue::Null)
            .map(|(name, _)| DatabaseError::unfit(name, "a number with fewer digits")),
        "22P02" => suspects(&|ty, value| {
            let Kind::Enum(labels) = ty.kind() else {
                return false;
            };
            value.text().is_some_and(|text| !labels.contains(&text))
        })
        .map(|(name, ty)| DatabaseError::unfit(name, wire::expected(ty))),
        _ => None,
    };
    named.unwrap_or_else(|| of_server(error, query.parameters()))
}

/// The number in `value too long for type character varying(5)`.
fn longest(message: &str) -> Option<usize> {
    let (_, length) = message.strip_suffix(')')?.rsplit_once('(')?;
    length.parse().ok()
}

fn of_server(error: &DbError, parameters: &[String]) -> DatabaseError {
    // The message only: DETAIL quotes values of the row, and STATEMENT the SQL.
    let what = error.message().to_owned();
    let field = || error.detail().and_then(key_columns);
    match error.code().code() {
        "57014" | "55P03" => DatabaseError::TooSlow(what),
        // Serialization failure and deadlock.
        "40001" | "40P01" => DatabaseError::Contended(what),
        "23502" => match error.column() {
            Some(column) => DatabaseError::unfit(column, NOT_NULL),
            None => DatabaseError::Invalid(what),
        },
        "23505" => DatabaseError::conflict(field(), NOT_UNIQUE),
        "23514" => match error.constraint() {
            Some(constraint) => {
                let table = error.table().unwrap_or_default();
                let name = checked_column(table, constraint, parameters);
                DatabaseError::unfit(name, allowed_by(constraint))
            }
            None => DatabaseError::Invalid(what),
        },
        "23503" | "23001" => {
            let what = match what.starts_with("update or delete") {
                true => "is still referenced by another row",
                false => "references a row that was not found",
            };
            DatabaseError::conflict(field(), what)
        }
        // Connection lost, out of resources, shutting down or starting.
        code => match code.get(..2).unwrap_or_default() {
            "08" | "53" | "57" | "58" => DatabaseError::Unavailable(what),
            // The code that functions raise for a wrong argument, with a message of their own.
            "22" if code == "22023" => DatabaseError::Invalid(without_quotes(&what)),
            "22" => DatabaseError::Invalid(without_values(&what)),
            "23" => {
                let constraint = error.constraint().unwrap_or("a constraint");
                DatabaseError::conflict(field(), format!("violates {constraint}"))
            }
            _ => DatabaseError::Failed(what),
        },
    }
}

/// The columns in `Key (a, b)=(1, 2) already exists.`, in any language.
fn key_columns(detail: &str) -> Option<String> {
    let (_, rest) = detail.split_once('(')?;
    let (columns, _) = rest.split_once(")=(")?;
    Some(columns.to_owned())
}

/// The column that a check is about, or the check's name. Postgres itself calls a check of one
/// column `table_column_check`.
fn checked_column<'a>(table: &str, constraint: &'a str, parameters: &[String]) -> &'a str {
    let inner = constraint
        .strip_prefix(table)
        .and_then(|rest| rest.strip_prefix('_')?.split_once("_check"));
    match inner {
        Some((column, _)) if parameters.iter().any(|p| p == column) => column,
        _ => constraint,
    }
}

/// A message without its quoted part: `invalid input syntax for type uuid: "x"`. A value may hold
/// quotes itself.
pub(super) fn without_quotes(message: &str) -> String {
    let (Some(first), Some(last)) = (message.find('"'), message.rfind('"')) else {
        return message.to_owned();
    };
    let text = format!("{}…{}", &message[..first], &message[last + 1..]);
    text.trim_end_matches([':', ' ', '…']).to_owned()
}

/// A message without its values, quoted or not: `date field value out of range: 2026-13-45`,
/// `index 7 out of valid range, 0..3`.
fn without_values(message: &str) -> String {
    let text = without_quotes(message);
    let text = text.split([':', ',']).next().unwrap_or_default();
    let number = |word: &str| !word.bytes().any(|byte| byte.is_ascii_alphabetic());
    let words = text.split(' ').map(|word| match word {
        word if word.bytes().any(|byte| byte.is_ascii_digit()) && number(word) => "…",
        word => word,
    });
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_kept_from_postgres_messages_and_values_are_not() {
        assert_eq!(
            key_columns("Key (a, b)=(1, )=(2) already exists.").as_deref(),
            Some("a, b")
        );
        assert_eq!(key_columns("Something else"), None);
        let parameters = ["age".to_owned(), "name".to_owned()];
        for (table, constraint, expected) in [
            ("users", "users_age_check", "age"),
            ("users", "users_age_check1", "age"),
            ("users", "users_check", "users_check"),
            ("users", "grown_up", "grown_up"),
            ("users", "users_email_check", "users_email_check"),
        ] {
            assert_eq!(checked_column(table, constraint, &parameters), expected);
        }
        assert_eq!(
            without_quotes("invalid input syntax for type uuid: \"a\"b\""),
            "invalid input syntax for type uuid"
        );
        assert_eq!(
            without_quotes("value \"1\" is out of range for type integer"),
            "value … is out of range for type integer"
        );
        for (message, expected) in [
            ("value too long for type character varying(5)", None),
            ("division by zero", None),
            (
                "bit string length 3 does not match type bit(5)",
                Some("bit string length … does not match type bit(5)"),
            ),
            (
                "time field value out of range: 25:00:0",
                Some("time field value out of range"),
            ),
            (
                "index -7 out of valid range, 0..3",
                Some("index … out of valid range"),
            ),
        ] {
            assert_eq!(without_values(message), expected.unwrap_or(message));
        }
        assert_eq!(
            longest("value too long for type character varying(5)"),
            Some(5)
        );
        assert_eq!(longest("value too long"), None);
    }
}
