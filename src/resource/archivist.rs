//! The archivist: a thread that writes loaded articles to the database.
//!
//! Promise: an answer never waits for the database. The queue is bounded. If it is full, a batch is
//! dropped and logged; the next load of its category brings most of it again. Dropping the last
//! handle writes the queue and ends the thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::database::{ArchivedArticle, Database, DatabaseError};
use crate::source::news::Listing;
use crate::worker::{Signals, Worker};

/// Batches in the queue, at most.
const WAITING: usize = 256;
/// How often old articles are removed.
const PRUNE_EVERY: Duration = Duration::from_secs(3600);

/// A category, and the bytes of a listing.
type Batch = (String, Bytes);

/// See the module. Cheap to clone.
#[derive(Clone)]
pub struct Archivist(Arc<ArchivistInner>);

struct ArchivistInner {
    batches: SyncSender<Batch>,
    full: AtomicBool,
    worker: Worker,
}

impl Archivist {
    /// Starts an archivist that keeps articles in `database` for `keep`.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn start(database: Database, keep: Duration) -> std::io::Result<Archivist> {
        let (batches, waiting) = sync_channel(WAITING);
        let work = Work {
            database,
            waiting,
            keep,
        };
        let worker = Worker::start("archivist", move |signals| work.run(signals))?;
        Ok(Archivist(Arc::new(ArchivistInner {
            batches,
            full: AtomicBool::new(false),
            worker,
        })))
    }

    /// Queues the articles of a listing to be written under `category`. Does not block.
    pub fn keep(&self, category: &str, listing: Bytes) {
        let batch = (category.to_owned(), listing);
        let taken = self.0.batches.try_send(batch).is_ok();
        self.0.worker.wake();
        if !taken && !self.0.full.swap(true, Ordering::Relaxed) {
            log::warn!("the archive's queue is full: some articles are not archived");
        } else if taken {
            self.0.full.store(false, Ordering::Relaxed);
        }
    }

    /// Writes the queue and stops the thread. Waits at most for `limit`; if the database still
    /// blocks the thread then, leaves it running.
    pub fn finish(&self, limit: Duration) {
        if !self.0.worker.stop(limit) {
            log::warn!("some articles were not archived: the database timed out");
        }
    }
}

/// The job of the worker.
struct Work {
    database: Database,
    waiting: Receiver<Batch>,
    keep: Duration,
}

impl Work {
    fn run(self, signals: &Signals) {
        let mut failing = false;
        let mut prune_at = Instant::now();
        loop {
            // Asked before the queue is read, so every batch queued before the stop is written.
            let stopping = signals.is_stopping();
            // Pruning comes first: while batches keep coming, the queue is never empty.
            let left = prune_at.saturating_duration_since(Instant::now());
            let done = if left.is_zero() && !stopping {
                prune_at = Instant::now() + PRUNE_EVERY;
                self.database.archive().prune(self.keep).map(|_| ())
            } else if let Ok((category, listing)) = self.waiting.try_recv() {
                self.store(category, &listing)
            } else if stopping {
                return;
            } else {
                signals.wait(left);
                continue;
            };
            match done {
                Ok(()) if failing => log::info!("the archive can be written again"),
                Err(ref error) if !failing => log::warn!("the archive cannot be written: {error}"),
                _ => {}
            }
            failing = done.is_err();
        }
    }

    fn store(&self, category: String, listing: &[u8]) -> Result<(), DatabaseError> {
        let Some(listing) = Listing::read(listing) else {
            return Ok(());
        };
        let category = if listing.flags().sandbox {
            sandbox_category(&category)
        } else {
            category
        };
        self.database
            .archive()
            .store(Some(&category), &articles(&listing))
    }
}

/// The archive's category for articles that the sandbox invented for `category`. They are kept
/// apart from real news.
pub(super) fn sandbox_category(category: &str) -> String {
    format!("sandbox:{category}")
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

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use jiff::Timestamp;

    use super::*;
    use crate::database::DatabaseSettings;
    use crate::database::fixture::Place;
    use crate::source::news::{Article, Flags};

    const DAY: Duration = Duration::from_secs(86_400);

    fn listing(number: usize) -> Bytes {
        let article = Article {
            title: "t".to_owned(),
            description: None,
            url: format!("https://example.com/{number}"),
            image: None,
            author: None,
            source: "s".to_owned(),
            published_at: Timestamp::now(),
            category: "c".to_owned(),
        };
        Listing::encode(&[article], Flags::default()).into()
    }

    fn keep(archivist: &Archivist, number: usize) {
        archivist.keep("c", listing(number));
    }

    #[test]
    fn what_waits_is_written_at_the_end() {
        let database = Place::sqlite().migrated();
        let archivist = Archivist::start(database.clone(), DAY).unwrap();
        for number in 0..WAITING {
            keep(&archivist, number);
        }
        archivist.finish(Duration::from_secs(20));
        let kept = database.archive().newest(Some("c"), 1_000).unwrap();
        assert_eq!(kept.len(), WAITING);
        // A second call returns at once.
        let began = Instant::now();
        archivist.finish(Duration::from_secs(20));
        assert!(began.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn what_is_too_old_goes_however_much_waits() {
        let database = Place::sqlite().migrated();
        let old = listing(0);
        let old = articles(&Listing::read(&old).unwrap());
        database.archive().store(Some("c"), &old).unwrap();
        let stored = Timestamp::now().as_second();
        // The archive counts in whole seconds.
        while Timestamp::now().as_second() == stored {
            std::thread::yield_now();
        }
        let (batches, waiting) = sync_channel(1);
        batches.send(("c".to_owned(), listing(1))).unwrap();
        let work = Work {
            database: database.clone(),
            waiting,
            keep: Duration::ZERO,
        };
        let _worker = Worker::start("archivist", move |signals| work.run(signals)).unwrap();
        let (old, new) = ("https://example.com/0", "https://example.com/1");
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let kept = database.archive().newest(Some("c"), 9).unwrap();
            let kept: Vec<&str> = kept.iter().map(|article| &*article.url).collect();
            if kept == [new] {
                break;
            }
            // The old one goes before the new one comes.
            assert!(kept == [old] || kept.is_empty(), "{kept:?}");
            assert!(Instant::now() < deadline, "not in time");
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_database_that_does_not_answer_is_not_waited_for() {
        let place = Place::sqlite();
        place.migrated();
        let database = Database::open(&DatabaseSettings {
            pool: 1,
            ..place.settings()
        })
        .unwrap();
        let archivist = Archivist::start(database.clone(), DAY).unwrap();
        let (begun, wait_begun) = mpsc::channel();
        let (end, wait_end) = mpsc::channel::<()>();
        let holder = std::thread::spawn(move || {
            database.transaction(|_| {
                begun.send(()).unwrap();
                let _ = wait_end.recv();
                Ok(())
            })
        });
        wait_begun.recv().unwrap();
        // More than the queue holds, so there is no room for the empty batch either.
        for number in 0..=WAITING + 1 {
            keep(&archivist, number);
        }
        archivist.finish(Duration::from_millis(10));
        assert!(place.open().archive().newest(None, 1).unwrap().is_empty());
        drop(end);
        holder.join().unwrap().unwrap();
    }
}
