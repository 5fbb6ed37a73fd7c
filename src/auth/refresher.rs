//! The thread that keeps the table of API keys as the database has them, and tells the database when keys were used.
//!
//! Promise: the table follows within `max_staleness`, or at once where a change was heard of. A database that cannot be read leaves the
//! table as it is; one that cannot be written loses no time of use while this process lives.

use std::collections::HashMap;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::key_table::KeyTable;
use crate::database::{Database, DatabaseError};

/// How often the times of last use go to the database.
const FLUSH: Duration = Duration::from_secs(60);
/// How long the last times of use may take to be written at the end. A database that is frozen answers never.
const LAST_FLUSH: Duration = Duration::from_secs(3);

/// The thread that keeps a table up to date. Dropped it stops, once it has written the times of last use; a thread that the
/// database does not let go is left behind after `LAST_FLUSH`.
#[derive(Debug)]
pub struct Refresher {
    wake: Sender<Wake>,
    /// Nothing comes of it; it ends with the thread.
    ended: Receiver<()>,
    thread: Option<JoinHandle<()>>,
}

/// Why the thread does not wait any longer.
enum Wake {
    Look,
    Stop,
}

impl Refresher {
    /// Keeps `table` as the database has it. Every half of `max_staleness` it looks for a change, which leaves the other half for the
    /// database to answer. Dropping the guard waits for the thread, a few seconds at most: do it where blocking is allowed.
    pub fn start(
        table: Arc<KeyTable>,
        database: Database,
        max_staleness: Duration,
    ) -> std::io::Result<Refresher> {
        let every = (max_staleness / 2).max(Duration::from_millis(10));
        Refresher::start_with(table, database, every, FLUSH)
    }

    fn start_with(
        table: Arc<KeyTable>,
        database: Database,
        every: Duration,
        flush: Duration,
    ) -> std::io::Result<Refresher> {
        let (wake, woken) = mpsc::channel::<Wake>();
        let (running, ended) = mpsc::channel::<()>();
        let run = move || {
            // Dropped when this ends, also by a panic.
            let _running = running;
            let mut readable = true;
            let mut unwritten = HashMap::new();
            let mut written = Instant::now();
            loop {
                let stop = matches!(
                    woken.recv_timeout(every),
                    Ok(Wake::Stop) | Err(RecvTimeoutError::Disconnected)
                );
                if !stop {
                    report(table.refresh(&database), &mut readable);
                }
                if stop || written.elapsed() >= flush {
                    unwritten.extend(table.take_used());
                    let used: Vec<(&str, i64)> = unwritten
                        .iter()
                        .map(|(id, at)| (id.as_str(), *at))
                        .collect();
                    written = Instant::now();
                    // What cannot be written is kept for the next time; why, the look for changes reports.
                    if used.is_empty() || database.keys().touch(&used).is_ok() {
                        unwritten.clear();
                    }
                }
                if stop {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new()
            .name("larder-keys".to_owned())
            .spawn(run)?;
        Ok(Refresher {
            wake,
            ended,
            thread: Some(thread),
        })
    }

    /// What has the thread look at once: a change was heard of.
    pub fn look_now(&self) -> impl Fn() + Send + Sync + use<> {
        let wake = Mutex::new(self.wake.clone());
        move || {
            // A thread that has stopped has nothing to look for.
            let _ = wake
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .send(Wake::Look);
        }
    }
}

impl Drop for Refresher {
    fn drop(&mut self) {
        let _ = self.wake.send(Wake::Stop);
        if let Err(RecvTimeoutError::Timeout) = self.ended.recv_timeout(LAST_FLUSH) {
            log::warn!("the times of last use are not written: the database does not answer");
            return;
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Logs that the database has become readable or unreadable, not each attempt.
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
