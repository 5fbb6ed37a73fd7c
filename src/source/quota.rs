//! An upstream's quota: how many calls in how long, kept by all replicas together through Redis.
//!
//! Promise: no window of a rate's length, wherever it begins, holds more bookings than its count (a sliding-window log, not a
//! counter per clock minute that lets twice as many through around the turn). A call is booked on every rate or on none.
//!
//! Two books are kept, and both must have room: Redis has everyone's bookings, this process its own. Where Redis lost some, or could
//! not be asked, each process brings its own back. Without a Redis its own book decides alone, so then each replica may spend the
//! whole quota.
//!
//! A booking is for now or for an instant to come. Whoever booked waits for it; a call that is then not made is not given back,
//! since what an upstream has counted cannot be known.

mod shared;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::Thread;
use std::time::{Duration, Instant};

use super::error::{SourceError, whole};
use crate::quantity::Rate;
use crate::worker::spawn_thread;

pub use self::shared::QuotaStore;
use self::shared::{Booking, Heard, Tie, Wish};

/// How often a replica checks in, so that it soon sees that Redis lost something, and others know that it is there.
const TICK: Duration = Duration::from_millis(500);
/// How long Redis must be away before this process books alone: a connection that broke, or a Redis that only restarts, is no
/// reason to.
const BLINK: Duration = Duration::from_secs(1);
/// The pause before it is asked again, by a call that has the time.
const PAUSE: Duration = Duration::from_millis(50);
/// How long the log is spared another line on a quota that is spent again and again.
const TOLD: Duration = Duration::from_secs(60);

/// No place is free in time; nothing was booked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spent {
    /// How long until one is free.
    pub retry_after: Duration,
}

/// The quota of one upstream, as this process sees it.
pub struct Quota {
    core: Arc<Core>,
    /// Checks in while nobody books.
    keeper: Option<Thread>,
}

struct Core {
    upstream: String,
    rates: Vec<Rate>,
    store: Option<QuotaStore>,
    book: Mutex<Book>,
}

impl fmt::Debug for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rates: Vec<String> = self.core.rates.iter().map(Rate::to_string).collect();
        write!(f, "Quota({} {rates:?})", self.core.upstream)
    }
}

impl Quota {
    /// A quota of which this process has spent nothing yet. No rates: nothing limits it. With rates
    /// and a store a thread of its own checks in there, until this is dropped.
    pub fn new(upstream: impl Into<String>, rates: Vec<Rate>, store: Option<QuotaStore>) -> Quota {
        let mut quota = Quota::without_keeper(upstream, rates, store);
        if quota.core.shared().is_some() {
            let kept = Arc::downgrade(&quota.core);
            let keeper = spawn_thread("quota", move || keep(&kept));
            match keeper {
                Ok(keeper) => quota.keeper = Some(keeper.thread().clone()),
                Err(error) => {
                    log::warn!("{error}; a quota is checked only when used");
                }
            }
        }
        quota
    }

    fn without_keeper(
        upstream: impl Into<String>,
        rates: Vec<Rate>,
        store: Option<QuotaStore>,
    ) -> Quota {
        let core = Core {
            upstream: upstream.into(),
            rates,
            store,
            book: Mutex::default(),
        };
        Quota {
            core: Arc::new(core),
            keeper: None,
        }
    }

    /// Books a call and returns when it may be made: blocks until then, which is never after `deadline`. If there is no place
    /// before the deadline it books nothing and returns as soon as that is known.
    pub fn book(&self, deadline: Instant) -> Result<(), Spent> {
        let at = self.core.reserve(deadline)?;
        std::thread::sleep(at.saturating_duration_since(Instant::now()));
        Ok(())
    }

    /// Books a call, waits for its place, and makes it, which is to be over by `deadline`.
    ///
    /// # Errors
    /// `Spent` if there is no place in time, `TooSlow` if there was no time at all, else what `call` gives.
    pub fn around<T>(
        &self,
        deadline: Instant,
        call: impl FnOnce() -> Result<T, SourceError>,
    ) -> Result<T, SourceError> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let what = format!("no time was left to ask {}", self.core.upstream);
            return Err(SourceError::TooSlow(what));
        }
        // A place at the very deadline would be spent on a call that has no time to be answered.
        let latest = deadline - (left / 2).min(Duration::from_secs(1));
        self.book(latest).map_err(|spent| SourceError::Spent {
            what: self.core.upstream.clone(),
            retry_after: spent.retry_after,
        })?;
        call()
    }

    /// Whether there is any rate to keep to.
    pub fn is_limited(&self) -> bool {
        !self.core.rates.is_empty()
    }
}

impl Drop for Quota {
    fn drop(&mut self) {
        if let Some(keeper) = &self.keeper {
            keeper.unpark();
        }
    }
}

fn keep(kept: &Weak<Core>) {
    while let Some(core) = kept.upgrade() {
        core.check_in();
        drop(core);
        std::thread::park_timeout(TICK);
    }
}

impl Core {
    fn shared(&self) -> Option<&QuotaStore> {
        self.store.as_ref().filter(|_| !self.rates.is_empty())
    }

    fn check_in(&self) {
        if let Some(store) = self.shared() {
            self.exchange(store, &mut self.lock(), None);
        }
    }

    fn exchange(&self, store: &QuotaStore, book: &mut Book, wish: Option<&Wish>) -> Option<Heard> {
        let own = book.entries.make_contiguous();
        store.exchange((&self.upstream, &self.rates), &mut book.tie, own, wish)
    }

    fn reserve(&self, deadline: Instant) -> Result<Instant, Spent> {
        loop {
            if let Some(at) = self.try_reserve(deadline)? {
                return Ok(at);
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// `None`: it cannot be known yet, and there is time to ask again after a pause.
    fn try_reserve(&self, deadline: Instant) -> Result<Option<Instant>, Spent> {
        // Held while Redis is asked, or two callers would both count on the last place in this process's book.
        let mut book = self.lock();
        let now = Instant::now();
        let earliest = book.earliest(now, &self.rates);
        if earliest > deadline {
            // Also the answer while Redis is known to have no place: it is not asked again before there can be one.
            let retry_after = earliest - now;
            self.tell_spent(&mut book, now, retry_after);
            return Err(Spent { retry_after });
        }
        let at = match self.shared() {
            None => earliest,
            Some(store) => {
                let wish = Wish {
                    earliest: earliest - now,
                    latest: deadline - now,
                };
                let heard = self.exchange(store, &mut book, Some(&wish));
                let asked = Instant::now();
                let has_time = asked + PAUSE < deadline;
                match heard {
                    // Redis counted its wait from a moment that is past by now, so this instant is no earlier than the one it
                    // booked.
                    Some(Heard::BookedIn(wait)) => earliest.max(asked + wait),
                    Some(Heard::FullFor(retry_after)) => {
                        book.close(asked + retry_after);
                        self.tell_spent(&mut book, asked, retry_after);
                        return Err(Spent { retry_after });
                    }
                    Some(Heard::AwaitsOthers(_)) if has_time => return Ok(None),
                    Some(Heard::AwaitsOthers(retry_after)) => return Err(Spent { retry_after }),
                    None if has_time && book.tie.lost_for().is_some_and(|time| time < BLINK) => {
                        return Ok(None);
                    }
                    Some(Heard::Here) | None => {
                        book.tie.owes = true;
                        earliest.max(asked)
                    }
                }
            }
        };
        book.enter(at, now, &self.rates);
        if book.told.back() {
            log::info!("the quota of {} is back", self.upstream);
        }
        Ok(Some(at))
    }

    fn tell_spent(&self, book: &mut Book, now: Instant, retry_after: Duration) {
        if book.told.spent(now) {
            let (upstream, back) = (&self.upstream, whole(retry_after));
            log::warn!("the quota of {upstream} is spent, back in {back}");
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Book> {
        // Nothing in there panics halfway through a change.
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// This process's own bookings, oldest first, as far back as any rate looks.
#[derive(Default)]
struct Book {
    entries: VecDeque<Booking>,
    /// There is no place before this, by Redis's word.
    closed_until: Option<Instant>,
    tie: Tie,
    told: Told,
}

/// What the log was told: once that a quota is spent and once that it is back, whoever meets it meanwhile.
#[derive(Default)]
struct Told {
    spent: bool,
    /// When that was told last.
    at: Option<Instant>,
}

impl Told {
    /// Whether it is to be told now that it is spent.
    fn spent(&mut self, now: Instant) -> bool {
        let lately = |at: Instant| now.saturating_duration_since(at) < TOLD;
        if self.spent || self.at.is_some_and(lately) {
            return false;
        }
        (self.spent, self.at) = (true, Some(now));
        true
    }

    /// Whether it is to be told that it is back.
    fn back(&mut self) -> bool {
        std::mem::take(&mut self.spent)
    }
}

impl Book {
    /// The first instant that a call may be booked for.
    fn earliest(&self, now: Instant, rates: &[Rate]) -> Instant {
        // Bookings never go back in time: then only the window that ends with this one can be too full.
        let after = [self.closed_until, self.entries.back().map(|last| last.at)];
        let counted = rates.iter().filter_map(|rate| {
            let first = self.entries.len().checked_sub(rate.count as usize)?;
            Some(self.entries.get(first)?.at + rate.per + Duration::from_micros(1))
        });
        after
            .into_iter()
            .flatten()
            .chain(counted)
            .fold(now, Instant::max)
    }

    fn enter(&mut self, at: Instant, now: Instant, rates: &[Rate]) {
        let most = rates
            .iter()
            .map(|rate| rate.count as usize)
            .max()
            .unwrap_or(0);
        let longest = rates.iter().map(|rate| rate.per).max().unwrap_or_default();
        if most > 0 {
            let number = self.tie.booked;
            self.entries.push_back(Booking { number, at });
            self.tie.booked += 1;
        }
        while self.entries.len() > most
            || self
                .entries
                .front()
                .is_some_and(|first| first.at + longest < now)
        {
            self.entries.pop_front();
        }
    }

    fn close(&mut self, until: Instant) {
        self.closed_until = self.closed_until.max(Some(until));
    }
}
