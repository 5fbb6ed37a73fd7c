//! An idle larder without configuration: start-up time, memory and threads.

use std::process::Command;
use std::time::{Duration, Instant};

use testkit::free_address;

use super::processes::{Process, status, until_ready};
use super::report::Report;
use super::support::quantile;

/// Starts it several times in an empty folder. Memory and threads are those of the last one, once
/// it is idle.
pub fn measure(report: &mut Report) {
    const STARTS: usize = 7;
    let mut took = Vec::new();
    let mut last = None;
    for _ in 0..STARTS {
        drop(last.take());
        let folder = tempfile::tempdir().unwrap();
        let at = free_address();
        let began = Instant::now();
        let process = Process::start(
            Command::new(env!("CARGO_BIN_EXE_larder"))
                .current_dir(folder.path())
                .env_clear()
                .args(["serve", "--bind", &at.to_string()])
                .stderr(std::process::Stdio::null()),
        );
        until_ready(at);
        took.push(began.elapsed().as_secs_f64());
        last = Some((process, folder));
    }
    std::thread::sleep(Duration::from_secs(2));
    let (process, _folder) = last.expect("it was started");
    let memory = status(process.id(), "VmRSS") * 1024;
    let threads = status(process.id(), "Threads");
    report.idle(quantile(took, 0.5), memory, threads);
}
