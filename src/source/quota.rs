//! An upstream's quota: how many calls in how long. All replicas keep it together, through Redis.
//!
//! Promise: no window of a rate's length holds more bookings than its count, wherever it begins. It
//! is a sliding-window log: a counter per clock minute would let twice as many calls through around
//! the turn of the minute. A call is booked on every rate or on none.
//!
//! There are two books, and both must have room: Redis has the bookings of all replicas, this
//! process has its own. If Redis lost bookings or was unreachable, each process enters its own
//! again. Without Redis, a process's own book decides alone, so each replica may spend the whole
//! quota.
//!
//! A booking is for now or for a later instant, and the caller waits for it. A booking is never
//! given back: nobody can know what the upstream has counted.

mod shared;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::calls::Calls;
use super::error::in_seconds;
use crate::quantity::Rate;
use crate::worker::{Signals, Wake, Worker};
use larder_cache::LoadError;

pub use self::shared::QuotaStore;
use self::shared::{Answer, Booking, Membership, Wanted};

/// How often a replica checks in, so that it soon notices lost bookings and others know it exists.
const CHECK_IN_EVERY: Duration = Duration::from_millis(500);
/// How long Redis must be unreachable before this process books alone. A broken connection or a
/// quick restart takes less.
const BLINK: Duration = Duration::from_secs(1);
/// The pause before a call that has time asks Redis again.
const PAUSE: Duration = Duration::from_millis(50);
/// The shortest time between two log lines about a spent quota.
const LOG_EVERY: Duration = Duration::from_secs(60);

/// No place is free in time. Nothing was booked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spent {
    /// How long until a place is free.
    pub retry_after: Duration,
}

/// The quota of one upstream, as this process sees it.
pub struct Quota {
    core: Arc<Core>,
    calls: Arc<Calls>,
    /// Checks in while nobody books. `None`: there is nothing to share, or no thread.
    _keeper: Option<Worker>,
}

struct Core {
    upstream: String,
    rates: Vec<Rate>,
    store: Option<QuotaStore>,
    /// The lock protects this process's bookings. It is held while Redis is asked.
    book: Mutex<Book>,
    /// The places that each rate had left when Redis was asked last, or before that all. For who
    /// cannot wait for `book`.
    left: Mutex<Vec<u64>>,
}

impl fmt::Debug for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rates: Vec<String> = self.core.rates.iter().map(Rate::to_string).collect();
        write!(f, "Quota({} {rates:?})", self.core.upstream)
    }
}

impl Quota {
    /// A quota of which this process has spent nothing yet. Without rates, nothing limits it. With
    /// rates and a store, a thread checks in there until the quota is dropped.
    pub fn new(upstream: impl Into<String>, rates: Vec<Rate>, store: Option<QuotaStore>) -> Quota {
        let quota = Quota::without_keeper(upstream, rates, store);
        if quota.core.shared().is_none() {
            return quota;
        }
        let core = quota.core.clone();
        let keeper = Worker::start("quota", move |signals| core.keep_checking_in(signals));
        let keeper = keeper.map_err(|error| {
            log::warn!("{error}; a quota is checked only when used");
        });
        Quota {
            _keeper: keeper.ok(),
            ..quota
        }
    }

    /// The same upstream's quota with other rates. It counts its calls where this one does, and
    /// what this process has booked so far is booked there, too.
    pub(super) fn with_rates(&self, rates: Vec<Rate>) -> Quota {
        let core = &self.core;
        let quota = Quota::new(&core.upstream, rates, core.store.clone());
        let own = core.book.lock();
        let mut book = quota.core.book.lock();
        book.entries.clone_from(&own.entries);
        book.membership.booked = own.membership.booked;
        drop(book);
        Quota {
            calls: self.calls.clone(),
            ..quota
        }
    }

    fn without_keeper(
        upstream: impl Into<String>,
        rates: Vec<Rate>,
        store: Option<QuotaStore>,
    ) -> Quota {
        let core = Core {
            upstream: upstream.into(),
            left: Mutex::new(rates.iter().map(|rate| rate.count.into()).collect()),
            rates,
            store,
            book: Mutex::default(),
        };
        Quota {
            core: Arc::new(core),
            calls: Arc::default(),
            _keeper: None,
        }
    }

    /// Books a call and blocks until it may be made, which is never after `deadline`.
    ///
    /// # Errors
    /// No place is free before the deadline. Nothing was booked, and this returns at once.
    pub fn book(&self, deadline: Instant) -> Result<(), Spent> {
        let at = self.core.reserve(deadline)?;
        std::thread::sleep(at.saturating_duration_since(Instant::now()));
        Ok(())
    }

    /// Books a call, waits for its place, makes it and counts it. The call must end by `deadline`.
    ///
    /// # Errors
    /// `Spent` if no place is free in time, `TooSlow` if the deadline has passed, else the error of
    /// `call`.
    pub fn around<T>(
        &self,
        deadline: Instant,
        call: impl FnOnce() -> Result<T, LoadError>,
    ) -> Result<T, LoadError> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let what = format!("no time was left to ask {}", self.core.upstream);
            return Err(LoadError::TooSlow(what));
        }
        // A call without time for its answer would spend a place for nothing.
        let for_answer = (left / 4).max(Duration::from_secs(1)).min(left / 2);
        let latest = deadline - for_answer;
        let spent = |spent: Spent| LoadError::Spent {
            what: self.core.upstream.clone(),
            retry_after: spent.retry_after,
        };
        let ended = self.book(latest).map_err(spent).and_then(|()| call());
        self.calls.count(&ended);
        ended
    }

    /// The name of its upstream.
    pub fn upstream(&self) -> &str {
        &self.core.upstream
    }

    /// The calls so far.
    pub fn calls(&self) -> &Arc<Calls> {
        &self.calls
    }

    /// How many calls each rate allows now: those of all replicas count, as Redis knew them less
    /// than a second ago. Without Redis, only this process's own do. While Redis is asked, the
    /// numbers are those of the last time. Does not wait for that.
    pub fn left(&self) -> Vec<(Rate, u64)> {
        let core = &self.core;
        if let Some(book) = core.book.try_lock() {
            core.note_left(&book);
        }
        let left = core.left.lock();
        core.rates
            .iter()
            .copied()
            .zip(left.iter().copied())
            .collect()
    }

    /// Whether there is any rate.
    pub fn is_limited(&self) -> bool {
        !self.core.rates.is_empty()
    }
}

impl Core {
    fn keep_checking_in(&self, signals: &Signals) {
        loop {
            self.check_in();
            if signals.wait(CHECK_IN_EVERY) == Wake::Stop {
                return;
            }
        }
    }

    fn check_in(&self) {
        if let Some(store) = self.shared() {
            self.exchange(store, &mut self.book.lock(), None);
        }
    }

    /// The store, if there are rates to keep there.
    fn shared(&self) -> Option<&QuotaStore> {
        self.store.as_ref().filter(|_| !self.rates.is_empty())
    }

    fn exchange(
        &self,
        store: &QuotaStore,
        book: &mut Book,
        wanted: Option<&Wanted>,
    ) -> Option<Answer> {
        let own = book.entries.make_contiguous();
        let answer = store.exchange(
            (&self.upstream, &self.rates),
            &mut book.membership,
            own,
            wanted,
        );
        self.note_left(book);
        answer
    }

    fn note_left(&self, book: &Book) {
        let (shared, now) = (&book.membership.left, Instant::now());
        let left = |(at, rate)| {
            let own = || book.left(rate, now);
            shared.get(at).copied().unwrap_or_else(own)
        };
        *self.left.lock() = self.rates.iter().enumerate().map(left).collect();
    }

    fn reserve(&self, deadline: Instant) -> Result<Instant, Spent> {
        loop {
            if let Some(at) = self.try_reserve(deadline)? {
                return Ok(at);
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// `None`: not known yet, and there is time to ask again after a pause.
    fn try_reserve(&self, deadline: Instant) -> Result<Option<Instant>, Spent> {
        // Locked while Redis is asked: otherwise two callers could both book the last place.
        let mut book = self.book.lock();
        let now = Instant::now();
        let earliest = book.earliest(now, &self.rates);
        if earliest > deadline {
            // If Redis said that it has no place, it is not asked again before there can be one.
            let retry_after = earliest - now;
            self.log_spent(&mut book, now, retry_after);
            return Err(Spent { retry_after });
        }
        let at = match self.shared() {
            None => earliest,
            Some(store) => {
                let wanted = Wanted {
                    earliest: earliest - now,
                    latest: deadline - now,
                };
                let answer = self.exchange(store, &mut book, Some(&wanted));
                let asked = Instant::now();
                let has_time = asked + PAUSE < deadline;
                match answer {
                    // Redis counted its wait from an earlier moment, so this instant is no earlier
                    // than the booked one.
                    Some(Answer::BookedIn(wait)) => earliest.max(asked + wait),
                    Some(Answer::FullFor(retry_after)) => {
                        book.close(asked + retry_after);
                        self.log_spent(&mut book, asked, retry_after);
                        return Err(Spent { retry_after });
                    }
                    Some(Answer::AwaitsOthers(_)) if has_time => return Ok(None),
                    Some(Answer::AwaitsOthers(retry_after)) => return Err(Spent { retry_after }),
                    None if has_time
                        && book
                            .membership
                            .unreachable_for()
                            .is_some_and(|time| time < BLINK) =>
                    {
                        return Ok(None);
                    }
                    Some(Answer::CheckedIn) | None => {
                        book.membership.unsynced = true;
                        earliest.max(asked)
                    }
                }
            }
        };
        book.enter(at, now, &self.rates);
        if book.logged.back() {
            log::info!("the quota of {} is back", self.upstream);
        }
        Ok(Some(at))
    }

    fn log_spent(&self, book: &mut Book, now: Instant, retry_after: Duration) {
        if book.logged.spent(now) {
            let (upstream, back) = (&self.upstream, in_seconds(retry_after));
            log::warn!("the quota of {upstream} is spent, back in {back}");
        }
    }
}

/// This process's own bookings, oldest first, as far back as the longest rate.
#[derive(Default)]
struct Book {
    entries: VecDeque<Booking>,
    /// Redis said that no place is free before this.
    closed_until: Option<Instant>,
    membership: Membership,
    logged: Logged,
}

/// What was logged: once that the quota is spent, and once that it is back.
#[derive(Default)]
struct Logged {
    spent: bool,
    /// When that was logged last.
    at: Option<Instant>,
}

impl Logged {
    /// Whether to log now that the quota is spent.
    fn spent(&mut self, now: Instant) -> bool {
        let lately = |at: Instant| now.saturating_duration_since(at) < LOG_EVERY;
        if self.spent || self.at.is_some_and(lately) {
            return false;
        }
        (self.spent, self.at) = (true, Some(now));
        true
    }

    /// Whether to log now that the quota is back.
    fn back(&mut self) -> bool {
        std::mem::take(&mut self.spent)
    }
}

impl Book {
    /// The first instant that a call may be booked for.
    fn earliest(&self, now: Instant, rates: &[Rate]) -> Instant {
        // Bookings never go back in time, so only the window that ends here can be too full.
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
            let number = self.membership.booked;
            self.entries.push_back(Booking { number, at });
            self.membership.booked += 1;
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

    /// The places of this process's own that `rate` has left.
    fn left(&self, rate: &Rate, now: Instant) -> u64 {
        let taken = self.entries.iter().filter(|one| one.at + rate.per >= now);
        u64::from(rate.count).saturating_sub(taken.count() as u64)
    }

    fn close(&mut self, until: Instant) {
        self.closed_until = self.closed_until.max(Some(until));
    }
}
