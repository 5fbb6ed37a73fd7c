//! Load: `wrk` and the figures that it prints.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use testkit::client::{Call, Session};

use super::processes::{busy, memory, on_core};
use super::servers::{CLIENT_CORE, Server};
use super::support::quantile;

/// The load on one server, and how it is made.
pub struct Load {
    pub name: String,
    /// The server. It runs at least as long as this exists.
    pub server: Rc<Server>,
    pub path: String,
    pub headers: Vec<(String, String)>,
    /// The status of its answers.
    pub status: u16,
    /// A response header and its prefix that prove where the answer came from.
    pub says: Option<(&'static str, &'static str)>,
    pub connections: usize,
    /// If more than one: the numbers below this follow the URL in turn.
    pub keys: usize,
    /// Any of them, not in turn.
    pub without_order: bool,
    /// The core of `wrk`. `None`: any.
    pub core: Option<usize>,
    /// Whether its metrics are scraped meanwhile, each second.
    pub scraped: bool,
}

/// The result of one run.
pub struct Round {
    per_second: f64,
    p50: f64,
    p99: f64,
    /// Of the server, in seconds on a core for one request.
    core_time: f64,
    busy: f64,
    memory: u64,
}

/// The result of several runs: the median of each figure.
pub struct Measured {
    pub name: String,
    pub per_second: f64,
    /// The slowest and the fastest of the runs.
    pub range: (f64, f64),
    pub p50: f64,
    pub p99: f64,
    pub core_time: f64,
    /// The server's share of one core.
    pub busy: f64,
    pub memory: u64,
    rounds: Vec<Round>,
}

impl Load {
    /// One path of `server`, by `wrk` on the client's core.
    pub fn of(name: &str, server: &Rc<Server>, path: &str) -> Load {
        Load {
            name: name.to_owned(),
            server: server.clone(),
            path: path.to_owned(),
            headers: vec![server.authorization()],
            status: 200,
            says: None,
            connections: super::CONNECTIONS,
            keys: 0,
            without_order: false,
            core: Some(CLIENT_CORE),
            scraped: false,
        }
    }

    /// A larder that answers from memory.
    pub fn memory_hit(self) -> Load {
        Load {
            says: Some(("cache-status", "larder-memory; hit")),
            ..self
        }
    }

    /// Asks twice, since the first answer may be a miss. Checks that the second is a hit.
    pub fn check(&self) {
        let key = if self.keys > 0 { "1" } else { "" };
        let path = format!("{}{key}", self.path);
        let headers = self.headers.iter();
        let headers: Vec<(&str, &str)> = headers
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        let mut session = Session::connect(self.server.address()).unwrap();
        let mut ask = || session.send("GET", &path, &headers, None).unwrap();
        ask();
        let answer = ask();
        assert_eq!(answer.status, self.status, "{}", self.name);
        if let Some((name, begins)) = self.says {
            let said = answer.header(name).unwrap_or_default();
            assert!(said.starts_with(begins), "{}: {name}: {said}", self.name);
        }
    }

    pub fn run(&self, span: Duration) -> Round {
        let mut command = on_core(self.core, "wrk");
        let span = span.as_secs().to_string();
        let connections = self.connections.to_string();
        command.args(["-t", "1", "-c", &connections, "-d", &span, "--latency"]);
        for (name, value) in &self.headers {
            command.args(["-H", &format!("{name}: {value}")]);
        }
        if self.keys > 0 {
            let script = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/compare/keys.lua");
            command
                .args(["-s", script])
                .env("KEYS", self.keys.to_string());
            if self.without_order {
                command.env("WITHOUT_ORDER", "1");
            }
        }
        let process = self.server.process();
        let before = busy(process);
        let output = thread::scope(|scope| {
            // Dropped when `wrk` has ended.
            let (_running, done) = mpsc::channel();
            if self.scraped {
                let at = self.server.address();
                scope.spawn(move || scrape(at, &done));
            }
            command.arg(self.server.url(&self.path)).output()
        });
        let output = output.expect("wrk runs");
        let used = (busy(process) - before).as_secs_f64();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let why = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {said}{why}", self.name);
        for wrong in ["Non-2xx", "Socket errors"] {
            assert!(!said.contains(wrong), "{}: {said}", self.name);
        }
        let after = |word: &str| {
            let line = said
                .lines()
                .find_map(|line| line.trim().strip_prefix(word))
                .unwrap_or_else(|| panic!("{word} in {said}"));
            line.split_whitespace().next().unwrap().to_owned()
        };
        // `123456 requests in 3.00s, ...`
        let line = said
            .lines()
            .find(|line| line.contains(" requests in "))
            .unwrap();
        let mut words = line.split_whitespace();
        let requests: f64 = words.next().unwrap().parse().unwrap();
        let took = seconds(words.nth(2).unwrap().trim_end_matches(','));
        Round {
            per_second: after("Requests/sec:").parse().unwrap(),
            p50: seconds(&after("50%")),
            p99: seconds(&after("99%")),
            core_time: used / requests,
            busy: used / took,
            memory: memory(process),
        }
    }
}

/// Scrapes the metrics each second, first after half of one, until the sender is dropped.
fn scrape(at: SocketAddr, done: &Receiver<()>) {
    let mut pause = Duration::from_millis(500);
    while let Err(RecvTimeoutError::Timeout) = done.recv_timeout(pause) {
        let answer = Call::new(at, "GET", "/metrics").send();
        assert_eq!(answer.status, 200, "a scrape");
        pause = Duration::from_secs(1);
    }
}

/// A time as `wrk` writes it.
fn seconds(text: &str) -> f64 {
    let units = [("us", 1e-6), ("ms", 1e-3), ("m", 60.0), ("s", 1.0)];
    let found = units
        .iter()
        .find_map(|(unit, factor)| Some(text.strip_suffix(unit)?.parse::<f64>().ok()? * factor));
    found.unwrap_or_else(|| panic!("a time: {text}"))
}

impl Measured {
    pub fn median(name: String, rounds: Vec<Round>) -> Measured {
        let all = |of: fn(&Round) -> f64| rounds.iter().map(of).collect::<Vec<_>>();
        let middle = |of| quantile(all(of), 0.5);
        let rates = all(|round| round.per_second);
        Measured {
            name,
            per_second: middle(|round| round.per_second),
            range: (quantile(rates.clone(), 0.0), quantile(rates, 1.0)),
            p50: middle(|round| round.p50),
            p99: middle(|round| round.p99),
            core_time: middle(|round| round.core_time),
            busy: middle(|round| round.busy),
            memory: middle(|round| round.memory as f64) as u64,
            rounds,
        }
    }
}

impl Measured {
    /// The ratio of requests a second to `other`: the median over the rounds, since within a round
    /// the machine was equally fast for both.
    pub fn to(&self, other: &Measured) -> f64 {
        self.ratio(other, |round| round.per_second)
    }

    /// The same ratio for equal time on a core.
    pub fn to_by_core_time(&self, other: &Measured) -> f64 {
        self.ratio(other, |round| 1.0 / round.core_time)
    }

    fn ratio(&self, other: &Measured, of: fn(&Round) -> f64) -> f64 {
        let rounds = self.rounds.iter().zip(&other.rounds);
        quantile(rounds.map(|(mine, its)| of(mine) / of(its)).collect(), 0.5)
    }
}
