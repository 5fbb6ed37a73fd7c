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
    let of = |pruned_to| {
        mirror.saw(&State {
            pruned_to,
            ..state(1, 31)
        });
        mirror.standing(&late)
    };
    assert_eq!(of(30), Standing::Valid, "it began after what was forgotten");
    assert_eq!(of(31), Standing::Invalid, "it began before");
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
    let at = [mirror.dependency(stamp(1, 15), &names(&["held"]))];
    mirror.era().prune(20);
    assert_eq!(mirror.era().names(), 1);
    assert_eq!(
        mirror.standing(&at),
        Standing::Valid,
        "what began after the last that was forgotten is kept"
    );
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

#[test]
fn one_that_is_delivered_while_a_read_looks_is_seen_all_the_same() {
    const ROUNDS: u64 = 2_000;
    let mirror = mirror();
    // The one that is invalidated comes first, and the others take their time.
    let all: Vec<String> = (0..500).map(|number| number.to_string()).collect();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    let all = names(&all);
    // Pending, looked at, delivered, done: nobody sleeps in between, so that a look and a delivery meet.
    let turn = AtomicU64::new(0);
    let until = |wanted| {
        let mut looks = 0_u32;
        while turn.load(Ordering::Acquire) != wanted {
            looks += 1;
            if looks.is_multiple_of(10_000) {
                std::thread::yield_now();
            }
            std::hint::spin_loop();
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 1..=ROUNDS {
                let batch = mirror.pending.begin(&all[..1], Kind::Hard);
                mirror.pending.fail(&batch);
                turn.store(4 * round, Ordering::Release);
                until(4 * round + 1);
                mirror.era().apply(&all[0], Kind::Hard, 10 + round);
                mirror.pending.settle(&batch);
                turn.store(4 * round + 2, Ordering::Release);
                until(4 * round + 3);
            }
        });
        let mut missed = 0;
        for round in 1..=ROUNDS {
            let before = [mirror.dependency(stamp(1, 9 + round), &all)];
            until(4 * round);
            turn.store(4 * round + 1, Ordering::Release);
            missed += u64::from(mirror.standing(&before) != Standing::Invalid);
            until(4 * round + 2);
            turn.store(4 * round + 3, Ordering::Release);
        }
        assert_eq!(missed, 0, "of {ROUNDS}");
    });
}
