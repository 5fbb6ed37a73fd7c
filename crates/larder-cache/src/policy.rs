//! What the operator allows: TTLs per tier, and when a stale value may be served.
//!
//! A value expires twice. Until `memory_until` a replica serves its copy without asking anyone.
//! Until `fresh_until` the copy in Redis is an answer. After that it is stale, and may still be
//! served as far as [`StaleRules`] go. Pure: nothing here looks at a clock. `freshness.rs` decides
//! by it.

use std::time::Duration;

use super::clock::{Micros, micros};

/// What one resource allows. The default allows nothing: both tiers are off.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// How long a copy may be served from memory before Redis is asked again; zero turns this tier
    /// off.
    pub memory: Duration,
    /// How long a value is fresh in Redis after its load; zero turns this tier off.
    pub redis: Duration,
    /// How long an absent value is remembered, in either tier (negative caching); zero: not at all.
    pub absent: Duration,
    /// When a value past its TTL may still be served.
    pub stale: StaleRules,
    /// How long a request waits for a load if there is a copy past `while_revalidate` but within
    /// `if_error`. `None`: to the end.
    pub soft_timeout: Option<Duration>,
    /// How long memory is served while a replica reaches neither the bus nor Redis. `None`: to the
    /// end of its memory TTL.
    pub disconnected_ttl: Option<Duration>,
    /// How long a value is kept past its fresh life for its source to confirm, so that it need not
    /// be sent again. Makes nothing servable: see [`StaleRules`] for that.
    pub revalidate: Duration,
    /// Whether each TTL is as long as it says. Otherwise it is up to a tenth shorter, at random, so
    /// that values that were filled together do not expire together.
    pub exact_ttl: bool,
    /// Whether the next reader after a failed load makes a new one. Otherwise the key pauses first:
    /// for a second, and twice as long after each further failure, up to a tenth of its TTL and
    /// half a minute. A source that asks for a pause gets it either way.
    pub retry_at_once: bool,
}

/// When a stale value may be served (RFC 5861), counted from the end of its TTL.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StaleRules {
    /// At once, while a load in the background renews it.
    pub while_revalidate: Duration,
    /// When the load fails.
    pub if_error: Duration,
    /// Values from before Redis lost its data are stale rather than dead.
    pub on_reset: bool,
}

/// How much of its TTL a value is given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lifetime {
    /// All of it.
    #[default]
    Policy,
    /// A tenth: a part of it is missing that may be back soon.
    Shortened,
    /// At most this long, because its source says so (RFC 9111, `max-age`), and never longer than
    /// the policy says. Zero: it must be confirmed before each use.
    MaxAge(Duration),
    /// The same, and its source forbids stale use (`must-revalidate`), whatever [`StaleRules`] say.
    MustRevalidate(Duration),
    /// None (`no-store`). Readers that waited for the value get it. No tier keeps it, nor a
    /// composite of it.
    NoStore,
}

impl Lifetime {
    /// Whether a value with this lifetime may never be served stale.
    pub(crate) fn forbids_stale(self) -> bool {
        matches!(self, Lifetime::MustRevalidate(_) | Lifetime::NoStore)
    }

    /// The lifetime of a composite with this lifetime of its own and a part with that one. If a
    /// part's source forbids something, it is forbidden for the composite. How long the part is
    /// fresh is computed elsewhere.
    pub(crate) fn with_part(self, part: Lifetime) -> Lifetime {
        match (self, part) {
            (Lifetime::NoStore, _) | (_, Lifetime::NoStore) => Lifetime::NoStore,
            (Lifetime::MustRevalidate(_), _) => self,
            (Lifetime::MaxAge(time), Lifetime::MustRevalidate(_)) => Lifetime::MustRevalidate(time),
            (Lifetime::Policy, Lifetime::MustRevalidate(_)) => {
                Lifetime::MustRevalidate(Duration::MAX)
            }
            // Neither a tenth nor stale: for those who waited.
            (Lifetime::Shortened, Lifetime::MustRevalidate(_)) => {
                Lifetime::MustRevalidate(Duration::ZERO)
            }
            (own, _) => own,
        }
    }
}

/// When a value expires, in each tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expiry {
    /// Memory serves it without asking until then.
    pub memory_until: Micros,
    /// Redis's copy is an answer until then.
    pub fresh_until: Micros,
}

impl Policy {
    /// How long a value is fresh in Redis after its load, and in memory if Redis is off. `jitter`
    /// is any number. It shortens the time by up to a tenth, so that values that were filled
    /// together do not expire together; unless [`Policy::exact_ttl`] says otherwise.
    pub fn fresh_for(&self, absent: bool, lifetime: Lifetime, jitter: u64) -> Duration {
        let ttl = if absent {
            self.absent
        } else if self.redis.is_zero() {
            self.memory
        } else {
            self.redis
        };
        self.shorten(ttl, lifetime, jitter)
    }

    /// When a copy expires that comes into memory at `now`, of a value that is fresh until
    /// `fresh_until`.
    pub fn expiry(
        &self,
        absent: bool,
        lifetime: Lifetime,
        jitter: u64,
        fresh_until: Micros,
        now: Micros,
    ) -> Expiry {
        let memory = if absent {
            self.absent.min(self.memory)
        } else {
            self.memory
        };
        let memory_until = now.saturating_add(micros(self.shorten(memory, lifetime, jitter)));
        Expiry {
            memory_until: memory_until.min(fresh_until),
            fresh_until,
        }
    }

    /// The longest that an entry is kept after its load, in either tier, for whatever use.
    pub fn longest_life(&self) -> Duration {
        let fresh = self.redis.max(self.memory).max(self.absent);
        fresh.saturating_add(self.longest_stale(false).max(self.revalidate))
    }

    /// How long past its fresh life a value may still be served.
    pub fn longest_stale(&self, forbids_stale: bool) -> Duration {
        if forbids_stale {
            Duration::ZERO
        } else {
            self.stale.while_revalidate.max(self.stale.if_error)
        }
    }

    fn shorten(&self, ttl: Duration, lifetime: Lifetime, jitter: u64) -> Duration {
        let (ttl, most) = match lifetime {
            Lifetime::Policy => (ttl, Duration::MAX),
            Lifetime::Shortened => (ttl / 10, Duration::MAX),
            Lifetime::MaxAge(said) | Lifetime::MustRevalidate(said) => (ttl, said),
            Lifetime::NoStore => (ttl, Duration::ZERO),
        };
        let thousandths = if self.exact_ttl { 0 } else { jitter % 101 };
        (ttl - ttl / 1000 * thousandths as u32).min(most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const S: u64 = 1_000_000;

    fn policy() -> Policy {
        Policy {
            memory: Duration::from_secs(30),
            redis: Duration::from_secs(300),
            absent: Duration::from_secs(5),
            stale: StaleRules {
                while_revalidate: Duration::from_secs(60),
                if_error: Duration::from_secs(3600),
                on_reset: false,
            },
            soft_timeout: None,
            disconnected_ttl: None,
            revalidate: Duration::ZERO,
            exact_ttl: false,
            retry_at_once: false,
        }
    }

    #[test]
    fn memory_never_outlives_redis() {
        let p = policy();
        assert_eq!(
            p.expiry(false, Lifetime::Policy, 0, 10 * S, 0).memory_until,
            10 * S
        );
        assert_eq!(
            p.expiry(false, Lifetime::Policy, 0, 300 * S, 0)
                .memory_until,
            30 * S
        );
        assert_eq!(
            p.expiry(false, Lifetime::Shortened, 0, 300 * S, 0)
                .memory_until,
            3 * S
        );
        assert_eq!(
            p.expiry(true, Lifetime::Policy, 0, 300 * S, 0).memory_until,
            5 * S
        );
    }

    #[test]
    fn a_source_may_shorten_a_life_and_not_lengthen_it() {
        let p = policy();
        let said = |seconds| Lifetime::MaxAge(Duration::from_secs(seconds));
        let fresh = |life| p.fresh_for(false, life, 0).as_secs();
        assert_eq!([said(7), said(7000), said(0)].map(fresh), [7, 300, 0]);
        assert_eq!(fresh(Lifetime::MustRevalidate(Duration::MAX)), 300);
        assert_eq!(fresh(Lifetime::NoStore), 0);
        // Jitter is for what is filled together, and its bound is this policy's.
        assert_eq!(p.fresh_for(false, said(7), 100), Duration::from_secs(7));
        assert_eq!(p.fresh_for(true, said(7000), 0), Duration::from_secs(5));
        assert_eq!(p.expiry(false, said(7), 0, 7 * S, 0).memory_until, 7 * S);
        assert_eq!(p.expiry(false, said(70), 0, 70 * S, 0).memory_until, 30 * S);
    }

    #[test]
    fn what_a_part_forbids_is_forbidden_for_the_composite() {
        let (strict, brief) = (
            Lifetime::MustRevalidate(Duration::ZERO),
            Duration::from_secs(1),
        );
        let all = [
            Lifetime::Policy,
            Lifetime::Shortened,
            Lifetime::MaxAge(brief),
            strict,
            Lifetime::NoStore,
        ];
        for own in all {
            for part in all {
                let composite = own.with_part(part);
                assert!(
                    composite.forbids_stale() || !part.forbids_stale(),
                    "{own:?} {part:?}"
                );
                assert!(
                    composite.forbids_stale() || !own.forbids_stale(),
                    "{own:?} {part:?}"
                );
                assert_eq!(
                    composite == Lifetime::NoStore,
                    own == Lifetime::NoStore || part == Lifetime::NoStore
                );
                let (p, now) = (policy(), 0);
                let ends = |life| p.expiry(false, life, 0, u64::MAX, now).memory_until;
                assert!(ends(composite) <= ends(own), "{own:?} {part:?}");
            }
        }
    }

    #[test]
    fn the_longest_life_counts_every_use() {
        let mut p = policy();
        assert_eq!(p.longest_life(), Duration::from_secs(3900));
        p.revalidate = Duration::from_secs(86_400);
        assert_eq!(p.longest_life(), Duration::from_secs(86_700));
        assert_eq!(p.longest_stale(false), Duration::from_secs(3600));
        p.absent = Duration::from_secs(400);
        assert_eq!(p.longest_life(), Duration::from_secs(86_800));
    }

    proptest! {
        #[test]
        fn jitter_shortens_by_at_most_a_tenth(jitter: u64) {
            let life = policy().fresh_for(false, Lifetime::Policy, jitter);
            prop_assert!(life >= Duration::from_secs(270) && life <= Duration::from_secs(300));
        }

        #[test]
        fn an_exact_ttl_has_no_jitter(jitter: u64) {
            let p = policy().exact_ttl();
            let life = p.fresh_for(false, Lifetime::Policy, jitter);
            prop_assert_eq!(life, Duration::from_secs(300));
            let expiry = p.expiry(false, Lifetime::Policy, jitter, 300 * S, S);
            prop_assert_eq!(expiry.memory_until, 31 * S);
            let said = Lifetime::MaxAge(Duration::from_secs(7));
            prop_assert_eq!(p.fresh_for(false, said, jitter), Duration::from_secs(7));
        }
    }
}
