//! Counts the connections, in all and from each source, and those that found no place.
//!
//! The lock is taken when a connection begins and ends, never for a request.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};

use crate::auth::ClientNetwork;

/// One line in the log per this time at most, however many connections find no place.
const QUIET: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Debug)]
pub struct Places {
    most: usize,
    most_of_one: usize,
    /// Protects the counts.
    taken: Mutex<Taken>,
    refused: AtomicU64,
    displaced: AtomicU64,
    timed_out: AtomicU64,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    of: HashMap<ClientNetwork, usize>,
    logged: Option<Instant>,
}

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// All places are taken.
    All,
    /// This source has as many connections as it may have.
    Source,
}

/// The counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::api) struct PlaceTotals {
    /// Connections that are open now.
    pub(in crate::api) open: usize,
    /// How many may be open.
    pub(in crate::api) most: usize,
    /// New connections that were closed at once, because no place was free.
    pub(in crate::api) refused: u64,
    /// Connections that were closed to make room for a new one.
    pub(in crate::api) displaced: u64,
    /// Connections that were closed because their client sent or read nothing for too long.
    pub(in crate::api) timed_out: u64,
}

impl Places {
    /// `most` places in all, and `most_of_one` for each source; zero sets no limit for a source.
    pub fn new(most: usize, most_of_one: usize) -> Places {
        Places {
            most,
            most_of_one: if most_of_one == 0 {
                usize::MAX
            } else {
                most_of_one
            },
            taken: Mutex::default(),
            refused: AtomicU64::new(0),
            displaced: AtomicU64::new(0),
            timed_out: AtomicU64::new(0),
        }
    }

    /// How many places there are.
    pub(super) fn most(&self) -> usize {
        self.most
    }

    /// A place for a connection from `source`, if one is free.
    pub(super) fn take(self: &Arc<Self>, source: ClientNetwork) -> Result<Place, Full> {
        let taken = self.taken.lock();
        if taken.of.get(&source).copied().unwrap_or_default() >= self.most_of_one {
            return Err(Full::Source);
        }
        if taken.all >= self.most {
            return Err(Full::All);
        }
        Ok(self.count(taken, source))
    }

    /// A place instead of that of another connection, which is about to end.
    pub(super) fn take_over(self: &Arc<Self>, source: ClientNetwork) -> Place {
        self.displaced.fetch_add(1, Ordering::Relaxed);
        self.count(self.taken.lock(), source)
    }

    /// Calls `then` with a function that says how many connections a source has.
    pub(super) fn with_counts<T>(
        &self,
        then: impl FnOnce(&dyn Fn(ClientNetwork) -> usize) -> T,
    ) -> T {
        let taken = self.taken.lock();
        then(&|source| taken.of.get(&source).copied().unwrap_or_default())
    }

    /// A new connection from `source` was closed at once.
    pub(super) fn note_refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// A connection was closed because its client was too slow.
    pub(super) fn note_timed_out(&self) {
        self.timed_out.fetch_add(1, Ordering::Relaxed);
    }

    /// Logs that a connection from `source` found no place, unless that was logged a short while
    /// ago.
    pub(super) fn log_full(&self, full: Full, source: ClientNetwork) {
        let mut taken = self.taken.lock();
        let now = Instant::now();
        if taken.logged.is_some_and(|logged| now < logged + QUIET) {
            return;
        }
        taken.logged = Some(now);
        let of_source = taken.of.get(&source).copied().unwrap_or_default();
        let (all, sources) = (taken.all, taken.of.len());
        drop(taken);
        match full {
            Full::All => log::warn!(
                "all {} connections are taken by {sources} addresses ({of_source} of them by {source}, which opens \
                 another); idle and stuck connections are closed to make room",
                all.min(self.most)
            ),
            Full::Source => log::warn!(
                "{source} has reached the limit of {} connections per address (server.max_connections_per_address)",
                self.most_of_one
            ),
        }
    }

    /// The counts so far.
    pub(in crate::api) fn totals(&self) -> PlaceTotals {
        PlaceTotals {
            open: self.taken.lock().all,
            most: self.most,
            refused: self.refused.load(Ordering::Relaxed),
            displaced: self.displaced.load(Ordering::Relaxed),
            timed_out: self.timed_out.load(Ordering::Relaxed),
        }
    }

    fn count(self: &Arc<Self>, mut taken: MutexGuard<'_, Taken>, source: ClientNetwork) -> Place {
        taken.all += 1;
        *taken.of.entry(source).or_default() += 1;
        Place {
            places: self.clone(),
            source,
        }
    }
}

/// The place of one connection. It is free again when this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    source: ClientNetwork,
}

impl Place {
    /// The source of the connection.
    pub(super) fn source(&self) -> ClientNetwork {
        self.source
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock();
        taken.all -= 1;
        if let Some(count) = taken.of.get_mut(&self.source) {
            *count -= 1;
            if *count == 0 {
                taken.of.remove(&self.source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_by_source_and_in_all_and_are_free_again() {
        let places = Arc::new(Places::new(3, 2));
        let source = |last: u8| ClientNetwork::of([192, 0, 2, last].into());
        let (first, second) = (places.take(source(1)).unwrap(), places.take(source(1)));
        assert_eq!(places.take(source(1)).unwrap_err(), Full::Source);
        let _third = places.take(source(2)).unwrap();
        assert_eq!(places.take(source(2)).unwrap_err(), Full::All);
        let over = places.take_over(source(2));
        assert_eq!((places.totals().open, places.totals().displaced), (4, 1));
        assert_eq!(
            places.with_counts(|of| (of(source(1)), of(source(2)), of(source(3)))),
            (2, 2, 0)
        );
        drop((first, second, over));
        assert_eq!(places.totals().open, 1);
        assert!(places.take(source(1)).is_ok());
        assert_eq!(
            places.taken.lock().of.len(),
            1,
            "a source without connections takes no memory"
        );
    }
}
