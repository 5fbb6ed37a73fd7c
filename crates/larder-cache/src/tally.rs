//! Counts of one resource's lookups and loads on this replica since it started.
//!
//! Lookups of readers and lookups of parts are counted apart. The first are the requests to this
//! replica, and a sum over all resources counts each of them once.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::answer::{Answer, LookupResult};
use super::load_result::LoadResult;
use super::outcome::{LookupEnd, Outcome, Staleness};
use super::stats::{Histogram, PerThread, Snapshot};

/// See the module. A lookup is counted once, by how it ended.
///
/// A tally takes about 5 KiB on a machine with 8 cores or fewer, and 256 bytes more for each
/// further core: every thread that serves readers counts in a place of its own.
#[derive(Debug)]
pub struct Tally {
    /// Those of readers.
    own: Counts,
    /// As a part of another value.
    part: Counts,
    unreadable: AtomicU64,
}

/// Lookups and loads of one kind.
pub(crate) struct Counts {
    lookups: PerThread<Lookups>,
    /// By [`LoadResult`].
    loads: [AtomicU64; LoadResult::ALL.len()],
    load_durations: Histogram,
    load_errors: AtomicU64,
}

/// What the threads that serve readers count: by outcome, each lookup once, and one more number.
#[derive(Default)]
struct Lookups {
    memory: AtomicU64,
    redis: AtomicU64,
    loaded: AtomicU64,
    collapsed: AtomicU64,
    /// By [`Staleness`].
    stale: [AtomicU64; Staleness::ALL.len()],
    failed: AtomicU64,
    /// Lookups that neither memory nor Redis had anything for, if Redis was asked.
    redis_misses: AtomicU64,
}

/// What a [`Tally`] shows, or the sum of several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Answers that did not wait for a source, stale ones included.
    pub hits: u64,
    /// The others, failures included.
    pub misses: u64,
    /// Answers from memory that were fresh.
    pub memory_hits: u64,
    /// Lookups that memory had no fresh copy for.
    pub memory_misses: u64,
    /// Answers from Redis that were fresh.
    pub redis_hits: u64,
    /// Lookups that Redis was asked for and had no fresh copy for.
    pub redis_misses: u64,
    /// Answers that the lookup's own load brought.
    pub loaded: u64,
    /// Lookups that waited for another one's load.
    pub collapsed: u64,
    /// Answers past their TTL.
    pub stale_served: u64,
    /// Lookups without an answer: the load failed or was refused, or the reader left before there
    /// was an answer.
    pub failed: u64,
    /// Loads from the source that have ended, those in the background included.
    pub loads: u64,
    /// Lookups whose load failed, in whole or in part, or was refused.
    pub load_errors: u64,
    /// Values in Redis that were not of the type that was looked for; each was a miss.
    pub unreadable: u64,
    by_result: [u64; LoadResult::ALL.len()],
    by_staleness: [u64; Staleness::ALL.len()],
}

/// A lookup of a reader that waits for its answer. If it is dropped before it has ended, because
/// its reader has left or there can be no answer, it counts as failed.
#[derive(Debug)]
#[must_use]
pub struct Unanswered<'t>(Option<&'t Tally>);

impl Default for Tally {
    fn default() -> Tally {
        Tally {
            own: Counts::new(PerThread::default()),
            part: Counts::new(PerThread::rare()),
            unreadable: AtomicU64::default(),
        }
    }
}

impl Tally {
    /// Counts a lookup.
    pub fn count(&self, result: &LookupResult) {
        self.own.count(result);
    }

    /// Counts an answer from memory. This short way keeps a memory hit cheap.
    #[inline]
    pub fn count_hit(&self, answer: &Answer) {
        self.own.count_hit(answer);
    }

    /// The count of a lookup that waits for its answer: see [`Unanswered::end`].
    pub fn begin(&self) -> Unanswered<'_> {
        Unanswered(Some(self))
    }

    /// Counts a lookup that gets no answer: its reader has left.
    pub(crate) fn count_left(&self) {
        self.own.lookups.add(1, |lookups| &lookups.failed);
    }

    /// Lookups and loads for readers.
    pub(crate) fn own(&self) -> &Counts {
        &self.own
    }

    /// Lookups and loads as a part of another value, whose composite counts and logs them.
    pub(crate) fn part(&self) -> &Counts {
        &self.part
    }

    pub(crate) fn count_load_error(&self) {
        add(&self.own.load_errors);
    }

    pub(crate) fn count_unreadable(&self) {
        add(&self.unreadable);
    }

    /// The sums of readers' lookups so far.
    pub fn totals(&self) -> Totals {
        Totals {
            unreadable: self.unreadable.load(Ordering::Relaxed),
            ..self.own.totals()
        }
    }

    /// The sums of the lookups of parts so far.
    pub fn part_totals(&self) -> Totals {
        self.part.totals()
    }

    /// How long loads took, those of parts and those that failed included: as many as
    /// [`Totals::loads`] of both sums. That of a composite counts from its first part to its last.
    pub fn load_durations(&self) -> Snapshot {
        let both = [&self.own, &self.part];
        both.map(|of| of.load_durations.snapshot())
            .into_iter()
            .sum()
    }
}

impl Counts {
    fn new(lookups: PerThread<Lookups>) -> Counts {
        Counts {
            lookups,
            loads: Default::default(),
            load_durations: Histogram::rare(),
            load_errors: AtomicU64::default(),
        }
    }

    /// Counts a lookup.
    pub(crate) fn count(&self, result: &LookupResult) {
        let add = |number: fn(&Lookups) -> &AtomicU64| self.lookups.add(1, number);
        let Ok(answer) = result else {
            return add(|lookups| &lookups.failed);
        };
        if answer.trace.redis.is_some() && answer.outcome != Outcome::RedisHit {
            self.count_redis_miss();
        }
        match answer.outcome {
            Outcome::RedisHit => add(|lookups| &lookups.redis),
            Outcome::Loaded => add(|lookups| &lookups.loaded),
            Outcome::Collapsed => add(|lookups| &lookups.collapsed),
            Outcome::MemoryHit | Outcome::Stale(_) => self.count_hit(answer),
        }
    }

    /// Counts a lookup that Redis had nothing for. An answer tells that by itself; this is for a
    /// lookup that ends without one.
    pub(crate) fn count_redis_miss(&self) {
        self.lookups.add(1, |lookups| &lookups.redis_misses);
    }

    /// Counts a load that has ended.
    pub(crate) fn count_load(&self, result: LoadResult, took: Duration) {
        add(&self.loads[result as usize]);
        self.load_durations.record(took);
    }

    #[inline]
    fn count_hit(&self, answer: &Answer) {
        self.lookups.add(1, |lookups| match answer.outcome {
            Outcome::Stale(why) => &lookups.stale[why as usize],
            _ => &lookups.memory,
        });
    }

    fn totals(&self) -> Totals {
        let get = |number: fn(&Lookups) -> &AtomicU64| self.lookups.sum(number);
        let (memory_hits, redis_hits) = (get(|of| &of.memory), get(|of| &of.redis));
        let (loaded, collapsed) = (get(|of| &of.loaded), get(|of| &of.collapsed));
        let failed = get(|of| &of.failed);
        let by_staleness = Staleness::ALL.map(|why| self.lookups.sum(|of| &of.stale[why as usize]));
        let (mut stale_hits, mut stale_misses) = (0, 0);
        for (why, count) in Staleness::ALL.into_iter().zip(by_staleness) {
            if Outcome::Stale(why).waited() {
                stale_misses += count;
            } else {
                stale_hits += count;
            }
        }
        let misses = loaded + collapsed + failed + stale_misses;
        let by_result = LoadResult::ALL.map(|result| {
            let count = &self.loads[result as usize];
            count.load(Ordering::Relaxed)
        });
        Totals {
            hits: memory_hits + redis_hits + stale_hits,
            misses,
            memory_hits,
            memory_misses: redis_hits + stale_hits + misses,
            redis_hits,
            redis_misses: get(|of| &of.redis_misses),
            loaded,
            collapsed,
            stale_served: stale_hits + stale_misses,
            failed,
            loads: by_result.iter().sum(),
            load_errors: self.load_errors.load(Ordering::Relaxed),
            unreadable: 0,
            by_result,
            by_staleness,
        }
    }
}

impl std::fmt::Debug for Counts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.totals().fmt(f)
    }
}

impl Unanswered<'_> {
    /// Counts the lookup by how it ended.
    pub fn end(mut self, result: &LookupResult) {
        if let Some(tally) = self.0.take() {
            tally.count(result);
        }
    }
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        if let Some(tally) = self.0 {
            tally.count_left();
        }
    }
}

impl Totals {
    /// Lookups that ended like this. The sum over [`LookupEnd::ALL`] counts each lookup once.
    pub fn ended(&self, end: LookupEnd) -> u64 {
        match end {
            LookupEnd::Memory => self.memory_hits,
            LookupEnd::Redis => self.redis_hits,
            LookupEnd::Loaded => self.loaded,
            LookupEnd::Collapsed => self.collapsed,
            LookupEnd::Stale => self.stale_served,
            LookupEnd::Failed => self.failed,
        }
    }

    /// Loads that ended like this. The sum over [`LoadResult::ALL`] is [`Totals::loads`].
    pub fn loads_by(&self, result: LoadResult) -> u64 {
        self.by_result[result as usize]
    }

    /// Stale answers for this reason. The sum over [`Staleness::ALL`] is [`Totals::stale_served`].
    pub fn stale_by(&self, why: Staleness) -> u64 {
        self.by_staleness[why as usize]
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
            loaded: a.loaded + b.loaded,
            collapsed: a.collapsed + b.collapsed,
            stale_served: a.stale_served + b.stale_served,
            failed: a.failed + b.failed,
            loads: a.loads + b.loads,
            load_errors: a.load_errors + b.load_errors,
            unreadable: a.unreadable + b.unreadable,
            by_result: std::array::from_fn(|at| a.by_result[at] + b.by_result[at]),
            by_staleness: std::array::from_fn(|at| a.by_staleness[at] + b.by_staleness[at]),
        })
    }
}

fn add(number: &AtomicU64) {
    number.fetch_add(1, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::answer::Trace;
    use super::super::coherence::{Dependency, HistoryId, Stamp};
    use super::super::entry::{Entry, Extras, Value};
    use super::super::error::LoadError;
    use super::super::policy::Expiry;
    use super::*;

    fn answer(outcome: Outcome, redis: Option<Duration>) -> Answer {
        let stamp = Stamp {
            history: HistoryId(1),
            clock: 1,
            sequence: 0,
        };
        let expiry = Expiry {
            memory_until: 0,
            fresh_until: 0,
        };
        let own = Dependency::unknown(stamp, Arc::default());
        let value = Value::present(b"v".into());
        Answer {
            entry: Arc::new(Entry::new(value, own, 1, 1, expiry, Extras::default())),
            outcome,
            trace: Trace {
                redis,
                ..Trace::default()
            },
        }
    }

    #[test]
    fn each_lookup_is_counted_once_by_how_it_ended() {
        let asked = Some(Duration::from_micros(100));
        let stale = Outcome::Stale;
        // The outcome, whether Redis was asked, the word, a hit, and a miss of Redis.
        let rows = [
            (Outcome::MemoryHit, None, "memory", true, false),
            // Memory had it, and Redis was asked whether it may be served.
            (Outcome::MemoryHit, asked, "memory", true, true),
            (Outcome::RedisHit, asked, "redis", true, false),
            (Outcome::Loaded, None, "loaded", false, false),
            (Outcome::Loaded, asked, "loaded", false, true),
            (Outcome::Collapsed, asked, "collapsed", false, true),
            (
                stale(Staleness::WhileRevalidate),
                asked,
                "stale",
                true,
                true,
            ),
            (stale(Staleness::BackingOff), None, "stale", true, false),
            (stale(Staleness::Spent), None, "stale", true, false),
            (stale(Staleness::SoftTimeout), asked, "stale", false, true),
            (stale(Staleness::IfError), asked, "stale", false, true),
        ];
        for (outcome, redis, word, hit, redis_miss) in rows {
            let tally = Tally::default();
            tally.count(&Ok(answer(outcome, redis)));
            let totals = tally.totals();
            for end in LookupEnd::ALL {
                let expected = u64::from(end.word() == word);
                assert_eq!(totals.ended(end), expected, "{outcome:?}: {end:?}");
            }
            let (hits, misses) = (u64::from(hit), u64::from(!hit));
            assert_eq!((totals.hits, totals.misses), (hits, misses));
            assert_eq!(totals.redis_misses, u64::from(redis_miss), "{outcome:?}");
            assert_eq!(totals.memory_misses, u64::from(word != "memory"));
            for why in Staleness::ALL {
                assert_eq!(totals.stale_by(why), u64::from(outcome == stale(why)));
            }
            assert_eq!(tally.part_totals(), Totals::default());
            if matches!(outcome, Outcome::MemoryHit | Outcome::Stale(_)) && redis.is_none() {
                let short = Tally::default();
                short.count_hit(&answer(outcome, redis));
                assert_eq!(short.totals(), totals, "{outcome:?}");
            }
        }
    }

    #[test]
    fn what_gets_no_answer_has_failed() {
        let tally = Tally::default();
        let failed = || Err(LoadError::Failed("no".into()));
        tally.count(&failed());
        drop(tally.begin());
        tally.begin().end(&failed());
        tally.begin().end(&Ok(answer(Outcome::Loaded, None)));
        tally.part().count(&failed());
        let totals = tally.totals();
        assert_eq!((totals.failed, totals.loaded, totals.misses), (3, 1, 4));
        assert_eq!(tally.part_totals().failed, 1);
        let sum: Totals = [totals, tally.part_totals()].into_iter().sum();
        assert_eq!((sum.failed, sum.misses), (4, 5));
    }

    #[test]
    fn loads_are_counted_by_result_and_each_has_its_duration() {
        let tally = Tally::default();
        for (at, result) in LoadResult::ALL.into_iter().enumerate() {
            for _ in 0..=at {
                tally.own().count_load(result, Duration::from_millis(2));
            }
            tally.part().count_load(result, Duration::from_millis(2));
        }
        let (own, part) = (tally.totals(), tally.part_totals());
        assert_eq!(
            LoadResult::ALL.map(|of| own.loads_by(of)),
            [1, 2, 3, 4, 5, 6]
        );
        assert_eq!(LoadResult::ALL.map(|of| part.loads_by(of)), [1; 6]);
        assert_eq!((own.loads, part.loads), (21, 6));
        let durations = tally.load_durations();
        assert_eq!(durations.count(), 27);
        assert_eq!(durations.sum(), Duration::from_millis(54));
    }

    #[test]
    fn readers_on_many_threads_are_all_counted() {
        let tally = Tally::default();
        std::thread::scope(|scope| {
            for _ in 0..50 {
                scope.spawn(|| {
                    for _ in 0..1000 {
                        tally.count_hit(&answer(Outcome::MemoryHit, None));
                        tally.count(&Ok(answer(Outcome::RedisHit, None)));
                    }
                });
            }
        });
        let totals = tally.totals();
        assert_eq!((totals.memory_hits, totals.redis_hits), (50_000, 50_000));
        assert_eq!((totals.hits, totals.misses), (100_000, 0));
    }

    #[test]
    fn what_a_hit_counts_is_on_one_cache_line() {
        assert!(size_of::<Lookups>() <= 128);
    }
}
