//! `larder health`: asks a server whether it is ready, for the health checks of containers.

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use crate::source::http::{HttpClient, HttpRequest, HttpSettings};

use super::output::{failed, print};
use super::target::url_of_server;

/// How long the server may take to answer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Asks the server at `url`, by default the one that the configuration describes. Exits with 0 if
/// it is ready.
pub(super) fn run(url: Option<String>, file: Option<&Path>) -> ExitCode {
    let url = match url_of_server(url, file) {
        Ok(url) => url,
        Err(code) => return code,
    };
    let client = HttpClient::new(HttpSettings::new("larder", TIMEOUT));
    let ready = format!("{}/readyz", url.trim_end_matches('/'));
    match client.ask(&HttpRequest::get(&ready), Instant::now() + TIMEOUT) {
        Ok(answer) if answer.status == 200 => {
            // The exit code says so too: a failed print does not matter.
            let _ = print("ready");
            ExitCode::SUCCESS
        }
        Ok(answer) => failed(&format_args!(
            "{url} answers {}: {}",
            answer.status,
            String::from_utf8_lossy(&answer.body)
        )),
        Err(error) => failed(&format_args!("{url}: {error}")),
    }
}
