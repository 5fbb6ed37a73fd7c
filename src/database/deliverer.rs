//! The deliverer: the thread that passes the names in the outbox to [`Cache::invalidate`].
//!
//! Promise: rows are delivered at least once, in order, by one replica at a time, and removed only
//! after the invalidation is acknowledged. If the cache cannot reach Redis, an invalidation is
//! pending: it is in force on this replica only. Then this replica gives up the lead and goes on
//! reading for itself, so that every replica still sees every commit while Redis is down. It
//! invalidates nothing twice: the bus brings pending invalidations to Redis, and when none is
//! pending any more, their rows are removed.
//!
//! One bound is missing, as everywhere in this module: on a connection that goes silent, a
//! statement that was just sent has no timeout. The server ends the session and another replica
//! leads; this one returns when its connection breaks.
//!
//! Invariant: the invalidation of a row in `pending_rows` is in force here and pending in the
//! cache. Every other row that is gone from the table was acknowledged. Any error ends the session,
//! and the next one begins. Each change of state is logged once.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use larder_cache::{Cache, InvalidationOrigin, InvalidationTarget, Purge};

use crate::worker::{Signals, Wake, Worker};

use super::Database;
use super::error::DatabaseError;
use super::outbox::{DueRow, OutboxReader};
use super::settings::DatabaseKind;

/// How often it looks for due rows without a notification, and whether the lead is free.
const POLL: Duration = Duration::from_secs(1);
/// How soon it notices that it has to stop, or that nothing is pending any more.
const SLICE: Duration = Duration::from_millis(100);
/// The shortest and the longest pause between two attempts to connect.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// How long a stop waits for the thread, which the database may hold.
const STOP_LIMIT: Duration = Duration::from_millis(500);
/// The most names in one invalidation.
const MAX_NAMES: usize = 1_000;
/// With more pending names than this, everything is invalidated instead of more names.
const MAX_PENDING: usize = 100_000;
/// How often it checks the backlog, and from which size and age on it warns.
const REVIEW: Duration = Duration::from_secs(60);
const MANY_ROWS: i64 = 10_000;
const OLD: Duration = Duration::from_secs(300);

/// The thread. Dropping this stops it within a moment. A thread that the database holds is left
/// behind.
#[derive(Debug)]
pub struct Deliverer(Worker);

impl Deliverer {
    /// Starts to deliver the outbox of `database` to `cache`. `None` on SQLite, where larder is the
    /// only writer.
    ///
    /// # Errors
    /// If no thread can be started. A database that is away is not an error: it is tried again.
    pub fn start(database: Database, cache: Cache) -> std::io::Result<Option<Deliverer>> {
        if database.kind() == DatabaseKind::Sqlite {
            return Ok(None);
        }
        let job = move |signals: &Signals| {
            let mut delivery = Delivery {
                database,
                cache,
                signals,
                pending_rows: BTreeSet::new(),
                readable: true,
            };
            delivery.run();
        };
        Ok(Some(Deliverer(Worker::start("larder-outbox", job)?)))
    }
}

impl Drop for Deliverer {
    fn drop(&mut self) {
        self.0.stop(STOP_LIMIT);
    }
}

struct Delivery<'a> {
    database: Database,
    cache: Cache,
    signals: &'a Signals,
    /// Rows whose invalidation is pending.
    pending_rows: BTreeSet<i64>,
    /// Whether the outbox could be read at the last attempt.
    readable: bool,
}

impl Delivery<'_> {
    fn run(&mut self) {
        let mut pause = PAUSES.0;
        loop {
            let began = Instant::now();
            let Err(error) = self.session() else { return };
            if began.elapsed() > PAUSES.1 {
                pause = PAUSES.0;
            }
            if self.readable {
                self.readable = false;
                log::warn!(
                    "the outbox cannot be read here, so changes by other programs wait \
                     for another replica or for the database: {error}"
                );
            }
            if self.signals.wait(pause) == Wake::Stop {
                return;
            }
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    /// Delivers on one connection until that fails. `Ok` when it is time to stop.
    fn session(&mut self) -> Result<(), DatabaseError> {
        let Some(mut reader) = self.database.outbox().listen()? else {
            return Ok(());
        };
        if !std::mem::replace(&mut self.readable, true) {
            log::info!("the outbox can be read again");
        }
        let mut reviewed = Instant::now();
        loop {
            if self.pending_rows.is_empty() && !reader.leads() && reader.try_to_lead()? {
                log::info!("this replica delivers the outbox");
            }
            while reader.leads() || !self.pending_rows.is_empty() {
                if self.signals.is_stopping() {
                    return Ok(());
                }
                if !self.deliver(&mut reader)? {
                    break;
                }
            }
            if reviewed.elapsed() >= REVIEW {
                reviewed = Instant::now();
                review(&mut reader)?;
            }
            let polled = Instant::now();
            loop {
                if self.signals.is_stopping() {
                    return Ok(());
                }
                let notified = reader.wait(SLICE)?;
                if !self.pending_rows.is_empty() && self.cache.bus().pending == 0 {
                    break;
                }
                // A replica that neither leads nor has pending rows reads nothing.
                if notified && (reader.leads() || !self.pending_rows.is_empty()) {
                    break;
                }
                if polled.elapsed() >= POLL {
                    reader.prove()?;
                    self.forget_removed(&mut reader)?;
                    break;
                }
            }
            self.remove_acknowledged(&mut reader)?;
        }
    }

    /// Delivers the next rows. Returns whether there may be more.
    fn deliver(&mut self, reader: &mut OutboxReader) -> Result<bool, DatabaseError> {
        let pending_rows: Vec<i64> = self.pending_rows.iter().copied().collect();
        let rows = reader.due(&pending_rows)?;
        if rows.is_empty() {
            return Ok(false);
        }
        let ids: Vec<i64> = rows.iter().map(|row| row.id).collect();
        let names = collapse(&rows, self.cache.bus().pending);
        let mut pending = false;
        for names in names.chunks(MAX_NAMES) {
            let receipt =
                self.cache
                    .invalidate_from(InvalidationOrigin::Outbox, names, Purge::Hard);
            pending |= receipt.is_pending();
        }
        log::debug!("{} names of {} outbox rows", names.len(), rows.len());
        if pending {
            self.pending_rows.extend(ids);
            reader.resign()?;
        } else {
            reader.remove(&ids)?;
        }
        Ok(true)
    }

    /// Removes the rows in `pending_rows` if nothing is pending any more.
    fn remove_acknowledged(&mut self, reader: &mut OutboxReader) -> Result<(), DatabaseError> {
        if !self.pending_rows.is_empty() && self.cache.bus().pending == 0 {
            let ids: Vec<i64> = self.pending_rows.iter().copied().collect();
            reader.remove(&ids)?;
            self.pending_rows.clear();
        }
        Ok(())
    }

    /// Forgets the rows that another replica has delivered meanwhile.
    fn forget_removed(&mut self, reader: &mut OutboxReader) -> Result<(), DatabaseError> {
        if !self.pending_rows.is_empty() {
            let ids: Vec<i64> = self.pending_rows.iter().copied().collect();
            self.pending_rows = reader.still_there(&ids)?.into_iter().collect();
        }
        Ok(())
    }
}

/// The names of these rows, each once. Just "everything" if that is among them, or if so many names
/// are pending that more would fill the memory.
fn collapse(rows: &[DueRow], pending: usize) -> Vec<InvalidationTarget> {
    let names: BTreeSet<&str> = rows
        .iter()
        .flat_map(|row| &row.names)
        .map(String::as_str)
        .collect();
    if pending > MAX_PENDING || names.contains(InvalidationTarget::everything().as_str()) {
        return vec![InvalidationTarget::everything()];
    }
    names.into_iter().map(InvalidationTarget::tag).collect()
}

/// Warns of a backlog that is large or old.
fn review(reader: &mut OutboxReader) -> Result<(), DatabaseError> {
    let backlog = reader.backlog()?;
    if backlog.rows > MANY_ROWS || backlog.oldest > OLD {
        log::warn!(
            "{} rows of the outbox wait to be delivered, the oldest for {} s",
            backlog.rows,
            backlog.oldest.as_secs()
        );
    }
    Ok(())
}
