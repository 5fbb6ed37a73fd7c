//! Compares larder with other servers on one machine in one run: `scripts/compare`, some minutes.
//!
//! All serve the same JSON body of 4 KiB over loopback. The server has one core and `wrk` another.
//! Rounds are short and interleaved, so that disturbances of the machine meet all servers alike.
//! Each server is several processes that take turns, since the memory layout of a process is worth
//! a tenth of its speed. All start before the first round, since a young process is slow. A figure
//! is the median of its rounds. A ratio is the median of the ratios within one round, or that of
//! the fastest rounds. The bare handler is actix-web with larder's allocator, and sends the same
//! bytes as larder. The report names what is not installed.
//!
//! After `--`: `--rounds N`, `--seconds N` of each, `--write` to put the tables into
//! docs/performance.md.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr,
    unreachable_pub
)]

mod entries;
mod idle;
mod load;
mod plain;
mod processes;
mod report;
mod servers;
#[path = "../support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::hint::black_box;
use std::rc::Rc;
use std::time::{Duration, Instant};

use load::{Load, Measured, Round};
use report::Report;
use servers::{Server, Stage};
use testkit::client::Session;
use testkit::redis::RedisServer;

// The program's own allocator: the bare handler is to have no other.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The size of the body that every server sends, in bytes.
const BODY: usize = 4096;
const CONNECTIONS: usize = 64;
/// The keys of the figures that are not of one key.
const KEYS: usize = 1000;
/// How many processes of each server take turns.
const PROCESSES: usize = 3;
/// How long each runs each load before its rounds are counted.
const WARM_UP: Duration = Duration::from_secs(2);

/// How long and how often.
struct Plan {
    rounds: usize,
    span: Duration,
    write: bool,
}

impl Plan {
    fn read(arguments: &[String]) -> Plan {
        let number = |name: &str, usual: u64| {
            let at = arguments.iter().position(|argument| argument == name);
            at.map_or(usual, |at| {
                arguments
                    .get(at + 1)
                    .and_then(|number| number.parse().ok())
                    .unwrap_or_else(|| panic!("{name} takes a number"))
            })
        };
        Plan {
            rounds: usize::try_from(number("--rounds", 21)).unwrap().max(1),
            span: Duration::from_secs(number("--seconds", 1).max(1)),
            write: arguments.iter().any(|argument| argument == "--write"),
        }
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // It starts itself as the servers that are part of it.
    if let [role, rest @ ..] = arguments.as_slice()
        && plain::run(role, rest)
    {
        return;
    }
    // `cargo test --all-targets` runs this, too, without asking for figures.
    if !arguments.iter().any(|argument| argument == "--bench") {
        println!("figures are made by: scripts/compare");
        return;
    }
    let plan = Plan::read(&arguments);
    let mut report = Report::begin(&plan);
    let stage = Stage::set();
    idle::measure(&mut report);
    one_core_each(&stage, &plan, &mut report);
    entries::measure(&stage, &plan, &mut report);
    stage.share_all_cores();
    both_cores(&stage, &plan, &mut report);
    report
        .invalidations(support::propagation::propagation(&RedisServer::start_as_shipped()).slowest);
    let text = report.end(&stage.left_out);
    println!("{text}");
    if plan.write {
        report::write("docs/performance.md", &text);
    }
}

/// A contender: starts a server, fills its cache, and returns the loads to measure. None if it is
/// not installed.
type Contender<'a> = Box<dyn Fn() -> Vec<Load> + 'a>;

/// A server with a core of its own, `wrk` with the other.
fn one_core_each(stage: &Stage, plan: &Plan, report: &mut Report) {
    let larder = || stage.larder("larder", 1, Some(servers::SERVER_CORE));
    let (like, authorization) = {
        let larder = larder();
        larder.get("/items/1");
        (larder.get("/items/1"), larder.authorization())
    };
    assert_eq!(like.body.len(), BODY, "the body of the origin");
    assert!(like.header("ratelimit").is_some(), "the key has a limit");
    let etag = like.header("etag").expect("an entity tag");
    let bare = || {
        let bare = stage.bare(&like, authorization.clone());
        vec![Load::of("bare actix handler", &bare, "/items/1")]
    };
    let hits = || {
        let larder = larder();
        let hit = Load::of("larder, memory hit", &larder, "/items/1").memory_hit();
        let mut unchanged = Load::of("larder, 304", &larder, "/items/1").memory_hit();
        unchanged.status = 304;
        unchanged
            .headers
            .push(("If-None-Match".into(), etag.into()));
        let mut scraped = Load::of(
            "larder, memory hit, with a scrape every second",
            &larder,
            "/items/1",
        )
        .memory_hit();
        scraped.scraped = true;
        vec![hit, unchanged, scraped]
    };
    let cached = |name: &str, server: &Rc<Server>, path: &str| {
        assert_eq!(server.get(path).body, like.body, "{name}: the same body");
        Load {
            says: Some(("x-cache", "HIT")),
            ..Load::of(name, server, path)
        }
    };
    let other = |server: Rc<Server>| vec![cached(&server.name, &server, "/items/1")];
    let python = |server: Rc<Server>| {
        let unread = format!("{}, the body unread", server.name);
        vec![
            cached(&server.name, &server, "/items/1"),
            cached(&unread, &server, "/passed/1"),
        ]
    };
    let contenders: [Contender<'_>; 5] = [
        Box::new(bare),
        Box::new(hits),
        Box::new(|| stage.nginx().map_or(Vec::new(), other)),
        Box::new(|| stage.varnish().map_or(Vec::new(), other)),
        Box::new(|| stage.cache_aside().map_or(Vec::new(), python)),
    ];
    let measured = interleaved(&contenders, plan, report);
    report.one_core_each(&measured);
    misses(&larder(), report);
}

/// larder's own share of a miss: the time its client sees, less the source's time from
/// `Server-Timing`.
fn misses(larder: &Server, report: &mut Report) {
    const MISSES: usize = 500;
    let mut session = Session::connect(larder.address()).unwrap();
    let (name, value) = larder.authorization();
    let own: Vec<f64> = (0..MISSES)
        .map(|at| {
            let began = Instant::now();
            let path = format!("/missed/{}", at + 1);
            let answer = session
                .send("GET", &path, &[(&name, &value)], None)
                .unwrap();
            let whole = began.elapsed().as_secs_f64();
            let timing = answer
                .header("server-timing")
                .expect("it says where the time went");
            let source = timing.split("source;dur=").nth(1).expect("a miss");
            let source: f64 = source.split(',').next().unwrap().parse().unwrap();
            whole - source / 1000.0
        })
        .collect();
    report.misses(own);
}

/// Servers, Redis and `wrk` on all cores together, as if nothing were pinned.
fn both_cores(stage: &Stage, plan: &Plan, report: &mut Report) {
    let shared = || {
        let larder = stage.larder("shared", 0, None);
        for path in ["/items", "/redis-items"] {
            for key in 1..=KEYS {
                larder.get(&format!("{path}/{key}"));
            }
        }
        let of = |name: &str, path: &str, keys: usize| Load {
            core: None,
            keys,
            ..Load::of(name, &larder, path)
        };
        let redis_hit = |name: &str, connections: usize, keys: usize| Load {
            connections,
            says: Some(("cache-status", "larder-redis; hit")),
            ..of(name, "/redis-items/", keys)
        };
        vec![
            of("memory hit", "/items/", KEYS).memory_hit(),
            redis_hit("Redis hit", 64, KEYS),
            redis_hit("Redis hit, all of one key", 64, 1),
            redis_hit("Redis hit, 256 connections", 256, KEYS),
        ]
    };
    let measured = interleaved(&[Box::new(shared)], plan, report);
    let bare_redis = stage.redis_benchmark(CONNECTIONS);
    report.both_cores(&measured, bare_redis);
}

/// The median of the rounds of each, in which all take their turns, and of each its processes.
fn interleaved(contenders: &[Contender<'_>], plan: &Plan, report: &mut Report) -> Vec<Measured> {
    let processes = PROCESSES.min(plan.rounds);
    let started: Vec<Vec<Vec<Load>>> = contenders
        .iter()
        .map(|start| (0..processes).map(|_| start()).collect())
        .collect();
    for load in started.iter().flatten().flatten() {
        load.check();
        load.run(WARM_UP);
    }
    let mut rounds: BTreeMap<(usize, usize), (String, Vec<Round>)> = BTreeMap::new();
    for round in 0..plan.rounds {
        report.steadiness(same_work());
        for contender in in_turn(contenders.len(), round) {
            let loads = &started[contender][round % processes];
            for at in in_turn(loads.len(), round) {
                let load = &loads[at];
                let (_, rounds) = rounds
                    .entry((contender, at))
                    .or_insert_with(|| (load.name.clone(), Vec::new()));
                rounds.push(load.run(plan.span));
            }
        }
    }
    for load in started.iter().flatten().flatten() {
        load.check();
    }
    let rounds = rounds.into_values();
    rounds
        .map(|(name, rounds)| Measured::median(name, rounds))
        .collect()
}

/// How long fixed arithmetic takes: some hundredths of a second on an undisturbed machine. It does
/// not see a disturbed cache.
fn same_work() -> Duration {
    let began = Instant::now();
    let mut mixed = 1_u64;
    for number in 0..20_000_000 {
        mixed = black_box(mixed.rotate_left(5) ^ number);
    }
    began.elapsed()
}

/// The numbers below `count`, beginning with another one in each round.
fn in_turn(count: usize, round: usize) -> impl Iterator<Item = usize> {
    (0..count).map(move |turn| (turn + round) % count)
}
