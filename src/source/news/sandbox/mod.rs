//! A stand-in for both news APIs: a request's path and query in, a status and JSON out, in the formats of UPSTREAMS.md.
//!
//! Promise: the same request at the same hour has the same answer. Parameters are checked as the real ones check them, so that
//! what works here works there. No key is looked at, and no HTTP is spoken here: `cli/sandbox.rs` serves it.

mod invented;
mod query;

use jiff::Timestamp;
use serde_json::{Value, json};

use self::invented::{Desk, OUTLETS, Story, categories, stories};
use self::query::Query;

/// What the sandbox answers.
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
    fn new(status: u16, body: &Value) -> SandboxAnswer {
        SandboxAnswer {
            status,
            retry_after: (status == 429).then_some(1),
            body: body.to_string(),
        }
    }
}

/// Which API a path belongs to, and which of its lists.
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

/// Answers a GET of `path` with the raw `query` at a time.
pub fn answer(path: &str, query: &str, now: Timestamp) -> SandboxAnswer {
    let query = Query::parse(query);
    match route(path) {
        Some(Route::TopHeadlines) => newsapi(top_headlines(&query, now), &query),
        Some(Route::Everything) => newsapi(everything(&query, now), &query),
        Some(Route::Search) => guardian(&query, now),
        None => no_such_path(),
    }
}

/// One of the errors that the API at `path` has on a bad day: the `number`-th, in turn.
pub fn failure(path: &str, number: u64) -> SandboxAnswer {
    let failures = match route(path) {
        Some(Route::TopHeadlines | Route::Everything) => [
            newsapi_error(500, "unexpectedError", "The sandbox was told to fail."),
            newsapi_error(429, "rateLimited", "The sandbox was told to be spent."),
        ],
        Some(Route::Search) => [
            guardian_error(500, "The sandbox was told to fail."),
            SandboxAnswer::new(429, &json!({"message": "API rate limit exceeded"})),
        ],
        None => return no_such_path(),
    };
    let [one, other] = failures;
    if number.is_multiple_of(2) { one } else { other }
}

/// Whether the `number`-th request fails at this rate of failure: evenly spread, the same every time.
pub fn fails(number: u64, rate: f64) -> bool {
    let failed_before = |number: u64| (number as f64 * rate).floor();
    failed_before(number.saturating_add(1)) > failed_before(number)
}

fn no_such_path() -> SandboxAnswer {
    SandboxAnswer::new(
        404,
        &json!({"message": "The sandbox has /v2/top-headlines, /v2/everything and /search."}),
    )
}

/// A page of a list: which, and how long.
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

// NewsAPI

/// A code and a message of NewsAPI's.
type Complaint = (&'static str, String);

fn newsapi(found: Result<Vec<Story>, Complaint>, query: &Query) -> SandboxAnswer {
    let page = query
        .number("page", 1, 1_000_000)
        .and_then(|number| Ok((number, query.number("pageSize", 20, 100)?)));
    match (found, page) {
        (Ok(stories), Ok((number, size))) => {
            let articles: Vec<Value> = Page { number, size }
                .of(&stories)
                .iter()
                .map(newsapi_article)
                .collect();
            let body = json!({"status": "ok", "totalResults": stories.len(), "articles": articles});
            SandboxAnswer::new(200, &body)
        }
        (Err((code, message)), _) => newsapi_error(400, code, &message),
        (_, Err(message)) => newsapi_error(400, "parameterInvalid", &message),
    }
}

fn newsapi_error(status: u16, code: &str, message: &str) -> SandboxAnswer {
    SandboxAnswer::new(
        status,
        &json!({"status": "error", "code": code, "message": message}),
    )
}

fn newsapi_article(story: &Story) -> Value {
    // Real answers have gaps, and articles that were withdrawn.
    let unless = |one_in: u64, salt: u32, value: &str| match story.seed.rotate_right(salt) % one_in
    {
        0 => Value::Null,
        _ => Value::from(value),
    };
    if story.seed.is_multiple_of(40) {
        return json!({
            "source": {"id": null, "name": "[Removed]"}, "author": null, "title": "[Removed]", "description": "[Removed]",
            "url": "https://removed.example", "urlToImage": null, "publishedAt": story.published_at, "content": "[Removed]",
        });
    }
    json!({
        "source": {"id": story.outlet.id, "name": story.outlet.name},
        "author": unless(6, 9, story.author),
        "title": story.title,
        "description": unless(12, 21, &story.summary),
        "url": story.url,
        "urlToImage": unless(8, 33, &story.image),
        "publishedAt": story.published_at,
        "content": format!("{} [+{} chars]", story.summary, 1000 + story.seed % 4000),
    })
}

fn top_headlines(query: &Query, now: Timestamp) -> Result<Vec<Story>, Complaint> {
    let (category, sources) = (query.get("category"), query.get("sources"));
    if sources.is_some() && (category.is_some() || query.get("country").is_some()) {
        let message = "sources cannot be mixed with country or category";
        return Err(("parameterInvalid", message.to_owned()));
    }
    if ["category", "sources", "country", "q"]
        .iter()
        .all(|name| query.get(name).is_none())
    {
        let message = "at least one of country, category, sources and q is required";
        return Err(("parametersMissing", message.to_owned()));
    }
    match category {
        Some(category) if !categories().any(|known| known == category) => Err((
            "parameterInvalid",
            format!("there is no category {category:?}"),
        )),
        _ => newsapi_stories(query, category, now),
    }
}

fn everything(query: &Query, now: Timestamp) -> Result<Vec<Story>, Complaint> {
    if ["q", "sources", "domains"]
        .iter()
        .all(|name| query.get(name).is_none())
    {
        let message = "at least one of q, sources and domains is required";
        return Err(("parametersMissing", message.to_owned()));
    }
    if !matches!(
        query.get("sortBy"),
        None | Some("relevancy" | "popularity" | "publishedAt")
    ) {
        return Err((
            "parameterInvalid",
            "sortBy is relevancy, popularity or publishedAt".to_owned(),
        ));
    }
    let domains: Option<Vec<&str>> = query
        .get("domains")
        .map(|domains| domains.split(',').collect());
    let mut stories = newsapi_stories(query, None, now)?;
    stories.retain(|story| {
        domains
            .as_ref()
            .is_none_or(|domains| domains.contains(&story.outlet.host))
    });
    query
        .keep_dates(&mut stories, "from", "to")
        .map_err(|message| ("parameterInvalid", message))?;
    Ok(stories)
}

fn newsapi_stories(
    query: &Query,
    category: Option<&str>,
    now: Timestamp,
) -> Result<Vec<Story>, Complaint> {
    let words = query.get("q").unwrap_or_default();
    if words.chars().count() > 500 {
        return Err((
            "parameterInvalid",
            "q has more than 500 characters".to_owned(),
        ));
    }
    let sources: Option<Vec<&str>> = query
        .get("sources")
        .map(|sources| sources.split(',').collect());
    for source in sources.iter().flatten() {
        if !OUTLETS.iter().any(|outlet| outlet.id == Some(source)) {
            return Err((
                "sourceDoesNotExist",
                format!("there is no source {source:?}"),
            ));
        }
    }
    if sources.as_ref().is_some_and(|sources| sources.len() > 20) {
        return Err(("sourcesTooMany", "more than 20 sources".to_owned()));
    }
    let mut found = all(Desk::Wire, category, now);
    found.retain(|story| {
        let of_source =
            |sources: &Vec<&str>| sources.iter().any(|source| story.outlet.id == Some(source));
        sources.as_ref().is_none_or(of_source) && says(story, words)
    });
    Ok(found)
}

// The Guardian

fn guardian(query: &Query, now: Timestamp) -> SandboxAnswer {
    match guardian_page(query, now) {
        Ok(body) => SandboxAnswer::new(200, &body),
        Err(message) => guardian_error(400, &message),
    }
}

fn guardian_error(status: u16, message: &str) -> SandboxAnswer {
    SandboxAnswer::new(
        status,
        &json!({"response": {"status": "error", "message": message}}),
    )
}

fn guardian_page(query: &Query, now: Timestamp) -> Result<Value, String> {
    let page = Page {
        number: query.number("page", 1, 1_000_000)?,
        size: query.number("page-size", 10, 200)?,
    };
    let order = query.get("order-by").unwrap_or("newest");
    if !["newest", "oldest", "relevance"].contains(&order) {
        return Err("order-by is newest, oldest or relevance".to_owned());
    }
    let sections: Option<Vec<&str>> = query
        .get("section")
        .map(|sections| sections.split('|').collect());
    let words = query.get("q").unwrap_or_default();
    let mut found = all(Desk::Paper, None, now);
    found.retain(|story| {
        sections
            .as_ref()
            .is_none_or(|sections| sections.contains(&story.section))
            && says(story, words)
    });
    query.keep_dates(&mut found, "from-date", "to-date")?;
    if order == "oldest" {
        found.reverse();
    }
    let pages = found.len().div_ceil(page.size);
    if page.number > pages.max(1) {
        return Err("requested page is beyond the number of available pages".to_owned());
    }
    let fields: Vec<&str> = query
        .get("show-fields")
        .unwrap_or_default()
        .split(',')
        .collect();
    let results: Vec<Value> = page
        .of(&found)
        .iter()
        .map(|story| guardian_result(story, &fields))
        .collect();
    Ok(json!({"response": {
        "status": "ok", "userTier": "sandbox", "total": found.len(), "startIndex": (page.number - 1) * page.size + 1,
        "pageSize": page.size, "currentPage": page.number, "pages": pages, "orderBy": order, "results": results,
    }}))
}

fn guardian_result(story: &Story, fields: &[&str]) -> Value {
    let id = story.url.splitn(4, '/').nth(3).unwrap_or_default();
    let mut name = story.section.replace('-', " ");
    if let Some(first) = name.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    let mut result = json!({
        "id": id, "type": "article", "sectionId": story.section, "sectionName": name,
        "webPublicationDate": story.published_at, "webTitle": story.title, "webUrl": story.url,
        "apiUrl": format!("https://content.guardian.example/{id}"),
    });
    let summary = story.summary.replace('&', "&amp;");
    let all = [
        ("headline", story.title.clone()),
        (
            "trailText",
            format!(
                "<p>{}</p>",
                summary
                    .replacen(' ', " <strong>", 1)
                    .replacen(". ", "</strong>. ", 1)
            ),
        ),
        ("byline", story.author.to_owned()),
        ("thumbnail", story.image.clone()),
    ];
    let shown: serde_json::Map<String, Value> = all
        .into_iter()
        .filter(|(name, _)| fields.contains(name) || fields.contains(&"all"))
        .map(|(name, value)| (name.to_owned(), Value::from(value)))
        .collect();
    if !shown.is_empty() {
        result["fields"] = Value::from(shown);
    }
    result
}

// Both

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

/// Whether a story has all of these words.
fn says(story: &Story, words: &str) -> bool {
    let text = format!("{} {}", story.title, story.summary).to_lowercase();
    words
        .to_lowercase()
        .split_whitespace()
        .all(|word| text.contains(word.trim_matches('"')))
}

#[cfg(test)]
mod tests {
    use super::super::{guardian, newsapi};
    use super::*;
    use proptest::prelude::*;

    fn now() -> Timestamp {
        "2026-03-01T10:20:00Z".parse().unwrap()
    }

    fn get(path: &str, query: &str) -> (u16, Value) {
        let answer = answer(path, query, now());
        (answer.status, serde_json::from_str(&answer.body).unwrap())
    }

    /// The URLs that NewsAPI's format lists.
    fn urls(query: &str) -> Vec<String> {
        let (status, body) = get("/v2/everything", query);
        assert_eq!(status, 200, "{query}: {body}");
        let articles = body["articles"].as_array().unwrap().iter();
        articles
            .map(|one| one["url"].as_str().unwrap().to_owned())
            .collect()
    }

    #[test]
    fn our_own_adapters_read_both_formats() {
        for category in categories() {
            let wire = answer(
                "/v2/top-headlines",
                &format!("category={category}&pageSize=100"),
                now(),
            );
            let wire = newsapi::read(wire.status, wire.body.as_bytes(), category).unwrap();
            assert!((90..=100).contains(&wire.len()), "{}", wire.len());
            assert!(wire.iter().any(|one| one.description.is_none()));
            let section = guardian::query(category)[0].1.replace('|', "%7C");
            let query = format!(
                "section={section}&order-by=newest&page-size=50&show-fields=trailText%2Cbyline%2Cthumbnail"
            );
            let paper = answer("/search", &query, now());
            let paper = guardian::read(paper.status, paper.body.as_bytes(), category).unwrap();
            assert_eq!(paper.len(), 50);
            for article in paper {
                assert_eq!(article.fields(), 3);
                let text = article.description.unwrap();
                assert!(
                    text.starts_with(&article.title) && !text.contains(['<', ';']),
                    "{text}"
                );
            }
        }
    }

    #[test]
    fn pages_of_newsapi_are_one_list_cut_up() {
        let whole = urls("q=a&pageSize=100");
        let pages = [1, 2, 3, 4].map(|page| urls(&format!("q=a&pageSize=25&page={page}")));
        assert_eq!(pages.concat(), whole);
        assert_eq!(urls("q=a&pageSize=100&page=9999"), Vec::<String>::new());
    }

    #[test]
    fn pages_of_the_guardian_are_one_list_cut_up_and_end() {
        let (_, body) = get("/search", "section=science&page-size=50");
        let response = &body["response"];
        assert_eq!(
            (&response["total"], &response["pages"]),
            (&json!(144), &json!(3))
        );
        let (_, last) = get("/search", "section=science&page-size=50&page=3");
        assert_eq!(last["response"]["results"].as_array().unwrap().len(), 44);
        assert_eq!(last["response"]["startIndex"], 101);
        let (status, past) = get("/search", "section=science&page-size=50&page=4");
        assert_eq!(
            (status, &past["response"]["status"]),
            (400, &json!("error"))
        );
        let (status, none) = get("/search", "section=no-such-section");
        assert_eq!((status, &none["response"]["total"]), (200, &json!(0)));
    }

    #[test]
    fn words_sources_domains_and_dates_select() {
        let (_, body) = get("/v2/top-headlines", "q=astronomers+FOUND");
        let articles = body["articles"].as_array().unwrap();
        assert!(!articles.is_empty());
        for article in articles
            .iter()
            .filter(|article| article["title"] != "[Removed]")
        {
            let title = article["title"].as_str().unwrap();
            assert!(title.starts_with("Astronomers found"), "{title}");
        }
        for (query, host) in [
            ("sources=daily-ledger", "daily-ledger.example"),
            ("domains=fieldnotes.example", "fieldnotes.example"),
        ] {
            let urls = urls(&format!("{query}&pageSize=100"));
            assert_eq!(urls.len(), 100);
            let removed = |url: &String| url == "https://removed.example";
            assert!(
                urls.iter().all(|url| url.contains(host) || removed(url)),
                "{urls:?}"
            );
        }
        let (_, day) = get(
            "/search",
            "from-date=2026-02-28&to-date=2026-02-28&page-size=200&order-by=oldest",
        );
        let days = day["response"]["results"].as_array().unwrap();
        assert_eq!(days.len(), 200);
        assert!(days.iter().all(|one| {
            one["webPublicationDate"]
                .as_str()
                .unwrap()
                .starts_with("2026-02-28T")
        }));
    }

    #[test]
    fn bad_parameters_are_errors_of_each_apis_shape() {
        for (path, query, code) in [
            ("/v2/top-headlines", "", "parametersMissing"),
            ("/top-headlines", "category=", "parametersMissing"),
            ("/v2/top-headlines", "category=gossip", "parameterInvalid"),
            (
                "/v2/top-headlines",
                "category=science&sources=daily-ledger",
                "parameterInvalid",
            ),
            (
                "/v2/top-headlines",
                "sources=bbc-news",
                "sourceDoesNotExist",
            ),
            (
                "/v2/top-headlines",
                "category=science&pageSize=101",
                "parameterInvalid",
            ),
            (
                "/v2/top-headlines",
                "category=science&page=0",
                "parameterInvalid",
            ),
            ("/v2/everything", "category=science", "parametersMissing"),
            ("/everything", "q=x&sortBy=mood", "parameterInvalid"),
            ("/everything", "q=x&from=yesterday", "parameterInvalid"),
        ] {
            let (status, body) = get(path, query);
            assert_eq!(
                (status, &body["status"], &body["code"]),
                (400, &json!("error"), &json!(code)),
                "{path}?{query}"
            );
        }
        let many = format!("sources={}", ["daily-ledger"; 21].join(","));
        assert_eq!(get("/v2/everything", &many).1["code"], "sourcesTooMany");
        assert_eq!(
            get("/v2/everything", &format!("q={}", "x".repeat(501))).1["code"],
            "parameterInvalid"
        );
        for query in [
            "page-size=0",
            "page-size=201",
            "order-by=mood",
            "page=x",
            "from-date=2026-13-01",
        ] {
            let (status, body) = get("/search", query);
            assert_eq!(
                (status, &body["response"]["status"]),
                (400, &json!("error")),
                "{query}"
            );
        }
        assert_eq!(get("/v2/sources", "").0, 404);
    }

    #[test]
    fn failures_are_told_as_such_by_our_own_adapters() {
        for number in 0..4 {
            let wire = failure("/v2/top-headlines", number);
            let refusal = newsapi::read(wire.status, wire.body.as_bytes(), "general").unwrap_err();
            assert_eq!(refusal.spent, number % 2 == 1);
            assert!(!refusal.words().is_empty());
            let paper = failure("/search", number);
            let refusal =
                guardian::read(paper.status, paper.body.as_bytes(), "general").unwrap_err();
            assert_eq!(refusal.spent, number % 2 == 1);
            assert_eq!(paper.retry_after.is_some(), paper.status == 429);
        }
    }

    #[test]
    fn failures_come_at_their_rate() {
        for (rate, of_a_hundred) in [(0.0, 0), (0.25, 25), (0.5, 50), (1.0, 100)] {
            let failed = (0..100).filter(|number| fails(*number, rate)).count();
            assert_eq!(failed, of_a_hundred, "{rate}");
        }
    }

    proptest! {
        // Each case makes up all the news several times over.
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn any_query_is_survived(query in "([a-z-]{0,9}[=&%+]){0,4}.{0,20}", page in any::<u64>()) {
            for path in ["/v2/top-headlines", "/v2/everything", "/search"] {
                answer(path, &query, now());
                answer(path, &format!("q=a&page={page}&page-size={page}&{query}"), now());
            }
        }
    }
}
