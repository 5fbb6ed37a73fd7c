//! Coherence: what was invalidated, and when.
//!
//! The rule: an entry may be served only if nothing that it depends on was invalidated after its
//! load began. A memory entry may be served only while this replica can prove that it would have
//! heard of such an invalidation.
//!
//! Redis keeps one history: a random id, a clock that every invalidation advances, the last
//! invalidation of each target, and a log. [`Mirror`] is what this replica knows of it. `pending`
//! is what Redis has not confirmed yet. [`Scripts`] are the commands that read and advance it. Only
//! they touch Redis, on a connection that the caller brings; the rest takes no I/O.
//!
//! Arrows: `bus` imports `redis_tier` and this folder, `redis_tier` imports this folder, and this
//! folder imports neither.

mod dependency;
mod history;
mod history_id;
mod judgement;
mod message;
mod mirror;
#[cfg(test)]
mod model;
mod origin;
mod pending;
mod scripts;
mod since;
mod target;

pub use dependency::{Dependency, Since, Stamp};
pub(crate) use history::{History, HistoryState, LogReceived, Received};
pub use history_id::HistoryId;
pub(crate) use judgement::{HitMoment, Part, Record, Verdict, judge};
pub(crate) use message::{Echo, Message};
pub(crate) use mirror::{HistoryRetired, Mirror, Observed, Standing};
pub(crate) use origin::InvalidatedTargets;
pub use origin::InvalidationOrigin;
pub(crate) use pending::Batch;
pub(crate) use scripts::{
    Invalidated, Ping, Said, Scripts, bytes, history_script, script, unexpected,
};
pub(crate) use since::standing_since;
pub use target::{InvalidationTarget, Purge};
