//! How long a value may be served, and from where.

use std::time::Duration;

/// What one resource allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// How long a copy may be served from memory before Redis is asked again; zero: this tier is off.
    pub memory: Duration,
    /// How long a value is fresh in Redis after its load; zero: this tier is off.
    pub redis: Duration,
    /// How long it is remembered that there is no value, in either tier; zero: not at all.
    pub absent: Duration,
    /// When a value past its TTL may still be served.
    pub stale: StaleRules,
    /// How long a request waits for a load when there is a copy past `while_revalidate` but within `if_error`. `None`: to the end.
    pub soft_timeout: Option<Duration>,
    /// How long memory is served while a replica hears from neither the bus nor Redis. `None`: to the end of its memory TTL.
    pub blind_ttl: Option<Duration>,
}

/// When a stale value may be served (RFC 5861), counted from the end of its TTL.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StaleRules {
    /// At once, while a load in the background renews it.
    pub while_revalidate: Duration,
    /// When the load fails.
    pub if_error: Duration,
    /// Values from before Redis lost its data are stale rather than dead.
    pub on_reset: bool,
}
