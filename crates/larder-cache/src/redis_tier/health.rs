//! What is known of Redis: whether to ask it at all, and whether it takes fills. Every part that
//! talks to Redis tells it here what it finds, and so every part knows what one of them found.
//!
//! Promise: while Redis is known to be gone, nobody waits for it. Asking whether it is costs one
//! atomic load.
//!
//! Invariant: a connection that was opened before Redis was lost, or before it was found again, is
//! of an older generation, and is never used again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use redis::RedisError;

use super::breaker::Breaker;
use super::fault::{Fault, RedisState};

/// How often a change of what Redis takes is told in the log at most. It can change with each fill
/// where memory is short.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// See the module.
pub(crate) struct Health {
    breaker: Breaker,
    /// Whether it takes fills, as far as is known: read without the lock.
    takes_fills: AtomicBool,
    /// Protects the rest. Its condition tells of a breaker that opens or closes, of a look, of news
    /// and of the end.
    known: Mutex<Known>,
    changed: Condvar,
}

struct Known {
    state: RedisState,
    /// The error behind a state that is not `Up`.
    reason: String,
    /// When the log last told of a state in which Redis answers.
    told: Option<Instant>,
    /// How often the watcher has looked for a Redis that was lost.
    looks: u64,
    /// Somebody has found that it answers: the watcher is to look now.
    found: bool,
    ended: bool,
}

impl Known {
    /// The level at which a change is told while Redis answers: `level`, or where one was told
    /// lately, less.
    fn level(&mut self, level: log::Level) -> log::Level {
        let now = Instant::now();
        let lately = self.told.is_some_and(|told| now - told < TELL_EVERY);
        self.told = Some(now);
        if lately { log::Level::Debug } else { level }
    }
}

impl Health {
    /// Nothing is known to work yet.
    pub(crate) fn new() -> Health {
        Health {
            breaker: Breaker::new(),
            takes_fills: AtomicBool::new(false),
            known: Mutex::new(Known {
                state: RedisState::Down,
                reason: String::new(),
                told: None,
                looks: 0,
                found: false,
                ended: false,
            }),
            changed: Condvar::new(),
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it makes sense to ask: not while Redis is known to be gone.
    pub(crate) fn answers(&self) -> bool {
        !self.breaker.is_open()
    }

    /// Whether it takes fills, as far as is known.
    pub(crate) fn is_up(&self) -> bool {
        self.answers() && self.takes_fills.load(Ordering::Acquire)
    }

    /// What it takes, and the error that says why it does not take more; empty for `Up`.
    pub(crate) fn state(&self) -> (RedisState, String) {
        let known = self.known();
        let state = match known.state {
            // It was lost while somebody else had an answer.
            RedisState::Up if !self.answers() => RedisState::Down,
            state => state,
        };
        (state, known.reason.clone())
    }

    /// The generation of a connection whose opening begins now.
    pub(crate) fn generation(&self) -> u32 {
        self.breaker.generation()
    }

    /// It answered a question.
    pub(crate) fn succeeded(&self) {
        self.breaker.succeeded();
    }

    /// An exchange on an open connection failed. Returns what that says. That a connection was
    /// lost, or leads to a server that takes no writes, says nothing of Redis: who opens the next
    /// one finds out.
    pub(crate) fn failed(&self, error: &RedisError) -> Fault {
        let fault = Fault::of(error);
        match fault {
            Fault::TimedOut if self.breaker.timed_out() => {
                self.lost(RedisState::Down, &error.to_string());
            }
            fault if fault.ends_all() => self.breaker.renew(),
            // A right that is missing may concern this one command. Whether it concerns fills, the
            // watcher sees.
            Fault::Refusing(state) if state != RedisState::NotPermitted => {
                self.takes(state, &error.to_string());
            }
            _ => {}
        }
        fault
    }

    /// A connection could not be opened. `why` is for logs.
    pub(crate) fn cannot_open(&self, error: &RedisError, why: &str) {
        let fault = Fault::of(error);
        let state = match fault {
            Fault::Refused => RedisState::Refusing,
            fault => fault.state().unwrap_or(RedisState::Down),
        };
        let is_news = match fault {
            // Once is a busy machine.
            Fault::TimedOut => self.breaker.timed_out(),
            // As long as others are open, what the server says of one more is no reason to do
            // without them.
            Fault::Refused | Fault::NotAuthenticated => false,
            _ => self.breaker.open(),
        };
        if is_news {
            self.lost(state, why);
        } else if !self.answers() {
            // Lost already; what is known of the reason may have changed.
            self.note(state, why);
        } else {
            let level = self.known().level(log::Level::Warn);
            log::log!(
                level,
                "one more connection to Redis cannot be opened: {why}"
            );
        }
    }

    /// There is nothing to talk to it on.
    pub(crate) fn gone(&self, state: RedisState, why: &str) {
        if self.breaker.open() {
            self.lost(state, why);
        }
    }

    fn lost(&self, state: RedisState, why: &str) {
        log::warn!("Redis connection lost ({why}); serving without Redis");
        self.note(state, why);
        self.changed.notify_all();
    }

    fn note(&self, state: RedisState, why: &str) -> bool {
        let mut known = self.known();
        let changed = known.state != state;
        known.state = state;
        why.clone_into(&mut known.reason);
        self.takes_fills
            .store(state == RedisState::Up, Ordering::Release);
        changed
    }

    /// It answers, and this is what it takes.
    pub(crate) fn takes(&self, state: RedisState, why: &str) {
        if !self.note(state, why) || !self.answers() {
            return;
        }
        match state {
            RedisState::Up => log::log!(
                self.known().level(log::Level::Info),
                "Redis accepts fills again"
            ),
            _ => log::log!(
                self.known().level(log::Level::Warn),
                "Redis accepts no fills ({state}): {why}"
            ),
        }
        self.changed.notify_all();
    }

    /// The watcher has found a Redis that was lost.
    pub(crate) fn found_by_watcher(&self, state: RedisState, why: &str) {
        self.note(state, why);
        // What was opened before leads to nobody, or to another one.
        self.breaker.renew();
        self.breaker.close();
        self.known().looks += 1;
        self.changed.notify_all();
    }

    /// The watcher has looked for a Redis that was lost, and not found it.
    pub(crate) fn looked_in_vain(&self) {
        self.known().looks += 1;
        self.changed.notify_all();
    }

    /// Somebody has opened a connection. If Redis was lost, the watcher is to look at once.
    pub(crate) fn found(&self) {
        if !self.answers() {
            self.known().found = true;
            self.changed.notify_all();
        }
    }

    /// Ends the watcher, and every wait. Nobody is to ask Redis any more.
    pub(crate) fn end(&self) {
        self.breaker.open();
        self.known().ended = true;
        self.changed.notify_all();
    }

    pub(crate) fn is_ended(&self) -> bool {
        self.known().ended
    }

    /// For the watcher: waits while Redis answers, at most for `limit`. Returns whether `limit` has
    /// passed.
    pub(crate) fn wait_lost(&self, limit: Duration) -> bool {
        self.wait(limit, |known| !known.ended && self.answers())
    }

    /// For the watcher: waits until somebody has found Redis, at most for `limit`.
    pub(crate) fn wait_found(&self, limit: Duration) {
        self.wait(limit, |known| !known.ended && !known.found);
        self.known().found = false;
    }

    /// Waits for `limit`, or until a Redis that is lost now answers again.
    pub(crate) fn pause(&self, limit: Duration) {
        let lost = !self.answers();
        self.wait(limit, |known| !(known.ended || lost && self.answers()));
    }

    /// Waits until Redis answers, or `limit` has passed.
    pub(crate) fn wait_answers(&self, limit: Duration) {
        self.wait(limit, |known| !known.ended && !self.answers());
    }

    /// Waits until Redis takes fills, or `limit` has passed.
    pub(crate) fn wait_up(&self, limit: Duration) {
        self.wait(limit, |known| !known.ended && !self.is_up());
    }

    /// Waits until Redis takes fills, or the watcher has looked for it once, or `limit` has passed.
    pub(crate) fn wait_first_look(&self, limit: Duration) {
        self.wait(limit, |known| !known.ended && known.looks == 0);
    }

    fn wait(&self, limit: Duration, mut waits: impl FnMut(&Known) -> bool) -> bool {
        self.changed
            .wait_timeout_while(self.known(), limit, |known| waits(known))
            .unwrap_or_else(PoisonError::into_inner)
            .1
            .timed_out()
    }
}
