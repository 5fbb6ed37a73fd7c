//! The outbox: the names that a commit has changed, kept in the database until they are
//! invalidated. Postgres only.
//!
//! Promise: a row exists if and only if its transaction committed, and stays until its deliverer
//! removes it by its id. So a row that commits late is never skipped, although later rows have
//! higher ids. One reader at a time is the leader. The lead ends with the session, and the server
//! ends a session that is silent for [`SILENCE`], so neither a dead process nor a half-open
//! connection keeps the others from leading. A reader sees every row that is due, and no other: the
//! writer of a row that is not due is about to deliver it.

use std::time::Duration;

use postgres::fallible_iterator::FallibleIterator;

use crate::worker::spawn_thread;

use super::Database;
use super::error::DatabaseError;
use super::postgres_connection::PostgresConnection;

/// How long the session of a reader may be silent before the server ends it, and its lead with it.
const SILENCE: Duration = Duration::from_secs(5);
/// How long an answer may take on a connection that was silent.
const PROOF_OF_LIFE: Duration = Duration::from_secs(2);
/// About how many rows, and how many names, are read at once.
const BATCH: (i64, i64) = (500, 5_000);
/// Counting the backlog ends here.
const MAX_COUNTED: i64 = 100_000;
/// The upper half of the lock's number: the text "lard". The lower half is the id of the table,
/// because a database may have several outboxes.
const LOCK: i64 = (u32::from_be_bytes(*b"lard") as i64) << 32;

/// A row of one of larder's own transactions. The writer delivers its names; after two seconds,
/// whoever leads does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutboxRow(pub(super) i64);

/// The outbox of a database.
#[derive(Clone, Copy, Debug)]
pub struct Outbox<'a>(pub(super) &'a Database);

impl Outbox<'_> {
    /// Removes a row whose names are invalidated and not pending. It may be gone already.
    pub fn delivered(&self, row: OutboxRow) -> Result<(), DatabaseError> {
        self.0
            .execute("outbox_delivered", &[("id", row.0.into())])
            .map(drop)
    }

    /// Makes a row due whose names are invalidated but pending: while Redis cannot pass them on,
    /// each replica reads them here. The row may be gone already.
    pub fn hand_over(&self, row: OutboxRow) -> Result<(), DatabaseError> {
        self.0
            .execute("outbox_hand_over", &[("id", row.0.into())])
            .map(drop)
    }

    /// A new session that is notified of new rows. `None` on SQLite.
    pub(super) fn listen(&self) -> Result<Option<OutboxReader>, DatabaseError> {
        let Some(connection) = self.0.dedicated_connection() else {
            return Ok(None);
        };
        OutboxReader::new(connection?).map(Some)
    }
}

/// A row that is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DueRow {
    pub(super) id: i64,
    pub(super) names: Vec<String>,
}

/// The rows that wait to be delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Backlog {
    /// How many rows are due, up to a limit.
    pub(super) rows: i64,
    /// How long the oldest of them has been due.
    pub(super) oldest: Duration,
}

/// A session that reads the outbox. After any error it must be replaced by a new one.
pub(super) struct OutboxReader {
    /// `None` only while this is dropped.
    connection: Option<PostgresConnection>,
    leads: bool,
}

impl OutboxReader {
    fn new(mut connection: PostgresConnection) -> Result<OutboxReader, DatabaseError> {
        let client = &mut connection.client;
        client.batch_execute(
            "SET application_name = 'larder outbox';
             SET tcp_keepalives_idle = 3; SET tcp_keepalives_interval = 1; SET tcp_keepalives_count = 3",
        )?;
        // Before Postgres 14 there is no such limit. There a session that is cut off ends when TCP
        // gives up.
        let limit = format!("SET idle_session_timeout = {}", SILENCE.as_millis());
        if let Err(error) = client.batch_execute(&limit)
            && error.as_db_error().is_none()
        {
            return Err(error.into());
        }
        // Before the first read, so that no commit after that read goes unnoticed.
        client.batch_execute("LISTEN larder_outbox")?;
        Ok(OutboxReader {
            connection: Some(connection),
            leads: false,
        })
    }

    fn connection(&mut self) -> Result<&mut PostgresConnection, DatabaseError> {
        let closed = || DatabaseError::Unavailable("connection lost: it was closed".to_owned());
        self.connection.as_mut().ok_or_else(closed)
    }

    /// Whether this session is the leader.
    pub(super) fn leads(&self) -> bool {
        self.leads
    }

    /// Becomes the leader if no other session is. Returns whether this session leads now.
    pub(super) fn try_to_lead(&mut self) -> Result<bool, DatabaseError> {
        if !self.leads {
            let lock = "SELECT pg_try_advisory_lock($1 + 'larder_outbox'::regclass::oid::bigint)";
            self.leads = self
                .connection()?
                .client
                .query_one(lock, &[&LOCK])?
                .try_get(0)?;
        }
        Ok(self.leads)
    }

    /// Gives up the lead.
    pub(super) fn resign(&mut self) -> Result<(), DatabaseError> {
        if self.leads {
            let unlock = "SELECT pg_advisory_unlock($1 + 'larder_outbox'::regclass::oid::bigint)";
            self.connection()?.client.query_one(unlock, &[&LOCK])?;
            self.leads = false;
        }
        Ok(())
    }

    /// The next rows that are due, in the order of their ids, without `except`. Empty if there are
    /// no more.
    pub(super) fn due(&mut self, except: &[i64]) -> Result<Vec<DueRow>, DatabaseError> {
        let sql = "SELECT id, names FROM (
                       SELECT id, names, sum(cardinality(names)) OVER (ORDER BY id) - cardinality(names) AS before
                       FROM (SELECT id, names FROM larder_outbox
                             WHERE due_at <= clock_timestamp() AND id <> ALL ($1) ORDER BY id LIMIT $2) AS first
                   ) AS counted
                   WHERE before < $3 ORDER BY id";
        let (rows, names) = BATCH;
        let found = self.ask(sql, &[&except, &rows, &names])?;
        let read = |row: &postgres::Row| {
            Ok(DueRow {
                id: row.try_get(0)?,
                names: row.try_get(1)?,
            })
        };
        found.iter().map(read).collect()
    }

    /// Removes rows.
    pub(super) fn remove(&mut self, ids: &[i64]) -> Result<(), DatabaseError> {
        self.ask("DELETE FROM larder_outbox WHERE id = ANY ($1)", &[&ids])
            .map(drop)
    }

    /// Which of these rows still exist.
    pub(super) fn still_there(&mut self, ids: &[i64]) -> Result<Vec<i64>, DatabaseError> {
        let found = self.ask("SELECT id FROM larder_outbox WHERE id = ANY ($1)", &[&ids])?;
        found.iter().map(|row| Ok(row.try_get(0)?)).collect()
    }

    /// The rows that are due and not delivered.
    pub(super) fn backlog(&mut self) -> Result<Backlog, DatabaseError> {
        let sql = "SELECT count(*), coalesce(extract(epoch FROM clock_timestamp() - min(due_at)), 0)::bigint
                   FROM (SELECT due_at FROM larder_outbox WHERE due_at <= clock_timestamp() ORDER BY id LIMIT $1) AS waiting";
        let row = self.connection()?.client.query_one(sql, &[&MAX_COUNTED])?;
        let oldest: i64 = row.try_get(1)?;
        Ok(Backlog {
            rows: row.try_get(0)?,
            oldest: Duration::from_secs(oldest.try_into().unwrap_or_default()),
        })
    }

    /// Errors unless the server answers within two seconds. To be called before a statement on a
    /// connection that was silent, because the statement itself has no timeout.
    pub(super) fn prove(&mut self) -> Result<(), DatabaseError> {
        Ok(self.connection()?.prove(PROOF_OF_LIFE)?)
    }

    /// Waits for a notification, for at most `limit`. Returns whether there was one.
    pub(super) fn wait(&mut self, limit: Duration) -> Result<bool, DatabaseError> {
        let client = &mut self.connection()?.client;
        let notified = client.notifications().timeout_iter(limit).next()?.is_some();
        // One read serves all notifications so far.
        while client.notifications().iter().next()?.is_some() {}
        if client.is_closed() {
            return Err(DatabaseError::Unavailable(
                "connection lost: it was closed".to_owned(),
            ));
        }
        Ok(notified)
    }

    fn ask(
        &mut self,
        sql: &str,
        parameters: &[&(dyn postgres::types::ToSql + Sync)],
    ) -> Result<Vec<postgres::Row>, DatabaseError> {
        let connection = self.connection()?;
        let statement = connection.prepared(sql)?;
        Ok(connection.client.query(&statement, parameters)?)
    }
}

impl Drop for OutboxReader {
    fn drop(&mut self) {
        let connection = self.connection.take();
        // On a thread of its own: the client waits until its goodbye is sent and the connection is
        // closed, which never happens on a half-open connection.
        let _ = spawn_thread("larder-outbox-close", move || drop(connection));
    }
}

#[cfg(test)]
mod tests;
