//! Canonical texts: larder makes the same text of a spelling as the triggers of a watched table
//! make of the column that holds it.

use std::collections::{BTreeSet, HashMap};
use std::sync::OnceLock;

use proptest::prelude::*;
use proptest::strategy::ValueTree;

use crate::database::fixture::{self, Opened, Place};
use crate::database::{Canonical, DatabaseError, Query, SqlValue, Transaction};
use larder_cache::escape_into;

/// Every type of docs/sql.md that a name may contain, with two patterns of spellings: one of many
/// values, and one of few, so that two of them are often equal.
const TYPES: &[(&str, &str, &str)] = &[
    ("bool", "true|false", "true|false"),
    ("int2", "-?[0-9]{1,4}", "-?0{0,2}[0-2](\\.0|e0)?"),
    ("int4", "-?[0-9]{1,9}", "-?0{0,2}[0-2](\\.0|e0)?"),
    ("int8", "-?[0-9]{1,18}", "-?0{0,2}[0-2](\\.0|e1)?"),
    ("oid", "[0-9]{1,9}", "0{0,2}[0-2](\\.0)?"),
    (
        "numeric",
        "-?[0-9]{1,20}(\\.[0-9]{1,20})?(e-?[0-9]{1,2})?|NaN|Infinity|-Infinity",
        "-?0{0,2}[0-2](\\.[05]0{0,2})?(e-?[01])?",
    ),
    (
        "numeric(9,3)",
        "-?[0-9]{1,5}\\.[0-9]{1,3}0{0,3}",
        "[0-2](\\.[05]0{0,4})?",
    ),
    (
        "float4",
        "-?[0-9]{1,4}\\.[0-9]{1,9}(e-?[0-9])?|NaN|Infinity",
        "-?[0-2](\\.[05]0?)?(e-?[01])?",
    ),
    (
        "float8",
        "-?[0-9]{1,9}\\.[0-9]{1,18}(e-?[0-9]{1,2})?|NaN|-Infinity",
        "-?[0-2](\\.[05]0?)?(e-?[01])?",
    ),
    ("text", "[ -~éß€]{0,8}", "[aAéÉ ]{0,2}"),
    ("varchar(9)", "[ -~éß€]{0,8}", "[aAéÉ ]{0,2}"),
    ("char(6)", "[ -~é]{0,6}", "[aA]{0,2} {0,3}"),
    ("\"char\"", "[!-~]?", "[ab]"),
    ("name", "[ -~é]{0,20}", "[aA ]{0,2}"),
    ("citext", "[ -~éÉßΣσςKİıÅ]{0,8}", "[aAéÉςσΣ]{0,2}"),
    ("mood", "ok|so so|Ok", "ok|Ok"),
    ("handle", "[ -~éÉ]{0,8}", "[aAéÉ]{0,2}"),
    (
        "price",
        "[0-9]{1,5}(\\.[0-9]{1,4})?",
        "[0-2](\\.[05]0{0,2})?",
    ),
    (
        "uuid",
        "[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}",
        "0{8}-?0{4}-?0{4}-?0{4}-?0{11}[aAbB]",
    ),
    ("bytea", "([A-Za-z0-9+/]{4}){0,40}", "(AA==|AAA=|AAAA)?"),
    (
        "date",
        "([0-2][0-9]{3}|[+]0[0-9]{5}|-00[0-3][0-9]{3})-(0[1-9]|1[0-2])-(0[1-9]|[12][0-8])|infinity|-infinity",
        "([+]00)?200[01]-01-01",
    ),
    (
        "time",
        "([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9](\\.[0-9]{1,6})?)?",
        "24:00|00:00|00:00:00|23:59:60|00:00:00\\.50?",
    ),
    (
        "timetz",
        "([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9](\\.[0-9]{1,6})?)?[+-](0[0-9]|1[0-5])(:[0-5][0-9]){0,2}",
        "1[23]:00(:00)?(Z|[+]00(:00)?|[+-]01(:00)?)",
    ),
    (
        "timestamp",
        "([0-2][0-9]{3}|[+]00[0-9]{4}|-00[0-3][0-9]{3})-(0[1-9]|1[0-2])-(0[1-9]|[12][0-8])[T ]([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,6})?",
        "2000-01-01([T ]00:00(:00(\\.0)?)?)?|1999-12-31T24:00|infinity",
    ),
    (
        "timestamptz",
        "([0-2][0-9]{3}|[+]00[0-9]{4}|-00[0-3][0-9]{3})-(0[1-9]|1[0-2])-(0[1-9]|[12][0-8])[T ]([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,6})?(Z|[+-](0[0-9]|1[0-5])(:[0-5][0-9])?)",
        "2000-01-01[Tt ]0[01]:00(:00)?(Z|z|[+]0[01]:00)|-infinity",
    ),
    (
        "interval",
        "P(-?[0-9]{1,4}Y)?(-?[0-9]{1,2}M)?(-?[0-9]{1,3}D)?T-?[0-9]{1,4}H(-?[0-9]{1,3}M)?(-?[0-9]{1,2}(\\.[0-9]{1,6})?S)?",
        "P1D|PT24H|PT1440M|P1M|P30D|P1MT-24H|P29D|P4W|P28D",
    ),
    (
        "inet",
        "(1[0-9]{2}|[1-9]?[0-9])(\\.(1[0-9]{2}|[1-9]?[0-9])){3}(/(3[0-2]|[12]?[0-9]))?|([0-9a-fA-F]{1,4}:){7}[0-9a-fA-F]{1,4}(/[1-9]?[0-9])?|(::|::ffff:)[0-9a-f]{1,4}(:[0-9a-f]{1,4})?",
        "10\\.0\\.0\\.1(/32|/8)?|::1(/128)?|0:0:0:0:0:0:0:1|::0001|::A",
    ),
    (
        "cidr",
        "(1[0-9]{2}|[1-9]?[0-9])(\\.(1[0-9]{2}|[1-9]?[0-9])){3}|[0-9]{1,2}\\.0\\.0\\.0/8|([0-9a-fA-F]{1,4}:){7}[0-9a-fA-F]{1,4}",
        "10\\.0\\.0\\.0(/32|/8)?|::(/128)?",
    ),
    (
        "macaddr",
        "[0-9a-fA-F]{2}([:-][0-9a-fA-F]{2}){5}",
        "0[aA]([:-]00){5}",
    ),
    (
        "macaddr8",
        "[0-9a-fA-F]{2}([:-][0-9a-fA-F]{2}){7}",
        "0[aA]([:-]00){7}",
    ),
    ("bit(5)", "[01]{5}", "0000[01]"),
    ("varbit", "[01]{0,20}", "0{0,2}"),
];

/// Settings of a session that change how Postgres writes values.
const HOSTILE: &str = "SET LOCAL TimeZone = 'Asia/Kolkata'; SET LOCAL DateStyle = 'German, DMY';
    SET LOCAL IntervalStyle = 'sql_standard'; SET LOCAL bytea_output = 'escape';
    SET LOCAL extra_float_digits = -15; SET LOCAL standard_conforming_strings = off;
    SET LOCAL escape_string_warning = off; SET LOCAL lc_numeric = 'C'; SET LOCAL search_path = pg_temp, public";

/// The table whose column `v` is of this type.
fn table(ty: &str) -> String {
    let word = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    format!("of_{}", ty.chars().map(word).collect::<String>())
}

struct Watched {
    database: Opened,
    /// The type of a parameter that is compared with the column, as in a statement of larder's.
    canonical: HashMap<&'static str, Canonical>,
}

fn watched() -> &'static Watched {
    static SHARED: OnceLock<Watched> = OnceLock::new();
    SHARED.get_or_init(|| {
        let database = Place::postgres().migrated();
        fixture::batch(
            &database,
            "CREATE EXTENSION citext; CREATE TYPE mood AS ENUM ('ok', 'so so', 'Ok');
             CREATE DOMAIN name_of AS citext; CREATE DOMAIN handle AS name_of CHECK (length(VALUE) < 1000);
             CREATE DOMAIN price AS numeric",
        );
        let mut canonical = HashMap::new();
        for (ty, _, _) in TYPES {
            let table = table(ty);
            fixture::batch(
                &database,
                &format!(
                    "CREATE TABLE {table} (v {ty}); SELECT larder_watch('{table}', 'v:{{v}}')"
                ),
            );
            let read = Query::parse("q", &format!("SELECT v FROM {table} WHERE v = :v")).unwrap();
            let described = database.describe(&read).unwrap();
            canonical.insert(*ty, described.parameter_texts[0].clone());
        }
        Watched {
            database,
            canonical,
        }
    })
}

fn ask(
    tx: &mut Transaction<'_>,
    sql: &str,
    parameters: Vec<(&str, SqlValue)>,
) -> Result<SqlValue, DatabaseError> {
    let rows = tx.query_this(&Query::parse_for(tx.kind(), "test", sql)?, &parameters)?;
    Ok(rows[0].columns().next().unwrap().1.clone())
}

/// The name that the trigger of this type's table makes of `value`.
fn named(ty: &str, value: &SqlValue) -> Option<String> {
    kept(ty, std::slice::from_ref(value)).0.pop_first()
}

/// The name that larder makes of `value` in a request.
fn asked(ty: &str, value: &SqlValue) -> Option<String> {
    let mut name = "v:".to_owned();
    escape_into(&mut name, &watched().canonical[ty].text(value)?);
    Some(name)
}

fn are_equal(ty: &str, one: &SqlValue, other: &SqlValue) -> bool {
    let sql = format!("SELECT :a::{ty} = :b::{ty}");
    let parameters = vec![("a", one.clone()), ("b", other.clone())];
    let answer = watched()
        .database
        .transaction(|tx| ask(tx, &sql, parameters.clone()));
    answer.is_ok_and(|answer| answer == SqlValue::Bool(true))
}

/// Inserts rows with these values. Returns the names that the trigger makes, the number of
/// different values in the database, and the most texts that one of them has.
fn kept(ty: &str, values: &[SqlValue]) -> (BTreeSet<String>, i64, i64) {
    let table = table(ty);
    let places: Vec<String> = (0..values.len()).map(|at| format!("v{at}")).collect();
    let rows: Vec<String> = places.iter().map(|place| format!("(:{place})")).collect();
    let insert = format!("INSERT INTO {table} VALUES {}", rows.join(", "));
    let insert = Query::parse("insert", &insert).unwrap();
    let parameters = places
        .iter()
        .map(String::as_str)
        .zip(values.iter().cloned());
    let parameters: Vec<_> = parameters.collect();
    let found = watched().database.transaction(|tx| {
        // Tests on other threads also write to this outbox.
        tx.batch("LOCK TABLE larder_outbox IN ACCESS EXCLUSIVE MODE")?;
        tx.batch(&format!("TRUNCATE {table}; DELETE FROM larder_outbox; {HOSTILE}"))?;
        tx.execute_this(&insert, &parameters)?;
        tx.batch("SET LOCAL search_path = public; SET LOCAL TimeZone = 'UTC'; SET LOCAL DateStyle = 'ISO';
                  SET LOCAL IntervalStyle = 'postgres'; SET LOCAL bytea_output = 'hex'; SET LOCAL extra_float_digits = 1")?;
        let names = ask(tx, "SELECT array_to_json(names)::text FROM larder_outbox", vec![])?;
        let values = ask(tx, &format!("SELECT count(DISTINCT v) FROM {table}"), vec![])?;
        let texts = format!(
            "SELECT max(texts) FROM (
                 SELECT count(DISTINCT larder_text(format('%s', v), pg_typeof(v))) AS texts FROM {table} GROUP BY v
             ) AS each"
        );
        Ok((names, values, ask(tx, &texts, vec![])?))
    });
    let Ok((SqlValue::Text(names), SqlValue::Int(values), SqlValue::Int(texts))) = found else {
        panic!("{ty} {values:?}: {found:?}");
    };
    (serde_json::from_str(&names).unwrap(), values, texts)
}

/// Checks that larder and the trigger make the same names of `values`, and one name of equal
/// values.
#[track_caller]
fn check(ty: &str, values: &[SqlValue]) {
    // A text that is not a value of the type is refused before the database is asked.
    let values: Vec<SqlValue> = values
        .iter()
        .filter(|value| asked(ty, value).is_some())
        .cloned()
        .collect();
    if values.is_empty() {
        return;
    }
    let (names, different, texts) = kept(ty, &values);
    let expected: BTreeSet<String> = values.iter().filter_map(|value| asked(ty, value)).collect();
    assert_eq!(names, expected, "{ty} {values:?}");
    assert_eq!(texts, 1, "{ty} {values:?}: equal values have several texts");
    // The two lower-case sigmas are one letter in names.
    let is_caseless = matches!(watched().canonical[ty], Canonical::Caseless(_));
    assert!(
        is_caseless || names.len() as i64 == different,
        "{ty} {values:?}: {names:?}"
    );
}

fn spellings() -> impl Strategy<Value = (&'static str, Vec<String>)> {
    (0..TYPES.len()).prop_flat_map(|at| {
        let (ty, wide, narrow) = TYPES[at];
        let text = |pattern| proptest::string::string_regex(pattern).unwrap();
        let any = prop_oneof![text(wide), text(narrow), text(narrow)];
        (Just(ty), proptest::collection::vec(any, 12))
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    #[test]
    fn a_spelling_and_the_row_that_holds_it_have_one_text((ty, spellings) in spellings()) {
        check(ty, &spellings.into_iter().map(SqlValue::from).collect::<Vec<_>>());
    }

    #[test]
    fn every_float_has_one_text(
        bits in proptest::collection::vec(any::<u64>(), 12), narrow in proptest::collection::vec(any::<u32>(), 12)
    ) {
        let wide = bits.into_iter().map(|bits| SqlValue::Real(f64::from_bits(bits)));
        check("float8", &wide.collect::<Vec<_>>());
        let narrow = narrow.into_iter().map(|bits| SqlValue::Real(f32::from_bits(bits).into()));
        check("float4", &narrow.collect::<Vec<_>>());
    }

    #[test]
    fn what_a_client_sends_as_json_has_the_text_of_its_row(
        numbers in proptest::collection::vec("-?(0|[1-9][0-9]{0,8})(\\.[0-9]{1,9})?(e-?[0-9])?", 6),
        texts in proptest::collection::vec("[ -~éÉ]{0,6}", 6)
    ) {
        let numbers: Vec<SqlValue> = numbers.into_iter().map(SqlValue::Json).collect();
        for ty in ["numeric", "float8", "float4", "price"] {
            check(ty, &numbers);
        }
        let json = |text| SqlValue::Json(serde_json::Value::String(text).to_string());
        let texts: Vec<SqlValue> = texts.into_iter().map(json).collect();
        for ty in ["text", "citext", "handle", "char(6)", "varchar(9)"] {
            check(ty, &texts);
        }
    }
}

#[test]
fn each_type_is_tried() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    for (ty, wide, narrow) in TYPES {
        let mut values = Vec::new();
        for pattern in [wide, narrow] {
            let text = proptest::string::string_regex(pattern).unwrap();
            for _ in 0..12 {
                values.push(SqlValue::from(
                    text.new_tree(&mut runner).unwrap().current(),
                ));
            }
        }
        let known = values.iter().filter(|value| asked(ty, value).is_some());
        assert!(
            known.count() > 8,
            "{ty}: the patterns give hardly any value of it"
        );
        check(ty, &values);
    }
}

#[test]
fn two_spellings_of_one_value_meet_in_every_type_that_has_them() {
    for (ty, one, other) in [
        ("numeric", "1.50", "1.5"),
        ("numeric", "-0", "0.00"),
        ("numeric(9,3)", "2", "2.0000"),
        ("price", "1e1", "10"),
        ("float8", "-0.0", "0"),
        ("float8", "1e0", "1"),
        ("float4", "0.10", "0.1"),
        ("char(6)", "ab", "ab   "),
        ("citext", "Ada", "ADA"),
        ("handle", "Ada", "aDa"),
        ("interval", "P1D", "PT24H"),
        ("interval", "P1M", "P30D"),
        (
            "timestamptz",
            "2026-03-01T00:00:00Z",
            "2026-03-01T01:00:00+01:00",
        ),
        ("timestamp", "2026-03-01", "2026-02-28T24:00:00"),
        (
            "uuid",
            "6BA7B8109DAD11D180B400C04FD430C8",
            "6ba7b810-9dad-11d1-80b4-00c04fd430c8",
        ),
        ("inet", "::1", "0:0:0:0:0:0:0:1/128"),
        ("cidr", "10.0.0.0", "10.0.0.0/32"),
        ("macaddr", "08-00-2B-01-02-03", "08:00:2b:01:02:03"),
        ("int4", "007", "7.0"),
    ] {
        let (one, other) = (SqlValue::from(one), SqlValue::from(other));
        assert!(are_equal(ty, &one, &other), "{ty} {one:?} {other:?}");
        for value in [&one, &other] {
            assert_eq!(named(ty, value), asked(ty, &one), "{ty} {value:?}");
        }
    }
    for (ty, one, other) in [
        ("timetz", "13:00+01:00", "12:00Z"),
        ("time", "24:00", "00:00"),
        ("citext", "É", "é"),
        ("text", "a", "A"),
        ("varchar(9)", "a", "a "),
        ("varbit", "0", "00"),
        ("mood", "ok", "Ok"),
    ] {
        let (one, other) = (SqlValue::from(one), SqlValue::from(other));
        assert!(!are_equal(ty, &one, &other), "{ty} {one:?} {other:?}");
        assert_ne!(
            asked(ty, &one),
            asked(ty, &other),
            "{ty}: this database's locale is C"
        );
        assert_ne!(named(ty, &one), named(ty, &other), "{ty}");
    }
}

/// Databases of other locales: one with the case mapping of Unicode, and two of ICU, one of which
/// maps by context.
#[test]
fn the_database_decides_which_letters_are_one() {
    for (options, same, different, folds) in [
        ("LOCALE 'C'", ["Ab", "aB"], ["É", "é"], true),
        ("LOCALE 'C.UTF-8'", ["ÀΣß", "àσß"], ["À", "A"], true),
        (
            "LOCALE 'C' LOCALE_PROVIDER icu ICU_LOCALE 'en'",
            ["ÀΑΣ", "àας"],
            ["À", "A"],
            true,
        ),
        (
            "LOCALE 'C' LOCALE_PROVIDER icu ICU_LOCALE 'tr'",
            ["a", "A"],
            ["b", "a"],
            false,
        ),
    ] {
        let place = Place::postgres_with(&format!("TEMPLATE template0 {options}"));
        let database = place.migrated();
        fixture::batch(
            &database,
            "CREATE EXTENSION citext; CREATE TABLE people (handle citext)",
        );
        let read = Query::parse("q", "SELECT handle FROM people WHERE handle = :h").unwrap();
        let canonical = database.describe(&read).unwrap().parameter_texts.remove(0);
        let text = |text: &str| canonical.text(&text.into()).unwrap();
        let are_equal = |[one, other]: [&str; 2]| {
            let parameters = vec![("a", SqlValue::from(one)), ("b", SqlValue::from(other))];
            database
                .transaction(|tx| ask(tx, "SELECT :a::citext = :b::citext", parameters.clone()))
                .unwrap()
        };
        assert_eq!(are_equal(same), SqlValue::Bool(true), "{options}");
        assert_eq!(are_equal(different), SqlValue::Bool(false), "{options}");
        assert_eq!(text(same[0]), text(same[1]), "{options}");
        assert_eq!(canonical == Canonical::Opaque, !folds, "{options}");
        let watched =
            database.transaction(|tx| tx.batch("SELECT larder_watch('people', 'p:{handle}')"));
        assert_eq!(watched.is_ok(), folds, "{options}: {watched:?}");
        if folds {
            assert_ne!(text(different[0]), text(different[1]), "{options}");
            let of_column =
                "SELECT string_agg(larder_text(handle::text, 'citext'::regtype), '|' ORDER BY at)
                FROM unnest(ARRAY[:a::text, :b::text]) WITH ORDINALITY AS each (handle, at)";
            let parameters = vec![
                ("a", SqlValue::from(same[0])),
                ("b", SqlValue::from(different[0])),
            ];
            let of_column = database
                .transaction(|tx| ask(tx, of_column, parameters.clone()))
                .unwrap();
            assert_eq!(
                of_column,
                SqlValue::from(format!("{}|{}", text(same[0]), text(different[0])))
            );
        }
    }
}
