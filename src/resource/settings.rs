//! The settings of one resource.
//!
//! These are plain values. `config` promises that a set of them is valid; this module knows what
//! each one means.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::database::{Query, Shape};
use crate::source::{HttpUpstreamSettings, JsonApiSettings};
use larder_cache::Policy;

use super::argument::ParamValue;
use super::tag::TagTemplate;

/// One resource: its name, its path and its source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourceSettings {
    /// Its name, in keys, metrics and logs: letters, digits, `_` and `-`.
    pub name: String,
    /// What it is, in a few words, for callers. `None`: the operator says nothing.
    pub summary: Option<String>,
    /// More about it for callers, as Markdown.
    pub description: Option<String>,
    /// Where it is served: `/articles`, `/users/{id}`. `None`: nowhere, it is a part of composites.
    pub path: Option<String>,
    /// Its parameters, in the order of the file. Each has a name of its own.
    pub params: Vec<ParamSettings>,
    /// The methods by which it is read.
    pub read: ReadMethods,
    /// Where its value comes from on a miss. `None`: it is only written.
    pub source: Option<SourceSettings>,
    /// Its writes. Each has a method of its own.
    pub writes: Vec<WriteSettings>,
    /// How long its value may be served.
    pub policy: Policy,
    /// How long a client may cache it without asking again. `None`: not at all.
    pub client_ttl: Option<Duration>,
    /// Its tags. It can be invalidated by them, and by its key.
    pub tags: Vec<TagTemplate>,
    /// Served without an API key.
    pub public: bool,
    /// Whether a query parameter that is not declared is an error. Otherwise it is ignored.
    pub refuses_unknown: bool,
}

impl ResourceSettings {
    /// Whether its path has the parameter `name`.
    pub fn has_in_path(&self, name: &str) -> bool {
        let path = self.path.as_deref().unwrap_or_default();
        path.split('/').any(|segment| {
            let inside = segment.strip_prefix('{').and_then(|s| s.strip_suffix('}'));
            inside == Some(name)
        })
    }

    /// The parameters of `query`, the statement of a write, that the path does not have: fields of
    /// the body.
    pub fn body_fields<'q>(&'q self, query: &'q Query) -> impl Iterator<Item = &'q String> {
        let parameters = query.parameters().iter();
        parameters.filter(|name| !self.has_in_path(name))
    }

    /// Whether `query`, the statement of a write, takes a value that only the body can have.
    pub fn needs_body(&self, query: &Query) -> bool {
        let of_query = |name: &String| {
            let mut params = self.params.iter().filter(|param| !param.view);
            params.any(|param| param.name == *name)
        };
        self.body_fields(query).any(|field| !of_query(field))
    }
}

/// One parameter, from the path or from the query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParamSettings {
    /// Its name: letters, digits, `_` and `-`.
    pub name: String,
    /// Its valid values.
    pub kind: ParamKind,
    /// Its value in a request without it.
    pub default: Option<ParamValue>,
    /// A request must have it. Always true for a parameter of the path.
    pub required: bool,
    /// It is not part of the key: it selects from the loaded value.
    pub view: bool,
}

/// The valid values of a parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ParamKind {
    /// Text that is not empty.
    Text {
        /// The valid values. Empty: any.
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

/// Where a value comes from on a miss.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceSettings {
    /// News from these upstreams: at least one, none twice.
    News(Vec<String>),
    /// A query of the database.
    Sql(SqlSettings),
    /// An HTTP API.
    Http(Box<HttpSourceSettings>),
    /// A composite of these resources: at least one, none twice. If the first is absent, the
    /// composite is.
    Composite(Vec<String>),
}

/// A line of the configuration, for errors that only the database finds. Any two are equal: where
/// settings stand in the file is no part of them.
#[derive(Clone, Copy, Debug)]
pub struct Line(pub usize);

impl PartialEq for Line {
    fn eq(&self, _: &Line) -> bool {
        true
    }
}

impl Eq for Line {}

/// The query that reads a resource. Its parameters are parameters of the resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqlSettings {
    /// The statement, read from `sql/queries`.
    pub query: Arc<Query>,
    /// Whether the value is one row or all rows.
    pub shape: Shape,
    /// Where the configuration names it.
    pub line: Line,
}

/// The HTTP API of a resource. Its parameters are parameters of the resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpSourceSettings {
    /// The request.
    pub api: JsonApiSettings,
    /// The timeout and the quota.
    pub upstream: HttpUpstreamSettings,
}

/// A method of reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadMethod {
    /// `GET`, and with it `HEAD`. Its parameters are in the path and the query.
    Get,
    /// `POST`. Its parameters are in the path and the body.
    Post,
    /// `QUERY` (RFC 10008): as `POST`, and known to be safe.
    Query,
}

impl ReadMethod {
    /// All of them.
    pub const ALL: [ReadMethod; 3] = [ReadMethod::Get, ReadMethod::Post, ReadMethod::Query];

    /// The method in a request.
    pub fn name(self) -> &'static str {
        match self {
            ReadMethod::Get => "GET",
            ReadMethod::Post => "POST",
            ReadMethod::Query => "QUERY",
        }
    }
}

/// The methods by which a resource is read. By default only `GET`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ReadMethods(u8);

impl ReadMethods {
    /// No method.
    pub const NONE: ReadMethods = ReadMethods(0);

    /// These and `method`.
    pub fn with(self, method: ReadMethod) -> ReadMethods {
        ReadMethods(self.0 | (1 << method as u8))
    }

    /// Whether `method` is among them.
    pub fn has(self, method: ReadMethod) -> bool {
        self.0 & (1 << method as u8) != 0
    }

    /// Whether parameters can be in a body.
    pub fn has_body(self) -> bool {
        self.has(ReadMethod::Post) || self.has(ReadMethod::Query)
    }

    /// Each of them.
    pub fn iter(self) -> impl Iterator<Item = ReadMethod> {
        ReadMethod::ALL
            .into_iter()
            .filter(move |method| self.has(*method))
    }
}

impl Default for ReadMethods {
    fn default() -> ReadMethods {
        ReadMethods::NONE.with(ReadMethod::Get)
    }
}

/// `POST, QUERY`.
impl fmt::Display for ReadMethods {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.iter().map(ReadMethod::name).collect();
        f.write_str(&names.join(", "))
    }
}

impl fmt::Debug for ReadMethods {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{self}]")
    }
}

/// The method of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum WriteMethod {
    /// Creates a value.
    Post,
    /// Replaces the value.
    Put,
    /// Changes the value.
    Patch,
    /// Removes the value.
    Delete,
}

impl WriteMethod {
    /// All of them.
    pub const ALL: [WriteMethod; 4] = [
        WriteMethod::Post,
        WriteMethod::Put,
        WriteMethod::Patch,
        WriteMethod::Delete,
    ];

    /// The method in a request.
    pub fn name(self) -> &'static str {
        match self {
            WriteMethod::Post => "POST",
            WriteMethod::Put => "PUT",
            WriteMethod::Patch => "PATCH",
            WriteMethod::Delete => "DELETE",
        }
    }
}

/// One way to write a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriteSettings {
    /// The method.
    pub method: WriteMethod,
    /// The statement. Its parameters are parameters of the path or fields of the body.
    pub query: Arc<Query>,
    /// The declared fields of the body. The database checks all others.
    pub fields: Vec<FieldSettings>,
    /// What to invalidate, beside the entry of the same path. A place names a column that the
    /// statement returns, a parameter of the resource or a field. `None`: everything that the entry
    /// depends on.
    pub invalidates: Option<Vec<TagTemplate>>,
    /// The path of the written value. Its places name columns that the statement returns.
    pub location: Option<TagTemplate>,
    /// Where the configuration names the statement.
    pub line: Line,
}

/// One field of the body of a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldSettings {
    /// Its name.
    pub name: String,
    /// Its valid values.
    pub kind: ParamKind,
    /// It must be present and not null.
    pub required: bool,
}

impl ParamKind {
    /// Compiles its pattern, if it has one.
    ///
    /// # Errors
    /// If the pattern is not a regular expression. A valid configuration has none such.
    pub(super) fn compiled(&self) -> Result<Option<regex_lite::Regex>, String> {
        let ParamKind::Text {
            pattern: Some(pattern),
            ..
        } = self
        else {
            return Ok(None);
        };
        let compiled = anchored(pattern).map_err(|error| error.to_string())?;
        Ok(Some(compiled))
    }

    /// Whether `text` is valid for this kind, if it is text. `pattern` is its compiled pattern.
    /// `lines`: it may have line feeds, carriage returns and tabs. No text has any other control
    /// character.
    pub(super) fn takes(
        &self,
        text: &str,
        pattern: Option<&regex_lite::Regex>,
        lines: bool,
    ) -> bool {
        let ParamKind::Text {
            one_of, max_len, ..
        } = self
        else {
            return false;
        };
        let listed = one_of.is_empty() || one_of.iter().any(|one| one == text);
        let fits = !text.is_empty() && text.chars().count() <= *max_len;
        let is_wrong = |c: char| c.is_control() && !(lines && matches!(c, '\n' | '\r' | '\t'));
        listed
            && fits
            && !text.contains(is_wrong)
            && pattern.is_none_or(|pattern| pattern.is_match(text))
    }

    /// Whether `value` is valid for this kind. Compiles the pattern, so it is for configuration
    /// only.
    pub fn accepts(&self, value: &ParamValue) -> bool {
        match (self, value) {
            (ParamKind::Text { .. }, ParamValue::Text(text)) => self
                .compiled()
                .is_ok_and(|pattern| self.takes(text, pattern.as_ref(), false)),
            (ParamKind::Integer { min, max }, ParamValue::Integer(number)) => {
                (*min..=*max).contains(number)
            }
            (ParamKind::Boolean, ParamValue::Boolean(_)) => true,
            _ => false,
        }
    }
}

/// The regular expression that matches a whole value by `pattern`.
///
/// # Errors
/// If `pattern` alone is not a regular expression.
pub(crate) fn anchored(pattern: &str) -> Result<regex_lite::Regex, regex_lite::Error> {
    // Alone first: "a)(b" would become valid by the group around it.
    regex_lite::Regex::new(pattern)?;
    regex_lite::Regex::new(&format!("^(?:{pattern})$"))
}

/// The valid values, for error messages and tables: `a whole number from 1 to 100`.
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
        kind.accepts(&ParamValue::Text(value.to_owned().into()))
    }

    #[test]
    fn a_kind_accepts_what_it_says() {
        let any = text(&[], None, 3);
        assert!(accepts(&any, "äöü"));
        assert!(!accepts(&any, "abcd"));
        assert!(!accepts(&any, ""));
        assert!(!accepts(&any, "a\n"), "no request can say it");
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
        assert!(anchored("a)(b").is_err());
        assert!(anchored("[a-").is_err());
    }
}
