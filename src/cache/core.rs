//! What the stages of a look-up share.

use std::cell::Cell;
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

    /// A number for jitter; a new one each time.
    pub(crate) fn jitter(&self) -> u64 {
        self.random()
    }

    /// A number that no other process draws: an identity of a load.
    pub(crate) fn random(&self) -> u64 {
        thread_local!(static STATE: Cell<u64> = Cell::new(super::coherence::Epoch::random().0));
        // SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014), seeded by the system.
        STATE.with(|state| {
            let next = state.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
            state.set(next);
            let mixed = (next ^ (next >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^ (mixed >> 31)
        })
    }
}
