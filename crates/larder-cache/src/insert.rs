//! The insert line: a value that the caller has, into both tiers, coherent with every process.
//!
//! A value that was read a while ago may be older than a change that everybody has heard of. A
//! fill that stamps it as the newest would bring it back. So the caller takes a stamp before the
//! value is read, or before the write begins whose result it is, and this happens:
//!
//! 1. The key is invalidated, as by [`Cache::invalidate`](super::Cache::invalidate). The same
//!    script gives the clock of that, and the clocks from before of all that the value depends on.
//! 2. If one of these is after the stamp, or the history is another one, the value is not kept.
//! 3. Otherwise it fills Redis and memory, with the clock of its own invalidation. From the stamp
//!    up to that clock nothing else was invalidated that it depends on, and what is invalidated
//!    later has a later clock.
//! 4. Readers that wait for a load of the key that began before get the value, unless the
//!    invalidation is pending.
//!
//! While Redis cannot take the invalidation, the value is kept in memory here, with the clock of
//! the stamp. The delivery ends it.

use std::sync::Arc;

use super::answer::{Answer, Trace};
use super::bus::Bus;
use super::clock::micros;
use super::coherence::{
    Dependency, InvalidationOrigin, InvalidationTarget, Purge, Since, Stamp, Standing,
    standing_since,
};
use super::entry::{Entry, Extras, Value};
use super::envelope;
use super::invalidation::{InvalidationReceipt, UnsentBatches, send};
use super::key::{Key, Tag};
use super::memory::Remembered;
use super::object::Object;
use super::outcome::Outcome;
use super::policy::{Lifetime, Policy};
use super::random::random;
use super::redis_tier::Filled;
use super::tiers::Tiers;

/// What [`Cache::insert`](super::Cache::insert) did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InsertReceipt {
    /// The invalidation of the key: acknowledged or pending. It holds whatever became of the value.
    pub invalidation: InvalidationReceipt,
    /// What became of the value.
    pub inserted: Inserted,
}

/// What became of a value that was inserted. If it was not kept, the next reader loads the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inserted {
    /// It is in Redis, where every process finds it. It is in memory here as well, if the policy
    /// keeps it there.
    Shared,
    /// It is in the memory of this process only: there is no Redis, the policy does not use it, it
    /// did not take the value, or the invalidation is pending. A pending one ends the value when it
    /// is delivered.
    Here,
    /// Not kept: something that the value depends on was invalidated after the stamp, so the value
    /// may be from before that change.
    Changed,
    /// Not kept: a load or an insert that began later has filled the key.
    Newer,
    /// Not kept: nobody knows any more what was invalidated since the stamp. Redis has lost its
    /// data or was found only then, or the stamp is of another cache.
    NewHistory,
    /// Not kept: the policy keeps no such value in any tier.
    NotCached,
}

/// A value to insert.
pub(crate) struct Insert<'a> {
    pub(crate) key: &'a Key,
    pub(crate) tags: &'a [Tag],
    pub(crate) value: Value,
    /// What memory holds in place of the value's bytes, if anything.
    pub(crate) object: Option<Object>,
    pub(crate) lifetime: Lifetime,
    pub(crate) policy: &'a Policy,
    pub(crate) since: &'a Since,
}

/// See the module.
pub(crate) fn insert(tiers: &Tiers, bus: &Bus, insert: Insert<'_>) -> InsertReceipt {
    let Insert {
        key, tags, since, ..
    } = insert;
    let (mirror, own_key) = (&tiers.mirror, InvalidationTarget::from(key));
    let names = tags.iter().map(InvalidationTarget::from);
    let names: Arc<[InvalidationTarget]> = names.chain([own_key.clone()]).collect();
    let as_read = Dependency::unknown(since.stamp, names.clone());
    let (batch, pending) = mirror.pending.begin_insert(&own_key, &as_read);
    let batches = UnsentBatches {
        tiers,
        batches: vec![batch],
    };
    let batch = &batches.batches[0];
    bus.invalidated()
        .count(InvalidationOrigin::Here, Purge::Hard, 1);
    let taken = send(tiers, bus, batch, &names);
    bus.notify(batch.targets(), Purge::Hard);

    let sequence = batch.targets.first().map_or(0, |(_, sequence)| *sequence);
    let invalidation = InvalidationReceipt {
        clock: taken.as_ref().map(|taken| taken.clock),
    };
    let record = match taken {
        Some(taken) => taken.earlier,
        None => mirror.history().recall(&names),
    };
    let standing = match pending {
        _ if !mirror.gave(since) => Standing::OtherHistory,
        Some(_) => Standing::Invalid,
        None => standing_since(since.stamp, &record),
    };
    let stamp = Stamp {
        clock: invalidation.clock.unwrap_or(since.stamp.clock),
        sequence,
        ..since.stamp
    };
    let fill = || {
        fill(
            tiers,
            insert,
            mirror.dependency(stamp, &names),
            invalidation,
        )
    };
    let filled = (standing == Standing::Valid).then(fill);
    InsertReceipt {
        invalidation,
        inserted: inserted(standing, filled),
    }
}

/// What became of the value in each tier. `None`: that tier was not to have it, or did not answer.
type Tried = (Option<Filled>, Option<Remembered>);

/// Fills Redis, then memory, then ends the wait for loads that began before.
fn fill(
    tiers: &Tiers,
    Insert {
        key,
        value,
        object,
        lifetime,
        policy,
        since,
        ..
    }: Insert<'_>,
    own: Dependency,
    invalidation: InvalidationReceipt,
) -> Tried {
    let (now, jitter, absent) = (tiers.clock.now(), random(), value.is_absent());
    let fresh_for = policy.fresh_for(absent, lifetime, jitter);
    let fresh_until = now + micros(fresh_for);
    let expiry = policy.expiry(absent, lifetime, jitter, fresh_until, now);
    let (stamp, sequence) = (own.stamp, own.stamp.sequence);
    // The value may be as old as the stamp.
    let load_time = now.saturating_sub(since.taken_at);
    let extras = Extras {
        lifetime,
        ..Extras::default()
    };
    let entry = Entry::new(value, own, now, load_time, expiry, extras);
    let ttl = fresh_for + entry.use_past_end(policy);
    let has_redis = !invalidation.is_pending() && !tiers.mirror.is_alone();
    let stored = if has_redis && !policy.redis.is_zero() && !fresh_for.is_zero() {
        let bytes = envelope::encode(&entry, random(), fresh_for, &tiers.clock);
        tiers.redis.fill(key, None, stamp, &bytes, ttl).ok()
    } else {
        None
    };
    if stored == Some(Filled::Newer) {
        return (stored, None);
    }
    let entry = match object {
        Some(object) => entry.holding(object),
        None => entry,
    };
    let (entry, remembered) = tiers.memory.fill(key.clone(), entry, policy);
    if remembered == Remembered::Kept || stored.is_some() {
        tiers.failures.clear(key);
    }
    // While it is pending, nobody knows what others have invalidated since the stamp. Memory judges
    // its age for each reader. Those who wait have asked for more than that.
    if stored.is_some() || (remembered == Remembered::Kept && !invalidation.is_pending()) {
        let answer = Answer {
            entry,
            outcome: Outcome::Collapsed,
            trace: Trace::default(),
        };
        tiers.flights.give(key, sequence, &answer);
    }
    (stored, Some(remembered))
}

/// What the caller is told. `filled`: what the tiers did, if the value was given to them.
fn inserted(standing: Standing, filled: Option<Tried>) -> Inserted {
    match (standing, filled) {
        (Standing::OtherHistory, _) => Inserted::NewHistory,
        (Standing::Invalid | Standing::Soft(_) | Standing::SoftPending, _) => Inserted::Changed,
        (Standing::Valid, Some((Some(Filled::Stored), _))) => Inserted::Shared,
        (Standing::Valid, Some((_, Some(Remembered::Kept)))) => Inserted::Here,
        (Standing::Valid, Some((Some(Filled::Newer), _) | (_, Some(Remembered::Newer)))) => {
            Inserted::Newer
        }
        (Standing::Valid, _) => Inserted::NotCached,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_caller_is_told_what_became_of_the_value() {
        use Filled::Stored;
        use Remembered::{Kept, OfNoUse};
        let newer = (Filled::Newer, Remembered::Newer);
        for (standing, filled, told) in [
            (
                Standing::Valid,
                Some((Some(Stored), Some(Kept))),
                Inserted::Shared,
            ),
            (
                Standing::Valid,
                Some((Some(Stored), Some(OfNoUse))),
                Inserted::Shared,
            ),
            (
                Standing::Valid,
                Some((Some(Stored), Some(newer.1))),
                Inserted::Shared,
            ),
            (
                Standing::Valid,
                Some((Some(newer.0), None)),
                Inserted::Newer,
            ),
            (Standing::Valid, Some((None, Some(Kept))), Inserted::Here),
            (
                Standing::Valid,
                Some((None, Some(newer.1))),
                Inserted::Newer,
            ),
            (
                Standing::Valid,
                Some((None, Some(OfNoUse))),
                Inserted::NotCached,
            ),
            (Standing::Invalid, None, Inserted::Changed),
            (Standing::Soft(3), None, Inserted::Changed),
            (Standing::SoftPending, None, Inserted::Changed),
            (Standing::OtherHistory, None, Inserted::NewHistory),
        ] {
            assert_eq!(inserted(standing, filled), told, "{standing:?} {filled:?}");
        }
    }
}
