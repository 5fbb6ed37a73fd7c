//! Describing queries without running them, even if there is no database yet.

use crate::database::fixture::{self, Place};
use postgres::types::Type;

use crate::database::{
    Canonical, ColumnForm, Database, DatabaseError, DatabaseKind, Description, JsonForm, Query,
    Shape, describe_all,
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
        let whole = JsonForm::Integer {
            min: i32::MIN.into(),
            max: i32::MAX.into(),
        };
        let text = JsonForm::Text { format: None };
        let forms = |which: &[usize]| -> Vec<JsonForm> {
            let of = |at: &usize| match database.kind() {
                DatabaseKind::Postgres => [whole.clone(), text.clone()][*at].clone(),
                DatabaseKind::Sqlite => JsonForm::Stored { declared: None },
            };
            which.iter().map(of).collect()
        };
        let column_forms = || -> Vec<ColumnForm> {
            let stored = JsonForm::Stored {
                declared: Some("INTEGER".to_owned()),
            };
            let number = match database.kind() {
                DatabaseKind::Postgres => whole.clone(),
                DatabaseKind::Sqlite => stored,
            };
            let nullable = |form| ColumnForm {
                form,
                nullable: true,
            };
            vec![nullable(text.clone()), nullable(number)]
        };
        let read = "SELECT name, id AS number FROM t WHERE id = :id";
        assert_eq!(
            describe(&database, read),
            Ok(Description {
                parameters: parameters(&["id"]),
                parameter_texts: texts(&[0]),
                parameter_forms: forms(&[0]),
                columns: vec!["name".to_owned(), "number".to_owned()],
                column_texts: texts(&[1, 0]),
                column_forms: column_forms(),
                returns_rows: true,
                returns_one_row: false,
                writes: false,
            })
        );
        let write = "INSERT INTO t VALUES (:id, :name)";
        assert_eq!(
            describe(&database, write),
            Ok(Description {
                parameters: parameters(&["id", "name"]),
                parameter_texts: texts(&[0, 1]),
                parameter_forms: forms(&[0, 1]),
                columns: vec![],
                column_texts: vec![],
                column_forms: vec![],
                returns_rows: false,
                returns_one_row: false,
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

fn form_of(database: &Database, sql: &str) -> (JsonForm, bool) {
    let described = describe(database, sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
    let ColumnForm { form, nullable } = described.column_forms[0].clone();
    (form, nullable)
}

#[test]
fn on_sqlite_a_column_has_the_form_that_the_schema_enforces() {
    let place = Place::sqlite();
    let database = place.open();
    fixture::batch(
        &database,
        "CREATE TABLE loose (id INTEGER PRIMARY KEY, n INT NOT NULL, name TEXT NOT NULL, v VARCHAR(9),
             done BOOLEAN, more JSON, raw BLOB);
         CREATE TABLE strict (id INTEGER NOT NULL, x REAL, raw BLOB NOT NULL, t TEXT, a ANY) STRICT;
         CREATE TABLE descending (id INTEGER PRIMARY KEY DESC);
         CREATE TABLE pair (a INTEGER, b INTEGER, PRIMARY KEY (a, b));
         CREATE VIEW seen AS SELECT loose.name FROM pair LEFT JOIN loose ON loose.id = pair.a",
    );
    let whole = JsonForm::Integer {
        min: i64::MIN,
        max: i64::MAX,
    };
    let text = JsonForm::Text { format: None };
    let stored = |declared: &str| JsonForm::Stored {
        declared: Some(declared.to_owned()),
    };
    let expression = JsonForm::Stored { declared: None };
    for (sql, form, nullable) in [
        ("SELECT id FROM loose", &whole, false),
        ("SELECT n FROM loose", &stored("INT"), false),
        ("SELECT l.name AS other FROM loose AS l", &text, false),
        ("SELECT v FROM loose", &text, true),
        ("SELECT done FROM loose", &stored("BOOLEAN"), true),
        ("SELECT more FROM loose", &JsonForm::Any, true),
        ("SELECT raw FROM loose", &stored("BLOB"), true),
        ("SELECT n + 1 AS m FROM loose", &expression, true),
        ("SELECT id FROM strict", &whole, false),
        (
            "SELECT x FROM strict",
            &JsonForm::Number { exact: false },
            true,
        ),
        ("SELECT raw FROM strict", &JsonForm::Base64, false),
        ("SELECT t FROM strict", &text, true),
        ("SELECT a FROM strict", &stored("ANY"), true),
        // Not the row id, so it may be null, and any value.
        ("SELECT id FROM descending", &stored("INTEGER"), true),
        ("SELECT a FROM pair", &stored("INTEGER"), true),
        // These add rows that the schema of the table does not know.
        (
            "SELECT l.name FROM pair LEFT JOIN loose l ON l.id = pair.a",
            &stored("TEXT"),
            true,
        ),
        ("SELECT name FROM seen", &stored("TEXT"), true),
        (
            "SELECT name FROM loose UNION SELECT 1",
            &stored("TEXT"),
            true,
        ),
        (
            "INSERT INTO loose (n, name) VALUES (1, :name) RETURNING name",
            &text,
            false,
        ),
    ] {
        assert_eq!(form_of(&database, sql), (form.clone(), nullable), "{sql}");
    }
}

#[test]
fn on_postgres_a_column_has_the_form_of_its_type() {
    let place = Place::postgres();
    let database = place.open();
    fixture::batch(
        &database,
        "CREATE TYPE mood AS ENUM ('fine', 'bad'); CREATE DOMAIN age AS int2;
         CREATE TABLE t (id int8 PRIMARY KEY, n numeric NOT NULL, years age NOT NULL, m mood, at timestamptz,
             tags text[], j jsonb, raw bytea);
         CREATE VIEW seen AS SELECT id FROM t",
    );
    let whole = |min: i64, max: i64| JsonForm::Integer { min, max };
    let text = |format| JsonForm::Text { format };
    let moods = JsonForm::OneOf(vec!["fine".to_owned(), "bad".to_owned()]);
    let texts = JsonForm::Array(Box::new(text(None)));
    let big = whole(i64::MIN, i64::MAX);
    for (sql, form, nullable) in [
        ("SELECT id FROM t", &big, false),
        ("SELECT n FROM t", &JsonForm::Number { exact: true }, false),
        ("SELECT years AS y FROM t", &whole(-32768, 32767), false),
        ("SELECT m FROM t", &moods, true),
        ("SELECT at FROM t", &text(Some("date-time")), true),
        ("SELECT tags FROM t", &texts, true),
        ("SELECT j FROM t", &JsonForm::AnyWithoutNul, true),
        ("SELECT j::json AS j FROM t", &JsonForm::Any, true),
        ("SELECT raw FROM t", &JsonForm::Base64, true),
        ("SELECT id + 1 AS next FROM t", &big, true),
        ("SELECT id FROM seen", &big, true),
        (
            "SELECT b.id FROM t AS a LEFT JOIN t AS b ON b.id = a.id + 1",
            &big,
            true,
        ),
        (
            "SELECT b.id FROM t AS a JOIN t AS b ON b.id = a.id + 1",
            &big,
            false,
        ),
        ("SELECT 'left join' AS words, id FROM t", &text(None), true),
        ("DELETE FROM t RETURNING id", &big, false),
    ] {
        assert_eq!(form_of(&database, sql), (form.clone(), nullable), "{sql}");
    }
}

#[test]
fn an_insert_of_one_list_of_values_returns_one_row() {
    fixture::each_bare(|place| {
        let database = place.open();
        fixture::batch(&database, "CREATE TABLE t (a TEXT UNIQUE, b TEXT)");
        for (sql, one) in [
            (
                "INSERT INTO t (a, b) VALUES (:a, lower(:b)) RETURNING a",
                true,
            ),
            ("insert into t (a) values ('x') returning a", true),
            ("INSERT INTO t (a) VALUES (:a) , (:b) RETURNING a", false),
            ("INSERT INTO t (a) SELECT a FROM t RETURNING a", false),
            (
                "INSERT INTO t (a) VALUES (:a) ON CONFLICT DO NOTHING RETURNING a",
                false,
            ),
            ("INSERT INTO t (a) VALUES (:a)", false),
            ("DELETE FROM t RETURNING a", false),
        ] {
            let described = describe(&database, sql).unwrap();
            assert_eq!(described.returns_one_row, one, "{sql}");
        }
    });
}
