//! larder: a caching API server.

pub mod cache;
pub mod cli;
pub mod quantity;
pub mod secret;
pub mod source;
