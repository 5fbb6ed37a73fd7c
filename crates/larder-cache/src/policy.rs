//! How long a value may be served: pure decisions, without a clock of their own.
//!
//! A value's life has two ends. Until `memory_until` a replica serves its copy without asking anyone; until `fresh_until` the
//! copy in Redis is an answer. What lies past its end is stale, and may still be served as far as [`StaleRules`] go; then it is
//! dead. Freshness only decays: a later moment never makes a value fresher.

use std::time::Duration;

use super::clock::{Micros, micros};

/// What one resource allows. The default allows nothing: both tiers are off.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// How long a copy may be served from memory before Redis is asked again; zero: this tier is off.
    pub memory: Duration,
    /// How long a value is fresh in Redis after its load; zero: this tier is off.
    pub redis: Duration,
    /// How long it is remembered that there is no value, in either tier; zero: not at all.
    pub absent: Duration,
    /// When a value past its TTL may still be served.
    pub stale: StaleRules,
    /// How long a request waits for a load when there is a copy past `while_revalidate` but within `if_error`. `None`: to the end.
    pub soft_timeout: Option<Duration>,
    /// How long memory is served while a replica hears from neither the bus nor Redis. `None`: to the end of its memory TTL.
    pub disconnected_ttl: Option<Duration>,
    /// How long past its end a value is kept that its source can confirm, so that it need not be sent again. Makes nothing
    /// servable: see [`StaleRules`] for that.
    pub revalidate: Duration,
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
    /// A tenth: something is missing from it that may be back soon.
    Shortened,
    /// So long, by its source's own word, where the policy's TTL is not shorter; zero: to be confirmed before each use.
    MaxAge(Duration),
    /// The same, and its source forbids to serve it a moment longer, whatever [`StaleRules`] say.
    MustRevalidate(Duration),
    /// None: whoever waited for it gets it, and no tier keeps it, nor anything that was made of it.
    NoStore,
}

impl Lifetime {
    /// Whether nothing with this life may be served past its end.
    pub(crate) fn ends_sharply(self) -> bool {
        matches!(self, Lifetime::MustRevalidate(_) | Lifetime::NoStore)
    }

    /// The life of a whole that has this one by itself, with a part of that life: what a part's source forbids is forbidden for
    /// the whole. How long the part is fresh is another matter.
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
            (life, _) => life,
        }
    }
}

/// What may be done with a copy now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Freshness {
    /// Serve it.
    Fresh,
    /// Serve it, and renew it in the background.
    Revalidate,
    /// Serve it only if it cannot be renewed.
    IfError,
    /// Never serve it.
    Dead,
}

/// The two ends of a value's fresh life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expiry {
    /// Memory serves it without asking until then.
    pub memory_until: Micros,
    /// Redis's copy is an answer until then.
    pub fresh_until: Micros,
}

impl Policy {
    /// How long a value lives in Redis after its load, and in memory where Redis is off. `jitter` is any number: it shortens the
    /// life by up to a tenth, so that what was filled together does not expire together.
    pub fn fresh_for(&self, absent: bool, life: Lifetime, jitter: u64) -> Duration {
        let ttl = if absent {
            self.absent
        } else if self.redis.is_zero() {
            self.memory
        } else {
            self.redis
        };
        shorten(ttl, life, jitter)
    }

    /// The ends for a copy that comes into memory at `now` of a value that is fresh until `fresh_until`.
    pub fn ends(
        &self,
        absent: bool,
        life: Lifetime,
        jitter: u64,
        fresh_until: Micros,
        now: Micros,
    ) -> Expiry {
        let memory = if absent {
            self.absent.min(self.memory)
        } else {
            self.memory
        };
        let memory_until = now.saturating_add(micros(shorten(memory, life, jitter)));
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

    /// How long after its end a value may still be served; `sharp`: it may not at all.
    pub fn longest_stale(&self, sharp: bool) -> Duration {
        if sharp {
            Duration::ZERO
        } else {
            self.stale.while_revalidate.max(self.stale.if_error)
        }
    }

    /// What may be done at `now` with a copy whose fresh life ends at `until`; `sharp`: nothing from then on.
    pub fn judge(&self, sharp: bool, until: Micros, now: Micros) -> Freshness {
        if now < until {
            return Freshness::Fresh;
        }
        let past = now - until;
        if sharp {
            Freshness::Dead
        } else if past < micros(self.stale.while_revalidate) {
            Freshness::Revalidate
        } else if past < micros(self.stale.if_error) {
            Freshness::IfError
        } else {
            Freshness::Dead
        }
    }

    /// What may be done at `now` with a copy from before Redis lost its data, loaded at `loaded_at`.
    pub fn judge_after_reset(&self, sharp: bool, loaded_at: Micros, now: Micros) -> Freshness {
        if self.stale.on_reset {
            self.judge(sharp, loaded_at, now)
        } else {
            Freshness::Dead
        }
    }
}

fn shorten(ttl: Duration, life: Lifetime, jitter: u64) -> Duration {
    let (ttl, most) = match life {
        Lifetime::Policy => (ttl, Duration::MAX),
        Lifetime::Shortened => (ttl / 10, Duration::MAX),
        Lifetime::MaxAge(said) | Lifetime::MustRevalidate(said) => (ttl, said),
        Lifetime::NoStore => (ttl, Duration::ZERO),
    };
    (ttl - ttl / 1000 * (jitter % 101) as u32).min(most)
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
        }
    }

    #[test]
    fn stale_windows_follow_the_end_of_the_fresh_life() {
        let p = policy();
        let at = |now| p.judge(false, 100 * S, now);
        assert_eq!(at(99 * S), Freshness::Fresh);
        assert_eq!(at(100 * S), Freshness::Revalidate);
        assert_eq!(at(160 * S), Freshness::IfError);
        assert_eq!(at(3700 * S), Freshness::Dead);
        assert_eq!(
            p.judge(true, 100 * S, 100 * S),
            Freshness::Dead,
            "absence is never stale"
        );
    }

    #[test]
    fn values_from_before_a_reset_are_dead_unless_the_resource_says_otherwise() {
        let mut p = policy();
        assert_eq!(
            p.judge_after_reset(false, 100 * S, 100 * S),
            Freshness::Dead
        );
        p.stale.on_reset = true;
        assert_eq!(
            p.judge_after_reset(false, 100 * S, 100 * S),
            Freshness::Revalidate
        );
    }

    #[test]
    fn memory_never_outlives_redis() {
        let p = policy();
        assert_eq!(
            p.ends(false, Lifetime::Policy, 0, 10 * S, 0).memory_until,
            10 * S
        );
        assert_eq!(
            p.ends(false, Lifetime::Policy, 0, 300 * S, 0).memory_until,
            30 * S
        );
        assert_eq!(
            p.ends(false, Lifetime::Shortened, 0, 300 * S, 0)
                .memory_until,
            3 * S
        );
        assert_eq!(
            p.ends(true, Lifetime::Policy, 0, 300 * S, 0).memory_until,
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
        assert_eq!(p.ends(false, said(7), 0, 7 * S, 0).memory_until, 7 * S);
        assert_eq!(p.ends(false, said(70), 0, 70 * S, 0).memory_until, 30 * S);
    }

    #[test]
    fn what_a_part_forbids_is_forbidden_for_the_whole() {
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
                let whole = own.with_part(part);
                assert!(
                    whole.ends_sharply() || !part.ends_sharply(),
                    "{own:?} {part:?}"
                );
                assert!(
                    whole.ends_sharply() || !own.ends_sharply(),
                    "{own:?} {part:?}"
                );
                assert_eq!(
                    whole == Lifetime::NoStore,
                    own == Lifetime::NoStore || part == Lifetime::NoStore
                );
                let (p, now) = (policy(), 0);
                let ends = |life| p.ends(false, life, 0, u64::MAX, now).memory_until;
                assert!(ends(whole) <= ends(own), "{own:?} {part:?}");
            }
        }
    }

    #[test]
    fn the_longest_life_counts_every_use() {
        let mut p = policy();
        assert_eq!(p.longest_life(), Duration::from_secs(3900));
        p.revalidate = Duration::from_secs(86_400);
        assert_eq!(p.longest_life(), Duration::from_secs(86_700));
        assert_eq!(p.judge(false, 100 * S, 3700 * S), Freshness::Dead);
        p.absent = Duration::from_secs(400);
        assert_eq!(p.longest_life(), Duration::from_secs(86_800));
    }

    proptest! {
        #[test]
        fn freshness_only_decays(until in 0..10_000 * S, a in 0..20_000 * S, b in 0..20_000 * S, absent: bool) {
            let p = policy();
            let (early, late) = (a.min(b), a.max(b));
            prop_assert!(p.judge(absent, until, early) <= p.judge(absent, until, late));
        }

        #[test]
        fn jitter_shortens_by_at_most_a_tenth(jitter: u64) {
            let life = policy().fresh_for(false, Lifetime::Policy, jitter);
            prop_assert!(life >= Duration::from_secs(270) && life <= Duration::from_secs(300));
        }
    }
}
