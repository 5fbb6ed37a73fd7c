//! Random faults: of the network between one replica and Redis, of a replica, and of Redis itself.
//!
//! Promise: one thread makes the faults of the network and another those of Redis, so two can be in
//! force at once. Each thread ends its faults before it returns. The seed fixes what is drawn, but
//! not how the replicas react.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use serde_json::json;

use testkit::larder::Larder;
use testkit::news::{CATEGORIES, path};
use testkit::proxy::{FaultProxy, Scope};
use testkit::redis::RedisServer;
use testkit::until;

use super::history::Moment;

/// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A generator for another thread.
    pub fn split(&mut self) -> Random {
        Random(self.next())
    }

    pub fn below(&mut self, count: usize) -> usize {
        (self.next() % count as u64) as usize
    }

    pub fn one_in(&mut self, count: u64) -> bool {
        self.next().is_multiple_of(count)
    }

    pub fn between(&mut self, least: Duration, most: Duration) -> Duration {
        let span = most.saturating_sub(least).as_micros() as u64;
        least + Duration::from_micros(self.next() % (span + 1))
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    // Between one replica and Redis.
    Cut,
    Reset,
    Delay,
    StallToReplica,
    StallToRedis,
    StallBoth,
    BusCut,
    BusStall,
    BusLost,
    PoolStall,
    // Of one replica.
    ReplicaPaused,
    // Of Redis.
    Killed,
    Emptied,
    Restored,
    Paused,
    ReadOnly,
    Full,
    Evicted,
    Flushed,
    Forgetful,
    /// Not drawn at random: see [`moves_of_redis`].
    Moved,
}

impl Kind {
    pub const NETWORK: [Kind; 11] = [
        Kind::Cut,
        Kind::Reset,
        Kind::Delay,
        Kind::StallToReplica,
        Kind::StallToRedis,
        Kind::StallBoth,
        Kind::BusCut,
        Kind::BusStall,
        Kind::BusLost,
        Kind::PoolStall,
        Kind::ReplicaPaused,
    ];

    pub const REDIS: [Kind; 9] = [
        Kind::Killed,
        Kind::Emptied,
        Kind::Restored,
        Kind::Paused,
        Kind::ReadOnly,
        Kind::Full,
        Kind::Evicted,
        Kind::Flushed,
        Kind::Forgetful,
    ];

    /// Whether it can keep a replica from sending anything to Redis.
    pub fn keeps_from_redis(self) -> bool {
        !matches!(
            self,
            Kind::Full | Kind::Evicted | Kind::Flushed | Kind::Forgetful
        )
    }

    pub fn name(self) -> &'static str {
        match self {
            Kind::Cut => "cut from Redis",
            Kind::Reset => "connections reset",
            Kind::Delay => "delay",
            Kind::StallToReplica => "stall to the replica",
            Kind::StallToRedis => "stall to Redis",
            Kind::StallBoth => "stall both ways",
            Kind::BusCut => "bus cut",
            Kind::BusStall => "bus half-open",
            Kind::BusLost => "messages lost",
            Kind::PoolStall => "all but the bus stalled",
            Kind::ReplicaPaused => "replica paused",
            Kind::Killed => "Redis killed",
            Kind::Emptied => "Redis restarted empty",
            Kind::Restored => "Redis restored",
            Kind::Paused => "Redis paused",
            Kind::ReadOnly => "Redis read-only",
            Kind::Full => "Redis full",
            Kind::Evicted => "state evicted in part",
            Kind::Flushed => "Redis flushed",
            Kind::Forgetful => "names forgotten",
            Kind::Moved => "failed over",
        }
    }
}

/// A fault that was made.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    pub kind: Kind,
    /// The replica that it was made for. `None`: a fault of Redis, for all replicas.
    pub replica: Option<usize>,
    pub begin: Moment,
    pub end: Moment,
}

impl Fault {
    /// Whether it can have affected what a replica did between two moments. It has effects for
    /// `echo` after its end.
    pub fn touches(&self, replica: usize, begin: Moment, end: Moment, echo: Duration) -> bool {
        self.replica.is_none_or(|one| one == replica)
            && self.begin <= end
            && begin <= self.end + echo
    }
}

/// The times of the faults.
#[derive(Clone, Copy)]
pub struct Pace {
    /// The zero of every moment.
    pub origin: Instant,
    /// No fault begins later.
    pub until: Instant,
    pub max_staleness: Duration,
}

impl Pace {
    /// Keeps a fault up for a random time, sometimes too short to be noticed, sometimes much longer
    /// than `max_staleness`.
    fn keep_up(&self, random: &mut Random) {
        let most = if random.one_in(3) {
            3 * self.max_staleness
        } else {
            self.max_staleness
        };
        wait(random.between(Duration::from_millis(5), most));
    }

    fn rest(&self, random: &mut Random) {
        wait(random.between(Duration::from_millis(20), self.max_staleness));
    }

    fn record(&self, kind: Kind, replica: Option<usize>, begin: Instant) -> Fault {
        Fault {
            kind,
            replica,
            begin: begin - self.origin,
            end: self.origin.elapsed(),
        }
    }

    fn is_over(&self) -> bool {
        Instant::now() >= self.until
    }
}

/// Lets time pass. It does not wait for a condition.
fn wait(time: Duration) {
    std::thread::sleep(time);
}

/// Makes faults of these kinds between replicas and Redis, one at a time. `signal` sends a signal
/// to the process of a replica.
pub fn of_the_network(
    kinds: &[Kind],
    proxies: &[FaultProxy],
    signal: impl Fn(usize, Signal),
    pace: Pace,
    random: &mut Random,
) -> Vec<Fault> {
    let mut made = Vec::new();
    while !kinds.is_empty() && !pace.is_over() {
        pace.rest(random);
        let (kind, at) = (*random.pick(kinds), random.below(proxies.len()));
        let proxy = &proxies[at];
        let begin = Instant::now();
        match kind {
            Kind::Cut => proxy.cut(),
            Kind::Reset => proxy.close_all(),
            Kind::Delay => {
                proxy.delay(random.between(Duration::from_millis(1), pace.max_staleness));
            }
            Kind::StallToReplica => proxy.stall_to_client(),
            Kind::StallToRedis => proxy.stall_to_server(),
            Kind::StallBoth => proxy.stall(),
            Kind::BusCut => proxy.cut_bus(),
            Kind::BusStall => proxy.stall_to_client_only(Scope::Bus),
            Kind::BusLost => proxy.lose_messages(),
            Kind::PoolStall => proxy.stall_only(Scope::Others),
            Kind::ReplicaPaused => signal(at, Signal::STOP),
            other => panic!("{} is no fault of the network", other.name()),
        }
        if kind != Kind::Reset {
            pace.keep_up(random);
        }
        if kind == Kind::ReplicaPaused {
            signal(at, Signal::CONT);
        } else {
            proxy.restore();
        }
        made.push(pace.record(kind, Some(at), begin));
    }
    made
}

/// Makes faults of these kinds of Redis, one at a time.
pub fn of_redis(
    kinds: &[Kind],
    redis: &mut RedisServer,
    pace: Pace,
    random: &mut Random,
) -> Vec<Fault> {
    let mut made = Vec::new();
    let mut old = redis.snapshot();
    while !kinds.is_empty() && !pace.is_over() {
        if random.one_in(2) {
            old = redis.snapshot();
        }
        // Longer than between faults of the network: while Redis is away, invalidations are
        // pending, and no replica owes them to its readers yet.
        wait(random.between(pace.max_staleness / 2, pace.max_staleness * 4));
        let kind = *random.pick(kinds);
        let begin = Instant::now();
        match kind {
            Kind::Killed => {
                redis.kill();
                pace.keep_up(random);
                redis.restart();
            }
            Kind::Emptied => redis.restart(),
            Kind::Restored => redis.restore(&old),
            Kind::Paused => {
                redis.pause();
                pace.keep_up(random);
                redis.resume();
            }
            Kind::ReadOnly => {
                redis.make_read_only();
                pace.keep_up(random);
                redis.make_writable();
            }
            Kind::Full => {
                redis.make_full();
                pace.keep_up(random);
                redis.make_room();
            }
            Kind::Evicted => {
                let part = random.pick(&["state", "names", "log"]);
                redis.cli::<i64>(&["DEL", &format!("{{larder:bus}}:{part}")]);
            }
            Kind::Flushed => redis.cli::<()>(&["FLUSHALL"]),
            Kind::Forgetful => {
                let keep = random.between(Duration::ZERO, pace.max_staleness);
                redis.forget_names(keep, random.below(4) as u64);
            }
            other => panic!("{} is no fault of Redis", other.name()),
        }
        made.push(pace.record(kind, None, begin));
    }
    made
}

/// How soon after a move loads of every replica are stored in Redis again.
const STORED_AGAIN: Duration = Duration::from_secs(10);

/// Fails over from one Redis to another and back, again and again. The replica becomes the primary
/// and the primary its replica, and the address leads new connections to the new primary. Open
/// connections stay open. Each move ends when every larder has stored a load.
pub fn moves_of_redis(
    mut pair: [&RedisServer; 2],
    proxies: &[FaultProxy],
    replicas: &[Larder],
    pace: Pace,
    random: &mut Random,
) -> Vec<Fault> {
    let mut made = Vec::new();
    pair[1].replicate(pair[0]);
    // A key that the readers and writers do not use.
    let category = CATEGORIES[CATEGORIES.len() - 1];
    let names = json!({"tags": [format!("category:{category}")]});
    while !pace.is_over() {
        wait(random.between(pace.max_staleness, pace.max_staleness * 2));
        let begin = Instant::now();
        pair[0].fail_over_to(pair[1]);
        for proxy in proxies {
            proxy.set_target(pair[1].address());
        }
        for larder in replicas {
            until(STORED_AGAIN, "what is loaded is stored again", || {
                larder.post("/cache/invalidate", &names);
                let answer = larder.get(&path(category)).expect(200);
                answer.the("Cache-Status").contains("; stored")
            });
        }
        made.push(pace.record(Kind::Moved, None, begin));
        pair.swap(0, 1);
    }
    made
}
