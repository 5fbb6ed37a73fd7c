//! Validators: what an upstream can compare to say whether a value is still valid (RFC 9110,
//! section 8.8).
//!
//! Its text in the cache has three lines: `ETag`, `Last-Modified` and `Cache-Control`. The last one
//! is there because a 304 that does not repeat it leaves it as it was (RFC 9111, section 4.3.4).
//! Any line can be empty.

use ureq::http::HeaderMap;

use super::super::http::field::list;
use larder_cache::Loaded;

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Validator {
    etag: String,
    modified: String,
    cache_control: String,
}

impl Validator {
    /// The validator in an answer's headers.
    pub(super) fn of(headers: &HeaderMap) -> Validator {
        let text = |name: &str| {
            let value = headers.get(name).and_then(|value| value.to_str().ok());
            value.unwrap_or_default().to_owned()
        };
        Validator {
            etag: text("etag"),
            modified: text("last-modified"),
            cache_control: list(headers, "cache-control"),
        }
    }

    /// Parses the text of [`Validator::to_text`].
    pub(super) fn parse(text: &str) -> Validator {
        let mut lines = text.splitn(3, '\n').map(str::to_owned);
        let mut next = || lines.next().unwrap_or_default();
        Validator {
            etag: next(),
            modified: next(),
            cache_control: next(),
        }
    }

    /// Its text. `None` if the upstream sent neither `ETag` nor `Last-Modified`. Leaves
    /// `Cache-Control` out if the text would be too long.
    pub(super) fn to_text(&self) -> Option<Box<str>> {
        let Validator {
            etag,
            modified,
            cache_control,
        } = self;
        if etag.is_empty() && modified.is_empty() {
            return None;
        }
        let own = format!("{etag}\n{modified}\n");
        let all = format!("{own}{cache_control}");
        let fits = all.len() <= Loaded::LONGEST_VALIDATOR;
        Some(if fits { all } else { own }.into())
    }

    /// The headers of a conditional request.
    pub(super) fn conditions(&self) -> impl Iterator<Item = (&str, &str)> {
        let all = [
            ("If-None-Match", self.etag.as_str()),
            ("If-Modified-Since", self.modified.as_str()),
        ];
        all.into_iter().filter(|(_, value)| !value.is_empty())
    }

    /// The validator after a 304: each of its headers, or else the one `before`.
    pub(super) fn or(self, before: &Validator) -> Validator {
        let either = |new: String, old: &String| if new.is_empty() { old.clone() } else { new };
        Validator {
            etag: either(self.etag, &before.etag),
            modified: either(self.modified, &before.modified),
            cache_control: either(self.cache_control, &before.cache_control),
        }
    }

    /// The value of `Cache-Control`. Empty if there is none.
    pub(super) fn cache_control(&self) -> &str {
        &self.cache_control
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ureq::http::HeaderValue;

    fn of(headers: &[(&'static str, &str)]) -> Validator {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_str(value).unwrap());
        }
        Validator::of(&map)
    }

    #[test]
    fn goes_through_the_cache_and_asks_with_what_there_is() {
        let date = "Fri, 02 Jan 2026 03:05:05 GMT";
        let both = of(&[
            ("etag", "W/\"a\""),
            ("last-modified", date),
            ("cache-control", "max-age=1"),
        ]);
        let text = both.to_text().unwrap();
        assert_eq!(Validator::parse(&text), both);
        let conditions: Vec<_> = both.conditions().collect();
        assert_eq!(
            conditions,
            [("If-None-Match", "W/\"a\""), ("If-Modified-Since", date)]
        );
        let modified = Validator::parse(&of(&[("last-modified", date)]).to_text().unwrap());
        assert_eq!(
            modified.conditions().collect::<Vec<_>>(),
            [("If-Modified-Since", date)]
        );
        assert_eq!(modified.cache_control(), "");
        assert_eq!(of(&[("cache-control", "max-age=1")]).to_text(), None);
    }

    #[test]
    fn one_that_is_too_long_loses_what_it_can_do_without() {
        let long = "x".repeat(1100);
        let text = of(&[("etag", "\"a\""), ("cache-control", &long)])
            .to_text()
            .unwrap();
        assert_eq!(&*text, "\"a\"\n\n");
    }

    #[test]
    fn a_304_says_what_changed() {
        let before = of(&[("etag", "\"a\""), ("cache-control", "max-age=1")]);
        let renewed = of(&[("cache-control", "max-age=2")]).or(&before);
        assert_eq!(
            renewed,
            of(&[("etag", "\"a\""), ("cache-control", "max-age=2")])
        );
        assert_eq!(of(&[]).or(&before), before);
    }
}
