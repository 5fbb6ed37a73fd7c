//! Clients that users have: `curl`, and Python with `requests`.

use std::process::{Command, Output, Stdio};

/// Runs `curl` with these arguments and without a configuration of its own. Returns what it printed
/// and its exit code.
#[track_caller]
pub fn curl(arguments: &[&str]) -> Output {
    let mut command = Command::new("curl");
    // `-q` has to be the first argument.
    command.args(["-q", "--silent", "--show-error", "--max-time", "60"]);
    let output = command.args(arguments).stdin(Stdio::null()).output();
    output.unwrap_or_else(|error| {
        panic!("curl does not run, and these tests need it (apt-get install curl): {error}")
    })
}

/// The path of a Python that has `requests`.
#[track_caller]
pub fn python_with_requests() -> String {
    let path = |python: &str| {
        let mut command = Command::new(python);
        let asked = command.args(["-c", "import requests, sys; print(sys.executable)"]);
        let output = asked.output().ok().filter(|asked| asked.status.success())?;
        Some(String::from_utf8(output.stdout).unwrap().trim().to_owned())
    };
    // A Python that was installed beside the system's own may lack its packages.
    let found = ["python3", "/usr/bin/python3"].into_iter().find_map(path);
    found.expect(
        "no python3 with requests, and these tests need it: apt-get install python3-requests",
    )
}

/// Runs a script with that Python. Panics with everything it printed if it fails.
#[track_caller]
pub fn python(script: &str, arguments: &[&str]) {
    let output = Command::new(python_with_requests())
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
