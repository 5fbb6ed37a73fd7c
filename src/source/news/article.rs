//! The common form of a news article, for all upstreams, and its JSON.
//!
//! Promise: an article has a title, an `http` or `https` URL and a time, and none of its texts is
//! blank. An article without one of these is dropped. That includes the time: lists are ordered by
//! `published_at` and clients parse it, so an invented one would be wrong for both. Texts are plain
//! text, though an upstream may send HTML in any of them. A blank optional text is `null`, and so
//! is an image that is not a web address.

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
    /// Its web page, `http` or `https`.
    pub url: String,
    /// A picture, `http` or `https`.
    pub image: Option<String>,
    /// Its author.
    pub author: Option<String>,
    /// Its publisher, as [`source_name`] writes it.
    pub source: String,
    /// The time of publication, to the second.
    #[serde(serialize_with = "rfc3339")]
    pub published_at: Timestamp,
    /// The category of the request that loaded it.
    pub category: String,
}

/// An article as an upstream sent it. Anything may be missing or of the wrong type.
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
    /// The article. `None` if it lacks a title, a URL or a time.
    pub(crate) fn finish(self, source: String, category: &str) -> Option<Article> {
        let at: Timestamp = self.published_at?.as_str()?.trim().parse().ok()?;
        Some(Article {
            title: plain_text_of(self.title)?,
            description: plain_text_of(self.description),
            url: web_address(self.url)?,
            image: web_address(self.image),
            author: plain_text_of(self.author),
            source,
            published_at: Timestamp::from_second(at.as_second()).ok()?,
            category: category.to_owned(),
        })
    }
}

impl Article {
    /// How many optional fields it has. Of two copies of an article, the one with more is kept.
    pub(crate) fn fields(&self) -> u8 {
        [&self.description, &self.image, &self.author]
            .iter()
            .map(|field| u8::from(field.is_some()))
            .sum()
    }
}

/// The text of a JSON value, on one line. `None` if it is not a text, or blank.
pub(crate) fn text(value: Option<&Value>) -> Option<String> {
    one_line(value?.as_str()?)
}

/// The plain text of a JSON value with HTML in it, on one line. `None` if it is not a text, or its
/// plain text is blank.
pub(crate) fn plain_text_of(value: Option<&Value>) -> Option<String> {
    one_line(&plain_text(value?.as_str()?))
}

/// The text on one line: control characters and runs of white space become single spaces, and none
/// is left at the ends. `None` if nothing is left.
fn one_line(text: &str) -> Option<String> {
    Some(joined(text, " ")).filter(|line| !line.is_empty())
}

/// The words between white space and control characters, joined.
fn joined(text: &str, separator: &str) -> String {
    let words = text.split(|c: char| c.is_whitespace() || c.is_control());
    let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
    words.join(separator)
}

/// A URL that is safe as a link in a page: never `javascript:` or `data:`.
fn web_address(value: Option<&Value>) -> Option<String> {
    let url = value?.as_str()?.trim();
    let (scheme, rest) = url.split_once("://")?;
    let web = scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https");
    let hosted = rest.starts_with(|c: char| c.is_alphanumeric() || c == '[');
    let clean = !url.contains(|c: char| c.is_whitespace() || c.is_control() || "<>\"".contains(c));
    (web && hosted && clean).then(|| url.to_owned())
}

/// A source's name in articles and in `?source=`: lower case, with `-` for white space.
pub fn source_name(name: &str) -> String {
    let name = joined(name, "-");
    name.chars().flat_map(char::to_lowercase).collect()
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
