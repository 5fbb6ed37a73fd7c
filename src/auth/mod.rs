//! FLOOR 3: API keys. Who presents one, how often they may ask, and who guesses.
//!
//! Promise: a check neither blocks nor asks the database. Nothing here knows HTTP: `api/access.rs`
//! reads the header, asks this module, and says no in HTTP's words.

mod client_network;
mod key_table;
mod limiter;
mod refresher;
mod wrong_keys;

pub use self::client_network::ClientNetwork;
pub use self::key_table::{KeyRecord, KeyTable};
pub use self::limiter::{Decision, Limiter};
pub use self::refresher::Refresher;
pub use self::wrong_keys::WrongKeys;

/// The tag that replicas invalidate to tell each other that a key was revoked. No entry has it:
/// a resource's tag has no space.
pub const KEYS_CHANGED: &str = "api keys";
