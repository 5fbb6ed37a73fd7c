//! What the model remembers: Redis, its snapshot, two replicas, and what has been acknowledged.
//!
//! Clocks, epochs and versions are small numbers. Time is ages in ticks, so that a state does not know when it was reached.

/// The part of the protocol that is taken out, to see that it is missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Without {
    Nothing,
    /// Load clocks are compared with nothing: an invalidation drops what is there, as other caches do.
    Rule,
    /// A message or an echo that shows a gap moves `last` on, and nothing is read.
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
    /// A replica's own invalidation moves its `last`.
    LastLeftAlone,
    /// A pending invalidation is queued and holds nothing back here.
    Overlay,
    /// A mirror that starts, or starts anew, reads the clock and no names.
    NamesAtStart,
    /// A reply in another epoch than the mirror's sets a cell by its bare number.
    EpochOfReply,
    /// A copy from Redis that the mirror let pass is joined like a load: within `max_staleness`, with or without trust.
    JoinOfCopy,
    /// A memory hit compares the cells first and the deadline of trust second.
    DeadlineFirst,
}

/// One tick is half of `max_staleness`.
pub const MAX_STALENESS: u8 = 2;
/// The epoch of nothing: Redis is empty, or the mirror has never read a state.
pub const NO_EPOCH: u8 = 0;
/// An answer of the source that has not come yet.
pub const UNREAD: u8 = 0;

/// A copy of the value, with what its load wrote down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    pub version: u8,
    pub clock: u8,
    pub epoch: u8,
    /// It was put where it is after a newer version had been acknowledged: what promise 4 is about.
    pub late: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flight {
    pub entry: Entry,
    /// What the join check compares: the load clock, or `last` for a flight that has looked at Redis and has no lease.
    pub clock: u8,
    pub epoch: u8,
    /// Ticks since it began, up to `MAX_STALENESS`.
    pub age: u8,
    /// It found its value in Redis, and so fills memory alone.
    pub copy: bool,
    /// The mirror, not Redis, let that value pass.
    pub by_mirror: bool,
    /// It began before an invalidation that is pending here.
    pub before_overlay: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hit {
    pub version: u8,
    /// The oldest version that this read may return: it stands since the read began.
    pub needs: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    Invalidated {
        epoch: u8,
        clock: u8,
        before: u8,
        /// It names the tag, and not the other name.
        ours: bool,
    },
    Echo {
        epoch: u8,
        clock: u8,
        /// Ticks since its ping was sent, up to `MAX_STALENESS`.
        age: u8,
    },
}

/// What a subscriber's connection can hold; Redis closes a connection that falls further behind.
pub const BACKLOG: usize = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replica {
    // The mirror. `cell` is the clock of the tag's last invalidation.
    pub epoch: u8,
    pub last: u8,
    pub cell: u8,
    /// Ticks since the ping of the newest echo was sent; no trust at `MAX_STALENESS`.
    pub heard: u8,
    pub memory: Option<Entry>,
    /// A hit that found its entry valid and has yet to look at the deadline; only without `DeadlineFirst`.
    pub hit: Option<Hit>,
    /// The newest flight, which readers may join, and the one that it overtook.
    pub flights: [Option<Flight>; 2],
    /// Redis publishes to it. The replica itself cannot tell.
    pub subscribed: bool,
    pub inbox: [Option<Message>; BACKLOG],
    /// The pool reaches Redis, and Redis takes invalidations.
    pub pool: bool,
    /// The version that a queued invalidation is about.
    pub pending: Option<u8>,
    /// The oldest version that a read which starts now may return here: acknowledged, or held here while pending.
    pub own: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Redis {
    pub epoch: u8,
    /// The `run_id` in the state is that of the running server.
    pub same_run: bool,
    pub clock: u8,
    /// The tag's clock in `names`. It stands for the log too: with one tag both repairs end with this number.
    pub tag: u8,
    pub value: Option<Entry>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    pub without: Without,
    /// The version in the database.
    pub source: u8,
    pub redis: Redis,
    pub snapshot: Option<Redis>,
    pub replicas: [Replica; 2],
    /// The newest versions acknowledged anywhere in this tick, in the one before, and longer ago than `max_staleness`.
    pub acknowledged: [u8; MAX_STALENESS as usize],
    pub due: u8,
    pub epochs: u8,
    /// Steps since the start: the depth, and no part of what makes two states equal.
    pub steps: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connection {
    Pool,
    Bus,
}
