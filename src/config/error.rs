//! What is wrong with a configuration: every fault at once, each with its place, its key and what would be valid.
//!
//! Refuses to show a value that may hold a secret: a URL, a key, the name of a variable that a key was put into by mistake.

use std::fmt;

/// Everything that is wrong with one configuration, in the order of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors {
    /// The file, as it was named.
    pub file: String,
    /// The faults.
    pub errors: Vec<ConfigError>,
}

impl ConfigErrors {
    /// Puts the faults in the order of the file.
    pub fn sort(&mut self) {
        self.errors.sort_by_key(|error| error.place.order());
    }
}

/// One fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// Where it is.
    pub place: Place,
    /// The path of the key, `resource.articles.ttl.memory`, or the name of the variable. Empty where there is neither.
    pub key: String,
    /// What is wrong, as a predicate: `is "1w", not a duration`.
    pub problem: String,
    /// What would be valid. Empty where that is plain from the problem.
    pub valid: String,
}

/// Where a fault is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// The file as a whole.
    File,
    /// A line of the file, counted from 1.
    Line(usize),
    /// A line and a column of the file, counted from 1, where it is no TOML.
    Column(usize, usize),
    /// The environment.
    Environment,
}

impl Place {
    /// The order in which faults are told: by line, then the environment's.
    pub(super) fn order(self) -> (usize, usize) {
        match self {
            Place::File => (0, 0),
            Place::Line(line) => (line, 0),
            Place::Column(line, column) => (line, column),
            Place::Environment => (usize::MAX, 0),
        }
    }
}

/// One line for each fault: `config.toml:12: resource.articles.ttl.memory: is "1w", not a duration; valid: …`.
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
