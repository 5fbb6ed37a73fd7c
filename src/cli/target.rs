//! The server that a command talks to, and the configuration that describes it.

use std::path::Path;
use std::process::ExitCode;

use crate::config::{Config, process_environment};

use super::output::print_error;

/// Checks the argument `--url`.
pub(super) fn server_url(text: &str) -> Result<String, String> {
    let host = text
        .strip_prefix("http://")
        .or_else(|| text.strip_prefix("https://"));
    let valid = host.is_some_and(|host| !host.is_empty() && !host.contains(char::is_whitespace));
    if valid {
        Ok(text.to_owned())
    } else {
        Err("want http:// or https:// and a host".to_owned())
    }
}

/// The configuration. If it is not valid, prints every fault and returns the exit code.
pub(super) fn configuration(file: Option<&Path>) -> Result<Config, ExitCode> {
    let loaded = Config::load(file, &process_environment);
    loaded.map(|(config, _)| config).map_err(|errors| {
        print_error(&errors);
        ExitCode::from(2)
    })
}

/// `url` if it is given, or else the URL of the server that the configuration describes.
pub(super) fn url_of_server(url: Option<String>, file: Option<&Path>) -> Result<String, ExitCode> {
    match url {
        Some(url) => Ok(url),
        None => configuration(file).map(|config| own_url(&config.server.bind)),
    }
}

/// The URL at which this machine reaches a server that listens on `bind`.
pub(super) fn own_url(bind: &str) -> String {
    let (host, port) = bind.rsplit_once(':').unwrap_or((bind, ""));
    match host {
        "0.0.0.0" => format!("http://127.0.0.1:{port}"),
        "[::]" => format!("http://[::1]:{port}"),
        _ => format!("http://{host}:{port}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_on_all_addresses_is_reached_on_loopback() {
        assert_eq!(own_url("0.0.0.0:8000"), "http://127.0.0.1:8000");
        assert_eq!(own_url("[::]:8000"), "http://[::1]:8000");
        assert_eq!(own_url("localhost:80"), "http://localhost:80");
    }
}
