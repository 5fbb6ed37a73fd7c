//! `larder sandbox` as a server of one test.

use std::net::SocketAddr;
use std::process::Command;

use tempfile::TempDir;

use crate::client::Call;
use crate::larder::binary;
use crate::process::Process;
use crate::{SOON, free_address, until};

pub struct Sandbox {
    address: SocketAddr,
    process: Process,
    /// Removed after the process has ended.
    _folder: TempDir,
}

impl Sandbox {
    /// Starts one with these arguments and waits until it answers.
    #[track_caller]
    pub fn start(arguments: &[&str]) -> Sandbox {
        let (folder, address) = (tempfile::tempdir().unwrap(), free_address());
        let mut command = Command::new(binary());
        command
            .current_dir(folder.path())
            .env_clear()
            .args(["sandbox", "--bind", &address.to_string()])
            .args(arguments);
        let log = folder.path().join("log");
        let process = Process::spawn(command, &log, "cargo builds it");
        let mut sandbox = Sandbox {
            address,
            process,
            _folder: folder,
        };
        until(SOON, "the sandbox answers", || {
            sandbox.process.must_run();
            // A method that it does not count.
            Call::new(address, "PUT", "/").try_send().is_ok()
        });
        sandbox
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn base_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Everything that it has written.
    pub fn log(&self) -> String {
        self.process.log()
    }
}
