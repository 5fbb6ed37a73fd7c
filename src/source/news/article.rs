//! The common form of a news article, whichever upstream it came from, and its JSON.
//!
//! Promise: an article that exists has a title, an `http` or `https` URL and a time, and none of
//! its texts is blank. What lacks one of these is dropped, an article without a date too:
//! `published_at` is what lists are ordered by and clients parse, and a made-up time would be a lie
//! to both. Texts are plain text: an upstream may send HTML in any of them. An optional text that
//! is blank or an image that is no web address is `null`.

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use super::html::plain_text;

/// One article.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Article {
    /// Its headline.
    pub title: String,
    /// A sentence or two of plain text.
    pub description: Option<String>,
    /// Where it is to be read; `http` or `https`.
    pub url: String,
    /// A picture; `http` or `https`.
    pub image: Option<String>,
    /// Who wrote it.
    pub author: Option<String>,
    /// Who published it, as [`source_name`] writes it.
    pub source: String,
    /// When, to the second.
    #[serde(serialize_with = "rfc3339")]
    pub published_at: Timestamp,
    /// The category that it was asked for under.
    pub category: String,
}

/// An article as an upstream tells it: anything may be missing, of the wrong type, or nonsense.
#[derive(Default)]
pub(crate) struct Draft<'a> {
    pub(crate) title: Option<&'a Value>,
    pub(crate) description: Option<&'a Value>,
    pub(crate) url: Option<&'a Value>,
    pub(crate) image: Option<&'a Value>,
    pub(crate) author: Option<&'a Value>,
    pub(crate) published_at: Option<&'a Value>,
}

impl Draft<'_> {
    /// The article, or `None` if it lacks what an article must have.
    pub(crate) fn finish(self, source: String, category: &str) -> Option<Article> {
        let at: Timestamp = self.published_at?.as_str()?.trim().parse().ok()?;
        Some(Article {
            title: shown_text(self.title)?,
            description: shown_text(self.description),
            url: web_address(self.url)?,
            image: web_address(self.image),
            author: shown_text(self.author),
            source,
            published_at: Timestamp::from_second(at.as_second()).ok()?,
            category: category.to_owned(),
        })
    }
}

impl Article {
    /// How many of its optional fields are there: of two copies of one article the fuller one is kept.
    pub(crate) fn fields(&self) -> u8 {
        [&self.description, &self.image, &self.author]
            .iter()
            .map(|field| u8::from(field.is_some()))
            .sum()
    }
}

/// The text of a JSON value, tidied; `None` for what is no text or blank.
pub(crate) fn text(value: Option<&Value>) -> Option<String> {
    tidy(value?.as_str()?)
}

/// The text that a browser shows of a JSON value with HTML in it, tidied; `None` for what is no
/// text or shows nothing.
pub(crate) fn shown_text(value: Option<&Value>) -> Option<String> {
    tidy(&plain_text(value?.as_str()?))
}

/// One line: control characters and runs of white space are single spaces, none at the ends. `None` if nothing is left.
fn tidy(text: &str) -> Option<String> {
    let mut line = String::with_capacity(text.len());
    for word in text.split(|c: char| c.is_whitespace() || c.is_control()) {
        if !word.is_empty() {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    (!line.is_empty()).then_some(line)
}

/// A URL that is safe to put into a page as a link: `javascript:` and `data:` never get through.
fn web_address(value: Option<&Value>) -> Option<String> {
    let url = value?.as_str()?.trim();
    let (scheme, rest) = url.split_once("://")?;
    let web = scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https");
    let hosted = rest.starts_with(|c: char| c.is_alphanumeric() || c == '[');
    let clean = !url.contains(|c: char| c.is_whitespace() || c.is_control() || "<>\"".contains(c));
    (web && hosted && clean).then(|| url.to_owned())
}

/// How a source is named in articles and in `?source=`: lower case, white space as `-`.
pub fn source_name(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for word in name.split(|c: char| c.is_whitespace() || c.is_control()) {
        if !word.is_empty() {
            if !out.is_empty() {
                out.push('-');
            }
            out.extend(word.chars().flat_map(char::to_lowercase));
        }
    }
    out
}

fn rfc3339<S: serde::Serializer>(at: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn finish(draft: &Value) -> Option<Article> {
        Draft {
            title: draft.get("title"),
            description: draft.get("description"),
            url: draft.get("url"),
            image: draft.get("image"),
            author: draft.get("author"),
            published_at: draft.get("at"),
        }
        .finish("bbc-news".to_owned(), "science")
    }

    #[test]
    fn is_written_in_the_documented_form() {
        let article = finish(&json!({
            "title": " A\n title ", "description": "d", "url": "https://a.example/x", "image": "http://a.example/i.png",
            "author": " ", "at": "2022-10-21T16:06:14.25+02:00",
        }))
        .unwrap();
        assert_eq!(
            serde_json::to_string(&article).unwrap(),
            r#"{"title":"A title","description":"d","url":"https://a.example/x","image":"http://a.example/i.png","author":null,"source":"bbc-news","published_at":"2022-10-21T14:06:14Z","category":"science"}"#
        );
        assert_eq!(article.fields(), 2);
    }

    #[test]
    fn needs_a_title_a_url_and_a_date() {
        let whole = json!({"title": "t", "url": "https://a.example", "at": "2022-10-21T14:06:14Z"});
        assert!(finish(&whole).is_some());
        for (field, wrong) in [
            ("title", json!(null)),
            ("title", json!(" \u{1}\t")),
            ("title", json!(7)),
            ("url", json!(null)),
            ("url", json!("javascript:alert(1)")),
            ("url", json!("javascript://a.example/%0aalert(1)")),
            ("url", json!("ftp://a.example/")),
            ("url", json!("https://")),
            ("url", json!("https:///path")),
            ("url", json!("https://a.example/\"><script>")),
            ("at", json!(null)),
            ("at", json!("yesterday")),
            ("at", json!(1666361174)),
        ] {
            let mut draft = whole.clone();
            draft[field] = wrong.clone();
            assert_eq!(finish(&draft), None, "{field} = {wrong}");
        }
    }

    #[test]
    fn an_image_that_is_no_web_address_is_left_out() {
        let article = finish(&json!({
            "title": "t", "url": "https://a.example", "at": "2022-10-21T14:06:14Z", "image": "data:image/png;base64,xx",
        }));
        assert_eq!(article.unwrap().image, None);
    }

    #[test]
    fn sources_are_named_alike() {
        assert_eq!(source_name("BBC  News "), "bbc-news");
        assert_eq!(source_name("CNET.com"), "cnet.com");
        assert_eq!(source_name(" \n"), "");
    }
}
