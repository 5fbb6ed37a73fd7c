//! The protocol as a state machine: what each step does to Redis and to the replicas.
//!
//! A step is one command or script in Redis, or what a replica does with one message or one reply.

use super::state::*;

impl State {
    // ---- Redis ----

    /// "Every new connection compares `run_id`." After a restart every connection is new, so the check stands at each use.
    fn check_history(&mut self, connection: Connection) {
        if self.finds_new_history(connection) {
            // A host whose clock is behind: the numbers of the two histories overlap.
            self.epochs += 1;
            let before = self.redis.clock;
            self.redis.epoch = self.epochs;
            self.redis.same_run = true;
            self.redis.clock += 1;
            self.redis.tag = 0;
            self.publish(before, false);
        }
    }

    pub fn finds_new_history(&self, connection: Connection) -> bool {
        let skipped = match self.without {
            Without::HistoryCheck => true,
            Without::HistoryCheckOnPool => connection == Connection::Pool,
            _ => false,
        };
        self.redis.epoch == NO_EPOCH || (!self.redis.same_run && !skipped)
    }

    fn publish(&mut self, before: u8, ours: bool) {
        let Redis { epoch, clock, .. } = self.redis;
        for r in 0..2 {
            let message = Message::Invalidated {
                epoch,
                clock,
                before,
                ours,
            };
            self.replicas[r].receive(message);
        }
    }

    /// The invalidation script, and what the replica does with its reply.
    fn invalidate_in_redis(&mut self, r: usize, ours: bool) {
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
        let Redis { epoch, clock, .. } = self.redis;
        let replica = &mut self.replicas[r];
        if replica.epoch != epoch && self.without != Without::EpochOfReply {
            // The pool has met the new history before the bus has. Its clock means nothing to this mirror, so the mirror
            // gives up: no trust, and a gap at the next echo.
            replica.epoch = epoch;
            replica.last = 0;
            replica.cell = 0;
            replica.heard = MAX_STALENESS;
        }
        if ours {
            replica.raise(clock, self.without);
        }
        if self.without == Without::LastLeftAlone {
            replica.last = replica.last.max(clock);
        }
    }

    // ---- Writes ----

    pub fn write(&mut self) {
        self.source += 1;
    }

    pub fn invalidate(&mut self, r: usize) {
        let version = self.source;
        if self.replicas[r].pool {
            self.invalidate_in_redis(r, true);
            self.acknowledge(r, version);
        } else {
            let replica = &mut self.replicas[r];
            replica.pending = Some(version);
            replica.own = replica.own.max(version);
            if self.without != Without::Overlay {
                replica.memory = None;
                for flight in replica.flights.iter_mut().flatten() {
                    flight.before_overlay = true;
                }
            }
        }
    }

    pub fn invalidate_other_name(&mut self, r: usize) {
        self.invalidate_in_redis(r, false);
    }

    pub fn deliver_pending(&mut self, r: usize) {
        if let Some(version) = self.replicas[r].pending.take() {
            self.invalidate_in_redis(r, true);
            self.acknowledge(r, version);
        }
    }

    fn acknowledge(&mut self, r: usize, version: u8) {
        self.replicas[r].own = self.replicas[r].own.max(version);
        self.acknowledged[0] = self.acknowledged[0].max(version);
    }

    // ---- Loads ----

    /// A load begins: the load clock is read, and the source is asked after that.
    pub fn load(&mut self, r: usize, answered_at_once: bool) {
        let (clock, epoch) = if self.replicas[r].pool {
            self.check_history(Connection::Pool);
            (self.redis.clock, self.redis.epoch)
        } else {
            (self.replicas[r].last, self.replicas[r].epoch)
        };
        let version = if answered_at_once {
            self.source
        } else {
            UNREAD
        };
        self.replicas[r].take_off(Flight {
            entry: Entry {
                version,
                clock,
                epoch,
                late: false,
            },
            clock,
            epoch,
            age: 0,
            copy: false,
            by_mirror: false,
            before_overlay: false,
        });
    }

    pub fn source_answers(&mut self, r: usize, flight: usize) {
        if let Some(flight) = &mut self.replicas[r].flights[flight] {
            flight.entry.version = self.source;
        }
    }

    /// A flight finds a value in Redis that it may serve. It has it in hand; memory gets it later.
    pub fn look(&mut self, r: usize) {
        if let Some(entry) = self.found_in_redis(r) {
            let by_mirror = self.trusted(r);
            self.check_history(Connection::Pool);
            let replica = &mut self.replicas[r];
            replica.take_off(Flight {
                entry,
                clock: replica.last,
                epoch: replica.epoch,
                age: 0,
                copy: true,
                by_mirror,
                before_overlay: false,
            });
        }
    }

    /// The fill of Redis. Leases are left out, so it always writes, also over what a later load has filled.
    pub fn fill(&mut self, r: usize, flight: usize) {
        if let Some(flight) = self.replicas[r].flights[flight] {
            self.check_history(Connection::Pool);
            self.redis.value = Some(self.placed(flight.entry));
        }
    }

    /// The end of a flight: memory is filled, if the mirror does not know better.
    pub fn insert(&mut self, r: usize, flight: usize) {
        if let Some(flight) = self.replicas[r].flights[flight].take() {
            let entry = self.placed(flight.entry);
            let replica = &mut self.replicas[r];
            let dead = entry.epoch == replica.epoch
                && entry.clock < replica.cell
                && self.without != Without::Rule;
            if !dead && !flight.before_overlay {
                replica.memory = Some(entry);
            }
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
    pub fn ping(&mut self, r: usize) {
        self.check_history(Connection::Bus);
        let Redis { epoch, clock, .. } = self.redis;
        self.replicas[r].receive(Message::Echo {
            epoch,
            clock,
            age: 0,
        });
    }

    pub fn deliver(&mut self, r: usize) {
        let Some(message) = self.replicas[r].take_message() else {
            return;
        };
        if self.shows_gap(r, message) {
            self.repair(r);
        }
        let without = self.without;
        let replica = &mut self.replicas[r];
        match message {
            Message::Invalidated {
                epoch, clock, ours, ..
            } => {
                if epoch == replica.epoch {
                    replica.last = replica.last.max(clock);
                    if ours {
                        replica.raise(clock, without);
                    }
                }
            }
            Message::Echo { epoch, clock, age } => {
                if epoch == replica.epoch {
                    replica.last = replica.last.max(clock);
                }
                let age = match without {
                    Without::TrustFromPing => 0,
                    _ => age,
                };
                replica.heard = replica.heard.min(age);
            }
        }
    }

    /// A clock at or below `last` is no news: a repair may have read further than what is still on its way.
    pub fn shows_gap(&self, r: usize, message: Message) -> bool {
        let Replica { epoch, last, .. } = self.replicas[r];
        let (its_epoch, missing) = match message {
            Message::Invalidated {
                epoch,
                clock,
                before,
                ..
            } => (epoch, clock > last && before > last),
            Message::Echo { epoch, clock, .. } => (epoch, clock > last),
        };
        its_epoch != epoch || (missing && self.without != Without::GapRepair)
    }

    /// What was missed is read from the log; a mirror of another epoch is replaced by the whole state.
    fn repair(&mut self, r: usize) {
        self.check_history(Connection::Bus);
        let Redis {
            epoch, clock, tag, ..
        } = self.redis;
        let replica = &mut self.replicas[r];
        if replica.epoch != epoch {
            replica.epoch = epoch;
            replica.last = clock;
            replica.cell = match self.without {
                Without::NamesAtStart => 0,
                _ => tag,
            };
        } else {
            replica.last = replica.last.max(clock);
            replica.raise(tag, self.without);
        }
    }

    /// Subscribe, then read the state.
    pub fn reconnect(&mut self, r: usize) {
        let replica = &mut self.replicas[r];
        replica.inbox = [None; BACKLOG];
        replica.subscribed = true;
        self.repair(r);
    }

    // ---- Time, and Redis itself ----

    pub fn tick(&mut self) {
        self.due = self.due.max(self.acknowledged[1]);
        self.acknowledged = [0, self.acknowledged[0]];
        let older = |age: &mut u8| *age = (*age + 1).min(MAX_STALENESS);
        for replica in &mut self.replicas {
            older(&mut replica.heard);
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

    /// Redis comes back as another run, with this data. What was already on its way to a replica still arrives.
    pub fn restart(&mut self, data: Redis) {
        self.redis = Redis {
            same_run: false,
            ..data
        };
        for replica in &mut self.replicas {
            replica.subscribed = false;
        }
    }
}

impl Replica {
    /// Max-merge into the cell; what it kills is dropped.
    fn raise(&mut self, clock: u8, without: Without) {
        let news = clock > self.cell;
        self.cell = self.cell.max(clock);
        let dead = |entry: &Entry| match without {
            Without::Rule => news,
            _ => entry.epoch == self.epoch && entry.clock < self.cell,
        };
        self.memory = self.memory.filter(|entry| !dead(entry));
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

    pub fn take_message(&mut self) -> Option<Message> {
        let first = self.inbox[0].take();
        self.inbox.rotate_left(1);
        first
    }
}
