//! The one place where the cache starts threads.

/// Starts a thread with this name, which runs `work` and then ends.
///
/// # Errors
/// If the system starts no more threads.
pub(crate) fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), String> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(work)
        .map(drop)
        .map_err(|error| format!("cannot start a thread: {error}"))
}
