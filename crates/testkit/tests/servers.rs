//! The servers, the proxy and the scripted upstream, each tested by itself.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use testkit::client::{Call, Pending};
use testkit::news::{News, titles};
use testkit::postgres::PostgresServer;
use testkit::proxy::{FaultProxy, Scope};
use testkit::redis::RedisServer;
use testkit::tls::Certificates;
use testkit::upstream::{Behaviour, FakeUpstream, Response};
use testkit::versions::Versions;
use testkit::{SOON, free_address, until};

#[test]
fn redis_starts_stops_and_comes_back_empty() {
    let mut server = RedisServer::start();
    let _: () = server.cli(&["SET", "a", "1"]);
    assert_eq!(server.cli::<String>(&["GET", "a"]), "1");
    assert_eq!(server.keys("*"), ["a"]);
    assert_eq!(server.everything(), b"a\n1\n");

    server.stop();
    assert!(TcpStream::connect(server.address()).is_err());
    server.restart();
    assert!(server.keys("*").is_empty());
}

#[test]
fn redis_pauses_and_resumes() {
    let server = RedisServer::start();
    let mut open = TcpStream::connect(server.address()).unwrap();
    let mut answer = [0; 7];
    server.pause();
    open.write_all(b"PING\r\n").unwrap();
    open.set_read_timeout(Some(Duration::from_millis(50)))
        .unwrap();
    assert!(open.read(&mut answer).is_err());
    server.resume();
    open.set_read_timeout(Some(SOON)).unwrap();
    open.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"+PONG\r\n");
}

#[test]
fn redis_with_tls_lets_only_its_user_in() {
    let server = RedisServer::start_with_tls_and_user();
    let authority = std::fs::read(&server.certificates().authority).unwrap();
    let connect = |url: &str, authority: &[u8]| {
        let trusted = redis::TlsCertificates {
            client_tls: None,
            root_cert: Some(authority.to_vec()),
        };
        let client = redis::Client::build_with_tls(url, trusted).unwrap();
        client.get_connection().map(|mut connection| {
            redis::cmd("SET")
                .arg("larder:x")
                .arg(1)
                .query::<String>(&mut connection)
        })
    };
    assert_eq!(connect(&server.url(), &authority).unwrap().unwrap(), "OK");

    let nobody = server.url().replace("larder:", "nobody:");
    assert!(connect(&nobody, &authority).is_err());
    let other = tempfile::tempdir().unwrap();
    let other = std::fs::read(Certificates::write(other.path()).authority).unwrap();
    assert!(connect(&server.url(), &other).is_err());
}

#[test]
fn redis_goes_back_to_a_snapshot() {
    let mut server = RedisServer::start();
    server.cli::<()>(&["SET", "a", "1"]);
    let old = server.snapshot();
    server.cli::<()>(&["SET", "a", "2"]);
    server.restore(&old);
    assert_eq!(server.cli::<String>(&["GET", "a"]), "1");
    server.restart();
    assert!(server.keys("*").is_empty());
}

#[test]
fn redis_takes_no_writes_when_it_is_told_so() {
    let server = RedisServer::start();
    let write = || {
        let mut connection = server.connect();
        let set = redis::cmd("SET")
            .arg("a")
            .arg(1)
            .query::<()>(&mut connection);
        set.map_err(|error| error.to_string())
    };
    server.make_read_only();
    assert!(write().unwrap_err().contains("ReadOnly"), "{:?}", write());
    server.make_writable();
    server.make_full();
    assert!(write().unwrap_err().contains("OOM"), "{:?}", write());
    server.make_room();
    write().unwrap();
}

#[test]
fn postgres_starts_and_keeps_its_data_over_a_restart() {
    let mut server = PostgresServer::start();
    let (one, two) = (server.new_database(), server.new_database());
    server
        .connect(&one)
        .batch_execute("CREATE TABLE t (a int)")
        .unwrap();
    assert!(
        server
            .connect(&two)
            .batch_execute("SELECT * FROM t")
            .is_err()
    );
    server.stop();
    assert!(TcpStream::connect(server.address()).is_err());
    server.restart();
    server
        .connect(&one)
        .batch_execute("SELECT * FROM t")
        .unwrap();
}

/// A server that returns all data that it receives.
fn echo() -> std::net::SocketAddr {
    let listener = TcpListener::bind(free_address()).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            std::thread::spawn(move || std::io::copy(&mut &stream, &mut &stream));
        }
    });
    address
}

/// Whether a byte returns within `limit`. An error if the connection is gone.
fn comes_back(stream: &mut TcpStream, limit: Duration) -> std::io::Result<bool> {
    stream.set_read_timeout(Some(limit))?;
    stream.write_all(b"x")?;
    match stream.read(&mut [0; 1]) {
        Ok(0) => Err(std::io::ErrorKind::UnexpectedEof.into()),
        Ok(_) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(error),
    }
}

#[test]
fn proxy_makes_each_fault_and_ends_it() {
    let proxy = FaultProxy::start(echo());
    let short = Duration::from_millis(100);
    let mut stream = TcpStream::connect(proxy.address()).unwrap();
    assert!(comes_back(&mut stream, SOON).unwrap());

    for stall in [FaultProxy::stall, FaultProxy::stall_to_client] {
        stall(&proxy);
        assert!(!comes_back(&mut stream, short).unwrap());
        let mut late = TcpStream::connect(proxy.address()).unwrap();
        assert!(!comes_back(&mut late, short).unwrap());
        proxy.restore();
        // The withheld data arrives.
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream.read_exact(&mut [0; 1]).unwrap();
        assert!(comes_back(&mut stream, SOON).unwrap());
    }

    proxy.delay(short);
    let began = Instant::now();
    assert!(comes_back(&mut stream, SOON).unwrap());
    assert!(began.elapsed() >= 2 * short, "{:?}", began.elapsed());
    proxy.delay(Duration::ZERO);

    proxy.close_all();
    assert!(comes_back(&mut stream, SOON).is_err());
    let mut stream = TcpStream::connect(proxy.address()).unwrap();
    assert!(comes_back(&mut stream, SOON).unwrap());

    proxy.cut();
    assert!(comes_back(&mut stream, SOON).is_err());
    assert!(TcpStream::connect(proxy.address()).is_err());
    proxy.restore();
    let mut stream = TcpStream::connect(proxy.address()).unwrap();
    assert!(comes_back(&mut stream, SOON).unwrap());

    let server = RedisServer::start();
    proxy.set_target(server.address());
    let url = format!("redis://{}", proxy.address());
    let mut connection = redis::Client::open(url).unwrap().get_connection().unwrap();
    assert_eq!(
        redis::cmd("PING").query::<String>(&mut connection).unwrap(),
        "PONG"
    );
    assert!(proxy.accepted() >= 4);
}

#[test]
fn proxy_makes_faults_for_subscribers_alone_and_for_the_others() {
    let server = RedisServer::start();
    let proxy = FaultProxy::start(server.address());
    let subscriber = || {
        let mut stream = TcpStream::connect(proxy.address()).unwrap();
        // Split in two, as a network may do.
        stream.set_nodelay(true).unwrap();
        stream.write_all(b"*2\r\n$9\r\nsubsc").unwrap();
        stream.write_all(b"ribe\r\n$1\r\nc\r\n").unwrap();
        stream
    };
    let confirmed = b"*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n";
    // A message of `text`, which is one byte.
    let publish = |text: &str| server.cli::<i64>(&["PUBLISH", "c", text]);
    let message = |text: &str| format!("*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1\r\n{text}\r\n");
    let reads = |stream: &mut TcpStream, expected: &[u8], limit: Duration| {
        stream.set_read_timeout(Some(limit)).unwrap();
        let mut bytes = vec![0; expected.len()];
        let got = stream.read_exact(&mut bytes).is_ok();
        assert!(
            !got || bytes == expected,
            "{}",
            String::from_utf8_lossy(&bytes)
        );
        got
    };
    let short = Duration::from_millis(100);
    let ping = |stream: &mut TcpStream, limit: Duration| {
        stream.write_all(b"PING\r\n").unwrap();
        reads(stream, b"+PONG\r\n", limit)
    };

    let mut bus = subscriber();
    assert!(reads(&mut bus, confirmed, SOON));
    assert_eq!(proxy.subscribers(), 1);
    let mut other = TcpStream::connect(proxy.address()).unwrap();
    assert!(ping(&mut other, SOON));

    proxy.stall_to_client_only(Scope::Bus);
    publish("1");
    assert!(!reads(&mut bus, message("1").as_bytes(), short));
    assert!(ping(&mut other, SOON));
    proxy.restore();
    assert!(reads(&mut bus, message("1").as_bytes(), SOON));

    proxy.stall_only(Scope::Others);
    publish("2");
    assert!(reads(&mut bus, message("2").as_bytes(), SOON));
    assert!(!ping(&mut other, short));
    proxy.restore();
    assert!(reads(&mut other, b"+PONG\r\n", SOON));

    proxy.stall_to_server();
    publish("3");
    assert!(reads(&mut bus, message("3").as_bytes(), SOON));
    assert!(!ping(&mut other, short));
    proxy.restore();
    assert!(reads(&mut other, b"+PONG\r\n", SOON));

    proxy.lose_messages();
    publish("4");
    until(SOON, "it is lost", || proxy.has_lost(&message("4")));
    assert!(!reads(&mut bus, message("4").as_bytes(), short));
    proxy.restore();
    publish("5");
    assert!(reads(&mut bus, message("5").as_bytes(), SOON));

    proxy.cut_bus();
    assert!(!reads(&mut bus, b"*", SOON));
    assert!(!reads(&mut subscriber(), b"*", SOON));
    assert!(ping(&mut other, SOON));
    until(SOON, "no subscriber is left", || proxy.subscribers() == 0);
    proxy.restore();
    assert!(reads(&mut subscriber(), confirmed, SOON));
}

#[test]
fn upstream_behaves_as_it_is_told() {
    let upstream = FakeUpstream::start(Behaviour::answer(|request| {
        Response::text(200, &request.param("q").unwrap()).with("X-Path", &request.path)
    }));
    let call = |target: &str| {
        Call::new(upstream.address(), "GET", target)
            .header("X-Api-Key", "k")
            .try_send()
    };
    let answer = call("/a?q=b%20c").unwrap().expect(200);
    assert_eq!(
        (answer.text().as_str(), answer.the("x-path")),
        ("b c", "/a")
    );
    assert_eq!(upstream.requests()[0].header("x-api-key"), Some("k"));
    assert_eq!(
        (
            upstream.calls(),
            upstream.calls_to("/a"),
            upstream.calls_to("/b")
        ),
        (1, 1, 0)
    );

    let whole = Response::text(429, "0123456789").with("Retry-After", "7");
    upstream.behave(Behaviour::always(whole.clone()));
    assert_eq!(call("/").unwrap().expect(429).the("Retry-After"), "7");
    upstream.behave(Behaviour::Garbage);
    assert!(call("/").is_err());
    upstream.behave(Behaviour::Truncated(whole.clone()));
    assert!(call("/").is_err());
    upstream.behave(Behaviour::Close);
    assert!(call("/").is_err());
    upstream.set_latency(Duration::from_millis(60));
    let began = Instant::now();
    assert!(call("/").is_err());
    assert!(began.elapsed() >= Duration::from_millis(60));
    upstream.set_latency(Duration::ZERO);

    for slow in [Behaviour::Silence, Behaviour::ByteASecond(whole)] {
        upstream.behave(slow);
        let calls = upstream.calls();
        let waits = Call::new(upstream.address(), "GET", "/").connect().unwrap();
        until(SOON, "the call arrives", || upstream.calls() == calls + 1);
        // Ends the silence without an answer.
        upstream.behave(Behaviour::Close);
        assert!(waits.finish().is_err());
    }
}

#[test]
fn upstream_holds_answers_that_were_made_on_arrival() {
    let versions = Versions::start();
    let call = |target: &str| {
        Call::new(versions.upstream.address(), "GET", target)
            .connect()
            .unwrap()
    };
    let science = "/v2/top-headlines?category=science";
    let title = |pending: Pending| pending.finish().unwrap().json()["articles"][0]["title"].clone();
    versions.upstream.hold_answers();
    let early = call(science);
    until(SOON, "the call arrives", || versions.calls() == 1);
    assert_eq!(versions.publish("science"), 2);
    versions.upstream.pass_new();
    assert_eq!(title(call(science)), "science v2");
    assert_eq!(versions.publish("science"), 3);
    versions.upstream.release();
    assert_eq!(title(early), "science v1");

    // Otherwise a withheld request is answered with the data of the moment of its release.
    versions.upstream.hold();
    let late = call(science);
    until(SOON, "the call arrives", || versions.calls() == 3);
    versions.publish("science");
    versions.upstream.release();
    assert_eq!(title(late), "science v4");
}

#[test]
fn upstream_keeps_hundreds_waiting() {
    let upstream = FakeUpstream::start(Behaviour::always(Response::text(200, "ok")));
    upstream.hold();
    let call = Call::new(upstream.address(), "GET", "/");
    let waiting: Vec<_> = (0..300).map(|_| call.connect().unwrap()).collect();
    until(SOON, "all of them are there", || upstream.calls() == 300);
    upstream.release();
    for pending in waiting {
        pending.finish().unwrap().expect(200);
    }
}

#[test]
fn news_answers_as_the_two_upstreams_do() {
    let news = News::with(2);
    let newsapi = Call::new(
        news.newsapi.address(),
        "GET",
        "/v2/top-headlines?category=science",
    );
    let guardian = Call::new(
        news.guardian.address(),
        "GET",
        "/search?section=sport%7Cfootball",
    );
    assert_eq!(
        titles(&newsapi.send().json()),
        ["newsapi science 0 r1", "newsapi science 1 r1"]
    );
    news.publish();
    let answer = guardian.send().json();
    assert_eq!(
        answer["response"]["results"][1]["webTitle"],
        "guardian sport 1 r2"
    );
    assert_eq!(news.calls(), (1, 1));
}
