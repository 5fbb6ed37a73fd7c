//! Who still waits for the result of a flight.
//!
//! A flight for a part of a composite is wanted for as long as somebody wants the composite.
//! Promise: a flight that was closed because nobody wanted it takes no more readers. A reader that
//! comes at that moment begins a flight of its own, and gets no error that does not concern it.
//!
//! Lock order: the loaders' lock, then the lock of one interest at a time.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::fair_queue::Caller;

/// A load that many callers wait for is in the lines of this many of them.
const MOST_CALLERS: usize = 8;

/// See the module.
#[derive(Default)]
pub(crate) struct Interest(
    /// Protects the counts, the callers and the links; held for one look or one change.
    Mutex<InterestState>,
);

#[derive(Default)]
struct InterestState {
    /// Readers who hold a ticket.
    readers: usize,
    /// Those of them that are known to be still connected, and so may keep the load in the queue.
    present: usize,
    /// The callers of those readers, each once.
    callers: Vec<Caller>,
    /// Whether a stale copy was served meanwhile. Then the flight goes on for later readers.
    is_refresh: bool,
    closed: bool,
    composites: Vec<Weak<Interest>>,
    parts: Vec<Weak<Interest>>,
    /// `None`: its load does not wait in a queue.
    slot: Option<Slot>,
}

/// The place of a waiting load in the queue. The loaders make it. It is called with each change.
pub(crate) type Slot = Arc<dyn Fn(Change<'_>) + Send + Sync>;

/// What has changed for a load that waits in a queue.
pub(crate) enum Change<'a> {
    /// These callers wait for it, too.
    MoreCallers(&'a [Caller]),
    /// Nobody may want it any more.
    ReaderLeft,
}

/// For whom a flight is begun or joined.
#[derive(Clone)]
pub(crate) enum Behalf {
    /// A reader.
    Reader(Caller),
    /// Another flight, which is made from this one.
    Composite(Arc<Interest>),
}

/// The next step of a flight, which only some readers justify.
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
    /// a composite, whose readers count.
    pub(crate) fn board(self: &Arc<Self>, behalf: &Behalf) -> Option<Option<Reader>> {
        let mut state = self.0.lock();
        if state.closed {
            return None;
        }
        match behalf {
            Behalf::Reader(caller) => {
                state.readers += 1;
                state.present += 1;
                let told = state.add_callers(&[*caller]);
                drop(state);
                tell_of_callers(told, &[*caller]);
                Some(Some(Reader {
                    interest: self.clone(),
                    present: true,
                }))
            }
            Behalf::Composite(composite) => {
                state.composites.push(Arc::downgrade(composite));
                drop(state);
                let callers = {
                    let mut state = composite.0.lock();
                    state.parts.push(Arc::downgrade(self));
                    state.callers.clone()
                };
                self.add_callers(&callers);
                Some(None)
            }
        }
    }

    fn add_callers(&self, callers: &[Caller]) {
        let told = self.0.lock().add_callers(callers);
        tell_of_callers(told, callers);
    }

    /// The callers in whose lines its load waits; none for a refresh that nobody waits for.
    pub(crate) fn callers(&self) -> Vec<Caller> {
        let state = self.0.lock();
        if state.is_refresh {
            Vec::new()
        } else {
            state.callers.clone()
        }
    }

    /// Records that a stale copy was served, so that the load goes on without readers.
    pub(crate) fn set_refresh(&self) {
        self.0.lock().is_refresh = true;
    }

    /// Sets where its load waits. `None`: it does not wait any more.
    pub(crate) fn set_slot(&self, slot: Option<Slot>) {
        self.0.lock().slot = slot;
    }

    /// Whether it was closed and no reader is left: nobody will see how it ends.
    pub(crate) fn is_deserted(&self) -> bool {
        let state = self.0.lock();
        state.closed && state.readers == 0
    }

    /// Closes the flight, and the composites that are made from it, if nobody wants them for this
    /// `step`; returns whether it is closed.
    pub(crate) fn close_if_unwanted(&self, step: Step) -> bool {
        loop {
            let composites = {
                let state = self.0.lock();
                if state.closed || state.is_wanted(step) {
                    return state.closed;
                }
                state.composites.clone()
            };
            let mut known = composites.iter().filter_map(Weak::upgrade);
            if !known.all(|composite| composite.close_if_unwanted(step)) {
                return false;
            }
            let mut state = self.0.lock();
            // Look again:
            //
            // 1. This finds no reader and no wanted composite, and lets go of the lock.
            // 2. A reader or another composite boards.
            // 3. Closing now would end their flight with an error that is not about them.
            if !state.is_wanted(step) && state.composites.len() == composites.len() {
                state.closed = true;
                state.slot = None;
                return true;
            }
        }
    }

    /// Takes its load, and those of its parts, out of the queue if nobody wants them any more.
    fn settle(&self) {
        let (slot, parts) = {
            let state = self.0.lock();
            (state.slot.clone(), state.parts.clone())
        };
        if let Some(slot) = slot {
            slot(Change::ReaderLeft);
        }
        parts
            .iter()
            .filter_map(Weak::upgrade)
            .for_each(|part| part.settle());
    }
}

/// The slot and the parts that have to learn of new callers.
type Told = (Option<Slot>, Vec<Weak<Interest>>);

/// Notifies them, outside the lock.
fn tell_of_callers((slot, parts): Told, callers: &[Caller]) {
    if let Some(slot) = slot {
        slot(Change::MoreCallers(callers));
    }
    parts
        .iter()
        .filter_map(Weak::upgrade)
        .for_each(|part| part.add_callers(callers));
}

impl InterestState {
    fn add_callers(&mut self, callers: &[Caller]) -> Told {
        // A refresh after a stale copy goes on: the stale copy answers its readers.
        if self.is_refresh {
            return Told::default();
        }
        for caller in callers {
            if self.callers.len() < MOST_CALLERS && !self.callers.contains(caller) {
                self.callers.push(*caller);
            }
        }
        (self.slot.clone(), self.parts.clone())
    }

    fn is_wanted(&self, step: Step) -> bool {
        let waiting = match step {
            Step::Wait => self.present,
            Step::Begin => self.readers,
        };
        !self.closed && (self.is_refresh || waiting > 0)
    }
}

impl Reader {
    /// The reader may be gone. It gets the result of a running load, but cannot keep a load in the
    /// queue any more.
    pub(crate) fn step_back(&mut self) {
        if std::mem::take(&mut self.present) {
            let last = {
                let mut state = self.interest.0.lock();
                state.present -= 1;
                state.present == 0
            };
            if last {
                self.interest.settle();
            }
        }
    }

    /// See [`Interest::set_refresh`].
    pub(crate) fn set_refresh(&self) {
        self.interest.set_refresh();
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.step_back();
        self.interest.0.lock().readers -= 1;
    }
}
