//! Composition: a value made from other entries, each with its own life.
//!
//! The parts are looked up side by side and the whole is made by whoever brings the last one. The
//! whole lives in memory only, as long as its shortest part is fresh; Redis and leases are the
//! parts' business. A part that failed costs the whole nine tenths of its life, and it lives no
//! longer than until that part may be asked for again. A part whose source has merely spent its
//! quota costs only the latter.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use super::clock::{Micros, micros};
use super::coherence::{Dependency, InvalidationTarget};
use super::core::{Accepts, Core};
use super::entry::{Entry, Extras};
use super::error::LoadError;
use super::failures::Aftermath;
use super::flight::{Landing, LookupResult};
use super::freshness::{Decision, Evidence};
use super::loaders::{Job, Turn};
use super::outcome::{Answer, Outcome, Staleness, Trace};
use super::policy::{Expiry, Lifetime};
use super::random::random;
use super::request::{CacheItem, Compose, Composition, LastResort, Loaded};
use super::stats::Tally;
use super::ticket::Ticket;

/// What stays the same while the parts come in.
struct Whole {
    core: Arc<Core>,
    item: CacheItem,
    labels: Vec<Arc<str>>,
    /// Where the look-ups of the parts are counted.
    tallies: Vec<Arc<Tally>>,
    compose: Compose,
    names: Arc<[InvalidationTarget]>,
    /// The whole's own tags and key, and where history stood as its parts were asked for.
    own: Dependency,
    began: Instant,
}

/// The parts that are in, and the duty to end the flight when all are.
struct Gathering {
    endings: Mutex<Vec<Option<LookupResult>>>,
    missing: AtomicUsize,
    last: Mutex<Option<(Landing, Option<LastResort>)>>,
    in_memory: Option<Arc<Entry>>,
}

/// Looks up the parts and ends the flight when they are all there. Does not block.
pub(crate) fn start(
    core: &Arc<Core>,
    landing: Landing,
    in_memory: Option<Arc<Entry>>,
    item: CacheItem,
    names: Arc<[InvalidationTarget]>,
    composition: Composition,
    accepts: Accepts,
) {
    let whole = Arc::new(Whole {
        core: core.clone(),
        labels: composition
            .parts
            .iter()
            .map(|part| part.item.label.clone())
            .collect(),
        tallies: composition
            .parts
            .iter()
            .map(|part| part.item.tally.clone())
            .collect(),
        compose: composition.compose,
        names,
        own: {
            let own: Arc<[InvalidationTarget]> = item.names().collect();
            core.mirror.dependency(core.mirror.stamp(), &own)
        },
        item,
        began: Instant::now(),
    });
    // Its parts may come from anywhere.
    landing.set_unproven(true);
    let tickets: Arc<[Ticket]> = composition
        .parts
        .into_iter()
        .map(|part| core.fetch_part(part, landing.interest(), accepts))
        .collect();
    let (stand_in, copies) = (whole.clone(), tickets.clone());
    landing.set_fallback(move || stand_in.make_from_copies(&copies));
    let count = tickets.len();
    let gathering = Arc::new(Gathering {
        endings: Mutex::new(vec![None; count]),
        missing: AtomicUsize::new(count),
        last: Mutex::new(Some((landing, composition.last_resort))),
        in_memory,
    });
    for (at, ticket) in tickets.iter().enumerate() {
        let (whole, gathering) = (whole.clone(), gathering.clone());
        ticket.on_answer(move |ending| {
            gathering
                .endings
                .lock()
                .unwrap_or_else(PoisonError::into_inner)[at] = Some(ending);
            if gathering.missing.fetch_sub(1, Ordering::AcqRel) == 1 {
                whole.gathered(&gathering);
            }
        });
    }
}

impl Whole {
    /// All parts are in.
    fn gathered(self: &Arc<Self>, gathering: &Gathering) {
        let Some((landing, last_resort)) = gathering
            .last
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
        else {
            return;
        };
        if landing.interest().is_deserted() {
            return;
        }
        let endings: Vec<LookupResult> = std::mem::take(
            &mut *gathering
                .endings
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        )
        .into_iter()
        .map(|ending| ending.unwrap_or(Err(LoadError::Overloaded)))
        .collect();
        self.tell(&endings);
        for (tally, ending) in self.tallies.iter().zip(&endings) {
            tally.count_part(ending);
        }
        if let Some(answer) = self.make(&endings) {
            return landing.end(Ok(answer));
        }
        let error = LoadError::of_parts(endings.into_iter().filter_map(Result::err));
        let copy = gathering.in_memory.clone();
        // Its parts asked for their own names: nobody has said yet what became of the whole.
        let evidence = self.core.evidence(self.core.clock.now());
        let asks = copy.is_some() && evidence == Evidence::NotAsked;
        if !asks && let Some(answer) = self.stand_in(copy.as_ref(), evidence, &error) {
            return landing.end(Ok(answer));
        }
        if !asks && last_resort.is_none() {
            return landing.end(Err(error));
        }
        let whole = self.clone();
        let job = Job {
            share: self.item.share.clone(),
            interest: landing.interest().clone(),
            work: Box::new(move |turn| {
                if turn != Turn::Now {
                    return landing.end(Err(error));
                }
                if asks {
                    let evidence = whole.core.ask(&whole.item.key, &whole.names);
                    if let Some(answer) = whole.stand_in(copy.as_ref(), evidence, &error) {
                        return landing.end(Ok(answer));
                    }
                }
                match last_resort.and_then(|last_resort| last_resort()) {
                    Some(loaded) => {
                        let answer = whole.keep_last_resort(loaded, &error);
                        landing.end(Ok(answer));
                    }
                    None => landing.end(Err(error)),
                }
            }),
        };
        self.core.loaders.submit(job);
    }

    /// The older whole, as far as policy allows it now that no part is there.
    fn stand_in(
        &self,
        copy: Option<&Arc<Entry>>,
        evidence: Evidence,
        error: &LoadError,
    ) -> Option<Answer> {
        let (core, policy, now) = (&self.core, &self.item.policy, self.core.clock.now());
        let usable =
            |copy: &&Arc<Entry>| core.decide(copy, evidence, policy, now) != Decision::Refuse;
        let stale = copy.filter(usable)?;
        let (entry, outcome) = core.back_off(&self.item, stale, error);
        Some(self.answer(entry, outcome, Trace::default()))
    }

    /// The whole from what became of the parts, kept in memory; `None` if no part is there.
    fn make(&self, endings: &[LookupResult]) -> Option<Answer> {
        let parts: Vec<&Answer> = endings
            .iter()
            .filter_map(|ending| ending.as_ref().ok())
            .collect();
        if parts.is_empty() {
            return None;
        }
        let loaded = (self.compose)(endings)?;
        let failed = endings
            .iter()
            .any(|ending| matches!(ending, Err(error) if !error.is_spent()));
        let own = if failed {
            Lifetime::Shortened
        } else {
            loaded.lifetime
        };
        let of_parts = parts.iter().map(|part| part.entry.lifetime());
        let lifetime = of_parts.fold(own, Lifetime::with_part);
        let errors = endings.iter().filter_map(|ending| ending.as_ref().err());
        // When it makes sense to ask again for a part that failed.
        let pauses = errors.map(|error| Aftermath::of(error, &self.item.policy).pause);
        let now = self.core.clock.now();
        let retry_at = pauses
            .min()
            .map_or(Micros::MAX, |pause| now + micros(pause));
        let entry = self.entry(Loaded { lifetime, ..loaded }, &parts, retry_at);
        let entry = self.core.keep(&self.item, entry);
        let waited_in_vain = endings
            .iter()
            .any(|e| matches!(e, Err(error) if !error.is_known()));
        let outcomes = parts.iter().map(|part| part.outcome);
        let outcome = Outcome::of_parts(outcomes.chain(waited_in_vain.then_some(Outcome::Loaded)));
        let trace = parts
            .iter()
            .fold(Trace::default(), |trace, part| trace.beside(part.trace));
        Some(self.answer(entry, outcome, trace))
    }

    /// The composite of these parts, fresh until `retry_at` at most: then a missing part can be
    /// asked for again.
    fn entry(&self, loaded: Loaded, parts: &[&Answer], retry_at: Micros) -> Entry {
        let now = self.core.clock.now();
        let entries = || parts.iter().map(|part| &part.entry);
        let stale = |part: &&&Answer| matches!(part.outcome, Outcome::Stale(_));
        // Fresh as long as its shortest part. A part that is stale already makes the composite stale
        // from the moment when the part became so.
        let shortest = |end: fn(Expiry) -> Micros| {
            let ends = parts.iter().map(|part| {
                let end = end(part.entry.expiry);
                if stale(&part) { end.min(now) } else { end }
            });
            ends.min().unwrap_or(now).min(retry_at)
        };
        let memory_until = shortest(|expiry| expiry.memory_until);
        // A stale part without a pause is being reloaded now.
        let backoffs = parts.iter().filter(stale).map(|part| part.entry.backoff());
        let soonest = backoffs.min_by_key(|backoff| backoff.map(|backoff| backoff.until));
        let expiry = Expiry {
            // The parts are what Redis keeps of it, and are fresh there longer than the composite
            // is in memory.
            fresh_until: shortest(|expiry| expiry.fresh_until),
            ..self.item.policy.expiry(
                loaded.value.is_absent(),
                loaded.lifetime,
                random(),
                memory_until,
                now,
            )
        };
        let extras = Extras {
            // Each part keeps its own clock with its own names: one minimum over all would be
            // invalid from the start.
            of_parts: entries()
                .flat_map(|entry| entry.dependencies().cloned())
                .collect(),
            lifetime: loaded.lifetime,
            validator: None,
            backoff: soonest.flatten(),
        };
        let loaded_at = entries().map(|entry| entry.loaded_at).min();
        let load_time = entries().map(|entry| entry.load_time).max();
        Entry::new(
            loaded.value,
            self.own.clone(),
            loaded_at.unwrap_or(now),
            load_time.unwrap_or_default(),
            expiry,
            extras,
        )
    }

    fn keep_last_resort(&self, loaded: Loaded, error: &LoadError) -> Answer {
        let (core, policy) = (&self.core, &self.item.policy);
        let after = Aftermath::of(error, policy);
        let lifetime = if error.is_spent() {
            Lifetime::Policy
        } else {
            Lifetime::Shortened
        };
        let now = core.clock.now();
        // Never fresh for those who waited. It is served again only while a new attempt makes no sense.
        let never = Expiry {
            memory_until: now,
            fresh_until: now,
        };
        let extras = Extras {
            of_parts: Box::new([core.mirror.dependency(self.own.stamp, &self.names)]),
            lifetime,
            ..Extras::default()
        };
        let load_time = micros(self.began.elapsed());
        // Stamped before it was read: an invalidation during the read ends it, too.
        let own = self.own.clone();
        let entry = Entry::new(loaded.value, own, now, load_time, never, extras);
        let retry_at = now + micros(after.pause);
        let until = policy
            .expiry(false, lifetime, random(), retry_at, now)
            .memory_until;
        let expiry = Expiry {
            memory_until: until,
            fresh_until: until,
        };
        let mut kept = entry.clone();
        kept.expiry = expiry;
        core.keep(&self.item, kept);
        let outcome = Outcome::Stale(after.for_waiters);
        self.answer(Arc::new(entry), outcome, Trace::default())
    }

    /// The whole from the copies that are there before the parts have landed, for a reader who will wait no longer.
    fn make_from_copies(&self, tickets: &[Ticket]) -> Option<Answer> {
        let copies: Option<Vec<LookupResult>> = tickets
            .iter()
            .map(|ticket| ticket.answer_or_stale().map(Ok))
            .collect();
        let copies = copies?;
        let loaded = (self.compose)(&copies)?;
        let parts: Vec<&Answer> = copies
            .iter()
            .filter_map(|copy| copy.as_ref().ok())
            .collect();
        let entry = Arc::new(self.entry(loaded, &parts, Micros::MAX));
        Some(self.answer(
            entry,
            Outcome::Stale(Staleness::SoftTimeout),
            Trace::default(),
        ))
    }

    fn answer(&self, entry: Arc<Entry>, outcome: Outcome, trace: Trace) -> Answer {
        Answer {
            entry,
            outcome,
            trace,
        }
    }

    /// Counts and logs, if a source was asked for any part.
    fn tell(&self, endings: &[LookupResult]) {
        let asked = |ending: &LookupResult| match ending {
            Ok(answer) => answer.outcome == Outcome::Loaded || answer.trace.source.is_some(),
            Err(error) => !error.is_known(),
        };
        // A request that is wrong is no failure, or whoever sends requests could fill the log of
        // what is wrong here.
        let failed = endings.iter().any(
            |ending| matches!(ending, Err(error) if !matches!(error, LoadError::Unfit { .. })),
        );
        if endings.iter().any(asked) {
            self.item.tally.count_load();
        } else {
            return;
        }
        let mut line = format!(
            "miss {} {}ms",
            self.item.key,
            self.began.elapsed().as_millis()
        );
        for (label, ending) in self.labels.iter().zip(endings) {
            use std::fmt::Write;
            // Writing to a String cannot fail.
            let _ = match ending {
                Ok(Answer {
                    trace:
                        Trace {
                            source: Some(took), ..
                        },
                    outcome: Outcome::Stale(_),
                    ..
                }) => {
                    write!(line, " {label}=stale after {}ms", took.as_millis())
                }
                Ok(Answer {
                    trace:
                        Trace {
                            source: Some(took), ..
                        },
                    ..
                }) => {
                    write!(line, " {label}={}ms", took.as_millis())
                }
                Ok(Answer { outcome, .. }) => write!(line, " {label}={}", outcome.word()),
                Err(error) => write!(line, " {label}=failed ({error})"),
            };
        }
        line.push_str(&self.item.note);
        if failed {
            log::warn!("{line}")
        } else {
            log::info!("{line}")
        }
    }
}
