//! The two news upstreams, scripted, and the configuration of a larder that asks them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use jiff::{Timestamp, ToSpan};
use serde_json::{Value, json};

use crate::larder::{Larder, LarderOptions};
use crate::redis::RedisServer;
use crate::upstream::{Behaviour, FakeUpstream, Request, Response};

/// The keys that larder sends to the upstreams. They must never be visible elsewhere.
pub const NEWSAPI_KEY: &str = "newsapi-key-5f2c9a71d0e84b36";
pub const GUARDIAN_KEY: &str = "guardian-key-8e417c02-63b5-4f9d";

/// All categories.
pub const CATEGORIES: [&str; 7] = [
    "business",
    "entertainment",
    "general",
    "health",
    "science",
    "sports",
    "technology",
];

/// The path of the articles of a category.
pub fn path(category: &str) -> String {
    format!("/articles?category={category}")
}

/// How many articles each upstream has for a category, unless a test says otherwise.
pub const ARTICLES: usize = 5;

/// Both upstreams. All their articles differ. Newest first, they alternate, beginning with NewsAPI.
pub struct News {
    pub newsapi: FakeUpstream,
    pub guardian: FakeUpstream,
    revision: Arc<AtomicU32>,
    base: Timestamp,
    articles: usize,
}

impl News {
    pub fn start() -> News {
        News::with(ARTICLES)
    }

    pub fn with(articles: usize) -> News {
        let news = News {
            newsapi: FakeUpstream::start(Behaviour::Close),
            guardian: FakeUpstream::start(Behaviour::Close),
            revision: Arc::new(AtomicU32::new(1)),
            // Articles are kept for some days only, so they must be new.
            base: Timestamp::from_second(Timestamp::now().as_second() / 60 * 60).unwrap(),
            articles,
        };
        news.mend();
        news
    }

    /// Both upstreams answer correctly again.
    pub fn mend(&self) {
        self.newsapi.behave(self.good_newsapi());
        self.guardian.behave(self.good_guardian());
    }

    pub fn good_newsapi(&self) -> Behaviour {
        let (revision, base, articles) = (Arc::clone(&self.revision), self.base, self.articles);
        Behaviour::answer(move |request| {
            newsapi_answer(request, articles, revision.load(Ordering::SeqCst), base)
        })
    }

    pub fn good_guardian(&self) -> Behaviour {
        let (revision, base, articles) = (Arc::clone(&self.revision), self.base, self.articles);
        Behaviour::answer(move |request| {
            guardian_answer(request, articles, revision.load(Ordering::SeqCst), base)
        })
    }

    /// The titles of later loads begin with `r2`, then `r3`.
    pub fn publish(&self) {
        self.revision.fetch_add(1, Ordering::SeqCst);
    }

    /// Makes both behave like this.
    pub fn behave(&self, behaviour: &Behaviour) {
        self.newsapi.behave(behaviour.clone());
        self.guardian.behave(behaviour.clone());
    }

    /// How often NewsAPI and The Guardian were called.
    pub fn calls(&self) -> (usize, usize) {
        (self.newsapi.calls(), self.guardian.calls())
    }
}

/// NewsAPI's answer to a request for the top headlines.
pub fn newsapi_answer(
    request: &Request,
    articles: usize,
    revision: u32,
    base: Timestamp,
) -> Response {
    let category = request
        .param("category")
        .unwrap_or_else(|| "none".to_owned());
    let articles: Vec<Value> = (0..articles)
        .map(|i| {
            json!({
                "source": {"id": "the-wire", "name": "The Wire"},
                "author": "A. Author",
                "title": format!("newsapi {category} {i} r{revision}"),
                "description": "What happened.",
                "url": format!("https://wire.example.com/{category}/{i}"),
                "urlToImage": format!("https://wire.example.com/{category}/{i}.jpg"),
                "publishedAt": minutes_before(base, 2 * i as i64),
                "content": null,
            })
        })
        .collect();
    Response::json(
        200,
        &json!({"status": "ok", "totalResults": articles.len(), "articles": articles}),
    )
}

/// The Guardian's answer to a search.
pub fn guardian_answer(
    request: &Request,
    articles: usize,
    revision: u32,
    base: Timestamp,
) -> Response {
    let section = request
        .param("section")
        .unwrap_or_else(|| "none".to_owned());
    let section = section.split('|').next().unwrap();
    let results: Vec<Value> = (0..articles)
        .map(|i| {
            json!({
                "id": format!("{section}/{i}"),
                "type": "article",
                "sectionId": section,
                "sectionName": section,
                "webPublicationDate": minutes_before(base, 2 * i as i64 + 1),
                "webTitle": format!("guardian {section} {i} r{revision}"),
                "webUrl": format!("https://www.theguardian.com/{section}/{i}"),
                "apiUrl": format!("https://content.guardianapis.com/{section}/{i}"),
                "fields": {
                    "trailText": "<p>What <strong>happened</strong> &amp; why</p>",
                    "byline": "B. Byline",
                    "thumbnail": format!("https://media.guim.co.uk/{section}/{i}.jpg"),
                },
            })
        })
        .collect();
    Response::json(
        200,
        &json!({"response": {
            "status": "ok", "userTier": "developer", "total": articles, "startIndex": 1,
            "pageSize": 50, "currentPage": 1, "pages": 1, "orderBy": "newest", "results": results,
        }}),
    )
}

fn minutes_before(base: Timestamp, minutes: i64) -> String {
    (base - minutes.minutes()).to_string()
}

/// An error in the shape that NewsAPI gives it.
pub fn newsapi_error(status: u16, code: &str, message: &str) -> Response {
    Response::json(
        status,
        &json!({"status": "error", "code": code, "message": message}),
    )
}

/// An error in the shape of The Guardian's gateway.
pub fn guardian_error(status: u16, message: &str) -> Response {
    Response::json(status, &json!({"message": message}))
}

/// The settings that tests change. The rest are an operator's, with short times.
#[derive(Clone)]
pub struct NewsConfig {
    pub memory: &'static str,
    pub redis: &'static str,
    pub while_revalidate: &'static str,
    pub if_error: &'static str,
    pub soft_timeout: &'static str,
    pub client_ttl: Option<&'static str>,
    pub upstream_timeout: &'static str,
    /// Empty: no quota. The default is not that of the upstream's free key.
    pub newsapi_quota: &'static [&'static str],
    pub guardian_quota: &'static [&'static str],
    pub redis_timeout: &'static str,
    pub redis_required: bool,
    pub max_staleness: &'static str,
    pub rate: &'static str,
    pub public: bool,
    /// Lines of the table `[server]`.
    pub server: &'static str,
}

impl Default for NewsConfig {
    fn default() -> Self {
        NewsConfig {
            memory: "30s",
            redis: "5m",
            while_revalidate: "0s",
            if_error: "1d",
            soft_timeout: "10s",
            client_ttl: None,
            upstream_timeout: "10s",
            newsapi_quota: &[],
            guardian_quota: &[],
            // Long, since the machine may be busy. A test of a slow Redis sets its own.
            redis_timeout: "2s",
            redis_required: false,
            max_staleness: "1s",
            rate: "600/1m",
            public: false,
            server: "",
        }
    }
}

impl NewsConfig {
    pub fn text(&self, news: &News) -> String {
        let NewsConfig {
            memory,
            redis,
            while_revalidate,
            if_error,
            soft_timeout,
            upstream_timeout,
            newsapi_quota,
            guardian_quota,
            redis_timeout,
            redis_required,
            max_staleness,
            rate,
            public,
            server,
            ..
        } = self;
        let newsapi = news.newsapi.address();
        let guardian = news.guardian.address();
        let client_ttl = self
            .client_ttl
            .map_or(String::new(), |ttl| format!("client_ttl = \"{ttl}\""));
        format!(
            r#"
[server]
workers = 2
{server}

[redis]
timeout = "{redis_timeout}"
connect_timeout = "{redis_timeout}"
required = {redis_required}

[coherence]
max_staleness = "{max_staleness}"

[auth]
rate = "{rate}"

[upstream.newsapi]
base_url = "http://{newsapi}/v2"
key_env = "NEWSAPI_KEY"
timeout = "{upstream_timeout}"
quota = {newsapi_quota:?}

[upstream.guardian]
base_url = "http://{guardian}"
key_env = "GUARDIAN_API_KEY"
timeout = "{upstream_timeout}"
quota = {guardian_quota:?}

[resource.articles]
path = "/articles"
source = {{ news = ["newsapi", "guardian"] }}
params.category = {{ type = "string", one_of = {CATEGORIES:?} }}
params.source = {{ type = "string", view = true }}
params.limit = {{ type = "integer", min = 1, max = 100, default = 20, view = true }}
ttl = {{ memory = "{memory}", redis = "{redis}" }}
stale = {{ while_revalidate = "{while_revalidate}", if_error = "{if_error}", on_reset = true }}
soft_timeout = "{soft_timeout}"
{client_ttl}
public = {public}
tags = ["articles", "category:{{category}}"]
"#
        )
    }

    /// How to start a larder with it, on this Redis.
    pub fn options(&self, news: &News, redis: &RedisServer) -> LarderOptions {
        self.options_at(news, &redis.url())
    }

    /// How to start a larder with it, on a Redis at this URL or on none that answers.
    pub fn options_at(&self, news: &News, redis_url: &str) -> LarderOptions {
        LarderOptions::new(&self.text(news))
            .env("REDIS_URL", redis_url)
            .env("NEWSAPI_KEY", NEWSAPI_KEY)
            .env("GUARDIAN_API_KEY", GUARDIAN_KEY)
            .env("RUST_LOG", "info,larder=debug")
    }

    /// One larder with it, ready.
    #[track_caller]
    pub fn start(&self, news: &News, redis: &RedisServer) -> Larder {
        Larder::start(&self.options(news, redis))
    }
}

/// The titles of an answer's articles.
#[track_caller]
pub fn titles(answer: &Value) -> Vec<String> {
    let articles = answer["articles"].as_array().expect("articles");
    let title = |article: &Value| article["title"].as_str().expect("a title").to_owned();
    articles.iter().map(title).collect()
}
