//! The memory tier: moka, weighed in bytes.
//!
//! Promise: it holds at most the configured bytes, give or take moka's own buffers, and keeps an
//! entry as long as it can be of any use, stale time included. It does not decide what may be
//! served: it returns what it has.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use moka::notification::RemovalCause;
use moka::ops::compute::Op;
use moka::policy::EvictionPolicy;

use super::clock::{Clock, Micros, micros};
use super::coherence::{Mirror, Standing};
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

/// Why an entry is no longer in memory. An entry that a newer one replaced while it was of use is
/// not evicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EvictionCause {
    /// There was no room.
    Size,
    /// It was of no use any more by its age: fresh life and stale time were over.
    Expired,
    /// It was invalidated by a hard purge, or Redis had lost its data. It stays in memory until its
    /// next load replaces it or its time is over, and counts then.
    Invalidated,
}

impl EvictionCause {
    /// All causes.
    pub const ALL: [EvictionCause; 3] = [
        EvictionCause::Size,
        EvictionCause::Expired,
        EvictionCause::Invalidated,
    ];

    /// The word for it in a metric.
    pub fn word(self) -> &'static str {
        match self {
            EvictionCause::Size => "size",
            EvictionCause::Expired => "expired",
            EvictionCause::Invalidated => "invalidated",
        }
    }

    /// Why `entry` is gone, which the map lost for `removal`. `None`: it was replaced.
    fn of(entry: &Entry, removal: RemovalCause, mirror: &Mirror, clock: &Clock) -> Option<Self> {
        match (mirror.standing(entry.dependencies()), removal) {
            // Policy may keep a copy from before a reset, anew after each reload that fails. The
            // copy counted when the first of them took its place.
            (Standing::OtherHistory, _) if entry.backoff().is_some() => None,
            (Standing::Invalid | Standing::OtherHistory, _) => Some(EvictionCause::Invalidated),
            (_, RemovalCause::Size) => Some(EvictionCause::Size),
            (_, RemovalCause::Expired) => Some(EvictionCause::Expired),
            // The map removes what is expired a while later, and says so only if nothing replaces
            // it before.
            (_, RemovalCause::Replaced | RemovalCause::Explicit) => {
                (entry.kept_until() <= clock.now()).then_some(EvictionCause::Expired)
            }
        }
    }
}

/// What became of an entry that was to be kept in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Remembered {
    /// It is in memory.
    Kept,
    /// A newer one is there already, and stays.
    Newer,
    /// The policy has no use for it.
    OfNoUse,
}

/// How much is in memory, and what is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Contents {
    pub(crate) entries: u64,
    /// The weight of the entries.
    pub(crate) bytes: u64,
    /// How many were evicted, by [`EvictionCause`].
    pub(crate) evictions: [u64; EvictionCause::ALL.len()],
}

/// See the module.
pub(crate) struct MemoryTier {
    map: Map,
    clock: Arc<Clock>,
    mirror: Arc<Mirror>,
    max_bytes: u64,
    /// By [`EvictionCause`].
    evictions: Arc<[AtomicU64; EvictionCause::ALL.len()]>,
}

struct Expiry(Arc<Clock>);

impl Expiry {
    /// How long the map keeps `entry` from now on. The map has a clock of its own, which a test
    /// does not move: what expires by that of the test is dropped by [`MemoryTier::drop_expired`].
    fn left(&self, entry: &Entry) -> Option<Duration> {
        let left = entry.kept_until().saturating_sub(self.0.now());
        (!self.0.is_of_test()).then(|| Duration::from_micros(left))
    }
}

impl moka::Expiry<Key, Arc<Entry>> for Expiry {
    fn expire_after_create(&self, _: &Key, entry: &Arc<Entry>, _: Instant) -> Option<Duration> {
        self.left(entry)
    }

    fn expire_after_update(
        &self,
        _: &Key,
        entry: &Arc<Entry>,
        _: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        self.left(entry)
    }
}

impl MemoryTier {
    /// An empty tier. `mirror` says what is invalid of what it loses.
    pub(crate) fn new(
        settings: &MemorySettings,
        mirror: Arc<Mirror>,
        clock: Arc<Clock>,
    ) -> MemoryTier {
        let evictions = Arc::<[AtomicU64; EvictionCause::ALL.len()]>::default();
        let (counts, time, known) = (evictions.clone(), clock.clone(), mirror.clone());
        let map = moka::sync::Cache::builder()
            .max_capacity(settings.max_bytes)
            .weigher(|key: &Key, entry: &Arc<Entry>| {
                let tags = entry.tags().iter();
                let tags: usize = tags.map(|tag| tag.as_str().len() + A_TAG).sum();
                let bytes = key.as_str().len()
                    + entry.value.weight()
                    + tags
                    + entry.extra_weight()
                    + BOOKKEEPING;
                u32::try_from(bytes).unwrap_or(u32::MAX)
            })
            .expire_after(Expiry(clock.clone()))
            .eviction_policy(match settings.eviction {
                Eviction::Lru => EvictionPolicy::lru(),
                Eviction::TinyLfu => EvictionPolicy::tiny_lfu(),
            })
            .eviction_listener(move |_, entry: Arc<Entry>, removal| {
                if let Some(cause) = EvictionCause::of(&entry, removal, &known, &time) {
                    counts[cause as usize].fetch_add(1, Ordering::Relaxed);
                }
            })
            .build_with_hasher(foldhash::fast::RandomState::default());
        MemoryTier {
            map,
            clock,
            mirror,
            max_bytes: settings.max_bytes,
            evictions,
        }
    }

    /// The entry under the key with this text.
    pub(crate) fn get(&self, key: &str) -> Option<Arc<Entry>> {
        self.map.get(key)
    }

    /// Keeps `entry` while `policy` can make any use of it, and returns it, shared from now on, and
    /// what became of it. An entry that is of no use drops the one that was there. A newer one
    /// stays in any case.
    pub(crate) fn fill(&self, key: Key, entry: Entry, policy: &Policy) -> (Arc<Entry>, Remembered) {
        let kept_until = if entry.lifetime() == Lifetime::NoStore || policy.memory.is_zero() {
            0
        } else {
            let longest = micros(entry.use_past_end(policy));
            entry.expiry.memory_until.saturating_add(longest)
        };
        let now = self.clock.now();
        let is_kept = kept_until > now;
        let entry = Arc::new(entry.kept(if is_kept { kept_until } else { 0 }));
        let mut remembered = Remembered::Newer;
        self.map.entry(key).and_compute_with(|before| {
            let before = before.map(moka::Entry::into_value);
            if before.is_some_and(|before| self.stays(&before, &entry, now)) {
                Op::Nop
            } else if is_kept {
                remembered = Remembered::Kept;
                Op::Put(entry.clone())
            } else {
                remembered = Remembered::OfNoUse;
                Op::Remove
            }
        });
        (entry, remembered)
    }

    /// Whether the entry that is there is not replaced by `other`: it is fresh, and the load of
    /// `other` began earlier or was overtaken by an invalidation. A load that ends late brings back
    /// nothing that memory has had replaced.
    fn stays(&self, there: &Entry, other: &Entry, now: Micros) -> bool {
        let is_older = || {
            there.own.stamp.is_later_than(other.own.stamp)
                || self.mirror.standing(other.dependencies()) == Standing::Invalid
        };
        there.expiry.memory_until > now && is_older()
    }

    /// Drops what has expired. The map does that by itself, unless a test moves the clock.
    pub(crate) fn drop_expired(&self) {
        let now = self.clock.now();
        for (key, entry) in &self.map {
            if entry.kept_until() <= now {
                self.map.invalidate(&*key);
            }
        }
    }

    /// Drops everything.
    pub(crate) fn clear(&self) {
        self.map.invalidate_all();
    }

    /// What it holds now, and what it has lost so far.
    pub(crate) fn contents(&self) -> Contents {
        self.map.run_pending_tasks();
        Contents {
            entries: self.map.entry_count(),
            bytes: self.map.weighted_size(),
            evictions: std::array::from_fn(|at| self.evictions[at].load(Ordering::Relaxed)),
        }
    }

    /// The bytes that it holds at most.
    pub(crate) fn max_bytes(&self) -> u64 {
        self.max_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::super::clock::{Micros, TestClock};
    use super::super::coherence::{
        Dependency, HistoryId, HistoryState, InvalidationTarget, Purge, Stamp,
    };
    use super::super::entry::{Backoff, Extras, Value};
    use super::super::outcome::Staleness;
    use super::super::policy::Expiry;
    use super::*;

    use EvictionCause::{Expired, Invalidated, Size};

    const FAR: Micros = 1 << 60;
    const HOUR: Duration = Duration::from_secs(3600);

    struct Place {
        mirror: Arc<Mirror>,
        clock: Arc<Clock>,
    }

    impl Place {
        fn new() -> Place {
            Place {
                mirror: Arc::new(Mirror::alone(true)),
                clock: Arc::new(Clock::new()),
            }
        }

        fn tier(&self, max_bytes: u64) -> MemoryTier {
            let settings = MemorySettings {
                max_bytes,
                ..MemorySettings::default()
            };
            MemoryTier::new(&settings, self.mirror.clone(), self.clock.clone())
        }

        fn entry(&self, name: &str, memory_until: Micros) -> Entry {
            let expiry = Expiry {
                memory_until,
                fresh_until: memory_until,
            };
            let names: Arc<[_]> = Arc::new([InvalidationTarget::key(name)]);
            let own = self.mirror.dependency(self.mirror.stamp(), &names);
            let value = Value::present(name.into());
            Entry::new(value, own, self.clock.now(), 1, expiry, Extras::default())
        }

        fn fill(&self, tier: &MemoryTier, name: &str, memory_until: Micros) -> Arc<Entry> {
            let entry = self.entry(name, memory_until);
            tier.fill(Key::new(1, name), entry, &Policy::new(HOUR, HOUR))
                .0
        }

        fn purge(&self, name: &str, purge: Purge) {
            let history = self.mirror.history();
            let clock = history.applied() + 1;
            history.apply(&InvalidationTarget::key(name), purge, clock);
            history.advance(clock);
        }
    }

    fn evictions(tier: &MemoryTier) -> [u64; 3] {
        tier.contents().evictions
    }

    #[test]
    fn an_entry_is_gone_for_one_cause() {
        let place = Place::new();
        let (valid, soft, hard) = (
            place.entry("valid", FAR).kept(FAR),
            place.entry("soft", FAR).kept(FAR),
            place.entry("hard", FAR).kept(FAR),
        );
        let over = place.entry("valid", 1).kept(1);
        place.purge("soft", Purge::Soft);
        place.purge("hard", Purge::Hard);
        use RemovalCause::{Explicit, Replaced};
        for (entry, removal, cause) in [
            (&valid, RemovalCause::Size, Some(Size)),
            (&valid, RemovalCause::Expired, Some(Expired)),
            (&valid, Replaced, None),
            (&valid, Explicit, None),
            (&over, Replaced, Some(Expired)),
            (&over, Explicit, Some(Expired)),
            (&soft, Replaced, None),
            (&soft, RemovalCause::Size, Some(Size)),
            (&hard, Replaced, Some(Invalidated)),
            (&hard, Explicit, Some(Invalidated)),
            (&hard, RemovalCause::Size, Some(Invalidated)),
            (&hard, RemovalCause::Expired, Some(Invalidated)),
        ] {
            let found = EvictionCause::of(entry, removal, &place.mirror, &place.clock);
            assert_eq!(found, cause, "{:?} {removal:?}", entry.value);
        }
        let places = EvictionCause::ALL.map(|cause| cause as usize);
        assert_eq!(places, [0, 1, 2]);
    }

    #[test]
    fn each_eviction_is_counted_by_its_cause() {
        let place = Place::new();
        let tier = place.tier(1 << 20);
        // Replaced by a newer value, or dropped for one that is not kept.
        for until in [FAR, FAR, 0] {
            place.fill(&tier, "replaced", until);
        }
        assert_eq!(evictions(&tier), [0, 0, 0]);
        assert!(tier.get(Key::new(1, "replaced").as_str()).is_none());
        // Over, and replaced before the map has noticed.
        let until = place.clock.now() + 2000;
        place.fill(&tier, "over", until);
        while place.clock.now() < until {
            std::thread::yield_now();
        }
        place.fill(&tier, "over", FAR);
        assert_eq!(evictions(&tier), [0, 1, 0]);
        place.fill(&tier, "purged", FAR);
        place.purge("purged", Purge::Hard);
        place.fill(&tier, "purged", FAR);
        assert_eq!(evictions(&tier), [0, 1, 1]);
        assert_eq!(tier.contents().entries, 2);
    }

    #[test]
    fn what_has_expired_by_the_clock_of_a_test_is_dropped_and_nothing_else() {
        let test = TestClock::new();
        let place = Place {
            clock: Arc::new(Clock::of_test(&test)),
            ..Place::new()
        };
        let tier = place.tier(1 << 20);
        let now = place.clock.now();
        place.fill(&tier, "brief", now + 1);
        place.fill(&tier, "long", now + 1_000_000);
        // However long that takes, nothing expires by the map's own clock.
        let began = Instant::now();
        while began.elapsed() < Duration::from_millis(5) {
            std::thread::yield_now();
        }
        tier.drop_expired();
        assert_eq!((tier.contents().entries, evictions(&tier)), (2, [0; 3]));
        test.advance(Duration::from_micros(1));
        tier.drop_expired();
        assert_eq!((tier.contents().entries, evictions(&tier)), (1, [0, 1, 0]));
        assert!(tier.get(Key::new(1, "long").as_str()).is_some());
        test.advance(Duration::from_secs(1));
        tier.drop_expired();
        assert_eq!((tier.contents().entries, evictions(&tier)), (0, [0, 2, 0]));
    }

    #[test]
    fn what_has_no_room_is_evicted_by_size() {
        let place = Place::new();
        let tier = place.tier(10 * (BOOKKEEPING as u64 + 40));
        for i in 0..100 {
            place.fill(&tier, &format!("k{i}"), FAR);
            let contents = tier.contents();
            assert!(contents.bytes <= tier.max_bytes());
            assert_eq!(contents.evictions, [i + 1 - contents.entries, 0, 0]);
        }
        assert!(evictions(&tier)[0] >= 90);
    }

    #[test]
    fn what_was_loaded_alone_is_invalidated_by_the_first_history() {
        let place = Place::new();
        let tier = place.tier(1 << 20);
        let entry = place.fill(&tier, "alone", FAR);
        let stamp = entry.stamp();
        let first = HistoryState {
            history: HistoryId(stamp.history.0 ^ 1),
            clock: 5,
            hard_watermark: 0,
            soft_watermark: 0,
            pruned_to: 0,
            first_clock: 1,
        };
        place.mirror.observe(&first);
        // Kept on after two reloads that failed.
        for _ in 0..2 {
            let backoff = Backoff {
                until: FAR,
                reason: Staleness::IfError,
            };
            let (key, policy) = (Key::new(1, "alone"), Policy::new(HOUR, HOUR));
            tier.fill(key, entry.with_backoff(backoff), &policy);
            assert_eq!(evictions(&tier), [0, 0, 1]);
        }
        tier.clear();
        assert_eq!(evictions(&tier), [0, 0, 1]);
        assert_eq!(tier.contents().entries, 0);
    }

    #[test]
    fn a_fresh_entry_stays_where_an_older_one_comes_late() {
        let place = Place::new();
        let tier = place.tier(1 << 20);
        let policy = Policy::new(HOUR, HOUR);
        let at = |clock: u64, memory_until: Micros| {
            let mut entry = place.entry("a", memory_until);
            let stamp = Stamp {
                clock,
                ..entry.own.stamp
            };
            entry.own = place.mirror.dependency(stamp, &entry.own.names);
            entry
        };
        let fill = |entry| tier.fill(Key::new(1, "a"), entry, &policy).1;
        let kept = || tier.get(Key::new(1, "a").as_str()).unwrap().own.stamp.clock;
        let soon = place.clock.now() + 1_000_000;
        assert_eq!(fill(at(10, FAR)), Remembered::Kept);
        assert_eq!((fill(at(9, FAR)), kept()), (Remembered::Newer, 10));
        assert_eq!((fill(at(10, FAR)), kept()), (Remembered::Kept, 10));
        assert_eq!((fill(at(11, soon)), kept()), (Remembered::Kept, 11));
        // Of no use by its age: neither is it kept, nor does it drop the newer one.
        assert_eq!((fill(at(9, 1)), kept()), (Remembered::Newer, 11));
        // Of another history.
        let other = Stamp {
            history: HistoryId(7),
            clock: 1,
            sequence: 0,
        };
        let mut foreign = at(1, FAR);
        foreign.own = Dependency::unknown(other, foreign.own.names);
        assert_eq!((fill(foreign), kept()), (Remembered::Kept, 1));
        // One that was invalidated during its load.
        assert_eq!(fill(at(12, FAR)), Remembered::Kept);
        place.purge("a", Purge::Hard);
        let dead = at(place.mirror.stamp().clock - 1, FAR);
        let alive = at(place.mirror.stamp().clock, FAR);
        assert_eq!(fill(alive), Remembered::Kept);
        assert_eq!(fill(dead), Remembered::Newer);
    }
}
