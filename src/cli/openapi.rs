//! `larder openapi`: prints the document that the server would serve as `/openapi.json`.
//!
//! Promise: no server is needed, and nothing is changed. The database is asked about the columns of
//! the statements, as `larder check` asks. If it does not answer, the document says of a row only
//! that it is an object, and standard error says why.

use std::path::Path;
use std::process::ExitCode;

use crate::api::openapi::document;
use crate::config::{Config, ConfigErrors, process_environment};
use crate::database::describe_all;
use crate::resource::{Descriptions, descriptions, statement_faults, statements};

use super::apply::config_faults;
use super::output::{print, print_error};

/// Prints the document on standard output and returns 0; or prints every fault of the configuration
/// on standard error and returns 2.
pub(super) fn run(file: Option<&Path>) -> ExitCode {
    match text(file) {
        Ok(text) => print(&text).map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS),
        Err(errors) => {
            print_error(&errors);
            ExitCode::from(2)
        }
    }
}

fn text(file: Option<&Path>) -> Result<String, ConfigErrors> {
    let (config, origin) = Config::load(file, &process_environment)?;
    let statements = statements(&config.resources);
    let asked = match statements.is_empty() {
        true => Ok(Default::default()),
        false => describe_all(&config.database, &statements),
    };
    let known = match asked {
        Ok((described, _)) => {
            let faults = statement_faults(&config.resources, &described);
            if !faults.is_empty() {
                return Err(ConfigErrors {
                    file: origin.to_string(),
                    errors: config_faults(faults),
                });
            }
            descriptions(&config.resources, &described)
        }
        Err(why) => {
            print_error(&format!(
                "larder: the database cannot be queried, so the document has no columns: {why}"
            ));
            Descriptions::new()
        }
    };
    Ok(document(&config.resources, &known, config.auth.required))
}
