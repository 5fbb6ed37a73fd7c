//! A pgbouncer in front of a test's Postgres.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::postgres_program::{as_its_user, own};
use crate::process::Process;
use crate::{SOON, free_address, until};

const INSTALL: &str = "apt-get install pgbouncer";

pub struct Pgbouncer {
    address: SocketAddr,
    // Dropped before its folder is removed.
    _process: Process,
    _folder: TempDir,
}

impl Pgbouncer {
    /// Starts one for all databases of the server at this address, with these extra settings.
    pub fn start(server: SocketAddr, settings: &str) -> Pgbouncer {
        let (folder, address) = (tempfile::tempdir().unwrap(), free_address());
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let users = folder.path().join("users");
        fs::write(&users, "\"larder\" \"\"\n").unwrap();
        let config = folder.path().join("pgbouncer.ini");
        let text = format!(
            "[databases]\n* = host=127.0.0.1 port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {}\n\
             unix_socket_dir =\nauth_type = trust\nauth_file = {}\n{settings}\n",
            server.port(),
            address.port(),
            users.display()
        );
        fs::write(&config, text).unwrap();
        own(&users);
        own(&config);
        let mut command = as_its_user(&program());
        command.arg(&config);
        let log = folder.path().join("log");
        let mut process = Process::spawn(command, &log, INSTALL);
        until(SOON, "pgbouncer listens", || {
            process.must_run();
            std::net::TcpStream::connect(address).is_ok()
        });
        Pgbouncer {
            address,
            _process: process,
            _folder: folder,
        }
    }

    /// The URL of one of the server's databases, through this pgbouncer.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://larder@{}/{database}", self.address)
    }
}

/// Debian installs it where only root's PATH finds it.
fn program() -> PathBuf {
    let usual = Path::new("/usr/sbin/pgbouncer");
    match usual.exists() {
        true => usual.to_owned(),
        false => PathBuf::from("pgbouncer"),
    }
}
