//! `larder check`: says whether larder would start with a configuration, and what it declares.
//!
//! Promise: the check does with the database what a start does, in a transaction that is rolled
//! back. It creates no SQLite file. One run prints every fault: those of the file, of its
//! environment, of the database and of each statement. Redis is not asked.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use crate::config::{self, Config, ConfigError, Lookup, Place};
use crate::database::{DatabaseError, DatabaseSettings, describe_all};
use crate::resource::{ResourceSettings, statement_faults, statements, watch_warnings};

use super::apply::{NO_RESOURCES, config_faults};
use super::resource_table;

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
    // A closed output is not a fault of the configuration, but nobody got the result either.
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
        _ => Ok(Default::default()),
    };
    let (origin, config, mut errors) = (survey.origin, survey.config, survey.errors);
    let unasked = match asked {
        Ok((faults, warnings)) => {
            errors.errors.extend(faults);
            for warning in warnings {
                writeln!(err, "warning: {warning}")?;
            }
            None
        }
        Err(why) => Some(why),
    };
    errors.sort();
    if let Some(config) = config.filter(|_| errors.errors.is_empty()) {
        out.write_all(resource_table::table(&config).as_bytes())?;
        out.flush()?;
        if unasked.is_none() {
            writeln!(err, "{origin}: valid")?;
            if config.resources.is_empty() {
                writeln!(err, "{origin}: warning: {NO_RESOURCES}")?;
            }
            return Ok(0);
        }
    } else {
        writeln!(err, "{errors}")?;
    }
    if let Some(why) = unasked {
        writeln!(
            err,
            "{origin}: larder would not start: the database cannot be queried, so the statements were not checked: {why}"
        )?;
    }
    Ok(if errors.errors.is_empty() { 1 } else { 2 })
}

/// The faults and the warnings of the database. Errors if it cannot be asked.
fn ask(
    database: &DatabaseSettings,
    resources: &[ResourceSettings],
) -> Result<(Vec<ConfigError>, Vec<String>), DatabaseError> {
    match describe_all(database, &statements(resources)) {
        Ok((described, watches)) => Ok((
            config_faults(statement_faults(resources, &described)),
            watch_warnings(resources, &described, &watches),
        )),
        // The operator has to change the configuration or the database.
        Err(DatabaseError::Misconfigured(problem)) => {
            let fault = ConfigError {
                place: Place::File,
                key: "database".to_owned(),
                problem,
                valid: String::new(),
            };
            Ok((vec![fault], Vec::new()))
        }
        Err(why) => Err(why),
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

    #[test]
    fn noise_is_refused_quickly_and_briefly() {
        let mut noise = String::new();
        let mut seed = 1u32;
        while noise.len() < 400_000 {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            noise.push(char::from(b' ' + (seed >> 24) as u8 % 95));
            if seed.is_multiple_of(7) {
                noise.push('\n');
            }
        }
        let keys = (0..40_000).map(|n| format!("key_{n} = {n}\n"));
        let tables = (0..20_000).map(|n| format!("[resource.r{n}]\nx = 1\n"));
        let tags = (0..60_000).map(|n| format!("\"t{n}\", "));
        let tags = format!("[resource.a]\ntags = [{}]\n", tags.collect::<String>());
        for (text, most) in [
            (noise, 201),
            (keys.collect(), 201),
            (tables.collect(), 201),
            (tags, 10),
            (format!("[server]\n{} = 1\n", "k".repeat(400_000)), 1),
        ] {
            let begun = std::time::Instant::now();
            let (code, _, err) = check_file(&text);
            assert_eq!(code, 2);
            assert!(err.lines().count() <= most, "{} lines", err.lines().count());
            // Quadratic work took more than a minute for some of these.
            assert!(begun.elapsed().as_secs() < 20, "{:?}", begun.elapsed());
        }
    }
}
