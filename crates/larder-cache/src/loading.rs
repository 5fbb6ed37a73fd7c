//! Loading: the stages of a miss that may block, on a loader's thread.
//!
//! The lease says whether this replica is to load at all, and gives the load clock, before the source is asked. What the source
//! brings fills Redis, then memory; a failure gives the lease back, and a stale copy stands in as far as policy allows.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::clock::micros;
use super::coherence::{Dependency, Stamp};
use super::core::Core;
use super::entry::{Entry, Extras};
use super::envelope;
use super::error::LoadError;
use super::freshness::{Decision, Evidence};
use super::loaders::{Job, Turn};
use super::miss::{Miss, PAUSES};
use super::outcome::{Answer, Outcome};
use super::policy::Lifetime;
use super::random::random;
use super::redis_tier::Lease;
use super::request::{CacheItem, Load, LoadContext, Loaded, Revalidation};

impl Miss {
    pub(super) fn submit(self) {
        let core = &self.core;
        let lifted = |at| core.is_invalidated_since(at, &self.names);
        if let Some(error) = core.failures.pause_of(&self.item, core.clock.now(), lifted) {
            return self.fall_back(error, None);
        }
        let loaders = self.core.loaders.clone();
        loaders.submit(Job {
            share: self.item.share.clone(),
            interest: self.landing.interest().clone(),
            work: Box::new(move |turn| match turn {
                Turn::Now => self.run(),
                Turn::Refused => self.failed(LoadError::Overloaded, None),
                // For readers who have stepped back, and wait no longer in the queue.
                Turn::Left => self.landing.end(Err(LoadError::Overloaded)),
            }),
        });
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
        let own = self.core.mirror.dependency(stamp, &self.names);
        self.landing.stamp(own.clone());
        if self.whole || self.progress.offered {
            self.item.tally.count_load();
        } else {
            self.item.tally.count_part_load();
        }
        let began = Instant::now();
        let attempt = LoadContext {
            deadline: began + self.load.limit,
            revalidation: self.previous(),
        };
        let work = std::mem::replace(
            &mut self.load,
            Load {
                limit: Duration::ZERO,
                run: Box::new(|_| Err(LoadError::Overloaded)),
            },
        );
        let loaded = catch_unwind(AssertUnwindSafe(|| (work.run)(attempt))).unwrap_or_else(|_| {
            log::error!("the load of {} panicked", self.item.key);
            Err(LoadError::Failed("the load panicked".into()))
        });
        let took = began.elapsed();
        match loaded {
            Ok(loaded) => self.loaded(loaded, own, &token, took),
            Err(error) => {
                if self.uses_redis() {
                    // A lease that cannot be given back runs out by itself.
                    let _ = self.core.redis.release(&self.item.key, &token, &error);
                }
                // Trust ended during the load, and nobody but the mirror has told what became of the copy at hand.
                if self.progress.stale.is_some() && self.evidence() == Evidence::NotAsked {
                    let answered = self.core.redis.ask_names(&self.item.key, &self.names);
                    self.heard(answered.is_ok());
                }
                self.failed(error, Some(took));
            }
        }
    }

    /// The copy that the source may confirm.
    fn previous(&mut self) -> Option<Revalidation> {
        let copy = self.progress.previous.take()?;
        let facts = self
            .core
            .facts(&copy, copy.expiry.fresh_until, &self.item.policy);
        let validator = copy
            .validator()
            .filter(|_| facts.validity.is_confirmable())?;
        Some(Revalidation {
            value: copy.value.bytes().clone(),
            validator: validator.into(),
        })
    }

    fn uses_redis(&self) -> bool {
        !self.item.policy.redis.is_zero()
    }

    fn take_lease(&mut self, token: &str) -> Right {
        let alone = |core: &Core| Right::Granted(core.mirror.stamp());
        if !self.uses_redis() {
            return alone(&self.core);
        }
        // Twice, since what another load filled meanwhile can be stale already; it is not the same value a second time.
        for _ in 0..2 {
            let waited_for = self.progress.waited_for.as_deref();
            let lease = self.core.redis.lease(
                &self.item.key,
                &self.names,
                token,
                &self.progress.seen,
                waited_for,
            );
            self.heard(lease.is_ok());
            match lease {
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

    fn loaded(self, mut loaded: Loaded, own: Dependency, token: &str, took: Duration) {
        let core = self.core.clone();
        let (now, jitter) = (core.clock.now(), self.item.jitter);
        let absent = loaded.value.is_absent();
        let fresh_for = self.item.policy.fresh_for(absent, loaded.lifetime, jitter);
        let fresh_until = now + micros(fresh_for);
        let expiry = self
            .item
            .policy
            .expiry(absent, loaded.lifetime, jitter, fresh_until, now);
        let extras = Extras {
            lifetime: loaded.lifetime,
            validator: loaded.take_validator(),
            ..Extras::default()
        };
        let entry = Entry::new(loaded.value, own, now, micros(took), expiry, extras);
        let mut stored = false;
        if self.uses_redis() {
            let ttl = match entry.lifetime() {
                Lifetime::NoStore => Duration::ZERO,
                _ => fresh_for + entry.use_past_end(&self.item.policy),
            };
            // The lease is given back also where there is nothing to keep: as long as it is held here it is renewed.
            let bytes = if ttl.is_zero() {
                Vec::new()
            } else {
                envelope::encode(&entry, random(), fresh_for, &core.clock)
            };
            let done = core.redis.fill(&self.item.key, token, &bytes, ttl);
            stored = done.unwrap_or(false) && !bytes.is_empty();
        }
        core.failures.clear(&self.item.key);
        let entry = core.keep(&self.item, entry);
        let mut answer = self.answer(entry, Outcome::Loaded);
        answer.trace.source = Some(took);
        answer.trace.stored = stored;
        self.log(Some(took), None);
        self.landing.end(Ok(answer));
    }

    fn failed(self, error: LoadError, took: Option<Duration>) {
        self.item.tally.count_load_error();
        self.log(took, Some(&error));
        let core = &self.core;
        let (now, at) = (core.clock.now(), core.mirror.stamp());
        core.failures.note(&self.item, &error, now, at);
        self.fall_back(error, took);
    }

    /// Ends without a new value: with the stale copy, as far as policy allows.
    fn fall_back(self, error: LoadError, took: Option<Duration>) {
        let usable = |entry: &Arc<Entry>| self.decide(entry) != Decision::Refuse;
        let Some(stale) = self.progress.stale.clone().filter(usable) else {
            return self.landing.end(Err(error));
        };
        let (entry, outcome) = self.core.back_off(&self.item, &stale, &error);
        let mut answer = self.answer(entry, outcome);
        answer.trace.source = took;
        self.landing.end(Ok(answer));
    }

    /// One line for a load that a reader waits for; a part's is told by its whole.
    fn log(&self, took: Option<Duration>, error: Option<&LoadError>) {
        let offered = self.progress.offered;
        if !self.whole && !offered {
            return;
        }
        let kind = if offered { "refresh" } else { "miss" };
        let all = self.progress.began.elapsed().as_millis();
        let CacheItem {
            key, label, note, ..
        } = &self.item;
        match error {
            Some(error) => {
                // Whoever sends requests could fill the log of what is wrong here.
                let level = match error {
                    LoadError::Unfit { .. } => log::Level::Info,
                    _ => log::Level::Warn,
                };
                log::log!(level, "{kind} {key} {all}ms {label}=failed ({error}){note}");
            }
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
