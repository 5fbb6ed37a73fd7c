//! Permits for loads, to run or to wait, and how many each share has for itself.
//!
//! Half of all permits are set aside in equal parts, one part for each share; no other share can
//! take them. The other half is for whoever comes first. A share has at least one permit for
//! itself, as long as there are as many permits as shares.

/// The permits of one kind, and who has them.
#[derive(Clone, Debug)]
pub(crate) struct Permits {
    total: usize,
    /// How many each share has set aside.
    own: usize,
    /// How many are for whoever comes first.
    common: usize,
    /// How many each share has taken.
    taken: Vec<usize>,
    /// How many of the common ones are taken.
    common_taken: usize,
}

impl Permits {
    pub(crate) fn new(total: usize) -> Permits {
        Permits {
            total,
            own: 0,
            common: total,
            taken: Vec::new(),
            common_taken: 0,
        }
    }

    /// Says how many shares there are: those of the indices below `shares`.
    pub(crate) fn divide(&mut self, shares: usize) {
        self.own = if shares == 0 || self.total < shares {
            0
        } else {
            (self.total / 2 / shares).max(1)
        };
        self.common = self.total - self.own * shares;
        self.taken.resize(shares.max(self.taken.len()), 0);
        let over = self
            .taken
            .iter()
            .map(|taken| taken.saturating_sub(self.own));
        self.common_taken = over.sum();
    }

    /// Takes a permit for the share with this index; `false`: it may have no more.
    pub(crate) fn try_reserve(&mut self, share: usize) -> bool {
        // A new share may find that others have taken what is set aside for it, until they release
        // it.
        let has_own = self.taken(share) < self.own;
        if self.all_taken() >= self.total || !has_own && self.common_taken >= self.common {
            return false;
        }
        let Some(taken) = self.taken.get_mut(share) else {
            return false;
        };
        *taken += 1;
        self.common_taken += usize::from(!has_own);
        true
    }

    pub(crate) fn release(&mut self, share: usize) {
        if let Some(taken) = self.taken.get_mut(share) {
            self.common_taken -= usize::from(*taken > self.own);
            *taken -= 1;
        }
    }

    /// How many the share with this index has taken.
    pub(crate) fn taken(&self, share: usize) -> usize {
        self.taken.get(share).copied().unwrap_or(0)
    }

    /// How many are taken in all.
    pub(crate) fn all_taken(&self) -> usize {
        self.taken.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Permits of which `share` has taken as many as it may.
    fn full_of(total: usize, shares: usize, share: usize) -> Permits {
        let mut permits = Permits::new(total);
        permits.divide(shares);
        while permits.try_reserve(share) {}
        permits
    }

    fn has_room(permits: &Permits, share: usize) -> bool {
        permits.clone().try_reserve(share)
    }

    #[test]
    fn one_share_takes_all_but_what_is_set_aside_for_the_others() {
        for (total, shares, most) in [
            (64, 1, 64),
            (64, 2, 48),
            (64, 3, 44),
            (4, 2, 3),
            (2, 2, 1),
            (3, 3, 1),
            (1, 1, 1),
            (1, 3, 1),
            (0, 3, 0),
        ] {
            let permits = full_of(total, shares, 0);
            assert_eq!(permits.taken(0), most, "{shares} share {total}");
            assert_eq!(permits.all_taken(), most);
            let left = (1..shares).all(|other| has_room(&permits, other));
            assert_eq!(left, total >= shares, "{shares} share {total}");
        }
    }

    #[test]
    fn what_is_set_aside_is_there_whoever_has_the_rest() {
        let mut permits = full_of(64, 3, 0);
        for other in [1, 2] {
            while permits.try_reserve(other) {}
            assert_eq!(permits.taken(other), 10);
        }
        assert_eq!(permits.all_taken(), 64);
        // A place of the common half that is given back is for whoever comes first.
        permits.release(0);
        assert!(has_room(&permits, 1) && has_room(&permits, 0));
        assert!(permits.try_reserve(1));
        assert!(!has_room(&permits, 0));
    }

    #[test]
    fn shares_that_come_later_have_what_is_theirs_as_it_is_given_back() {
        let mut permits = full_of(8, 1, 0);
        permits.divide(2);
        assert!(!has_room(&permits, 0) && !has_room(&permits, 1));
        permits.release(0);
        assert!(!has_room(&permits, 0) && has_room(&permits, 1));
        assert!(permits.try_reserve(1));
        for _ in 0..3 {
            permits.release(0);
        }
        assert_eq!((permits.taken(0), permits.taken(1)), (4, 1));
        assert!(permits.try_reserve(0));
        assert!(permits.try_reserve(0));
        assert!(!has_room(&permits, 0) && has_room(&permits, 1));
    }
}
