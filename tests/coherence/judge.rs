//! The judge: which values a read may have returned, and for an illegal read the few operations
//! that prove it.
//!
//! The rules are the promises of the coherence protocol, for a resource with `disconnected_ttl =
//! "0s"`. A read may return any version that was ever written, unless one of these rules forbids
//! it:
//!
//! - *Here, at once*: the read began after the same replica answered a write, pending or not, and
//!   returns an older version.
//! - *Everywhere, bounded*: the read began later than `max_staleness` after any replica
//!   acknowledged a write, and returns an older version. A pending write counts from the moment at
//!   which it is known to be delivered.
//! - *After*: the read had the clock of a write in `Larder-After`, and returns an older version.
//! - *From nowhere*: the read returns no version, or one whose write began after the read ended.
//!
//! *Everywhere, soon* has no number, so it is measured and not judged: [`staleness`]. *Never
//! resurrected* adds no rule: an old value that comes back either does so within the bounds or
//! breaks one of them. A breach has this name if the same replica had already returned the newer
//! value.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use super::history::{FIRST, History, Moment, Read, Settled, Tier, Told, Version, Write};

/// The rule that a read broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Breach {
    Here,
    Bounded,
    Resurrected,
    After,
    FromNowhere,
}

/// An illegal read and its proof.
#[derive(Clone, Debug, PartialEq)]
pub struct Illegal {
    pub breach: Breach,
    pub read: Read,
    /// The write that it should have returned. `None` for a value from nowhere.
    pub write: Option<Write>,
    /// The proof of delivery, if the write was pending and the rule needs its delivery.
    pub settled: Option<Settled>,
    /// An earlier read that returned the newer value.
    pub newer: Option<Read>,
    /// The moment from which the write was owed, without `max_staleness`.
    pub owed: Option<Moment>,
}

/// A legal or illegal read of an overwritten value, and for how long the overwrite was known.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stale {
    pub read: Read,
    /// When the oldest write that it did not return was owed.
    pub owed: Moment,
}

impl Stale {
    /// From then to the begin of the read.
    pub fn by(&self) -> Duration {
        self.read.begin - self.owed
    }
}

/// Which version was owed from when on, for one key, on one replica or on all.
#[derive(Default)]
struct Owed(Vec<(Moment, Version)>);

impl Owed {
    fn new(writes: impl Iterator<Item = (Moment, Version)>) -> Owed {
        let mut all: Vec<_> = writes.collect();
        all.sort_unstable();
        // The newest version so far never decreases.
        let mut newest = 0;
        for (_, version) in &mut all {
            newest = newest.max(*version);
            *version = newest;
        }
        Owed(all)
    }

    /// The first moment at which something newer than `version` was owed.
    fn newer_than(&self, version: Version) -> Option<Moment> {
        let at = self.0.partition_point(|(_, newest)| *newest <= version);
        self.0.get(at).map(|(moment, _)| *moment)
    }
}

/// What replicas owe in a history, sorted so that each read is judged in logarithmic time.
struct Debts {
    /// When the write of a version of a key began.
    begun: HashMap<(usize, Version), Moment>,
    keys: usize,
    here: Vec<Owed>,
    everywhere: Vec<Owed>,
}

impl Debts {
    fn of(history: &History) -> Debts {
        let (reads, writes) = (&history.reads, &history.writes);
        let keys = reads.iter().map(|read| read.key);
        let keys = keys.chain(writes.iter().map(|write| write.key)).max();
        let keys = keys.map_or(0, |last| last + 1);
        let replicas = reads.iter().map(|read| read.replica);
        let replicas = replicas.chain(writes.iter().map(|write| write.replica));
        let replicas = replicas.max().map_or(0, |last| last + 1);
        let of_key = |key: usize| writes.iter().filter(move |write| write.key == key);
        let mut here = Vec::new();
        for replica in 0..replicas {
            for key in 0..keys {
                let mine = of_key(key).filter(|write| write.replica == replica);
                here.push(Owed::new(mine.filter_map(|write| {
                    write.held_here().map(|at| (at, write.version))
                })));
            }
        }
        let everywhere = (0..keys)
            .map(|key| {
                Owed::new(
                    of_key(key)
                        .filter_map(|write| history.delivered(write).map(|at| (at, write.version))),
                )
            })
            .collect();
        let begun = writes
            .iter()
            .map(|write| ((write.key, write.version), write.begin));
        Debts {
            begun: begun.collect(),
            keys,
            here,
            everywhere,
        }
    }

    fn here(&self, read: &Read) -> &Owed {
        &self.here[read.replica * self.keys + read.key]
    }

    fn everywhere(&self, read: &Read) -> &Owed {
        &self.everywhere[read.key]
    }
}

/// Every illegal read of a history.
pub fn judge(history: &History, max_staleness: Duration) -> Vec<Illegal> {
    let debts = Debts::of(history);
    let illegal = |read: &Read| {
        let breach = breach(&debts, read, max_staleness)?;
        Some(prove(history, *read, breach))
    };
    history.reads.iter().filter_map(illegal).collect()
}

fn breach(debts: &Debts, read: &Read, max_staleness: Duration) -> Option<Breach> {
    let Some(version) = read.version else {
        return Some(Breach::FromNowhere);
    };
    let begun = debts.begun.get(&(read.key, version));
    if version != FIRST && begun.is_none_or(|begun| *begun > read.end) {
        return Some(Breach::FromNowhere);
    }
    let newer = |owed: &Owed, max_staleness: Duration| {
        owed.newer_than(version)
            .is_some_and(|owed| read.begin > owed + max_staleness)
    };
    if newer(debts.here(read), Duration::ZERO) {
        return Some(Breach::Here);
    }
    if newer(debts.everywhere(read), max_staleness) {
        return Some(Breach::Bounded);
    }
    (read.after > Some(version)).then_some(Breach::After)
}

/// The fewest operations of the history that prove the breach.
fn prove(history: &History, read: Read, breach: Breach) -> Illegal {
    let mut proof = Illegal {
        breach,
        read,
        write: None,
        settled: None,
        newer: None,
        owed: None,
    };
    let Some(version) = read.version else {
        return proof;
    };
    let overwrites = |write: &&Write| write.key == read.key && write.version > version;
    let owed = |write: &Write| match breach {
        Breach::Here if write.replica == read.replica => write.held_here(),
        Breach::Bounded => history.delivered(write),
        Breach::After if Some(write.version) == read.after => write.held_here(),
        _ => None,
    };
    // The write that was owed for the longest time.
    let writes = history.writes.iter().filter(overwrites);
    let known = writes.filter_map(|write| Some((owed(write)?, write)));
    let Some((owed, write)) = known.min_by_key(|(owed, _)| *owed) else {
        return proof;
    };
    proof.write = Some(*write);
    proof.owed = Some(owed);
    if breach == Breach::Bounded {
        proof.settled = history.settling(write).copied();
    }
    if matches!(breach, Breach::Here | Breach::Bounded) {
        let newer = |other: &&Read| {
            (other.key, other.replica) == (read.key, read.replica)
                && other.version >= Some(write.version)
                && other.begin > owed
                && other.end < read.begin
        };
        let reads = history.reads.iter().filter(newer);
        proof.newer = reads.max_by_key(|other| other.end).copied();
        if proof.newer.is_some() {
            proof.breach = Breach::Resurrected;
        }
    }
    proof
}

/// The shortest proof. Of equally short ones, the one whose read ended first.
pub fn shortest(illegal: &[Illegal]) -> Option<&Illegal> {
    illegal
        .iter()
        .min_by_key(|illegal| (illegal.operations(), illegal.read.end))
}

/// Every read of an overwritten value that began after the overwriting write was acknowledged or
/// delivered.
pub fn staleness(history: &History) -> Vec<Stale> {
    let debts = Debts::of(history);
    let stale = |read: &Read| {
        let version = read.version?;
        let here = debts.here(read).newer_than(version);
        let everywhere = debts.everywhere(read).newer_than(version);
        let owed = here.into_iter().chain(everywhere).min()?;
        (owed < read.begin).then_some(Stale { read: *read, owed })
    };
    history.reads.iter().filter_map(stale).collect()
}

impl Illegal {
    /// The number of operations that prove it.
    pub fn operations(&self) -> usize {
        1 + usize::from(self.write.is_some())
            + usize::from(self.settled.is_some())
            + usize::from(self.newer.is_some())
    }

    /// When the first of these operations began.
    pub fn begin(&self) -> Moment {
        self.write.map_or(self.read.begin, |write| write.begin)
    }
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Breach::Here => "here, at once",
            Breach::Bounded => "everywhere, bounded",
            Breach::Resurrected => "never resurrected",
            Breach::After => "Larder-After",
            Breach::FromNowhere => "a version that was written",
        })
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Tier::Memory => "memory",
            Tier::Redis => "Redis",
            Tier::Source => "the source",
            Tier::Unknown => "somewhere",
        })
    }
}

/// The proof, one line for each moment.
impl fmt::Display for Illegal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lines: Vec<(Moment, String)> = Vec::new();
        if let Some(write) = &self.write {
            let Write {
                replica, version, ..
            } = write;
            lines.push((write.begin, format!("write of v{version} begins")));
            match write.told {
                Told::Nothing => {}
                Told::InvalidationReceipt(at) => lines.push((
                    at,
                    format!("invalidation of v{version} acknowledged by replica {replica}"),
                )),
                Told::Pending(at) => lines.push((
                    at,
                    format!("invalidation of v{version} pending at replica {replica}"),
                )),
            }
        }
        if let Some(settled) = &self.settled {
            let text = format!("replica {} has nothing pending", settled.replica);
            lines.push((settled.end, text));
        }
        for (read, name) in self
            .newer
            .iter()
            .map(|read| (read, "read"))
            .chain([(&self.read, "the illegal read")])
        {
            let after = read
                .after
                .map_or(String::new(), |version| format!(", after v{version}"));
            let what = read
                .version
                .map_or("no version".to_owned(), |version| format!("v{version}"));
            lines.push((
                read.begin,
                format!("{name} at replica {} begins{after}", read.replica),
            ));
            lines.push((read.end, format!("it returns {what} from {}", read.tier)));
        }
        lines.sort_by_key(|(at, _)| *at);
        write!(f, "broken: {}; key {}", self.breach, self.read.key)?;
        if let Some(owed) = self.owed {
            let late = self.read.begin.saturating_sub(owed);
            write!(f, "; begun {:.1} ms after it was owed", millis(late))?;
        }
        for (at, text) in lines {
            write!(f, "\n{:>12.3} ms  {text}", millis(at))?;
        }
        Ok(())
    }
}

pub fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX_STALENESS: Duration = Duration::from_millis(100);

    fn ms(time: u64) -> Moment {
        Duration::from_millis(time)
    }

    fn read(replica: usize, begin: u64, end: u64, version: Version) -> Read {
        Read {
            key: 0,
            replica,
            begin: ms(begin),
            end: ms(end),
            version: Some(version),
            tier: Tier::Memory,
            after: None,
        }
    }

    fn write(replica: usize, version: Version, begin: u64, end: u64) -> Write {
        Write {
            key: 0,
            replica,
            version,
            begin: ms(begin),
            told: Told::InvalidationReceipt(ms(end)),
        }
    }

    fn pending(replica: usize, version: Version, begin: u64, end: u64) -> Write {
        Write {
            told: Told::Pending(ms(end)),
            ..write(replica, version, begin, end)
        }
    }

    fn settled(replica: usize, begin: u64, end: u64) -> Settled {
        Settled {
            replica,
            begin: ms(begin),
            end: ms(end),
        }
    }

    fn history(writes: &[Write], reads: &[Read], settled: &[Settled]) -> History {
        History {
            reads: reads.to_vec(),
            writes: writes.to_vec(),
            settled: settled.to_vec(),
        }
    }

    #[track_caller]
    fn legal(writes: &[Write], reads: &[Read], settled: &[Settled]) {
        let illegal = judge(&history(writes, reads, settled), MAX_STALENESS);
        assert!(illegal.is_empty(), "{}", illegal[0]);
    }

    /// The one illegal read of a history.
    #[track_caller]
    fn illegal(writes: &[Write], reads: &[Read], settled: &[Settled]) -> Illegal {
        let mut illegal = judge(&history(writes, reads, settled), MAX_STALENESS);
        assert_eq!(illegal.len(), 1, "{illegal:?}");
        illegal.remove(0)
    }

    #[test]
    fn nothing_is_owed_before_the_first_write() {
        legal(&[], &[read(0, 0, 1, 1)], &[]);
        legal(&[], &[], &[]);
    }

    #[test]
    fn a_read_beside_a_write_returns_either() {
        let writes = [write(0, 2, 10, 20)];
        for version in [1, 2] {
            for (begin, end) in [(5, 15), (12, 14), (15, 400), (20, 21), (5, 400)] {
                legal(&writes, &[read(0, begin, end, version)], &[]);
            }
        }
    }

    #[test]
    fn here_it_holds_from_the_answer_on() {
        let writes = [write(0, 2, 10, 20)];
        // At this very moment the read may have been served before the answer.
        legal(&writes, &[read(0, 20, 25, 1)], &[]);
        let proof = illegal(&writes, &[read(0, 21, 25, 1)], &[]);
        assert_eq!(proof.breach, Breach::Here);
        assert_eq!(
            (proof.write, proof.newer, proof.operations()),
            (Some(writes[0]), None, 2)
        );
        legal(&writes, &[read(0, 21, 25, 2)], &[]);
    }

    #[test]
    fn elsewhere_it_holds_after_max_staleness() {
        let writes = [write(0, 2, 10, 20)];
        legal(&writes, &[read(1, 21, 25, 1), read(2, 120, 500, 1)], &[]);
        let proof = illegal(&writes, &[read(1, 121, 125, 1)], &[]);
        assert_eq!((proof.breach, proof.owed), (Breach::Bounded, Some(ms(20))));
        // Only the begin of the read counts, however long the read takes.
        legal(&writes, &[read(1, 119, 10_000, 1)], &[]);
    }

    #[test]
    fn a_write_of_another_key_is_owed_to_nobody() {
        let other = Write {
            key: 1,
            ..write(0, 2, 10, 20)
        };
        legal(&[other], &[read(0, 500, 501, 1)], &[]);
    }

    #[test]
    fn a_write_that_nobody_acknowledged_is_not_owed_and_may_be_seen() {
        let writes = [Write {
            told: Told::Nothing,
            ..write(0, 2, 10, 20)
        }];
        legal(&writes, &[read(0, 500, 501, 1), read(1, 500, 501, 2)], &[]);
    }

    #[test]
    fn a_pending_write_holds_here_and_nowhere_else() {
        let writes = [pending(0, 2, 10, 20)];
        legal(&writes, &[read(1, 900, 901, 1)], &[]);
        let proof = illegal(&writes, &[read(0, 21, 22, 1)], &[]);
        assert_eq!((proof.breach, proof.settled), (Breach::Here, None));
    }

    #[test]
    fn a_pending_write_is_owed_everywhere_once_it_is_delivered() {
        let writes = [pending(0, 2, 10, 20)];
        // Asked before the answer, or of another replica: that proves nothing about this write.
        let says_nothing = [settled(0, 15, 30), settled(1, 40, 50)];
        legal(&writes, &[read(1, 900, 901, 1)], &says_nothing);
        let delivered = [settled(0, 300, 310), settled(0, 200, 210)];
        legal(&writes, &[read(1, 310, 311, 1)], &delivered);
        let proof = illegal(&writes, &[read(1, 311, 312, 1)], &delivered);
        assert_eq!(proof.breach, Breach::Bounded);
        assert_eq!(
            (proof.settled, proof.operations()),
            (Some(settled(0, 200, 210)), 3)
        );
    }

    #[test]
    fn writes_need_not_be_answered_in_their_order() {
        // The newer write is acknowledged first, and replaces the value of the older one.
        let writes = [write(0, 2, 10, 50), write(1, 3, 12, 20)];
        legal(&writes, &[read(2, 100, 101, 2), read(2, 90, 95, 1)], &[]);
        let proof = illegal(&writes, &[read(2, 130, 131, 2)], &[]);
        assert_eq!(proof.write, Some(writes[1]));
        // Both writes forbid version 1. The proof has the one that was owed longer.
        let proof = illegal(&writes, &[read(2, 200, 201, 1)], &[]);
        assert_eq!(proof.write, Some(writes[1]));
    }

    #[test]
    fn the_promise_here_is_of_the_replica_that_answered() {
        let writes = [write(0, 2, 10, 20), write(1, 3, 30, 40)];
        // Version 2 is older than 3, which replica 0 has 100 ms to hear of.
        legal(&writes, &[read(0, 60, 61, 2)], &[]);
        assert_eq!(
            illegal(&writes, &[read(0, 60, 61, 1)], &[]).write,
            Some(writes[0])
        );
        assert_eq!(
            illegal(&writes, &[read(1, 60, 61, 2)], &[]).breach,
            Breach::Here
        );
    }

    #[test]
    fn what_comes_back_within_the_bounds_is_legal() {
        let writes = [write(0, 2, 10, 20)];
        legal(&writes, &[read(1, 30, 35, 2), read(1, 40, 45, 1)], &[]);
        // Even before the answer to the write.
        legal(&writes, &[read(0, 12, 14, 2), read(0, 15, 18, 1)], &[]);
    }

    #[test]
    fn what_comes_back_after_them_was_resurrected() {
        let writes = [write(0, 2, 10, 20)];
        let newer = [read(1, 30, 35, 2), read(1, 130, 135, 2)];
        let reads = [newer[0], newer[1], read(1, 140, 141, 1)];
        let proof = illegal(&writes, &reads, &[]);
        assert_eq!(
            (proof.breach, proof.newer),
            (Breach::Resurrected, Some(newer[1]))
        );
        let here = [read(0, 21, 25, 2), read(0, 26, 27, 1)];
        assert_eq!(illegal(&writes, &here, &[]).breach, Breach::Resurrected);
        // Another replica that had it, or this one before the answer, proves nothing.
        let elsewhere = [read(2, 30, 35, 2), read(1, 12, 14, 2), read(1, 140, 141, 1)];
        assert_eq!(illegal(&writes, &elsewhere, &[]).breach, Breach::Bounded);
    }

    #[test]
    fn a_read_after_a_clock_is_never_older() {
        let writes = [write(0, 2, 10, 20)];
        let after = |version| Read {
            after: Some(2),
            ..read(1, 21, 22, version)
        };
        legal(&writes, &[after(2)], &[]);
        let proof = illegal(&writes, &[after(1)], &[]);
        assert_eq!(
            (proof.breach, proof.write),
            (Breach::After, Some(writes[0]))
        );
    }

    #[test]
    fn a_value_that_nobody_wrote_is_illegal() {
        let writes = [write(0, 2, 10, 20)];
        for read in [
            read(1, 5, 9, 2),
            read(1, 5, 50, 3),
            Read {
                key: 1,
                ..read(1, 30, 31, 2)
            },
            Read {
                version: None,
                ..read(1, 5, 9, 1)
            },
        ] {
            let proof = illegal(&writes, &[read], &[]);
            assert_eq!((proof.breach, proof.operations()), (Breach::FromNowhere, 1));
        }
        legal(&writes, &[read(1, 5, 10, 2)], &[]);
    }

    #[test]
    fn the_shortest_history_is_shown_with_its_moments() {
        let writes = [pending(0, 2, 10, 20), write(1, 3, 400, 410)];
        let reads = [read(2, 390, 391, 1), read(1, 500, 505, 2), read(2, 1, 2, 1)];
        let bad = judge(
            &history(&writes, &reads, &[settled(0, 200, 210)]),
            MAX_STALENESS,
        );
        assert_eq!(bad.len(), 2);
        let shortest = shortest(&bad).unwrap();
        assert_eq!(
            shortest.to_string(),
            "broken: here, at once; key 0; begun 90.0 ms after it was owed\
             \n     400.000 ms  write of v3 begins\
             \n     410.000 ms  invalidation of v3 acknowledged by replica 1\
             \n     500.000 ms  the illegal read at replica 1 begins\
             \n     505.000 ms  it returns v2 from memory"
        );
        assert!(super::shortest(&[]).is_none());
    }

    #[test]
    fn staleness_counts_from_what_was_owed_first() {
        let writes = [
            write(0, 2, 10, 20),
            write(0, 3, 30, 40),
            pending(1, 4, 50, 60),
        ];
        let reads = [
            read(1, 50, 51, 1),
            read(1, 55, 56, 2),
            read(1, 20, 22, 1),
            read(1, 59, 60, 3),
            read(2, 70, 71, 3),
            read(1, 70, 71, 4),
        ];
        let stale = staleness(&history(&writes, &reads, &[]));
        let by: Vec<_> = stale.iter().map(Stale::by).collect();
        assert_eq!(by, [ms(30), ms(15)]);
        let settled = [settled(1, 61, 62)];
        let stale = staleness(&history(&writes, &reads, &settled));
        assert_eq!(stale.last().map(Stale::by), Some(ms(8)));
    }

    /// The rules as they are written, one write at a time: slow, but obviously right.
    fn is_illegal(history: &History, read: &Read) -> bool {
        let Some(version) = read.version else {
            return true;
        };
        let written = version == FIRST
            || history.writes.iter().any(|write| {
                (write.key, write.version) == (read.key, version) && write.begin <= read.end
            });
        !written || is_owed(history, read, version) || read.after > read.version
    }

    fn is_owed(history: &History, read: &Read, version: Version) -> bool {
        history.writes.iter().any(|write| {
            let here = write.replica == read.replica
                && write.held_here().is_some_and(|at| read.begin > at);
            let everywhere = history
                .delivered(write)
                .is_some_and(|at| read.begin > at + MAX_STALENESS);
            write.key == read.key && write.version > version && (here || everywhere)
        })
    }

    mod random {
        use super::*;
        use proptest::collection::vec;
        use proptest::prelude::*;

        fn any_write() -> impl Strategy<Value = Write> {
            (0..2_usize, 0..3_usize, 0..300_u64, 0..300_u64, 0..5_u8).prop_map(
                |(key, replica, begin, takes, told)| Write {
                    key,
                    replica,
                    version: 0,
                    begin: ms(begin),
                    told: match told {
                        0 => Told::Nothing,
                        1 => Told::Pending(ms(begin + takes)),
                        _ => Told::InvalidationReceipt(ms(begin + takes)),
                    },
                },
            )
        }

        fn any_read() -> impl Strategy<Value = Read> {
            let places = (0..2_usize, 0..3_usize, 0..600_u64, 0..50_u64);
            (places, 1..6_u64, proptest::option::of(2..4_u64)).prop_map(
                |((key, replica, begin, takes), version, after)| Read {
                    key,
                    after,
                    ..read(replica, begin, begin + takes, version)
                },
            )
        }

        proptest! {
            #[test]
            fn the_fast_judge_finds_what_the_slow_one_finds(
                mut writes in vec(any_write(), 0..8),
                reads in vec(any_read(), 1..12),
                asked in vec((0..3_usize, 0..400_u64, 0..50_u64), 0..4),
            ) {
                let mut next = [FIRST; 2];
                for write in &mut writes {
                    next[write.key] += 1;
                    write.version = next[write.key];
                }
                let asked: Vec<_> = asked
                    .into_iter()
                    .map(|(replica, begin, takes)| settled(replica, begin, begin + takes))
                    .collect();
                let history = history(&writes, &reads, &asked);
                let found = judge(&history, MAX_STALENESS);
                let slow: Vec<_> =
                    reads.iter().filter(|read| is_illegal(&history, read)).copied().collect();
                prop_assert_eq!(found.iter().map(|bad| bad.read).collect::<Vec<_>>(), slow);
                // The proof must prove the breach by itself.
                for bad in &found {
                    let reads: Vec<_> = bad.newer.iter().chain([&bad.read]).copied().collect();
                    let writes: Vec<_> = bad.write.into_iter().collect();
                    let asked: Vec<_> = bad.settled.into_iter().collect();
                    let alone = super::history(&writes, &reads, &asked);
                    let proven = match bad.breach {
                        Breach::After => bad.read.after > bad.read.version,
                        Breach::FromNowhere => true,
                        _ => is_owed(&alone, &bad.read, bad.read.version.unwrap()),
                    };
                    prop_assert!(proven, "{}", bad);
                }
            }
        }
    }
}
