//! larder beside what people use now, on one machine and in one run: `scripts/compare`, some minutes.
//!
//! Everybody serves the same JSON body of 4 KiB over loopback. One core is for the server and another for `wrk`. The rounds of all
//! servers are interleaved, so that what else the machine does meets all of them, and each round starts its server anew, since where
//! a process happens to lie in memory is worth a tenth of its speed. A figure is the median of its rounds, a ratio the median of
//! those within one round. The bare handler is actix-web with larder's allocator, and sends what larder sends, byte for byte. What is
//! not installed is named.
//!
//! After `--`: `--rounds N`, `--seconds N` of each, `--write` to put the tables into docs/performance.md.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
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

use load::{Answer, Client, Load, Measured, Round};
use report::Report;
use servers::{Server, Stage};

// The program's own allocator: the bare handler is to have no other.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The body that everybody serves, in bytes.
const BODY: usize = 4096;
const CONNECTIONS: usize = 64;
/// The keys of the figures that are not of one key.
const KEYS: usize = 1000;
/// What each server runs before its rounds are counted.
const WARM_UP: Duration = Duration::from_secs(1);

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
            rounds: usize::try_from(number("--rounds", 11)).unwrap().max(1),
            span: Duration::from_secs(number("--seconds", 2).max(1)),
            write: arguments.iter().any(|argument| argument == "--write"),
        }
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // It starts itself as the servers that nobody has installed.
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
    report.invalidations(support::propagation::propagation(&support::Redis::start()).slowest);
    let text = report.end(&stage.left_out);
    println!("{text}");
    if plan.write {
        report::write("docs/performance.md", &text);
    }
}

/// Somebody who is compared: starts a server, fills its cache, and tells what to ask it for; nothing where it is not installed.
type Contender<'a> = Box<dyn Fn() -> Vec<Load> + 'a>;

/// A server with a core of its own, `wrk` with the other.
fn one_core_each(stage: &Stage, plan: &Plan, report: &mut Report) {
    let larder = stage.larder("larder", 1, Some(servers::SERVER_CORE));
    let seen = memory_hit(&larder);
    let authorization = larder.authorization();
    let bare = || {
        let bare = stage.bare(&seen, authorization.clone());
        vec![Load::of("bare actix handler", &bare, "/items/1")]
    };
    let larder_again = || {
        let larder = stage.larder("larder", 1, Some(servers::SERVER_CORE));
        let hit = memory_hit(&larder);
        let etag = hit.header("etag").expect("an entity tag").to_owned();
        let mut unchanged = Load::of("larder, 304", &larder, "/items/1");
        unchanged.headers.push(("If-None-Match".into(), etag));
        let hit = Load::of("larder, memory hit", &larder, "/items/1");
        vec![hit, unchanged]
    };
    // The first is a miss. All later ones are hits, and say so.
    let filled = |other: &Rc<Server>| {
        other.get("/items/1");
        let hit = other.get("/items/1");
        assert_eq!(hit.body, seen.body, "{} gives the same body", other.name);
        assert_eq!(hit.header("x-cache"), Some("HIT"), "{}", other.name);
        Load::of(&other.name, other, "/items/1")
    };
    let of_python = |python: Rc<Server>| {
        let unread = format!("{}, the body unread", python.name);
        let unread = Load::of(&unread, &python, "/passed/1");
        vec![filled(&python), unread]
    };
    let contenders: [Contender<'_>; 5] = [
        Box::new(bare),
        Box::new(larder_again),
        Box::new(|| stage.nginx().iter().map(filled).collect()),
        Box::new(|| stage.varnish().iter().map(filled).collect()),
        Box::new(|| stage.cache_aside().map_or(Vec::new(), of_python)),
    ];
    let measured = interleaved(&contenders, plan, report);
    report.one_core_each(&measured);
    misses(&larder, report);
}

/// What larder gives from memory, with all that it does for a caller.
fn memory_hit(larder: &Server) -> Answer {
    larder.get("/items/1");
    let hit = larder.get("/items/1");
    assert_eq!(hit.body.len(), BODY, "the body of the origin");
    let status = hit.header("cache-status").unwrap_or_default();
    assert!(
        status.starts_with("larder-memory; hit"),
        "a memory hit: {status}"
    );
    assert!(hit.header("ratelimit").is_some(), "the key has a limit");
    hit
}

/// larder's own part of a miss: all of it as its client sees it, less what `Server-Timing` says that the source took.
fn misses(larder: &Server, report: &mut Report) {
    const MISSES: usize = 500;
    let mut client = Client::connect(larder.address());
    let (name, value) = larder.authorization();
    let own: Vec<f64> = (0..MISSES)
        .map(|at| {
            let began = Instant::now();
            let answer = client.get(&format!("/missed/{}", at + 1), &[(&name, &value)]);
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

/// Servers, Redis and `wrk` on all cores together, as they are where nobody pins anything.
fn both_cores(stage: &Stage, plan: &Plan, report: &mut Report) {
    let shared = || {
        let larder = stage.larder("shared", 0, None);
        for path in ["/items", "/redis-items"] {
            for key in 1..=KEYS {
                larder.get(&format!("{path}/{key}"));
            }
        }
        let again = larder.get("/redis-items/1");
        let status = again.header("cache-status").unwrap_or_default();
        assert!(
            status.starts_with("larder-redis; hit"),
            "a Redis hit: {status}"
        );
        let load = |name: &str, path: &str, connections: usize, keys: usize| Load {
            core: None,
            connections,
            keys,
            ..Load::of(name, &larder, path)
        };
        vec![
            load("memory hit", "/items/", 64, KEYS),
            load("Redis hit", "/redis-items/", 64, KEYS),
            load("Redis hit, all of one key", "/redis-items/", 64, 1),
            load("Redis hit, 256 connections", "/redis-items/", 256, KEYS),
        ]
    };
    let measured = interleaved(&[Box::new(shared)], plan, report);
    let bare_redis = stage.redis_benchmark(CONNECTIONS);
    report.both_cores(&measured, bare_redis);
}

/// The median of the rounds of each, in which all take their turns.
fn interleaved(contenders: &[Contender<'_>], plan: &Plan, report: &mut Report) -> Vec<Measured> {
    let mut rounds: BTreeMap<(usize, usize), (String, Vec<Round>)> = BTreeMap::new();
    for round in 0..plan.rounds {
        // Everybody is first once in a while.
        for contender in in_turn(contenders.len(), round) {
            report.steadiness(same_work());
            let loads = contenders[contender]();
            if let Some(first) = loads.first() {
                first.run(WARM_UP);
            }
            for load in in_turn(loads.len(), round) {
                let ran = loads[load].run(plan.span);
                let name = || (loads[load].name.clone(), Vec::new());
                let (_, rounds) = rounds.entry((contender, load)).or_insert_with(name);
                rounds.push(ran);
            }
        }
    }
    let rounds = rounds.into_values();
    rounds
        .map(|(name, rounds)| Measured::median(name, rounds))
        .collect()
}

/// How long the same arithmetic takes, some hundredths of a second where nobody disturbs.
fn same_work() -> Duration {
    let began = Instant::now();
    let mut sum = 1_u64;
    for number in 0..20_000_000 {
        sum = black_box(sum.rotate_left(5) ^ number);
    }
    began.elapsed()
}

/// Numbers below `count`, each first in one of so many rounds.
fn in_turn(count: usize, round: usize) -> impl Iterator<Item = usize> {
    (0..count).map(move |turn| (turn + round) % count)
}
