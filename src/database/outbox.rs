//! The outbox: names that a commit has changed, kept by the database until they are invalidated. Postgres only.
//!
//! Promise: a row is there if and only if its commit is, and stays until whoever delivered it removes it by its id: a row that was
//! committed late is never passed over for its number. One reader at a time leads; a lead ends with its session, and the server
//! ends a session that says nothing for [`SILENCE`], so that neither a process that died nor a connection that is half-open
//! keeps the others from it. Refuses nothing that is due, and to show what is not yet: its writer is about to deliver it.

use std::time::Duration;

use postgres::fallible_iterator::FallibleIterator;

use crate::worker::spawn_thread;

use super::error::DatabaseError;
use super::postgres_pool::PostgresConnection;
use super::transaction::Transaction;
use super::{Database, DatabaseKind};

/// How long the session of a reader may say nothing before the server ends it, and the lead with it.
const SILENCE: Duration = Duration::from_secs(5);
/// How long an answer may take on a connection that has been silent.
const PROOF_OF_LIFE: Duration = Duration::from_secs(2);
/// Rows and names that are read at one time, about.
const AT_ONCE: (i64, i64) = (500, 5_000);
/// Rows that are counted before it is called enough.
const COUNTED: i64 = 100_000;
/// The first half of the lock's number: the text "lard". The second half is the table, since a database may have several outboxes.
const LOCK: i64 = (u32::from_be_bytes(*b"lard") as i64) << 32;

/// A row that a transaction of larder's own has left: its names are the writer's to deliver, or, two seconds later, anybody's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutboxRow(i64);

/// The outbox of a database.
#[derive(Clone, Copy, Debug)]
pub struct Outbox<'a>(pub(super) &'a Database);

impl Transaction<'_> {
    /// Leaves `names` (as tags are written, `*` for everything) in the outbox, to be committed with what this transaction writes:
    /// call it after the statements that write. The caller invalidates them right after the commit and then says
    /// [`Outbox::delivered`]; if it does not live to do that, another replica does, two seconds later. What the triggers of
    /// watched tables left of the same names is taken back, so that it is not delivered twice. `None`: there are no names, or
    /// this is SQLite, whose only writer is larder.
    pub fn leave_in_outbox(
        &mut self,
        names: &[String],
    ) -> Result<Option<OutboxRow>, DatabaseError> {
        if names.is_empty() || self.kind() == DatabaseKind::Sqlite {
            return Ok(None);
        }
        let given = [("names", serde_json::Value::from(names).to_string().into())];
        let rows = self.query("outbox_leave", &given)?;
        rows.first()
            .map(|row| row.int("id").map(OutboxRow))
            .transpose()
    }
}

impl Outbox<'_> {
    /// Removes a row whose names are invalidated and not pending. One that is gone already is no error.
    pub fn delivered(&self, row: OutboxRow) -> Result<(), DatabaseError> {
        self.0
            .execute("outbox_delivered", &[("id", row.0.into())])
            .map(drop)
    }

    /// Makes a row due now, whose names are invalidated and pending: while Redis cannot pass them
    /// on, each replica reads them here. One that is gone already is no error.
    pub fn hand_over(&self, row: OutboxRow) -> Result<(), DatabaseError> {
        self.0
            .execute("outbox_hand_over", &[("id", row.0.into())])
            .map(drop)
    }

    /// A session of its own that hears of new rows. `None`: this database is SQLite.
    pub(super) fn listen(&self) -> Result<Option<OutboxReader>, DatabaseError> {
        let Some(connection) = self.0.dedicated_connection() else {
            return Ok(None);
        };
        OutboxReader::new(connection?).map(Some)
    }
}

/// What a row holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Due {
    pub(super) id: i64,
    pub(super) names: Vec<String>,
}

/// How much waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Backlog {
    /// Rows that are due; counted up to a limit.
    pub(super) rows: i64,
    /// How long the first of them has been due.
    pub(super) oldest: Duration,
}

/// One session that reads the outbox. Any error ends its use: the next is another session.
pub(super) struct OutboxReader {
    /// There until it is dropped.
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
        // Before Postgres 14 there is no such limit, and a session that is cut off ends when TCP says so.
        let limit = format!("SET idle_session_timeout = {}", SILENCE.as_millis());
        if let Err(error) = client.batch_execute(&limit)
            && error.as_db_error().is_none()
        {
            return Err(error.into());
        }
        // Before the first read: what is committed after that read is heard of.
        client.batch_execute("LISTEN larder_outbox")?;
        Ok(OutboxReader {
            connection: Some(connection),
            leads: false,
        })
    }

    fn connection(&mut self) -> Result<&mut PostgresConnection, DatabaseError> {
        let closed = || DatabaseError::Unavailable("the connection was closed".to_owned());
        self.connection.as_mut().ok_or_else(closed)
    }

    /// Whether this session is the one that delivers.
    pub(super) fn leads(&self) -> bool {
        self.leads
    }

    /// Leads from now on, if no other session does.
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

    /// Leaves the lead to others.
    pub(super) fn resign(&mut self) -> Result<(), DatabaseError> {
        if self.leads {
            let unlock = "SELECT pg_advisory_unlock($1 + 'larder_outbox'::regclass::oid::bigint)";
            self.connection()?.client.query_one(unlock, &[&LOCK])?;
            self.leads = false;
        }
        Ok(())
    }

    /// The next rows that are due, in their order, without those of `except`. None: there are no more.
    pub(super) fn due(&mut self, except: &[i64]) -> Result<Vec<Due>, DatabaseError> {
        let sql = "SELECT id, names FROM (
                       SELECT id, names, sum(cardinality(names)) OVER (ORDER BY id) - cardinality(names) AS before
                       FROM (SELECT id, names FROM larder_outbox
                             WHERE due_at <= clock_timestamp() AND id <> ALL ($1) ORDER BY id LIMIT $2) AS first
                   ) AS counted
                   WHERE before < $3 ORDER BY id";
        let (rows, names) = AT_ONCE;
        let found = self.ask(sql, &[&except, &rows, &names])?;
        let read = |row: &postgres::Row| {
            Ok(Due {
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

    /// Which of these rows are still there.
    pub(super) fn still_there(&mut self, ids: &[i64]) -> Result<Vec<i64>, DatabaseError> {
        let found = self.ask("SELECT id FROM larder_outbox WHERE id = ANY ($1)", &[&ids])?;
        found.iter().map(|row| Ok(row.try_get(0)?)).collect()
    }

    /// How much is due and not delivered.
    pub(super) fn backlog(&mut self) -> Result<Backlog, DatabaseError> {
        let sql = "SELECT count(*), coalesce(extract(epoch FROM clock_timestamp() - min(due_at)), 0)::bigint
                   FROM (SELECT due_at FROM larder_outbox WHERE due_at <= clock_timestamp() ORDER BY id LIMIT $1) AS waiting";
        let row = self.connection()?.client.query_one(sql, &[&COUNTED])?;
        let oldest: i64 = row.try_get(1)?;
        Ok(Backlog {
            rows: row.try_get(0)?,
            oldest: Duration::from_secs(oldest.try_into().unwrap_or_default()),
        })
    }

    /// Errors unless the server answers within two seconds: to be asked before a statement on a connection that has been silent,
    /// since a statement itself has no limit.
    pub(super) fn prove(&mut self) -> Result<(), DatabaseError> {
        Ok(self.connection()?.prove(PROOF_OF_LIFE)?)
    }

    /// Waits for a row to be told of, for `limit` at most. Returns whether one was.
    pub(super) fn wait(&mut self, limit: Duration) -> Result<bool, DatabaseError> {
        let client = &mut self.connection()?.client;
        let told = client.notifications().timeout_iter(limit).next()?.is_some();
        // One look is for all that were told of by now.
        while client.notifications().iter().next()?.is_some() {}
        if client.is_closed() {
            return Err(DatabaseError::Unavailable(
                "the connection was closed".to_owned(),
            ));
        }
        Ok(told)
    }

    fn ask(
        &mut self,
        sql: &str,
        given: &[&(dyn postgres::types::ToSql + Sync)],
    ) -> Result<Vec<postgres::Row>, DatabaseError> {
        let connection = self.connection()?;
        let statement = connection.prepared(sql)?;
        Ok(connection.client.query(&statement, given)?)
    }
}

impl Drop for OutboxReader {
    fn drop(&mut self) {
        let connection = self.connection.take();
        // The client waits until its goodbye is sent and the connection closed, which on one that is half-open takes for ever.
        let _ = spawn_thread("larder-outbox-close", move || drop(connection));
    }
}

#[cfg(test)]
mod tests;
