//! FLOOR 0: the two-tier cache.

mod error;
mod policy;
mod settings;

pub use error::LoadError;
pub use policy::{Policy, StaleRules};
pub use settings::{CoherenceSettings, Eviction, LoadSettings, MemorySettings, RedisSettings};
