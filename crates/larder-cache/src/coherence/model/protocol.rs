//! The protocol as a state machine: what each step does to Redis and to the replicas.
//!
//! A step is one command or script in Redis, or a replica's reaction to one message or one reply.

use std::cell::RefCell;
use std::collections::HashMap;

use super::super::{
    Batch, History, HistoryId, LogReceived, Mirror, Purge, Received, Standing, standing_since,
};
use super::mirrors::{self, TAG};
use super::state::*;

impl State {
    // ---- Redis ----

    /// "Every new connection compares `run_id`." After a restart every connection is new, so the
    /// check stands at each use.
    fn check_history(&mut self, connection: Connection) {
        if self.finds_new_history(connection) {
            self.begin_history();
        }
    }

    fn begin_history(&mut self) {
        // The clock of the host may be behind: the numbers of the two histories overlap.
        self.histories += 1;
        self.redis.history = self.histories;
        self.redis.same_run = true;
        self.redis.clock += 1;
        self.redis.tag = 0;
        self.publish(0, false);
    }

    pub(super) fn finds_new_history(&self, connection: Connection) -> bool {
        let skipped = match self.without {
            Without::HistoryCheck => true,
            Without::HistoryCheckOnPool => connection == Connection::Pool,
            _ => false,
        };
        self.redis.history == NO_HISTORY || (!self.redis.same_run && !skipped)
    }

    fn publish(&mut self, before: u8, ours: bool) {
        let Redis { history, clock, .. } = self.redis;
        for replica in &mut self.replicas {
            replica.receive(Message::Invalidated {
                history,
                clock,
                before,
                ours,
            });
        }
    }

    /// The invalidation script. Returns the history and the clock of its reply.
    fn invalidate_in_redis(&mut self, ours: bool) -> (u8, u8) {
        self.check_history(Connection::Pool);
        let before = self.redis.clock;
        self.redis.clock += 1;
        if ours {
            self.redis.tag = self.redis.clock;
            if self.without == Without::Rule {
                self.redis.value = None;
            }
        }
        self.publish(before, ours);
        (self.redis.history, self.redis.clock)
    }

    // ---- Writes ----

    pub(super) fn write(&mut self) {
        self.source += 1;
    }

    pub(super) fn invalidate(&mut self, r: usize) {
        let version = self.source;
        let before = self.replicas[r].mirror;
        let mirror = before.mirror();
        let stands = self.without != Without::Pending;
        if !stands && !self.replicas[r].pool {
            self.replicas[r].queue(version);
            return;
        }
        let batch = mirror
            .pending
            .begin(std::slice::from_ref(&TAG), Purge::Hard);
        let sequence = mirror.pending.sequence();
        if !self.replicas[r].pool {
            mirror.pending.fail(&batch);
            self.replicas[r].queue(version);
        } else {
            let reply = self.invalidate_in_redis(true);
            if self.confirm(&mirror, &batch, reply) {
                // An earlier one of the same target is confirmed with it.
                self.replicas[r].queued = None;
            } else {
                mirror.pending.fail(&batch);
                self.replicas[r].queue(version);
            }
            self.acknowledge(r, version);
        }
        self.replicas[r].take_over(before.read_back(&mirror), sequence);
    }

    /// The reaction of the cache to the reply to an invalidation.
    fn confirm(&self, mirror: &Mirror, batch: &Batch, (id, clock): (u8, u8)) -> bool {
        let (id, clock) = (HistoryId(id.into()), u64::from(clock));
        let history = mirror.history();
        if self.without == Without::HistoryOfReply && history.id() != id {
            history.apply(&TAG, Purge::Hard, clock);
            mirror.pending.settle(batch);
            return true;
        }
        let confirmed = mirror.confirm(batch, id, clock);
        if confirmed && self.without == Without::AppliedLeftAlone {
            history.advance(clock);
        }
        confirmed
    }

    pub(super) fn invalidate_other_tag(&mut self, r: usize) {
        let (id, clock) = self.invalidate_in_redis(false);
        let replica = &mut self.replicas[r];
        if self.without == Without::AppliedLeftAlone && replica.mirror.history == id {
            replica.mirror.applied = replica.mirror.applied.max(clock);
        }
    }

    /// The bus delivers pending invalidations.
    pub(super) fn deliver_pending(&mut self, r: usize) {
        let Some(version) = self.replicas[r].queued else {
            return;
        };
        let before = self.replicas[r].mirror;
        let mirror = before.mirror();
        let mut batches = mirror.pending.to_deliver(1);
        if batches.is_empty() {
            // Only `Without::Pending`: the queue is not that of the cache.
            batches = vec![
                mirror
                    .pending
                    .begin(std::slice::from_ref(&TAG), Purge::Hard),
            ];
        }
        for batch in &batches {
            let reply = self.invalidate_in_redis(true);
            self.acknowledge(r, version);
            if self.confirm(&mirror, batch, reply) {
                self.replicas[r].queued = None;
                if let (Without::EndedByDelivery, Some(entry)) =
                    (self.without, &mut self.replicas[r].memory)
                    && entry.inserted
                {
                    (entry.load.history, entry.load.clock) = reply;
                }
            } else {
                self.catch_up(r, &mirror);
            }
        }
        let sequence = mirror.pending.sequence();
        self.replicas[r].take_over(before.read_back(&mirror), sequence);
    }

    fn acknowledge(&mut self, r: usize, version: u8) {
        self.replicas[r].own = self.replicas[r].own.max(version);
        self.acknowledged[0] = self.acknowledged[0].max(version);
    }

    // ---- Loads ----

    /// A load begins: the load clock is read, and the source is asked after that.
    pub(super) fn load(&mut self, r: usize, answered_at_once: bool) {
        let begun = self.replicas[r].mirror;
        let load = if self.replicas[r].pool {
            self.check_history(Connection::Pool);
            let Some(learned) = begun.learned(self.redis.reply()) else {
                // Only `Without::HistoryCheck`: the connection is of no use.
                return;
            };
            self.replicas[r].mirror = learned;
            Load {
                history: self.redis.history,
                clock: self.redis.clock,
                sequence: begun.pending.into(),
            }
        } else {
            begun.stamp()
        };
        let version = if answered_at_once {
            self.source
        } else {
            UNREAD
        };
        self.replicas[r].take_off(Flight {
            entry: Entry {
                version,
                load,
                late: false,
                inserted: false,
            },
            load,
            age: 0,
            copy: false,
            by_mirror: false,
        });
    }

    pub(super) fn source_answers(&mut self, r: usize, flight: usize) {
        if let Some(flight) = &mut self.replicas[r].flights[flight] {
            flight.entry.version = self.source;
        }
    }

    /// A flight finds a value in Redis that it may serve. Memory gets it later.
    pub(super) fn look(&mut self, r: usize) {
        if let Some(entry) = self.found_in_redis(r) {
            let by_mirror = self.trusted(r);
            if !by_mirror && let Some(learned) = self.replicas[r].mirror.learned(self.redis.reply())
            {
                self.replicas[r].mirror = learned;
            }
            self.check_history(Connection::Pool);
            let replica = &mut self.replicas[r];
            replica.mirror = replica.mirror.has_copied(entry.load);
            replica.take_off(Flight {
                entry,
                load: replica.mirror.stamp(),
                age: 0,
                copy: true,
                by_mirror,
            });
        }
    }

    /// The fill of Redis. Leases are left out, so only a value of a higher clock stays.
    pub(super) fn fill(&mut self, r: usize, flight: usize) {
        if let Some(flight) = self.replicas[r].flights[flight] {
            self.fill_redis(flight.entry);
        }
    }

    fn fill_redis(&mut self, entry: Entry) {
        self.check_history(Connection::Pool);
        let mut entry = self.placed(entry);
        // An envelope carries no sequence number.
        entry.load.sequence = 0;
        let stays = |there: Entry| is_later(there.load, entry.load);
        if !self.redis.value.is_some_and(stays) || self.without == Without::NewerInRedis {
            self.redis.value = Some(entry);
        }
    }

    /// The end of a flight: memory is filled.
    pub(super) fn remember(&mut self, r: usize, flight: usize) {
        if let Some(flight) = self.replicas[r].flights[flight].take() {
            self.fill_memory(r, flight.entry);
        }
    }

    /// Fills memory, unless the mirror knows of a later invalidation or a newer value is there.
    fn fill_memory(&mut self, r: usize, entry: Entry) {
        let entry = self.placed(entry);
        let replica = &mut self.replicas[r];
        let dead = replica.mirror.standing(entry.load) == Standing::Invalid;
        let stays = replica
            .memory
            .is_some_and(|there| is_later(there.load, entry.load));
        if (!dead || self.without == Without::Rule)
            && (!stays || self.without == Without::NewerInMemory)
        {
            replica.memory = Some(entry);
        }
    }

    /// Whether the step from `before` has replaced a value by one of a lower clock.
    pub(super) fn has_replaced_newer(&self, before: &State) -> bool {
        let lower = |before: Option<Entry>, after: Option<Entry>| match (before, after) {
            (Some(before), Some(after)) => is_later(before.load, after.load),
            _ => false,
        };
        let memory = self.replicas.iter().zip(&before.replicas);
        lower(before.redis.value, self.redis.value)
            || memory
                .into_iter()
                .any(|(after, before)| lower(before.memory, after.memory))
    }

    // ---- Inserts ----

    /// A caller takes a stamp, and reads the value from the source right after that. The protocol
    /// does not look at values, so no caller has an older one.
    pub(super) fn stamp(&mut self, r: usize) {
        self.replicas[r].caller = Some(Caller {
            since: self.replicas[r].mirror.stamp(),
            version: self.source,
            fill: None,
            taken: false,
        });
    }

    /// The caller's value is that of a write of its own.
    pub(super) fn write_to_insert(&mut self, r: usize) {
        self.write();
        if let Some(caller) = &mut self.replicas[r].caller {
            caller.version = self.source;
        }
    }

    /// The first step of an insert: its invalidation, and whether its value is to be kept.
    pub(super) fn begin_insert(&mut self, r: usize) {
        let Some(mut caller) = self.replicas[r].caller.take() else {
            return;
        };
        let before = self.replicas[r].mirror;
        let mirror = before.mirror();
        if self.without == Without::StampFirst {
            caller.since = before.stamp();
        }
        let mut since = mirrors::real_stamp(&mirror, caller.since);
        let value = mirrors::dependency(&mirror, caller.since);
        let (batch, pending) = mirror.pending.begin_insert(&TAG, &value);
        let known = mirror.history().recall(&mirrors::TARGETS);
        caller.taken = self.replicas[r].pool;
        let (record, fill) = if caller.taken {
            self.check_history(Connection::Pool);
            let record = mirrors::record(self.redis.reply());
            let (id, clock) = self.invalidate_in_redis(true);
            if self.confirm(&mirror, &batch, (id, clock)) {
                self.replicas[r].queued = None;
            } else {
                mirror.pending.fail(&batch);
                self.replicas[r].queue(caller.version);
            }
            self.acknowledge(r, caller.version);
            let history = id;
            (
                record,
                Load {
                    history,
                    clock,
                    sequence: 0,
                },
            )
        } else {
            mirror.pending.fail(&batch);
            self.replicas[r].queue(caller.version);
            (known.clone(), caller.since)
        };
        let record = match self.without {
            Without::RecordDecides => known,
            _ => record,
        };
        if self.without == Without::HistoryOfStamp {
            since.history = record.state.history;
        }
        let pending = pending.is_some() && self.without != Without::PendingSinceStamp;
        let stands = !pending && standing_since(since, &record) == Standing::Valid;
        let sequence = mirror.pending.sequence();
        if stands || self.without == Without::SinceStamp {
            let sequence = sequence as u8;
            caller.fill = Some(Load { sequence, ..fill });
            self.replicas[r].caller = Some(caller);
        }
        self.replicas[r].take_over(before.read_back(&mirror), sequence);
    }

    /// The second step: Redis is filled.
    pub(super) fn fill_inserted(&mut self, r: usize) {
        if let Some(entry) = self.replicas[r].caller.and_then(Caller::entry) {
            self.fill_redis(entry);
        }
    }

    /// Memory is filled, and the insert is over.
    pub(super) fn remember_inserted(&mut self, r: usize) {
        if let Some(entry) = self.replicas[r].caller.take().and_then(Caller::entry) {
            self.fill_memory(r, entry);
        }
    }

    fn placed(&self, entry: Entry) -> Entry {
        let acknowledged = self.acknowledged.iter().fold(self.due, |a, b| a.max(*b));
        Entry {
            late: entry.version < acknowledged,
            ..entry
        }
    }

    // ---- The bus ----

    /// The ping script: reads the clock and publishes it to its own replica.
    pub(super) fn ping(&mut self, r: usize) {
        self.check_history(Connection::Bus);
        let Redis { history, clock, .. } = self.redis;
        self.replicas[r].receive(Message::Echo {
            history,
            clock,
            age: 0,
        });
    }

    pub(super) fn deliver(&mut self, r: usize) {
        let Some(message) = self.replicas[r].take_message() else {
            return;
        };
        let before = self.replicas[r].mirror;
        let mirror = before.mirror();
        match message {
            Message::Invalidated {
                history,
                clock,
                before,
                ours,
            } => {
                let message = mirrors::message(history, clock, before, ours);
                let own = mirror.history();
                if own.receive(&message) == Received::Gap {
                    if self.passes_gaps(&own, message.history) {
                        message
                            .targets
                            .iter()
                            .for_each(|target| own.apply(target, Purge::Hard, message.clock));
                        own.advance(message.clock);
                    } else {
                        self.catch_up(r, &mirror);
                    }
                }
            }
            Message::Echo {
                history,
                clock,
                age,
            } => {
                let echo = mirrors::echo(history, clock);
                let mut own = mirror.history();
                if !own.is_at(&echo) {
                    if self.passes_gaps(&own, echo.history) {
                        own.advance(echo.clock);
                    } else {
                        self.catch_up(r, &mirror);
                        own = mirror.history();
                    }
                }
                if own.has_applied(&echo) {
                    let age = match self.without {
                        Without::TrustFromPing => 0,
                        _ => age,
                    };
                    mirror.extend_trust(&own, mirrors::trusted_until(age));
                }
            }
        }
        self.replicas[r].mirror = before.read_back(&mirror);
    }

    fn passes_gaps(&self, own: &History, id: HistoryId) -> bool {
        self.without == Without::GapRepair && own.id() == id
    }

    /// Whether the real history finds a gap before this message.
    pub(super) fn shows_gap(&self, r: usize, message: Message) -> bool {
        type Known = HashMap<(MirrorState, Message), bool, foldhash::fast::RandomState>;
        thread_local!(static KNOWN: RefCell<Known> = RefCell::default());
        let mirror = self.replicas[r].mirror;
        KNOWN.with_borrow_mut(|known| {
            *known
                .entry((mirror, message))
                .or_insert_with(|| shows_gap(&mirror.mirror().history(), message))
        })
    }

    /// What `Session::catch_up` does: the log is read, or all targets where that does not reach
    /// back.
    fn catch_up(&mut self, r: usize, mirror: &Mirror) {
        self.check_history(Connection::Bus);
        let Redis {
            history: id,
            clock,
            tag,
            ..
        } = self.redis;
        let state = mirrors::history_state(id, clock);
        mirror.observe(&state);
        let history = mirror.history();
        let applied = history.applied();
        if history.id() != state.history || state.clock < applied {
            // Redis got old data back, and no check of the run has noticed.
            self.begin_history();
            if history.id() != state.history {
                // The session ends.
                self.replicas[r].subscribed = false;
            } else {
                self.catch_up(r, mirror);
            }
            return;
        }
        if applied != 0 {
            if state.clock == applied {
                return;
            }
            let after = history.applied() as u8 + 1;
            let log: Vec<_> = (after..=clock)
                .map(|clock| mirrors::message(id, clock, clock - 1, clock == tag))
                .collect();
            match history.receive_log(&log) {
                LogReceived::Applied => return,
                other => assert_eq!(other, LogReceived::Trimmed, "the log is whole"),
            }
        }
        if tag > 0 && self.without != Without::TargetsAtStart {
            history.apply(&TAG, Purge::Hard, tag.into());
        }
        history.apply_state(&state);
        history.advance(state.clock);
    }

    /// Subscribe, then read the state.
    pub(super) fn reconnect(&mut self, r: usize) {
        let replica = &mut self.replicas[r];
        replica.inbox = [None; BACKLOG];
        replica.subscribed = true;
        let before = replica.mirror;
        let mirror = before.mirror();
        self.catch_up(r, &mirror);
        self.replicas[r].mirror = before.read_back(&mirror);
    }

    // ---- Time, and Redis itself ----

    pub(super) fn tick(&mut self) {
        self.due = self.due.max(self.acknowledged[1]);
        self.acknowledged = [0, self.acknowledged[0]];
        let older = |age: &mut u8| *age = (*age + 1).min(MAX_STALENESS);
        for replica in &mut self.replicas {
            replica.mirror.trust_left = replica.mirror.trust_left.saturating_sub(1);
            for flight in replica.flights.iter_mut().flatten() {
                older(&mut flight.age);
            }
            for message in replica.inbox.iter_mut().flatten() {
                if let Message::Echo { age, .. } = message {
                    older(age);
                }
            }
        }
    }

    /// Redis comes back as another run, with this data. Messages that were on their way to a
    /// replica still arrive.
    pub(super) fn restart(&mut self, data: Redis) {
        self.redis = Redis {
            same_run: false,
            ..data
        };
        for replica in &mut self.replicas {
            replica.subscribed = false;
        }
    }

    /// Drops values that no reader can get any more, so that fewer states differ.
    pub(super) fn settle_down(&mut self, before: &State) {
        let without = self.without;
        for (replica, before) in self.replicas.iter_mut().zip(&before.replicas) {
            let mirror = replica.mirror;
            let raised = mirror.tag > before.mirror.tag;
            replica.memory = replica.memory.filter(|entry| match without {
                // "As other caches do."
                Without::Rule => !raised,
                _ => mirror.standing(entry.load) != Standing::Invalid,
            });
        }
    }
}

/// As [`Stamp::is_later_than`](super::super::Stamp), which the cache compares with in memory and
/// the fill script in Redis.
fn is_later(load: Load, other: Load) -> bool {
    load.history == other.history && load.clock > other.clock
}

impl Caller {
    /// The value to keep.
    fn entry(self) -> Option<Entry> {
        Some(Entry {
            version: self.version,
            load: self.fill?,
            late: false,
            inserted: true,
        })
    }
}

fn shows_gap(own: &History, message: Message) -> bool {
    match message {
        Message::Invalidated {
            history,
            clock,
            before,
            ours,
        } => own.receive(&mirrors::message(history, clock, before, ours)) == Received::Gap,
        Message::Echo { history, clock, .. } => !own.is_at(&mirrors::echo(history, clock)),
    }
}

impl Replica {
    fn queue(&mut self, version: u8) {
        self.queued = Some(version);
        self.own = self.own.max(version);
    }

    /// Takes over a mirror in which `sequence` invalidations were begun. Sequence numbers are
    /// counted anew from what is pending, so that they do not make states differ.
    fn take_over(&mut self, mirror: MirrorState, sequence: u64) {
        self.mirror = mirror;
        let began_later = |load: &mut Load| {
            load.sequence = u8::from(mirror.pending && u64::from(load.sequence) >= sequence);
        };
        if let Some(entry) = &mut self.memory {
            began_later(&mut entry.load);
        }
        for flight in self.flights.iter_mut().flatten() {
            began_later(&mut flight.load);
            began_later(&mut flight.entry.load);
        }
        if let Some(caller) = &mut self.caller {
            began_later(&mut caller.since);
            caller.fill.iter_mut().for_each(began_later);
        }
    }

    fn take_off(&mut self, flight: Flight) {
        self.flights[1] = self.flights[0].take().or(self.flights[1]);
        self.flights[0] = Some(flight);
    }

    fn receive(&mut self, message: Message) {
        if self.subscribed {
            match self.inbox.iter_mut().find(|slot| slot.is_none()) {
                Some(slot) => *slot = Some(message),
                None => self.subscribed = false,
            }
        }
    }

    pub(super) fn take_message(&mut self) -> Option<Message> {
        let first = self.inbox[0].take();
        self.inbox.rotate_left(1);
        first
    }
}
