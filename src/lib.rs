//! larder is a caching API server with a bound on staleness. The operator declares slow things as
//! resources: HTTP APIs, SQL queries, news. larder answers each from this process's memory, else
//! from Redis, else from its source, and fills both tiers on the way back.
//!
//! # The house
//!
//! This crate is the server. The cache is a crate of its own, [`larder_cache`]. The modules here
//! stand on floors: a module imports from lower floors only.
//!
//! | floor | module | is |
//! |---|---|---|
//! | 6 | [`cli`] | the commands; puts the floors together: [`cli::run`] |
//! | 5 | [`api`] | HTTP; the only floor that knows status codes: [`api::Api`] |
//! | 4 | [`config`] | `config.toml` as a valid [`config::Config`], or every fault at once |
//! | 3 | [`resource`] | what the operator declared, found by path: [`resource::Resources`] |
//! | 3 | [`auth`] | API keys and their rates; knows no HTTP: [`auth::KeyTable`] |
//! | 2 | [`source`] | HTTP APIs and news services, under quotas: [`source::http`] |
//! | 1 | [`database`] | Postgres or SQLite: [`database::Database`] |
//! | 0 | [`larder_cache`] | the two-tier cache: [`larder_cache::Cache`] |
//! | 0 | [`quantity`] | durations, sizes and rates as people write them |
//! | 0 | [`template`] | texts with places, `{x}` and `${X}`: [`template::Template`] |
//! | 0 | [`worker`] | threads and background jobs: [`worker::Worker`] |
//!
//! Floors 0 to 4 are synchronous and use no async runtime. To embed the cache in another program,
//! begin at the page of [`larder_cache`].
//!
//! # The read line
//!
//! A request reaches [`api`]. [`resource::Resources::find`] finds its resource by path, and
//! [`auth::KeyTable`] its caller. [`resource::Resource::key`] writes the canonical
//! [`larder_cache::Key`] and returns the view of the value that the request asks for. Then:
//!
//! 1. [`larder_cache::Cache::get`] looks into memory. A hit ends here, on the async worker, without
//!    blocking.
//! 2. [`larder_cache::Cache::fetch`] returns a [`larder_cache::Ticket`], which is a future. All
//!    readers of one key share one load.
//! 3. Redis is asked, for many keys at once. A copy that is fresh by its [`larder_cache::Policy`]
//!    fills memory and is the answer.
//! 4. A lease makes one replica load. The [`larder_cache::Load`] runs on a blocking thread, within
//!    its deadline and its [`source::quota::Quota`].
//! 5. The new [`larder_cache::Entry`] fills both tiers, and all readers of the key get it.
//!
//! News are a [`larder_cache::Composition`]: one part per upstream, each loaded as above. The
//! merged value is kept in memory only. Each look-up ends in one [`larder_cache::Outcome`], from
//! which come the headers, the counters, the log line and the `cached` field.
//!
//! # The invalidation line
//!
//! [`larder_cache::Cache::invalidate`] takes [`larder_cache::InvalidationTarget`]s: tags, keys, or
//! everything. From its first step on, this replica serves nothing that was loaded before and has
//! one of these targets. One script in Redis advances the clock of the history, records the targets
//! and tells all replicas. While Redis cannot be reached, the invalidation is pending and is
//! delivered later: [`larder_cache::InvalidationReceipt::is_pending`].
//!
//! Each [`larder_cache::Entry`] has a [`larder_cache::Stamp`]: the [`larder_cache::HistoryId`] and
//! the clock at which its load began. It may be served only if none of its tags was invalidated
//! later. From memory it may be served only while this replica can prove that it hears of every
//! invalidation: [`larder_cache::BusState::trusted`]. A reader that knows the clock of a change
//! passes it to [`larder_cache::Cache::get`] and [`larder_cache::Cache::fetch_after`].
//! `docs/consistency.md` has the promises and their limits.

pub mod api;
pub mod auth;
pub mod cli;
pub mod config;
pub mod database;
pub mod quantity;
pub mod resource;
pub mod source;
pub mod template;
pub mod worker;
