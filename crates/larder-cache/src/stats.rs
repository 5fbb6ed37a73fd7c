//! Counters of one resource's lookups on this replica since it started.
//!
//! Lookups of readers and lookups of parts are counted apart. The first are the requests to this
//! replica, and a sum over all resources counts each of them once.

use std::sync::atomic::{AtomicU64, Ordering};

use super::answer::{Answer, LookupResult};
use super::outcome::Outcome;

/// See the module. A lookup is counted once, by how it ended.
#[derive(Debug, Default)]
pub struct Tally {
    own: Counters,
    /// As a part of another value.
    part: Counters,
}

#[derive(Debug, Default)]
struct Counters {
    memory_hits: AtomicU64,
    redis_hits: AtomicU64,
    /// Lookups that neither memory nor Redis had anything for, if Redis was asked.
    redis_misses: AtomicU64,
    /// Stale answers for which nobody waited: hits.
    stale_hits: AtomicU64,
    /// Stale answers after a wait: misses.
    stale_misses: AtomicU64,
    led: AtomicU64,
    collapsed: AtomicU64,
    failed: AtomicU64,
    loads: AtomicU64,
    load_errors: AtomicU64,
    unreadable: AtomicU64,
}

/// What a [`Tally`] shows, or the sum of several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Answers that did not wait for a source, stale ones included.
    pub hits: u64,
    /// The others, failures included.
    pub misses: u64,
    /// Answers from memory.
    pub memory_hits: u64,
    /// Lookups that memory had no fresh copy for.
    pub memory_misses: u64,
    /// Answers from Redis.
    pub redis_hits: u64,
    /// Lookups that Redis was asked for and had no fresh copy for.
    pub redis_misses: u64,
    /// Loads from the source, those in the background included.
    pub loads: u64,
    /// Loads that failed, in whole or in part.
    pub load_errors: u64,
    /// Lookups that waited for another one's load.
    pub collapsed: u64,
    /// Answers past their TTL.
    pub stale_served: u64,
    /// Values in Redis that were not of the type that was looked for; each was a miss.
    pub unreadable: u64,
}

impl Tally {
    /// Counts a lookup.
    pub fn count(&self, result: &LookupResult) {
        self.own.count(result);
    }

    /// Counts an answer from memory. This short way keeps a memory hit cheap.
    pub fn count_hit(&self, answer: &Answer) {
        add(if answer.outcome == Outcome::MemoryHit {
            &self.own.memory_hits
        } else {
            &self.own.stale_hits
        });
    }

    /// Counts a lookup as a part of another value.
    pub(crate) fn count_part(&self, result: &LookupResult) {
        self.part.count(result);
    }

    pub(crate) fn count_load(&self) {
        add(&self.own.loads);
    }

    /// Counts the load of a part; its composite logs it.
    pub(crate) fn count_part_load(&self) {
        add(&self.part.loads);
    }

    pub(crate) fn count_load_error(&self) {
        add(&self.own.load_errors);
    }

    pub(crate) fn count_unreadable(&self) {
        add(&self.own.unreadable);
    }

    /// The sums of readers' lookups so far.
    pub fn totals(&self) -> Totals {
        self.own.totals()
    }

    /// The sums of the lookups of parts so far.
    pub fn part_totals(&self) -> Totals {
        self.part.totals()
    }
}

impl Counters {
    fn count(&self, result: &LookupResult) {
        let counter = match result {
            Ok(answer) => {
                if answer.trace.redis.is_some() && answer.outcome != Outcome::RedisHit {
                    add(&self.redis_misses);
                }
                match answer.outcome {
                    Outcome::MemoryHit => &self.memory_hits,
                    Outcome::RedisHit => &self.redis_hits,
                    Outcome::Loaded => &self.led,
                    Outcome::Collapsed => &self.collapsed,
                    Outcome::Stale(_) if answer.outcome.waited() => &self.stale_misses,
                    Outcome::Stale(_) => &self.stale_hits,
                }
            }
            Err(_) => &self.failed,
        };
        add(counter);
    }

    fn totals(&self) -> Totals {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (memory, redis, stale) = (
            get(&self.memory_hits),
            get(&self.redis_hits),
            get(&self.stale_hits),
        );
        let misses =
            get(&self.led) + get(&self.collapsed) + get(&self.failed) + get(&self.stale_misses);
        Totals {
            hits: memory + redis + stale,
            misses,
            memory_hits: memory,
            memory_misses: redis + stale + misses,
            redis_hits: redis,
            redis_misses: get(&self.redis_misses),
            loads: get(&self.loads),
            load_errors: get(&self.load_errors),
            collapsed: get(&self.collapsed),
            stale_served: stale + get(&self.stale_misses),
            unreadable: get(&self.unreadable),
        }
    }
}

impl std::iter::Sum for Totals {
    fn sum<I: Iterator<Item = Totals>>(parts: I) -> Totals {
        parts.fold(Totals::default(), |a, b| Totals {
            hits: a.hits + b.hits,
            misses: a.misses + b.misses,
            memory_hits: a.memory_hits + b.memory_hits,
            memory_misses: a.memory_misses + b.memory_misses,
            redis_hits: a.redis_hits + b.redis_hits,
            redis_misses: a.redis_misses + b.redis_misses,
            loads: a.loads + b.loads,
            load_errors: a.load_errors + b.load_errors,
            collapsed: a.collapsed + b.collapsed,
            stale_served: a.stale_served + b.stale_served,
            unreadable: a.unreadable + b.unreadable,
        })
    }
}

fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
