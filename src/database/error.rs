//! Why the database gave nothing, split by what the caller does next.

use std::fmt;

use r2d2_sqlite::rusqlite;

use super::value::Misfit;

/// What went wrong at the database. No text names a password, nor holds the SQL of a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DatabaseError {
    /// The settings, the schema or a file of SQL is wrong: trying again helps nobody, an operator does.
    Misconfigured(String),
    /// The database cannot be reached, is shutting down, or has no connection free: later may be better.
    Unavailable(String),
    /// The statement, or the lock it waited for, took longer than it may.
    TooSlow(String),
    /// The change goes against a constraint: a duplicate, a missing reference.
    Conflict(String),
    /// A value given to the statement does not fit.
    Invalid(String),
    /// The rest: a statement that the database does not understand, a result that cannot be read.
    Failed(String),
}

impl fmt::Display for DatabaseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DatabaseError::Misconfigured(what)
            | DatabaseError::Unavailable(what)
            | DatabaseError::TooSlow(what)
            | DatabaseError::Conflict(what)
            | DatabaseError::Invalid(what)
            | DatabaseError::Failed(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for DatabaseError {}

impl DatabaseError {
    /// An error of a connection attempt: a server that is not there, or one that does not want us.
    pub(super) fn connecting(error: &postgres::Error) -> DatabaseError {
        let Some(refusal) = error.as_db_error() else {
            return DatabaseError::Unavailable(chain(error));
        };
        match refusal.code().code() {
            // Invalid authorization, no such database, not allowed to enter it.
            code if code.starts_with("28") || matches!(code, "3D000" | "42501") => {
                DatabaseError::Misconfigured(refusal.message().to_owned())
            }
            _ => DatabaseError::Unavailable(refusal.message().to_owned()),
        }
    }
}

impl From<postgres::Error> for DatabaseError {
    fn from(error: postgres::Error) -> DatabaseError {
        if let Some(refusal) = error.as_db_error() {
            // The message alone: DETAIL quotes values of the row, STATEMENT the SQL.
            let what = refusal.message().to_owned();
            return match refusal.code().code() {
                "57014" | "55P03" => DatabaseError::TooSlow(what),
                // Deadlock and serialization failure, out of resources, shutting down or starting, connection lost.
                "40001" | "40P01" => DatabaseError::Unavailable(what),
                code => match code.get(..2).unwrap_or_default() {
                    "08" | "53" | "57" | "58" => DatabaseError::Unavailable(what),
                    "22" => DatabaseError::Invalid(what),
                    "23" => DatabaseError::Conflict(what),
                    _ => DatabaseError::Failed(what),
                },
            };
        }
        if let Some(misfit) = std::error::Error::source(&error).and_then(|e| e.downcast_ref()) {
            return match misfit {
                Misfit::Given(what) => DatabaseError::Invalid(what.clone()),
                Misfit::Found(what) => DatabaseError::Failed(what.clone()),
            };
        }
        DatabaseError::Unavailable(chain(&error))
    }
}

impl From<rusqlite::Error> for DatabaseError {
    fn from(error: rusqlite::Error) -> DatabaseError {
        use rusqlite::ErrorCode;
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
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                DatabaseError::TooSlow(what)
            }
            Some(ErrorCode::ConstraintViolation) => DatabaseError::Conflict(what),
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
}

/// The error and what caused it. The client's own text often says no more than "error connecting to server".
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
