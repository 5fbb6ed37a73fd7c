//! What the stages of a look-up share.

use std::sync::Arc;
use std::time::Duration;

use super::clock::{Clock, Micros, micros};
use super::coherence::{InvalidationTarget, Mirror, Standing};
use super::compose;
use super::entry::Entry;
use super::failures::Failures;
use super::fair_queue::Caller;
use super::flight::{Flight, Flights};
use super::interest::{Behalf, Interest};
use super::loaders::Loaders;
use super::memory_tier::MemoryTier;
use super::miss::{Miss, Progress};
use super::outcome::{Answer, Outcome, Trace};
use super::policy::{Freshness, Policy};
use super::redis_tier::RedisTier;
use super::request::{CacheItem, Producer, Request};
use super::ticket::Ticket;

/// How a look-up knows what became of what it finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Proof {
    /// By the mirror, as far as it is trusted, else by asking Redis.
    Mirror,
    /// Redis has just told what became of the names: the mirror can be believed without trust.
    Verified,
    /// Not at all: only a load that begins now will do.
    Fresh,
}

/// Whether the bytes of a value in Redis are one of those that a look-up is for. Others are a miss.
pub(crate) type Readable = fn(&[u8]) -> bool;

/// How far ahead of the time a clock can be that this replica has not heard of: what two readings
/// of Redis's time may differ by after an outage, with much to spare.
const AHEAD: Duration = Duration::from_secs(3600);

/// See the module.
pub(crate) struct Core {
    pub(crate) memory: Arc<MemoryTier>,
    pub(crate) redis: RedisTier,
    pub(crate) flights: Arc<Flights>,
    pub(crate) failures: Failures,
    pub(crate) loaders: Loaders,
    pub(crate) mirror: Arc<Mirror>,
    pub(crate) clock: Arc<Clock>,
    pub(crate) max_staleness: Duration,
}

impl Core {
    /// What memory may answer with to a reader who came at `now` and knows of changes up to the clock `after`. Does not block, waits for
    /// no lock that a load can hold.
    pub(crate) fn look(
        &self,
        key: &str,
        policy: &Policy,
        after: u64,
        now: Micros,
    ) -> Option<Answer> {
        self.serve(self.memory.get(key)?, policy, after, now)
    }

    fn serve(&self, entry: Arc<Entry>, policy: &Policy, after: u64, now: Micros) -> Option<Answer> {
        if !self.mirror.is_trusted(now) && !self.may_serve_blind(&entry, policy, now) {
            return None;
        }
        if after > 0
            && !self.has_heard(after)
            && (self.redis.pool().answers() || !self.is_ahead(after))
        {
            return None;
        }
        let outcome = if now < entry.ends.memory_until
            && self.mirror.standing(entry.dependencies()) == Standing::Valid
        {
            Outcome::MemoryHit
        } else {
            // Held: its renewal failed, and is not tried again before its time.
            let (until, reason) = entry.hold()?;
            if now >= until || self.judge_stale(&entry, policy) == Freshness::Dead {
                return None;
            }
            Outcome::Stale(reason)
        };
        Some(Answer {
            entry,
            outcome,
            trace: Trace::default(),
        })
    }

    /// Keeps an entry of `subject` in memory, as long as it is of any use there, and returns it.
    pub(crate) fn keep(&self, subject: &CacheItem, entry: Entry) -> Arc<Entry> {
        let key = subject.key.clone();
        self.memory.fill(key, entry, &subject.policy, &self.clock)
    }

    /// Whether the bus has brought everything up to this clock.
    pub(crate) fn has_heard(&self, clock: u64) -> bool {
        self.mirror.history().applied() >= clock
    }

    /// Whether the history that is known here cannot have given this clock yet: it is far ahead of
    /// the clock that was heard last and of Redis's time, and a clock is one more than the last or
    /// Redis's time, whichever is later. It is of an earlier history, after which everything was
    /// loaded that is valid now, or of none.
    pub(crate) fn is_ahead(&self, clock: u64) -> bool {
        let redis_time = self.clock.redis_of_local(self.clock.now());
        let latest = self.mirror.history().applied().max(redis_time);
        clock > latest.saturating_add(micros(AHEAD))
    }

    /// A claim of `caller` to the answer of `request`, which starts the load if nobody has. Does
    /// not block.
    pub(crate) fn fetch(
        self: &Arc<Self>,
        request: Request,
        caller: Caller,
        proof: Proof,
    ) -> Ticket {
        self.begin(request, &Behalf::Reader(caller), proof, None)
    }

    /// The same where what Redis has may be of another type.
    pub(crate) fn fetch_readable(
        self: &Arc<Self>,
        request: Request,
        caller: Caller,
        readable: Readable,
    ) -> Ticket {
        let behalf = Behalf::Reader(caller);
        self.begin(request, &behalf, Proof::Mirror, Some(readable))
    }

    /// The same for a part of the look-up that `whole` is interested in.
    pub(crate) fn fetch_part(
        self: &Arc<Self>,
        request: Request,
        whole: &Arc<Interest>,
        proof: Proof,
    ) -> Ticket {
        self.begin(request, &Behalf::Whole(whole.clone()), proof, None)
    }

    fn begin(
        self: &Arc<Self>,
        request: Request,
        behalf: &Behalf,
        proof: Proof,
        readable: Option<Readable>,
    ) -> Ticket {
        let Request { subject, making } = request;
        let whole = matches!(behalf, Behalf::Reader(_));
        if !whole
            && proof != Proof::Fresh
            && let Some(answer) =
                self.look(subject.key.as_str(), &subject.policy, 0, self.clock.now())
        {
            return Ticket::ready(answer);
        }
        let max_staleness = self.max_staleness;
        let joinable = |flight: &Flight| {
            proof != Proof::Fresh
                && flight
                    .look(|dependency, began, unproven| {
                        // A reader joins only what could be served to it: nothing invalidated since the load began, and nothing that
                        // this replica might not have heard of.
                        self.mirror.standing(std::iter::once(dependency)) == Standing::Valid
                            && (proof == Proof::Verified
                                || self.mirror.is_trusted(self.clock.now())
                                || (!unproven && began.elapsed() < max_staleness))
                    })
                    .unwrap_or(true)
        };
        let names: Arc<[InvalidationTarget]> = making.names(&subject);
        let core = self.clone();
        self.flights.join(
            &subject.key.clone(),
            behalf,
            joinable,
            proof == Proof::Fresh,
            move |landing| {
                landing.stamp(core.mirror.dependency(core.mirror.stamp(), &names));
                // Look again: a flight that this look-up missed in memory may have filled it and landed before the table was asked,
                // and then a second load would follow the first one for nothing.
                let in_memory = core
                    .memory
                    .get(subject.key.as_str())
                    .filter(|_| proof != Proof::Fresh);
                if let Some(answer) = in_memory
                    .clone()
                    .and_then(|entry| core.serve(entry, &subject.policy, 0, core.clock.now()))
                {
                    return landing.end(Ok(answer));
                }
                match making {
                    Producer::Load(load) => {
                        let progress = Progress::new(in_memory);
                        Miss {
                            core,
                            landing,
                            subject,
                            whole,
                            load,
                            names,
                            proof,
                            readable,
                            progress,
                        }
                        .start();
                    }
                    Producer::Compose(composition) => {
                        compose::start(
                            &core,
                            landing,
                            in_memory,
                            subject,
                            names,
                            composition,
                            proof,
                        );
                    }
                }
            },
        )
    }
}
