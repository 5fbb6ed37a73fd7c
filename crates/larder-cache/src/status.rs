//! Status: what a cache reports of its bus and of its memory.

/// The state of the bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BusState {
    /// Whether this replica would have heard of any invalidation that was acknowledged longer ago
    /// than `max_staleness`.
    pub trusted: bool,
    /// Everything up to this clock was heard.
    pub clock: u64,
    /// How often messages were missing and were fetched again.
    pub gaps_repaired: u64,
    /// How many targets are pending: Redis has not taken their invalidation yet.
    pub pending: usize,
    /// How many targets this replica knows the last invalidation of.
    pub names: usize,
}

/// The contents of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemorySize {
    /// How many entries.
    pub entries: u64,
    /// Their weight in bytes: bodies, keys and bookkeeping.
    pub bytes: u64,
    /// How many entries were evicted so far.
    pub evictions: u64,
}
