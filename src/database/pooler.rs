//! Detects a connection pooler that lends a session of Postgres for one transaction at a time.
//!
//! pgbouncer with `pool_mode = transaction` looks like Postgres, but breaks a program that keeps
//! state in its session: prepared statements, LISTEN, advisory locks and SET end up in whichever
//! session comes next. Two open connections to Postgres itself never share a session, and one
//! connection never has two. A pooler violates one of these.

use std::collections::HashSet;

use postgres::{Client, SimpleQueryMessage};

use super::error::DatabaseError;

/// How often both connections are asked. A pooler that prefers the session used last is detected in
/// the first round. One that takes its sessions in turn is detected by the second round, however
/// many it has.
const ROUNDS: usize = 3;

const REFUSAL: &str = "the database URL leads to a pooler that gives each transaction a different \
    session (pgbouncer: pool_mode = transaction or statement), but larder keeps prepared statements, \
    LISTEN and advisory locks in its sessions. Connect to Postgres itself, or to a pool with pool_mode = session";

/// Errors with [`DatabaseError::Misconfigured`] if these two connections, both open, share
/// sessions.
pub(super) fn refuse_shared_sessions(
    first: &mut Client,
    second: &mut Client,
) -> Result<(), DatabaseError> {
    let (mut firsts, mut seconds) = (HashSet::new(), HashSet::new());
    for _ in 0..ROUNDS {
        firsts.insert(session(first)?);
        seconds.insert(session(second)?);
        firsts.insert(session(first)?);
    }
    if firsts.len() > 1 || seconds.len() > 1 || !firsts.is_disjoint(&seconds) {
        return Err(DatabaseError::Misconfigured(REFUSAL.to_owned()));
    }
    Ok(())
}

/// The id of the server process. Asked by a simple query, because a prepared one may fail behind a
/// pooler.
fn session(client: &mut Client) -> Result<String, DatabaseError> {
    let answer = client.simple_query("SELECT pg_backend_pid()")?;
    let pid = answer.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    pid.map(str::to_owned).ok_or_else(|| {
        DatabaseError::Failed("the server did not return the process id of its session".to_owned())
    })
}
