//! larder: a caching API server. Slow things are declared as resources; each is answered from this process's memory, else from
//! Redis, else from its source, and both tiers are filled on the way back.
//!
//! # The house
//!
//! One crate; its modules are floors. An import points to a lower floor or stays on its own.
//!
//! | floor | module | is |
//! |---|---|---|
//! | 6 | [`cli`] | the commands; puts the floors together: [`cli::run`] |
//! | 5 | [`api`] | HTTP, and the only floor that knows status codes: [`api::Api`] |
//! | 4 | [`config`] | `config.toml` as a [`config::Config`] that is wholly valid, or every fault at once |
//! | 3 | [`resource`] | what the operator declared, found by path: [`resource::Resources`] |
//! | 2 | [`source`] | where a value comes from on a miss: [`source::http`], [`source::quota`], [`source::news`] |
//! | 1 | [`database`] | Postgres or SQLite: [`database::Database`] |
//! | 0 | [`cache`] | the two-tier cache, behind one door: [`cache::Cache`] |
//! | 0 | [`quantity`], [`secret`] | durations, sizes and rates as people write them; what must not be shown |
//!
//! Floors 0 to 4 are synchronous and know no async runtime. [`cache`] imports nothing else of the crate but [`secret`], and can be
//! embedded in a program of another kind: its page begins with how.
//!
//! # The read line
//!
//! A request reaches [`api`], which asks [`resource::Resources::find`] for its resource and [`api::key_table::KeyTable`] for
//! its caller. [`resource::Resource::key`] writes the canonical [`cache::Key`] and returns the view to cut from the value. Then:
//!
//! 1. [`cache::Cache::get`]: memory. A hit ends here, on the async worker, without blocking.
//! 2. [`cache::Cache::fetch`]: a [`cache::Ticket`], which is a plain future. Readers of one key share one flight.
//! 3. Redis, batched. A value that [`cache::Policy`] calls fresh fills memory and is the answer.
//! 4. A lease, so that one replica loads; then the [`cache::Load`] on a blocking thread, for news
//!    [`source::news::NewsUpstream::fetch`] under its [`source::quota::Quota`] and its deadline.
//! 5. Both tiers are filled with the [`cache::Entry`], and the flight lands.
//!
//! News are a [`cache::Composition`]: one such part per upstream, merged, and the whole kept in memory alone. How a look-up ended
//! is one [`cache::Outcome`], which feeds the headers, the counters, the log and the body.
//!
//! # The invalidation line
//!
//! [`cache::Cache::invalidate`] takes [`cache::InvalidationTarget`]s: tags, keys, or everything. From its first step nothing loaded before is
//! served here. One script in Redis advances the clock of the history, notes the names and tells all replicas; while Redis cannot
//! take it, it is pending ([`cache::InvalidationReceipt::is_pending`]) and is delivered later.
//!
//! Every [`cache::Entry`] carries where its load began: the [`cache::HistoryId`] of the history and its clock, one [`cache::Stamp`] for each
//! [`cache::Dependency`]. It may be served only if none of these names was invalidated later, and from memory only while this
//! replica can prove that it would have heard: [`cache::BusState::trusted`]. A reader who knows the clock of a change gives it to
//! [`cache::Cache::get`] and [`cache::Cache::fetch_after`]. What is promised, and what not, is in `docs/consistency.md`.

pub mod api;
pub mod cache;
pub mod cli;
pub mod config;
pub mod database;
pub mod quantity;
pub mod resource;
pub mod secret;
pub mod source;
