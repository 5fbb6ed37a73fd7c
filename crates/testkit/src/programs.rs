//! Clients that users have: `curl`, and Python with `requests`.

use std::process::{Command, Output, Stdio};

/// Runs `curl` with these arguments and without a configuration of its own. Returns what it printed
/// and its exit code.
#[track_caller]
pub fn curl(arguments: &[&str]) -> Output {
    let mut command = Command::new("curl");
    // The first argument, or curl ignores it.
    command
        .arg("-q")
        .args(["--silent", "--show-error", "--max-time", "60"]);
    let output = command.args(arguments).stdin(Stdio::null()).output();
    output.unwrap_or_else(|error| {
        panic!("curl does not run, and these tests need it (apt-get install curl): {error}")
    })
}

/// Runs a script with the Python that has `requests`. Panics with everything it printed if it fails.
#[track_caller]
pub fn python(script: &str, arguments: &[&str]) {
    let has_requests = |python: &&str| {
        let mut command = Command::new(python);
        let asked = command.args(["-c", "import requests"]).output();
        asked.is_ok_and(|asked| asked.status.success())
    };
    // A Python that was installed beside the system's own may lack its packages.
    let found = ["python3", "/usr/bin/python3"]
        .into_iter()
        .find(has_requests);
    let python = found.expect(
        "no python3 with requests, and these tests need it: apt-get install python3-requests",
    );
    let output = Command::new(python)
        // No file beside the script.
        .arg("-B")
        .arg(script)
        .args(arguments)
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(
        output.status.success(),
        "{script}: {}\n{said}",
        output.status
    );
}
