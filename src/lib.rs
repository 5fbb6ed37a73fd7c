//! larder: a caching API server.

pub mod cache;
pub mod quantity;
pub mod secret;
pub mod source;
