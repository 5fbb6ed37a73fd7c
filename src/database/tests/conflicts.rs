//! Changes at the same time: none is lost, and the one that came second runs again.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Barrier, mpsc};
use std::time::{Duration, Instant};

use crate::database::fixture::{self, Opened, Place};
use crate::database::{DatabaseError, Isolation, Query, Shape, Transaction};

fn balance(tx: &mut Transaction<'_>) -> Result<i64, DatabaseError> {
    let query = Query::parse("balance", "SELECT n FROM account")?;
    let json = tx.read(&query, &[], Shape::One)?.unwrap();
    let row: serde_json::Value = serde_json::from_slice(&json).unwrap();
    Ok(row["n"].as_i64().unwrap())
}

fn set(tx: &mut Transaction<'_>, n: i64) -> Result<(), DatabaseError> {
    let query = Query::parse("set", "UPDATE account SET n = :n")?;
    tx.write(&query, &[("n", n.into())]).map(drop)
}

fn account(place: &Place) -> Opened {
    let database = place.open();
    fixture::batch(
        &database,
        "CREATE TABLE account (n INTEGER); INSERT INTO account VALUES (0)",
    );
    database
}

#[test]
fn two_that_read_and_then_write_both_count() {
    fixture::each_bare(|place| {
        let database = account(place);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..5 {
                        database
                            .change(Isolation::Serializable, |tx| {
                                let n = balance(tx)?;
                                set(tx, n + 1)
                            })
                            .unwrap();
                    }
                });
            }
        });
        assert_eq!(database.transaction(balance), Ok(20));
    });
}

#[test]
fn who_meets_another_is_run_again_from_the_beginning() {
    let database = account(&Place::postgres());
    let both_have_read = Barrier::new(2);
    let attempts = AtomicU32::new(0);
    let change = || {
        let mut first = true;
        database.change(Isolation::Serializable, |tx| {
            attempts.fetch_add(1, Ordering::Relaxed);
            let n = balance(tx)?;
            if std::mem::take(&mut first) {
                both_have_read.wait();
            }
            set(tx, n + 1)?;
            Ok(n)
        })
    };
    let (one, other) = std::thread::scope(|scope| {
        let other = scope.spawn(change);
        (change().unwrap(), other.join().unwrap().unwrap())
    });
    assert_eq!((one.min(other), one.max(other)), (0, 1));
    assert_eq!(attempts.load(Ordering::Relaxed), 3);
    assert_eq!(database.transaction(balance), Ok(2));
}

#[test]
fn nothing_but_a_conflict_is_run_again_and_that_not_for_ever() {
    fixture::each_bare(|place| {
        let database = place.open();
        let attempts = |error: DatabaseError| {
            let mut attempts = 0;
            let result = database.change(Isolation::Plain, |_| {
                attempts += 1;
                Err::<(), _>(error.clone())
            });
            assert_eq!(result, Err(error));
            attempts
        };
        assert_eq!(attempts(DatabaseError::Contended("x".to_owned())), 20);
        for error in [
            DatabaseError::Unavailable("x".to_owned()),
            DatabaseError::TooSlow("x".to_owned()),
            DatabaseError::Invalid("x".to_owned()),
        ] {
            assert_eq!(attempts(error), 1);
        }
    });
}

/// How many attempts the changes need if each changes a row of its own and none commits before all
/// have written.
fn attempts_side_by_side(before: &str) -> u32 {
    const ROWS: i64 = 6;
    let database = Place::postgres().migrated();
    fixture::batch(
        &database,
        "CREATE TABLE members (id INT PRIMARY KEY, n INT) WITH (fillfactor = 10);
         INSERT INTO members SELECT i, 0 FROM generate_series(1, 2000) AS i; ANALYZE members",
    );
    fixture::batch(&database, before);
    let all_have_written = Barrier::new(ROWS as usize);
    let attempts = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for id in 1..=ROWS {
            let (database, all_have_written, attempts) = (&*database, &all_have_written, &attempts);
            scope.spawn(move || {
                // Rows that are far apart, because an index locks whole pages.
                let id = id * 300;
                let sql = "UPDATE members SET n = n + 1 WHERE id = :id";
                let query = Query::parse("add", sql).unwrap();
                let mut first = true;
                database
                    .change(Isolation::Serializable, |tx| {
                        attempts.fetch_add(1, Ordering::Relaxed);
                        tx.write(&query, &[("id", id.into())])?;
                        tx.leave_in_outbox(&[format!("user:{id}")])?;
                        if std::mem::take(&mut first) {
                            all_have_written.wait();
                        }
                        Ok(())
                    })
                    .unwrap();
            });
        }
    });
    let left = Query::parse("left", "SELECT count(*) AS n FROM larder_outbox").unwrap();
    let left = database.read(&left, &[], Shape::One).unwrap();
    assert_eq!(left, Some(format!(r#"{{"n":{ROWS}}}"#).into_bytes()));
    attempts.load(Ordering::Relaxed)
}

#[test]
fn changes_of_different_rows_do_not_meet_in_the_outbox() {
    assert_eq!(attempts_side_by_side("SELECT 1"), 6);
}

#[test]
fn changes_of_a_watched_table_do_not_meet_there_either() {
    let watch = "SELECT larder_watch('members', 'user:{id}')";
    assert_eq!(attempts_side_by_side(watch), 6);
}

#[test]
fn writes_that_wait_for_a_lock_leave_connections_for_reads() {
    let place = Place::postgres();
    let other = account(&place);
    let database = place.open_with(4);
    // Counts the locks that are not granted. pg_stat_activity shows another wait for a moment while
    // a waiter looks for a deadlock.
    let waiting = || {
        let sql = "SELECT count(DISTINCT pid) AS n FROM pg_locks JOIN pg_stat_activity USING (pid)
                   WHERE NOT granted AND datname = current_database()";
        let query = Query::parse("waiting", sql).unwrap();
        database.read(&query, &[], Shape::One).unwrap()
    };
    let until_three_wait = || {
        let deadline = Instant::now() + Duration::from_secs(30);
        while waiting() != Some(br#"{"n":3}"#.to_vec()) {
            assert!(Instant::now() < deadline, "{:?} wait", waiting());
        }
    };
    let (sender, ended) = mpsc::channel();
    std::thread::scope(|scope| {
        let holding = other.transaction(|tx| {
            set(tx, 1)?;
            for n in 0..6 {
                let (database, sender) = (&database, sender.clone());
                scope.spawn(move || {
                    let done = database.change(Isolation::Plain, |tx| set(tx, n));
                    sender.send(done).unwrap();
                });
            }
            until_three_wait();
            // While three wait for the row, the others give up. Reads succeed all the time.
            for _ in 0..3 {
                let given_up = loop {
                    assert!(waiting().is_some(), "a read is not refused");
                    if let Ok(given_up) = ended.try_recv() {
                        break given_up;
                    }
                };
                assert!(
                    matches!(&given_up, Err(DatabaseError::Unavailable(what))
                        if what.contains("too many writes are waiting")),
                    "{given_up:?}"
                );
            }
            until_three_wait();
            Ok(())
        });
        holding.unwrap();
        for _ in 0..3 {
            ended.recv().unwrap().unwrap();
        }
    });
}

#[test]
fn a_pool_of_one_writes_and_reads() {
    fixture::each_bare(|place| {
        let database = place.open_with(1);
        fixture::batch(&database, "CREATE TABLE account (n INTEGER)");
        for n in 0..3 {
            let changed = database.change(Isolation::Plain, |tx| set(tx, n));
            assert_eq!(changed, Ok(()));
        }
    });
}
