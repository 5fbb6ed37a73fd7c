//! The pool of connections to Redis: r2d2 over a [`Connector`] of larder's own.
//!
//! Promise: nothing here waits longer than the configured times. While Redis is down nothing waits
//! at all: a watcher thread looks for it in the background and lets traffic through again once it
//! takes a fill. A connection is used only after it has compared Redis's history with the one that
//! this replica knows. It is never used again after an I/O error, or after a sign that a new
//! connection would reach another server: see [`Fault`].
//!
//! r2d2's PING on every checkout is off: it costs a second round trip for each read. The manager of
//! the redis crate is not used: it connects without a time limit, and a connection that timed out
//! still counts as open.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use parking_lot::RwLock;
use redis::{ErrorKind, RedisError, RedisResult, Script};
use scheduled_thread_pool::{OnPoolDropBehavior, ScheduledThreadPool};

use super::commands::{CommandTimes, RedisCommand};
use super::connection::{Connector, Manager};
use super::fault::{Fault, RedisDown, RedisState, reason};
use super::health::Health;
use super::url::check_redis_url;
use super::watch::watch;
use crate::clock::Clock;
use crate::coherence::{Mirror, Scripts, script};
use crate::settings::{RedisChoice, RedisSettings};
use crate::thread;

/// How many connections are opened at one time, each on a thread.
const OPENERS: usize = 3;

/// A call that failed.
struct Failed {
    down: RedisDown,
    /// The fault of the exchange; `None` if there was no connection for it.
    fault: Option<Fault>,
    /// Whether the server may have carried out the command.
    maybe_done: bool,
}

impl Failed {
    fn without_connection(down: RedisDown) -> Failed {
        Failed {
            down,
            fault: None,
            maybe_done: false,
        }
    }
}

/// A pool of connections to Redis. Cheap to clone.
#[derive(Clone)]
pub struct RedisPool(Arc<PoolInner>);

struct PoolInner {
    /// `None`: the cache works without Redis, or is closed. The lock is not held while a connection
    /// is used.
    pool: RwLock<Option<r2d2::Pool<Manager>>>,
    connector: Arc<Connector>,
    health: Arc<Health>,
    commands: Arc<CommandTimes>,
    choice: RedisChoice,
    /// The script that tries a fill, and the key that it fills.
    trial: (Script, String),
}

impl RedisPool {
    /// A pool for the Redis that `choice` names. Connects in the background. `on_first_history` is
    /// called when the first history of a Redis is found.
    ///
    /// # Errors
    /// If the Redis URL is not valid, or no thread can be started.
    pub(crate) fn start(
        settings: &RedisSettings,
        choice: RedisChoice,
        mirror: Arc<Mirror>,
        clock: Arc<Clock>,
        scripts: Arc<Scripts>,
        on_first_history: Box<dyn Fn() + Send + Sync>,
    ) -> Result<RedisPool, String> {
        let url = settings
            .url
            .as_ref()
            .map_or(RedisSettings::DEFAULT_URL, |url| url.reveal());
        check_redis_url(url).map_err(|what| format!("the Redis URL {what}"))?;
        let health = Arc::new(Health::new());
        // The error's text could quote the URL, and the URL can hold a password.
        let client =
            redis::Client::open(url).map_err(|_| "the Redis URL is not valid".to_owned())?;
        let connector = Arc::new(Connector {
            client,
            connect_timeout: settings.connect_timeout,
            timeout: settings.timeout,
            scripts,
            mirror,
            clock,
            health: health.clone(),
            opened: AtomicBool::new(false),
            on_first_history,
        });
        let used = choice != RedisChoice::None;
        let inner = Arc::new(PoolInner {
            pool: RwLock::new(used.then(|| empty_pool(settings, Manager(connector.clone())))),
            connector,
            health,
            commands: Arc::default(),
            choice,
            trial: (
                script(include_str!("trial.lua")),
                format!("{}:trial", settings.prefix),
            ),
        });
        if !used {
            inner.health.end();
            return Ok(RedisPool(inner));
        }
        let (watched, health) = (Arc::downgrade(&inner), inner.health.clone());
        let address = inner.connector.address();
        let configured = choice == RedisChoice::Configured;
        thread::spawn("redis-watch", move || {
            let look = || Some(watched.upgrade()?.look());
            let try_fill = || {
                RedisPool(watched.upgrade()?).report_fill();
                Some(())
            };
            watch(&health, &address, configured, look, try_fill);
        })?;
        Ok(RedisPool(inner))
    }

    /// Runs `work`, one command or one script, on a connection. If the server takes no writes, or
    /// the connection is not authenticated, runs it once more on a new connection.
    ///
    /// # Errors
    /// [`RedisDown`] if no connection is free in time, or the work failed.
    pub fn run<T>(
        &self,
        work: impl FnMut(&mut redis::Connection) -> RedisResult<T>,
    ) -> Result<T, RedisDown> {
        self.run_as(RedisCommand::Other, work)
    }

    /// The same, counted as this command.
    pub(crate) fn run_as<T>(
        &self,
        command: RedisCommand,
        work: impl FnMut(&mut redis::Connection) -> RedisResult<T>,
    ) -> Result<T, RedisDown> {
        self.attempt(command, work, |failed| {
            let elsewhere = matches!(
                failed.fault,
                Some(Fault::WrongServer(_) | Fault::NotAuthenticated)
            );
            elsewhere && !failed.maybe_done
        })
        .map_err(|failed| failed.down)
    }

    /// The same for work that is idempotent: runs it once more also if the connection was lost. An
    /// idle connection of the pool may have been cut.
    ///
    /// # Errors
    /// As [`RedisPool::run`].
    pub fn read<T>(
        &self,
        work: impl FnMut(&mut redis::Connection) -> RedisResult<T>,
    ) -> Result<T, RedisDown> {
        self.read_as(RedisCommand::Other, work)
    }

    /// The same, counted as this command.
    pub(crate) fn read_as<T>(
        &self,
        command: RedisCommand,
        work: impl FnMut(&mut redis::Connection) -> RedisResult<T>,
    ) -> Result<T, RedisDown> {
        let again = |failed: &Failed| failed.fault.is_some_and(Fault::ends_all);
        let done = self.attempt(command, work, again);
        done.map_err(|failed| failed.down)
    }

    /// Tries a fill and reports to [`Health`] whether Redis takes fills.
    fn report_fill(&self) {
        let inner = &*self.0;
        let tried = self.attempt(
            RedisCommand::Other,
            |connection| inner.try_fill(connection),
            |failed| failed.fault.is_some_and(Fault::ends_all),
        );
        match tried {
            Ok(()) => inner.health.takes(RedisState::Up, ""),
            Err(Failed {
                down: RedisDown::Refused(why),
                fault: Some(fault),
                ..
            }) if !fault.ends_connection() => {
                let state = fault.state().unwrap_or(RedisState::Refusing);
                inner.health.takes(state, &why);
            }
            // The exchange itself was reported already.
            Err(_) => {}
        }
    }

    fn attempt<T>(
        &self,
        command: RedisCommand,
        mut work: impl FnMut(&mut redis::Connection) -> RedisResult<T>,
        again: impl FnOnce(&Failed) -> bool,
    ) -> Result<T, Failed> {
        match self.try_once(command, &mut work) {
            Err(failed) if again(&failed) => self.try_once(command, work),
            done => done,
        }
    }

    fn try_once<T>(
        &self,
        command: RedisCommand,
        work: impl FnMut(&mut redis::Connection) -> RedisResult<T>,
    ) -> Result<T, Failed> {
        if !self.0.health.answers() {
            return Err(Failed::without_connection(RedisDown::Unreachable));
        }
        self.0.commands.time(command, || self.exchange(work))
    }

    fn exchange<T>(
        &self,
        mut work: impl FnMut(&mut redis::Connection) -> RedisResult<T>,
    ) -> Result<T, Failed> {
        let inner = &*self.0;
        let mut pooled = inner.checkout().map_err(Failed::without_connection)?;
        let error = match &mut pooled.connection {
            Ok(connection) => match work(connection) {
                Ok(value) => {
                    inner.health.succeeded();
                    return Ok(value);
                }
                Err(error) => error,
            },
            Err(error) => error.clone(),
        };
        let fault = inner.health.failed(&error);
        pooled.broken = fault.ends_connection();
        Err(Failed {
            down: match fault {
                Fault::TimedOut | Fault::ConnectionLost => RedisDown::Unreachable,
                _ => RedisDown::Refused(error.to_string()),
            },
            fault: Some(fault),
            // If the reply is an error, nothing was done. Larder refuses a reply only after the
            // command was done.
            maybe_done: !matches!(error.kind(), ErrorKind::Server(_) | ErrorKind::Extension),
        })
    }

    /// Opens connections that are not the pool's, for a thread that must not wait for its users.
    pub(crate) fn connector(&self) -> Arc<Connector> {
        self.0.connector.clone()
    }

    /// The durations and errors of the commands.
    pub(crate) fn commands(&self) -> &Arc<CommandTimes> {
        &self.0.commands
    }

    /// What is known of Redis.
    pub(crate) fn health(&self) -> &Arc<Health> {
        &self.0.health
    }

    /// Whether Redis takes fills, as far as is known.
    pub fn is_up(&self) -> bool {
        self.0.health.is_up()
    }

    /// Whether Redis answers. It may take no fills.
    pub fn answers(&self) -> bool {
        self.0.health.answers()
    }

    /// Whether Redis takes fills, and the error that says why not. The error is for operators: it
    /// can name the Redis user.
    pub fn state(&self) -> (RedisState, String) {
        self.0.health.state()
    }

    /// Whether a URL was configured, so that its absence is an outage.
    pub fn is_configured(&self) -> bool {
        self.0.choice == RedisChoice::Configured
    }

    /// How long one look for Redis may take: a connection, the comparison of its history, and a
    /// fill.
    pub(crate) fn longest_look(&self) -> Duration {
        self.0.connector.connect_timeout * 4
    }

    /// Whether there is a Redis to ask or to wait for.
    pub(crate) fn is_used(&self) -> bool {
        self.0.choice != RedisChoice::None
    }

    /// Ends the watcher and closes the connections: the idle ones now, the others when they are
    /// returned. From now on every call fails as if Redis could not be reached. Does not block.
    pub(crate) fn close(&self) {
        self.0.health.end();
        let pool = self.0.pool.write().take();
        // Without the lock.
        drop(pool);
    }

    /// Host and port, for logs.
    pub fn address(&self) -> String {
        self.0.connector.address()
    }

    /// Commands that failed so far, whatever they were for.
    pub fn errors(&self) -> u64 {
        let of = |command| self.0.commands.of(command).1;
        RedisCommand::ALL.into_iter().map(of).sum()
    }

    /// Waits until Redis is up, or the watcher has looked for it once, or `limit` has passed.
    /// Returns whether it is up.
    pub fn wait_first_look(&self, limit: Duration) -> bool {
        self.0.health.wait_first_look(limit);
        self.is_up()
    }

    /// Waits until Redis is up or `limit` has passed. Returns whether it is up.
    pub fn wait_up(&self, limit: Duration) -> bool {
        self.0.health.wait_up(limit);
        self.is_up()
    }
}

impl PoolInner {
    fn checkout(&self) -> Result<r2d2::PooledConnection<Manager>, RedisDown> {
        let pool = self.pool.read().clone().ok_or(RedisDown::Unreachable)?;
        let deadline = Instant::now() + self.connector.connect_timeout;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(mut pooled) = pool.get_timeout(left) else {
                // A pool that is merely busy is no outage. A pool without connections cannot
                // connect.
                if pool.state().connections == 0 {
                    self.health
                        .gone(RedisState::Down, "no connection can be opened");
                }
                return Err(RedisDown::Unreachable);
            };
            let current = pooled.generation == self.health.generation();
            match &pooled.connection {
                Ok(_) if current => return Ok(pooled),
                // Opened before Redis was lost, or before it became another server.
                Ok(_) => pooled.broken = true,
                Err(_) if !self.health.answers() => {
                    return Err(RedisDown::Unreachable);
                }
                Err(error) if current => {
                    return Err(self.cannot_open(error, pool.state().connections));
                }
                Err(_) => pooled.broken = true,
            }
        }
    }

    /// No connection could be opened, although Redis is not known to be gone. `connections` counts
    /// the open ones, this one included.
    fn cannot_open(&self, error: &RedisError, connections: u32) -> RedisDown {
        let fault = Fault::of(error);
        if connections <= 1 {
            let state = fault.state().unwrap_or(match fault {
                Fault::Refused => RedisState::Refusing,
                _ => RedisState::Down,
            });
            self.health.gone(state, &reason(error));
        }
        match fault {
            Fault::TimedOut | Fault::ConnectionLost => RedisDown::Unreachable,
            _ => RedisDown::Refused(error.to_string()),
        }
    }

    /// Opens a connection and tries a fill, under the time limit of an ordinary reply. Returns
    /// whether Redis takes fills, and if not, why.
    fn look(&self) -> RedisResult<(RedisState, String)> {
        let mut connection = self.connector.open_for_watcher(self.connector.timeout)?;
        match self.try_fill(&mut connection) {
            Ok(()) => Ok((RedisState::Up, String::new())),
            Err(error) => {
                let fault = Fault::of(&error);
                if fault.ends_connection() {
                    self.health.cannot_open(&error, &reason(&error));
                    return Err(error);
                }
                Ok((
                    fault.state().unwrap_or(RedisState::Refusing),
                    error.to_string(),
                ))
            }
        }
    }

    /// Does what a fill does, on a key of its own.
    fn try_fill(&self, connection: &mut redis::Connection) -> RedisResult<()> {
        let (script, key) = &self.trial;
        script.key(key).invoke(connection)
    }
}

impl Drop for PoolInner {
    fn drop(&mut self) {
        self.health.end();
    }
}

/// An empty pool for `manager`. Its threads end with it at once, whatever they were to do later.
fn empty_pool(settings: &RedisSettings, manager: Manager) -> r2d2::Pool<Manager> {
    let openers = ScheduledThreadPool::builder()
        .num_threads(OPENERS)
        .thread_name_pattern("redis-open-{}")
        .on_drop_behavior(OnPoolDropBehavior::DiscardPendingScheduled)
        .build();
    r2d2::Pool::builder()
        .thread_pool(Arc::new(openers))
        .max_size(settings.pool)
        .min_idle(Some(0))
        .test_on_check_out(false)
        .connection_timeout(settings.connect_timeout)
        .error_handler(Box::new(r2d2::NopErrorHandler))
        .build_unchecked(manager)
}
