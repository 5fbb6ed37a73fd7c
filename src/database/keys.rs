//! API keys as the database keeps them.
//!
//! Promise: the key itself is shown once, when it is made; the database has its SHA-256, which is
//! enough for a secret of 190 random bits. Every change of the keys raises one version number in
//! the same transaction, and leaves a row that says which key it changed: a replica that knows a
//! version reads what came after it. The first admin key is made once per database, however many
//! replicas start.

use super::error::DatabaseError;
use super::key_form::{key_hash, new_key};
use super::key_rate::KeyRate;
use super::transaction::Transaction;
use super::value::{Row, Value};
use super::{Database, unix_ms};
use crate::secret::Secret;

const LONGEST_NAME: usize = 100;
/// Keys on one page where all are read.
const PAGE: u32 = 5_000;

/// What a new key is to be.
#[derive(Clone, Debug)]
pub struct NewKey {
    /// 1 to 100 characters, none of them a control character.
    pub name: String,
    /// How often it may be used.
    pub rate: KeyRate,
    /// Whether it may do what admins may.
    pub admin: bool,
}

/// A key that was just made.
#[derive(Clone, Debug)]
pub struct CreatedKey {
    /// What it is called from now on.
    pub id: String,
    /// The key, which is nowhere else.
    pub secret: Secret,
}

/// A key as the database has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRow {
    /// What it is called.
    pub id: String,
    /// Who has it, in the words of whoever made it.
    pub name: String,
    /// [`key_hash`] of the key.
    pub hash: String,
    /// How often it may be used.
    pub rate: KeyRate,
    /// Whether it may do what admins may.
    pub admin: bool,
    /// When it was made, in milliseconds since 1970.
    pub created_at: i64,
    /// When it was last used, in milliseconds since 1970; kept to within a minute or so.
    pub last_used_at: Option<i64>,
}

/// The last change that a reader of the keys knows of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyMark {
    version: i64,
    /// The key that it changed, which tells one history of changes from another, such as that of a
    /// database that was restored. `None`: no row says so.
    changed: Option<String>,
}

impl KeyMark {
    /// A number that each change makes larger.
    pub fn version(&self) -> i64 {
        self.version
    }
}

/// What came after a mark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyChanges {
    /// The last of these changes.
    pub mark: KeyMark,
    /// The keys that they changed, each as it is now; `None`: it is revoked.
    pub keys: Vec<(String, Option<KeyRow>)>,
}

/// A place in the list of all keys, the oldest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyPlace {
    created_at: i64,
    id: String,
}

impl KeyPlace {
    /// Right behind this key.
    pub fn behind(row: &KeyRow) -> KeyPlace {
        KeyPlace {
            created_at: row.created_at,
            id: row.id.clone(),
        }
    }
}

impl std::fmt::Display for KeyPlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.created_at, self.id)
    }
}

impl std::str::FromStr for KeyPlace {
    type Err = ();

    fn from_str(text: &str) -> Result<KeyPlace, ()> {
        let (created_at, id) = text.split_once('.').ok_or(())?;
        Ok(KeyPlace {
            created_at: created_at.parse().map_err(drop)?,
            id: id.to_owned(),
        })
    }
}

/// The keys of a database.
#[derive(Clone, Copy, Debug)]
pub struct Keys<'a>(pub(super) &'a Database);

impl Keys<'_> {
    /// Makes a key. Errors with [`DatabaseError::Invalid`] if its name is not one.
    pub fn create(&self, new: &NewKey) -> Result<CreatedKey, DatabaseError> {
        check_name(&new.name)?;
        self.0.own_transaction(|tx| {
            tx.execute("api_key_bump", &[("admin", new.admin.into())])?;
            insert(tx, new)
        })
    }

    /// Makes an admin key without a limit, named `admin`, unless any admin key was ever made in this database.
    pub fn create_first_admin(&self) -> Result<Option<CreatedKey>, DatabaseError> {
        let new = NewKey {
            name: "admin".to_owned(),
            rate: KeyRate::Unlimited,
            admin: true,
        };
        self.0
            .own_transaction(|tx| match tx.execute("api_key_bump_first", &[])? {
                0 => Ok(None),
                _ => insert(tx, &new).map(Some),
            })
    }

    /// Takes back a key of [`Keys::create_first_admin`] that nobody has got to see: the next start makes another.
    pub fn take_back_first_admin(&self, id: &str) -> Result<(), DatabaseError> {
        self.0.own_transaction(|tx| {
            tx.execute("api_key_delete", &[("id", id.into())])?;
            tx.execute("api_key_bump_back", &[])?;
            changed(tx, id)
        })
    }

    /// At most `limit` of them behind `place`, or from the first on; the oldest first.
    pub fn page(&self, place: Option<&KeyPlace>, limit: u32) -> Result<Vec<KeyRow>, DatabaseError> {
        let (created_at, id) = place.map_or((i64::MIN, ""), |place| (place.created_at, &place.id));
        let given = [
            ("created_at", created_at.into()),
            ("id", id.into()),
            ("limit", i64::from(limit).into()),
        ];
        let rows = self.0.query("api_key_page", &given)?;
        rows.iter().map(read).collect()
    }

    /// All of them, page after page, the oldest first. One that is made or revoked meanwhile may be
    /// among them or not.
    pub fn list(&self) -> Result<Vec<KeyRow>, DatabaseError> {
        let mut all: Vec<KeyRow> = Vec::new();
        loop {
            let place = all.last().map(KeyPlace::behind);
            let page = self.page(place.as_ref(), PAGE)?;
            let is_last = page.len() < PAGE as usize;
            all.extend(page);
            if is_last {
                return Ok(all);
            }
        }
    }

    /// Removes a key; false if there is none with this id.
    pub fn revoke(&self, id: &str) -> Result<bool, DatabaseError> {
        self.0.own_transaction(|tx| {
            let found = tx.execute("api_key_delete", &[("id", id.into())])? > 0;
            if found {
                tx.execute("api_key_bump", &[("admin", false.into())])?;
                changed(tx, id)?;
            }
            Ok(found)
        })
    }

    /// The last change. Read it before the keys: a change in between is then seen next time.
    pub fn mark(&self) -> Result<KeyMark, DatabaseError> {
        mark_of(&self.0.query("api_key_version", &[])?)
    }

    /// [`Keys::mark`] within a transaction.
    pub(super) fn mark_in(tx: &mut Transaction<'_>) -> Result<KeyMark, DatabaseError> {
        mark_of(&tx.query("api_key_version", &[])?)
    }

    /// What came after `known`, up to `now` at least. `None`: that cannot be told, and all keys are
    /// to be read. Some of the changes left no row, or `known` is of another history.
    pub fn changes(
        &self,
        known: &KeyMark,
        now: &KeyMark,
    ) -> Result<Option<KeyChanges>, DatabaseError> {
        if now.version <= known.version {
            return Ok(None);
        }
        let given = [("known", known.version.into())];
        let rows = self.0.query("api_key_changes", &given)?;
        let mut mark = known.clone();
        let mut keys = Vec::with_capacity(rows.len());
        for row in &rows {
            let this = KeyMark {
                version: row.int("version")?,
                changed: row.optional_text("changed")?.map(str::to_owned),
            };
            if this.version == known.version {
                if this != *known {
                    return Ok(None);
                }
                continue;
            }
            if this.version != mark.version + 1 {
                return Ok(None);
            }
            let key = match row.optional_text("id")? {
                Some(_) => Some(read(row)?),
                None => None,
            };
            keys.push((this.changed.clone().unwrap_or_default(), key));
            mark = this;
        }
        // The row of what is known may be gone by now, or never have been.
        let begins_there = known.changed.is_none() || keys.len() < rows.len();
        let complete = begins_there && mark.version >= now.version;
        Ok(complete.then_some(KeyChanges { mark, keys }))
    }

    /// Whether there is a key at all.
    pub fn any(&self) -> Result<bool, DatabaseError> {
        Ok(self
            .0
            .query("api_key_any", &[])?
            .first()
            .map_or(Ok(0), |row| row.int("keys"))?
            > 0)
    }

    /// Notes when keys were last used, in milliseconds since 1970. A later time that is there already stays.
    pub fn touch(&self, used: &[(&str, i64)]) -> Result<(), DatabaseError> {
        let mut used = used.to_vec();
        // Two replicas that lock rows in different orders would wait for each other.
        used.sort_unstable();
        self.0.own_transaction(|tx| {
            for (id, at) in used {
                tx.execute("api_key_touch", &[("id", id.into()), ("at", at.into())])?;
            }
            Ok(())
        })
    }
}

fn mark_of(rows: &[Row]) -> Result<KeyMark, DatabaseError> {
    let row = rows.first().ok_or_else(|| {
        DatabaseError::Misconfigured("the table api_keys_version is empty".to_owned())
    })?;
    Ok(KeyMark {
        version: row.int("version")?,
        changed: row.optional_text("changed")?.map(str::to_owned),
    })
}

fn insert(tx: &mut Transaction<'_>, new: &NewKey) -> Result<CreatedKey, DatabaseError> {
    let (id, key) = new_key()?;
    tx.execute(
        "api_key_insert",
        &[
            ("id", id.as_str().into()),
            ("name", new.name.as_str().into()),
            ("hash", key_hash(&key).into()),
            ("rate", Value::from(new.rate.text())),
            ("admin", new.admin.into()),
            ("created_at", unix_ms().into()),
        ],
    )?;
    changed(tx, &id)?;
    Ok(CreatedKey {
        id,
        secret: Secret::new(key),
    })
}

/// Notes which key the last change was about, in the transaction that raised the version.
fn changed(tx: &mut Transaction<'_>, id: &str) -> Result<(), DatabaseError> {
    tx.execute("api_key_changed", &[("id", id.into())])?;
    tx.execute("api_key_changes_prune", &[]).map(drop)
}

fn read(row: &Row) -> Result<KeyRow, DatabaseError> {
    let id = row.text("id")?.to_owned();
    let rate = match row.optional_text("rate")? {
        None => KeyRate::Configured,
        // Edited by hand, perhaps: one such row is no reason to lose every other key.
        Some(text) => KeyRate::parse(text).unwrap_or_else(|error| {
            log::warn!("API key {id} has the default rate: {error}");
            KeyRate::Configured
        }),
    };
    Ok(KeyRow {
        name: row.text("name")?.to_owned(),
        hash: row.text("hash")?.to_owned(),
        rate,
        admin: row.bool("admin")?,
        created_at: row.int("created_at")?,
        last_used_at: row.optional_int("last_used_at")?,
        id,
    })
}

fn check_name(name: &str) -> Result<(), DatabaseError> {
    let length = name.chars().count();
    if length == 0 || length > LONGEST_NAME || name.trim().is_empty() {
        return Err(DatabaseError::Invalid(format!(
            "the name of a key has 1 to {LONGEST_NAME} characters"
        )));
    }
    if name.chars().any(char::is_control) {
        return Err(DatabaseError::Invalid(
            "the name of a key has no control characters".to_owned(),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
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
            assert!(!keys.any().unwrap());
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
            assert!(keys.any().unwrap());

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
            assert!(!keys.any().unwrap() && keys.mark().unwrap().version() != version);

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
            // A key that is no admin's is no reason to make none.
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
            let told = |known: &KeyMark, now: &KeyMark| keys.changes(known, now).unwrap().is_some();
            assert!(told(&known, &now));
            // Of another history, such as before a database was restored.
            let other = KeyMark {
                changed: Some("somebodyelse".to_owned()),
                ..known.clone()
            };
            assert!(!told(&other, &now));
            assert!(!told(&now, &known), "it has gone back");
            // By hand, or by a larder that leaves no row.
            fixture::batch(
                database,
                "UPDATE api_keys_version SET version = version + 1",
            );
            let by_hand = keys.mark().unwrap();
            assert!(!told(&known, &by_hand));
            keys.create(&named("d")).unwrap();
            let last = keys.mark().unwrap();
            assert!(!told(&known, &last) && told(&by_hand, &last));
            fixture::batch(database, "DELETE FROM api_key_changes");
            assert!(
                !told(&by_hand, &last)
                    && !told(
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
            let place = KeyPlace::behind(&first[1]);
            assert_eq!(place.to_string().parse(), Ok(place.clone()));
            keys.revoke(&first[1].id).unwrap();
            assert_eq!(keys.page(Some(&place), 2).unwrap(), all[2..4]);
            let place = KeyPlace::behind(&all[4]);
            assert!(keys.page(Some(&place), 2).unwrap().is_empty());
            for wrong in ["", "1", "x.y", "é"] {
                assert!(wrong.parse::<KeyPlace>().is_err(), "{wrong}");
            }
        });
    }
}
