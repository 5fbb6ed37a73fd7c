//! The typed door: values of the caller's own types, kept as JSON in both tiers.
//!
//! A thin layer over [`Cache::fetch`], with the same promises about coherence, one load per key,
//! and stale copies. The caller names a type and its version, and both are part of the key. If
//! another program uses the same name and version for another type, its value in Redis is a miss
//! here.

use std::any::type_name;
use std::collections::HashMap;
use std::fmt::Display;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Cache;
use super::answer::{Answer, LookupResult};
use super::coherence::InvalidationTarget;
use super::entry::Value;
use super::error::LoadError;
use super::fair_queue::Caller;
use super::faithful;
use super::freshness::Evidence;
use super::interest::Behalf;
use super::key::{Key, Tag, escape_into};
use super::lookup::{Accepts, begin};
use super::outcome::Outcome;
use super::policy::{Lifetime, Policy};
use super::random::random;
use super::request::{CacheItem, Load, Loaded, Note, Producer, Request};
use super::single_flight::Ticket;
use super::tally::{Tally, Totals};

/// The parts that all typed lookups of one cache share.
pub(super) struct TypedShared {
    /// How long a load may take.
    pub(super) load_timeout: Duration,
    tally: Arc<Tally>,
    /// The type that each name and version stands for in this process. The lock is held for one
    /// look or one insertion.
    named: Mutex<HashMap<(String, u32), &'static str>>,
}

impl Default for TypedShared {
    fn default() -> TypedShared {
        TypedShared {
            load_timeout: Duration::from_secs(10),
            tally: Arc::default(),
            named: Mutex::default(),
        }
    }
}

/// Names one value of its type, and the tags by which it can be invalidated, besides its key.
///
/// ```
/// use larder_cache::TaggedKey;
///
/// let id = 42;
/// let key = TaggedKey::new().with("id", id).tag(&format!("user:{id}")).tag("users");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaggedKey {
    parameters: String,
    tags: Vec<Tag>,
}

impl TaggedKey {
    /// The one value of its type, unless [`TaggedKey::with`] says which.
    pub fn new() -> TaggedKey {
        TaggedKey::default()
    }

    /// The value with this parameter. Its `value` is escaped, so it is never mistaken for another
    /// value or parameter.
    pub fn with(mut self, parameter: &str, value: impl Display) -> TaggedKey {
        self.parameters
            .push(if self.parameters.is_empty() { '?' } else { '&' });
        escape_into(&mut self.parameters, parameter);
        self.parameters.push('=');
        escape_into(&mut self.parameters, &value.to_string());
        self
    }

    /// Adds a tag by which it can be invalidated.
    pub fn tag(mut self, tag: &str) -> TaggedKey {
        self.tags.push(Tag::new(tag));
        self
    }
}

/// The values of one type in a cache: see [`Cache::typed`]. Cheap to clone. It keeps the cache
/// open.
pub struct Typed<T> {
    cache: Cache,
    name: Arc<str>,
    fingerprint: u64,
    value: PhantomData<fn() -> T>,
}

impl<T> Clone for Typed<T> {
    fn clone(&self) -> Typed<T> {
        Typed {
            cache: self.cache.clone(),
            name: self.name.clone(),
            fingerprint: self.fingerprint,
            value: PhantomData,
        }
    }
}

impl Cache {
    /// The values of type `T`, kept under `name` and `version`. Every program that uses one Redis
    /// and prefix shares the values of one name and version, wherever the type is declared there
    /// and whatever it is called. Change the version with the shape of the type, so that a program
    /// of another version does not read its values.
    ///
    /// A value is kept as JSON, which must decode to the same value.
    ///
    /// # Errors
    /// If `name` is not 1 to 64 letters, digits, `_`, `-` and `.`, or stands with this version for
    /// another type in this process.
    pub fn typed<T: Serialize + DeserializeOwned>(
        &self,
        name: &str,
        version: u32,
    ) -> Result<Typed<T>, String> {
        let fits = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
        if name.is_empty() || name.len() > 64 || !name.chars().all(fits) {
            return Err(format!(
                "{name:?} is not a valid type name: 1 to 64 letters, digits, `_`, `-` and `.`"
            ));
        }
        let mut named = self.typed.named.lock();
        let own = type_name::<T>();
        let known = named.entry((name.to_owned(), version)).or_insert(own);
        if *known != own {
            return Err(format!(
                "the type name `{name}`, version {version}, stands for {known} already, so {own} cannot use it"
            ));
        }
        let what = format!("typed {version} {name}");
        Ok(Typed {
            cache: self.clone(),
            name: name.into(),
            fingerprint: xxhash_rust::xxh3::xxh3_64(what.as_bytes()),
            value: PhantomData,
        })
    }

    /// The counts of all typed lookups and loads of this cache.
    pub fn typed_tally(&self) -> &Tally {
        &self.typed.tally
    }

    /// The sums of all typed lookups of this cache.
    pub fn typed_totals(&self) -> Totals {
        self.typed.tally.totals()
    }
}

impl<T: Serialize + DeserializeOwned> Typed<T> {
    /// The value of `tagged`: from memory, else from Redis, else from `load`, which runs on a
    /// thread of the cache and fills both tiers. Returns it with how it was found. Blocks unless
    /// memory has it: an async worker uses [`Typed::get_or_load_async`] instead.
    ///
    /// However many ask for it at one time, `load` runs once at a time in this process, and once
    /// across all replicas while Redis is up.
    ///
    /// # Errors
    /// What `load` ended with, by its text, unless `policy` allows an older value to stand in for
    /// it. `Failed` also if what it returned does not read back from JSON as it was written: `NaN`,
    /// `Some(None)`, a map whose keys are no text. `TooSlow` if it took longer than
    /// [`CacheBuilder::load_timeout`](super::CacheBuilder::load_timeout) twice and ten seconds.
    pub fn get_or_load<E: Display>(
        &self,
        tagged: TaggedKey,
        policy: &Policy,
        load: impl FnOnce() -> Result<T, E> + Send + 'static,
    ) -> Result<(T, Outcome), LoadError> {
        found_something(self.find_or_load(tagged, policy, || load().map(Some))?)
    }

    /// The same for a value that may not exist: `load` returns `Ok(None)` then. That is kept, too,
    /// for as long as `policy.absent` says.
    ///
    /// # Errors
    /// As [`Typed::get_or_load`].
    pub fn find_or_load<E: Display>(
        &self,
        tagged: TaggedKey,
        policy: &Policy,
        load: impl FnOnce() -> Result<Option<T>, E> + Send + 'static,
    ) -> Result<(Option<T>, Outcome), LoadError> {
        let parts = &self.cache.typed;
        let key = self.key(&tagged);
        if let Some(answer) = self.cache.get(key.as_str(), policy, None) {
            parts.tally.count_hit(&answer);
            return read(Ok(answer));
        }
        let ticket = self.fetch(key, tagged, policy, load);
        let limit = parts.load_timeout * 2 + Duration::from_secs(10);
        let result = ticket.wait_or_stale(policy.soft_timeout, limit);
        parts.tally.count(&result);
        read(result)
    }

    /// The same as [`Typed::get_or_load`] as a future, of whatever runtime: waiting takes no
    /// thread, and memory is looked up before it returns. It has no clock, so
    /// [`Policy::soft_timeout`] is the caller's.
    pub fn get_or_load_async<E: Display>(
        &self,
        tagged: TaggedKey,
        policy: &Policy,
        load: impl FnOnce() -> Result<T, E> + Send + 'static,
    ) -> TypedTicket<T> {
        let key = self.key(&tagged);
        let (ticket, waits_in) = match self.cache.get(key.as_str(), policy, None) {
            Some(answer) => {
                self.cache.typed.tally.count_hit(&answer);
                (Ticket::ready(answer), None)
            }
            None => {
                let ticket = self.fetch(key, tagged, policy, || load().map(Some));
                (ticket, Some(self.cache.clone()))
            }
        };
        TypedTicket {
            ticket,
            waits_in,
            value: PhantomData,
        }
    }

    /// The target that invalidates only the value of `tagged`, in every version of its type.
    pub fn name(&self, tagged: &TaggedKey) -> InvalidationTarget {
        InvalidationTarget::from(&self.key(tagged))
    }

    fn key(&self, tagged: &TaggedKey) -> Key {
        Key::with_parameters(self.fingerprint, &self.name, &tagged.parameters)
    }

    fn fetch<E: Display>(
        &self,
        key: Key,
        tagged: TaggedKey,
        policy: &Policy,
        load: impl FnOnce() -> Result<Option<T>, E> + Send + 'static,
    ) -> Ticket {
        let run = Box::new(move |_| {
            let value = match load().map_err(|error| LoadError::Failed(error.to_string()))? {
                Some(value) => Value::present(faithful::encode(&value).map_err(LoadError::Failed)?),
                None => Value::Absent,
            };
            Ok(Loaded::new(value, Lifetime::Policy))
        });
        let parts = &self.cache.typed;
        // Otherwise its tags could be forgotten before it expires, and it would be a miss then.
        self.cache.remember_names_for(policy.longest_life());
        let request = Request {
            item: CacheItem {
                key,
                policy: Arc::new(policy.clone()),
                tags: tagged.tags.into(),
                share: "load".into(),
                label: "load".into(),
                note: Note::default(),
                jitter: random(),
                tally: parts.tally.clone(),
            },
            producer: Producer::Load(Load {
                limit: parts.load_timeout,
                run,
            }),
        };
        let (tiers, behalf) = (&self.cache.tiers, Behalf::Reader(Caller::default()));
        let accepts = Accepts::Copies(Evidence::NotAsked);
        begin(tiers, request, &behalf, accepts, Some(is_readable::<T>))
    }
}

/// Whether the bytes in Redis are a `T`.
fn is_readable<T: Serialize + DeserializeOwned>(json: &[u8]) -> bool {
    faithful::decode::<T>(json).is_ok()
}

/// A value that is being looked up: see [`Typed::get_or_load_async`]. It keeps the cache open until
/// it is ready. A ticket that is dropped before it is ready counts as a lookup that failed.
pub struct TypedTicket<T> {
    ticket: Ticket,
    /// `None`: memory had it, or it was given.
    waits_in: Option<Cache>,
    value: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Future for TypedTicket<T> {
    type Output = Result<(T, Outcome), LoadError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let polled = Pin::new(&mut self.ticket).poll(context);
        polled.map(|result| {
            if let Some(cache) = self.waits_in.take() {
                cache.typed.tally.count(&result);
            }
            found_something(read(result)?)
        })
    }
}

impl<T> Drop for TypedTicket<T> {
    fn drop(&mut self) {
        if let Some(cache) = &self.waits_in {
            cache.typed.tally.count_left();
        }
    }
}

fn found_something<T>(found: (Option<T>, Outcome)) -> Result<(T, Outcome), LoadError> {
    match found {
        (Some(value), outcome) => Ok((value, outcome)),
        // Stored by `find_or_load` for the same key.
        (None, _) => Err(LoadError::Failed(
            "not found: the entry says that there is no value".to_owned(),
        )),
    }
}

fn read<T: DeserializeOwned>(ending: LookupResult) -> Result<(Option<T>, Outcome), LoadError> {
    let Answer { entry, outcome, .. } = ending?;
    match &entry.value {
        Value::Absent => Ok((None, outcome)),
        // It was read when it came here. Only a `Deserialize` that does not always do the same
        // fails now.
        Value::Present(json) => match serde_json::from_slice(json) {
            Ok(value) => Ok((Some(value), outcome)),
            Err(error) => Err(LoadError::Failed(format!(
                "the stored value is not a valid {}: {error}",
                type_name::<T>()
            ))),
        },
    }
}
