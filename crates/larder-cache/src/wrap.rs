//! A cached function of a function.

use std::fmt::Display;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Cache;
use super::coherence::InvalidationTarget;
use super::error::{Error, LoadError};
use super::outcome::Outcome;
use super::policy::Policy;
use super::tagged_key::TaggedKey;
use super::typed::Typed;

/// A function whose results are cached: see [`Cache::wrap`]. Cheap to clone. It keeps the cache
/// open.
pub struct Wrapped<A, T, E> {
    results: Typed<T>,
    name: Arc<str>,
    policy: Policy,
    function: Arc<dyn Fn(A) -> Result<T, E> + Send + Sync>,
    tags: Arc<Tags<A>>,
}

/// Adds the tags of the result for these arguments.
type Tags<A> = dyn Fn(&A, TaggedKey) -> TaggedKey + Send + Sync;

impl<A, T, E> Clone for Wrapped<A, T, E> {
    fn clone(&self) -> Wrapped<A, T, E> {
        Wrapped {
            results: self.results.clone(),
            name: self.name.clone(),
            policy: self.policy.clone(),
            function: self.function.clone(),
            tags: self.tags.clone(),
        }
    }
}

impl Cache {
    /// The function `function`, whose results are kept under `name` by `policy`. Every program that
    /// uses one Redis and prefix shares the results of one name, so change the name with what the
    /// function returns. Its arguments are one value, a tuple if there are several, and two calls
    /// are the same if their arguments are as JSON. All results have the tag `name`.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use larder_cache::{Cache, InvalidationTarget, Policy, Purge};
    ///
    /// fn area((width, height): (u64, u64)) -> Result<u64, String> {
    ///     width.checked_mul(height).ok_or_else(|| "too large".to_owned())
    /// }
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let cache = Cache::builder().build()?;
    /// let minute = Duration::from_secs(60);
    /// let area = cache.wrap("area", Policy::new(minute, minute), area)?;
    ///
    /// let (value, outcome) = area.call((3, 4))?;
    /// assert_eq!((*value, outcome.is_hit()), (12, false));
    /// let (value, outcome) = area.call((3, 4))?;
    /// assert_eq!((*value, outcome.is_hit()), (12, true));
    /// assert!(area.call((u64::MAX, 2)).is_err());
    ///
    /// // One result, or all of them.
    /// cache.invalidate(&area.target(&(3, 4))?, Purge::Hard);
    /// assert!(!area.call((3, 4))?.1.is_hit());
    /// cache.invalidate(&InvalidationTarget::tag("area"), Purge::Hard);
    /// assert!(!area.call((3, 4))?.1.is_hit());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Cache::typed`], whose version 1 of `name` the results are.
    pub fn wrap<A, T, E>(
        &self,
        name: &str,
        policy: Policy,
        function: impl Fn(A) -> Result<T, E> + Send + Sync + 'static,
    ) -> Result<Wrapped<A, T, E>, String>
    where
        T: Serialize + DeserializeOwned + Send + Sync + 'static,
    {
        Ok(Wrapped {
            results: self.typed(name, 1)?,
            name: name.into(),
            policy,
            function: Arc::new(function),
            tags: Arc::new(|_, key| key),
        })
    }
}

impl<A, T, E> Wrapped<A, T, E>
where
    A: Serialize + Send + 'static,
    T: Send + Sync + 'static,
    E: Display + Send + Sync + 'static,
{
    /// Has `tags` add more tags to the key of a result:
    /// `|id, key| key.tag(format_args!("user:{id}"))`.
    pub fn tagged_by(
        self,
        tags: impl Fn(&A, TaggedKey) -> TaggedKey + Send + Sync + 'static,
    ) -> Wrapped<A, T, E> {
        Wrapped {
            tags: Arc::new(tags),
            ..self
        }
    }

    /// The result for these arguments, kept or made now: as [`Typed::get_or_load`] with the
    /// function as its load.
    ///
    /// # Errors
    /// As [`Typed::get_or_load`], and `Failed` if the arguments cannot be represented as JSON.
    pub fn call(&self, arguments: A) -> Result<(Arc<T>, Outcome), Error<E>> {
        let key = self.key(&arguments).map_err(LoadError::Failed)?;
        let function = self.function.clone();
        let load = move || function(arguments);
        self.results.get_or_load(key, &self.policy, load)
    }

    /// The target that invalidates the result for these arguments only.
    ///
    /// # Errors
    /// If the arguments cannot be represented as JSON.
    pub fn target(&self, arguments: &A) -> Result<InvalidationTarget, String> {
        Ok(self.results.target(self.key(arguments)?))
    }

    fn key(&self, arguments: &A) -> Result<TaggedKey, String> {
        let key = TaggedKey::new()
            .with_json("arguments", arguments)
            .map_err(|why| format!("the arguments of `{}` cannot be a key: {why}", self.name))?;
        Ok((self.tags)(arguments, key.tag(&self.name)))
    }
}
