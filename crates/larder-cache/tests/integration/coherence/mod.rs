//! The coherence checker over the crate's own interface: three processes that use the crate, each
//! behind its own proxy, on one Redis. Random reads, invalidations, inserts and faults, judged by
//! the judge of the server's checker in `tests/coherence/`.
//!
//! A write makes the next version at the source. Then the key is invalidated, or the version is
//! inserted by the process that made it. Besides, old values are inserted: a process takes a stamp,
//! reads the source, and inserts what it has read a while later.
//!
//! The test plays a few short rounds. `LARDER_SOAK_MINUTES` makes it go on for that long, and
//! `LARDER_SOAK_SEED` sets the seed. The seed fixes what is drawn, but not how threads and
//! processes interleave.

#[allow(dead_code)] // The server's checker also moves Redis.
#[path = "../../../../../tests/coherence/faults.rs"]
mod faults;
#[path = "../../../../../tests/coherence/history.rs"]
mod history;
#[path = "../../../../../tests/coherence/judge.rs"]
mod judge;
mod replica;

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use testkit::proxy::FaultProxy;
use testkit::redis::RedisServer;
use testkit::{SOON, free_address, until};

use super::child::{Child, role};
use faults::{Kind, Pace, Random};
use history::{FIRST, History, Moment, Read, Settled, Tier, Told, Version, Write};
use judge::{judge, shortest, staleness};
use replica::{Line, Role};

const TEST: &str = "coherence::no_read_is_illegal_whatever_is_inserted_and_fails";
const REPLICAS: usize = 3;
const KEYS: usize = 5;
const READERS: usize = 6;
const WRITERS: usize = 3;
const KEEPERS: usize = 2;
/// How long a round lasts, without its start and its end.
const SHORT: Duration = Duration::from_millis(3500);
const LONG: Duration = Duration::from_secs(15);

#[test]
fn no_read_is_illegal_whatever_is_inserted_and_fails() {
    if let Some((role, url)) = role() {
        return replica::run(&role, &url);
    }
    let number = |name: &str| {
        let value = std::env::var(name).ok().filter(|value| !value.is_empty())?;
        Some(
            value
                .parse::<f64>()
                .unwrap_or_else(|_| panic!("{name} is {value:?}, want a number")),
        )
    };
    let seed = match std::env::var("LARDER_SOAK_SEED") {
        Ok(seed) if !seed.is_empty() => seed.parse().unwrap(),
        _ => any_seed(),
    };
    println!("seed {seed}");
    let (mut seeds, mut report) = (Random::new(seed), Report::default());
    let (bus, others): (Vec<Kind>, Vec<Kind>) = Kind::NETWORK
        .iter()
        .partition(|kind| matches!(kind, Kind::BusCut | Kind::BusStall | Kind::BusLost));
    let lost = [Kind::Killed, Kind::Emptied, Kind::Restored, Kind::Flushed];
    match number("LARDER_SOAK_MINUTES") {
        None => {
            for (network, redis) in [
                (&bus[..], &[][..]),
                (&others, &[]),
                (&[], &lost),
                (&Kind::NETWORK, &Kind::REDIS),
            ] {
                report.add(&play(seeds.next(), SHORT, network, redis));
            }
        }
        Some(minutes) => {
            let end = Instant::now() + Duration::from_secs_f64(minutes * 60.0);
            // The first round has the seed itself, so a bad round can be played again.
            let mut round = seed;
            while Instant::now() < end {
                let mut random = Random::new(round);
                let mut some = |all: &[Kind]| match random.below(4) {
                    0 => Vec::new(),
                    1 => all.to_vec(),
                    _ => (0..2).map(|_| *random.pick(all)).collect(),
                };
                let (network, redis) = (some(&Kind::NETWORK), some(&Kind::REDIS));
                report.add(&play(round, LONG, &network, &redis));
                round = seeds.next();
            }
        }
    }
    println!("{report:#?}");
    assert_eq!(report.illegal, 0, "illegal reads: see above");
    assert_eq!(report.illegal_hits, 0, "illegal hits by the audits");
    report.must_mean_something();
}

fn any_seed() -> u64 {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).unwrap();
    u64::from_le_bytes(bytes)
}

/// The result of a round.
struct Round {
    seed: u64,
    max_staleness: Duration,
    history: History,
    faults: usize,
    inserted: BTreeMap<String, u64>,
    kept: BTreeMap<String, u64>,
    failed: u64,
    illegal_hits: u64,
}

/// What all rounds came to.
#[derive(Debug, Default)]
struct Report {
    rounds: u64,
    reads: u64,
    by_tier: [u64; 4],
    failed: u64,
    writes: u64,
    pending: u64,
    /// What became of inserted writes.
    inserted: BTreeMap<String, u64>,
    /// What became of values that were read a while before.
    kept: BTreeMap<String, u64>,
    faults: usize,
    greatest_staleness: Duration,
    illegal: usize,
    illegal_hits: u64,
}

impl Report {
    fn add(&mut self, round: &Round) {
        let Round {
            history,
            max_staleness,
            ..
        } = round;
        self.rounds += 1;
        self.reads += history.reads.len() as u64;
        for read in &history.reads {
            self.by_tier[read.tier as usize] += 1;
        }
        self.failed += round.failed;
        self.writes += history.writes.len() as u64;
        let pending = |write: &&Write| matches!(write.told, Told::Pending(_));
        self.pending += history.writes.iter().filter(pending).count() as u64;
        for (own, other) in [
            (&mut self.inserted, &round.inserted),
            (&mut self.kept, &round.kept),
        ] {
            for (what, times) in other {
                *own.entry(what.clone()).or_default() += times;
            }
        }
        self.faults += round.faults;
        let stale = staleness(history).into_iter().map(|stale| stale.by()).max();
        self.greatest_staleness = self.greatest_staleness.max(stale.unwrap_or_default());
        let illegal = judge(history, *max_staleness);
        self.illegal += illegal.len();
        self.illegal_hits += round.illegal_hits;
        if let Some(shortest) = shortest(&illegal) {
            println!(
                "the round with the seed {} and max_staleness {max_staleness:?} has {} illegal reads, the first one from {:?} on: {shortest}",
                round.seed,
                illegal.len(),
                shortest.begin()
            );
        }
    }

    /// Panics if the rounds had too few operations to prove anything.
    fn must_mean_something(&self) {
        let times = |of: &BTreeMap<String, u64>, what: &str| of.get(what).copied().unwrap_or(0);
        let enough = self.reads > 100 * self.rounds
            && self.writes > 5 * self.rounds
            && self.by_tier.iter().filter(|reads| **reads > 0).count() == 4
            && self.failed < self.reads / 10
            && times(&self.inserted, "Shared") > self.rounds
            && times(&self.inserted, "Changed") > 0
            && times(&self.kept, "Shared") > self.rounds
            && times(&self.kept, "Changed") > self.rounds
            && self.faults > 0;
        assert!(enough, "too little was seen to judge by");
    }
}

/// The data, which begin at version [`FIRST`]. Notes when each later version was begun.
struct Source {
    current: [AtomicU64; KEYS],
    begun: Mutex<Vec<(usize, Version, Moment)>>,
    origin: Instant,
    takes: Mutex<Random>,
    max_staleness: Duration,
}

impl Source {
    fn publish(&self, key: usize) -> Version {
        // Nobody sees the version before its begin is noted.
        let mut begun = self.begun.lock().unwrap();
        let version = self.current[key].load(Ordering::SeqCst) + 1;
        begun.push((key, version, self.origin.elapsed()));
        self.current[key].store(version, Ordering::SeqCst);
        version
    }

    /// Reads the version at once, and takes its time to answer: sometimes longer than
    /// `max_staleness`, so that an invalidation overtakes a load.
    fn load(&self, key: usize) -> Version {
        let version = self.current[key].load(Ordering::SeqCst);
        let takes = {
            let mut random = self.takes.lock().unwrap();
            if random.one_in(12) {
                random.between(Duration::ZERO, self.max_staleness * 3 / 2)
            } else {
                random.between(Duration::ZERO, Duration::from_millis(15))
            }
        };
        thread::sleep(takes);
        version
    }

    fn answer(&self, line: &str) -> String {
        let (what, key) = line.split_once(' ').unwrap();
        let key: usize = key.parse().unwrap();
        let version = match what {
            "publish" => self.publish(key),
            "read" => self.current[key].load(Ordering::SeqCst),
            "load" => self.load(key),
            _ => panic!("what is {line:?}?"),
        };
        version.to_string()
    }
}

/// What the threads share.
struct Stage<'a> {
    origin: Instant,
    until: Instant,
    rest: Duration,
    max_staleness: Duration,
    roles: &'a [Role],
    source: &'a Source,
    failed: AtomicU64,
    inserted: Mutex<BTreeMap<String, u64>>,
    kept: Mutex<BTreeMap<String, u64>>,
}

fn play(seed: u64, length: Duration, network: &[Kind], of_redis: &[Kind]) -> Round {
    let mut random = Random::new(seed);
    let max_staleness = *random.pick(&[Duration::from_millis(300), Duration::from_millis(500)]);
    let mut redis = RedisServer::start();
    let proxies: Vec<FaultProxy> = (0..REPLICAS)
        .map(|_| FaultProxy::start(redis.address()))
        .collect();
    let origin = Instant::now();
    let source = Arc::new(Source {
        current: [const { AtomicU64::new(FIRST) }; KEYS],
        begun: Mutex::default(),
        origin,
        takes: Mutex::new(random.split()),
        max_staleness,
    });
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let source_address = listener.local_addr().unwrap();
    let answering = source.clone();
    replica::serve(listener, move |line| answering.answer(line));
    let log_length = *random.pick(&[20, 10_000]);
    let roles: Vec<Role> = (0..REPLICAS)
        .map(|_| Role {
            address: free_address(),
            source: source_address,
            max_staleness,
            log_length,
        })
        .collect();
    let start = |(role, proxy): (&Role, &FaultProxy)| {
        Child::start(
            TEST,
            &role.to_text(),
            &format!("redis://{}", proxy.address()),
        )
    };
    let mut replicas: Vec<Child> = roles.iter().zip(&proxies).map(start).collect();
    replicas.iter_mut().for_each(Child::until_ready);

    let stage = Stage {
        origin,
        until: Instant::now() + length,
        rest: *random.pick(&[Duration::from_millis(60), max_staleness * 2]),
        max_staleness,
        roles: &roles,
        source: &source,
        failed: AtomicU64::new(0),
        inserted: Mutex::default(),
        kept: Mutex::default(),
    };
    let pace = Pace {
        origin,
        until: stage.until,
        max_staleness,
    };
    let (mut history, mut faults) = (History::default(), 0);
    thread::scope(|scope| {
        let (stage, proxies, replicas, redis) = (&stage, &proxies, &replicas, &mut redis);
        let mut seers = Vec::new();
        for _ in 0..READERS {
            let random = random.split();
            seers.push(scope.spawn(move || Client::new(stage, random).read_at_random()));
        }
        for _ in 0..WRITERS {
            let random = random.split();
            seers.push(scope.spawn(move || Client::new(stage, random).write_at_random()));
        }
        for _ in 0..KEEPERS {
            let random = random.split();
            seers.push(scope.spawn(move || Client::new(stage, random).keep_at_random()));
        }
        for replica in 0..REPLICAS {
            let random = random.split();
            seers
                .push(scope.spawn(move || Client::new(stage, random).ask_what_is_pending(replica)));
        }
        let (mut first, mut second) = (random.split(), random.split());
        let of_redis = scope.spawn(move || faults::of_redis(of_redis, redis, pace, &mut first));
        let signal = |at: usize, signal| replicas[at].signal(signal);
        faults += faults::of_the_network(network, proxies, signal, pace, &mut second).len();
        faults += of_redis.join().unwrap().len();
        for seer in seers {
            history.add(seer.join().unwrap());
        }
    });
    let mut last = Client::new(&stage, random.split());
    history.add(last.converge());
    let illegal_hits = last.illegal_hits();
    for child in &mut replicas {
        child.go_on();
    }
    replicas.into_iter().for_each(Child::end);
    // Versions whose writer got no answer may be seen, and nobody owes them.
    let told: Vec<(usize, Version)> = history
        .writes
        .iter()
        .map(|write| (write.key, write.version))
        .collect();
    let begun = source.begun.lock().unwrap();
    let mut begins = BTreeMap::new();
    for (key, version, begin) in begun.iter().copied() {
        begins.insert((key, version), begin);
        if !told.contains(&(key, version)) {
            history.writes.push(Write {
                key,
                replica: 0,
                version,
                begin,
                told: Told::Nothing,
            });
        }
    }
    for write in &mut history.writes {
        write.begin = begins[&(write.key, write.version)];
    }
    Round {
        seed,
        max_staleness,
        history,
        faults,
        inserted: stage.inserted.into_inner().unwrap(),
        kept: stage.kept.into_inner().unwrap(),
        failed: stage.failed.into_inner(),
        illegal_hits,
    }
}

/// A client with a connection to each replica.
struct Client<'a> {
    stage: &'a Stage<'a>,
    random: Random,
    lines: [Option<Line>; REPLICAS],
}

impl<'a> Client<'a> {
    fn new(stage: &'a Stage<'a>, random: Random) -> Client<'a> {
        Client {
            stage,
            random,
            lines: [const { None }; REPLICAS],
        }
    }

    fn now(&self) -> Moment {
        self.stage.origin.elapsed()
    }

    fn is_over(&self) -> bool {
        Instant::now() >= self.stage.until
    }

    fn ask(&mut self, replica: usize, line: &str) -> Vec<String> {
        let own = &mut self.lines[replica];
        let own = own.get_or_insert_with(|| Line::open(self.stage.roles[replica].address).unwrap());
        let answer = own.ask(line).unwrap();
        answer.split(' ').map(str::to_owned).collect()
    }

    /// Reads a key once, after the clock of a write if there is one.
    fn read(&mut self, key: usize, replica: usize, after: Option<(Version, &str)>) -> Option<Read> {
        let begin = self.now();
        let answer = match after {
            Some((_, clock)) => self.ask(replica, &format!("read {key} {clock}")),
            None => self.ask(replica, &format!("read {key}")),
        };
        let end = self.now();
        let [what, version, tier] = answer.as_slice() else {
            self.stage.failed.fetch_add(1, Ordering::Relaxed);
            return None;
        };
        if what != "version" {
            self.stage.failed.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        Some(Read {
            key,
            replica,
            begin,
            end,
            version: version.parse().ok(),
            tier: match tier.as_str() {
                "memory" => Tier::Memory,
                "redis" => Tier::Redis,
                "source" => Tier::Source,
                _ => Tier::Unknown,
            },
            after: after.map(|(version, _)| version),
        })
    }

    /// A reader reads any key, mostly the first ones, from any replica.
    fn read_at_random(mut self) -> History {
        let mut history = History::default();
        while !self.is_over() {
            let key = self.random.below(KEYS).min(self.random.below(KEYS));
            let replica = self.random.below(REPLICAS);
            history.reads.extend(self.read(key, replica, None));
            thread::sleep(
                self.random
                    .between(Duration::ZERO, Duration::from_millis(6)),
            );
        }
        history
    }

    /// A writer invalidates what it has written, or inserts it. It also reads its own write at
    /// once.
    fn write_at_random(mut self) -> History {
        let mut history = History::default();
        while !self.is_over() {
            let (key, replica) = (self.random.below(KEYS), self.random.below(REPLICAS));
            let (version, told) = if self.random.one_in(2) {
                let version = self.stage.source.publish(key);
                (version, self.ask(replica, &format!("invalidate {key}")))
            } else {
                let mut told = self.ask(replica, &format!("insert {key}"));
                let inserted = told.pop().unwrap();
                let version = told.pop().unwrap().parse().unwrap();
                count(&self.stage.inserted, inserted);
                (version, told)
            };
            let now = self.now();
            let (told, clock) = match told.as_slice() {
                [_, clock] => (Told::InvalidationReceipt(now), Some(clock.clone())),
                _ => (Told::Pending(now), None),
            };
            // The source has noted when it began.
            history.writes.push(Write {
                key,
                replica,
                version,
                begin: now,
                told,
            });
            for _ in 0..self.random.below(3) {
                history.reads.extend(self.read(key, replica, None));
            }
            if let Some(clock) = clock.filter(|_| self.random.one_in(2)) {
                let elsewhere = self.random.below(REPLICAS);
                history
                    .reads
                    .extend(self.read(key, elsewhere, Some((version, &clock))));
            }
            thread::sleep(self.random.between(Duration::ZERO, self.stage.rest));
        }
        history
    }

    /// A keeper inserts what it has read, at once or up to twice `max_staleness` later.
    fn keep_at_random(mut self) -> History {
        while !self.is_over() {
            let (key, replica) = (self.random.below(KEYS), self.random.below(REPLICAS));
            let most = *self
                .random
                .pick(&[Duration::from_millis(5), self.stage.max_staleness * 2]);
            let pause = self.random.between(Duration::ZERO, most).as_millis();
            let mut told = self.ask(replica, &format!("keep {key} {pause}"));
            count(&self.stage.kept, told.pop().unwrap());
            thread::sleep(
                self.random
                    .between(Duration::ZERO, Duration::from_millis(100)),
            );
        }
        History::default()
    }

    /// Asks a replica again and again whether an invalidation is pending there.
    fn ask_what_is_pending(mut self, replica: usize) -> History {
        let mut history = History::default();
        while !self.is_over() {
            history.settled.extend(self.settled(replica, false));
            thread::sleep(Duration::from_millis(20));
        }
        history
    }

    /// An answer that nothing is pending at a replica and, if `trusted`, that it trusts its bus.
    fn settled(&mut self, replica: usize, trusted: bool) -> Option<Settled> {
        let begin = self.now();
        let about = self.ask(replica, "about");
        let end = self.now();
        (about[0] == "0" && (!trusted || about[1] == "true")).then_some(Settled {
            replica,
            begin,
            end,
        })
    }

    /// Waits until every replica is settled after the last fault. Then reads every key at every
    /// replica, until `max_staleness` is over.
    fn converge(&mut self) -> History {
        let mut history = History::default();
        for replica in 0..REPLICAS {
            until(SOON, "a mended replica trusts its bus", || {
                let settled = self.settled(replica, true);
                history.settled.extend(settled);
                settled.is_some()
            });
        }
        let owed = self.now() + self.stage.max_staleness;
        let mut last = false;
        while !last {
            last = self.now() > owed;
            for (replica, key) in (0..REPLICAS).flat_map(|r| (0..KEYS).map(move |key| (r, key))) {
                let read = self.read(key, replica, None);
                history
                    .reads
                    .push(read.expect("a mended replica answers every read"));
            }
        }
        history
    }

    /// The illegal memory hits that the replicas found themselves.
    fn illegal_hits(&mut self) -> u64 {
        let of = |replica| self.ask(replica, "about")[2].parse::<u64>().unwrap();
        (0..REPLICAS).map(of).sum()
    }
}

fn count(of: &Mutex<BTreeMap<String, u64>>, what: String) {
    *of.lock().unwrap().entry(what).or_default() += 1;
}
