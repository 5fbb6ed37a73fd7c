//! The errors of a configuration, each with its place, its key and what would be valid.
//!
//! Promise: no error shows a value that may be a secret: a URL, a key, or the name of a variable,
//! which may be a key by mistake.

use std::fmt;

/// All errors of a configuration, in the order of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors {
    /// The name of the file.
    pub file: String,
    /// The errors.
    pub errors: Vec<ConfigError>,
}

impl ConfigErrors {
    /// Sorts the errors by their place in the file.
    pub fn sort(&mut self) {
        self.errors.sort_by_key(|error| error.place);
    }
}

/// One error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// Its place.
    pub place: Place,
    /// The path of the key, such as `resource.articles.ttl.memory`, or the name of a variable.
    /// Empty if there is neither.
    pub key: String,
    /// What is wrong, as a predicate: `is "1w"`.
    pub problem: String,
    /// What would be valid. Empty if the problem says it.
    pub valid: String,
}

/// The place of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// The file as a whole.
    File,
    /// A line of the file, counted from 1.
    Line(usize),
    /// A line and a column of the file, counted from 1, if it is not TOML.
    Column(usize, usize),
    /// The environment.
    Environment,
}

/// One line for each error: `config.toml:12: resource.articles.ttl.memory: is "1w"; valid: …`.
impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.errors.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            match error.place {
                Place::File => write!(f, "{}: ", self.file)?,
                Place::Line(line) => write!(f, "{}:{line}: ", self.file)?,
                Place::Column(line, column) => write!(f, "{}:{line}:{column}: ", self.file)?,
                Place::Environment => f.write_str("environment: ")?,
            }
            error.fmt(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.problem)?;
        if !self.valid.is_empty() {
            write!(f, "; valid: {}", self.valid)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}
impl std::error::Error for ConfigError {}
