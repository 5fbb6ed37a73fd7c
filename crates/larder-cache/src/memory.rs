//! The memory tier: moka, weighed in bytes.
//!
//! Promise: it holds at most the configured bytes, give or take moka's own buffers, and keeps an
//! entry as long as it can be of any use, stale time included. It does not decide what may be
//! served: it returns what it has.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use moka::notification::RemovalCause;
use moka::policy::EvictionPolicy;

use super::clock::{Clock, micros};
use super::entry::Entry;
use super::key::Key;
use super::policy::{Lifetime, Policy};
use super::settings::{Eviction, MemorySettings};

/// What an entry costs besides its key and body, as `cargo bench --bench scale` measures it. More
/// than half is moka's own nodes; the rest is the entry's fields, its key as a name, and the
/// reference count of its body.
const BOOKKEEPING: usize = 610;
/// What each tag adds besides its text, if no other entry shares it.
const A_TAG: usize = 48;

type Map = moka::sync::Cache<Key, Arc<Entry>, foldhash::fast::RandomState>;

/// See the module.
pub(crate) struct MemoryTier {
    map: Map,
    evictions: Arc<AtomicU64>,
}

struct Expiry;

impl moka::Expiry<Key, Arc<Entry>> for Expiry {
    fn expire_after_create(&self, _: &Key, entry: &Arc<Entry>, _: Instant) -> Option<Duration> {
        Some(entry.kept_for())
    }

    fn expire_after_update(
        &self,
        _: &Key,
        entry: &Arc<Entry>,
        _: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(entry.kept_for())
    }
}

impl MemoryTier {
    /// An empty tier.
    pub(crate) fn new(settings: &MemorySettings) -> MemoryTier {
        let evictions = Arc::new(AtomicU64::new(0));
        let counter = evictions.clone();
        let map = moka::sync::Cache::builder()
            .max_capacity(settings.max_bytes)
            .weigher(|key: &Key, entry: &Arc<Entry>| {
                let tags = entry.tags().iter();
                let tags: usize = tags.map(|tag| tag.as_str().len() + A_TAG).sum();
                let bytes = key.as_str().len()
                    + entry.value.bytes().len()
                    + tags
                    + entry.extra_weight()
                    + BOOKKEEPING;
                u32::try_from(bytes).unwrap_or(u32::MAX)
            })
            .expire_after(Expiry)
            .eviction_policy(match settings.eviction {
                Eviction::Lru => EvictionPolicy::lru(),
                Eviction::TinyLfu => EvictionPolicy::tiny_lfu(),
            })
            .eviction_listener(move |_, _, cause| {
                if cause == RemovalCause::Size {
                    counter.fetch_add(1, Ordering::Relaxed);
                }
            })
            .build_with_hasher(foldhash::fast::RandomState::default());
        MemoryTier { map, evictions }
    }

    /// The entry under the key with this text.
    pub(crate) fn get(&self, key: &str) -> Option<Arc<Entry>> {
        self.map.get(key)
    }

    /// Keeps `entry` while `policy` can make any use of it, and returns it, shared from now on. An
    /// entry that is of no use is not kept, and drops the one that was there.
    pub(crate) fn fill(
        &self,
        key: Key,
        entry: Entry,
        policy: &Policy,
        clock: &Clock,
    ) -> Arc<Entry> {
        let kept_for = if entry.lifetime() == Lifetime::NoStore || policy.memory.is_zero() {
            0
        } else {
            let longest = micros(entry.use_past_end(policy));
            let until = entry.expiry.memory_until.saturating_add(longest);
            until.saturating_sub(clock.now())
        };
        let entry = Arc::new(entry.kept(kept_for));
        if kept_for == 0 {
            self.map.invalidate(&key);
        } else {
            self.map.insert(key, entry.clone());
        }
        entry
    }

    /// Drops everything.
    pub(crate) fn clear(&self) {
        self.map.invalidate_all();
    }

    /// Entries, their weight in bytes, and how many were evicted for room so far.
    pub(crate) fn size(&self) -> (u64, u64, u64) {
        self.map.run_pending_tasks();
        (
            self.map.entry_count(),
            self.map.weighted_size(),
            self.evictions.load(Ordering::Relaxed),
        )
    }
}
