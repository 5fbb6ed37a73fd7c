//! `larder check`: says whether larder would start with a configuration, and what it declares.
//!
//! Promise: it does with the database what a start does, in a transaction that is rolled back, or
//! without the file where a SQLite file is not there yet. Every fault is told in one run: those of the
//! file, of its environment, of the database and of each statement. Redis is not asked.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use crate::config::{self, Config, ConfigError, ConfigErrors, Lookup, Place};
use crate::database::{DatabaseError, DatabaseSettings, describe_all};
use crate::resource::{ResourceSettings, StatementFault, statement_faults, statements};

use super::{NO_RESOURCES, resource_table};

/// Checks the configuration that `serve` would take. Prints the table of its resources on standard
/// output and returns 0; or prints every fault on standard error and returns 2; or says that the
/// database cannot be asked and returns 1.
pub fn run(path: Option<&Path>) -> ExitCode {
    let env = &config::process_environment;
    let written = check(
        path,
        env,
        &mut io::stdout().lock(),
        &mut io::stderr().lock(),
    );
    // A reader that went away is not a fault of the configuration, but nobody was told the outcome either.
    written.map_or(ExitCode::FAILURE, ExitCode::from)
}

fn check(
    path: Option<&Path>,
    env: Lookup<'_>,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> io::Result<u8> {
    let survey = Config::survey(path, env);
    let asked = match &survey.config {
        Some(config) if survey.knows_its_database() => ask(&config.database, &config.resources),
        _ => Ok(Vec::new()),
    };
    let (origin, config, mut errors) = (survey.origin, survey.config, survey.errors);
    let unasked = match asked {
        Ok(faults) => {
            errors.errors.extend(faults);
            None
        }
        Err(why) => Some(why),
    };
    errors.sort();
    if let Some(config) = config.filter(|_| errors.errors.is_empty()) {
        out.write_all(resource_table::table(&config).as_bytes())?;
        out.flush()?;
        if config.resources.is_empty() {
            writeln!(err, "{origin}: warning: {NO_RESOURCES}")?;
        }
        if unasked.is_none() {
            writeln!(err, "{origin}: valid")?;
            return Ok(0);
        }
    } else {
        writeln!(err, "{errors}")?;
    }
    if let Some(why) = unasked {
        writeln!(
            err,
            "{origin}: larder would not start: the database cannot be asked, so the statements are not checked: {why}"
        )?;
    }
    Ok(if errors.errors.is_empty() { 1 } else { 2 })
}

/// What the database finds wrong. Errors if it cannot be asked.
fn ask(
    database: &DatabaseSettings,
    resources: &[ResourceSettings],
) -> Result<Vec<ConfigError>, DatabaseError> {
    match describe_all(database, &statements(resources)) {
        Ok(described) => Ok(told(statement_faults(resources, &described))),
        // An operator has to change something, here or in the database.
        Err(DatabaseError::Misconfigured(problem)) => Ok(vec![ConfigError {
            place: Place::File,
            key: "database".to_owned(),
            problem,
            valid: String::new(),
        }]),
        Err(why) => Err(why),
    }
}

/// What is wrong with the statements of the configuration `file`, told as its other faults are.
pub(super) fn config_errors(file: &str, faults: Vec<StatementFault>) -> ConfigErrors {
    ConfigErrors {
        file: file.to_owned(),
        errors: told(faults),
    }
}

fn told(faults: Vec<StatementFault>) -> Vec<ConfigError> {
    let error = |fault: StatementFault| ConfigError {
        place: Place::Line(fault.line),
        key: fault.key,
        problem: fault.problem,
        valid: fault.valid,
    };
    faults.into_iter().map(error).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_file(text: &str) -> (u8, String, String) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.toml");
        std::fs::write(&path, text).unwrap();
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let code = check(Some(&path), &|_| None, &mut out, &mut err).unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let err = text(err).replace(path.to_str().unwrap(), "x.toml");
        (code, text(out), err)
    }

    #[test]
    fn a_valid_file_gives_its_table() {
        let (code, out, err) = check_file(include_str!("../../config.toml"));
        assert_eq!(code, 0);
        assert!(out.contains("/articles"), "{out}");
        assert_eq!(err, "x.toml: valid\n");
    }

    #[test]
    fn a_file_that_declares_no_resource_is_warned_about() {
        let (code, _, err) = check_file("[server]\nworkers = 1\n");
        assert_eq!(code, 0);
        assert_eq!(
            err,
            format!("x.toml: valid\nx.toml: warning: {NO_RESOURCES}\n")
        );
    }

    #[test]
    fn a_wrong_file_gives_every_fault() {
        let (code, out, err) = check_file("[server]\nworkers = -1\nbind = 5\n");
        assert_eq!((code, out.as_str()), (2, ""));
        assert_eq!(
            err,
            format!(
                "x.toml:2: server.workers: is -1; valid: a whole number from 0 to 1024\n\
                 x.toml:3: server.bind: is 5; valid: {}\n",
                config::BIND_FORM
            )
        );
    }
}
