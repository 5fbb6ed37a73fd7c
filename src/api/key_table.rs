//! The API keys as this replica knows them: who presents one, and how often they may.
//!
//! Promise: a look-up neither blocks nor asks the database, and hashes only what no one has presented successfully before. A key
//! that is revoked anywhere is refused here within `patience`, as long as the database can be read; while it cannot, the keys
//! stay as they were. What a key has used of its rate survives every refresh. Refuses to know of HTTP.
//!
//! Invariant: a text that is accepted hashes to what the database has for its id, or is the fixed admin key.

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

use arc_swap::ArcSwap;
use jiff::Timestamp;

use super::limiter::{Decision, Limiter};
use crate::database::{
    Database, DatabaseError, KeyRate, KeyRow, key_hash, key_id, presumed_key_id,
};
use crate::quantity::Rate;
use crate::secret::Secret;

/// One key: what it may do, and what of that it has done.
#[derive(Debug)]
pub struct KeyRecord {
    /// As the database had it when it was read.
    row: KeyRow,
    /// The key itself, once it was presented and its hash was right; nothing else can be right after that.
    verified: OnceLock<Secret>,
    limiter: Option<Arc<Limiter>>,
    /// Since the refresher looked last. A flag and no time, since a clock costs more than all the rest of a look-up.
    used: AtomicBool,
}

impl KeyRecord {
    fn new(row: &KeyRow, default_rate: Rate, before: Option<&Arc<KeyRecord>>) -> Arc<KeyRecord> {
        let rate = match row.rate {
            KeyRate::Configured => Some(default_rate),
            KeyRate::Limited(rate) => Some(rate),
            KeyRate::Unlimited => None,
        };
        let before = before.filter(|before| before.row.hash == row.hash);
        let limiter = rate.map(
            |rate| match before.and_then(|before| before.limiter.as_ref()) {
                Some(limiter) if limiter.rate() == rate => limiter.clone(),
                _ => Arc::new(Limiter::new(rate)),
            },
        );
        if let Some(before) = before {
            let same_limiter = match (&before.limiter, &limiter) {
                (Some(old), Some(new)) => Arc::ptr_eq(old, new),
                (None, None) => true,
                _ => false,
            };
            if same_limiter
                && before.row.name == row.name
                && before.row.admin == row.admin
                && before.row.rate == row.rate
            {
                return before.clone();
            }
        }
        let verified = before.and_then(|before| before.verified.get().cloned());
        Arc::new(KeyRecord {
            row: row.clone(),
            verified: verified.map_or_else(OnceLock::new, OnceLock::from),
            limiter,
            used: AtomicBool::new(
                before.is_some_and(|before| before.used.swap(false, Ordering::Relaxed)),
            ),
        })
    }

    /// What the key is called; `admin` for the fixed one.
    pub fn id(&self) -> &str {
        &self.row.id
    }

    /// Who has it.
    pub fn name(&self) -> &str {
        &self.row.name
    }

    /// Whether it may do what admins may.
    pub fn is_admin(&self) -> bool {
        self.row.admin
    }

    /// Counts one request at `now`, if the rate allows it; `None` for a key without a limit.
    pub fn check(&self, now: Instant) -> Option<Decision> {
        self.limiter.as_ref().map(|limiter| limiter.check(now))
    }

    fn accepts(&self, presented: &str) -> bool {
        match self.verified.get() {
            Some(verified) => same(verified.reveal(), presented),
            None if key_id(presented).is_some() && same(&self.row.hash, &key_hash(presented)) => {
                let _ = self.verified.set(Secret::new(presented));
                true
            }
            None => false,
        }
    }

    fn note_use(&self) {
        // Read first: a line of memory that every worker writes for each request would move between their caches.
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
    }
}

/// Whether two texts are the same, in a time that depends on their lengths alone. Every key and every hash has one length.
fn same(a: &str, b: &str) -> bool {
    a.len() == b.len()
        && black_box(
            a.bytes()
                .zip(b.bytes())
                .fold(0, |difference, (a, b)| difference | (a ^ b)),
        ) == 0
}

/// The keys of one moment.
#[derive(Debug, Default)]
struct Snapshot {
    /// `None` before the first refresh.
    version: Option<i64>,
    records: HashMap<String, Arc<KeyRecord>, foldhash::fast::RandomState>,
}

impl Snapshot {
    fn rows(&self) -> impl Iterator<Item = &KeyRow> {
        self.records.values().map(|record| &record.row)
    }
}

/// All keys that are valid here.
#[derive(Debug)]
pub struct KeyTable {
    snapshot: ArcSwap<Snapshot>,
    /// The key of the environment; it is in no database.
    fixed: Option<(Secret, KeyRecord)>,
    /// Its lock is held by whoever replaces the snapshot, and never while the database is asked: a database that is frozen
    /// would hold everybody else with it.
    order: Mutex<Order>,
}

/// In which order the snapshots are replaced.
#[derive(Debug)]
struct Order {
    /// The rate of keys that name none.
    default_rate: Rate,
    /// The number of the read that began last.
    begun: u64,
    /// The number of the read that the snapshot comes from. One that began before it may not replace it: it could put back a
    /// key that is revoked. The version in the database is no measure, since a database that was restored goes back.
    shown: u64,
}

impl Order {
    fn begin(&mut self) -> u64 {
        self.begun += 1;
        self.begun
    }
}

impl KeyTable {
    /// A table that knows `admin_key` (`LARDER_ADMIN_KEY`, an admin without a limit) and no other until it is refreshed.
    pub fn new(default_rate: Rate, admin_key: Option<Secret>) -> KeyTable {
        let record = || KeyRecord {
            row: KeyRow {
                id: "admin".to_owned(),
                name: "LARDER_ADMIN_KEY".to_owned(),
                hash: String::new(),
                rate: KeyRate::Unlimited,
                admin: true,
                created_at: 0,
                last_used_at: None,
            },
            verified: OnceLock::new(),
            limiter: None,
            used: AtomicBool::new(false),
        };
        KeyTable {
            snapshot: ArcSwap::default(),
            // An empty variable is no key that anybody could present by presenting nothing.
            fixed: admin_key
                .filter(|key| !key.reveal().is_empty())
                .map(|key| (key, record())),
            order: Mutex::new(Order {
                default_rate,
                begun: 0,
                shown: 0,
            }),
        }
    }

    /// What `then` makes of whose key this is; `None` if it is nobody's.
    ///
    /// The record is lent, not given: to count its holders every worker would write to the one line of memory that all requests
    /// with one key have in common.
    pub fn lookup<T>(&self, presented: &str, then: impl FnOnce(&KeyRecord) -> T) -> Option<T> {
        let snapshot = self.snapshot.load();
        if let Some(id) = presumed_key_id(presented)
            && let Some(record) = snapshot.records.get(id)
            && record.accepts(presented)
        {
            record.note_use();
            return Some(then(record));
        }
        let (key, record) = self.fixed.as_ref()?;
        key.matches(presented).then(|| then(record))
    }

    /// Reads the keys if they changed since the last time, and returns whether it brought anything new. What was in the database
    /// when it was called is known here when it returns. For a thread that may block.
    pub fn refresh(&self, database: &Database) -> Result<bool, DatabaseError> {
        let read = self.lock().begin();
        let keys = database.keys();
        // The version first: a change between the two reads is then read again next time, and never missed.
        let version = keys.version()?;
        if self.snapshot.load().version == Some(version) {
            return Ok(false);
        }
        let rows = keys.list()?;
        Ok(self.show(read, Some(version), &rows))
    }

    /// Refuses a key from now on, whether or not the database can be read: it was just revoked here.
    pub fn forget(&self, id: &str) {
        let mut order = self.lock();
        // As a read that begins now: whoever is reading may have read the key before it was revoked.
        order.shown = order.begin();
        let before = self.snapshot.load();
        let rows = before.rows().filter(|row| row.id != id);
        // Without a version, so that the next refresh reads what the database has by then.
        self.replace(None, rows, &order, &before);
    }

    /// Changes the rate of the keys that name none. What they have used of the old one is forgotten.
    pub fn set_default_rate(&self, new: Rate) {
        let mut order = self.lock();
        if order.default_rate == new {
            return;
        }
        order.default_rate = new;
        let before = self.snapshot.load();
        self.replace(before.version, before.rows(), &order, &before);
    }

    /// Takes over what the read of this number has found, unless one that began later is already shown.
    fn show(&self, read: u64, version: Option<i64>, rows: &[KeyRow]) -> bool {
        let mut order = self.lock();
        if order.shown > read {
            return false;
        }
        order.shown = read;
        self.replace(version, rows.iter(), &order, &self.snapshot.load());
        true
    }

    /// The ids of the keys that were used since the last call, with the time of this one in milliseconds since 1970.
    pub(super) fn take_used(&self) -> Vec<(String, i64)> {
        let now = Timestamp::now().as_millisecond();
        let snapshot = self.snapshot.load();
        let used = snapshot
            .records
            .values()
            .filter(|record| record.used.swap(false, Ordering::Relaxed));
        used.map(|record| (record.row.id.clone(), now)).collect()
    }

    fn replace<'r>(
        &self,
        version: Option<i64>,
        rows: impl Iterator<Item = &'r KeyRow>,
        order: &Order,
        before: &Snapshot,
    ) {
        let records = rows.map(|row| {
            let record = KeyRecord::new(row, order.default_rate, before.records.get(&row.id));
            (row.id.clone(), record)
        });
        self.snapshot.store(Arc::new(Snapshot {
            version,
            records: records.collect(),
        }));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Order> {
        // Whoever panicked with it had not stored anything by halves: the snapshot is replaced whole.
        self.order.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::database::NewKey;
    use crate::database::fixture::Place;

    const RATE: &str = "5/1h";

    pub(in crate::api) fn table() -> KeyTable {
        KeyTable::new(
            RATE.parse().unwrap(),
            Some(Secret::new("an-admin-key-of-24-chars")),
        )
    }

    pub(in crate::api) fn create(database: &Database, rate: KeyRate) -> Secret {
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

    pub(in crate::api) fn known(table: &KeyTable, presented: &str) -> bool {
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
        // Twice: the second time it is compared with the key that was seen, not hashed.
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

        // It has read when the key is revoked, and is shown when that was heard of.
        let slow = table.lock().begin();
        let (version, rows) = (keys.version().unwrap(), keys.list().unwrap());
        keys.revoke(id).unwrap();
        assert!(table.refresh(&database).unwrap());
        assert!(!table.show(slow, Some(version), &rows));
        assert!(!known(&gone) && known(&stays));

        // Likewise beside a key that is forgotten here, before anything is read.
        let id = key_id(stays.reveal()).unwrap();
        let slow = table.lock().begin();
        let (version, rows) = (keys.version().unwrap(), keys.list().unwrap());
        keys.revoke(id).unwrap();
        table.forget(id);
        assert!(!table.show(slow, Some(version), &rows));
        assert!(!known(&stays));
        assert!(table.refresh(&database).unwrap());
        assert!(!known(&stays));
    }
}
