//! What an operator declares of one resource.
//!
//! These are plain values: `config` promises that a set of them is valid, this module only knows what each one means.

use std::fmt;
use std::time::Duration;

use crate::cache::Policy;

/// One resource: what it is called, where it is served, and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourceSettings {
    /// Its name, in keys, metrics and logs: letters, digits, `_` and `-`.
    pub name: String,
    /// Where it is served, `/articles` or `/users/{id}`. `None`: nowhere, it is a part for others.
    pub path: Option<String>,
    /// Its parameters, in the order of their declaration; no two have one name.
    pub params: Vec<ParamSettings>,
    /// Where its value comes from on a miss.
    pub source: SourceSettings,
    /// How long its value may be served.
    pub policy: Policy,
    /// How long a client's own cache may keep it without asking. `None`: not at all.
    pub client_ttl: Option<Duration>,
    /// The names under which it can be invalidated, beside its key.
    pub tags: Vec<TagTemplate>,
    /// Served without an API key.
    pub public: bool,
}

/// One parameter, from the path or from the query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParamSettings {
    /// Its name: letters, digits, `_` and `-`.
    pub name: String,
    /// Which values it takes.
    pub kind: ParamKind,
    /// Its value in a request that does not name it.
    pub default: Option<ParamValue>,
    /// A request must name it. Always so for a parameter of the path.
    pub required: bool,
    /// It is no part of the key: it is cut from the loaded value on the way out.
    pub view: bool,
}

/// Which values a parameter takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ParamKind {
    /// Text that is not empty.
    Text {
        /// The values it may have; empty: any.
        one_of: Vec<String>,
        /// A regular expression that its whole value matches: see [`ParamKind::accepts`].
        pattern: Option<String>,
        /// Characters at most.
        max_len: usize,
    },
    /// A whole number.
    Integer {
        /// The lowest.
        min: i64,
        /// The highest.
        max: i64,
    },
    /// `true` or `false`.
    Boolean,
}

/// A parameter's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ParamValue {
    /// Of a text.
    Text(String),
    /// Of a whole number.
    Integer(i64),
    /// Of a boolean.
    Boolean(bool),
}

/// Where a value comes from on a miss.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceSettings {
    /// The news aggregator, from these upstreams; at least one, none twice.
    News(Vec<String>),
}

impl ParamKind {
    /// Whether `value` is one that a parameter of this kind takes. Compiles the pattern: for configuration, not for requests.
    pub fn accepts(&self, value: &ParamValue) -> bool {
        match (self, value) {
            (
                ParamKind::Text {
                    one_of,
                    pattern,
                    max_len,
                },
                ParamValue::Text(text),
            ) => {
                !text.is_empty()
                    && text.chars().count() <= *max_len
                    && (one_of.is_empty() || one_of.contains(text))
                    && pattern.as_deref().is_none_or(|pattern| {
                        whole_value(pattern).is_ok_and(|pattern| pattern.is_match(text))
                    })
            }
            (ParamKind::Integer { min, max }, ParamValue::Integer(number)) => {
                (*min..=*max).contains(number)
            }
            (ParamKind::Boolean, ParamValue::Boolean(_)) => true,
            _ => false,
        }
    }
}

/// The regular expression of a whole value that is `pattern`; errors if `pattern` is none by itself.
pub(crate) fn whole_value(pattern: &str) -> Result<regex_lite::Regex, regex_lite::Error> {
    // By itself first: "a)(b" would become one by what is put around it.
    regex_lite::Regex::new(pattern)?;
    regex_lite::Regex::new(&format!("^(?:{pattern})$"))
}

/// Says what the kind takes, for error messages and tables: `a whole number from 1 to 100`.
impl fmt::Display for ParamKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ParamKind::Text { one_of, .. } if !one_of.is_empty() => {
                write!(f, "one of {}", one_of.join(", "))
            }
            ParamKind::Text {
                pattern: Some(pattern),
                max_len,
                ..
            } => {
                write!(
                    f,
                    "text that matches {pattern}, of at most {max_len} characters"
                )
            }
            ParamKind::Text { max_len, .. } => {
                write!(f, "text of 1 to {max_len} characters")
            }
            ParamKind::Integer { min, max } => {
                f.write_str("a whole number")?;
                match (*min > i64::MIN, *max < i64::MAX) {
                    (true, true) => write!(f, " from {min} to {max}"),
                    (true, false) => write!(f, " of at least {min}"),
                    (false, true) => write!(f, " of at most {max}"),
                    (false, false) => Ok(()),
                }
            }
            ParamKind::Boolean => f.write_str("true or false"),
        }
    }
}

impl fmt::Display for ParamValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ParamValue::Text(text) => f.write_str(text),
            ParamValue::Integer(number) => number.fmt(f),
            ParamValue::Boolean(boolean) => boolean.fmt(f),
        }
    }
}

/// A tag with places for parameters: `category:{category}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagTemplate {
    pieces: Vec<TagPiece>,
}

/// A piece of a [`TagTemplate`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TagPiece {
    /// Stands as it is.
    Literal(String),
    /// The value of the parameter of this name stands here.
    Param(String),
}

/// Why a text is no tag template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TagError {
    /// It is empty, or longer than [`TagTemplate::MAX_LENGTH`] bytes.
    Length,
    /// It is `*`, the name of everything.
    Everything,
    /// It has a space or a control character.
    Character,
    /// It has a brace without its other half, or with nothing between them.
    Braces,
}

impl TagTemplate {
    /// The longest template, in bytes.
    pub const MAX_LENGTH: usize = 200;

    /// Takes a template apart.
    pub fn parse(text: &str) -> Result<TagTemplate, TagError> {
        if text.is_empty() || text.len() > TagTemplate::MAX_LENGTH {
            return Err(TagError::Length);
        }
        if text == "*" {
            return Err(TagError::Everything);
        }
        if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(TagError::Character);
        }
        let mut pieces = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let literal = rest.find(['{', '}']).unwrap_or(rest.len());
            let (before, braced) = rest.split_at(literal);
            if !before.is_empty() {
                pieces.push(TagPiece::Literal(before.to_owned()));
            }
            if braced.is_empty() {
                break;
            }
            let (name, after) = braced
                .strip_prefix('{')
                .and_then(|inside| inside.split_once('}'))
                .ok_or(TagError::Braces)?;
            if name.is_empty() || name.contains('{') {
                return Err(TagError::Braces);
            }
            pieces.push(TagPiece::Param(name.to_owned()));
            rest = after;
        }
        Ok(TagTemplate { pieces })
    }

    /// Its pieces, in order; at least one.
    pub fn pieces(&self) -> &[TagPiece] {
        &self.pieces
    }

    /// The parameters that it names.
    pub fn params(&self) -> impl Iterator<Item = &str> {
        self.pieces.iter().filter_map(|piece| match piece {
            TagPiece::Param(name) => Some(name.as_str()),
            TagPiece::Literal(_) => None,
        })
    }
}

impl fmt::Display for TagTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.pieces.iter().try_for_each(|piece| match piece {
            TagPiece::Literal(text) => f.write_str(text),
            TagPiece::Param(name) => write!(f, "{{{name}}}"),
        })
    }
}

impl fmt::Display for TagError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TagError::Length => write!(
                f,
                "is empty or longer than {} bytes",
                TagTemplate::MAX_LENGTH
            ),
            TagError::Everything => f.write_str("is \"*\", the name of everything"),
            TagError::Character => f.write_str("has a space or a control character"),
            TagError::Braces => f.write_str("has a brace without its other half, or an empty pair"),
        }
    }
}

impl std::error::Error for TagError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(one_of: &[&str], pattern: Option<&str>, max_len: usize) -> ParamKind {
        ParamKind::Text {
            one_of: one_of.iter().map(|s| (*s).to_owned()).collect(),
            pattern: pattern.map(str::to_owned),
            max_len,
        }
    }

    fn accepts(kind: &ParamKind, value: &str) -> bool {
        kind.accepts(&ParamValue::Text(value.to_owned()))
    }

    #[test]
    fn a_kind_accepts_what_it_says() {
        let any = text(&[], None, 3);
        assert!(accepts(&any, "äöü"));
        assert!(!accepts(&any, "abcd"));
        assert!(!accepts(&any, ""));
        let listed = text(&["a", "b"], None, 3);
        assert!(accepts(&listed, "b"));
        assert!(!accepts(&listed, "c"));
        assert_eq!(listed.to_string(), "one of a, b");
        let numbers = ParamKind::Integer { min: 1, max: 100 };
        for (number, accepted) in [(0, false), (1, true), (100, true), (101, false)] {
            assert_eq!(numbers.accepts(&ParamValue::Integer(number)), accepted);
        }
        assert!(!accepts(&numbers, "5"));
        assert_eq!(numbers.to_string(), "a whole number from 1 to 100");
        assert!(ParamKind::Boolean.accepts(&ParamValue::Boolean(false)));
    }

    #[test]
    fn a_pattern_is_of_the_whole_value() {
        let symbol = text(&[], Some("[A-Z]{1,5}|x"), 200);
        for (value, accepted) in [
            ("AAPL", true),
            ("x", true),
            ("AAPLxx", false),
            ("xAAPL", false),
            ("AAPL\n", false),
            ("ABCDEF", false),
        ] {
            assert_eq!(accepts(&symbol, value), accepted, "{value:?}");
        }
        assert!(whole_value("a)(b").is_err());
        assert!(whole_value("[a-").is_err());
    }

    #[test]
    fn tags_come_apart_and_together() {
        let tag = TagTemplate::parse("category:{category}/{id}x").unwrap();
        assert_eq!(
            tag.pieces(),
            [
                TagPiece::Literal("category:".to_owned()),
                TagPiece::Param("category".to_owned()),
                TagPiece::Literal("/".to_owned()),
                TagPiece::Param("id".to_owned()),
                TagPiece::Literal("x".to_owned()),
            ]
        );
        assert_eq!(tag.params().collect::<Vec<_>>(), ["category", "id"]);
        assert_eq!(tag.to_string(), "category:{category}/{id}x");
        for (wrong, why) in [
            ("", TagError::Length),
            ("*", TagError::Everything),
            ("a b", TagError::Character),
            ("a\u{7}", TagError::Character),
            ("a{", TagError::Braces),
            ("a}", TagError::Braces),
            ("a{}", TagError::Braces),
            ("{a{b}}", TagError::Braces),
        ] {
            assert_eq!(TagTemplate::parse(wrong), Err(why), "{wrong}");
        }
        assert_eq!(
            TagTemplate::parse(&"a".repeat(TagTemplate::MAX_LENGTH + 1)),
            Err(TagError::Length)
        );
    }
}
