//! Connections to Postgres: how they are opened, tested and closed.
//!
//! Promise: opening one takes at most `CONNECT`, also from a server that accepts and then says
//! nothing. A connection that lay idle is asked whether it still lives before it is handed out; one
//! that was used a moment ago is not, since that would cost every query a second round trip. Once
//! one is found lost every other one is asked before its next use. Refuses to be dropped on an
//! async worker: the client ends its connection with a blocking call, which panics there, so the
//! pool is handed to a thread of its own.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use postgres::error::{Severity, SqlState};
use postgres::{Client, Config, Statement};
use r2d2::ManageConnection;
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::worker::spawn_thread;

use super::error::DatabaseError;
use super::{pooler, postgres_url, tls};

/// How long opening a connection may take, handshake included.
const CONNECT: Duration = Duration::from_secs(5);
/// How long a connection may lie idle and still be handed out untested.
const TRUSTED_IDLE: Duration = Duration::from_secs(1);
/// How long an idle connection may take to say that it lives.
const PROOF_OF_LIFE: Duration = Duration::from_millis(250);
/// Attempts that may hang at one time in handshakes with a server that is silent.
const MOST_HANGING: usize = 4;

/// A connection and the statements that it has prepared.
pub(super) struct PostgresConnection {
    pub(super) client: Client,
    statements: HashMap<String, Statement>,
    pub(super) last_used: Instant,
    /// It must not be used again: it is lost, or a transaction on it could not be ended.
    pub(super) spoilt: bool,
    /// The [`Findings::schema`] when `statements` was last emptied.
    schema: u64,
    findings: Arc<Findings>,
}

/// What one connection of a pool found out and the others should know.
#[derive(Default)]
struct Findings {
    /// How many changes of the schema were noticed.
    schema: AtomicU64,
    /// When a connection was last found lost. Those that were used last before that may be lost
    /// too.
    lost: Mutex<Option<Instant>>,
}

impl PostgresConnection {
    /// The statement that `sql` was prepared as, if that was no longer ago than the last change of
    /// the schema that any connection of the pool noticed.
    pub(super) fn known(&mut self, sql: &str) -> Option<Statement> {
        let schema = self.findings.schema.load(Ordering::Relaxed);
        if self.schema != schema {
            self.statements.clear();
            self.schema = schema;
        }
        self.statements.get(sql).cloned()
    }

    /// Prepares `sql` and keeps the statement in place of an older one.
    pub(super) fn prepare_anew(&mut self, sql: &str) -> Result<Statement, postgres::Error> {
        let statement = self.client.prepare(sql)?;
        self.statements.insert(sql.to_owned(), statement.clone());
        Ok(statement)
    }

    /// Forgets the statement that `sql` was prepared as.
    pub(super) fn forget(&mut self, sql: &str) {
        self.statements.remove(sql);
    }

    /// Has every connection of the pool prepare its statements anew.
    pub(super) fn note_changed_schema(&self) {
        self.findings.schema.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes note of an error that ends this connection.
    pub(super) fn note_error(&mut self, error: &postgres::Error) {
        let ends = match error.as_db_error() {
            Some(refusal) => {
                // A statement that the client prepared and the server does not know: a pooler in
                // between reset the session, and the settings went with the statements.
                matches!(
                    refusal.parsed_severity(),
                    Some(Severity::Fatal | Severity::Panic)
                ) || *refusal.code() == SqlState::INVALID_SQL_STATEMENT_NAME
            }
            None => {
                let cause = std::error::Error::source(error);
                error.is_closed() || cause.is_some_and(|cause| cause.is::<std::io::Error>())
            }
        };
        if ends {
            self.end();
        }
    }

    /// What ended this connection may have ended the idle ones of the pool: each has to prove that
    /// it lives before its next use.
    fn end(&mut self) {
        self.spoilt = true;
        *self.findings.lost() = Some(Instant::now());
    }

    /// Whether it can serve nobody any more.
    pub(super) fn is_lost(&self) -> bool {
        self.spoilt || self.client.is_closed()
    }

    /// Whether it was used so lately that it may be handed out untested.
    fn is_trusted(&self) -> bool {
        let lost = *self.findings.lost();
        self.last_used.elapsed() < TRUSTED_IDLE && lost.is_none_or(|lost| self.last_used > lost)
    }

    /// Errors unless the server answers within `limit`.
    pub(super) fn prove(&mut self, limit: Duration) -> Result<(), postgres::Error> {
        let proven = self.client.is_valid(limit);
        if proven.is_err() {
            self.end();
        }
        proven?;
        self.last_used = Instant::now();
        Ok(())
    }
}

impl Findings {
    fn lost(&self) -> MutexGuard<'_, Option<Instant>> {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Opens connections for the pool.
pub(super) struct PostgresManager {
    config: Config,
    tls: MakeRustlsConnect,
    hanging: Arc<AtomicUsize>,
    session: String,
    findings: Arc<Findings>,
    /// A connection that is open already.
    first: Mutex<Option<PostgresConnection>>,
}

impl PostgresManager {
    /// Reads `postgres://` URLs. `statement_timeout` is the server's limit on one statement.
    pub(super) fn new(
        url: &str,
        statement_timeout: Duration,
    ) -> Result<PostgresManager, DatabaseError> {
        let (mut config, proof) = postgres_url::parse(url)
            .map_err(|what| DatabaseError::Misconfigured(format!("the database URL {what}")))?;
        config.connect_timeout(CONNECT);
        // A host that vanished: unacknowledged data, or silence on an idle connection, ends it within a quarter of a minute.
        config.tcp_user_timeout(Duration::from_secs(15));
        config.keepalives_idle(Duration::from_secs(10));
        config.keepalives_interval(Duration::from_secs(2));
        config.keepalives_retries(3);
        if config.get_application_name().is_none() {
            config.application_name("larder");
        }
        // Set once connected and not as startup options, which connection poolers refuse.
        let session = format!(
            "SET statement_timeout = {}; SET idle_in_transaction_session_timeout = 30000",
            statement_timeout.as_millis()
        );
        Ok(PostgresManager {
            config,
            tls: tls::connector(&proof)?,
            hanging: Arc::default(),
            session,
            findings: Arc::default(),
            first: Mutex::new(None),
        })
    }

    /// One more for the same server.
    pub(super) fn another(&self) -> PostgresManager {
        PostgresManager {
            config: self.config.clone(),
            tls: self.tls.clone(),
            hanging: Arc::default(),
            session: self.session.clone(),
            findings: Arc::default(),
            first: Mutex::new(None),
        }
    }

    /// Opens the first connection to this server, and makes sure that its session is its own.
    /// Errors with [`DatabaseError::Misconfigured`] behind a pooler that lends sessions.
    pub(super) fn connect_first(&self) -> Result<PostgresConnection, DatabaseError> {
        let mut first = self.connect()?;
        // A role that may have one connection only cannot be shown a second.
        let Ok(mut second) = self.connect() else {
            return Ok(first);
        };
        let (sender, receiver) = mpsc::sync_channel(1);
        let ask = move || {
            let asked = pooler::refuse_shared_sessions(&mut first.client, &mut second.client);
            let _ = sender.send(asked.map(|()| first));
        };
        spawn_thread("larder-postgres-connect", ask)
            .map_err(|error| DatabaseError::Unavailable(error.to_string()))?;
        receiver.recv_timeout(CONNECT).map_err(|_| silent())?
    }

    /// Keeps a connection for the first that asks for one.
    pub(super) fn keep(&self, connection: PostgresConnection) {
        *self.first.lock().unwrap_or_else(PoisonError::into_inner) = Some(connection);
    }
}

fn silent() -> DatabaseError {
    DatabaseError::Unavailable("the server accepts connections but does not answer".to_owned())
}

impl ManageConnection for PostgresManager {
    type Connection = PostgresConnection;
    type Error = DatabaseError;

    /// On a thread of its own, since the client's timeout covers the TCP connect alone and a server that accepts and then is
    /// silent would hold the pool's few threads for good.
    fn connect(&self) -> Result<PostgresConnection, DatabaseError> {
        let first = self
            .first
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(first) = first {
            return Ok(first);
        }
        let hanging = Hanging(self.hanging.clone());
        if hanging.0.fetch_add(1, Ordering::Relaxed) >= MOST_HANGING {
            return Err(silent());
        }
        let (config, tls, session) = (self.config.clone(), self.tls.clone(), self.session.clone());
        let (sender, receiver) = mpsc::sync_channel(1);
        let attempt = move || {
            let opened = config
                .connect(tls)
                .map_err(|error| DatabaseError::connecting(&error));
            let opened = opened.and_then(|mut client| {
                client.batch_execute(&session)?;
                Ok(client)
            });
            drop(hanging);
            // The receiver may have given up; the client is then dropped here, on a plain thread.
            let _ = sender.send(opened);
        };
        spawn_thread("larder-postgres-connect", attempt)
            .map_err(|error| DatabaseError::Unavailable(error.to_string()))?;
        let client = receiver.recv_timeout(CONNECT).map_err(|_| silent())??;
        Ok(PostgresConnection {
            client,
            statements: HashMap::new(),
            last_used: Instant::now(),
            spoilt: false,
            schema: self.findings.schema.load(Ordering::Relaxed),
            findings: self.findings.clone(),
        })
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

/// Counts an attempt until it ends, also by a panic.
struct Hanging(Arc<AtomicUsize>);

impl Drop for Hanging {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The pool, dropped on a plain thread wherever its last owner is.
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
        // Where no thread can be had the process is past caring about an orderly goodbye.
        let _ = spawn_thread("larder-postgres-close", move || drop(pool));
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::super::{Database, DatabaseSettings};
    use super::*;
    use larder_cache::Secret;
    use testkit::postgres::{PASSWORD, PostgresServer};

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
        for (url, wanted) in [
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
                error.contains(wanted) && !error.contains("hunter2") && !error.contains(PASSWORD),
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
            let attempts: Vec<_> = (0..MOST_HANGING + 4)
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
        // The attempts end with the server, and their places are free again.
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
