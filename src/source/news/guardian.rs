//! The Guardian's wire format: its requests and its answers.
//!
//! Promise: any bytes are either articles or a [`Refusal`]. Errors come in three forms, from the
//! API and from the gateway before it. The key is in the query, so no URL of a call may be shown.

use serde_json::Value;

use super::answer::{Members, body_text};
use super::article::{Article, Draft};
use super::refusal::Refusal;

pub(crate) const PATH: &str = "/search";

/// The source of its articles.
const SOURCE: &str = "guardian";

pub(crate) fn query(category: &str) -> Vec<(&str, &str)> {
    vec![
        ("section", section(category)),
        ("order-by", "newest"),
        ("page-size", "50"),
        ("show-fields", "trailText,byline,thumbnail"),
    ]
}

/// The sections of a category; `|` means "or". Any other category is used as a section.
fn section(category: &str) -> &str {
    match category {
        "general" => "world|uk-news|us-news",
        "sports" => "sport|football",
        "entertainment" => "culture|film|music|tv-and-radio|books|stage",
        "health" => "society|lifeandstyle",
        other => other,
    }
}

/// Reads an answer of any status. An error in a 200 is an error, and results with another status
/// are ignored.
pub(crate) fn read(status: u16, body: &[u8], category: &str) -> Result<Vec<Article>, Refusal> {
    let json = body_text(body);
    let answer = Members::of(&json);
    let response = answer.object("response");
    let ok = status == 200 && response.text("status").as_deref() == Some("ok");
    match response.list("results").filter(|_| ok) {
        Some(results) => Ok(results.filter_map(|one| article(&one, category)).collect()),
        None => {
            let message = response.text("message").or_else(|| answer.text("message"));
            Err(Refusal {
                code: None,
                spent: message.as_deref() == Some("API rate limit exceeded"),
                message,
            })
        }
    }
}

fn article(one: &Value, category: &str) -> Option<Article> {
    let fields = &one["fields"];
    Draft {
        title: one.get("webTitle"),
        description: fields.get("trailText"),
        url: one.get("webUrl"),
        image: fields.get("thumbnail"),
        author: fields.get("byline"),
        published_at: one.get("webPublicationDate"),
    }
    .finish(SOURCE.to_owned(), category)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(results: Value) -> Value {
        json!({"response": {
            "status": "ok", "userTier": "developer", "total": 2, "startIndex": 1, "pageSize": 50, "currentPage": 1,
            "pages": 1, "orderBy": "newest", "results": results,
        }})
    }

    fn read_json(status: u16, body: &Value) -> Result<Vec<Article>, Refusal> {
        read(status, body.to_string().as_bytes(), "general")
    }

    #[test]
    fn articles_in_the_common_form() {
        let articles = read_json(
            200,
            &of(json!([
                {
                    "id": "world/2022/oct/21/x", "type": "article", "sectionId": "world", "sectionName": "World news",
                    "webPublicationDate": "2022-10-21T14:06:14Z", "webTitle": "Tom & Jerry",
                    "webUrl": "https://www.theguardian.com/x", "apiUrl": "https://content.guardianapis.com/x",
                    "fields": {"trailText": "<p>It&rsquo;s <strong>on</strong></p>", "byline": "A", "thumbnail": "https://i.example/1"}
                },
                {"webPublicationDate": "2022-10-21T14:06:14Z", "webTitle": "T", "webUrl": "https://www.theguardian.com/y", "fields": null},
                {"webPublicationDate": "2022-10-21T14:06:14Z", "webTitle": "T", "webUrl": "https://www.theguardian.com/z",
                    "fields": {"trailText": "<br>", "byline": 3}},
                {"webPublicationDate": "2022-10-21T14:06:14Z", "webTitle": "T"},
                {"webTitle": "T", "webUrl": "https://www.theguardian.com/z"},
                null,
            ])),
        )
        .unwrap();
        assert_eq!(articles.len(), 3);
        let first = &articles[0];
        assert_eq!(first.title, "Tom & Jerry");
        assert_eq!(first.description.as_deref(), Some("It’s on"));
        assert_eq!(first.author.as_deref(), Some("A"));
        assert_eq!(first.image.as_deref(), Some("https://i.example/1"));
        assert_eq!(
            (first.source.as_str(), first.category.as_str()),
            ("guardian", "general")
        );
        assert!(articles[1..].iter().all(|one| one.fields() == 0));
    }

    #[test]
    fn every_shape_of_error_is_told() {
        for (status, body, words, spent) in [
            (
                400,
                json!({"response": {"status": "error", "message": "requested page is beyond the number of available pages"}}),
                "requested page is beyond the number of available pages",
                false,
            ),
            (
                200,
                json!({"response": {"status": "error", "message": "No."}}),
                "No.",
                false,
            ),
            (
                429,
                json!({"message": "API rate limit exceeded"}),
                "API rate limit exceeded",
                true,
            ),
            (
                200,
                json!({"message": "API rate limit exceeded"}),
                "API rate limit exceeded",
                true,
            ),
            (
                401,
                json!({"message": "No API key found in request"}),
                "No API key found in request",
                false,
            ),
            (
                403,
                json!({"message": "Unauthorized"}),
                "Unauthorized",
                false,
            ),
            (401, json!({"response": {"status": "error"}}), "", false),
        ] {
            let refusal = read_json(status, &body).unwrap_err();
            assert_eq!(
                (refusal.text().as_str(), refusal.spent),
                (words, spent),
                "{body}"
            );
        }
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        for body in [
            &b""[..],
            b"null",
            b"[]",
            b"{}",
            b"\"response\"",
            br#"{"response":{"status":"ok"}}"#,
            br#"{"response":{"status":"ok","results":null}}"#,
            br#"{"response":{"results":[]}}"#,
            br#"{"response":{"status":"ok","results":[]"#,
        ] {
            assert_eq!(
                read(200, body, "general"),
                Err(Refusal::default()),
                "{body:?}"
            );
        }
        assert_eq!(read_json(503, &of(json!([]))), Err(Refusal::default()));
    }

    #[test]
    fn categories_become_sections() {
        assert_eq!(query("general")[0], ("section", "world|uk-news|us-news"));
        assert_eq!(query("sports")[0], ("section", "sport|football"));
        assert_eq!(query("science")[0], ("section", "science"));
    }
}
