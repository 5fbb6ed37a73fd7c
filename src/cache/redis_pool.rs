//! Connections to Redis: r2d2 over a manager of larder's own.
//!
//! Promise: nothing here waits longer than the configured times, and while Redis is down nothing waits at all: a watcher thread
//! asks for it in the background and lets traffic through again once it has an answer. A connection is used only after it has
//! compared Redis's history with the one that this replica knows, and never again after an I/O error.
//!
//! Refuses: r2d2's PING on every checkout (a second round trip for each read), and the manager that the redis crate brings
//! (it connects without a limit of time, and a connection that timed out still calls itself open).

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, RwLock, Weak};
use std::time::{Duration, Instant};

use redis::{RedisError, RedisResult};
use scheduled_thread_pool::{OnPoolDropBehavior, ScheduledThreadPool};

use super::breaker::Breaker;
use super::clock::Clock;
use super::coherence::{Mirror, OVER, Scripts, Seen};
use super::redis_connection::{Manager, ManagerParts};
use super::redis_url::check_redis_url;
use super::settings::{RedisChoice, RedisSettings};

/// The first and the longest pause between two looks for a Redis that is down.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// Connections that are opened at one time, each on a thread.
const OPENERS: usize = 3;

/// How long Redis has to stay for its next absence to be a new one.
const STEADY: Duration = Duration::from_secs(10);

/// Errors of a Redis that is not the one to work with, or not yet.
const NOT_THE_ONE: [&str; 5] = ["READONLY", "MASTERDOWN", "NOAUTH", "LOADING", OVER];

/// Redis gave no answer that can be used. Counted where it happened; the caller goes on without.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedisDown {
    /// It cannot be reached, or did not answer in time.
    Unreachable,
    /// It answered with this error: no memory, read-only, loading, not permitted.
    Refused(String),
}

impl fmt::Display for RedisDown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RedisDown::Unreachable => f.write_str("Redis cannot be reached"),
            RedisDown::Refused(why) => write!(f, "Redis refused: {why}"),
        }
    }
}

impl std::error::Error for RedisDown {}

/// A call that failed.
struct Failed {
    down: RedisDown,
    /// On a connection that had worked before and was cut meanwhile.
    lay_in_pool: bool,
}

/// A pool of checked connections. Cheap to clone.
#[derive(Clone)]
pub struct RedisPool(Arc<Inner>);

struct Inner {
    /// `None`: the cache works without Redis, or is closed.
    pool: RwLock<Option<r2d2::Pool<Manager>>>,
    manager: Manager,
    breaker: Breaker,
    errors: AtomicU64,
    choice: RedisChoice,
    /// How often the watcher has looked, and whether it should stop. Its condition tells of a breaker that opened.
    watch: Mutex<Watch>,
    changed: Condvar,
}

#[derive(Default)]
struct Watch {
    looks: u64,
    stop: bool,
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
            saw,
        }));
        let used = choice != RedisChoice::None;
        let inner = Arc::new(Inner {
            pool: RwLock::new(used.then(|| opened(settings, manager.clone()))),
            manager,
            breaker: Breaker::new(),
            errors: AtomicU64::new(0),
            choice,
            watch: Mutex::new(Watch {
                looks: 0,
                stop: !used,
            }),
            changed: Condvar::new(),
        });
        if !used {
            return Ok(RedisPool(inner));
        }
        let watched = Arc::downgrade(&inner);
        std::thread::Builder::new()
            .name("redis-watch".into())
            .spawn(move || watch(&watched))
            .map_err(|error| format!("cannot start a thread: {error}"))?;
        Ok(RedisPool(inner))
    }

    /// Runs `work`, one command or one script, on a connection.
    ///
    /// # Errors
    /// [`RedisDown`] if there is none to be had in time, or the work failed.
    pub fn run<T>(
        &self,
        work: impl FnOnce(&mut redis::Connection) -> RedisResult<T>,
    ) -> Result<T, RedisDown> {
        self.try_once(work).map_err(|failed| failed.down)
    }

    /// The same for work that does no harm when it is done twice: a connection that was cut while it lay in the pool is no reason
    /// to give up.
    ///
    /// # Errors
    /// As [`RedisPool::run`].
    pub fn read<T>(
        &self,
        mut work: impl FnMut(&mut redis::Connection) -> RedisResult<T>,
    ) -> Result<T, RedisDown> {
        match self.try_once(&mut work) {
            Err(Failed {
                lay_in_pool: true, ..
            }) => self.run(work),
            done => done.map_err(|failed| failed.down),
        }
    }

    fn try_once<T>(
        &self,
        work: impl FnOnce(&mut redis::Connection) -> RedisResult<T>,
    ) -> Result<T, Failed> {
        let inner = &*self.0;
        let failed = |down| Failed {
            down,
            lay_in_pool: false,
        };
        if inner.breaker.is_open() {
            return Err(failed(RedisDown::Unreachable));
        }
        let mut checked = inner.checkout().map_err(failed)?;
        let error = match work(&mut checked.connection) {
            Ok(value) => {
                checked.used = true;
                inner.breaker.succeeded();
                return Ok(value);
            }
            Err(error) => error,
        };
        inner.errors.fetch_add(1, Ordering::Relaxed);
        if error.is_timeout() {
            checked.broken = true;
            if inner.breaker.timed_out() {
                inner.lost(&error.to_string());
            }
            return Err(failed(RedisDown::Unreachable));
        }
        if !error.is_io_error() && !error.is_connection_dropped() {
            // Another Redis may be in its place by now, or on its way: a new connection will tell.
            // Redis before 7 tells what a script met in the text of another error.
            let text = error.to_string();
            checked.broken = NOT_THE_ONE.iter().any(|code| text.contains(code));
            return Err(failed(RedisDown::Refused(text)));
        }
        checked.broken = true;
        if checked.used {
            // All that lay in the pool with it were cut with it. Whether Redis is gone, the next connection tells.
            inner.breaker.renew();
            return Err(Failed {
                down: RedisDown::Unreachable,
                lay_in_pool: true,
            });
        }
        if inner.breaker.open() {
            inner.lost(&error.to_string());
        }
        Err(failed(RedisDown::Unreachable))
    }

    /// What opens connections that are not the pool's: for whoever must not wait for those who use it.
    pub(crate) fn connector(&self) -> super::coherence::bus::Connect {
        let manager = self.0.manager.clone();
        Box::new(move |timeout| manager.open(timeout))
    }

    /// Whether Redis answers, as far as is known.
    pub fn is_up(&self) -> bool {
        !self.0.breaker.is_open()
    }

    /// Whether a URL was configured, so that its absence is an outage.
    pub fn is_configured(&self) -> bool {
        self.0.choice == RedisChoice::Configured
    }

    /// Whether there is a Redis to ask or to wait for.
    pub(crate) fn is_used(&self) -> bool {
        self.0.choice != RedisChoice::None
    }

    /// Ends the watcher and closes the connections: those that lie in the pool now, the others when they come back. Who asks from
    /// now on is told that Redis cannot be reached. Does not block.
    pub(crate) fn close(&self) {
        let inner = &*self.0;
        inner.breaker.open();
        inner
            .watch
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .stop = true;
        inner.changed.notify_all();
        let pool = inner
            .pool
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        drop(pool);
    }

    /// Host and port, for logs.
    pub fn address(&self) -> String {
        self.0
            .manager
            .0
            .client
            .get_connection_info()
            .addr()
            .to_string()
    }

    /// Calls that failed so far.
    pub fn errors(&self) -> u64 {
        self.0.errors.load(Ordering::Relaxed)
    }

    /// Waits until Redis is up, or the watcher has looked for it once, or `limit` has passed. Returns whether it is up.
    pub fn wait_first_look(&self, limit: Duration) -> bool {
        let watch = self.0.watch.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = self
            .0
            .changed
            .wait_timeout_while(watch, limit, |watch| watch.looks == 0 && !watch.stop);
        self.is_up()
    }

    /// Waits until Redis is up or `limit` has passed. Returns whether it is up.
    pub fn wait_up(&self, limit: Duration) -> bool {
        let watch = self.0.watch.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = self.0.changed.wait_timeout_while(watch, limit, |watch| {
            self.0.breaker.is_open() && !watch.stop
        });
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
                if pool.state().connections == 0 && self.breaker.open() {
                    self.lost("no connection can be opened");
                }
                return Err(RedisDown::Unreachable);
            };
            let generation = self.breaker.generation();
            if checked.generation == u32::MAX {
                checked.generation = generation;
            }
            if checked.generation == generation {
                return Ok(checked);
            }
            // Opened before the last outage: its other end is gone, and finding that out would look like a new outage.
            checked.broken = true;
        }
    }

    fn lost(&self, why: &str) {
        log::warn!("Redis lost: {why}; answering without it");
        let _watch = self.watch.lock().unwrap_or_else(PoisonError::into_inner);
        self.changed.notify_all();
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.watch
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner)
            .stop = true;
        self.changed.notify_all();
    }
}

/// An empty pool for `manager`. Its threads end with it at once: what they were to do later is dropped.
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

/// Looks for a Redis that is down, and sleeps while it is up. Ends with the pool.
fn watch(pool: &Weak<Inner>) {
    let mut pause = PAUSES.0;
    let mut told = false;
    let mut up_since: Option<Instant> = None;
    loop {
        let Some(inner) = pool.upgrade() else { return };
        let watch = inner.watch.lock().unwrap_or_else(PoisonError::into_inner);
        if watch.stop {
            return;
        }
        if !inner.breaker.is_open() {
            if up_since.is_none_or(|since: Instant| since.elapsed() > STEADY) {
                pause = PAUSES.0;
            }
            let (watch, waited) = inner
                .changed
                .wait_timeout_while(watch, PAUSES.1, |watch| {
                    !watch.stop && !inner.breaker.is_open()
                })
                .unwrap_or_else(PoisonError::into_inner);
            drop(watch);
            if waited.timed_out() {
                // Without traffic nobody would notice that it is gone.
                let _ = RedisPool(inner).run(|connection| redis::cmd("PING").exec(connection));
            }
            continue;
        }
        drop(watch);
        // Proven under the time that a reply may take, as traffic will be.
        let found = inner
            .manager
            .open(inner.manager.0.timeout)
            .and_then(|mut connection| redis::cmd("PING").exec(&mut connection));
        let watch = inner.watch.lock().unwrap_or_else(PoisonError::into_inner);
        if watch.stop {
            return;
        }
        match found {
            Ok(_) => {
                // One that comes and goes is asked ever less often.
                let wait = if up_since.is_some_and(|since| since.elapsed() < STEADY) {
                    pause
                } else {
                    Duration::ZERO
                };
                let (mut watch, _) = inner
                    .changed
                    .wait_timeout_while(watch, wait, |watch| !watch.stop)
                    .unwrap_or_else(PoisonError::into_inner);
                if watch.stop {
                    return;
                }
                pause = (pause * 2).min(PAUSES.1);
                up_since = Some(Instant::now());
                inner.breaker.close();
                // Only now: who waits for the first look asks whether Redis is up.
                watch.looks += 1;
                drop(watch);
                inner.changed.notify_all();
                told = true;
                log::info!(
                    "Redis is up at {}",
                    inner.manager.0.client.get_connection_info().addr()
                );
            }
            Err(error) => {
                if !told {
                    told = true;
                    tell_absent(&inner, &error);
                }
                let mut watch = watch;
                watch.looks += 1;
                inner.changed.notify_all();
                drop(
                    inner
                        .changed
                        .wait_timeout_while(watch, pause, |watch| !watch.stop),
                );
                pause = (pause * 2).min(PAUSES.1);
            }
        }
    }
}

fn tell_absent(inner: &Inner, error: &RedisError) {
    let address = inner.manager.0.client.get_connection_info().addr();
    if inner.choice == RedisChoice::Configured {
        log::warn!(
            "Redis does not answer at {address}: {error}; answering without it until it does"
        );
    } else {
        log::info!(
            "no Redis is configured and none answers at {address}: standalone until one appears there"
        );
    }
}
