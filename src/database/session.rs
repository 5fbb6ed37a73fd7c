//! A connection while one caller has it: statements on their own, or a transaction.
//!
//! Promise: a transaction whose function fails or panics leaves nothing behind, and its connection goes back to the pool only
//! if that is certain. A statement is prepared once per connection.

use std::sync::Arc;
use std::time::Instant;

use postgres::Statement;
use postgres::types::{ToSql, Type};
use r2d2_sqlite::rusqlite;

use super::DatabaseKind;
use super::error::DatabaseError;
use super::postgres_pool::PostgresConnection;
use super::query::{self, Parameter, Query};
use super::value::{Row, Value};

/// One connection of either kind.
pub(super) enum Session<'a> {
    Postgres(&'a mut PostgresConnection),
    Sqlite(&'a rusqlite::Connection),
}

impl Session<'_> {
    fn kind(&self) -> DatabaseKind {
        match self {
            Session::Postgres(_) => DatabaseKind::Postgres,
            Session::Sqlite(_) => DatabaseKind::Sqlite,
        }
    }

    /// Runs SQL of larder's own that takes no values, of one statement or several.
    pub(super) fn batch(&mut self, sql: &str) -> Result<(), DatabaseError> {
        match self {
            Session::Postgres(connection) => connection.client.batch_execute(sql)?,
            Session::Sqlite(connection) => connection.execute_batch(sql)?,
        }
        Ok(())
    }

    pub(super) fn query(
        &mut self,
        query: &Query,
        given: &[Parameter<'_>],
    ) -> Result<Vec<Row>, DatabaseError> {
        let values = query.bind(given)?;
        let sql = query.text(self.kind());
        match self {
            Session::Postgres(connection) => {
                connection.run(sql, &values, |client, statement, values| {
                    let rows = client.query(statement, values)?;
                    let names: Arc<[String]> = statement
                        .columns()
                        .iter()
                        .map(|c| c.name().to_owned())
                        .collect();
                    let read = |row: &postgres::Row| {
                        let values = (0..row.len())
                            .map(|at| row.try_get(at))
                            .collect::<Result<_, _>>()?;
                        Ok(Row::new(names.clone(), values))
                    };
                    rows.iter().map(read).collect()
                })
            }
            Session::Sqlite(connection) => {
                let mut statement = prepare(connection, sql, &values)?;
                let names: Arc<[String]> = statement
                    .column_names()
                    .into_iter()
                    .map(str::to_owned)
                    .collect();
                let mut rows = statement.raw_query();
                let mut result = Vec::new();
                while let Some(row) = rows.next()? {
                    let values = (0..names.len())
                        .map(|at| row.get(at))
                        .collect::<Result<_, _>>()?;
                    result.push(Row::new(names.clone(), values));
                }
                Ok(result)
            }
        }
    }

    pub(super) fn execute(
        &mut self,
        query: &Query,
        given: &[Parameter<'_>],
    ) -> Result<u64, DatabaseError> {
        let values = query.bind(given)?;
        let sql = query.text(self.kind());
        match self {
            Session::Postgres(connection) => {
                connection.run(sql, &values, |client, statement, values| {
                    client.execute(statement, values)
                })
            }
            Session::Sqlite(connection) => {
                Ok(prepare(connection, sql, &values)?.raw_execute()? as u64)
            }
        }
    }

    /// Runs `work` between BEGIN and COMMIT, or ROLLBACK where it fails.
    pub(super) fn transaction<T>(
        self,
        work: impl FnOnce(&mut Transaction<'_>) -> Result<T, DatabaseError>,
    ) -> Result<T, DatabaseError> {
        let mut transaction = Transaction {
            session: self,
            open: false,
        };
        // IMMEDIATE: one that reads first and writes later could otherwise not get the write lock without starting over.
        transaction.session.batch(match transaction.session {
            Session::Postgres(_) => "BEGIN",
            Session::Sqlite(_) => "BEGIN IMMEDIATE",
        })?;
        transaction.open = true;
        let result = work(&mut transaction)?;
        transaction.session.batch("COMMIT")?;
        transaction.open = false;
        Ok(result)
    }
}

/// A transaction that is open; dropped without a COMMIT it is rolled back.
pub struct Transaction<'a> {
    session: Session<'a>,
    open: bool,
}

impl Transaction<'_> {
    /// Which database this is in.
    pub(super) fn kind(&self) -> DatabaseKind {
        self.session.kind()
    }

    /// The rows that larder's own query `name` gives.
    pub fn query(
        &mut self,
        name: &'static str,
        given: &[Parameter<'_>],
    ) -> Result<Vec<Row>, DatabaseError> {
        let query = query::own(name, self.session.kind())?;
        self.session.query(query, given)
    }

    /// Runs larder's own query `name` and returns how many rows it changed.
    pub fn execute(
        &mut self,
        name: &'static str,
        given: &[Parameter<'_>],
    ) -> Result<u64, DatabaseError> {
        let query = query::own(name, self.session.kind())?;
        self.session.execute(query, given)
    }

    /// Runs SQL of larder's own that takes no values, of one statement or several.
    pub(super) fn batch(&mut self, sql: &str) -> Result<(), DatabaseError> {
        self.session.batch(sql)
    }

    /// As `query`, for one that is not among the named ones.
    pub(super) fn query_this(
        &mut self,
        query: &Query,
        given: &[Parameter<'_>],
    ) -> Result<Vec<Row>, DatabaseError> {
        self.session.query(query, given)
    }

    /// As `execute`, for one that is not among the named ones.
    pub(super) fn execute_this(
        &mut self,
        query: &Query,
        given: &[Parameter<'_>],
    ) -> Result<u64, DatabaseError> {
        self.session.execute(query, given)
    }
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        if self.open && self.session.batch("ROLLBACK").is_err() {
            match &mut self.session {
                Session::Postgres(connection) => connection.spoilt = true,
                // SQLite has rolled back by itself where ROLLBACK finds no transaction; the manager asks it.
                Session::Sqlite(_) => {}
            }
        }
    }
}

impl PostgresConnection {
    /// Prepares `sql`, unless it is, and hands it over with its values.
    fn run<T>(
        &mut self,
        sql: &str,
        values: &[&Value],
        work: impl FnOnce(
            &mut postgres::Client,
            &Statement,
            &[&(dyn ToSql + Sync)],
        ) -> Result<T, postgres::Error>,
    ) -> Result<T, DatabaseError> {
        let mut statement = match self.statements.get(sql) {
            Some(statement) => statement.clone(),
            None => {
                let statement = self.client.prepare(sql)?;
                self.statements.insert(sql.to_owned(), statement.clone());
                statement
            }
        };
        let wanted = statement.params();
        if values
            .iter()
            .zip(wanted)
            .any(|(value, wanted)| value.overflows(wanted))
        {
            let widened = values.iter().zip(wanted);
            let types: Vec<Type> = widened
                .map(|(value, wanted)| {
                    if value.overflows(wanted) {
                        Type::INT8
                    } else {
                        wanted.clone()
                    }
                })
                .collect();
            statement = self.client.prepare_typed(sql, &types)?;
        }
        let values: Vec<&(dyn ToSql + Sync)> = values.iter().map(|value| *value as _).collect();
        let result = work(&mut self.client, &statement, &values);
        self.last_used = Instant::now();
        if result.is_err() {
            // After a change of the schema a prepared statement fails for good: prepared anew it may not.
            self.statements.remove(sql);
        }
        Ok(result?)
    }
}

fn prepare<'a>(
    connection: &'a rusqlite::Connection,
    sql: &str,
    values: &[&Value],
) -> Result<rusqlite::CachedStatement<'a>, DatabaseError> {
    let mut statement = connection.prepare_cached(sql)?;
    for (at, value) in values.iter().enumerate() {
        statement.raw_bind_parameter(at + 1, *value)?;
    }
    Ok(statement)
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{self, Place};
    use super::*;

    fn ask(
        tx: &mut Transaction<'_>,
        sql: &str,
        given: &[Parameter<'_>],
    ) -> Result<Value, DatabaseError> {
        let rows = tx.query_this(&Query::parse("test", sql)?, given)?;
        Ok(rows[0].columns().next().unwrap().1.clone())
    }

    fn run(
        tx: &mut Transaction<'_>,
        sql: &str,
        given: &[Parameter<'_>],
    ) -> Result<u64, DatabaseError> {
        tx.execute_this(&Query::parse("test", sql)?, given)
    }

    #[test]
    fn a_transaction_that_fails_or_panics_leaves_nothing_and_its_connection_is_good() {
        fixture::each_bare(|place| {
            let mut settings = place.settings();
            settings.pool = 1;
            let database = crate::database::Database::open(&settings).unwrap();
            database
                .transaction(|tx| tx.batch("CREATE TABLE t (id BIGINT PRIMARY KEY)"))
                .unwrap();
            let insert = |tx: &mut Transaction<'_>| {
                run(tx, "INSERT INTO t VALUES (:id)", &[("id", Value::Int(1))])
            };

            let failed = database.transaction(|tx| {
                insert(tx)?;
                insert(tx)
            });
            assert!(
                matches!(failed, Err(DatabaseError::Conflict(_))),
                "{failed:?}"
            );
            let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                database.transaction::<()>(|tx| {
                    insert(tx)?;
                    panic!("on purpose");
                })
            }));
            assert!(panicked.is_err());
            let count = |tx: &mut Transaction<'_>| ask(tx, "SELECT count(*) FROM t", &[]);
            assert_eq!(database.transaction(count).unwrap(), Value::Int(0));
            assert_eq!(database.transaction(insert).unwrap(), 1);
            assert_eq!(database.transaction(count).unwrap(), Value::Int(1));
        });
    }

    #[test]
    fn values_come_back_as_they_went() {
        fixture::each_bare(|place| {
            place
                .open()
                .transaction(|tx| {
                    tx.batch("CREATE TABLE t (i BIGINT, x DOUBLE PRECISION, s TEXT)")?;
                    let given = [
                        ("i", Value::Int(i64::MIN)),
                        ("x", Value::Real(0.1)),
                        ("s", "it's :x é".into()),
                    ];
                    run(tx, "INSERT INTO t VALUES (:i, :x, :s)", &given)?;
                    run(
                        tx,
                        "INSERT INTO t VALUES (:a, :b, :c)",
                        &["a", "b", "c"].map(|name| (name, Value::Null)),
                    )?;
                    let rows = tx.query_this(
                        &Query::parse("test", "SELECT i, x, s FROM t ORDER BY i IS NULL")?,
                        &[],
                    )?;
                    for (name, value) in &given {
                        assert_eq!(rows[0].get(name), Some(value));
                        assert_eq!(rows[1].get(name), Some(&Value::Null));
                    }
                    Ok(())
                })
                .unwrap();
        });
    }

    #[test]
    fn postgres_gets_the_type_it_wants_and_gives_text_for_what_has_no_other_form() {
        let ask = |sql: &str, given: Value| {
            Place::postgres()
                .open()
                .transaction(|tx| ask(tx, sql, &[("v", given)]))
        };
        for (ty, given) in [
            ("bool", Value::Bool(true)),
            ("int2", Value::Int(-7)),
            ("int4", Value::Int(7)),
            ("int8", Value::Int(i64::MAX)),
            ("float4", Value::Real(0.1)),
            ("float8", Value::Real(1e300)),
            ("text", Value::from("ü")),
            ("varchar(9)", Value::from("ü")),
            ("bytea", Value::Bytes(vec![0, 255])),
            ("uuid", Value::from("6ba7b810-9dad-11d1-80b4-00c04fd430c8")),
            ("json", Value::from(r#"{"a": 1}"#)),
            ("jsonb", Value::from(r#"{"a": 1}"#)),
            ("timestamptz", Value::from("1969-07-20T20:17:40.123456Z")),
            ("timestamp", Value::from("2026-03-01T00:00:01")),
            ("date", Value::from("1999-12-31")),
            ("int4", Value::Null),
        ] {
            assert_eq!(
                ask(&format!("SELECT :v::{ty}"), given.clone()),
                Ok(given),
                "{ty}"
            );
        }
        assert_eq!(
            ask("SELECT :v::float8", Value::Int(3)),
            Ok(Value::Real(3.0))
        );
        assert_eq!(
            ask(
                "SELECT :v::timestamptz",
                Value::from("2026-03-01T01:00:00+01:00")
            ),
            Ok("2026-03-01T00:00:00Z".into())
        );
        for (sql, given, kind) in [
            ("SELECT :v::uuid", Value::from("no uuid"), "uuid"),
            ("SELECT :v::text", Value::from("a\0b"), "text"),
            ("SELECT :v::bool", Value::Int(1), "bool"),
            ("SELECT :v::numeric", Value::Int(1), "numeric"),
        ] {
            let error = ask(sql, given).unwrap_err();
            assert!(
                matches!(&error, DatabaseError::Invalid(what) if what.contains(kind)),
                "{error}"
            );
        }
        let error = ask("SELECT 1.5, :v::int4", Value::Int(1)).unwrap_err();
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
                    &[("id", Value::Int(id))],
                )
            })
        };
        assert_eq!(count(7), Ok(Value::Int(1)));
        assert_eq!(count(i64::MAX), Ok(Value::Int(0)));
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
}
