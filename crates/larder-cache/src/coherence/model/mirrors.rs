//! Mirrors: the real [`Mirror`] in a form that the checker can store, compare and hash.
//!
//! A [`MirrorState`] is what a run can tell two mirrors apart by. Each step builds the real mirror
//! from it, calls the code of the cache, and reads the result back. A look at a mirror is a pure
//! function of its state, so its results are kept.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, LazyLock};

use super::super::history::{Earlier, HistoryState, LastPurges};
use super::super::{
    Dependency, Echo, HistoryId, InvalidationTarget, Message, Mirror, Purge, Stamp, Standing,
};
use crate::clock::Micros;

/// One tick is half of `max_staleness`.
pub(super) const MAX_STALENESS: u8 = 2;
/// No history: Redis is empty, or the replica is alone.
pub(super) const NO_HISTORY: u8 = 0;
/// The present moment on the clock of every mirror. One tick is one microsecond.
const NOW: Micros = 1_000;

/// The tag that the key depends on.
pub(super) static TAG: LazyLock<InvalidationTarget> =
    LazyLock::new(|| InvalidationTarget::tag("tag"));
/// A tag that it does not depend on. No state holds its clock: nothing asks for it.
pub(super) static OTHER: LazyLock<InvalidationTarget> =
    LazyLock::new(|| InvalidationTarget::tag("other"));
pub(super) static TARGETS: LazyLock<Arc<[InvalidationTarget]>> =
    LazyLock::new(|| [TAG.clone()].into());

/// Where a load stands in history: a stamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Load {
    pub(super) history: u8,
    pub(super) clock: u8,
    /// 1 if it began after the purge that is pending here, else 0.
    pub(super) sequence: u8,
}

/// The history, the clock and the clock of the tag in a reply of Redis.
pub(super) type Reply = (u8, u8, u8);

/// A real mirror between two steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MirrorState {
    /// The history in force; `NO_HISTORY` while the replica is alone.
    pub(super) history: u8,
    pub(super) applied: u8,
    /// The highest clock that is known, heard or given by a reply.
    pub(super) newest: u8,
    /// The clock of the last hard purge of the tag.
    pub(super) tag: u8,
    /// For how many ticks it is trusted.
    pub(super) trust_left: u8,
    /// A bit for each history that is over here.
    pub(super) retired: u64,
    /// Whether a purge of the tag is pending and waits for delivery. Then its sequence number is 1
    /// here; otherwise nothing was begun.
    pub(super) pending: bool,
}

// In a few words: the checker hashes more than it does anything else.
impl Hash for MirrorState {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        let (trust, pending) = (self.trust_left, u8::from(self.pending));
        let bytes = [
            self.history,
            self.applied,
            self.tag,
            trust << 1 | pending,
            self.newest,
            0,
            0,
            0,
        ];
        hasher.write_u64(u64::from_le_bytes(bytes) ^ self.retired << 40);
    }
}

impl Hash for Load {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        let bytes = [self.history, self.clock, self.sequence, 0];
        hasher.write_u32(u32::from_le_bytes(bytes));
    }
}

impl MirrorState {
    pub(super) const ALONE: MirrorState = MirrorState {
        history: NO_HISTORY,
        applied: 0,
        newest: 0,
        tag: 0,
        trust_left: 0,
        retired: 0,
        pending: false,
    };

    /// The real mirror in this state.
    pub(super) fn mirror(self) -> Mirror {
        let mirror = Mirror::alone(false);
        let over = (1..self.history).filter(|id| self.retired >> id & 1 == 1);
        for id in over.chain([self.history]).filter(|id| *id != NO_HISTORY) {
            mirror.observe(&history_state(id, 0));
        }
        let history = mirror.history();
        if self.tag > 0 {
            history.apply(&TAG, Purge::Hard, self.tag.into());
        }
        history.advance(self.applied.into());
        history.see(self.newest.into());
        if self.trust_left > 0 {
            mirror.extend_trust(&history, NOW + Micros::from(self.trust_left));
        }
        if self.pending {
            let batch = mirror.pending.begin(&TARGETS, Purge::Hard);
            mirror.pending.fail(&batch);
        }
        mirror
    }

    /// The state of `mirror`, which was built from this one.
    pub(super) fn read_back(self, mirror: &Mirror) -> MirrorState {
        let history = mirror.history();
        let is_alone = mirror.is_alone();
        let id = if is_alone { 0 } else { small(history.id().0) };
        // A later history has a higher number.
        let ids = (1..u64::from(id)).filter(|id| mirror.is_retired(HistoryId(*id)));
        MirrorState {
            history: id,
            applied: if is_alone {
                0
            } else {
                small(history.applied())
            },
            newest: if is_alone { 0 } else { small(history.newest()) },
            tag: small(history.last_purges(&TAG).unwrap_or_default().hard),
            trust_left: small(mirror.trust_until().saturating_sub(NOW)),
            retired: ids.fold(0, |bits, id| bits | 1 << id),
            pending: !mirror.pending.is_empty(),
        }
    }

    pub(super) fn is_trusted(self) -> bool {
        // As `Mirror::is_trusted` at `NOW`.
        self.trust_left > 0
    }

    /// What has become of a value with this load, by the real mirror.
    pub(super) fn standing(self, load: Load) -> Standing {
        type Known = HashMap<(MirrorState, Load), Standing, foldhash::fast::RandomState>;
        thread_local!(static KNOWN: RefCell<Known> = RefCell::default());
        KNOWN.with_borrow_mut(|known| {
            *known
                .entry((self, load))
                .or_insert_with(|| standing(&self.mirror(), load))
        })
    }

    /// The mirror after a reply of Redis: its history and clock, and the clock of the tag. `None`
    /// if the reply is refused.
    pub(super) fn learned(self, reply: Reply) -> Option<MirrorState> {
        type Known =
            HashMap<(MirrorState, Reply), Option<MirrorState>, foldhash::fast::RandomState>;
        thread_local!(static KNOWN: RefCell<Known> = RefCell::default());
        KNOWN.with_borrow_mut(|known| {
            *known.entry((self, reply)).or_insert_with(|| {
                let mirror = self.mirror();
                let clocks = LastPurges {
                    hard: reply.2.into(),
                    soft: 0,
                };
                let state = history_state(reply.0, reply.1);
                let learned = mirror.learn(&state, &TARGETS, &[clocks]);
                learned.ok().map(|()| self.read_back(&mirror))
            })
        })
    }

    /// The mirror after a copy with this load was taken from Redis.
    pub(super) fn has_copied(self, load: Load) -> MirrorState {
        let mirror = self.mirror();
        dependency(&mirror, load);
        self.read_back(&mirror)
    }

    /// The load that a replica begins now without Redis.
    pub(super) fn stamp(self) -> Load {
        let stamp = self.mirror().stamp();
        Load {
            history: self.history,
            clock: if self.history == NO_HISTORY {
                0
            } else {
                small(stamp.clock)
            },
            sequence: small(stamp.sequence),
        }
    }
}

fn standing(mirror: &Mirror, load: Load) -> Standing {
    let dependency = dependency(mirror, load);
    mirror.standing([&dependency].into_iter())
}

pub(super) fn dependency(mirror: &Mirror, load: Load) -> Dependency {
    mirror.dependency(real_stamp(mirror, load), &TARGETS)
}

pub(super) fn real_stamp(mirror: &Mirror, load: Load) -> Stamp {
    let Load {
        history,
        clock,
        sequence,
    } = load;
    // A load that was made alone belongs to the history of this process, whose id is random.
    let alone = history == NO_HISTORY && mirror.is_alone();
    let (history, clock) = match alone {
        true => (mirror.history_id(), mirror.history().applied()),
        false => (HistoryId(history.into()), clock.into()),
    };
    Stamp {
        history,
        clock,
        sequence: sequence.into(),
    }
}

/// What Redis says of the history and of the tag.
pub(super) fn record((history, clock, tag): Reply) -> Earlier {
    let purges = vec![LastPurges {
        hard: tag.into(),
        soft: 0,
    }];
    Earlier {
        state: history_state(history, clock),
        purges,
    }
}

/// What Redis says of its history.
pub(super) fn history_state(history: u8, clock: u8) -> HistoryState {
    HistoryState {
        history: HistoryId(history.into()),
        clock: clock.into(),
        hard_watermark: 0,
        soft_watermark: 0,
        pruned_to: 0,
        first_clock: 1,
    }
}

/// A message as the bus decodes it. One without a clock before it begins a history.
pub(super) fn message(history: u8, clock: u8, before: u8, ours: bool) -> Message {
    let target = if ours { &TAG } else { &OTHER };
    Message {
        history: HistoryId(history.into()),
        clock: clock.into(),
        before: before.into(),
        purge: (before > 0).then_some(Purge::Hard),
        targets: vec![(*target).clone()],
        replica: String::new(),
    }
}

pub(super) fn echo(history: u8, clock: u8) -> Echo {
    Echo {
        token: 0,
        history: HistoryId(history.into()),
        clock: clock.into(),
    }
}

/// When the trust ends that an echo gives whose ping is `age` ticks old.
pub(super) fn trusted_until(age: u8) -> Micros {
    NOW + Micros::from(MAX_STALENESS - age)
}

fn small(number: u64) -> u8 {
    u8::try_from(number).expect("the numbers of a run are small")
}
