use super::*;
use crate::database::NewKey;
use crate::database::fixture::{self, Place};

const RATE: &str = "5/1h";

pub(in crate::auth) fn table() -> KeyTable {
    KeyTable::new(
        RATE.parse().unwrap(),
        Some(Secret::new("an-admin-key-of-24-chars")),
    )
}

pub(in crate::auth) fn create(database: &Database, rate: KeyRate) -> Secret {
    database
        .keys()
        .create(&NewKey {
            name: "k".to_owned(),
            rate,
            admin: false,
        })
        .unwrap()
        .secret
}

pub(in crate::auth) fn known(table: &KeyTable, presented: &str) -> bool {
    table.lookup(presented, |_| ()).is_some()
}

#[test]
fn a_key_is_known_as_long_as_it_is_in_the_database() {
    let database = Place::sqlite().migrated();
    let table = table();
    let key = create(&database, KeyRate::Configured);
    assert!(!known(&table, key.reveal()), "not read yet");
    assert!(table.refresh(&database).unwrap());
    assert!(!table.refresh(&database).unwrap(), "nothing changed");

    let id = key_id(key.reveal()).unwrap();
    let shown = |record: &KeyRecord| {
        assert_eq!((record.name(), record.is_admin()), ("k", false));
        assert_eq!(record.id(), id);
    };
    table.lookup(key.reveal(), shown).unwrap();
    // Twice: the second time it is compared with the verified key, not hashed.
    for _ in 0..2 {
        let mut wrong = key.reveal().to_owned();
        let last = wrong.pop().unwrap();
        wrong.push(if last == 'x' { 'y' } else { 'x' });
        assert!(!known(&table, &wrong));
        assert!(!known(&table, &key.reveal()[..46]));
        assert!(known(&table, key.reveal()));
    }
    assert!(
        !format!("{table:?}").contains(key.reveal()),
        "the key is not printed"
    );

    assert!(database.keys().revoke(id).unwrap());
    assert!(table.refresh(&database).unwrap());
    assert!(!known(&table, key.reveal()));
}

#[test]
fn a_wrong_key_that_comes_first_does_not_lock_the_right_one_out() {
    let database = Place::sqlite().migrated();
    let table = table();
    let key = create(&database, KeyRate::Configured);
    table.refresh(&database).unwrap();
    let wrong = format!("{}{}", &key.reveal()[..16], "0".repeat(32));
    assert!(key_id(&wrong).is_some() && !known(&table, &wrong));
    assert!(known(&table, key.reveal()));
    assert!(!known(&table, &wrong));
}

#[test]
fn the_fixed_admin_key_needs_no_database_and_an_empty_one_is_none() {
    let admin = |record: &KeyRecord| {
        assert!(record.is_admin());
        assert_eq!(record.check(Instant::now()), None, "no limit");
    };
    table().lookup("an-admin-key-of-24-chars", admin).unwrap();
    assert!(!known(&table(), "an-admin-key-of-24-char"));
    let empty = KeyTable::new(RATE.parse().unwrap(), Some(Secret::new("")));
    assert!(!known(&empty, ""));
    let none = KeyTable::new(RATE.parse().unwrap(), None);
    assert!(!known(&none, ""));
}

#[test]
fn what_was_used_of_a_rate_survives_a_refresh() {
    let database = Place::sqlite().migrated();
    let table = table();
    let (usual, own) = (
        create(&database, KeyRate::Configured),
        create(&database, KeyRate::parse("2/1h").unwrap()),
    );
    let free = create(&database, KeyRate::Unlimited);
    let remaining = |key: &Secret| {
        let decision = table.lookup(key.reveal(), |record| record.check(Instant::now()));
        decision.unwrap().map(|d| (d.limit, d.remaining))
    };
    table.refresh(&database).unwrap();
    assert_eq!(
        (remaining(&usual), remaining(&own), remaining(&free)),
        (Some((5, 4)), Some((2, 1)), None)
    );

    create(&database, KeyRate::Configured);
    assert!(table.refresh(&database).unwrap());
    assert_eq!(
        (remaining(&usual), remaining(&own)),
        (Some((5, 3)), Some((2, 0)))
    );

    table.set_default_rate("9/1h".parse().unwrap());
    assert_eq!(
        (remaining(&usual), remaining(&own)),
        (Some((9, 8)), Some((2, 0))),
        "the new rate, for those it is for"
    );
    let decision = table.lookup(own.reveal(), |record| record.check(Instant::now()));
    assert!(!decision.unwrap().unwrap().allowed);
    assert!(
        !table.refresh(&database).unwrap(),
        "the rate is no change of the keys"
    );
}

#[test]
fn a_read_that_began_before_another_puts_nothing_back() {
    let database = Place::sqlite().migrated();
    let table = table();
    let (gone, stays) = (
        create(&database, KeyRate::Configured),
        create(&database, KeyRate::Configured),
    );
    let keys = database.keys();
    let id = key_id(gone.reveal()).unwrap();
    let known = |key: &Secret| known(&table, key.reveal());
    table.refresh(&database).unwrap();

    // A slow read: 1. it reads; 2. the key is revoked; 3. a refresh sees that; 4. it is
    // applied.
    let slow = table.order.lock().begin();
    let (mark, rows) = (keys.mark().unwrap(), keys.list().unwrap());
    keys.revoke(id).unwrap();
    assert!(table.refresh(&database).unwrap());
    assert!(!table.apply_all(slow, mark, rows));
    assert!(!known(&gone) && known(&stays));

    // The same with a key that is forgotten here, before anything is read.
    let id = key_id(stays.reveal()).unwrap();
    let slow = table.order.lock().begin();
    let (mark, rows) = (keys.mark().unwrap(), keys.list().unwrap());
    keys.revoke(id).unwrap();
    table.forget(id);
    assert!(!table.apply_all(slow, mark, rows));
    assert!(!known(&stays));
    assert!(table.refresh(&database).unwrap());
    assert!(!known(&stays));
}

#[test]
fn changes_that_began_to_be_read_before_others_put_nothing_back() {
    let database = Place::sqlite().migrated();
    let table = table();
    table.refresh(&database).unwrap();
    let keys = database.keys();
    let begin = keys.mark().unwrap();
    let key = create(&database, KeyRate::Configured);
    let id = key_id(key.reveal()).unwrap();
    let slow = table.order.lock().begin();
    let created = keys
        .changes(&begin, &keys.mark().unwrap())
        .unwrap()
        .unwrap();
    keys.revoke(id).unwrap();
    table.forget(id);
    assert!(!table.apply(slow, created.clone()));
    assert!(!known(&table, key.reveal()));
    assert!(table.refresh(&database).unwrap());
    // A read that began later and saw less changes nothing either.
    let late = table.order.lock().begin();
    assert!(!table.apply(late, created));
    assert!(!known(&table, key.reveal()));
    assert!(!table.refresh(&database).unwrap());
}

#[test]
fn a_change_costs_one_row_and_one_shard_however_many_keys_there_are() {
    let database = Place::postgres().migrated();
    let many = "INSERT INTO api_keys (id, name, hash, admin, created_at)
        SELECT substr(md5(n::text), 1, 12), 'many', 'none', FALSE, n FROM generate_series(1, 20000) n";
    fixture::batch(&database, many);
    fixture::batch(
        &database,
        "UPDATE api_keys_version SET version = version + 1",
    );
    let table = table();
    assert!(table.refresh(&database).unwrap());
    let count =
        |table: &KeyTable| -> usize { table.shards.iter().map(|shard| shard.load().len()).sum() };
    assert_eq!(count(&table), 20_000);
    let shards =
        || -> Vec<Arc<Shard>> { table.shards.iter().map(|shard| shard.load_full()).collect() };
    let copied = |before: &[Arc<Shard>]| {
        let pairs = before.iter().zip(shards());
        pairs
            .filter(|(before, after)| !Arc::ptr_eq(before, after))
            .count()
    };
    let keys = database.keys();
    let (before, mark) = (shards(), keys.mark().unwrap());
    let key = create(&database, KeyRate::Configured);
    let rows = keys.changes(&mark, &keys.mark().unwrap()).unwrap().unwrap();
    assert_eq!(rows.keys.len(), 1);
    assert!(table.refresh(&database).unwrap());
    assert!(known(&table, key.reveal()));
    assert_eq!((copied(&before), count(&table)), (1, 20_001));
    let before = shards();
    keys.revoke(key_id(key.reveal()).unwrap()).unwrap();
    assert!(table.refresh(&database).unwrap());
    assert!(!known(&table, key.reveal()));
    assert_eq!((copied(&before), count(&table)), (1, 20_000));
    // All keys are read when the database cannot tell the changes.
    fixture::batch(&database, "DELETE FROM api_keys WHERE created_at > 100");
    assert!(!table.refresh(&database).unwrap(), "nobody said so");
    fixture::batch(
        &database,
        "UPDATE api_keys_version SET version = version + 1",
    );
    assert!(table.refresh(&database).unwrap());
    assert_eq!(count(&table), 100);
}
