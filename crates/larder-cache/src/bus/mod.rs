//! The bus: hears of every invalidation, and proves that it would have heard.
//!
//! One thread has two connections of its own, never the pool's. On one it listens, on the other it
//! sends commands. Every quarter of `max_staleness` it sends a ping. The ping reads the clock and
//! publishes it on a private channel that the listening connection hears, too. Redis delivers to
//! one connection in order. So when the echo arrives, everything published up to its clock has
//! arrived before it, or there is a gap, which is repaired before anything else. The echo extends
//! trust to the moment its ping was sent, plus `max_staleness`.
//!
//! A stalled, half-open or partitioned subscriber gets no echo, so it loses trust by itself.
//!
//! [`Bus`] is what the thread shares with the rest of the cache, [`Session`] one pair of
//! connections. The bus stands above `redis_tier` and `coherence`: it imports both.

mod session;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use redis::RedisResult;

use self::session::{Session, SessionError};
use crate::clock::{Clock, Micros, micros};
use crate::coherence::{InvalidatedTargets, InvalidationTarget, Mirror, Purge, Scripts};
use crate::random::random;
use crate::redis_tier::commands::CommandTimes;
use crate::redis_tier::connection::Connector;
use crate::redis_tier::fault::RedisDown;
use crate::redis_tier::leases::Leases;
use crate::redis_tier::pool::RedisPool;
use crate::settings::CoherenceSettings;
use crate::thread;

/// The first and the longest pause between two attempts to connect. The longest is a quarter of
/// `max_staleness` if that is less.
const PAUSES: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));
/// How often targets are forgotten that no entry can depend on any more, in pings: every 30 s with
/// a `max_staleness` of 1 s.
const PRUNE_EVERY: u32 = 120;
/// How many targets Redis, and a process that is alone, keep at most.
pub(crate) const MOST_TARGETS: usize = 1_000_000;
/// How long targets are remembered at least.
const REMEMBERED: Duration = Duration::from_secs(3600);
/// How long Redis may take to reply to the bus at least, unless `max_staleness` is shorter.
const REPLY: Duration = Duration::from_millis(500);
/// After this time Redis forgets a replica that says nothing of itself.
const REPLICA_FORGOTTEN: Duration = Duration::from_secs(60);

/// A function that is called with each invalidated target, on the bus's thread. It must not block.
/// Once it returns `false` it is not called again.
type Listener = Box<dyn Fn(&InvalidationTarget, Purge) -> bool + Send + Sync>;

/// A replica as it last spoke of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replica {
    /// Who it is.
    pub id: String,
    /// What it says of itself, a JSON object.
    pub about: String,
}

/// What the bus shares with the rest of the cache.
pub(crate) struct Bus {
    mirror: Arc<Mirror>,
    clock: Arc<Clock>,
    scripts: Arc<Scripts>,
    settings: CoherenceSettings,
    leases: Arc<Leases>,
    /// The id of this replica.
    replica: String,
    /// The longest lifetime of an entry, in microseconds. Targets are remembered for that long.
    longest_life: AtomicU64,
    /// Protects what this replica says of itself, apart from what changes: members of a JSON
    /// object. If it is empty, the replica is not listed.
    about: Mutex<String>,
    started: Instant,
    gaps_repaired: AtomicU64,
    /// When the ping of the newest echo was sent; zero before the first echo.
    echoed: AtomicU64,
    /// What was invalidated, here and elsewhere.
    invalidated: InvalidatedTargets,
    /// Where its invalidations are timed, beside those of the pool.
    commands: Arc<CommandTimes>,
    /// Protects the list. It is locked while the listeners are called.
    listeners: Mutex<Vec<Listener>>,
    /// How long Redis may take to reply. Trust ends without an echo, too, so it is at most
    /// `max_staleness`.
    reply_timeout: Duration,
    closed: AtomicBool,
}

impl Bus {
    /// The bus of a cache whose pool waits for a reply of Redis for `pool_timeout`. Starts no
    /// thread.
    pub(crate) fn new(
        mirror: Arc<Mirror>,
        clock: Arc<Clock>,
        scripts: Arc<Scripts>,
        settings: CoherenceSettings,
        leases: Arc<Leases>,
        commands: Arc<CommandTimes>,
        pool_timeout: Duration,
    ) -> Bus {
        Bus {
            reply_timeout: REPLY.max(pool_timeout * 5).min(settings.max_staleness),
            mirror,
            clock,
            scripts,
            settings,
            leases,
            replica: format!("{:016x}", random()),
            longest_life: AtomicU64::new(micros(REMEMBERED)),
            about: Mutex::default(),
            started: Instant::now(),
            gaps_repaired: AtomicU64::new(0),
            echoed: AtomicU64::new(0),
            invalidated: InvalidatedTargets::default(),
            commands,
            listeners: Mutex::default(),
            closed: AtomicBool::new(false),
        }
    }

    /// Starts the thread. It ends when the cache is closed: at once, or after the reply that it
    /// waits for.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub(crate) fn start(self: &Arc<Bus>, connector: Arc<Connector>) -> Result<(), String> {
        let bus = self.clone();
        thread::spawn("bus", move || bus.run(&connector))
    }

    fn run(&self, connector: &Connector) {
        let health = connector.health();
        let mut pause = PAUSES.0;
        let mut warned = true;
        let mut prune_at = Instant::now() + self.prune_every();
        while !self.is_closed() {
            let mut session = Session::new(self, prune_at);
            let error = match session.run(connector) {
                Ok(()) => return,
                Err(error) => error,
            };
            // So that the pool does not find out only when a request waits.
            if let SessionError::Redis(error) = &error {
                health.failed(error);
            }
            // Sessions that fail again and again must not put the next pruning off for ever.
            prune_at = session.prune_at();
            if session.got_echo() {
                pause = PAUSES.0;
                warned = false;
            }
            if !warned && !self.is_closed() {
                warned = true;
                log::warn!("the bus is lost: {error}; memory is not trusted until it is back");
            }
            // Pending invalidations wait for this, too: no longer than for a ping.
            let longest = PAUSES.1.min(self.settings.max_staleness / 4);
            health.pause(pause);
            pause = (pause * 2).min(longest);
        }
    }

    /// Has the thread end, and drops the listeners.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        let listeners = std::mem::take(&mut *self.listeners.lock());
        // Outside the lock: they have what only their owners know.
        drop(listeners);
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    fn prune_every(&self) -> Duration {
        self.settings.max_staleness / 4 * PRUNE_EVERY
    }

    /// The id of this replica.
    pub(crate) fn replica(&self) -> &str {
        &self.replica
    }

    pub(crate) fn scripts(&self) -> &Scripts {
        &self.scripts
    }

    pub(crate) fn log_length(&self) -> u32 {
        self.settings.log_length
    }

    /// How often messages were missing and were fetched again.
    pub(crate) fn gaps_repaired(&self) -> u64 {
        self.gaps_repaired.load(Ordering::Relaxed)
    }

    /// When the ping of the newest echo was sent. `None` before the first echo.
    pub(crate) fn echoed(&self) -> Option<Micros> {
        let sent = self.echoed.load(Ordering::Relaxed);
        (sent > 0).then_some(sent)
    }

    /// How many targets were invalidated, by origin and purge.
    pub(crate) fn invalidated(&self) -> &InvalidatedTargets {
        &self.invalidated
    }

    /// How long targets are remembered, in microseconds.
    pub(crate) fn remembered(&self) -> u64 {
        self.longest_life.load(Ordering::Relaxed)
    }

    /// Targets are remembered for `longest_life` from now on, unless it is longer already.
    pub(crate) fn remember_for(&self, longest_life: Duration) {
        let longest_life = micros(longest_life.max(REMEMBERED));
        self.longest_life.fetch_max(longest_life, Ordering::Relaxed);
    }

    /// Adds a listener.
    pub(crate) fn listen(
        &self,
        listener: impl Fn(&InvalidationTarget, Purge) -> bool + Send + Sync + 'static,
    ) {
        self.listeners.lock().push(Box::new(listener));
    }

    /// Tells the listeners that these targets were invalidated.
    pub(crate) fn notify<'t>(
        &self,
        targets: impl IntoIterator<Item = &'t InvalidationTarget>,
        purge: Purge,
    ) {
        let mut listeners = self.listeners.lock();
        for target in targets {
            listeners.retain(|listener| listener(target, purge));
        }
    }

    /// Sets what this replica says of itself: the members of a JSON object, without its braces.
    pub(crate) fn describe(&self, members: &str) {
        members.clone_into(&mut self.about.lock());
    }

    /// What this replica says of itself: a JSON object, or nothing.
    pub(crate) fn about(&self) -> String {
        let members = self.about.lock();
        if members.is_empty() {
            return String::new();
        }
        let left = self.mirror.trust_until().saturating_sub(self.clock.now());
        format!(
            "{{{members},\"uptime_ms\":{},\"trusted\":{},\"trust_left_ms\":{},\"clock\":\"{}\"}}",
            self.started.elapsed().as_millis(),
            left > 0,
            // A standalone process trusts itself for ever. It is reported as `max_staleness`.
            (left / 1000).min(self.settings.max_staleness.as_millis() as u64),
            self.mirror.history().applied(),
        )
    }

    /// The replicas that spoke of themselves lately. Blocks for a round trip.
    ///
    /// # Errors
    /// [`RedisDown`] if Redis cannot be asked.
    pub(crate) fn replicas(&self, pool: &RedisPool) -> Result<Vec<Replica>, RedisDown> {
        let (now, said) = pool.run(|connection| self.scripts.replicas(connection))?;
        let silence = |at: u64| Duration::from_micros(now.saturating_sub(at));
        let lately = self.settings.max_staleness * 3;
        let (live, gone): (Vec<_>, Vec<_>) = said
            .into_iter()
            .partition(|said| silence(said.at) <= lately);
        for said in gone {
            if silence(said.at) > REPLICA_FORGOTTEN {
                let forget = |connection: &mut redis::Connection| -> RedisResult<()> {
                    self.scripts.forget_replica(connection, &said.replica)
                };
                let _ = pool.run(forget);
            }
        }
        let replica = |said: crate::coherence::Said| Replica {
            id: said.replica,
            about: said.about,
        };
        Ok(live.into_iter().map(replica).collect())
    }
}
