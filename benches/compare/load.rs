//! Load: `wrk` and what it says, and a client of one connection.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;
use std::time::Duration;

use super::processes::{busy, memory, on_core};
use super::servers::{CLIENT_CORE, Server};

/// What one server is asked for, and how.
pub struct Load {
    pub name: String,
    /// It runs as long as it may be asked.
    pub server: Rc<Server>,
    pub path: String,
    pub headers: Vec<(String, String)>,
    /// The status of its answers.
    pub status: u16,
    /// A header of theirs and how it begins, by which they tell that they come from where they should.
    pub says: Option<(&'static str, &'static str)>,
    pub connections: usize,
    /// More than one: the numbers of so many follow the URL in turn.
    pub keys: usize,
    /// Not in turn: any of them.
    pub without_order: bool,
    /// Where `wrk` runs; `None`: anywhere.
    pub core: Option<usize>,
}

/// What one run showed.
pub struct Round {
    per_second: f64,
    p50: f64,
    p99: f64,
    /// Of the server, in seconds on a core for one request.
    core_time: f64,
    busy: f64,
    memory: u64,
}

/// What several runs showed: the median of each figure.
pub struct Measured {
    pub name: String,
    pub per_second: f64,
    /// The slowest and the fastest of the runs.
    pub range: (f64, f64),
    pub p50: f64,
    pub p99: f64,
    pub core_time: f64,
    /// Which share of one core the server used.
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
        }
    }

    /// Of a larder: its answers come from memory.
    pub fn memory_hit(self) -> Load {
        Load {
            says: Some(("cache-status", "larder-memory; hit")),
            ..self
        }
    }

    /// Asks twice, since the first answer may be a miss, and sees that the second is what is to be measured.
    pub fn check(&self) {
        let key = if self.keys > 0 { "1" } else { "" };
        let path = format!("{}{key}", self.path);
        let headers = self.headers.iter();
        let headers: Vec<(&str, &str)> = headers
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        let mut client = Client::connect(self.server.address());
        client.get(&path, &headers);
        let answer = client.get(&path, &headers);
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
        let output = command
            .arg(self.server.url(&self.path))
            .output()
            .expect("wrk runs");
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
    /// How many times as many requests a second as `other`: the median of the rounds, in each of which the machine was as fast for both.
    pub fn to(&self, other: &Measured) -> f64 {
        self.ratio(other, |round| round.per_second)
    }

    /// How many times as many requests in the same time on a core.
    pub fn to_by_core_time(&self, other: &Measured) -> f64 {
        self.ratio(other, |round| 1.0 / round.core_time)
    }

    fn ratio(&self, other: &Measured, of: fn(&Round) -> f64) -> f64 {
        let rounds = self.rounds.iter().zip(&other.rounds);
        quantile(rounds.map(|(mine, its)| of(mine) / of(its)).collect(), 0.5)
    }
}

pub fn quantile(mut of: Vec<f64>, share: f64) -> f64 {
    of.sort_by(f64::total_cmp);
    of[((of.len() - 1) as f64 * share).round() as usize]
}

/// One connection that is kept.
pub struct Client {
    stream: BufReader<TcpStream>,
    host: SocketAddr,
}

/// An answer.
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        let found = headers.find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }
}

impl Client {
    pub fn connect(host: SocketAddr) -> Client {
        let stream = TcpStream::connect(host).unwrap();
        stream.set_nodelay(true).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        Client {
            stream: BufReader::new(stream),
            host,
        }
    }

    pub fn get(&mut self, path: &str, headers: &[(&str, &str)]) -> Answer {
        let mut text = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n", self.host);
        for (name, value) in headers {
            text += &format!("{name}: {value}\r\n");
        }
        text += "\r\n";
        self.stream.get_mut().write_all(text.as_bytes()).unwrap();
        let first = self.line();
        let status = first
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok());
        let mut headers = Vec::new();
        loop {
            let line = self.line();
            let Some((name, value)) = line.split_once(':') else {
                break;
            };
            headers.push((name.to_owned(), value.trim().to_owned()));
        }
        let mut answer = Answer {
            status: status.unwrap_or_else(|| panic!("an answer: {first:?}")),
            headers,
            body: Vec::new(),
        };
        if answer.status != 304 {
            let length = answer.header("content-length").unwrap_or("0");
            answer.body.resize(length.parse().unwrap(), 0);
            self.stream.read_exact(&mut answer.body).unwrap();
        }
        answer
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stream.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }
}
