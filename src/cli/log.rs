//! The log: on standard error, filtered by `RUST_LOG`, as text or as JSON by `LARDER_LOG`.
//!
//! The HTTP library logs an error for each malformed request. These are left out unless `RUST_LOG`
//! names that library: otherwise anybody who can connect could fill the log.
//!
//! Promise: no secret reaches the log, at any level. The crates that talk to upstreams and
//! databases log whole requests, with keys, at their finest levels. Everything below a warning of
//! theirs is left out, whatever `RUST_LOG` says.
//!
//! Promise: no message can look like another line. As JSON each record is one line. As text a
//! message has no control character but the line feed, and its further lines are indented.

mod json;

use std::backtrace::{Backtrace, BacktraceStatus};
use std::borrow::Cow;
use std::fmt::Display;
use std::io::{self, Write};
use std::panic::{PanicHookInfo, set_hook};
use std::process::ExitCode;
use std::sync::OnceLock;

use env_filter::Builder as Filter;
use env_logger::WriteStyle;
use env_logger::fmt::Formatter;
use log::kv::Source;
use log::{Level, LevelFilter, Log, Metadata, Record};

use crate::config::{
    ConfigError, ConfigErrors, Place, is_unprintable, process_environment, variable,
};

use super::apply::Refusal;
use super::output::print_error;

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

/// The variable that names the format.
const FORMAT_VARIABLE: &str = "LARDER_LOG";

/// The fields that a line of text shows after its message, and their names there. Its message has
/// the others.
const SHOWN_AS_TEXT: [(&str, &str); 2] = [("request_id", "id"), ("trace_id", "trace")];

/// The format of this process's log, once it has one.
static FORMAT: OnceLock<Format> = OnceLock::new();

/// How a record is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Text,
    Json,
}

struct Guarded {
    logger: env_logger::Logger,
    format: Format,
}

/// Starts to log to standard error. With a log in JSON a panic is a line of it, too.
///
/// # Errors
/// If `LARDER_LOG` is neither `text` nor `json`, or if this process has a logger already.
pub(super) fn start() -> Result<(), Refusal> {
    let format = Format::parse(variable(FORMAT_VARIABLE, &process_environment).as_deref())?;
    let asked = std::env::var("RUST_LOG").unwrap_or_default();
    let (filters, ignored) = valid_filters(&asked);
    let logger = build(&filters, format);
    let level = logger.filter();
    log::set_boxed_logger(Box::new(Guarded { logger, format }))
        .map_err(|_| Refusal::Failed("this process logs already".to_owned()))?;
    log::set_max_level(level);
    let _ = FORMAT.set(format);
    if format == Format::Json {
        set_hook(Box::new(write_panic));
    }
    for filter in ignored {
        log::warn!("RUST_LOG: {filter:?} is not a valid filter and is ignored");
    }
    Ok(())
}

/// Reports why a server does not start or go on: as a line of the log if that is JSON, whatever
/// `RUST_LOG` says, and else as it stands. Returns the exit code.
pub(super) fn report(refusal: &Refusal) -> ExitCode {
    let write = |text: &dyn Display| match FORMAT.get() {
        Some(Format::Json) => write_json(
            &Record::builder()
                .level(Level::Error)
                .target(module_path!())
                .args(format_args!("{text}"))
                .build(),
        ),
        Some(Format::Text) | None => print_error(text),
    };
    match refusal {
        Refusal::Configuration(errors) => {
            write(errors);
            ExitCode::from(2)
        }
        Refusal::Failed(why) => {
            write(&format_args!("larder: {why}"));
            ExitCode::FAILURE
        }
    }
}

impl Format {
    /// The format of this name. `None` is text.
    fn parse(name: Option<&str>) -> Result<Format, Refusal> {
        match name {
            None | Some("text") => Ok(Format::Text),
            Some("json") => Ok(Format::Json),
            Some(other) => Err(Refusal::Configuration(ConfigErrors {
                file: String::new(),
                errors: vec![ConfigError {
                    place: Place::Environment,
                    key: FORMAT_VARIABLE.to_owned(),
                    problem: format!("is {other:?}"),
                    valid: "text, json".to_owned(),
                }],
            })),
        }
    }
}

/// The valid filters of this value of `RUST_LOG`, or `info` if there are none; and the others.
fn valid_filters(asked: &str) -> (String, Vec<&str>) {
    // After a slash comes what a message must contain.
    let (filters, pattern) = asked.split_at(asked.find('/').unwrap_or(asked.len()));
    let is_valid = |filter: &&str| Filter::new().try_parse(filter).is_ok();
    let named = filters.split(',').map(str::trim);
    let named = named.filter(|filter| !filter.is_empty());
    let (valid, mut ignored): (Vec<&str>, Vec<&str>) = named.partition(is_valid);
    let mut kept = match valid.is_empty() {
        true => "info".to_owned(),
        false => valid.join(","),
    };
    if Filter::new().try_parse(pattern).is_ok() {
        kept.push_str(pattern);
    } else {
        ignored.push(pattern);
    }
    (kept, ignored)
}

/// A logger for these filters.
fn build(filters: &str, format: Format) -> env_logger::Logger {
    let mut builder = env_logger::Builder::new();
    builder.parse_filters(filters);
    if !filters.contains(HTTP) {
        builder.filter_module(HTTP, LevelFilter::Off);
    }
    match format {
        Format::Text => {
            builder.format_key_values(write_shown_fields);
            if let Ok(style) = std::env::var("RUST_LOG_STYLE") {
                builder.parse_write_style(&style);
            }
        }
        Format::Json => {
            builder.write_style(WriteStyle::Never);
            builder.format(|out, record| out.write_all(json::line(record).as_bytes()));
        }
    }
    builder.build()
}

fn write_shown_fields(out: &mut Formatter, fields: &dyn Source) -> io::Result<()> {
    for (field, name) in SHOWN_AS_TEXT {
        let value = fields.get(field.into());
        if let Some(text) = value.and_then(|value| value.to_borrowed_str()) {
            write!(out, " {name}={}", printable(text))?;
        }
    }
    Ok(())
}

/// The text, with escapes in place of what could move a terminal's cursor or reorder a line. A line
/// feed stays: the next line is indented.
fn printable(text: &str) -> Cow<'_, str> {
    let is_odd = |c: char| is_unprintable(c) && c != '\n' && c != '\t';
    if !text.contains(is_odd) {
        return text.into();
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_odd(c) {
            escaped.extend(c.escape_default());
        } else {
            escaped.push(c);
        }
    }
    escaped.into()
}

/// Writes a record as JSON without the logger: no filter can hide it.
fn write_json(record: &Record<'_>) {
    // Nobody can be told that standard error is gone.
    let _ = io::stderr().lock().write_all(json::line(record).as_bytes());
}

/// What a panic says, as JSON in place of text.
fn write_panic(panic: &PanicHookInfo<'_>) {
    let payload = panic.payload();
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let text = text.unwrap_or("(no text)");
    let thread = std::thread::current();
    let thread = thread.name().unwrap_or("(unnamed)");
    let location = panic.location().map(ToString::to_string);
    let location = location.as_deref().unwrap_or("(unknown)");
    // Captured if RUST_BACKTRACE asks for it.
    let backtrace = Backtrace::capture();
    let is_captured = backtrace.status() == BacktraceStatus::Captured;
    let backtrace = is_captured.then(|| backtrace.to_string());
    let fields = [
        ("thread", Some(thread)),
        ("location", Some(location)),
        ("backtrace", backtrace.as_deref()),
    ];
    write_json(
        &Record::builder()
            .level(Level::Error)
            .target("panic")
            .args(format_args!(
                "thread '{thread}' panicked at {location}: {text}"
            ))
            .key_values(&fields)
            .build(),
    );
}

fn is_silenced(metadata: &Metadata<'_>) -> bool {
    let handles = HANDLE_SECRETS
        .iter()
        .any(|name| metadata.target().starts_with(name));
    handles && metadata.level() > LevelFilter::Warn
}

impl Log for Guarded {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        !is_silenced(metadata) && self.logger.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if is_silenced(record.metadata()) || !self.logger.matches(record) {
            return;
        }
        match self.format {
            Format::Json => self.logger.log(record),
            Format::Text => {
                let message = record.args().to_string();
                let message = printable(&message);
                let mut printable = record.to_builder();
                self.logger
                    .log(&printable.args(format_args!("{message}")).build());
            }
        }
    }

    fn flush(&self) {
        self.logger.flush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;
    use std::process::Command;

    #[test]
    fn the_log_of_malformed_requests_is_off_unless_asked_for() {
        let logs = |asked, target, level| {
            let logger = build(&valid_filters(asked).0, Format::Text);
            logger.enabled(&Metadata::builder().target(target).level(level).build())
        };
        let target = "actix_http::h1::dispatcher";
        for asked in ["", "info", "debug,larder=trace"] {
            assert!(!logs(asked, target, Level::Error), "{asked:?}");
            assert!(logs(asked, "actix_server::worker", Level::Error));
            assert!(logs(asked, "larder::cli::serve", Level::Info));
        }
        assert!(logs("info,actix_http=error", target, Level::Error));
        assert!(logs("actix_http", target, Level::Error));
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

    #[test]
    fn filters_that_are_not_valid_are_left_out() {
        for (asked, kept, ignored) in [
            ("", "info", &[][..]),
            ("warn", "warn", &[]),
            (" info, access=debug ,", "info,access=debug", &[]),
            ("warn/redis", "warn/redis", &[]),
            ("larder=loud", "info", &["larder=loud"]),
            ("warn,larder=loud,a=b=c", "warn", &["larder=loud", "a=b=c"]),
            ("warn/a/b", "warn", &["/a/b"]),
        ] {
            assert_eq!(
                valid_filters(asked),
                (kept.to_owned(), ignored.to_vec()),
                "{asked:?}"
            );
        }
    }

    #[test]
    fn the_formats_are_text_and_json() {
        assert!(matches!(Format::parse(None), Ok(Format::Text)));
        assert!(matches!(Format::parse(Some("text")), Ok(Format::Text)));
        assert!(matches!(Format::parse(Some("json")), Ok(Format::Json)));
        for wrong in ["JSON", "xml"] {
            let Err(Refusal::Configuration(errors)) = Format::parse(Some(wrong)) else {
                panic!("{wrong} is not valid");
            };
            let expected = format!("environment: LARDER_LOG: is \"{wrong}\"; valid: text, json");
            assert_eq!(errors.to_string(), expected);
        }
    }

    #[test]
    fn a_text_has_no_control_character_but_the_line_feed() {
        assert!(matches!(printable("a\tb\nc é"), Cow::Borrowed("a\tb\nc é")));
        assert_eq!(
            printable("a\r\u{1b}[2K\u{7f}\u{9b}\u{2028}\u{202e}b"),
            "a\\r\\u{1b}[2K\\u{7f}\\u{9b}\\u{2028}\\u{202e}b"
        );
    }

    /// Panics in a process of its own, because the hook is that of the whole process.
    #[test]
    fn a_panic_is_one_line_of_json() {
        const IN_CHILD: &str = "LARDER_TEST_PANIC";
        if std::env::var_os(IN_CHILD).is_some() {
            set_hook(Box::new(write_panic));
            let thread = std::thread::Builder::new().name("a \"load\"".to_owned());
            let text = "first\nsecond".to_owned();
            let ended = thread.spawn(move || panic!("{text}")).unwrap().join();
            assert!(ended.is_err());
            return;
        }
        let name = std::thread::current().name().unwrap().to_owned();
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", &name, "--nocapture"])
            .env(IN_CHILD, "1")
            .env("RUST_BACKTRACE", "1")
            .output()
            .unwrap();
        let said = String::from_utf8(child.stderr).unwrap();
        assert!(child.status.success(), "{said}");
        let lines: Vec<&str> = said.lines().filter(|line| line.starts_with('{')).collect();
        let [line] = lines[..] else {
            panic!("{said}");
        };
        let json: Value = serde_json::from_str(line).unwrap();
        assert_eq!(json["level"], "ERROR");
        assert_eq!(json["target"], "panic");
        assert_eq!(json["thread"], "a \"load\"");
        let (location, message) = (&json["location"], json["message"].as_str().unwrap());
        assert!(location.as_str().unwrap().contains("log.rs:"), "{line}");
        assert!(message.ends_with(": first\nsecond"), "{line}");
        assert!(
            json["backtrace"].as_str().unwrap().contains("panic"),
            "{line}"
        );
    }
}
