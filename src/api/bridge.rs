//! The bridge from async to blocking: the one place where a request waits for something that a thread does.
//!
//! A request that waits for a load waits as a future: a thousand requests for one cold key occupy one blocking thread.

use std::time::Duration;

use actix_web::rt::time::timeout;
use actix_web::web;

use crate::database::{Database, DatabaseError};
use crate::resource::{WriteError, Written};
use larder_cache::{Cache, Caller, LoadError, LookupResult, Request, Ticket};

use super::presence::{Attended, Presence};
use super::problem::Problem;

/// A reader who waits.
pub(crate) struct Waiting {
    /// Whose turn it is, where loads have to wait.
    pub(crate) caller: Caller,
    /// Whether it is still there.
    pub(crate) presence: Option<Presence>,
    /// The clock of the last invalidation that it knows of.
    pub(crate) after: Option<u64>,
}

/// Fetches and waits: for the resource's soft timeout only, if there is a stale copy to give
/// instead, and never longer than `limit`.
pub(crate) async fn wait(
    cache: &Cache,
    request: Request,
    reader: Waiting,
    limit: Duration,
) -> Result<LookupResult, Problem> {
    let soft = request.item.policy.soft_timeout;
    let ticket = fetch(cache, request, &reader).await?;
    let presence = reader.presence;
    Ok(answer(Attended { ticket, presence }, soft, limit).await)
}

async fn answer(mut attended: Attended, soft: Option<Duration>, limit: Duration) -> LookupResult {
    if let Some(soft) = soft.filter(|soft| *soft < limit) {
        if let Ok(ending) = timeout(soft, &mut attended).await {
            return ending;
        }
        if let Some(stale) = attended.ticket.stale() {
            return Ok(stale);
        }
    }
    match timeout(limit, attended).await {
        Ok(ending) => ending,
        Err(_) => Err(LoadError::TooSlow(
            "the answer did not come in time".to_owned(),
        )),
    }
}

/// A claim to the answer. Where this replica may not have heard of the change, Redis is asked first, on a blocking thread.
async fn fetch(cache: &Cache, request: Request, reader: &Waiting) -> Result<Ticket, Problem> {
    let caller = reader.caller;
    let Some(after) = reader.after else {
        return Ok(cache.fetch_for(request, caller));
    };
    let cache = cache.clone();
    let ticket = web::block(move || cache.fetch_after(request, caller, after)).await;
    let bug = |_| LoadError::Bug("the question to Redis panicked".to_owned());
    ticket.map_err(|error| Problem::Load(bug(error)))
}

/// How long a request waits for the database. One that is frozen says nothing, and its client has no timeout of its own.
const DATABASE: Duration = Duration::from_secs(10);

/// Asks the database on a blocking thread, and waits for [`DATABASE`] at most.
pub(crate) async fn database<T: Send + 'static>(
    database: &Database,
    work: impl FnOnce(&Database) -> Result<T, DatabaseError> + Send + 'static,
) -> Result<T, Problem> {
    let database = database.clone();
    let Ok(ended) = timeout(DATABASE, web::block(move || work(&database))).await else {
        log::warn!("the database: no answer in {} s", DATABASE.as_secs());
        return Err(Problem::Database);
    };
    match ended {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(DatabaseError::Invalid(detail))) => Err(Problem::bad_field("body", &detail)),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => Err(Problem::Database),
    }
}

/// Writes on a blocking thread, and waits for [`DATABASE`] at most. Then nobody knows here whether it was done; the thread goes on,
/// and invalidates if it was.
pub(crate) async fn change(
    work: impl FnOnce() -> Result<Written, WriteError> + Send + 'static,
) -> Result<Written, Problem> {
    match timeout(DATABASE, web::block(work)).await {
        Ok(Ok(ended)) => Ok(ended?),
        Ok(Err(_)) => Err(Problem::Database),
        Err(_) => {
            log::warn!("the database: no answer in {} s", DATABASE.as_secs());
            Err(Problem::Database)
        }
    }
}
