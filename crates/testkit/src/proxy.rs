//! A TCP proxy that fails on demand: between larder and Redis, Postgres or an upstream.
//!
//! Promise: when a fault's method returns, the fault holds for open connections and for new ones.
//! Nothing spins: threads wait in `accept`, in `read`, or on one condition variable.
//!
//! A fault applies to every connection, only to those that subscribe to a Redis channel, or only to
//! the others. The proxy recognises a subscriber by what the client sends.
//!
//! Invariant: while it is cut, nobody listens at its address. A new connection is refused, as by a
//! host whose server is down.

use std::collections::{HashMap, HashSet};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use crate::free_address;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    /// Every connection closed, new ones refused.
    Cut,
    /// Open, but nothing passes in either direction.
    Stall,
    /// Open. Data from the client passes; data from the server waits.
    StallToClient,
    /// Open. Data from the server passes; data from the client waits.
    StallToServer,
    /// Open. Data from the server is lost.
    LoseToClient,
}

/// The connections that a fault affects.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scope {
    All,
    /// Those that have subscribed to a channel.
    Bus,
    /// Those that have not.
    Others,
}

struct State {
    fault: Fault,
    scope: Scope,
    delay: Duration,
    target: SocketAddr,
    listening: bool,
    ended: bool,
    next_id: u64,
    open: HashMap<u64, [TcpStream; 2]>,
    subscribers: HashSet<u64>,
    /// The bytes that were lost since the last [`FaultProxy::lose_messages`].
    lost: Vec<u8>,
    accepted: u64,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

pub struct FaultProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<thread::JoinHandle<()>>,
}

impl FaultProxy {
    pub fn start(target: SocketAddr) -> FaultProxy {
        let address = free_address();
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                fault: Fault::None,
                scope: Scope::All,
                delay: Duration::ZERO,
                target,
                listening: false,
                ended: false,
                next_id: 0,
                open: HashMap::new(),
                subscribers: HashSet::new(),
                lost: Vec::new(),
                accepted: 0,
            }),
            changed: Condvar::new(),
        });
        let acceptor = thread::spawn({
            let shared = Arc::clone(&shared);
            move || shared.listen(address)
        });
        let proxy = FaultProxy {
            address,
            shared,
            acceptor: Some(acceptor),
        };
        proxy.wait_listening(true);
        proxy
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes every connection and refuses new ones.
    pub fn cut(&self) {
        self.set_fault(Fault::Cut, Scope::All);
        // `accept` returns only for a connection, so it gets one.
        let _ = TcpStream::connect(self.address);
        self.wait_listening(false);
    }

    /// Closes every connection that has subscribed, and each that does so from now on.
    pub fn cut_bus(&self) {
        self.set_fault(Fault::Cut, Scope::Bus);
    }

    /// Closes only the connections that have subscribed to a channel. New ones go to the current
    /// target.
    pub fn close_bus(&self) {
        self.shared.lock().close(Scope::Bus);
        self.shared.changed.notify_all();
    }

    /// Closes every connection; new ones are taken.
    pub fn close_all(&self) {
        self.shared.lock().close(Scope::All);
        self.shared.changed.notify_all();
    }

    /// Keeps everything open and passes nothing on, in either direction, until
    /// [`FaultProxy::restore`].
    pub fn stall(&self) {
        self.stall_only(Scope::All);
    }

    pub fn stall_only(&self, scope: Scope) {
        self.set_fault(Fault::Stall, scope);
    }

    /// Passes data from clients and withholds every answer: the half-open connection.
    pub fn stall_to_client(&self) {
        self.stall_to_client_only(Scope::All);
    }

    pub fn stall_to_client_only(&self, scope: Scope) {
        self.set_fault(Fault::StallToClient, scope);
    }

    /// Passes data from the server and withholds data from clients.
    pub fn stall_to_server(&self) {
        self.set_fault(Fault::StallToServer, Scope::All);
    }

    /// Loses data from the server to subscribers, and closes no connection: messages are lost.
    pub fn lose_messages(&self) {
        self.shared.lock().lost.clear();
        self.set_fault(Fault::LoseToClient, Scope::Bus);
    }

    /// Whether the data that was lost since [`FaultProxy::lose_messages`] contains this text.
    pub fn has_lost(&self, text: &str) -> bool {
        let state = self.shared.lock();
        let mut windows = state.lost.windows(text.len());
        windows.any(|window| window == text.as_bytes())
    }

    /// Delays all data by this time, in both directions.
    pub fn delay(&self, delay: Duration) {
        self.shared.lock().delay = delay;
        self.shared.changed.notify_all();
    }

    /// Ends every fault. Withheld data is passed now.
    pub fn restore(&self) {
        self.delay(Duration::ZERO);
        self.set_fault(Fault::None, Scope::All);
        self.wait_listening(true);
    }

    /// Sends new connections elsewhere; those that are open stay.
    pub fn set_target(&self, target: SocketAddr) {
        self.shared.lock().target = target;
    }

    /// How many connections it has taken so far.
    pub fn accepted(&self) -> u64 {
        self.shared.lock().accepted
    }

    /// How many of its connections are subscribers.
    pub fn subscribers(&self) -> usize {
        self.shared.lock().subscribers.len()
    }

    fn set_fault(&self, fault: Fault, scope: Scope) {
        let mut state = self.shared.lock();
        (state.fault, state.scope) = (fault, scope);
        if fault == Fault::Cut {
            state.close(scope);
        }
        drop(state);
        self.shared.changed.notify_all();
    }

    fn wait_listening(&self, wanted: bool) {
        let state = self.shared.lock();
        let (state, late) = self
            .shared
            .changed
            .wait_timeout_while(state, crate::SOON, |state| state.listening != wanted)
            .unwrap();
        drop(state);
        assert!(!late.timed_out(), "the proxy does not switch its listener");
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.ended = true;
        state.close(Scope::All);
        drop(state);
        self.shared.changed.notify_all();
        let _ = TcpStream::connect(self.address);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

impl Scope {
    fn includes(self, subscriber: bool) -> bool {
        match self {
            Scope::All => true,
            Scope::Bus => subscriber,
            Scope::Others => !subscriber,
        }
    }
}

impl State {
    fn close(&mut self, scope: Scope) {
        let subscribers = &self.subscribers;
        let closed = self
            .open
            .extract_if(|id, _| scope.includes(subscribers.contains(id)));
        let closed: Vec<_> = closed.collect();
        for (id, pair) in closed {
            self.subscribers.remove(&id);
            for stream in pair {
                let _ = stream.shutdown(Shutdown::Both);
            }
        }
    }

    /// The fault that affects one connection.
    fn fault_of(&self, id: u64) -> Fault {
        if self.scope.includes(self.subscribers.contains(&id)) {
            self.fault
        } else {
            Fault::None
        }
    }

    fn is_down(&self) -> bool {
        self.fault == Fault::Cut && self.scope == Scope::All
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn set_listening(&self, listening: bool) {
        self.lock().listening = listening;
        self.changed.notify_all();
    }

    /// The acceptor: listens while it is not cut, and waits for that otherwise.
    fn listen(self: Arc<Self>, address: SocketAddr) {
        loop {
            let state = self.lock();
            let state = self
                .changed
                .wait_while(state, |state| state.is_down() && !state.ended)
                .unwrap();
            if state.ended {
                return;
            }
            drop(state);
            let listener = TcpListener::bind(address).unwrap();
            self.set_listening(true);
            for client in listener.incoming() {
                let state = self.lock();
                if state.ended || state.is_down() {
                    break;
                }
                drop(state);
                if let Ok(client) = client {
                    let shared = Arc::clone(&self);
                    thread::spawn(move || shared.join(client));
                }
            }
            drop(listener);
            self.set_listening(false);
        }
    }

    /// Connects one client with the target, and returns when either side has closed.
    fn join(self: Arc<Self>, client: TcpStream) {
        let target = self.lock().target;
        // If the target is down, closing the client's connection is all that a proxy can do.
        let Ok(server) = TcpStream::connect(target) else {
            return;
        };
        for stream in [&client, &server] {
            let _ = stream.set_nodelay(true);
        }
        let [from_client, to_server, from_server, to_client] =
            [&client, &server, &server, &client].map(|stream| stream.try_clone().unwrap());
        let id = {
            let mut state = self.lock();
            // It may have been cut since the client was accepted.
            if state.ended || state.is_down() {
                return;
            }
            state.next_id += 1;
            state.accepted += 1;
            let id = state.next_id;
            state.open.insert(id, [client, server]);
            id
        };
        let shared = Arc::clone(&self);
        let back = thread::spawn(move || {
            shared.pump(id, from_server, to_client, Direction::ToClient);
        });
        self.pump(id, from_client, to_server, Direction::ToServer);
        let _ = back.join();
    }

    fn pump(&self, id: u64, mut from: TcpStream, mut to: TcpStream, direction: Direction) {
        let mut buffer = [0; 64 * 1024];
        let mut subscription = Subscription::default();
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            let arrived = Instant::now();
            let mut state = self.lock();
            if direction == Direction::ToServer && subscription.is_in(&buffer[..length]) {
                state.subscribers.insert(id);
                if state.fault_of(id) == Fault::Cut {
                    break;
                }
            }
            loop {
                if state.ended || !state.open.contains_key(&id) {
                    break;
                }
                if direction.is_held_by(state.fault_of(id)) {
                    state = self.changed.wait(state).unwrap();
                    continue;
                }
                let left = state.delay.saturating_sub(arrived.elapsed());
                if left.is_zero() {
                    break;
                }
                state = self.changed.wait_timeout(state, left).unwrap().0;
            }
            let closed = state.ended || !state.open.contains_key(&id);
            let lost =
                direction == Direction::ToClient && state.fault_of(id) == Fault::LoseToClient;
            if lost && !closed {
                state.lost.extend_from_slice(&buffer[..length]);
                continue;
            }
            drop(state);
            if closed || to.write_all(&buffer[..length]).is_err() {
                break;
            }
        }
        let mut state = self.lock();
        state.subscribers.remove(&id);
        if let Some(pair) = state.open.remove(&id) {
            for stream in pair {
                let _ = stream.shutdown(Shutdown::Both);
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    ToClient,
    ToServer,
}

impl Direction {
    fn is_held_by(self, fault: Fault) -> bool {
        match fault {
            Fault::Stall => true,
            Fault::StallToClient => self == Direction::ToClient,
            Fault::StallToServer => self == Direction::ToServer,
            Fault::None | Fault::Cut | Fault::LoseToClient => false,
        }
    }
}

/// Finds a subscribing command in data from a client of Redis, even if it is split over two reads.
#[derive(Default)]
struct Subscription {
    before: Vec<u8>,
}

impl Subscription {
    fn is_in(&mut self, piece: &[u8]) -> bool {
        const COMMANDS: [&[u8]; 3] = [
            b"$9\r\nSUBSCRIBE\r\n",
            b"$10\r\nPSUBSCRIBE\r\n",
            b"$10\r\nSSUBSCRIBE\r\n",
        ];
        const LONGEST: usize = 17;
        self.before.extend_from_slice(&piece.to_ascii_uppercase());
        let found = COMMANDS.iter().any(|command| {
            let mut windows = self.before.windows(command.len());
            windows.any(|window| window == *command)
        });
        let known = self.before.len().saturating_sub(LONGEST - 1);
        self.before.drain(..known);
        found
    }
}
