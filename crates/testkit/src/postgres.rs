//! A Postgres server in a temporary folder, empty.
//!
//! Tests connect as a role that owns its databases and is no superuser, as on a managed server. The
//! superuser makes roles and databases and reads the server's own state. `initdb` without `fsync`
//! takes half a second, so every server has a folder of its own and none is copied.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use postgres::{Client, NoTls};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::postgres_program::{INSTALL, own, program};
use crate::process::Process;
use crate::{SOON, free_address, until};

/// The role that owns the databases, and nothing more.
const OWNER: &str = "larder";
/// The superuser that `initdb` makes.
const SUPERUSER: &str = "postgres";
/// A role that must give its password. The server trusts all other local connections.
const GUARDED: &str = "guarded";
/// The password in every URL. Only the guarded role needs it; the others carry it so that tests can
/// look for it in logs.
pub const PASSWORD: &str = "a-postgres-password-that-nobody-may-see";

pub struct PostgresServer {
    folder: TempDir,
    address: SocketAddr,
    databases: AtomicU32,
    /// Extra settings, as `name=value`.
    settings: Vec<String>,
    process: Option<Process>,
    /// The processes that are stopped by [`PostgresServer::freeze`].
    frozen: Vec<Pid>,
}

impl PostgresServer {
    pub fn start() -> PostgresServer {
        PostgresServer::start_with(&[])
    }

    /// The server that the tests of this process share. A static is never dropped, so a shell waits
    /// for this process to end, then stops the server and removes its folder.
    pub fn shared() -> &'static PostgresServer {
        const REAPER: &str = "read _; kill -QUIT $0; for _ in 1 2 3 4 5 6 7 8 9 10; do \
                              kill -0 $0 2>/dev/null && sleep 0.2; done; rm -rf \"$1\"";
        static SHARED: OnceLock<(PostgresServer, Child)> = OnceLock::new();
        let (server, _) = SHARED.get_or_init(|| {
            let server = PostgresServer::start();
            let process = server.process.as_ref().expect("a server that runs");
            let reaper = Command::new("sh")
                .args(["-c", REAPER, &process.pid().to_string()])
                .arg(server.folder.path())
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .process_group(0)
                .spawn()
                .unwrap();
            (server, reaper)
        });
        server
    }

    /// Starts one with these extra settings (`name=value`).
    pub fn start_with(settings: &[&str]) -> PostgresServer {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let data = folder.path().join("data");
        fs::create_dir(&data).unwrap();
        own(&data);
        let made = program("initdb")
            .current_dir(&data)
            .arg("--pgdata")
            .arg(&data)
            .args(["--no-sync", "--auth=trust", "--username", SUPERUSER])
            .args(["--no-locale", "--encoding=UTF8"])
            .output()
            .unwrap_or_else(|error| panic!("cannot run initdb ({error}): {INSTALL}"));
        assert!(
            made.status.success(),
            "initdb: {}",
            String::from_utf8_lossy(&made.stderr)
        );
        let rules = format!(
            "host all {GUARDED} 127.0.0.1/32 scram-sha-256\nhost all all 127.0.0.1/32 trust\n"
        );
        fs::write(data.join("pg_hba.conf"), rules).unwrap();
        let mut server = PostgresServer {
            folder,
            address: free_address(),
            databases: AtomicU32::new(0),
            settings: settings.iter().map(|&setting| setting.to_owned()).collect(),
            process: None,
            frozen: Vec::new(),
        };
        server.restart();
        server.administer(&format!(
            "CREATE ROLE {OWNER} LOGIN; CREATE ROLE {GUARDED} LOGIN PASSWORD '{PASSWORD}'"
        ));
        server.administer(&format!("CREATE DATABASE {OWNER} OWNER {OWNER}"));
        server
    }

    /// The default database, as its owner.
    pub fn url(&self) -> String {
        self.url_as(OWNER, OWNER)
    }

    /// The same database, as the role that needs its password.
    pub fn guarded_url(&self) -> String {
        self.url_as(GUARDED, OWNER)
    }

    /// The URL of a database for a role.
    pub fn url_as(&self, role: &str, database: &str) -> String {
        format!("postgres://{role}:{PASSWORD}@{}/{database}", self.address)
    }

    /// Runs SQL as the superuser.
    pub fn administer(&self, sql: &str) {
        self.administer_in("postgres", sql);
    }

    /// Runs SQL in a database as the superuser.
    pub fn administer_in(&self, database: &str, sql: &str) {
        self.administrator(database).batch_execute(sql).unwrap();
    }

    /// A connection as the superuser.
    pub fn administrator(&self, database: &str) -> Client {
        self.connect(&self.url_as(SUPERUSER, database))
    }

    /// Closes every connection of the owner, as a restart would.
    pub fn cut_connections(&self) {
        self.administer(&format!(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = '{OWNER}'"
        ));
    }

    /// Creates an empty database. Returns its URL for its owner.
    pub fn new_database(&self) -> String {
        self.new_database_of(OWNER)
    }

    /// The same, with these options of `CREATE DATABASE`.
    pub fn new_database_with(&self, options: &str) -> String {
        self.make_database(OWNER, options)
    }

    /// The same for another role, which must exist.
    pub fn new_database_of(&self, role: &str) -> String {
        self.make_database(role, "")
    }

    fn make_database(&self, role: &str, options: &str) -> String {
        let name = format!("test_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.administer(&format!("CREATE DATABASE {name} OWNER {role} {options}"));
        self.url_as(role, &name)
    }

    pub fn connect(&self, url: &str) -> Client {
        Client::connect(url, NoTls).unwrap()
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Runs SQL as an operator would, with the program `psql`.
    pub fn psql(&self, sql: &str) -> String {
        let args = ["--no-psqlrc", "--quiet", "--tuples-only", "--no-align"];
        let args = args
            .into_iter()
            .chain(["--set=ON_ERROR_STOP=1", "--command", sql]);
        run("psql", args, &self.url()).trim().to_owned()
    }

    /// Dumps the database of one URL and restores it into that of another, with `pg_dump` and
    /// `psql`, each as the role of its URL. Any error of the restore fails the test.
    pub fn copy(&self, from: &str, to: &str) {
        let dump = self.folder.path().join("dump.sql");
        fs::write(&dump, run("pg_dump", ["--no-owner"], from)).unwrap();
        own(&dump);
        let file = dump.to_str().unwrap();
        let args = [
            "--no-psqlrc",
            "--quiet",
            "--set=ON_ERROR_STOP=1",
            "--file",
            file,
        ];
        run("psql", args, to);
    }

    /// From now on the server logs every statement.
    pub fn log_statements(&self) {
        for statement in [
            "ALTER SYSTEM SET log_statement = 'all'",
            "SELECT pg_reload_conf()",
        ] {
            self.administer(statement);
        }
        let mut client = self.connect(&self.url());
        until(SOON, "statements are logged", || {
            let set = client.query_one("SHOW log_statement", &[]).unwrap();
            set.get::<_, String>(0) == "all"
        });
    }

    /// All that it has logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("postgres.log")).unwrap()
    }

    /// Stops it if it runs, and starts it again at the same port with the same data.
    pub fn restart(&mut self) {
        self.stop();
        let data = self.folder.path().join("data");
        let mut command = program("postgres");
        command
            .current_dir(&data)
            .arg("-D")
            .arg(&data)
            .arg("-p")
            .arg(self.address.port().to_string())
            .args(["-c", "listen_addresses=127.0.0.1"])
            .args(["-c", "unix_socket_directories="])
            .args(["-c", "fsync=off", "-c", "full_page_writes=off"])
            .args(self.settings.iter().flat_map(|setting| ["-c", setting]));
        let log = self.folder.path().join("postgres.log");
        // SIGQUIT ends its children with it; SIGKILL would leave them to find out by themselves.
        let mut process = Process::spawn(command, &log, INSTALL).ended_by(Signal::QUIT);
        until(SOON, "postgres answers", || {
            process.must_run();
            Client::connect(&self.url_as(SUPERUSER, "postgres"), NoTls).is_ok()
        });
        self.process = Some(process);
    }

    /// Kills it, with every connection to it.
    pub fn stop(&mut self) {
        self.thaw();
        self.process = None;
    }

    /// Stops all its processes: connections stay open and get no answer.
    pub fn freeze(&mut self) {
        let parent = self.process.as_ref().expect("a server that runs").pid();
        // The parent first, so that it starts no more children.
        let stop = |pid: u32| {
            let pid = Pid::from_raw(pid as i32).unwrap();
            // A child may have ended by itself.
            let _ = kill_process(pid, Signal::STOP);
            pid
        };
        self.frozen.push(stop(parent));
        let children = format!("/proc/{parent}/task/{parent}/children");
        let children = fs::read_to_string(children).unwrap();
        let children = children.split_whitespace().map(|pid| pid.parse().unwrap());
        self.frozen.extend(children.map(stop));
    }

    /// Ends the freeze.
    pub fn thaw(&mut self) {
        for pid in self.frozen.drain(..) {
            let _ = kill_process(pid, Signal::CONT);
        }
    }
}

/// Runs a client program on the database of `url`. Returns its output.
fn run<'a>(name: &str, args: impl IntoIterator<Item = &'a str>, url: &str) -> String {
    let ran = program(name)
        .args(args)
        .arg("--dbname")
        .arg(url)
        .output()
        .unwrap_or_else(|error| panic!("cannot run {name} ({error}): {INSTALL}"));
    assert!(
        ran.status.success(),
        "{name}: {}",
        String::from_utf8_lossy(&ran.stderr)
    );
    String::from_utf8(ran.stdout).unwrap()
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        // Stopped children would not receive the signal.
        self.stop();
    }
}
