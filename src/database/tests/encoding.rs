//! JSON, and the text of URLs, encoded in the types of Postgres.

use serde_json::value::RawValue;

use super::decoding::{database, select};
use crate::database::{DatabaseError, DatabaseKind, Parameter, Query, Shape, SqlValue};

/// The value after a round trip through a parameter of this type, and Postgres's own text of it.
fn through(ty: &str, value: SqlValue) -> Result<(String, String), DatabaseError> {
    let back = select(&format!(":v::{ty}"), &[("v", value.clone())])?;
    let text = select(&format!("(:v::{ty})::text"), &[("v", value)])?;
    Ok((back, text))
}

#[test]
fn json_becomes_what_the_statement_wants() {
    // The JSON, its type, the JSON that comes back, Postgres's text.
    for (value, ty, back, text) in [
        ("true", "bool", "true", "true"),
        ("-32768", "int2", "-32768", "-32768"),
        ("1.0", "int4", "1", "1"),
        ("1e3", "int4", "1000", "1000"),
        (
            "9223372036854775807",
            "int8",
            "9223372036854775807",
            "9223372036854775807",
        ),
        ("0.1", "float4", "0.1", "0.1"),
        ("1e300", "float8", "1e+300", "1e+300"),
        (r#""NaN""#, "float8", r#""NaN""#, "NaN"),
        (
            "12345678901234567890.10",
            "numeric",
            "12345678901234567890.10",
            "12345678901234567890.10",
        ),
        ("-1.5e-3", "numeric", "-0.0015", "-0.0015"),
        (r#""0.10""#, "numeric", "0.10", "0.10"),
        (r#""-Infinity""#, "numeric", r#""-Infinity""#, "-Infinity"),
        (
            r#""'; DROP TABLE t; --""#,
            "text",
            r#""'; DROP TABLE t; --""#,
            "'; DROP TABLE t; --",
        ),
        (r#""\u00e9\n""#, "varchar", r#""é\n""#, "é\n"),
        (r#""a""#, "\"char\"", r#""a""#, "a"),
        (r#""Ab""#, "citext", r#""Ab""#, "Ab"),
        (r#""ok""#, "mood", r#""ok""#, "ok"),
        (
            r#""6BA7B810-9dad-11d1-80b4-00c04fd430c8""#,
            "uuid",
            r#""6ba7b810-9dad-11d1-80b4-00c04fd430c8""#,
            "6ba7b810-9dad-11d1-80b4-00c04fd430c8",
        ),
        (r#""AP/+""#, "bytea", r#""AP/+""#, r"\x00fffe"),
        (
            r#""-000043-03-15""#,
            "date",
            r#""-000043-03-15""#,
            "0044-03-15 BC",
        ),
        (r#""infinity""#, "date", r#""infinity""#, "infinity"),
        (
            r#""13:05:00.25""#,
            "time",
            r#""13:05:00.25""#,
            "13:05:00.25",
        ),
        (
            r#""13:05:00-03:30""#,
            "timetz",
            r#""13:05:00-03:30""#,
            "13:05:00-03:30",
        ),
        (
            r#""2026-03-01T13:05:00""#,
            "timestamp",
            r#""2026-03-01T13:05:00""#,
            "2026-03-01 13:05:00",
        ),
        (
            r#""2026-03-01T00:00:00.123456+01:00""#,
            "timestamptz",
            r#""2026-02-28T23:00:00.123456Z""#,
            "2026-02-28 23:00:00.123456+00",
        ),
        (
            r#""P1Y2M3DT4H5M6.7S""#,
            "interval",
            r#""P1Y2M3DT4H5M6.7S""#,
            "1 year 2 mons 3 days 04:05:06.7",
        ),
        (r#""10.1.2.3/8""#, "inet", r#""10.1.2.3/8""#, "10.1.2.3/8"),
        (r#""10.0.0.0/8""#, "cidr", r#""10.0.0.0/8""#, "10.0.0.0/8"),
        (
            r#""08-00-2b-01-02-03""#,
            "macaddr",
            r#""08:00:2b:01:02:03""#,
            "08:00:2b:01:02:03",
        ),
        (r#""101""#, "varbit", r#""101""#, "101"),
        (r#"{"a":1.10}"#, "json", r#"{"a":1.10}"#, r#"{"a":1.10}"#),
        (
            r#"{"a":12345678901234567890.10}"#,
            "jsonb",
            r#"{"a": 12345678901234567890.10}"#,
            r#"{"a": 12345678901234567890.10}"#,
        ),
        (r#""text""#, "jsonb", r#""text""#, r#""text""#),
        (
            r#"["\\u0000"]"#,
            "jsonb",
            r#"["\\u0000"]"#,
            r#"["\\u0000"]"#,
        ),
        ("7", "jsonb", "7", "7"),
        ("7", "age", "7", "7"),
        ("[]", "int4[]", "[]", "{}"),
        ("[1,null]", "int4[]", "[1,null]", "{1,NULL}"),
        (
            "[[1.0],[2.50]]",
            "numeric[]",
            "[[1.0],[2.50]]",
            "{{1.0},{2.50}}",
        ),
        (
            r#"["a,\"b", ""]"#,
            "text[]",
            r#"["a,\"b",""]"#,
            r#"{"a,\"b",""}"#,
        ),
        (r#"["ok"]"#, "mood[]", r#"["ok"]"#, "{ok}"),
        (
            "[[1,2],[3]]",
            "jsonb[]",
            "[[1, 2],[3]]",
            r#"{"[1, 2]",[3]}"#,
        ),
        ("[7]", "ages", "[7]", "{7}"),
        ("[1]", "jsonb", "[1]", "[1]"),
    ] {
        let raw: Box<RawValue> = serde_json::from_str(value).unwrap();
        let (found, printed) =
            through(ty, SqlValue::from(&*raw)).unwrap_or_else(|e| panic!("{value} {ty}: {e}"));
        assert_eq!(found, back, "{value} as {ty}");
        assert_eq!(
            serde_json::from_str::<String>(&printed).unwrap(),
            text,
            "{value} as {ty}"
        );
    }
    let null: &RawValue = serde_json::from_str("null").unwrap();
    assert_eq!(
        select(":v::jsonb IS NULL", &[("v", SqlValue::from(null))]).unwrap(),
        "true"
    );
}

#[test]
fn what_does_not_fit_names_the_parameter_and_what_would() {
    let numbers = "a whole number from -2147483648 to 2147483647";
    for (value, ty, expected) in [
        ("2147483648", "int4", numbers),
        ("1.5", "int4", numbers),
        (r#""7""#, "int4", numbers),
        ("true", "int4", numbers),
        ("32768", "int2", "32767"),
        ("9223372036854775808", "int8", "9223372036854775807"),
        ("-1", "oid", "4294967295"),
        ("1e400", "float8", "eight bytes"),
        ("9007199254740993", "float8", "eight bytes"),
        ("1e39", "float4", "four bytes"),
        ("1e200000", "numeric", "a number"),
        (r#""1,5""#, "numeric", "a number"),
        ("1", "bool", "true or false"),
        ("1", "text", "a string"),
        ("{}", "varchar", "a string"),
        ("5", "bytea", "a string of base64"),
        ("true", "uuid", "a UUID"),
        (r#""a""#, "text[]", "an array of strings"),
        ("[1]", "text[]", "an array of strings"),
        (r#"[["a"],[{}]]"#, "varchar[]", "an array of strings"),
        (r#"["a\u0000b"]"#, "text[]", "NUL"),
        (r#""a\u0000b""#, "text", "NUL"),
        (r#""\ud800""#, "text", "text"),
        (r#""sad""#, "mood", "one of ok, it's \"so\""),
        (r#""x""#, "uuid", "a UUID"),
        (r#""a=""#, "bytea", "base64"),
        (r#""2026-02-30""#, "date", "a date"),
        (r#""9999999-01-01""#, "date", "a date"),
        (r#""25:00""#, "time", "a time"),
        (r#""13:05""#, "timetz", "offset"),
        (
            r#""2026-03-01T00:00:00Z""#,
            "timestamp",
            "a date and time such",
        ),
        (r#""2026-03-01T00:00:00""#, "timestamptz", "with its offset"),
        (r#""1 day""#, "interval", "ISO 8601"),
        (r#""10.1.2""#, "inet", "an IP address"),
        (r#""10.1.2.3/8""#, "cidr", "a network"),
        (r#""08:00""#, "macaddr", "a MAC address"),
        (r#""102""#, "varbit", "zeros and ones"),
        (r#"{"a":"\u0000"}"#, "jsonb", "NUL"),
        (r#"[{"\\\u0000":1}]"#, "jsonb", "NUL"),
        (r#"["\u0000"]"#, "jsonb[]", "NUL"),
        ("1", "int4[]", "an array"),
        ("[[1,2],[3]]", "int4[]", "an array"),
        ("[1,[2]]", "int4[]", "an array"),
        ("[[1],2]", "int4[]", "an array"),
        ("[[[1]],[2]]", "int4[]", "an array"),
        ("[1,2147483648]", "int4[]", numbers),
        ("[[[[[[[1]]]]]]]", "int4[]", "an array"),
    ] {
        let error = select(
            &format!(":other::int4, :field::{ty}"),
            &[
                ("other", SqlValue::Int(1)),
                ("field", SqlValue::Json(value.to_owned())),
            ],
        );
        let error = error.unwrap_err();
        assert!(
            matches!(&error, DatabaseError::Unfit { parameter, valid }
                if parameter == "field" && valid.contains(expected)),
            "{value} as {ty}: {error:?}"
        );
    }
}

#[test]
fn the_text_of_a_url_is_read_as_what_the_statement_wants() {
    for (value, ty, expected) in [
        ("7", "int4", "7"),
        ("true", "bool", "true"),
        ("1.50", "numeric", "1.50"),
        ("7", "text", r#""7""#),
        ("[1]", "jsonb", "[1]"),
    ] {
        let found = select(&format!(":v::{ty}"), &[("v", value.into())]);
        assert_eq!(found.as_deref(), Ok(expected), "{value} as {ty}");
    }
    let query = Query::parse(
        "q",
        "SELECT count(*) AS n FROM (VALUES (1)) AS t (id) WHERE id = :v",
    );
    let query = query.unwrap();
    for value in [SqlValue::from("99999999999"), SqlValue::Int(99_999_999_999)] {
        let found = database().read(&query, &[("v", value)], Shape::One);
        assert_eq!(found, Ok(Some(br#"{"n":0}"#.to_vec())));
    }
}

#[test]
fn a_number_too_large_for_its_cast_is_the_fault_of_its_parameter() {
    let database = database();
    let refused = |expression: &str, parameters: &[Parameter<'_>]| {
        let sql = format!("SELECT count(*) AS n FROM (VALUES (1)) AS t (id) WHERE {expression}");
        let query = Query::parse_for(DatabaseKind::Postgres, "q", &sql).unwrap();
        database.read(&query, parameters, Shape::One).unwrap_err()
    };
    let large = || SqlValue::from("99999999999");
    for expression in [
        "id = :v::int",
        "id = abs(:v::int4)",
        "id = :v::int2",
        "(ARRAY[1])[:v] = :other",
        "make_date(:v, 1, 1) IS NULL",
    ] {
        let mut parameters = vec![("v", large())];
        if expression.contains(":other") {
            parameters.push(("other", SqlValue::from("1")));
        }
        let error = refused(expression, &parameters);
        assert!(
            matches!(&error, DatabaseError::Unfit { parameter, valid }
                if parameter == "v" && valid.starts_with("a whole number from -")),
            "{expression}: {error:?}"
        );
    }
    for (expression, value, expected) in [
        ("id = 10 / :v::int", "0", "division by zero"),
        (
            "id = :v::text::int",
            "secret",
            "invalid input syntax for type integer",
        ),
        (
            "make_date(:v, 13, 45) IS NULL",
            "7654",
            "date field value out of range",
        ),
        (
            "get_byte('x'::bytea, :v) = 1",
            "7654",
            "index … out of valid range",
        ),
        (
            "ln(:v::float8) = 1",
            "-7654",
            "cannot take logarithm of a negative number",
        ),
        ("id = :v::int * 2000000000", "7654", "integer out of range"),
    ] {
        let error = refused(expression, &[("v", value.into())]);
        assert_eq!(
            error,
            DatabaseError::Invalid(expected.to_owned()),
            "{expression}"
        );
    }
}

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config::with_cases(64))]

    #[test]
    fn a_numeric_reads_as_postgres_writes_it(text in "-?(0|[1-9][0-9]{0,40})(\\.[0-9]{1,40})?(e-?[0-9]{1,2})?") {
        let raw: Box<RawValue> = serde_json::from_str(&text).unwrap();
        let (back, printed) = through("numeric", SqlValue::from(&*raw)).unwrap();
        proptest::prop_assert_eq!(format!("\"{back}\""), printed, "{}", text);
        let literal = select(&format!("('{text}'::numeric)::text"), &[]).unwrap();
        proptest::prop_assert_eq!(format!("\"{back}\""), literal, "{}", text);
    }

    #[test]
    fn an_array_reads_as_postgres_writes_it(
        rows in proptest::collection::vec(
            proptest::array::uniform3(proptest::option::of("[ -~é\\n]{0,6}")), 0..4)
    ) {
        let value = serde_json::value::to_raw_value(&rows).unwrap();
        let back = select(":v::text[]", &[("v", SqlValue::from(&*value))]).unwrap();
        let back: serde_json::Value = serde_json::from_str(&back).unwrap();
        proptest::prop_assert_eq!(&back, &serde_json::to_value(&rows).unwrap());
        let own = select("to_json(:v::text[])", &[("v", SqlValue::from(&*value))]).unwrap();
        let own: serde_json::Value = serde_json::from_str(&own).unwrap();
        proptest::prop_assert_eq!(&back, &own);
    }
}
