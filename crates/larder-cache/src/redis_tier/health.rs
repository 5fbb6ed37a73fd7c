//! What is known of Redis: whether to ask it at all, and whether it takes fills. Every part that
//! talks to Redis reports here what it finds.
//!
//! Promise: while Redis is known to be gone, nobody waits for it. Looking that up costs one atomic
//! load.
//!
//! Invariant: a connection that was opened before Redis was lost, or before it was found again, is
//! of an older generation, and is never used again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use redis::RedisError;

use super::breaker::Breaker;
use super::fault::{Fault, RedisState, reason};

/// The log reports a change of state at most this often while Redis answers. If memory is short,
/// the state can change with each fill.
const REPORT_EVERY: Duration = Duration::from_secs(60);

/// See the module.
pub(crate) struct Health {
    breaker: Breaker,
    /// Whether it takes fills. Read without the lock.
    takes_fills: AtomicBool,
    /// Protects the rest.
    known: Mutex<Known>,
    /// Notified when the breaker opens or closes, when the watcher has looked, when somebody else
    /// has found Redis, and at the end. Its lock is `known`.
    changed: Condvar,
}

struct Known {
    state: RedisState,
    /// The error behind a state that is not `Up`.
    reason: String,
    /// When the log last reported a state in which Redis answers.
    reported: Option<Instant>,
    /// How often the watcher has looked for a Redis that was lost.
    looks: u64,
    /// Somebody has found that it answers. The watcher looks at once.
    found: bool,
    ended: bool,
}

impl Known {
    /// The level of the next report: `level`, or debug if the log has reported lately.
    fn level(&mut self, level: log::Level) -> log::Level {
        let now = Instant::now();
        let lately = self
            .reported
            .is_some_and(|reported| now - reported < REPORT_EVERY);
        self.reported = Some(now);
        if lately { log::Level::Debug } else { level }
    }
}

impl Health {
    /// Redis is not known to answer yet.
    pub(crate) fn new() -> Health {
        Health {
            breaker: Breaker::new(),
            takes_fills: AtomicBool::new(false),
            known: Mutex::new(Known {
                state: RedisState::Down,
                reason: String::new(),
                reported: None,
                looks: 0,
                found: false,
                ended: false,
            }),
            changed: Condvar::new(),
        }
    }

    /// Whether Redis is worth asking: it is not known to be gone.
    pub(crate) fn answers(&self) -> bool {
        !self.breaker.is_open()
    }

    /// Whether it takes fills, as far as is known.
    pub(crate) fn is_up(&self) -> bool {
        self.answers() && self.takes_fills.load(Ordering::Acquire)
    }

    /// The state, and the error behind it; empty for `Up`.
    pub(crate) fn state(&self) -> (RedisState, String) {
        let known = self.known.lock();
        let state = match known.state {
            // It was lost while somebody else got a reply.
            RedisState::Up if !self.answers() => RedisState::Down,
            state => state,
        };
        (state, known.reason.clone())
    }

    /// The generation of a connection whose opening begins now.
    pub(crate) fn generation(&self) -> u32 {
        self.breaker.generation()
    }

    /// An exchange succeeded.
    pub(crate) fn succeeded(&self) {
        self.breaker.succeeded();
    }

    /// An exchange on an open connection failed. Returns the fault. A lost connection, or one to a
    /// server that takes no writes, proves nothing about Redis: the next connection does.
    pub(crate) fn failed(&self, error: &RedisError) -> Fault {
        let fault = Fault::of(error);
        match fault {
            Fault::TimedOut if self.breaker.timed_out() => {
                self.lost(RedisState::Down, &reason(error));
            }
            fault if fault.ends_all() => self.breaker.renew(),
            // The missing right may concern this one command only. The watcher finds out whether it
            // concerns fills.
            Fault::Refusing(state) if state != RedisState::NotPermitted => {
                self.takes(state, &reason(error));
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
        let is_lost = match fault {
            // One timeout is a busy machine.
            Fault::TimedOut => self.breaker.timed_out(),
            // The connections that are open still work.
            Fault::Refused | Fault::NotAuthenticated => false,
            _ => self.breaker.open(),
        };
        if is_lost {
            self.lost(state, why);
        } else if !self.answers() {
            // Lost already. The reason may have changed.
            self.note(state, why);
        } else {
            let level = self.known.lock().level(log::Level::Warn);
            log::log!(
                level,
                "one more connection to Redis cannot be opened: {why}"
            );
        }
    }

    /// No connection is left.
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
        let mut known = self.known.lock();
        let changed = known.state != state;
        known.state = state;
        why.clone_into(&mut known.reason);
        self.takes_fills
            .store(state == RedisState::Up, Ordering::Release);
        changed
    }

    /// It answers, and its state is this.
    pub(crate) fn takes(&self, state: RedisState, why: &str) {
        if !self.note(state, why) || !self.answers() {
            return;
        }
        match state {
            RedisState::Up => log::log!(
                self.known.lock().level(log::Level::Info),
                "Redis accepts fills again"
            ),
            _ => log::log!(
                self.known.lock().level(log::Level::Warn),
                "Redis accepts no fills ({state}): {why}"
            ),
        }
        self.changed.notify_all();
    }

    /// The watcher has found a Redis that was lost.
    pub(crate) fn found_by_watcher(&self, state: RedisState, why: &str) {
        self.note(state, why);
        // Older connections lead nowhere, or to another server.
        self.breaker.renew();
        self.breaker.close();
        self.known.lock().looks += 1;
        self.changed.notify_all();
    }

    /// The watcher has looked for a Redis that was lost, in vain.
    pub(crate) fn looked_in_vain(&self) {
        self.known.lock().looks += 1;
        self.changed.notify_all();
    }

    /// Somebody has opened a connection. If Redis was lost, the watcher looks at once.
    pub(crate) fn found(&self) {
        if !self.answers() {
            self.known.lock().found = true;
            self.changed.notify_all();
        }
    }

    /// Ends the watcher and every wait. From now on nobody asks Redis.
    pub(crate) fn end(&self) {
        self.breaker.open();
        self.known.lock().ended = true;
        self.changed.notify_all();
    }

    pub(crate) fn is_ended(&self) -> bool {
        self.known.lock().ended
    }

    /// For the watcher: waits while Redis answers, for `limit` at most. Returns whether `limit` has
    /// passed.
    pub(crate) fn wait_lost(&self, limit: Duration) -> bool {
        self.wait(limit, |known| !known.ended && self.answers())
    }

    /// For the watcher: waits until somebody has found Redis, for `limit` at most.
    pub(crate) fn wait_found(&self, limit: Duration) {
        self.wait(limit, |known| !known.ended && !known.found);
        self.known.lock().found = false;
    }

    /// Waits for `limit`. If Redis is lost now, waits until it answers at most.
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
        let mut known = self.known.lock();
        self.changed
            .wait_while_for(&mut known, |known| waits(known), limit)
            .timed_out()
    }
}
