//! A histogram of durations, with log-linear buckets.
//!
//! Each power of two is divided into four buckets of one width, so a bucket is at most a quarter
//! wider than where it begins (as in HdrHistogram). The unit is such that 50 us times any power of
//! two is the end of a bucket.

use std::fmt;
use std::iter::Sum;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use super::per_thread::PerThread;

/// The width of the first buckets in nanoseconds, as a fraction: 781.25, a sixty-fourth of 50 us.
const UNIT: (u64, u64) = (3125, 4);
/// The buckets up to `4 * 2^32` units, which is 3.7 hours, and one for what is longer.
const BUCKETS: usize = 4 * 33 + 1;

/// Durations from a microsecond to hours, recorded by many threads at once.
///
/// Each thread records into cells of its own. So it takes room: 18 KiB on a machine with 8 cores or
/// fewer, and 2.3 KiB more for each further core. [`Histogram::rare`] takes 1.1 KiB.
#[derive(Default)]
pub struct Histogram(PerThread<Buckets>);

struct Buckets {
    counts: [AtomicU64; BUCKETS],
    nanoseconds: AtomicU64,
}

impl Default for Buckets {
    fn default() -> Buckets {
        Buckets {
            counts: [const { AtomicU64::new(0) }; BUCKETS],
            nanoseconds: AtomicU64::new(0),
        }
    }
}

impl Histogram {
    /// An empty one.
    pub fn new() -> Histogram {
        Histogram::default()
    }

    /// An empty one for what is recorded seldom, such as a round trip: threads that record at the
    /// same moment wait for each other's cache line, and it takes room for one of them.
    pub fn rare() -> Histogram {
        Histogram(PerThread::rare())
    }

    /// Records one duration.
    #[inline]
    pub fn record(&self, duration: Duration) {
        let nanoseconds = nanoseconds(duration);
        let bucket = bucket_of(nanoseconds);
        self.0.add(1, |buckets| &buckets.counts[bucket]);
        self.0.add(nanoseconds, |buckets| &buckets.nanoseconds);
    }

    /// What was recorded so far.
    pub fn snapshot(&self) -> Snapshot {
        let count = |at: usize| self.0.sum(|buckets| &buckets.counts[at]);
        Snapshot {
            counts: (0..BUCKETS).map(count).collect(),
            sum: Duration::from_nanos(self.0.sum(|buckets| &buckets.nanoseconds)),
        }
    }
}

impl fmt::Debug for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let snapshot = self.snapshot();
        write!(f, "{} in {:?}", snapshot.count(), snapshot.sum())
    }
}

/// What a [`Histogram`] has recorded up to one moment, or the sum of several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    counts: Box<[u64]>,
    sum: Duration,
}

impl Snapshot {
    /// Bounds to export a histogram with, from 50 us to 131 s. Each is the end of a bucket, so
    /// [`Snapshot::cumulative`] is exact for them.
    pub const BOUNDS: [Duration; 22] = {
        let mut bounds = [Duration::ZERO; 22];
        let first: [u64; 4] = [50, 100, 250, 500];
        let mut at = 0;
        while at < bounds.len() {
            // From 1 ms on each is twice the one before.
            bounds[at] = Duration::from_micros(if at < first.len() {
                first[at]
            } else {
                1000 << (at - first.len())
            });
            at += 1;
        }
        bounds
    };

    /// How many durations.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Their sum.
    pub fn sum(&self) -> Duration {
        self.sum
    }

    /// For each of `bounds`, how many durations were at most that long. Exact where the bound is
    /// the end of a bucket. Otherwise the bucket that it divides is left out: the count is that for
    /// a bound which is shorter by up to a fifth.
    pub fn cumulative(&self, bounds: &[Duration]) -> Vec<u64> {
        let up_to = |bound: &Duration| {
            let bound = nanoseconds(*bound);
            let ended = |at: &usize| end_of(*at).is_some_and(|end| end <= bound);
            let whole = (0..BUCKETS).take_while(ended).count();
            self.counts.iter().take(whole).sum()
        };
        bounds.iter().map(up_to).collect()
    }
}

impl Default for Snapshot {
    fn default() -> Snapshot {
        Snapshot {
            counts: Box::new([0; BUCKETS]),
            sum: Duration::ZERO,
        }
    }
}

impl Sum for Snapshot {
    fn sum<I: Iterator<Item = Snapshot>>(parts: I) -> Snapshot {
        parts.fold(Snapshot::default(), |mut all, part| {
            for (count, more) in all.counts.iter_mut().zip(&part.counts) {
                *count += more;
            }
            all.sum += part.sum;
            all
        })
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    let whole = duration.as_secs().saturating_mul(1_000_000_000);
    whole.saturating_add(duration.subsec_nanos().into())
}

/// The bucket that a duration belongs to. The end of a bucket belongs to it, as `le` has it.
fn bucket_of(nanoseconds: u64) -> usize {
    let units = nanoseconds.saturating_mul(UNIT.1).saturating_sub(1) / UNIT.0;
    // The two bits below the highest one say which quarter. Below four units there are no quarters.
    let shift = (units | 4).ilog2() - 2;
    let bucket = 4 * shift as usize + (units >> shift) as usize;
    bucket.min(BUCKETS - 1)
}

/// The longest duration of a bucket in nanoseconds; `None` for the last one.
fn end_of(bucket: usize) -> Option<u64> {
    if bucket + 1 >= BUCKETS {
        return None;
    }
    let shift = (bucket / 4).saturating_sub(1);
    let units = ((bucket - 4 * shift + 1) as u64) << shift;
    Some(units * UNIT.0 / UNIT.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    use proptest::prelude::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn begin_of(bucket: usize) -> u64 {
        bucket.checked_sub(1).map_or(0, |before| {
            end_of(before).expect("only the last has no end")
        })
    }

    proptest! {
        #[test]
        fn a_duration_is_within_its_bucket(nanoseconds in prop_oneof![
            0..100_000u64,
            0..14_000_000_000_000u64,
            any::<u64>(),
        ]) {
            let bucket = bucket_of(nanoseconds);
            prop_assert!(nanoseconds == 0 || begin_of(bucket) < nanoseconds);
            match end_of(bucket) {
                Some(end) => prop_assert!(nanoseconds <= end),
                None => prop_assert!(Duration::from_nanos(nanoseconds) > 3 * HOUR),
            }
        }

        #[test]
        fn a_bucket_is_at_most_a_quarter_wider_than_where_it_begins(
            bucket in 4..BUCKETS - 1,
        ) {
            let (begin, end) = (begin_of(bucket), end_of(bucket).unwrap());
            // And the nanosecond that the ends are rounded down by.
            prop_assert!(begin < end && end - begin <= begin / 4 + 1, "{begin} to {end}");
        }

        #[test]
        fn a_count_is_never_too_high_and_by_a_fifth_too_low_at_most(
            durations in proptest::collection::vec(0..200_000_000_000u64, 0..50),
            bound in 1000..200_000_000_000u64,
        ) {
            let histogram = Histogram::rare();
            durations.iter().for_each(|of| histogram.record(Duration::from_nanos(*of)));
            let at_most = |bound: u64| durations.iter().filter(|of| **of <= bound).count() as u64;
            let counted = histogram.snapshot().cumulative(&[Duration::from_nanos(bound)])[0];
            prop_assert!(counted <= at_most(bound));
            prop_assert!(counted >= at_most(bound - bound / 5 - 800));
        }
    }

    #[test]
    fn the_exported_bounds_are_ends_of_buckets() {
        for bound in Snapshot::BOUNDS {
            let of = |nanoseconds: u64| {
                let histogram = Histogram::new();
                histogram.record(Duration::from_nanos(nanoseconds));
                histogram.snapshot().cumulative(&[bound])[0]
            };
            let end = nanoseconds(bound);
            assert_eq!((of(end), of(end + 1)), (1, 0), "{bound:?}");
        }
        let micros: Vec<u128> = Snapshot::BOUNDS.iter().map(Duration::as_micros).collect();
        assert_eq!(micros[..6], [50, 100, 250, 500, 1000, 2000]);
        assert_eq!(micros[21], 131_072_000);
    }

    #[test]
    fn buckets_follow_each_other_from_a_microsecond_to_hours() {
        let ends: Vec<u64> = (0..BUCKETS - 1).map(|at| end_of(at).unwrap()).collect();
        assert!(ends.is_sorted_by(|a, b| a < b));
        assert_eq!(ends[0], 781);
        assert!(Duration::from_nanos(ends[BUCKETS - 2]) > 3 * HOUR);
        for (at, end) in ends.iter().enumerate() {
            assert_eq!((bucket_of(*end), bucket_of(end + 1)), (at, at + 1));
        }
        assert_eq!((bucket_of(0), bucket_of(u64::MAX)), (0, BUCKETS - 1));
    }

    #[test]
    fn threads_that_come_and_go_lose_no_duration() {
        for histogram in [Histogram::new(), Histogram::rare()] {
            for _ in 0..20 {
                std::thread::scope(|scope| {
                    for thread in 1..=40 {
                        let histogram = &histogram;
                        scope.spawn(move || {
                            for i in 1..=100 {
                                histogram.record(Duration::from_micros(thread * i));
                            }
                        });
                    }
                });
            }
            let snapshot = histogram.snapshot();
            assert_eq!(snapshot.count(), 20 * 40 * 100);
            let micros = 20 * (40 * 41 / 2) * (100 * 101 / 2);
            assert_eq!(snapshot.sum(), Duration::from_micros(micros));
            let all = snapshot.cumulative(&[HOUR, 4 * HOUR]);
            assert_eq!(all, [80_000, 80_000]);
            let twice: Snapshot = [snapshot.clone(), snapshot.clone()].into_iter().sum();
            assert_eq!((twice.count(), twice.sum()), (160_000, snapshot.sum() * 2));
        }
        assert_eq!(Histogram::new().snapshot(), Snapshot::default());
    }
}
