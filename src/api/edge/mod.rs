//! The edge: the sockets that clients connect to, how many of them there are, and how long they may
//! take.
//!
//! Promise: whatever clients do, file descriptors stay free for Redis, the database and upstreams.
//! A client that does not complete its request in time, or reads nothing of its answer, is
//! disconnected. When all places are taken, a new connection displaces an old one that is idle or
//! stuck. This costs a request two writes to its connection, and no clock read.

mod connection;
mod expect;
mod places;
mod server;
mod watch;

pub(super) use self::connection::Exchange;
pub use self::places::Places;
pub(super) use self::server::bind;
