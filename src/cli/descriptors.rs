//! File descriptors: how many this process may open, and how many of them are for clients.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::api::edge::Places;
use crate::config::Config;

/// Connections at most, unless the configuration allows more: their memory has to fit a small
/// machine.
const MOST: u64 = 4096;
/// Connections at least, however few descriptors there are.
const LEAST: u64 = 16;
/// Descriptors that are always in use: listeners, the runtime of each worker, files, the bus.
const BASE: u64 = 64;
/// One descriptor in so many is for connections beyond the bound, which displace others.
const SPARE: u64 = 16;

/// The places for clients: as many as the configuration says, or else as the descriptors allow.
/// Raises the process's own limit as far as possible: systems start with a low one for programs
/// that call `select`, which larder does not.
pub(super) fn places(config: &Config) -> Places {
    let allowed = allowed(raised(), reserve(config));
    let wanted = config.server.max_connections as u64;
    let most = if wanted == 0 {
        allowed.min(MOST)
    } else {
        wanted.min(allowed)
    };
    if wanted > most {
        log::warn!(
            "server.max_connections is {wanted}, but the limit of open files (ulimit -n) allows only {most}"
        );
    }
    log::info!("serving at most {most} client connections");
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    Places::new(most, config.server.max_connections_per_address)
}

/// Descriptors that are not for clients. A SQLite connection has three files. Each load has a
/// connection to its upstream and an idle one.
fn reserve(config: &Config) -> u64 {
    let (redis, database) = (config.redis.pool as u64, config.database.pool as u64);
    BASE + redis + 3 * database + 2 * config.loads.max_loads as u64
}

fn allowed(descriptors: u64, reserve: u64) -> u64 {
    let rest = descriptors.saturating_sub(reserve);
    (rest - rest / SPARE).max(LEAST)
}

fn raised() -> u64 {
    let before = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: before.maximum,
        ..before
    };
    if before.current != before.maximum
        && let Err(error) = setrlimit(Resource::Nofile, raised)
    {
        log::warn!("the limit of open files cannot be raised: {error}");
    }
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_for_redis_database_and_loads_are_kept_from_clients() {
        let config = Config::parse("", "config.toml", None, &|_| None).unwrap();
        let reserve = reserve(&config);
        assert_eq!(reserve, 64 + 8 + 24 + 128);
        assert_eq!(allowed(1024, reserve), 750);
        assert!(allowed(u64::MAX, reserve) > MOST);
        assert_eq!(allowed(100, reserve), LEAST);
    }
}
