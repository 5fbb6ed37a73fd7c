//! What a database's refusal means: its codes and texts as a [`DatabaseError`], with the field where it tells one.
//!
//! Promise: no text of a refusal holds a value, neither of the row nor of the request: Postgres quotes them in its details and
//! in some messages. Names of columns, constraints and types are shown.

use postgres::error::DbError;
use postgres::types::{Kind, Type};
use rusqlite::ErrorCode;
use rusqlite::ffi;

use super::error::{DatabaseError, chain};
use super::query::Query;
use super::value::Value;
use super::wire::{self, Misfit};

impl From<postgres::Error> for DatabaseError {
    fn from(error: postgres::Error) -> DatabaseError {
        if let Some(refusal) = error.as_db_error() {
            return of_postgres(refusal, &[]);
        }
        if let Some(misfit) = std::error::Error::source(&error).and_then(|e| e.downcast_ref()) {
            return match misfit {
                Misfit::Given(valid) => DatabaseError::Invalid(format!("not {valid}")),
                Misfit::Found(what) => DatabaseError::Failed(what.clone()),
            };
        }
        DatabaseError::Unavailable(chain(&error))
    }
}

/// The error of a statement that ran with these values, naming the parameter where that is certain.
pub(super) fn of_statement(
    error: postgres::Error,
    query: &Query,
    wanted: &[Type],
    values: &[&Value],
) -> DatabaseError {
    let places = || query.parameters().iter().zip(wanted).zip(values);
    let given = std::error::Error::source(&error).and_then(|e| e.downcast_ref());
    if let Some(Misfit::Given(_)) = given {
        for ((name, ty), value) in places() {
            if let Err(Misfit::Given(valid)) = wire::encode(value, ty, &mut Default::default()) {
                return unfit(name, valid);
            }
        }
    }
    let Some(refusal) = error.as_db_error() else {
        return error.into();
    };
    // Codes that come without a column: where one parameter alone can be meant, it is named.
    let suspects = |may: &dyn Fn(&Type, &Value) -> bool| {
        let mut found = places().filter(|((_, ty), value)| may(wire::base(ty), value));
        match (found.next(), found.next()) {
            (Some(((name, ty), _)), None) => Some((name, wire::base(ty))),
            _ => None,
        }
    };
    let named = match refusal.code().code() {
        "22001" => longest(refusal.message()).and_then(|most| {
            let over = |ty: &Type, value: &Value| {
                matches!(*ty, Type::VARCHAR | Type::BPCHAR)
                    && value.text().is_some_and(|text| text.chars().count() > most)
            };
            suspects(&over).map(|(name, _)| unfit(name, format!("at most {most} characters long")))
        }),
        "22003" => suspects(&|ty, value| *ty == Type::NUMERIC && *value != Value::Null)
            .map(|(name, _)| unfit(name, "a number with fewer digits".to_owned())),
        "22P02" => suspects(&|ty, value| {
            let Kind::Enum(labels) = ty.kind() else {
                return false;
            };
            value.text().is_some_and(|text| !labels.contains(&text))
        })
        .map(|(name, ty)| unfit(name, wire::wanted(ty))),
        "22P05" => suspects(&|ty, value| *ty == Type::JSONB && *value != Value::Null)
            .map(|(name, _)| unfit(name, "JSON without NUL characters".to_owned())),
        _ => None,
    };
    named.unwrap_or_else(|| of_postgres(refusal, query.parameters()))
}

/// The number in `value too long for type character varying(5)`.
fn longest(message: &str) -> Option<usize> {
    let (_, length) = message.strip_suffix(')')?.rsplit_once('(')?;
    length.parse().ok()
}

pub(super) fn unfit(parameter: &str, valid: String) -> DatabaseError {
    DatabaseError::Unfit {
        parameter: parameter.to_owned(),
        valid,
    }
}

const NOT_NULL: &str = "a value that is not null";

fn taken(field: Option<String>) -> DatabaseError {
    let what = match field {
        Some(_) => "is taken already",
        None => "something that may be there once only is there already",
    };
    DatabaseError::Conflict {
        field,
        what: what.to_owned(),
    }
}

fn of_postgres(refusal: &DbError, parameters: &[String]) -> DatabaseError {
    // The message alone: DETAIL quotes values of the row, STATEMENT the SQL.
    let what = refusal.message().to_owned();
    match refusal.code().code() {
        "57014" | "55P03" => DatabaseError::TooSlow(what),
        // Serialization failure and deadlock.
        "40001" | "40P01" => DatabaseError::Contended(what),
        "23502" => match refusal.column() {
            Some(column) => unfit(column, NOT_NULL.to_owned()),
            None => DatabaseError::Invalid(what),
        },
        "23505" => taken(refusal.detail().and_then(key_columns)),
        "23514" => match refusal.constraint() {
            Some(constraint) => {
                let table = refusal.table().unwrap_or_default();
                let name = checked_column(table, constraint, parameters);
                unfit(name, valid_for(constraint))
            }
            None => DatabaseError::Invalid(what),
        },
        "23503" | "23001" => reference(refusal.detail().and_then(key_columns), &what),
        // Out of resources, shutting down or starting, connection lost.
        code => match code.get(..2).unwrap_or_default() {
            "08" | "53" | "57" | "58" => DatabaseError::Unavailable(what),
            // The code that functions raise for what they are given: their own words, with colons and numbers.
            "22" if code == "22023" => DatabaseError::Invalid(without_quotes(&what)),
            "22" => DatabaseError::Invalid(without_values(&what)),
            "23" => DatabaseError::Conflict {
                field: refusal.detail().and_then(key_columns),
                what: format!(
                    "goes against {}",
                    refusal.constraint().unwrap_or("a constraint")
                ),
            },
            _ => DatabaseError::Failed(what),
        },
    }
}

fn reference(field: Option<String>, message: &str) -> DatabaseError {
    let what = if message.starts_with("update or delete") {
        "is still referred to"
    } else {
        "refers to something that is not there"
    };
    DatabaseError::Conflict {
        field,
        what: what.to_owned(),
    }
}

fn valid_for(constraint: &str) -> String {
    format!("what the constraint {constraint} allows")
}

/// The columns in `Key (a, b)=(1, 2) already exists.`, in whatever language that is.
fn key_columns(detail: &str) -> Option<String> {
    let (_, rest) = detail.split_once('(')?;
    let (columns, _) = rest.split_once(")=(")?;
    Some(columns.to_owned())
}

/// Postgres calls a check of one column `table_column_check` unless it is told a name.
fn checked_column<'a>(table: &str, constraint: &'a str, parameters: &[String]) -> &'a str {
    let inner = constraint
        .strip_prefix(table)
        .and_then(|rest| rest.strip_prefix('_')?.split_once("_check"));
    match inner {
        Some((column, _)) if parameters.iter().any(|p| p == column) => column,
        _ => constraint,
    }
}

/// A message without what it quotes: `invalid input syntax for type uuid: "x"`. A value may hold quotes itself.
pub(super) fn without_quotes(message: &str) -> String {
    let (Some(first), Some(last)) = (message.find('"'), message.rfind('"')) else {
        return message.to_owned();
    };
    let text = format!("{}…{}", &message[..first], &message[last + 1..]);
    text.trim_end_matches([':', ' ', '…']).to_owned()
}

/// A message without its values, quoted or not: `date field value out of range: 2026-13-45`, `index 7 out of valid range, 0..3`.
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

impl From<rusqlite::Error> for DatabaseError {
    fn from(error: rusqlite::Error) -> DatabaseError {
        of_sqlite(error, &[])
    }
}

/// The error of a statement that ran on SQLite.
pub(super) fn of_sqlite(error: rusqlite::Error, parameters: &[String]) -> DatabaseError {
    let what = match &error {
        // The text of the whole error would quote the SQL.
        rusqlite::Error::SqlInputError { msg, .. } => {
            return DatabaseError::Failed(msg.clone());
        }
        rusqlite::Error::SqliteFailure(code, message) => {
            message.clone().unwrap_or_else(|| code.to_string())
        }
        other => other.to_string(),
    };
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => DatabaseError::TooSlow(what),
        Some(ErrorCode::OperationInterrupted) => {
            DatabaseError::TooSlow("the statement took too long".to_owned())
        }
        Some(ErrorCode::ConstraintViolation) => violation(&error, &what, parameters),
        Some(ErrorCode::TypeMismatch | ErrorCode::TooBig) => DatabaseError::Invalid(what),
        Some(ErrorCode::NotADatabase | ErrorCode::PermissionDenied | ErrorCode::ReadOnly) => {
            DatabaseError::Misconfigured(what)
        }
        Some(ErrorCode::CannotOpen | ErrorCode::DiskFull | ErrorCode::SystemIoFailure) => {
            DatabaseError::Unavailable(what)
        }
        _ => DatabaseError::Failed(what),
    }
}

fn violation(error: &rusqlite::Error, what: &str, parameters: &[String]) -> DatabaseError {
    let code = error.sqlite_error().map_or(0, |error| error.extended_code);
    let named = what.split_once(": ").map_or("", |(_, named)| named);
    match code {
        ffi::SQLITE_CONSTRAINT_NOTNULL => unfit(&columns(named), NOT_NULL.to_owned()),
        ffi::SQLITE_CONSTRAINT_UNIQUE
        | ffi::SQLITE_CONSTRAINT_PRIMARYKEY
        | ffi::SQLITE_CONSTRAINT_ROWID => {
            // An index over expressions has no columns: `index 'name'`.
            let indexed = named.is_empty() || named.starts_with("index ");
            taken((!indexed).then(|| columns(named)))
        }
        ffi::SQLITE_CONSTRAINT_CHECK => {
            unfit(checked_parameter(named, parameters), valid_for(named))
        }
        ffi::SQLITE_CONSTRAINT_FOREIGNKEY => DatabaseError::Conflict {
            field: None,
            what: "refers to something that is not there, or is still referred to".to_owned(),
        },
        // `cannot store TEXT value in INTEGER column t.age`
        ffi::SQLITE_CONSTRAINT_DATATYPE => {
            let words: Vec<&str> = what.split(' ').collect();
            match words[..] {
                [.., "in", ty, "column", column] => {
                    unfit(&columns(column), format!("of type {ty}"))
                }
                _ => DatabaseError::Invalid(what.to_owned()),
            }
        }
        // A trigger's own words, among others.
        _ => DatabaseError::Conflict {
            field: None,
            what: what.to_owned(),
        },
    }
}

/// `t.a, t.b` without the table.
fn columns(named: &str) -> String {
    let columns: Vec<&str> = named
        .split(", ")
        .map(|column| column.rsplit_once('.').map_or(column, |(_, column)| column))
        .collect();
    columns.join(", ")
}

/// The only parameter that occurs in the name or the expression of a check, or that text itself.
fn checked_parameter<'a>(check: &'a str, parameters: &'a [String]) -> &'a str {
    let words: Vec<&str> = check
        .split(|c: char| !(c.is_alphanumeric() || c == '_'))
        .collect();
    let mut found = parameters.iter().filter(|p| words.contains(&p.as_str()));
    match (found.next(), found.next()) {
        (Some(parameter), None) => parameter,
        _ => check,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_in_what_the_databases_say_and_values_are_not() {
        assert_eq!(
            key_columns("Key (a, b)=(1, )=(2) already exists.").as_deref(),
            Some("a, b")
        );
        assert_eq!(key_columns("Something else"), None);
        let parameters = ["age".to_owned(), "name".to_owned()];
        for (table, constraint, wanted) in [
            ("users", "users_age_check", "age"),
            ("users", "users_age_check1", "age"),
            ("users", "users_check", "users_check"),
            ("users", "grown_up", "grown_up"),
            ("users", "users_email_check", "users_email_check"),
        ] {
            assert_eq!(checked_column(table, constraint, &parameters), wanted);
        }
        for (check, wanted) in [
            ("age > 0", "age"),
            ("length(name) < 5", "name"),
            ("age > length(name)", "age > length(name)"),
            ("grown_up", "grown_up"),
        ] {
            assert_eq!(checked_parameter(check, &parameters), wanted);
        }
        assert_eq!(
            without_quotes("invalid input syntax for type uuid: \"a\"b\""),
            "invalid input syntax for type uuid"
        );
        assert_eq!(
            without_quotes("value \"1\" is out of range for type integer"),
            "value … is out of range for type integer"
        );
        for (message, wanted) in [
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
            assert_eq!(without_values(message), wanted.unwrap_or(message));
        }
        assert_eq!(
            longest("value too long for type character varying(5)"),
            Some(5)
        );
        assert_eq!(longest("value too long"), None);
        assert_eq!(columns("t.a, t.b"), "a, b");
    }
}
