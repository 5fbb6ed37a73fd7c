//! Signals that would end the server because of one failed write.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::SIGXFSZ;
use signal_hook::flag;

/// Makes a write past the file size limit (`ulimit -f`, `LimitFSIZE=` of systemd) fail with
/// `EFBIG`; without this it ends the process. Rust's runtime already does the same for `SIGPIPE`.
pub(super) fn survive_full_files() -> Result<(), String> {
    // Nobody reads the flag; the handler alone prevents the default action.
    flag::register(SIGXFSZ, Arc::new(AtomicBool::new(false)))
        .map(drop)
        .map_err(|error| format!("SIGXFSZ cannot be handled: {error}"))
}
