//! The miss: flight -> Redis -> lease -> source -> fill Redis -> fill memory.
//!
//! A [`Miss`] is one flight on this way. It is moved from stage to stage, and with it the landing, so that wherever it is lost the
//! flight ends. No stage waits for another replica on a thread: it comes back to the Redis readers' queue after a pause.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::clock::{Micros, micros};
use super::coherence::{Dependency, Name, Stamp, Standing};
use super::core::{Core, Proof};
use super::entry::{Entry, hash};
use super::envelope;
use super::error::LoadError;
use super::flight::Landing;
use super::key::Key;
use super::outcome::{Answer, Outcome, Staleness, Trace};
use super::policy::{Freshness, Life, Policy};
use super::random::random;
use super::redis_tier::{Lease, Read};
use super::request::{Attempt, Load, Loaded, Previous, Subject};

/// The first and the longest pause between two looks for what another replica is loading.
const PAUSES: (Duration, Duration) = (Duration::from_millis(4), Duration::from_millis(100));

/// See the module.
pub(crate) struct Miss {
    pub(crate) core: Arc<Core>,
    pub(crate) landing: Landing,
    pub(crate) subject: Subject,
    /// Whether a look-up of its own, not a part of another one.
    pub(crate) whole: bool,
    pub(crate) load: Load,
    /// What the value depends on: its tags and its own key.
    pub(crate) names: Arc<[Name]>,
    pub(crate) proof: Proof,
    pub(crate) progress: Progress,
}

/// What a miss has come to know on its way.
pub(crate) struct Progress {
    began: Instant,
    /// The best copy that is past its TTL.
    stale: Option<Arc<Entry>>,
    /// The newest copy at hand, which the source may confirm, be it too old to be served.
    previous: Option<Arc<Entry>>,
    offered: bool,
    /// The id of the load whose envelope was seen in Redis.
    seen: Bytes,
    /// The token of the lease that another replica's load holds.
    waited_for: Option<String>,
    pause: Duration,
    redis: Option<Duration>,
    /// Whether Redis was asked what became of the names, so that more than the mirror vouches for the copies at hand.
    checked: bool,
    /// Neither the bus nor Redis can be heard.
    blind: bool,
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
            checked: false,
            blind: false,
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

    fn ask_redis(mut self, pause: Duration) {
        let (core, key) = (self.core.clone(), self.subject.key.clone());
        let asked = Instant::now() + pause;
        // Without trust the mirror may not know what became of the value: Redis is asked for that, too.
        let checked = (!core.mirror.is_trusted(core.clock.now())).then(|| self.names.clone());
        let was_checked = checked.is_some();
        self.landing.set_unproven(!was_checked);
        self.progress.checked = was_checked;
        let then = move |read| {
            if !matches!(read, Read::Down) {
                let took = Instant::now().saturating_duration_since(asked);
                self.progress.redis = Some(self.progress.redis.unwrap_or_default() + took);
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
                    self.progress.blind = true;
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
        (fresh && core.mirror.standing(&copy.dependencies) == Standing::Valid)
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
    fn look_into(&mut self, bytes: &Bytes) -> Option<Answer> {
        self.progress.seen = Bytes::copy_from_slice(envelope::load_id(bytes));
        let core = &self.core;
        let mut entry = envelope::decode(bytes, &self.subject.policy, random(), &core.clock)?;
        entry.dependencies = core.depend(entry.stamp, &self.names);
        let entry = Arc::new(entry);
        let newer = |old: &Arc<Entry>| old.loaded_at <= entry.loaded_at;
        if self.progress.previous.as_ref().is_none_or(newer) {
            self.progress.previous = Some(entry.clone());
        }
        match core.judge(&entry, entry.ends.fresh_until, &self.subject.policy) {
            Freshness::Fresh => {
                core.memory.fill(
                    self.subject.key.clone(),
                    entry.clone(),
                    &self.subject.policy,
                    &core.clock,
                );
                let waited = self.progress.waited_for.is_some();
                let outcome = if waited {
                    Outcome::Collapsed
                } else {
                    Outcome::RedisHit
                };
                Some(self.answer(entry, outcome))
            }
            Freshness::Dead => None,
            Freshness::Revalidate | Freshness::IfError => {
                if self.progress.stale.as_ref().is_none_or(newer) {
                    self.progress.stale = Some(entry);
                }
                None
            }
        }
    }

    fn without_redis(mut self) {
        self.offer_stale();
        self.submit();
    }

    /// Serves the stale copy to those who wait, as far as policy allows.
    fn offer_stale(&mut self) {
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
        let checked = self.progress.checked;
        // Looked at again at the moment when it is given: a hard invalidation may have come.
        let given = move |least: Freshness, why: Staleness| {
            let (core, policy, entry) = (core.clone(), policy.clone(), entry.clone());
            move || {
                // Who comes when trust is over must not be given what the mirror alone has let pass.
                let vouched = checked || core.mirror.is_trusted(core.clock.now());
                (vouched
                    && core.judge_stale(&entry, &policy) <= least
                    && core.may_stand_in(&entry, &policy))
                .then(|| Answer {
                    entry: entry.clone(),
                    outcome: Outcome::Stale(why),
                    trace,
                })
            }
        };
        match freshness {
            // Who is blind cannot tell a fresh copy from one that was invalidated: it stands in for an error only.
            Freshness::Fresh | Freshness::Revalidate if !self.progress.blind => {
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

    fn submit(self) {
        if let Some(error) = self
            .core
            .failures
            .held(&self.subject.key, self.core.clock.now())
        {
            return self.fall_back(error, None);
        }
        let loaders = self.core.loaders.clone();
        match loaders.place() {
            Some(place) => place.run(Box::new(move || self.run())),
            None => self.failed(LoadError::Overloaded, None),
        }
    }

    /// The stages that may block, on a loader's thread.
    fn run(mut self) {
        let token = format!("{:016x}", random());
        let stamp = match self.take_lease(&token) {
            Right::Granted(stamp) => stamp,
            Right::Answered(answer) => return self.landing.end(Ok(answer)),
            Right::Elsewhere => {
                // Another replica loads it. Waiting takes no thread; each look is a full read.
                self.offer_stale();
                let pause = self.progress.pause;
                self.progress.pause = (pause * 2).min(PAUSES.1);
                return self.ask_redis(pause);
            }
            Right::Failed(error) => return self.failed(error, None),
        };
        // From here on the value comes from the source.
        self.landing.set_unproven(false);
        // The stamp of the load: from here on readers that come later are compared with it.
        self.landing.stamp(self.core.depend(stamp, &self.names));
        if self.whole || self.progress.offered {
            self.subject.tally.count_load();
        }
        let began = Instant::now();
        let attempt = Attempt {
            deadline: began + self.load.limit,
            previous: self.previous(),
        };
        let work = std::mem::replace(
            &mut self.load,
            Load {
                limit: Duration::ZERO,
                run: Box::new(|_| Err(LoadError::Overloaded)),
            },
        );
        let loaded = catch_unwind(AssertUnwindSafe(|| (work.run)(attempt))).unwrap_or_else(|_| {
            log::error!("the load of {} panicked", self.subject.key);
            Err(LoadError::Failed("the load panicked".into()))
        });
        let took = began.elapsed();
        match loaded {
            Ok(loaded) => self.loaded(loaded, stamp, &token, took),
            Err(error) => {
                if self.uses_redis() {
                    // A lease that cannot be given back runs out by itself.
                    let _ = self.core.redis.release(&self.subject.key, &token, &error);
                }
                self.failed(error, Some(took));
            }
        }
    }

    /// The copy that the source may confirm.
    fn previous(&mut self) -> Option<Previous> {
        let copy = self.progress.previous.take()?;
        let standing = self.core.mirror.standing(&copy.dependencies);
        let confirmable = matches!(standing, Standing::Valid | Standing::Soft(_));
        let validator = copy.validator.clone().filter(|_| confirmable)?;
        Some(Previous {
            value: copy.value.bytes().clone(),
            validator,
        })
    }

    fn uses_redis(&self) -> bool {
        !self.subject.policy.redis.is_zero()
    }

    fn take_lease(&mut self, token: &str) -> Right {
        let alone = |core: &Core| Right::Granted(core.mirror.stamp());
        if !self.uses_redis() {
            return alone(&self.core);
        }
        // Twice, since what another load filled meanwhile can be stale already; it is not the same value a second time.
        for _ in 0..2 {
            let waited_for = self.progress.waited_for.as_deref();
            match self.core.redis.lease(
                &self.subject.key,
                &self.names,
                token,
                &self.progress.seen,
                waited_for,
            ) {
                Ok(Lease::Won(stamp)) => return Right::Granted(stamp),
                Ok(Lease::Held(holder)) => {
                    self.progress.waited_for = Some(holder);
                    return Right::Elsewhere;
                }
                Ok(Lease::Failed(error)) => return Right::Failed(error),
                Ok(Lease::Newer(bytes)) => {
                    if self.progress.waited_for.is_none() {
                        // It was loaded while this look-up was under way.
                        self.progress.waited_for = Some(String::new());
                    }
                    if let Some(answer) = self.look_into(&bytes) {
                        return Right::Answered(answer);
                    }
                }
                Err(_) => break,
            }
        }
        alone(&self.core)
    }

    fn loaded(mut self, mut loaded: Loaded, stamp: Stamp, token: &str, took: Duration) {
        let core = self.core.clone();
        let (now, jitter) = (core.clock.now(), self.subject.jitter);
        let absent = loaded.value.is_absent();
        let fresh_for = self.subject.policy.fresh_for(absent, loaded.life, jitter);
        let entry = Arc::new(Entry {
            hash: hash(loaded.value.bytes()),
            load_id: random(),
            stamp,
            dependencies: core.depend(stamp, &self.names),
            loaded_at: now,
            load_time: took,
            life: loaded.life,
            validator: loaded.take_validator(),
            tags: std::mem::take(&mut self.subject.tags),
            ends: self.subject.policy.ends(
                absent,
                loaded.life,
                jitter,
                now + micros(fresh_for),
                now,
            ),
            hold: None,
            value: loaded.value,
        });
        let mut stored = false;
        if self.uses_redis() {
            let ttl = match entry.life {
                Life::NotKept => Duration::ZERO,
                _ => fresh_for + entry.use_past_end(&self.subject.policy),
            };
            // The lease is given back also where there is nothing to keep: as long as it is held here it is renewed.
            let bytes = if ttl.is_zero() {
                Vec::new()
            } else {
                envelope::encode(&entry, fresh_for, &core.clock)
            };
            let done = core.redis.fill(&self.subject.key, token, &bytes, ttl);
            stored = done.unwrap_or(false) && !bytes.is_empty();
        }
        core.failures.clear(&self.subject.key);
        core.memory.fill(
            self.subject.key.clone(),
            entry.clone(),
            &self.subject.policy,
            &core.clock,
        );
        let mut answer = self.answer(entry, Outcome::Loaded);
        answer.trace.source = Some(took);
        answer.trace.stored = stored;
        self.log(Some(took), None);
        self.landing.end(Ok(answer));
    }

    fn failed(self, error: LoadError, took: Option<Duration>) {
        self.subject.tally.count_load_error();
        self.log(took, Some(&error));
        let (core, key) = (&self.core, &self.subject.key);
        core.failures
            .note(key, &error, &self.subject.policy, core.clock.now());
        self.fall_back(error, took);
    }

    /// Ends without a new value: with the stale copy, as far as policy allows.
    fn fall_back(self, error: LoadError, took: Option<Duration>) {
        let usable = |entry: &Arc<Entry>| self.core.may_stand_in(entry, &self.subject.policy);
        let Some(stale) = self.progress.stale.clone().filter(usable) else {
            return self.landing.end(Err(error));
        };
        let reason = match (&error, took) {
            (LoadError::Spent { .. }, _) => Staleness::Spent,
            (_, Some(_)) => Staleness::IfError,
            (_, None) => Staleness::Held,
        };
        self.core
            .hold(&self.subject.key, &stale, &self.subject.policy, &error);
        let mut answer = self.answer(stale, Outcome::Stale(reason));
        answer.trace.source = took;
        self.landing.end(Ok(answer));
    }

    fn answer(&self, entry: Arc<Entry>, outcome: Outcome) -> Answer {
        Answer {
            entry,
            outcome,
            trace: self.trace(),
        }
    }

    fn trace(&self) -> Trace {
        Trace {
            redis: self.progress.redis,
            source: None,
            stored: false,
        }
    }

    /// One line for a load that a reader waits for; a part's is told by its whole.
    fn log(&self, took: Option<Duration>, error: Option<&LoadError>) {
        let offered = self.progress.offered;
        if !self.whole && !offered {
            return;
        }
        let kind = if offered { "refresh" } else { "miss" };
        let all = self.progress.began.elapsed().as_millis();
        let Subject {
            key, label, note, ..
        } = &self.subject;
        match error {
            Some(error) => log::warn!("{kind} {key} {all}ms {label}=failed ({error}){note}"),
            None => log::info!(
                "{kind} {key} {all}ms {label}={}ms{note}",
                took.unwrap_or_default().as_millis()
            ),
        }
    }
}

/// Whether this replica is to load.
enum Right {
    Granted(Stamp),
    Answered(Answer),
    Elsewhere,
    Failed(LoadError),
}

impl Core {
    /// What a value depends on whose load has this stamp.
    pub(crate) fn depend(&self, stamp: Stamp, names: &Arc<[Name]>) -> Box<[Dependency]> {
        Box::new([self.mirror.dependency(stamp, names)])
    }

    /// What may be done now with a copy whose fresh life ends at `until`.
    pub(crate) fn judge(&self, entry: &Entry, until: Micros, policy: &Policy) -> Freshness {
        let (sharp, now) = (entry.ends_sharply(), self.clock.now());
        match self.mirror.standing(&entry.dependencies) {
            Standing::Valid => policy.judge(sharp, until, now),
            // Its fresh life ended with the invalidation, whose clock is close to the time of Redis. Pending ones have none yet.
            Standing::Soft(clock) => {
                let ended = if clock == 0 {
                    now
                } else {
                    self.clock.local_of_redis(clock).min(now)
                };
                policy.judge(sharp, until.min(ended), now)
            }
            Standing::Invalid => Freshness::Dead,
            Standing::OtherHistory if self.mirror.invalidated_since_reset(&entry.dependencies) => {
                Freshness::Dead
            }
            Standing::OtherHistory => policy.judge_after_reset(sharp, entry.loaded_at, now),
        }
    }

    /// The same for a copy at hand that no tier calls fresh: one from Redis past its life there, or one that was in memory.
    pub(crate) fn judge_stale(&self, entry: &Entry, policy: &Policy) -> Freshness {
        self.judge(entry, entry.ends.memory_until, policy)
    }

    /// Keeps a stale copy for a while without a new attempt, after one that failed.
    pub(crate) fn hold(&self, key: &Key, stale: &Entry, policy: &Policy, error: &LoadError) {
        let now = self.clock.now();
        let (reason, pause) = match error {
            LoadError::Spent { retry_after, .. } => {
                (Staleness::Spent, policy.memory.min(*retry_after))
            }
            _ => (Staleness::Held, policy.memory / 10),
        };
        let mut held = stale.clone();
        held.hold = Some((now + micros(pause), reason));
        self.memory
            .fill(key.clone(), Arc::new(held), policy, &self.clock);
    }
}
