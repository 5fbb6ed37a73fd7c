//! NewsAPI's wire format: its requests and its answers.
//!
//! Promise: any bytes are either articles or a [`Refusal`]. Any field may be null or of another
//! type than documented; such an article is dropped alone. Titles and descriptions may have HTML in
//! them, though the documentation says otherwise.

use serde_json::Value;

use super::answer::{Members, body_text};
use super::article::{Article, Draft, plain_text_of, source_name};
use super::refusal::Refusal;

/// The title of a withdrawn article.
const WITHDRAWN: &str = "[Removed]";

pub(crate) const PATH: &str = "/top-headlines";

pub(crate) fn query(category: &str) -> Vec<(&str, &str)> {
    vec![("category", category), ("pageSize", "100")]
}

/// Reads an answer of any status. An error in a 200 is an error, and articles with another status
/// are ignored.
pub(crate) fn read(status: u16, body: &[u8], category: &str) -> Result<Vec<Article>, Refusal> {
    let json = body_text(body);
    let answer = Members::of(&json);
    let ok = status == 200 && answer.text("status").as_deref() == Some("ok");
    match answer.list("articles").filter(|_| ok) {
        Some(articles) => Ok(articles.filter_map(|one| article(&one, category)).collect()),
        None => {
            let code = answer.text("code");
            Err(Refusal {
                spent: matches!(code.as_deref(), Some("apiKeyExhausted" | "rateLimited")),
                message: answer.text("message"),
                code,
            })
        }
    }
}

fn article(one: &Value, category: &str) -> Option<Article> {
    if one["title"].as_str().map(str::trim) == Some(WITHDRAWN) {
        return None;
    }
    let source = &one["source"];
    let source = plain_text_of(source.get("id")).or_else(|| plain_text_of(source.get("name")));
    Draft {
        title: one.get("title"),
        description: one.get("description"),
        url: one.get("url"),
        image: one.get("urlToImage"),
        author: one.get("author"),
        published_at: one.get("publishedAt"),
    }
    .finish(
        source_name(source.as_deref().unwrap_or("newsapi")),
        category,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(articles: Value) -> Value {
        json!({"status": "ok", "totalResults": 38, "articles": articles})
    }

    fn read_json(status: u16, body: &Value) -> Result<Vec<Article>, Refusal> {
        read(status, body.to_string().as_bytes(), "science")
    }

    #[test]
    fn articles_in_the_common_form() {
        let articles = read_json(
            200,
            &of(json!([
                {
                    "source": {"id": "bbc-news", "name": "BBC News"}, "author": "A. Uthor", "title": "T", "description": "D",
                    "url": "https://a.example/1", "urlToImage": "https://a.example/1.png",
                    "publishedAt": "2022-10-21T14:06:14Z", "content": "C… [+99 chars]"
                },
                {
                    "source": {"id": null, "name": "Some Paper"}, "author": null, "title": "T", "description": null,
                    "url": "https://a.example/2", "urlToImage": null, "publishedAt": "2022-10-21T14:06:14.1234567Z", "content": null
                },
                {"title": "T", "url": "https://a.example/3", "publishedAt": "2022-10-21T14:06:14Z", "author": 7, "source": null},
            ])),
        )
        .unwrap();
        let seen: Vec<(&str, Option<&str>, &str)> = articles
            .iter()
            .map(|one| {
                (
                    one.source.as_str(),
                    one.author.as_deref(),
                    one.category.as_str(),
                )
            })
            .collect();
        assert_eq!(
            seen,
            [
                ("bbc-news", Some("A. Uthor"), "science"),
                ("some-paper", None, "science"),
                ("newsapi", None, "science"),
            ]
        );
        assert_eq!(articles[0].description.as_deref(), Some("D"));
        assert_eq!(
            articles[0].image.as_deref(),
            Some("https://a.example/1.png")
        );
    }

    #[test]
    fn withdrawn_and_broken_articles_are_left_out() {
        let whole = json!({"title": "T", "url": "https://a.example/1", "publishedAt": "2022-10-21T14:06:14Z"});
        let mut list = vec![
            whole.clone(),
            json!(null),
            json!("text"),
            json!([]),
            json!({}),
        ];
        for (field, wrong) in [
            ("title", json!("[Removed]")),
            ("title", json!(null)),
            ("url", json!(null)),
            ("publishedAt", json!(null)),
        ] {
            let mut one = whole.clone();
            one[field] = wrong;
            list.push(one);
        }
        assert_eq!(read_json(200, &of(json!(list))).unwrap().len(), 1);
    }

    #[test]
    fn no_articles_is_an_answer() {
        assert_eq!(read_json(200, &of(json!([]))), Ok(vec![]));
    }

    #[test]
    fn every_error_code_is_told() {
        for code in [
            "apiKeyDisabled",
            "apiKeyExhausted",
            "apiKeyInvalid",
            "apiKeyMissing",
            "parameterInvalid",
            "parametersMissing",
            "rateLimited",
            "sourcesTooMany",
            "sourceDoesNotExist",
            "unexpectedError",
            "maximumResultsReached",
            "userAgentMissing",
        ] {
            // A 200 with an error in it is an error.
            for status in [200, 400, 401, 426, 429, 500] {
                let body = json!({"status": "error", "code": code, "message": "Because."});
                let refusal = read_json(status, &body).unwrap_err();
                assert_eq!(refusal.text(), format!("{code}: Because."));
                assert_eq!(
                    refusal.spent,
                    code == "apiKeyExhausted" || code == "rateLimited"
                );
            }
        }
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        for body in [
            &b""[..],
            b"<html>",
            b"null",
            b"[]",
            b"{}",
            b"\xff\xfe",
            br#"{"status":"ok"}"#,
            br#"{"status":"ok","articles":{}}"#,
            br#"{"articles":[]}"#,
            br#"{"status":"error","articles":[]}"#,
            br#"{"status":"ok","articles":["#,
        ] {
            assert_eq!(
                read(200, body, "general"),
                Err(Refusal::default()),
                "{body:?}"
            );
        }
        assert_eq!(read_json(500, &of(json!([]))), Err(Refusal::default()));
        let deep = [b"[".repeat(100_000), b"]".repeat(100_000)].concat();
        assert_eq!(read(200, &deep, "general"), Err(Refusal::default()));
    }
}
