//! The sections about larder itself: server, memory, Redis, coherence, database, API keys.
//!
//! If the environment overrides a key, its value in the file is not checked.

use std::time::Duration;

use super::address::{self, BIND_FORM};
use super::environment::Environment;
use super::reader::Table;
use crate::database::DatabaseSettings;
use crate::quantity::{Rate, SIZE_FORM, format_size, parse_size};
use larder_cache::Secret;
use larder_cache::{CoherenceSettings, Eviction, LoadSettings, MemorySettings, RedisSettings};

/// How larder serves HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerSettings {
    /// Host and port to listen on.
    pub bind: String,
    /// Worker threads. Zero: one per core.
    pub workers: usize,
    /// How long connections are still accepted after the signal to stop.
    pub drain_delay: Duration,
    /// How long requests may take after that.
    pub shutdown_grace: Duration,
    /// Connections at one time, at most. Zero: as many as file descriptors allow.
    pub max_connections: usize,
    /// Connections from one address at one time, at most. Zero: no limit.
    pub max_connections_per_address: usize,
    /// How long the head of a request may take.
    pub head_timeout: Duration,
    /// How long the body of a request may take.
    pub body_timeout: Duration,
    /// How long a client may read nothing of its answer.
    pub progress_timeout: Duration,
    /// Whether anyone may read the metrics, without an admin key.
    pub open_metrics: bool,
}

impl Default for ServerSettings {
    fn default() -> Self {
        ServerSettings {
            bind: "127.0.0.1:8000".to_owned(),
            workers: 0,
            drain_delay: Duration::ZERO,
            shutdown_grace: Duration::from_secs(10),
            max_connections: 0,
            max_connections_per_address: 0,
            head_timeout: Duration::from_secs(5),
            body_timeout: Duration::from_secs(10),
            progress_timeout: Duration::from_secs(30),
            open_metrics: false,
        }
    }
}

/// Who may send requests, and how many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthSettings {
    /// Whether resources that are not public require a key.
    pub required: bool,
    /// The rate of keys without one of their own.
    pub rate: Rate,
    /// An admin key beside those of the database. It has no rate limit.
    pub admin_key: Option<Secret>,
}

impl Default for AuthSettings {
    fn default() -> Self {
        AuthSettings {
            required: true,
            rate: Rate {
                count: 600,
                per: Duration::from_secs(60),
            },
            admin_key: None,
        }
    }
}

/// The limits of timeouts for clients.
const SHORTEST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);
const SMALLEST_MEMORY: u64 = 1 << 20;
const LARGEST_MEMORY: u64 = 1 << 40;
const SHORTEST_ADMIN_KEY: usize = 24;
const EVICTION_FORM: &str = "\"lru\" or \"tiny_lfu\"";
const PREFIX_FORM: &str = "1 to 64 letters, digits, \"-\", \"_\", \".\" or \":\"";

pub(super) fn server(root: &Table<'_>, env: Environment<'_>) -> (ServerSettings, LoadSettings) {
    let table = root.table("server");
    let (default, loads) = (ServerSettings::default(), LoadSettings::default());
    let bind = table.get("bind");
    let bind = match env.get("LARDER_BIND") {
        Some(bind) => {
            if !address::is_bind(&bind) {
                table
                    .report
                    .environment("LARDER_BIND", format!("is {bind:?}"), BIND_FORM);
            }
            Some(bind)
        }
        None => bind.and_then(|value| {
            value.parse(BIND_FORM, |text| {
                address::is_bind(text).then(|| text.to_owned())
            })
        }),
    };
    let limit = |key| {
        let value = table.get(key)?;
        value.duration_within(SHORTEST_WAIT..=LONGEST_WAIT)
    };
    let server = ServerSettings {
        bind: bind.unwrap_or(default.bind),
        workers: table.integer("workers", 0..=1024, default.workers),
        drain_delay: table.duration("drain_delay", default.drain_delay),
        shutdown_grace: table.duration("shutdown_grace", default.shutdown_grace),
        max_connections: table.integer("max_connections", 0..=1_000_000, default.max_connections),
        max_connections_per_address: table.integer(
            "max_connections_per_address",
            0..=1_000_000,
            default.max_connections_per_address,
        ),
        head_timeout: limit("head_timeout").unwrap_or(default.head_timeout),
        body_timeout: limit("body_timeout").unwrap_or(default.body_timeout),
        progress_timeout: limit("progress_timeout").unwrap_or(default.progress_timeout),
        open_metrics: table.boolean("open_metrics", default.open_metrics),
    };
    let loads = LoadSettings {
        max_loads: table.integer("max_loads", 1..=10_000, loads.max_loads),
        max_queue: table.integer("max_queue", 0..=1_000_000, loads.max_queue),
    };
    table.close();
    (server, loads)
}

pub(super) fn memory(root: &Table<'_>) -> MemorySettings {
    let table = root.table("memory");
    let default = MemorySettings::default();
    let max_bytes = table.get("max_size").and_then(|value| {
        let bytes = value.parse(SIZE_FORM, parse_size)?;
        let range = SMALLEST_MEMORY..=LARGEST_MEMORY;
        if !range.contains(&bytes) {
            let [least, most] = [SMALLEST_MEMORY, LARGEST_MEMORY].map(format_size);
            value.wrong(format!("a size from {least} to {most}"));
        }
        Some(bytes)
    });
    let eviction = table.get("eviction").and_then(|value| {
        value.parse(EVICTION_FORM, |text| match text {
            "lru" => Some(Eviction::Lru),
            "tiny_lfu" => Some(Eviction::TinyLfu),
            _ => None,
        })
    });
    table.close();
    MemorySettings {
        max_bytes: max_bytes.unwrap_or(default.max_bytes),
        eviction: eviction.unwrap_or(default.eviction),
    }
}

/// Reads the URL in the variable, or else at `table.url`.
fn url(
    table: &Table<'_>,
    env: Environment<'_>,
    variable: &str,
    form: &str,
    check: fn(&str) -> Result<(), address::Wrong>,
) -> Option<Secret> {
    let value = table.get("url");
    if let Some(url) = env.get(variable) {
        if let Err((problem, valid)) = check(&url) {
            table.report.environment(variable, problem, valid);
        }
        return Some(Secret::new(url));
    }
    let value = value?;
    let url = env.fill_url(&value, form)?;
    if let Err((problem, valid)) = check(&url) {
        value.fault(problem, valid);
    }
    Some(Secret::new(url))
}

pub(super) fn redis(root: &Table<'_>, env: Environment<'_>) -> RedisSettings {
    let table = root.table("redis");
    let default = RedisSettings::default();
    let url = url(
        &table,
        env,
        "REDIS_URL",
        "\"redis://host:6379\"",
        address::check_redis,
    );
    let prefix = table.get("prefix").and_then(|value| {
        value.parse(PREFIX_FORM, |text| {
            let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b':');
            // Braces are not allowed: in a cluster they would choose the slot.
            ((1..=64).contains(&text.len()) && text.bytes().all(plain)).then(|| text.to_owned())
        })
    });
    let redis = RedisSettings {
        url,
        required: table.boolean("required", default.required),
        pool: table.integer("pool", 1..=1024, default.pool),
        connect_timeout: table
            .positive_duration("connect_timeout")
            .unwrap_or(default.connect_timeout),
        timeout: table
            .positive_duration("timeout")
            .unwrap_or(default.timeout),
        prefix: prefix.unwrap_or(default.prefix),
    };
    table.close();
    redis
}

pub(super) fn coherence(root: &Table<'_>) -> CoherenceSettings {
    let table = root.table("coherence");
    let default = CoherenceSettings::default();
    // There are four pings in one max_staleness. Below 20 ms they would be a load themselves.
    let max_staleness = table.get("max_staleness").and_then(|value| {
        value.duration_within(Duration::from_millis(20)..=Duration::from_secs(3600))
    });
    let audit = table.get("audit").and_then(|value| value.share());
    let coherence = CoherenceSettings {
        max_staleness: max_staleness.unwrap_or(default.max_staleness),
        log_length: table.integer("log_length", 1..=100_000_000, default.log_length),
        audit: audit.unwrap_or(default.audit),
    };
    table.close();
    coherence
}

pub(super) fn database(root: &Table<'_>, env: Environment<'_>) -> DatabaseSettings {
    let table = root.table("database");
    let default = DatabaseSettings::default();
    let url = url(
        &table,
        env,
        "DATABASE_URL",
        "\"sqlite://larder.db\" or \"postgres://user:password@host/name\"",
        address::check_database,
    );
    let days = table
        .get("archive_days")
        .and_then(|value| value.integer(1..=36_500))
        .and_then(|days| u32::try_from(days).ok());
    let database = DatabaseSettings {
        url,
        pool: table.integer("pool", 1..=1024, default.pool),
        archive: days.map_or(default.archive, |days| DAY * days),
    };
    table.close();
    database
}

pub(super) fn auth(root: &Table<'_>, env: Environment<'_>) -> AuthSettings {
    let table = root.table("auth");
    let report = table.report;
    let default = AuthSettings::default();
    let rate = table.get("rate").and_then(|value| address::rate(&value));
    let admin_key = match env.key("LARDER_ADMIN_KEY") {
        Ok(Some(key)) if key.reveal().len() < SHORTEST_ADMIN_KEY => {
            report.environment(
                "LARDER_ADMIN_KEY",
                format!("has {} characters", key.reveal().len()),
                format!("at least {SHORTEST_ADMIN_KEY} characters"),
            );
            None
        }
        Ok(key) => key,
        Err((problem, valid)) => {
            report.environment("LARDER_ADMIN_KEY", problem, valid);
            None
        }
    };
    let auth = AuthSettings {
        required: table.boolean("required", default.required),
        rate: rate.unwrap_or(default.rate),
        admin_key,
    };
    table.close();
    auth
}
