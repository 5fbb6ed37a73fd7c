//! A connection to Redis that has compared the history, and what opens it.
//!
//! Promise: opening takes no longer than it may, and nothing else is done on a connection before
//! the history that its Redis keeps was compared with the one that this replica knows. Whoever
//! reads restored values beside restored names would believe both. Whoever opens one, or cannot,
//! tells everybody.

use std::convert::Infallible;
use std::error::Error;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use redis::{ConnectionLike, ErrorKind, RedisError, RedisResult};

use super::fault::{Fault, over};
use super::health::Health;
use crate::clock::Clock;
use crate::coherence::{Mirror, Scripts, Seen};

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
    pub(super) health: Arc<Health>,
    /// Whether a connection was ever opened.
    pub(super) opened: AtomicBool,
    /// Told when a connection saw a history that was not the known one.
    pub(super) saw: Box<dyn Fn(Seen) + Send + Sync>,
}

/// One of the pool's, or why there is none: what waits for a connection is to be woken by that,
/// too.
pub(super) struct Checked {
    pub(super) connection: RedisResult<redis::Connection>,
    /// From before it was opened.
    pub(super) generation: u32,
    pub(super) broken: bool,
}

impl r2d2::ManageConnection for Manager {
    type Connection = Checked;
    // An error would have r2d2 try again and again, and tell nobody who waits.
    type Error = Infallible;

    fn connect(&self) -> Result<Checked, Infallible> {
        let generation = self.0.health.generation();
        Ok(Checked {
            connection: self.open(self.0.timeout),
            generation,
            broken: false,
        })
    }

    fn is_valid(&self, _: &mut Checked) -> Result<(), Infallible> {
        Ok(())
    }

    fn has_broken(&self, checked: &mut Checked) -> bool {
        match &checked.connection {
            Ok(connection) => checked.broken || !connection.is_open(),
            // Handed on from one who waits to the next, as long as it stands for all of them.
            Err(_) => checked.broken || self.0.health.answers(),
        }
    }
}

impl Manager {
    /// A connection that has compared the history, on which a reply may take as long as `timeout`.
    pub(super) fn open(&self, timeout: Duration) -> RedisResult<redis::Connection> {
        let opened = self.open_to_look(timeout);
        if opened.is_ok() {
            self.0.health.found();
        }
        opened
    }

    /// The same for the watcher, who decides by more than that whether Redis is found, and when to
    /// look again.
    pub(super) fn open_to_look(&self, timeout: Duration) -> RedisResult<redis::Connection> {
        let opened = self.try_open(timeout);
        match &opened {
            Ok(_) => self.0.opened.store(true, Ordering::Relaxed),
            Err(error) => self.0.health.cannot_open(error, &self.explain(error)),
        }
        opened
    }

    fn try_open(&self, timeout: Duration) -> RedisResult<redis::Connection> {
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

    /// Why a connection could not be opened, for logs. Where none was ever opened it also says what
    /// the URL may have wrong. Names no secret.
    fn explain(&self, error: &RedisError) -> String {
        let address = self.0.client.get_connection_info().addr();
        if error.kind() == ErrorKind::AuthenticationFailed {
            return format!("{address} does not accept the user or the password of the Redis URL");
        }
        if self.0.opened.load(Ordering::Relaxed) {
            return error.to_string();
        }
        let timed_out = Fault::of(error) == Fault::TimedOut;
        // Not a name without an address, nor a host without a route: nobody was reached there.
        let closed = error.kind() == ErrorKind::Parse
            || error.is_connection_dropped() && !error.is_connection_refusal();
        let tls = matches!(address, redis::ConnectionAddr::TcpTls { .. });
        match tls_error(error) {
            Some(rustls::Error::InvalidMessage(_)) => {
                format!("{address} does not speak TLS ({error}); a plain port takes redis://")
            }
            // A plain port waits for the end of what it takes for a command.
            None if tls && (closed || timed_out) => {
                format!("no TLS handshake with {address} ({error}); a plain port takes redis://")
            }
            None if closed => format!(
                "{address} closed the connection or speaks another protocol ({error}); a port that speaks TLS takes rediss://"
            ),
            // A certificate that is not trusted, for one: it says so itself.
            Some(_) | None => error.to_string(),
        }
    }
}

/// The error of TLS behind this error.
fn tls_error(error: &RedisError) -> Option<&rustls::Error> {
    let shared = error
        .source()?
        .downcast_ref::<Arc<dyn Error + Send + Sync>>()?;
    let io = shared.downcast_ref::<io::Error>()?;
    io.get_ref()?.downcast_ref::<rustls::Error>()
}
