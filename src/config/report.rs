//! The errors of a document, collected while it is read, and those of a text that is not TOML.

use std::cell::RefCell;
use std::fmt::Display;

use toml::de::DeTable;

use super::error::{ConfigError, Place};

/// Errors of one file, at most. With more, the rest of the file is not checked.
const MOST: usize = 200;

/// The errors so far, and the lines of the file.
pub(super) struct Report {
    /// The byte at which each line begins.
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

    /// The line of the byte `at`.
    pub(super) fn line(&self, at: usize) -> usize {
        self.lines.partition_point(|begin| *begin <= at)
    }

    /// Adds an error of `key`, at the line of the byte `at`.
    pub(super) fn fault(&self, at: usize, key: &str, problem: impl Display, valid: impl Display) {
        self.push(Place::Line(self.line(at)), key, problem, valid);
    }

    fn push(&self, place: Place, key: &str, problem: impl Display, valid: impl Display) {
        if !self.is_full() {
            self.errors.borrow_mut().push(ConfigError {
                place,
                key: key.to_owned(),
                problem: problem.to_string(),
                valid: valid.to_string(),
            });
        }
    }

    /// Whether no further error will be added, so that the caller can stop.
    pub(super) fn is_full(&self) -> bool {
        self.errors.borrow().len() >= MOST
    }

    /// Adds an error of the variable `name`.
    pub(super) fn environment(&self, name: &str, problem: impl Display, valid: impl Display) {
        self.push(Place::Environment, name, problem, valid);
    }

    /// All errors, in the order of the file.
    pub(super) fn into_errors(self) -> Vec<ConfigError> {
        let mut errors = self.errors.into_inner();
        let is_full = errors.len() >= MOST;
        errors.sort_by_key(|error| error.place);
        // A table that several resources share is read for each of them.
        errors.dedup();
        if is_full {
            errors.insert(0, too_many());
        }
        errors
    }
}

fn too_many() -> ConfigError {
    ConfigError {
        place: Place::File,
        key: String::new(),
        problem: format!("has {MOST} or more errors; these are the first"),
        valid: String::new(),
    }
}

/// Parses a document.
///
/// # Errors
/// The first error of each line, if it is not TOML.
pub(super) fn parse_document<'t>(
    text: &'t str,
) -> Result<toml::Spanned<DeTable<'t>>, Vec<ConfigError>> {
    let (document, faults) = DeTable::parse_recoverable(text);
    if faults.is_empty() {
        return Ok(document);
    }
    let report = Report::new(text);
    let mut found: Vec<(usize, usize, &str)> = faults
        .iter()
        .map(|fault| {
            let at = fault.span().map_or(text.len(), |span| span.start);
            (report.line(at), at, fault.message())
        })
        .collect();
    found.sort_by_key(|(_, at, _)| *at);
    found.dedup_by_key(|(line, _, _)| *line);
    let is_full = found.len() >= MOST;
    found.truncate(MOST);
    let errors = found.into_iter().map(|(line, at, message)| {
        let start = report.lines.get(line - 1).copied().unwrap_or_default();
        let before = text.get(start..at).unwrap_or_default();
        ConfigError {
            place: Place::Column(line, before.chars().count() + 1),
            key: String::new(),
            problem: message.replace('\n', ", "),
            valid: String::new(),
        }
    });
    Err(is_full.then(too_many).into_iter().chain(errors).collect())
}
