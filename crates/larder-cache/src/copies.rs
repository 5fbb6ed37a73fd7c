//! Copies that are there: from memory, else from Redis, and never by a load.
//!
//! Who asks so joins no flight and begins none. A copy is given only while it is fresh: to serve a
//! stale one, somebody must load a new one. What Redis has is kept in memory.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};

use super::answer::{Answer, Trace};
use super::coherence::InvalidationTarget;
use super::entry::Entry;
use super::freshness::{Decision, Evidence};
use super::object::Hold;
use super::outcome::Outcome;
use super::redis_tier::Wanted;
use super::redis_tier::reads::Read;
use super::request::CacheItem;
use super::tiers::Tiers;

/// One copy that is wanted.
pub(crate) enum Place {
    /// Memory had it.
    Found(Answer),
    /// Memory does not have it.
    Wanted(CacheItem),
}

impl Place {
    fn found(&self) -> Option<Answer> {
        match self {
            Place::Found(answer) => Some(answer.clone()),
            Place::Wanted(_) => None,
        }
    }

    fn wanted(self) -> Option<CacheItem> {
        match self {
            Place::Found(_) => None,
            Place::Wanted(item) => Some(item),
        }
    }
}

/// The copies in these places, in their order. Asks Redis for those that memory does not have, in
/// as few questions as it can. Does not block.
pub(crate) fn find(tiers: &Arc<Tiers>, places: Vec<Place>, hold: &Hold) -> Copies {
    let shared = Arc::new(Shared {
        state: Mutex::new(State {
            copies: places.iter().map(Place::found).collect(),
            missing: 0,
            waker: None,
        }),
        complete: Condvar::new(),
    });
    let trusted = tiers.mirror.is_trusted(tiers.clock.now());
    let questions: Vec<Question> = places
        .into_iter()
        .enumerate()
        .filter_map(|(at, place)| Some((at, place.wanted()?)))
        .filter(|(_, item)| is_worth_asking(tiers, item, trusted))
        .map(|(at, item)| Question {
            tiers: tiers.clone(),
            targets: item.targets().collect(),
            item,
            hold: hold.clone(),
            trusted,
            asked_at: Instant::now(),
            reply: Reply::new(&shared, at),
        })
        .collect();
    let keys: Vec<_> = questions.iter().map(|one| one.item.key.clone()).collect();
    let wanted = keys.iter().zip(questions).map(|(key, question)| Wanted {
        key,
        // Without trust the mirror may not know what was invalidated: Redis is asked for that, too.
        targets: (!trusted).then(|| question.targets.clone()),
        reply: Box::new(move |read| question.on_read(read)),
    });
    tiers.redis.read_all(wanted.collect());
    Copies(shared)
}

/// A resource without the Redis tier has nothing to read there, unless a copy from memory has to be
/// verified.
fn is_worth_asking(tiers: &Tiers, item: &CacheItem, trusted: bool) -> bool {
    let verify = || !trusted && tiers.memory.get(item.key.as_str()).is_some();
    !item.policy.redis.is_zero() || verify()
}

/// Copies on their way: a future, or something to wait for on a thread.
pub(crate) struct Copies(Arc<Shared>);

impl Copies {
    /// Waits on this thread, for as long as Redis may take to reply.
    pub(crate) fn wait(self) -> Vec<Option<Answer>> {
        let mut state = self.0.state.lock();
        self.0
            .complete
            .wait_while(&mut state, |state| state.missing > 0);
        std::mem::take(&mut state.copies)
    }
}

impl Future for Copies {
    type Output = Vec<Option<Answer>>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.0.state.lock();
        if state.missing == 0 {
            return Poll::Ready(std::mem::take(&mut state.copies));
        }
        state.waker = Some(context.waker().clone());
        Poll::Pending
    }
}

struct Shared {
    /// Protects the copies that have come so far.
    state: Mutex<State>,
    /// Notified when all are there.
    complete: Condvar,
}

struct State {
    copies: Vec<Option<Answer>>,
    missing: usize,
    waker: Option<Waker>,
}

/// Where one copy goes. If it is dropped before there is one, by a panic too, there is none.
struct Reply {
    to: Arc<Shared>,
    at: usize,
    copy: Option<Answer>,
}

impl Reply {
    fn new(to: &Arc<Shared>, at: usize) -> Reply {
        to.state.lock().missing += 1;
        Reply {
            to: to.clone(),
            at,
            copy: None,
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        let mut state = self.to.state.lock();
        if let Some(place) = state.copies.get_mut(self.at) {
            *place = self.copy.take();
        }
        state.missing -= 1;
        if state.missing == 0 {
            let waker = state.waker.take();
            drop(state);
            self.to.complete.notify_all();
            waker.into_iter().for_each(Waker::wake);
        }
    }
}

/// A question to Redis for one copy.
struct Question {
    tiers: Arc<Tiers>,
    item: CacheItem,
    targets: Arc<[InvalidationTarget]>,
    hold: Hold,
    /// Whether the mirror was trusted as Redis was asked. Then it was not asked for the targets.
    trusted: bool,
    asked_at: Instant,
    reply: Reply,
}

impl Question {
    /// What Redis has, on a reading thread.
    fn on_read(mut self, read: Read) {
        let took = match read {
            Read::Down => None,
            Read::Hit(_) | Read::Miss => Some(self.asked_at.elapsed()),
        };
        let found = match &read {
            Read::Hit(bytes) => self.in_redis(bytes).or_else(|| self.in_memory()),
            Read::Miss => self.in_memory(),
            Read::Down => {
                let (key, now) = (self.item.key.as_str(), self.tiers.clock.now());
                let found = self.tiers.look(key, &self.item.policy, None, now);
                found.map(|answer| (answer.entry, answer.outcome))
            }
        };
        let Some((entry, outcome)) = found else {
            if took.is_some() {
                self.item.tally.own().count_redis_miss();
            }
            return;
        };
        let trace = Trace {
            redis: took,
            ..Trace::default()
        };
        let answer = Ok(Answer {
            entry,
            outcome,
            trace,
        });
        self.item.tally.count(&answer);
        self.reply.copy = answer.ok();
    }

    fn in_redis(&self, bytes: &Bytes) -> Option<(Arc<Entry>, Outcome)> {
        let (tiers, item) = (&self.tiers, &self.item);
        // Trust ended while the reply was on its way: what the mirror lets pass now proves nothing.
        if self.trusted && !tiers.mirror.is_trusted(tiers.clock.now()) {
            return None;
        }
        let entry = tiers.copy_of(item, &self.targets, Some(&self.hold), bytes)?;
        let is_fresh = tiers.decide_redis_copy(&entry, &item.policy) == Decision::Serve;
        is_fresh.then(|| (tiers.keep(item, entry), Outcome::RedisHit))
    }

    /// The copy in memory, if it may be served now that Redis has said what was invalidated of it.
    fn in_memory(&self) -> Option<(Arc<Entry>, Outcome)> {
        let (tiers, item) = (&self.tiers, &self.item);
        let entry = tiers.memory.get(item.key.as_str())?;
        let now = tiers.clock.now();
        let heard = if self.trusted {
            Evidence::NotAsked
        } else {
            Evidence::Verified
        };
        let evidence = tiers.evidence_after(heard, now);
        let is_fresh = tiers.decide(&entry, evidence, &item.policy, now) == Decision::Serve;
        is_fresh.then_some((entry, Outcome::MemoryHit))
    }
}
