//! Reading for resources: shapes, declared types of SQLite, and that a read never writes.

use crate::database::fixture::{self, Place};
use crate::database::{Database, DatabaseError, DatabaseKind, Parameter, Query, Shape, SqlValue};

fn read(
    database: &Database,
    sql: &str,
    parameters: &[Parameter<'_>],
    shape: Shape,
) -> Result<Option<String>, DatabaseError> {
    let json = database.read(&Query::parse("q", sql)?, parameters, shape)?;
    Ok(json.map(|json| String::from_utf8(json).unwrap()))
}

#[test]
fn one_row_is_an_object_and_many_are_an_array() {
    fixture::each_bare(|place| {
        let database = place.open();
        fixture::batch(
            &database,
            "CREATE TABLE users (id INTEGER, name TEXT);
             INSERT INTO users VALUES (1, 'it''s \"é\"'), (2, NULL), (2, 'twice')",
        );
        let sql = "SELECT name AS z, id AS a FROM users WHERE id = :id ORDER BY name IS NULL";
        let user = |id: i64, shape| read(&database, sql, &[("id", id.into())], shape);
        let ada = r#"{"z":"it's \"é\"","a":1}"#;
        assert_eq!(user(1, Shape::One).unwrap().as_deref(), Some(ada));
        assert_eq!(user(1, Shape::Many).unwrap(), Some(format!("[{ada}]")));
        let both = r#"[{"z":"twice","a":2},{"z":null,"a":2}]"#;
        assert_eq!(user(2, Shape::Many).unwrap().as_deref(), Some(both));
        assert_eq!(user(3, Shape::One).unwrap(), None);
        assert_eq!(user(3, Shape::Many).unwrap().as_deref(), Some("[]"));
        let error = user(2, Shape::One).unwrap_err();
        assert!(
            matches!(&error, DatabaseError::Failed(what) if what.contains("more than one row")),
            "{error}"
        );

        let name = "'; DROP TABLE users; --";
        let sql = "SELECT :name AS name, count(*) AS n FROM users WHERE name = :name";
        let sql = match database.kind() {
            DatabaseKind::Postgres => sql.replace(":name AS", ":name::text AS"),
            DatabaseKind::Sqlite => sql.to_owned(),
        };
        let found = read(&database, &sql, &[("name", name.into())], Shape::One).unwrap();
        assert_eq!(found, Some(format!(r#"{{"name":"{name}","n":0}}"#)));
        assert_eq!(user(1, Shape::One).unwrap().as_deref(), Some(ada));
    });
}

#[test]
fn a_read_cannot_write() {
    fixture::each_bare(|place| {
        let database = place.open_with(1);
        fixture::batch(
            &database,
            "CREATE TABLE t (id INTEGER); INSERT INTO t VALUES (1)",
        );
        let count = || read(&database, "SELECT count(*) AS n FROM t", &[], Shape::One);
        let insert = "INSERT INTO t VALUES (2) RETURNING id";
        let mut writing = vec![insert, "DELETE FROM t RETURNING id", "UPDATE t SET id = 3"];
        if database.kind() == DatabaseKind::Postgres {
            fixture::batch(
                &database,
                "CREATE FUNCTION sly() RETURNS int4 LANGUAGE sql AS 'INSERT INTO t VALUES (4) RETURNING id';
                 CREATE SEQUENCE s",
            );
            writing.extend([
                "WITH x AS (INSERT INTO t VALUES (2) RETURNING id) SELECT id FROM x",
                "SELECT sly() AS id",
                "SELECT nextval('s') AS id",
                "SELECT id FROM t FOR UPDATE",
                "SELECT set_config('transaction_read_only', 'off', true) AS x, sly() AS id",
            ]);
        }
        for sql in writing {
            read(&database, sql, &[], Shape::Many).unwrap_err();
            assert_eq!(count().unwrap().as_deref(), Some(r#"{"n":1}"#), "{sql}");
        }
        // The connection is still good.
        fixture::batch(&database, "INSERT INTO t VALUES (2)");
        assert_eq!(count().unwrap().as_deref(), Some(r#"{"n":2}"#));
    });
}

#[test]
fn two_columns_of_one_name_are_refused() {
    fixture::each_bare(|place| {
        let database = place.open();
        let error = read(&database, "SELECT 1 AS a, 2 AS a", &[], Shape::One).unwrap_err();
        assert!(
            matches!(&error, DatabaseError::Misconfigured(what) if what.contains("called a;")),
            "{error}"
        );
    });
}

#[test]
fn a_result_that_is_too_large_is_refused() {
    fixture::each_bare(|place| {
        let database = place.open();
        let sql = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :rows)
                   SELECT i, 'a text of some length, so that it takes fewer rows to be too much' AS t FROM n";
        let rows = |rows: i64| read(&database, sql, &[("rows", rows.into())], Shape::Many);
        assert!(rows(1000).unwrap().unwrap().len() > 60_000);
        let error = rows(100_000).unwrap_err();
        assert!(
            matches!(&error, DatabaseError::Failed(what) if what.contains("LIMIT")),
            "{error}"
        );
        assert!(rows(1).is_ok(), "the connection is good");
    });
}

#[test]
fn a_changed_schema_costs_no_reader_an_error() {
    fixture::each_bare(|place| {
        let database = place.open_with(1);
        fixture::batch(
            &database,
            "CREATE TABLE t (id INTEGER); INSERT INTO t VALUES (1)",
        );
        let all = || {
            read(&database, "SELECT * FROM t", &[], Shape::One)
                .unwrap()
                .unwrap()
        };
        assert_eq!(all(), r#"{"id":1}"#);
        fixture::batch(&database, "ALTER TABLE t ADD COLUMN name TEXT DEFAULT 'x'");
        assert_eq!(all(), r#"{"id":1,"name":"x"}"#);
    });
}

#[test]
fn a_column_that_could_not_be_read_is_read_again_once_it_is_gone() {
    let place = Place::postgres();
    let database = place.open_with(1);
    fixture::batch(
        &database,
        "CREATE TABLE t (id INTEGER); INSERT INTO t VALUES (1)",
    );
    let all = || read(&database, "SELECT * FROM t", &[], Shape::One);
    let expected = Ok(Some(r#"{"id":1}"#.to_owned()));
    assert_eq!(all(), expected);
    fixture::batch(&database, "ALTER TABLE t ADD m money DEFAULT 5");
    for _ in 0..2 {
        let error = all().unwrap_err();
        assert!(
            matches!(&error, DatabaseError::Misconfigured(what) if what.contains("money")),
            "{error:?}"
        );
    }
    fixture::batch(&database, "ALTER TABLE t DROP m");
    assert_eq!(all(), expected);
}

#[test]
fn sqlite_goes_by_what_is_stored_and_what_is_declared() {
    let place = Place::sqlite();
    let database = place.open();
    fixture::batch(
        &database,
        r#"CREATE TABLE t (yes BOOLEAN, no BOOL, odd BOOLEAN, doc JSON, broken JSON, price DECIMAL(9, 2), data BLOB, none_such, big INTEGER, r REAL);
           INSERT INTO t VALUES (1, 0, 7, '{"b": 1.10, "a": []}', '{"b', 1.5, x'00fffe', NULL, -9223372036854775808, 9e999)"#,
    );
    let all = read(&database, "SELECT * FROM t", &[], Shape::One)
        .unwrap()
        .unwrap();
    assert_eq!(
        all,
        r#"{"yes":true,"no":false,"odd":7,"doc":{"b": 1.10, "a": []},"broken":"{\"b","price":1.5,"data":"AP/+","none_such":null,"big":-9223372036854775808,"r":"Infinity"}"#
    );
    let computed = read(
        &database,
        "SELECT yes + 0 AS a, CAST(x'ff41' AS TEXT) AS b, 0.1 AS c FROM t",
        &[],
        Shape::One,
    );
    assert_eq!(
        computed.unwrap().as_deref(),
        Some("{\"a\":1,\"b\":\"\u{fffd}A\",\"c\":0.1}")
    );
}

#[test]
fn sqlite_takes_json_by_its_type() {
    let place = Place::sqlite();
    let database = place.open();
    for (value, expected) in [
        ("true", r#"{"v":1,"t":"integer"}"#),
        (
            "9223372036854775807",
            r#"{"v":9223372036854775807,"t":"integer"}"#,
        ),
        ("1.5", r#"{"v":1.5,"t":"real"}"#),
        (r#""7""#, r#"{"v":"7","t":"text"}"#),
        (r#"{"a":[1]}"#, r#"{"v":"{\"a\":[1]}","t":"text"}"#),
    ] {
        let parameters = [("v", SqlValue::Json(value.to_owned()))];
        let found = read(
            &database,
            "SELECT :v AS v, typeof(:v) AS t",
            &parameters,
            Shape::One,
        );
        assert_eq!(found.unwrap().as_deref(), Some(expected));
    }
    for (value, expected) in [
        ("9223372036854775808", "a whole number"),
        ("1e400", "a number"),
        (r#""\ud800""#, "text"),
    ] {
        let parameters = [("v", SqlValue::Json(value.to_owned()))];
        let error = read(&database, "SELECT :v AS v", &parameters, Shape::One).unwrap_err();
        assert!(
            matches!(&error, DatabaseError::Unfit { parameter, valid }
                if parameter == "v" && valid.contains(expected)),
            "{error:?}"
        );
    }
}
