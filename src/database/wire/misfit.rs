//! Why a value cannot cross the wire.

use std::fmt;

/// A value that has no form in the type on the other side.
#[derive(Debug)]
pub(in crate::database) enum Misfit {
    /// A parameter is not of its type. The text says what that type takes.
    Parameter(String),
    /// A column cannot be decoded. The text says why.
    Column(String),
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Misfit::Parameter(what) | Misfit::Column(what)) = self;
        f.write_str(what)
    }
}

impl std::error::Error for Misfit {}
