//! A parameter of a resource: its valid value in a request or in a tag, in its one spelling.
//!
//! Promise: nothing is allocated for a plain value. A declared parameter that is repeated, empty or
//! not valid is an error that names it and says what is valid. Query parameters that are not
//! declared are ignored, unless the resource refuses them.

use std::borrow::Cow;

use regex_lite::Regex;

use super::argument::{Argument, Arguments, BadParameter, ParamValue, Plus, Wrong, unescape};
use super::canonical::ParamType;
use super::settings::{ParamKind, ParamSettings};

/// A parameter, ready to be read.
pub(super) struct Param {
    pub(super) settings: ParamSettings,
    /// What its whole value matches.
    pattern: Option<Regex>,
    /// How the database takes it, if a statement does.
    pub(super) sql_type: Option<ParamType>,
}

impl Param {
    /// # Errors
    /// If the pattern is not a regular expression. A checked configuration has none such.
    pub(super) fn new(
        settings: &ParamSettings,
        sql_type: Option<ParamType>,
    ) -> Result<Param, String> {
        Ok(Param {
            pattern: settings.kind.compiled()?,
            settings: settings.clone(),
            sql_type,
        })
    }

    /// Its value in a request, or its default.
    #[inline]
    pub(super) fn read<'q>(
        &'q self,
        arguments: Arguments<'q>,
    ) -> Result<Option<Argument<'q>>, BadParameter> {
        let bad = |wrong| BadParameter {
            name: self.settings.name.clone(),
            wrong,
            valid: self.settings.kind.to_string(),
        };
        let Some(text) = arguments.find(&self.settings.name).map_err(bad)? else {
            let default = self.settings.default.as_ref();
            if default.is_none() && self.settings.required {
                return Err(bad(Wrong::Missing));
            }
            return Ok(default.map(|value| self.spelled(argument_of(value))));
        };
        if text.is_empty() {
            return Err(bad(Wrong::Empty));
        }
        let parsed = self.parse(text).ok_or_else(|| bad(Wrong::NotValid))?;
        Ok(Some(self.spelled(parsed)))
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
                let fits = kind.takes(&text, self.pattern.as_ref());
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

/// Checks that the query has only parameters in `declared`, and none of the path's. Kept out of
/// line: resources that do not refuse unknown parameters must not pay for it.
///
/// # Errors
/// The first other parameter.
#[cold]
#[inline(never)]
pub(super) fn check_known(
    declared: &[ParamSettings],
    arguments: Arguments<'_>,
) -> Result<(), BadParameter> {
    let of_query = |name: &str| arguments.path.get(name).is_none();
    for (raw, name) in arguments.query_names() {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn ready(settings: &ParamSettings) -> Param {
        Param::new(settings, None).unwrap()
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
        let read = param.read(Arguments { path, query });
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
            query: "p=zzz",
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
            let read = param.read(Arguments { path, query });
            read.map_err(|bad| bad.to_string())
        };
        assert!(read("p=ABC").is_ok());
        assert_eq!(
            read("p=ABc").unwrap_err(),
            "parameter `p` is not valid; valid: text that matches [A-Z]+, of at most 9 characters"
        );
    }
}
