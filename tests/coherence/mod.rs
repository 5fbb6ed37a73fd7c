//! The coherence checker: random reads, writes and faults over three replicas, and a judge of the
//! values that the reads returned. Each replica also audits all of its memory hits, and must find
//! none that is illegal.
//!
//! `history` holds what was observed. `judge` finds the illegal reads and the fewest operations
//! that prove each. `faults` makes faults, `run` plays a round, and `report` sums the rounds up.
//! The seed fixes what is drawn, but not how threads and processes interleave. To see a bad history
//! again, play its round again and again.
//!
//! The test plays a few short rounds. `scripts/soak` sets `LARDER_SOAK_MINUTES`: then it goes on
//! for that long, and writes its report after each round into the file `LARDER_SOAK_REPORT`.
//! `LARDER_SOAK_SEED` sets the seed. If `LARDER_SOAK_LOGS` names a folder, it keeps the logs of
//! each round with an illegal read.

mod faults;
mod history;
mod judge;
mod report;
mod run;

use std::time::{Duration, Instant};

use faults::{Kind, Random};
use report::Report;
use run::Plan;

/// How long a round lasts, without its start and its end.
const SHORT: Duration = Duration::from_secs(4);
const LONG: Duration = Duration::from_secs(20);

#[test]
fn no_read_is_illegal_whatever_fails() {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let number = |name: &str| {
        variable(name).map(|value| {
            let number = value.parse::<f64>();
            number.unwrap_or_else(|_| panic!("{name} is {value:?}, want a number"))
        })
    };
    let seed = variable("LARDER_SOAK_SEED").map_or_else(any_seed, |value| {
        let seed = value.parse();
        seed.unwrap_or_else(|_| panic!("LARDER_SOAK_SEED is {value:?}, want an integer"))
    });
    println!("seed {seed}");
    let mut report = Report::new(seed);
    match number("LARDER_SOAK_MINUTES") {
        None => {
            for plan in short_plans(seed) {
                report.add(&run::play(&plan));
            }
        }
        Some(minutes) => {
            let end = Instant::now() + Duration::from_secs_f64(minutes * 60.0);
            let mut seeds = Random::new(seed);
            // The first round has the seed itself, so a bad round can be played again by its own
            // seed.
            let mut round = seed;
            while Instant::now() < end {
                report.add(&run::play(&Plan::of(round, LONG)));
                round = seeds.next();
                if let Some(path) = variable("LARDER_SOAK_REPORT") {
                    std::fs::write(path, report.to_string()).unwrap();
                }
            }
        }
    }
    println!("{report}");
    assert_eq!(report.illegal(), 0, "illegal reads: see the report");
    assert_eq!(report.audits().illegal, 0, "illegal hits: see the logs");
    assert!(report.remarks().is_empty(), "{:?}", report.remarks());
    report.must_mean_something();
}

/// Redis fails over to its replica and back while clients read and write. Every read is legal and
/// answered, and loads are stored in Redis again within seconds of each move.
#[test]
fn no_read_is_illegal_or_fails_while_redis_fails_over() {
    let seed = any_seed();
    println!("seed {seed}");
    let round = run::play(&Plan {
        seed,
        length: 2 * SHORT,
        max_staleness: "500ms",
        network: Vec::new(),
        redis: Vec::new(),
        moves: true,
    });
    let mut report = Report::new(seed);
    report.add(&round);
    println!("{report}");
    assert_eq!(report.illegal(), 0, "illegal reads: see the report");
    assert_eq!(report.audits().illegal, 0, "illegal hits: see the logs");
    assert!(report.remarks().is_empty(), "{:?}", report.remarks());
    assert_eq!(
        (round.failed_reads, round.failed_writes),
        (0, 0),
        "answers that are none"
    );
    assert!(!round.faults.is_empty(), "it never failed over");
    let acknowledged =
        |write: &history::Write| matches!(write.told, history::Told::InvalidationReceipt(_));
    assert!(
        round.history.writes.iter().any(acknowledged),
        "nothing was ever acknowledged"
    );
}

/// The rounds of the short run. Every kind of fault has a round in which it can happen.
fn short_plans(seed: u64) -> Vec<Plan> {
    let mut seeds = Random::new(seed);
    let mut plan = |max_staleness, network: &[Kind], redis: &[Kind]| Plan {
        seed: seeds.next(),
        length: SHORT,
        max_staleness,
        network: network.to_vec(),
        redis: redis.to_vec(),
        moves: false,
    };
    let (bus, others): (Vec<Kind>, Vec<Kind>) = Kind::NETWORK
        .iter()
        .partition(|kind| matches!(kind, Kind::BusCut | Kind::BusStall | Kind::BusLost));
    let (lost, refusing): (Vec<Kind>, Vec<Kind>) = Kind::REDIS.iter().partition(|kind| {
        matches!(
            kind,
            Kind::Killed
                | Kind::Emptied
                | Kind::Restored
                | Kind::Flushed
                | Kind::Evicted
                | Kind::Forgetful
        )
    });
    vec![
        plan("500ms", &others, &[]),
        plan("300ms", &bus, &lost),
        plan("300ms", &[], &lost),
        plan("500ms", &Kind::NETWORK, &refusing),
        plan("300ms", &Kind::NETWORK, &Kind::REDIS),
    ]
}

/// Another seed for each run, so that the suite does not always play the same rounds.
fn any_seed() -> u64 {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).unwrap();
    u64::from_le_bytes(bytes)
}
