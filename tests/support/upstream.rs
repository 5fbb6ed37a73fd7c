//! A scripted HTTP/1.1 server that stands in for an upstream, in every way in which one can be good or bad.
//!
//! Promise: it counts and records each request before it answers it, so what a test reads after an answer includes that request.
//! A thread per connection: it keeps up with hundreds, and a silent one costs nothing.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use super::free_address;

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct Request {
    pub path: String,
    /// What follows the `?`, as it was sent.
    pub query: String,
    pub headers: Vec<(String, String)>,
    pub at: Instant,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        headers
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// A query parameter, unescaped.
    pub fn param(&self, name: &str) -> Option<String> {
        let mut pairs = self
            .query
            .split('&')
            .filter_map(|pair| pair.split_once('='));
        pairs
            .find(|(key, _)| *key == name)
            .map(|(_, value)| unescape(value))
    }
}

fn unescape(text: &str) -> String {
    let mut bytes = text.bytes();
    let mut out = Vec::new();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digits = [bytes.next().unwrap_or(b'0'), bytes.next().unwrap_or(b'0')];
                u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
            }
            byte => byte,
        });
    }
    String::from_utf8(out).unwrap()
}

/// A whole and well-formed answer.
#[derive(Clone, Debug)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Response {
    pub fn json(status: u16, body: &serde_json::Value) -> Response {
        Response {
            status,
            headers: vec![("Content-Type".to_owned(), "application/json".to_owned())],
            body: body.to_string().into_bytes(),
        }
    }

    pub fn text(status: u16, body: &str) -> Response {
        Response {
            status,
            headers: Vec::new(),
            body: body.as_bytes().to_vec(),
        }
    }

    /// What a server that keeps to RFC 9110, section 13, says to this request: itself, or 304 where the client has it already.
    pub fn unless_known(self, request: &Request) -> Response {
        let own = |name: &str| {
            let mut headers = self.headers.iter();
            let found = headers.find(|(key, _)| key.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.as_str())
        };
        let known = match request.header("If-None-Match") {
            Some(tag) => own("ETag") == Some(tag),
            None => request
                .header("If-Modified-Since")
                .is_some_and(|time| own("Last-Modified") == Some(time)),
        };
        if known {
            Response {
                status: 304,
                body: Vec::new(),
                ..self
            }
        } else {
            self
        }
    }

    pub fn with(mut self, name: &str, value: &str) -> Response {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }
}

type Script = Arc<dyn Fn(&Request) -> Response + Send + Sync>;

/// What it does with a request.
#[derive(Clone)]
pub enum Behaviour {
    Answer(Script),
    /// Bytes that are no HTTP.
    Garbage,
    /// Headers that promise the whole body, half of it, and then the end.
    Truncated(Response),
    /// Closes without a word.
    Close,
    /// Keeps the connection open and says nothing until it is told otherwise.
    Silence,
    /// The whole answer, a byte a second.
    ByteASecond(Response),
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
    /// Counts the changes of `behaviour`: what waits gives up at the next one.
    changes: u64,
    latency: Duration,
    /// Whether requests that arrive are withheld, and whether their answers are made before that.
    held: bool,
    early: bool,
    /// Counts the releases: what is held waits for the next one.
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

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it does with requests from now on. A connection that was kept silent is closed.
    pub fn behave(&self, behaviour: Behaviour) {
        let mut state = self.shared.lock();
        state.behaviour = behaviour;
        state.changes += 1;
        drop(state);
        self.shared.changed.notify_all();
    }

    /// How long it thinks about each request from now on.
    pub fn set_latency(&self, latency: Duration) {
        self.shared.lock().latency = latency;
        self.shared.changed.notify_all();
    }

    /// Counts and records requests and answers none of them before [`FakeUpstream::release`].
    pub fn hold(&self) {
        let mut state = self.shared.lock();
        (state.held, state.early) = (true, false);
    }

    /// As [`FakeUpstream::hold`], and what it will answer is what was true when the request arrived: the slow source.
    pub fn hold_answers(&self) {
        let mut state = self.shared.lock();
        (state.held, state.early) = (true, true);
    }

    /// Answers requests that arrive from now on; those that are held stay held.
    pub fn pass_new(&self) {
        self.shared.lock().held = false;
    }

    /// Answers everything that is held, and what arrives from now on.
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

    /// How many there were to one path.
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
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut writer = stream;
        while let Some(request) = read_request(&mut reader) {
            if !self.respond(&request, &mut writer) {
                break;
            }
        }
        let _ = writer.shutdown(Shutdown::Both);
        self.lock().open.remove(&id);
    }

    /// Whether the connection may be used again.
    fn respond(&self, request: &Request, writer: &mut TcpStream) -> bool {
        let (behaviour, changes) = {
            let mut state = self.lock();
            let early = match &state.behaviour {
                // Before the request is seen in the count: whoever waits for it may change the data next.
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
                writer.write_all(&wire(&response)).is_ok()
            }
            Behaviour::Garbage => {
                let _ = writer.write_all(b"\x16\x03\x01 what is this, HTTP?\r\n\r\n\0\0\0\xff");
                false
            }
            Behaviour::Truncated(response) => {
                let bytes = wire(&response);
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
            Behaviour::ByteASecond(response) => {
                for byte in wire(&response) {
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

fn wire(response: &Response) -> Vec<u8> {
    let mut bytes = format!(
        "HTTP/1.1 {} Scripted\r\nContent-Length: {}\r\n",
        response.status,
        response.body.len()
    )
    .into_bytes();
    for (name, value) in &response.headers {
        bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(&response.body);
    bytes
}

fn read_request(reader: &mut impl BufRead) -> Option<Request> {
    let mut line = String::new();
    reader
        .read_line(&mut line)
        .ok()
        .filter(|length| *length > 0)?;
    let target = line.split(' ').nth(1)?;
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut request = Request {
        path: path.to_owned(),
        query: query.to_owned(),
        headers: Vec::new(),
        at: Instant::now(),
    };
    loop {
        let mut line = String::new();
        reader
            .read_line(&mut line)
            .ok()
            .filter(|length| *length > 0)?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        request
            .headers
            .push((name.to_owned(), value.trim().to_owned()));
    }
    let length = request
        .header("Content-Length")
        .map_or(0, |length| length.parse().unwrap_or(0));
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(request)
}
