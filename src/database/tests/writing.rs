//! Writing: changed and returned rows, violated constraints, and that a failure leaves nothing.

use crate::database::fixture;
use crate::database::{
    Database, DatabaseError, DatabaseKind, Isolation, Parameter, Query, Shape, SqlValue,
    WriteResult,
};

fn write(
    database: &Database,
    sql: &str,
    parameters: &[Parameter<'_>],
) -> Result<WriteResult, DatabaseError> {
    let query = Query::parse("q", sql)?;
    database.change(Isolation::Plain, |tx| tx.write(&query, parameters))
}

fn rows(database: &Database, table: &str) -> String {
    let query = Query::parse("rows", &format!("SELECT count(*) AS n FROM {table}")).unwrap();
    let json = database.read(&query, &[], Shape::One).unwrap().unwrap();
    String::from_utf8(json).unwrap()
}

fn json(text: &str) -> SqlValue {
    SqlValue::Json(text.to_owned())
}

#[test]
fn a_write_says_what_it_changed_and_returned() {
    fixture::each_bare(|place| {
        let database = place.open();
        fixture::batch(
            &database,
            "CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT, score DOUBLE PRECISION)",
        );
        let parameters = [("id", json("1")), ("name", json(r#""é \" '; DROP""#))];
        let insert = "INSERT INTO t (id, name) VALUES (:id, :name) RETURNING name, id, score";
        let written = write(&database, insert, &parameters).unwrap();
        assert_eq!((written.changed, written.rows.len()), (1, 1));
        let row = &written.rows[0];
        assert_eq!(
            String::from_utf8_lossy(&row.json),
            r#"{"name":"é \" '; DROP","id":1,"score":null}"#
        );
        assert_eq!(row.text("id").as_deref(), Some("1"));
        assert_eq!(row.text("name").as_deref(), Some("é \" '; DROP"));
        assert_eq!((row.text("score"), row.text("nowhere")), (None, None));

        let plain = "INSERT INTO t (id) VALUES (2), (3)";
        let written = write(&database, plain, &[]).unwrap();
        assert_eq!((written.changed, written.rows.len()), (2, 0));
        let all = "UPDATE t SET score = 1.5 RETURNING id";
        let written = write(&database, all, &[]).unwrap();
        let ids: Vec<_> = written.rows.iter().map(|row| row.text("id")).collect();
        assert_eq!(written.changed, 3);
        assert_eq!(ids, ["1", "2", "3"].map(|id| Some(id.to_owned())));
        let none = "DELETE FROM t WHERE id = :id";
        let written = write(&database, none, &[("id", SqlValue::Int(9))]).unwrap();
        assert_eq!((written.changed, written.rows.len()), (0, 0));
    });
}

#[test]
fn what_goes_against_the_schema_names_its_field_and_no_value() {
    fixture::each_bare(|place| {
        let database = place.open();
        let kind = database.kind();
        fixture::batch(
            &database,
            "CREATE TABLE orgs (id INTEGER PRIMARY KEY);
             CREATE TABLE users (id INTEGER PRIMARY KEY, email TEXT NOT NULL UNIQUE,
                 age INTEGER CHECK (age > 0), org INTEGER REFERENCES orgs (id),
                 first TEXT, last TEXT, CONSTRAINT grown_up CHECK (age < 200), UNIQUE (first, last));
             INSERT INTO orgs VALUES (1); INSERT INTO users VALUES (1, 'secret@x', 5, 1, 'f', 'l')",
        );
        let insert = "INSERT INTO users (id, email, age, org, first, last)
                      VALUES (:id, :email, :age, :org, :first, :last)";
        let base = [
            ("id", json("2")),
            ("email", json(r#""b@x""#)),
            ("age", SqlValue::Null),
            ("org", SqlValue::Null),
            ("first", SqlValue::Null),
            ("last", SqlValue::Null),
        ];
        let with = |changes: &[(&str, &str)]| {
            let mut parameters = base.clone();
            for (name, value) in changes {
                let place = parameters
                    .iter_mut()
                    .find(|(known, _)| known == name)
                    .unwrap();
                place.1 = if *value == "null" {
                    SqlValue::Null
                } else {
                    json(value)
                };
            }
            write(&database, insert, &parameters).unwrap_err()
        };
        let unfit = |error: DatabaseError, field: &str, part: &str| {
            assert!(
                matches!(&error, DatabaseError::Unfit { parameter, valid }
                    if parameter == field && valid.contains(part)),
                "{kind} {error:?}"
            );
        };
        let conflict = |error: DatabaseError, expected: Option<&str>, part: &str| {
            assert!(!error.to_string().contains("secret"), "{error}");
            assert!(
                matches!(&error, DatabaseError::Conflict { field, what }
                    if field.as_deref() == expected && what.contains(part)),
                "{kind} {error:?}"
            );
        };
        unfit(with(&[("email", "null")]), "email", "not null");
        unfit(with(&[("age", "-1")]), "age", "constraint");
        unfit(with(&[("age", "300")]), "grown_up", "constraint");
        conflict(
            with(&[("email", r#""secret@x""#)]),
            Some("email"),
            "violates a uniqueness constraint",
        );
        conflict(
            with(&[("id", "1")]),
            Some("id"),
            "violates a uniqueness constraint",
        );
        let both = [("first", r#""f""#), ("last", r#""l""#)];
        conflict(
            with(&both),
            Some("first, last"),
            "violates a uniqueness constraint",
        );
        // SQLite does not name the reference.
        let org = (kind == DatabaseKind::Postgres).then_some("org");
        conflict(with(&[("org", "7")]), org, "not found");
        let error = write(&database, "DELETE FROM orgs", &[]).unwrap_err();
        let id = (kind == DatabaseKind::Postgres).then_some("id");
        conflict(error, id, "still referenced");
        assert_eq!(rows(&database, "users"), r#"{"n":1}"#);
    });
}

#[test]
fn what_only_one_database_refuses_is_named_too() {
    fixture::each_bare(|place| {
        let database = place.open();
        let refused = |sql: &str, field: &str, value: &str, part: &str| {
            let error = write(&database, sql, &[(field, json(value))]).unwrap_err();
            assert!(
                matches!(&error, DatabaseError::Unfit { parameter, valid }
                    if parameter == field && valid.contains(part)),
                "{sql}: {error:?}"
            );
        };
        match database.kind() {
            DatabaseKind::Postgres => {
                fixture::batch(
                    &database,
                    "CREATE TABLE t (id int4, code varchar(3), price numeric(5, 2))",
                );
                refused(
                    "INSERT INTO t (code) VALUES (:code)",
                    "code",
                    r#""abcd""#,
                    "at most 3",
                );
                refused(
                    "INSERT INTO t (price) VALUES (:price)",
                    "price",
                    "1234",
                    "fewer digits",
                );
                refused(
                    "UPDATE t SET id = 1 WHERE id = :id",
                    "id",
                    "2147483648",
                    "whole number",
                );
                let odd = "SELECT :v::text::uuid AS id";
                let error = write(&database, odd, &[("v", json(r#""secret""#))]).unwrap_err();
                assert!(
                    matches!(&error, DatabaseError::Invalid(what)
                        if what.contains("uuid") && !what.contains("secret")),
                    "{error:?}"
                );
            }
            DatabaseKind::Sqlite => {
                fixture::batch(
                    &database,
                    "CREATE TABLE t (id INTEGER PRIMARY KEY, age INTEGER) STRICT;
                     CREATE TRIGGER no BEFORE DELETE ON t BEGIN SELECT RAISE(ABORT, 'not this one'); END",
                );
                refused(
                    "INSERT INTO t (age) VALUES (:age)",
                    "age",
                    r#""x""#,
                    "INTEGER",
                );
                fixture::batch(&database, "INSERT INTO t VALUES (1, 1)");
                let error = write(&database, "DELETE FROM t", &[]).unwrap_err();
                assert!(
                    matches!(&error, DatabaseError::Conflict { field: None, what } if what == "not this one"),
                    "{error:?}"
                );
            }
        }
    });
}

#[test]
fn values_are_checked_without_running_the_statement() {
    fixture::each_bare(|place| {
        let database = place.open_with(1);
        fixture::batch(&database, "CREATE TABLE t (id INTEGER PRIMARY KEY)");
        let insert = Query::parse("insert", "INSERT INTO t VALUES (:id)").unwrap();
        let check = |value: &str| {
            let value = [("id", json(value))];
            database.change(Isolation::Plain, |tx| tx.check(&insert, &value))
        };
        let unfit = |checked: Result<(), DatabaseError>| matches!(checked, Err(DatabaseError::Unfit { parameter, .. }) if parameter == "id");
        assert_eq!(check("1"), Ok(()));
        assert!(unfit(check(r#""\ud800""#)), "an unpaired surrogate");
        assert_eq!(rows(&database, "t"), r#"{"n":0}"#);
        if database.kind() == DatabaseKind::Postgres {
            assert!(unfit(check("5000000000")), "it is too large");
            // The statement that was prepared does not know of the change.
            fixture::batch(&database, "ALTER TABLE t ALTER id TYPE BIGINT");
            assert_eq!(check("5000000000"), Ok(()));
        }
    });
}

#[test]
fn a_failure_half_way_leaves_nothing_behind() {
    fixture::each_bare(|place| {
        let database = place.open_with(1);
        fixture::batch(
            &database,
            "CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER CHECK (n < 3)); CREATE TABLE log (n INTEGER)",
        );
        let three = "INSERT INTO t VALUES (1, 1), (2, 2), (3, 3) RETURNING id";
        write(&database, three, &[]).unwrap_err();
        let note = Query::parse("note", "INSERT INTO log VALUES (1)").unwrap();
        let three = Query::parse("three", three).unwrap();
        let swallowed = database.change(Isolation::Plain, |tx| {
            tx.write(&note, &[])?;
            let _ = tx.write(&three, &[]);
            Ok(())
        });
        assert!(
            matches!(swallowed, Err(DatabaseError::Unfit { .. })),
            "{swallowed:?}"
        );
        assert_eq!(rows(&database, "t"), r#"{"n":0}"#);
        assert_eq!(rows(&database, "log"), r#"{"n":0}"#);
        database
            .change(Isolation::Plain, |tx| tx.write(&note, &[]))
            .unwrap();
        assert_eq!(rows(&database, "log"), r#"{"n":1}"#);
    });
}

#[test]
fn what_is_undone_leaves_nothing_and_its_value_is_handed_out() {
    fixture::each_bare(|place| {
        let database = place.open_with(1);
        fixture::batch(&database, "CREATE TABLE log (n INTEGER)");
        let note = Query::parse("note", "INSERT INTO log VALUES (1)").unwrap();
        for isolation in [Isolation::Plain, Isolation::Serializable] {
            let mut attempts = 0;
            let undone = database.change(isolation, |tx| {
                attempts += 1;
                let written = tx.write(&note, &[])?;
                tx.undo();
                Ok(written.changed)
            });
            assert_eq!((undone, attempts), (Ok(1), 1));
            assert_eq!(rows(&database, "log"), r#"{"n":0}"#);
        }
        let failed = database.change(Isolation::Plain, |tx| {
            tx.undo();
            let _ = tx.write(&Query::parse("q", "SELECT nothing")?, &[]);
            Ok(())
        });
        assert!(failed.is_err(), "a statement that failed is still told");
        write(&database, "INSERT INTO log VALUES (2)", &[]).unwrap();
        assert_eq!(rows(&database, "log"), r#"{"n":1}"#);
    });
}

#[test]
fn what_a_write_returns_is_no_larger_than_what_a_read_does() {
    fixture::each_bare(|place| {
        let database = place.open();
        fixture::batch(&database, "CREATE TABLE t (i INTEGER, x TEXT)");
        let sql = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :rows)
                   INSERT INTO t SELECT i, 'a text of some length, so that it takes fewer rows to be too much' FROM n
                   RETURNING i, x";
        let rows_of = |rows: i64| write(&database, sql, &[("rows", rows.into())]);
        let error = rows_of(100_000).unwrap_err();
        assert!(
            matches!(&error, DatabaseError::Failed(what) if what.contains("4 MiB")),
            "{error:?}"
        );
        assert_eq!(rows(&database, "t"), r#"{"n":0}"#);
        assert_eq!(rows_of(1000).unwrap().rows.len(), 1000);
    });
}

#[test]
fn what_triggers_of_a_view_write_counts_and_what_others_write_does_not() {
    let place = fixture::Place::sqlite();
    let database = place.open();
    fixture::batch(
        &database,
        "CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER); INSERT INTO t VALUES (1, 1), (2, 2);
         CREATE TABLE log (n INTEGER); CREATE TABLE child (id INTEGER REFERENCES t (id) ON DELETE CASCADE);
         INSERT INTO child VALUES (1), (1), (1);
         CREATE TRIGGER note AFTER UPDATE ON t BEGIN INSERT INTO log VALUES (1), (2); END;
         CREATE VIEW v AS SELECT id, n FROM t;
         CREATE TRIGGER v_update INSTEAD OF UPDATE ON v BEGIN UPDATE t SET n = NEW.n WHERE id = OLD.id; END;
         CREATE TRIGGER v_insert INSTEAD OF INSERT ON v BEGIN INSERT INTO t VALUES (NEW.id, NEW.n); END;
         CREATE TRIGGER v_delete INSTEAD OF DELETE ON v BEGIN SELECT 1; END",
    );
    let changed = |sql: &str| write(&database, sql, &[]).unwrap().changed;
    assert!(changed("UPDATE v SET n = 5 WHERE id = 1") > 0);
    assert_eq!(changed("UPDATE v SET n = 5 WHERE id = 9"), 0);
    assert_eq!(changed("INSERT INTO v VALUES (3, 3)"), 1);
    assert_eq!(changed("DELETE FROM v"), 0);
    assert_eq!(changed("UPDATE t SET n = 6 WHERE id = 2"), 1);
    assert_eq!(changed("UPDATE t SET n = 6 WHERE id = 9"), 0);
    assert_eq!(changed("DELETE FROM t WHERE id = 1"), 1);
    assert_eq!(changed("DELETE FROM t WHERE id = 9"), 0);
    assert_eq!(changed("SELECT id FROM t"), 0);
}
