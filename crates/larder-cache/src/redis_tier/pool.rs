//! Connections to Redis: r2d2 over a manager of larder's own.
//!
//! Promise: nothing here waits longer than the configured times, and while Redis is down nothing
//! waits at all: a watcher thread asks for it in the background and lets traffic through again once
//! it takes a fill. A connection is used only after it has compared Redis's history with the one
//! that this replica knows, never again after an I/O error, and never after a sign that it leads to
//! another server than a new one would: see `fault.rs`.
//!
//! Refuses: r2d2's PING on every checkout (a second round trip for each read), and the manager that the redis crate brings
//! (it connects without a limit of time, and a connection that timed out still calls itself open).

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use redis::{ErrorKind, RedisError, RedisResult, Script};
use scheduled_thread_pool::{OnPoolDropBehavior, ScheduledThreadPool};

use super::connection::{Manager, ManagerParts};
use super::fault::{Fault, RedisDown, RedisState};
use super::health::Health;
use super::url::check_redis_url;
use super::watch::watch;
use crate::clock::Clock;
use crate::coherence::{Mirror, Scripts, Seen};
use crate::settings::{RedisChoice, RedisSettings};

/// Connections that are opened at one time, each on a thread.
const OPENERS: usize = 3;

/// A call that failed.
struct Failed {
    down: RedisDown,
    /// What the error says, if it came on a connection.
    fault: Option<Fault>,
    /// Whether the server can have carried out what it was asked for.
    done: bool,
}

/// A pool of checked connections. Cheap to clone.
#[derive(Clone)]
pub struct RedisPool(Arc<Inner>);

struct Inner {
    /// `None`: the cache works without Redis, or is closed.
    pool: RwLock<Option<r2d2::Pool<Manager>>>,
    manager: Manager,
    health: Arc<Health>,
    errors: AtomicU64,
    choice: RedisChoice,
    /// A fill on trial, and the key that it is made under.
    trial: (Script, String),
}

impl RedisPool {
    /// A pool for the Redis that `choice` names. Connects in the background.
    ///
    /// # Errors
    /// If the URL is none that Redis understands, or no thread can be started.
    pub(crate) fn start(
        settings: &RedisSettings,
        choice: RedisChoice,
        mirror: Arc<Mirror>,
        clock: Arc<Clock>,
        scripts: Arc<Scripts>,
        saw: Box<dyn Fn(Seen) + Send + Sync>,
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
        let manager = Manager(Arc::new(ManagerParts {
            client,
            connect_timeout: settings.connect_timeout,
            timeout: settings.timeout,
            scripts,
            mirror,
            clock,
            health: health.clone(),
            opened: AtomicBool::new(false),
            saw,
        }));
        let used = choice != RedisChoice::None;
        let inner = Arc::new(Inner {
            pool: RwLock::new(used.then(|| opened(settings, manager.clone()))),
            manager,
            health,
            errors: AtomicU64::new(0),
            choice,
            trial: (
                Script::new(concat!(
                    include_str!("../coherence/call.lua"),
                    include_str!("trial.lua")
                )),
                format!("{}:trial", settings.prefix),
            ),
        });
        if !used {
            inner.health.end();
            return Ok(RedisPool(inner));
        }
        let (watched, health) = (Arc::downgrade(&inner), inner.health.clone());
        let (address, configured) = (inner.address(), choice == RedisChoice::Configured);
        std::thread::Builder::new()
            .name("redis-watch".into())
            .spawn(move || {
                let look = || Some(watched.upgrade()?.look());
                let see = || {
                    RedisPool(watched.upgrade()?).see_what_it_takes();
                    Some(())
                };
                watch(&health, &address, configured, look, see);
            })
            .map_err(|error| format!("cannot start a thread: {error}"))?;
        Ok(RedisPool(inner))
    }

    /// Runs `work`, one command or one script, on a connection. Where the server refuses it because
    /// it is not the one to write to, or does not know who speaks, once more on a new connection.
    ///
    /// # Errors
    /// [`RedisDown`] if there is no connection to be had in time, or the work failed.
    pub fn run<T>(
        &self,
        work: impl FnMut(&mut redis::Connection) -> RedisResult<T>,
    ) -> Result<T, RedisDown> {
        self.attempt(work, |failed| {
            let elsewhere = matches!(
                failed.fault,
                Some(Fault::WrongServer(_) | Fault::NotAuthenticated)
            );
            elsewhere && !failed.done
        })
        .map_err(|failed| failed.down)
    }

    /// The same for work that does no harm when it is done twice: once more also where the
    /// connection was lost, as one is that was cut while it lay in the pool.
    ///
    /// # Errors
    /// As [`RedisPool::run`].
    pub fn read<T>(
        &self,
        work: impl FnMut(&mut redis::Connection) -> RedisResult<T>,
    ) -> Result<T, RedisDown> {
        self.attempt(work, |failed| failed.fault.is_some_and(Fault::ends_all))
            .map_err(|failed| failed.down)
    }

    /// Tries a fill and tells everybody what came of it.
    fn see_what_it_takes(&self) {
        let inner = &*self.0;
        let tried = self.attempt(
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
            // Told by whoever found that.
            Err(_) => {}
        }
    }

    fn attempt<T>(
        &self,
        mut work: impl FnMut(&mut redis::Connection) -> RedisResult<T>,
        again: impl FnOnce(&Failed) -> bool,
    ) -> Result<T, Failed> {
        match self.try_once(&mut work) {
            Err(failed) if again(&failed) => self.try_once(work),
            done => done,
        }
    }

    fn try_once<T>(
        &self,
        mut work: impl FnMut(&mut redis::Connection) -> RedisResult<T>,
    ) -> Result<T, Failed> {
        let inner = &*self.0;
        let none = |down| Failed {
            down,
            fault: None,
            done: false,
        };
        if !inner.health.answers() {
            return Err(none(RedisDown::Unreachable));
        }
        let mut checked = inner.checkout().map_err(none)?;
        let error = match &mut checked.connection {
            Ok(connection) => match work(connection) {
                Ok(value) => {
                    inner.health.succeeded();
                    return Ok(value);
                }
                Err(error) => error,
            },
            Err(error) => error.clone(),
        };
        inner.errors.fetch_add(1, Ordering::Relaxed);
        let fault = inner.health.failed(&error);
        checked.broken = fault.ends_connection();
        Err(Failed {
            down: match fault {
                Fault::TimedOut | Fault::ConnectionLost => RedisDown::Unreachable,
                _ => RedisDown::Refused(error.to_string()),
            },
            fault: Some(fault),
            // A reply that is an error: nothing was done. Larder's own refusal of a reply comes
            // after it.
            done: !matches!(error.kind(), ErrorKind::Server(_) | ErrorKind::Extension),
        })
    }

    /// What opens connections that are not the pool's: for whoever must not wait for those who use it.
    pub(crate) fn connector(&self) -> crate::coherence::bus::Connect {
        let manager = self.0.manager.clone();
        Box::new(move |timeout| manager.open(timeout))
    }

    /// What every part that talks to Redis knows of it.
    pub(crate) fn health(&self) -> &Arc<Health> {
        &self.0.health
    }

    /// Whether Redis takes fills, as far as is known.
    pub fn is_up(&self) -> bool {
        self.0.health.is_up()
    }

    /// Whether it makes sense to ask Redis: it answers, be it that it takes no fills.
    pub fn answers(&self) -> bool {
        self.0.health.answers()
    }

    /// What Redis takes, and the error that says why it is not more. The error is for operators: it
    /// can name the Redis user.
    pub fn state(&self) -> (RedisState, String) {
        self.0.health.state()
    }

    /// Whether a URL was configured, so that its absence is an outage.
    pub fn is_configured(&self) -> bool {
        self.0.choice == RedisChoice::Configured
    }

    /// How long one look for Redis may take: a connection, the comparison of its history, and a
    /// question.
    pub(crate) fn longest_look(&self) -> Duration {
        self.0.manager.0.connect_timeout * 4
    }

    /// Whether there is a Redis to ask or to wait for.
    pub(crate) fn is_used(&self) -> bool {
        self.0.choice != RedisChoice::None
    }

    /// Ends the watcher and closes the connections: those that lie in the pool now, the others when
    /// they come back. Who asks from now on is told that Redis cannot be reached. Does not block.
    pub(crate) fn close(&self) {
        let inner = &*self.0;
        inner.health.end();
        let pool = inner
            .pool
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        drop(pool);
    }

    /// Host and port, for logs.
    pub fn address(&self) -> String {
        self.0.address()
    }

    /// Calls that failed so far.
    pub fn errors(&self) -> u64 {
        self.0.errors.load(Ordering::Relaxed)
    }

    /// Waits until Redis is up, or the watcher has looked for it once, or `limit` has passed. Returns whether it is up.
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

impl Inner {
    fn checkout(&self) -> Result<r2d2::PooledConnection<Manager>, RedisDown> {
        let pool = self
            .pool
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
            .ok_or(RedisDown::Unreachable)?;
        let deadline = Instant::now() + self.manager.0.connect_timeout;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(mut checked) = pool.get_timeout(left) else {
                self.errors.fetch_add(1, Ordering::Relaxed);
                // A pool that is merely busy is no outage; one that has nothing open cannot connect.
                if pool.state().connections == 0 {
                    self.health
                        .gone(RedisState::Down, "no connection can be opened");
                }
                return Err(RedisDown::Unreachable);
            };
            let current = checked.generation == self.health.generation();
            match &checked.connection {
                Ok(_) if current => return Ok(checked),
                // From before Redis was lost, or led to another server than a new one would.
                Ok(_) => checked.broken = true,
                Err(_) if !self.health.answers() => {
                    self.errors.fetch_add(1, Ordering::Relaxed);
                    return Err(RedisDown::Unreachable);
                }
                Err(error) if current => {
                    return Err(self.cannot_open(error, pool.state().connections));
                }
                Err(_) => checked.broken = true,
            }
        }
    }

    /// No connection could be opened just now, and yet Redis is not known to be gone.
    /// `connections`: those that are open, the one in hand counted.
    fn cannot_open(&self, error: &RedisError, connections: u32) -> RedisDown {
        self.errors.fetch_add(1, Ordering::Relaxed);
        let fault = Fault::of(error);
        if connections <= 1 {
            let state = fault.state().unwrap_or(match fault {
                Fault::Refused => RedisState::Refusing,
                _ => RedisState::Down,
            });
            self.health.gone(state, &error.to_string());
        }
        match fault {
            Fault::TimedOut | Fault::ConnectionLost => RedisDown::Unreachable,
            _ => RedisDown::Refused(error.to_string()),
        }
    }

    fn address(&self) -> String {
        let info = self.manager.0.client.get_connection_info();
        info.addr().to_string()
    }

    /// Opens a connection and tries a fill, under the time that a reply may take, as traffic will
    /// be. Returns what Redis takes.
    fn look(&self) -> RedisResult<(RedisState, String)> {
        let mut connection = self.manager.open_to_look(self.manager.0.timeout)?;
        match self.try_fill(&mut connection) {
            Ok(()) => Ok((RedisState::Up, String::new())),
            Err(error) => {
                let fault = Fault::of(&error);
                if fault.ends_connection() {
                    self.health.cannot_open(&error, &error.to_string());
                    return Err(error);
                }
                Ok((
                    fault.state().unwrap_or(RedisState::Refusing),
                    error.to_string(),
                ))
            }
        }
    }

    /// Tries what a fill does, on a key of its own that nobody ever sees.
    fn try_fill(&self, connection: &mut redis::Connection) -> RedisResult<()> {
        let (script, key) = &self.trial;
        script.key(key).invoke(connection)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.health.end();
    }
}

/// An empty pool for `manager`. Its threads end with it at once: what they were to do later is
/// dropped.
fn opened(settings: &RedisSettings, manager: Manager) -> r2d2::Pool<Manager> {
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
