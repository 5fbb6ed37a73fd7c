//! What this replica answered: responses by status, and how long admitted reads took.
//!
//! Promise: to count an answer costs a few writes to memory that no other thread writes to.

use std::time::{Duration, Instant};

use actix_web::http::StatusCode;
use larder_cache::stats::{Counter, Histogram, Snapshot};
use larder_cache::{LookupResult, Outcome, Tally, Unanswered};

/// The statuses that larder answers with, the frequent ones first.
const STATUSES: [u16; 24] = [
    200, 304, 404, 400, 401, 403, 429, 201, 202, 204, 308, 405, 408, 409, 412, 413, 415, 417, 422,
    431, 500, 502, 503, 504,
];

/// How an admitted read ended: the label `outcome`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Memory had a fresh copy.
    Memory,
    /// Redis had a fresh copy.
    Redis,
    /// Its own load brought the value.
    Loaded,
    /// It waited for another one's load.
    Collapsed,
    /// It got a stale copy.
    Stale,
    /// It got no value.
    Failed,
}

impl Ending {
    /// All, in the order of their discriminants.
    pub(crate) const ALL: [Ending; 6] = [
        Ending::Memory,
        Ending::Redis,
        Ending::Loaded,
        Ending::Collapsed,
        Ending::Stale,
        Ending::Failed,
    ];

    /// Its value as a label.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Ending::Memory => "memory",
            Ending::Redis => "redis",
            Ending::Loaded => "loaded",
            Ending::Collapsed => "collapsed",
            Ending::Stale => "stale",
            Ending::Failed => "failed",
        }
    }
}

impl From<Outcome> for Ending {
    fn from(outcome: Outcome) -> Ending {
        match outcome {
            Outcome::MemoryHit => Ending::Memory,
            Outcome::RedisHit => Ending::Redis,
            Outcome::Loaded => Ending::Loaded,
            Outcome::Collapsed => Ending::Collapsed,
            Outcome::Stale(_) => Ending::Stale,
        }
    }
}

/// See the module.
#[derive(Default)]
pub(crate) struct Traffic {
    durations: [Histogram; Ending::ALL.len()],
    responses: [Counter; STATUSES.len()],
    /// Responses with another status.
    other: Counter,
}

impl Traffic {
    /// Counts a response. Called once for each.
    pub(crate) fn count_response(&self, status: StatusCode) {
        let status = status.as_u16();
        let known = STATUSES.iter().zip(&self.responses);
        let mut found = known.filter(|(known, _)| **known == status);
        found
            .next()
            .map_or(&self.other, |(_, counter)| counter)
            .add(1);
    }

    /// Notes how long an admitted read took. Called once for each, beside its count in the tally of
    /// its resource.
    pub(crate) fn note_read(&self, ending: Ending, took: Duration) {
        self.durations[ending as usize].record(took);
    }

    /// Responses by status so far. `None`: of all other statuses.
    pub(crate) fn responses(&self) -> impl Iterator<Item = (Option<u16>, u64)> {
        let known = STATUSES.iter().zip(&self.responses);
        let known = known.map(|(status, counter)| (Some(*status), counter.get()));
        known.chain([(None, self.other.get())])
    }

    /// How long reads took so far, by their ending.
    pub(crate) fn durations(&self) -> impl Iterator<Item = (Ending, Snapshot)> {
        let each = Ending::ALL.into_iter().zip(&self.durations);
        each.map(|(ending, durations)| (ending, durations.snapshot()))
    }
}

/// An admitted read that waits for its value. If it is dropped before its end, because its client
/// left or its look-up panicked, it counts as failed.
pub(super) struct Waiting<'a> {
    lookup: Option<Unanswered<'a>>,
    traffic: &'a Traffic,
    began: Instant,
}

impl<'a> Waiting<'a> {
    pub(super) fn new(tally: &'a Tally, traffic: &'a Traffic, began: Instant) -> Waiting<'a> {
        Waiting {
            lookup: Some(tally.begin()),
            traffic,
            began,
        }
    }

    /// Counts it by its result. The caller notes how long it took if it has a value.
    pub(super) fn end(mut self, result: &LookupResult) {
        if let Some(lookup) = self.lookup.take() {
            lookup.end(result);
        }
        if result.is_err() {
            self.note_failed();
        }
    }

    fn note_failed(&self) {
        let took = self.began.elapsed();
        self.traffic.note_read(Ending::Failed, took);
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.lookup.is_some() {
            self.note_failed();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_ending_has_the_place_of_its_discriminant() {
        for (place, ending) in Ending::ALL.into_iter().enumerate() {
            assert_eq!(ending as usize, place);
        }
    }

    #[test]
    fn a_response_is_counted_once_by_its_status_or_as_another() {
        let traffic = Traffic::default();
        for status in [200, 200, 504, 418, 302] {
            traffic.count_response(StatusCode::from_u16(status).unwrap());
        }
        let counted: Vec<_> = traffic
            .responses()
            .filter(|(_, count)| *count > 0)
            .collect();
        assert_eq!(counted, [(Some(200), 2), (Some(504), 1), (None, 2)]);
    }
}
