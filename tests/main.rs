//! The integration tests: real servers, the real binary, and every fault that a TCP proxy and a
//! scripted upstream can make.
//!
//! One binary, so that it links once. Each file is one topic, and the crate `testkit` has what they
//! share. A test starts its own servers and shares none, so any test runs alone and all can run at
//! once.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    unreachable_pub
)]

mod allocations;
mod articles;
mod bulkheads;
mod clients;
mod coherence;
mod commands;
mod database;
mod database_roles;
mod docs_page;
mod documents;
mod edge;
mod floors;
mod headers;
mod http_api;
mod http_bodies;
mod http_source;
mod invalidation;
mod keys;
mod lifecycle;
mod logs;
mod metrics;
mod monitoring;
mod openapi;
mod outbox;
mod parameters;
mod pauses;
mod people;
mod questions;
mod quota;
mod redis_failover;
mod redis_faults;
mod redis_states;
mod reload;
mod sandbox;
mod secrets;
mod sharing;
mod sql_resources;
mod stampede;
mod stats;
mod tags;
mod tracing;
mod upstream_faults;
mod views;

use std::time::Duration;

use larder_cache::Cache;
use testkit::SOON;
use testkit::redis::RedisServer;

/// A cache in this process, with long Redis timeouts, because the machine may be busy.
#[track_caller]
fn cache(redis: &RedisServer) -> Cache {
    let patient = Duration::from_secs(5);
    let builder = Cache::builder().redis(&redis.url());
    let cache = builder.redis_timeouts(patient, patient).build().unwrap();
    assert!(cache.redis().wait_up(SOON) && cache.wait_trusted(SOON));
    cache
}
