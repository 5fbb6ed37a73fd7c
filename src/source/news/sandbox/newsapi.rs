//! NewsAPI's two lists over the sandbox's news, and its errors.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::invented::{Desk, OUTLETS, Story, categories};
use super::query::Query;
use super::{Page, SandboxAnswer, all, says};

/// A code and a message of NewsAPI.
type ApiError = (&'static str, String);

/// `/v2/top-headlines`.
pub(super) fn top_headlines(query: &Query, now: Timestamp) -> SandboxAnswer {
    page(headlines(query, now), query)
}

/// `/v2/everything`.
pub(super) fn everything(query: &Query, now: Timestamp) -> SandboxAnswer {
    page(of_everything(query, now), query)
}

/// The requested page of the stories.
fn page(found: Result<Vec<Story>, ApiError>, query: &Query) -> SandboxAnswer {
    let page = query
        .number("page", 1, 1_000_000)
        .and_then(|number| Ok((number, query.number("pageSize", 20, 100)?)));
    match (found, page) {
        (Ok(stories), Ok((number, size))) => {
            let articles: Vec<Value> = Page { number, size }
                .of(&stories)
                .iter()
                .map(article)
                .collect();
            let body = json!({"status": "ok", "totalResults": stories.len(), "articles": articles});
            SandboxAnswer::new(200, &body)
        }
        (Err((code, message)), _) => error(400, code, &message),
        (_, Err(message)) => error(400, "parameterInvalid", &message),
    }
}

pub(super) fn error(status: u16, code: &str, message: &str) -> SandboxAnswer {
    SandboxAnswer::new(
        status,
        &json!({"status": "error", "code": code, "message": message}),
    )
}

fn article(story: &Story) -> Value {
    // As in real answers: missing values, and withdrawn articles.
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

fn headlines(query: &Query, now: Timestamp) -> Result<Vec<Story>, ApiError> {
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
        _ => stories(query, category, now),
    }
}

fn of_everything(query: &Query, now: Timestamp) -> Result<Vec<Story>, ApiError> {
    if ["q", "sources", "domains"]
        .iter()
        .all(|name| query.get(name).is_none())
    {
        let message = "at least one of q, sources and domains is required";
        return Err(("parametersMissing", message.to_owned()));
    }
    let orders = ["relevancy", "popularity", "publishedAt"];
    if query
        .get("sortBy")
        .is_some_and(|order| !orders.contains(&order))
    {
        let message = "sortBy is relevancy, popularity or publishedAt";
        return Err(("parameterInvalid", message.to_owned()));
    }
    let domains = query.list("domains", ',');
    let mut stories = stories(query, None, now)?;
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

fn stories(query: &Query, category: Option<&str>, now: Timestamp) -> Result<Vec<Story>, ApiError> {
    let words = query.get("q").unwrap_or_default();
    if words.chars().count() > 500 {
        let message = "q has more than 500 characters";
        return Err(("parameterInvalid", message.to_owned()));
    }
    let sources = query.list("sources", ',');
    for source in sources.iter().flatten() {
        if !OUTLETS.iter().any(|outlet| outlet.id == Some(source)) {
            let message = format!("there is no source {source:?}");
            return Err(("sourceDoesNotExist", message));
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
