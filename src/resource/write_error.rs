//! Why a write was not done.

use crate::database::DatabaseError;

use super::argument::BadParameter;

/// A write that was not done: nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WriteError {
    /// A parameter of the path or the query is not valid.
    Parameter(BadParameter),
    /// A field of the body is not valid.
    Field {
        /// Its name.
        field: String,
        /// What would be valid.
        valid: String,
    },
    /// Conflict: it violates a constraint of the database, such as uniqueness or a reference.
    Conflict {
        /// The field that violates it, where that is known.
        field: Option<String>,
        /// Why.
        why: String,
    },
    /// Not found: there is nothing to change.
    Absent,
    /// The caller's precondition failed.
    Changed,
    /// The precondition cannot be checked, because the value does not come from the database, or
    /// not all of it.
    Undecidable,
    /// The database failed.
    Database(DatabaseError),
}

impl From<DatabaseError> for WriteError {
    fn from(error: DatabaseError) -> WriteError {
        match error {
            DatabaseError::Unfit { parameter, valid } => WriteError::Field {
                field: parameter,
                valid,
            },
            DatabaseError::Conflict { field, what } => WriteError::Conflict { field, why: what },
            // Such as a division by zero: the database does not say which value is wrong.
            DatabaseError::Invalid(_) => WriteError::Field {
                field: "body".to_owned(),
                valid: "values that the statement can work with".to_owned(),
            },
            other => WriteError::Database(other),
        }
    }
}
