//! larder: a caching API server. Slow things are declared as resources; each is answered from this process's memory, else from
//! Redis, else from its source, and both tiers are filled on the way back.
//!
//! # The house
//!
//! A workspace: this crate is the server, [`larder_cache`] the cache that it is built on. The modules here are floors. An import points to a lower floor or stays on its own.
//!
//! | floor | module | is |
//! |---|---|---|
//! | 6 | [`cli`] | the commands; puts the floors together: [`cli::run`] |
//! | 5 | [`api`] | HTTP, and the only floor that knows status codes: [`api::Api`] |
//! | 4 | [`config`] | `config.toml` as a [`config::Config`] that is wholly valid, or every fault at once |
//! | 3 | [`auth`] | API keys, their rates, and who guesses: [`auth::KeyTable`] |
//! | 3 | [`resource`] | what the operator declared, found by path: [`resource::Resources`] |
//! | 2 | [`source`] | where a value comes from on a miss: [`source::http`], [`source::quota`], [`source::news`] |
//! | 1 | [`database`] | Postgres or SQLite: [`database::Database`] |
//! | - | [`larder_cache`] | the two-tier cache, a crate of its own: [`larder_cache::Cache`] |
//! | 0 | [`quantity`] | durations, sizes and rates as people write them |
//! | 0 | [`worker`] | the server's threads: [`worker::Worker`] |
//!
//! Floors 0 to 4 are synchronous and know no async runtime. [`larder_cache`] can be
//! embedded in a program of another kind: its page begins with how.
//!
//! # The read line
//!
//! A request reaches [`api`], which asks [`resource::Resources::find`] for its resource and [`auth::KeyTable`] for
//! its caller. [`resource::Resource::key`] writes the canonical [`larder_cache::Key`] and returns the view to cut from the value. Then:
//!
//! 1. [`larder_cache::Cache::get`]: memory. A hit ends here, on the async worker, without blocking.
//! 2. [`larder_cache::Cache::fetch`]: a [`larder_cache::Ticket`], which is a plain future. Readers of one key share one flight.
//! 3. Redis, batched. A value that [`larder_cache::Policy`] calls fresh fills memory and is the answer.
//! 4. A lease, so that one replica loads; then the [`larder_cache::Load`] on a blocking thread, for news
//!    [`source::news::NewsUpstream::fetch`] under its [`source::quota::Quota`] and its deadline.
//! 5. Both tiers are filled with the [`larder_cache::Entry`], and the flight lands.
//!
//! News are a [`larder_cache::Composition`]: one such part per upstream, merged, and the whole kept in memory alone. How a look-up ended
//! is one [`larder_cache::Outcome`], which feeds the headers, the counters, the log and the body.
//!
//! # The invalidation line
//!
//! [`larder_cache::Cache::invalidate`] takes [`larder_cache::InvalidationTarget`]s: tags, keys, or everything. From its first step nothing loaded before is
//! served here. One script in Redis advances the clock of the history, notes the names and tells all replicas; while Redis cannot
//! take it, it is pending ([`larder_cache::InvalidationReceipt::is_pending`]) and is delivered later.
//!
//! Every [`larder_cache::Entry`] carries where its load began: the [`larder_cache::HistoryId`] of the history and its clock, one [`larder_cache::Stamp`] for each
//! [`larder_cache::Dependency`]. It may be served only if none of these names was invalidated later, and from memory only while this
//! replica can prove that it would have heard: [`larder_cache::BusState::trusted`]. A reader who knows the clock of a change gives it to
//! [`larder_cache::Cache::get`] and [`larder_cache::Cache::fetch_after`]. What is promised, and what not, is in `docs/consistency.md`.

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
