//! A part of a test in its own process: the test binary again, running this test alone.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{self, ChildStdin, ChildStdout, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

const ROLE: &str = "LARDER_TEST_ROLE";
const URL: &str = "LARDER_TEST_URL";

/// The line by which a child reports that it is ready.
const READY: &str = "the child is ready";

/// The task of this process if it is a child: the role, and the URL of a Redis.
pub(super) fn role() -> Option<(String, String)> {
    Some((std::env::var(ROLE).ok()?, std::env::var(URL).ok()?))
}

/// For a child: reports to its parent, and waits until the parent lets it go on.
pub(super) fn ready() {
    // In one write: the test runner writes to the same place.
    println!("\n{READY}");
    std::io::stdin().read_line(&mut String::new()).unwrap();
}

/// The names of the threads of this process.
pub(super) fn threads() -> Vec<String> {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    // A thread may end while it is looked at.
    let name = |task: fs::DirEntry| fs::read_to_string(task.path().join("comm")).ok();
    let mut names: Vec<String> = tasks
        .filter_map(|task| name(task.ok()?))
        .map(|name| name.trim_end().to_owned())
        .collect();
    names.sort();
    names
}

pub(super) struct Child {
    process: process::Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Child {
    /// Starts `test`, by its whole name, as a child in this role.
    pub(super) fn start(test: &str, role: &str, url: &str) -> Child {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture", "--test-threads=1"])
            .env(ROLE, role)
            .env(URL, url)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Child {
            input: process.stdin.take().unwrap(),
            output: BufReader::new(process.stdout.take().unwrap()),
            process,
        }
    }

    /// Waits until the child is [`ready`].
    #[track_caller]
    pub(super) fn until_ready(&mut self) {
        let mut line = String::new();
        while line.trim_end() != READY {
            line.clear();
            let read = self.output.read_line(&mut line).unwrap();
            assert!(read > 0, "the child has ended");
        }
    }

    /// Sends `signal` to its process.
    pub(super) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.process), signal).unwrap();
    }

    /// Lets a child go on that is [`ready`].
    pub(super) fn go_on(&mut self) {
        self.input.write_all(b"\n").unwrap();
    }

    /// Waits until it has ended. Panics if it failed.
    #[track_caller]
    pub(super) fn end(mut self) {
        let mut rest = String::new();
        std::io::Read::read_to_string(&mut self.output, &mut rest).unwrap();
        assert!(self.process.wait().unwrap().success(), "{rest}");
        assert!(rest.contains("1 passed"), "no such test: {rest}");
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Killing one that has ended does no harm.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
