//! An entry: a value, where it stands in the history of changes, and until when it may be served.

use std::time::Duration;

use bytes::Bytes;

use super::clock::Micros;
use super::coherence::{Dependency, InvalidationTarget, Stamp};
use super::key::hash;
use super::object::Object;
use super::outcome::Staleness;
use super::policy::{Expiry, Lifetime, Policy};

/// What a source said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// There is a value: these bytes.
    Present(Bytes),
    /// There is no such thing.
    Absent,
    /// There is a value, which memory holds as what its bytes stand for: see
    /// [`Typed`](super::Typed). The bytes themselves are not kept.
    Object(Object),
}

impl Value {
    /// A value of these bytes, in no more memory than they need.
    pub fn present(bytes: Vec<u8>) -> Value {
        Value::Present(bytes.into_boxed_slice().into())
    }

    /// The bytes; empty where there is no value, and where an object is held in their place.
    pub fn bytes(&self) -> &Bytes {
        static NOTHING: Bytes = Bytes::new();
        match self {
            Value::Present(bytes) => bytes,
            Value::Absent | Value::Object(_) => &NOTHING,
        }
    }

    /// What it takes in memory, in bytes.
    pub(crate) fn weight(&self) -> usize {
        match self {
            Value::Present(bytes) => bytes.len(),
            Value::Absent => 0,
            Value::Object(object) => object.weight(),
        }
    }

    /// Whether its bytes are these very ones, not equal ones at another place.
    pub(crate) fn is_the_same(&self, bytes: &Bytes) -> bool {
        let own = self.bytes();
        !self.is_absent() && (own.as_ptr(), own.len()) == (bytes.as_ptr(), bytes.len())
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
    /// A hash of the value's bytes: its entity tag.
    pub hash: u64,
    /// Its tags and, last, its key, as of its load.
    pub own: Dependency,
    /// When its load ended: ages and TTLs count from here.
    pub loaded_at: Micros,
    /// How long its load took.
    pub load_time: Micros,
    /// Until when it is fresh.
    pub expiry: Expiry,
    /// Until when the memory tier keeps it. Includes the stale window. Zero before the fill, or if
    /// it is not kept.
    kept_until: Micros,
    /// What a plain entry does not have; a plain entry has none.
    extras: Option<Box<Extras>>,
}

/// What a plain entry does not have, in one place, so that it takes no room there. Plain are values
/// of SQL, and of upstreams that send neither a validator nor a lifetime.
#[derive(Clone, Debug, Default)]
pub struct Extras {
    /// What the parts of a composite depend on, each as of its own load. Empty for a loaded value.
    pub of_parts: Box<[Dependency]>,
    /// How much of its TTL it was given.
    pub lifetime: Lifetime,
    /// What its source knows it by when it is asked to confirm it. `None`: it cannot.
    pub validator: Option<Box<str>>,
    /// Set on a stale entry whose reload has failed.
    pub backoff: Option<Backoff>,
}

/// The pause after a failed load: the stale entry is served without a new attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The end of the pause.
    pub until: Micros,
    /// What readers are told meanwhile.
    pub reason: Staleness,
}

impl Extras {
    fn is_plain(&self) -> bool {
        self.of_parts.is_empty()
            && self.lifetime == Lifetime::Policy
            && self.validator.is_none()
            && self.backoff.is_none()
    }

    /// What they take in memory, in bytes.
    fn weight(&self) -> usize {
        size_of::<Extras>()
            + self.of_parts.len() * size_of::<Dependency>()
            + self.validator.as_ref().map_or(0, |text| text.len())
    }
}

impl Entry {
    /// An entry that no tier keeps yet. `own`: its tags and, last, its key. `loaded_at` and
    /// `load_time`: when its load ended, and how long it took.
    pub fn new(
        value: Value,
        own: Dependency,
        loaded_at: Micros,
        load_time: Micros,
        expiry: Expiry,
        extras: Extras,
    ) -> Entry {
        Entry {
            hash: hash(value.bytes()),
            value,
            own,
            loaded_at,
            load_time,
            expiry,
            kept_until: 0,
            extras: (!extras.is_plain()).then(|| Box::new(extras)),
        }
    }

    /// The same entry, which holds its value as this object. Its hash stays that of the bytes.
    pub(crate) fn holding(self, object: Object) -> Entry {
        let value = Value::Object(object);
        Entry { value, ..self }
    }

    /// The same value, not to be reloaded during this pause.
    pub(crate) fn with_backoff(&self, backoff: Backoff) -> Entry {
        let mut entry = self.clone();
        entry.extras.get_or_insert_default().backoff = Some(backoff);
        entry
    }

    /// The same entry, kept in memory until then.
    pub(crate) fn kept(self, kept_until: Micros) -> Entry {
        Entry { kept_until, ..self }
    }

    /// Until when the memory tier keeps it.
    pub(crate) fn kept_until(&self) -> Micros {
        self.kept_until
    }

    /// What it takes in memory besides its value, its names and its plain fields, in bytes.
    pub(crate) fn extra_weight(&self) -> usize {
        self.extras.as_ref().map_or(0, |extras| extras.weight())
    }

    /// What its parts depend on: see [`Extras::of_parts`].
    pub fn of_parts(&self) -> &[Dependency] {
        self.extras.as_ref().map_or(&[], |extras| &extras.of_parts)
    }

    /// How much of its TTL it was given.
    pub fn lifetime(&self) -> Lifetime {
        let extras = self.extras.as_ref();
        extras.map_or(Lifetime::Policy, |extras| extras.lifetime)
    }

    /// What its source knows it by: see [`Extras::validator`].
    pub fn validator(&self) -> Option<&str> {
        self.extras.as_ref()?.validator.as_deref()
    }

    /// The pause after its reload has failed: see [`Extras::backoff`].
    pub fn backoff(&self) -> Option<Backoff> {
        self.extras.as_ref()?.backoff
    }

    /// Whether it may never be served past its fresh life: an absent value, or one whose source
    /// forbids stale use.
    pub(crate) fn forbids_stale(&self) -> bool {
        self.value.is_absent() || self.lifetime().forbids_stale()
    }

    /// All that it depends on.
    pub(crate) fn dependencies(&self) -> impl Iterator<Item = &Dependency> + Clone {
        std::iter::once(&self.own).chain(self.of_parts())
    }

    /// Where its load stands in the history of invalidations; of a composite, the earliest of its
    /// parts.
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

    /// How long after its fresh life it is still of use: to be served stale, or to be confirmed by
    /// its source.
    pub(crate) fn use_past_end(&self, policy: &Policy) -> Duration {
        let confirmed = match self.validator() {
            Some(_) => policy.revalidate,
            None => Duration::ZERO,
        };
        policy.longest_stale(self.forbids_stale()).max(confirmed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_entry_takes_160_bytes() {
        // With the two counts of its `Arc`. The allocator hands out 128, 160 or 192 bytes, so one
        // byte more than 160 costs each entry four words.
        assert!(2 * size_of::<usize>() + size_of::<Entry>() <= 160);
        assert!(Extras::default().is_plain());
    }
}
