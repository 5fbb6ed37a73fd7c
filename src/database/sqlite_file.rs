//! The file of a SQLite database while larder has it open.
//!
//! Promise: a file that was removed or replaced is noticed at the next use. An open connection
//! would continue in the old file, where nobody would find its writes, so every use fails until the
//! file is back. A new file is readable by its owner only. SQLite gives its log file the same mode.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use super::error::DatabaseError;

/// A file, identified by device and inode.
#[derive(Debug)]
pub(super) struct SqliteFile {
    path: PathBuf,
    identity: (u64, u64),
    /// Whether it was missing at the last check. Logs each change once.
    missing: AtomicBool,
}

fn identity(file: &Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}

impl SqliteFile {
    /// Opens the file at `path`, and creates it if there is none.
    pub(super) fn open(path: &Path) -> io::Result<SqliteFile> {
        let mut options = File::options();
        let file = options.read(true).append(true).create(true).mode(0o600);
        let metadata = file.open(path)?.metadata()?;
        Ok(SqliteFile {
            path: path.to_owned(),
            identity: identity(&metadata),
            missing: AtomicBool::new(false),
        })
    }

    /// Its path.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Errors with [`DatabaseError::Unavailable`] while its path leads to no file or to another
    /// one.
    pub(super) fn must_be_there(&self) -> Result<(), DatabaseError> {
        let path = self.path.display();
        let what = match self.path.metadata() {
            Ok(found) if identity(&found) == self.identity => {
                if self.missing.load(Ordering::Relaxed)
                    && self.missing.swap(false, Ordering::Relaxed)
                {
                    log::info!("the SQLite file {path} is back");
                }
                return Ok(());
            }
            Ok(_) => format!("the SQLite file {path} was replaced by another one"),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                format!("the SQLite file {path} was removed")
            }
            Err(error) => format!("the SQLite file {path} cannot be inspected: {error}"),
        };
        if !self.missing.swap(true, Ordering::Relaxed) {
            log::error!(
                "{what}: reads and writes fail until it is put back or larder is restarted"
            );
        }
        Err(DatabaseError::Unavailable(what))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn only_the_same_file_counts() {
        let folder = tempfile::tempdir().unwrap();
        let (path, away) = (folder.path().join("a.db"), folder.path().join("b.db"));
        let file = SqliteFile::open(&path).unwrap();
        let mode = path.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let fails = |part: &str| {
            let error = file.must_be_there().unwrap_err();
            assert!(matches!(&error, DatabaseError::Unavailable(what) if what.contains(part)));
        };
        assert_eq!(file.must_be_there(), Ok(()));
        std::fs::write(&path, "written in place").unwrap();
        assert_eq!(file.must_be_there(), Ok(()));
        std::fs::rename(&path, &away).unwrap();
        fails("was removed");
        std::fs::copy(&away, &path).unwrap();
        fails("was replaced");
        std::fs::rename(&away, &path).unwrap();
        assert_eq!(file.must_be_there(), Ok(()));
        // The mode of an existing file is left alone.
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        SqliteFile::open(&path).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o640);
    }
}
