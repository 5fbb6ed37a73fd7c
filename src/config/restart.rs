//! What a running server cannot take over from a new configuration.
//!
//! Sections are compared whole, so no setting can be forgotten: one without a key here is reported
//! by its section.

use super::Config;

/// Adds the keys of a section whose fields differ between `$old` and `$new`.
macro_rules! compare {
    ($changed:ident, $section:literal, $old:expr, $new:expr, $($key:literal: $field:ident),+) => {
        if $old != $new {
            let before = $changed.len();
            $(if $old.$field != $new.$field {
                $changed.push(concat!($section, ".", $key).to_owned());
            })+
            if $changed.len() == before {
                $changed.push($section.to_owned());
            }
        }
    };
}

impl Config {
    /// What changed from `self` to `new` and requires a restart: keys, variables, and upstreams as
    /// a whole. The resources and `auth.rate` are taken over at once.
    #[rustfmt::skip]
    pub fn changes_needing_restart(&self, new: &Config) -> Vec<String> {
        let mut changed = Vec::new();
        compare!(changed, "server", self.server, new.server,
            "bind": bind, "workers": workers, "drain_delay": drain_delay,
            "shutdown_grace": shutdown_grace, "max_connections": max_connections,
            "max_connections_per_address": max_connections_per_address,
            "head_timeout": head_timeout, "body_timeout": body_timeout,
            "progress_timeout": progress_timeout, "open_metrics": open_metrics);
        compare!(changed, "server", self.loads, new.loads,
            "max_loads": max_loads, "max_queue": max_queue);
        compare!(changed, "memory", self.memory, new.memory,
            "max_size": max_bytes, "eviction": eviction);
        compare!(changed, "redis", self.redis, new.redis,
            "url": url, "required": required, "pool": pool, "connect_timeout": connect_timeout,
            "timeout": timeout, "prefix": prefix);
        compare!(changed, "coherence", self.coherence, new.coherence,
            "max_staleness": max_staleness, "log_length": log_length, "audit": audit);
        compare!(changed, "database", self.database, new.database,
            "url": url, "pool": pool, "archive_days": archive);
        if self.auth.required != new.auth.required {
            changed.push("auth.required".to_owned());
        }
        if self.auth.admin_key != new.auth.admin_key {
            changed.push("LARDER_ADMIN_KEY".to_owned());
        }
        let upstreams = self.upstreams.iter().filter(|old| !new.upstreams.contains(old));
        changed.extend(upstreams.map(|old| format!("upstream.{}", old.name)));
        changed
    }
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
coherence = { max_staleness = "2s", log_length = 1, audit = 1 }
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
                "server.drain_delay",
                "server.shutdown_grace",
                "server.max_connections",
                "server.max_connections_per_address",
                "server.head_timeout",
                "server.body_timeout",
                "server.progress_timeout",
                "server.open_metrics",
                "server.max_loads",
                "server.max_queue",
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
                "coherence.audit",
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
