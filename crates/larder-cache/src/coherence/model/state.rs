//! What a run remembers: Redis, its snapshot, two replicas, and what has been acknowledged.
//!
//! Clocks, histories and versions are small numbers. Time is counted as ages in ticks, so a state
//! does not know when it was reached.

pub(super) use super::mirrors::{Load, MAX_STALENESS, MirrorState, NO_HISTORY};

/// The call that a run leaves out, to see that the checker misses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Without {
    Nothing,
    /// Load clocks are not compared: an invalidation drops what is there, as other caches do.
    Rule,
    /// A message or an echo that shows a gap advances `applied`, and nothing is read.
    GapRepair,
    /// Memory is served whether or not an echo came.
    Trust,
    /// Any flight is joined.
    JoinCheck,
    /// No connection compares the run of Redis with the one in the state.
    HistoryCheck,
    /// Only the connections of the bus do, not those of the pool.
    HistoryCheckOnPool,
    /// Trust runs from the arrival of the echo, not from the moment its ping was sent.
    TrustFromPing,
    /// A replica's own invalidation advances its `applied`.
    AppliedLeftAlone,
    /// A refused invalidation is queued and blocks nothing here.
    Pending,
    /// A mirror that starts, or starts anew, reads the clock and no targets.
    TargetsAtStart,
    /// A reply of another history than the mirror's sets a clock by its bare number.
    HistoryOfReply,
    /// A copy from Redis that the mirror let pass is joined like a load: within `max_staleness`,
    /// with or without trust.
    JoinOfCopy,
    /// A memory hit compares the clocks first and the deadline of trust second.
    DeadlineFirst,
    /// An inserted value is kept whatever was invalidated since its stamp.
    SinceStamp,
    /// The clocks of two histories are compared for an insert.
    HistoryOfStamp,
    /// The stamp is taken when the insert begins, not before its value was read.
    StampFirst,
    /// What was invalidated since the stamp is asked of the mirror, not of the record.
    RecordDecides,
    /// An insert does not ask what is pending here since its stamp.
    PendingSinceStamp,
    /// The delivery of an invalidation keeps the value that was inserted while it was pending, with
    /// the clock of the delivery.
    EndedByDelivery,
    /// A fill of Redis replaces whatever is there.
    NewerInRedis,
    /// A fill of memory replaces whatever is there.
    NewerInMemory,
}

/// An answer of the source that has not come yet.
pub(super) const UNREAD: u8 = 0;

/// A copy of the value, with the stamp of its load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) version: u8,
    pub(super) load: Load,
    /// It was put where it is after a newer version had been acknowledged: what promise 4 is about.
    pub(super) late: bool,
    pub(super) inserted: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Flight {
    pub(super) entry: Entry,
    /// What the join check compares: the load itself, or the stamp of a flight that has looked at
    /// Redis and has no lease.
    pub(super) load: Load,
    /// Ticks since it began, up to `MAX_STALENESS`.
    pub(super) age: u8,
    /// It found its value in Redis, and so fills memory alone.
    pub(super) copy: bool,
    /// The mirror, not Redis, let that value pass.
    pub(super) by_mirror: bool,
}

/// A caller with a value that it inserts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Caller {
    /// The moment before its value was read or written.
    pub(super) since: Load,
    pub(super) version: u8,
    /// Set when the key was invalidated, if the value is to be kept: the stamp to keep it with.
    pub(super) fill: Option<Load>,
    /// Whether Redis has taken the invalidation.
    pub(super) taken: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hit {
    pub(super) version: u8,
    /// The oldest version that this read may return: it stands since the read began.
    pub(super) needs: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Message {
    Invalidated {
        history: u8,
        clock: u8,
        /// The clock before it; zero where a history begins.
        before: u8,
        /// It names the tag, and not the other tag.
        ours: bool,
    },
    Echo {
        history: u8,
        clock: u8,
        /// Ticks since its ping was sent, up to `MAX_STALENESS`.
        age: u8,
    },
}

/// What a subscriber's connection can hold; Redis closes a connection that falls further behind.
pub(super) const BACKLOG: usize = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Replica {
    pub(super) mirror: MirrorState,
    pub(super) memory: Option<Entry>,
    /// A hit that found its entry valid and has yet to look at the deadline; only without
    /// `DeadlineFirst`.
    pub(super) hit: Option<Hit>,
    /// The newest flight, which readers may join, and the one that it overtook.
    pub(super) flights: [Option<Flight>; 2],
    pub(super) caller: Option<Caller>,
    /// Redis publishes to it. The replica itself cannot tell.
    pub(super) subscribed: bool,
    pub(super) inbox: [Option<Message>; BACKLOG],
    /// The pool reaches Redis, and Redis takes invalidations.
    pub(super) pool: bool,
    /// The version that a queued invalidation is about.
    pub(super) queued: Option<u8>,
    /// The oldest version that a read which starts now may return here: acknowledged, or pending.
    pub(super) own: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Redis {
    pub(super) history: u8,
    /// The `run_id` in the state is that of the running server.
    pub(super) same_run: bool,
    pub(super) clock: u8,
    /// The tag's clock in `names`. It stands for the log, too: only the last message with the tag
    /// matters to a repair.
    pub(super) tag: u8,
    pub(super) value: Option<Entry>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct State {
    pub(super) without: Without,
    /// The version in the database.
    pub(super) source: u8,
    pub(super) redis: Redis,
    pub(super) snapshot: Option<Redis>,
    pub(super) replicas: [Replica; 2],
    /// The newest versions acknowledged anywhere in this tick, in the one before, and longer ago
    /// than `max_staleness`.
    pub(super) acknowledged: [u8; MAX_STALENESS as usize],
    pub(super) due: u8,
    pub(super) histories: u8,
    /// A fill has replaced a value of a higher clock of its history.
    pub(super) newer_was_replaced: bool,
    /// Steps since the start: the depth, and no part of what makes two states equal.
    pub(super) steps: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Connection {
    Pool,
    Bus,
}

impl Redis {
    pub(super) fn reply(&self) -> (u8, u8, u8) {
        (self.history, self.clock, self.tag)
    }
}
