//! The promises of a database to its callers, on a real Postgres and on SQLite.

mod canonical;
mod conflicts;
mod decoding;
mod describing;
mod encoding;
mod lost;
mod reading;
mod schema_changes;
mod tokens;
mod values;
mod writing;

use std::sync::mpsc;

use super::fixture::{self, Place};
use larder_cache::Secret;

use super::*;

#[test]
fn a_url_says_which_database() {
    assert_eq!(
        DatabaseKind::of_url("postgresql://h/d"),
        Some(DatabaseKind::Postgres)
    );
    assert_eq!(
        DatabaseKind::of_url("sqlite://f"),
        Some(DatabaseKind::Sqlite)
    );
    assert_eq!(DatabaseKind::of_url("mysql://u:hunter2@h/d"), None);
    let settings = DatabaseSettings {
        url: Some(Secret::new("mysql://u:hunter2@h/d")),
        ..DatabaseSettings::default()
    };
    let error = Database::open(&settings).unwrap_err();
    assert!(!error.to_string().contains("hunter2"), "{error}");
    assert!(!format!("{settings:?}").contains("hunter2"));
}

#[test]
fn a_database_that_is_all_at_work_is_not_dead() {
    fixture::each_bare(|place| {
        let database = place.open_with(1);
        database.migrate().unwrap();
        database.ping().unwrap();
        let (begun, wait_begun) = mpsc::channel();
        let (end, wait_end) = mpsc::channel::<()>();
        let other = database.clone();
        let busy = std::thread::spawn(move || {
            other.transaction(|_| {
                begun.send(()).unwrap();
                let _ = wait_end.recv();
                Ok(())
            })
        });
        wait_begun.recv().unwrap();
        database.ping().unwrap();
        // Larder's own statements have their own connections.
        database.keys().mark().unwrap();
        let error = database.transaction(|_| Ok(())).unwrap_err();
        assert!(
            matches!(&error, DatabaseError::Unavailable(what) if what.contains("in use")),
            "{error}"
        );
        drop(end);
        busy.join().unwrap().unwrap();
    });
}

#[test]
fn own_statements_that_all_wait_make_no_dead_database() {
    fixture::each_bare(|place| {
        let database = place.open();
        let (begun, wait_begun) = mpsc::channel();
        let (end, wait_end) = mpsc::channel::<()>();
        let wait_end = std::sync::Mutex::new(wait_end);
        std::thread::scope(|scope| {
            for _ in 0..OWN_CONNECTIONS {
                let (begun, wait_end, database) = (begun.clone(), &wait_end, &database);
                scope.spawn(move || {
                    let waits = database.0.own.run(|_| {
                        begun.send(()).unwrap();
                        let _ = wait_end.lock().unwrap().recv();
                        Ok(())
                    });
                    waits.unwrap();
                });
            }
            (0..OWN_CONNECTIONS).for_each(|_| wait_begun.recv().unwrap());
            database.ping().unwrap();
            drop(end);
        });
    });
}

#[test]
fn writers_to_one_file_wait_for_each_other() {
    let place = Place::sqlite();
    place.migrated();
    let writers: Vec<_> = (0..4)
        .map(|_| {
            let place = place.clone();
            std::thread::spawn(move || {
                let database = place.open();
                for _ in 0..25 {
                    let new = NewKey {
                        name: "n".to_owned(),
                        rate: KeyRate::Configured,
                        admin: false,
                    };
                    database.keys().create(&new).unwrap();
                }
            })
        })
        .collect();
    for writer in writers {
        writer.join().unwrap();
    }
    assert_eq!(place.open().keys().mark().unwrap().version(), 100);
}
