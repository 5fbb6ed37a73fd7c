//! The cache as a program that embeds it uses it: values of its own types, and an end that leaves nothing behind.

mod child;
mod closing;
mod typed;

use std::time::Duration;

use larder::cache::{Cache, Policy};

use crate::support::SOON;

/// Fresh for an hour in both tiers.
fn policy() -> Policy {
    let hour = Duration::from_secs(3600);
    Policy::new(hour, hour)
}

/// A cache that works with the Redis at `url`, and is trusted.
#[track_caller]
fn trusted(url: &str) -> Cache {
    let cache = Cache::builder().redis(url).build().unwrap();
    assert!(cache.wait_trusted(SOON));
    cache
}
