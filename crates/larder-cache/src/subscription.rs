//! A subscription: what was invalidated, for one who reads at their own speed.
//!
//! The bus puts what it hears into a queue and goes on. A queue that is full loses what comes, and
//! says how much, so a slow reader holds up nobody.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::coherence::{InvalidationTarget, Purge};

/// What one subscription keeps for its reader at most.
const ROOM: usize = 1024;

/// What a subscription says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// This was invalidated, here or in another process.
    Invalidated(InvalidationTarget, Purge),
    /// So many invalidations are missing here: the reader was too slow. Any target may be among
    /// them.
    Lost(u64),
}

/// A receiver of what is invalidated: see [`Cache::subscribe`](super::Cache::subscribe).
pub struct Subscription(Arc<Queue>);

struct Queue {
    /// Protects what the reader has not taken yet. Held for one push or one take.
    state: Mutex<State>,
    /// Notified when there is something to take, and at the end.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    heard: VecDeque<Heard>,
    waker: Option<Waker>,
    /// No more comes: the cache is closed.
    ended: bool,
    /// The reader is gone.
    left: bool,
}

/// The end of a subscription that the bus has. The subscription ends with it.
pub(crate) struct Teller(Arc<Queue>);

/// A subscription, and its other end.
pub(crate) fn subscription() -> (Teller, Subscription) {
    let queue = Arc::new(Queue {
        state: Mutex::default(),
        changed: Condvar::new(),
    });
    (Teller(queue.clone()), Subscription(queue))
}

impl Teller {
    /// Tells the reader. Returns whether there is one. Never waits for it.
    pub(crate) fn tell(&self, target: &InvalidationTarget, purge: Purge) -> bool {
        let mut state = self.0.state.lock();
        if state.left {
            return false;
        }
        let is_full = state.heard.len() >= ROOM;
        match state.heard.back_mut() {
            Some(Heard::Lost(count)) if is_full => *count += 1,
            _ if is_full => state.heard.push_back(Heard::Lost(1)),
            _ => {
                let heard = Heard::Invalidated(target.clone(), purge);
                state.heard.push_back(heard);
            }
        }
        let waker = state.waker.take();
        drop(state);
        self.0.changed.notify_one();
        waker.into_iter().for_each(Waker::wake);
        true
    }
}

impl Drop for Teller {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.ended = true;
        let waker = state.waker.take();
        drop(state);
        self.0.changed.notify_one();
        waker.into_iter().for_each(Waker::wake);
    }
}

impl Subscription {
    /// The next that was heard. Waits for it on this thread. `None`: the cache is closed, and
    /// everything was taken.
    pub fn recv(&mut self) -> Option<Heard> {
        let mut state = self.0.state.lock();
        let nothing = |state: &mut State| state.heard.is_empty() && !state.ended;
        self.0.changed.wait_while(&mut state, nothing);
        state.heard.pop_front()
    }

    /// The same, but waits for at most `limit`. `None` also if nothing has come by then.
    pub fn recv_timeout(&mut self, limit: Duration) -> Option<Heard> {
        let mut state = self.0.state.lock();
        let nothing = |state: &mut State| state.heard.is_empty() && !state.ended;
        let until = Instant::now() + limit;
        self.0.changed.wait_while_until(&mut state, nothing, until);
        state.heard.pop_front()
    }

    /// The same as [`Subscription::recv`] as a future, of whatever runtime. Dropped before it is
    /// ready, it has taken nothing.
    pub async fn recv_async(&mut self) -> Option<Heard> {
        poll_fn(|context| {
            let mut state = self.0.state.lock();
            let next = state.heard.pop_front();
            if next.is_some() || state.ended {
                return Poll::Ready(next);
            }
            state.waker = Some(context.waker().clone());
            Poll::Pending
        })
        .await
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.left = true;
        state.heard.clear();
        state.waker = None;
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::Context;

    use super::*;

    fn tag(number: usize) -> InvalidationTarget {
        InvalidationTarget::tag(&format!("t{number}"))
    }

    fn heard(number: usize) -> Heard {
        Heard::Invalidated(tag(number), Purge::Hard)
    }

    #[test]
    fn a_slow_reader_is_told_how_much_is_missing_and_where() {
        let (teller, mut subscription) = subscription();
        for number in 0..ROOM + 3 {
            assert!(teller.tell(&tag(number), Purge::Hard));
        }
        for number in 0..ROOM - 1 {
            assert_eq!(subscription.recv(), Some(heard(number)));
        }
        assert!(teller.tell(&tag(0), Purge::Hard));
        let rest: Vec<Heard> =
            std::iter::from_fn(|| subscription.recv_timeout(Duration::ZERO)).collect();
        assert_eq!(rest, [heard(ROOM - 1), Heard::Lost(3), heard(0)]);
    }

    #[test]
    fn it_ends_with_the_bus_once_all_is_taken() {
        let (teller, mut subscription) = subscription();
        teller.tell(&tag(1), Purge::Hard);
        drop(teller);
        assert_eq!(subscription.recv(), Some(heard(1)));
        assert_eq!(subscription.recv(), None);
    }

    #[test]
    fn a_reader_that_is_gone_is_told_nothing() {
        let (teller, subscription) = subscription();
        drop(subscription);
        assert!(!teller.tell(&tag(1), Purge::Hard));
    }

    #[test]
    fn a_task_that_waits_is_woken_by_what_comes_and_by_the_end() {
        let (teller, mut subscription) = subscription();
        let mut context = Context::from_waker(Waker::noop());
        for come in [true, false] {
            let mut next = pin!(subscription.recv_async());
            assert!(next.as_mut().poll(&mut context).is_pending());
            assert!(teller.0.state.lock().waker.is_some());
            if come {
                teller.tell(&tag(1), Purge::Hard);
                assert_eq!(
                    next.as_mut().poll(&mut context),
                    Poll::Ready(Some(heard(1)))
                );
            }
        }
        let mut next = pin!(subscription.recv_async());
        assert!(next.as_mut().poll(&mut context).is_pending());
        drop(teller);
        assert_eq!(next.as_mut().poll(&mut context), Poll::Ready(None));
    }
}
