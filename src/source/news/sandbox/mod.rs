//! The sandbox: a stand-in for both news APIs. From a request's path and query it makes a status
//! and JSON, in the formats of the real APIs.
//!
//! Promise: the same request has the same answer for an hour. Parameters are checked as the real
//! APIs check them, so a request that works here works there. API keys are ignored.
//! `cli/sandbox.rs` serves it over HTTP.

mod guardian;
mod invented;
mod newsapi;
mod query;
#[cfg(test)]
mod tests;

use jiff::Timestamp;
use serde_json::{Value, json};

use self::invented::{Desk, Story, categories, stories};
use self::query::Query;

/// An answer of the sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SandboxAnswer {
    /// The status code.
    pub status: u16,
    /// For a `Retry-After` header, in seconds.
    pub retry_after: Option<u32>,
    /// JSON.
    pub body: String,
}

impl SandboxAnswer {
    /// With a JSON body. 429 says that the next second is early enough.
    pub(crate) fn new(status: u16, body: &Value) -> SandboxAnswer {
        SandboxAnswer {
            status,
            retry_after: (status == 429).then_some(1),
            body: body.to_string(),
        }
    }
}

/// A list of one of the APIs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Route {
    TopHeadlines,
    Everything,
    Search,
}

fn route(path: &str) -> Option<Route> {
    match path.trim_end_matches('/') {
        "/v2/top-headlines" | "/top-headlines" => Some(Route::TopHeadlines),
        "/v2/everything" | "/everything" => Some(Route::Everything),
        "/search" => Some(Route::Search),
        _ => None,
    }
}

/// Answers a GET of `path` with the raw `query` at the time `now`.
pub fn answer(path: &str, query: &str, now: Timestamp) -> SandboxAnswer {
    let query = Query::parse(query);
    match route(path) {
        Some(Route::TopHeadlines) => newsapi::top_headlines(&query, now),
        Some(Route::Everything) => newsapi::everything(&query, now),
        Some(Route::Search) => guardian::search(&query, now),
        None => no_such_path(),
    }
}

/// One of the errors of the API at `path`: the `number`-th, in turn.
pub fn failure(path: &str, number: u64) -> SandboxAnswer {
    let failures = match route(path) {
        Some(Route::TopHeadlines | Route::Everything) => [
            newsapi::error(500, "unexpectedError", "The sandbox was told to fail."),
            newsapi::error(429, "rateLimited", "The sandbox was told to be spent."),
        ],
        Some(Route::Search) => [
            guardian::error(500, "The sandbox was told to fail."),
            SandboxAnswer::new(429, &json!({"message": "API rate limit exceeded"})),
        ],
        None => return no_such_path(),
    };
    let [one, other] = failures;
    if number.is_multiple_of(2) { one } else { other }
}

/// Whether the `number`-th request fails at this rate of failure. Failures are evenly spread, and
/// the same each time.
pub fn fails(number: u64, rate: f64) -> bool {
    let failed_before = |number: u64| (number as f64 * rate).floor();
    failed_before(number.saturating_add(1)) > failed_before(number)
}

fn no_such_path() -> SandboxAnswer {
    SandboxAnswer::new(
        404,
        &json!({"message": "The sandbox has /v2/top-headlines, /v2/everything and /search, and POST /v1/chat/completions."}),
    )
}

/// A page of a list: its number and its size.
struct Page {
    number: usize,
    size: usize,
}

impl Page {
    fn of<'s>(&self, stories: &'s [Story]) -> &'s [Story] {
        let start = (self.number - 1)
            .saturating_mul(self.size)
            .min(stories.len());
        &stories[start..start.saturating_add(self.size).min(stories.len())]
    }
}

/// The news of one category or of all, newest first.
fn all(desk: Desk, category: Option<&str>, now: Timestamp) -> Vec<Story> {
    let categories =
        categories().filter(|known| category.is_none_or(|category| category == *known));
    let mut found: Vec<Story> = categories
        .flat_map(|category| stories(desk, category, now))
        .collect();
    found.sort_by_key(|story| std::cmp::Reverse(story.published_at));
    found
}

/// Whether a story contains all of these words.
fn says(story: &Story, words: &str) -> bool {
    let text = format!("{} {}", story.title, story.summary).to_lowercase();
    words
        .to_lowercase()
        .split_whitespace()
        .all(|word| text.contains(word.trim_matches('"')))
}
