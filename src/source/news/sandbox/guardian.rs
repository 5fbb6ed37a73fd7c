//! The Guardian's search over the sandbox's news, and its errors.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::invented::{Desk, Story};
use super::query::Query;
use super::{Page, SandboxAnswer, all, says};

/// `/search`.
pub(super) fn search(query: &Query, now: Timestamp) -> SandboxAnswer {
    match page(query, now) {
        Ok(body) => SandboxAnswer::new(200, &body),
        Err(message) => error(400, &message),
    }
}

pub(super) fn error(status: u16, message: &str) -> SandboxAnswer {
    SandboxAnswer::new(
        status,
        &json!({"response": {"status": "error", "message": message}}),
    )
}

fn page(query: &Query, now: Timestamp) -> Result<Value, String> {
    let page = Page {
        number: query.number("page", 1, 1_000_000)?,
        size: query.number("page-size", 10, 200)?,
    };
    let order = query.get("order-by").unwrap_or("newest");
    if !["newest", "oldest", "relevance"].contains(&order) {
        return Err("order-by is newest, oldest or relevance".to_owned());
    }
    let sections = query.list("section", '|');
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
    let fields = query.list("show-fields", ',').unwrap_or_default();
    let results: Vec<Value> = page
        .of(&found)
        .iter()
        .map(|story| result(story, &fields))
        .collect();
    Ok(json!({"response": {
        "status": "ok", "userTier": "sandbox", "total": found.len(), "startIndex": (page.number - 1) * page.size + 1,
        "pageSize": page.size, "currentPage": page.number, "pages": pages, "orderBy": order, "results": results,
    }}))
}

fn result(story: &Story, fields: &[&str]) -> Value {
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
    let selected: serde_json::Map<String, Value> = all
        .into_iter()
        .filter(|(name, _)| fields.contains(name) || fields.contains(&"all"))
        .map(|(name, value)| (name.to_owned(), Value::from(value)))
        .collect();
    if !selected.is_empty() {
        result["fields"] = Value::from(selected);
    }
    result
}
