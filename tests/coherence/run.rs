//! One round of the checker: three replicas, each behind a proxy of its own to one Redis, and threads that read, write and break
//! things, until its time is over and everything is mended.
//!
//! The keys are categories of the news, and what they hold is the number of a version. A write makes the next version at the
//! source and then invalidates the category at a replica, until that acknowledges it. TTLs are hours: only invalidations make
//! anything fresh, so a replica that misses one is found out.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

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

/// What a round is.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub length: Duration,
    pub max_staleness: &'static str,
    pub network: Vec<Kind>,
    pub redis: Vec<Kind>,
    /// In place of faults of Redis: it fails over again and again.
    pub moves: bool,
}

/// What came of it.
pub struct Round {
    pub plan: Plan,
    pub max_staleness: Duration,
    pub history: History,
    pub faults: Vec<Fault>,
    /// Reads that got no answer or an error.
    pub failed_reads: u64,
    /// Invalidations that got neither 200 nor 202 and were sent again.
    pub failed_writes: u64,
    /// What no answer shows, and is wrong all the same.
    pub remarks: Vec<String>,
    /// The zero of every moment, as the clock on the wall has it: for finding a moment in a log.
    pub began: jiff::Timestamp,
    pub logs: Vec<String>,
}

impl Plan {
    /// The plan of a seed: every round has some of the faults, and now and then all of them or none.
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
    /// Where most writes are made; `None`: anywhere. A replica that writes nothing itself shows for how long it can be wrong.
    home: Option<usize>,
    /// The longest rest between two writes of one writer.
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
        // Short now and then, so that a gap finds the log trimmed.
        log_length: *random.pick(&[20, 10_000]),
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
            stage.replicas,
            pace,
            &mut second,
        ));
        made.extend(of_redis.join().unwrap());
        for seer in seers {
            history.add(seer.join().unwrap());
        }
    });
    history.add(converge(&stage, max_staleness));
    let logs: Vec<String> = replicas.iter().map(Larder::log).collect();
    Round {
        plan: plan.clone(),
        max_staleness,
        failed_reads: stage.failed_reads.load(Ordering::Relaxed),
        failed_writes: stage.failed_writes.load(Ordering::Relaxed),
        history,
        faults: made,
        remarks: remarks(&logs),
        began,
        logs,
    }
}

/// How long the source takes: mostly a few milliseconds, now and then longer than the max_staleness, so that loads are overtaken.
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

/// A client's connections, one to each replica, each with the time of its last use. They are made
/// anew when they break, and when they were idle: a server closes a connection that lies idle for
/// five seconds, and a request that meets the close is no answer that the server failed to give.
struct Client<'a> {
    stage: &'a Stage<'a>,
    sessions: [Option<(Session, Instant)>; REPLICAS],
}

/// How long a connection may lie idle before another takes its place.
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

    /// Reads a key once, after the clock of a write if there is one.
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

    /// Sends the invalidation of a key once. Gives the clock, or that it is pending; `None` if it was refused.
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

/// A reader: any key, the first ones most often, and any replica. What is seldom read stands in Redis long after it was
/// invalidated.
fn read_at_random(stage: &Stage<'_>, random: &mut Random) -> History {
    let (mut history, mut client) = (History::default(), Client::new(stage));
    while Instant::now() < stage.until {
        let key = random.below(KEYS).min(random.below(KEYS));
        let replica = random.below(REPLICAS);
        history.reads.extend(client.read(key, replica, None));
        // Now and then a breath, so that the machine is not kept busy with hits only.
        thread::sleep(random.between(Duration::ZERO, Duration::from_millis(6)));
    }
    history
}

/// A writer, which also looks at once whether it can read what it wrote.
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
        // Longer than the round, if need be: everything is mended at its end.
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

/// That nothing is pending at a replica, and, if asked for, that it trusts its bus.
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

/// Everything is mended: waits until every replica says so, and then reads every key at every replica, past every max_staleness.
fn converge(stage: &Stage<'_>, max_staleness: Duration) -> History {
    let (mut history, mut client) = (History::default(), Client::new(stage));
    for replica in 0..REPLICAS {
        until(SOON, "a mended replica trusts its bus", || {
            let settled = settled(&mut client, replica, true);
            history.settled.extend(settled);
            settled.is_some()
        });
    }
    // On connections of their own: a server closes one that lies idle, and the others may have taken their time.
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
