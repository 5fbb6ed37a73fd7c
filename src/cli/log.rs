//! The log: `RUST_LOG`, by default what an operator wants to see. What the HTTP library says of requests that are no HTTP is not
//! that: whoever can connect would fill the log with it. It is left out unless `RUST_LOG` names that library.
//!
//! Promise: no secret reaches it, at any level. The crates that speak to upstreams and databases write whole requests, keys and
//! all, to their finest levels; what they say below a warning is left out, whatever `RUST_LOG` asks for.

use log::{LevelFilter, Log, Metadata, Record};

/// Crates that hold secrets in their hands.
const HOLD_SECRETS: [&str; 9] = [
    "ureq",
    "rustls",
    "redis",
    "postgres",
    "tokio_postgres",
    "r2d2",
    "actix",
    "h2",
    "mio",
];

/// What parses requests, and logs an error for each that it cannot.
const HTTP: &str = "actix_http";

struct Guarded(env_logger::Logger);

/// Begins to log to standard error.
///
/// # Errors
/// If this process logs already.
pub(crate) fn start() -> Result<(), log::SetLoggerError> {
    let asked = std::env::var("RUST_LOG").ok();
    let mut builder = filtered(asked.as_deref());
    if let Ok(style) = std::env::var("RUST_LOG_STYLE") {
        builder.parse_write_style(&style);
    }
    let logger = builder.build();
    let level = logger.filter();
    log::set_boxed_logger(Box::new(Guarded(logger)))?;
    log::set_max_level(level);
    Ok(())
}

/// A log of what `RUST_LOG` asks for.
fn filtered(asked: Option<&str>) -> env_logger::Builder {
    let asked = asked.filter(|asked| !asked.is_empty()).unwrap_or("info");
    let mut builder = env_logger::Builder::new();
    builder.parse_filters(asked);
    if !asked.contains(HTTP) {
        builder.filter_module(HTTP, LevelFilter::Off);
    }
    builder
}

fn is_silenced(metadata: &Metadata<'_>) -> bool {
    let holds = HOLD_SECRETS
        .iter()
        .any(|name| metadata.target().starts_with(name));
    holds && metadata.level() > LevelFilter::Warn
}

impl Log for Guarded {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        !is_silenced(metadata) && self.0.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if !is_silenced(record.metadata()) {
            self.0.log(record);
        }
    }

    fn flush(&self) {
        self.0.flush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use log::Level;

    #[test]
    fn what_is_no_http_is_said_only_to_those_who_ask() {
        let logs = |asked, target, level| {
            let logger = filtered(asked).build();
            logger.enabled(&Metadata::builder().target(target).level(level).build())
        };
        let target = "actix_http::h1::dispatcher";
        for asked in [None, Some(""), Some("info"), Some("debug,larder=trace")] {
            assert!(!logs(asked, target, Level::Error), "{asked:?}");
            assert!(logs(asked, "actix_server::worker", Level::Error));
            assert!(logs(asked, "larder::cli::serve", Level::Info));
        }
        assert!(logs(Some("info,actix_http=error"), target, Level::Error));
        assert!(logs(Some("actix_http"), target, Level::Error));
    }

    #[test]
    fn crates_that_hold_secrets_say_only_what_is_wrong() {
        let silenced =
            |target, level| is_silenced(&Metadata::builder().target(target).level(level).build());
        assert!(silenced("ureq::unversioned::transport", Level::Debug));
        assert!(silenced("actix_http::h1", Level::Trace));
        assert!(!silenced("ureq", Level::Warn));
        assert!(!silenced("larder_cache::miss", Level::Trace));
    }
}
