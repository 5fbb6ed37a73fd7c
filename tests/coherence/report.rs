//! The result of all rounds as a text: counts, the faults with the greatest staleness that was seen
//! under each, and the shortest bad history if there is one.

use std::collections::HashMap;
use std::fmt::Write;
use std::time::Duration;

use testkit::audits::Audits;

use super::faults::Kind;
use super::history::{self, Moment, Tier, Told};
use super::judge::{Illegal, Stale, judge, millis, shortest, staleness};
use super::run::{REPLICAS, Round};

/// The faults of one kind.
#[derive(Default)]
struct Seen {
    times: u64,
    in_force: Duration,
    staleness: Duration,
    /// The same as a share of its round's `max_staleness`.
    share: f64,
}

impl Seen {
    fn stale(&mut self, by: Duration, max_staleness: Duration) {
        self.staleness = self.staleness.max(by);
        self.share = self
            .share
            .max(by.as_secs_f64() / max_staleness.as_secs_f64());
    }
}

#[derive(Default)]
pub struct Report {
    seed: u64,
    rounds: u64,
    reads: u64,
    by_tier: [u64; 4],
    after: u64,
    failed_reads: u64,
    writes: u64,
    pending: u64,
    longest_pending: Duration,
    /// The longest of these, counted from the moment at which no fault kept the write from Redis
    /// any more.
    latest_pending: Duration,
    unacknowledged: u64,
    failed_writes: u64,
    faults: HashMap<&'static str, Seen>,
    undisturbed: Seen,
    audits: Audits,
    /// The number of illegal reads for each rule that they broke.
    illegal: HashMap<String, u64>,
    remarks: Vec<String>,
    /// The number of operations of the shortest bad history, and its text.
    worst: Option<(usize, String)>,
}

impl Report {
    pub fn new(seed: u64) -> Report {
        Report {
            seed,
            ..Report::default()
        }
    }

    /// Judges a round and adds it.
    pub fn add(&mut self, round: &Round) {
        let history = &round.history;
        self.rounds += 1;
        self.reads += history.reads.len() as u64;
        for read in &history.reads {
            self.by_tier[read.tier as usize] += 1;
            self.after += u64::from(read.after.is_some());
        }
        self.failed_reads += round.failed_reads;
        self.failed_writes += round.failed_writes;
        self.writes += history.writes.len() as u64;
        for write in &history.writes {
            match write.told {
                Told::InvalidationReceipt(_) => {}
                Told::Nothing => self.unacknowledged += 1,
                Told::Pending(at) => {
                    self.pending += 1;
                    let delivered = history.delivered(write).unwrap_or(at);
                    self.longest_pending = self.longest_pending.max(delivered - at);
                    let free = free_from(round, write, at, delivered);
                    self.latest_pending = self.latest_pending.max(delivered - free);
                }
            }
        }
        for fault in &round.faults {
            let seen = self.faults.entry(fault.kind.name()).or_default();
            seen.times += 1;
            seen.in_force += fault.end - fault.begin;
        }
        self.audits += round.audits;
        for stale in staleness(history) {
            self.add_stale(round, &stale);
        }
        self.remarks.extend(round.remarks.iter().cloned());
        let illegal = judge(history, round.max_staleness);
        for one in &illegal {
            *self.illegal.entry(one.breach.to_string()).or_default() += 1;
        }
        if !illegal.is_empty() || round.audits.illegal > 0 {
            keep_logs(round);
        }
        if let Some(shortest) = shortest(&illegal) {
            let operations = shortest.operations();
            if self
                .worst
                .as_ref()
                .is_none_or(|(least, _)| operations < *least)
            {
                self.worst = Some((operations, tell(round, shortest)));
            }
        }
    }

    fn add_stale(&mut self, round: &Round, stale: &Stale) {
        let (read, by) = (&stale.read, stale.by());
        let mut disturbed = false;
        for fault in &round.faults {
            if fault.touches(read.replica, stale.owed, read.begin, round.max_staleness) {
                disturbed = true;
                let seen = self.faults.entry(fault.kind.name()).or_default();
                seen.stale(by, round.max_staleness);
            }
        }
        if !disturbed {
            self.undisturbed.stale(by, round.max_staleness);
        }
    }

    pub fn illegal(&self) -> u64 {
        self.illegal.values().sum()
    }

    /// What the replicas found themselves.
    pub fn audits(&self) -> Audits {
        self.audits
    }

    pub fn remarks(&self) -> &[String] {
        &self.remarks
    }

    /// Panics if the rounds had too few operations to prove anything.
    pub fn must_mean_something(&self) {
        let enough = self.reads > 100 * self.rounds
            && self.writes > 5 * self.rounds
            && self.by_tier[Tier::Memory as usize] > self.reads / 20
            && self.by_tier[Tier::Source as usize] > 0
            && self.after > 0
            && self.failed_reads < self.reads / 10
            && self.audits.same > self.reads / 20
            && self.audits.newer > 0
            && self.unacknowledged == 0
            && !self.faults.is_empty();
        assert!(enough, "too little was seen to judge by:\n{self}");
    }
}

/// The end of the last fault that kept a pending write from Redis, until it was `delivered`. `at`
/// if there was none.
fn free_from(round: &Round, write: &history::Write, at: Moment, delivered: Moment) -> Moment {
    let kept = round.faults.iter().filter(|fault| {
        fault.kind.keeps_from_redis()
            && fault.replica.is_none_or(|one| one == write.replica)
            && fault.begin <= delivered
    });
    let ends = kept.map(|fault| fault.end.min(delivered));
    ends.fold(at, Moment::max)
}

/// Keeps the logs of the replicas of a round, if `LARDER_SOAK_LOGS` names a folder.
fn keep_logs(round: &Round) {
    let Some(folder) = std::env::var_os("LARDER_SOAK_LOGS") else {
        return;
    };
    let folder = std::path::Path::new(&folder).join(round.plan.seed.to_string());
    std::fs::create_dir_all(&folder).unwrap();
    for (number, log) in round.logs.iter().enumerate() {
        std::fs::write(folder.join(format!("replica-{number}.log")), log).unwrap();
    }
}

/// A bad history, with all that is needed to understand it and to play it again.
fn tell(round: &Round, illegal: &Illegal) -> String {
    let plan = &round.plan;
    let mut text = format!(
        "shortest bad history, of the round with the seed {} and max_staleness {}, which began at {}\n{illegal}\n",
        plan.seed, plan.max_staleness, round.began
    );
    let (begin, end) = (illegal.begin(), illegal.read.end);
    let mut faults: Vec<_> = round
        .faults
        .iter()
        .filter(|fault| fault.touches(illegal.read.replica, begin, end, round.max_staleness))
        .collect();
    faults.sort_by_key(|fault| fault.begin);
    text.push_str("faults before and meanwhile:\n");
    for fault in faults {
        let whose = fault
            .replica
            .map_or(String::new(), |replica| format!(" at replica {replica}"));
        let _ = writeln!(
            text,
            "{:>12.3} to {:.3} ms  {}{whose}",
            millis(fault.begin),
            millis(fault.end),
            fault.kind.name(),
        );
    }
    text
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Report {
            seed,
            rounds,
            reads,
            writes,
            ..
        } = self;
        let of_tier = |tier: Tier| self.by_tier[tier as usize];
        writeln!(
            f,
            "coherence checker: seed {seed}, {rounds} rounds with {REPLICAS} replicas"
        )?;
        writeln!(
            f,
            "reads   {reads}: {} from memory, {} from Redis, {} from the source, {} with Larder-After; {} failed",
            of_tier(Tier::Memory),
            of_tier(Tier::Redis),
            of_tier(Tier::Source),
            self.after,
            self.failed_reads
        )?;
        writeln!(
            f,
            "writes  {writes}: {} pending, the longest for {:.0} ms, and {:.0} ms after what kept it from Redis was over; {} never acknowledged; {} attempts failed",
            self.pending,
            millis(self.longest_pending),
            millis(self.latest_pending),
            self.unacknowledged,
            self.failed_writes
        )?;
        let audits = self.audits;
        writeln!(
            f,
            "audits  {}: {} same, {} newer, {} unknown, {} illegal; {} skipped",
            audits.found(),
            audits.same,
            audits.newer,
            audits.unknown,
            audits.illegal,
            audits.skipped
        )?;
        writeln!(f, "illegal reads  {}", self.illegal())?;
        for (broken, times) in &self.illegal {
            writeln!(f, "    {broken}: {times}")?;
        }
        writeln!(
            f,
            "\n{:<26}{:>7}{:>12}{:>22}{:>19}",
            "fault", "times", "in force", "greatest staleness", "of max_staleness"
        )?;
        let none = ("none", &self.undisturbed);
        let made = Kind::NETWORK
            .iter()
            .chain(&Kind::REDIS)
            .chain(&[Kind::Moved]);
        let made = made.filter_map(|kind| Some((kind.name(), self.faults.get(kind.name())?)));
        for (name, seen) in std::iter::once(none).chain(made) {
            let staleness = format!("{:.1} ms", millis(seen.staleness));
            writeln!(
                f,
                "{name:<26}{:>7}{:>10.1} s{staleness:>22}{:>17.0} %",
                seen.times,
                seen.in_force.as_secs_f64(),
                seen.share * 100.0
            )?;
        }
        writeln!(
            f,
            "Staleness: from the acknowledgement, or delivery, of a write to the begin of the last read that did not know it.\n\
             It stands beside every fault that held at that replica meanwhile, or ended less than a max_staleness before."
        )?;
        for remark in &self.remarks {
            writeln!(f, "remark: {remark}")?;
        }
        if let Some((_, worst)) = &self.worst {
            writeln!(f, "\n{worst}")?;
        }
        Ok(())
    }
}
