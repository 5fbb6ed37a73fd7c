//! The log, filtered by `RUST_LOG`.
//!
//! The HTTP library logs an error for each malformed request. These are left out unless `RUST_LOG`
//! names that library: otherwise anybody who can connect could fill the log.
//!
//! Promise: no secret reaches the log, at any level. The crates that talk to upstreams and
//! databases log whole requests, with keys, at their finest levels. Everything below a warning of
//! theirs is left out, whatever `RUST_LOG` says.

use log::{LevelFilter, Log, Metadata, Record};

/// Crates that handle secrets.
const HANDLE_SECRETS: [&str; 9] = [
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

/// The library that parses requests, and logs an error for each malformed one.
const HTTP: &str = "actix_http";

struct Guarded(env_logger::Logger);

/// Starts to log to standard error.
///
/// # Errors
/// If this process has a logger already.
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

/// A logger for this value of `RUST_LOG`.
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
    let handles = HANDLE_SECRETS
        .iter()
        .any(|name| metadata.target().starts_with(name));
    handles && metadata.level() > LevelFilter::Warn
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
    fn the_log_of_malformed_requests_is_off_unless_asked_for() {
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
    fn the_log_of_crates_with_secrets_has_warnings_only() {
        let silenced =
            |target, level| is_silenced(&Metadata::builder().target(target).level(level).build());
        assert!(silenced("ureq::unversioned::transport", Level::Debug));
        assert!(silenced("actix_http::h1", Level::Trace));
        assert!(!silenced("ureq", Level::Warn));
        assert!(!silenced("larder_cache::miss", Level::Trace));
    }
}
