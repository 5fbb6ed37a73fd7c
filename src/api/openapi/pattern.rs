//! The regular expressions of the configuration in the dialect of JSON Schema (ECMA 262).
//!
//! Promise: the translation matches exactly the texts that larder accepts. Larder's dialect is
//! ASCII for `\d`, `\w` and `\s`. No text has a control character, or none but line breaks and
//! tabs. A pattern that has no translation is left out of the schema.

use std::iter::Peekable;
use std::str::Chars;

use crate::resource::ReadMethods;

/// Which control characters a text may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Texts {
    /// None.
    OneLine,
    /// Line feed, carriage return and tab: in the parameters of a resource that is read by body.
    Lines,
}

impl Texts {
    /// Those of the parameters of a resource that is read by these methods.
    pub(super) fn of_params(read: ReadMethods) -> Texts {
        match read.has_body() {
            true => Texts::Lines,
            false => Texts::OneLine,
        }
    }

    /// The control characters that a text cannot have, within brackets.
    fn refused(self) -> &'static str {
        match self {
            Texts::OneLine => r"\x00-\x1f\x7f-\x9f",
            Texts::Lines => r"\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f",
        }
    }

    /// What `\s` means, within brackets.
    fn spaces(self) -> &'static str {
        match self {
            Texts::OneLine => " ",
            Texts::Lines => r" \t\n\r",
        }
    }

    /// What `.` means, within brackets that exclude: it is no line feed.
    fn dot(self) -> &'static str {
        match self {
            Texts::OneLine => "",
            Texts::Lines => r"\n",
        }
    }

    /// What a text without a pattern matches.
    pub(super) fn any(self) -> String {
        format!("^[^{}]*$", self.refused())
    }
}

/// What every text of Postgres matches: no NUL character.
pub(super) const WITHOUT_NUL: &str = r"^[^\x00]*$";

/// A decimal that is written as a string, or one of the three values that are no number.
pub(super) const DECIMAL: &str =
    r"^(?:-?[0-9]+(?:\.[0-9]+)?(?:[eE][-+]?[0-9]{1,4})?|NaN|-?Infinity)$";

/// Base64 in the standard alphabet (RFC 4648, section 4), padded. The bits that the last character
/// has too many are zero.
pub(super) const BASE64: &str = "^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/][AQgw]==\
    |[A-Za-z0-9+/]{2}[AEIMQUYcgkosw048]=)?$";

/// The pattern of a whole value. `None`: it cannot be said in this dialect.
pub(super) fn translated(pattern: &str, texts: Texts) -> Option<String> {
    let mut out = "^(?:".to_owned();
    let mut rest = pattern.chars().peekable();
    while let Some(next) = rest.next() {
        match next {
            '\\' => out.push_str(&escape(&mut rest, texts)?),
            '[' => class(&mut rest, &mut out, texts)?,
            '.' => out.push_str(&format!("[^{}{}]", texts.dot(), texts.refused())),
            '(' => group(&mut rest, &mut out)?,
            other => out.push(other),
        }
    }
    out.push_str(")$");
    Some(out)
}

/// A group without flags. A name is written `(?<name>`.
fn group(rest: &mut Peekable<Chars<'_>>, out: &mut String) -> Option<()> {
    out.push('(');
    if rest.next_if_eq(&'?').is_none() {
        return Some(());
    }
    out.push('?');
    rest.next_if_eq(&'P');
    let kind = rest.next_if(|next| matches!(next, ':' | '<'))?;
    out.push(kind);
    Some(())
}

/// An escape outside brackets.
fn escape(rest: &mut Peekable<Chars<'_>>, texts: Texts) -> Option<String> {
    let (refused, spaces) = (texts.refused(), texts.spaces());
    Some(match rest.next()? {
        'd' => "[0-9]".to_owned(),
        'w' => "[0-9A-Za-z_]".to_owned(),
        's' => format!("[{spaces}]"),
        'D' => format!("[^0-9{refused}]"),
        'W' => format!("[^0-9A-Za-z_{refused}]"),
        'S' => format!("[^{spaces}{refused}]"),
        'A' => "^".to_owned(),
        'z' => "$".to_owned(),
        word @ ('b' | 'B') if rest.peek() != Some(&'{') => format!("\\{word}"),
        other => literal(other, rest)?,
    })
}

/// An escape that means one character, inside brackets or outside.
fn literal(escaped: char, rest: &mut Peekable<Chars<'_>>) -> Option<String> {
    match escaped {
        'n' | 'r' | 't' | 'f' | 'v' => Some(format!("\\{escaped}")),
        'x' => {
            let digits: String = std::iter::from_fn(|| rest.next_if(char::is_ascii_hexdigit))
                .take(2)
                .collect();
            (digits.len() == 2).then(|| format!("\\x{digits}"))
        }
        special if r"^$\.*+?()[]{}|/-".contains(special) => Some(format!("\\{special}")),
        plain if plain.is_ascii_punctuation() => Some(plain.to_string()),
        _ => None,
    }
}

/// A class in brackets, after its opening one.
fn class(rest: &mut Peekable<Chars<'_>>, out: &mut String, texts: Texts) -> Option<()> {
    out.push('[');
    if rest.next_if_eq(&'^').is_some() {
        out.push('^');
        out.push_str(texts.refused());
    }
    let mut is_first = true;
    loop {
        match rest.next()? {
            ']' if !is_first => break,
            ']' => out.push_str("\\]"),
            '[' if rest.peek() == Some(&':') => return None,
            '[' => out.push_str("\\["),
            '\\' => match rest.next()? {
                'd' => out.push_str("0-9"),
                'w' => out.push_str("0-9A-Za-z_"),
                's' => out.push_str(texts.spaces()),
                other => out.push_str(&literal(other, rest)?),
            },
            other => out.push(other),
        }
        is_first = false;
    }
    out.push(']');
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_mean_the_same_in_both_dialects() {
        for (pattern, expected) in [
            ("[A-Z]{1,5}", Some("^(?:[A-Z]{1,5})$")),
            (
                r"[^@\s]+@[^@\s]+",
                Some(r"^(?:[^\x00-\x1f\x7f-\x9f@ ]+@[^\x00-\x1f\x7f-\x9f@ ]+)$"),
            ),
            (r"\d+|\w*", Some("^(?:[0-9]+|[0-9A-Za-z_]*)$")),
            (r"a.b\.", Some(r"^(?:a[^\x00-\x1f\x7f-\x9f]b\.)$")),
            (r"[]\]x-]", Some(r"^(?:[\]\]x-])$")),
            (r"\@\-\x41", Some(r"^(?:@\-\x41)$")),
            (
                r"(?P<year>\d{4})(?:-x)?",
                Some(r"^(?:(?<year>[0-9]{4})(?:-x)?)$"),
            ),
            (r"\Aab\z", Some("^(?:^ab$)$")),
            ("(?i)abc", None),
            ("[[:alpha:]]", None),
            (r"\x{e4}", None),
            (r"[\D]", None),
            (r"\b{start}", None),
        ] {
            let translated = translated(pattern, Texts::OneLine);
            assert_eq!(translated.as_deref(), expected, "{pattern}");
        }
    }

    #[test]
    fn a_translation_takes_the_line_breaks_that_the_pattern_takes() {
        let texts = [
            "", "a", "a b", "a\nb", "a\rb", "a\tb", "\n", "a\u{0}", "a\u{b}", "7\n7",
        ];
        for pattern in [
            r"a.b",
            r"a\sb",
            r"\S+",
            r"\D+",
            r"\W+",
            r"[^a]+",
            r"[a\s]+b?",
            r"[^\s]+",
            ".*",
        ] {
            let theirs = translated(pattern, Texts::Lines).unwrap();
            let theirs = regex_lite::Regex::new(&theirs).unwrap();
            let ours = regex_lite::Regex::new(&format!("^(?:{pattern})$")).unwrap();
            for text in texts {
                let refused = text.contains(['\u{0}', '\u{b}']);
                let taken = ours.is_match(text) && !refused;
                assert_eq!(theirs.is_match(text), taken, "{pattern} {text:?}");
            }
        }
        assert!(
            regex_lite::Regex::new(&Texts::Lines.any())
                .unwrap()
                .is_match("a\n")
        );
    }
}
