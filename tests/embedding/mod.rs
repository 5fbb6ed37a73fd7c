//! The cache as a program that embeds it uses it: values of its own types, and an end that leaves
//! nothing behind.

mod child;
mod closing;
mod typed;

use std::time::Duration;

use larder_cache::{Cache, CacheBuilder, Policy};

use testkit::SOON;

/// Fresh for an hour in both tiers.
fn policy() -> Policy {
    let hour = Duration::from_secs(3600);
    Policy::new(hour, hour)
}

/// A cache to work with the Redis at `url`, which may take its time: the machine may be busy.
fn builder(url: &str) -> CacheBuilder {
    let patient = Duration::from_secs(5);
    Cache::builder().redis(url).redis_timeouts(patient, patient)
}

/// The same, made and trusted.
#[track_caller]
fn trusted(url: &str) -> Cache {
    let cache = builder(url).build().unwrap();
    assert!(cache.wait_trusted(SOON));
    cache
}
