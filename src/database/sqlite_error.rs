//! Errors of SQLite as a [`DatabaseError`], with the field if SQLite names one.
//!
//! Promise: no text holds a value or the SQL.

use rusqlite::{ErrorCode, ffi};

use super::error::{DatabaseError, NOT_NULL, NOT_UNIQUE, allowed_by};

impl From<rusqlite::Error> for DatabaseError {
    fn from(error: rusqlite::Error) -> DatabaseError {
        of_statement(error, &[])
    }
}

/// The error of a statement that has these parameters.
pub(super) fn of_statement(error: rusqlite::Error, parameters: &[String]) -> DatabaseError {
    let what = match &error {
        // Without the text of the error as a whole, which quotes the SQL.
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
            DatabaseError::TooSlow("the statement timed out".to_owned())
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
        ffi::SQLITE_CONSTRAINT_NOTNULL => DatabaseError::unfit(&columns(named), NOT_NULL),
        ffi::SQLITE_CONSTRAINT_UNIQUE
        | ffi::SQLITE_CONSTRAINT_PRIMARYKEY
        | ffi::SQLITE_CONSTRAINT_ROWID => {
            // An index over expressions names no columns: `index 'name'`.
            let has_columns = !named.is_empty() && !named.starts_with("index ");
            DatabaseError::conflict(has_columns.then(|| columns(named)), NOT_UNIQUE)
        }
        ffi::SQLITE_CONSTRAINT_CHECK => {
            DatabaseError::unfit(checked_parameter(named, parameters), allowed_by(named))
        }
        ffi::SQLITE_CONSTRAINT_FOREIGNKEY => DatabaseError::conflict(
            None,
            "references a row that was not found, or is still referenced by another row",
        ),
        // `cannot store TEXT value in INTEGER column t.age`
        ffi::SQLITE_CONSTRAINT_DATATYPE => {
            let words: Vec<&str> = what.split(' ').collect();
            match words[..] {
                [.., "in", ty, "column", column] => {
                    DatabaseError::unfit(&columns(column), format!("of type {ty}"))
                }
                _ => DatabaseError::Invalid(what.to_owned()),
            }
        }
        // Among others, the message of a trigger's RAISE.
        _ => DatabaseError::conflict(None, what),
    }
}

/// The columns of `t.a, t.b`, without the table.
fn columns(named: &str) -> String {
    let columns: Vec<&str> = named
        .split(", ")
        .map(|column| column.rsplit_once('.').map_or(column, |(_, column)| column))
        .collect();
    columns.join(", ")
}

/// The parameter that a check is about, if its name or expression has only one. Else the check
/// itself.
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
    fn names_are_found_in_sqlite_messages() {
        let parameters = ["age".to_owned(), "name".to_owned()];
        for (check, expected) in [
            ("age > 0", "age"),
            ("length(name) < 5", "name"),
            ("age > length(name)", "age > length(name)"),
            ("grown_up", "grown_up"),
        ] {
            assert_eq!(checked_parameter(check, &parameters), expected);
        }
        assert_eq!(columns("t.a, t.b"), "a, b");
    }
}
