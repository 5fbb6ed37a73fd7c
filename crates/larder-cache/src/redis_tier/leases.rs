//! The leases that this replica holds.
//!
//! A lease is the right to load one key across all replicas. Leases are short, and the bus renews
//! them while their loads run. So a replica that dies holds up the others for the length of one
//! lease, not for that of its slowest load.
//!
//! A lease runs out while its replica cannot reach Redis for longer than that. The load goes on, so
//! the replica takes the lease again as soon as it can, unless another one has it by then.

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
    /// Protects the leases, by their tokens. Held during a round trip only to take leases again.
    held: Mutex<HashMap<String, Held>>,
    renew: Script,
}

/// A lease of a load that runs.
#[derive(Clone)]
struct Held {
    key: String,
    /// The clock of the load, as the lease has it.
    clock: u64,
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
    pub(super) fn add(&self, token: &str, key: &str, clock: u64) {
        let key = key.to_owned();
        let held = Held { key, clock };
        self.held.lock().insert(token.to_owned(), held);
    }

    pub(super) fn remove(&self, token: &str) {
        self.held.lock().remove(token);
    }

    /// Renews all leases in one script. Takes those again that are gone.
    pub(crate) fn renew(&self, connection: &mut Connection) -> RedisResult<()> {
        let held: Vec<(String, Held)> = self.held.lock().clone().into_iter().collect();
        if held.is_empty() {
            return Ok(());
        }
        let mut call = self.renew.prepare_invoke();
        call.arg(LEASE.as_millis() as u64);
        for (token, Held { key, .. }) in &held {
            call.key(key).arg(token);
        }
        let gone: Vec<usize> = call.invoke(connection)?;
        let gone = gone.iter().filter_map(|place| held.get(place - 1));
        self.take_again(gone.map(|(token, _)| token.as_str()).collect(), connection)
    }

    /// Takes the leases of these tokens again, if their loads still run and nobody has them.
    fn take_again(&self, tokens: Vec<&str>, connection: &mut Connection) -> RedisResult<()> {
        if tokens.is_empty() {
            return Ok(());
        }
        // Locked until Redis has replied, so that a load that ends meanwhile gives its lease back
        // after this, not before.
        let held = self.held.lock();
        let mut commands = redis::pipe();
        for token in tokens {
            if let Some(Held { key, clock }) = held.get(token) {
                commands
                    .cmd("SET")
                    .arg(key)
                    .arg(format!("{clock}:{token}"))
                    .arg("NX")
                    .arg("PX")
                    .arg(LEASE.as_millis() as u64);
            }
        }
        let taken: Vec<Option<String>> = commands.query(connection)?;
        let taken = taken.iter().flatten().count();
        if taken > 0 {
            log::info!("leases of loads under way were gone, and are taken again: {taken}");
        }
        Ok(())
    }
}
