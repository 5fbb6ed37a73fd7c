//! The figures of changes behind larder's back, as a table in Markdown:
//! `cargo bench --bench outbox`, under a minute.
//!
//! Starts its own Redis, and its own Postgres without `fsync`. Two caches in this process, each
//! with its deliverer, are the replicas. A commit is in force at a replica when its
//! `on_invalidation` is called.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    unreachable_pub
)]

use std::collections::HashSet;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use larder::database::{Database, DatabaseSettings, Deliverer};
use larder_cache::Secret;
use larder_cache::{
    Cache, CoherenceSettings, InvalidationTarget, LoadSettings, MemorySettings, RedisSettings,
    random,
};
use postgres::Client;
use testkit::postgres::PostgresServer;
use testkit::redis::RedisServer;
use testkit::{SOON, until};

const ROWS: usize = 10_000;

fn main() {
    // `cargo test --all-targets` runs this, too, without asking for figures.
    if !std::env::args().any(|argument| argument == "--bench") {
        println!("figures are made by: cargo bench --bench outbox");
        return;
    }
    let (redis, postgres) = (RedisServer::start(), PostgresServer::start());
    let url = postgres.new_database();
    let replicas = [replica(&redis, &url), replica(&redis, &url)];
    let mut sql = postgres.connect(&url);
    let version: String = sql.query_one("SHOW server_version", &[]).unwrap().get(0);
    sql.batch_execute(&format!(
        "CREATE TABLE plain (id INT PRIMARY KEY, team INT, seen INT);
         INSERT INTO plain SELECT i, 1, 0 FROM generate_series(1, {ROWS}) AS i;
         CREATE TABLE members (LIKE plain INCLUDING ALL); INSERT INTO members SELECT * FROM plain;
         CREATE TABLE teams (LIKE plain INCLUDING ALL); INSERT INTO teams SELECT * FROM plain;
         SELECT larder_watch('members', 'user:{{id}}'), larder_watch('teams', 'team:{{team}}')"
    ))
    .unwrap();
    println!("| Figure | Value |\n|---|---|");
    propagation(&mut sql, &replicas);
    statements(&mut sql);
    bulk(&mut sql, &replicas);
    println!(
        "\n{} cores, Postgres {version} without fsync and Redis over loopback.",
        thread::available_parallelism().unwrap()
    );
}

/// A replica: dropped in this order.
struct Replica {
    _deliverer: Deliverer,
    told: Receiver<(Instant, InvalidationTarget)>,
    _cache: Cache,
}

fn replica(redis: &RedisServer, url: &str) -> Replica {
    let settings = RedisSettings {
        url: Some(Secret::new(redis.url())),
        timeout: Duration::from_secs(5),
        ..RedisSettings::default()
    };
    let cache = Cache::start(
        &MemorySettings::default(),
        &settings,
        &LoadSettings::default(),
        &CoherenceSettings::default(),
    )
    .unwrap();
    assert!(cache.redis().wait_up(SOON) && cache.wait_trusted(SOON));
    let (sender, told) = mpsc::channel();
    cache.on_invalidation(move |name, _| {
        let _ = sender.send((Instant::now(), name.clone()));
    });
    let database = Database::open(&DatabaseSettings {
        url: Some(Secret::new(url)),
        pool: 1,
        ..DatabaseSettings::default()
    })
    .unwrap();
    database.migrate().unwrap();
    Replica {
        _deliverer: Deliverer::start(database, cache.clone())
            .unwrap()
            .expect("it is Postgres"),
        told,
        _cache: cache,
    }
}

impl Replica {
    /// The moment at which `name` came into force.
    fn when(&self, name: &str) -> Instant {
        loop {
            let (at, told) = self.told.recv_timeout(SOON).expect("it is told");
            if told.as_str() == name {
                return at;
            }
        }
    }
}

/// How soon a commit of one row is in force at both.
fn propagation(sql: &mut Client, replicas: &[Replica]) {
    const ROUNDS: usize = 1500;
    let (mut from_commit, mut from_return, mut last) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let id = round % ROWS + 1;
        // Long enough for every thread to sleep again: a commit in an idle deployment.
        thread::sleep(Duration::from_micros(1000 + random() % 2000));
        sql.batch_execute(&format!(
            "BEGIN; UPDATE members SET seen = seen + 1 WHERE id = {id}"
        ))
        .unwrap();
        let sent = Instant::now();
        sql.batch_execute("COMMIT").unwrap();
        let returned = Instant::now();
        let mut worst = 0.0;
        for replica in replicas {
            let at = replica.when(&format!("user:{id}"));
            from_commit.push(seconds(sent, at));
            from_return.push(seconds(returned, at));
            worst = f64::max(worst, seconds(sent, at));
        }
        last.push(worst);
    }
    row(
        "from the sending of COMMIT to each of 2 replicas",
        spread(from_commit),
    );
    row("to the later of the two", spread(last));
    row("from the return of COMMIT to each", spread(from_return));
}

/// The time that the triggers add to a statement.
fn statements(sql: &mut Client) {
    const ROUNDS: usize = 300;
    for table in ["plain", "members"] {
        let of = |sql: &mut Client, one: &dyn Fn(usize) -> String, rounds: usize| {
            let time = |round: usize| {
                let text = one(round);
                let began = Instant::now();
                sql.batch_execute(&text).unwrap();
                seconds(began, Instant::now())
            };
            spread((0..rounds).map(time).collect())
        };
        let one = |round| format!("UPDATE {table} SET seen = {round} WHERE id = {}", round + 1);
        row(
            &format!("a commit of one row of `{table}`"),
            of(sql, &one, ROUNDS),
        );
        settle(sql);
        let all = |round| format!("UPDATE {table} SET seen = {round}");
        row(
            &format!("a commit of {ROWS} rows of `{table}` in one statement"),
            of(sql, &all, 15),
        );
        settle(sql);
    }
    let mut times = Vec::new();
    for round in 0..15 {
        let began = Instant::now();
        sql.batch_execute(&format!("UPDATE teams SET seen = {round}"))
            .unwrap();
        times.push(seconds(began, Instant::now()));
    }
    row(
        &format!("the same of `teams`, whose {ROWS} rows have one name"),
        spread(times),
    );
    settle(sql);
}

/// How soon all names of a large statement are in force at both.
fn bulk(sql: &mut Client, replicas: &[Replica]) {
    let mut times = Vec::new();
    for round in 0..10 {
        for replica in replicas {
            while replica.told.try_recv().is_ok() {}
        }
        sql.batch_execute(&format!("UPDATE members SET seen = {round}"))
            .unwrap();
        let returned = Instant::now();
        let mut last = returned;
        for replica in replicas {
            // The replica that delivers hears of each twice: by itself and over the bus.
            let mut names = HashSet::new();
            while names.len() < ROWS {
                let (at, name) = replica.told.recv_timeout(SOON).expect("it is told");
                if names.insert(name) {
                    last = last.max(at);
                }
            }
        }
        times.push(seconds(returned, last));
        settle(sql);
        // A replica's own names may arrive once more over the bus.
        thread::sleep(Duration::from_millis(300));
    }
    row(
        &format!(
            "from the return of a statement of {ROWS} rows until the last name is in force at both"
        ),
        spread(times),
    );
}

fn settle(sql: &mut Client) {
    until(SOON, "the outbox is empty", || {
        let row = sql.query_one("SELECT count(*) FROM larder_outbox", &[]);
        row.unwrap().get::<_, i64>(0) == 0
    });
}

fn seconds(from: Instant, to: Instant) -> f64 {
    match to.checked_duration_since(from) {
        Some(after) => after.as_secs_f64(),
        None => -(from - to).as_secs_f64(),
    }
}

fn spread(mut times: Vec<f64>) -> String {
    times.sort_by(f64::total_cmp);
    let quantile = |share: f64| times[((times.len() - 1) as f64 * share).round() as usize];
    format!(
        "p50 {:.2} ms, p99 {:.2} ms, worst of {} {:.2} ms",
        quantile(0.5) * 1e3,
        quantile(0.99) * 1e3,
        times.len(),
        quantile(1.0) * 1e3
    )
}

fn row(figure: &str, value: String) {
    println!("| {figure} | {value} |");
}
