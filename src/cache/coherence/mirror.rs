//! The mirror: what this replica knows of the history of changes.
//!
//! Invariant: epoch and clock belong together; a load takes both as one stamp before it asks its source.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// The random identity of one history of changes. Clocks of two histories are never compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Epoch(pub u64);

impl Epoch {
    /// An identity that no other history has.
    pub(crate) fn random() -> Epoch {
        Epoch(getrandom::u64().unwrap_or_else(|_| {
            // A machine without randomness: what differs between two processes and two calls must do.
            let now = super::super::clock::Clock::new().now();
            now.rotate_left(20) ^ u64::from(std::process::id())
        }))
    }

    /// The identity that `text` stands for, as `Display` writes it.
    pub(crate) fn parse(text: &str) -> Option<Epoch> {
        u64::from_str_radix(text, 16).ok().map(Epoch)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// What a look at the history showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// The history that was known already.
    Same,
    /// The first of a Redis after this replica had been alone.
    First,
    /// Another history: Redis lost its data or got old data back.
    Other,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Mirror {
    epoch: AtomicU64,
    stamp: Mutex<Stamp>,
}

#[derive(Debug)]
struct Stamp {
    epoch: Epoch,
    clock: u64,
    alone: bool,
}

impl Mirror {
    /// A history of this process alone.
    pub(crate) fn alone() -> Mirror {
        let epoch = Epoch::random();
        Mirror {
            epoch: AtomicU64::new(epoch.0),
            stamp: Mutex::new(Stamp {
                epoch,
                clock: 0,
                alone: true,
            }),
        }
    }

    /// The history that is in force: what a memory hit compares.
    pub(crate) fn epoch(&self) -> Epoch {
        Epoch(self.epoch.load(Ordering::Acquire))
    }

    /// Epoch and clock for a load that cannot ask Redis.
    pub(crate) fn stamp(&self) -> (Epoch, u64) {
        let stamp = self.stamp.lock().unwrap_or_else(PoisonError::into_inner);
        (stamp.epoch, stamp.clock)
    }

    /// Takes over what a connection saw before its first use.
    pub(crate) fn saw(&self, epoch: Epoch, clock: u64) -> Seen {
        let mut stamp = self.stamp.lock().unwrap_or_else(PoisonError::into_inner);
        if stamp.epoch == epoch {
            stamp.clock = stamp.clock.max(clock);
            return Seen::Same;
        }
        let seen = if stamp.alone {
            Seen::First
        } else {
            Seen::Other
        };
        *stamp = Stamp {
            epoch,
            clock,
            alone: false,
        };
        self.epoch.store(epoch.0, Ordering::Release);
        seen
    }

    /// Whether no Redis was ever found.
    pub(crate) fn is_alone(&self) -> bool {
        self.stamp
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .alone
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_a_first_meeting_from_a_lost_history() {
        let mirror = Mirror::alone();
        assert!(mirror.is_alone());
        assert_eq!(mirror.saw(Epoch(1), 10), Seen::First);
        assert!(!mirror.is_alone());
        assert_eq!(mirror.saw(Epoch(1), 12), Seen::Same);
        assert_eq!(mirror.saw(Epoch(1), 11), Seen::Same);
        assert_eq!(
            mirror.stamp(),
            (Epoch(1), 12),
            "a clock never runs backwards within its history"
        );
        assert_eq!(mirror.saw(Epoch(2), 3), Seen::Other);
        assert_eq!((mirror.epoch(), mirror.stamp()), (Epoch(2), (Epoch(2), 3)));
    }

    #[test]
    fn epochs_read_as_they_are_written() {
        let epoch = Epoch::random();
        assert_eq!(Epoch::parse(&epoch.to_string()), Some(epoch));
        assert_eq!(Epoch::parse("x"), None);
    }
}
