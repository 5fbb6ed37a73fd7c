//! Connections that the server ended while they were idle, or in the middle of a transaction.

use std::cell::Cell;
use std::time::{Duration, Instant};

use crate::database::fixture::{self, Opened, Place};
use crate::database::{
    Database, DatabaseError, Isolation, KeyRate, NewKey, Query, Shape, Transaction,
};

/// Ends every other connection to this database.
const OTHERS: &str =
    "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";

/// A database with a table of numbers, and another pool on the same database.
fn place() -> (Place, Opened, Opened) {
    let place = Place::postgres();
    let (database, other) = (place.open_with(4), place.open_with(1));
    database.migrate().unwrap();
    fixture::batch(&database, "CREATE TABLE t (id INT)");
    (place, database, other)
}

/// Opens all connections of `database` and leaves them in the pool, just used.
fn fill_pool(database: &Database, connections: u32) {
    if connections > 0 {
        database
            .transaction(|_| {
                fill_pool(database, connections - 1);
                Ok(())
            })
            .unwrap();
    }
}

fn end_connections(other: &Database) {
    let sql = format!("SELECT pg_terminate_backend(pid, 5000) {OTHERS}");
    fixture::batch(other, &sql);
}

fn count(database: &Database) -> Result<String, DatabaseError> {
    let query = Query::parse("count", "SELECT count(*) AS n FROM t")?;
    let json = database.read(&query, &[], Shape::One)?.unwrap();
    Ok(String::from_utf8(json).unwrap())
}

fn insert(transaction: &mut Transaction<'_>) -> Result<(), DatabaseError> {
    let query = Query::parse("insert", "INSERT INTO t VALUES (1)")?;
    transaction.write(&query, &[]).map(drop)
}

#[test]
fn no_read_and_no_write_meets_a_connection_that_was_ended_in_the_pool() {
    let (_place, database, other) = place();
    let end_all = || {
        fill_pool(&database, 4);
        end_connections(&other);
    };
    end_all();
    assert_eq!(count(&database).as_deref(), Ok(r#"{"n":0}"#));
    end_all();
    database.change(Isolation::Plain, insert).unwrap();
    end_all();
    database.change(Isolation::Serializable, insert).unwrap();
    // Larder's own statements.
    end_all();
    assert_eq!(database.keys().mark().unwrap().version(), 0);
    end_all();
    let new = NewKey {
        name: "n".to_owned(),
        rate: KeyRate::Configured,
        admin: false,
    };
    database.keys().create(&new).unwrap();
    end_all();
    database.ping().unwrap();
    assert_eq!(count(&database).as_deref(), Ok(r#"{"n":2}"#));
}

#[test]
fn readers_at_one_time_meet_no_ended_connection_either() {
    let (_place, database, other) = place();
    fill_pool(&database, 4);
    end_connections(&other);
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..4).map(|_| scope.spawn(|| count(&database))).collect();
        for reader in readers {
            assert_eq!(reader.join().unwrap().as_deref(), Ok(r#"{"n":0}"#));
        }
    });
}

#[test]
fn a_read_whose_connection_ends_on_the_way_runs_again() {
    let (_place, database, other) = place();
    let waits = "SELECT count(*) AS n FROM (SELECT pg_advisory_xact_lock_shared(7)) AS held";
    let waits = Query::parse("waits", waits).unwrap();
    let waiting = format!("SELECT pid {OTHERS} AND wait_event = 'advisory'");
    let waiting = Query::parse("waiting", &waiting).unwrap();
    let end =
        format!("SELECT pg_terminate_backend(pid, 5000) {OTHERS} AND wait_event = 'advisory'");
    std::thread::scope(|scope| {
        let reader = other
            .transaction(|tx| {
                tx.batch("SELECT pg_advisory_xact_lock(7)")?;
                let reader = scope.spawn(|| database.read(&waits, &[], Shape::One));
                let deadline = Instant::now() + Duration::from_secs(20);
                loop {
                    // By default a transaction keeps its view of other sessions until its end.
                    tx.batch("SELECT pg_stat_clear_snapshot()")?;
                    if !tx.query_this(&waiting, &[])?.is_empty() {
                        break;
                    }
                    assert!(Instant::now() < deadline, "the read does not wait");
                    std::thread::yield_now();
                }
                tx.batch(&end)?;
                Ok(reader)
            })
            .unwrap();
        let read = reader.join().unwrap().unwrap();
        assert_eq!(read.as_deref(), Some(&br#"{"n":1}"#[..]));
    });
}

#[test]
fn a_read_that_ends_its_own_connection_is_an_error_and_harms_no_other() {
    let (_place, database, _other) = place();
    let ends = "SELECT pg_terminate_backend(pg_backend_pid()) AS ended";
    let ends = Query::parse("ends", ends).unwrap();
    for _ in 0..3 {
        let error = database.read(&ends, &[], Shape::One).unwrap_err();
        assert!(matches!(error, DatabaseError::Unavailable(_)), "{error:?}");
        assert_eq!(count(&database).as_deref(), Ok(r#"{"n":0}"#));
    }
}

#[test]
fn a_write_that_has_begun_is_not_begun_again() {
    let (_place, database, other) = place();
    let begun = Cell::new(0);
    let result = database.change(Isolation::Plain, |tx| {
        begun.set(begun.get() + 1);
        insert(tx)?;
        end_connections(&other);
        insert(tx)
    });
    assert!(
        matches!(result, Err(DatabaseError::Unavailable(_))),
        "{result:?}"
    );
    assert_eq!(begun.get(), 1);
    assert_eq!(count(&database).as_deref(), Ok(r#"{"n":0}"#));
}
