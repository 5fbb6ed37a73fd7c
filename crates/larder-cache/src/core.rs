//! What the stages of a look-up share.

use std::sync::Arc;
use std::time::Duration;

use super::clock::{Clock, Micros, micros};
use super::coherence::{InvalidationTarget, Mirror};
use super::compose;
use super::entry::Entry;
use super::failures::Failures;
use super::fair_queue::Caller;
use super::flight::{Flight, Flights};
use super::freshness::{Decision, Evidence, decide, may_join};
use super::interest::{Behalf, Interest};
use super::loaders::Loaders;
use super::memory_tier::MemoryTier;
use super::miss::{Miss, Progress};
use super::outcome::{Answer, Outcome, Trace};
use super::policy::Policy;
use super::redis_tier::RedisTier;
use super::request::{CacheItem, Producer, Request};
use super::ticket::Ticket;

/// What a reader accepts for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Accepts {
    /// Any copy that may be served, and any load under way that will bring one. The evidence is
    /// what the reader knew when it came: [`Evidence::Verified`] if Redis has just been asked for it.
    Copies(Evidence),
    /// Only what a load brings that begins now.
    NewLoad,
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
        let evidence = self.evidence(now);
        if evidence == Evidence::NotAsked {
            return None;
        }
        if after > 0
            && !self.has_heard(after)
            && (self.redis.pool().answers() || !self.is_ahead(after))
        {
            return None;
        }
        let copy = self.facts(&entry, entry.expiry.memory_until, policy);
        let outcome = match decide(&copy, evidence, policy, now) {
            Decision::Serve => Outcome::MemoryHit,
            // Its reload failed a moment ago, and is not tried again yet.
            Decision::ServeAndRefresh | Decision::OnlyIfLoadFails => {
                let backoff = entry.backoff()?;
                let covered =
                    evidence == Evidence::Trusted || copy.is_within_disconnected_ttl(policy, now);
                if now >= backoff.until || !covered {
                    return None;
                }
                Outcome::Stale(backoff.reason)
            }
            Decision::Refuse => return None,
        };
        Some(Answer {
            entry,
            outcome,
            trace: Trace::default(),
        })
    }

    /// Keeps an entry of `item` in memory, as long as it is of any use there, and returns it.
    pub(crate) fn keep(&self, item: &CacheItem, entry: Entry) -> Arc<Entry> {
        let key = item.key.clone();
        self.memory.fill(key, entry, &item.policy, &self.clock)
    }

    /// Whether the bus has brought everything up to this clock.
    pub(crate) fn has_heard(&self, clock: u64) -> bool {
        self.mirror.era().last() >= clock
    }

    /// Whether the history that is known here cannot have given this clock yet: it is far ahead of
    /// the clock that was heard last and of Redis's time, and a clock is one more than the last or
    /// Redis's time, whichever is later. It is of an earlier history, after which everything was
    /// loaded that is valid now, or of none.
    pub(crate) fn is_ahead(&self, clock: u64) -> bool {
        let redis_time = self.clock.redis_of_local(self.clock.now());
        let latest = self.mirror.era().last().max(redis_time);
        clock > latest.saturating_add(micros(AHEAD))
    }

    /// A claim of `caller` to the answer of `request`, which starts the load if nobody has. Does
    /// not block.
    pub(crate) fn fetch(
        self: &Arc<Self>,
        request: Request,
        caller: Caller,
        accepts: Accepts,
    ) -> Ticket {
        self.begin(request, &Behalf::Reader(caller), accepts, None)
    }

    /// The same where what Redis has may be of another type.
    pub(crate) fn fetch_readable(
        self: &Arc<Self>,
        request: Request,
        caller: Caller,
        readable: Readable,
    ) -> Ticket {
        let behalf = Behalf::Reader(caller);
        self.begin(
            request,
            &behalf,
            Accepts::Copies(Evidence::NotAsked),
            Some(readable),
        )
    }

    /// The same for a part of the look-up that `whole` is interested in.
    pub(crate) fn fetch_part(
        self: &Arc<Self>,
        request: Request,
        whole: &Arc<Interest>,
        accepts: Accepts,
    ) -> Ticket {
        self.begin(request, &Behalf::Whole(whole.clone()), accepts, None)
    }

    fn begin(
        self: &Arc<Self>,
        request: Request,
        behalf: &Behalf,
        accepts: Accepts,
        readable: Option<Readable>,
    ) -> Ticket {
        let Request { item, producer } = request;
        let whole = matches!(behalf, Behalf::Reader(_));
        if !whole
            && accepts != Accepts::NewLoad
            && let Some(answer) = self.look(item.key.as_str(), &item.policy, 0, self.clock.now())
        {
            return Ticket::ready(answer);
        }
        let joinable = |flight: &Flight| match accepts {
            Accepts::Copies(known) => flight
                .look(|dependency, began, unproven| {
                    let evidence = if known == Evidence::Verified {
                        known
                    } else if self.mirror.is_trusted(self.clock.now()) {
                        Evidence::Trusted
                    } else if !unproven && began.elapsed() < self.max_staleness {
                        // The load asks its source or Redis itself, and began late enough.
                        Evidence::Verified
                    } else {
                        Evidence::NotAsked
                    };
                    may_join(self.mirror.standing(std::iter::once(dependency)), evidence)
                })
                .unwrap_or(true),
            Accepts::NewLoad => false,
        };
        let names: Arc<[InvalidationTarget]> = producer.names(&item);
        let core = self.clone();
        self.flights.join(
            &item.key.clone(),
            behalf,
            joinable,
            accepts == Accepts::NewLoad,
            move |landing| {
                landing.stamp(core.mirror.dependency(core.mirror.stamp(), &names));
                // Look again: a flight that this look-up missed in memory may have filled it and landed before the table was asked,
                // and then a second load would follow the first one for nothing.
                let in_memory = core
                    .memory
                    .get(item.key.as_str())
                    .filter(|_| accepts != Accepts::NewLoad);
                if let Some(answer) = in_memory
                    .clone()
                    .and_then(|entry| core.serve(entry, &item.policy, 0, core.clock.now()))
                {
                    return landing.end(Ok(answer));
                }
                match producer {
                    Producer::Load(load) => {
                        let progress = Progress::new(in_memory);
                        Miss {
                            core,
                            landing,
                            item,
                            whole,
                            load,
                            names,
                            accepts,
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
                            item,
                            names,
                            composition,
                            accepts,
                        );
                    }
                }
            },
        )
    }
}
