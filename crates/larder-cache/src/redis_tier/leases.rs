//! The leases that this replica holds.
//!
//! A lease is the right to load one key across all replicas. Leases are short, and the bus renews
//! them while their loads run. So a replica that dies holds up the others for the length of one
//! lease, not for that of its slowest load.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use redis::{Connection, RedisResult, Script};

use crate::coherence::script;

/// How long a lease lives unless it is renewed.
pub(super) const LEASE: Duration = Duration::from_secs(2);
/// How often leases are renewed.
pub(crate) const RENEW_EVERY: Duration = Duration::from_millis(500);

/// The leases that this replica holds.
pub(crate) struct Leases {
    /// Protects the token and the key of each lease.
    held: Mutex<HashMap<String, String>>,
    renew: Script,
}

impl Default for Leases {
    fn default() -> Leases {
        Leases {
            held: Mutex::default(),
            renew: script(include_str!("renew.lua")),
        }
    }
}

impl Leases {
    pub(super) fn add(&self, token: &str, key: &str) {
        self.held.lock().insert(token.to_owned(), key.to_owned());
    }

    pub(super) fn remove(&self, token: &str) {
        self.held.lock().remove(token);
    }

    /// Renews all leases in one script.
    pub(crate) fn renew(&self, connection: &mut Connection) -> RedisResult<()> {
        let held: Vec<(String, String)> = self.held.lock().clone().into_iter().collect();
        if held.is_empty() {
            return Ok(());
        }
        let mut call = self.renew.prepare_invoke();
        call.arg(LEASE.as_millis() as u64);
        for (token, key) in &held {
            call.key(key).arg(token);
        }
        call.invoke(connection)
    }
}
