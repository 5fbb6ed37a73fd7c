//! The programs of Postgres: their paths, and the user that runs them.
//!
//! Postgres refuses to run as root. For root they run as the user `postgres` of its package.

use std::fs;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

pub const INSTALL: &str = "apt-get install postgresql";

/// A program of Postgres, as the user that may run it.
pub fn program(name: &str) -> Command {
    as_its_user(&binaries().join(name))
}

/// Any program, as that user.
pub fn as_its_user(program: &Path) -> Command {
    let mut command = Command::new(program);
    // That user may not be allowed in the current folder.
    command.current_dir("/");
    if let Some((user, group)) = other_user() {
        command.uid(user).gid(group);
    }
    command
}

/// Gives a file or a folder to that user.
pub fn own(path: &Path) {
    if let Some((user, group)) = other_user() {
        chown(path, Some(user), Some(group)).unwrap();
    }
}

/// The folder of `initdb` and `postgres`, which on Debian is not in the PATH.
fn binaries() -> PathBuf {
    let mut folders = Vec::new();
    if let Ok(answer) = Command::new("pg_config").arg("--bindir").output() {
        folders.push(PathBuf::from(
            String::from_utf8_lossy(&answer.stdout).trim(),
        ));
    }
    if let Ok(versions) = fs::read_dir("/usr/lib/postgresql") {
        let mut versions: Vec<PathBuf> = versions.flatten().map(|entry| entry.path()).collect();
        versions.sort();
        folders.extend(versions.iter().rev().map(|version| version.join("bin")));
    }
    if let Some(path) = std::env::var_os("PATH") {
        folders.extend(std::env::split_paths(&path));
    }
    let found = folders
        .into_iter()
        .find(|folder| folder.join("initdb").exists() && folder.join("postgres").exists());
    found.unwrap_or_else(|| panic!("Postgres is not installed, and these tests need it: {INSTALL}"))
}

/// The user and group that run it, if this process is root.
fn other_user() -> Option<(u32, u32)> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let users = fs::read_to_string(Path::new("/etc/passwd")).unwrap();
    let line = users
        .lines()
        .find(|line| line.starts_with("postgres:"))
        .unwrap_or_else(|| {
            panic!("there is no user `postgres`, and Postgres does not run as root: {INSTALL}")
        });
    let mut fields = line.split(':').skip(2).map(|field| field.parse().unwrap());
    Some((fields.next().unwrap(), fields.next().unwrap()))
}
