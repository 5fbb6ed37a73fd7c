//! `larder check`: says whether a configuration is valid, and what it declares.
//!
//! Its statements are shown to the database, which prepares them and runs none; nothing is changed there. Where the database cannot
//! be reached that is said, and the rest counts.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use crate::config::{self, Config, ConfigError, ConfigErrors, Lookup, Place};
use crate::database::describe_all;
use crate::resource::{StatementFault, statement_faults, statements};

use super::{NO_RESOURCES, resource_table};

/// Checks the configuration that `serve` would take. Prints the table of its resources on standard output and returns 0, or
/// prints every fault on standard error and returns 2.
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
    match Config::load(path, env) {
        Ok((config, origin)) => {
            let all = statements(&config.resources);
            let described = if all.is_empty() {
                Ok(Vec::new())
            } else {
                describe_all(&config.database, &all)
            };
            let faults = match &described {
                Ok(described) => statement_faults(&config.resources, described),
                Err(_) => Vec::new(),
            };
            if !faults.is_empty() {
                writeln!(err, "{}", config_errors(&origin.to_string(), faults))?;
                return Ok(2);
            }
            out.write_all(resource_table::table(&config).as_bytes())?;
            out.flush()?;
            match described {
                Ok(_) => writeln!(err, "{origin}: valid")?,
                Err(why) => writeln!(
                    err,
                    "{origin}: valid as far as can be told: its statements are not checked, since the database cannot be asked: {why}"
                )?,
            }
            if config.resources.is_empty() {
                writeln!(err, "{origin}: warning: {NO_RESOURCES}")?;
            }
            Ok(0)
        }
        Err(errors) => {
            writeln!(err, "{errors}")?;
            Ok(2)
        }
    }
}

/// What is wrong with the statements of the configuration `file`, told as its other faults are.
pub(super) fn config_errors(file: &str, faults: Vec<StatementFault>) -> ConfigErrors {
    let error = |fault: StatementFault| ConfigError {
        place: Place::Line(fault.line),
        key: fault.key,
        problem: fault.problem,
        valid: fault.valid,
    };
    ConfigErrors {
        file: file.to_owned(),
        errors: faults.into_iter().map(error).collect(),
    }
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
