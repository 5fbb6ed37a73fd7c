//! How many places each share of the loads has for itself.
//!
//! Half of all places are set aside in equal parts, one part for each share, which no other can
//! take; the other half is for whoever comes first. A share has one place for itself at least, as
//! long as there are as many places as shares.

/// The places of one kind, to run or to wait, and who has them.
#[derive(Debug)]
pub(crate) struct Places {
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

impl Places {
    pub(crate) fn new(total: usize) -> Places {
        Places {
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

    /// Whether the share with this index may take a place more.
    pub(crate) fn has_room(&self, share: usize) -> bool {
        // A share that is new finds what is set aside for it taken, until that is given back.
        self.all_taken() < self.total
            && (self.taken(share) < self.own || self.common_taken < self.common)
    }

    pub(crate) fn take(&mut self, share: usize) {
        if let Some(taken) = self.taken.get_mut(share) {
            *taken += 1;
            self.common_taken += usize::from(*taken > self.own);
        }
    }

    pub(crate) fn give_back(&mut self, share: usize) {
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

    /// Places of which `share` has taken as many as it may.
    fn full_of(total: usize, shares: usize, share: usize) -> Places {
        let mut places = Places::new(total);
        places.divide(shares);
        while places.has_room(share) {
            places.take(share);
        }
        places
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
            let places = full_of(total, shares, 0);
            assert_eq!(places.taken(0), most, "{shares} share {total}");
            assert_eq!(places.all_taken(), most);
            let left = (1..shares).all(|other| places.has_room(other));
            assert_eq!(left, total >= shares, "{shares} share {total}");
        }
    }

    #[test]
    fn what_is_set_aside_is_there_whoever_has_the_rest() {
        let mut places = full_of(64, 3, 0);
        for other in [1, 2] {
            while places.has_room(other) {
                places.take(other);
            }
            assert_eq!(places.taken(other), 10);
        }
        assert_eq!(places.all_taken(), 64);
        // A place of the common half that is given back is for whoever comes first.
        places.give_back(0);
        assert!(places.has_room(1) && places.has_room(0));
        places.take(1);
        assert!(!places.has_room(0));
    }

    #[test]
    fn shares_that_come_later_have_what_is_theirs_as_it_is_given_back() {
        let mut places = full_of(8, 1, 0);
        places.divide(2);
        assert!(!places.has_room(0) && !places.has_room(1));
        places.give_back(0);
        assert!(!places.has_room(0) && places.has_room(1));
        places.take(1);
        for _ in 0..3 {
            places.give_back(0);
        }
        assert_eq!((places.taken(0), places.taken(1)), (4, 1));
        places.take(0);
        places.take(0);
        assert!(!places.has_room(0) && places.has_room(1));
    }
}
