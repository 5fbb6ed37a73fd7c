//! One cell of counts for each thread.
//!
//! Promise: a thread with an index is the only one that writes to its cells, so that it needs no
//! atomic read-modify-write, and no cache line goes from worker to worker.
//!
//! A thread takes an index when it first counts, and gives it back when it ends. The next thread
//! with that index goes on with the numbers that it finds:
//!
//! 1. The old thread stores its last count, and puts the index back under the lock of [`FREE`].
//! 2. The new thread takes the index under that lock, so it sees that count.
//!
//! Threads that find no free index share one more cell, by `fetch_add`. So does a thread that
//! counts after it has given its index back.

use std::cell::Cell;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

/// The index of a thread that has not counted yet.
const UNKNOWN: usize = usize::MAX;
/// The index of a thread that shares its cells.
const SHARED: usize = usize::MAX - 1;

/// How many indices there are: two for each thread that the machine runs at one time.
static INDICES: LazyLock<usize> = LazyLock::new(|| {
    let at_once = std::thread::available_parallelism();
    (2 * at_once.map_or(1, usize::from)).clamp(16, 256)
});

/// Protects the indices that no thread has. The last one is taken next.
static FREE: LazyLock<Mutex<Vec<usize>>> = LazyLock::new(|| Mutex::new((0..*INDICES).collect()));

thread_local! {
    /// The index of this thread. Without a destructor, so that reading it is one load.
    static INDEX: Cell<usize> = const { Cell::new(UNKNOWN) };
    /// Gives the index back.
    static LOAN: Loan = Loan::take();
}

/// An index, until its thread ends.
struct Loan(Option<usize>);

impl Loan {
    fn take() -> Loan {
        let index = FREE.lock().pop();
        INDEX.set(index.unwrap_or(SHARED));
        Loan(index)
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        INDEX.set(SHARED);
        if let Some(index) = self.0 {
            FREE.lock().push(index);
        }
    }
}

/// A cell alone on its cache lines. 128 bytes, since processors fetch lines of 64 in pairs.
#[derive(Default)]
#[repr(align(128))]
struct Padded<T>(T);

/// See the module. `T` is a struct of atomic numbers.
///
/// It takes the size of `T`, in whole multiples of 128 bytes, for each index: for a `T` of up to
/// 128 bytes that is 2 KiB on a machine with 8 cores or fewer, and 256 bytes more for each further
/// core. [`PerThread::rare`] takes one cell.
pub(crate) struct PerThread<T> {
    own: Box<[Padded<T>]>,
    /// Apart from `own`: a write to it must not take the line with that pointer from other threads.
    shared: Box<Padded<T>>,
}

impl<T: Default> Default for PerThread<T> {
    fn default() -> PerThread<T> {
        PerThread {
            own: (0..*INDICES).map(|_| Padded::default()).collect(),
            shared: Box::default(),
        }
    }
}

impl<T: Default> PerThread<T> {
    /// One cell for all threads: for what is counted so rarely that the room is worth more.
    pub(crate) fn rare() -> PerThread<T> {
        PerThread {
            own: Box::default(),
            shared: Box::default(),
        }
    }
}

impl<T> PerThread<T> {
    /// Adds `count` to one number of this thread's cell.
    #[inline]
    pub(crate) fn add(&self, count: u64, number: impl Fn(&T) -> &AtomicU64) {
        let Some(Padded(own)) = self.own.get(INDEX.get()) else {
            return self.add_without_cell(count, number);
        };
        let number = number(own);
        let before = number.load(Ordering::Relaxed);
        number.store(before.wrapping_add(count), Ordering::Relaxed);
    }

    #[cold]
    fn add_without_cell(&self, count: u64, number: impl Fn(&T) -> &AtomicU64) {
        let may_have_cell = INDEX.get() == UNKNOWN && !self.own.is_empty();
        if may_have_cell && LOAN.try_with(|_| ()).is_ok() {
            return self.add(count, number);
        }
        number(&self.shared.0).fetch_add(count, Ordering::Relaxed);
    }

    /// The sum of one number over all threads.
    pub(crate) fn sum(&self, number: impl Fn(&T) -> &AtomicU64) -> u64 {
        let cells = self.own.iter().chain([&*self.shared]);
        let each = cells.map(|Padded(cell)| number(cell).load(Ordering::Relaxed));
        each.fold(0, u64::wrapping_add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;
    use std::thread;

    #[derive(Default)]
    struct Two {
        a: AtomicU64,
        b: AtomicU64,
    }

    #[test]
    fn nothing_is_lost_when_more_threads_than_indices_come_and_go() {
        for counts in [PerThread::<Two>::default(), PerThread::rare()] {
            let (at_once, rounds) = (3 * *INDICES, 20);
            for _ in 0..rounds {
                let barrier = Barrier::new(at_once);
                thread::scope(|scope| {
                    for i in 0..at_once as u64 {
                        let (counts, barrier) = (&counts, &barrier);
                        scope.spawn(move || {
                            // All hold their index before the first of them ends.
                            counts.add(1, |two| &two.a);
                            barrier.wait();
                            for _ in 0..100 {
                                counts.add(i, |two| &two.b);
                            }
                        });
                    }
                });
            }
            let (threads, rounds) = (at_once as u64, rounds as u64);
            assert_eq!(counts.sum(|two| &two.a), threads * rounds);
            let numbers = threads * (threads - 1) / 2;
            assert_eq!(counts.sum(|two| &two.b), numbers * 100 * rounds);
        }
    }

    #[test]
    fn a_thread_has_a_cell_of_its_own_while_it_lives() {
        let index = || {
            let counts = PerThread::<AtomicU64>::default();
            counts.add(1, |number| number);
            INDEX.get()
        };
        let of_this = index();
        assert_eq!(index(), of_this);
        let barrier = &Barrier::new(3);
        let of_others: Vec<usize> = thread::scope(|scope| {
            let threads: Vec<_> = (0..3)
                .map(|_| {
                    scope.spawn(move || {
                        let index = index();
                        barrier.wait();
                        index
                    })
                })
                .collect();
            threads.into_iter().map(|one| one.join().unwrap()).collect()
        });
        for (at, index) in of_others.iter().enumerate() {
            let shared = *index == SHARED;
            assert!(shared || *index != of_this && !of_others[..at].contains(index));
        }
    }

    #[test]
    fn what_a_thread_counts_while_it_ends_is_counted_too() {
        struct Late(&'static PerThread<AtomicU64>);
        impl Drop for Late {
            fn drop(&mut self) {
                self.0.add(1, |number| number);
            }
        }
        thread_local! {
            static LATE: Cell<Option<Late>> = const { Cell::new(None) };
        }
        static COUNTS: LazyLock<PerThread<AtomicU64>> = LazyLock::new(PerThread::default);
        for first in [true, false] {
            let before = COUNTS.sum(|number| number);
            let count = || COUNTS.add(1, |number| number);
            let set = || LATE.set(Some(Late(&COUNTS)));
            // In either order of the two destructors.
            let thread = thread::spawn(move || {
                if first {
                    set();
                    count();
                } else {
                    count();
                    set();
                }
            });
            thread.join().unwrap();
            assert_eq!(COUNTS.sum(|number| number), before + 2);
        }
    }

    #[test]
    fn cells_of_two_threads_share_no_line() {
        let counts = PerThread::<AtomicU64>::default();
        let at = |index: usize| std::ptr::from_ref(&counts.own[index]).addr();
        assert_eq!((at(0) % 128, at(1) - at(0)), (0, 128));
    }
}
