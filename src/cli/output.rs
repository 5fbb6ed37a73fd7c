//! What a command prints.

use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;

/// Prints a line to standard output.
///
/// # Errors
/// If it cannot be written, for example because the reader is gone.
pub(super) fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush())
}

/// Prints a line to standard error.
pub(super) fn print_error(text: &dyn Display) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Prints why a command failed, and returns its exit code.
pub(super) fn failed(why: &dyn Display) -> ExitCode {
    print_error(&format_args!("larder: {why}"));
    ExitCode::FAILURE
}
