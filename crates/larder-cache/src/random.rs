//! Numbers that no other process draws: for jitter and for identities of loads and requests. They
//! are not fit for secrets.

use std::cell::Cell;

use super::clock::Clock;

/// The next number. Takes no lock and makes no system call, except for the first on a thread.
pub fn random() -> u64 {
    thread_local!(static STATE: Cell<u64> = Cell::new(seed()));
    // SplitMix64, from Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014.
    STATE.with(|state| {
        let next = state.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        state.set(next);
        let mixed = (next ^ (next >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    })
}

/// A random number from the operating system.
pub(crate) fn seed() -> u64 {
    getrandom::u64().unwrap_or_else(|_| {
        // The machine has no randomness. Time and process id differ between any two calls that
        // matter here.
        let now = Clock::new().now();
        now.rotate_left(20) ^ u64::from(std::process::id())
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    #[test]
    fn threads_draw_different_random_numbers() {
        let draw = || (0..100).map(|_| super::random()).collect::<Vec<_>>();
        let threads: Vec<_> = (0..4).map(|_| std::thread::spawn(draw)).collect();
        let drawn: HashSet<u64> = threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap())
            .collect();
        assert_eq!(drawn.len(), 400);
    }
}
