//! A small HTTP/1.1 client. It sends any header and any path as written, and no status is an error.
//! Written by hand, since tests hold connections, send half a request, and read an answer later.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

/// A request that is not sent yet.
pub struct Call {
    address: SocketAddr,
    method: &'static str,
    target: String,
    headers: Vec<(String, String)>,
    body: Option<Vec<u8>>,
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

/// The read timeout. No answer of larder takes this long.
const READ_TIMEOUT: Duration = Duration::from_secs(60);

impl Call {
    pub fn new(address: SocketAddr, method: &'static str, target: &str) -> Call {
        Call {
            address,
            method,
            target: target.to_owned(),
            headers: Vec::new(),
            body: None,
        }
    }

    pub fn header(mut self, name: &str, value: &str) -> Call {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn key(self, key: &str) -> Call {
        self.header("Authorization", &format!("Bearer {key}"))
    }

    pub fn json(mut self, body: &Value) -> Call {
        self.body = Some(body.to_string().into_bytes());
        self.header("Content-Type", "application/json")
    }

    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Call {
        self.body = Some(body.into());
        self
    }

    /// Sends it. Panics if no complete answer comes back.
    #[track_caller]
    pub fn send(&self) -> Answer {
        self.try_send()
            .unwrap_or_else(|error| panic!("{} {}: {error}", self.method, self.target))
    }

    pub fn try_send(&self) -> io::Result<Answer> {
        self.connect()?.finish()
    }

    /// Connects and sends the request, and leaves the answer for later.
    pub fn connect(&self) -> io::Result<Pending> {
        let mut stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(READ_TIMEOUT))?;
        stream.set_nodelay(true)?;
        let mut head = format!(
            "{} {} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n",
            self.method, self.target, self.address
        );
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if let Some(body) = &self.body {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(self.body.as_deref().unwrap_or_default());
        stream.write_all(&bytes)?;
        let no_body = self.method == "HEAD";
        Ok(Pending { stream, no_body })
    }
}

/// A request that was sent and whose answer is still to be read.
pub struct Pending {
    stream: TcpStream,
    no_body: bool,
}

impl Pending {
    pub fn finish(self) -> io::Result<Answer> {
        read_answer(&mut BufReader::new(self.stream), self.no_body)
    }
}

/// A connection that is kept open for one request after another.
pub struct Session {
    address: SocketAddr,
    stream: BufReader<TcpStream>,
}

impl Session {
    pub fn connect(address: SocketAddr) -> io::Result<Session> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(READ_TIMEOUT))?;
        stream.set_nodelay(true)?;
        Ok(Session {
            address,
            stream: BufReader::new(stream),
        })
    }

    pub fn get(&mut self, target: &str, key: &str) -> io::Result<Answer> {
        self.get_with(target, key, &[])
    }

    /// With more headers.
    pub fn get_with(
        &mut self,
        target: &str,
        key: &str,
        headers: &[(&str, &str)],
    ) -> io::Result<Answer> {
        let key = format!("Bearer {key}");
        let headers: Vec<_> = [("Authorization", key.as_str())]
            .into_iter()
            .chain(headers.iter().copied())
            .collect();
        self.send("GET", target, &headers, None)
    }

    pub fn post(&mut self, target: &str, key: &str, body: &Value) -> io::Result<Answer> {
        let key = format!("Bearer {key}");
        self.send("POST", target, &[("Authorization", &key)], Some(body))
    }

    /// Any request, with exactly these headers.
    pub fn send(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> io::Result<Answer> {
        let mut request = format!("{method} {target} HTTP/1.1\r\nHost: {}\r\n", self.address);
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        let body = body.map(Value::to_string);
        if let Some(body) = &body {
            let length = body.len();
            request.push_str(&format!(
                "Content-Type: application/json\r\nContent-Length: {length}\r\n"
            ));
        }
        request.push_str("\r\n");
        request.push_str(body.as_deref().unwrap_or_default());
        self.stream.get_mut().write_all(request.as_bytes())?;
        read_answer(&mut self.stream, false)
    }
}

fn read_answer(reader: &mut impl BufRead, no_body: bool) -> io::Result<Answer> {
    let malformed = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let mut line = || -> io::Result<String> {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end().to_owned())
    };
    let first = line()?;
    let status = first.split(' ').nth(1).and_then(|word| word.parse().ok());
    let status: u16 = status.ok_or_else(|| malformed(&format!("no status line: {first}")))?;
    let mut headers = Vec::new();
    loop {
        let line = line()?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line
            .split_once(':')
            .ok_or_else(|| malformed(&format!("no header: {line}")))?;
        headers.push((name.to_owned(), value.trim().to_owned()));
    }
    let mut answer = Answer {
        status,
        headers,
        body: Vec::new(),
    };
    if no_body || status == 204 || status == 304 {
        return Ok(answer);
    }
    if answer
        .header("Transfer-Encoding")
        .is_some_and(|coding| coding == "chunked")
    {
        loop {
            let mut size = String::new();
            reader.read_line(&mut size)?;
            let size = usize::from_str_radix(size.trim(), 16)
                .map_err(|_| malformed(&format!("no chunk size: {size}")))?;
            let mut chunk = vec![0; size + 2];
            reader.read_exact(&mut chunk)?;
            if size == 0 {
                break;
            }
            answer.body.extend_from_slice(&chunk[..size]);
        }
    } else if let Some(length) = answer.header("Content-Length") {
        let length = length.parse().map_err(|_| malformed("no content length"))?;
        answer.body.resize(length, 0);
        reader.read_exact(&mut answer.body)?;
    } else {
        reader.read_to_end(&mut answer.body)?;
    }
    Ok(answer)
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        headers
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// A header that must be present. Panics without it.
    #[track_caller]
    pub fn the(&self, name: &str) -> &str {
        self.header(name)
            .unwrap_or_else(|| panic!("no header {name}: {self}"))
    }

    /// For how many more seconds memory serves it.
    #[track_caller]
    pub fn memory_ttl(&self) -> u32 {
        let hit = self.the("Cache-Status").strip_prefix("larder-memory; hit");
        let ttl = hit.and_then(|rest| rest.strip_prefix("; ttl="));
        let digits = ttl
            .unwrap_or_default()
            .split(';')
            .next()
            .unwrap_or_default();
        digits
            .parse()
            .unwrap_or_else(|_| panic!("no hit in memory with a TTL: {self}"))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("no JSON ({error}): {self}"))
    }

    /// Panics, showing the whole answer, unless the status is `status`.
    #[track_caller]
    pub fn expect(self, status: u16) -> Answer {
        assert_eq!(self.status, status, "{self}");
        self
    }

    /// Panics unless it is a problem document (RFC 9457) with this status. Returns its `detail`.
    #[track_caller]
    pub fn problem(&self, status: u16) -> String {
        assert_eq!(self.status, status, "{self}");
        let kind = self.the("Content-Type");
        assert!(kind.starts_with("application/problem+json"), "{self}");
        let body = self.json();
        assert_eq!(body["status"], status, "{self}");
        assert!(
            body["type"].is_string() && body["title"].is_string(),
            "{self}"
        );
        body["detail"]
            .as_str()
            .unwrap_or_else(|| panic!("no detail: {self}"))
            .to_owned()
    }

    /// Whether the answer contains `needle`, headers included.
    pub fn mentions(&self, needle: &str) -> bool {
        self.to_string().contains(needle)
    }
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{}", self.status)?;
        for (name, value) in &self.headers {
            writeln!(f, "{name}: {value}")?;
        }
        write!(f, "\n{}", self.text())
    }
}
