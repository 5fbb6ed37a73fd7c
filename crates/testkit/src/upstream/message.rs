//! The messages of a scripted upstream: requests as they arrived, responses as they are sent.

use std::io::{BufRead, Write};
use std::net::TcpStream;
use std::time::Instant;

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    pub path: String,
    /// What follows the `?`, as it was sent.
    pub query: String,
    pub headers: Vec<(String, String)>,
    pub at: Instant,
    /// The whole head, up to the empty line, as it was sent.
    pub head: String,
    /// The body. Only one with a `Content-Length` is read.
    pub body: Vec<u8>,
}

impl Request {
    /// Reads the next request of a connection. `None` if no complete one comes.
    pub fn read(reader: &mut impl BufRead) -> Option<Request> {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            reader
                .read_line(&mut head)
                .ok()
                .filter(|length| *length > 0)?;
        }
        let mut lines = head.lines();
        let mut line = lines.next()?.split(' ');
        let (method, target) = (line.next()?, line.next()?);
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let headers = lines.map_while(|line| line.split_once(':'));
        let mut request = Request {
            method: method.to_owned(),
            path: path.to_owned(),
            query: query.to_owned(),
            headers: headers
                .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
                .collect(),
            at: Instant::now(),
            head: String::new(),
            body: Vec::new(),
        };
        let length = request
            .header("Content-Length")
            .map_or(0, |length| length.parse().unwrap_or(0));
        request.body = vec![0; length];
        reader.read_exact(&mut request.body).ok()?;
        request.head = head;
        Some(request)
    }

    /// The body as JSON. Panics if it is not valid JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.headers, name)
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

fn header<'h>(headers: &'h [(String, String)], name: &str) -> Option<&'h str> {
    let found = headers
        .iter()
        .find(|(key, _)| key.eq_ignore_ascii_case(name));
    found.map(|(_, value)| value.as_str())
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

/// A complete and well-formed answer.
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

    /// The response of a server that follows RFC 9110, section 13: 304 if the client has it
    /// already.
    pub fn unless_known(self, request: &Request) -> Response {
        let own = |name| header(&self.headers, name);
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

    /// The bytes that are sent.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = format!(
            "HTTP/1.1 {} Scripted\r\nContent-Length: {}\r\n",
            self.status,
            self.body.len()
        )
        .into_bytes();
        for (name, value) in &self.headers {
            bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(&self.body);
        bytes
    }
}

/// Writes a complete answer, after which the connection closes. For [`super::FakeUpstream::raw`].
pub fn respond(stream: &mut TcpStream, status: &str, headers: &[&str], body: &[u8]) {
    let mut head = format!(
        "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n",
        body.len()
    );
    for header in headers {
        head.push_str(header);
        head.push_str("\r\n");
    }
    head.push_str("\r\n");
    // The client may have hung up.
    let _ = stream.write_all(head.as_bytes());
    let _ = stream.write_all(body);
}
