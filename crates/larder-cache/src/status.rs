//! Status: how the bus, the memory tier, one entry and the other replicas are.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use super::Cache;
use super::clock::micros;
use super::coherence::{Dependency, InvalidationTarget, bus};
use super::entry::Entry;
use super::freshness::{Decision, Evidence};
use super::policy::Policy;
use super::redis_tier::fault::RedisDown;

/// How long a replica that has gone is kept in the list of those that are not shown.
const REPLICA_FORGOTTEN: Duration = Duration::from_secs(60);

/// How the bus is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BusState {
    /// Whether this replica would have heard of any change that was acknowledged longer ago than `max_staleness`.
    pub trusted: bool,
    /// The highest clock that it has heard.
    pub clock: u64,
    /// How often messages were missing and were made up for.
    pub gaps_repaired: u64,
    /// Names whose invalidation Redis has not taken yet.
    pub pending: usize,
    /// Names that this replica keeps the last invalidation of.
    pub names: usize,
}

/// A replica as it last spoke of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replica {
    /// Who it is.
    pub id: String,
    /// What it says of itself, a JSON object.
    pub about: String,
}

/// What memory holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemorySize {
    /// Entries.
    pub entries: u64,
    /// Their weight: bodies, keys and bookkeeping.
    pub bytes: u64,
    /// Entries that went for room, so far.
    pub evictions: u64,
}

impl Cache {
    /// How the bus is.
    pub fn bus(&self) -> BusState {
        let mirror = &self.tiers.mirror;
        let era = mirror.era();
        BusState {
            trusted: mirror.is_trusted(self.tiers.clock.now()),
            clock: era.last(),
            gaps_repaired: self.bus.gaps_repaired.load(Ordering::Relaxed),
            pending: mirror.pending.len(),
            names: era.names(),
        }
    }

    /// Waits until memory is trusted and the Redis that it hears from can be asked, or `limit` has
    /// passed. Returns whether memory is trusted.
    pub fn wait_trusted(&self, limit: Duration) -> bool {
        let began = Instant::now();
        let trusted = self.tiers.mirror.wait_trusted(&self.tiers.clock, limit);
        if trusted && !self.is_alone() {
            // The bus has connections of its own, so it can be there a moment before the pool is.
            let left = limit.saturating_sub(began.elapsed());
            self.tiers.redis.pool().health().wait_answers(left);
        }
        trusted
    }

    /// What this replica tells the others of itself: the members of a JSON object, without its braces.
    pub fn describe(&self, members: &str) {
        *self
            .bus
            .about
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = members.to_owned();
    }

    /// The replicas that were heard of lately, this one among them. Blocks for a round trip.
    ///
    /// # Errors
    /// [`RedisDown`] if Redis cannot be asked.
    pub fn replicas(&self) -> Result<Vec<Replica>, RedisDown> {
        let bus = &self.bus;
        let (now, said) = self
            .tiers
            .redis
            .pool()
            .run(|connection| bus.scripts.replicas(connection))?;
        let lately = micros(bus.settings.max_staleness * 3);
        let (live, gone): (Vec<_>, Vec<_>) = said
            .into_iter()
            .partition(|(_, time, _)| now.saturating_sub(*time) <= lately);
        for (id, time, _) in gone {
            if now.saturating_sub(time) > micros(REPLICA_FORGOTTEN) {
                let _ = self
                    .tiers
                    .redis
                    .pool()
                    .run(|connection| bus.scripts.forget_replica(connection, &id));
            }
        }
        Ok(live
            .into_iter()
            .map(|(id, _, about)| Replica { id, about })
            .collect())
    }

    /// Who this replica is.
    pub fn replica(&self) -> &str {
        &self.bus.replica
    }

    /// Whether everything up to this clock was heard here.
    pub fn has_heard(&self, clock: u64) -> bool {
        self.tiers.has_heard(clock)
    }

    /// The entry in memory under the key of this text, whether or not it may be served, and what may
    /// be done with it while this replica is connected.
    pub fn inspect(&self, key: &str, policy: &Policy) -> Option<(Arc<Entry>, Decision)> {
        let (entry, now) = (self.tiers.memory.get(key)?, self.tiers.clock.now());
        let decision = self.tiers.decide(&entry, Evidence::Trusted, policy, now);
        Some((entry, decision))
    }

    /// The names that an entry depends on, each with the clock of its last invalidation that is known here.
    pub fn invalidated(&self, entry: &Entry) -> Vec<(InvalidationTarget, Option<u64>)> {
        let mut all: Vec<(InvalidationTarget, Option<u64>)> = Vec::new();
        for (name, clock) in entry.dependencies().flat_map(Dependency::invalidated) {
            if !all.iter().any(|(known, _)| *known == name) {
                all.push((name, clock));
            }
        }
        all
    }

    /// What this replica says of itself, as the others hear it.
    pub fn about(&self) -> serde_json::Value {
        let said = bus::about(&self.bus);
        let mut about: serde_json::Value = serde_json::from_str(&said).unwrap_or_default();
        about["id"] = self.replica().into();
        about
    }

    /// Whether no Redis was ever found, so that this process is alone.
    pub fn is_alone(&self) -> bool {
        self.tiers.mirror.is_alone()
    }

    /// What memory holds now.
    pub fn memory_size(&self) -> MemorySize {
        let (entries, bytes, evictions) = self.tiers.memory.size();
        MemorySize {
            entries,
            bytes,
            evictions,
        }
    }
}
