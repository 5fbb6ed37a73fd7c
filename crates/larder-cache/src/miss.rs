//! The miss: flight -> Redis -> lease -> source -> fill Redis -> fill memory.
//!
//! A [`Miss`] is one flight on this way. It is moved from stage to stage, and with it the landing, so that wherever it is lost the
//! flight ends. No stage waits for another replica on a thread: it comes back to the Redis readers' queue after a pause.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::clock::Micros;
use super::coherence::InvalidationTarget;
use super::core::{Accepts, Core, Readable};
use super::entry::{Entry, Value};
use super::envelope;
use super::flight::Landing;
use super::freshness::{Decision, Evidence, decide};
use super::outcome::{Answer, Outcome, Staleness, Trace};
use super::random::random;
use super::redis_tier::reads::Read;
use super::request::{CacheItem, Load};

/// The first and the longest pause between two looks for what another replica is loading.
pub(super) const PAUSES: (Duration, Duration) =
    (Duration::from_millis(4), Duration::from_millis(100));

/// See the module.
pub(crate) struct Miss {
    pub(crate) core: Arc<Core>,
    pub(crate) landing: Landing,
    pub(crate) item: CacheItem,
    /// Whether a look-up of its own, not a part of another one.
    pub(crate) whole: bool,
    pub(crate) load: Load,
    /// What the value depends on: its tags and its own key.
    pub(crate) names: Arc<[InvalidationTarget]>,
    pub(crate) accepts: Accepts,
    /// `None`: whatever Redis has under the key is what is looked for.
    pub(crate) readable: Option<Readable>,
    pub(crate) progress: Progress,
}

/// What a miss has come to know on its way.
pub(crate) struct Progress {
    pub(super) began: Instant,
    /// The best copy that is past its TTL.
    pub(super) stale: Option<Arc<Entry>>,
    /// The newest copy at hand, which the source may confirm, be it too old to be served.
    pub(super) previous: Option<Arc<Entry>>,
    pub(super) offered: bool,
    /// The id of the load whose envelope was seen in Redis.
    pub(super) seen: Bytes,
    /// The token of the lease that another replica's load holds.
    pub(super) waited_for: Option<String>,
    pub(super) pause: Duration,
    redis: Option<Duration>,
    /// What Redis has said in this look-up. That it is up says nothing: it may refuse every question.
    asked: Evidence,
}

impl Progress {
    pub(crate) fn new(in_memory: Option<Arc<Entry>>) -> Progress {
        Progress {
            began: Instant::now(),
            stale: in_memory.clone(),
            previous: in_memory,
            offered: false,
            seen: Bytes::new(),
            waited_for: None,
            pause: PAUSES.0,
            redis: None,
            asked: Evidence::NotAsked,
        }
    }
}

impl Miss {
    /// The first stage. Does not block.
    pub(crate) fn start(self) {
        if self.accepts == Accepts::NewLoad {
            return self.submit();
        }
        // A resource without the Redis tier has nothing to read there, unless its copy in memory has to be verified.
        let verify = self.progress.stale.is_some() && self.evidence() == Evidence::NotAsked;
        if self.item.policy.redis.is_zero() && !verify {
            self.without_redis()
        } else {
            self.ask_redis(Duration::ZERO)
        }
    }

    pub(super) fn ask_redis(mut self, pause: Duration) {
        let (core, key) = (self.core.clone(), self.item.key.clone());
        let asked = Instant::now() + pause;
        // Without trust the mirror may not know what became of the value: Redis is asked for that, too.
        let checked = (!core.mirror.is_trusted(core.clock.now())).then(|| self.names.clone());
        let was_checked = checked.is_some();
        self.landing.set_unproven(!was_checked);
        let then = move |read| {
            if !matches!(read, Read::Down) {
                let took = Instant::now().saturating_duration_since(asked);
                self.progress.redis = Some(self.progress.redis.unwrap_or_default() + took);
            }
            // Only now: a question that was not answered vouches for nothing.
            if was_checked {
                self.heard(!matches!(read, Read::Down));
            }
            match read {
                // Trust ended while the reply was on its way: what the mirror lets pass now proves nothing.
                Read::Hit(_) if !was_checked && self.evidence() != Evidence::Trusted => {
                    self.ask_redis(Duration::ZERO);
                }
                Read::Hit(bytes) => self.found(bytes),
                Read::Miss | Read::Down => match self.copy_in_memory().filter(|_| was_checked) {
                    Some(answer) => self.landing.end(Ok(answer)),
                    None => self.without_redis(),
                },
            }
        };
        core.redis.read(&key, checked, pause, then);
    }

    /// Notes whether Redis has answered what became of the names.
    pub(super) fn heard(&mut self, answered: bool) {
        self.progress.asked = if answered {
            Evidence::Verified
        } else {
            Evidence::Unreachable
        };
    }

    /// What vouches for the copies at hand now.
    pub(super) fn evidence(&self) -> Evidence {
        evidence(&self.core, self.progress.asked, self.core.clock.now())
    }

    /// What may be done with a copy at hand now.
    pub(super) fn decide(&self, entry: &Entry) -> Decision {
        let now = self.core.clock.now();
        self.core
            .decide(entry, self.evidence(), &self.item.policy, now)
    }

    /// The copy that was in memory, if it may be served now that Redis was asked.
    fn copy_in_memory(&self) -> Option<Answer> {
        let copy = self.progress.stale.as_ref()?;
        (self.decide(copy) == Decision::Serve)
            .then(|| self.answer(copy.clone(), Outcome::MemoryHit))
    }

    fn found(mut self, bytes: Bytes) {
        match self.look_into(&bytes) {
            Some(answer) => self.landing.end(Ok(answer)),
            None => {
                self.offer_stale();
                self.submit();
            }
        }
    }

    /// The answer that these bytes give, if they are fresh. If not, what they are good for is noted.
    pub(super) fn look_into(&mut self, bytes: &Bytes) -> Option<Answer> {
        self.progress.seen = Bytes::copy_from_slice(envelope::load_id(bytes));
        let core = &self.core;
        let own = |stamp| core.mirror.dependency(stamp, &self.names);
        let policy = &self.item.policy;
        let entry = envelope::decode(bytes, own, policy, random(), &core.clock)?;
        if let (Some(readable), Value::Present(value)) = (self.readable, &entry.value)
            && !readable(value)
        {
            self.item.tally.count_unreadable();
            return None;
        }
        let copy = core.facts(&entry, entry.expiry.fresh_until, policy);
        // Redis has it, and what it says of the names is known: trust or a question has come before.
        let decision = decide(&copy, Evidence::Verified, policy, core.clock.now());
        if decision == Decision::Serve {
            let entry = core.keep(&self.item, entry);
            let waited = self.progress.waited_for.is_some();
            let outcome = if waited {
                Outcome::Collapsed
            } else {
                Outcome::RedisHit
            };
            return Some(self.answer(entry, outcome));
        }
        let entry = Arc::new(entry);
        let newer = |old: &Arc<Entry>| old.loaded_at <= entry.loaded_at;
        if self.progress.previous.as_ref().is_none_or(newer) {
            self.progress.previous = Some(entry.clone());
        }
        if decision != Decision::Refuse && self.progress.stale.as_ref().is_none_or(newer) {
            self.progress.stale = Some(entry);
        }
        None
    }

    fn without_redis(mut self) {
        self.offer_stale();
        self.submit();
    }

    /// Serves the stale copy to those who wait, as far as policy allows.
    pub(super) fn offer_stale(&mut self) {
        let Some(entry) = &self.progress.stale else {
            return;
        };
        if self.progress.offered {
            return;
        }
        let decision = self.decide(entry);
        let (core, policy, entry) = (self.core.clone(), self.item.policy.clone(), entry.clone());
        let (trace, asked) = (self.trace(), self.progress.asked);
        // Decided again at the moment when it is given: a hard invalidation may have come, or trust may be over.
        let given = move |least: Decision, why: Staleness| {
            let (core, policy, entry) = (core.clone(), policy.clone(), entry.clone());
            move || {
                let now = core.clock.now();
                let evidence = evidence(&core, asked, now);
                (core.decide(&entry, evidence, &policy, now) <= least).then(|| Answer {
                    entry: entry.clone(),
                    outcome: Outcome::Stale(why),
                    trace,
                })
            }
        };
        match decision {
            Decision::Serve | Decision::ServeAndRefresh => {
                self.progress.offered = true;
                self.landing
                    .offer(given(Decision::ServeAndRefresh, Staleness::WhileRevalidate));
            }
            Decision::OnlyIfLoadFails => self
                .landing
                .set_fallback(given(Decision::OnlyIfLoadFails, Staleness::SoftTimeout)),
            Decision::Refuse => match self.evidence() {
                Evidence::Trusted | Evidence::Verified => self.progress.stale = None,
                // Somebody may vouch for it by the time that a load has failed.
                Evidence::Unreachable | Evidence::NotAsked => {}
            },
        }
    }

    pub(super) fn answer(&self, entry: Arc<Entry>, outcome: Outcome) -> Answer {
        Answer {
            entry,
            outcome,
            trace: self.trace(),
        }
    }

    pub(super) fn trace(&self) -> Trace {
        Trace {
            redis: self.progress.redis,
            source: None,
            stored: false,
        }
    }
}

/// What vouches for copies at `now` in a look-up that has heard this from Redis.
fn evidence(core: &Core, asked: Evidence, now: Micros) -> Evidence {
    if core.mirror.is_trusted(now) {
        Evidence::Trusted
    } else {
        asked
    }
}
