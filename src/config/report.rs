//! The faults of a document, collected while it is read; and those of what is no document at all.

use std::cell::RefCell;
use std::fmt::Display;

use toml::de::DeTable;

use super::error::{ConfigError, Place};

/// The faults found so far, and where in the file they are.
pub(super) struct Report {
    /// Where each line begins.
    lines: Vec<usize>,
    errors: RefCell<Vec<ConfigError>>,
}

impl Report {
    pub(super) fn new(text: &str) -> Report {
        let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        Report {
            lines: std::iter::once(0).chain(ends.map(|(i, _)| i + 1)).collect(),
            errors: RefCell::default(),
        }
    }

    /// The line that `at` is in.
    pub(super) fn line(&self, at: usize) -> usize {
        self.lines.partition_point(|begin| *begin <= at)
    }

    /// A fault of `key`, in the line of the byte `at`.
    pub(super) fn fault(&self, at: usize, key: &str, problem: impl Display, valid: impl Display) {
        self.push(Place::Line(self.line(at)), key, problem, valid);
    }

    fn push(&self, place: Place, key: &str, problem: impl Display, valid: impl Display) {
        self.errors.borrow_mut().push(ConfigError {
            place,
            key: key.to_owned(),
            problem: problem.to_string(),
            valid: valid.to_string(),
        });
    }

    /// A fault of the variable `name`.
    pub(super) fn environment(&self, name: &str, problem: impl Display, valid: impl Display) {
        self.push(Place::Environment, name, problem, valid);
    }

    /// All faults, in the order of the file.
    pub(super) fn into_errors(self) -> Vec<ConfigError> {
        let mut errors = self.errors.into_inner();
        errors.sort_by_key(|error| error.place.order());
        // What several resources share is read for each of them.
        errors.dedup();
        errors
    }
}

/// A document that is no TOML: its first fault on each line.
pub(super) fn parse_document<'t>(
    text: &'t str,
) -> Result<toml::Spanned<DeTable<'t>>, Vec<ConfigError>> {
    let (document, faults) = DeTable::parse_recoverable(text);
    if faults.is_empty() {
        return Ok(document);
    }
    let mut errors: Vec<ConfigError> = faults
        .iter()
        .map(|fault| {
            let at = fault.span().map_or(text.len(), |span| span.start);
            let before = text.get(..at).unwrap_or(text);
            let line_start = before.rfind('\n').map_or(0, |i| i + 1);
            ConfigError {
                place: Place::Column(
                    before.matches('\n').count() + 1,
                    before[line_start..].chars().count() + 1,
                ),
                key: String::new(),
                problem: fault.message().replace('\n', ", "),
                valid: String::new(),
            }
        })
        .collect();
    errors.sort_by_key(|error| error.place.order());
    errors.dedup_by_key(|error| error.place.order().0);
    Err(errors)
}
