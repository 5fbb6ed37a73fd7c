//! Connections to a SQLite file: how they are opened and what is set on them.
//!
//! Promise: readers never wait for the writer (WAL), and a writer waits for another for up to `BUSY`. Refuses a database in
//! memory, which each connection of a pool would have for itself, and options in the URL.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use r2d2::ManageConnection;
use rusqlite::Connection;

use super::error::DatabaseError;

/// How long a statement waits for a lock of another connection, or of another process.
pub(super) const BUSY: Duration = Duration::from_secs(5);

/// Opens connections for the pool.
#[derive(Debug)]
pub(super) struct SqliteManager(r2d2_sqlite::SqliteConnectionManager);

impl SqliteManager {
    /// Reads `sqlite://relative` and `sqlite:///absolute`; makes the file.
    pub(super) fn new(url: &str) -> Result<SqliteManager, DatabaseError> {
        let path = parse(url)?;
        let manager = r2d2_sqlite::SqliteConnectionManager::file(&path).with_init(|connection| {
            connection.busy_timeout(BUSY)?;
            connection.set_prepared_statement_cache_capacity(128);
            // NORMAL: in WAL mode a crash of the machine may lose the last commits, but never damages the file.
            connection.execute_batch("PRAGMA synchronous = NORMAL; PRAGMA foreign_keys = ON")
        });
        let explain = |error: DatabaseError| explain(error, &path);
        let connection = manager.connect().map_err(|error| explain(error.into()))?;
        use_wal(&connection).map_err(|error| explain(error.into()))?;
        Ok(SqliteManager(manager))
    }
}

impl ManageConnection for SqliteManager {
    type Connection = Connection;
    type Error = rusqlite::Error;

    fn connect(&self) -> Result<Connection, rusqlite::Error> {
        self.0.connect()
    }

    fn is_valid(&self, connection: &mut Connection) -> Result<(), rusqlite::Error> {
        self.0.is_valid(connection)
    }

    /// A transaction that could not be ended is still open: whoever had the connection next would write into it.
    fn has_broken(&self, connection: &mut Connection) -> bool {
        !connection.is_autocommit()
    }
}

/// The mode stays with the file. Going over to it needs the file for oneself, and SQLite does not wait for that: of two
/// processes that start together one is told that the file is busy.
fn use_wal(connection: &Connection) -> Result<(), rusqlite::Error> {
    let deadline = Instant::now() + BUSY;
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
            // A file system that cannot share memory keeps its old mode, which is slower and still right.
            other => return other.map(drop),
        }
    }
}

/// The path of the file that a URL names.
pub(super) fn parse(url: &str) -> Result<PathBuf, DatabaseError> {
    let wrong = |what: &str| {
        Err(DatabaseError::Misconfigured(format!(
            "the database URL {url:?}: {what}"
        )))
    };
    match url.strip_prefix("sqlite://") {
        None | Some("") => wrong("not of the form sqlite://file.db or sqlite:///folder/file.db"),
        Some(path) if path.starts_with(':') => wrong("larder keeps its database in a file"),
        Some(path) if path.contains(['?', '#']) => wrong("a SQLite URL takes no options"),
        Some(path) => Ok(PathBuf::from(path)),
    }
}

/// Errors unless files can be made in the folder of `path`, where SQLite keeps its log beside the
/// database. Leaves none there.
pub(super) fn folder_takes_files(path: &Path) -> Result<(), DatabaseError> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    tempfile::tempfile_in(folder)
        .map(drop)
        .map_err(|error| explain(DatabaseError::Unavailable(error.to_string()), path))
}

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
