//! The edge: the sockets that clients connect to, how many of them there are, and how long they may
//! take.
//!
//! Promise: whatever clients do, descriptors stay free for Redis, the database and upstreams; a
//! client that sends no whole request, or takes nothing of its answer, is cut; and where all places
//! are taken, a new connection takes the place of an old one that does no work. A request pays for
//! this with two writes to its connection, and reads no clock.

mod connection;
mod expect;
mod places;
mod server;
mod source;
mod watch;

pub(super) use self::connection::Exchange;
pub use self::places::Places;
pub use self::server::{EdgeSettings, bind};
pub(super) use self::source::Source;
