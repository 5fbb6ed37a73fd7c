//! Why the database gave no result, split by what the caller does next.

use std::fmt;

pub(super) const NOT_NULL: &str = "a value that is not null";
pub(super) const NOT_UNIQUE: &str = "violates a uniqueness constraint";

/// What a check constraint takes.
pub(super) fn allowed_by(constraint: &str) -> String {
    format!("what the constraint {constraint} allows")
}

/// An error of the database. No text holds a password, the SQL of a query, or a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DatabaseError {
    /// The settings, the schema or an SQL file is wrong: an operator has to change something.
    Misconfigured(String),
    /// The database cannot be reached, is shutting down, or has no free connection: try later.
    Unavailable(String),
    /// The statement, or its wait for a lock, timed out.
    TooSlow(String),
    /// A conflict with a change at the same time: the same again may succeed.
    Contended(String),
    /// The change violates a constraint between rows: a duplicate, or a missing reference.
    Conflict {
        /// The columns, separated by commas, if the database names them.
        field: Option<String>,
        /// What is wrong, without values: `violates a uniqueness constraint`.
        what: String,
    },
    /// A value is not valid for its parameter or column.
    Unfit {
        /// The parameter or the column; a constraint if the database names nothing else.
        parameter: String,
        /// What would be valid: `a whole number from -32768 to 32767`.
        valid: String,
    },
    /// A value is not valid, and the database does not name its parameter.
    Invalid(String),
    /// Everything else: a statement that the database refuses, a result that cannot be read.
    Failed(String),
}

impl DatabaseError {
    pub(super) fn unfit(parameter: &str, valid: impl Into<String>) -> DatabaseError {
        DatabaseError::Unfit {
            parameter: parameter.to_owned(),
            valid: valid.into(),
        }
    }

    pub(super) fn conflict(field: Option<String>, what: impl Into<String>) -> DatabaseError {
        DatabaseError::Conflict {
            field,
            what: what.into(),
        }
    }
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
            DatabaseError::Unfit { parameter, valid } => write!(f, "{parameter} must be {valid}"),
        }
    }
}

impl std::error::Error for DatabaseError {}
