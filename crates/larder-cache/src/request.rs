//! The request of a lookup: a key, the policy of its resource, and how to make the value if no tier
//! has it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::answer::LookupResult;
use super::coherence::InvalidationTarget;
use super::entry::Value;
use super::error::LoadError;
use super::key::{Key, Tag};
use super::policy::{Lifetime, Policy};
use super::tally::Tally;

/// See the module.
pub struct Request {
    /// The value that is asked for.
    pub item: CacheItem,
    /// How the value is made.
    pub producer: Producer,
}

/// The value that a lookup is for.
pub struct CacheItem {
    /// Its key.
    pub key: Key,
    /// How long it may be served.
    pub policy: Arc<Policy>,
    /// The tags that the value depends on.
    pub tags: Box<[Tag]>,
    /// The share of `max_loads` and `max_queue` that its load draws on. Sources that are slow
    /// together have one share: an upstream, a database.
    pub share: Arc<str>,
    /// The name of its source in a log line: `newsapi`.
    pub label: Arc<str>,
    /// What the log line of its load says beside key, times and source.
    pub note: Note,
    /// Any number, by which its TTL is shortened a little. The parts of one composite have the same
    /// one, so that they expire together.
    pub jitter: u64,
    /// Where its loads are counted.
    pub tally: Arc<Tally>,
}

/// Members of the log line of a load (`log::kv`): what connects it with the request that led to it.
/// Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Note {
    /// The name under which the value was declared.
    pub resource: Option<Arc<str>>,
    /// The id of the request.
    pub request_id: Option<Arc<str>>,
    /// The id of the trace that the request is part of.
    pub trace_id: Option<Arc<str>>,
}

impl CacheItem {
    /// Its tags and, last, its key.
    pub fn targets(&self) -> impl Iterator<Item = InvalidationTarget> + '_ {
        let tags = self.tags.iter().map(InvalidationTarget::from);
        tags.chain([InvalidationTarget::from(&self.key)])
    }
}

/// How a value is made.
pub enum Producer {
    /// By asking a source.
    Load(Load),
    /// From other entries.
    Compose(Composition),
}

impl Producer {
    /// All that the value of `item` depends on: its tags and its key, and those of its parts.
    pub fn targets(&self, item: &CacheItem) -> Arc<[InvalidationTarget]> {
        let Producer::Compose(composition) = self else {
            return item.targets().collect();
        };
        let mut targets: Vec<_> = item.targets().collect();
        for part in &composition.parts {
            for target in part.producer.targets(&part.item).iter() {
                if !targets.contains(target) {
                    targets.push(target.clone());
                }
            }
        }
        targets.into()
    }
}

/// The work of asking a source; done on a blocking thread.
pub struct Load {
    /// How long the work may take.
    pub limit: Duration,
    /// The work.
    pub run: Box<dyn FnOnce(LoadContext) -> Result<Loaded, LoadError> + Send>,
}

/// The context of a load.
#[derive(Clone, Debug)]
pub struct LoadContext {
    /// When it must be over: `limit` from its start.
    pub deadline: Instant,
    /// A copy that is no longer fresh, which the source may confirm instead of sending a new value.
    /// Never one that was purged hard, or that comes from before Redis lost its data: whoever
    /// purges hard wants the value fetched again.
    pub revalidation: Option<Revalidation>,
}

/// An older value, with the validator that its source gave with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revalidation {
    /// The value's bytes. A source that confirms them gives them back, which copies nothing, and by
    /// which the load counts as [`Confirmed`](super::LoadResult::Confirmed).
    pub value: Bytes,
    /// [`Loaded::validator`] of the load that brought them.
    pub validator: Box<str>,
}

/// The result of a load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// The value, or that there is none.
    pub value: Value,
    /// How much of its TTL it deserves.
    pub lifetime: Lifetime,
    /// The validator: any text by which the source can confirm this value, such as an entity tag.
    /// Dropped if it is longer than [`Loaded::LONGEST_VALIDATOR`], and with a value that is absent
    /// or not kept.
    pub validator: Option<Box<str>>,
}

impl Loaded {
    /// The longest validator, in bytes.
    pub const LONGEST_VALIDATOR: usize = 1024;

    /// A value that its source cannot confirm.
    pub fn new(value: Value, lifetime: Lifetime) -> Loaded {
        Loaded {
            value,
            lifetime,
            validator: None,
        }
    }

    /// The validator to keep.
    pub(crate) fn take_validator(&mut self) -> Option<Box<str>> {
        let kept = !self.value.is_absent() && self.lifetime != Lifetime::NoStore;
        let taken = self.validator.take().filter(|_| kept);
        taken.filter(|text| (1..=Loaded::LONGEST_VALIDATOR).contains(&text.len()))
    }
}

/// A value made from other entries, which have lifetimes of their own. It is kept in memory only,
/// as long as its shortest part is fresh.
pub struct Composition {
    /// The parts, looked up side by side.
    pub parts: Vec<Request>,
    /// Makes the composite from the results of the parts, in their order. Called if at least one of
    /// them is there.
    pub compose: Compose,
    /// The answer if there is no part and no older composite. Made on a blocking thread.
    pub last_resort: Option<LastResort>,
}

/// Makes a composite from its parts. `None`: it cannot be made.
pub type Compose = Arc<dyn Fn(&[LookupResult]) -> Option<Loaded> + Send + Sync>;
/// Makes a value when all else has failed. `None`: it cannot.
pub type LastResort = Box<dyn FnOnce() -> Option<Loaded> + Send>;
