//! The book that all replicas share, in Redis, and how a replica finds out that calls of its own are not in it.
//!
//! Promise: what this replica booked is in Redis, once, after its first exchange with a Redis that lost it or could not be asked:
//! restarted empty, restored from an old copy, failed over, evicted, unreachable for a while. Nothing is booked meanwhile until the
//! replicas that were there before have brought theirs too, or a few seconds have passed.
//!
//! The loss shows in when Redis last heard this replica: what it remembers of that is older than what it said.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use redis::{RedisResult, Script};

use crate::quantity::Rate;
use larder_cache::{RedisDown, RedisPool};

/// So many bookings are brought by one script: it keeps Redis from everything else while it runs.
const PART: usize = 1_000;

/// What Redis answers: the outcome, a wait, its time, and the replicas that it knows.
type Reply = (String, u64, u64, Vec<String>);

/// A question to Redis on a connection that the other side provides.
type Ask<'a> = dyn FnMut(&mut redis::Connection) -> RedisResult<Reply> + 'a;

type Run = dyn Fn(&mut Ask<'_>) -> Option<Reply> + Send + Sync;

/// Where all replicas book. Cheap to clone.
#[derive(Clone)]
pub struct QuotaStore {
    prefix: String,
    script: Arc<Script>,
    run: Arc<Run>,
}

impl QuotaStore {
    /// A store in the cache's Redis, its keys beginning with `prefix`.
    pub fn in_redis(pool: RedisPool, prefix: impl Into<String>) -> QuotaStore {
        let refusing = AtomicBool::new(false);
        QuotaStore::new(prefix, move |ask| {
            let outcome = pool.run(|connection| ask(connection));
            match &outcome {
                Ok(_) => refusing.store(false, Ordering::Relaxed),
                // The pool tells of an outage itself.
                Err(RedisDown::Unreachable) => {}
                Err(RedisDown::Refused(why)) => {
                    if !refusing.swap(true, Ordering::Relaxed) {
                        log::warn!(
                            "Redis refuses to keep quotas, so each replica may spend all of one: {why}"
                        );
                    }
                }
            }
            outcome.ok()
        })
    }

    /// A store whose keys begin with `prefix`. `run` lends a connection to its argument and returns what that returns, or
    /// `None`, soon, while there is no Redis.
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

    /// Checks in, brings what Redis lacks of `own`, and books as wished. `None` if Redis could not be asked.
    pub(super) fn exchange(
        &self,
        (upstream, rates): (&str, &[Rate]),
        tie: &mut Tie,
        own: &[Booking],
        wish: Option<&Wish>,
    ) -> Option<Heard> {
        let mut talk = Talk {
            store: self,
            upstream,
            keys: ["calls", "awaited"]
                // The braces keep an upstream's keys together in a cluster.
                .map(|what| format!("{{{}:q:{upstream}}}:{what}", self.prefix)),
            rates,
            tie,
            wish,
        };
        let heard = talk.hold(own);
        match heard {
            Some(_) => tie.lost_since = None,
            None => {
                tie.lost_since.get_or_insert_with(Instant::now);
            }
        }
        heard
    }
}

/// What binds this replica to the shared book.
pub(super) struct Tie {
    /// Its name there.
    replica: u64,
    /// How many calls it has booked: each is known by its number.
    pub booked: u64,
    /// When Redis last heard it, by Redis's clock; 0: never.
    told: u64,
    /// The replicas that Redis knew then, as it gave them.
    pub others: Vec<String>,
    /// It booked while Redis could not be asked.
    pub owes: bool,
    /// Since when Redis cannot be asked.
    lost_since: Option<Instant>,
}

impl Default for Tie {
    fn default() -> Tie {
        Tie {
            replica: larder_cache::random(),
            booked: 0,
            told: 0,
            others: Vec::new(),
            owes: false,
            lost_since: None,
        }
    }
}

impl Tie {
    /// For how long Redis cannot be asked, if it ever could be.
    pub(super) fn lost_for(&self) -> Option<Duration> {
        self.lost_since
            .filter(|_| self.told != 0)
            .map(|since| since.elapsed())
    }
}

/// A call that this replica booked.
#[derive(Clone, Copy)]
pub(super) struct Booking {
    pub number: u64,
    pub at: Instant,
}

/// When a call may be booked for, from now.
pub(super) struct Wish {
    pub earliest: Duration,
    pub latest: Duration,
}

/// What Redis answered, its waits counted from then.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// Nothing was wished.
    Here,
    BookedIn(Duration),
    FullFor(Duration),
    /// Other replicas may have calls to bring; for so long at the most.
    AwaitsOthers(Duration),
}

enum Brings<'a> {
    Nothing,
    Part(&'a [Booking]),
    All(&'a [Booking]),
}

struct Talk<'a> {
    store: &'a QuotaStore,
    upstream: &'a str,
    keys: [String; 2],
    rates: &'a [Rate],
    tie: &'a mut Tie,
    wish: Option<&'a Wish>,
}

impl Talk<'_> {
    fn hold(&mut self, own: &[Booking]) -> Option<Heard> {
        let mut reply = None;
        if !self.tie.owes {
            reply = Some(self.ask(&Brings::Nothing)?);
        }
        let reply = match reply {
            Some(reply) if reply.0 != "forgotten" => reply,
            forgotten => {
                let (parts, rest) = own.split_at(own.len().saturating_sub(1) / PART * PART);
                for part in parts.chunks(PART) {
                    self.ask(&Brings::Part(part))?;
                }
                let reply = self.ask(&Brings::All(rest))?;
                if forgotten.is_some() && !own.is_empty() {
                    log::info!(
                        "{}: Redis may have lost calls of the quota; this replica's are entered again",
                        self.upstream
                    );
                }
                reply
            }
        };
        let (what, wait, now, others) = reply;
        self.tie.owes = false;
        self.tie.told = now;
        self.tie.others = others;
        let wait = Duration::from_micros(wait);
        Some(match what.as_str() {
            "booked" => Heard::BookedIn(wait),
            "full" => Heard::FullFor(wait),
            "awaits" => Heard::AwaitsOthers(wait),
            _ => Heard::Here,
        })
    }

    fn ask(&self, brings: &Brings<'_>) -> Option<Reply> {
        let tie = &*self.tie;
        let (word, brought) = match brings {
            Brings::Nothing => ("nothing", &[][..]),
            Brings::Part(part) => ("part", *part),
            Brings::All(rest) => ("all", *rest),
        };
        let mut call = self.store.script.prepare_invoke();
        for key in &self.keys {
            call.key(key);
        }
        let name = |number: u64| format!("{:016x}-{number}", tie.replica);
        call.arg(format!("{:016x}", tie.replica))
            .arg(tie.told)
            .arg(word);
        match self.wish {
            None => call.arg("").arg(0).arg(0),
            Some(wish) => call
                .arg(name(tie.booked))
                .arg(micros(wish.earliest))
                .arg(micros(wish.latest)),
        };
        call.arg(self.rates.len());
        for rate in self.rates {
            call.arg(rate.count).arg(micros(rate.per));
        }
        call.arg(brought.len());
        let now = Instant::now();
        for booking in brought {
            let (ahead, past) = (
                booking.at.saturating_duration_since(now),
                now.saturating_duration_since(booking.at),
            );
            call.arg(name(booking.number))
                .arg(micros(ahead) - micros(past));
        }
        let others = match brings {
            Brings::All(_) => &tie.others[..],
            Brings::Nothing | Brings::Part(_) => &[],
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
