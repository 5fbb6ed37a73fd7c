//! `larder health`: asks a server whether it is ready, for the health checks of containers.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use crate::config::{Config, process_environment};
use crate::source::http::{Get, HttpClient, HttpSettings};

/// How long the server may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Asks the server at `url`, by default the one that the configuration describes. Exits with 0 when it says that it is ready.
pub(super) fn run(url: Option<String>, file: Option<PathBuf>) -> ExitCode {
    let url = match url {
        Some(url) => url,
        None => match Config::load(file.as_deref(), &process_environment) {
            Ok((config, _)) => super::own_url(&config.server.bind),
            Err(errors) => {
                super::say_error(&errors);
                return ExitCode::from(2);
            }
        },
    };
    if !url.starts_with("http://") && !url.starts_with("https://") {
        super::say_error(&"larder: --url wants http:// or https:// and a host");
        return ExitCode::from(2);
    }
    let client = HttpClient::new(HttpSettings::new("larder", PATIENCE));
    let ready = format!("{}/readyz", url.trim_end_matches('/'));
    let question = Get {
        url: &ready,
        query: &[],
        headers: &[],
        secrets: &[],
    };
    match client.get(&question, Instant::now() + PATIENCE) {
        Ok(answer) if answer.status == 200 => {
            // The exit code says it too, to whoever does not read.
            let _ = super::say("ready");
            ExitCode::SUCCESS
        }
        Ok(answer) => {
            super::say_error(&format!(
                "larder: {url} answers {}: {}",
                answer.status,
                String::from_utf8_lossy(&answer.body)
            ));
            ExitCode::FAILURE
        }
        Err(error) => {
            super::say_error(&format!("larder: {url}: {error}"));
            ExitCode::FAILURE
        }
    }
}
