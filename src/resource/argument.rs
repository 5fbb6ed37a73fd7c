//! The arguments of one request: the raw texts in its path and its query, or the members of its
//! body, and the checked values.

use std::borrow::Cow;
use std::fmt;

use matchit::Params;
use percent_encoding::percent_decode_str;

use super::members::Members;

/// Where the parameters of one request are read from.
#[derive(Clone, Copy)]
pub struct Arguments<'q> {
    /// The segments of the path that are parameters, still escaped.
    pub path: &'q Params<'q, 'q>,
    /// Where all other parameters are.
    pub given: Given<'q>,
}

/// Where the parameters are that the path does not have.
#[derive(Clone, Copy)]
pub enum Given<'q> {
    /// In the query: this one without its question mark, still escaped.
    Query(&'q str),
    /// In the body: these members, whose values have their types.
    Body(&'q Members<'q>),
}

/// A value of a parameter that is kept.
pub type ParamValue = Argument<'static>;

/// A valid value of a parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Argument<'q> {
    /// Text.
    Text(Cow<'q, str>),
    /// A whole number.
    Integer(i64),
    /// A boolean.
    Boolean(bool),
}

/// A parameter that is not valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadParameter {
    /// Its name.
    pub name: String,
    /// What is wrong with it.
    pub wrong: Wrong,
    /// What would be valid.
    pub valid: String,
}

/// What is wrong with a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// It is required, and the request does not have it.
    Missing,
    /// The request has it more than once.
    Repeated,
    /// It has no value.
    Empty,
    /// Its unescaped value is not UTF-8.
    NotText,
    /// Its value is not one of the declared values.
    NotValid,
    /// It is not declared.
    Unknown,
    /// It is in the query, and belongs in the body.
    InQuery,
}

impl fmt::Display for BadParameter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wrong = match self.wrong {
            Wrong::Missing => "is missing",
            Wrong::Repeated => "is given more than once",
            Wrong::Empty => "is empty",
            Wrong::NotText => "is not valid UTF-8",
            Wrong::NotValid => "is not valid",
            Wrong::Unknown => "is not known",
            Wrong::InQuery => "is in the query",
        };
        write!(
            f,
            "parameter `{}` {wrong}; valid: {}",
            self.name, self.valid
        )
    }
}

impl std::error::Error for BadParameter {}

impl Argument<'_> {
    /// Calls `then` with the canonical text of this value.
    pub fn with_text<T>(&self, then: impl FnOnce(&str) -> T) -> T {
        match self {
            Argument::Text(text) => then(text),
            Argument::Integer(number) => then(itoa::Buffer::new().format(*number)),
            Argument::Boolean(true) => then("true"),
            Argument::Boolean(false) => then("false"),
        }
    }

    /// The value, to be kept.
    pub(super) fn into_owned(self) -> ParamValue {
        match self {
            Argument::Text(text) => Argument::Text(text.into_owned().into()),
            Argument::Integer(number) => Argument::Integer(number),
            Argument::Boolean(yes) => Argument::Boolean(yes),
        }
    }
}

impl fmt::Display for Argument<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.with_text(|text| f.write_str(text))
    }
}

impl<'q> Arguments<'q> {
    /// The unescaped value of the parameter `name`, if the path or `query` has it.
    pub(super) fn find(self, query: &'q str, name: &str) -> Result<Option<Cow<'q, str>>, Wrong> {
        if let Some(value) = self.path.get(name) {
            return unescape(value, Plus::Itself)
                .map(Some)
                .ok_or(Wrong::NotText);
        }
        let mut found = None;
        let mut rest = Some(query).filter(|query| !query.is_empty());
        while let Some(query) = rest {
            let (pair, after) = cut(query, b'&');
            rest = after;
            let (raw, value) = cut(pair, b'=');
            let same = raw == name
                || (raw.bytes().any(|byte| matches!(byte, b'%' | b'+'))
                    && unescape(raw, Plus::Space).is_some_and(|unescaped| unescaped == name));
            if same && found.replace(value.unwrap_or_default()).is_some() {
                return Err(Wrong::Repeated);
            }
        }
        match found {
            None => Ok(None),
            Some(value) => unescape(value, Plus::Space).map(Some).ok_or(Wrong::NotText),
        }
    }

    /// The query that parameters are read from. Empty if they are in the body.
    fn query(self) -> &'q str {
        match self.given {
            Given::Query(query) => query,
            Given::Body(_) => "",
        }
    }

    /// Whether the path has the parameter `name`.
    pub fn has_in_path(self, name: &str) -> bool {
        self.path.get(name).is_some()
    }

    /// The names of the query's parameters, each still escaped and unescaped. `None`: the unescaped
    /// name is not UTF-8.
    pub(super) fn query_names(self) -> impl Iterator<Item = (&'q str, Option<Cow<'q, str>>)> {
        let pairs = self.query().split('&').filter(|pair| !pair.is_empty());
        pairs.map(|pair| {
            let (raw, _) = cut(pair, b'=');
            (raw, unescape(raw, Plus::Space))
        })
    }
}

/// What stands before the first `at`, and what stands after it. A plain loop is faster here than a
/// search that first prepares itself for long texts.
fn cut(text: &str, at: u8) -> (&str, Option<&str>) {
    match text.bytes().position(|byte| byte == at) {
        Some(place) => (&text[..place], Some(&text[place + 1..])),
        None => (text, None),
    }
}

/// What `+` means.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Plus {
    /// Itself, as in a path.
    Itself,
    /// A space, as in a query.
    Space,
}

/// Percent-decoding (RFC 3986, section 2.1). A `%` that no two digits follow stays as it is.
/// `None` if the result is not UTF-8. Allocates nothing if `text` has no escape.
pub(super) fn unescape(text: &str, plus: Plus) -> Option<Cow<'_, str>> {
    let escaped = |byte: &u8| *byte == b'%' || (*byte == b'+' && plus == Plus::Space);
    if !text.as_bytes().iter().any(escaped) {
        return Some(Cow::Borrowed(text));
    }
    // Sized once: this runs for every hit whose request has an escape.
    let mut bytes = Vec::with_capacity(text.len());
    match plus {
        Plus::Itself => bytes.extend(percent_decode_str(text)),
        Plus::Space => {
            for (at, piece) in text.split('+').enumerate() {
                if at > 0 {
                    bytes.push(b' ');
                }
                bytes.extend(percent_decode_str(piece));
            }
        }
    }
    String::from_utf8(bytes).ok().map(Cow::Owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_undone_once_and_what_is_no_escape_stays() {
        for (text, in_path, in_query) in [
            ("a", "a", "a"),
            ("a+b", "a+b", "a b"),
            ("%2B+%2b", "+++", "+ +"),
            ("%C3%A4", "ä", "ä"),
            ("%25%32%35", "%25", "%25"),
            ("%", "%", "%"),
            ("%4", "%4", "%4"),
            ("%zz%+1", "%zz%+1", "%zz% 1"),
        ] {
            assert_eq!(unescape(text, Plus::Itself).as_deref(), Some(in_path));
            assert_eq!(unescape(text, Plus::Space).as_deref(), Some(in_query));
        }
        assert_eq!(unescape("%ff", Plus::Itself), None);
        assert_eq!(unescape("+%ff", Plus::Space), None);
    }

    #[test]
    fn integers_have_one_text() {
        for number in [0, 7, -5, i64::MAX, i64::MIN] {
            Argument::Integer(number).with_text(|text| assert_eq!(text, number.to_string()));
        }
    }
}
