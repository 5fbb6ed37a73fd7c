//! The deliverer: the thread that brings the names of the outbox to [`Cache::invalidate`].
//!
//! Promise: rows are delivered at least once, in their order, by one replica at a time, and removed only once the invalidation is
//! acknowledged. A replica whose cache cannot pass one on (it is pending: in force there, and nowhere else) leaves the lead to
//! others and goes on reading for itself, so that while Redis is down every replica still takes what is committed. It asks for
//! nothing twice: what is pending is the bus's to bring to Redis, and when nothing is pending any more those rows can go.
//!
//! One bound is missing, as everywhere on this floor: a statement that was sent on a connection which goes silent just then. The
//! server ends that session and another replica leads; this one comes back when its connection breaks.
//!
//! Invariant: a row in `told` holds here and waits in the cache; every other row that is gone from the table was acknowledged.
//! One session after another: whatever fails ends the session, with one line in the log for each change of state.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use larder_cache::{Cache, InvalidationTarget, Purge};

use crate::worker::{Signals, Wake, Worker};

use super::error::DatabaseError;
use super::outbox::{Due, OutboxReader};
use super::{Database, DatabaseKind};

/// How often it looks whether something is due that it was not told of, and whether the lead is free.
const LOOK: Duration = Duration::from_secs(1);
/// How soon it sees that it is to stop, or that nothing is pending any more.
const SLICE: Duration = Duration::from_millis(100);
/// Pauses between two tries to connect.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// How long the end waits for a thread that the database holds.
const LAST_LOOK: Duration = Duration::from_millis(500);
/// Names in one invalidation.
const NAMES_AT_ONCE: usize = 1_000;
/// Names that may be pending before everything is named in place of more of them.
const MOST_PENDING: usize = 100_000;
/// How often it looks how much waits, and what of that is worth a warning.
const REVIEW: Duration = Duration::from_secs(60);
const MANY_ROWS: i64 = 10_000;
const OLD: Duration = Duration::from_secs(300);

/// The thread. Dropped it stops, within a moment; one that the database does not let go is left behind.
#[derive(Debug)]
pub struct Deliverer(Worker);

impl Deliverer {
    /// Begins to deliver what is in the outbox of `database` to `cache`. `None`: it is SQLite, whose only writer is larder.
    ///
    /// # Errors
    /// If no thread can be started. A database that is away is no error: it is tried again.
    pub fn start(database: Database, cache: Cache) -> std::io::Result<Option<Deliverer>> {
        if database.kind() == DatabaseKind::Sqlite {
            return Ok(None);
        }
        let job = move |signals: &Signals| {
            let mut delivery = Delivery {
                database,
                cache,
                signals,
                told: BTreeSet::new(),
                readable: true,
            };
            delivery.run();
        };
        Ok(Some(Deliverer(Worker::start("larder-outbox", job)?)))
    }
}

impl Drop for Deliverer {
    fn drop(&mut self) {
        self.0.stop(LAST_LOOK);
    }
}

struct Delivery<'a> {
    database: Database,
    cache: Cache,
    signals: &'a Signals,
    /// Rows whose names are pending here.
    told: BTreeSet<i64>,
    /// Whether the outbox could be read last.
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
                    "the outbox cannot be read here, so changes behind larder's back wait for another replica or for the database: {error}"
                );
            }
            if self.signals.wait(pause) == Wake::Stop {
                return;
            }
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    /// One connection, until it fails; `Ok` when it is time to stop.
    fn session(&mut self) -> Result<(), DatabaseError> {
        let Some(mut reader) = self.database.outbox().listen()? else {
            return Ok(());
        };
        if !std::mem::replace(&mut self.readable, true) {
            log::info!("the outbox can be read again");
        }
        let mut reviewed = Instant::now();
        loop {
            if self.told.is_empty() && !reader.leads() && reader.try_to_lead()? {
                log::info!("this replica delivers the outbox");
            }
            while reader.leads() || !self.told.is_empty() {
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
            let looked = Instant::now();
            loop {
                if self.signals.is_stopping() {
                    return Ok(());
                }
                let is_told = reader.wait(SLICE)?;
                if !self.told.is_empty() && self.cache.bus().pending == 0 {
                    break;
                }
                // Whoever stands by has nothing to read.
                if is_told && (reader.leads() || !self.told.is_empty()) {
                    break;
                }
                if looked.elapsed() >= LOOK {
                    reader.prove()?;
                    self.forget_removed(&mut reader)?;
                    break;
                }
            }
            self.remove_taken(&mut reader)?;
        }
    }

    /// Delivers the next rows. Returns whether there may be more.
    fn deliver(&mut self, reader: &mut OutboxReader) -> Result<bool, DatabaseError> {
        let told: Vec<i64> = self.told.iter().copied().collect();
        let rows = reader.due(&told)?;
        if rows.is_empty() {
            return Ok(false);
        }
        let ids: Vec<i64> = rows.iter().map(|row| row.id).collect();
        let names = collapse(&rows, self.cache.bus().pending);
        let mut pending = false;
        for names in names.chunks(NAMES_AT_ONCE) {
            pending |= self.cache.invalidate(names, Purge::Hard).is_pending();
        }
        log::debug!("{} names of {} outbox rows", names.len(), rows.len());
        if pending {
            self.told.extend(ids);
            reader.resign()?;
        } else {
            reader.remove(&ids)?;
        }
        Ok(true)
    }

    /// Redis has taken whatever was pending, so the names of all rows that wait for it.
    fn remove_taken(&mut self, reader: &mut OutboxReader) -> Result<(), DatabaseError> {
        if !self.told.is_empty() && self.cache.bus().pending == 0 {
            let ids: Vec<i64> = self.told.iter().copied().collect();
            reader.remove(&ids)?;
            self.told.clear();
        }
        Ok(())
    }

    /// Rows that another replica has delivered meanwhile.
    fn forget_removed(&mut self, reader: &mut OutboxReader) -> Result<(), DatabaseError> {
        if !self.told.is_empty() {
            let ids: Vec<i64> = self.told.iter().copied().collect();
            self.told = reader.still_there(&ids)?.into_iter().collect();
        }
        Ok(())
    }
}

/// The names of these rows, each once. Everything alone, if it is among them or if so much is pending that the names of more
/// would fill the memory.
fn collapse(rows: &[Due], pending: usize) -> Vec<InvalidationTarget> {
    let names: BTreeSet<&str> = rows
        .iter()
        .flat_map(|row| &row.names)
        .map(String::as_str)
        .collect();
    if pending > MOST_PENDING || names.contains(InvalidationTarget::everything().as_str()) {
        return vec![InvalidationTarget::everything()];
    }
    names.into_iter().map(InvalidationTarget::tag).collect()
}

/// Says what waits for long, or in great number.
fn review(reader: &mut OutboxReader) -> Result<(), DatabaseError> {
    let backlog = reader.backlog()?;
    if backlog.rows > MANY_ROWS || backlog.oldest > OLD {
        log::warn!(
            "{} rows of the outbox wait to be delivered, the first for {} s",
            backlog.rows,
            backlog.oldest.as_secs()
        );
    }
    Ok(())
}
