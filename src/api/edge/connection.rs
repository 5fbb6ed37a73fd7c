//! One connection of a client, and its state.
//!
//! Promise: a request costs a few writes to memory that only this thread uses; only
//! [`super::watch`] reads the clock. Invariant: `turn` changes whenever the client does what the
//! server waits for. So if `turn` stays the same for as long as a limit, the client has kept the
//! server waiting for that long.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::Shutdown;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use actix_http::Request;
use actix_web::http::{ConnectionType, StatusCode, Version};
use actix_web::{HttpRequest, HttpResponse};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::places::Place;
use crate::api::presence::Presence;
use crate::api::traffic::Traffic;
use crate::auth::ClientNetwork;

/// The answer to a head that does not arrive in time (RFC 9110, section 15.5.9).
const HEAD_TOO_SLOW: &str = r#"{"type":"urn:larder:problem:head-too-slow","title":"Request timeout","status":408,"detail":"The head of the request was not complete in time."}"#;

/// What the server waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// For the first byte of the first request.
    New,
    /// For the first byte of another request.
    Idle,
    /// For the rest of a head.
    Head,
    /// For its own handler, which has a time limit of its own for a body.
    Handled,
    /// For the client to read some of an answer.
    Blocked,
}

/// How long a client may keep the server waiting.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// For another request.
    pub(super) idle: Duration,
    /// For a whole head.
    pub(super) head: Duration,
    /// To read some of an answer.
    pub(super) progress: Duration,
}

/// Looks that must find a connection waiting before its client counts as too slow. After the
/// machine stood still, the first look finds input that was not read yet.
const LOOKS_BEFORE_END: u32 = 5;

/// The last value of `turn` that was seen.
#[derive(Clone, Copy)]
struct Seen {
    turn: u32,
    /// When it was first seen.
    since: Instant,
    /// How many looks saw it.
    looks: u32,
}

/// See the module.
pub(in crate::api) struct Connection {
    stream: RefCell<TcpStream>,
    place: Place,
    standing: Cell<Standing>,
    /// The kernel accepts no more of an answer for now.
    blocked: Cell<bool>,
    turn: Cell<u32>,
    seen: Cell<Seen>,
    /// A request or an answer was marked as the last one (RFC 9112, section 9.6).
    last: Cell<bool>,
    /// A request came after the last one. All answers before it are written.
    over: Cell<bool>,
    /// It ends as soon as its task runs.
    cut: Cell<bool>,
    /// Whether the client may be gone.
    pub(super) presence: Presence,
    /// Its index in the list of this thread's connections.
    pub(super) at: Cell<usize>,
}

impl Connection {
    pub(super) fn new(stream: TcpStream, place: Place, now: Instant) -> Connection {
        Connection {
            stream: RefCell::new(stream),
            place,
            standing: Cell::new(Standing::New),
            blocked: Cell::new(false),
            turn: Cell::new(0),
            seen: Cell::new(Seen {
                turn: 0,
                since: now,
                looks: 0,
            }),
            last: Cell::new(false),
            over: Cell::new(false),
            cut: Cell::new(false),
            presence: Presence::default(),
            at: Cell::new(0),
        }
    }

    /// The client's network.
    pub(super) fn source(&self) -> ClientNetwork {
        self.place.source()
    }

    /// What the server waits for, and since when that is known; `None` once the connection is
    /// ending.
    pub(super) fn standing(&self) -> Option<(Standing, Instant)> {
        let standing = if self.blocked.get() {
            Standing::Blocked
        } else {
            self.standing.get()
        };
        (!self.cut.get()).then(|| (standing, self.seen.get().since))
    }

    /// Ends the connection if its client has kept the server waiting for longer than `limits`
    /// allow. Returns what the server waited for if it did. An answer is counted in `traffic`.
    pub(super) fn look(
        &self,
        now: Instant,
        limits: &Limits,
        traffic: &Traffic,
    ) -> Option<Standing> {
        let mut seen = self.seen.get();
        if seen.turn != self.turn.get() {
            seen = Seen {
                turn: self.turn.get(),
                since: now,
                looks: 0,
            };
        }
        seen.looks = seen.looks.saturating_add(1);
        self.seen.set(seen);
        let (standing, _) = self.standing()?;
        let limit = match standing {
            Standing::Handled => return None,
            Standing::New | Standing::Head => limits.head,
            Standing::Idle => limits.idle,
            Standing::Blocked => limits.progress,
        };
        let waited = now.saturating_duration_since(seen.since);
        if waited < limit || seen.looks < LOOKS_BEFORE_END {
            return None;
        }
        // After the last answer nothing more is sent.
        if standing == Standing::Head && !self.last.get() {
            let answer = format!(
                "HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-type: application/problem+json\r\n\
                 cache-control: no-store\r\ncontent-length: {}\r\n\r\n{HEAD_TOO_SLOW}",
                HEAD_TOO_SLOW.len()
            );
            if self.stream.borrow().try_write(answer.as_bytes()).is_ok() {
                traffic.count_response(StatusCode::REQUEST_TIMEOUT);
            }
        }
        self.end();
        Some(standing)
    }

    /// Ends the connection: its task wakes, finds it closed and drops it.
    pub(super) fn end(&self) {
        self.cut.set(true);
        let stream = self.stream.borrow();
        if self.blocked.get() {
            // Otherwise the kernel would retransmit the unread data for minutes.
            let _ = stream.set_zero_linger();
        }
        let _ = SockRef::from(&*stream).shutdown(Shutdown::Both);
    }

    /// Whether the request that has just arrived comes after the last one. If so, the connection
    /// ends as soon as the answers are written.
    fn is_over(&self) -> bool {
        self.over.set(self.last.get());
        self.last.get()
    }

    /// The same for a request whose body was not asked for yet.
    pub(super) fn is_over_before(request: &Request) -> bool {
        let connection = request.conn_data::<Rc<Connection>>();
        connection.is_some_and(|connection| connection.is_over())
    }

    /// Marks this request, whose body is not wanted, as the last of its connection.
    pub(super) fn end_with(request: &Request) {
        if let Some(connection) = request.conn_data::<Rc<Connection>>() {
            connection.last.set(true);
        }
    }

    fn next_turn(&self) {
        self.turn.set(self.turn.get().wrapping_add(1));
    }
}

/// The stream of a connection, as the server reads and writes it.
pub(super) struct ClientStream {
    connection: Rc<Connection>,
    /// Called when it is dropped.
    ended: Box<dyn Fn(&Connection)>,
}

impl ClientStream {
    pub(super) fn new(connection: Rc<Connection>, ended: Box<dyn Fn(&Connection)>) -> ClientStream {
        ClientStream { connection, ended }
    }

    pub(super) fn connection(&self) -> &Rc<Connection> {
        &self.connection
    }
}

impl Drop for ClientStream {
    fn drop(&mut self) {
        (self.ended)(&self.connection);
    }
}

impl AsyncRead for ClientStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let connection = &*self.connection;
        let before = buffer.filled().len();
        let read = Pin::new(&mut *connection.stream.borrow_mut()).poll_read(context, buffer);
        if matches!(read, Poll::Ready(Ok(()))) {
            connection
                .presence
                .note_read(buffer.filled().len() - before);
        }
        if buffer.filled().len() > before
            && matches!(connection.standing.get(), Standing::New | Standing::Idle)
        {
            connection.standing.set(Standing::Head);
            connection.next_turn();
        }
        read
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let connection = &*self.connection;
        let written = Pin::new(&mut *connection.stream.borrow_mut()).poll_write(context, bytes);
        if connection.blocked.replace(written.is_pending()) != written.is_pending() {
            connection.next_turn();
        }
        written
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The server flushes only after it has written everything.
        Poll::Ready(if self.connection.over.get() {
            Err(io::ErrorKind::ConnectionAborted.into())
        } else {
            Ok(())
        })
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.connection.stream.borrow_mut()).poll_shutdown(context)
    }
}

/// A request on its connection, from its head to its answer.
pub(in crate::api) struct Exchange(Option<Rc<Connection>>);

impl Exchange {
    /// Begins with the head of a request. `None` if an earlier request was the last of its
    /// connection: the caller then answers nothing and waits; the connection ends as soon as the
    /// answers before it are written.
    pub(in crate::api) fn begin(request: &HttpRequest) -> Option<Exchange> {
        let Some(connection) = request.conn_data::<Rc<Connection>>() else {
            return Some(Exchange(None));
        };
        if connection.is_over() {
            return None;
        }
        connection.standing.set(Standing::Handled);
        if request.head().connection_type() == ConnectionType::Close {
            connection.last.set(true);
        }
        Some(Exchange(Some(connection.clone())))
    }

    /// Ends with the answer, which says that the connection ends if the request asked for that, or
    /// if the server is `closing`.
    pub(in crate::api) fn end(self, answer: &mut HttpResponse, closing: bool) {
        let head = answer.head_mut();
        // A response head is reused and still has the version of its last answer, from which actix
        // would derive the connection type.
        head.version = Version::HTTP_11;
        if let Some(connection) = self.0 {
            if closing || head.connection_type() == ConnectionType::Close {
                connection.last.set(true);
            }
            if connection.last.get() {
                head.set_connection_type(ConnectionType::Close);
            }
            connection.standing.set(Standing::Idle);
            connection.next_turn();
        } else if closing {
            head.set_connection_type(ConnectionType::Close);
        }
    }
}
