//! Migrations: numbered SQL files, each run once in each database.
//!
//! Promise: any number of replicas may start together. One migrates, the others wait and find it
//! done. All missing files run in one transaction, so a failure leaves the schema as it was. A
//! schema that is newer than this program is refused.

use std::time::Duration;

use super::error::DatabaseError;
use super::query::Query;
use super::session::Session;
use super::settings::DatabaseKind;
use super::sql_value::SqlValue;
use super::sqlite_pool::BUSY_TIMEOUT;
use super::transaction::{Isolation, Transaction};
use super::{rights, unix_ms};

struct Migration {
    name: &'static str,
    sqlite: &'static str,
    postgres: &'static str,
}

macro_rules! files {
    ($($name:literal),* $(,)?) => {
        &[$(Migration {
            name: $name,
            sqlite: include_str!(concat!("../../sql/sqlite/", $name, ".sql")),
            postgres: include_str!(concat!("../../sql/postgres/", $name, ".sql")),
        }),*]
    };
}

/// In the order of their numbers, which begin at 1. The version of a schema is the number of files
/// it has. A file that was released is never changed.
const MIGRATIONS: &[Migration] = files![
    "0001_keys",
    "0002_archive",
    "0003_first_admin",
    "0004_outbox",
    "0005_people",
    "0006_owner",
    "0007_canonical_text",
    "0008_identity",
    "0009_key_changes",
];

/// How long to wait for another replica that migrates.
const LOCK_TIMEOUT: Duration = Duration::from_secs(60);

const TABLE: &str = "CREATE TABLE IF NOT EXISTS larder_migrations (
    version BIGINT PRIMARY KEY, name TEXT NOT NULL, applied_at BIGINT NOT NULL)";

/// Brings the schema up to date and returns how many files that took.
pub(super) fn run(session: Session<'_>) -> Result<usize, DatabaseError> {
    match session {
        Session::Sqlite(connection) => {
            connection.busy_timeout(LOCK_TIMEOUT)?;
            let session = Session::Sqlite(connection);
            let done = Transaction::run(session, Isolation::Plain, |tx| {
                apply(tx, MIGRATIONS, LOCK_TIMEOUT)
            });
            connection.busy_timeout(BUSY_TIMEOUT)?;
            done
        }
        // If no file is missing, a role without CREATE may start.
        postgres => Transaction::run(postgres, Isolation::Plain, |tx| match permitted(tx)? {
            true => apply(tx, MIGRATIONS, LOCK_TIMEOUT),
            false => Ok(0),
        }),
    }
}

/// Whether files are missing in this database. Errors if the role lacks a privilege that these
/// files or larder's own statements need. Changes nothing.
fn permitted(tx: &mut Transaction<'_>) -> Result<bool, DatabaseError> {
    let hidden =
        "SELECT 1 WHERE NOT has_table_privilege(to_regclass('larder_migrations'), 'SELECT')";
    let hidden = Query::parse("schema hidden", hidden)?;
    let behind = tx.query_this(&hidden, &[])?.is_empty() && is_behind(tx)?;
    rights::demand(tx, behind)?;
    Ok(behind)
}

/// Whether files are missing in this database. Changes nothing.
fn is_behind(tx: &mut Transaction<'_>) -> Result<bool, DatabaseError> {
    let there = Query::parse(
        "schema there",
        match tx.kind() {
            DatabaseKind::Postgres => "SELECT 1 WHERE to_regclass('larder_migrations') IS NOT NULL",
            DatabaseKind::Sqlite => "SELECT 1 FROM sqlite_schema WHERE name = 'larder_migrations'",
        },
    )?;
    if tx.query_this(&there, &[])?.is_empty() {
        return Ok(true);
    }
    Ok(!missing(tx, MIGRATIONS)?.1.is_empty())
}

/// Does what [`run`] does, in a transaction that the caller rolls back. Waits at most
/// `lock_timeout` for a lock.
pub(super) fn rehearse(
    tx: &mut Transaction<'_>,
    lock_timeout: Duration,
) -> Result<(), DatabaseError> {
    let behind = match tx.kind() {
        DatabaseKind::Postgres => permitted(tx)?,
        DatabaseKind::Sqlite => is_behind(tx)?,
    };
    if !behind {
        return Ok(());
    }
    if tx.kind() == DatabaseKind::Sqlite {
        // A transaction that has read already may not get the write lock.
        tx.batch("ROLLBACK; BEGIN IMMEDIATE")?;
    }
    apply(tx, MIGRATIONS, lock_timeout).map(drop)
}

fn apply(
    tx: &mut Transaction<'_>,
    all: &[Migration],
    lock_timeout: Duration,
) -> Result<usize, DatabaseError> {
    let kind = tx.kind();
    if kind == DatabaseKind::Postgres {
        // A lock comes first: of two replicas that run CREATE TABLE IF NOT EXISTS at the same time,
        // one may fail. The lock's number is the text "larder". It is released at the end of the
        // transaction. On SQLite, BEGIN IMMEDIATE is that lock.
        tx.batch(&format!(
            "SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = {};
             SELECT pg_advisory_xact_lock({})",
            lock_timeout.as_millis(),
            i64::from_be_bytes(*b"\0\0larder"),
        ))?;
    }
    tx.batch(TABLE)?;
    let record =
        "INSERT INTO larder_migrations (version, name, applied_at) VALUES (:version, :name, :now)";
    let record = Query::parse("record migration", record)?;
    let (version, missing) = missing(tx, all)?;
    for (migration, version) in missing.iter().zip(version + 1..) {
        let sql = match kind {
            DatabaseKind::Postgres => migration.postgres,
            DatabaseKind::Sqlite => migration.sqlite,
        };
        tx.batch(sql).map_err(|error| {
            DatabaseError::Misconfigured(format!(
                "migration {} failed and was rolled back: {error}",
                migration.name
            ))
        })?;
        let parameters = [
            ("version", SqlValue::Int(version)),
            ("name", migration.name.into()),
            ("now", unix_ms().into()),
        ];
        tx.execute_this(&record, &parameters)?;
    }
    Ok(missing.len())
}

/// The version of the schema, and the files that are missing in it.
fn missing<'a>(
    tx: &mut Transaction<'_>,
    all: &'a [Migration],
) -> Result<(i64, &'a [Migration]), DatabaseError> {
    let newest = Query::parse(
        "schema version",
        "SELECT coalesce(max(version), 0) AS version FROM larder_migrations",
    )?;
    let rows = tx.query_this(&newest, &[])?;
    let version = rows.first().map_or(Ok(0), |row| row.int("version"))?;
    let missing = usize::try_from(version)
        .ok()
        .and_then(|version| all.get(version..))
        .ok_or_else(|| {
            DatabaseError::Misconfigured(format!(
                "the database has schema version {version}, but this larder only knows {}: \
             it needs a newer larder",
                all.len()
            ))
        })?;
    Ok((version, missing))
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Barrier};

    use super::super::fixture::{self, Place};
    use super::*;

    #[test]
    fn the_files_are_all_there_and_numbered() {
        for folder in ["sqlite", "postgres"] {
            let folder = format!("{}/sql/{folder}", env!("CARGO_MANIFEST_DIR"));
            let mut names: Vec<String> = std::fs::read_dir(folder)
                .unwrap()
                .map(|file| file.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            let listed: Vec<String> = MIGRATIONS
                .iter()
                .map(|m| format!("{}.sql", m.name))
                .collect();
            assert_eq!(names, listed);
        }
        for (number, migration) in (1..).zip(MIGRATIONS) {
            assert!(
                migration.name.starts_with(&format!("{number:04}_")),
                "{}",
                migration.name
            );
        }
    }

    #[test]
    fn replicas_that_start_together_migrate_once() {
        fixture::each_bare(|database| {
            let together = Arc::new(Barrier::new(6));
            let replicas: Vec<_> = (0..6)
                .map(|_| {
                    let (database, together) = (database.clone(), together.clone());
                    std::thread::spawn(move || {
                        let database = database.open();
                        // On a busy machine a first connection takes its time; whoever failed here
                        // would keep the others.
                        let connected = (0..30).any(|_| database.ping().is_ok());
                        together.wait();
                        assert!(connected);
                        database.migrate().unwrap()
                    })
                })
                .collect();
            let done: Vec<usize> = replicas
                .into_iter()
                .map(|replica| replica.join().unwrap())
                .collect();
            assert_eq!(done.iter().sum::<usize>(), MIGRATIONS.len(), "{done:?}");
            assert_eq!(database.open().migrate().unwrap(), 0);
        });
    }

    #[test]
    fn an_older_database_remembers_its_admin() {
        fixture::each_bare(|place| {
            for (admin, first_made) in [("TRUE", false), ("FALSE", true)] {
                let database = place.open();
                fixture::batch(
                    &database,
                    "DROP TABLE IF EXISTS api_keys; DROP TABLE IF EXISTS api_keys_version;
                     DROP TABLE IF EXISTS api_key_changes;
                     DROP TABLE IF EXISTS archived_articles; DROP TABLE IF EXISTS larder_outbox;
                     DROP TABLE IF EXISTS larder_identity;
                     DROP TABLE IF EXISTS larder_migrations",
                );
                database
                    .transaction(|tx| apply(tx, &MIGRATIONS[..2], LOCK_TIMEOUT))
                    .unwrap();
                fixture::batch(
                    &database,
                    &format!(
                        "INSERT INTO api_keys (id, name, hash, admin, created_at)
                         VALUES ('i', 'n', 'h', {admin}, 0);
                         UPDATE api_keys_version SET version = 1"
                    ),
                );
                database.migrate().unwrap();
                let made = database.keys().create_first_admin().unwrap();
                assert_eq!(made.is_some(), first_made);
            }
        });
    }

    /// What 0004_outbox did if larder was a superuser then: each function has this setting.
    const STORED_BY_A_SUPERUSER: &str = "DO $$
        DECLARE
            one text;
        BEGIN
            FOREACH one IN ARRAY ARRAY['larder_note()', 'larder_take_back(text[])',
                'larder_watch(regclass, text)', 'larder_unwatch(regclass, text)']
            LOOP
                EXECUTE format('ALTER FUNCTION %s SET larder.schema = %L', one, current_schema());
            END LOOP;
        END
        $$";

    #[test]
    fn a_database_whose_functions_a_superuser_made_is_taken_over() {
        let place = Place::postgres();
        let database = place.open();
        database
            .transaction(|tx| apply(tx, &MIGRATIONS[..5], LOCK_TIMEOUT))
            .unwrap();
        place.administer(STORED_BY_A_SUPERUSER).unwrap();
        fixture::batch(
            &database,
            "CREATE TABLE members (id INT); SELECT larder_watch('members', 'user:{id}')",
        );
        assert_eq!(database.migrate().unwrap(), MIGRATIONS.len() - 5);
        fixture::batch(&database, "INSERT INTO members VALUES (7)");
        let ask = |sql| {
            database.transaction(|tx| {
                let rows = tx.query_this(&Query::parse("test", sql)?, &[])?;
                Ok(rows[0].columns().next().unwrap().1.clone())
            })
        };
        let names = "SELECT string_agg(name, ' ') FROM larder_outbox, unnest(names) AS name";
        assert_eq!(ask(names), Ok("user:7".into()));
        let stored = "SELECT count(*) FROM pg_proc WHERE proconfig::text LIKE '%larder.schema%'";
        assert_eq!(
            ask(stored),
            Ok(SqlValue::Int(0)),
            "a dump would not restore"
        );
    }

    #[test]
    fn a_failure_changes_nothing_and_a_newer_schema_is_refused() {
        fixture::each_bare(|database| {
            let database = database.open();
            let first = "CREATE TABLE one (id BIGINT)";
            let all = |second: &'static str| {
                [("0001_one", first), ("0002_two", second)].map(|(name, sql)| Migration {
                    name,
                    sqlite: sql,
                    postgres: sql,
                })
            };
            let run = |all: &[Migration]| database.transaction(|tx| apply(tx, all, LOCK_TIMEOUT));

            let error = run(&all(
                "CREATE TABLE two (id BIGINT); CREATE TABLE one (id BIGINT)",
            ))
            .unwrap_err();
            assert!(error.to_string().contains("0002_two"), "{error}");
            assert_eq!(
                run(&all("CREATE TABLE two (id BIGINT)")).unwrap(),
                2,
                "table one is not left over"
            );

            let error = run(&all(first)[..1]).unwrap_err();
            assert!(
                matches!(&error, DatabaseError::Misconfigured(what) if what.contains("newer")),
                "{error}"
            );
        });
    }
}
