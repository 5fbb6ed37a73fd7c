//! Larder and the databases find the same parameters in random texts.

use postgres::types::{ToSql, Type};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use crate::database::fixture::Place;
use crate::database::{DatabaseKind, Query};

/// `count` texts.
fn texts(strategy: impl Strategy<Value = Vec<String>>, count: usize) -> Vec<String> {
    let mut runner = TestRunner::deterministic();
    let mut next = || strategy.new_tree(&mut runner).unwrap().current();
    (0..count).map(|_| next().concat()).collect()
}

fn one_of(pieces: &'static [&'static str]) -> impl Strategy<Value = String> {
    proptest::sample::select(pieces).prop_map(str::to_owned)
}

#[test]
fn sqlite_finds_the_same_parameters_in_any_text_that_it_takes() {
    let connection = rusqlite::Connection::open_in_memory().unwrap();
    let pieces = &[
        " :a ", ":b", "?", "?2", "@c", "$d", ":é", ":1", "'", "'", "''", "\"", "\"", "`", "`", "[",
        "]", "--", "\n", "\r", "/*", "*/", "*/", ", 1", ", 'x'", " AS ", "x", "1", ";", "\\", "E",
        "$$", "$t$", "::", "+", "(", ")",
    ];
    let strategy = proptest::collection::vec(one_of(pieces), 1..9);
    let mut taken = 0;
    for text in texts(strategy, 60_000) {
        let text = format!("SELECT 1 {text}");
        let Ok(statement) = connection.prepare(&text) else {
            continue;
        };
        let names: Vec<Option<&str>> = (1..=statement.parameter_count())
            .map(|at| {
                let name = statement.parameter_name(at)?.strip_prefix(':')?;
                let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
                (!name.starts_with(|c: char| c.is_ascii_digit()) && name.chars().all(plain))
                    .then_some(name)
            })
            .collect();
        let query = Query::parse_for(DatabaseKind::Sqlite, "q", &text);
        match names.iter().copied().collect::<Option<Vec<_>>>() {
            Some(names) => {
                let query = query.unwrap_or_else(|error| panic!("{text:?}: {error}"));
                assert_eq!(query.parameters(), names, "{text:?}");
                let sent = connection
                    .prepare(query.text(DatabaseKind::Sqlite))
                    .unwrap();
                assert_eq!(sent.parameter_count(), names.len(), "{text:?}");
                taken += 1;
            }
            None => assert!(query.is_err(), "{text:?} has {names:?}"),
        }
    }
    assert!(taken > 1_000, "only {taken} of the texts were SQL");
}

#[test]
fn postgres_gives_the_same_rows_as_for_its_own_parameters() {
    let place = Place::postgres();
    let url = place.settings().url.unwrap();
    let mut client = postgres::Client::connect(url.reveal(), postgres::NoTls).unwrap();
    // A # is a parameter: $1 if Postgres reads the text, :p1 if larder does.
    let pieces = &[
        " # ", " # ", "'", "''", "\\", "\\'", "/*", "*/", "--", "\n", "\r", "$t$", "$$", "\"", "]",
        "[", "`", "x", "::", ";",
    ];
    let junk =
        || proptest::collection::vec(one_of(pieces), 0..5).prop_map(|pieces| pieces.concat());
    let around = |before: &'static str, after: &'static str| {
        junk().prop_map(move |inside| format!("{before}{inside}{after}"))
    };
    let item = prop_oneof![
        Just("CAST( # AS text)".to_owned()),
        Just(" # ::text".to_owned()),
        around("'", "'"),
        around("E'", "'"),
        around("'a'\n'", "'"),
        around("E'a' -- x\n '", "'"),
        around("U&'", "'"),
        around("N'", "'"),
        around("$t$", "$t$"),
        around("$$", "$$"),
        around("$é$", "$é$"),
        around("1 AS \"", "\""),
        around("1 AS U&\"", "\""),
        around("1 /*", "*/"),
        around("1 /* /*", "*/ */"),
        around("1 --", "\n"),
        around("('{1,2,3}'::int[])[1:2] /*", "*/"),
        around("'{\"a\": 1}'::jsonb ? '", "'"),
    ];
    let item = item.prop_map(|item| format!("{item}, "));
    let strategy = proptest::collection::vec(item, 1..4);
    let mut taken = 0;
    for text in texts(strategy, 4_000) {
        let count = text.matches('#').count();
        let numbered = |mark: &str| {
            let mut numbers = 0;
            let text = text.split('#').map(|piece| {
                numbers += 1;
                match numbers > count {
                    true => piece.to_owned(),
                    false => format!("{piece}{mark}{numbers}"),
                }
            });
            format!("SELECT {} 'the end' -- #", text.collect::<String>())
        };
        let mut rows = |sql: &str, places: &[usize]| {
            let values: Vec<String> = places.iter().map(|place| format!("v{place}")).collect();
            let parameters: Vec<&(dyn ToSql + Sync)> =
                values.iter().map(|text| text as _).collect();
            let statement = client.prepare_typed(sql, &vec![Type::TEXT; places.len()])?;
            let portal = client.query(&statement, &parameters)?;
            let cell = |at: usize, row: &postgres::Row| {
                format!("{:?}", row.try_get::<_, Option<String>>(at).ok())
            };
            let names = statement
                .columns()
                .iter()
                .map(|column| column.name().to_owned());
            let cells = portal
                .iter()
                .flat_map(|row| (0..row.len()).map(move |at| cell(at, row)));
            Ok::<_, postgres::Error>(names.chain(cells).collect::<Vec<_>>().join("|"))
        };
        let all: Vec<usize> = (1..=count).collect();
        let Ok(expected) = rows(&numbered("$"), &all) else {
            continue;
        };
        let text = numbered(":p");
        let query = Query::parse_for(DatabaseKind::Postgres, "q", &text)
            .unwrap_or_else(|error| panic!("{text:?}: {error}"));
        let places: Vec<usize> = query
            .parameters()
            .iter()
            .map(|name| name[1..].parse().unwrap())
            .collect();
        let found = rows(query.text(DatabaseKind::Postgres), &places)
            .unwrap_or_else(|error| panic!("{text:?}: {error}"));
        assert_eq!(found.replace(":p", "$"), expected, "{text:?}");
        taken += 1;
    }
    assert!(taken > 500, "only {taken} of the texts were SQL");
}
