//! A connection pooler in front of Postgres that lends a session for one transaction at a time.
//!
//! pgbouncer with `pool_mode = transaction` looks like Postgres, but breaks a program that keeps
//! state in its session: prepared statements, LISTEN, advisory locks and SET go to whichever
//! session comes next. Such a pooler is recognised by its sessions: two open connections to
//! Postgres itself never share a session, and one connection never has two.

use std::collections::HashSet;

use postgres::{Client, SimpleQueryMessage};

use super::error::DatabaseError;

/// How often both connections are asked. A pooler that takes the session that was used last gives
/// itself away at once; one that takes them in turn, by the second round, however many there are.
const ROUNDS: usize = 3;

const REFUSAL: &str = "the database URL leads to a pooler that gives each transaction a different session \
    (pgbouncer: pool_mode = transaction or statement), and larder keeps prepared statements, LISTEN and advisory \
    locks in its sessions. Connect to Postgres itself, or to a pool with pool_mode = session";

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

/// The process that answers. By a simple query, since a prepared one may fail behind a pooler.
fn session(client: &mut Client) -> Result<String, DatabaseError> {
    let answer = client.simple_query("SELECT pg_backend_pid()")?;
    let pid = answer.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    pid.map(str::to_owned).ok_or_else(|| {
        DatabaseError::Failed("the server did not return the process of its session".to_owned())
    })
}
