//! Opens connections to Redis.
//!
//! Promise: opening takes no longer than the configured time. Before anything else happens on a
//! connection, the history that its Redis keeps is compared with the one that this replica knows.
//! Otherwise a reader of restored values beside restored clocks would believe both. Success and
//! failure are reported to [`Health`].

use std::convert::Infallible;
use std::error::Error;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use redis::{ConnectionLike, ErrorKind, RedisError, RedisResult};

use super::fault::{Fault, reason, retired};
use super::health::Health;
use crate::clock::Clock;
use crate::coherence::{Mirror, Observed, Scripts};

/// See the module.
pub(crate) struct Connector {
    pub(super) client: redis::Client,
    pub(super) connect_timeout: Duration,
    /// How long a reply to the pool may take.
    pub(super) timeout: Duration,
    pub(super) scripts: Arc<Scripts>,
    pub(super) mirror: Arc<Mirror>,
    pub(super) clock: Arc<Clock>,
    pub(super) health: Arc<Health>,
    /// Whether a connection was ever opened.
    pub(super) opened: AtomicBool,
    /// Called when a connection found the first history after this replica was alone.
    pub(super) on_first_history: Box<dyn Fn() + Send + Sync>,
}

/// What r2d2 opens the pool's connections with.
#[derive(Clone)]
pub(super) struct Manager(pub(super) Arc<Connector>);

/// A connection of the pool, or the error of opening one. An error is pooled too, so that it wakes
/// whoever waits for a connection.
pub(super) struct PooledConnection {
    pub(super) connection: RedisResult<redis::Connection>,
    /// The generation before it was opened.
    pub(super) generation: u32,
    pub(super) broken: bool,
}

impl r2d2::ManageConnection for Manager {
    type Connection = PooledConnection;
    // With an error r2d2 would try again and again, and tell nobody who waits.
    type Error = Infallible;

    fn connect(&self) -> Result<PooledConnection, Infallible> {
        let generation = self.0.health.generation();
        Ok(PooledConnection {
            connection: self.0.open(self.0.timeout),
            generation,
            broken: false,
        })
    }

    fn is_valid(&self, _: &mut PooledConnection) -> Result<(), Infallible> {
        Ok(())
    }

    fn has_broken(&self, pooled: &mut PooledConnection) -> bool {
        match &pooled.connection {
            Ok(connection) => pooled.broken || !connection.is_open(),
            // While Redis is lost, one error answers everybody who waits.
            Err(_) => pooled.broken || self.0.health.answers(),
        }
    }
}

impl Connector {
    pub(crate) fn health(&self) -> &Health {
        &self.health
    }

    /// A connection that has compared the history, on which a reply may take as long as `timeout`.
    pub(crate) fn open(&self, timeout: Duration) -> RedisResult<redis::Connection> {
        let opened = self.open_for_watcher(timeout);
        if opened.is_ok() {
            self.health.found();
        }
        opened
    }

    /// The same for the watcher. It tries a fill as well before it reports that Redis is found.
    pub(super) fn open_for_watcher(&self, timeout: Duration) -> RedisResult<redis::Connection> {
        let opened = self.try_open(timeout);
        match &opened {
            Ok(_) => self.opened.store(true, Ordering::Relaxed),
            Err(error) => self.health.cannot_open(error, &self.explain(error)),
        }
        opened
    }

    fn try_open(&self, timeout: Duration) -> RedisResult<redis::Connection> {
        let mut connection = self
            .client
            .get_connection_with_timeout(self.connect_timeout)?;
        // Comparing the history is part of connecting. From then on the time of a reply counts.
        connection.set_read_timeout(Some(self.connect_timeout))?;
        connection.set_write_timeout(Some(self.connect_timeout))?;
        self.compare_history(&mut connection)?;
        connection.set_read_timeout(Some(timeout))?;
        connection.set_write_timeout(Some(timeout))?;
        Ok(connection)
    }

    fn compare_history(&self, connection: &mut redis::Connection) -> RedisResult<()> {
        let sent = self.clock.now();
        let (state, time) = self.scripts.hello(connection)?;
        self.clock.heard_redis(time, sent);
        let mut observed = self.mirror.observe(&state);
        if observed == Observed::Retired {
            // This replica left that Redis for another one, and now it is back with its old data.
            let (state, _) = self.scripts.begin_history(connection)?;
            observed = self.mirror.observe(&state);
        }
        match observed {
            Observed::Known | Observed::New => Ok(()),
            Observed::First => {
                (self.on_first_history)();
                Ok(())
            }
            Observed::Retired => Err(retired()),
        }
    }

    /// Host and port, for logs.
    pub(super) fn address(&self) -> String {
        self.client.get_connection_info().addr().to_string()
    }

    /// Why a connection could not be opened, for logs. If none was ever opened, it also says what
    /// may be wrong with the URL. Contains no secret.
    fn explain(&self, error: &RedisError) -> String {
        let address = self.client.get_connection_info().addr();
        if error.kind() == ErrorKind::AuthenticationFailed {
            return format!("{address} does not accept the user or the password of the Redis URL");
        }
        if self.opened.load(Ordering::Relaxed) {
            return reason(error);
        }
        let timed_out = Fault::of(error) == Fault::TimedOut;
        // Somebody was reached: the name has an address and the host a route.
        let closed = error.kind() == ErrorKind::Parse
            || error.is_connection_dropped() && !error.is_connection_refusal();
        let tls = matches!(address, redis::ConnectionAddr::TcpTls { .. });
        match tls_error(error) {
            Some(rustls::Error::InvalidMessage(_)) => {
                format!("{address} does not speak TLS ({error}); a plain port takes redis://")
            }
            // A plain port takes the handshake for a command and waits for its end.
            None if tls && (closed || timed_out) => {
                format!(
                    "no TLS handshake with {address} ({}); a plain port takes redis://",
                    reason(error)
                )
            }
            None if closed => format!(
                "{address} closed the connection or speaks another protocol ({error}); a port that speaks TLS takes rediss://"
            ),
            // For example a certificate that is not trusted: the error says so itself.
            Some(_) | None => reason(error),
        }
    }
}

/// The TLS error behind this error.
fn tls_error(error: &RedisError) -> Option<&rustls::Error> {
    let shared = error
        .source()?
        .downcast_ref::<Arc<dyn Error + Send + Sync>>()?;
    let io = shared.downcast_ref::<io::Error>()?;
    io.get_ref()?.downcast_ref::<rustls::Error>()
}
