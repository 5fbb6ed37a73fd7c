//! The archivist: writes what each load brought to the database, behind the answer's back.
//!
//! Promise: an answer never waits for the database. What waits to be written is bounded; past the bound a batch is dropped and
//! said so, since the next load of its category brings most of it again. Dropping the last handle writes what waits and stops.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::database::{ArchivedArticle, Database};
use crate::source::news::Listing;

use super::news::made_up_shelf;

/// Batches that may wait.
const WAITING: usize = 256;
/// How often what is too old is removed.
const PRUNE_EVERY: Duration = Duration::from_secs(3600);

type Batch = (String, Vec<u8>);

/// See the module. Cheap to clone.
#[derive(Clone)]
pub struct Archivist(Arc<Inner>);

struct Inner {
    batches: SyncSender<Batch>,
    full: AtomicBool,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Archivist {
    /// An archivist that keeps articles in `database` for `keep`.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn start(database: Database, keep: Duration) -> std::io::Result<Archivist> {
        let (batches, waiting) = sync_channel(WAITING);
        let thread = std::thread::Builder::new()
            .name("archivist".into())
            .spawn(move || work(&database, &waiting, keep))?;
        Ok(Archivist(Arc::new(Inner {
            batches,
            full: AtomicBool::new(false),
            thread: Mutex::new(Some(thread)),
        })))
    }

    /// Has the articles of a listing written under `category`. Does not block.
    pub fn keep(&self, category: &str, listing: &[u8]) {
        let taken = self
            .0
            .batches
            .try_send((category.to_owned(), listing.to_vec()))
            .is_ok();
        if !taken && !self.0.full.swap(true, Ordering::Relaxed) {
            log::warn!("the archive falls behind: some articles are not kept");
        } else if taken {
            self.0.full.store(false, Ordering::Relaxed);
        }
    }

    /// Writes what waits, at most for `limit`.
    pub fn finish(&self, limit: Duration) {
        let Some(thread) = self
            .0
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
        else {
            return;
        };
        // An empty batch is the sign to stop.
        let deadline = Instant::now() + limit;
        let mut stop = (String::new(), Vec::new());
        while let Err(std::sync::mpsc::TrySendError::Full(back)) = self.0.batches.try_send(stop) {
            if Instant::now() >= deadline {
                return;
            }
            stop = back;
            std::thread::yield_now();
        }
        while !thread.is_finished() && Instant::now() < deadline {
            std::thread::yield_now();
        }
    }
}

fn work(database: &Database, waiting: &Receiver<Batch>, keep: Duration) {
    let mut failing = false;
    let mut prune_at = Instant::now();
    loop {
        let left = prune_at.saturating_duration_since(Instant::now());
        let done = match waiting.recv_timeout(left) {
            Ok((category, listing)) if !category.is_empty() => match Listing::read(&listing) {
                None => Ok(()),
                Some(listing) => {
                    let shelf = if listing.flags().sandbox {
                        made_up_shelf(&category)
                    } else {
                        category
                    };
                    database.archive().store(Some(&shelf), &articles(&listing))
                }
            },
            Err(RecvTimeoutError::Timeout) => {
                prune_at = Instant::now() + PRUNE_EVERY;
                database.archive().prune(keep).map(|_| ())
            }
            Ok(_) | Err(RecvTimeoutError::Disconnected) => return,
        };
        match done {
            Ok(()) if failing => log::info!("the archive is written again"),
            Err(ref error) if !failing => log::warn!("the archive cannot be written: {error}"),
            _ => {}
        }
        failing = done.is_err();
    }
}

fn articles(listing: &Listing<'_>) -> Vec<ArchivedArticle> {
    let kept = listing.items().map(|item| ArchivedArticle {
        url: item.url.to_owned(),
        source: item.source.to_owned(),
        published_at: item.published_at,
        json: String::from_utf8_lossy(item.json).into_owned(),
    });
    kept.collect()
}
