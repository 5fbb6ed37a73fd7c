//! The refresher keeps the table of API keys as the database has it, and writes to the database
//! when keys were last used.
//!
//! Promise: the table follows the database within `max_staleness`, or at once if
//! [`Refresher::look_now`] says so. While the database cannot be read the table stays as it is.
//! While it cannot be written, the times of last use are kept here and written later.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::key_table::KeyTable;
use crate::database::{Database, DatabaseError};
use crate::worker::{Signals, Wake, Worker};

/// How often the times of last use are written to the database.
const FLUSH: Duration = Duration::from_secs(60);
/// How long the last write may take at the end. A frozen database never answers.
const LAST_FLUSH: Duration = Duration::from_secs(3);

/// A background worker. Dropping it writes the times of last use and stops, within `LAST_FLUSH`: do
/// it where blocking is allowed.
#[derive(Debug)]
pub struct Refresher(Worker);

impl Refresher {
    /// Keeps `table` as `database` has it. Looks for a change every half of `max_staleness`, which
    /// leaves the database the other half to answer.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn start(
        table: Arc<KeyTable>,
        database: Database,
        max_staleness: Duration,
    ) -> io::Result<Refresher> {
        let every = (max_staleness / 2).max(Duration::from_millis(10));
        Refresher::start_with(table, database, every, FLUSH)
    }

    fn start_with(
        table: Arc<KeyTable>,
        database: Database,
        every: Duration,
        flush: Duration,
    ) -> io::Result<Refresher> {
        let job = move |signals: &Signals| follow(&table, &database, every, flush, signals);
        Worker::start("larder-keys", job).map(Refresher)
    }

    /// A function that makes the refresher look for a change at once.
    pub fn look_now(&self) -> impl Fn() + Send + Sync + use<> {
        self.0.waker()
    }
}

impl Drop for Refresher {
    fn drop(&mut self) {
        if !self.0.stop(LAST_FLUSH) {
            log::warn!("the times of last use are not written: the database does not answer");
        }
    }
}

/// The job: looks for changes, and writes the times of last use every `flush` and at the end.
fn follow(
    table: &KeyTable,
    database: &Database,
    every: Duration,
    flush: Duration,
    signals: &Signals,
) {
    let mut readable = true;
    let mut unwritten = HashMap::new();
    let mut written = Instant::now();
    loop {
        let stop = signals.wait(every) == Wake::Stop;
        if !stop {
            report(table.refresh(database), &mut readable);
        }
        if stop || written.elapsed() >= flush {
            unwritten.extend(table.take_used());
            let used: Vec<(&str, i64)> = unwritten
                .iter()
                .map(|(id, at)| (id.as_str(), *at))
                .collect();
            written = Instant::now();
            // If the write fails, the times are kept for the next one. `report` says why it fails.
            if used.is_empty() || database.keys().touch(&used).is_ok() {
                unwritten.clear();
            }
        }
        if stop {
            return;
        }
    }
}

/// Logs when the database becomes readable or unreadable, not each attempt.
fn report(result: Result<bool, DatabaseError>, readable: &mut bool) {
    match result {
        Ok(_) if !*readable => log::info!("API keys can be read from the database again"),
        Err(ref error) if *readable => {
            log::warn!(
                "API keys cannot be read from the database, those known here stay valid: {error}"
            );
        }
        _ => {}
    }
    *readable = result.is_ok();
}

#[cfg(test)]
mod tests {
    use super::super::key_table::tests::{create, known, table};
    use super::*;
    use crate::database::fixture::{self, Place};
    use crate::database::{KeyRate, key_id};
    use larder_cache::Secret;

    fn until(what: &str, condition: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !condition() {
            assert!(Instant::now() < deadline, "not in time: {what}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn the_refresher_follows_the_database_and_writes_the_last_use_when_it_stops() {
        let database = Place::sqlite().migrated();
        let table = Arc::new(table());
        let (key, unused) = (
            create(&database, KeyRate::Configured),
            create(&database, KeyRate::Configured),
        );
        let hour = Duration::from_secs(3_600);
        let refresher = Refresher::start_with(
            table.clone(),
            database.clone(),
            Duration::from_millis(5),
            hour,
        )
        .unwrap();
        until("the key is known", || known(&table, key.reveal()));
        let used = |key: &Secret| {
            let rows = database.keys().list().unwrap();
            rows.into_iter()
                .find(|row| Some(row.id.as_str()) == key_id(key.reveal()))
                .unwrap()
                .last_used_at
        };
        assert_eq!(used(&key), None, "not before the hour is over");
        drop(refresher);
        assert!(used(&key).is_some());
        assert_eq!(used(&unused), None);
    }

    #[test]
    fn the_refresher_writes_the_last_use_from_time_to_time() {
        let database = Place::sqlite().migrated();
        let table = Arc::new(table());
        let key = create(&database, KeyRate::Configured);
        let short = Duration::from_millis(5);
        let _refresher =
            Refresher::start_with(table.clone(), database.clone(), short, short).unwrap();
        until("the key is known", || known(&table, key.reveal()));
        until("its use is written", || {
            database.keys().list().unwrap()[0].last_used_at.is_some()
        });
    }

    #[test]
    fn a_database_that_fails_leaves_the_keys_as_they_were() {
        let database = Place::sqlite().migrated();
        let table = Arc::new(table());
        let key = create(&database, KeyRate::Configured);
        table.refresh(&database).unwrap();
        let rename = |from: &str, to: &str| {
            let sql = format!("ALTER TABLE {from} RENAME TO {to}");
            fixture::batch(&database, &sql);
        };
        rename("api_keys_version", "away");
        assert!(table.refresh(&database).is_err());
        assert!(known(&table, key.reveal()));

        let _refresher =
            Refresher::start(table.clone(), database.clone(), Duration::from_millis(20)).unwrap();
        assert!(known(&table, key.reveal()));
        rename("away", "api_keys_version");
        database
            .keys()
            .revoke(key_id(key.reveal()).unwrap())
            .unwrap();
        until("the thread lives and sees the key go", || {
            !known(&table, key.reveal())
        });
    }
}
