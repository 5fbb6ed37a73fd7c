//! The news upstreams: two formats, one common form.
//!
//! Promise: a load makes one call to one upstream, booked on its quota. Its result is a [`Listing`]
//! or an error. A listing from the sandbox is marked as such.

mod answer;
mod article;
mod guardian;
mod html;
mod listing;
mod newsapi;
mod refusal;
mod same_story;
pub mod sandbox;

use std::sync::Arc;
use std::time::Instant;

pub use article::{Article, source_name};
pub use listing::{Flags, Item, Listing};

use super::error::sanitized;
use super::http::{HttpAnswer, HttpClient, HttpRequest};
use super::quota::Quota;
use super::trace::TraceContext;
use larder_cache::{LoadError, Secret};
use refusal::Refusal;

/// The header that marks an answer of the sandbox.
pub const SANDBOX_HEADER: &str = "Larder-Sandbox";

/// The format of an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NewsFormat {
    /// NewsAPI's.
    NewsApi,
    /// The Guardian's.
    Guardian,
}

impl NewsFormat {
    /// Both.
    pub const ALL: [NewsFormat; 2] = [NewsFormat::NewsApi, NewsFormat::Guardian];

    /// The upstream's name in the configuration, in keys and in errors.
    pub const fn name(self) -> &'static str {
        match self {
            NewsFormat::NewsApi => "newsapi",
            NewsFormat::Guardian => "guardian",
        }
    }

    /// The format of the upstream `name`.
    pub fn of_upstream(name: &str) -> Option<NewsFormat> {
        NewsFormat::ALL
            .into_iter()
            .find(|format| format.name() == name)
    }
}

/// A news upstream: its address, its key, its client and its quota.
#[derive(Clone, Debug)]
pub struct NewsUpstream {
    /// Its format.
    pub format: NewsFormat,
    /// The URL to which its paths are added, without a slash at the end.
    pub base_url: String,
    /// Its API key, if it has one.
    pub key: Option<Secret>,
    /// Its client.
    pub http: HttpClient,
    /// Its quota, if it has one.
    pub quota: Option<Arc<Quota>>,
}

impl NewsUpstream {
    /// Its name.
    pub fn name(&self) -> &'static str {
        self.format.name()
    }

    /// Loads the newest articles of a category as the bytes of a [`Listing`]. The call continues
    /// `trace`. Blocks until `deadline` at the latest, including the wait for the quota.
    ///
    /// # Errors
    /// `Spent` if no place in the quota is free in time. `Paused` if the upstream answers that its
    /// quota is spent or that it must not be called for a while: for the whole upstream if it has a
    /// quota, else for this category. Else as [`HttpClient::ask`].
    pub fn fetch(
        &self,
        category: &str,
        deadline: Instant,
        trace: Option<&TraceContext>,
    ) -> Result<Vec<u8>, LoadError> {
        let ask = || self.ask(category, deadline, trace);
        match &self.quota {
            Some(quota) => quota.around(deadline, ask),
            None => ask(),
        }
    }

    fn ask(
        &self,
        category: &str,
        deadline: Instant,
        trace: Option<&TraceContext>,
    ) -> Result<Vec<u8>, LoadError> {
        let key = self.key.as_ref().map(Secret::reveal);
        let mut headers = Vec::new();
        let (path, mut query) = match self.format {
            NewsFormat::NewsApi => (newsapi::PATH, newsapi::query(category)),
            NewsFormat::Guardian => (guardian::PATH, guardian::query(category)),
        };
        match (self.format, key) {
            (NewsFormat::NewsApi, Some(key)) => headers.push(("X-Api-Key", key)),
            (NewsFormat::Guardian, Some(key)) => query.push(("api-key", key)),
            (_, None) => {}
        }
        let url = format!("{}{path}", self.base_url.trim_end_matches('/'));
        let request = HttpRequest {
            query: &query,
            headers: &headers,
            secrets: self.key.as_slice(),
            trace,
            ..HttpRequest::get(&url)
        };
        let answer = self.http.ask(&request, deadline)?;
        let read = match self.format {
            NewsFormat::NewsApi => newsapi::read(answer.status, &answer.body, category),
            NewsFormat::Guardian => guardian::read(answer.status, &answer.body, category),
        };
        let articles = read.map_err(|refusal| self.refused(&answer, &refusal))?;
        let flags = Flags {
            sandbox: answer.header(SANDBOX_HEADER) == Some("true"),
            ..Flags::default()
        };
        Ok(Listing::encode(&articles, flags))
    }

    fn refused(&self, answer: &HttpAnswer, refusal: &Refusal) -> LoadError {
        let (name, status) = (self.name(), answer.status);
        let text = sanitized(&refusal.text(), self.key.as_slice());
        let what = match (text.is_empty(), status) {
            (false, _) => format!("{name} answered {status}: {text}"),
            (true, 200) => {
                format!("{name} answered 200 with something other than a list of articles")
            }
            (true, _) => format!("{name} answered {status}"),
        };
        if refusal.spent || answer.asks_to_wait() {
            LoadError::Paused {
                what,
                retry_after: self.http.pause(answer),
                whole_source: self.quota.as_ref().is_some_and(|quota| quota.is_limited()),
            }
        } else {
            LoadError::Failed(what)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::http::HttpSettings;
    use std::time::Duration;
    use testkit::upstream::{FakeUpstream, respond};

    const KEY: &str = "s3cr3t-k3y";
    const NEWSAPI_OK: &str = r#"{"status":"ok","articles":[{"title":"T","url":"https://a.example/1","publishedAt":"2022-10-21T14:06:14Z"}]}"#;
    const GUARDIAN_OK: &str = r#"{"response":{"status":"ok","results":[{"webTitle":"T","webUrl":"https://a.example/1","webPublicationDate":"2022-10-21T14:06:14Z"}]}}"#;

    fn upstream(format: NewsFormat, server: &FakeUpstream) -> NewsUpstream {
        NewsUpstream {
            format,
            base_url: format!("{}/v2/", server.base_url()),
            key: Some(Secret::new(KEY)),
            http: HttpClient::new(HttpSettings::new(format.name(), Duration::from_secs(10))),
            quota: Some(Arc::new(Quota::new(format.name(), Vec::new(), None))),
        }
    }

    fn answering(
        status: &'static str,
        headers: &'static [&'static str],
        body: &'static str,
    ) -> FakeUpstream {
        FakeUpstream::raw(move |mut stream, _| {
            respond(&mut stream, status, headers, body.as_bytes())
        })
    }

    fn fetch(upstream: &NewsUpstream, category: &str) -> Result<Vec<u8>, LoadError> {
        let outcome = upstream.fetch(category, Instant::now() + Duration::from_secs(10), None);
        if let Err(error) = &outcome {
            assert!(
                !format!("{error} {error:?} {upstream:?}").contains(KEY),
                "{error}"
            );
        }
        outcome
    }

    #[test]
    fn asks_newsapi_with_the_key_in_a_header() {
        let server = FakeUpstream::raw(|mut stream, request| {
            let request = request.to_lowercase();
            assert!(
                request.starts_with(
                    "get /v2/top-headlines?category=general&pagesize=100 http/1.1\r\n"
                ),
                "{request}"
            );
            assert!(
                request.contains("\r\nx-api-key: s3cr3t-k3y\r\n"),
                "{request}"
            );
            respond(&mut stream, "200 OK", &[], NEWSAPI_OK.as_bytes());
        });
        let bytes = fetch(&upstream(NewsFormat::NewsApi, &server), "general").unwrap();
        let listing = Listing::read(&bytes).unwrap();
        assert_eq!((listing.len(), listing.flags()), (1, Flags::default()));
    }

    #[test]
    fn asks_the_guardian_with_the_key_in_the_query() {
        let server = FakeUpstream::raw(|mut stream, request| {
            let line = request.lines().next().unwrap().to_owned();
            assert_eq!(
                line.replace("%7C", "|").replace("%2C", ","),
                "GET /v2/search?section=sport|football&order-by=newest&page-size=50&show-fields=trailText,byline,thumbnail&api-key=s3cr3t-k3y HTTP/1.1"
            );
            respond(
                &mut stream,
                "200 OK",
                &["Larder-Sandbox: true"],
                GUARDIAN_OK.as_bytes(),
            );
        });
        let bytes = fetch(&upstream(NewsFormat::Guardian, &server), "sports").unwrap();
        let listing = Listing::read(&bytes).unwrap();
        assert_eq!(listing.len(), 1);
        assert!(listing.flags().sandbox);
        assert_eq!(listing.items().next().unwrap().source, "guardian");
    }

    #[test]
    fn an_upstream_that_wants_to_be_left_alone_says_for_how_long() {
        for (format, status, headers, body, wait, says) in [
            (
                NewsFormat::NewsApi,
                "429 Too Many Requests",
                &["Retry-After: 120"][..],
                r#"{"status":"error","code":"rateLimited","message":"Slow down, s3cr3t-k3y."}"#,
                60,
                "newsapi answered 429: rateLimited: Slow down, ***.",
            ),
            (
                NewsFormat::NewsApi,
                "401 Unauthorized",
                &[],
                r#"{"status":"error","code":"apiKeyExhausted","message":"No more."}"#,
                60,
                "newsapi answered 401: apiKeyExhausted: No more.",
            ),
            (
                NewsFormat::Guardian,
                "429 Too Many Requests",
                &[],
                r#"{"message":"API rate limit exceeded"}"#,
                60,
                "guardian answered 429: API rate limit exceeded",
            ),
            (
                NewsFormat::Guardian,
                "429 Too Many Requests",
                &[],
                "<html>",
                60,
                "guardian answered 429",
            ),
            (
                NewsFormat::Guardian,
                "503 Service Unavailable",
                &["Retry-After: 7"],
                "<html>",
                7,
                "guardian answered 503",
            ),
        ] {
            let server = answering(status, headers, body);
            let mut upstream = upstream(format, &server);
            for (quota, whole_source) in [(vec![], false), (vec!["9/1h".parse().unwrap()], true)] {
                upstream.quota = Some(Arc::new(Quota::new(format.name(), quota, None)));
                let paused = LoadError::Paused {
                    what: says.to_owned(),
                    retry_after: Duration::from_secs(wait),
                    whole_source,
                };
                assert_eq!(fetch(&upstream, "general"), Err(paused));
            }
        }
    }

    #[test]
    fn other_refusals_are_failures_in_the_upstreams_words() {
        for (format, status, body, says) in [
            (
                NewsFormat::NewsApi,
                "401 Unauthorized",
                r#"{"status":"error","code":"apiKeyInvalid","message":"Your key s3cr3t-k3y is\r\nno key"}"#,
                "newsapi answered 401: apiKeyInvalid: Your key *** is no key",
            ),
            (
                NewsFormat::NewsApi,
                "200 OK",
                r#"{"status":"error","code":"unexpectedError","message":"Oops"}"#,
                "newsapi answered 200: unexpectedError: Oops",
            ),
            (
                NewsFormat::NewsApi,
                "500 Oops",
                "Internal <b>error</b>",
                "newsapi answered 500",
            ),
            (
                NewsFormat::NewsApi,
                "200 OK",
                "garbage",
                "newsapi answered 200 with something other than a list of articles",
            ),
            (
                NewsFormat::Guardian,
                "403 Forbidden",
                r#"{"message":"Unauthorized"}"#,
                "guardian answered 403: Unauthorized",
            ),
            // The other one's answer, from a base URL that was mixed up.
            (
                NewsFormat::Guardian,
                "200 OK",
                NEWSAPI_OK,
                "guardian answered 200 with something other than a list of articles",
            ),
        ] {
            let server = answering(status, &[], body);
            assert_eq!(
                fetch(&upstream(format, &server), "general"),
                Err(LoadError::Failed(says.to_owned()))
            );
        }
    }

    #[test]
    fn a_quota_without_a_place_in_time_calls_nobody() {
        let server = answering("200 OK", &[], NEWSAPI_OK);
        let mut upstream = upstream(NewsFormat::NewsApi, &server);
        upstream.quota = Some(Arc::new(Quota::new(
            "newsapi",
            vec!["1/1d".parse().unwrap()],
            None,
        )));
        fetch(&upstream, "general").unwrap();
        let spent = fetch(&upstream, "general").unwrap_err();
        assert!(
            spent
                .to_string()
                .starts_with("newsapi: quota spent, back in 86"),
            "{spent}"
        );
        assert_eq!(server.calls(), 1);
    }

    #[test]
    fn a_deadline_that_has_passed_costs_no_quota() {
        let server = answering("200 OK", &[], NEWSAPI_OK);
        let mut upstream = upstream(NewsFormat::NewsApi, &server);
        upstream.quota = Some(Arc::new(Quota::new(
            "newsapi",
            vec!["1/1d".parse().unwrap()],
            None,
        )));
        let late = upstream.fetch("general", Instant::now(), None);
        assert!(matches!(late, Err(LoadError::TooSlow(_))), "{late:?}");
        fetch(&upstream, "general").unwrap();
    }
}
