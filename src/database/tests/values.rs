//! Single values to the database and back, in larder's own queries.

use crate::database::fixture::{self, Place};
use crate::database::{DatabaseError, Parameter, Query, SqlValue, Transaction};

fn ask(
    tx: &mut Transaction<'_>,
    sql: &str,
    parameters: &[Parameter<'_>],
) -> Result<SqlValue, DatabaseError> {
    let rows = tx.query_this(&Query::parse("test", sql)?, parameters)?;
    Ok(rows[0].columns().next().unwrap().1.clone())
}

fn run(
    tx: &mut Transaction<'_>,
    sql: &str,
    parameters: &[Parameter<'_>],
) -> Result<u64, DatabaseError> {
    tx.execute_this(&Query::parse("test", sql)?, parameters)
}

#[test]
fn values_come_back_as_they_went() {
    fixture::each_bare(|place| {
        place
            .open()
            .transaction(|tx| {
                tx.batch("CREATE TABLE t (i BIGINT, x DOUBLE PRECISION, s TEXT)")?;
                let parameters = [
                    ("i", SqlValue::Int(i64::MIN)),
                    ("x", SqlValue::Real(0.1)),
                    ("s", "it's :x é".into()),
                ];
                run(tx, "INSERT INTO t VALUES (:i, :x, :s)", &parameters)?;
                run(
                    tx,
                    "INSERT INTO t VALUES (:a, :b, :c)",
                    &["a", "b", "c"].map(|name| (name, SqlValue::Null)),
                )?;
                let rows = tx.query_this(
                    &Query::parse("test", "SELECT i, x, s FROM t ORDER BY i IS NULL")?,
                    &[],
                )?;
                for (name, value) in &parameters {
                    assert_eq!(rows[0].get(name), Some(value));
                    assert_eq!(rows[1].get(name), Some(&SqlValue::Null));
                }
                Ok(())
            })
            .unwrap();
    });
}

#[test]
fn postgres_gets_the_type_it_wants_and_gives_text_for_what_has_no_other_form() {
    let ask = |sql: &str, value: SqlValue| {
        Place::postgres()
            .open()
            .transaction(|tx| ask(tx, sql, &[("v", value.clone())]))
    };
    for (ty, value) in [
        ("bool", SqlValue::Bool(true)),
        ("int2", SqlValue::Int(-7)),
        ("int4", SqlValue::Int(7)),
        ("int8", SqlValue::Int(i64::MAX)),
        ("float4", SqlValue::Real(0.1)),
        ("float8", SqlValue::Real(1e300)),
        ("text", SqlValue::from("ü")),
        ("varchar(9)", SqlValue::from("ü")),
        ("bytea", SqlValue::Bytes(vec![0, 255])),
        (
            "uuid",
            SqlValue::from("6ba7b810-9dad-11d1-80b4-00c04fd430c8"),
        ),
        ("json", SqlValue::from(r#"{"a": 1}"#)),
        ("jsonb", SqlValue::from(r#"{"a": 1}"#)),
        ("timestamptz", SqlValue::from("1969-07-20T20:17:40.123456Z")),
        ("timestamp", SqlValue::from("2026-03-01T00:00:01")),
        ("date", SqlValue::from("1999-12-31")),
        ("int4", SqlValue::Null),
    ] {
        assert_eq!(
            ask(&format!("SELECT :v::{ty}"), value.clone()),
            Ok(value),
            "{ty}"
        );
    }
    assert_eq!(
        ask("SELECT :v::float8", SqlValue::Int(3)),
        Ok(SqlValue::Real(3.0))
    );
    assert_eq!(
        ask(
            "SELECT :v::timestamptz",
            SqlValue::from("2026-03-01T01:00:00+01:00")
        ),
        Ok("2026-03-01T00:00:00Z".into())
    );
    for (sql, value, kind) in [
        ("SELECT :v::uuid", SqlValue::from("no uuid"), "a UUID"),
        ("SELECT :v::text", SqlValue::from("a\0b"), "without NUL"),
        ("SELECT :v::bool", SqlValue::Int(1), "true or false"),
        ("SELECT :v::money", SqlValue::Int(1), "money"),
    ] {
        let error = ask(sql, value).unwrap_err();
        assert!(
            matches!(&error, DatabaseError::Unfit { parameter, valid }
                if parameter == "v" && valid.contains(kind)),
            "{error}"
        );
    }
    let error = ask("SELECT 1.5, :v::int4", SqlValue::Int(1)).unwrap_err();
    assert!(
        matches!(&error, DatabaseError::Failed(what) if what.contains("cast")),
        "{error}"
    );
}

#[test]
fn an_integer_too_large_for_its_column_finds_nothing() {
    let database = Place::postgres().open();
    let count = |id: i64| {
        database.transaction(|tx| {
            tx.batch("CREATE TABLE IF NOT EXISTS t (id INT4); INSERT INTO t VALUES (7)")?;
            ask(
                tx,
                "SELECT count(*) FROM t WHERE id = :id",
                &[("id", SqlValue::Int(id))],
            )
        })
    };
    assert_eq!(count(7), Ok(SqlValue::Int(1)));
    assert_eq!(count(i64::MAX), Ok(SqlValue::Int(0)));
}

#[test]
fn an_error_does_not_quote_the_statement() {
    fixture::each_bare(|place| {
        let error = place
            .open()
            .transaction(|tx| ask(tx, "SELECT secret_column FROM hidden WHERE 1 = 2", &[]));
        let error = error.unwrap_err();
        assert!(matches!(error, DatabaseError::Failed(_)), "{error:?}");
        assert!(!error.to_string().contains("1 = 2"), "{error}");
    });
}
