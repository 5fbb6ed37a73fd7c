//! Connections to a SQLite file: how they are opened and configured.
//!
//! Promise: readers never wait for the writer (WAL), and a writer waits for another one for up to
//! `BUSY_TIMEOUT`. A database in memory is refused, because each connection of a pool would have
//! its own. So are options in the URL.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use r2d2::ManageConnection;
use rusqlite::{Connection, OpenFlags};

use super::error::DatabaseError;
use super::sqlite_file::SqliteFile;

/// How long a statement waits for a lock of another connection or process.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Opens connections for a pool. A clone is for another pool on the same file, which it does not
/// open outside SQLite: closing it would release the locks of all connections of this process
/// (fcntl, POSIX.1-2017).
#[derive(Clone, Debug)]
pub(super) struct SqliteManager {
    pub(super) file: Arc<SqliteFile>,
}

impl SqliteManager {
    /// Reads `sqlite://relative` or `sqlite:///absolute`, and creates the file.
    pub(super) fn new(url: &str) -> Result<SqliteManager, DatabaseError> {
        let path = parse(url)?;
        let explain = |error: DatabaseError| explain(error, &path);
        let file = SqliteFile::open(&path)
            .map_err(|error| explain(DatabaseError::Unavailable(error.to_string())))?;
        let manager = SqliteManager {
            file: Arc::new(file),
        };
        let connection = manager.connect().map_err(|error| explain(error.into()))?;
        use_wal(&connection).map_err(|error| explain(error.into()))?;
        Ok(manager)
    }
}

impl ManageConnection for SqliteManager {
    type Connection = Connection;
    type Error = rusqlite::Error;

    fn connect(&self) -> Result<Connection, rusqlite::Error> {
        // Without CREATE, so that a file that was removed is not replaced by an empty one.
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(self.file.path(), flags)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        connection.set_prepared_statement_cache_capacity(128);
        // With NORMAL in WAL mode, a crash of the machine may lose the last commits but never
        // damages the file.
        connection.execute_batch("PRAGMA synchronous = NORMAL; PRAGMA foreign_keys = ON")?;
        Ok(connection)
    }

    /// A connection to a file is not lost while it is idle.
    fn is_valid(&self, _: &mut Connection) -> Result<(), rusqlite::Error> {
        Ok(())
    }

    /// Whether a transaction that could not be ended is still open. The next user of the connection
    /// would write into it.
    fn has_broken(&self, connection: &mut Connection) -> bool {
        !connection.is_autocommit()
    }
}

/// Switches the file to WAL, for good. That needs exclusive access, for which SQLite does not wait:
/// of two processes that start together, one finds the file busy. So this tries until
/// `BUSY_TIMEOUT`.
fn use_wal(connection: &Connection) -> Result<(), rusqlite::Error> {
    let deadline = Instant::now() + BUSY_TIMEOUT;
    loop {
        let mode = connection.query_row("PRAGMA journal_mode = WAL", [], |row| {
            row.get::<_, String>(0)
        });
        match mode {
            Err(error)
                if error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy)
                    && Instant::now() < deadline =>
            {
                std::thread::sleep(Duration::from_millis(10));
            }
            // On a file system without shared memory the old mode stays, which is slower but
            // correct.
            other => return other.map(drop),
        }
    }
}

/// The path in a URL.
pub(super) fn parse(url: &str) -> Result<PathBuf, DatabaseError> {
    let wrong = |what: &str| {
        Err(DatabaseError::Misconfigured(format!(
            "the database URL {url:?}: {what}"
        )))
    };
    match url.strip_prefix("sqlite://") {
        None | Some("") => wrong("not of the form sqlite://file.db or sqlite:///folder/file.db"),
        Some(path) if path.starts_with(':') => wrong("larder needs a file"),
        Some(path) if path.contains(['?', '#']) => wrong("a SQLite URL takes no options"),
        Some(path) => Ok(PathBuf::from(path)),
    }
}

/// Errors unless files can be created in the folder of `path`, where SQLite puts its log beside the
/// database. Leaves no file there.
pub(super) fn folder_takes_files(path: &Path) -> Result<(), DatabaseError> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    tempfile::tempfile_in(folder)
        .map(drop)
        .map_err(|error| explain(DatabaseError::Unavailable(error.to_string()), path))
}

/// Adds the path, and a hint if the file cannot be opened.
pub(super) fn explain(error: DatabaseError, path: &Path) -> DatabaseError {
    let what = format!("the SQLite file {}: {error}", path.display());
    match error {
        DatabaseError::Unavailable(_) => DatabaseError::Misconfigured(format!(
            "{what} (does its folder exist, and may larder write there?)"
        )),
        _ => DatabaseError::Misconfigured(what),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_name_a_file() {
        assert_eq!(
            parse("sqlite://larder.db").unwrap(),
            PathBuf::from("larder.db")
        );
        assert_eq!(
            parse("sqlite:///var/lib/larder.db").unwrap(),
            PathBuf::from("/var/lib/larder.db")
        );
        for wrong in [
            "sqlite://",
            "sqlite:larder.db",
            "sqlite://:memory:",
            "sqlite::memory:",
            "sqlite://a?mode=ro",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_folder_that_is_not_there_is_named() {
        let error = SqliteManager::new("sqlite:///nowhere/at/all.db").unwrap_err();
        assert!(
            matches!(&error, DatabaseError::Misconfigured(what) if what.contains("/nowhere/at/all.db")),
            "{error}"
        );
    }

    #[test]
    fn a_file_of_something_else_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notes.txt");
        std::fs::write(&path, "these are a thousand words ".repeat(100)).unwrap();
        let error = SqliteManager::new(&format!("sqlite://{}", path.display())).unwrap_err();
        assert!(error.to_string().contains("not a database"), "{error}");
    }
}
