//! `larder health`: asks a server whether it is ready, for the health checks of containers.

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use crate::source::http::{Get, HttpClient, HttpSettings};

/// How long the server may take to answer.
const MAX_STALENESS: Duration = Duration::from_secs(5);

/// Asks the server at `url`, by default the one that the configuration describes. Exits with 0 when it says that it is ready.
pub(super) fn run(url: Option<String>, file: Option<&Path>) -> ExitCode {
    let url = match super::url_of_server(url, file) {
        Ok(url) => url,
        Err(code) => return code,
    };
    let client = HttpClient::new(HttpSettings::new("larder", MAX_STALENESS));
    let ready = format!("{}/readyz", url.trim_end_matches('/'));
    let question = Get {
        url: &ready,
        query: &[],
        headers: &[],
        secrets: &[],
    };
    match client.get(&question, Instant::now() + MAX_STALENESS) {
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
