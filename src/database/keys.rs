//! API keys in the database.
//!
//! Promise: a key itself is shown only once, when it is created. The database has its SHA-256,
//! which is enough for a secret of 190 random bits. Every change of the keys increments one version
//! number in the same transaction and leaves a row that names the changed key, so a replica reads
//! only what came after the version it knows. The first admin key is created once per database,
//! however many replicas start.

use super::error::DatabaseError;
use super::key_form::{key_hash, new_key};
use super::key_rate::KeyRate;
use super::row::Row;
use super::sql_value::SqlValue;
use super::transaction::Transaction;
use super::{Database, unix_ms};
use larder_cache::Secret;

const LONGEST_NAME: usize = 100;
/// Keys per page when all are read.
const PAGE: u32 = 5_000;

/// The properties of a key that is to be created.
#[derive(Clone, Debug)]
pub struct NewKey {
    /// 1 to 100 characters without control characters.
    pub name: String,
    /// Its rate limit.
    pub rate: KeyRate,
    /// Whether it has the rights of an admin.
    pub admin: bool,
}

/// A key that was just created.
#[derive(Clone, Debug)]
pub struct CreatedKey {
    /// Its id.
    pub id: String,
    /// The key itself, which is stored nowhere.
    pub secret: Secret,
}

/// A key in the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRow {
    /// Its id.
    pub id: String,
    /// Its name, chosen by whoever created it.
    pub name: String,
    /// [`key_hash`] of the key.
    pub hash: String,
    /// Its rate limit.
    pub rate: KeyRate,
    /// Whether it has the rights of an admin.
    pub admin: bool,
    /// When it was created, in milliseconds since 1970.
    pub created_at: i64,
    /// When it was last used, in milliseconds since 1970, accurate to about a minute.
    pub last_used_at: Option<i64>,
}

/// The last change that a reader of the keys knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyMark {
    version: i64,
    /// The key that it changed. It distinguishes two histories with the same version number, as
    /// after a restore of the database. `None` if no row names it.
    changed: Option<String>,
}

impl KeyMark {
    /// The version number, which every change increments.
    pub fn version(&self) -> i64 {
        self.version
    }
}

/// The changes after a mark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyChanges {
    /// The last of these changes.
    pub mark: KeyMark,
    /// The changed keys as they are now. `None` if the key is revoked.
    pub keys: Vec<(String, Option<KeyRow>)>,
}

/// A position in the list of all keys, which begins with the oldest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyCursor {
    created_at: i64,
    id: String,
}

impl KeyCursor {
    /// The position right after this key.
    pub fn after(row: &KeyRow) -> KeyCursor {
        KeyCursor {
            created_at: row.created_at,
            id: row.id.clone(),
        }
    }
}

impl std::fmt::Display for KeyCursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.created_at, self.id)
    }
}

impl std::str::FromStr for KeyCursor {
    type Err = ();

    fn from_str(text: &str) -> Result<KeyCursor, ()> {
        let (created_at, id) = text.split_once('.').ok_or(())?;
        Ok(KeyCursor {
            created_at: created_at.parse().map_err(drop)?,
            id: id.to_owned(),
        })
    }
}

/// The keys of a database.
#[derive(Clone, Copy, Debug)]
pub struct Keys<'a>(pub(super) &'a Database);

impl Keys<'_> {
    /// Creates a key. Errors with [`DatabaseError::Invalid`] if its name is not valid.
    pub fn create(&self, new: &NewKey) -> Result<CreatedKey, DatabaseError> {
        check_name(&new.name)?;
        self.0.own_transaction(|tx| {
            tx.execute("api_key_bump", &[("admin", new.admin.into())])?;
            insert(tx, new)
        })
    }

    /// Creates an admin key named `admin`, without a rate limit, unless this database ever had an
    /// admin key.
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

    /// Removes a key of [`Keys::create_first_admin`] that could not be shown to anybody. The next
    /// start creates another one.
    pub fn take_back_first_admin(&self, id: &str) -> Result<(), DatabaseError> {
        self.0.own_transaction(|tx| {
            tx.execute("api_key_delete", &[("id", id.into())])?;
            tx.execute("api_key_bump_back", &[])?;
            changed(tx, id)
        })
    }

    /// The first `limit` keys after `cursor`, or of all keys; the oldest first.
    pub fn page(
        &self,
        cursor: Option<&KeyCursor>,
        limit: u32,
    ) -> Result<Vec<KeyRow>, DatabaseError> {
        let (created_at, id) = match cursor {
            Some(cursor) => (cursor.created_at, cursor.id.as_str()),
            None => (i64::MIN, ""),
        };
        let parameters = [
            ("created_at", created_at.into()),
            ("id", id.into()),
            ("limit", i64::from(limit).into()),
        ];
        let rows = self.0.query("api_key_page", &parameters)?;
        rows.iter().map(read).collect()
    }

    /// All keys, read page by page, the oldest first. A key that is created or revoked meanwhile
    /// may be missing or not.
    pub fn list(&self) -> Result<Vec<KeyRow>, DatabaseError> {
        let mut all: Vec<KeyRow> = Vec::new();
        loop {
            let cursor = all.last().map(KeyCursor::after);
            let page = self.page(cursor.as_ref(), PAGE)?;
            let is_last = page.len() < PAGE as usize;
            all.extend(page);
            if is_last {
                return Ok(all);
            }
        }
    }

    /// Removes a key. Returns false if there is no key with this id.
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

    /// The last change. Read it before the keys: a change in between is then noticed the next time.
    pub fn mark(&self) -> Result<KeyMark, DatabaseError> {
        newest_mark(&self.0.query("api_key_version", &[])?)
    }

    /// [`Keys::mark`] within a transaction.
    pub(super) fn mark_in(tx: &mut Transaction<'_>) -> Result<KeyMark, DatabaseError> {
        newest_mark(&tx.query("api_key_version", &[])?)
    }

    /// The changes after `known`, up to `now` or later. `None` if all keys have to be read instead,
    /// because a change left no row or `known` belongs to another history.
    pub fn changes(
        &self,
        known: &KeyMark,
        now: &KeyMark,
    ) -> Result<Option<KeyChanges>, DatabaseError> {
        if now.version <= known.version {
            return Ok(None);
        }
        let parameters = [("known", known.version.into())];
        let rows = self.0.query("api_key_changes", &parameters)?;
        let mut mark = known.clone();
        let mut keys = Vec::with_capacity(rows.len());
        for row in &rows {
            let this = mark_of(row)?;
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
        // The row of `known` itself may be pruned, or it never existed.
        let begins_there = known.changed.is_none() || keys.len() < rows.len();
        let complete = begins_there && mark.version >= now.version;
        Ok(complete.then_some(KeyChanges { mark, keys }))
    }

    /// Records when keys were last used, in milliseconds since 1970. Never moves a time back.
    pub fn touch(&self, used: &[(&str, i64)]) -> Result<(), DatabaseError> {
        let mut used = used.to_vec();
        // Two replicas that lock rows in different orders would deadlock.
        used.sort_unstable();
        self.0.own_transaction(|tx| {
            for (id, at) in &used {
                tx.execute(
                    "api_key_touch",
                    &[("id", (*id).into()), ("at", (*at).into())],
                )?;
            }
            Ok(())
        })
    }
}

fn newest_mark(rows: &[Row]) -> Result<KeyMark, DatabaseError> {
    let empty = || DatabaseError::Misconfigured("the table api_keys_version is empty".to_owned());
    mark_of(rows.first().ok_or_else(empty)?)
}

fn mark_of(row: &Row) -> Result<KeyMark, DatabaseError> {
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
            ("rate", SqlValue::from(new.rate.text())),
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

/// Records which key the last change was about, in the transaction that incremented the version.
fn changed(tx: &mut Transaction<'_>, id: &str) -> Result<(), DatabaseError> {
    tx.execute("api_key_changed", &[("id", id.into())])?;
    tx.execute("api_key_changes_prune", &[]).map(drop)
}

fn read(row: &Row) -> Result<KeyRow, DatabaseError> {
    let id = row.text("id")?.to_owned();
    let rate = match row.optional_text("rate")? {
        None => KeyRate::Configured,
        // Somebody may have edited the row. All other keys stay valid.
        Some(text) => KeyRate::parse(text).unwrap_or_else(|error| {
            log::warn!("API key {id} has an invalid rate, using the default: {error}");
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
            "invalid name: a key's name has 1 to {LONGEST_NAME} characters"
        )));
    }
    if name.chars().any(char::is_control) {
        return Err(DatabaseError::Invalid(
            "invalid name: a key's name has no control characters".to_owned(),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
