//! Hostile and slow clients, and their effect on others.

mod absence;
mod admins;
mod crowd;
mod heads;
mod one_connection;
mod unread;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::json;
use socket2::{Domain, Socket, Type};

use testkit::larder::Larder;
use testkit::upstream::{Behaviour, FakeUpstream, Response};

/// The addresses of the bad clients and of the good ones.
const GUILTY: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);
const INNOCENT: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// A connection from this address. Its client buffers at most `unread` bytes.
fn connect_with(
    from: Ipv4Addr,
    to: SocketAddr,
    unread: Option<usize>,
) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    if let Some(bytes) = unread {
        socket.set_recv_buffer_size(bytes)?;
    }
    // The kernel picks the port once it knows both ends, because thousands of connections are open
    // at once.
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::from((from, 0)).into())?;
    socket.connect(&to.into())?;
    let stream = TcpStream::from(socket);
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    Ok(stream)
}

fn connect(from: Ipv4Addr, to: SocketAddr) -> std::io::Result<TcpStream> {
    connect_with(from, to, None)
}

/// All bytes until the connection ends, cleanly or not.
fn read_to_end(stream: &mut TcpStream) -> String {
    let mut all = Vec::new();
    let _ = stream.read_to_end(&mut all);
    String::from_utf8_lossy(&all).into_owned()
}

/// Sends these bytes, and returns all bytes until the connection ends.
pub(crate) fn exchange(larder: &Larder, bytes: &str) -> String {
    let mut stream = connect(GUILTY, larder.address()).unwrap();
    stream.write_all(bytes.as_bytes()).unwrap();
    read_to_end(&mut stream)
}

/// The statuses of the answers in these bytes.
pub(crate) fn statuses(text: &str) -> Vec<u16> {
    let after = text.split("HTTP/1.1 ").skip(1);
    after
        .filter_map(|rest| rest.get(..3)?.parse().ok())
        .collect()
}

/// An upstream that returns `{"n":1}` for every path except `/none`, which is not found.
fn upstream() -> FakeUpstream {
    FakeUpstream::start(Behaviour::answer(|request| {
        if request.path.ends_with("/none") {
            Response::text(404, "nothing here")
        } else {
            Response::json(200, &json!({"n": 1}))
        }
    }))
}

/// A public resource `/open/{id}` over that upstream, and `/closed/{id}`, which needs a key.
fn config(server: &str, upstream: &FakeUpstream) -> String {
    let resource = |name: &str, public: bool| {
        format!(
            "[resource.{name}]
path = \"/{name}/{{id}}\"
public = {public}
params.id = {{ type = \"string\" }}
source = {{ http = \"http://{}/{{id}}\" }}
ttl = {{ memory = \"1h\", redis = \"1h\", absent = \"1h\" }}
",
            upstream.address()
        )
    };
    format!(
        "[server]\n{server}\n{}{}",
        resource("open", true),
        resource("closed", false)
    )
}
