//! The file of a SQLite database, while larder has it open.
//!
//! Promise: a file that was removed or replaced is noticed at the next use. A connection goes on in
//! the old file, where nobody would find what is written, so every use fails until the file is
//! back. It is made readable by its owner alone; SQLite gives its log beside it the same mode.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use super::error::DatabaseError;

/// A file that is there, and stays the same one.
#[derive(Debug)]
pub(super) struct SqliteFile {
    path: PathBuf,
    identity: (u64, u64),
    /// Whether it was away when it was last looked for; that is logged once.
    away: AtomicBool,
}

fn identity(file: &Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}

impl SqliteFile {
    /// Opens the file at `path`, which is made if there is none.
    pub(super) fn open(path: &Path) -> io::Result<SqliteFile> {
        let mut options = File::options();
        let file = options.read(true).append(true).create(true).mode(0o600);
        let metadata = file.open(path)?.metadata()?;
        Ok(SqliteFile {
            path: path.to_owned(),
            identity: identity(&metadata),
            away: AtomicBool::new(false),
        })
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Errors with [`DatabaseError::Unavailable`] while the path leads to no file or to another
    /// one.
    pub(super) fn must_be_there(&self) -> Result<(), DatabaseError> {
        let path = self.path.display();
        let what = match self.path.metadata() {
            Ok(found) if identity(&found) == self.identity => {
                if self.away.load(Ordering::Relaxed) && self.away.swap(false, Ordering::Relaxed) {
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
        if !self.away.swap(true, Ordering::Relaxed) {
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
        let told = |part: &str| {
            let error = file.must_be_there().unwrap_err();
            assert!(matches!(&error, DatabaseError::Unavailable(what) if what.contains(part)));
        };
        assert_eq!(file.must_be_there(), Ok(()));
        std::fs::write(&path, "written in place").unwrap();
        assert_eq!(file.must_be_there(), Ok(()));
        std::fs::rename(&path, &away).unwrap();
        told("was removed");
        std::fs::copy(&away, &path).unwrap();
        told("was replaced");
        std::fs::rename(&away, &path).unwrap();
        assert_eq!(file.must_be_there(), Ok(()));
        // The mode of a file that was there before is its owner's business.
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        SqliteFile::open(&path).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o640);
    }
}
