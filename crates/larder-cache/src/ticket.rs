//! Tickets: a reader's claim to what a flight brings.
//!
//! A ticket can be awaited, waited for on a thread, or left with a callback. It gives a stale copy, too, as soon as the flight offers
//! one, or at the end of a reader's max_staleness if there is one at hand.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use super::error::LoadError;
use super::flight::{Flight, LookupResult, Role, Waiter};
use super::interest::Reader;
use super::outcome::{Answer, Outcome, Staleness};

/// A reader's claim to an answer: a future, or something to wait for on a thread. A load that has
/// not begun when the last ticket to it is dropped is not made.
pub struct Ticket(Claim);

enum Claim {
    Ready(Option<Answer>),
    Waiting {
        flight: Arc<Flight>,
        role: Role,
        /// `None`: on behalf of a whole, whose readers count.
        reader: Option<Reader>,
        /// The waker that was left with the flight, and how often the flight had woken its readers by then.
        left: Option<(Waker, u64)>,
    },
}

impl Ticket {
    /// A claim that is met already.
    pub(crate) fn ready(answer: Answer) -> Ticket {
        Ticket(Claim::Ready(Some(answer)))
    }

    /// A claim to what this flight brings.
    pub(super) fn waiting(flight: Arc<Flight>, role: Role, reader: Option<Reader>) -> Ticket {
        Ticket(Claim::Waiting {
            flight,
            role,
            reader,
            left: None,
        })
    }

    /// A stale answer for a reader who has waited as long as its resource allows, if there is a copy.
    pub fn stale(&self) -> Option<Answer> {
        let Claim::Waiting { flight, reader, .. } = &self.0 else {
            return None;
        };
        let mut answer = flight.lock().fallback.as_ref()?()?;
        if let Some(reader) = reader {
            reader.keep();
        }
        answer.outcome = Outcome::Stale(Staleness::SoftTimeout);
        Some(answer)
    }

    /// Says that the reader may be gone. The ticket still gives what a load brings that runs or can
    /// begin at once, but the load no longer waits in the queue for this reader.
    pub fn step_back(&mut self) {
        if let Claim::Waiting {
            reader: Some(reader),
            ..
        } = &mut self.0
        {
            reader.step_back();
        }
    }

    /// The answer or a stale copy, as far as there is one now.
    pub(crate) fn answer_or_stale(&self) -> Option<Answer> {
        match &self.0 {
            Claim::Ready(answer) => answer.clone(),
            Claim::Waiting { flight, role, .. } => {
                let now = flight.lock().answer(*role);
                now.and_then(Result::ok).or_else(|| self.stale())
            }
        }
    }

    /// Calls `callback` with the answer, once, here if there is one already.
    pub(crate) fn on_answer(&self, callback: impl FnOnce(LookupResult) + Send + 'static) {
        let answer = match &self.0 {
            Claim::Ready(answer) => answer.clone().ok_or(LoadError::Overloaded),
            Claim::Waiting { flight, role, .. } => {
                let mut state = flight.lock();
                match state.answer(*role) {
                    Some(answer) => answer,
                    None => {
                        state
                            .waiters
                            .push(Waiter::Callback(Box::new(callback), *role));
                        return;
                    }
                }
            }
        };
        callback(answer);
    }

    /// Waits on this thread, at most for `limit`.
    ///
    /// # Errors
    /// What the load ended with; `TooSlow` when the time is over.
    pub fn wait(self, limit: Duration) -> LookupResult {
        self.wait_or_stale(None, limit)
    }

    /// The same, but after `soft` with a stale copy, if there is one.
    ///
    /// # Errors
    /// As [`Ticket::wait`].
    pub fn wait_or_stale(self, soft: Option<Duration>, limit: Duration) -> LookupResult {
        struct Unpark(std::thread::Thread);
        impl Wake for Unpark {
            fn wake(self: Arc<Self>) {
                self.0.unpark();
            }
        }
        let began = Instant::now();
        let mut soft = soft.filter(|soft| *soft < limit);
        let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
        let mut context = Context::from_waker(&waker);
        let mut ticket = self;
        loop {
            if let Poll::Ready(ending) = Pin::new(&mut ticket).poll(&mut context) {
                return ending;
            }
            let left = soft.unwrap_or(limit).saturating_sub(began.elapsed());
            if !left.is_zero() {
                std::thread::park_timeout(left);
            } else if soft.take().is_none() {
                return Err(LoadError::TooSlow("the load took too long".into()));
            } else if let Some(stale) = ticket.stale() {
                return Ok(stale);
            }
        }
    }
}

impl Future for Ticket {
    type Output = LookupResult;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<LookupResult> {
        match &mut self.0 {
            Claim::Ready(answer) => Poll::Ready(answer.take().ok_or(LoadError::Overloaded)),
            Claim::Waiting {
                flight, role, left, ..
            } => {
                let mut state = flight.lock();
                if let Some(ending) = state.answer(*role) {
                    return Poll::Ready(ending);
                }
                let waker = context.waker();
                let waits = left
                    .as_ref()
                    .is_some_and(|(left, wakes)| *wakes == state.wakes && left.will_wake(waker));
                if !waits {
                    state.waiters.push(Waiter::Task(waker.clone()));
                    *left = Some((waker.clone(), state.wakes));
                }
                Poll::Pending
            }
        }
    }
}
