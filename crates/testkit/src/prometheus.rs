//! A Prometheus of one test, and `promtool`, which checks its files and what it scrapes.

use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use tempfile::TempDir;

use crate::client::Call;
use crate::process::Process;
use crate::{SOON, free_address, until};

const INSTALL: &str = "apt-get install prometheus";

/// Runs `promtool` with this standard input. Returns what it wrote, or panics with it if it fails.
#[track_caller]
pub fn promtool(arguments: &[&str], input: &str) -> String {
    let mut child = Command::new("promtool")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| {
            panic!("promtool does not run, and these tests need it ({INSTALL}): {error}")
        });
    // It reads all before it writes.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(output.status.success(), "promtool {arguments:?}:\n{said}");
    said
}

pub struct Prometheus {
    address: SocketAddr,
    process: Process,
    /// Removed after the process has ended.
    _folder: TempDir,
}

impl Prometheus {
    /// Starts one with this configuration and waits until it is ready.
    #[track_caller]
    pub fn start(config: &str) -> Prometheus {
        let (folder, address) = (tempfile::tempdir().unwrap(), free_address());
        let file = folder.path().join("prometheus.yml");
        fs::write(&file, config).unwrap();
        let mut command = Command::new("prometheus");
        command
            .current_dir(folder.path())
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--web.listen-address={address}"))
            .args(["--storage.tsdb.path=data", "--log.level=warn"]);
        let log = folder.path().join("log");
        let process = Process::spawn(command, &log, INSTALL);
        let mut prometheus = Prometheus {
            address,
            process,
            _folder: folder,
        };
        until(SOON, "Prometheus is ready", || {
            prometheus.process.must_run();
            let answer = Call::new(address, "GET", "/-/ready").try_send();
            answer.is_ok_and(|answer| answer.status == 200)
        });
        prometheus
    }

    /// The series that answer `query` now.
    #[track_caller]
    pub fn query(&self, query: &str) -> Vec<Value> {
        self.ask(&format!("query?query={}", encoded(query)))["result"]
            .as_array()
            .unwrap()
            .clone()
    }

    /// The series that answer `query` at each second from `start` to `end`, in seconds since 1970.
    #[track_caller]
    pub fn query_range(&self, query: &str, start: i64, end: i64) -> Vec<Value> {
        let query = encoded(query);
        let data = self.ask(&format!(
            "query_range?query={query}&start={start}&end={end}&step=1"
        ));
        data["result"].as_array().unwrap().clone()
    }

    /// The alerts that are pending or firing: `labels`, `state`, `value`.
    #[track_caller]
    pub fn alerts(&self) -> Vec<Value> {
        self.ask("alerts")["alerts"].as_array().unwrap().clone()
    }

    /// What it logged: warnings and errors.
    pub fn log(&self) -> String {
        self.process.log()
    }

    #[track_caller]
    fn ask(&self, what: &str) -> Value {
        let call = Call::new(self.address, "GET", &format!("/api/v1/{what}"));
        call.send().expect(200).json()["data"].take()
    }
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}
