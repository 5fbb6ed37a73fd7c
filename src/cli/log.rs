//! The log: `RUST_LOG`, by default what an operator wants to see.
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

struct Guarded(env_logger::Logger);

/// Begins to log to standard error.
///
/// # Errors
/// If this process logs already.
pub(crate) fn start() -> Result<(), log::SetLoggerError> {
    let environment = env_logger::Env::default().default_filter_or("info");
    let logger = env_logger::Builder::from_env(environment).build();
    let level = logger.filter();
    log::set_boxed_logger(Box::new(Guarded(logger)))?;
    log::set_max_level(level);
    Ok(())
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
    fn crates_that_hold_secrets_say_only_what_is_wrong() {
        let silenced =
            |target, level| is_silenced(&Metadata::builder().target(target).level(level).build());
        assert!(silenced("ureq::unversioned::transport", Level::Debug));
        assert!(silenced("actix_http::h1", Level::Trace));
        assert!(!silenced("ureq", Level::Warn));
        assert!(!silenced("larder::cache::miss", Level::Trace));
    }
}
