//! The typed door: values of the caller's own types.
//!
//! Memory holds a value as it is, behind an `Arc`; Redis holds the bytes that a [`Codec`] makes of
//! it. A value is encoded once, at its load, and decoded once in each process: at its load, or when
//! it comes from Redis, before it is in memory. So a hit in memory parses, copies and allocates
//! nothing.
//!
//! A layer over the read line of the bytes, with the same promises about coherence, one load per
//! key, and stale copies. The caller names a type and its version. Both are part of the key, and so
//! is the codec. If another program uses the same three for another type, its value in Redis is a
//! miss here.
//!
//! Here are the loads on threads of the cache, and lookups without a load; `by_caller.rs` has the
//! loads that their caller runs.

mod by_caller;

use std::any::{TypeId, type_name};
use std::cell::Cell;
use std::collections::HashMap;
use std::fmt::Display;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Cache;
use super::answer::{Answer, LookupResult};
use super::codec::{Codec, Json};
use super::coherence::{InvalidationTarget, Purge, Since};
use super::copies::{self, Copies, Place};
use super::entry::Value;
use super::error::{Error, LoadError};
use super::fair_queue::Caller;
use super::freshness::Evidence;
use super::insert::InsertReceipt;
use super::interest::Behalf;
use super::invalidation::InvalidationReceipt;
use super::key::{Key, KeyText, Tag, hash};
use super::lookup::{Accepts, begin};
use super::object::{Hold, Object};
use super::outcome::Outcome;
use super::policy::{Lifetime, Policy};
use super::random::random;
use super::request::{CacheItem, Load, Loaded, Note, Producer, Request};
use super::single_flight::Ticket;
use super::tagged_key::TaggedKey;
use super::tally::Tally;

/// The parts that all typed lookups of one cache share.
pub(super) struct TypedShared {
    /// How long a load may take.
    pub(super) load_timeout: Duration,
    pub(super) tally: Arc<Tally>,
    /// Lookups without a load that found no copy.
    pub(super) found_none: AtomicU64,
    /// The type that each name and version stands for in this process. The lock is held for one
    /// look or one insertion.
    named: Mutex<HashMap<(String, u32), NamedType>>,
}

/// A type, and what it is called in messages.
type NamedType = (TypeId, &'static str);

impl Default for TypedShared {
    fn default() -> TypedShared {
        TypedShared {
            load_timeout: Duration::from_secs(10),
            tally: Arc::default(),
            found_none: AtomicU64::default(),
            named: Mutex::default(),
        }
    }
}

/// The values of one type in a cache: see [`Cache::typed`]. Cheap to clone. It keeps the cache
/// open.
pub struct Typed<T> {
    cache: Cache,
    /// What every key begins with.
    beginning: Arc<str>,
    storing: Storing<T>,
    hold: Hold,
}

/// How a loaded value is stored. A load has it, and with it no cache.
struct Storing<T> {
    codec: Arc<dyn Codec<T>>,
    /// How much of its TTL a value is given. `None`: all of it.
    lifetime: Option<LifetimeOf<T>>,
}

type LifetimeOf<T> = Arc<dyn Fn(&T) -> Lifetime + Send + Sync>;

impl<T> Clone for Storing<T> {
    fn clone(&self) -> Storing<T> {
        Storing {
            codec: self.codec.clone(),
            lifetime: self.lifetime.clone(),
        }
    }
}

impl<T: 'static> Storing<T> {
    /// The bytes of what a loader returned, or its error.
    fn loaded<E: Display + Send + Sync + 'static>(
        &self,
        loaded: Result<Option<T>, E>,
    ) -> Result<Loaded, LoadError> {
        let Some(value) = loaded.map_err(LoadError::own)? else {
            return Ok(Loaded::new(Value::Absent, Lifetime::Policy));
        };
        let bytes = encode(&*self.codec, &value).map_err(LoadError::Failed)?;
        let lifetime = self.lifetime.as_ref().map(|of| of(&value));
        Ok(Loaded::new(
            Value::present(bytes),
            lifetime.unwrap_or_default(),
        ))
    }
}

impl<T> Clone for Typed<T> {
    fn clone(&self) -> Typed<T> {
        Typed {
            cache: self.cache.clone(),
            beginning: self.beginning.clone(),
            storing: self.storing.clone(),
            hold: self.hold.clone(),
        }
    }
}

impl Cache {
    /// The values of type `T`, kept under `name` and `version`, in Redis as [`Json`]. Every program
    /// that uses one Redis and prefix shares the values of one name and version, wherever the type
    /// is declared there and whatever it is called. Change the version with the shape of the type,
    /// so that a program of another version does not read its values.
    ///
    /// # Errors
    /// If `name` is not 1 to 64 letters, digits, `_`, `-` and `.`, or stands with this version for
    /// another type in this process.
    pub fn typed<T: Serialize + DeserializeOwned + Send + Sync + 'static>(
        &self,
        name: &str,
        version: u32,
    ) -> Result<Typed<T>, String> {
        self.typed_with(name, version, Json)
    }

    /// The same with another codec.
    ///
    /// # Errors
    /// As [`Cache::typed`].
    pub fn typed_with<T: Send + Sync + 'static>(
        &self,
        name: &str,
        version: u32,
        codec: impl Codec<T>,
    ) -> Result<Typed<T>, String> {
        let fits = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
        if name.is_empty() || name.len() > 64 || !name.chars().all(fits) {
            return Err(format!(
                "{name:?} is not a valid type name: 1 to 64 letters, digits, `_`, `-` and `.`"
            ));
        }
        let own = (TypeId::of::<T>(), type_name::<T>());
        let mut named = self.typed.named.lock();
        let known = *named.entry((name.to_owned(), version)).or_insert(own);
        drop(named);
        if known.0 != own.0 {
            return Err(format!(
                "the type name `{name}`, version {version}, stands for {} already, so {} cannot use it",
                known.1, own.1
            ));
        }
        let what = format!("typed {version} {name} {}", codec.name());
        let key = Key::new(hash(what.as_bytes()), name);
        let codec: Arc<dyn Codec<T>> = Arc::new(codec);
        Ok(Typed {
            cache: self.clone(),
            beginning: key.as_str().into(),
            hold: hold(codec.clone(), |_, encoded| encoded + size_of::<T>()),
            storing: Storing {
                codec,
                lifetime: None,
            },
        })
    }
}

/// Makes the objects that memory holds. `weigh` says what a value takes there, and is given the
/// length of its bytes.
fn hold<T: Send + Sync + 'static>(
    codec: Arc<dyn Codec<T>>,
    weigh: impl Fn(&T, usize) -> usize + Send + Sync + 'static,
) -> Hold {
    Arc::new(move |bytes| {
        let value = codec
            .decode(bytes)
            .map_err(|error| not_stored(&*codec, &error))?;
        let weight = weigh(&value, bytes.len());
        Ok(Object::new(value, weight))
    })
}

fn encode<T: 'static>(codec: &dyn Codec<T>, value: &T) -> Result<Vec<u8>, String> {
    codec
        .encode(value)
        .map_err(|error| not_stored(codec, &error))
}

fn not_stored<T: 'static>(codec: &dyn Codec<T>, why: &dyn Display) -> String {
    format!("the value cannot be stored as {}: {why}", codec.name())
}

impl<T: Send + Sync + 'static> Typed<T> {
    /// Has `weigh` say how many bytes a value takes in memory, for the room that
    /// [`CacheBuilder::memory`](super::CacheBuilder::memory) gives. Without it a value weighs the
    /// length of its bytes in Redis plus the size of `T`.
    pub fn weighed_by(self, weigh: impl Fn(&T) -> usize + Send + Sync + 'static) -> Typed<T> {
        Typed {
            hold: hold(self.storing.codec.clone(), move |value, _| weigh(value)),
            ..self
        }
    }

    /// Has `lifetime` say how much of its TTL a value is given that is loaded or inserted: a
    /// token's own end, for one.
    /// Never more than the policy of its lookup gives. What comes from Redis has what it was given
    /// at its load.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use larder_cache::{Cache, Lifetime};
    /// use serde::{Deserialize, Serialize};
    ///
    /// #[derive(Serialize, Deserialize)]
    /// struct Token {
    ///     secret: String,
    ///     expires_in: Duration,
    /// }
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let cache = Cache::builder().build()?;
    /// let tokens = cache
    ///     .typed::<Token>("token", 1)?
    ///     .lifetime_from(|token| Lifetime::MaxAge(token.expires_in));
    /// # Ok(())
    /// # }
    /// ```
    pub fn lifetime_from(
        self,
        lifetime: impl Fn(&T) -> Lifetime + Send + Sync + 'static,
    ) -> Typed<T> {
        let storing = Storing {
            lifetime: Some(Arc::new(lifetime)),
            ..self.storing
        };
        Typed { storing, ..self }
    }

    /// The value of `key`: from memory, else from Redis, else from `load`, which runs on a thread
    /// of the cache and fills both tiers. Returns it with how it was found. Blocks unless memory
    /// has it: an async worker uses [`Typed::get_or_load_async`] instead. A `load` that borrows is
    /// for [`Typed::get_or_load_here`].
    ///
    /// However many ask for it at one time, `load` runs once at a time in this process, and once
    /// across all replicas while Redis is up.
    ///
    /// # Errors
    /// [`Error::Load`] with what `load` ended with, or that of another reader in this process whose
    /// load this one has waited for, unless `policy` allows an older value to stand in.
    /// [`Error::Cache`] for a reason of the cache's own: `Failed` if the codec cannot encode what
    /// it returned, or not decode it again; `TooSlow` if it took longer than
    /// [`CacheBuilder::load_timeout`](super::CacheBuilder::load_timeout) twice and ten seconds.
    pub fn get_or_load<E: Display + Send + Sync + 'static>(
        &self,
        key: impl Into<TaggedKey>,
        policy: &Policy,
        load: impl FnOnce() -> Result<T, E> + Send + 'static,
    ) -> Result<(Arc<T>, Outcome), Error<E>> {
        let found = self.find_or_load(key, policy, || load().map(Some))?;
        Ok(found_something(found)?)
    }

    /// The same for a value that may not exist: `load` returns `Ok(None)` then. That is kept, too,
    /// for as long as `policy.absent` says.
    ///
    /// # Errors
    /// As [`Typed::get_or_load`].
    pub fn find_or_load<E: Display + Send + Sync + 'static>(
        &self,
        key: impl Into<TaggedKey>,
        policy: &Policy,
        load: impl FnOnce() -> Result<Option<T>, E> + Send + 'static,
    ) -> Result<(Option<Arc<T>>, Outcome), Error<E>> {
        let wanted = key.into();
        let key = match self.look(&wanted, policy) {
            Ok(answer) => return Ok(value_of(Ok(answer))?),
            Err(key) => key,
        };
        let ticket = self.fetch(key, &wanted, policy, load);
        let result = ticket.wait_or_stale(policy.soft_timeout, self.longest_wait());
        self.cache.typed.tally.count(&result);
        Ok(value_of(result)?)
    }

    /// The same as [`Typed::get_or_load`] for an async program whose `load` blocks: a thread of the
    /// cache runs it, while the ticket is awaited, on whatever runtime. Waiting takes no thread,
    /// and memory is looked up before it returns. It has no clock, so [`Policy::soft_timeout`] is
    /// the caller's.
    pub fn get_or_load_blocking<E: Display + Send + Sync + 'static>(
        &self,
        key: impl Into<TaggedKey>,
        policy: &Policy,
        load: impl FnOnce() -> Result<T, E> + Send + 'static,
    ) -> TypedTicket<T, E> {
        let wanted = key.into();
        let (ticket, waits_in) = match self.look(&wanted, policy) {
            Ok(answer) => (Ticket::ready(answer), None),
            Err(key) => {
                let ticket = self.fetch(key, &wanted, policy, || load().map(Some));
                (ticket, Some(self.cache.clone()))
            }
        };
        TypedTicket {
            ticket,
            waits_in,
            value: PhantomData,
        }
    }

    /// The value of `key` if a tier has a fresh copy: memory, else Redis. `None`: neither has one,
    /// or it says that there is no such value. Begins no load and waits for none. Blocks for a
    /// round trip to Redis, unless memory has it.
    pub fn get(&self, key: impl Into<TaggedKey>, policy: &Policy) -> Option<(Arc<T>, Outcome)> {
        self.given(self.copies([key], policy).wait()).pop()?
    }

    /// The same as a future. Memory is looked up, and Redis is asked, before it returns.
    pub fn get_async<K: Into<TaggedKey>>(
        &self,
        key: K,
        policy: &Policy,
    ) -> impl Future<Output = Option<(Arc<T>, Outcome)>> + Send + use<T, K> {
        let (copies, typed) = (self.copies([key], policy), self.clone());
        async move { typed.given(copies.await).pop()? }
    }

    /// The values of all these keys, in their order, each as [`Typed::get`] gives it. Redis gets
    /// one question for up to 64 of those that memory does not have.
    pub fn get_many<K: Into<TaggedKey>>(
        &self,
        keys: impl IntoIterator<Item = K>,
        policy: &Policy,
    ) -> Vec<Option<(Arc<T>, Outcome)>> {
        self.given(self.copies(keys, policy).wait())
    }

    /// The same as a future. Memory is looked up, and Redis is asked, before it returns.
    pub fn get_many_async<K: Into<TaggedKey>, I: IntoIterator<Item = K>>(
        &self,
        keys: I,
        policy: &Policy,
    ) -> impl Future<Output = Vec<Option<(Arc<T>, Outcome)>>> + Send + use<T, K, I> {
        let (copies, typed) = (self.copies(keys, policy), self.clone());
        async move { typed.given(copies.await) }
    }

    /// Puts a value that the caller has into both tiers, unless something that it depends on was
    /// invalidated after `since`, which [`Cache::stamp`] gave before the value was read or the
    /// write began. The key is invalidated first, with a hard purge, whatever becomes of the value.
    /// Blocks for two round trips to Redis: see [`Cache::insert`].
    ///
    /// # Errors
    /// `Failed` if the codec cannot encode the value, or not decode it again.
    pub fn insert(
        &self,
        key: impl Into<TaggedKey>,
        value: T,
        since: &Since,
        policy: &Policy,
    ) -> Result<InsertReceipt, LoadError> {
        let wanted = key.into();
        let key = self.with_text(&wanted, |text| text.key());
        let held = encode(&*self.storing.codec, &value).and_then(|bytes| {
            let object = (self.hold)(&bytes)?;
            let lifetime = self.storing.lifetime.as_ref().map(|of| of(&value));
            let lifetime = lifetime.unwrap_or_default();
            Ok((Value::present(bytes), Some(object), lifetime))
        });
        let held = held.map_err(|why| {
            // The caller has changed it, all the same.
            let target = InvalidationTarget::from(&key);
            self.cache.invalidate(&target, Purge::Hard);
            LoadError::Failed(why)
        })?;
        let tags: Vec<Tag> = wanted.tags().collect();
        Ok(self.cache.insert_held(&key, &tags, held, policy, since))
    }

    /// Invalidates the value of `key`, in every version of its type: see [`Cache::invalidate`].
    pub fn invalidate(&self, key: impl Into<TaggedKey>, purge: Purge) -> InvalidationReceipt {
        self.cache.invalidate(&self.target(key), purge)
    }

    /// The target that invalidates only the value of `key`, in every version of its type.
    pub fn target(&self, key: impl Into<TaggedKey>) -> InvalidationTarget {
        let key = self.with_text(&key.into(), |text| text.key());
        InvalidationTarget::from(&key)
    }

    /// The answer from memory, which is counted then, or the key to look for elsewhere.
    fn look(&self, wanted: &TaggedKey, policy: &Policy) -> Result<Answer, Key> {
        self.with_text(wanted, |text| {
            match self.cache.get(text.as_str(), policy, None) {
                Some(answer) => {
                    self.cache.typed.tally.count_hit(&answer);
                    Ok(answer)
                }
                None => Err(text.key()),
            }
        })
    }

    /// What `with` makes of the text of a key, which is in a buffer of this thread.
    fn with_text<R>(&self, wanted: &TaggedKey, with: impl FnOnce(&mut KeyText) -> R) -> R {
        thread_local! {
            static TEXT: Cell<KeyText> = Cell::default();
        }
        // Taken out meanwhile: a value that is dropped in a lookup may look up others.
        let mut text = TEXT.try_with(Cell::take).unwrap_or_default();
        text.begin_again(&self.beginning);
        text.parameters(wanted.parameters());
        let made = with(&mut text);
        // Fails only while the thread ends.
        let _ = TEXT.try_with(|place| place.set(text));
        made
    }

    /// How long a thread waits for a load at most.
    fn longest_wait(&self) -> Duration {
        self.cache.typed.load_timeout * 2 + Duration::from_secs(10)
    }

    fn fetch<E: Display + Send + Sync + 'static>(
        &self,
        key: Key,
        wanted: &TaggedKey,
        policy: &Policy,
        load: impl FnOnce() -> Result<Option<T>, E> + Send + 'static,
    ) -> Ticket {
        let storing = self.storing.clone();
        let run = Box::new(move |_| storing.loaded(load()));
        let request = Request {
            item: self.item(key, wanted, &Arc::new(policy.clone())),
            producer: Producer::Load(Load {
                limit: self.cache.typed.load_timeout,
                run,
            }),
        };
        let (tiers, behalf) = (&self.cache.tiers, Behalf::Reader(Caller::default()));
        let accepts = Accepts::Copies(Evidence::NotAsked);
        begin(tiers, request, &behalf, accepts, Some(self.hold.clone()))
    }

    fn item(&self, key: Key, wanted: &TaggedKey, policy: &Arc<Policy>) -> CacheItem {
        // Otherwise its tags could be forgotten before it expires, and it would be a miss then.
        self.cache.remember_names_for(policy.longest_life());
        CacheItem {
            key,
            policy: policy.clone(),
            tags: wanted.tags().collect::<Vec<Tag>>().into(),
            share: "load".into(),
            label: "load".into(),
            note: Note::default(),
            jitter: random(),
            tally: self.cache.typed.tally.clone(),
        }
    }

    fn copies<K: Into<TaggedKey>>(
        &self,
        keys: impl IntoIterator<Item = K>,
        policy: &Policy,
    ) -> Copies {
        let shared = Arc::new(policy.clone());
        let places = keys.into_iter().map(|key| {
            let wanted = key.into();
            match self.look(&wanted, policy) {
                Ok(answer) => Place::Found(answer),
                Err(key) => Place::Wanted(self.item(key, &wanted, &shared)),
            }
        });
        copies::find(&self.cache.tiers, places.collect(), &self.hold)
    }

    /// What the caller gets of these copies, which are counted already.
    fn given(&self, copies: Vec<Option<Answer>>) -> Vec<Option<(Arc<T>, Outcome)>> {
        let parts = &self.cache.typed;
        let given = copies.into_iter().map(|copy| {
            let Some(answer) = copy else {
                parts.found_none.fetch_add(1, Ordering::Relaxed);
                return None;
            };
            let (value, outcome) = value_of(Ok(answer)).ok()?;
            Some((value?, outcome))
        });
        given.collect()
    }
}

/// A value that is being looked up: see [`Typed::get_or_load_blocking`]. It keeps the cache open
/// until it is ready. A ticket that is dropped before it is ready counts as a lookup that failed.
pub struct TypedTicket<T, E> {
    ticket: Ticket,
    /// `None`: memory had it, or it was given.
    waits_in: Option<Cache>,
    value: PhantomData<fn() -> Result<T, E>>,
}

impl<T: Send + Sync + 'static, E: Send + Sync + 'static> Future for TypedTicket<T, E> {
    type Output = Result<(Arc<T>, Outcome), Error<E>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let polled = Pin::new(&mut self.ticket).poll(context);
        polled.map(|result| {
            if let Some(cache) = self.waits_in.take() {
                cache.typed.tally.count(&result);
            }
            Ok(found_something(value_of(result)?)?)
        })
    }
}

impl<T, E> Drop for TypedTicket<T, E> {
    fn drop(&mut self) {
        if let Some(cache) = &self.waits_in {
            cache.typed.tally.count_left();
        }
    }
}

fn found_something<T>(found: (Option<Arc<T>>, Outcome)) -> Result<(Arc<T>, Outcome), LoadError> {
    match found {
        (Some(value), outcome) => Ok((value, outcome)),
        // Stored by `find_or_load` for the same key.
        (None, _) => Err(LoadError::Failed(
            "not found: the entry says that there is no value".to_owned(),
        )),
    }
}

/// The value of an answer, which is shared, not copied.
fn value_of<T: Send + Sync + 'static>(
    ending: LookupResult,
) -> Result<(Option<Arc<T>>, Outcome), LoadError> {
    let Answer { entry, outcome, .. } = ending?;
    let value = match &entry.value {
        Value::Absent => return Ok((None, outcome)),
        Value::Object(object) => object.get::<T>(),
        Value::Present(_) => None,
    };
    match value {
        Some(value) => Ok((Some(value), outcome)),
        // The name, version and codec of two types have one hash.
        None => Err(LoadError::Bug(format!(
            "the entry holds no {}",
            type_name::<T>()
        ))),
    }
}
