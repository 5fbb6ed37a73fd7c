//! Coherence: what was invalidated, and when.
//!
//! The rule: an entry may be served only if nothing that it depends on was invalidated after its load began, and a copy in memory
//! only while this replica can prove that it would have heard. Redis keeps one history: an epoch (its random identity), a clock
//! that every invalidation advances, the last invalidation of each name, and a log. [`Mirror`] is what this replica knows of it,
//! [`bus`] how it comes to know, [`Pending`](pending::Pending) what Redis does not know yet.

pub(crate) mod bus;
mod era;
mod hearing;
mod message;
mod mirror;
mod name;
mod pending;
mod scripts;

pub use era::HistoryId;
pub use mirror::{Dependency, Stamp};
pub(crate) use mirror::{Mirror, Seen, Standing};
pub use name::{InvalidationTarget, Purge};
pub(crate) use pending::Batch;
pub(crate) use scripts::Scripts;
