//! Parameters: from the text of a request to values that are within what is declared.
//!
//! Promise: nothing is allocated for a request whose parameters are plain. Unknown query parameters
//! are ignored, unless the resource refuses them; a declared one that is repeated, empty or out of
//! its limits is an error that names it and says what is valid.

use std::borrow::Cow;
use std::fmt;

use matchit::Params;

use larder_cache::unescaped;

use super::settings::{ParamKind, ParamSettings, ParamValue};

/// Where the parameters of one request are read from.
#[derive(Clone, Copy)]
pub struct Arguments<'q> {
    /// The parts of the path that are parameters, still escaped.
    pub path: &'q Params<'q, 'q>,
    /// The query, without its question mark, still escaped.
    pub query: &'q str,
}

/// A value within what is declared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Argument<'q> {
    /// Text.
    Text(Cow<'q, str>),
    /// A whole number.
    Integer(i64),
    /// Yes or no.
    Boolean(bool),
}

/// A parameter that is not within what is declared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadParameter {
    /// Which.
    pub name: String,
    /// What is wrong with it.
    pub wrong: Wrong,
    /// What would be right.
    pub valid: String,
}

/// What is wrong with a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// It is needed and not there.
    Missing,
    /// It is there more than once.
    Repeated,
    /// It is there without a value.
    Empty,
    /// Its value is not UTF-8 when unescaped.
    NotText,
    /// Its value is not one of the declared.
    NotValid,
    /// No such parameter is declared for the query.
    Unknown,
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
    /// The one way of writing this value, given to `then`.
    pub fn with_text<T>(&self, then: impl FnOnce(&str) -> T) -> T {
        match self {
            Argument::Text(text) => then(text),
            Argument::Integer(number) => then(itoa::Buffer::new().format(*number)),
            Argument::Boolean(true) => then("true"),
            Argument::Boolean(false) => then("false"),
        }
    }
}

impl From<Argument<'_>> for ParamValue {
    fn from(argument: Argument<'_>) -> ParamValue {
        match argument {
            Argument::Text(text) => ParamValue::Text(text.into_owned()),
            Argument::Integer(number) => ParamValue::Integer(number),
            Argument::Boolean(yes) => ParamValue::Boolean(yes),
        }
    }
}

/// The value that `settings` declares, in the request's arguments or by default.
pub(crate) fn read<'q>(
    settings: &'q ParamSettings,
    pattern: Option<&regex_lite::Regex>,
    arguments: Arguments<'q>,
) -> Result<Option<Argument<'q>>, BadParameter> {
    let bad = |wrong| BadParameter {
        name: settings.name.clone(),
        wrong,
        valid: settings.kind.to_string(),
    };
    let Some(text) = find(&settings.name, arguments).map_err(bad)? else {
        return match &settings.default {
            Some(ParamValue::Text(text)) => Ok(Some(Argument::Text(text.as_str().into()))),
            Some(ParamValue::Integer(number)) => Ok(Some(Argument::Integer(*number))),
            Some(ParamValue::Boolean(yes)) => Ok(Some(Argument::Boolean(*yes))),
            None if settings.required => Err(bad(Wrong::Missing)),
            None => Ok(None),
        };
    };
    if text.is_empty() {
        return Err(bad(Wrong::Empty));
    }
    parse(&settings.kind, pattern, text)
        .map(Some)
        .ok_or_else(|| bad(Wrong::NotValid))
}

/// The value that a text, unescaped, stands for. `None`: it is not within what is declared. A part of
/// each request: a call would move the value twice.
#[inline(always)]
fn parse<'q>(
    kind: &ParamKind,
    pattern: Option<&regex_lite::Regex>,
    text: Cow<'q, str>,
) -> Option<Argument<'q>> {
    match kind {
        ParamKind::Integer { min, max } => {
            let digits = text.strip_prefix('-').unwrap_or(&text);
            let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            let number = text
                .parse::<i64>()
                .ok()
                .filter(|number| plain && min <= number && number <= max);
            number.map(Argument::Integer)
        }
        ParamKind::Boolean => match &*text {
            "true" => Some(Argument::Boolean(true)),
            "false" => Some(Argument::Boolean(false)),
            _ => None,
        },
        kind @ ParamKind::Text { .. } => kind.takes(&text, pattern).then_some(Argument::Text(text)),
    }
}

/// The value in a tag, escaped or not, as the path of a request would give it. `None`: no request
/// can have it.
#[inline(never)]
pub(crate) fn of_tag<'q>(
    settings: &ParamSettings,
    pattern: Option<&regex_lite::Regex>,
    text: &'q str,
) -> Option<Argument<'q>> {
    let text = unescape(text, Plus::Itself).filter(|text| !text.is_empty())?;
    parse(&settings.kind, pattern, text)
}

/// The first parameter of the query that `declared` does not have, or that is a part of the path.
/// Apart from those who do not ask for it, whose code is to stay as small as it is.
#[cold]
#[inline(never)]
pub(crate) fn check_known(
    declared: &[ParamSettings],
    arguments: Arguments<'_>,
) -> Result<(), BadParameter> {
    let of_query = |name: &str| arguments.path.get(name).is_none();
    for pair in arguments.query.split('&').filter(|pair| !pair.is_empty()) {
        let (raw, _) = cut(pair, b'=');
        let name = unescape(raw, Plus::Space);
        let known = name.as_ref().is_some_and(|name| {
            of_query(name) && declared.iter().any(|param| param.name == **name)
        });
        if !known {
            let names = declared.iter().map(|param| &*param.name);
            let names: Vec<_> = names.filter(|name| of_query(name)).collect();
            return Err(BadParameter {
                name: name.map_or_else(|| raw.to_owned(), Cow::into_owned),
                wrong: Wrong::Unknown,
                valid: if names.is_empty() {
                    "no parameter in the query".to_owned()
                } else {
                    names.join(", ")
                },
            });
        }
    }
    Ok(())
}

/// The unescaped value of the parameter `name`, if it is there, and there once.
fn find<'q>(name: &str, arguments: Arguments<'q>) -> Result<Option<Cow<'q, str>>, Wrong> {
    if let Some(value) = arguments.path.get(name) {
        return unescape(value, Plus::Itself)
            .map(Some)
            .ok_or(Wrong::NotText);
    }
    let mut found = None;
    let mut rest = Some(arguments.query).filter(|query| !query.is_empty());
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

/// What stands before the first `at` and what stands behind it. A plain loop: these texts are shorter than what a search of long ones
/// makes ready.
fn cut(text: &str, at: u8) -> (&str, Option<&str>) {
    match text.bytes().position(|byte| byte == at) {
        Some(place) => (&text[..place], Some(&text[place + 1..])),
        None => (text, None),
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Plus {
    Itself,
    Space,
}

/// Percent-decoding (RFC 3986, section 2.1); in a query `+` is a space, as forms write it. A `%` that no two digits follow is
/// taken as it is. `None` if the result is not UTF-8.
fn unescape(text: &str, plus: Plus) -> Option<Cow<'_, str>> {
    let escaped = |byte: &u8| *byte == b'%' || (*byte == b'+' && plus == Plus::Space);
    if !text.as_bytes().iter().any(escaped) {
        return Some(Cow::Borrowed(text));
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some(first) = rest.first() {
        let (byte, length) = match unescaped(rest) {
            Some(byte) => (byte, 3),
            None if *first == b'+' && plus == Plus::Space => (b' ', 1),
            None => (*first, 1),
        };
        bytes.push(byte);
        rest = &rest[length..];
    }
    String::from_utf8(bytes).ok().map(Cow::Owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(kind: ParamKind) -> ParamSettings {
        ParamSettings {
            name: "p".into(),
            kind,
            default: None,
            required: false,
            view: false,
        }
    }

    fn text(one_of: &[&str]) -> ParamSettings {
        let one_of = one_of.iter().map(|one| one.to_string()).collect();
        settings(ParamKind::Text {
            one_of,
            pattern: None,
            max_len: 5,
        })
    }

    fn of_query<'q>(
        settings: &'q ParamSettings,
        query: &'q str,
    ) -> Result<Option<Argument<'q>>, Wrong> {
        let path = Box::leak(Box::default());
        read(settings, None, Arguments { path, query }).map_err(|bad| bad.wrong)
    }

    #[test]
    fn takes_what_is_declared_however_it_is_written() {
        let p = text(&[]);
        let is = |query: &str, expected: &str| {
            assert_eq!(
                of_query(&p, query),
                Ok(Some(Argument::Text(expected.into()))),
                "{query}"
            );
        };
        is("p=a", "a");
        is("x=1&p=a&y", "a");
        is("%70=%61", "a");
        is("p=a+b%2Bc", "a b+c");
        is("p=%zz", "%zz");
        assert_eq!(of_query(&p, "q=a"), Ok(None));
        assert_eq!(of_query(&p, ""), Ok(None));
    }

    #[test]
    fn refuses_what_is_not() {
        let p = text(&["ab", "cd"]);
        for (query, wrong) in [
            ("p=x", Wrong::NotValid),
            ("p=", Wrong::Empty),
            ("p", Wrong::Empty),
            ("p=ab&p=ab", Wrong::Repeated),
            ("p=ab&%70=cd", Wrong::Repeated),
            ("p=%ff", Wrong::NotText),
        ] {
            assert_eq!(of_query(&p, query), Err(wrong), "{query}");
        }
        let p = text(&[]);
        assert_eq!(of_query(&p, "p=abcdef"), Err(Wrong::NotValid));
        assert_eq!(of_query(&p, "p=a%0Ab"), Err(Wrong::NotValid));
        let p = ParamSettings {
            required: true,
            ..p
        };
        assert_eq!(of_query(&p, ""), Err(Wrong::Missing));
    }

    #[test]
    fn whole_numbers_have_one_form() {
        let p = settings(ParamKind::Integer { min: -5, max: 100 });
        for (query, number) in [
            ("p=7", 7),
            ("p=007", 7),
            ("p=-5", -5),
            ("p=100", 100),
            ("p=-0", 0),
        ] {
            let argument = of_query(&p, query).unwrap().unwrap();
            assert_eq!(argument, Argument::Integer(number));
            argument.with_text(|text| assert_eq!(text, number.to_string()));
        }
        for query in [
            "p=101",
            "p=-6",
            "p=1.5",
            "p=+7",
            "p=%2B7",
            "p=7x",
            "p=-",
            "p=99999999999999999999",
        ] {
            assert_eq!(of_query(&p, query), Err(Wrong::NotValid), "{query}");
        }
        let least = Argument::Integer(i64::MIN).with_text(str::to_owned);
        assert_eq!(least, i64::MIN.to_string());
    }

    #[test]
    fn a_path_keeps_its_plus_and_defaults_stand_in() {
        let p = text(&[]);
        let mut router = matchit::Router::new();
        router.insert("/{p}", ()).unwrap();
        let found = router.at("/a+%62").unwrap();
        let arguments = Arguments {
            path: &found.params,
            query: "p=zzz",
        };
        assert_eq!(
            read(&p, None, arguments).unwrap(),
            Some(Argument::Text("a+b".into()))
        );
        let p = ParamSettings {
            default: Some(ParamValue::Text("d".into())),
            ..p
        };
        assert_eq!(of_query(&p, ""), Ok(Some(Argument::Text("d".into()))));
    }

    #[test]
    fn patterns_hold_for_the_whole_value() {
        let p = settings(ParamKind::Text {
            one_of: vec![],
            pattern: Some("[A-Z]+".into()),
            max_len: 9,
        });
        let pattern = regex_lite::Regex::new("^(?:[A-Z]+)$").unwrap();
        let read = |query| {
            let path = Box::leak(Box::default());
            read(&p, Some(&pattern), Arguments { path, query }).map_err(|bad| bad.to_string())
        };
        assert!(read("p=ABC").is_ok());
        assert_eq!(
            read("p=ABc").unwrap_err(),
            "parameter `p` is not valid; valid: text that matches [A-Z]+, of at most 9 characters"
        );
    }
}
