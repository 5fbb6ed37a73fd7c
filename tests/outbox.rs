//! The outbox: commits to a watched table, by any writer and through any failure.
//!
//! The source has versions, as in `invalidation`: a table says which categories changed, and only
//! an invalidation removes an old version.

use std::io::Write;
use std::time::Duration;

use larder::database::{Database, DatabaseSettings};
use larder_cache::Secret;
use postgres::Client;

use testkit::larder::{Larder, LarderOptions};
use testkit::news::path;
use testkit::postgres::PostgresServer;
use testkit::proxy::FaultProxy;
use testkit::redis::RedisServer;
use testkit::versions::{Versions, VersionsConfig, version};
use testkit::{SOON, until, until_some};

const LEADS: &str = "this replica delivers the outbox";

/// Two replicas on one Redis and one Postgres, and a table that is watched.
struct Two {
    // Dropped in this order.
    replicas: Vec<Larder>,
    sql: Client,
    options: LarderOptions,
    redis: RedisServer,
    redis_proxy: FaultProxy,
    postgres: PostgresServer,
    url: String,
    versions: Versions,
}

impl Two {
    fn start() -> Two {
        let mut two = Two::prepare();
        let options = two.options.clone();
        two.replicas = Larder::start_many(2, &options);
        two.watch();
        two
    }

    /// Everything except the replicas. No table is watched.
    fn prepare() -> Two {
        let (redis, versions) = (RedisServer::start(), Versions::start());
        let redis_proxy = FaultProxy::start(redis.address());
        let postgres = PostgresServer::start();
        let url = postgres.new_database();
        // Without its bus a replica keeps serving its copies, so only the outbox makes them fresh.
        let config = VersionsConfig {
            disconnected_ttl: None,
            ..VersionsConfig::default()
        };
        let options = config.options(&versions, redis_proxy.address());
        Two {
            replicas: Vec::new(),
            sql: postgres.connect(&url),
            options: options.env("DATABASE_URL", &url),
            redis,
            redis_proxy,
            postgres,
            url,
            versions,
        }
    }

    fn watch(&mut self) {
        self.run(
            "CREATE TABLE marks (id SERIAL, category TEXT, seen INT DEFAULT 0);
             INSERT INTO marks (category) VALUES ('science'), ('health'), ('sports');
             SELECT larder_watch('marks', 'category:{category}')",
        );
    }

    fn run(&mut self, sql: &str) {
        if sql == COPY {
            let mut rows = self.sql.copy_in(sql).unwrap();
            rows.write_all(b"science\n").unwrap();
            rows.finish().unwrap();
        } else {
            self.sql.batch_execute(sql).unwrap();
        }
    }

    fn rows(&mut self) -> i64 {
        let row = self
            .sql
            .query_one("SELECT count(*) FROM larder_outbox", &[]);
        row.unwrap().get(0)
    }

    fn until_delivered(&mut self) {
        until(SOON, "the outbox is empty", || self.rows() == 0);
    }

    /// Loads it into the memory of every replica.
    fn warm(&self, category: &str) {
        for replica in &self.replicas {
            until(SOON, "an answer comes from memory", || {
                is_warm(replica, category)
            });
        }
    }

    /// Loads a category into the memory of every replica, then changes it at the source. Returns
    /// the new version.
    fn publish(&self, category: &str) -> u64 {
        self.warm(category);
        self.versions.publish(category)
    }

    fn until_fresh(&self, category: &str, new: u64) {
        for replica in &self.replicas {
            until(SOON, "the replica has the new version", || {
                version(replica, category) == new
            });
        }
    }

    /// Commits this statement, and checks that a category is fresh on every replica.
    #[track_caller]
    fn makes_fresh(&mut self, category: &str, sql: &str) {
        let new = self.publish(category);
        self.run(sql);
        self.until_fresh(category, new);
        self.until_delivered();
    }

    /// The replica that delivers. Each has logged that at most once.
    fn leader(&self) -> usize {
        until_some(SOON, "one replica leads", || {
            let mut replicas = self.replicas.iter();
            replicas.position(|replica| replica.log().contains(LEADS))
        })
    }

    /// Closes the connection on which each replica listens.
    fn terminate_listeners(&mut self) {
        let sql = "SELECT pid FROM pg_stat_activity WHERE application_name = 'larder outbox'";
        let listening = until_some(SOON, "both replicas listen", || {
            let found = self.sql.query(sql, &[]).unwrap();
            (found.len() == 2).then_some(found)
        });
        for row in listening {
            let pid: i32 = row.get(0);
            let end = "SELECT pg_terminate_backend($1, 5000)";
            self.sql.query(end, &[&pid]).unwrap();
        }
    }

    fn database(&self) -> Database {
        Database::open(&DatabaseSettings {
            url: Some(Secret::new(self.url.as_str())),
            pool: 1,
            archive: Duration::from_secs(60),
        })
        .unwrap()
    }
}

fn is_warm(larder: &Larder, category: &str) -> bool {
    let answer = larder.get(&path(category)).expect(200);
    answer.the("Cache-Status").starts_with("larder-memory; hit")
}

/// As `\copy` in psql works. `COPY … FROM PROGRAM` needs a superuser.
const COPY: &str = "COPY marks (category) FROM STDIN";
const TOUCH: &str = "UPDATE marks SET seen = seen + 1 WHERE category = 'science'";

#[test]
fn any_statement_invalidates_on_both_replicas() {
    let mut two = Two::start();
    for sql in [
        TOUCH,
        "INSERT INTO marks (category) VALUES ('science')",
        "UPDATE marks SET category = 'business' WHERE category = 'science' AND seen > 0",
        "UPDATE marks SET category = 'science' WHERE category = 'business'",
        "BEGIN; UPDATE marks SET seen = 5; DELETE FROM marks; INSERT INTO marks (category) VALUES ('science'); COMMIT",
        COPY,
        "DELETE FROM marks WHERE category = 'science'",
        "TRUNCATE marks",
    ] {
        two.makes_fresh("science", sql);
    }
    // Other entries stay.
    two.run("INSERT INTO marks (category) VALUES ('science')");
    two.until_delivered();
    two.warm("health");
    two.makes_fresh("science", TOUCH);
    assert!(
        two.replicas
            .iter()
            .all(|replica| is_warm(replica, "health"))
    );
}

#[test]
fn a_rolled_back_change_is_not_delivered() {
    let mut two = Two::start();
    two.publish("health");
    two.run("BEGIN; UPDATE marks SET seen = 1 WHERE category = 'health'; ROLLBACK");
    // Rows are delivered in order. So once this one is delivered, a row of the rolled-back change
    // would have been delivered, too.
    two.makes_fresh("science", TOUCH);
    for replica in &two.replicas {
        assert_eq!(version(replica, "health"), 1);
    }
}

#[test]
fn commits_out_of_their_order_are_all_delivered() {
    let mut two = Two::start();
    let mut slow = two.postgres.connect(&two.url);
    let new = two.publish("health");
    let mut open = slow.transaction().unwrap();
    open.batch_execute("UPDATE marks SET seen = 1 WHERE category = 'health'")
        .unwrap();
    two.makes_fresh("science", TOUCH);
    open.commit().unwrap();
    two.until_fresh("health", new);
    two.until_delivered();
}

#[test]
fn ten_thousand_rows_of_one_statement_are_delivered() {
    let mut two = Two::start();
    two.run("INSERT INTO marks (category) SELECT 'other' || i FROM generate_series(1, 9997) AS i");
    two.until_delivered();
    let told = |two: &Two| {
        let logs = two.replicas.iter().map(Larder::log).collect::<String>();
        let lines = logs.lines().filter(|line| line.contains("outbox rows"));
        lines
            .map(|line| line.rsplit("] ").next().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let large = |two: &Two| {
        let told = told(two);
        let lines = told
            .iter()
            .filter(|line| *line == "5000 names of 5 outbox rows");
        lines.count()
    };
    let before = large(&two);
    let new = two.publish("sports");
    two.makes_fresh("science", "UPDATE marks SET seen = 1");
    two.until_fresh("sports", new);
    assert_eq!(large(&two), before + 2, "{:#?}", told(&two));
    // Rows with the same name count as one.
    two.run("UPDATE marks SET category = 'science'");
    two.until_delivered();
    let before = told(&two).len();
    two.makes_fresh("science", "UPDATE marks SET seen = 2");
    let after = told(&two);
    assert_eq!(after.len(), before + 1, "{after:#?}");
    assert!(after.contains(&"1 names of 1 outbox rows".to_owned()));
}

#[test]
fn commits_are_delivered_when_the_listeners_backend_is_terminated() {
    let mut two = Two::start();
    two.makes_fresh("science", TOUCH);
    let new = two.publish("science");
    two.terminate_listeners();
    two.run(TOUCH);
    two.until_fresh("science", new);
    two.until_delivered();
    for replica in &two.replicas {
        until(SOON, "the log says both", || {
            let log = replica.log();
            log.contains("the outbox cannot be read here")
                && log.contains("the outbox can be read again")
        });
    }
}

#[test]
fn commits_are_delivered_over_a_restart_of_postgres() {
    let mut two = Two::start();
    two.publish("science");
    two.postgres.restart();
    two.sql = two.postgres.connect(&two.url);
    two.makes_fresh("science", TOUCH);
}

#[test]
fn a_commit_while_redis_is_down_is_delivered_later() {
    let mut two = Two::start();
    two.makes_fresh("science", TOUCH);
    let new = two.publish("science");
    let health = two.publish("health");
    two.redis_proxy.cut();
    two.run(TOUCH);
    // Each replica reads the row for itself, and none marks it delivered.
    two.until_fresh("science", new);
    two.run("UPDATE marks SET seen = seen + 1 WHERE category = 'health'");
    two.until_fresh("health", health);
    assert_eq!(two.rows(), 2);
    for replica in &two.replicas {
        let log = replica.log();
        let lines = log.lines().filter(|line| line.contains("WARN"));
        let said = lines.filter(|line| line.contains("invalidated here only"));
        assert_eq!(said.count(), 1, "one line for the outage");
    }
    two.redis_proxy.restore();
    two.until_delivered();
    // Redis still has the old value. A replica that finds it there now knows that it is invalid.
    two.replicas = Larder::start_many(1, &two.options);
    assert_eq!(version(&two.replicas[0], "science"), new);
    assert_eq!(version(&two.replicas[0], "health"), health);
    two.makes_fresh("science", TOUCH);
}

#[test]
fn commits_are_delivered_when_redis_comes_back_empty() {
    let mut two = Two::start();
    let new = two.publish("science");
    two.redis.kill();
    two.run(TOUCH);
    two.until_fresh("science", new);
    assert_eq!(two.rows(), 1);
    two.redis.restart();
    two.until_delivered();
    two.makes_fresh("science", TOUCH);
}

#[test]
fn a_replica_without_redis_leaves_delivery_to_the_others() {
    let mut two = Two::prepare();
    let direct = format!("redis://{}", two.redis.address());
    two.replicas = vec![Larder::start(&two.options)];
    assert_eq!(two.leader(), 0);
    two.replicas.push(Larder::start(
        &two.options.clone().env("REDIS_URL", &direct),
    ));
    two.watch();
    two.until_delivered();
    let new = two.publish("science");
    two.redis_proxy.cut();
    two.run(TOUCH);
    two.until_fresh("science", new);
    two.until_delivered();
    assert!(two.replicas[1].log().contains(LEADS));
}

#[test]
fn a_commit_while_no_larder_runs_is_delivered_later() {
    let mut two = Two::start();
    let new = two.publish("science");
    for replica in &mut two.replicas {
        assert!(replica.stop().success());
    }
    two.run(TOUCH);
    assert_eq!(two.rows(), 1);
    // Redis has the old value, which is fresh by its age.
    two.replicas = Larder::start_many(2, &two.options);
    two.until_fresh("science", new);
    two.until_delivered();
}

#[test]
fn the_replica_that_delivers_is_killed_and_the_other_takes_over() {
    let mut two = Two::start();
    two.makes_fresh("science", TOUCH);
    let new = two.publish("science");
    let leader = two.leader();
    two.replicas[leader].kill();
    two.replicas.remove(leader);
    two.run(TOUCH);
    two.until_fresh("science", new);
    two.until_delivered();
    assert_eq!(two.leader(), 0);
}

#[test]
fn a_listener_that_is_half_open_is_found_and_the_other_takes_over() {
    let mut two = Two::prepare();
    let proxy = FaultProxy::start(two.postgres.address());
    let host = two.postgres.address().to_string();
    let proxied = two.url.replace(&host, &proxy.address().to_string());
    let far = two.options.clone().env("DATABASE_URL", &proxied);
    two.replicas = vec![Larder::start(&far)];
    assert_eq!(two.leader(), 0);
    two.replicas.push(Larder::start(&two.options));
    two.watch();
    two.makes_fresh("science", TOUCH);
    let new = two.publish("science");
    // The database server does not notice, and keeps the lock for the lost session.
    proxy.stall();
    two.run(TOUCH);
    two.until_fresh("science", new);
    two.until_delivered();
    proxy.restore();
    // The deliverer may have noticed already, or it may wait in a statement, for which the client
    // has no time limit. Now it can go on.
    let newer = two.publish("science");
    two.run(TOUCH);
    two.until_fresh("science", newer);
    two.until_delivered();

    // One replica alone takes longer, but loses nothing.
    assert!(two.replicas.pop().unwrap().stop().success());
    let newest = two.publish("science");
    proxy.stall_to_client();
    two.run(TOUCH);
    proxy.restore();
    two.until_fresh("science", newest);
    two.until_delivered();
}

#[test]
fn a_writer_that_dies_between_commit_and_invalidation_has_left_it_to_the_others() {
    let mut two = Two::start();
    let database = two.database();
    let new = two.publish("science");
    let names = ["category:science".to_owned()];
    let row = database
        .transaction(|tx| tx.leave_in_outbox(&names))
        .unwrap();
    assert!(row.is_some());
    // The writer would invalidate here and mark the row as delivered. It dies before that.
    drop(database);
    two.until_fresh("science", new);
    two.until_delivered();
}

#[test]
fn a_row_that_its_writer_has_delivered_is_delivered_once() {
    let mut two = Two::start();
    let database = two.database();
    two.publish("health");
    let names = ["category:health".to_owned()];
    let row = database
        .transaction(|tx| tx.leave_in_outbox(&names))
        .unwrap();
    database.outbox().delivered(row.unwrap()).unwrap();
    two.makes_fresh("science", TOUCH);
    for replica in &two.replicas {
        assert_eq!(version(replica, "health"), 1);
    }
}
