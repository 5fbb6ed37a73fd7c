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
use larder_cache::Secret;

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
mod tests;
