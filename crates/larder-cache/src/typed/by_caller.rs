//! Loads that their caller runs: a future in its own task, a closure on its own thread.
//!
//! So a loader may borrow, and a future may need whatever runtime it is awaited on. How readers of
//! one key share such a load, and what becomes of it when its reader is dropped, is told in
//! `single_flight/runner.rs`.

use std::fmt::Display;
use std::future::Future;
use std::sync::Arc;

use super::{Typed, found_something, value_of};
use crate::answer::Answer;
use crate::error::Error;
use crate::fair_queue::Caller;
use crate::lookup::begin_to_run;
use crate::outcome::Outcome;
use crate::policy::Policy;
use crate::single_flight::Runner;
use crate::tagged_key::TaggedKey;

impl<T: Send + Sync + 'static> Typed<T> {
    /// The value of `key`: from memory, else from Redis, else from the future `load`, which is
    /// polled in this task and nowhere else. So it runs on whatever runtime this is awaited on, and
    /// may borrow. If a tier has the value, it is not polled at all.
    ///
    /// However many ask for it at one time, a load is made once at a time in this process, and once
    /// across all replicas while Redis is up; loads of threads and of futures are one. It counts
    /// against [`CacheBuilder::loads`](crate::CacheBuilder::loads).
    ///
    /// **Dropped before it is ready**, by a timeout or a `select!`, it harms nobody: `load` is
    /// dropped, and another reader that waits makes the load with the loader that it brought. If
    /// nobody waits, the lease goes back at once. The cache has no timer for a future: put a
    /// timeout around this one. While it is neither polled nor dropped, its load waits, and so do
    /// the others.
    ///
    /// A stale value within [`StaleRules::while_revalidate`](crate::StaleRules::while_revalidate)
    /// goes to every reader at once but the one that renews it, which waits for its `load`. If no
    /// reader is to wait, let a thread renew it ([`Typed::get_or_load_blocking`]).
    ///
    /// # Errors
    /// [`Error::Load`] with what `load` ended with, or that of another reader in this process whose
    /// load this one has waited for, unless `policy` allows an older value to stand in.
    /// [`Error::Cache`] for a reason of the cache's own, and if a `load` has panicked.
    pub async fn get_or_load_async<E: Display + Send + Sync + 'static>(
        &self,
        key: impl Into<TaggedKey>,
        policy: &Policy,
        load: impl Future<Output = Result<T, E>>,
    ) -> Result<(Arc<T>, Outcome), Error<E>> {
        let load = async { load.await.map(Some) };
        let found = self.find_or_load_async(key, policy, load).await?;
        Ok(found_something(found)?)
    }

    /// The same for a value that may not exist: `load` gives `Ok(None)` then. That is kept, too,
    /// for as long as `policy.absent` says.
    ///
    /// # Errors
    /// As [`Typed::get_or_load_async`].
    pub async fn find_or_load_async<E: Display + Send + Sync + 'static>(
        &self,
        key: impl Into<TaggedKey>,
        policy: &Policy,
        load: impl Future<Output = Result<Option<T>, E>>,
    ) -> Result<(Option<Arc<T>>, Outcome), Error<E>> {
        let wanted = key.into();
        let runner = match self.look_to_run(&wanted, policy) {
            Ok(answer) => return Ok(value_of(Ok(answer))?),
            Err(runner) => runner,
        };
        let lookup = self.cache.typed.tally.begin();
        let load = async { self.storing.loaded(load.await) };
        let result = runner.answer(load).await;
        lookup.end(&result);
        Ok(value_of(result)?)
    }

    /// The value of `key`: from memory, else from Redis, else from `load`, which runs on this
    /// thread. So it may borrow. Otherwise as [`Typed::get_or_load`], with two differences:
    ///
    /// - A stale value within [`StaleRules::while_revalidate`](crate::StaleRules::while_revalidate)
    ///   goes to every reader at once but the one that renews it, which waits for its `load`. To
    ///   renew behind the answer takes a `load` that is `'static`: [`Typed::get_or_load`].
    /// - Nothing ends a `load` that hangs, and [`Policy::soft_timeout`] does not apply.
    ///
    /// # Errors
    /// As [`Typed::get_or_load`].
    pub fn get_or_load_here<E: Display + Send + Sync + 'static>(
        &self,
        key: impl Into<TaggedKey>,
        policy: &Policy,
        load: impl FnOnce() -> Result<T, E>,
    ) -> Result<(Arc<T>, Outcome), Error<E>> {
        let found = self.find_or_load_here(key, policy, || load().map(Some))?;
        Ok(found_something(found)?)
    }

    /// The same for a value that may not exist: `load` returns `Ok(None)` then. That is kept, too,
    /// for as long as `policy.absent` says.
    ///
    /// # Errors
    /// As [`Typed::get_or_load`].
    pub fn find_or_load_here<E: Display + Send + Sync + 'static>(
        &self,
        key: impl Into<TaggedKey>,
        policy: &Policy,
        load: impl FnOnce() -> Result<Option<T>, E>,
    ) -> Result<(Option<Arc<T>>, Outcome), Error<E>> {
        let wanted = key.into();
        let runner = match self.look_to_run(&wanted, policy) {
            Ok(answer) => return Ok(value_of(Ok(answer))?),
            Err(runner) => runner,
        };
        let limit = self.longest_wait();
        let result = runner.answer_here(limit, || self.storing.loaded(load()));
        self.cache.typed.tally.count(&result);
        Ok(value_of(result)?)
    }

    /// The answer from memory, which is counted then, or a reader for the rest.
    fn look_to_run(&self, wanted: &TaggedKey, policy: &Policy) -> Result<Answer, Runner> {
        self.look(wanted, policy).map_err(|key| {
            let item = self.item(key, wanted, &Arc::new(policy.clone()));
            let hold = Some(self.hold.clone());
            begin_to_run(&self.cache.tiers, item, Caller::default(), hold)
        })
    }
}
