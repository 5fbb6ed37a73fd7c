//! The mirror: what this replica knows of the history of changes.
//!
//! An [`Era`] is one history with everything that may be compared with its clocks; a new history is a new era, whole, so that no
//! clock of the old one is left behind. A name has a cell with the clocks of its last invalidations; an entry holds pointers to
//! the cells of its names, so that a hit compares them without looking anything up.
//!
//! Invariants: a cell only grows. A cell that an entry still points to is never removed. `last` is advanced by the subscriber
//! alone: what this replica invalidated itself, or saw in a reply, sets cells at once and leaves `last`, or a message lost before
//! it would look heard.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;

use super::super::clock::{Clock, Micros};
use super::name::{Kind, Name};
use super::pending::Pending;

const SHARDS: usize = 16;
/// Trust that never ends: nobody else is there to be heard.
const FOREVER: Micros = Micros::MAX;

/// The random identity of one history of changes. Clocks of two histories are never compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Epoch(pub u64);

impl Epoch {
    /// An identity that no other history has.
    pub(crate) fn random() -> Epoch {
        Epoch(getrandom::u64().unwrap_or_else(|_| {
            // A machine without randomness: what differs between two processes and two calls must do.
            let now = Clock::new().now();
            now.rotate_left(20) ^ u64::from(std::process::id())
        }))
    }

    /// The identity that `text` stands for, as `Display` writes it.
    pub(crate) fn parse(text: &str) -> Option<Epoch> {
        u64::from_str_radix(text, 16).ok().map(Epoch)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Where a load stands in history: taken before its source is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Of which history.
    pub epoch: Epoch,
    /// Its clock: what was invalidated later is not in the value.
    pub clock: u64,
    /// How many invalidations this process had begun by then; zero for a value that came from elsewhere.
    pub begun: u64,
}

/// The state of a history as Redis tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) epoch: Epoch,
    pub(crate) clock: u64,
    pub(crate) floor: u64,
    pub(crate) soft_floor: u64,
    pub(crate) pruned_to: u64,
    /// The clock that it began with.
    pub(crate) begun: u64,
}

/// The clocks of the last invalidations of one name.
#[derive(Debug, Default)]
pub(crate) struct Cell {
    hard: AtomicU64,
    soft: AtomicU64,
}

impl Cell {
    fn raise(&self, kind: Kind, clock: u64) {
        let cell = if kind == Kind::Hard {
            &self.hard
        } else {
            &self.soft
        };
        cell.fetch_max(clock, Ordering::AcqRel);
    }

    fn newest(&self) -> u64 {
        self.hard
            .load(Ordering::Acquire)
            .max(self.soft.load(Ordering::Acquire))
    }
}

/// What was read, and the names that it depends on: one part of an entry, or all of it.
#[derive(Clone, Debug)]
pub struct Dependency {
    /// Where its load stands.
    pub stamp: Stamp,
    /// The names.
    pub names: Arc<[Name]>,
    cells: Box<[Arc<Cell>]>,
}

impl Dependency {
    /// Each name with the clock of its last invalidation, if any is known.
    pub(crate) fn invalidated(&self) -> impl Iterator<Item = (Name, Option<u64>)> + '_ {
        self.names.iter().enumerate().map(|(at, name)| {
            let newest = self.cells.get(at).map_or(0, |cell| cell.newest());
            (name.clone(), (newest > 0).then_some(newest))
        })
    }
}

/// What has become of an entry since its load began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Nothing that it depends on was invalidated.
    Valid,
    /// It was made stale by the invalidation with this clock.
    Soft(u64),
    /// It was invalidated: never to be served again.
    Invalid,
    /// It is of another history.
    OtherHistory,
}

type Cells = HashMap<Name, Arc<Cell>, foldhash::fast::RandomState>;

/// One history, and all that may be compared with its clocks.
#[derive(Debug)]
pub(crate) struct Era {
    epoch: Epoch,
    /// The clock that it began with.
    begun: u64,
    /// The highest clock that the bus brought.
    last: AtomicU64,
    /// What was loaded below is invalid: the higher of the floor and of what was pruned.
    dead_below: AtomicU64,
    /// What was loaded below is stale.
    soft_below: AtomicU64,
    shards: [Mutex<Cells>; SHARDS],
    hasher: foldhash::fast::RandomState,
}

impl Era {
    fn new(epoch: Epoch, begun: u64, last: u64) -> Era {
        Era {
            epoch,
            begun,
            last: AtomicU64::new(last),
            dead_below: AtomicU64::new(0),
            soft_below: AtomicU64::new(0),
            shards: Default::default(),
            hasher: Default::default(),
        }
    }

    pub(crate) fn epoch(&self) -> Epoch {
        self.epoch
    }

    pub(crate) fn last(&self) -> u64 {
        self.last.load(Ordering::Acquire)
    }

    /// Everything up to `clock` was heard: for the subscriber, and for a process that is alone.
    pub(crate) fn heard(&self, clock: u64) {
        self.last.fetch_max(clock, Ordering::AcqRel);
    }

    fn shard(&self, name: &Name) -> MutexGuard<'_, Cells> {
        use std::hash::BuildHasher;
        let shard = self.hasher.hash_one(name) as usize % SHARDS;
        self.shards[shard]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn cell(&self, name: &Name) -> Arc<Cell> {
        let mut shard = self.shard(name);
        if let Some(cell) = shard.get(name) {
            return cell.clone();
        }
        let cell = Arc::<Cell>::default();
        shard.insert(name.clone(), cell.clone());
        cell
    }

    /// Notes that `name` was invalidated at `clock`. A maximum: order and repetition do not matter.
    pub(crate) fn apply(&self, name: &Name, kind: Kind, clock: u64) {
        if !name.is_everything() {
            self.cell(name).raise(kind, clock);
        } else if kind == Kind::Hard {
            self.dead_below.fetch_max(clock, Ordering::AcqRel);
        } else {
            self.soft_below.fetch_max(clock, Ordering::AcqRel);
        }
    }

    /// Notes floors and what was pruned: what was loaded at or below that is dead.
    pub(crate) fn apply_state(&self, state: &State) {
        let dead = state.floor.max(if state.pruned_to == 0 {
            0
        } else {
            state.pruned_to + 1
        });
        self.dead_below.fetch_max(dead, Ordering::AcqRel);
        self.soft_below
            .fetch_max(state.soft_floor, Ordering::AcqRel);
    }

    /// Forgets names that no entry depends on and that were invalidated before `clock`. What was loaded by then is dead to them.
    pub(super) fn prune(&self, clock: u64) {
        let mut highest = 0;
        for shard in &self.shards {
            shard
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .retain(|_, cell| {
                    let newest = cell.newest();
                    // Only this map points to it, and nobody can take a pointer while the map is locked.
                    let gone = Arc::strong_count(cell) == 1 && newest < clock;
                    if gone {
                        highest = highest.max(newest);
                    }
                    !gone
                });
        }
        if highest > 0 {
            self.dead_below.fetch_max(highest + 1, Ordering::AcqRel);
        }
    }

    /// How many names are known.
    pub(crate) fn names(&self) -> usize {
        let len = |shard: &Mutex<Cells>| shard.lock().unwrap_or_else(PoisonError::into_inner).len();
        self.shards.iter().map(len).sum()
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Mirror {
    /// The epoch of the era in force: what a memory hit compares first.
    epoch: AtomicU64,
    era: ArcSwap<Era>,
    /// The epochs that were in force and are no more, with what was loaded below being invalid by then. Held while an era is
    /// replaced.
    retired: Mutex<HashMap<Epoch, u64>>,
    alone: AtomicBool,
    /// Until when this replica can prove that it would have heard.
    trust_until: AtomicU64,
    /// Tells of trust that was extended; its lock is `retired`.
    extended: Condvar,
    /// Invalidations that Redis has not taken yet.
    pub(crate) pending: Pending,
}

/// What a look at the history showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// The history that was known already.
    Same,
    /// The first of a Redis after this replica had been alone.
    First,
    /// Another history: Redis lost its data or got old data back.
    Other,
    /// A history that is over.
    Retired,
}

impl Mirror {
    /// A history of this process alone. `standalone`: nobody else can be there, so it is trusted.
    pub(crate) fn alone(standalone: bool) -> Mirror {
        let era = Era::new(Epoch::random(), 1, 1);
        Mirror {
            epoch: AtomicU64::new(era.epoch.0),
            era: ArcSwap::from_pointee(era),
            retired: Mutex::default(),
            alone: AtomicBool::new(true),
            trust_until: AtomicU64::new(if standalone { FOREVER } else { 0 }),
            extended: Condvar::new(),
            pending: Pending::default(),
        }
    }

    pub(crate) fn epoch(&self) -> Epoch {
        Epoch(self.epoch.load(Ordering::Acquire))
    }

    pub(crate) fn era(&self) -> Arc<Era> {
        self.era.load_full()
    }

    /// The stamp of a load that cannot ask Redis: behind is safe.
    pub(crate) fn stamp(&self) -> Stamp {
        let begun = self.pending.begun();
        let era = self.era.load();
        Stamp {
            epoch: era.epoch,
            clock: era.last(),
            begun,
        }
    }

    /// Takes over the state of a history that a connection saw: a new era, if it is not the known one.
    pub(crate) fn saw(&self, state: &State) -> Seen {
        if self.epoch() == state.epoch && !self.is_alone() {
            self.era.load().apply_state(state);
            return Seen::Same;
        }
        let mut retired = self.retired();
        // A reply that was on its way while a new history began: epochs have no order, so what is over is remembered.
        if retired.contains_key(&state.epoch) {
            return Seen::Retired;
        }
        if self.epoch() == state.epoch {
            self.era.load().apply_state(state);
            return Seen::Same;
        }
        let seen = if self.alone.swap(false, Ordering::AcqRel) {
            Seen::First
        } else {
            Seen::Other
        };
        // Nothing was heard of it yet: `last` is zero until the subscriber has caught up, and so is trust.
        let era = Era::new(state.epoch, state.begun, 0);
        era.apply_state(state);
        let before = self.era.load();
        retired.insert(before.epoch, before.dead_below.load(Ordering::Acquire));
        self.trust_until.store(0, Ordering::Release);
        self.epoch.store(state.epoch.0, Ordering::Release);
        self.era.store(Arc::new(era));
        seen
    }

    fn retired(&self) -> MutexGuard<'_, HashMap<Epoch, u64>> {
        self.retired.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether no Redis was ever found.
    pub(crate) fn is_alone(&self) -> bool {
        self.alone.load(Ordering::Acquire)
    }

    /// Whether this replica would have heard of any change acknowledged longer ago than `patience`.
    pub(crate) fn is_trusted(&self, now: Micros) -> bool {
        now < self.trust_until.load(Ordering::Acquire)
    }

    /// Until when it is trusted, or when it lost its trust; zero if it never had any.
    pub(crate) fn trust_until(&self) -> Micros {
        self.trust_until.load(Ordering::Acquire)
    }

    /// Only for the subscriber: trusted until `until`, as far as `era` is still in force.
    pub(super) fn trust(&self, era: &Era, until: Micros) {
        let _retired = self.retired();
        if self.epoch() == era.epoch && !self.is_alone() {
            self.trust_until.fetch_max(until, Ordering::AcqRel);
            self.extended.notify_all();
        }
    }

    /// Waits until it is trusted, or `limit` has passed. Returns whether it is.
    pub(crate) fn wait_trusted(&self, clock: &Clock, limit: Duration) -> bool {
        let distrusted = |_: &mut _| !self.is_trusted(clock.now());
        drop(
            self.extended
                .wait_timeout_while(self.retired(), limit, distrusted),
        );
        self.is_trusted(clock.now())
    }

    /// What a value depends on, whose load has this stamp. Of another history than the one in force there are no cells: then
    /// nothing can tell what becomes of it, and it stays of another history for good.
    pub(crate) fn dependency(&self, stamp: Stamp, names: &Arc<[Name]>) -> Dependency {
        let era = self.era.load();
        let known = era.epoch == stamp.epoch;
        let cells = if known {
            names.iter().map(|name| era.cell(name)).collect()
        } else {
            Box::default()
        };
        Dependency {
            stamp,
            names: names.clone(),
            cells,
        }
    }

    /// Whether anything that these depend on was invalidated since the history in force began: what is older than it, and stale by
    /// its resource's leave, falls with that.
    pub(crate) fn invalidated_since_reset(&self, dependencies: &[Dependency]) -> bool {
        let era = self.era.load();
        let hit = |name: &Name| {
            era.shard(name)
                .get(name)
                .is_some_and(|cell| cell.hard.load(Ordering::Acquire) > 0)
        };
        // What was invalidated in its own history stays so: the cells of that are still at hand.
        let before = |dependency: &Dependency| {
            let clock = dependency.stamp.clock;
            dependency
                .cells
                .iter()
                .any(|cell| cell.hard.load(Ordering::Acquire) > clock)
                || self
                    .retired()
                    .get(&dependency.stamp.epoch)
                    .is_some_and(|dead_below| *dead_below > clock)
        };
        dependencies.iter().any(before)
            || era.dead_below.load(Ordering::Acquire) > era.begun
            || dependencies
                .iter()
                .any(|dependency| dependency.names.iter().any(hit))
            || self.pending.strictest(dependencies) == Some(Kind::Hard)
    }

    /// What has become of what depends on these. Nothing is looked up and nothing is locked, unless an invalidation is pending.
    pub(crate) fn standing(&self, dependencies: &[Dependency]) -> Standing {
        let epoch = self.epoch();
        let era = self.era.load();
        let (dead_below, mut soft) = (
            era.dead_below.load(Ordering::Acquire),
            era.soft_below.load(Ordering::Acquire),
        );
        let mut standing = Standing::Valid;
        if era.epoch != epoch || dependencies.is_empty() {
            return Standing::OtherHistory;
        }
        for dependency in dependencies {
            let Stamp {
                epoch: of, clock, ..
            } = dependency.stamp;
            if of != epoch || dependency.cells.len() != dependency.names.len() {
                return Standing::OtherHistory;
            }
            if dead_below > clock {
                return Standing::Invalid;
            }
            for cell in &dependency.cells {
                if cell.hard.load(Ordering::Acquire) > clock {
                    return Standing::Invalid;
                }
                soft = soft.max(cell.soft.load(Ordering::Acquire));
            }
            if soft > clock {
                standing = Standing::Soft(soft);
            }
            soft = era.soft_below.load(Ordering::Relaxed);
        }
        if self.pending.is_empty() {
            return standing;
        }
        match self.pending.strictest(dependencies) {
            Some(Kind::Hard) => Standing::Invalid,
            Some(Kind::Soft) if standing == Standing::Valid => Standing::Soft(0),
            _ => standing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(epoch: u64, clock: u64) -> State {
        State {
            epoch: Epoch(epoch),
            clock,
            floor: 0,
            soft_floor: 0,
            pruned_to: 0,
            begun: 0,
        }
    }

    fn stamp(epoch: u64, clock: u64) -> Stamp {
        Stamp {
            epoch: Epoch(epoch),
            clock,
            begun: 0,
        }
    }

    fn names(names: &[&str]) -> Arc<[Name]> {
        names.iter().map(|name| Name::tag(name)).collect()
    }

    fn mirror() -> Mirror {
        let mirror = Mirror::alone(false);
        assert_eq!(mirror.saw(&state(1, 10)), Seen::First);
        mirror
    }

    #[test]
    fn an_entry_falls_with_what_was_invalidated_after_its_load_began() {
        let mirror = mirror();
        let of = |clock| [mirror.dependency(stamp(1, clock), &names(&["a", "b"]))];
        let (before, after) = (of(10), of(11));
        assert_eq!(mirror.standing(&before), Standing::Valid);
        mirror.era().apply(&Name::tag("b"), Kind::Hard, 11);
        assert_eq!(mirror.standing(&before), Standing::Invalid);
        assert_eq!(mirror.standing(&after), Standing::Valid);
        assert_eq!(
            mirror.standing(&of(10)),
            Standing::Invalid,
            "a late copy of the old value, too"
        );
        mirror.era().apply(&Name::tag("b"), Kind::Hard, 9);
        assert_eq!(
            mirror.standing(&before),
            Standing::Invalid,
            "a cell only grows"
        );
    }

    #[test]
    fn each_part_is_compared_by_its_own_clock() {
        let mirror = mirror();
        mirror.era().apply(&Name::tag("fast"), Kind::Hard, 20);
        let parts = [
            mirror.dependency(stamp(1, 10), &names(&["slow"])),
            mirror.dependency(stamp(1, 20), &names(&["fast"])),
        ];
        assert_eq!(mirror.standing(&parts), Standing::Valid);
        mirror.era().apply(&Name::tag("fast"), Kind::Soft, 21);
        assert_eq!(mirror.standing(&parts), Standing::Soft(21));
        mirror.era().apply(&Name::tag("slow"), Kind::Hard, 22);
        assert_eq!(mirror.standing(&parts), Standing::Invalid);
    }

    #[test]
    fn everything_is_a_floor() {
        let mirror = mirror();
        let of = |clock| [mirror.dependency(stamp(1, clock), &names(&["a"]))];
        let (early, late) = (of(10), of(30));
        mirror.era().apply(&Name::everything(), Kind::Soft, 20);
        assert_eq!(
            (mirror.standing(&early), mirror.standing(&late)),
            (Standing::Soft(20), Standing::Valid)
        );
        mirror.era().apply(&Name::everything(), Kind::Hard, 30);
        assert_eq!(
            (mirror.standing(&early), mirror.standing(&late)),
            (Standing::Invalid, Standing::Valid)
        );
        mirror.saw(&State {
            pruned_to: 30,
            ..state(1, 30)
        });
        assert_eq!(
            mirror.standing(&late),
            Standing::Invalid,
            "what was loaded at what was pruned is dead"
        );
    }

    #[test]
    fn a_new_history_shares_nothing_with_the_old_one() {
        let mirror = mirror();
        let old = [mirror.dependency(stamp(1, 10), &names(&["a"]))];
        mirror.era().apply(&Name::tag("a"), Kind::Hard, 1000);
        mirror.trust(&mirror.era(), 5);
        assert!(mirror.is_trusted(4));
        assert_eq!(mirror.saw(&state(2, 3)), Seen::Other);
        assert!(!mirror.is_trusted(4), "nothing of it was heard yet");
        assert_eq!(mirror.standing(&old), Standing::OtherHistory);
        assert!(
            mirror.invalidated_since_reset(&old),
            "what was invalidated in its own history stays so"
        );
        let late = [mirror.dependency(stamp(1, 10), &names(&["a"]))];
        assert_eq!(mirror.standing(&late), Standing::OtherHistory);
        assert!(!mirror.invalidated_since_reset(&late));
        mirror.era().apply(&Name::tag("a"), Kind::Hard, 3);
        assert!(mirror.invalidated_since_reset(&late));
        assert_eq!(
            mirror.saw(&state(1, 10)),
            Seen::Retired,
            "a late reply does not bring the old one back"
        );
        assert_eq!(mirror.epoch(), Epoch(2));
        let new = [mirror.dependency(stamp(2, 3), &names(&["a"]))];
        assert_eq!(
            mirror.standing(&new),
            Standing::Valid,
            "the clock of the old history is not compared"
        );
    }

    #[test]
    fn names_are_forgotten_only_where_no_entry_depends_on_them() {
        let mirror = mirror();
        let held = [mirror.dependency(stamp(1, 10), &names(&["held"]))];
        mirror.era().apply(&Name::tag("loose"), Kind::Hard, 15);
        mirror.era().prune(20);
        assert_eq!(mirror.era().names(), 1);
        assert_eq!(
            mirror.standing(&held),
            Standing::Invalid,
            "a miss, never a stale answer"
        );
        let later = [mirror.dependency(stamp(1, 16), &names(&["held"]))];
        mirror.era().apply(&Name::tag("held"), Kind::Hard, 17);
        assert_eq!(
            mirror.standing(&later),
            Standing::Invalid,
            "its cell is still the one that invalidations find"
        );
    }

    #[test]
    fn epochs_read_as_they_are_written() {
        let epoch = Epoch::random();
        assert_eq!(Epoch::parse(&epoch.to_string()), Some(epoch));
        assert_eq!(Epoch::parse("x"), None);
    }
}
