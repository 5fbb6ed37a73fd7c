//! One round of the checker. Three replicas use one Redis, each through a proxy of its own. Threads
//! read, write and make faults until the time is over and all faults are repaired.
//!
//! The keys are categories of the news, and a value is the number of a version. A write makes the
//! next version at the source. Then it asks a replica to invalidate the category, until the replica
//! acknowledges that. TTLs are hours, so only an invalidation ends an old version, and a replica
//! that misses one serves it for long enough to be noticed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use testkit::audits::Audits;
use testkit::client::{Answer, Session};
use testkit::larder::{ADMIN_KEY, Larder};
use testkit::news::{CATEGORIES, path};
use testkit::proxy::FaultProxy;
use testkit::redis::RedisServer;
use testkit::versions::{Versions, VersionsConfig, try_version};
use testkit::{SOON, until};

use super::faults::{self, Fault, Kind, Pace, Random};
use super::history::{History, Moment, Read, Settled, Tier, Told, Version, Write};

pub const REPLICAS: usize = 3;
const KEYS: usize = 6;
const READERS: usize = 9;
const WRITERS: usize = 3;

/// The plan of a round.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub length: Duration,
    pub max_staleness: &'static str,
    pub network: Vec<Kind>,
    pub redis: Vec<Kind>,
    /// Failovers of Redis, again and again, instead of its other faults.
    pub moves: bool,
}

/// The result of a round.
pub struct Round {
    pub plan: Plan,
    pub max_staleness: Duration,
    pub history: History,
    pub faults: Vec<Fault>,
    pub audits: Audits,
    /// Reads that got an error or no answer.
    pub failed_reads: u64,
    /// Invalidations that got neither 200 nor 202 and were sent again.
    pub failed_writes: u64,
    /// Faults that no answer shows, such as a panic.
    pub remarks: Vec<String>,
    /// The zero of all moments as wall-clock time, to find a moment in a log.
    pub began: jiff::Timestamp,
    pub logs: Vec<String>,
}

impl Plan {
    /// The plan that follows from a seed. A round has some of the faults, sometimes all of them or
    /// none.
    pub fn of(seed: u64, length: Duration) -> Plan {
        let mut random = Random::new(seed);
        let max_staleness = *random.pick(&["300ms", "500ms", "1s"]);
        let mut some = |all: &[Kind]| match random.below(8) {
            0 => Vec::new(),
            1 | 2 => all.to_vec(),
            _ => {
                let count = 1 + random.below(3);
                (0..count).map(|_| *random.pick(all)).collect()
            }
        };
        Plan {
            seed,
            length,
            max_staleness,
            network: some(&Kind::NETWORK),
            redis: some(&Kind::REDIS),
            moves: false,
        }
    }

    fn max_staleness(&self) -> Duration {
        match self.max_staleness {
            "300ms" => Duration::from_millis(300),
            "500ms" => Duration::from_millis(500),
            "1s" => Duration::from_secs(1),
            other => panic!("no max_staleness {other}"),
        }
    }
}

/// What the threads share.
struct Stage<'a> {
    /// The replica that gets most writes. `None`: any. A replica without writes of its own shows
    /// how long an old value can be served.
    home: Option<usize>,
    /// The longest pause between two writes of one writer.
    rest: Duration,
    origin: Instant,
    until: Instant,
    replicas: &'a [Larder],
    versions: &'a Versions,
    failed_reads: AtomicU64,
    failed_writes: AtomicU64,
}

/// Plays one round and stops everything that it started.
pub fn play(plan: &Plan) -> Round {
    let mut random = Random::new(plan.seed);
    let max_staleness = plan.max_staleness();
    let mut redis = RedisServer::start();
    let other = plan.moves.then(RedisServer::start);
    let proxies: Vec<FaultProxy> = (0..REPLICAS)
        .map(|_| FaultProxy::start(redis.address()))
        .collect();
    let versions = Versions::start_slow(source_time(random.split(), max_staleness));
    let config = VersionsConfig {
        max_staleness: plan.max_staleness,
        redis_timeout: "100ms",
        connect_timeout: "250ms",
        // Sometimes short, so that a replica with a gap finds the log trimmed.
        log_length: *random.pick(&[20, 10_000]),
        audit: 1.0,
        ..VersionsConfig::default()
    };
    let mut replicas: Vec<Larder> = proxies
        .iter()
        .map(|proxy| Larder::spawn(&config.options(&versions, proxy.address())))
        .collect();
    for replica in &mut replicas {
        replica.until_ready();
    }

    let (origin, began) = (Instant::now(), jiff::Timestamp::now());
    let stage = Stage {
        home: random.one_in(2).then(|| random.below(REPLICAS)),
        rest: *random.pick(&[Duration::from_millis(60), max_staleness * 2]),
        origin,
        until: origin + plan.length,
        replicas: &replicas,
        versions: &versions,
        failed_reads: AtomicU64::new(0),
        failed_writes: AtomicU64::new(0),
    };
    let pace = Pace {
        origin,
        until: stage.until,
        max_staleness,
    };
    let mut history = History::default();
    let mut made = Vec::new();
    thread::scope(|scope| {
        let stage = &stage;
        let mut seers = Vec::new();
        for _ in 0..READERS {
            let mut random = random.split();
            seers.push(scope.spawn(move || read_at_random(stage, &mut random)));
        }
        for _ in 0..WRITERS {
            let mut random = random.split();
            seers.push(scope.spawn(move || write_at_random(stage, &mut random)));
        }
        for replica in 0..REPLICAS {
            seers.push(scope.spawn(move || ask_what_is_pending(stage, replica)));
        }
        let (mut first, mut second) = (random.split(), random.split());
        let (proxies, redis) = (&proxies, &mut redis);
        let other = other.as_ref();
        let of_redis = scope.spawn(move || match other {
            Some(other) => {
                let pair = [&*redis, other];
                faults::moves_of_redis(pair, proxies, stage.replicas, pace, &mut first)
            }
            None => faults::of_redis(&plan.redis, redis, pace, &mut first),
        });
        made.extend(faults::of_the_network(
            &plan.network,
            proxies,
            |at, signal| stage.replicas[at].signal(signal),
            pace,
            &mut second,
        ));
        made.extend(of_redis.join().unwrap());
        for seer in seers {
            history.add(seer.join().unwrap());
        }
    });
    history.add(converge(&stage, max_staleness));
    let mut audits = Audits::default();
    for replica in &replicas {
        audits += Audits::of(replica);
    }
    let logs: Vec<String> = replicas.iter().map(Larder::log).collect();
    Round {
        plan: plan.clone(),
        max_staleness,
        failed_reads: stage.failed_reads.load(Ordering::Relaxed),
        failed_writes: stage.failed_writes.load(Ordering::Relaxed),
        history,
        faults: made,
        audits,
        remarks: remarks(&logs),
        began,
        logs,
    }
}

/// How long the source takes: mostly a few milliseconds, sometimes longer than `max_staleness`, so
/// that an invalidation overtakes the load.
fn source_time(random: Random, max_staleness: Duration) -> impl Fn() -> Duration + Send + Sync {
    let random = std::sync::Mutex::new(random);
    move || {
        let mut random = random.lock().unwrap();
        if random.one_in(12) {
            random.between(Duration::ZERO, max_staleness * 3 / 2)
        } else {
            random.between(Duration::ZERO, Duration::from_millis(15))
        }
    }
}

/// A client's connections, one to each replica, each with the time of its last use. A broken or
/// idle connection is replaced. The server closes one that is idle for five seconds, and a request
/// on it would fail though the server did nothing wrong.
struct Client<'a> {
    stage: &'a Stage<'a>,
    sessions: [Option<(Session, Instant)>; REPLICAS],
}

/// How long a connection may be idle before it is replaced.
const IDLE: Duration = Duration::from_secs(2);

impl<'a> Client<'a> {
    fn new(stage: &'a Stage<'a>) -> Client<'a> {
        Client {
            stage,
            sessions: [const { None }; REPLICAS],
        }
    }

    fn ask(
        &mut self,
        replica: usize,
        question: impl FnOnce(&mut Session) -> std::io::Result<Answer>,
    ) -> std::io::Result<Answer> {
        let mut session = match self.sessions[replica].take() {
            Some((session, used)) if used.elapsed() < IDLE => session,
            _ => Session::connect(self.stage.replicas[replica].address())?,
        };
        let answer = question(&mut session)?;
        if answer.header("Connection") != Some("close") {
            self.sessions[replica] = Some((session, Instant::now()));
        }
        Ok(answer)
    }

    fn now(&self) -> Moment {
        self.stage.origin.elapsed()
    }

    /// Reads a key once, with the clock of a write in `Larder-After` if there is one.
    fn read(&mut self, key: usize, replica: usize, after: Option<(Version, &str)>) -> Option<Read> {
        let category = CATEGORIES[key];
        let headers: Vec<_> = after
            .iter()
            .map(|(_, clock)| ("Larder-After", *clock))
            .collect();
        let begin = self.now();
        let answer = self.ask(replica, |session| {
            session.get_with(&path(category), ADMIN_KEY, &headers)
        });
        let end = self.now();
        let Some(answer) = answer.ok().filter(|answer| answer.status == 200) else {
            self.stage.failed_reads.fetch_add(1, Ordering::Relaxed);
            return None;
        };
        Some(Read {
            key,
            replica,
            begin,
            end,
            version: try_version(&answer, category),
            tier: tier(&answer),
            after: after.map(|(version, _)| version),
        })
    }

    /// Sends the invalidation of a key once. Returns its clock, or that it is pending. `None` if it
    /// was refused.
    fn invalidate(&mut self, key: usize, replica: usize) -> Option<Result<String, PendingHere>> {
        let names = json!({"tags": [format!("category:{}", CATEGORIES[key])]});
        let answer = self.ask(replica, |session| {
            session.post("/cache/invalidate", ADMIN_KEY, &names)
        });
        let answer = answer.ok()?;
        let body: serde_json::Value = serde_json::from_slice(&answer.body).ok()?;
        match (answer.status, body["pending"].as_bool()) {
            (200, Some(false)) => Some(Ok(body["clock"].as_str()?.to_owned())),
            (202, Some(true)) => Some(Err(PendingHere)),
            _ => None,
        }
    }
}

struct PendingHere;

fn tier(answer: &Answer) -> Tier {
    let status = answer.header("Cache-Status").unwrap_or_default();
    if status.starts_with("larder-memory; hit") {
        Tier::Memory
    } else if status.starts_with("larder-redis; hit") {
        Tier::Redis
    } else if status.contains("fwd=miss") || status.contains("fwd=stale") {
        Tier::Source
    } else {
        Tier::Unknown
    }
}

/// A reader. It reads any key, mostly the first ones, from any replica. So the value of a rarely
/// read key is still in Redis long after it was invalidated.
fn read_at_random(stage: &Stage<'_>, random: &mut Random) -> History {
    let (mut history, mut client) = (History::default(), Client::new(stage));
    while Instant::now() < stage.until {
        let key = random.below(KEYS).min(random.below(KEYS));
        let replica = random.below(REPLICAS);
        history.reads.extend(client.read(key, replica, None));
        // A short pause, so that the machine is not busy with hits only.
        thread::sleep(random.between(Duration::ZERO, Duration::from_millis(6)));
    }
    history
}

/// A writer. It also reads its own write at once.
fn write_at_random(stage: &Stage<'_>, random: &mut Random) -> History {
    let (mut history, mut client) = (History::default(), Client::new(stage));
    while Instant::now() < stage.until {
        let key = random.below(KEYS);
        let begin = client.now();
        let version = stage.versions.publish(CATEGORIES[key]);
        let mut write = Write {
            key,
            replica: 0,
            version,
            begin,
            told: Told::Nothing,
        };
        let mut clock = None;
        // Longer than the round if need be: at its end all faults are repaired.
        let give_up = stage.until + SOON;
        while write.told == Told::Nothing && Instant::now() < give_up {
            write.replica = match stage.home {
                Some(home) if !random.one_in(8) => home,
                _ => random.below(REPLICAS),
            };
            match client.invalidate(key, write.replica) {
                Some(Ok(at)) => {
                    write.told = Told::InvalidationReceipt(client.now());
                    clock = Some(at);
                }
                Some(Err(PendingHere)) => write.told = Told::Pending(client.now()),
                None => {
                    stage.failed_writes.fetch_add(1, Ordering::Relaxed);
                    thread::sleep(Duration::from_millis(5));
                }
            }
        }
        history.writes.push(write);
        for _ in 0..random.below(3) {
            history.reads.extend(client.read(key, write.replica, None));
        }
        if let Some(clock) = clock.filter(|_| random.one_in(2)) {
            let elsewhere = random.below(REPLICAS);
            let after = Some((version, clock.as_str()));
            history.reads.extend(client.read(key, elsewhere, after));
        }
        thread::sleep(random.between(Duration::ZERO, stage.rest));
    }
    history
}

/// Asks a replica again and again whether an invalidation is pending there.
fn ask_what_is_pending(stage: &Stage<'_>, replica: usize) -> History {
    let (mut history, mut client) = (History::default(), Client::new(stage));
    while Instant::now() < stage.until {
        history.settled.extend(settled(&mut client, replica, false));
        thread::sleep(Duration::from_millis(20));
    }
    history
}

/// An answer that nothing is pending at a replica and, if `trusted`, that it trusts its bus.
fn settled(client: &mut Client<'_>, replica: usize, trusted: bool) -> Option<Settled> {
    let begin = client.now();
    let answer = client.ask(replica, |session| session.get("/cache/stats", ADMIN_KEY));
    let end = client.now();
    let body: serde_json::Value = serde_json::from_slice(&answer.ok()?.body).ok()?;
    let bus = &body["bus"];
    let so = bus["pending"] == 0 && (!trusted || bus["trusted"] == true);
    so.then_some(Settled {
        replica,
        begin,
        end,
    })
}

/// Waits until every replica is settled after the last fault. Then reads every key at every
/// replica, until `max_staleness` is over.
fn converge(stage: &Stage<'_>, max_staleness: Duration) -> History {
    let (mut history, mut client) = (History::default(), Client::new(stage));
    for replica in 0..REPLICAS {
        until(SOON, "a mended replica trusts its bus", || {
            let settled = settled(&mut client, replica, true);
            history.settled.extend(settled);
            settled.is_some()
        });
    }
    // On new connections: the server may have closed the old ones while they were idle.
    let mut client = Client::new(stage);
    let owed = client.now() + max_staleness;
    let mut last = false;
    while !last {
        last = client.now() > owed;
        for replica in 0..REPLICAS {
            for key in 0..KEYS {
                let read = client.read(key, replica, None);
                history
                    .reads
                    .push(read.expect("a mended replica answers every read"));
            }
        }
    }
    history
}

/// Panics of the replicas.
fn remarks(logs: &[String]) -> Vec<String> {
    let mut remarks = Vec::new();
    for (number, log) in logs.iter().enumerate() {
        let panics = log.lines().filter(|line| line.contains("panicked at"));
        remarks.extend(panics.map(|line| format!("replica {number}: {line}")));
    }
    remarks
}
