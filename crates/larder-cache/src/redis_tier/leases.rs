//! The leases that this replica holds.
//!
//! A lease is the right to load one key across all replicas. Leases are short, and the bus renews
//! them while their loads run. So a replica that dies holds up the others for the length of one
//! lease, not for that of its slowest load.
//!
//! A lease runs out while its replica cannot reach Redis for longer than that. The load goes on, so
//! the replica takes the lease again as soon as it can, unless another one has it by then. If the
//! load ends before Redis is back, its result waits here, and is stored then.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use redis::{Connection, RedisResult, Script};

use super::fault::Fault;
use crate::coherence::{HistoryId, Stamp, script};
use crate::envelope;

/// How long a lease lives unless it is renewed.
pub(super) const LEASE: Duration = Duration::from_secs(2);
/// The largest result, in bytes, that waits for Redis. There are never more of them than loads.
const LARGEST_KEPT: usize = 1 << 20;
/// How often leases are renewed.
pub(crate) const RENEW_EVERY: Duration = Duration::from_millis(500);

/// The leases that this replica holds.
pub(crate) struct Leases {
    /// Protects the leases, by their tokens. Held during a round trip only to take leases again.
    held: Mutex<HashMap<String, Held>>,
    renew: Script,
    fill: Script,
}

/// A lease of a load that runs, or has ended and could not store its result.
#[derive(Clone)]
pub(super) struct Held {
    key: String,
    /// The clock of the load, as the lease has it.
    clock: u64,
    result: Option<Arc<LateResult>>,
}

/// What a load has brought that ended while Redis was away.
struct LateResult {
    /// The key of the value.
    key: String,
    stamp: Stamp,
    envelope: Vec<u8>,
    /// When its time to live ends.
    until: Instant,
}

/// A value to store, and the lease to give back.
pub(super) struct Fill<'f> {
    /// The key of the value.
    pub(super) value: &'f str,
    /// The key of the lease.
    pub(super) lease: &'f str,
    /// The token of the lease. Empty: the value comes from no load.
    pub(super) token: &'f str,
    pub(super) stamp: Stamp,
    /// The history that is in force here.
    pub(super) history: HistoryId,
    /// Empty: what is stored is dropped.
    pub(super) envelope: &'f [u8],
    pub(super) ttl: Duration,
}

impl Default for Leases {
    fn default() -> Leases {
        Leases {
            held: Mutex::default(),
            renew: script(include_str!("renew.lua")),
            fill: script(include_str!("fill.lua")),
        }
    }
}

impl Leases {
    pub(super) fn add(&self, token: &str, key: &str, clock: u64) {
        let held = Held {
            key: key.to_owned(),
            clock,
            result: None,
        };
        self.held.lock().insert(token.to_owned(), held);
    }

    /// Ends a lease: it is not renewed any more. `None`: the load had none.
    pub(super) fn remove(&self, token: &str) -> Option<Held> {
        self.held.lock().remove(token)
    }

    /// Stores a value and gives its lease back. Returns the answer of `fill.lua`.
    pub(super) fn fill(&self, connection: &mut Connection, fill: &Fill<'_>) -> RedisResult<String> {
        self.fill
            .key(fill.value)
            .key(fill.lease)
            .arg(fill.token)
            .arg(fill.envelope)
            .arg(fill.ttl.as_millis().max(1) as u64)
            .arg(&envelope::head(fill.stamp))
            .arg(&fill.history.0.to_le_bytes())
            .invoke(connection)
    }

    /// Keeps the lease that this load had, and has the value stored when Redis is back. A large one
    /// is not kept.
    pub(super) fn fill_later(&self, held: Held, fill: &Fill<'_>) {
        let Some(until) = Instant::now().checked_add(fill.ttl) else {
            return;
        };
        if fill.envelope.len() > LARGEST_KEPT || fill.envelope.is_empty() {
            return;
        }
        let result = LateResult {
            key: fill.value.to_owned(),
            stamp: fill.stamp,
            envelope: fill.envelope.to_owned(),
            until,
        };
        let held = Held {
            result: Some(Arc::new(result)),
            ..held
        };
        self.held.lock().insert(fill.token.to_owned(), held);
    }

    /// Stores what waits for Redis, and gives those leases back.
    fn fill_late(&self, connection: &mut Connection, history: HistoryId) -> RedisResult<()> {
        let late = |(token, held): (&String, &Held)| {
            let result = held.result.clone()?;
            Some((token.clone(), held.key.clone(), result))
        };
        let late: Vec<_> = self.held.lock().iter().filter_map(late).collect();
        for (token, lease, result) in &late {
            let ttl = result.until.saturating_duration_since(Instant::now());
            let fill = Fill {
                value: &result.key,
                lease,
                token,
                stamp: result.stamp,
                history,
                envelope: &result.envelope,
                ttl,
            };
            // In another history nothing vouches for it.
            if !ttl.is_zero() && history == result.stamp.history {
                match self.fill(connection, &fill) {
                    Err(error) if Fault::of(&error).ends_connection() => {
                        // Tried once. A value that is too large for this connection must not end
                        // that of each session to come: trust and deliveries depend on it.
                        late.iter().for_each(|(token, ..)| {
                            self.remove(token);
                        });
                        return Err(error);
                    }
                    // Redis refuses it, as it can refuse any fill.
                    Err(_) => {}
                    Ok(_) => log::info!("a load that ended while Redis was away is stored"),
                }
            }
            self.remove(token);
        }
        Ok(())
    }

    /// Stores what waits for Redis, if it is of `history`, which is in force. Renews all leases in
    /// one script, and takes those again that are gone.
    pub(crate) fn renew(&self, connection: &mut Connection, history: HistoryId) -> RedisResult<()> {
        self.fill_late(connection, history)?;
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
            if let Some(Held { key, clock, .. }) = held.get(token) {
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
