//! Why the database gave nothing, split by what the caller does next.

use std::fmt;

/// What went wrong at the database. No text names a password, nor holds the SQL of a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DatabaseError {
    /// The settings, the schema or a file of SQL is wrong: trying again helps nobody, an operator does.
    Misconfigured(String),
    /// The database cannot be reached, is shutting down, or has no connection free: later may be better.
    Unavailable(String),
    /// The statement, or the lock it waited for, took longer than it may.
    TooSlow(String),
    /// The same again may succeed: a change that ran at the same time came first.
    Contended(String),
    /// The change goes against what is stored already: a duplicate, a reference to nothing.
    Conflict {
        /// The columns, separated by commas, where the database tells them.
        field: Option<String>,
        /// What is wrong, without the values: `is taken already`.
        what: String,
    },
    /// A parameter or a column cannot take the value that was given for it.
    Unfit {
        /// The parameter or the column; a constraint where the database tells no more.
        parameter: String,
        /// What it takes: `a whole number from -32768 to 32767`.
        valid: String,
    },
    /// A value given to the statement does not fit, and the database does not tell which.
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
            | DatabaseError::Contended(what)
            | DatabaseError::Conflict { field: None, what }
            | DatabaseError::Invalid(what)
            | DatabaseError::Failed(what) => f.write_str(what),
            DatabaseError::Conflict {
                field: Some(field),
                what,
            } => write!(f, "{field} {what}"),
            DatabaseError::Unfit { parameter, valid } => write!(f, "{parameter} has to be {valid}"),
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

/// The error and what caused it. The client's own text often says no more than "error connecting to server".
pub(super) fn chain(error: &dyn std::error::Error) -> String {
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
