//! Database connections end and schemas change while larder runs: no reader sees an error.

use std::fs;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use testkit::client::Call;
use testkit::larder::{ADMIN_KEY, Larder, LarderOptions};
use testkit::postgres::PostgresServer;
use testkit::proxy::FaultProxy;
use testkit::{SOON, until};

const THINGS: &str = "
[database]
pool = 4
[resource.thing]
path = \"/things/{id}\"
params.id = { type = \"string\" }
params.round = { type = \"integer\", default = 0 }
source = { sql = \"thing\" }
ttl = { memory = \"1h\", redis = \"0s\" }
tags = [\"thing:{id}\"]
write.PUT = { sql = \"thing_update\", invalidates = [\"thing:{id}\"] }
";

fn options() -> LarderOptions {
    LarderOptions::new(THINGS)
        .statement(
            "thing",
            "SELECT name FROM things WHERE id = :id AND :round::int >= 0",
        )
        .statement(
            "thing_update",
            "UPDATE things SET name = :name WHERE id = :id RETURNING name",
        )
}

fn prepare(postgres: &PostgresServer) -> String {
    let url = postgres.new_database();
    let things = "CREATE TABLE things (id INT PRIMARY KEY, name TEXT); INSERT INTO things VALUES (1, 'one'), (2, 'two')";
    postgres.connect(&url).batch_execute(things).unwrap();
    url
}

/// Four reads at the same time. Each is a load, because each `round` is new.
fn read_at_one_time(larder: &Larder, id: &str, round: u32) -> Vec<(u16, String)> {
    let calls: Vec<Call> = (0..4)
        .map(|reader| {
            let path = format!("/things/{id}?round={}", 10 * round + reader);
            larder.call("GET", &path).key(ADMIN_KEY)
        })
        .collect();
    let answers = std::thread::scope(|scope| {
        let sent: Vec<_> = calls
            .iter()
            .map(|call| scope.spawn(|| call.send()))
            .collect();
        sent.into_iter()
            .map(|answer| answer.join().unwrap())
            .collect::<Vec<_>>()
    });
    answers
        .iter()
        .map(|answer| (answer.status, answer.text()))
        .collect()
}

#[test]
fn every_connection_ends_and_no_request_is_refused() {
    let postgres = PostgresServer::start();
    let url = prepare(&postgres);
    let proxy = FaultProxy::start(postgres.address());
    let through = url.replace(
        &postgres.address().to_string(),
        &proxy.address().to_string(),
    );
    let larder = Larder::start(&options().env("DATABASE_URL", &through));
    let one = vec![(200, r#"{"name":"one"}"#.to_owned()); 4];
    let end = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
               WHERE datname = current_database() AND pid <> pg_backend_pid()";
    let put = |name: &str| larder.put("/things/2", &json!({"name": name})).status;
    for round in (0..6).step_by(2) {
        assert_eq!(read_at_one_time(&larder, "1", round), one);
        postgres.connect(&url).batch_execute(end).unwrap();
        assert_eq!(read_at_one_time(&larder, "1", round + 1), one);
        postgres.connect(&url).batch_execute(end).unwrap();
        assert_eq!(put(&format!("two {round}")), 200);
    }
    // Cut on the way, as by a firewall that restarts.
    for round in (10..14).step_by(2) {
        assert_eq!(read_at_one_time(&larder, "1", round), one);
        proxy.close_all();
        assert_eq!(read_at_one_time(&larder, "1", round + 1), one);
        proxy.close_all();
        assert_eq!(put(&format!("two {round}")), 200);
    }
    assert_eq!(larder.call("GET", "/readyz").send().status, 200);
}

#[test]
fn a_fast_restart_of_the_server_costs_readers_time_and_no_error() {
    let mut postgres = PostgresServer::start();
    let url = prepare(&postgres);
    let larder = Larder::start(&options().env("DATABASE_URL", &url));
    let one = vec![(200, r#"{"name":"one"}"#.to_owned()); 4];
    assert_eq!(read_at_one_time(&larder, "1", 0), one);
    let mut client = postgres.connect(&url);
    let backend: i32 = client
        .query_one("SELECT pg_backend_pid()", &[])
        .unwrap()
        .get(0);
    let stat = fs::read_to_string(format!("/proc/{backend}/stat")).unwrap();
    let (_, behind_name) = stat.rsplit_once(") ").unwrap();
    let server = behind_name.split(' ').nth(1).unwrap().parse().unwrap();
    let server = Pid::from_raw(server).unwrap();
    // As `pg_ctl stop -m fast` does.
    kill_process(server, Signal::INT).unwrap();
    let address = postgres.address();
    until(SOON, "the server is down", || {
        TcpStream::connect(address).is_err()
    });
    postgres.restart();
    assert_eq!(read_at_one_time(&larder, "1", 1), one);
    larder
        .put("/things/2", &json!({"name": "after"}))
        .expect(200);
}

#[test]
fn readers_all_the_while_see_no_error_when_a_column_gets_another_type() {
    let postgres = PostgresServer::start();
    let url = prepare(&postgres);
    let larder = Larder::start(&options().env("DATABASE_URL", &url));
    let stop = AtomicBool::new(false);
    let refused = std::thread::scope(|scope| {
        let readers: Vec<_> = (0..3)
            .map(|reader| {
                let (larder, stop) = (&larder, &stop);
                scope.spawn(move || {
                    let mut refused = Vec::new();
                    let mut round = 1_000_000 * reader;
                    while !stop.load(Ordering::Relaxed) {
                        round += 1;
                        let answer = larder.get(&format!("/things/2?round={round}"));
                        if answer.status != 200 {
                            refused.push(answer.to_string());
                        }
                    }
                    refused
                })
            })
            .collect();
        let mut client = postgres.connect(&url);
        for (turn, kind) in (1..).zip(["TEXT", "BIGINT USING id::bigint", "NUMERIC", "INT"]) {
            client
                .batch_execute(&format!("ALTER TABLE things ALTER id TYPE {kind}"))
                .unwrap();
            // Uses each connection of the pool.
            for round in 0..3 {
                let answers = read_at_one_time(&larder, "1", 10_000_000 * turn + round);
                assert!(
                    answers.iter().all(|(status, _)| *status == 200),
                    "{kind}: {answers:?}"
                );
            }
        }
        client
            .batch_execute("ALTER TABLE things ALTER id TYPE TEXT")
            .unwrap();
        client
            .batch_execute("INSERT INTO things VALUES ('x-1', 'ex')")
            .unwrap();
        let ex = vec![(200, r#"{"name":"ex"}"#.to_owned()); 4];
        for round in 0..3 {
            assert_eq!(read_at_one_time(&larder, "x-1", round), ex);
        }
        stop.store(true, Ordering::Relaxed);
        let refused = readers
            .into_iter()
            .flat_map(|reader| reader.join().unwrap());
        refused.collect::<Vec<_>>()
    });
    assert!(refused.is_empty(), "{}: {}", refused.len(), refused[0]);
}
