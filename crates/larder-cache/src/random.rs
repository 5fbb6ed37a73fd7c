//! Numbers that no other process draws: for jitter and for identities of loads and requests, not for secrets.

use std::cell::Cell;

/// The next one. Costs no lock and no system call, but for the first on a thread.
pub fn random() -> u64 {
    thread_local!(static STATE: Cell<u64> = Cell::new(super::coherence::HistoryId::random().0));
    // SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014), seeded by the system.
    STATE.with(|state| {
        let next = state.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        state.set(next);
        let mixed = (next ^ (next >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    #[test]
    fn threads_draw_different_numbers() {
        let draw = || (0..100).map(|_| super::random()).collect::<Vec<_>>();
        let threads: Vec<_> = (0..4).map(|_| std::thread::spawn(draw)).collect();
        let drawn: HashSet<u64> = threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap())
            .collect();
        assert_eq!(drawn.len(), 400);
    }
}
