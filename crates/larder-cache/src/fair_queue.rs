//! A queue that takes from each caller in turn.
//!
//! Each caller has a line, and the callers take turns, so that a caller with a thousand jobs delays
//! another's single job by one turn. A job that several callers wait for stands in each of their
//! lines, and is taken at the first turn of any of them. Jobs that nobody waits for share one line.

use std::collections::{HashMap, VecDeque};

/// Identifies a client to the queue: any number that stays the same for one client. Waiting loads
/// are taken from each caller in turn.
pub type Caller = u64;

/// Whose line a job stands in; `None`: nobody waits for it.
type Owner = Option<Caller>;

/// See the module. `T` is what a job is.
pub(crate) struct FairQueue<T> {
    jobs: HashMap<u64, Waiting<T>, foldhash::fast::RandomState>,
    lines: HashMap<Owner, Line, foldhash::fast::RandomState>,
    /// The owners of all lines, the one whose turn is next first.
    turns: VecDeque<Owner>,
}

struct Waiting<T> {
    job: T,
    owners: Vec<Owner>,
}

/// The ids of jobs, the oldest first. Some may have left since.
#[derive(Default)]
struct Line {
    ids: VecDeque<u64>,
    waiting: usize,
}

impl<T> Default for FairQueue<T> {
    fn default() -> Self {
        FairQueue {
            jobs: HashMap::default(),
            lines: HashMap::default(),
            turns: VecDeque::new(),
        }
    }
}

impl<T> FairQueue<T> {
    /// How many jobs wait.
    pub(crate) fn len(&self) -> usize {
        self.jobs.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    /// Adds a job, at the end of the line of each of `callers`. `id` is new.
    pub(crate) fn push(&mut self, id: u64, job: T, callers: &[Caller]) {
        let mut owners: Vec<Owner> = callers.iter().copied().map(Some).collect();
        if owners.is_empty() {
            owners.push(None);
        }
        owners.iter().for_each(|owner| self.line_up(id, *owner));
        self.jobs.insert(id, Waiting { job, owners });
    }

    /// Has the job of this id wait for `caller`, too.
    pub(crate) fn also_for(&mut self, id: u64, caller: Caller) {
        let Some(waiting) = self.jobs.get_mut(&id) else {
            return;
        };
        if !waiting.owners.contains(&Some(caller)) {
            waiting.owners.push(Some(caller));
            self.line_up(id, Some(caller));
        }
    }

    fn line_up(&mut self, id: u64, owner: Owner) {
        let line = self.lines.entry(owner).or_insert_with(|| {
            self.turns.push_back(owner);
            Line::default()
        });
        line.ids.push_back(id);
        line.waiting += 1;
    }

    /// Takes the oldest job of the caller whose turn it is.
    pub(crate) fn pop(&mut self) -> Option<T> {
        while let Some(owner) = self.turns.pop_front() {
            let line = self.lines.get_mut(&owner)?;
            while let Some(id) = line.ids.pop_front() {
                if self.jobs.contains_key(&id) {
                    self.turns.push_back(owner);
                    return self.remove(id);
                }
            }
            self.lines.remove(&owner);
        }
        None
    }

    /// The job of this id, if it waits.
    pub(crate) fn get(&self, id: u64) -> Option<&T> {
        self.jobs.get(&id).map(|waiting| &waiting.job)
    }

    /// Takes the job of this id out of all lines.
    pub(crate) fn remove(&mut self, id: u64) -> Option<T> {
        let Waiting { job, owners } = self.jobs.remove(&id)?;
        for owner in owners {
            let Some(line) = self.lines.get_mut(&owner) else {
                continue;
            };
            line.waiting -= 1;
            if line.waiting == 0 {
                self.lines.remove(&owner);
                self.turns.retain(|turn| *turn != owner);
            } else if line.ids.len() > 2 * line.waiting + 32 {
                line.ids.retain(|id| self.jobs.contains_key(id));
            }
        }
        Some(job)
    }

    /// Makes room for a job of `callers` in a full queue: takes out a job that nobody waits for, or
    /// else the newest job of the caller who has most. `None`: no caller has more jobs than these
    /// would have then, so theirs is the one to refuse.
    pub(crate) fn make_room(&mut self, callers: &[Caller]) -> Option<T> {
        let own = |caller: &Caller| self.lines.get(&Some(*caller)).map_or(0, |own| own.waiting);
        let own = callers.iter().map(own).min()? + 1;
        let line = match self.lines.get(&None) {
            Some(line) => line,
            None => {
                let heaviest = self.lines.values().max_by_key(|line| line.waiting)?;
                if heaviest.waiting <= own {
                    return None;
                }
                heaviest
            }
        };
        // One that another caller waits for, too, stays.
        let alone = |id: &&u64| self.jobs.get(*id).is_some_and(|job| job.owners.len() == 1);
        let newest = *line.ids.iter().rev().find(alone)?;
        self.remove(newest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Caller = 1;
    const B: Caller = 2;
    const C: Caller = 3;

    /// Jobs called by what they are, in the order of their ids.
    fn queue(jobs: &[(&'static str, &[Caller])]) -> FairQueue<&'static str> {
        let mut queue = FairQueue::default();
        for (id, (job, callers)) in jobs.iter().enumerate() {
            queue.push(id as u64, *job, callers);
        }
        queue
    }

    fn drained(mut queue: FairQueue<&'static str>) -> Vec<&'static str> {
        let jobs = std::iter::from_fn(|| queue.pop()).collect();
        assert!(queue.lines.is_empty() && queue.turns.is_empty() && queue.is_empty());
        jobs
    }

    #[test]
    fn callers_take_turns_and_each_is_served_in_its_order() {
        let waiting = queue(&[
            ("a1", &[A]),
            ("a2", &[A]),
            ("a3", &[A]),
            ("b1", &[B]),
            ("c1", &[C]),
            ("b2", &[B]),
        ]);
        assert_eq!(drained(waiting), ["a1", "b1", "c1", "a2", "b2", "a3"]);
    }

    #[test]
    fn renewals_that_nobody_waits_for_have_one_turn_together() {
        let waiting = queue(&[
            ("r1", &[]),
            ("r2", &[]),
            ("r3", &[]),
            ("a1", &[A]),
            ("b1", &[B]),
        ]);
        assert_eq!(drained(waiting), ["r1", "a1", "b1", "r2", "r3"]);
    }

    #[test]
    fn a_job_of_several_callers_is_taken_at_the_first_turn_of_any() {
        let mut waiting = queue(&[("a1", &[A]), ("a2", &[A]), ("a3", &[A]), ("b1", &[B])]);
        waiting.also_for(2, C);
        waiting.also_for(2, C);
        waiting.also_for(9, C);
        assert_eq!(drained(waiting), ["a1", "b1", "a3", "a2"]);
        let both = queue(&[("ab", &[A, B]), ("a", &[A]), ("b", &[B])]);
        assert_eq!(drained(both), ["ab", "b", "a"]);
    }

    #[test]
    fn what_left_is_not_taken_and_its_caller_has_no_turn() {
        let mut waiting = queue(&[("a1", &[A]), ("b1", &[B]), ("a2", &[A]), ("ab", &[A, B])]);
        assert_eq!(waiting.remove(1), Some("b1"));
        assert_eq!(waiting.remove(1), None);
        assert_eq!(waiting.remove(3), Some("ab"));
        assert_eq!((waiting.len(), waiting.get(0)), (2, Some(&"a1")));
        assert_eq!(drained(waiting), ["a1", "a2"]);
    }

    #[test]
    fn lines_do_not_grow_with_what_left_them() {
        let mut waiting = queue(&[("first", &[A])]);
        for id in 1..10_000 {
            waiting.push(id, "more", &[A]);
            waiting.remove(id);
        }
        assert!(waiting.lines[&Some(A)].ids.len() <= 64);
        assert_eq!(drained(waiting), ["first"]);
    }

    #[test]
    fn room_is_made_by_the_newest_of_who_has_most() {
        let mut waiting = queue(&[
            ("a1", &[A]),
            ("a2", &[A]),
            ("a3", &[A]),
            ("b1", &[B]),
            ("a4", &[A, C]),
        ]);
        // The last one is another caller's, too.
        assert_eq!(waiting.make_room(&[B]), Some("a3"));
        assert_eq!(waiting.make_room(&[4]), Some("a2"));
        // Now nobody has more than one more than the newcomer.
        assert_eq!(waiting.make_room(&[B]), None);
        assert_eq!(waiting.make_room(&[A]), None);
        assert_eq!(waiting.len(), 3);
    }

    #[test]
    fn room_is_made_by_renewals_first_and_never_for_one() {
        let mut waiting = queue(&[("a1", &[A]), ("a2", &[A]), ("r1", &[]), ("r2", &[])]);
        assert_eq!(waiting.make_room(&[]), None);
        assert_eq!(waiting.make_room(&[A]), Some("r2"));
        assert_eq!(waiting.make_room(&[B]), Some("r1"));
        assert_eq!(waiting.make_room(&[A]), None);
        // Two of one caller against the first of another: that is no more than fair.
        assert_eq!(waiting.make_room(&[B]), Some("a2"));
    }
}
