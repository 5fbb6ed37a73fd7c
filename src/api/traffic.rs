//! What this replica answered: responses by status, and how long admitted reads took.
//!
//! Promise: to count an answer costs a few writes to memory that no other thread writes to.

use std::time::{Duration, Instant};

use actix_web::http::StatusCode;
use larder_cache::stats::{Counter, Histogram, Snapshot};
use larder_cache::{LookupEnd, LookupResult, Tally, Unanswered};

/// The statuses that larder answers with, the frequent ones first.
const STATUSES: [u16; 24] = [
    200, 304, 404, 400, 401, 403, 429, 201, 202, 204, 308, 405, 408, 409, 412, 413, 415, 417, 422,
    431, 500, 502, 503, 504,
];

/// See the module.
#[derive(Default)]
pub(crate) struct Traffic {
    durations: [Histogram; LookupEnd::ALL.len()],
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
    pub(crate) fn note_read(&self, end: LookupEnd, took: Duration) {
        self.durations[end as usize].record(took);
    }

    /// Responses by status so far. `None`: of all other statuses.
    pub(crate) fn responses(&self) -> impl Iterator<Item = (Option<u16>, u64)> {
        let known = STATUSES.iter().zip(&self.responses);
        let known = known.map(|(status, counter)| (Some(*status), counter.get()));
        known.chain([(None, self.other.get())])
    }

    /// How long reads took so far, by how they ended.
    pub(crate) fn durations(&self) -> impl Iterator<Item = (LookupEnd, Snapshot)> {
        let each = LookupEnd::ALL.into_iter().zip(&self.durations);
        each.map(|(ending, durations)| (ending, durations.snapshot()))
    }
}

/// An admitted read that waits for its value. If it is dropped before its end, because its client
/// left or its look-up panicked, it counts as failed.
pub(super) struct PendingRead<'a> {
    lookup: Option<Unanswered<'a>>,
    traffic: &'a Traffic,
    began: Instant,
}

impl<'a> PendingRead<'a> {
    pub(super) fn new(tally: &'a Tally, traffic: &'a Traffic, began: Instant) -> PendingRead<'a> {
        PendingRead {
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
        self.traffic.note_read(LookupEnd::Failed, took);
    }
}

impl Drop for PendingRead<'_> {
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
