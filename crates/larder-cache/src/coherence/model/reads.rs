//! The values that a read that starts now could return, from each place that may answer it.
//!
//! Reads are not steps: every state is read from, on both replicas and in every way. The effects of
//! a read (a copy in memory, a load) are steps of their own.

use super::super::Standing;
use super::state::*;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Memory,
    Redis,
    Flight,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) place: Place,
    pub(super) version: u8,
    pub(super) late: bool,
    /// Promise 1: the versions that this replica has acknowledged, or that are pending here.
    pub(super) here: u8,
    /// Promise 3: the versions that any replica acknowledged longer than `max_staleness` ago.
    pub(super) everywhere: u8,
}

impl State {
    pub(super) fn trusted(&self, r: usize) -> bool {
        self.replicas[r].mirror.is_trusted() || self.without == Without::Trust
    }

    /// Trust first, clocks second: see `Without::DeadlineFirst`.
    pub(super) fn found_in_memory(&self, r: usize) -> Option<Entry> {
        let replica = &self.replicas[r];
        let entry = replica.memory.filter(|_| self.trusted(r))?;
        self.is_valid(replica.mirror, entry.load).then_some(entry)
    }

    pub(super) fn is_valid(&self, mirror: MirrorState, load: Load) -> bool {
        match self.without {
            Without::Rule => load.history == mirror.history,
            _ => mirror.standing(load) == Standing::Valid,
        }
    }

    /// The value in Redis, if a read may be given it. A trusted mirror judges it, else the mirror
    /// that has learned the clocks from the same reply as the value.
    pub(super) fn found_in_redis(&self, r: usize) -> Option<Entry> {
        let replica = &self.replicas[r];
        let entry = self.redis.value.filter(|_| replica.pool)?;
        let mirror = if self.trusted(r) {
            replica.mirror
        } else if self.finds_new_history(Connection::Pool) {
            return None;
        } else {
            replica.mirror.learned(self.redis.reply())?
        };
        self.is_valid(mirror, entry.load).then_some(entry)
    }

    pub(super) fn joinable(&self, r: usize) -> Option<Flight> {
        let flight = self.replicas[r].flights[0]?;
        // When a mirror let a copy pass, it knew of everything older than `max_staleness`. That may
        // be as old as `max_staleness` already.
        let young = flight.age < MAX_STALENESS
            && (!flight.by_mirror || self.without == Without::JoinOfCopy);
        let current = self.replicas[r].mirror.standing(flight.load) == Standing::Valid
            && (self.trusted(r) || young);
        (current || self.without == Without::JoinCheck).then_some(flight)
    }

    /// Every answer that a read on replica `r` may get, except from the source itself.
    pub(super) fn answers(&self, r: usize) -> [Option<Answer>; 4] {
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

    /// The first half of a hit in the wrong order: the clocks are compared, but not yet the
    /// deadline.
    pub(super) fn begin_hit(&mut self, r: usize) {
        let entry = self.replicas[r].memory;
        self.replicas[r].hit = entry
            .filter(|entry| self.is_valid(self.replicas[r].mirror, entry.load))
            .map(|entry| Hit {
                version: entry.version,
                needs: self.due,
            });
    }
}
