//! A number that only grows.

use std::fmt;
use std::sync::atomic::AtomicU64;

use super::per_thread::PerThread;

/// A number that only grows, and that many threads add to at once without waiting for each other.
///
/// Each thread adds to a cell of its own, so a counter takes room: 2 KiB on a machine with 8 cores
/// or fewer, and 256 bytes more for each further core. An `AtomicU64` is the better choice for what
/// is seldom counted.
#[derive(Default)]
pub struct Counter(PerThread<AtomicU64>);

impl Counter {
    /// Zero.
    pub fn new() -> Counter {
        Counter::default()
    }

    /// Adds `count`.
    #[inline]
    pub fn add(&self, count: u64) {
        self.0.add(count, |number| number);
    }

    /// The sum so far. It has everything in it that was added before this call began.
    pub fn get(&self) -> u64 {
        self.0.sum(|number| number)
    }
}

impl fmt::Debug for Counter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_the_sum_of_all_threads() {
        let counter = Counter::new();
        for round in 1..=50 {
            std::thread::scope(|scope| {
                for _ in 0..8 {
                    scope.spawn(|| (0..1000).for_each(|_| counter.add(3)));
                }
            });
            assert_eq!(counter.get(), round * 8 * 1000 * 3);
        }
        assert_eq!(format!("{counter:?}"), "1200000");
    }
}
