use super::super::history::SLOTS;
use super::*;

fn state(history: u64, clock: u64) -> HistoryState {
    HistoryState {
        history: HistoryId(history),
        clock,
        hard_watermark: 0,
        soft_watermark: 0,
        pruned_to: 0,
        first_clock: 0,
    }
}

fn stamp(history: u64, clock: u64) -> Stamp {
    Stamp {
        history: HistoryId(history),
        clock,
        sequence: 0,
    }
}

fn names(names: &[&str]) -> Arc<[InvalidationTarget]> {
    names
        .iter()
        .map(|name| InvalidationTarget::tag(name))
        .collect()
}

fn mirror() -> Mirror {
    let mirror = Mirror::alone(false);
    assert_eq!(mirror.observe(&state(1, 10)), Observed::First);
    mirror
}

#[test]
fn an_entry_falls_with_what_was_invalidated_after_its_load_began() {
    let mirror = mirror();
    let of = |clock| [mirror.dependency(stamp(1, clock), &names(&["a", "b"]))];
    let (before, after) = (of(10), of(11));
    assert_eq!(mirror.standing(before.iter()), Standing::Valid);
    mirror
        .history()
        .apply(&InvalidationTarget::tag("b"), Purge::Hard, 11);
    assert_eq!(mirror.standing(before.iter()), Standing::Invalid);
    assert_eq!(mirror.standing(after.iter()), Standing::Valid);
    assert_eq!(
        mirror.standing(of(10).iter()),
        Standing::Invalid,
        "a late copy of the old value, too"
    );
    mirror
        .history()
        .apply(&InvalidationTarget::tag("b"), Purge::Hard, 9);
    assert_eq!(
        mirror.standing(before.iter()),
        Standing::Invalid,
        "a clock only grows"
    );
}

#[test]
fn each_part_is_compared_by_its_own_clock() {
    let mirror = mirror();
    mirror
        .history()
        .apply(&InvalidationTarget::tag("fast"), Purge::Hard, 20);
    let parts = [
        mirror.dependency(stamp(1, 10), &names(&["slow"])),
        mirror.dependency(stamp(1, 20), &names(&["fast"])),
    ];
    assert_eq!(mirror.standing(parts.iter()), Standing::Valid);
    mirror
        .history()
        .apply(&InvalidationTarget::tag("fast"), Purge::Soft, 21);
    assert_eq!(mirror.standing(parts.iter()), Standing::Soft(21));
    mirror
        .history()
        .apply(&InvalidationTarget::tag("slow"), Purge::Hard, 22);
    assert_eq!(mirror.standing(parts.iter()), Standing::Invalid);
}

#[test]
fn everything_is_a_floor() {
    let mirror = mirror();
    let of = |clock| [mirror.dependency(stamp(1, clock), &names(&["a"]))];
    let (early, late) = (of(10), of(30));
    mirror
        .history()
        .apply(&InvalidationTarget::everything(), Purge::Soft, 20);
    assert_eq!(
        (mirror.standing(early.iter()), mirror.standing(late.iter())),
        (Standing::Soft(20), Standing::Valid)
    );
    mirror
        .history()
        .apply(&InvalidationTarget::everything(), Purge::Hard, 30);
    assert_eq!(
        (mirror.standing(early.iter()), mirror.standing(late.iter())),
        (Standing::Invalid, Standing::Valid)
    );
    let of = |pruned_to| {
        mirror.observe(&HistoryState {
            pruned_to,
            ..state(1, 31)
        });
        mirror.standing(late.iter())
    };
    assert_eq!(of(30), Standing::Valid, "it began after what was forgotten");
    assert_eq!(of(31), Standing::Invalid, "it began before");
}

#[test]
fn a_new_history_shares_nothing_with_the_old_one() {
    let mirror = mirror();
    let old = [mirror.dependency(stamp(1, 10), &names(&["a"]))];
    mirror
        .history()
        .apply(&InvalidationTarget::tag("a"), Purge::Hard, 1000);
    mirror.extend_trust(&mirror.history(), 5);
    assert!(mirror.is_trusted(4));
    assert_eq!(mirror.observe(&state(2, 3)), Observed::New);
    assert!(!mirror.is_trusted(4), "nothing of it was heard yet");
    assert_eq!(mirror.standing(old.iter()), Standing::OtherHistory);
    assert!(
        mirror.invalidated_since_reset(old.iter()),
        "what was invalidated in its own history stays so"
    );
    let late = [mirror.dependency(stamp(1, 10), &names(&["a"]))];
    assert_eq!(mirror.standing(late.iter()), Standing::OtherHistory);
    assert!(!mirror.invalidated_since_reset(late.iter()));
    mirror
        .history()
        .apply(&InvalidationTarget::tag("a"), Purge::Hard, 3);
    assert!(mirror.invalidated_since_reset(late.iter()));
    assert_eq!(
        mirror.observe(&state(1, 10)),
        Observed::Retired,
        "a late reply does not bring the old one back"
    );
    assert_eq!(mirror.history_id(), HistoryId(2));
    let new = [mirror.dependency(stamp(2, 3), &names(&["a"]))];
    assert_eq!(
        mirror.standing(new.iter()),
        Standing::Valid,
        "the clock of the old history is not compared"
    );
}

#[test]
fn what_was_loaded_before_a_name_that_is_forgotten_is_dead() {
    let mirror = mirror();
    let held = [mirror.dependency(stamp(1, 10), &names(&["held"]))];
    mirror
        .history()
        .apply(&InvalidationTarget::tag("loose"), Purge::Hard, 15);
    mirror
        .history()
        .apply(&InvalidationTarget::tag("recent"), Purge::Soft, 20);
    let at = [mirror.dependency(stamp(1, 15), &names(&["held"]))];
    let of_it = [mirror.dependency(stamp(1, 14), &names(&["loose"]))];
    mirror.history().prune(20);
    assert_eq!(mirror.history().target_count(), 1, "the recent one");
    assert_eq!(mirror.standing(of_it.iter()), Standing::Invalid);
    assert_eq!(
        mirror.standing(at.iter()),
        Standing::Valid,
        "what began after the last that was forgotten is kept"
    );
    assert_eq!(
        mirror.standing(held.iter()),
        Standing::Invalid,
        "a miss, never a stale answer"
    );
    let later = [mirror.dependency(stamp(1, 16), &names(&["held"]))];
    mirror
        .history()
        .apply(&InvalidationTarget::tag("held"), Purge::Hard, 17);
    assert_eq!(
        mirror.standing(later.iter()),
        Standing::Invalid,
        "what comes later is noted"
    );
}

#[test]
fn one_that_is_alone_forgets_names_where_there_are_too_many() {
    let mirror = Mirror::alone(true);
    let history = mirror.history();
    let since = |clock| {
        let stamp = Stamp {
            clock,
            ..mirror.stamp()
        };
        mirror.standing([mirror.dependency(stamp, &names(&["other"]))].iter())
    };
    for (clock, name) in [(10, "a"), (20, "b"), (30, "c")] {
        history.apply(&InvalidationTarget::tag(name), Purge::Hard, clock);
    }
    history.make_room(3, 15);
    assert_eq!(
        (history.target_count(), since(5)),
        (3, Standing::Valid),
        "they fit"
    );
    history.make_room(2, 15);
    assert_eq!(history.target_count(), 2, "the old one went");
    assert_eq!((since(9), since(10)), (Standing::Invalid, Standing::Valid));
    history.make_room(1, 15);
    assert_eq!(history.target_count(), 0, "none is old");
    assert_eq!((since(29), since(30)), (Standing::Invalid, Standing::Valid));
}

#[test]
fn a_history_that_is_over_holds_no_names() {
    let mirror = mirror();
    let of = |name| [mirror.dependency(stamp(1, 10), &names(&[name]))];
    let (hit, spared) = (of("a"), of("b"));
    mirror
        .history()
        .apply(&InvalidationTarget::tag("a"), Purge::Hard, 1000);
    let old = mirror.history();
    mirror.observe(&state(2, 3));
    assert_eq!(
        (old.target_count(), mirror.history().target_count()),
        (0, 0)
    );
    assert!(
        mirror.invalidated_since_reset(hit.iter()),
        "and knows all the same"
    );
    assert!(!mirror.invalidated_since_reset(spared.iter()));
}

#[test]
fn names_that_share_a_slot_are_told_apart() {
    let mirror = mirror();
    // So many names that some share a slot.
    let all: Vec<InvalidationTarget> = (0..5_000)
        .map(|number| InvalidationTarget::tag(&number.to_string()))
        .collect();
    let (even, odd): (Vec<_>, Vec<_>) = all.iter().enumerate().partition(|(at, _)| at % 2 == 0);
    let of = |name: &InvalidationTarget, clock| {
        [mirror.dependency(stamp(1, clock), &names(&[name.as_str()]))]
    };
    for (at, name) in &even {
        let kind = [Purge::Hard, Purge::Soft][at / 2 % 2];
        mirror.history().apply(name, kind, 20 + *at as u64);
    }
    let shared = odd
        .iter()
        .filter(|(_, name)| mirror.history().purges_after(name, 10).is_some());
    assert!(shared.count() > 0, "some meet");
    for (_, name) in odd {
        assert_eq!(mirror.standing(of(name, 10).iter()), Standing::Valid);
    }
    for (at, name) in even {
        let clock = 20 + at as u64;
        let fell = [Standing::Invalid, Standing::Soft(clock)][at / 2 % 2];
        assert_eq!(mirror.standing(of(name, clock - 1).iter()), fell);
        assert_eq!(mirror.standing(of(name, clock).iter()), Standing::Valid);
    }
}

/// A turn among threads that spin, so that their next steps happen at the same time.
#[derive(Default)]
struct Turns(AtomicU64);

impl Turns {
    fn give(&self, turn: u64) {
        self.0.store(turn, Ordering::Release);
    }

    fn wait(&self, turn: u64) {
        let mut looks = 0_u32;
        while self.0.load(Ordering::Acquire) != turn {
            looks += 1;
            if looks.is_multiple_of(10_000) {
                std::thread::yield_now();
            }
            std::hint::spin_loop();
        }
    }
}

/// Runs `meanwhile` at the same time as a look at an entry with many names, in many rounds. Before
/// each round `before` makes the entry invalid, and it stays so.
fn never_missed(
    before: impl Fn(&Mirror, &[InvalidationTarget], u64) + Sync,
    meanwhile: impl Fn(&Mirror, &[InvalidationTarget], u64) + Sync,
) {
    const ROUNDS: u64 = 2_000;
    let mirror = mirror();
    // The last one has a slot of its own. Otherwise the look at another one of its slot could meet
    // what is raised for the last one alone.
    let last = InvalidationTarget::tag("last");
    let slot = |target: &InvalidationTarget| target.short_hash() as usize % SLOTS;
    let others = (0..).map(|number: u32| InvalidationTarget::tag(&number.to_string()));
    let others = others.filter(|other| slot(other) != slot(&last));
    let all: Arc<[_]> = others.take(499).chain([last.clone()]).collect();
    let turns = Turns::default();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 1..=ROUNDS {
                before(&mirror, &all, round);
                turns.give(4 * round);
                turns.wait(4 * round + 1);
                meanwhile(&mirror, &all, round);
                turns.give(4 * round + 2);
                turns.wait(4 * round + 3);
            }
        });
        let mut missed = 0;
        for round in 1..=ROUNDS {
            let entry = [mirror.dependency(stamp(1, 9 + round), &all)];
            turns.wait(4 * round);
            turns.give(4 * round + 1);
            missed += u64::from(mirror.standing(entry.iter()) != Standing::Invalid);
            turns.wait(4 * round + 2);
            turns.give(4 * round + 3);
        }
        assert_eq!(missed, 0, "of {ROUNDS}");
    });
}

#[test]
fn one_that_is_delivered_while_a_read_looks_is_seen_all_the_same() {
    never_missed(
        |mirror, all, _| {
            let batch = mirror.pending.begin(&all[..1], Purge::Hard);
            mirror.pending.fail(&batch);
        },
        |mirror, all, round| {
            // Its name comes first, and the other names take time to look at.
            mirror.history().apply(&all[0], Purge::Hard, 10 + round);
            for batch in mirror.pending.to_deliver(1) {
                mirror.pending.settle(&batch);
            }
        },
    );
}

#[test]
fn a_name_that_is_forgotten_while_a_read_looks_is_not_missed() {
    never_missed(
        // The last name that is looked at.
        |mirror, all, round| mirror.history().apply(&all[499], Purge::Hard, 10 + round),
        |mirror, _, round| mirror.history().prune(11 + round),
    );
}

#[test]
fn nor_is_one_that_somebody_late_tells_again_with_an_older_clock() {
    never_missed(
        |mirror, all, round| mirror.history().apply(&all[499], Purge::Hard, 10 + round),
        |mirror, all, round| {
            mirror.history().prune(11 + round);
            mirror.history().apply(&all[499], Purge::Hard, 1);
        },
    );
}
