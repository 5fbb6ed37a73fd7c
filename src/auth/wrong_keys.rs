//! Unknown API keys: how many requests had one, and which addresses sent too many.
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

/// How many wrong keys of one source are answered with 401, and what its further ones have to wait
/// for.
const RATE: Rate = Rate {
    count: 30,
    per: Duration::from_secs(60),
};
/// Sources that are remembered at most.
const SOURCES: u64 = 10_000;
/// How long one is remembered that presents nothing more.
const MEMORY: Duration = Duration::from_secs(600);
/// How many sources are named in the log.
const LINES: Rate = Rate {
    count: 10,
    per: Duration::from_secs(600),
};

/// See the module.
pub struct WrongKeys {
    sources: Cache<ClientNetwork, Arc<Suspect>>,
    lines: Limiter,
    refused: AtomicU64,
    slowed: AtomicU64,
}

struct Suspect {
    limiter: Limiter,
    told: AtomicBool,
}

impl Default for WrongKeys {
    fn default() -> Self {
        WrongKeys {
            sources: Cache::builder()
                .max_capacity(SOURCES)
                .time_to_idle(MEMORY)
                .build(),
            lines: Limiter::new(LINES),
            refused: AtomicU64::new(0),
            slowed: AtomicU64::new(0),
        }
    }
}

impl WrongKeys {
    /// Counts one that came from `source`. Returns how long it is to wait, if there were too many.
    pub fn note(&self, source: Option<ClientNetwork>, now: Instant) -> Option<Duration> {
        self.refused.fetch_add(1, Ordering::Relaxed);
        let source = source?;
        let suspect = self.sources.get_with(source, || {
            Arc::new(Suspect {
                limiter: Limiter::new(RATE),
                told: AtomicBool::new(false),
            })
        });
        let decision = suspect.limiter.check(now);
        if decision.allowed {
            return None;
        }
        self.slowed.fetch_add(1, Ordering::Relaxed);
        if !suspect.told.swap(true, Ordering::Relaxed) && self.lines.check(now).allowed {
            log::warn!(
                "{source} sent more than {} unknown API keys in a minute; further ones get 429",
                RATE.count
            );
        }
        Some(decision.retry_after)
    }

    /// How many were refused, and how many of them with 429.
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
    fn each_source_has_a_rate_of_its_own() {
        let (wrong, now) = (WrongKeys::default(), Instant::now());
        let source = |last: u8| Some(ClientNetwork::of([192, 0, 2, last].into()));
        for _ in 0..RATE.count {
            assert_eq!(wrong.note(source(1), now), None);
        }
        assert!(wrong.note(source(1), now).is_some());
        assert_eq!(wrong.note(source(2), now), None, "another source");
        assert_eq!(wrong.note(None, now), None, "nobody to slow down");
        assert_eq!(
            wrong.note(source(1), now + Duration::from_secs(3)),
            None,
            "it has waited"
        );
        assert_eq!(wrong.totals(), (u64::from(RATE.count) + 4, 1));
    }
}
