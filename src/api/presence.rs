//! Whether a client is still there while its request waits.
//!
//! A client that closes its connection and one that only ends its sending side
//! (`shutdown(SHUT_WR)`) look the same until something is written to them. So after the end of
//! input the request goes on and is answered, but it loses its place in the queue. If a connection
//! is reset, the server ends its request at once.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use larder_cache::{LookupResult, Ticket};

/// Whether the end of a client's input was read. Each connection has one; clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Presence(Rc<Cell<bool>>);

impl Presence {
    /// Notes a read from the client into a buffer with room: zero bytes are the end of its input.
    pub(crate) fn note_read(&self, bytes: usize) {
        if bytes == 0 {
            self.0.set(true);
        }
    }

    /// Whether the client may be gone.
    fn is_doubtful(&self) -> bool {
        self.0.get()
    }
}

/// A ticket that checks on its client whenever the connection wakes: the end of the client's input
/// wakes it.
pub(super) struct Attended {
    pub(super) ticket: Ticket,
    pub(super) presence: Option<Presence>,
}

impl Future for Attended {
    type Output = LookupResult;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<LookupResult> {
        if self.presence.as_ref().is_some_and(Presence::is_doubtful) {
            self.ticket.step_back();
        }
        Pin::new(&mut self.ticket).poll(context)
    }
}
