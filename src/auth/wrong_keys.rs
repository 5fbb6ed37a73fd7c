//! Unknown API keys: how many requests had one, and which clients sent too many.
//!
//! Promise: only a request with an unknown key is counted or slowed. A valid key always passes,
//! even behind a proxy, where all clients have one address. The memory for the counts is bounded.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use moka::sync::Cache;

use super::client_network::ClientNetwork;
use super::limiter::Limiter;
use crate::quantity::Rate;

/// How many unknown keys a client may send before it is slowed.
const RATE: Rate = Rate {
    count: 30,
    per: Duration::from_secs(60),
};
/// Clients that are remembered at most.
const CLIENTS: u64 = 10_000;
/// How long a client is remembered after its last unknown key.
const MEMORY: Duration = Duration::from_secs(600);
/// How many clients are named in the log.
const LINES: Rate = Rate {
    count: 10,
    per: Duration::from_secs(600),
};

/// See the module.
pub struct WrongKeys {
    clients: Cache<ClientNetwork, Arc<Suspect>>,
    lines: Limiter,
    refused: AtomicU64,
    slowed: AtomicU64,
}

struct Suspect {
    limiter: Limiter,
    logged: AtomicBool,
}

impl Default for WrongKeys {
    fn default() -> Self {
        WrongKeys {
            clients: Cache::builder()
                .max_capacity(CLIENTS)
                .time_to_idle(MEMORY)
                .build(),
            lines: Limiter::new(LINES),
            refused: AtomicU64::new(0),
            slowed: AtomicU64::new(0),
        }
    }
}

impl WrongKeys {
    /// Counts an unknown key that `client` sent. Returns how long the client has to wait if it sent
    /// too many.
    pub fn count(&self, client: Option<ClientNetwork>, now: Instant) -> Option<Duration> {
        self.refused.fetch_add(1, Ordering::Relaxed);
        let client = client?;
        let suspect = self.clients.get_with(client, || {
            Arc::new(Suspect {
                limiter: Limiter::new(RATE),
                logged: AtomicBool::new(false),
            })
        });
        let decision = suspect.limiter.check(now);
        if decision.allowed {
            return None;
        }
        self.slowed.fetch_add(1, Ordering::Relaxed);
        if !suspect.logged.swap(true, Ordering::Relaxed) && self.lines.check(now).allowed {
            log::warn!(
                "{client} sent more than {} unknown API keys in a minute; further ones get 429",
                RATE.count
            );
        }
        Some(decision.retry_after)
    }

    /// How many requests were refused, and how many of them were slowed.
    pub fn totals(&self) -> (u64, u64) {
        (
            self.refused.load(Ordering::Relaxed),
            self.slowed.load(Ordering::Relaxed),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_keys_of_each_client_have_a_rate_of_their_own() {
        let (wrong, now) = (WrongKeys::default(), Instant::now());
        let client = |last: u8| Some(ClientNetwork::of([192, 0, 2, last].into()));
        for _ in 0..RATE.count {
            assert_eq!(wrong.count(client(1), now), None);
        }
        assert!(wrong.count(client(1), now).is_some());
        assert_eq!(wrong.count(client(2), now), None, "another client");
        assert_eq!(wrong.count(None, now), None, "nobody to slow down");
        assert_eq!(
            wrong.count(client(1), now + Duration::from_secs(3)),
            None,
            "it has waited"
        );
        assert_eq!(wrong.totals(), (u64::from(RATE.count) + 4, 1));
    }
}
