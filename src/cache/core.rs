//! What the stages of a look-up share.

use std::sync::Arc;

use super::clock::Clock;
use super::coherence::Mirror;
use super::compose;
use super::entry::Entry;
use super::flight::{Flights, Ticket};
use super::loaders::Loaders;
use super::memory_tier::MemoryTier;
use super::miss::{Miss, Progress};
use super::outcome::{Answer, Outcome, Trace};
use super::policy::{Freshness, Policy};
use super::redis_tier::RedisTier;
use super::request::{Making, Request};

/// See the module.
pub(crate) struct Core {
    pub(crate) memory: Arc<MemoryTier>,
    pub(crate) redis: RedisTier,
    pub(crate) flights: Arc<Flights>,
    pub(crate) loaders: Loaders,
    pub(crate) mirror: Arc<Mirror>,
    pub(crate) clock: Arc<Clock>,
}

impl Core {
    /// What memory may answer with. Does not block, waits for no lock that a load can hold.
    pub(crate) fn look(&self, key: &str, policy: &Policy) -> Option<Answer> {
        self.serve(&self.memory.get(key)?, policy)
    }

    fn serve(&self, entry: &Arc<Entry>, policy: &Policy) -> Option<Answer> {
        let now = self.clock.now();
        let outcome = if now < entry.ends.memory_until && entry.epoch == self.mirror.epoch() {
            Outcome::MemoryHit
        } else {
            // Held: its renewal failed, and is not tried again before its time.
            let (until, reason) = entry.hold?;
            if now >= until || self.judge_stale(entry, policy) == Freshness::Dead {
                return None;
            }
            Outcome::Stale(reason)
        };
        Some(Answer {
            entry: entry.clone(),
            outcome,
            trace: Trace::default(),
        })
    }

    /// A claim to the answer of `request`, which starts the load if nobody has. Does not block.
    pub(crate) fn fetch(self: &Arc<Self>, request: Request) -> Ticket {
        self.begin(request, true)
    }

    /// The same for a part of another look-up.
    pub(crate) fn fetch_part(self: &Arc<Self>, request: Request) -> Ticket {
        self.begin(request, false)
    }

    fn begin(self: &Arc<Self>, request: Request, whole: bool) -> Ticket {
        if !whole
            && let Some(answer) = self.look(request.subject.key.as_str(), &request.subject.policy)
        {
            return Ticket::ready(answer);
        }
        let (ticket, landing) = self.flights.join(&request.subject.key);
        let Some(landing) = landing else {
            return ticket;
        };
        // Look again: a flight that this look-up missed in memory may have filled it and landed before the table was asked, and
        // then a second load would follow the first one for nothing.
        let in_memory = self.memory.get(request.subject.key.as_str());
        if let Some(answer) = in_memory
            .as_ref()
            .and_then(|entry| self.serve(entry, &request.subject.policy))
        {
            landing.end(Ok(answer));
            return ticket;
        }
        let Request { subject, making } = request;
        match making {
            Making::Load(load) => {
                let progress = Progress::new(in_memory);
                let core = self.clone();
                Miss {
                    core,
                    landing,
                    subject,
                    whole,
                    load,
                    progress,
                }
                .start();
            }
            Making::Compose(composition) => {
                compose::start(self, landing, in_memory, subject, composition);
            }
        }
        ticket
    }
}
