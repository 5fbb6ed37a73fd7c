//! A server for tests that does to a connection what a test tells it to.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

pub(crate) struct TinyServer {
    address: SocketAddr,
    requests: Arc<AtomicUsize>,
    stopped: Arc<AtomicBool>,
}

impl TinyServer {
    /// Calls `serve` with each connection, in a thread of its own, once a request's head was read from it.
    pub(crate) fn start(serve: impl Fn(TcpStream, &str) + Send + Sync + 'static) -> TinyServer {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = TinyServer {
            address: listener.local_addr().unwrap(),
            requests: Arc::default(),
            stopped: Arc::default(),
        };
        let (requests, stopped) = (server.requests.clone(), server.stopped.clone());
        let serve = Arc::new(serve);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                let (requests, serve) = (requests.clone(), serve.clone());
                let mut stream = stream.unwrap();
                std::thread::spawn(move || {
                    let mut head = Vec::new();
                    let mut byte = [0];
                    while !head.ends_with(b"\r\n\r\n") {
                        match stream.read(&mut byte) {
                            Ok(1) => head.push(byte[0]),
                            _ => return,
                        }
                    }
                    requests.fetch_add(1, Ordering::SeqCst);
                    serve(stream, &String::from_utf8(head).unwrap());
                });
            }
        });
        server
    }

    /// Nobody listens there any more once this has returned.
    pub(crate) fn stop(self) -> TinyServer {
        self.stopped.store(true, Ordering::SeqCst);
        // The listener is dropped after one more connection; a refused one proves that it was.
        while TcpStream::connect(self.address).is_ok() {}
        self
    }

    pub(crate) fn base_url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

/// Writes a whole answer, after which the connection closes.
pub(crate) fn respond(stream: &mut TcpStream, status: &str, headers: &[&str], body: &[u8]) {
    let mut head = format!(
        "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n",
        body.len()
    );
    for header in headers {
        head.push_str(header);
        head.push_str("\r\n");
    }
    head.push_str("\r\n");
    // A client that has seen enough hangs up: that is its right.
    let _ = stream.write_all(head.as_bytes());
    let _ = stream.write_all(body);
}
