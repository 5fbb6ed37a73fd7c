//! The cache as a program that embeds it uses it, over a real Redis.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    unreachable_pub
)]

mod allocations;
mod audit;
mod child;
mod closing;
mod coherence;
mod examples;
mod insert;
mod metrics;
mod runners;
mod shared_redis;
mod subscription;
mod typed;
mod wrap;

use std::sync::Arc;
use std::time::Duration;

use larder_cache::{
    Cache, CacheBuilder, CacheItem, Key, Load, LoadContext, LoadError, Loaded, Policy, Producer,
    Request, Tag, Tally,
};
use testkit::SOON;

/// Fresh for an hour in both tiers.
fn policy() -> Policy {
    let hour = Duration::from_secs(3600);
    Policy::new(hour, hour)
}

/// A cache on the Redis at `url`, with long timeouts since the machine may be busy.
fn builder(url: &str) -> CacheBuilder {
    let patient = Duration::from_secs(5);
    Cache::builder().redis(url).redis_timeouts(patient, patient)
}

/// The same, made and trusted.
#[track_caller]
fn trusted(url: &str) -> Cache {
    let cache = builder(url).build().unwrap();
    assert!(cache.redis().wait_up(SOON) && cache.wait_trusted(SOON));
    cache
}

/// The same with a bound that a busy machine does not exceed, for tests that tell memory hits from
/// others.
#[track_caller]
fn steady(url: &str) -> Cache {
    let cache = builder(url).max_staleness(SOON).build().unwrap();
    assert!(cache.redis().wait_up(SOON) && cache.wait_trusted(SOON));
    cache
}

/// A look-up of the value with this key and tag, which `run` loads.
fn request(
    (key, tag): (&str, &str),
    policy: &Policy,
    tally: &Arc<Tally>,
    run: impl FnOnce(LoadContext) -> Result<Loaded, LoadError> + Send + 'static,
) -> Request {
    Request {
        item: CacheItem {
            key: Key::new(1, key),
            policy: Arc::new(policy.clone()),
            tags: Box::new([Tag::new(tag)]),
            share: "test".into(),
            label: "test".into(),
            note: Default::default(),
            jitter: 0,
            tally: tally.clone(),
        },
        producer: Producer::Load(Load {
            limit: SOON,
            run: Box::new(run),
        }),
    }
}
