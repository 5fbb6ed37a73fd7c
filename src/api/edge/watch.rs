//! The connections of one worker: which are admitted, which are displaced, and which are too slow.
//!
//! One task of the worker looks at all connections several times within each time limit. So neither
//! a request nor a connection needs a timer.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_web::rt::{spawn, time};
use tokio::net::TcpStream;

use super::connection::{ClientStream, Connection, Limits, Standing};
use super::places::{Full, Place, Places};
use crate::api::traffic::Traffic;
use crate::auth::ClientNetwork;

/// How many looks there are within the shortest limit, and the longest and the shortest pause
/// between two.
const LOOKS: u32 = 10;
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
const SHORTEST_PAUSE: Duration = Duration::from_millis(10);

/// See the module.
pub(super) struct Watch {
    places: Arc<Places>,
    traffic: Arc<Traffic>,
    limits: Limits,
    open: RefCell<Vec<Rc<Connection>>>,
    started: Cell<bool>,
}

impl Watch {
    pub(super) fn new(places: Arc<Places>, traffic: Arc<Traffic>, limits: Limits) -> Rc<Watch> {
        Rc::new(Watch {
            places,
            traffic,
            limits,
            open: RefCell::default(),
            started: Cell::new(false),
        })
    }

    /// Admits a connection. If all places are taken it displaces another one.
    ///
    /// # Errors
    /// If no place is free and no connection can be displaced.
    pub(super) fn admit(
        self: &Rc<Self>,
        stream: TcpStream,
    ) -> io::Result<(ClientStream, SocketAddr)> {
        if !self.started.replace(true) {
            spawn(look(Rc::downgrade(self)));
        }
        let peer = stream.peer_addr()?;
        let source = ClientNetwork::of(peer.ip());
        let place = self.places.take(source);
        let place = place.or_else(|full| self.displace(full, source))?;
        let connection = Rc::new(Connection::new(stream, place, Instant::now()));
        let mut open = self.open.borrow_mut();
        connection.at.set(open.len());
        open.push(connection.clone());
        let watch = self.clone();
        let ended = Box::new(move |connection: &Connection| watch.forget(connection));
        Ok((ClientStream::new(connection, ended), peer))
    }

    fn displace(&self, full: Full, source: ClientNetwork) -> io::Result<Place> {
        self.places.log_full(full, source);
        let victim = match full {
            Full::Source => self.least_missed(|connection| connection.source() == source),
            Full::All => self.least_missed(|_| true),
        };
        match victim {
            Some(victim) => {
                victim.end();
                Ok(self.places.take_over(source))
            }
            None => {
                self.places.note_refused();
                Err(io::Error::other("the limit of connections is reached"))
            }
        }
    }

    /// The connection to displace. It belongs to the source with the most connections; there it is
    /// an idle one, else one with an incomplete head, else one that reads nothing; of several, the
    /// one that has been so for the longest. Never one whose request is being answered.
    fn least_missed(&self, among: impl Fn(&Connection) -> bool) -> Option<Rc<Connection>> {
        let open = self.open.borrow();
        self.places.with_counts(|count| {
            let candidates = open.iter().filter(|connection| among(connection));
            let ranked = candidates.filter_map(|connection| {
                let (standing, since) = connection.standing()?;
                let use_of_it = match standing {
                    Standing::Idle => 0,
                    Standing::New | Standing::Head => 1,
                    Standing::Blocked => 2,
                    Standing::Handled => return None,
                };
                let others = usize::MAX - count(connection.source());
                Some(((others, use_of_it, since), connection))
            });
            let least = ranked.min_by_key(|(rank, _)| *rank);
            least.map(|(_, connection)| connection.clone())
        })
    }

    fn look(&self, now: Instant) {
        for connection in self.open.borrow().iter() {
            // Most connections end idle: that is no time-out.
            if connection
                .look(now, &self.limits, &self.traffic)
                .is_some_and(|waited_for| waited_for != Standing::Idle)
            {
                self.places.note_timed_out();
            }
        }
    }

    fn forget(&self, connection: &Connection) {
        let mut open = self.open.borrow_mut();
        let at = connection.at.get();
        if at < open.len() {
            open.swap_remove(at);
            if let Some(moved) = open.get(at) {
                moved.at.set(at);
            }
        }
    }
}

/// Looks at the connections again and again while the worker lives.
async fn look(watch: Weak<Watch>) {
    loop {
        let Some(pause) = watch.upgrade().map(|watch| {
            let Limits {
                idle,
                head,
                progress,
            } = watch.limits;
            (idle.min(head).min(progress) / LOOKS).clamp(SHORTEST_PAUSE, LONGEST_PAUSE)
        }) else {
            return;
        };
        time::sleep(pause).await;
        let Some(watch) = watch.upgrade() else { return };
        watch.look(Instant::now());
    }
}
