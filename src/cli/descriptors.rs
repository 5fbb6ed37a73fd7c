//! File descriptors: how many this process may have, and how many of them are for clients.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::api::edge::Places;
use crate::config::Config;

/// Connections at most, unless the configuration says more: what they may take of memory is to fit
/// a small machine.
const MOST: u64 = 4096;
/// Connections at least, however few descriptors there are.
const LEAST: u64 = 16;
/// Descriptors for what is always there: listeners, the runtime of each worker, files, the bus.
const BASE: u64 = 64;
/// Descriptors for connections beyond the bound, which take the place of others that end: a share
/// of the bound.
const SPARE: u64 = 16;

/// The places for clients: as many as the configuration says, or else as the descriptors allow.
/// Raises the process's own limit as far as it may: the low one that systems begin with is for
/// programs that call `select`, which this one does not.
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

/// What is kept from clients: for Redis, the database, whose SQLite has three files for each
/// connection, and a load's upstream with one connection that waits to be used again.
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
    fn what_is_no_clients_is_kept_from_them() {
        let config = Config::parse("", "config.toml", None, &|_| None).unwrap();
        let reserve = reserve(&config);
        assert_eq!(reserve, 64 + 8 + 24 + 128);
        assert_eq!(allowed(1024, reserve), 750);
        assert!(allowed(u64::MAX, reserve) > MOST);
        assert_eq!(allowed(100, reserve), LEAST);
    }
}
