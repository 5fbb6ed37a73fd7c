//! A scripted HTTP/1.1 server that stands in for an upstream, well-behaved or not.
//!
//! Promise: it records each request before it answers it, so a test that has an answer sees its
//! request. A thread per connection: it keeps up with hundreds.

mod message;

use std::collections::HashMap;
use std::io::{BufReader, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use crate::free_address;

pub use message::{Request, Response, respond};

type Script = Arc<dyn Fn(&Request) -> Response + Send + Sync>;
type RawScript = Arc<dyn Fn(TcpStream, &str) + Send + Sync>;

/// Its behaviour for a request.
#[derive(Clone)]
pub enum Behaviour {
    Answer(Script),
    /// Bytes that are not HTTP.
    Garbage,
    /// Headers of the whole body, then half of it, then the connection closes.
    Truncated(Response),
    /// Closes without an answer.
    Close,
    /// Keeps the connection open and sends nothing until its behaviour changes.
    Silence,
    /// The whole answer, one byte per second.
    ByteASecond(Response),
    /// The script gets the connection and the request's head as it arrived. The connection closes
    /// when it returns.
    Raw(RawScript),
}

impl Behaviour {
    pub fn answer(script: impl Fn(&Request) -> Response + Send + Sync + 'static) -> Behaviour {
        Behaviour::Answer(Arc::new(script))
    }

    pub fn always(response: Response) -> Behaviour {
        Behaviour::answer(move |_| response.clone())
    }
}

struct State {
    behaviour: Behaviour,
    /// Counts the changes of `behaviour`. A waiting request gives up at the next change.
    changes: u64,
    latency: Duration,
    /// Whether new requests are withheld, and whether their answers are made before that.
    held: bool,
    early: bool,
    /// Counts the releases. A withheld request waits for the next one.
    releases: u64,
    requests: Vec<Request>,
    ended: bool,
    next_id: u64,
    open: HashMap<u64, TcpStream>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

pub struct FakeUpstream {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<thread::JoinHandle<()>>,
}

impl FakeUpstream {
    pub fn start(behaviour: Behaviour) -> FakeUpstream {
        let address = free_address();
        let listener = TcpListener::bind(address).unwrap();
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                behaviour,
                changes: 0,
                latency: Duration::ZERO,
                held: false,
                early: false,
                releases: 0,
                requests: Vec::new(),
                ended: false,
                next_id: 0,
                open: HashMap::new(),
            }),
            changed: Condvar::new(),
        });
        let acceptor = thread::spawn({
            let shared = Arc::clone(&shared);
            move || {
                for stream in listener.incoming() {
                    if shared.lock().ended {
                        return;
                    }
                    let Ok(stream) = stream else { continue };
                    let shared = Arc::clone(&shared);
                    thread::spawn(move || shared.serve(stream));
                }
            }
        });
        FakeUpstream {
            address,
            shared,
            acceptor: Some(acceptor),
        }
    }

    /// Starts one that passes each connection to `serve`, with the request's head as it arrived.
    pub fn raw(serve: impl Fn(TcpStream, &str) + Send + Sync + 'static) -> FakeUpstream {
        FakeUpstream::start(Behaviour::Raw(Arc::new(serve)))
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn base_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Closes every connection and stops listening.
    pub fn stop(&mut self) {
        let mut state = self.shared.lock();
        state.ended = true;
        for (_, stream) in state.open.drain() {
            let _ = stream.shutdown(Shutdown::Both);
        }
        drop(state);
        self.shared.changed.notify_all();
        let _ = TcpStream::connect(self.address);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }

    /// Sets its behaviour from now on. A connection that was kept silent is closed.
    pub fn behave(&self, behaviour: Behaviour) {
        let mut state = self.shared.lock();
        state.behaviour = behaviour;
        state.changes += 1;
        drop(state);
        self.shared.changed.notify_all();
    }

    /// Sets the delay of each answer from now on.
    pub fn set_latency(&self, latency: Duration) {
        self.shared.lock().latency = latency;
        self.shared.changed.notify_all();
    }

    /// Records requests, and answers none until [`FakeUpstream::release`].
    pub fn hold(&self) {
        let mut state = self.shared.lock();
        (state.held, state.early) = (true, false);
    }

    /// As [`FakeUpstream::hold`], but each answer is made when its request arrives: a slow source.
    pub fn hold_answers(&self) {
        let mut state = self.shared.lock();
        (state.held, state.early) = (true, true);
    }

    /// Answers requests that arrive from now on. Withheld ones stay withheld.
    pub fn pass_new(&self) {
        self.shared.lock().held = false;
    }

    /// Answers all withheld requests, and those that arrive from now on.
    pub fn release(&self) {
        let mut state = self.shared.lock();
        state.held = false;
        state.releases += 1;
        drop(state);
        self.shared.changed.notify_all();
    }

    /// Every request so far, in the order of arrival.
    pub fn requests(&self) -> Vec<Request> {
        self.shared.lock().requests.clone()
    }

    /// How many requests there were.
    pub fn calls(&self) -> usize {
        self.shared.lock().requests.len()
    }

    /// How many requests there were to one path.
    pub fn calls_to(&self, path: &str) -> usize {
        let state = self.shared.lock();
        state
            .requests
            .iter()
            .filter(|request| request.path == path)
            .count()
    }
}

impl Drop for FakeUpstream {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Closes a connection when its thread ends, also by a panic in a script.
struct Closing<'s> {
    shared: &'s Shared,
    id: u64,
}

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        if let Some(stream) = self.shared.lock().open.remove(&self.id) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn serve(&self, stream: TcpStream) {
        let _ = stream.set_nodelay(true);
        let id = {
            let mut state = self.lock();
            if state.ended {
                return;
            }
            state.next_id += 1;
            let id = state.next_id;
            state.open.insert(id, stream.try_clone().unwrap());
            id
        };
        let _closing = Closing { shared: self, id };
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut writer = stream;
        while let Some(request) = Request::read(&mut reader) {
            if !self.respond(&request, &mut writer) {
                break;
            }
        }
    }

    /// Whether the connection may be used again.
    fn respond(&self, request: &Request, writer: &mut TcpStream) -> bool {
        let (behaviour, changes) = {
            let mut state = self.lock();
            let early = match &state.behaviour {
                // Made before the request is counted: a test that waits for the count may change
                // the data next.
                Behaviour::Answer(script) if state.held && state.early => Some(script(request)),
                _ => None,
            };
            state.requests.push(request.clone());
            let (held, releases) = (state.held, state.releases);
            let arrived = Instant::now();
            loop {
                let left = state.latency.saturating_sub(arrived.elapsed());
                let held = held && state.releases == releases;
                if state.ended || (!held && left.is_zero()) {
                    break;
                }
                state = if held {
                    self.changed.wait(state).unwrap()
                } else {
                    self.changed.wait_timeout(state, left).unwrap().0
                };
            }
            let behaviour = match early {
                Some(response) => Behaviour::always(response),
                None => state.behaviour.clone(),
            };
            (behaviour, state.changes)
        };
        match behaviour {
            Behaviour::Answer(script) => {
                let response = script(request);
                writer.write_all(&response.to_bytes()).is_ok()
            }
            Behaviour::Garbage => {
                let _ = writer.write_all(b"\x16\x03\x01 what is this, HTTP?\r\n\r\n\0\0\0\xff");
                false
            }
            Behaviour::Truncated(response) => {
                let bytes = response.to_bytes();
                let _ = writer.write_all(&bytes[..bytes.len() - response.body.len() / 2]);
                false
            }
            Behaviour::Close => false,
            Behaviour::Silence => {
                let state = self.lock();
                drop(
                    self.changed
                        .wait_while(state, |state| state.changes == changes && !state.ended),
                );
                false
            }
            Behaviour::Raw(serve) => {
                serve(writer.try_clone().unwrap(), &request.head);
                false
            }
            Behaviour::ByteASecond(response) => {
                for byte in response.to_bytes() {
                    if writer.write_all(&[byte]).is_err() {
                        return false;
                    }
                    let (state, _) = self
                        .changed
                        .wait_timeout_while(self.lock(), Duration::from_secs(1), |state| {
                            state.changes == changes && !state.ended
                        })
                        .unwrap();
                    if state.changes != changes || state.ended {
                        return false;
                    }
                }
                true
            }
        }
    }
}
