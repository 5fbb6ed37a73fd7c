//! What a read that starts now would be given, from each place that may answer it.
//!
//! Reads are no steps: every state is read from, on both replicas and in every way, and what a read leaves behind (a copy in
//! memory, a load) is a step of its own.

use super::state::*;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Memory,
    Redis,
    Flight,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    pub place: Place,
    pub version: u8,
    pub late: bool,
    /// Promise 1: what this replica has acknowledged, or holds back while it is pending.
    pub here: u8,
    /// Promise 3: what anyone acknowledged longer than `max_staleness` ago.
    pub everywhere: u8,
}

impl State {
    pub fn trusted(&self, r: usize) -> bool {
        self.replicas[r].heard < MAX_STALENESS || self.without == Without::Trust
    }

    /// Trust first, cells second: see `Without::DeadlineFirst`.
    pub fn found_in_memory(&self, r: usize) -> Option<Entry> {
        let replica = &self.replicas[r];
        let entry = replica.memory.filter(|_| self.trusted(r))?;
        self.valid_by_mirror(r, entry).then_some(entry)
    }

    fn valid_by_mirror(&self, r: usize, entry: Entry) -> bool {
        let replica = &self.replicas[r];
        entry.epoch == replica.epoch
            && (entry.clock >= replica.cell || self.without == Without::Rule)
    }

    /// The value in Redis, if a read may be given it: judged by a trusted mirror, else by what Redis itself holds.
    pub fn found_in_redis(&self, r: usize) -> Option<Entry> {
        let replica = &self.replicas[r];
        if !replica.pool || (replica.pending.is_some() && self.without != Without::Overlay) {
            return None;
        }
        let Redis {
            epoch, tag, value, ..
        } = self.redis;
        let entry = value?;
        let valid = if self.trusted(r) {
            self.valid_by_mirror(r, entry)
        } else {
            !self.finds_new_history(Connection::Pool)
                && entry.epoch == epoch
                && (entry.clock >= tag || self.without == Without::Rule)
        };
        valid.then_some(entry)
    }

    pub fn joinable(&self, r: usize) -> Option<Flight> {
        let replica = &self.replicas[r];
        let flight = replica.flights[0]?;
        // A mirror knew of everything older than `max_staleness` as it let a copy pass: that is the age to go by, and it is past.
        let young = flight.age < MAX_STALENESS
            && (!flight.by_mirror || self.without == Without::JoinOfCopy);
        let current = flight.epoch == replica.epoch
            && flight.clock >= replica.cell
            && !flight.before_overlay
            && (self.trusted(r) || young);
        (current || self.without == Without::JoinCheck).then_some(flight)
    }

    /// Everything that a read on replica `r` may be answered with, but for the source itself.
    pub fn answers(&self, r: usize) -> [Option<Answer>; 4] {
        let replica = &self.replicas[r];
        let from = |place, entry: Entry| Answer {
            place,
            version: entry.version,
            late: entry.late || place == Place::Flight,
            here: replica.own,
            everywhere: self.due,
        };
        let joined = self.joinable(r).map(|flight| flight.entry);
        let hit = replica.hit.filter(|_| self.trusted(r));
        [
            self.found_in_memory(r)
                .map(|entry| from(Place::Memory, entry)),
            self.found_in_redis(r)
                .map(|entry| from(Place::Redis, entry)),
            joined
                .filter(|entry| entry.version != UNREAD)
                .map(|entry| from(Place::Flight, entry)),
            hit.map(|hit| Answer {
                place: Place::Memory,
                version: hit.version,
                late: false,
                here: 0,
                everywhere: hit.needs,
            }),
        ]
    }

    /// The first half of a hit in the wrong order: the cells are compared, and the deadline is not looked at yet.
    pub fn begin_hit(&mut self, r: usize) {
        let entry = self.replicas[r].memory;
        self.replicas[r].hit = entry
            .filter(|entry| self.valid_by_mirror(r, *entry))
            .map(|entry| Hit {
                version: entry.version,
                needs: self.due,
            });
    }
}
