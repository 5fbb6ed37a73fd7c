//! The book in Redis that all replicas share, and how a replica notices that its bookings are lost.
//!
//! Promise: if Redis lost this replica's bookings (restarted empty, restored from an old copy,
//! failed over, evicted) or was unreachable, this replica enters each of them again, once, in its
//! next exchange. Until the other known replicas have entered theirs too, or a few seconds have
//! passed, nobody books.
//!
//! How a loss is noticed: Redis keeps the time of this replica's last check-in. The replica keeps
//! the time too. If that in Redis is older, Redis lost something.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use redis::{RedisResult, Script};

use crate::quantity::Rate;
use larder_cache::{RedisDown, RedisPool};

/// Bookings that one script call enters, at most. A script blocks Redis while it runs.
const BATCH: usize = 1_000;

/// The script's reply: the outcome, a wait, the time in Redis, the replicas that it knows, and the
/// places that each rate has left.
type Reply = (String, u64, u64, Vec<String>, Vec<u64>);

/// A call on a connection that [`Run`] provides.
type Ask<'a> = dyn FnMut(&mut redis::Connection) -> RedisResult<Reply> + 'a;

/// Provides a connection. `None`: Redis is unreachable.
type Run = dyn Fn(&mut Ask<'_>) -> Option<Reply> + Send + Sync;

/// The shared book. Cheap to clone.
#[derive(Clone)]
pub struct QuotaStore {
    prefix: String,
    script: Arc<Script>,
    run: Arc<Run>,
}

impl QuotaStore {
    /// A store in the cache's Redis. Its keys begin with `prefix`.
    pub fn in_redis(pool: RedisPool, prefix: impl Into<String>) -> QuotaStore {
        let refusing = AtomicBool::new(false);
        QuotaStore::new(prefix, move |ask| {
            let outcome = pool.run(|connection| ask(connection));
            match &outcome {
                Ok(_) => refusing.store(false, Ordering::Relaxed),
                // The pool logs outages itself.
                Err(RedisDown::Unreachable) => {}
                Err(RedisDown::Refused(why)) => {
                    if !refusing.swap(true, Ordering::Relaxed) {
                        log::warn!(
                            "Redis refused a command for a quota, so each replica may spend the whole quota: {why}"
                        );
                    }
                }
            }
            outcome.ok()
        })
    }

    /// A store whose keys begin with `prefix`. `run` calls its argument with a connection and
    /// returns what that returns. While Redis is unreachable, it returns `None` soon.
    pub(super) fn new(
        prefix: impl Into<String>,
        run: impl Fn(&mut Ask<'_>) -> Option<Reply> + Send + Sync + 'static,
    ) -> QuotaStore {
        QuotaStore {
            prefix: prefix.into(),
            script: Arc::new(Script::new(include_str!("../quota.lua"))),
            run: Arc::new(run),
        }
    }

    /// Checks in, enters those of the `own` bookings that Redis lost, and books if one is `wanted`.
    /// `None` if Redis is unreachable.
    pub(super) fn exchange(
        &self,
        (upstream, rates): (&str, &[Rate]),
        membership: &mut Membership,
        own: &[Booking],
        wanted: Option<&Wanted>,
    ) -> Option<Answer> {
        let mut exchange = Exchange {
            store: self,
            upstream,
            keys: ["calls", "awaited"]
                // The braces keep an upstream's keys in one slot of a cluster.
                .map(|what| format!("{{{}:q:{upstream}}}:{what}", self.prefix)),
            rates,
            membership,
            wanted,
        };
        let answer = exchange.run(own);
        match answer {
            Some(_) => membership.unreachable_since = None,
            None => {
                membership.left.clear();
                membership
                    .unreachable_since
                    .get_or_insert_with(Instant::now);
            }
        }
        answer
    }
}

/// This replica as a member of the shared book.
pub(super) struct Membership {
    /// Its id there.
    replica: u64,
    /// How many calls it has booked. A booking's number identifies it.
    pub booked: u64,
    /// Its last check-in, in microseconds by the clock of Redis. `None`: never.
    checked_in: Option<u64>,
    /// The replicas that Redis knew then: ids and check-ins, as Redis gave them.
    pub others: Vec<String>,
    /// The places that each rate had left then, for all replicas. Empty if Redis did not answer.
    pub left: Vec<u64>,
    /// Whether it booked while Redis was unreachable.
    pub unsynced: bool,
    /// Since when Redis is unreachable.
    unreachable_since: Option<Instant>,
}

impl Default for Membership {
    fn default() -> Membership {
        Membership {
            replica: larder_cache::random(),
            booked: 0,
            checked_in: None,
            others: Vec::new(),
            left: Vec::new(),
            unsynced: false,
            unreachable_since: None,
        }
    }
}

impl Membership {
    /// How long Redis has been unreachable. `None`: it is reachable, or it never was.
    pub(super) fn unreachable_for(&self) -> Option<Duration> {
        self.checked_in?;
        self.unreachable_since.map(|since| since.elapsed())
    }
}

/// A call that this replica booked.
#[derive(Clone, Copy)]
pub(super) struct Booking {
    pub number: u64,
    pub at: Instant,
}

/// A call to book: the earliest and the latest time for it, from now.
pub(super) struct Wanted {
    pub earliest: Duration,
    pub latest: Duration,
}

/// What Redis answered. Its waits count from then.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// No booking was wanted.
    CheckedIn,
    /// The call is booked for this time from now.
    BookedIn(Duration),
    /// No place is free before this time from now.
    FullFor(Duration),
    /// Nobody books for at most this long: other replicas may have bookings to enter.
    AwaitsOthers(Duration),
}

/// The bookings that a script call enters.
enum Upload<'a> {
    Nothing,
    /// More will follow.
    Part(&'a [Booking]),
    /// With those of the parts before, all.
    Last(&'a [Booking]),
}

/// One exchange with Redis: one script call, or several.
struct Exchange<'a> {
    store: &'a QuotaStore,
    upstream: &'a str,
    keys: [String; 2],
    rates: &'a [Rate],
    membership: &'a mut Membership,
    wanted: Option<&'a Wanted>,
}

impl Exchange<'_> {
    fn run(&mut self, own: &[Booking]) -> Option<Answer> {
        let mut reply = None;
        if !self.membership.unsynced {
            reply = Some(self.call(&Upload::Nothing)?);
        }
        let reply = match reply {
            Some(reply) if reply.0 != "lost" => reply,
            lost => {
                let (parts, rest) = own.split_at(own.len().saturating_sub(1) / BATCH * BATCH);
                for part in parts.chunks(BATCH) {
                    self.call(&Upload::Part(part))?;
                }
                let reply = self.call(&Upload::Last(rest))?;
                if lost.is_some() && !own.is_empty() {
                    log::info!(
                        "{}: Redis lost bookings of the quota; those of this replica are entered again",
                        self.upstream
                    );
                }
                reply
            }
        };
        let (what, wait, now, others, left) = reply;
        self.membership.unsynced = false;
        self.membership.checked_in = Some(now);
        self.membership.others = others;
        self.membership.left = left;
        let wait = Duration::from_micros(wait);
        Some(match what.as_str() {
            "booked" => Answer::BookedIn(wait),
            "full" => Answer::FullFor(wait),
            "awaits" => Answer::AwaitsOthers(wait),
            _ => Answer::CheckedIn,
        })
    }

    fn call(&self, upload: &Upload<'_>) -> Option<Reply> {
        let member = &*self.membership;
        let (word, bookings) = match upload {
            Upload::Nothing => ("nothing", &[][..]),
            Upload::Part(part) => ("part", *part),
            Upload::Last(rest) => ("last", *rest),
        };
        let mut call = self.store.script.prepare_invoke();
        for key in &self.keys {
            call.key(key);
        }
        let name = |number: u64| format!("{:016x}-{number}", member.replica);
        call.arg(format!("{:016x}", member.replica))
            .arg(member.checked_in.unwrap_or_default())
            .arg(word);
        match self.wanted {
            None => call.arg("").arg(0).arg(0),
            Some(wanted) => call
                .arg(name(member.booked))
                .arg(micros(wanted.earliest))
                .arg(micros(wanted.latest)),
        };
        call.arg(self.rates.len());
        for rate in self.rates {
            call.arg(rate.count).arg(micros(rate.per));
        }
        call.arg(bookings.len());
        let now = Instant::now();
        for booking in bookings {
            let (ahead, past) = (
                booking.at.saturating_duration_since(now),
                now.saturating_duration_since(booking.at),
            );
            call.arg(name(booking.number))
                .arg(micros(ahead) - micros(past));
        }
        let others = match upload {
            Upload::Last(_) => &member.others[..],
            Upload::Nothing | Upload::Part(_) => &[],
        };
        call.arg(others.len() / 2);
        for word in others {
            call.arg(word);
        }
        (self.store.run)(&mut |connection| call.invoke(connection))
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}
