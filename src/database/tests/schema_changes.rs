//! A schema that changes under prepared statements, on every connection, and values that fit only
//! the new schema.

use crate::database::fixture::{self, Place};
use crate::database::{Database, DatabaseError, Isolation, Query, Shape, SqlValue};

const CONNECTIONS: u32 = 3;

/// A prepared statement and a change of the schema.
struct Case {
    before: &'static str,
    change: &'static str,
    sql: &'static str,
    /// A value that fits the old schema, and the result.
    old: (&'static str, &'static str),
    /// A value that fits the new schema, and the result.
    new: (&'static str, &'static str),
}

const READS: &[Case] = &[
    Case {
        before: "CREATE TABLE t (id INT, name TEXT); INSERT INTO t VALUES (7, 'seven')",
        change: "ALTER TABLE t ALTER id TYPE TEXT USING 'x' || id",
        sql: "SELECT name FROM t WHERE id = :v",
        old: ("7", r#"[{"name":"seven"}]"#),
        new: ("x7", r#"[{"name":"seven"}]"#),
    },
    Case {
        before: "CREATE TABLE t (id TEXT); INSERT INTO t VALUES ('7')",
        change: "ALTER TABLE t ALTER id TYPE INT USING id::int",
        sql: "SELECT id FROM t WHERE id = :v",
        old: ("7", r#"[{"id":"7"}]"#),
        new: ("7", r#"[{"id":7}]"#),
    },
    Case {
        before: "CREATE TABLE t (id INT); INSERT INTO t VALUES (7)",
        change: "ALTER TABLE t ALTER id TYPE BIGINT; UPDATE t SET id = 5000000000",
        sql: "SELECT count(*) AS n FROM t WHERE id = :v",
        old: ("7", r#"[{"n":1}]"#),
        new: ("5000000000", r#"[{"n":1}]"#),
    },
    Case {
        before: "CREATE TABLE t (at TIMESTAMP); INSERT INTO t VALUES ('2026-03-01 12:00')",
        change: "ALTER TABLE t ALTER at TYPE TIMESTAMPTZ USING at AT TIME ZONE 'UTC'",
        sql: "SELECT count(*) AS n FROM t WHERE at = :v",
        old: ("2026-03-01T12:00:00", r#"[{"n":1}]"#),
        new: ("2026-03-01T13:00:00+01:00", r#"[{"n":1}]"#),
    },
    Case {
        before: "CREATE TABLE t (id NUMERIC); INSERT INTO t VALUES (1.5)",
        change: "ALTER TABLE t DROP id; ALTER TABLE t ADD id UUID DEFAULT '00000000-0000-0000-0000-000000000001'",
        sql: "SELECT id FROM t WHERE id = :v",
        old: ("1.5", r#"[{"id":1.5}]"#),
        new: (
            "00000000-0000-0000-0000-000000000001",
            r#"[{"id":"00000000-0000-0000-0000-000000000001"}]"#,
        ),
    },
    Case {
        before: "CREATE TABLE t (id INT); INSERT INTO t VALUES (1);
                 CREATE TABLE next (id DATE, other TEXT); INSERT INTO next VALUES ('2026-03-01', 'x')",
        change: "ALTER TABLE t RENAME TO last; ALTER TABLE next RENAME TO t",
        sql: "SELECT * FROM t WHERE id = :v",
        old: ("1", r#"[{"id":1}]"#),
        new: ("2026-03-01", r#"[{"id":"2026-03-01","other":"x"}]"#),
    },
    Case {
        before: "CREATE TABLE t (id INT); INSERT INTO t VALUES (1)",
        change: "DROP TABLE t; CREATE TABLE t (id TEXT); INSERT INTO t VALUES ('one')",
        sql: "SELECT id FROM t WHERE id = :v",
        old: ("1", r#"[{"id":1}]"#),
        new: ("one", r#"[{"id":"one"}]"#),
    },
    Case {
        before: "CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE TABLE t (m mood); INSERT INTO t VALUES ('ok')",
        change: "CREATE TYPE feeling AS ENUM ('low', 'high');
                 ALTER TABLE t ALTER m TYPE feeling USING 'high'::feeling; DROP TYPE mood;
                 ALTER TYPE feeling RENAME TO mood",
        sql: "SELECT m FROM t WHERE m = :v",
        old: ("ok", r#"[{"m":"ok"}]"#),
        new: ("high", r#"[{"m":"high"}]"#),
    },
    Case {
        before: "CREATE FUNCTION twice(v INT) RETURNS INT LANGUAGE sql AS 'SELECT 2 * v'",
        change: "DROP FUNCTION twice; CREATE FUNCTION twice(v TEXT) RETURNS TEXT LANGUAGE sql AS 'SELECT v || v'",
        sql: "SELECT twice(:v) AS twice",
        old: ("4", r#"[{"twice":8}]"#),
        new: ("ab", r#"[{"twice":"abab"}]"#),
    },
    Case {
        before: "CREATE TABLE t (id INT); INSERT INTO t VALUES (1); CREATE VIEW w AS SELECT id AS k FROM t",
        change: "DROP VIEW w; CREATE VIEW w AS SELECT 'k' || id AS k FROM t",
        sql: "SELECT k FROM w WHERE k = :v",
        old: ("1", r#"[{"k":1}]"#),
        new: ("k1", r#"[{"k":"k1"}]"#),
    },
];

/// Has every connection of the pool prepare `query`.
fn prepare_everywhere(database: &Database, connections: u32, query: &Query, value: &str) {
    if connections > 0 {
        database
            .transaction(|tx| {
                tx.read(query, &[("v", value.into())], Shape::Many)?;
                prepare_everywhere(database, connections - 1, query, value);
                // Undone, so that each case begins with the same rows.
                tx.undo();
                Ok(())
            })
            .unwrap();
    }
}

#[test]
fn a_read_that_fits_the_new_schema_is_never_refused() {
    for case in READS {
        let place = Place::postgres();
        let (database, other) = (place.open_with(CONNECTIONS), place.open_with(1));
        fixture::batch(&other, case.before);
        let query = Query::parse("q", case.sql).unwrap();
        let read = |value: &str| {
            let found = database.read(&query, &[("v", value.into())], Shape::Many);
            found.map(|json| String::from_utf8(json.unwrap()).unwrap())
        };
        prepare_everywhere(&database, CONNECTIONS, &query, case.old.0);
        assert_eq!(read(case.old.0).as_deref(), Ok(case.old.1), "{}", case.sql);
        fixture::batch(&other, case.change);
        std::thread::scope(|scope| {
            // At the same time, so that several connections take part.
            let readers: Vec<_> = (0..6).map(|_| scope.spawn(|| read(case.new.0))).collect();
            for reader in readers {
                let found = reader.join().unwrap();
                assert_eq!(found.as_deref(), Ok(case.new.1), "{}", case.change);
            }
        });
    }
}

#[test]
fn a_write_that_fits_the_new_schema_is_never_refused() {
    for (before, change, sql, old, new) in [
        (
            "CREATE TABLE t (v INT)",
            "ALTER TABLE t ALTER v TYPE TEXT",
            "INSERT INTO t VALUES (:v) RETURNING v",
            "7",
            r#""seven""#,
        ),
        (
            "CREATE TABLE t (v TEXT)",
            "ALTER TABLE t ALTER v TYPE INT USING 1",
            "INSERT INTO t VALUES (:v) RETURNING v",
            r#""seven""#,
            "7",
        ),
        (
            "CREATE TABLE t (v INT)",
            "DROP TABLE t; CREATE TABLE t (v JSONB, w INT DEFAULT 3)",
            "INSERT INTO t (v) VALUES (:v) RETURNING *",
            "7",
            r#"{"a": 1}"#,
        ),
        (
            "CREATE TABLE t (v VARCHAR(3))",
            "ALTER TABLE t ALTER v TYPE BOOL USING true",
            "UPDATE t SET v = :v RETURNING v",
            r#""abc""#,
            "true",
        ),
    ] {
        let place = Place::postgres();
        let (database, other) = (place.open_with(CONNECTIONS), place.open_with(1));
        fixture::batch(&other, before);
        let query = Query::parse("q", sql).unwrap();
        let json = |text: &str| SqlValue::Json(text.to_owned());
        fn write_everywhere(database: &Database, left: u32, query: &Query, value: &SqlValue) {
            if left > 0 {
                database
                    .transaction(|tx| {
                        tx.write(query, &[("v", value.clone())])?;
                        // In another transaction, while this one still has its connection.
                        write_everywhere(database, left - 1, query, value);
                        tx.undo();
                        Ok(())
                    })
                    .unwrap();
            }
        }
        write_everywhere(&database, CONNECTIONS, &query, &json(old));
        fixture::batch(&other, change);
        for _ in 0..2 * CONNECTIONS {
            let written =
                database.change(Isolation::Plain, |tx| tx.write(&query, &[("v", json(new))]));
            assert!(written.is_ok(), "{change}: {written:?}");
        }
        let refused = database.change(Isolation::Plain, |tx| {
            tx.write(&query, &[("v", json("[1]"))])
        });
        match new.starts_with('{') {
            true => assert!(refused.is_ok(), "JSON takes anything"),
            false => assert!(
                matches!(&refused, Err(DatabaseError::Unfit { parameter, .. }) if parameter == "v"),
                "{change}: {refused:?}"
            ),
        }
    }
}

#[test]
fn statements_that_a_pooler_threw_away_are_prepared_again() {
    let place = Place::postgres();
    let database = place.open_with(CONNECTIONS);
    fixture::batch(
        &database,
        "CREATE TABLE t (id INT); INSERT INTO t VALUES (1)",
    );
    let read = Query::parse("read", "SELECT id FROM t WHERE id = :v").unwrap();
    let write = Query::parse("write", "UPDATE t SET id = id WHERE id = :v").unwrap();
    fn throw_away(database: &Database, left: u32) {
        if left > 0 {
            database
                .transaction(|tx| {
                    tx.batch("DEALLOCATE ALL")?;
                    throw_away(database, left - 1);
                    Ok(())
                })
                .unwrap();
        }
    }
    for _ in 0..3 {
        prepare_everywhere(&database, CONNECTIONS, &read, "1");
        throw_away(&database, CONNECTIONS);
        let found = database.read(&read, &[("v", "1".into())], Shape::One);
        assert_eq!(found, Ok(Some(br#"{"id":1}"#.to_vec())));
        let run = || {
            database.change(Isolation::Plain, |tx| {
                tx.write(&write, &[("v", "1".into())])
            })
        };
        run().unwrap();
        throw_away(&database, CONNECTIONS);
        assert_eq!(run().unwrap().changed, 1);
    }
}

#[test]
fn what_does_not_fit_is_refused_as_before_and_costs_no_statement() {
    let place = Place::postgres();
    let database = place.open_with(1);
    fixture::batch(
        &database,
        "CREATE TABLE t (id INT); INSERT INTO t VALUES (1)",
    );
    let query = Query::parse("q", "SELECT id FROM t WHERE id = :v").unwrap();
    let read = |value: &str| database.read(&query, &[("v", value.into())], Shape::One);
    for _ in 0..2 {
        assert!(read("1").unwrap().is_some());
        assert_eq!(
            read("x"),
            Err(DatabaseError::Unfit {
                parameter: "v".to_owned(),
                valid: "a whole number from -2147483648 to 2147483647".to_owned(),
            })
        );
        assert_eq!(read("5000000000"), Ok(None), "no row can have it");
    }
}
