//! The bridge from async to blocking: the one place where a request waits for a thread.
//!
//! A request that waits for a load waits as a future: a thousand requests for one cold key occupy
//! one blocking thread.

use std::time::Duration;

use actix_web::rt::time::timeout;
use actix_web::web;

use crate::database::{Database, DatabaseError};
use crate::resource::{WriteError, Written};
use larder_cache::{Cache, Caller, LoadError, LookupResult, Request, Ticket};

use super::presence::{Attended, Presence};
use super::problem::Problem;

/// A reader that waits for a value.
pub(crate) struct Reader {
    /// The caller, by which waiting loads take turns.
    pub(crate) caller: Caller,
    /// Whether its client is still there.
    pub(crate) presence: Option<Presence>,
    /// The clock of the last change that it knows of, if it knows of one.
    pub(crate) after: Option<u64>,
}

/// Runs `work`, which the log calls `what`, on a blocking thread.
///
/// # Errors
/// [`Problem::Bug`] if it panics.
pub(crate) async fn blocking<T: Send + 'static>(
    what: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Problem> {
    // Fails only if `work` panicked, or if the runtime is shutting down.
    let ended = web::block(work).await;
    ended.map_err(|_| Problem::bug(&format!("{what} panicked")))
}

/// Looks a value up and waits for it, for at most `limit`. If there is a stale copy, it waits for
/// the resource's soft timeout only.
pub(crate) async fn wait(
    cache: &Cache,
    request: Request,
    reader: Reader,
    limit: Duration,
) -> Result<LookupResult, Problem> {
    let soft = request.item.policy.soft_timeout;
    let ticket = fetch(cache, request, &reader).await?;
    let presence = reader.presence;
    Ok(answer(Attended { ticket, presence }, soft, limit).await)
}

async fn answer(mut attended: Attended, soft: Option<Duration>, limit: Duration) -> LookupResult {
    if let Some(soft) = soft.filter(|soft| *soft < limit) {
        if let Ok(result) = timeout(soft, &mut attended).await {
            return result;
        }
        if let Some(stale) = attended.ticket.stale() {
            return Ok(stale);
        }
    }
    match timeout(limit, attended).await {
        Ok(result) => result,
        Err(_) => Err(LoadError::TooSlow(
            "the answer did not come in time".to_owned(),
        )),
    }
}

/// Starts the look-up. If the reader knows of a change, Redis may have to be asked first whether
/// this replica has heard of it: that happens on a blocking thread.
async fn fetch(cache: &Cache, request: Request, reader: &Reader) -> Result<Ticket, Problem> {
    let caller = reader.caller;
    let Some(after) = reader.after else {
        return Ok(cache.fetch_for(request, caller));
    };
    let cache = cache.clone();
    let look_up = move || cache.fetch_after(request, caller, after);
    blocking("a look-up", look_up).await
}

/// How long a request waits for the database. A frozen database never answers, and its client has
/// no timeout of its own.
const DATABASE: Duration = Duration::from_secs(10);

/// Asks the database on a blocking thread, and waits for [`DATABASE`] at most.
pub(crate) async fn database<T: Send + 'static>(
    database: &Database,
    work: impl FnOnce(&Database) -> Result<T, DatabaseError> + Send + 'static,
) -> Result<T, Problem> {
    let database = database.clone();
    match in_time(move || work(&database)).await? {
        Ok(value) => Ok(value),
        Err(DatabaseError::Invalid(detail)) => Err(Problem::bad_field("body", &detail)),
        Err(error) => Err(error.into()),
    }
}

/// Writes on a blocking thread, and waits for [`DATABASE`] at most. If that is not enough, the
/// answer does not say whether the write was done; the thread goes on, and invalidates if it was.
pub(crate) async fn change(
    work: impl FnOnce() -> Result<Written, WriteError> + Send + 'static,
) -> Result<Written, Problem> {
    Ok(in_time(work).await??)
}

async fn in_time<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Problem> {
    let ended = timeout(DATABASE, blocking("a database query", work)).await;
    ended.unwrap_or_else(|_| {
        log::warn!(
            "the database did not answer within {} s",
            DATABASE.as_secs()
        );
        Err(Problem::Database)
    })
}
