//! A parameter of a resource: its valid value in a request or in a tag, in its one spelling.
//!
//! Promise: nothing is allocated for a plain value. A declared parameter that is repeated, empty or
//! not valid is an error that names it and says what is valid. Query parameters that are not
//! declared are ignored, unless the resource refuses them. Members of a body that are no parameter
//! are refused always.

use std::borrow::Cow;

use regex_lite::Regex;

use super::argument::{
    Argument, Arguments, BadParameter, Given, ParamValue, Plus, Wrong, unescape,
};
use super::canonical::{ParamType, whole_number};
use super::members::{Member, Members, Repeated};
use super::settings::{ParamKind, ParamSettings};

/// A parameter, ready to be read.
pub(super) struct Param {
    pub(super) settings: ParamSettings,
    /// What its whole value matches.
    pattern: Option<Regex>,
    /// Whether a text may have several lines outside a body, too.
    lines: bool,
    /// How the database takes it, if a statement does.
    pub(super) sql_type: Option<ParamType>,
}

impl Param {
    /// `lines`: a text may have line feeds, carriage returns and tabs.
    ///
    /// # Errors
    /// If the pattern is not a regular expression. A checked configuration has none such.
    pub(super) fn new(
        settings: &ParamSettings,
        lines: bool,
        sql_type: Option<ParamType>,
    ) -> Result<Param, String> {
        Ok(Param {
            pattern: settings.kind.compiled()?,
            settings: settings.clone(),
            lines,
            sql_type,
        })
    }

    /// Its value in a request, or its default.
    #[inline]
    pub(super) fn read<'q>(
        &'q self,
        arguments: Arguments<'q>,
    ) -> Result<Option<Argument<'q>>, BadParameter> {
        let name = &self.settings.name;
        let query = match arguments.given {
            Given::Query(query) => query,
            Given::Body(members) if !arguments.has_in_path(name) => return self.of_body(members),
            Given::Body(_) => "",
        };
        let bad = |wrong| self.bad(wrong);
        let Some(text) = arguments.find(query, name).map_err(bad)? else {
            return self.missing();
        };
        if text.is_empty() {
            return Err(bad(Wrong::Empty));
        }
        let parsed = self.parse(text).ok_or_else(|| bad(Wrong::NotValid))?;
        Ok(Some(self.spelled(parsed)))
    }

    /// Its value among the members of a body, which has the declared type, or its default.
    #[inline(never)]
    fn of_body<'q>(
        &'q self,
        members: &'q Members<'q>,
    ) -> Result<Option<Argument<'q>>, BadParameter> {
        let found = members.find(&self.settings.name);
        let Some(member) = found.map_err(|Repeated| self.bad(Wrong::Repeated))? else {
            return self.missing();
        };
        let kind = &self.settings.kind;
        let value = match (kind, member) {
            (ParamKind::Text { .. }, Member::Text(text)) => {
                // In a body a text may always have several lines. A part of what is read by body
                // may have no method of its own.
                let fits = kind.takes(text, self.pattern.as_ref(), true);
                fits.then(|| Argument::Text(Cow::Borrowed(text)))
            }
            (ParamKind::Integer { min, max }, Member::Number(digits)) => {
                let number = whole_number(digits).filter(|number| (min..=max).contains(&number));
                number.map(Argument::Integer)
            }
            (ParamKind::Boolean, Member::Boolean(yes)) => Some(Argument::Boolean(*yes)),
            _ => None,
        };
        let value = value.ok_or_else(|| {
            let mut bad = self.bad(Wrong::NotValid);
            if let (ParamKind::Text { .. }, Member::Text(text)) = (kind, member)
                && text.contains(|c: char| c.is_control() && !matches!(c, '\n' | '\r' | '\t'))
            {
                bad.valid += ", without control characters other than line feeds and tabs";
            }
            bad
        })?;
        Ok(Some(self.spelled(value)))
    }

    /// Its default, for a request without it.
    #[inline]
    fn missing(&self) -> Result<Option<Argument<'_>>, BadParameter> {
        let default = self.settings.default.as_ref();
        if default.is_none() && self.settings.required {
            return Err(self.bad(Wrong::Missing));
        }
        Ok(default.map(|value| self.spelled(argument_of(value))))
    }

    #[cold]
    fn bad(&self, wrong: Wrong) -> BadParameter {
        BadParameter {
            name: self.settings.name.clone(),
            wrong,
            valid: self.settings.kind.to_string(),
        }
    }

    /// The value of an unescaped text. `None`: it is not valid. Every request runs this; a call
    /// would move the value twice.
    #[inline(always)]
    fn parse<'q>(&self, text: Cow<'q, str>) -> Option<Argument<'q>> {
        match &self.settings.kind {
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
            kind @ ParamKind::Text { .. } => {
                let fits = kind.takes(&text, self.pattern.as_ref(), self.lines);
                fits.then_some(Argument::Text(text))
            }
        }
    }

    /// Its value in a tag, escaped or not. `None`: no request can have this value.
    pub(super) fn of_tag<'q>(&self, text: &'q str) -> Option<Argument<'q>> {
        if let Some(value) = self.parse_tag(text) {
            return Some(self.spelled(value));
        }
        // The declaration may allow the canonical spelling alone, and the tag may have another.
        let canonical = self.sql_type.as_ref()?.spelling?.canonical(text)?;
        Some(self.parse_tag(&canonical)?.into_owned())
    }

    #[inline(never)]
    fn parse_tag<'q>(&self, text: &'q str) -> Option<Argument<'q>> {
        self.parse(unescape(text, Plus::Itself).filter(|text| !text.is_empty())?)
    }

    /// The value in its canonical spelling.
    #[inline(always)]
    fn spelled<'q>(&self, argument: Argument<'q>) -> Argument<'q> {
        let spelling = self.sql_type.as_ref().and_then(|known| known.spelling);
        match (argument, spelling) {
            (Argument::Text(text), Some(spelling)) => {
                let canonical = spelling.canonical(&text);
                Argument::Text(canonical.map_or(text, Into::into))
            }
            (argument, _) => argument,
        }
    }
}

fn argument_of(value: &ParamValue) -> Argument<'_> {
    match value {
        Argument::Text(text) => Argument::Text(Cow::Borrowed(text)),
        Argument::Integer(number) => Argument::Integer(*number),
        Argument::Boolean(yes) => Argument::Boolean(*yes),
    }
}

/// Checks that the query or the body has only parameters in `declared`, and none of the path's.
/// Kept out of line: resources that do not refuse unknown parameters must not pay for it.
///
/// # Errors
/// The first other parameter.
#[cold]
#[inline(never)]
pub(super) fn check_known(
    declared: &[ParamSettings],
    arguments: Arguments<'_>,
) -> Result<(), BadParameter> {
    let is_declared = |name: &str| {
        !arguments.has_in_path(name) && declared.iter().any(|param| param.name == name)
    };
    let (unknown, none) = match arguments.given {
        Given::Query(_) => {
            let mut names = arguments.query_names();
            let unknown = names.find_map(|(raw, name)| match name {
                Some(name) => (!is_declared(&name)).then(|| name.into_owned()),
                None => Some(raw.to_owned()),
            });
            (unknown, "no parameter in the query")
        }
        Given::Body(members) => {
            let unknown = members.names().find(|name| !is_declared(name));
            (unknown.map(str::to_owned), "an object without members")
        }
    };
    let Some(name) = unknown else { return Ok(()) };
    let names = declared.iter().map(|param| &*param.name);
    let names: Vec<_> = names.filter(|name| is_declared(name)).collect();
    let valid = match names.as_slice() {
        [] => none.to_owned(),
        some => some.join(", "),
    };
    let wrong = Wrong::Unknown;
    Err(BadParameter { name, wrong, valid })
}

/// Checks the query of a read whose parameters are in its body: it has none of them.
///
/// # Errors
/// The first one that is there.
pub(super) fn check_query_beside_body(
    declared: &[ParamSettings],
    arguments: Arguments<'_>,
) -> Result<(), BadParameter> {
    let names = arguments.query_names().filter_map(|(_, name)| name);
    let mut misplaced = names.filter(|name| {
        !arguments.has_in_path(name) && declared.iter().any(|param| param.name == **name)
    });
    match misplaced.next() {
        None => Ok(()),
        Some(name) => Err(BadParameter {
            name: name.into_owned(),
            wrong: Wrong::InQuery,
            valid: "a member of the body".to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready(settings: &ParamSettings) -> Param {
        Param::new(settings, false, None).unwrap()
    }

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
        let param = Box::leak(Box::new(ready(settings)));
        let given = Given::Query(query);
        let read = param.read(Arguments { path, given });
        read.map_err(|bad| bad.wrong)
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
    }

    #[test]
    fn a_path_keeps_its_plus_and_defaults_stand_in() {
        let p = text(&[]);
        let mut router = matchit::Router::new();
        router.insert("/{p}", ()).unwrap();
        let found = router.at("/a+%62").unwrap();
        let arguments = Arguments {
            path: &found.params,
            given: Given::Query("p=zzz"),
        };
        assert_eq!(
            ready(&p).read(arguments).unwrap(),
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
        let param = ready(&p);
        let read = |query| {
            let path = Box::leak(Box::default());
            let given = Given::Query(query);
            let read = param.read(Arguments { path, given });
            read.map_err(|bad| bad.to_string())
        };
        assert!(read("p=ABC").is_ok());
        assert_eq!(
            read("p=ABc").unwrap_err(),
            "parameter `p` is not valid; valid: text that matches [A-Z]+, of at most 9 characters"
        );
    }
}
