//! The pool of connections to Postgres: how connections are opened, tested and closed.
//!
//! Promise: opening a connection takes at most `CONNECT`, even from a server that accepts and then
//! stays silent. An idle connection is tested before it is handed out; one that was used a moment
//! ago is not, because the test would cost every query a second round trip. After one connection is
//! found lost, every other one is tested before its next use. The client closes its connection with
//! a blocking call, which panics on an async worker, so the pool is dropped on a thread of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use postgres::Config;
use r2d2::ManageConnection;
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::worker::spawn_thread;

use super::error::DatabaseError;
use super::postgres_connection::{Findings, PostgresConnection};
use super::{pooler, postgres_error, postgres_url, tls};

/// How long opening a connection may take, handshake included.
const CONNECT: Duration = Duration::from_secs(5);
/// How long an idle connection may take to answer its test.
const PROOF_OF_LIFE: Duration = Duration::from_millis(250);
/// Attempts that may hang at one time in handshakes with a silent server.
const MAX_HANGING: usize = 4;

/// Opens connections for one pool.
pub(super) struct PostgresManager {
    config: Config,
    tls: MakeRustlsConnect,
    hanging: Arc<AtomicUsize>,
    /// The SQL that sets up a new session.
    setup: String,
    findings: Arc<Findings>,
    /// A connection that is open already. Protects only this slot.
    first: Mutex<Option<PostgresConnection>>,
}

impl PostgresManager {
    /// Reads a `postgres://` URL. `statement_timeout` is the server's limit on one statement.
    pub(super) fn new(
        url: &str,
        statement_timeout: Duration,
    ) -> Result<PostgresManager, DatabaseError> {
        let (mut config, verification) = postgres_url::parse(url)
            .map_err(|what| DatabaseError::Misconfigured(format!("the database URL {what}")))?;
        config.connect_timeout(CONNECT);
        // A host that vanished ends the connection within 15 seconds: by data that is not
        // acknowledged, or by keepalives on an idle connection.
        config.tcp_user_timeout(Duration::from_secs(15));
        config.keepalives_idle(Duration::from_secs(10));
        config.keepalives_interval(Duration::from_secs(2));
        config.keepalives_retries(3);
        if config.get_application_name().is_none() {
            config.application_name("larder");
        }
        // Not as startup options, which connection poolers refuse.
        let setup = format!(
            "SET statement_timeout = {}; SET idle_in_transaction_session_timeout = 30000",
            statement_timeout.as_millis()
        );
        let tls = tls::connector(&verification)?;
        Ok(PostgresManager::with(config, tls, setup))
    }

    /// A manager for another pool on the same server.
    pub(super) fn another(&self) -> PostgresManager {
        PostgresManager::with(self.config.clone(), self.tls.clone(), self.setup.clone())
    }

    fn with(config: Config, tls: MakeRustlsConnect, setup: String) -> PostgresManager {
        PostgresManager {
            config,
            tls,
            hanging: Arc::default(),
            setup,
            findings: Arc::default(),
            first: Mutex::new(None),
        }
    }

    /// Opens the first connection to this server, and makes sure that connections do not share
    /// sessions. Errors with [`DatabaseError::Misconfigured`] behind a pooler that lends sessions.
    pub(super) fn connect_first(&self) -> Result<PostgresConnection, DatabaseError> {
        let mut first = self.connect()?;
        // A role with a connection limit of one cannot open a second to compare with.
        let Ok(mut second) = self.connect() else {
            return Ok(first);
        };
        within_connect(move || {
            pooler::refuse_shared_sessions(&mut first.client, &mut second.client)?;
            Ok(first)
        })
    }

    /// Keeps an open connection for whoever asks for one first.
    pub(super) fn keep(&self, connection: PostgresConnection) {
        *self.first.lock() = Some(connection);
    }
}

/// Runs `work` on a thread of its own and waits at most [`CONNECT`] for its result. If the time is
/// up, the result is dropped on that thread.
fn within_connect<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, DatabaseError> + Send + 'static,
) -> Result<T, DatabaseError> {
    let (sender, receiver) = mpsc::sync_channel(1);
    let run = move || {
        let _ = sender.send(work());
    };
    spawn_thread("larder-postgres-connect", run)
        .map_err(|error| DatabaseError::Unavailable(error.to_string()))?;
    receiver.recv_timeout(CONNECT).map_err(|_| silent())?
}

fn silent() -> DatabaseError {
    DatabaseError::Unavailable(
        "timed out: the server accepts connections but does not answer".to_owned(),
    )
}

impl ManageConnection for PostgresManager {
    type Connection = PostgresConnection;
    type Error = DatabaseError;

    /// On a thread of its own: the client's timeout covers only the TCP connect, so a server that
    /// accepts and then stays silent would block the pool's few threads for good.
    fn connect(&self) -> Result<PostgresConnection, DatabaseError> {
        if let Some(first) = self.first.lock().take() {
            return Ok(first);
        }
        let hanging = Hanging(self.hanging.clone());
        if hanging.0.fetch_add(1, Ordering::Relaxed) >= MAX_HANGING {
            return Err(silent());
        }
        let (config, tls, setup) = (self.config.clone(), self.tls.clone(), self.setup.clone());
        let asked = Instant::now();
        let client = within_connect(move || {
            let _hanging = hanging;
            let mut client = config
                .connect(tls)
                .map_err(|error| postgres_error::of_connecting(&error))?;
            client.batch_execute(&setup)?;
            Ok(client)
        })?;
        Ok(PostgresConnection::new(
            client,
            asked,
            self.findings.clone(),
        ))
    }

    fn is_valid(&self, connection: &mut PostgresConnection) -> Result<(), DatabaseError> {
        if connection.is_trusted() {
            return Ok(());
        }
        Ok(connection.prove(PROOF_OF_LIFE)?)
    }

    fn has_broken(&self, connection: &mut PostgresConnection) -> bool {
        connection.is_lost()
    }
}

/// Counts an attempt until it ends, even by a panic.
struct Hanging(Arc<AtomicUsize>);

impl Drop for Hanging {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The pool, which is dropped on a plain thread wherever its last owner is.
pub(super) struct PostgresPool(Option<r2d2::Pool<PostgresManager>>);

impl PostgresPool {
    pub(super) fn new(pool: r2d2::Pool<PostgresManager>) -> PostgresPool {
        PostgresPool(Some(pool))
    }

    pub(super) fn pool(&self) -> Result<&r2d2::Pool<PostgresManager>, DatabaseError> {
        self.0
            .as_ref()
            .ok_or_else(|| DatabaseError::Unavailable("the pool is closed".to_owned()))
    }
}

impl Drop for PostgresPool {
    fn drop(&mut self) {
        let pool = self.0.take();
        // If no thread can be started, the closure is dropped here, and the pool with it.
        let _ = spawn_thread("larder-postgres-close", move || drop(pool));
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::super::json_rows::Shape;
    use super::super::postgres_connection::TRUSTED_IDLE;
    use super::super::query::Query;
    use super::super::session::Session;
    use super::super::{Database, DatabaseSettings};
    use super::*;
    use larder_cache::Secret;
    use testkit::postgres::{PASSWORD, PostgresServer};
    use testkit::{SOON, until};

    fn settings(url: impl Into<String>) -> DatabaseSettings {
        DatabaseSettings {
            url: Some(Secret::new(url)),
            pool: 2,
            ..DatabaseSettings::default()
        }
    }

    #[test]
    fn a_connection_that_lay_idle_is_asked_whether_it_lives() {
        let server = PostgresServer::start();
        let manager = PostgresManager::new(&server.url(), Duration::from_secs(5)).unwrap();
        let mut connection = manager.connect().unwrap();
        let long_ago = Instant::now() - TRUSTED_IDLE;
        connection.last_used = long_ago;
        manager.is_valid(&mut connection).unwrap();
        assert!(
            connection.last_used > long_ago,
            "its answer counts as a use"
        );
        server.cut_connections();
        manager.is_valid(&mut connection).unwrap();
        connection.last_used = long_ago;
        assert!(manager.is_valid(&mut connection).is_err());
        assert!(manager.has_broken(&mut connection));
    }

    /// 1. One connection waits for the answer to a statement.
    /// 2. Another is found lost, and what ended it may have ended the first after its answer.
    /// 3. The first reads its answer.
    #[test]
    fn an_answer_to_a_question_from_before_a_loss_is_no_proof_of_life() {
        let server = PostgresServer::start();
        let manager = PostgresManager::new(&server.url(), Duration::from_secs(5)).unwrap();
        let (mut first, mut second) = (manager.connect().unwrap(), manager.connect().unwrap());
        let mut holder = server.connect(&server.url());
        holder.batch_execute("SELECT pg_advisory_lock(7)").unwrap();
        let wait = Query::parse("wait", "SELECT pg_advisory_lock(7)::text AS locked").unwrap();
        std::thread::scope(|scope| {
            let waiting =
                scope.spawn(|| Session::Postgres(&mut first).read(&wait, &[], Shape::One));
            let asked = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted";
            until(SOON, "the statement waits", || {
                holder.query_one(asked, &[]).unwrap().get::<_, i64>(0) == 1
            });
            let end = "SELECT pg_terminate_backend(pg_backend_pid())";
            let lost = second.client.batch_execute(end).unwrap_err();
            second.check_lost(&lost);
            holder
                .batch_execute("SELECT pg_advisory_unlock(7)")
                .unwrap();
            waiting.join().unwrap().unwrap();
        });
        assert!(second.is_lost());
        assert!(!first.is_trusted());
        manager.is_valid(&mut first).unwrap();
        assert!(first.is_trusted(), "it was asked after the loss");
    }

    #[test]
    fn a_server_that_went_away_is_unavailable_within_a_bound() {
        let server = PostgresServer::start();
        let database = Database::open(&settings(server.new_database())).unwrap();
        database.migrate().unwrap();
        database.ping().unwrap();
        drop(server);
        let begun = Instant::now();
        assert!(matches!(
            database.ping(),
            Err(DatabaseError::Unavailable(_))
        ));
        assert!(matches!(
            database.keys().mark(),
            Err(DatabaseError::Unavailable(_))
        ));
        assert!(
            begun.elapsed() < Duration::from_secs(7),
            "{:?}",
            begun.elapsed()
        );
    }

    #[test]
    fn what_is_wrong_is_said_at_once_and_without_the_password() {
        let server = PostgresServer::shared();
        let url = format!("{}?sslmode=disable", server.guarded_url());
        Database::open(&settings(&url)).unwrap();
        for (url, expected) in [
            (
                url.replace(PASSWORD, "hunter2"),
                "password authentication failed",
            ),
            (url.replace("/larder?", "/nowhere?"), "does not exist"),
            (url.replace("sslmode=disable", "sslmode=require"), "TLS"),
        ] {
            let begun = Instant::now();
            let error = Database::open(&settings(url)).unwrap_err().to_string();
            assert!(
                error.contains(expected) && !error.contains("hunter2") && !error.contains(PASSWORD),
                "{error}"
            );
            assert!(begun.elapsed() < CONNECT, "{error}");
        }
        let free = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let error =
            Database::open(&settings(format!("postgres://u:hunter2@{free}/d"))).unwrap_err();
        assert!(
            error.to_string().contains("refused") && !error.to_string().contains("hunter2"),
            "{error}"
        );
    }

    #[test]
    fn a_silent_server_costs_five_seconds_and_few_threads() {
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("postgres://u:p@{}/d", silent.local_addr().unwrap());
        let manager = PostgresManager::new(&url, Duration::from_secs(1)).unwrap();
        let begun = Instant::now();
        std::thread::scope(|scope| {
            let attempts: Vec<_> = (0..MAX_HANGING + 4)
                .map(|_| scope.spawn(|| manager.connect()))
                .collect();
            for attempt in attempts {
                assert!(matches!(
                    attempt.join().unwrap(),
                    Err(DatabaseError::Unavailable(_))
                ));
            }
        });
        assert!(
            begun.elapsed() < CONNECT + Duration::from_secs(2),
            "{:?}",
            begun.elapsed()
        );
        assert!(
            matches!(manager.connect(), Err(DatabaseError::Unavailable(what)) if what.contains("not answer"))
        );
        assert!(
            begun.elapsed() < CONNECT + Duration::from_secs(2),
            "the last one did not wait"
        );
        // The attempts end with the server, and their slots are free again.
        drop(silent);
        let deadline = Instant::now() + Duration::from_secs(10);
        while manager.hanging.load(Ordering::Relaxed) > 0 {
            assert!(Instant::now() < deadline);
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    #[test]
    fn a_statement_that_takes_too_long_is_ended_by_the_server() {
        let server = PostgresServer::shared();
        let manager = PostgresManager::new(&server.url(), Duration::from_millis(50)).unwrap();
        let error = manager
            .connect()
            .unwrap()
            .client
            .batch_execute("SELECT pg_sleep(30)")
            .unwrap_err();
        assert!(matches!(
            DatabaseError::from(error),
            DatabaseError::TooSlow(_)
        ));
    }
}
