//! An entry: a value, where it stands in the history of changes, and until when it may be served.

use std::time::Duration;

use bytes::Bytes;

use super::clock::Micros;
use super::coherence::{Dependency, InvalidationTarget, Stamp};
use super::outcome::Staleness;
use super::policy::{Expiry, Lifetime, Policy};

/// What a source said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// There is a value: these bytes.
    Present(Bytes),
    /// There is no such thing.
    Absent,
}

impl Value {
    /// A value of these bytes, in no more memory than they need.
    pub fn present(bytes: Vec<u8>) -> Value {
        Value::Present(bytes.into_boxed_slice().into())
    }

    /// The bytes; empty where there is no value.
    pub fn bytes(&self) -> &Bytes {
        static NOTHING: Bytes = Bytes::new();
        match self {
            Value::Present(bytes) => bytes,
            Value::Absent => &NOTHING,
        }
    }

    /// Whether there is no such thing.
    pub fn is_absent(&self) -> bool {
        matches!(self, Value::Absent)
    }
}

/// One stored answer. Immutable; memory holds it behind an `Arc`.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The value itself.
    pub value: Value,
    /// A hash of the value: its entity tag.
    pub hash: u64,
    /// Its tags and, last, its key, as of its load.
    pub own: Dependency,
    /// When its load ended: ages and TTLs count from here.
    pub loaded_at: Micros,
    /// How long its load took.
    pub load_time: Micros,
    /// Until when it is fresh.
    pub ends: Expiry,
    /// For how long memory keeps it, from its fill: for its use past its end, too. Zero until then, and where it does not.
    pub kept_for: Micros,
    /// What tells it from a plain one; a plain one has none.
    pub particulars: Option<Box<Extras>>,
}

/// What a plain entry does not have, in one place, so that it takes no room there. Plain are values of SQL, and of upstreams that send
/// neither a validator nor a lifetime.
#[derive(Clone, Debug, Default)]
pub struct Extras {
    /// What the parts of a whole depend on, each as of its own load; of what was loaded, nothing.
    pub of_parts: Box<[Dependency]>,
    /// How much of its TTL it was given.
    pub life: Lifetime,
    /// What its source knows it by when it is asked to confirm it; `None`: it cannot.
    pub validator: Option<Box<str>>,
    /// A stale entry whose renewal failed is served without a new attempt until then, for this reason.
    pub hold: Option<(Micros, Staleness)>,
}

impl Extras {
    /// For [`Entry::particulars`]: `None` if these are those of a plain entry.
    pub fn boxed(self) -> Option<Box<Extras>> {
        let plain = self.of_parts.is_empty()
            && self.life == Lifetime::Policy
            && self.validator.is_none()
            && self.hold.is_none();
        (!plain).then(|| Box::new(self))
    }
}

impl Entry {
    /// What its parts depend on: see [`Extras::of_parts`].
    pub fn of_parts(&self) -> &[Dependency] {
        self.particulars
            .as_ref()
            .map_or(&[], |particulars| &particulars.of_parts)
    }

    /// How much of its TTL it was given.
    pub fn life(&self) -> Lifetime {
        self.particulars
            .as_ref()
            .map_or(Lifetime::Policy, |particulars| particulars.life)
    }

    /// What its source knows it by: see [`Extras::validator`].
    pub fn validator(&self) -> Option<&str> {
        self.particulars.as_ref()?.validator.as_deref()
    }

    /// Until when it is served stale without a new attempt, and why: see [`Extras::hold`].
    pub fn hold(&self) -> Option<(Micros, Staleness)> {
        self.particulars.as_ref()?.hold
    }

    /// Whether it may never be served past its end: absence, and what its source allows no stale use of.
    pub(crate) fn forbids_stale(&self) -> bool {
        self.value.is_absent() || self.life().forbids_stale()
    }

    /// All that it depends on.
    pub(crate) fn dependencies(&self) -> impl Iterator<Item = &Dependency> + Clone {
        std::iter::once(&self.own).chain(self.of_parts())
    }

    /// Where its load stands in the history of changes; of a whole, the earliest of its parts.
    pub fn stamp(&self) -> Stamp {
        let stamps = self.dependencies().map(|dependency| dependency.stamp);
        stamps
            .min_by_key(|stamp| stamp.clock)
            .unwrap_or(self.own.stamp)
    }

    /// The names it depends on besides its own key.
    pub fn tags(&self) -> &[InvalidationTarget] {
        self.own.names.split_last().map_or(&[], |(_, tags)| tags)
    }

    /// When its load began; of a whole, no later than that of any part.
    pub(crate) fn load_began(&self) -> Micros {
        self.loaded_at.saturating_sub(self.load_time)
    }

    /// How long after its end it is still of use: to be served stale, or to be confirmed by its source.
    pub(crate) fn use_past_end(&self, policy: &Policy) -> Duration {
        let confirmed = match self.validator() {
            Some(_) => policy.revalidate,
            None => Duration::ZERO,
        };
        policy.longest_stale(self.forbids_stale()).max(confirmed)
    }
}

/// The hash that entity tags are made of (XXH3, 64 bits).
pub fn hash(bytes: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_entry_takes_160_bytes() {
        // With the two counts of its `Arc`. The allocator gives 128, 160 or 192 bytes: what goes past 160 costs each entry four words.
        assert!(2 * size_of::<usize>() + size_of::<Entry>() <= 160);
        assert!(Extras::default().boxed().is_none());
    }
}
