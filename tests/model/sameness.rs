//! Which states count as one: those that differ by the names of the replicas, or by how many steps led to them.
//!
//! `late` is left out as well: whatever breaks promise 4 breaks promise 1 or 3 too, and those do not ask for it.

use std::hash::{Hash, Hasher};

use super::state::{Entry, Flight, Message, Redis, Replica, State};

impl Hash for State {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        let snapshot = match &self.snapshot {
            Some(snapshot) => packed_redis(snapshot),
            None => 0,
        };
        hasher.write_u64(packed_redis(&self.redis) << 32 | snapshot);
        let [newest, older] = self.acknowledged;
        hasher.write_u64(pack(&[self.source, self.due, newest, older, self.epochs]));
        let a = packed_replica(&self.replicas[0]);
        let b = packed_replica(&self.replicas[1]);
        let (first, second) = if a <= b { (a, b) } else { (b, a) };
        for word in [first, second].as_flattened() {
            hasher.write_u64(*word);
        }
    }
}

/// Four bits each. An exhaustive run is too short to count further; a walk only asks whether it goes in circles.
fn pack(numbers: &[u8]) -> u64 {
    let mut packed = 0;
    for number in numbers {
        packed = packed << 4 | u64::from(*number & 15);
    }
    packed
}

fn packed_redis(redis: &Redis) -> u64 {
    let Redis {
        epoch, clock, tag, ..
    } = *redis;
    pack(&[epoch, clock, tag, 2 | u8::from(redis.same_run)]) << 16 | packed_entry(&redis.value)
}

fn packed_entry(entry: &Option<Entry>) -> u64 {
    match entry {
        Some(entry) => pack(&[entry.version, entry.clock, entry.epoch, 1]),
        None => 0,
    }
}

fn packed_flight(flight: &Option<Flight>) -> u64 {
    let Some(flight) = flight else { return 0 };
    let kind = [flight.copy, flight.by_mirror, flight.before_overlay].map(u8::from);
    let entry = flight.entry;
    pack(&[
        entry.version,
        entry.clock,
        entry.epoch,
        flight.clock,
        flight.epoch,
        flight.age,
        8 | kind[0] << 2 | kind[1] << 1 | kind[2],
    ])
}

fn packed_message(message: &Option<Message>) -> u64 {
    match *message {
        None => 0,
        Some(Message::Invalidated {
            epoch,
            clock,
            before,
            ours,
        }) => pack(&[8 | u8::from(ours), epoch, clock, before]),
        Some(Message::Echo { epoch, clock, age }) => pack(&[4 | age, epoch, clock, 0]),
    }
}

fn packed_replica(replica: &Replica) -> [u64; 3] {
    let connections = u8::from(replica.subscribed) << 2 | u8::from(replica.pool) << 3;
    let (version, needs) = replica.hit.map_or((0, 0), |hit| (hit.version, hit.needs));
    let mirror = pack(&[
        replica.epoch,
        replica.last,
        replica.cell,
        replica.heard | connections,
        replica.pending.unwrap_or(0),
        replica.own,
        version,
        needs,
    ]);
    let [newest, overtaken] = &replica.flights;
    let [first, second, third] = &replica.inbox;
    [
        mirror << 16 | packed_entry(&replica.memory),
        packed_flight(newest) << 32 | packed_flight(overtaken),
        packed_message(first) << 32 | packed_message(second) << 16 | packed_message(third),
    ]
}
