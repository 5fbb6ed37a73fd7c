//! The types of Postgres, decoded as JSON.

use std::sync::OnceLock;

use serde_json::value::RawValue;

use crate::database::fixture::{self, Opened, Place};
use crate::database::{Database, DatabaseError, Parameter, Query, Shape, SqlValue};

/// A database that the tests of one process share. No test leaves anything in it.
pub(super) fn database() -> Database {
    static SHARED: OnceLock<Opened> = OnceLock::new();
    let open = || {
        let database = Place::postgres().open();
        fixture::batch(
            &database,
            "CREATE EXTENSION citext; CREATE TYPE mood AS ENUM ('ok', 'it''s \"so\"');
             CREATE DOMAIN age AS int4 CHECK (VALUE >= 0); CREATE DOMAIN ages AS age[];
             CREATE TYPE pair AS (a int4, b text)",
        );
        database
    };
    Database::clone(SHARED.get_or_init(open))
}

/// The JSON of the single column of a SELECT.
pub(super) fn select(sql: &str, parameters: &[Parameter<'_>]) -> Result<String, DatabaseError> {
    let query = Query::parse("q", &format!("SELECT {sql} AS v"))?;
    let json = database().read(&query, parameters, Shape::One)?.unwrap();
    let json = String::from_utf8(json).unwrap();
    serde_json::from_str::<&RawValue>(&json).unwrap_or_else(|error| panic!("{json}: {error}"));
    Ok(json
        .strip_prefix(r#"{"v":"#)
        .and_then(|rest| rest.strip_suffix('}'))
        .unwrap()
        .to_owned())
}

#[test]
fn every_common_type_is_natural_json() {
    for (sql, expected) in [
        ("true", "true"),
        ("false", "false"),
        ("(-32768)::int2", "-32768"),
        ("2147483647", "2147483647"),
        ("(-9223372036854775808)::int8", "-9223372036854775808"),
        ("4294967295::oid", "4294967295"),
        ("0.1::float4", "0.1"),
        ("0.1::float8", "0.1"),
        ("1e300::float8", "1e+300"),
        ("'NaN'::float4", r#""NaN""#),
        ("'Infinity'::float8", r#""Infinity""#),
        ("'-Infinity'::float4", r#""-Infinity""#),
        ("1.50::numeric", "1.50"),
        ("0.000::numeric", "0.000"),
        ("'-0.000'::numeric", "0.000"),
        ("'NaN'::numeric", r#""NaN""#),
        ("'Infinity'::numeric", r#""Infinity""#),
        ("'-Infinity'::numeric", r#""-Infinity""#),
        ("E'a\"\\\\\\n\\u0001é'::text", r#""a\"\\\n\u0001é""#),
        ("'ab'::varchar(5)", r#""ab""#),
        ("'ab'::char(3)", r#""ab ""#),
        ("'ab'::name", r#""ab""#),
        ("'a'::\"char\"", r#""a""#),
        ("''::\"char\"", r#""""#),
        ("'Ab'::citext", r#""Ab""#),
        ("'it''s \"so\"'::mood", r#""it's \"so\"""#),
        ("'<a/>'::xml", r#""<a/>""#),
        (
            "'6ba7b810-9dad-11d1-80b4-00c04fd430c8'::uuid",
            r#""6ba7b810-9dad-11d1-80b4-00c04fd430c8""#,
        ),
        (
            r#"'{"b": 1.0, "a": [null]}'::json"#,
            r#"{"b": 1.0, "a": [null]}"#,
        ),
        (
            r#"'{"b": 1.0, "a": [null]}'::jsonb"#,
            r#"{"a": [null], "b": 1.0}"#,
        ),
        ("'null'::jsonb", "null"),
        (r"'\x00fffe'::bytea", r#""AP/+""#),
        (r"'\x00'::bytea", r#""AA==""#),
        ("''::bytea", r#""""#),
        ("'2026-03-01'::date", r#""2026-03-01""#),
        ("'0001-01-01 BC'::date", r#""0000-01-01""#),
        ("'4713-11-24 BC'::date", r#""-004712-11-24""#),
        ("'5874897-12-31'::date", r#""+5874897-12-31""#),
        ("'infinity'::date", r#""infinity""#),
        ("'-infinity'::date", r#""-infinity""#),
        ("'13:05:00'::time", r#""13:05:00""#),
        ("'24:00'::time", r#""24:00:00""#),
        ("'13:05:00.5+05:30'::timetz", r#""13:05:00.5+05:30""#),
        ("'13:05:00-01:00:30'::timetz", r#""13:05:00-01:00:30""#),
        (
            "'2026-03-01 13:05:00.000001'::timestamp",
            r#""2026-03-01T13:05:00.000001""#,
        ),
        ("'infinity'::timestamp", r#""infinity""#),
        (
            "'2026-03-01 01:00:00+01'::timestamptz",
            r#""2026-03-01T00:00:00Z""#,
        ),
        (
            "'0044-03-15 00:00:00+00 BC'::timestamptz",
            r#""-000043-03-15T00:00:00Z""#,
        ),
        (
            "'294276-12-31 23:59:59.999999+00'::timestamptz",
            r#""+294276-12-31T23:59:59.999999Z""#,
        ),
        ("'-infinity'::timestamptz", r#""-infinity""#),
        (
            "'1 year 2 mons 3 days 04:05:06.7'::interval",
            r#""P1Y2M3DT4H5M6.7S""#,
        ),
        ("'-1 mon -00:00:00.5'::interval", r#""P-1MT-0.5S""#),
        ("'0'::interval", r#""PT0S""#),
        ("'10.1.2.3'::inet", r#""10.1.2.3""#),
        ("'10.1.2.3/8'::inet", r#""10.1.2.3/8""#),
        ("'2001:db8::/32'::cidr", r#""2001:db8::/32""#),
        ("'10.1.2.3'::cidr", r#""10.1.2.3/32""#),
        ("'08:00:2b:01:02:03'::macaddr", r#""08:00:2b:01:02:03""#),
        (
            "'08:00:2b:01:02:03:04:05'::macaddr8",
            r#""08:00:2b:01:02:03:04:05""#,
        ),
        ("B'101'", r#""101""#),
        ("''::varbit", r#""""#),
        ("NULL::int4", "null"),
        ("NULL::numeric", "null"),
        ("7::age", "7"),
        ("'{}'::int4[]", "[]"),
        ("'{1,NULL,3}'::int8[]", "[1,null,3]"),
        ("'{{1,2},{3,4}}'::int2[]", "[[1,2],[3,4]]"),
        ("'{{{a},{b}}}'::text[]", r#"[[["a"],["b"]]]"#),
        ("'[5:6]={1.50,NaN}'::numeric[]", r#"[1.50,"NaN"]"#),
        ("ARRAY['ok', NULL]::mood[]", r#"["ok",null]"#),
        (r#"ARRAY['{"a":1}', '2']::jsonb[]"#, r#"[{"a": 1},2]"#),
        (
            "ARRAY['2026-03-01 00:00+00']::timestamptz[]",
            r#"["2026-03-01T00:00:00Z"]"#,
        ),
        ("'{7}'::ages", "[7]"),
        ("ARRAY[7]::age[]", "[7]"),
        ("NULL::text[]", "null"),
        ("'1 2'::int2vector", "[1,2]"),
    ] {
        assert_eq!(select(sql, &[]).as_deref(), Ok(expected), "{sql}");
    }
}

#[test]
fn what_has_no_form_in_json_is_refused_before_it_runs() {
    for (sql, ty) in [
        ("1::money", "money"),
        ("int4range(1, 2)", "int4range"),
        ("point(1, 2)", "point"),
        ("ROW(1, 'a')::pair", "pair"),
        ("to_tsvector('a')", "tsvector"),
        ("ARRAY[1::money]", "money[]"),
        ("pg_current_wal_lsn()", "pg_lsn"),
    ] {
        let query = Query::parse("q", &format!("SELECT 1 AS one, {sql} AS odd")).unwrap();
        for error in [
            database().read(&query, &[], Shape::Many).unwrap_err(),
            database().describe(&query).unwrap_err(),
        ] {
            let DatabaseError::Misconfigured(what) = &error else {
                panic!("{sql}: {error:?}")
            };
            for part in ["query q", "column odd", ty, "cast it in the query"] {
                assert!(what.contains(part), "{sql}: {what}");
            }
        }
    }
}

#[test]
fn the_longest_numbers_keep_every_digit() {
    let long = "9".repeat(131_072);
    assert_eq!(select(&format!("{long}::numeric"), &[]).unwrap(), long);
    let tiny = format!("0.{}1", "0".repeat(16_382));
    assert_eq!(select(&format!("{tiny}::numeric"), &[]).unwrap(), tiny);
    let parameters = SqlValue::Json("1e-400".to_owned());
    let back = select(
        "(:v::numeric = 1e-400)::text || scale(:v)",
        &[("v", parameters)],
    );
    assert_eq!(back.unwrap(), r#""true400""#);
}
