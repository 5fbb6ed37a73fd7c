//! Describing queries without running them, even if there is no database yet.

use crate::database::fixture::{self, Place};
use postgres::types::Type;

use crate::database::{
    Canonical, Database, DatabaseError, DatabaseKind, Description, Query, Shape, describe_all,
};

fn describe(database: &Database, sql: &str) -> Result<Description, DatabaseError> {
    database.describe(&Query::parse("q", sql)?)
}

#[test]
fn a_description_says_what_goes_in_and_comes_out() {
    fixture::each_bare(|place| {
        let database = place.open();
        fixture::batch(&database, "CREATE TABLE t (id INTEGER, name VARCHAR(9))");
        let types = match database.kind() {
            DatabaseKind::Postgres => ["int4", "varchar"],
            DatabaseKind::Sqlite => ["any", "any"],
        };
        let parameters = |names: &[&str]| -> Vec<(String, String)> {
            let named = names.iter().zip(types);
            named
                .map(|(name, ty)| ((*name).to_owned(), ty.to_owned()))
                .collect()
        };
        let texts = |which: &[usize]| -> Vec<Canonical> {
            let of = |at: &usize| match database.kind() {
                DatabaseKind::Postgres => Canonical::Type([Type::INT4, Type::VARCHAR][*at].clone()),
                DatabaseKind::Sqlite => Canonical::Sqlite,
            };
            which.iter().map(of).collect()
        };
        let read = "SELECT name, id AS number FROM t WHERE id = :id";
        assert_eq!(
            describe(&database, read),
            Ok(Description {
                parameters: parameters(&["id"]),
                parameter_texts: texts(&[0]),
                columns: vec!["name".to_owned(), "number".to_owned()],
                column_texts: texts(&[1, 0]),
                returns_rows: true,
                writes: false,
            })
        );
        let write = "INSERT INTO t VALUES (:id, :name)";
        assert_eq!(
            describe(&database, write),
            Ok(Description {
                parameters: parameters(&["id", "name"]),
                parameter_texts: texts(&[0, 1]),
                columns: vec![],
                column_texts: vec![],
                returns_rows: false,
                writes: true,
            })
        );
        let returning = describe(&database, "DELETE FROM t RETURNING id").unwrap();
        assert!(returning.writes && returning.returns_rows);
        let count = Query::parse("count", "SELECT count(*) AS n FROM t").unwrap();
        let found = database.read(&count, &[], Shape::One).unwrap().unwrap();
        assert_eq!(found, br#"{"n":0}"#, "nothing was run");
        if database.kind() == DatabaseKind::Postgres {
            for (sql, writes) in [
                (
                    "WITH x AS (UPDATE t SET id = :v RETURNING id) SELECT id FROM x",
                    true,
                ),
                ("SELECT id FROM t WHERE id = :v FOR UPDATE", true),
                (
                    "WITH x AS (SELECT id FROM t) SELECT * FROM x; -- the end",
                    false,
                ),
                ("VALUES (1, 'ModifyTable')", false),
            ] {
                assert_eq!(describe(&database, sql).unwrap().writes, writes, "{sql}");
            }
            let array = describe(&database, "SELECT 1 AS a WHERE 1 = ANY (:ids)").unwrap();
            assert_eq!(array.parameters, [("ids".to_owned(), "int4[]".to_owned())]);
        }
    });
}

#[test]
fn what_the_database_refuses_is_said_with_its_line() {
    fixture::each_bare(|place| {
        let database = place.open();
        fixture::batch(&database, "CREATE TABLE t (id INTEGER)");
        let mut wrong = vec![
            ("SELECT id,\n nam FROM t", "nam"),
            ("SELECT id FROM nowhere", "nowhere"),
            ("SELECT id FROM t WHERE", "query q"),
            ("SELECT id, id FROM t", "two columns are called id"),
        ];
        if database.kind() == DatabaseKind::Postgres {
            wrong.extend([
                ("SELECT id,\n nam FROM t", "line 2"),
                ("SELECT 1 AS a WHERE :one IS NULL", ":one::text"),
                (
                    "SELECT id FROM t WHERE (:two IS NULL OR id = :one AND :two = 'x')",
                    "such as :two::text",
                ),
                (
                    "SELECT 1 AS a WHERE concat(:one) = ''",
                    "such as :one::text",
                ),
                ("SELECT :one + :two AS a", "such as :one::text"),
                ("SELECT jsonb_build_object('a', :one) AS a", ":one::text"),
                ("SELECT 1 AS a WHERE :p = point(1, 2)", "operator"),
                ("SELECT 1 AS a WHERE :p <@ box '(1,1),(2,2)'", ":p"),
                ("SELECT 'hidden'::money AS price", "invalid input syntax"),
            ]);
        } else {
            wrong.push(("SELECT id,\n nam FROM t", "line 2"));
        }
        for (sql, part) in wrong {
            let error = describe(&database, sql).unwrap_err();
            assert!(
                matches!(&error, DatabaseError::Misconfigured(what)
                    if what.contains("query q") && what.contains(part) && !what.contains("hidden")),
                "{sql}: {error:?}"
            );
        }
    });
}

#[test]
fn a_check_changes_nothing_and_makes_no_file() {
    fixture::each_bare(|place| {
        let queries = [
            "SELECT nothing FROM nowhere",
            "SELECT id FROM api_keys WHERE name = :name",
        ]
        .map(|sql| Query::parse("q", sql).unwrap());
        let check = |settings| {
            let (described, _) = describe_all(settings, &queries).unwrap();
            assert!(matches!(
                &described[0],
                Err(DatabaseError::Misconfigured(_))
            ));
            assert_eq!(described[1].as_ref().unwrap().columns, ["id"]);
        };
        let settings = place.settings();
        check(&settings);
        let file = settings.url.as_ref().unwrap().reveal().to_owned();
        if let Some(file) = file.strip_prefix("sqlite://") {
            assert!(!std::path::Path::new(file).exists());
        }
        let database = place.open();
        let tables = match database.kind() {
            DatabaseKind::Postgres => {
                "SELECT relname AS t FROM pg_class WHERE relname LIKE 'api_key%'"
            }
            DatabaseKind::Sqlite => "SELECT name AS t FROM sqlite_schema",
        };
        let tables = Query::parse("tables", tables).unwrap();
        let tables = || database.read(&tables, &[], Shape::Many).unwrap().unwrap();
        check(&settings);
        assert_eq!(tables(), b"[]", "what was missing is missing still");
        database.migrate().unwrap();
        let there = tables();
        check(&settings);
        assert_eq!(tables(), there);
        assert_eq!(database.migrate(), Ok(0));

        fixture::batch(
            &database,
            "INSERT INTO larder_migrations VALUES (999, 'newer', 0)",
        );
        let error = describe_all(&settings, &queries).unwrap_err();
        assert!(error.to_string().contains("newer"), "{error}");
    });
}

#[test]
fn a_check_waits_for_nobody_that_writes() {
    for place in [Place::sqlite(), Place::postgres()] {
        let database = place.migrated();
        let query = Query::parse("q", "SELECT id FROM api_keys").unwrap();
        database
            .transaction(|_| {
                let (described, _) = describe_all(&place.settings(), std::slice::from_ref(&query))?;
                assert!(described[0].is_ok());
                Ok(())
            })
            .unwrap();
    }
}
