//! The miss: flight -> Redis -> lease -> source -> fill Redis -> fill memory.
//!
//! A [`Miss`] is one flight on this way. It is moved from stage to stage, and with it the landing, so that wherever it is lost the
//! flight ends. No stage waits for another replica on a thread: it comes back to the Redis readers' queue after a pause.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::coherence::{InvalidationTarget, Standing};
use super::core::{Core, Proof, Readable};
use super::entry::{Entry, Value};
use super::envelope;
use super::flight::Landing;
use super::outcome::{Answer, Outcome, Staleness, Trace};
use super::policy::Freshness;
use super::random::random;
use super::redis_tier::reads::Read;
use super::request::{CacheItem, Load};
use super::verdict::Word;

/// The first and the longest pause between two looks for what another replica is loading.
pub(super) const PAUSES: (Duration, Duration) =
    (Duration::from_millis(4), Duration::from_millis(100));

/// See the module.
pub(crate) struct Miss {
    pub(crate) core: Arc<Core>,
    pub(crate) landing: Landing,
    pub(crate) subject: CacheItem,
    /// Whether a look-up of its own, not a part of another one.
    pub(crate) whole: bool,
    pub(crate) load: Load,
    /// What the value depends on: its tags and its own key.
    pub(crate) names: Arc<[InvalidationTarget]>,
    pub(crate) proof: Proof,
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
    /// What Redis has said of the names, so that more than the mirror vouches for the copies at hand.
    pub(super) word: Word,
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
            word: Word::Unasked,
        }
    }
}

impl Miss {
    /// The first stage. Does not block.
    pub(crate) fn start(self) {
        if self.proof == Proof::Fresh {
            return self.submit();
        }
        // A resource without the Redis tier has nothing to read there, unless its copy in memory has to be verified.
        let verify =
            self.progress.stale.is_some() && !self.core.mirror.is_trusted(self.core.clock.now());
        if self.subject.policy.redis.is_zero() && !verify {
            self.without_redis()
        } else {
            self.ask_redis(Duration::ZERO)
        }
    }

    pub(super) fn ask_redis(mut self, pause: Duration) {
        let (core, key) = (self.core.clone(), self.subject.key.clone());
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
                self.progress.word = match read {
                    Read::Hit(_) | Read::Miss => Word::Told,
                    Read::Down => Word::Silent,
                };
            }
            match read {
                // Trust ended while the reply was on its way: what the mirror lets pass now proves nothing.
                Read::Hit(_)
                    if !was_checked && !self.core.mirror.is_trusted(self.core.clock.now()) =>
                {
                    self.ask_redis(Duration::ZERO);
                }
                Read::Hit(bytes) => self.found(bytes),
                Read::Miss => match self.verified_copy().filter(|_| was_checked) {
                    Some(answer) => self.landing.end(Ok(answer)),
                    None => self.without_redis(),
                },
                Read::Down if was_checked => {
                    let copy = self.progress.stale.as_ref();
                    if let Some(answer) =
                        copy.and_then(|copy| self.core.serve_blind(copy, &self.subject.policy))
                    {
                        return self.landing.end(Ok(answer));
                    }
                    self.without_redis();
                }
                Read::Down => self.without_redis(),
            }
        };
        core.redis.read(&key, checked, pause, then);
    }

    /// The copy that was in memory, if it is fresh and Redis has just told that nothing of it was invalidated.
    fn verified_copy(&self) -> Option<Answer> {
        let (core, copy) = (&self.core, self.progress.stale.as_ref()?);
        let fresh = core.clock.now() < copy.ends.memory_until;
        (fresh && core.mirror.standing(copy.dependencies()) == Standing::Valid)
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
        let policy = &self.subject.policy;
        let entry = envelope::decode(bytes, own, policy, random(), &core.clock)?;
        if let (Some(readable), Value::Present(value)) = (self.readable, &entry.value)
            && !readable(value)
        {
            self.subject.tally.count_unreadable();
            return None;
        }
        let freshness = core.judge(&entry, entry.ends.fresh_until, policy);
        if freshness == Freshness::Fresh {
            let entry = core.keep(&self.subject, entry);
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
        if freshness != Freshness::Dead && self.progress.stale.as_ref().is_none_or(newer) {
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
        let (core, policy, entry) = (
            self.core.clone(),
            self.subject.policy.clone(),
            entry.clone(),
        );
        let (trace, freshness) = (self.trace(), core.judge_stale(&entry, &policy));
        let word = self.progress.word;
        // Looked at again at the moment when it is given: a hard invalidation may have come.
        let given = move |least: Freshness, why: Staleness| {
            let (core, policy, entry) = (core.clone(), policy.clone(), entry.clone());
            move || {
                // Who comes when trust is over must not be given what the mirror alone has let pass.
                (core.judge_stale(&entry, &policy) <= least
                    && core.may_stand_in(&entry, &policy, word))
                .then(|| Answer {
                    entry: entry.clone(),
                    outcome: Outcome::Stale(why),
                    trace,
                })
            }
        };
        match freshness {
            // Who is blind cannot tell a fresh copy from one that was invalidated: it stands in for an error only.
            Freshness::Fresh | Freshness::Revalidate if word != Word::Silent => {
                self.progress.offered = true;
                self.landing
                    .offer(given(Freshness::Revalidate, Staleness::WhileRevalidate));
            }
            Freshness::Dead => self.progress.stale = None,
            _ => self
                .landing
                .set_fallback(given(Freshness::IfError, Staleness::SoftTimeout)),
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
