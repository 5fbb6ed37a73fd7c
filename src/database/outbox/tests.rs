//! The functions and triggers that the migration installs, and the sessions that read the outbox.

use std::time::Instant;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::super::fixture::{self, Opened, Place};
use super::super::query::Query;
use super::super::sql_value::SqlValue;
use super::*;
use larder_cache::escape_into;

fn ask(database: &Database, sql: &str) -> Result<SqlValue, DatabaseError> {
    database.transaction(|tx| {
        let rows = tx.query_this(&Query::parse("test", sql)?, &[])?;
        Ok(rows[0].columns().next().unwrap().1.clone())
    })
}

/// Empties the outbox and returns the names of each row.
fn take(reader: &mut OutboxReader) -> Vec<Vec<String>> {
    let rows = reader.due(&[]).unwrap();
    let ids: Vec<i64> = rows.iter().map(|row| row.id).collect();
    reader.remove(&ids).unwrap();
    let sorted = |mut names: Vec<String>| {
        names.sort();
        names
    };
    rows.into_iter().map(|row| sorted(row.names)).collect()
}

fn watched(sql: &str) -> (Opened, OutboxReader) {
    let database = Place::postgres().migrated();
    fixture::batch(&database, sql);
    let reader = database.outbox().listen().unwrap().unwrap();
    (database, reader)
}

#[test]
fn names_are_escaped_as_larder_does() {
    let database = Place::postgres().migrated();
    let query = Query::parse("test", "SELECT larder_escape(:text)").unwrap();
    let mut runner = TestRunner::new(Config::with_cases(400));
    runner
        .run(&"\\PC*|[a-zA-Z0-9._~%/: é€😀\n\u{1}-]{0,40}", |text| {
            let mut expected = String::new();
            escape_into(&mut expected, &text);
            let parameters = [("text", SqlValue::from(text.replace('\0', "").as_str()))];
            prop_assume!(!text.contains('\0'));
            let rows = database
                .transaction(|tx| tx.query_this(&query, &parameters))
                .unwrap();
            prop_assert_eq!(
                rows[0].columns().next().unwrap().1,
                &SqlValue::from(expected)
            );
            Ok(())
        })
        .unwrap();
}

#[test]
fn a_name_is_the_template_with_the_columns_of_a_row() {
    let (database, mut reader) = watched(
        "CREATE TABLE t (i INT8, s TEXT, u UUID, b BOOLEAN, c CHAR(5), at TIMESTAMPTZ, \"Odd%I\"\"name\" TEXT);
         SELECT larder_watch('t', '50%''s:{i}/{s}/{u}/{b}/{c}/{at}/{Odd%I\"name}')",
    );
    fixture::batch(
        &database,
        "SET TimeZone = 'Asia/Tokyo'; SET DateStyle = 'German';
         INSERT INTO t VALUES (-7, 'a b*', '6BA7B810-9dad-11d1-80b4-00c04fd430c8', true, 'x', '2026-03-01T01:00:00+01', '{i}'),
                              (NULL, NULL, NULL, NULL, NULL, NULL, NULL), (9223372036854775807, '', NULL, false, '', 'infinity', '*');
         RESET TimeZone; RESET DateStyle",
    );
    assert_eq!(
        take(&mut reader),
        [[
            "50%'s:-7/a%20b%2A/6ba7b810-9dad-11d1-80b4-00c04fd430c8/true/x/2026-03-01T00%3A00%3A00Z/%7Bi%7D",
            "50%'s://////",
            "50%'s:9223372036854775807///false//infinity/%2A",
        ]]
    );
}

#[test]
fn each_statement_leaves_its_names_once_and_what_moves_leaves_both() {
    let (database, mut reader) = watched(
        "CREATE TABLE members (id INT PRIMARY KEY, team TEXT);
         SELECT larder_watch('members', 'user:{id}'); SELECT larder_watch('members', 'team:{team}')",
    );
    let mut left_by = |sql: &str| {
        fixture::batch(&database, sql);
        let mut names = take(&mut reader).concat();
        names.sort();
        names
    };
    assert_eq!(
        left_by("INSERT INTO members VALUES (1, 'a'), (2, 'a')"),
        ["team:a", "user:1", "user:2"]
    );
    assert_eq!(
        left_by("UPDATE members SET team = 'b' WHERE id = 1"),
        ["team:a", "team:b", "user:1"]
    );
    assert_eq!(
        left_by("UPDATE members SET id = 3 WHERE id = 1"),
        ["team:b", "user:1", "user:3"]
    );
    assert_eq!(left_by("DELETE FROM members WHERE id = 99"), [""; 0]);
    assert_eq!(
        left_by("INSERT INTO members VALUES (3, 'c') ON CONFLICT (id) DO UPDATE SET team = 'c'"),
        ["team:b", "team:c", "user:3"]
    );
    assert_eq!(
        left_by("DELETE FROM members"),
        ["team:a", "team:c", "user:2", "user:3"]
    );
    assert_eq!(left_by("TRUNCATE members"), ["*", "*"]);
    assert_eq!(
        left_by("BEGIN; INSERT INTO members VALUES (8, 'x'); ROLLBACK; BEGIN"),
        [""; 0]
    );
}

#[test]
fn many_names_are_many_rows_of_a_thousand_and_equal_ones_are_one() {
    let (database, mut reader) = watched(
        "CREATE TABLE members (id INT, team TEXT);
         SELECT larder_watch('members', 'user:{id}'); SELECT larder_watch('members', 'team:{team}')",
    );
    fixture::batch(
        &database,
        "INSERT INTO members SELECT i, 'one' FROM generate_series(1, 2500) AS i",
    );
    let mut rows = take(&mut reader);
    rows.sort_by_key(Vec::len);
    let lengths: Vec<usize> = rows.iter().map(Vec::len).collect();
    assert_eq!(lengths, [1, 500, 1000, 1000]);
    assert_eq!(rows[0], ["team:one"]);
    let mut names = rows[1..].concat();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 2500);
}

#[test]
fn at_one_time_so_many_names_are_read_and_each_row_once() {
    let (database, mut reader) = watched(
        "INSERT INTO larder_outbox (names) SELECT array_fill('n'::text, ARRAY[1000]) FROM generate_series(1, 7)",
    );
    let ids = |rows: Vec<DueRow>| rows.into_iter().map(|row| row.id).collect::<Vec<_>>();
    assert_eq!(ids(reader.due(&[]).unwrap()), [1, 2, 3, 4, 5]);
    assert_eq!(ids(reader.due(&[1, 3, 5]).unwrap()), [2, 4, 6, 7]);
    assert_eq!(reader.still_there(&[7, 8]).unwrap(), [7]);
    reader.remove(&[1, 2, 3, 4, 5, 6]).unwrap();
    let backlog = reader.backlog().unwrap();
    assert_eq!(backlog.rows, 1);
    assert!(backlog.oldest < Duration::from_secs(60), "{backlog:?}");
    fixture::batch(
        &database,
        "UPDATE larder_outbox SET due_at = due_at - interval '1 hour'",
    );
    assert!(reader.backlog().unwrap().oldest >= Duration::from_secs(3600));
}

#[test]
fn watching_twice_is_once_and_unwatching_ends_it() {
    let (database, mut reader) = watched("CREATE TABLE members (id INT)");
    let said = |sql: &str| ask(&database, sql).unwrap();
    let watch = "SELECT larder_watch('members', 'user:{id}')";
    assert_eq!(said(watch), SqlValue::Bool(true));
    assert_eq!(said(watch), SqlValue::Bool(false));
    let triggers = "SELECT count(*) FROM pg_trigger WHERE tgrelid = 'members'::regclass";
    assert_eq!(said(triggers), SqlValue::Int(4));
    let unwatch = "SELECT larder_unwatch('members', 'user:{id}')";
    assert_eq!(
        said("SELECT larder_unwatch('members', 'other:{id}')"),
        SqlValue::Bool(false)
    );
    assert_eq!(said(triggers), SqlValue::Int(4));
    assert_eq!(said(unwatch), SqlValue::Bool(true));
    assert_eq!(said(unwatch), SqlValue::Bool(false));
    fixture::batch(&database, "INSERT INTO members VALUES (1)");
    assert_eq!(take(&mut reader), [[""; 0]; 0]);
}

#[test]
fn what_cannot_be_watched_is_refused_with_the_reason() {
    let (database, _) = watched(
        "CREATE TABLE members (id INT, gone INT); ALTER TABLE members DROP COLUMN gone;
         CREATE VIEW seen AS SELECT * FROM members; CREATE MATERIALIZED VIEW kept AS SELECT * FROM members",
    );
    let long = "x".repeat(201);
    for (table, template, why) in [
        ("members", "user:{no}", "members has no column no"),
        ("members", "user:{ID}", "members has no column \"ID\""),
        ("members", "user:{gone}", "members has no column gone"),
        ("members", "user:{ctid}", "members has no column ctid"),
        ("members", "", "empty"),
        ("members", &long, "200 bytes"),
        ("members", "*", "everything"),
        ("members", "user {id}", "space"),
        ("members", "user\u{3000}{id}", "space"),
        ("members", "user\u{7}{id}", "control"),
        ("members", "user:{id", "brace"),
        ("members", "user:id}", "brace"),
        ("members", "user:{}", "brace"),
        ("members", "user:{a{id}}", "brace"),
        ("seen", "user:{id}", "seen is no table"),
        ("kept", "user:{id}", "kept is no table"),
        ("nowhere", "user:{id}", "does not exist"),
        ("larder_outbox", "user:{id}", "outbox itself"),
    ] {
        let error = ask(
            &database,
            &format!("SELECT larder_watch('{table}', '{template}')"),
        )
        .unwrap_err();
        assert!(
            error.to_string().contains(why),
            "{table} {template}: {error}"
        );
    }
    let none = "SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal";
    assert_eq!(ask(&database, none), Ok(SqlValue::Int(0)));
}

#[test]
fn partitions_and_odd_names_are_watched_too() {
    let (database, mut reader) = watched(
        "CREATE SCHEMA \"An app\";
         CREATE TABLE \"An app\".\"Select\" (\"Id\" INT) PARTITION BY RANGE (\"Id\");
         CREATE TABLE few PARTITION OF \"An app\".\"Select\" FOR VALUES FROM (0) TO (10);
         CREATE TABLE rest PARTITION OF \"An app\".\"Select\" DEFAULT;
         SELECT larder_watch('\"An app\".\"Select\"', 'x:{Id}')",
    );
    fixture::batch(
        &database,
        "INSERT INTO \"An app\".\"Select\" VALUES (1), (20);
         UPDATE \"An app\".\"Select\" SET \"Id\" = 30 WHERE \"Id\" = 1",
    );
    assert_eq!(take(&mut reader), [["x:1", "x:20"], ["x:1", "x:30"]]);
    fixture::batch(
        &database,
        "SELECT larder_watch('few', 'x:{Id}'); INSERT INTO few VALUES (5)",
    );
    assert_eq!(take(&mut reader), [["x:5"]]);
}

#[test]
fn a_writer_needs_nothing_but_its_table_and_gains_nothing_by_it() {
    let (database, mut reader) =
        watched("CREATE TABLE members (id INT); SELECT larder_watch('members', 'user:{id}')");
    let administer = |sql: &str| database.place().administer(sql);
    let write = |sql: &str| {
        administer(&format!(
            "BEGIN; SET LOCAL ROLE outbox_writer; {sql}; COMMIT"
        ))
    };
    administer(
        "DROP ROLE IF EXISTS outbox_writer; CREATE ROLE outbox_writer; GRANT INSERT ON members TO outbox_writer;
         GRANT CREATE ON SCHEMA public TO outbox_writer",
    )
    .unwrap();
    write(
        "CREATE FUNCTION larder_text(integer, regtype) RETURNS text LANGUAGE sql AS $$ SELECT 'stolen' $$;
         CREATE FUNCTION format(text, integer) RETURNS text LANGUAGE sql AS $$ SELECT 'stolen' $$;
         CREATE FUNCTION array_agg_step(text[], text) RETURNS text[] LANGUAGE sql AS $$ SELECT ARRAY['stolen'] $$;
         CREATE AGGREGATE array_agg(text) (SFUNC = array_agg_step, STYPE = text[])",
    )
    .unwrap();
    // Neither a longer search path nor a temporary table of the outbox's name misleads its
    // function.
    write(
        "CREATE TEMP TABLE larder_outbox (names text[]); SET LOCAL search_path = pg_temp, public;
         SET LOCAL larder.schema = 'pg_temp'; INSERT INTO public.members VALUES (1)",
    )
    .unwrap();
    assert_eq!(take(&mut reader), [["user:1"]]);
    for forbidden in [
        "SELECT * FROM public.larder_outbox",
        "SELECT public.larder_watch('members', 'user:{id}')",
        "CREATE TABLE own (id INT); CREATE TRIGGER own AFTER TRUNCATE ON own EXECUTE FUNCTION public.larder_note('x')",
    ] {
        let error = write(forbidden).unwrap_err();
        assert_eq!(
            error.code(),
            Some(&postgres::error::SqlState::INSUFFICIENT_PRIVILEGE),
            "{forbidden}: {error}"
        );
    }
    // Who may attach a watch may attach it to their own tables.
    fixture::batch(
        &database,
        "GRANT EXECUTE ON FUNCTION larder_watch(regclass, text), larder_note() TO outbox_writer",
    );
    write(
        "CREATE TABLE own (id INT); SELECT larder_watch('own', 'own:{id}'); INSERT INTO own VALUES (7)",
    )
    .unwrap();
    assert_eq!(take(&mut reader), [["own:7"]]);
    let others = write("SELECT larder_watch('members', 'other:{id}')").unwrap_err();
    assert_eq!(
        others.code(),
        Some(&postgres::error::SqlState::INSUFFICIENT_PRIVILEGE)
    );
    administer("DROP OWNED BY outbox_writer; DROP ROLE outbox_writer").unwrap();
}

#[test]
fn what_a_transaction_leaves_is_its_own_to_deliver_first() {
    let (database, mut reader) =
        watched("CREATE TABLE members (id INT); SELECT larder_watch('members', 'user:{id}')");
    let left = |insert: &'static str, names: &[&str]| {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        database
            .transaction(|tx| {
                tx.batch(insert)?;
                tx.leave_in_outbox(&names)
            })
            .unwrap()
    };
    let row = left("INSERT INTO members VALUES (1)", &["user:1", "all:members"]).unwrap();
    assert_eq!(
        reader.due(&[]).unwrap(),
        [],
        "not due, and nothing of the trigger's is left"
    );
    let left_in_all = "SELECT count(*) FROM larder_outbox";
    assert_eq!(ask(&database, left_in_all), Ok(SqlValue::Int(1)));
    fixture::batch(
        &database,
        "UPDATE larder_outbox SET due_at = due_at - interval '2 seconds'",
    );
    assert_eq!(reader.due(&[]).unwrap()[0].names, ["user:1", "all:members"]);
    database.outbox().delivered(row).unwrap();
    database.outbox().delivered(row).unwrap();
    assert_eq!(ask(&database, left_in_all), Ok(SqlValue::Int(0)));

    // The writer reached its own replica only, so the row is due at once and listeners are
    // notified.
    let row = left("SELECT 1", &["user:7"]).unwrap();
    assert_eq!(reader.due(&[]).unwrap(), []);
    let none = Duration::ZERO;
    while reader.wait(none).unwrap() {}
    database.outbox().hand_over(row).unwrap();
    assert!(reader.wait(Duration::from_secs(20)).unwrap());
    assert_eq!(take(&mut reader), [["user:7"]]);
    database.outbox().hand_over(row).unwrap();

    // A name that the writer does not leave stays in the trigger's row.
    left("INSERT INTO members VALUES (2), (3)", &["user:2"]).unwrap();
    assert_eq!(take(&mut reader), [["user:2", "user:3"]]);
    assert_eq!(left("SELECT 1", &[]), None);
    let failed = database.transaction(|tx| {
        tx.leave_in_outbox(&["user:9".to_owned()])?;
        tx.batch("SELECT nothing")
    });
    assert!(failed.is_err());
    assert_eq!(ask(&database, left_in_all), Ok(SqlValue::Int(1)));

    let file = Place::sqlite().migrated();
    let none = file.transaction(|tx| tx.leave_in_outbox(&["user:1".to_owned()]));
    assert_eq!(none, Ok(None));
    assert!(file.outbox().listen().unwrap().is_none());
}

#[test]
fn one_session_leads_until_it_resigns_or_ends() {
    let place = Place::postgres();
    let database = place.migrated();
    let open = || database.outbox().listen().unwrap().unwrap();
    let (mut first, mut second) = (open(), open());
    assert!(first.try_to_lead().unwrap() && first.try_to_lead().unwrap());
    assert!(!second.try_to_lead().unwrap());
    first.resign().unwrap();
    assert!(second.try_to_lead().unwrap() && !first.try_to_lead().unwrap());
    drop(second);
    let deadline = Instant::now() + Duration::from_secs(10);
    while !first.try_to_lead().unwrap() {
        assert!(Instant::now() < deadline);
    }
    // Another outbox on the same server has its own lead.
    let mut other = Place::postgres()
        .migrated()
        .outbox()
        .listen()
        .unwrap()
        .unwrap();
    assert!(other.try_to_lead().unwrap());
    // The lock of a silent session is released after a while, whatever happens to its connection.
    let begun = Instant::now();
    let mut third = open();
    while !third.try_to_lead().unwrap() {
        assert!(begun.elapsed() < SILENCE * 4);
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(first.prove().is_err());
}

#[test]
fn a_commit_is_heard_of_and_a_closed_connection_is_an_error() {
    let (database, mut reader) =
        watched("CREATE TABLE members (id INT); SELECT larder_watch('members', 'user:{id}')");
    assert_eq!(reader.wait(Duration::from_millis(1)), Ok(false));
    fixture::batch(&database, "INSERT INTO members VALUES (1)");
    assert_eq!(reader.wait(Duration::from_secs(10)), Ok(true));
    let end = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
               WHERE application_name = 'larder outbox' AND datname = current_database()";
    assert_eq!(ask(&database, end), Ok(SqlValue::Bool(true)));
    assert!(reader.wait(Duration::from_secs(10)).is_err());
}
