//! A server process under a guard.
//!
//! Promise: the process has ended when the guard is dropped, even if `SIGSTOP` had stopped it.
//! Nothing is ever ended by name.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::until_some;

pub struct Process {
    child: Child,
    log: PathBuf,
    last_words: Signal,
}

impl Process {
    /// Starts `command` with both outputs appended to the file `log`.
    ///
    /// Panics with `install` if the program is not installed.
    pub fn spawn(mut command: Command, log: &Path, install: &str) -> Process {
        let out = File::options().create(true).append(true).open(log).unwrap();
        command
            .stdin(Stdio::null())
            .stdout(out.try_clone().unwrap())
            .stderr(out);
        let child = match command.spawn() {
            Ok(child) => child,
            Err(error) if error.kind() == ErrorKind::NotFound => panic!(
                "{:?} is not installed, and these tests need it: {install}",
                command.get_program()
            ),
            Err(error) => panic!("cannot start {:?}: {error}", command.get_program()),
        };
        Process {
            child,
            log: log.to_owned(),
            last_words: Signal::KILL,
        }
    }

    /// Sends `signal` instead of `SIGKILL` when dropped, for a server that must end its children.
    pub fn ended_by(mut self, signal: Signal) -> Process {
        self.last_words = signal;
        self
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).unwrap_or_else(|error| panic!("signal to {pid:?}: {error}"));
    }

    /// Its exit status, if it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Waits for it to end.
    #[track_caller]
    pub fn wait(&mut self, deadline: Duration) -> ExitStatus {
        until_some(deadline, "the process ends", || self.ended())
    }

    /// Panics with the log if the process has ended. For callers that wait until it is ready.
    #[track_caller]
    pub fn must_run(&mut self) {
        if let Some(status) = self.ended() {
            panic!("it ended at once, {status}:\n{}", self.log());
        }
    }

    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let pid = Pid::from_child(&self.child);
            let _ = kill_process(pid, self.last_words);
            // A stopped process handles the signal only once it continues.
            let _ = kill_process(pid, Signal::CONT);
            let _ = self.child.wait();
        }
    }
}
