//! The bus: hears of every invalidation, and proves that it would have heard.
//!
//! One thread with two connections of its own, never the pool's: one listens, one talks. Every quarter of `max_staleness` it talks a
//! ping that reads the clock and publishes it on a private channel that the listening connection hears, too. Redis delivers to one
//! connection in order: when the echo arrives, everything published up to its clock has arrived before it, or there is a gap,
//! which is repaired before anything else. The echo extends trust to the moment its ping was sent, plus `max_staleness`.
//!
//! A stalled, half-open or partitioned subscriber brings no echo, and so loses trust by itself: nothing has to notice.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use redis::{Connection, PubSub, RedisError, RedisResult};

use super::mirror::Mirror;
use super::name::{InvalidationTarget, Purge};
use super::scripts::{Ping, Scripts};
use crate::clock::Clock;
use crate::random::random;
use crate::redis_tier::fault::Fault;
use crate::redis_tier::health::Health;
use crate::redis_tier::leases::{Held, RENEW_EVERY};
use crate::settings::CoherenceSettings;

/// Pauses between two tries to connect. The longest is a quarter of `max_staleness` where that is less.
const PAUSES: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));
/// How often the thread looks whether something is to be delivered, where nothing is heard meanwhile.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Names of pending invalidations that are delivered in one script.
const DELIVERED_AT_ONCE: usize = 500;
/// How often names that no entry can depend on any more are forgotten, in pings: every 30 s with a `max_staleness` of 1 s.
const PRUNE_EVERY: u32 = 120;
/// Names that Redis keeps at most.
pub(crate) const MOST_NAMES: usize = 1_000_000;
/// Names that one script forgets at most, of either sort, as it has them: in between Redis does other work, and this thread listens.
const FORGOTTEN_AT_ONCE: u64 = 1000;

/// Called with each name that was invalidated, on the bus's thread: must not block.
pub(crate) type Listener = Box<dyn Fn(&InvalidationTarget, Purge) + Send + Sync>;

/// What the bus shares with the rest of the cache.
pub(crate) struct BusParts {
    pub(crate) mirror: Arc<Mirror>,
    pub(crate) clock: Arc<Clock>,
    pub(crate) scripts: Arc<Scripts>,
    pub(crate) settings: CoherenceSettings,
    /// Who this replica is.
    pub(crate) replica: String,
    /// How long the longest life of an entry is: names are remembered that long.
    pub(crate) longest_life: AtomicU64,
    /// What this replica says of itself, but for what changes: members of a JSON object. Empty: nothing, it is not listed.
    pub(crate) about: Mutex<String>,
    pub(crate) started: Instant,
    pub(crate) gaps_repaired: AtomicU64,
    pub(crate) listeners: Mutex<Vec<Listener>>,
    /// The leases to keep alive.
    pub(crate) held: Arc<Held>,
    /// How long Redis may take to reply. A shorter one than `max_staleness` loses nothing: trust ends
    /// without an echo, too.
    pub(crate) reply: Duration,
    /// Ends the thread.
    pub(crate) closed: AtomicBool,
}

impl BusParts {
    /// Has the thread end.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    fn prune_every(&self) -> Duration {
        self.settings.max_staleness / 4 * PRUNE_EVERY
    }
}

/// Opens a connection that has compared the history. The argument is how long a reply may take.
pub(crate) type Connect = Box<dyn Fn(Duration) -> RedisResult<Connection> + Send>;

/// Why the thread goes on with new connections.
pub(super) enum Lost {
    Redis(RedisError),
    /// No connection could be opened: whoever opens it has told that.
    Unopened(RedisError),
    /// The listening connection brings nothing.
    Silent,
    Strange(String),
}

impl From<RedisError> for Lost {
    fn from(error: RedisError) -> Lost {
        Lost::Redis(error)
    }
}

impl std::fmt::Display for Lost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Lost::Redis(error) | Lost::Unopened(error) => write!(f, "{error}"),
            Lost::Silent => f.write_str("its echoes do not come back"),
            Lost::Strange(what) => f.write_str(what),
        }
    }
}

/// Starts the thread; it ends when the cache is closed: at once, or after the reply that it waits
/// for.
pub(crate) fn start(
    parts: &Arc<BusParts>,
    connect: Connect,
    health: Arc<Health>,
) -> Result<(), String> {
    let parts = parts.clone();
    std::thread::Builder::new()
        .name("bus".into())
        .spawn(move || run(&parts, &connect, &health))
        .map(|_| ())
        .map_err(|error| format!("cannot start a thread: {error}"))
}

fn run(bus: &BusParts, connect: &Connect, health: &Health) {
    let mut pause = PAUSES.0;
    let mut told = true;
    let mut prune_at = None;
    while !bus.is_closed() {
        let mut session = Session {
            bus,
            sent: VecDeque::new(),
            heard: false,
            // Beyond the life of a session: one that is lost again and again would never come to it.
            prune_at: prune_at.unwrap_or_else(|| Instant::now() + bus.prune_every()),
        };
        let lost = match session.run(connect) {
            Ok(()) => return,
            Err(lost) => lost,
        };
        // The pool is not to find out for itself, with a request that waits.
        if let Lost::Redis(error) = &lost {
            health.failed(error);
        }
        prune_at = Some(session.prune_at);
        if session.heard {
            pause = PAUSES.0;
            told = false;
        }
        if !told && !bus.is_closed() {
            told = true;
            log::warn!("the bus is lost: {lost}; memory is not trusted until it is back");
        }
        // What is pending waits for this, too: no longer than it waits for a ping.
        let longest = PAUSES.1.min(bus.settings.max_staleness / 4);
        health.pause(pause);
        pause = (pause * 2).min(longest);
    }
}

/// One pair of connections.
pub(super) struct Session<'a> {
    pub(super) bus: &'a BusParts,
    /// The pings under way: token, and when each was sent.
    pub(super) sent: VecDeque<(u64, Instant)>,
    /// Whether an echo came back.
    pub(super) heard: bool,
    /// When names are forgotten next.
    prune_at: Instant,
}

impl Session<'_> {
    fn run(&mut self, connect: &Connect) -> Result<(), Lost> {
        let bus = self.bus;
        let max_staleness = bus.settings.max_staleness;
        let mut listening = connect(bus.reply).map_err(Lost::Unopened)?;
        let mut talking = connect(bus.reply).map_err(Lost::Unopened)?;
        let mut listening = listening.as_pubsub();
        let private = bus.scripts.private_channel(&bus.replica);
        // Subscribed and confirmed before the state is read: what comes between is heard, and waits in the connection.
        listening.subscribe(&[bus.scripts.channel(), private.as_str()])?;
        self.catch_up(&mut talking, None)?;
        let (mut ping_at, mut renew_at) = (Instant::now(), Instant::now());
        loop {
            if bus.is_closed() {
                let _ = bus.scripts.forget_replica(&mut talking, &bus.replica);
                return Ok(());
            }
            let now = Instant::now();
            if now >= ping_at {
                ping_at = now + max_staleness / 4;
                self.ping(&mut talking, &private)?;
            }
            self.deliver_pending(&mut talking)?;
            if now >= renew_at {
                renew_at = now + RENEW_EVERY;
                if let Err(error) = bus.held.renew(&mut talking)
                    && Fault::of(&error).ends_connection()
                {
                    // Any other error is a lease's own trouble: it runs out, and that costs work only.
                    return Err(error.into());
                }
            }
            if now >= self.prune_at {
                let all = self.prune(&mut talking)? < FORGOTTEN_AT_ONCE;
                self.prune_at = if all { now + bus.prune_every() } else { now };
            }
            let oldest = self.sent.front().map(|(_, sent)| sent.elapsed());
            if oldest.is_some_and(|age| age > max_staleness * 2) {
                return Err(Lost::Silent);
            }
            let wait = ping_at
                .min(renew_at)
                .saturating_duration_since(Instant::now())
                .clamp(Duration::from_millis(1), LOOK_EVERY);
            self.listen(&mut listening, &mut talking, &private, wait)?;
        }
    }

    fn listen(
        &mut self,
        listening: &mut PubSub<'_>,
        talking: &mut Connection,
        private: &str,
        wait: Duration,
    ) -> Result<(), Lost> {
        listening.set_read_timeout(Some(wait))?;
        let message = match listening.get_message() {
            Ok(message) => message,
            Err(error) if error.is_timeout() => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let payload: String = message.get_payload()?;
        if message.get_channel_name() == private {
            self.echoed(&payload, talking)
        } else {
            self.told(&payload, talking)
        }
    }

    fn ping(&mut self, talking: &mut Connection, private: &str) -> Result<(), Lost> {
        let bus = self.bus;
        let (token, sent, sent_at) = (random() >> 1, Instant::now(), bus.clock.now());
        let about = about(bus);
        let ping = Ping {
            private_channel: private,
            token,
            replica: &bus.replica,
            about: &about,
        };
        self.sent.push_back((token, sent));
        let (state, time) = bus.scripts.ping(talking, &ping)?;
        bus.clock.heard_redis(time, sent_at);
        bus.mirror.saw(&state);
        Ok(())
    }

    /// Brings what waits to Redis: the latest of each name.
    fn deliver_pending(&mut self, talking: &mut Connection) -> Result<(), Lost> {
        let bus = self.bus;
        if bus.mirror.pending.is_empty() {
            return Ok(());
        }
        // One pass at a time: in between the thread has to listen.
        for batch in bus.mirror.pending.batches(DELIVERED_AT_ONCE) {
            let names = batch.names.iter().map(|(name, _)| name.clone());
            let length = bus.settings.log_length;
            let (epoch, clock) =
                bus.scripts
                    .invalidate(talking, batch.kind, names, &bus.replica, length)?;
            let names = batch.names.iter().map(|(name, _)| name);
            if !bus.mirror.applied(epoch, names, batch.kind, clock) {
                // A history that is not known here yet: until it is, the batch goes on standing in the way.
                self.catch_up(talking, None)?;
                continue;
            }
            bus.mirror.pending.settle(&batch);
            log::info!("{} pending invalidations delivered", batch.names.len());
        }
        Ok(())
    }

    /// Forgets names in Redis and here. Returns how many went there.
    fn prune(&self, talking: &mut Connection) -> Result<u64, Lost> {
        let bus = self.bus;
        let keep = bus.longest_life.load(Ordering::Relaxed);
        let gone = bus.scripts.prune(talking, keep, MOST_NAMES as u64)?;
        let oldest = bus
            .clock
            .redis_of_local(bus.clock.now())
            .saturating_sub(keep);
        bus.mirror.era().prune(oldest);
        Ok(gone)
    }
}

/// What a replica says of itself: a JSON object.
pub(crate) fn about(bus: &BusParts) -> String {
    let members = bus.about.lock().unwrap_or_else(PoisonError::into_inner);
    if members.is_empty() {
        return String::new();
    }
    let left = bus.mirror.trust_until().saturating_sub(bus.clock.now());
    format!(
        "{{{members},\"uptime_ms\":{},\"trusted\":{},\"trust_left_ms\":{},\"clock\":\"{}\"}}",
        bus.started.elapsed().as_millis(),
        left > 0,
        // A process that is alone is trusted for good, by its own max_staleness as it were.
        (left / 1000).min(bus.settings.max_staleness.as_millis() as u64),
        bus.mirror.era().last(),
    )
}
