//! `larder openapi`: prints the document that the server would serve as `/openapi.json`.
//!
//! Promise: no server is needed, and nothing is changed. The database is asked about the columns of
//! the statements, as `larder check` asks. Standard output has the whole document or nothing:
//! unless the caller wants it without columns, a database that does not answer is an error.

use std::path::Path;
use std::process::ExitCode;

use clap::Args;

use crate::api::openapi::document;
use crate::config::{Config, ConfigErrors, process_environment};
use crate::database::describe_all;
use crate::resource::{Descriptions, descriptions, statement_faults, statements};

use super::apply::{Refusal, config_faults};
use super::log::report;
use super::output::print;

#[derive(Args, Debug)]
pub(super) struct OpenapiArguments {
    /// Do not ask the database: a row is an object of unknown members
    #[arg(long)]
    without_columns: bool,
}

/// Prints the document on standard output and returns 0; or prints every fault of the configuration
/// on standard error and returns 2; or says what else failed and returns 1.
pub(super) fn run(arguments: &OpenapiArguments, file: Option<&Path>) -> ExitCode {
    match text(arguments, file) {
        Ok(text) => print(&text).map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS),
        Err(refusal) => report(&refusal),
    }
}

fn text(arguments: &OpenapiArguments, file: Option<&Path>) -> Result<String, Refusal> {
    let loaded = Config::load(file, &process_environment);
    let (config, origin) = loaded.map_err(Refusal::Configuration)?;
    let statements = statements(&config.resources);
    let known = if arguments.without_columns || statements.is_empty() {
        Descriptions::new()
    } else {
        let asked = describe_all(&config.database, &statements);
        let (described, _) = asked.map_err(|why| {
            format!(
                "the database cannot be queried, so the columns are not known \
                 (--without-columns prints the document without them): {why}"
            )
        })?;
        let faults = statement_faults(&config.resources, &described);
        if !faults.is_empty() {
            return Err(Refusal::Configuration(ConfigErrors {
                file: origin.to_string(),
                errors: config_faults(faults),
            }));
        }
        descriptions(&config.resources, &described)
    };
    let document = document(&config.resources, &known, config.auth.required)?;
    Ok(document)
}
