//! The leases that this replica holds.
//!
//! They are short, and renewed while their loads run, by the bus: a replica that dies holds up the others for one lease, not for its
//! slowest load.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::Script;

/// How long a lease lives unless it is renewed.
pub(super) const LEASE: Duration = Duration::from_secs(2);
/// How often leases are renewed.
pub(crate) const RENEW_EVERY: Duration = Duration::from_millis(500);

/// The leases that this replica holds: token and key of each.
#[derive(Debug, Default)]
pub(crate) struct Held(Mutex<HashMap<String, String>>);

impl Held {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn note(&self, token: &str, key: &str) {
        self.lock().insert(token.to_owned(), key.to_owned());
    }

    pub(super) fn forget(&self, token: &str) {
        self.lock().remove(token);
    }

    /// Renews them all in one script.
    pub(crate) fn renew(&self, connection: &mut redis::Connection) -> redis::RedisResult<()> {
        let held: Vec<(String, String)> = self.lock().clone().into_iter().collect();
        if held.is_empty() {
            return Ok(());
        }
        let script = Script::new(concat!(
            include_str!("../coherence/call.lua"),
            include_str!("renew.lua")
        ));
        let mut call = script.prepare_invoke();
        call.arg(LEASE.as_millis() as u64);
        for (token, key) in &held {
            call.key(key).arg(token);
        }
        call.invoke(connection)
    }
}
