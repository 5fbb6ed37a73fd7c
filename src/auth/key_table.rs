//! The API keys as this replica knows them.
//!
//! Promise: a look-up neither blocks nor asks the database. It hashes a key only until that key was
//! accepted once. A key that is revoked anywhere is refused here within `max_staleness`; while the
//! database cannot be read, the keys stay as they are. A change costs one row of the database and
//! one shard of the table, however many keys there are. A refresh keeps the used part of each rate.
//!
//! Invariant: an accepted text hashes to the hash that the database has for its id, or it is the
//! fixed admin key.

use std::collections::{BTreeMap, HashMap};
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use parking_lot::Mutex;

use super::limiter::{Decision, Limiter};
use crate::database::{
    Database, DatabaseError, KeyChanges, KeyMark, KeyRate, KeyRow, key_hash, key_id,
    presumed_key_id,
};
use crate::quantity::Rate;
use larder_cache::Secret;

/// One key: its rights, and what it has used of its rate.
#[derive(Debug)]
pub struct KeyRecord {
    /// The row that the database had when it was read.
    row: KeyRow,
    /// The key itself, once it was presented and its hash matched. From then on it is compared, not
    /// hashed.
    verified: OnceLock<Secret>,
    limiter: Option<Arc<Limiter>>,
    /// Whether it was used since the refresher looked last. A flag: a clock read costs more than
    /// all the rest of a look-up.
    used: AtomicBool,
}

impl KeyRecord {
    /// The record of `row`. Returns the record `before` if nothing changed, and otherwise keeps
    /// what still holds of it: the verified key, the limiter if the rate is the same, the use.
    fn new(row: KeyRow, default_rate: Rate, before: Option<&Arc<KeyRecord>>) -> Arc<KeyRecord> {
        let rate = match row.rate {
            KeyRate::Configured => Some(default_rate),
            KeyRate::Limited(rate) => Some(rate),
            KeyRate::Unlimited => None,
        };
        let before = before.filter(|before| before.row.hash == row.hash);
        let limiter_before = before.and_then(|before| before.limiter.as_ref());
        if let Some(before) = before
            && limiter_before.map(|limiter| limiter.rate()) == rate
            && before.row.name == row.name
            && before.row.admin == row.admin
            && before.row.rate == row.rate
        {
            return before.clone();
        }
        let limiter = rate.map(|rate| match limiter_before {
            Some(limiter) if limiter.rate() == rate => limiter.clone(),
            _ => Arc::new(Limiter::new(rate)),
        });
        let verified = before.and_then(|before| before.verified.get().cloned());
        Arc::new(KeyRecord {
            row,
            verified: verified.map_or_else(OnceLock::new, OnceLock::from),
            limiter,
            used: AtomicBool::new(
                before.is_some_and(|before| before.used.swap(false, Ordering::Relaxed)),
            ),
        })
    }

    /// The id of the key; `admin` for the fixed one.
    pub fn id(&self) -> &str {
        &self.row.id
    }

    /// The name of its owner.
    pub fn name(&self) -> &str {
        &self.row.name
    }

    /// Whether it is an admin's.
    pub fn is_admin(&self) -> bool {
        self.row.admin
    }

    /// Counts a request at `now` if the rate allows it. `None` for a key without a limit.
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
        // Read first: a cache line that every worker writes for each request would move between
        // cores.
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
    }
}

/// Whether two texts are the same, in a time that depends on their lengths alone. All keys have one
/// length, and so do all hashes.
fn same(a: &str, b: &str) -> bool {
    a.len() == b.len()
        && black_box(
            a.bytes()
                .zip(b.bytes())
                .fold(0, |difference, (a, b)| difference | (a ^ b)),
        ) == 0
}

/// Shards of the table. A change copies one shard: about 200 keys of 200,000.
const SHARDS: usize = 1024;

type Shard = HashMap<String, Arc<KeyRecord>, foldhash::fast::RandomState>;

/// All keys that are valid here.
#[derive(Debug)]
pub struct KeyTable {
    shards: Box<[ArcSwap<Shard>]>,
    /// The key of the environment; it is in no database.
    fixed: Option<(Secret, KeyRecord)>,
    /// Protects the order of changes. A thread holds it while it replaces shards, and never while
    /// it asks the database: a frozen database would block all other changes.
    order: Mutex<Order>,
}

/// The order in which reads of the database take effect.
#[derive(Debug)]
struct Order {
    /// The rate of keys that name none.
    default_rate: Rate,
    /// The last change in effect. `None` before the first refresh.
    mark: Option<KeyMark>,
    /// The number of the read that began last.
    begun: u64,
    /// The number of the read that took effect last. A read that began before it must not take
    /// effect: it could bring back a revoked key.
    applied: u64,
}

impl Order {
    fn begin(&mut self) -> u64 {
        self.begun += 1;
        self.begun
    }
}

/// The shard of the key with this id. Ids are random letters and digits, so the first two spread
/// the keys without a hash.
fn shard_of(id: &str) -> usize {
    match id.as_bytes() {
        [first, second, ..] => (usize::from(*first) << 5 ^ usize::from(*second)) % SHARDS,
        _ => 0,
    }
}

impl KeyTable {
    /// A table that knows only `admin_key` until it is refreshed: `LARDER_ADMIN_KEY`, an admin
    /// without a limit.
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
            shards: (0..SHARDS).map(|_| ArcSwap::default()).collect(),
            // An empty variable sets no key: otherwise an empty key would be accepted.
            fixed: admin_key
                .filter(|key| !key.reveal().is_empty())
                .map(|key| (key, record())),
            order: Mutex::new(Order {
                default_rate,
                mark: None,
                begun: 0,
                applied: 0,
            }),
        }
    }

    /// Calls `then` with the record of the presented key. `None` if the key is unknown.
    ///
    /// The record is borrowed. A clone of its `Arc` would make every worker write to one reference
    /// count.
    pub fn lookup<T>(&self, presented: &str, then: impl FnOnce(&KeyRecord) -> T) -> Option<T> {
        if let Some(id) = presumed_key_id(presented)
            && let shard = self.shards[shard_of(id)].load()
            && let Some(record) = shard.get(id)
            && record.accepts(presented)
        {
            record.note_use();
            return Some(then(record));
        }
        let (key, record) = self.fixed.as_ref()?;
        key.matches(presented).then(|| then(record))
    }

    /// Reads the changes since the last refresh, and returns whether there were any. The table then
    /// has everything that the database had when this was called. Reads all keys the first time,
    /// and when the database cannot tell the changes. Blocks.
    pub fn refresh(&self, database: &Database) -> Result<bool, DatabaseError> {
        let (read, known) = {
            let mut order = self.order.lock();
            (order.begin(), order.mark.clone())
        };
        let keys = database.keys();
        // Before the keys: a later change is read again next time, and never missed.
        let now = keys.mark()?;
        if known.as_ref() == Some(&now) {
            return Ok(false);
        }
        if let Some(known) = &known
            && let Some(changes) = keys.changes(known, &now)?
        {
            return Ok(self.apply(read, changes));
        }
        let rows = keys.list()?;
        Ok(self.apply_all(read, now, rows))
    }

    /// Refuses a key from now on, because it was just revoked here. Needs no database.
    pub fn forget(&self, id: &str) {
        let mut order = self.order.lock();
        // Counts as a read that begins now: a read under way may have seen the key before it was
        // revoked.
        order.applied = order.begin();
        self.change(&order, vec![(id.to_owned(), None)]);
    }

    /// Changes the rate of the keys that name none. They start with the full allowance.
    pub fn set_default_rate(&self, new: Rate) {
        let mut order = self.order.lock();
        if order.default_rate == new {
            return;
        }
        order.default_rate = new;
        let shards = self.shards.iter().map(|shard| shard.load_full());
        let rows = shards.flat_map(|shard| {
            let rows = shard.values().map(|record| record.row.clone());
            rows.collect::<Vec<_>>()
        });
        self.replace(&order, rows.collect());
    }

    /// Applies the read with this number, which found all keys, unless a later one was applied.
    fn apply_all(&self, read: u64, mark: KeyMark, rows: Vec<KeyRow>) -> bool {
        let mut order = self.order.lock();
        if order.applied > read {
            return false;
        }
        order.applied = read;
        order.mark = Some(mark);
        self.replace(&order, rows);
        true
    }

    /// Applies the changes that the read with this number found, unless a read that began later or
    /// saw more was applied.
    fn apply(&self, read: u64, changes: KeyChanges) -> bool {
        let mut order = self.order.lock();
        let newer = |mark: &KeyMark| mark.version() >= changes.mark.version();
        if order.applied > read || order.mark.as_ref().is_some_and(newer) {
            return false;
        }
        order.applied = read;
        order.mark = Some(changes.mark);
        self.change(&order, changes.keys);
        true
    }

    /// The ids of the keys that were used since the last call, each with the time of this call in
    /// milliseconds since 1970.
    pub(super) fn take_used(&self) -> Vec<(String, i64)> {
        let now = Timestamp::now().as_millisecond();
        let mut used = Vec::new();
        for shard in &self.shards {
            let shard = shard.load();
            let records = shard.values();
            let of_shard = records.filter(|record| record.used.swap(false, Ordering::Relaxed));
            used.extend(of_shard.map(|record| (record.row.id.clone(), now)));
        }
        used
    }

    /// Replaces all keys by these.
    fn replace(&self, order: &Order, rows: Vec<KeyRow>) {
        let mut sorted: Vec<Vec<KeyRow>> = vec![Vec::new(); SHARDS];
        for row in rows {
            if let Some(rows) = sorted.get_mut(shard_of(&row.id)) {
                rows.push(row);
            }
        }
        for (shard, rows) in self.shards.iter().zip(sorted) {
            let before = shard.load();
            if before.is_empty() && rows.is_empty() {
                continue;
            }
            let records = rows.into_iter().map(|row| {
                let before = before.get(&row.id);
                (
                    row.id.clone(),
                    KeyRecord::new(row, order.default_rate, before),
                )
            });
            shard.store(Arc::new(records.collect()));
        }
    }

    /// Puts each of these keys into its shard, or removes it.
    fn change(&self, order: &Order, keys: Vec<(String, Option<KeyRow>)>) {
        let mut by_shard: BTreeMap<usize, Vec<(String, Option<KeyRow>)>> = BTreeMap::new();
        for (id, row) in keys {
            by_shard.entry(shard_of(&id)).or_default().push((id, row));
        }
        for (at, keys) in by_shard {
            let Some(shard) = self.shards.get(at) else {
                continue;
            };
            let mut after = Shard::clone(&shard.load());
            for (id, row) in keys {
                match row {
                    Some(row) => {
                        let record = KeyRecord::new(row, order.default_rate, after.get(&id));
                        after.insert(id, record);
                    }
                    None => drop(after.remove(&id)),
                }
            }
            shard.store(Arc::new(after));
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
