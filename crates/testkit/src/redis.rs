//! A Redis of one test: a real `redis-server` in a temporary folder, empty, without persistence.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use redis::{Connection, ConnectionLike, FromRedisValue};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::process::Process;
use crate::tls::Certificates;
use crate::{SOON, free_address, until};

/// The name and the password of the user that [`RedisServer::start_with_tls_and_user`] makes.
pub const USER: (&str, &str) = ("larder", "a-redis-password-that-nobody-may-see");

/// The password of the user `default` if there is a named user: for the test itself.
const TEST_PASSWORD: &str = "the-test-itself";

/// Its snapshot file. It exists only if a test took or restored a snapshot.
const DUMP: &str = "dump.rdb";

pub struct RedisServer {
    folder: TempDir,
    address: SocketAddr,
    tls: Option<(SocketAddr, Certificates)>,
    /// Arguments that make tests wait less.
    hurried: &'static [&'static str],
    process: Option<Process>,
}

const HURRIED: &[&str] = &[
    // A stream is trimmed by whole nodes. Small nodes let short streams be trimmed.
    "--stream-node-max-entries",
    "5",
    // Replicas synchronise at once.
    "--repl-diskless-sync-delay",
    "0",
];

/// The server under test. `LARDER_TEST_REDIS` names another version, or Valkey.
fn program() -> String {
    std::env::var("LARDER_TEST_REDIS").unwrap_or_else(|_| "redis-server".to_owned())
}

impl RedisServer {
    pub fn start() -> RedisServer {
        RedisServer::start_at(free_address())
    }

    /// Starts one at a given address, for the test of the default port.
    pub fn start_at(address: SocketAddr) -> RedisServer {
        RedisServer::launch(address, false, HURRIED)
    }

    /// Starts one with Redis's default settings, for benchmarks.
    pub fn start_as_shipped() -> RedisServer {
        RedisServer::launch(free_address(), false, &[])
    }

    /// Starts one that also listens with TLS, and admits only a user of its access list.
    pub fn start_with_tls_and_user() -> RedisServer {
        RedisServer::launch(free_address(), true, HURRIED)
    }

    fn launch(address: SocketAddr, secured: bool, hurried: &'static [&'static str]) -> RedisServer {
        let folder = tempfile::tempdir().unwrap();
        let tls = secured.then(|| (free_address(), Certificates::write(folder.path())));
        let mut server = RedisServer {
            folder,
            address,
            tls,
            hurried,
            process: None,
        };
        server.restart();
        server
    }

    /// The value of `REDIS_URL` for larder.
    pub fn url(&self) -> String {
        let (user, password) = USER;
        match &self.tls {
            None => format!("redis://{}", self.address),
            Some((address, _)) => {
                format!("rediss://{user}:{password}@localhost:{}", address.port())
            }
        }
    }

    /// The URL of its Unix socket, for tests that open more connections than there are ports.
    pub fn socket_url(&self) -> String {
        format!(
            "redis+unix://{}",
            self.folder.path().join("socket").display()
        )
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The certificate that a client must trust, if it listens with TLS.
    pub fn certificates(&self) -> &Certificates {
        &self.tls.as_ref().expect("started with TLS").1
    }

    /// Stops it if it runs, and starts it again at the same port, empty.
    pub fn restart(&mut self) {
        self.kill();
        let _ = fs::remove_file(self.folder.path().join(DUMP));
        self.launch_process();
    }

    /// A snapshot of all its data, in the format of its file.
    pub fn snapshot(&self) -> Vec<u8> {
        self.cli::<()>(&["SAVE"]);
        fs::read(self.folder.path().join(DUMP)).unwrap()
    }

    /// Stops it if it runs, and starts it again at the same port with the data of a snapshot.
    pub fn restore(&mut self, snapshot: &[u8]) {
        self.kill();
        fs::write(self.folder.path().join(DUMP), snapshot).unwrap();
        self.launch_process();
    }

    /// Prunes the record of names as a replica does: names invalidated more than `keep` ago, and
    /// the oldest if there are more than `most`. Returns how many it removed.
    pub fn forget_names(&self, keep: Duration, most: u64) -> u64 {
        let script = redis::Script::new(concat!(
            include_str!("../../larder-cache/src/coherence/call.lua"),
            include_str!("../../larder-cache/src/coherence/history.lua"),
            include_str!("../../larder-cache/src/coherence/prune.lua")
        ));
        let mut call = script.prepare_invoke();
        for key in ["state", "names", "log"] {
            call.key(format!("{{larder:bus}}:{key}"));
        }
        // The history id is used only to begin a new history.
        call.arg("00000000000f0e0d").arg("{larder:bus}");
        call.arg(keep.as_micros() as u64).arg(most);
        call.invoke(&mut self.connect()).unwrap()
    }

    /// Its time in microseconds.
    pub fn time(&self) -> u64 {
        let (seconds, micros): (u64, u64) = self.cli(&["TIME"]);
        seconds * 1_000_000 + micros
    }

    /// Writes a hard invalidation into the record's names and log. Publishes nothing, and leaves
    /// the clock of the state alone, so no replica hears of it.
    pub fn invalidate_silently(&self, name: &str, clock: u64) {
        let state = |field: &str| self.cli::<String>(&["HGET", "{larder:bus}:state", field]);
        let message = format!(
            r#"{{"e":"{}","c":"{clock}","b":"{}","k":"h","o":"","n":["{name}"]}}"#,
            state("epoch"),
            state("clock"),
        );
        let (member, entry) = (format!("h:{name}"), format!("{clock}-0"));
        self.cli::<()>(&["ZADD", "{larder:bus}:names", &clock.to_string(), &member]);
        self.cli::<String>(&["XADD", "{larder:bus}:log", &entry, "m", &message]);
    }

    /// Refuses writes from now on, as a replica that lost its primary. Reads and messages go on.
    pub fn make_read_only(&self) {
        self.cli::<()>(&["REPLICAOF", "127.0.0.1", "1"]);
    }

    pub fn make_writable(&self) {
        self.cli::<()>(&["REPLICAOF", "NO", "ONE"]);
    }

    /// Refuses every command that may need memory from now on.
    pub fn make_full(&self) {
        self.cli::<()>(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
        self.cli::<()>(&["CONFIG", "SET", "maxmemory", "1"]);
    }

    pub fn make_room(&self) {
        self.cli::<()>(&["CONFIG", "SET", "maxmemory", "0"]);
    }

    /// Refuses every write from now on: its last snapshot failed, as on a full disk.
    pub fn break_disk(&self) {
        fs::create_dir(self.folder.path().join(DUMP)).unwrap();
        self.cli::<()>(&["CONFIG", "SET", "save", "3600 1000000"]);
        self.cli::<()>(&["BGSAVE"]);
        until(SOON, "the snapshot fails", || {
            let info: String = self.cli(&["INFO", "persistence"]);
            info.contains("rdb_last_bgsave_status:err")
        });
    }

    pub fn mend_disk(&self) {
        fs::remove_dir(self.folder.path().join(DUMP)).unwrap();
        self.cli::<()>(&["CONFIG", "SET", "save", ""]);
        self.cli::<()>(&["SAVE"]);
    }

    /// Makes it a replica of `primary`, and waits until both have the same data.
    pub fn replicate(&self, primary: &RedisServer) {
        let port = primary.address.port().to_string();
        self.cli::<()>(&["REPLICAOF", "127.0.0.1", &port]);
        until(SOON, "the replica is in step", || {
            let info: String = self.cli(&["INFO", "replication"]);
            info.contains("master_link_status:up")
        });
    }

    /// Fails over to `replica`, and becomes the replica of that one. No acknowledged write is lost.
    /// Connections stay open.
    pub fn fail_over_to(&self, replica: &RedisServer) {
        let port = replica.address.port().to_string();
        self.cli::<()>(&["FAILOVER", "TO", "127.0.0.1", &port]);
        until(SOON, "the replica is the primary", || {
            let info: String = replica.cli(&["INFO", "replication"]);
            info.contains("role:master")
        });
        until(SOON, "the primary is the replica", || {
            let info: String = self.cli(&["INFO", "replication"]);
            info.contains("role:slave") && info.contains("master_link_status:up")
        });
    }

    /// Restarts it with a snapshot. It keeps loading until [`RedisServer::finish_loading`].
    pub fn restore_and_go_on_loading(&mut self, snapshot: &[u8]) {
        self.kill();
        fs::write(self.folder.path().join(DUMP), snapshot).unwrap();
        // Options meant for Redis's own tests: a pause for each key, and how often it answers
        // meanwhile.
        let slow = [
            "--key-load-delay",
            "5000",
            "--loading-process-events-interval-bytes",
            "1024",
        ];
        self.process = Some(self.spawn_process(&slow));
        until(SOON, "it says that it is loading", || {
            let client = redis::Client::open(format!("redis://{}", self.address)).unwrap();
            // Redis 6 refuses the set-up of a connection already.
            let asked = client
                .get_connection()
                .and_then(|mut connection| redis::cmd("PING").query::<String>(&mut connection));
            asked.is_err_and(|error| error.code() == Some("LOADING"))
        });
    }

    pub fn finish_loading(&self) {
        self.cli::<()>(&["CONFIG", "SET", "key-load-delay", "0"]);
    }

    /// How many clients are connected, besides the one that asks and replicas.
    pub fn clients(&self) -> usize {
        let list: String = self.cli(&["CLIENT", "LIST", "TYPE", "normal"]);
        let subscribers: String = self.cli(&["CLIENT", "LIST", "TYPE", "pubsub"]);
        list.lines().count() - 1 + subscribers.lines().count()
    }

    fn launch_process(&mut self) {
        let mut process = self.spawn_process(&[]);
        until(SOON, "redis-server answers", || {
            process.must_run();
            self.try_connect()
                .is_some_and(|mut connection| connection.check_connection())
        });
        self.process = Some(process);
    }

    fn spawn_process(&self, arguments: &[&str]) -> Process {
        let mut command = Command::new(program());
        command
            .current_dir(self.folder.path())
            .args(["--bind", "127.0.0.1", "--port"])
            .arg(self.address.port().to_string())
            .args(["--unixsocket", "socket"])
            .args(["--protected-mode", "no", "--save", "", "--appendonly", "no"])
            .args(["--dbfilename", DUMP])
            .args(self.hurried)
            .args(arguments);
        if let Some((address, certificates)) = &self.tls {
            let (user, password) = USER;
            let users = self.folder.path().join("users.acl");
            let rules = format!(
                "user default on >{TEST_PASSWORD} ~* &* +@all\nuser {user} on >{password} ~larder* ~{{larder* &* +@all -@admin\n"
            );
            fs::write(&users, rules).unwrap();
            command
                .arg("--aclfile")
                .arg(&users)
                .arg("--tls-port")
                .arg(address.port().to_string())
                .arg("--tls-cert-file")
                .arg(&certificates.certificate)
                .arg("--tls-key-file")
                .arg(&certificates.key)
                .arg("--tls-ca-cert-file")
                .arg(&certificates.authority)
                .args(["--tls-auth-clients", "no"]);
        }
        let log = self.folder.path().join("redis.log");
        Process::spawn(command, &log, "apt-get install redis-server")
    }

    /// Kills it, as `kill -9` does. It loses all data.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Asks it to end, and waits until it has.
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.signal(Signal::TERM);
            process.wait(SOON);
        }
    }

    /// Freezes it: connections stay open, and nothing is answered.
    pub fn pause(&self) {
        self.running().signal(Signal::STOP);
    }

    pub fn resume(&self) {
        self.running().signal(Signal::CONT);
    }

    fn running(&self) -> &Process {
        self.process.as_ref().expect("redis-server runs")
    }

    fn try_connect(&self) -> Option<Connection> {
        let client = match &self.tls {
            None => redis::Client::open(format!("redis://{}", self.address)),
            Some(_) => redis::Client::open(format!("redis://:{TEST_PASSWORD}@{}", self.address)),
        };
        let connection = client
            .unwrap()
            .get_connection_with_timeout(Duration::from_secs(2));
        connection.ok()
    }

    pub fn connect(&self) -> Connection {
        self.try_connect().expect("redis-server takes a connection")
    }

    /// Runs one command, as `redis-cli` would: `cli(&["SET", "a", "1"])`.
    #[track_caller]
    pub fn cli<T: FromRedisValue>(&self, words: &[&str]) -> T {
        let mut command = redis::Cmd::new();
        for word in words {
            command.arg(*word);
        }
        command
            .query(&mut self.connect())
            .unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    pub fn version(&self) -> String {
        let about: String = self.cli(&["INFO", "server"]);
        let line = about
            .lines()
            .find_map(|line| line.strip_prefix("redis_version:"));
        line.unwrap_or("unknown").to_owned()
    }

    /// How often a command was called so far.
    pub fn calls(&self, command: &str) -> u64 {
        let stats: String = self.cli(&["INFO", "commandstats"]);
        let line = format!("cmdstat_{command}:calls=");
        let calls = stats.lines().find_map(|each| each.strip_prefix(&line));
        calls.map_or(0, |rest| rest.split(',').next().unwrap().parse().unwrap())
    }

    /// Every key that matches `pattern`, sorted.
    pub fn keys(&self, pattern: &str) -> Vec<String> {
        let mut keys: Vec<String> = self.cli(&["KEYS", pattern]);
        keys.sort();
        keys
    }

    /// Every key and value as raw bytes, whatever the type. For tests that search all of Redis.
    pub fn everything(&self) -> Vec<u8> {
        let mut connection = self.connect();
        let mut all = Vec::new();
        for key in self.keys("*") {
            all.extend_from_slice(key.as_bytes());
            all.push(b'\n');
            let kind: String = redis::cmd("TYPE").arg(&key).query(&mut connection).unwrap();
            let mut read = match kind.as_str() {
                "string" => redis::cmd("GET"),
                "hash" => redis::cmd("HGETALL"),
                "list" => redis::cmd("LRANGE"),
                "set" => redis::cmd("SMEMBERS"),
                "zset" => redis::cmd("ZRANGE"),
                "stream" => redis::cmd("XRANGE"),
                // It expired between the two commands.
                "none" => continue,
                other => panic!("a key of the type {other}: {key}"),
            };
            read.arg(&key);
            match kind.as_str() {
                "list" | "zset" => {
                    read.arg(0).arg(-1);
                }
                "stream" => {
                    read.arg("-").arg("+");
                }
                _ => {}
            }
            let value: redis::Value = read.query(&mut connection).unwrap();
            flatten(&value, &mut all);
        }
        all
    }
}

fn flatten(value: &redis::Value, into: &mut Vec<u8>) {
    match value {
        redis::Value::BulkString(bytes) => into.extend_from_slice(bytes),
        redis::Value::Array(items) | redis::Value::Set(items) => {
            for item in items {
                flatten(item, into);
            }
        }
        redis::Value::Map(pairs) => {
            for (key, value) in pairs {
                flatten(key, into);
                flatten(value, into);
            }
        }
        other => into.extend_from_slice(format!("{other:?}").as_bytes()),
    }
    into.push(b'\n');
}
