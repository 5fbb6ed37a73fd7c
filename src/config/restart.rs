//! What a running server cannot take over from a new configuration.
//!
//! Every struct is taken apart whole, so a new setting does not compile until it is decided here whether it changes live.

use super::{AuthSettings, Config, ServerSettings};
use crate::database::DatabaseSettings;
use crate::source::UpstreamSettings;
use larder_cache::Secret;
use larder_cache::{CoherenceSettings, LoadSettings, MemorySettings, RedisSettings};

fn text(secret: &Option<Secret>) -> Option<&str> {
    secret.as_ref().map(Secret::reveal)
}

impl Config {
    /// The paths of the keys whose change from `self` to `new` takes a restart to have an effect; a section for an upstream's. The
    /// resources and `auth.rate` change live.
    pub fn changes_needing_restart(&self, new: &Config) -> Vec<&'static str> {
        let Config {
            server,
            memory,
            redis,
            coherence,
            loads,
            database,
            auth,
            upstreams,
            resources: _,
        } = self;
        let mut changed = Vec::new();
        let mut note = |path: &'static str, same: bool| {
            if !same {
                changed.push(path);
            }
        };

        let ServerSettings {
            bind,
            workers,
            drain_delay,
            shutdown_grace,
            max_connections,
            max_connections_per_address,
            head_timeout,
            body_timeout,
            progress_timeout,
            open_metrics,
        } = server;
        note("server.bind", *bind == new.server.bind);
        note("server.workers", *workers == new.server.workers);
        let LoadSettings {
            max_loads,
            max_queue,
        } = loads;
        note("server.max_loads", *max_loads == new.loads.max_loads);
        note("server.max_queue", *max_queue == new.loads.max_queue);
        note("server.drain_delay", *drain_delay == new.server.drain_delay);
        note(
            "server.shutdown_grace",
            *shutdown_grace == new.server.shutdown_grace,
        );
        note(
            "server.max_connections",
            *max_connections == new.server.max_connections,
        );
        note(
            "server.max_connections_per_address",
            *max_connections_per_address == new.server.max_connections_per_address,
        );
        note(
            "server.head_timeout",
            *head_timeout == new.server.head_timeout,
        );
        note(
            "server.body_timeout",
            *body_timeout == new.server.body_timeout,
        );
        note(
            "server.progress_timeout",
            *progress_timeout == new.server.progress_timeout,
        );
        note(
            "server.open_metrics",
            *open_metrics == new.server.open_metrics,
        );

        let MemorySettings {
            max_bytes,
            eviction,
        } = memory;
        note("memory.max_size", *max_bytes == new.memory.max_bytes);
        note("memory.eviction", *eviction == new.memory.eviction);

        let RedisSettings {
            url,
            required,
            pool,
            connect_timeout,
            timeout,
            prefix,
        } = redis;
        note("redis.url", text(url) == text(&new.redis.url));
        note("redis.required", *required == new.redis.required);
        note("redis.pool", *pool == new.redis.pool);
        note(
            "redis.connect_timeout",
            *connect_timeout == new.redis.connect_timeout,
        );
        note("redis.timeout", *timeout == new.redis.timeout);
        note("redis.prefix", *prefix == new.redis.prefix);

        let CoherenceSettings {
            max_staleness,
            log_length,
        } = coherence;
        note(
            "coherence.max_staleness",
            *max_staleness == new.coherence.max_staleness,
        );
        note(
            "coherence.log_length",
            *log_length == new.coherence.log_length,
        );

        let DatabaseSettings { url, pool, archive } = database;
        note("database.url", text(url) == text(&new.database.url));
        note("database.pool", *pool == new.database.pool);
        note("database.archive_days", *archive == new.database.archive);

        let AuthSettings {
            required,
            rate: _,
            admin_key,
        } = auth;
        note("auth.required", *required == new.auth.required);
        note(
            "LARDER_ADMIN_KEY",
            text(admin_key) == text(&new.auth.admin_key),
        );

        for upstream in upstreams {
            let path = match upstream.name.as_ref() {
                "newsapi" => "upstream.newsapi",
                "guardian" => "upstream.guardian",
                _ => "upstream",
            };
            let other = new.upstreams.iter().find(|u| u.name == upstream.name);
            note(
                path,
                other.is_some_and(|other| same_upstream(upstream, other)),
            );
        }
        changed
    }
}

fn same_upstream(old: &UpstreamSettings, new: &UpstreamSettings) -> bool {
    let UpstreamSettings {
        name,
        base_url,
        key_env,
        key,
        timeout,
        quota,
        max_pause,
    } = old;
    *name == new.name
        && *base_url == new.base_url
        && *key_env == new.key_env
        && text(key) == text(&new.key)
        && *timeout == new.timeout
        && *quota == new.quota
        && *max_pause == new.max_pause
}

#[cfg(test)]
mod tests {
    use crate::config::BUILT_IN;
    use crate::config::tests::{parse, parse_with};

    #[test]
    fn changes_that_need_a_restart() {
        let old = parse_with(BUILT_IN, &[("REDIS_URL", "redis://a")]).unwrap();
        let live = "[auth]\nrate = \"1/1s\"\n[redis]\nurl = \"redis://a\"\n";
        assert_eq!(old.changes_needing_restart(&old), [""; 0]);
        assert_eq!(old.changes_needing_restart(&parse(live).unwrap()), [""; 0]);
        let new = r#"
server = { bind = "a:1", workers = 1, max_loads = 1, max_queue = 1, drain_delay = "1s", shutdown_grace = "1s", max_connections = 1, max_connections_per_address = 1, head_timeout = "1s", body_timeout = "1s", progress_timeout = "1s", open_metrics = true }
memory = { max_size = "1MiB", eviction = "tiny_lfu" }
redis = { url = "redis://b", required = true, pool = 1, connect_timeout = "1s", timeout = "1s", prefix = "p" }
coherence = { max_staleness = "2s", log_length = 1 }
database = { url = "sqlite://a", pool = 1, archive_days = 1 }
auth = { required = false }
upstream = { newsapi = { timeout = "1s" }, guardian = { quota = [] } }
"#;
        let key = [("LARDER_ADMIN_KEY", "123456789012345678901234")];
        assert_eq!(
            old.changes_needing_restart(&parse_with(new, &key).unwrap()),
            [
                "server.bind",
                "server.workers",
                "server.max_loads",
                "server.max_queue",
                "server.drain_delay",
                "server.shutdown_grace",
                "server.max_connections",
                "server.max_connections_per_address",
                "server.head_timeout",
                "server.body_timeout",
                "server.progress_timeout",
                "server.open_metrics",
                "memory.max_size",
                "memory.eviction",
                "redis.url",
                "redis.required",
                "redis.pool",
                "redis.connect_timeout",
                "redis.timeout",
                "redis.prefix",
                "coherence.max_staleness",
                "coherence.log_length",
                "database.url",
                "database.pool",
                "database.archive_days",
                "auth.required",
                "LARDER_ADMIN_KEY",
                "upstream.newsapi",
                "upstream.guardian",
            ]
        );
    }
}
