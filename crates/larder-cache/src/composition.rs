//! Composition: a value made from other entries, each with a lifetime of its own.
//!
//! The lookup hands a [`Composite`] the tickets of its parts. Whoever brings the last part makes
//! the composite. It lives in memory only, as long as its shortest part is fresh; Redis and leases
//! are the parts' business. If a part failed, the composite lives a tenth of its TTL, and no longer
//! than until that part may be asked for again. A part whose source has merely spent its quota
//! costs only the latter.

use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

use super::answer::{Answer, LookupResult, Trace};
use super::clock::{Micros, micros};
use super::coherence::{Dependency, InvalidationTarget};
use super::entry::{Entry, Extras};
use super::error::LoadError;
use super::failures::Aftermath;
use super::freshness::Evidence;
use super::load_result::LoadResult;
use super::loaders::{Job, Turn};
use super::outcome::{Outcome, Staleness};
use super::policy::{Expiry, Lifetime};
use super::random::random;
use super::request::{CacheItem, Compose, Composition, LastResort, Loaded};
use super::single_flight::{Leader, Ticket};
use super::tally::Tally;
use super::tiers::Tiers;

/// A composite that is being made.
pub(crate) struct Composite {
    tiers: Arc<Tiers>,
    item: CacheItem,
    parts: Vec<Part>,
    compose: Compose,
    /// All that it depends on: its own targets and those of its parts.
    targets: Arc<[InvalidationTarget]>,
    /// Its own tags and key, stamped before its parts were asked for.
    own: Dependency,
    began: Instant,
}

/// Where the lookup of a part is logged and counted.
struct Part {
    label: Arc<str>,
    tally: Arc<Tally>,
}

/// The parts that are in, and the duty to end the flight when all are.
struct Gathering {
    results: Vec<Option<LookupResult>>,
    missing: usize,
    leader: Leader,
    in_memory: Option<Arc<Entry>>,
    last_resort: Option<LastResort>,
}

impl Composite {
    /// `targets`: all that it depends on. To be called before its parts are looked up.
    pub(crate) fn new(
        tiers: &Arc<Tiers>,
        item: CacheItem,
        targets: Arc<[InvalidationTarget]>,
        composition: &Composition,
    ) -> Composite {
        let own: Arc<[InvalidationTarget]> = item.targets().collect();
        let part = |item: &CacheItem| Part {
            label: item.label.clone(),
            tally: item.tally.clone(),
        };
        Composite {
            own: tiers.mirror.dependency(tiers.mirror.stamp(), &own),
            tiers: tiers.clone(),
            item,
            parts: composition
                .parts
                .iter()
                .map(|request| part(&request.item))
                .collect(),
            compose: composition.compose.clone(),
            targets,
            began: Instant::now(),
        }
    }

    /// Ends the flight when all these parts are there. `in_memory`: the older composite, if memory
    /// has one. Does not block.
    pub(crate) fn gather(
        self,
        leader: Leader,
        tickets: Arc<[Ticket]>,
        in_memory: Option<Arc<Entry>>,
        last_resort: Option<LastResort>,
    ) {
        let composite = Arc::new(self);
        let (stand_in, copies) = (composite.clone(), tickets.clone());
        leader.set_fallback(move || stand_in.make_from_copies(&copies));
        // Protects the results as they come in. Whoever brings the last one takes all of it.
        let gathering = Arc::new(Mutex::new(Some(Gathering {
            results: vec![None; tickets.len()],
            missing: tickets.len(),
            leader,
            in_memory,
            last_resort,
        })));
        for (at, ticket) in tickets.iter().enumerate() {
            let (composite, gathering) = (composite.clone(), gathering.clone());
            ticket.on_answer(move |result| {
                let complete = {
                    let mut gathering = gathering.lock();
                    gathering.take_if(|gathering| gathering.is_complete_with(at, result))
                };
                if let Some(complete) = complete {
                    composite.finish(complete);
                }
            });
        }
    }

    /// All parts have arrived.
    fn finish(self: Arc<Self>, gathering: Gathering) {
        let Gathering {
            results,
            leader,
            in_memory: copy,
            last_resort,
            ..
        } = gathering;
        if leader.interest().is_deserted() {
            return;
        }
        let missing = || LoadError::Bug("a part of a composite gave no result".into());
        let results: Vec<LookupResult> = results
            .into_iter()
            .map(|result| result.unwrap_or_else(|| Err(missing())))
            .collect();
        for (part, result) in self.parts.iter().zip(&results) {
            part.tally.part().count(result);
        }
        let has_loaded = results.iter().any(asked_a_source);
        if has_loaded {
            self.log(&results);
        }
        let before = self.tiers.memory.get(self.item.key.as_str());
        let made = self.make(&results);
        if has_loaded {
            let result = made.as_ref().map_or(LoadResult::Failed, |made| {
                LoadResult::of(&made.entry, before.as_deref())
            });
            let own = self.item.tally.own();
            own.count_load(result, self.began.elapsed());
        }
        if let Some(answer) = made {
            return leader.end(Ok(answer));
        }
        let error = LoadError::of_parts(results.into_iter().filter_map(Result::err));
        // Its parts asked for their own targets: nobody has asked for the composite's yet.
        let evidence = self.tiers.evidence(self.tiers.clock.now());
        let asks = copy.is_some() && evidence == Evidence::NotAsked;
        if !asks && let Some(answer) = self.stand_in(copy.as_ref(), evidence, &error) {
            return leader.end(Ok(answer));
        }
        if !asks && last_resort.is_none() {
            return leader.end(Err(error));
        }
        let composite = self.clone();
        let job = Job {
            share: self.item.share.clone(),
            interest: leader.interest().clone(),
            blocks: true,
            work: Box::new(move |turn, _| {
                if turn != Turn::Now {
                    return leader.end(Err(error));
                }
                if asks {
                    let (key, targets) = (&composite.item.key, &composite.targets);
                    let evidence = composite.tiers.ask(key, targets);
                    if let Some(answer) = composite.stand_in(copy.as_ref(), evidence, &error) {
                        return leader.end(Ok(answer));
                    }
                }
                match last_resort.and_then(|last_resort| last_resort()) {
                    Some(loaded) => leader.end(Ok(composite.keep_last_resort(loaded, &error))),
                    None => leader.end(Err(error)),
                }
            }),
        };
        self.tiers.loaders.submit(job);
    }

    /// The older composite, as far as policy allows it now that no part is there.
    fn stand_in(
        &self,
        copy: Option<&Arc<Entry>>,
        evidence: Evidence,
        error: &LoadError,
    ) -> Option<Answer> {
        let (tiers, copy) = (&self.tiers, copy?);
        let decision = tiers.decide(copy, evidence, &self.item.policy, tiers.clock.now());
        if !decision.allows_use() {
            return None;
        }
        let (entry, outcome) = tiers.back_off(&self.item, copy, error);
        Some(Answer {
            entry,
            outcome,
            trace: Trace::default(),
        })
    }

    /// The composite from the results of its parts, kept in memory. `None` if there is no part.
    fn make(&self, results: &[LookupResult]) -> Option<Answer> {
        let parts: Vec<&Answer> = results
            .iter()
            .filter_map(|part| part.as_ref().ok())
            .collect();
        if parts.is_empty() {
            return None;
        }
        let loaded = (self.compose)(results)?;
        let errors = || results.iter().filter_map(|part| part.as_ref().err());
        let own = if errors().any(|error| !error.is_spent()) {
            Lifetime::Shortened
        } else {
            loaded.lifetime
        };
        let of_parts = parts.iter().map(|part| part.entry.lifetime());
        let lifetime = of_parts.fold(own, Lifetime::with_part);
        // When it makes sense to ask again for a part that failed.
        let pauses = errors().map(|error| Aftermath::of(error, &self.item.policy).pause);
        let now = self.tiers.clock.now();
        let retry_at = pauses
            .min()
            .map_or(Micros::MAX, |pause| now + micros(pause));
        let entry = self.entry(Loaded { lifetime, ..loaded }, &parts, retry_at);
        let entry = self.tiers.keep(&self.item, entry);
        let waited_in_vain = errors().any(|error| !error.is_known());
        let outcomes = parts.iter().map(|part| part.outcome);
        let outcomes = outcomes.chain(waited_in_vain.then_some(Outcome::Loaded));
        let traces = parts.iter().map(|part| part.trace);
        Some(Answer {
            entry,
            outcome: Outcome::of_parts(outcomes),
            trace: traces.fold(Trace::default(), Trace::beside),
        })
    }

    /// The composite of these parts, fresh until `retry_at` at most: then a missing part can be
    /// asked for again.
    fn entry(&self, loaded: Loaded, parts: &[&Answer], retry_at: Micros) -> Entry {
        let now = self.tiers.clock.now();
        let entries = || parts.iter().map(|part| &part.entry);
        let stale = |part: &&&Answer| matches!(part.outcome, Outcome::Stale(_));
        // Fresh as long as its shortest part. A part that is stale already makes the composite
        // stale from the moment when the part became so.
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
        let (tiers, policy) = (&self.tiers, &self.item.policy);
        let after = Aftermath::of(error, policy);
        let lifetime = if error.is_spent() {
            Lifetime::Policy
        } else {
            Lifetime::Shortened
        };
        let now = tiers.clock.now();
        // Stale for the readers that waited. It is served again only while a new attempt makes no
        // sense.
        let never = Expiry {
            memory_until: now,
            fresh_until: now,
        };
        let extras = Extras {
            of_parts: Box::new([tiers.mirror.dependency(self.own.stamp, &self.targets)]),
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
        tiers.keep(&self.item, kept);
        let outcome = Outcome::Stale(after.for_waiters);
        Answer {
            entry: Arc::new(entry),
            outcome,
            trace: Trace::default(),
        }
    }

    /// The composite from the copies that are there already, for a reader whose time is up.
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
        Some(Answer {
            entry: Arc::new(self.entry(loaded, &parts, Micros::MAX)),
            outcome: Outcome::Stale(Staleness::SoftTimeout),
            trace: Trace::default(),
        })
    }

    /// One line for all its parts.
    fn log(&self, results: &[LookupResult]) {
        use std::fmt::Write;
        let took = self.began.elapsed().as_millis();
        let mut line = format!("miss {} {took}ms", self.item.key);
        for (Part { label, .. }, result) in self.parts.iter().zip(results) {
            // Writing to a String cannot fail.
            let _ = match result {
                Ok(answer) => match (answer.trace.source, answer.outcome) {
                    (Some(took), Outcome::Stale(_)) => {
                        write!(line, " {label}=stale after {}ms", took.as_millis())
                    }
                    (Some(took), _) => write!(line, " {label}={}ms", took.as_millis()),
                    (None, outcome) => write!(line, " {label}={}", outcome.word()),
                },
                Err(error) => write!(line, " {label}=failed ({error})"),
            };
        }
        // A wrong request is the client's: clients must not fill the log with warnings.
        let failed = |result: &LookupResult| matches!(result, Err(error) if !matches!(error, LoadError::Unfit { .. }));
        let level = if results.iter().any(failed) {
            log::Level::Warn
        } else {
            log::Level::Info
        };
        let CacheItem { key, note, .. } = &self.item;
        let (resource, trace_id) = (note.resource.as_deref(), note.trace_id.as_deref());
        let request_id = note.request_id.as_deref();
        log::log!(
            level, event = "miss", resource, key:%, duration_ms = took, request_id, trace_id;
            "{line}"
        );
    }
}

/// Whether a source was asked for this part.
fn asked_a_source(result: &LookupResult) -> bool {
    match result {
        Ok(answer) => answer.outcome == Outcome::Loaded || answer.trace.source.is_some(),
        Err(error) => !error.is_known(),
    }
}

impl Gathering {
    /// Stores the result of the part with this index. Returns whether it was the last one.
    fn is_complete_with(&mut self, at: usize, result: LookupResult) -> bool {
        if let Some(empty) = self.results.get_mut(at) {
            *empty = Some(result);
        }
        self.missing -= 1;
        self.missing == 0
    }
}
