//! Versioned data: an upstream whose answer names the version of its category, and a configuration
//! that asks it.
//!
//! Only an invalidation makes these larders load again. TTLs are hours and nothing is served stale,
//! unless a test changes that.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jiff::{Timestamp, ToSpan};
use serde_json::{Value, json};

use crate::client::Answer;
use crate::larder::{Larder, LarderOptions};
use crate::news::{CATEGORIES, NEWSAPI_KEY, path};
use crate::upstream::{Behaviour, FakeUpstream, Request, Response};

/// The upstream and the versions that it answers with. Each category begins at version 1.
pub struct Versions {
    pub upstream: FakeUpstream,
    current: Arc<[AtomicU64; CATEGORIES.len()]>,
}

impl Versions {
    pub fn start() -> Versions {
        Versions::start_slow(|| Duration::ZERO)
    }

    /// Starts one that reads the version at once and then takes a time of its own to answer.
    pub fn start_slow(takes: impl Fn() -> Duration + Send + Sync + 'static) -> Versions {
        let current: Arc<[AtomicU64; CATEGORIES.len()]> =
            Arc::new([const { AtomicU64::new(1) }; CATEGORIES.len()]);
        // Articles are kept for some days only, so they must be new.
        let published = (Timestamp::now() - 1.hour()).to_string();
        let read = Arc::clone(&current);
        let upstream = FakeUpstream::start(Behaviour::answer(move |request| {
            let answer = answer(request, &read, &published);
            let time = takes();
            if !time.is_zero() {
                std::thread::sleep(time);
            }
            answer
        }));
        Versions { upstream, current }
    }

    /// Changes the data. Returns its new version.
    pub fn publish(&self, category: &str) -> u64 {
        self.current[index(category)].fetch_add(1, Ordering::SeqCst) + 1
    }

    /// How often the upstream was asked.
    pub fn calls(&self) -> usize {
        self.upstream.calls()
    }
}

fn index(category: &str) -> usize {
    let found = CATEGORIES.iter().position(|known| *known == category);
    found.unwrap_or_else(|| panic!("no category {category}"))
}

fn answer(request: &Request, current: &[AtomicU64; CATEGORIES.len()], published: &str) -> Response {
    let category = request.param("category").expect("a category");
    let version = current[index(&category)].load(Ordering::SeqCst);
    Response::json(
        200,
        &json!({"status": "ok", "totalResults": 1, "articles": [{
            "source": {"id": "the-wire", "name": "The Wire"},
            "author": "A. Author",
            "title": format!("{category} v{version}"),
            "description": "What happened.",
            "url": format!("https://wire.example.com/{category}"),
            "urlToImage": null,
            "publishedAt": published,
            "content": null,
        }]}),
    )
}

/// The version in an answer for `category`. `None` if it is not an answer for it.
pub fn try_version(answer: &Answer, category: &str) -> Option<u64> {
    let body: Value = serde_json::from_slice(&answer.body).ok()?;
    let title = body["articles"][0]["title"].as_str()?;
    let version = title.strip_prefix(category)?.strip_prefix(" v")?;
    version.parse().ok()
}

/// The version of a category that this larder serves.
#[track_caller]
pub fn version(larder: &Larder, category: &str) -> u64 {
    version_in(&larder.get(&path(category)), category)
}

#[track_caller]
pub fn version_in(answer: &Answer, category: &str) -> u64 {
    assert_eq!(answer.status, 200, "{answer}");
    try_version(answer, category).unwrap_or_else(|| panic!("no version of {category}: {answer}"))
}

/// The settings that a test changes. With the default ones only an invalidation causes a load.
#[derive(Clone)]
pub struct VersionsConfig {
    pub max_staleness: &'static str,
    pub log_length: u32,
    pub audit: f64,
    pub redis_timeout: &'static str,
    pub connect_timeout: &'static str,
    pub disconnected_ttl: Option<&'static str>,
    pub while_revalidate: &'static str,
    pub if_error: &'static str,
    pub on_reset: bool,
}

impl Default for VersionsConfig {
    fn default() -> Self {
        VersionsConfig {
            // Long enough for a busy machine, short enough to wait for.
            max_staleness: "1s",
            log_length: 10_000,
            audit: 0.001,
            redis_timeout: "1s",
            connect_timeout: "1s",
            disconnected_ttl: Some("0s"),
            while_revalidate: "0s",
            if_error: "0s",
            on_reset: false,
        }
    }
}

impl VersionsConfig {
    pub fn text(&self, versions: &Versions) -> String {
        let VersionsConfig {
            max_staleness,
            log_length,
            audit,
            redis_timeout,
            connect_timeout,
            disconnected_ttl,
            while_revalidate,
            if_error,
            on_reset,
        } = self;
        let upstream = versions.upstream.address();
        let disconnected_ttl = disconnected_ttl.map_or(String::new(), |time| {
            format!("disconnected_ttl = \"{time}\"\n")
        });
        format!(
            r#"
[server]
workers = 2

[redis]
timeout = "{redis_timeout}"
connect_timeout = "{connect_timeout}"

[coherence]
max_staleness = "{max_staleness}"
log_length = {log_length}
audit = {audit}

[upstream.newsapi]
base_url = "http://{upstream}/v2"
key_env = "NEWSAPI_KEY"
timeout = "30s"
quota = []

[resource.articles]
path = "/articles"
source = {{ news = ["newsapi"] }}
params.category = {{ type = "string", one_of = {CATEGORIES:?} }}
params.limit = {{ type = "integer", min = 1, max = 100, default = 20, view = true }}
ttl = {{ memory = "1h", redis = "2h" }}
stale = {{ while_revalidate = "{while_revalidate}", if_error = "{if_error}", on_reset = {on_reset} }}
{disconnected_ttl}tags = ["articles", "category:{{category}}"]
"#
        )
    }

    /// The options of a larder with these settings and its Redis at this address.
    pub fn options(&self, versions: &Versions, redis: std::net::SocketAddr) -> LarderOptions {
        self.options_alone(versions)
            .env("REDIS_URL", &format!("redis://{redis}"))
    }

    /// The options of a larder with these settings and no Redis in its configuration.
    pub fn options_alone(&self, versions: &Versions) -> LarderOptions {
        LarderOptions::new(&self.text(versions))
            .env("NEWSAPI_KEY", NEWSAPI_KEY)
            .env("RUST_LOG", "info,larder=debug")
    }
}
