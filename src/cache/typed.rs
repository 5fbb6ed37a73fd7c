//! The typed door: values of the caller's own types, kept as JSON in both tiers.
//!
//! A thin layer over [`Cache::fetch`]: what it promises of coherence, of one load per key, and of stale copies is promised here. A value is
//! kept under the type as well as the key, so that one type is never read as another; the caller says by
//! [`CacheBuilder::version`](super::CacheBuilder::version) when the shape of a type has changed.

use std::any::type_name;
use std::fmt::Display;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::entry::Value;
use super::error::LoadError;
use super::flight::Ending;
use super::key::{Key, Tag, escape_into};
use super::outcome::{Answer, Outcome};
use super::policy::{Life, Policy};
use super::random::random;
use super::request::{Load, Loaded, Making, Request, Subject};
use super::ticket::Ticket;
use super::{Cache, Tally};

/// What all typed look-ups of one cache share.
pub(super) struct Typed {
    /// Tells values of one version of the caller's types from those of another.
    pub(super) version: String,
    /// How long a load may take.
    pub(super) load_timeout: Duration,
    pub(super) tally: Arc<Tally>,
}

impl Default for Typed {
    fn default() -> Typed {
        Typed {
            version: String::new(),
            load_timeout: Duration::from_secs(10),
            tally: Arc::default(),
        }
    }
}

/// What is asked for: a name, and the tags by which it can be invalidated besides.
///
/// ```
/// use larder::cache::Wanted;
///
/// let id = 42;
/// let wanted = Wanted::new("user").with("id", id).tag(&format!("user:{id}")).tag("users");
/// assert_eq!(wanted.name(), "user?id=42");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    name: String,
    tags: Vec<Tag>,
}

impl Wanted {
    /// The thing of this name.
    pub fn new(name: impl Into<String>) -> Wanted {
        Wanted {
            name: name.into(),
            tags: Vec::new(),
        }
    }

    /// The one of them with this `value`, which is escaped: whatever it holds, it is never taken for another value or name.
    pub fn with(mut self, parameter: &str, value: impl Display) -> Wanted {
        self.name
            .push(if self.name.contains('?') { '&' } else { '?' });
        self.name.push_str(parameter);
        self.name.push('=');
        escape_into(&mut self.name, &value.to_string());
        self
    }

    /// Invalidated by this tag, too.
    pub fn tag(mut self, tag: &str) -> Wanted {
        self.tags.push(Tag::new(tag));
        self
    }

    /// Its name, which [`Name::key`](super::Name::key) takes to invalidate it alone.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn key<T>(&self, typed: &Typed) -> Key {
        let what = format!("typed {} {}", typed.version, type_name::<T>());
        Key::new(xxhash_rust::xxh3::xxh3_64(what.as_bytes()), &self.name)
    }
}

impl From<&str> for Wanted {
    fn from(name: &str) -> Wanted {
        Wanted::new(name)
    }
}

impl From<String> for Wanted {
    fn from(name: String) -> Wanted {
        Wanted::new(name)
    }
}

impl Cache {
    /// The value of `wanted`: from memory, else from Redis, else from `load`, which runs on a thread of the cache's own and fills
    /// both tiers. Returns it with how it was found. Blocks while it is not in memory: not for an async worker, which has
    /// [`Cache::get_or_load_async`].
    ///
    /// However many ask for it at one time, `load` runs once at a time in this process, and once across all replicas while Redis is up.
    ///
    /// # Errors
    /// What `load` ended with, by its text, unless `policy` allows an older value to stand in for it. `TooSlow` if it took longer
    /// than [`CacheBuilder::load_timeout`](super::CacheBuilder::load_timeout) twice and ten seconds. `Failed` if the stored value
    /// is no `T`: then its shape has changed, and the version with it should have.
    pub fn get_or_load<T, E>(
        &self,
        wanted: impl Into<Wanted>,
        policy: &Policy,
        load: impl FnOnce() -> Result<T, E> + Send + 'static,
    ) -> Result<(T, Outcome), LoadError>
    where
        T: Serialize + DeserializeOwned,
        E: Display,
    {
        let found = self.find_or_load(wanted, policy, || load().map(Some))?;
        found_something(found)
    }

    /// The same where there may be no such thing: `Ok(None)` from `load`. That, too, is kept, for as long as `policy.absent` says.
    ///
    /// # Errors
    /// As [`Cache::get_or_load`].
    pub fn find_or_load<T, E>(
        &self,
        wanted: impl Into<Wanted>,
        policy: &Policy,
        load: impl FnOnce() -> Result<Option<T>, E> + Send + 'static,
    ) -> Result<(Option<T>, Outcome), LoadError>
    where
        T: Serialize + DeserializeOwned,
        E: Display,
    {
        let wanted = wanted.into();
        if let Some(found) = self.peek(&wanted, policy) {
            return found;
        }
        let ticket = self.fetch(self.request(wanted, policy, load));
        let limit = self.typed.load_timeout * 2 + Duration::from_secs(10);
        read(ticket.wait_or_stale(policy.soft_timeout, limit))
    }

    /// The same as [`Cache::get_or_load`] as a future, of whatever runtime: waiting takes no thread, and memory is looked up
    /// before it returns. It has no clock, so [`Policy::soft_timeout`] is the caller's.
    pub fn get_or_load_async<T, E>(
        &self,
        wanted: impl Into<Wanted>,
        policy: &Policy,
        load: impl FnOnce() -> Result<T, E> + Send + 'static,
    ) -> Fetching<T>
    where
        T: Serialize + DeserializeOwned,
        E: Display,
    {
        let wanted = wanted.into();
        let key = wanted.key::<T>(&self.typed);
        let ticket = match self.get(key.as_str(), policy, 0) {
            Some(answer) => Ticket::ready(answer),
            None => self.fetch(self.request(wanted, policy, || load().map(Some))),
        };
        Fetching {
            ticket,
            value: PhantomData,
        }
    }

    /// What memory has of `wanted`, and may be served, without waiting for anything.
    fn peek<T: DeserializeOwned>(
        &self,
        wanted: &Wanted,
        policy: &Policy,
    ) -> Option<Result<(Option<T>, Outcome), LoadError>> {
        let key = wanted.key::<T>(&self.typed);
        let answer = self.get(key.as_str(), policy, 0)?;
        Some(read(Ok(answer)))
    }

    fn request<T: Serialize, E: Display>(
        &self,
        wanted: Wanted,
        policy: &Policy,
        load: impl FnOnce() -> Result<Option<T>, E> + Send + 'static,
    ) -> Request {
        let run = Box::new(move |_| {
            let found = load().map_err(|error| LoadError::Failed(error.to_string()))?;
            let value = match found {
                Some(value) => {
                    let json = serde_json::to_vec(&value);
                    let json = json.map_err(|error| {
                        LoadError::Failed(format!("the value cannot be written as JSON: {error}"))
                    })?;
                    Value::present(json)
                }
                None => Value::Absent,
            };
            Ok(Loaded::new(value, Life::Full))
        });
        // Otherwise its names would be forgotten before it, and it would be a miss then.
        self.remember_names_for(policy.longest_life());
        Request {
            subject: Subject {
                key: wanted.key::<T>(&self.typed),
                policy: Arc::new(policy.clone()),
                tags: wanted.tags.into(),
                share: "load".into(),
                label: "load".into(),
                note: "".into(),
                jitter: random(),
                tally: self.typed.tally.clone(),
            },
            making: Making::Load(Load {
                limit: self.typed.load_timeout,
                run,
            }),
        }
    }
}

/// A value that is being looked up: see [`Cache::get_or_load_async`].
pub struct Fetching<T> {
    ticket: Ticket,
    value: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Future for Fetching<T> {
    type Output = Result<(T, Outcome), LoadError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let polled = Pin::new(&mut self.ticket).poll(context);
        polled.map(|ending| found_something(read(ending)?))
    }
}

fn found_something<T>(found: (Option<T>, Outcome)) -> Result<(T, Outcome), LoadError> {
    match found {
        (Some(value), outcome) => Ok((value, outcome)),
        // Stored by `find_or_load` for the same name and type.
        (None, _) => Err(LoadError::Failed("there is no such thing".to_owned())),
    }
}

fn read<T: DeserializeOwned>(ending: Ending) -> Result<(Option<T>, Outcome), LoadError> {
    let Answer { entry, outcome, .. } = ending?;
    match &entry.value {
        Value::Absent => Ok((None, outcome)),
        Value::Present(json) => match serde_json::from_slice(json) {
            Ok(value) => Ok((Some(value), outcome)),
            Err(error) => Err(LoadError::Failed(format!(
                "the stored value is no {}, give the cache another version: {error}",
                type_name::<T>()
            ))),
        },
    }
}
