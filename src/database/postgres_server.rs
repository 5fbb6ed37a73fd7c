//! A Postgres server for the tests of this floor: in a temporary folder, on a free port, killed when it is dropped.

use std::fs;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::postgres_program::{INSTALL, own, program};

const PASSWORD: &str = "hunter2";
/// The role that larder connects as: it owns the databases and is no superuser.
const OWNER: &str = "larder";
/// The superuser that `initdb` makes. For roles, databases and what an administrator does.
const SUPERUSER: &str = "postgres";

/// A running server.
pub(super) struct PostgresServer {
    child: Child,
    port: u16,
    folder: TempDir,
    databases: AtomicUsize,
}

impl PostgresServer {
    /// The server that the tests of this process share. A static is never dropped, so a shell that waits for this process to end,
    /// however it ends, stops the server and removes its folder.
    pub(super) fn shared() -> &'static PostgresServer {
        const REAPER: &str = "read _; kill -QUIT $0; for _ in 1 2 3 4 5 6 7 8 9 10; do \
                              kill -0 $0 2>/dev/null && sleep 0.2; done; rm -rf \"$1\"";
        static SHARED: OnceLock<(PostgresServer, Child)> = OnceLock::new();
        let (server, _) = SHARED.get_or_init(|| {
            let server = PostgresServer::start(&[]);
            let reaper = Command::new("sh")
                .args(["-c", REAPER, &server.child.id().to_string()])
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

    /// Starts one with these settings (`name=value`) on top.
    pub(super) fn start(settings: &[&str]) -> PostgresServer {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let secret = folder.path().join("password");
        fs::write(&secret, PASSWORD).unwrap();
        own(folder.path());
        own(&secret);
        let made = program("initdb")
            .args([
                "--no-sync",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--no-locale",
                "--username",
                SUPERUSER,
            ])
            .arg("--pwfile")
            .args([&secret, &data])
            .output()
            .unwrap_or_else(|error| panic!("cannot run initdb ({error}): {INSTALL}"));
        assert!(
            made.status.success(),
            "initdb: {}",
            String::from_utf8_lossy(&made.stderr)
        );
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let log = fs::File::create(folder.path().join("log")).unwrap();
        let port_setting = format!("port={port}");
        let base = [
            "listen_addresses=127.0.0.1",
            "unix_socket_directories=",
            "fsync=off",
            &port_setting,
        ];
        let child = program("postgres")
            .arg("-D")
            .arg(&data)
            .args(
                base.iter()
                    .chain(settings)
                    .flat_map(|setting| ["-c", setting]),
            )
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut server = PostgresServer {
            child,
            port,
            folder,
            databases: AtomicUsize::new(0),
        };
        let deadline = Instant::now() + Duration::from_secs(30);
        while server.administer("postgres").is_err() {
            let log = || fs::read_to_string(server.folder.path().join("log")).unwrap_or_default();
            assert!(
                server.child.try_wait().unwrap().is_none(),
                "postgres ended: {}",
                log()
            );
            assert!(
                Instant::now() < deadline,
                "postgres did not start: {}",
                log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        server
            .administer("postgres")
            .unwrap()
            .batch_execute(&format!("CREATE ROLE {OWNER} LOGIN PASSWORD '{PASSWORD}'"))
            .unwrap();
        server
    }

    /// A connection of the superuser's.
    pub(super) fn administer(&self, database: &str) -> Result<postgres::Client, postgres::Error> {
        postgres::Client::connect(&self.url_as(SUPERUSER, database), postgres::NoTls)
    }

    /// The URL of the role that owns the databases of [`PostgresServer::new_database`].
    pub(super) fn url(&self, database: &str) -> String {
        self.url_as(OWNER, database)
    }

    /// The URL of a role whose password is that of all.
    pub(super) fn url_as(&self, role: &str, database: &str) -> String {
        format!(
            "postgres://{role}:{PASSWORD}@127.0.0.1:{}/{database}?sslmode=disable",
            self.port
        )
    }

    /// Makes an empty database and returns its URL.
    pub(super) fn new_database(&self) -> String {
        let name = format!("test_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.administer("postgres")
            .unwrap()
            .batch_execute(&format!("CREATE DATABASE {name} OWNER {OWNER}"))
            .unwrap();
        self.url(&name)
    }

    /// Closes every connection of the owner's, as a restart would.
    pub(super) fn cut_connections(&self) {
        let others = format!(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = '{OWNER}'"
        );
        self.administer("postgres")
            .unwrap()
            .batch_execute(&others)
            .unwrap();
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        // QUIT, not KILL: its children end with it.
        let quit = Command::new("kill")
            .args(["-QUIT", &self.child.id().to_string()])
            .status();
        if !quit.is_ok_and(|status| status.success()) {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}
