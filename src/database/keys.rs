//! API keys as the database keeps them.
//!
//! Promise: the key itself is shown once, when it is made; the database has its SHA-256, which is enough for a secret of 190
//! random bits. Every change of the keys changes one version number in the same transaction, so a replica that reads an
//! unchanged version has the keys as they are. The first admin key is made once per database, however many replicas start.

use super::error::DatabaseError;
use super::key_form::{key_hash, new_key};
use super::key_rate::KeyRate;
use super::transaction::Transaction;
use super::value::{Row, Value};
use super::{Database, unix_ms};
use crate::secret::Secret;

const LONGEST_NAME: usize = 100;

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
            tx.execute("api_key_bump_back", &[]).map(drop)
        })
    }

    /// All of them, the oldest first.
    pub fn list(&self) -> Result<Vec<KeyRow>, DatabaseError> {
        self.0
            .query("api_key_list", &[])?
            .iter()
            .map(read)
            .collect()
    }

    /// Removes a key; false if there is none with this id.
    pub fn revoke(&self, id: &str) -> Result<bool, DatabaseError> {
        self.0.own_transaction(|tx| {
            let found = tx.execute("api_key_delete", &[("id", id.into())])? > 0;
            if found {
                tx.execute("api_key_bump", &[("admin", false.into())])?;
            }
            Ok(found)
        })
    }

    /// A number that is another one after each change. Read it before the keys: a change in between is then seen next time.
    pub fn version(&self) -> Result<i64, DatabaseError> {
        let rows = self.0.query("api_key_version", &[])?;
        rows.first()
            .ok_or_else(|| {
                DatabaseError::Misconfigured("the table api_keys_version is empty".to_owned())
            })?
            .int("version")
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
    Ok(CreatedKey {
        id,
        secret: Secret::new(key),
    })
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
            let mut versions = vec![keys.version().unwrap()];
            let rate = KeyRate::parse("600/1m").unwrap();
            let first = keys
                .create(&NewKey {
                    name: "web — é".to_owned(),
                    rate,
                    admin: true,
                })
                .unwrap();
            versions.push(keys.version().unwrap());
            let second = keys.create(&named("two")).unwrap();
            versions.push(keys.version().unwrap());
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
            versions.push(keys.version().unwrap());
            assert!(!keys.revoke(&first.id).unwrap());
            assert_eq!(keys.version().unwrap(), versions[3], "nothing changed");
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
            let version = keys.version().unwrap();
            keys.take_back_first_admin(&unseen.id).unwrap();
            assert!(!keys.any().unwrap() && keys.version().unwrap() != version);

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
            assert_eq!(database.keys().version().unwrap(), 2);
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
            let version = keys.version().unwrap();
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
                keys.version().unwrap(),
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
}
