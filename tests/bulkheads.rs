//! Bulkheads: a slow source, or a client that asks for too much, does not affect the others.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use testkit::client::Pending;
use testkit::larder::{ADMIN_KEY, Larder, LarderOptions};
use testkit::postgres::PostgresServer;
use testkit::upstream::{Behaviour, FakeUpstream, Response};
use testkit::{SOON, until};

/// A larder with three sources: an upstream that answers only when released, one that answers at
/// once, and SQL.
struct House {
    slow: FakeUpstream,
    quick: FakeUpstream,
    larder: Larder,
}

fn house(max_loads: usize, max_queue: usize) -> House {
    let upstream = || FakeUpstream::start(Behaviour::always(Response::json(200, &json!({"a": 1}))));
    let (slow, quick) = (upstream(), upstream());
    slow.hold();
    let mut config = format!("server = {{ max_loads = {max_loads}, max_queue = {max_queue} }}\n");
    for (name, upstream) in [("slow", &slow), ("quick", &quick)] {
        config += &format!(
            "[resource.{name}]
path = \"/{name}/{{id}}\"
params.id = {{ type = \"integer\" }}
source = {{ http = \"http://{}/{{id}}\", upstream = \"{name}\" }}
public = true
ttl = {{ memory = \"1h\", redis = \"0s\" }}
[upstream.{name}]
timeout = \"60s\"
",
            upstream.address()
        );
    }
    config += "[resource.row]
path = \"/row/{id}\"
params.id = { type = \"integer\" }
source = { sql = \"row\" }
public = true
ttl = { memory = \"1h\", redis = \"0s\" }
[resource.both]
path = \"/both/{id}\"
params.id = { type = \"integer\" }
source = { parts = [\"row\", \"slow\"] }
public = true
";
    let options = LarderOptions::new(&config).statement("row", "SELECT :id + 0 AS id");
    House {
        slow,
        quick,
        larder: Larder::start(&options),
    }
}

impl House {
    fn ask(&self, path: &str) -> Pending {
        self.larder.call("GET", path).connect().unwrap()
    }

    fn slow_share(&self) -> Value {
        let stats = self.larder.stats();
        let shares = stats["loads"]["shares"].as_array().unwrap().clone();
        let of_slow = |share: &Value| share["name"] == "slow";
        shares.into_iter().find(of_slow).unwrap()
    }

    #[track_caller]
    fn until_slow(&self, what: &[(&str, u64)]) {
        until(SOON, &format!("{what:?}"), || {
            let share = self.slow_share();
            what.iter().all(|(figure, value)| share[figure] == *value)
        });
    }

    /// The ids that the slow source was asked for, in order.
    fn asked_for(&self) -> Vec<u64> {
        let requests = self.slow.requests();
        let id = |path: &str| path.trim_start_matches('/').parse().unwrap();
        requests.iter().map(|request| id(&request.path)).collect()
    }
}

/// Sends a request and closes at once.
fn hit_and_run(address: SocketAddr, path: &str) {
    let mut stream = TcpStream::connect(address).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
}

/// The result of one kind of client: requests, errors, and the 99th percentile of the time to an
/// answer.
#[derive(Default)]
struct Seen(Vec<(u16, Duration)>);

impl Seen {
    fn errors(&self) -> usize {
        self.0.iter().filter(|(status, _)| *status != 200).count()
    }

    fn tell(&mut self, who: &str) {
        self.0.sort_by_key(|(_, took)| *took);
        let p99 = self.0[self.0.len() * 99 / 100].1;
        let (requests, errors) = (self.0.len(), self.errors());
        println!("{who}: {requests} requests, {errors} errors, p99 {p99:?}");
    }
}

#[test]
fn a_flood_at_one_slow_source_costs_the_others_nothing() {
    // One permit to run and five to wait are reserved for each of the others.
    let house = house(8, 32);
    let begun = Instant::now();
    let stay: Vec<Pending> = (0..60)
        .map(|id| house.ask(&format!("/slow/{id}")))
        .collect();
    until(SOON, "the slow source has all that it may have", || {
        let share = house.slow_share();
        let (running, waiting) = (&share["running"], &share["waiting"]);
        let refused = share["refused"].as_u64().unwrap();
        let all = running.as_u64().unwrap() + waiting.as_u64().unwrap() + refused;
        all == 60 && refused > 0
    });
    let full = house.slow_share();
    assert!(full["running"].as_u64().unwrap() <= 6, "{full}");

    let address = house.larder.address();
    let mut innocent = Seen::default();
    thread::scope(|scope| {
        let flood = scope.spawn(move || {
            for id in 1_000..2_200 {
                hit_and_run(address, &format!("/slow/{id}"));
            }
        });
        let readers: Vec<_> = (0..4)
            .map(|reader| {
                let house = &house;
                scope.spawn(move || {
                    let mut seen = Vec::new();
                    for id in 0..50 {
                        let path = format!("/{}/{}", ["quick", "row"][id % 2], reader * 50 + id);
                        let asked = Instant::now();
                        let answer = house.larder.call("GET", &path).send();
                        seen.push((answer.status, asked.elapsed()));
                    }
                    seen
                })
            })
            .collect();
        let all = readers.into_iter().map(|reader| reader.join().unwrap());
        innocent.0 = all.flatten().collect();
        flood.join().unwrap();
    });
    innocent.tell("innocent");
    assert_eq!((innocent.0.len(), innocent.errors()), (200, 0));
    assert_eq!(house.quick.calls(), 100, "each was a load of its own");

    let gone = |share: &Value| share["refused"].as_u64().unwrap() + share["left"].as_u64().unwrap();
    let before = gone(&full);
    until(SOON, "the whole flood is dealt with", || {
        gone(&house.slow_share()) == before + 1_200
    });
    house.slow.release();
    let mut guilty = Seen::default();
    for pending in stay {
        let status = pending.finish().unwrap().status;
        assert!([200, 503].contains(&status), "{status}");
        guilty.0.push((status, begun.elapsed()));
    }
    guilty.tell("guilty, of those who waited");
    assert_eq!(guilty.errors() as u64, full["refused"].as_u64().unwrap());
    house.until_slow(&[("running", 0), ("waiting", 0)]);
    let asked_for = house.asked_for();
    assert_eq!(asked_for.len(), 60 - guilty.errors());
    assert!(asked_for.iter().all(|id| *id < 60), "{asked_for:?}");
}

#[test]
fn a_load_that_nobody_waits_for_any_more_is_not_started() {
    // Each of three shares has one permit to run and two to wait. Six more are for any share.
    let house = house(3, 12);
    let runs = house.ask("/slow/1");
    house.until_slow(&[("running", 1)]);
    let mut waiting: Vec<Pending> = (2..8).map(|id| house.ask(&format!("/slow/{id}"))).collect();
    let again = house.ask("/slow/7");
    house.until_slow(&[("waiting", 6)]);
    // A composite waits for its part. Nobody waits for the part once nobody waits for the
    // composite.
    let whole = house.ask("/both/8");
    house.until_slow(&[("waiting", 7)]);
    drop(whole);
    house.until_slow(&[("waiting", 6), ("left", 1)]);
    let stays = waiting.remove(0);
    drop(waiting);
    house.until_slow(&[("waiting", 2), ("left", 5)]);
    for id in 100..200 {
        hit_and_run(house.larder.address(), &format!("/slow/{id}"));
    }
    house.until_slow(&[
        ("running", 1),
        ("waiting", 2),
        ("refused", 0),
        ("left", 105),
    ]);
    house.slow.release();
    for pending in [runs, stays, again] {
        assert_eq!(
            pending.finish().unwrap().expect(200).json(),
            json!({"a": 1})
        );
    }
    // A later reader starts a load of its own.
    let late = house.ask("/slow/3").finish().unwrap();
    late.expect(200);
    // The connections of those who waited may have been read in any order.
    let mut asked_for = house.asked_for();
    asked_for[1..3].sort();
    assert_eq!(asked_for, [1, 2, 7, 3]);
}

#[test]
fn a_client_that_sends_nothing_more_is_answered_and_takes_no_place_in_the_queue() {
    let house = house(3, 12);
    let half_closed = |path: &str| {
        let mut stream = TcpStream::connect(house.larder.address()).unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        stream
    };
    let read = |mut stream: TcpStream| {
        let mut answer = String::new();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let runs = half_closed("/slow/1");
    house.until_slow(&[("running", 1)]);
    let refused = read(half_closed("/slow/2"));
    assert!(refused.starts_with("HTTP/1.1 503"), "{refused}");
    assert!(refused.contains("retry-after: 1"), "{refused}");
    let quick = read(half_closed("/quick/1"));
    assert!(quick.starts_with("HTTP/1.1 200"), "{quick}");
    house.slow.release();
    let answer = read(runs);
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.ends_with("{\"a\":1}"),
        "{answer}"
    );
    assert_eq!(house.asked_for(), [1]);
}

#[test]
fn api_keys_take_turns_at_one_source() {
    // One permit to run, and eight to wait.
    let house = house(3, 12);
    let key = |name: &str| {
        house
            .larder
            .create_key(&json!({"name": name, "rate": "unlimited"}))
            .1
    };
    let (many, few) = (key("many"), key("few"));
    let ask = |id: u64, key: &str| {
        let call = house.larder.call("GET", &format!("/slow/{id}"));
        call.key(key).connect().unwrap()
    };
    let first = ask(1, ADMIN_KEY);
    house.until_slow(&[("running", 1)]);
    // They come in a known order.
    let mut waiting = Vec::new();
    for id in 10..18 {
        waiting.push(ask(id, &many));
        house.until_slow(&[("waiting", id - 9)]);
    }
    // The queue is full. The newest load of the client with most loads is refused, not the
    // newcomer.
    let others = [ask(20, &few), ask(21, &few)];
    for _ in &others {
        waiting.pop().unwrap().finish().unwrap().problem(503);
    }
    house.until_slow(&[("waiting", 8), ("refused", 2)]);
    // The client with most loads gets no further permit.
    ask(18, &many).finish().unwrap().problem(503);
    // Without a key, clients are told apart by address.
    let nobody = house.ask("/slow/30");
    waiting.pop().unwrap().finish().unwrap().problem(503);
    house.until_slow(&[("waiting", 8), ("refused", 4)]);
    house.slow.release();
    for pending in waiting.into_iter().chain(others).chain([first, nobody]) {
        pending.finish().unwrap().expect(200);
    }
    let asked_for = house.asked_for();
    assert_eq!(asked_for[..4], [1, 10, asked_for[2], 30], "{asked_for:?}");
    let of_few = [asked_for[2], asked_for[5]];
    assert!(of_few == [20, 21] || of_few == [21, 20], "{asked_for:?}");
    assert_eq!(asked_for[6..], [12, 13, 14], "{asked_for:?}");
}

const USERS: &str = "CREATE TABLE members (id BIGINT PRIMARY KEY, name TEXT NOT NULL);
INSERT INTO members VALUES (1, 'Ada')";

const USER: &str = "[resource.user]
path = \"/users/{id}\"
params.id = { type = \"integer\" }
source = { sql = \"user\" }
public = true
ttl = { memory = \"1h\", redis = \"0s\" }
write.PUT.sql = \"user_put\"
write.PUT.fields.name = { type = \"string\" }
[resource.row]
path = \"/row/{id}\"
params.id = { type = \"integer\" }
source = { sql = \"row\" }
public = true
ttl = { memory = \"1h\", redis = \"0s\" }
";

fn users(url: &str) -> LarderOptions {
    LarderOptions::new(USER)
        .statement("user", "SELECT name FROM members WHERE id = :id")
        .statement(
            "user_put",
            "UPDATE members SET name = :name WHERE id = :id RETURNING name",
        )
        .statement("row", "SELECT :id + 0 AS id")
        .env("DATABASE_URL", url)
}

/// Asks for readiness repeatedly: a balancer would drop a replica that is unready once.
fn is_steadily_ready(larder: &Larder, looks: usize) {
    for _ in 0..looks {
        let ready = larder.call("GET", "/readyz").send().expect(200).json();
        assert_eq!(ready["database"]["state"], "up", "{ready}");
    }
}

fn running_on_the_database(larder: &Larder) -> u64 {
    let stats = larder.stats();
    let shares = stats["loads"]["shares"].as_array().unwrap();
    let share = shares.iter().find(|share| share["name"] == "the database");
    share.unwrap()["running"].as_u64().unwrap()
}

#[test]
fn a_locked_table_keeps_neither_the_keys_nor_readiness_waiting() {
    let postgres = PostgresServer::start();
    let url = postgres.new_database();
    postgres.connect(&url).batch_execute(USERS).unwrap();
    let replicas = Larder::start_many(2, &users(&url));
    let (larder, other) = (&replicas[0], &replicas[1]);
    let mut session = postgres.connect(&url);
    session.batch_execute("BEGIN; LOCK TABLE members").unwrap();
    let waiting: Vec<Pending> = (0..30)
        .map(|id| {
            larder
                .call("GET", &format!("/users/{id}"))
                .connect()
                .unwrap()
        })
        .collect();
    until(SOON, "they take the whole pool", || {
        running_on_the_database(larder) == 30
    });

    is_steadily_ready(larder, 20);
    let (id, key) = larder.create_key(&json!({"name": "made meanwhile"}));
    let listed = larder.get("/keys").expect(200).json();
    assert_eq!(listed["keys"].as_array().unwrap().len(), 1, "{listed}");
    let admitted = |larder: &Larder| {
        let answer = larder.call("GET", "/cache/stats").key(&key).send();
        // The key is known and has no admin rights.
        answer.status == 403
    };
    assert!(admitted(larder));
    until(SOON, "the other replica knows it", || admitted(other));
    // The reverse: this replica must read what it hears of.
    other.delete(&format!("/keys/{id}")).expect(204);
    until(SOON, "the key is revoked here, too", || !admitted(larder));
    is_steadily_ready(larder, 20);
    session.batch_execute("ROLLBACK").unwrap();
    for pending in waiting {
        pending.finish().unwrap();
    }
    until(SOON, "its users are read again", || {
        larder.get("/users/1").status == 200
    });
}

#[test]
fn locked_keys_keep_neither_readiness_nor_resources_waiting() {
    let postgres = PostgresServer::start();
    let url = postgres.new_database();
    postgres.connect(&url).batch_execute(USERS).unwrap();
    let larder = Larder::start(&users(&url));
    let mut session = postgres.connect(&url);
    session
        .batch_execute("BEGIN; LOCK TABLE api_keys, api_keys_version")
        .unwrap();
    let waiting: Vec<Pending> = (0..10)
        .map(|_| {
            larder
                .call("GET", "/keys")
                .key(ADMIN_KEY)
                .connect()
                .unwrap()
        })
        .collect();
    let mut observer = postgres.connect(&url);
    until(SOON, "all connections for keys wait", || {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
        let waiting: i64 = observer.query_one(sql, &[]).unwrap().get(0);
        waiting >= 3
    });
    // Each attempt waits briefly for one of these connections before it opens another.
    is_steadily_ready(&larder, 3);
    for id in 0..20 {
        larder.get(&format!("/row/{id}")).expect(200);
    }
    session.batch_execute("ROLLBACK").unwrap();
    for pending in waiting {
        pending.finish().unwrap();
    }
    until(SOON, "keys are listed again", || {
        larder.get("/keys").status == 200
    });
}

#[test]
fn a_long_write_by_another_process_keeps_reads_and_readiness_of_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("shop.db");
    let mut other = rusqlite::Connection::open(&file).unwrap();
    other.execute_batch(USERS).unwrap();
    let larder = Larder::start(&users(&format!("sqlite://{}", file.display())));
    let (_, key) = larder.create_key(&json!({"name": "made before"}));
    let writes = other
        .transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)
        .unwrap();
    let waiting: Vec<Pending> = (0..12)
        .map(|_| {
            let call = larder.call("PUT", "/users/1").key(ADMIN_KEY);
            call.json(&json!({"name": "Eve"})).connect().unwrap()
        })
        .collect();
    is_steadily_ready(&larder, 20);
    larder.get("/keys").expect(200);
    larder
        .call("GET", "/cache/stats")
        .key(&key)
        .send()
        .expect(403);
    larder.get("/users/1").expect(200);
    for id in 0..20 {
        larder.get(&format!("/row/{id}")).expect(200);
    }
    writes.rollback().unwrap();
    for pending in waiting {
        pending.finish().unwrap();
    }
    until(SOON, "it is written again", || {
        larder.put("/users/1", &json!({"name": "Eve"})).status == 200
    });
}
