//! A connection to Redis that has compared the history, and what opens it.
//!
//! Promise: opening takes no longer than it may, and nothing else is done on a connection before the history that its Redis keeps was
//! compared with the one that this replica knows. Whoever reads restored values beside restored names would believe both.

use std::sync::Arc;
use std::time::Duration;

use redis::{ConnectionLike, RedisError, RedisResult};

use super::clock::Clock;
use super::coherence::{Mirror, Scripts, Seen, over};

/// Opens connections: those of the pool, and those that are nobody else's.
#[derive(Clone)]
pub(super) struct Manager(pub(super) Arc<ManagerParts>);

pub(super) struct ManagerParts {
    pub(super) client: redis::Client,
    pub(super) connect_timeout: Duration,
    pub(super) timeout: Duration,
    pub(super) scripts: Arc<Scripts>,
    pub(super) mirror: Arc<Mirror>,
    pub(super) clock: Arc<Clock>,
    /// Told when a connection saw a history that was not the known one.
    pub(super) saw: Box<dyn Fn(Seen) + Send + Sync>,
}

/// One of the pool's.
pub(super) struct Checked {
    pub(super) connection: redis::Connection,
    pub(super) generation: u32,
    /// Whether it has ever brought a reply to a caller: if so, it may have been cut while it lay in the pool.
    pub(super) used: bool,
    pub(super) broken: bool,
}

impl r2d2::ManageConnection for Manager {
    type Connection = Checked;
    type Error = RedisError;

    fn connect(&self) -> Result<Checked, RedisError> {
        let connection = self.open(self.0.timeout)?;
        Ok(Checked {
            connection,
            generation: u32::MAX,
            used: false,
            broken: false,
        })
    }

    fn is_valid(&self, checked: &mut Checked) -> Result<(), RedisError> {
        redis::cmd("PING").exec(&mut checked.connection)
    }

    fn has_broken(&self, checked: &mut Checked) -> bool {
        checked.broken || !checked.connection.is_open()
    }
}

impl Manager {
    /// A connection that has compared the history, on which a reply may take as long as `timeout`.
    pub(super) fn open(&self, timeout: Duration) -> RedisResult<redis::Connection> {
        let parts = &*self.0;
        let mut connection = parts
            .client
            .get_connection_with_timeout(parts.connect_timeout)?;
        // Compared under the time that a connection may take, then the time that a reply may take.
        connection.set_read_timeout(Some(parts.connect_timeout))?;
        connection.set_write_timeout(Some(parts.connect_timeout))?;
        self.compare_history(&mut connection)?;
        connection.set_read_timeout(Some(timeout))?;
        connection.set_write_timeout(Some(timeout))?;
        Ok(connection)
    }

    fn compare_history(&self, connection: &mut redis::Connection) -> RedisResult<()> {
        let parts = &*self.0;
        let sent = parts.clock.now();
        let (state, time) = parts.scripts.hello(connection, false)?;
        parts.clock.heard_redis(time, sent);
        let mut seen = parts.mirror.saw(&state);
        if seen == Seen::Retired {
            // A Redis that was left for another one, and is back with what it had: its history is over here, so a new one begins.
            let (anew, _) = parts.scripts.hello(connection, true)?;
            seen = parts.mirror.saw(&anew);
        }
        if seen == Seen::Retired {
            return Err(over());
        }
        if seen != Seen::Same {
            (parts.saw)(seen);
        }
        Ok(())
    }
}
