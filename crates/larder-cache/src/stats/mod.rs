//! Counts that many threads make at once: a [`Counter`] and a [`Histogram`] of durations.
//!
//! Promise: to count costs a load and a store in memory that no other thread writes to. The numbers
//! are exact, also when threads come and go. Reading sums up what each thread has counted.

mod counter;
mod histogram;
mod per_thread;

pub use counter::Counter;
pub use histogram::{Histogram, Snapshot};
pub(crate) use per_thread::PerThread;
