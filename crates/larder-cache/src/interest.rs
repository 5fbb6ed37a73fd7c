//! Who still waits for what a flight brings.
//!
//! A flight that a whole is made from is wanted for as long as somebody wants the whole. Promise: a
//! flight that was closed because nobody wanted it takes no reader any more, so a reader that comes
//! at that moment begins a flight of its own instead of receiving an error that is not about it.
//!
//! Lock order: the loaders' lock, then the lock of one interest at a time.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::fair_queue::Caller;
use super::loaders::Place;

/// A load that many callers wait for stands in the lines of this many of them.
const MOST_CALLERS: usize = 8;

/// See the module.
#[derive(Default)]
pub(crate) struct Interest(Mutex<State>);

#[derive(Default)]
struct State {
    /// Readers who hold a ticket.
    readers: usize,
    /// Those of them who are known to be there still, and so have a right to a place in the queue.
    present: usize,
    /// The callers of those readers, each once.
    callers: Vec<Caller>,
    /// Whether a stale copy was served in place of what the flight brings: it goes on for the next
    /// reader.
    kept: bool,
    closed: bool,
    wholes: Vec<Weak<Interest>>,
    parts: Vec<Weak<Interest>>,
    place: Option<Place>,
}

/// For whom a flight is begun or joined.
#[derive(Clone)]
pub(crate) enum Behalf {
    /// A reader.
    Reader(Caller),
    /// Another flight, which is made from this one.
    Whole(Arc<Interest>),
}

/// What a flight is about to do with who wants it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// To wait in the queue: only for readers who are known to be there.
    Wait,
    /// To begin now: for any reader who has not given up its ticket.
    Begin,
}

/// A reader's interest. It ends when this is dropped.
pub(crate) struct Reader {
    interest: Arc<Interest>,
    present: bool,
}

impl Interest {
    /// Takes part in the flight of this interest. `None`: it was closed. `Some(None)`: on behalf of
    /// a whole, whose readers count.
    pub(crate) fn board(self: &Arc<Self>, behalf: &Behalf) -> Option<Option<Reader>> {
        match behalf {
            Behalf::Reader(caller) => {
                {
                    let mut state = self.lock();
                    if state.closed {
                        return None;
                    }
                    state.readers += 1;
                    state.present += 1;
                }
                self.add_callers(&[*caller]);
                Some(Some(Reader {
                    interest: self.clone(),
                    present: true,
                }))
            }
            Behalf::Whole(whole) => {
                {
                    let mut state = self.lock();
                    if state.closed {
                        return None;
                    }
                    state.wholes.push(Arc::downgrade(whole));
                }
                let callers = {
                    let mut state = whole.lock();
                    state.parts.push(Arc::downgrade(self));
                    state.callers.clone()
                };
                self.add_callers(&callers);
                Some(None)
            }
        }
    }

    fn add_callers(&self, callers: &[Caller]) {
        let (place, parts) = {
            let mut state = self.lock();
            // A renewal behind a stale copy stays what it is: its readers are answered by that
            // copy.
            if state.kept {
                return;
            }
            for caller in callers {
                if state.callers.len() < MOST_CALLERS && !state.callers.contains(caller) {
                    state.callers.push(*caller);
                }
            }
            (state.place.clone(), state.parts.clone())
        };
        if let Some(place) = place {
            place.also_for(callers);
        }
        parts
            .iter()
            .filter_map(Weak::upgrade)
            .for_each(|part| part.add_callers(callers));
    }

    /// The callers in whose lines its load waits; none for a renewal that nobody waits for.
    pub(crate) fn callers(&self) -> Vec<Caller> {
        let state = self.lock();
        if state.kept {
            Vec::new()
        } else {
            state.callers.clone()
        }
    }

    /// Notes that a stale copy was served, so that the load goes on without readers.
    pub(crate) fn keep(&self) {
        self.lock().kept = true;
    }

    /// Where its load waits; `None`: it waits no longer.
    pub(crate) fn set_place(&self, place: Option<Place>) {
        self.lock().place = place;
    }

    /// Whether it was closed and no reader is left: nobody will see how it ends.
    pub(crate) fn is_deserted(&self) -> bool {
        let state = self.lock();
        state.closed && state.readers == 0
    }

    /// Closes the flight, and the wholes that are made from it, if nobody wants them for this
    /// `step`; returns whether it is closed.
    pub(crate) fn close_if_unwanted(&self, step: Step) -> bool {
        loop {
            let wholes = {
                let state = self.lock();
                if state.closed || state.wanted(step) {
                    return state.closed;
                }
                state.wholes.clone()
            };
            let mut known = wholes.iter().filter_map(Weak::upgrade);
            if !known.all(|whole| whole.close_if_unwanted(step)) {
                return false;
            }
            let mut state = self.lock();
            // Otherwise somebody came meanwhile.
            if !state.wanted(step) && state.wholes.len() == wholes.len() {
                state.closed = true;
                state.place = None;
                return true;
            }
        }
    }

    /// Takes its load, and those of its parts, out of the queue if nobody wants them any more.
    fn settle(&self) {
        let (place, parts) = {
            let state = self.lock();
            (state.place.clone(), state.parts.clone())
        };
        if let Some(place) = place {
            place.leave_if_unwanted();
        }
        parts
            .iter()
            .filter_map(Weak::upgrade)
            .for_each(|part| part.settle());
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn wanted(&self, step: Step) -> bool {
        let waiting = match step {
            Step::Wait => self.present,
            Step::Begin => self.readers,
        };
        !self.closed && (self.kept || waiting > 0)
    }
}

impl Reader {
    /// The reader may be gone: it takes what a load brings that runs, but has no right to a place
    /// in the queue any more.
    pub(crate) fn step_back(&mut self) {
        if std::mem::take(&mut self.present) {
            let last = {
                let mut state = self.interest.lock();
                state.present -= 1;
                state.present == 0
            };
            if last {
                self.interest.settle();
            }
        }
    }

    /// See [`Interest::keep`].
    pub(crate) fn keep(&self) {
        self.interest.keep();
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.step_back();
        self.interest.lock().readers -= 1;
    }
}
