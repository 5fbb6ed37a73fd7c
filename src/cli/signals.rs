//! Signals that would end the server although only one write failed.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::SIGXFSZ;
use signal_hook::flag;

/// From now on a write past the limit of a file's size (`ulimit -f`, `LimitFSIZE=` of systemd)
/// fails with `EFBIG`; without this it ends the process. A write to a closed pipe is an error
/// already: Rust's runtime sees to `SIGPIPE`.
pub(super) fn survive_full_files() -> Result<(), String> {
    // Nobody reads the flag. That there is a handler is what counts.
    flag::register(SIGXFSZ, Arc::new(AtomicBool::new(false)))
        .map(drop)
        .map_err(|error| format!("SIGXFSZ cannot be handled: {error}"))
}
