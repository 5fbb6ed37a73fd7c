//! larder: a caching API server.

pub mod cache;
pub mod cli;
pub mod config;
pub mod database;
pub mod quantity;
pub mod resource;
pub mod secret;
pub mod source;
