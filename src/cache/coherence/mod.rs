//! Coherence: which history of changes this replica's entries belong to.
//!
//! Redis keeps one history: an epoch (its random identity) and a clock that every invalidation advances. Every new connection
//! compares Redis's own run id with the one that the history began on, before it is used for anything else; whoever finds
//! another one, or no history, begins a new one. So values that Redis lost, or got back from an old snapshot, are never compared
//! with the clocks of a history that they do not belong to.

mod mirror;

pub use mirror::Epoch;
pub(crate) use mirror::{Mirror, Seen};

/// Compares Redis's run with the history's and begins a new history where they differ.
///
/// `KEYS`: state. `ARGV`: the identity of a history that might begin now. Returns epoch, clock, Redis's time in microseconds.
pub(crate) const HISTORY_LUA: &str = include_str!("history.lua");
