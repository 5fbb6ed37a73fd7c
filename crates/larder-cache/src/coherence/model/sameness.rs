//! Which states count as one: those that differ by the names of the replicas, or by how many steps
//! led to them.
//!
//! `late` is left out as well: whatever breaks promise 4 breaks promise 1 or 3, too, and those do
//! not ask for it.

use std::hash::{Hash, Hasher};

use super::state::{Caller, Entry, Flight, Load, Message, Redis, Replica, State};

impl Hash for State {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        let snapshot = match &self.snapshot {
            Some(snapshot) => packed_redis(snapshot),
            None => 0,
        };
        hasher.write_u64(packed_redis(&self.redis) << 32 | snapshot);
        let [newest, older] = self.acknowledged;
        let replaced = u8::from(self.newer_was_replaced);
        let numbers = [
            self.source,
            self.due,
            newest,
            older,
            self.histories,
            replaced,
        ];
        hasher.write_u64(pack(&numbers));
        let a = packed_replica(&self.replicas[0]);
        let b = packed_replica(&self.replicas[1]);
        let (first, second) = if a <= b { (a, b) } else { (b, a) };
        for word in [first, second].as_flattened() {
            hasher.write_u64(*word);
        }
    }
}

/// Four bits each. An exhaustive run is too short to count further. A walk only asks whether it
/// goes in circles.
fn pack(numbers: &[u8]) -> u64 {
    let mut packed = 0;
    for number in numbers {
        packed = packed << 4 | u64::from(*number & 15);
    }
    packed
}

fn packed_redis(redis: &Redis) -> u64 {
    let Redis {
        history,
        clock,
        tag,
        ..
    } = *redis;
    let numbers = [history, clock, tag, 2 | u8::from(redis.same_run)];
    pack(&numbers) << 16 | packed_entry(&redis.value)
}

fn packed_entry(entry: &Option<Entry>) -> u64 {
    let Some(Entry { version, load, .. }) = entry else {
        return 0;
    };
    pack(&[*version, load.clock, load.history, 2 | load.sequence])
}

fn packed_flight(flight: &Option<Flight>) -> u64 {
    let Some(flight) = flight else { return 0 };
    let Load {
        history,
        clock,
        sequence,
    } = flight.load;
    let kind = u8::from(flight.copy) << 1 | u8::from(flight.by_mirror);
    let own = pack(&[clock, history, flight.age << 1 | sequence, 8 | kind]);
    packed_entry(&Some(flight.entry)) << 16 | own
}

fn packed_load(load: &Load) -> u64 {
    pack(&[load.clock, load.history, 2 | load.sequence])
}

fn packed_caller(caller: &Option<Caller>) -> u64 {
    let Some(caller) = caller else { return 0 };
    let fill = caller.fill.as_ref().map_or(0, packed_load);
    let own = pack(&[8 | u8::from(caller.taken), caller.version]);
    own << 24 | packed_load(&caller.since) << 12 | fill
}

fn packed_message(message: &Option<Message>) -> u64 {
    match *message {
        None => 0,
        Some(Message::Invalidated {
            history,
            clock,
            before,
            ours,
        }) => pack(&[8 | u8::from(ours), history, clock, before]),
        Some(Message::Echo {
            history,
            clock,
            age,
        }) => pack(&[4 | age, history, clock, 0]),
    }
}

fn packed_replica(replica: &Replica) -> [u64; 5] {
    let mirror = replica.mirror;
    let flags = [replica.subscribed, replica.pool, mirror.pending].map(u8::from);
    let (version, needs) = replica.hit.map_or((0, 0), |hit| (hit.version, hit.needs));
    let numbers = [
        mirror.history,
        mirror.applied,
        mirror.newest,
        mirror.tag,
        mirror.trust_left,
        flags[0] << 2 | flags[1] << 1 | flags[2],
        replica.queued.unwrap_or(0),
        replica.own,
        version,
        needs,
    ];
    let [newest, overtaken] = &replica.flights;
    let [first, second, third] = &replica.inbox;
    [
        pack(&numbers) << 16 | packed_entry(&replica.memory),
        packed_flight(newest) << 32 | packed_flight(overtaken),
        packed_message(first) << 32 | packed_message(second) << 16 | packed_message(third),
        mirror.retired,
        packed_caller(&replica.caller),
    ]
}
