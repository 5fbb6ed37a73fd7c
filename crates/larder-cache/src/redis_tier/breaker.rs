//! A breaker: whether something that failed is worth asking.
//!
//! Promise: [`Breaker::is_open`] costs one atomic load. The breaker logs nothing and has no timer:
//! its owner decides when to close it, and learns of each change of state exactly once.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// This many timeouts in a row are an outage. One is a busy machine.
const TIMEOUTS: u32 = 3;

/// See the module. Begins open: nothing is known to answer yet.
#[derive(Debug)]
pub(crate) struct Breaker {
    open: AtomicBool,
    timeouts: AtomicU32,
    generation: AtomicU32,
}

impl Breaker {
    pub(crate) fn new() -> Breaker {
        Breaker {
            open: AtomicBool::new(true),
            timeouts: AtomicU32::new(0),
            generation: AtomicU32::new(0),
        }
    }

    /// Whether to fail at once instead of asking.
    pub(crate) fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }

    /// The current generation. A connection of an earlier one is of no use.
    pub(crate) fn generation(&self) -> u32 {
        self.generation.load(Ordering::Acquire)
    }

    /// It answered.
    pub(crate) fn succeeded(&self) {
        if self.timeouts.load(Ordering::Relaxed) != 0 {
            self.timeouts.store(0, Ordering::Relaxed);
        }
    }

    /// It did not answer in time. Returns whether that opened the breaker.
    pub(crate) fn timed_out(&self) -> bool {
        self.timeouts.fetch_add(1, Ordering::Relaxed) + 1 >= TIMEOUTS && self.open()
    }

    /// It is gone. Returns whether the breaker was closed until now.
    pub(crate) fn open(&self) -> bool {
        let changed = !self.open.swap(true, Ordering::AcqRel);
        if changed {
            self.generation.fetch_add(1, Ordering::AcqRel);
        }
        changed
    }

    /// Begins a new generation: a new connection may reach another server.
    pub(crate) fn renew(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
    }

    /// It is back. Returns whether the breaker was open until now.
    pub(crate) fn close(&self) -> bool {
        self.timeouts.store(0, Ordering::Relaxed);
        self.open.swap(false, Ordering::AcqRel)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_at_once_when_gone_and_after_three_time_outs_in_a_row() {
        let breaker = Breaker::new();
        assert!(breaker.is_open() && breaker.close() && !breaker.is_open());
        assert!(!breaker.timed_out() && !breaker.timed_out());
        breaker.succeeded();
        assert!(!breaker.timed_out() && !breaker.timed_out() && !breaker.is_open());
        let before = breaker.generation();
        assert!(breaker.timed_out() && breaker.is_open());
        assert!(!breaker.open(), "a change of state is reported once");
        assert_eq!(breaker.generation(), before + 1);
        assert!(breaker.close() && !breaker.close());
    }
}
