use super::super::{fixture, key_id};
use super::*;

fn named(name: &str) -> NewKey {
    NewKey {
        name: name.to_owned(),
        rate: KeyRate::Configured,
        admin: false,
    }
}

#[test]
fn a_key_is_listed_until_it_is_revoked_and_each_change_changes_the_version() {
    fixture::each(|database| {
        let keys = database.keys();
        assert!(keys.list().unwrap().is_empty());
        let mut versions = vec![keys.mark().unwrap().version()];
        let rate = KeyRate::parse("600/1m").unwrap();
        let first = keys
            .create(&NewKey {
                name: "web — é".to_owned(),
                rate,
                admin: true,
            })
            .unwrap();
        versions.push(keys.mark().unwrap().version());
        let second = keys.create(&named("two")).unwrap();
        versions.push(keys.mark().unwrap().version());
        assert!(!keys.list().unwrap().is_empty());

        let list = keys.list().unwrap();
        assert_eq!(list.len(), 2);
        let row = list.iter().find(|row| row.id == first.id).unwrap();
        assert_eq!(
            (row.name.as_str(), row.rate, row.admin),
            ("web — é", rate, true)
        );
        assert_eq!(row.hash, key_hash(first.secret.reveal()));
        assert_eq!(
            (row.last_used_at, key_id(first.secret.reveal())),
            (None, Some(first.id.as_str()))
        );
        assert!((unix_ms() - row.created_at).abs() < 60_000);

        assert!(keys.revoke(&first.id).unwrap());
        versions.push(keys.mark().unwrap().version());
        assert!(!keys.revoke(&first.id).unwrap());
        assert_eq!(
            keys.mark().unwrap().version(),
            versions[3],
            "nothing changed"
        );
        assert_eq!(
            keys.list()
                .unwrap()
                .iter()
                .map(|row| &row.id)
                .collect::<Vec<_>>(),
            [&second.id]
        );
        versions.dedup();
        assert_eq!(versions.len(), 4, "{versions:?}");
    });
}

#[test]
fn a_first_admin_that_nobody_saw_is_made_again() {
    fixture::each(|database| {
        let keys = database.keys();
        let unseen = keys.create_first_admin().unwrap().unwrap();
        let version = keys.mark().unwrap().version();
        keys.take_back_first_admin(&unseen.id).unwrap();
        assert!(keys.list().unwrap().is_empty() && keys.mark().unwrap().version() != version);

        let unseen = keys.create_first_admin().unwrap().unwrap();
        let by_hand = NewKey {
            admin: true,
            ..named("by hand")
        };
        keys.create(&by_hand).unwrap();
        keys.take_back_first_admin(&unseen.id).unwrap();
        assert!(
            keys.create_first_admin().unwrap().is_none(),
            "somebody has an admin key by now"
        );
    });
}

#[test]
fn an_admin_made_by_hand_is_the_first_one() {
    fixture::each(|database| {
        let by_hand = NewKey {
            admin: true,
            ..named("by hand")
        };
        let made = database.keys().create(&by_hand).unwrap();
        assert!(database.keys().create_first_admin().unwrap().is_none());
        assert!(database.keys().revoke(&made.id).unwrap());
        assert!(database.keys().create_first_admin().unwrap().is_none());
    });
}

#[test]
fn the_first_admin_is_made_once_however_many_start() {
    fixture::each(|database| {
        // A key without admin rights does not count.
        database.keys().create(&named("reader")).unwrap();
        let replicas: Vec<_> = (0..6)
            .map(|_| {
                let database = database.clone();
                std::thread::spawn(move || database.keys().create_first_admin().unwrap())
            })
            .collect();
        let made: Vec<CreatedKey> = replicas
            .into_iter()
            .filter_map(|r| r.join().unwrap())
            .collect();
        assert_eq!(made.len(), 1);
        assert_eq!(database.keys().mark().unwrap().version(), 2);
        let list = database.keys().list().unwrap();
        let admins: Vec<_> = list.iter().filter(|row| row.admin).collect();
        assert!(admins.len() == 1 && admins[0].rate == KeyRate::Unlimited);
        assert!(database.keys().revoke(&made[0].id).unwrap());
        assert!(
            database.keys().create_first_admin().unwrap().is_none(),
            "an admin key was made here before"
        );
    });
}

#[test]
fn the_last_use_only_moves_forward() {
    fixture::each(|database| {
        let keys = database.keys();
        let (a, b) = (
            keys.create(&named("a")).unwrap().id,
            keys.create(&named("b")).unwrap().id,
        );
        let version = keys.mark().unwrap().version();
        keys.touch(&[(&a, 2_000), (&b, 5), ("gone", 1)]).unwrap();
        keys.touch(&[(&a, 1_000), (&b, 6)]).unwrap();
        let used = |id: &str| {
            keys.list()
                .unwrap()
                .into_iter()
                .find(|row| row.id == id)
                .unwrap()
                .last_used_at
        };
        assert_eq!((used(&a), used(&b)), (Some(2_000), Some(6)));
        assert_eq!(
            keys.mark().unwrap().version(),
            version,
            "a use is no change of the keys"
        );
    });
}

#[test]
fn a_rate_that_is_none_costs_nobody_a_key() {
    fixture::each(|database| {
        let made = database.keys().create(&named("by hand")).unwrap();
        let kept = NewKey {
            rate: KeyRate::parse("2/1h").unwrap(),
            ..named("kept")
        };
        database.keys().create(&kept).unwrap();
        let sql = format!(
            "UPDATE api_keys SET rate = 'often' WHERE id = '{}'",
            made.id
        );
        fixture::batch(database, &sql);
        let mut rates = database.keys().list().unwrap();
        rates.sort_by(|one, other| one.name.cmp(&other.name));
        let rates: Vec<_> = rates.iter().map(|row| row.rate).collect();
        assert_eq!(rates, [KeyRate::Configured, kept.rate]);
    });
}

#[test]
fn a_name_is_short_and_printable() {
    for wrong in ["", " ", "a\nb", "\u{1b}[31m", &"x".repeat(101)] {
        assert!(
            matches!(check_name(wrong), Err(DatabaseError::Invalid(_))),
            "{wrong:?}"
        );
    }
    check_name(&"é".repeat(100)).unwrap();
}

#[test]
fn what_came_after_a_mark_is_one_row_for_each_change() {
    fixture::each(|database| {
        let keys = database.keys();
        let begin = keys.mark().unwrap();
        let (a, b) = (
            keys.create(&named("a")).unwrap().id,
            keys.create(&named("b")).unwrap().id,
        );
        let now = keys.mark().unwrap();
        let all = keys.changes(&begin, &now).unwrap().unwrap();
        assert_eq!(all.mark, now);
        let ids: Vec<_> = all.keys.iter().map(|(id, _)| id).collect();
        assert_eq!(ids, [&a, &b]);
        let mut listed = keys.list().unwrap().into_iter();
        let newer = listed.find(|row| row.id == b);
        assert_eq!(all.keys[1].1, newer);

        keys.revoke(&a).unwrap();
        let last = keys.mark().unwrap();
        let after = keys.changes(&now, &last).unwrap().unwrap();
        assert_eq!(after.keys, [(a, None)]);
        assert_eq!(keys.changes(&last, &last).unwrap(), None, "nothing came");
    });
}

#[test]
fn changes_that_cannot_be_told_are_not_guessed() {
    fixture::each(|database| {
        let keys = database.keys();
        keys.create(&named("a")).unwrap();
        let known = keys.mark().unwrap();
        keys.create(&named("b")).unwrap();
        keys.create(&named("c")).unwrap();
        let now = keys.mark().unwrap();
        let complete = |known: &KeyMark, now: &KeyMark| keys.changes(known, now).unwrap().is_some();
        assert!(complete(&known, &now));
        // Of another history, as after a restore of the database.
        let other = KeyMark {
            changed: Some("somebodyelse".to_owned()),
            ..known.clone()
        };
        assert!(!complete(&other, &now));
        assert!(!complete(&now, &known), "it has gone back");
        // Changed by hand, or by an older larder that leaves no row.
        fixture::batch(
            database,
            "UPDATE api_keys_version SET version = version + 1",
        );
        let by_hand = keys.mark().unwrap();
        assert!(!complete(&known, &by_hand));
        keys.create(&named("d")).unwrap();
        let last = keys.mark().unwrap();
        assert!(!complete(&known, &last) && complete(&by_hand, &last));
        fixture::batch(database, "DELETE FROM api_key_changes");
        assert!(
            !complete(&by_hand, &last)
                && !complete(
                    &last,
                    &KeyMark {
                        version: 99,
                        ..last.clone()
                    }
                )
        );
    });
}

#[test]
fn a_list_is_read_in_pages_and_a_place_outlives_its_key() {
    fixture::each(|database| {
        let keys = database.keys();
        for name in ["a", "b", "c", "d", "e"] {
            keys.create(&named(name)).unwrap();
        }
        let all = keys.list().unwrap();
        let first = keys.page(None, 2).unwrap();
        assert_eq!(first, all[..2]);
        let place = KeyCursor::after(&first[1]);
        assert_eq!(place.to_string().parse(), Ok(place.clone()));
        keys.revoke(&first[1].id).unwrap();
        assert_eq!(keys.page(Some(&place), 2).unwrap(), all[2..4]);
        let place = KeyCursor::after(&all[4]);
        assert!(keys.page(Some(&place), 2).unwrap().is_empty());
        for wrong in ["", "1", "x.y", "é"] {
            assert!(wrong.parse::<KeyCursor>().is_err(), "{wrong}");
        }
    });
}
