//! The regular expressions of the configuration in the dialect of JSON Schema (ECMA 262).
//!
//! Promise: the translation matches exactly the texts that larder accepts. Larder's dialect is
//! ASCII for `\d`, `\w` and `\s`, and no parameter has a control character. A pattern that has no
//! translation is left out of the schema.

use std::iter::Peekable;
use std::str::Chars;

/// The control characters, within brackets.
const CONTROL: &str = r"\x00-\x1f\x7f-\x9f";

/// What a text without a pattern matches: no control character.
pub(super) fn any_text() -> String {
    format!("^[^{CONTROL}]*$")
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
pub(super) fn translated(pattern: &str) -> Option<String> {
    let mut out = "^(?:".to_owned();
    let mut rest = pattern.chars().peekable();
    while let Some(next) = rest.next() {
        match next {
            '\\' => out.push_str(&escape(&mut rest)?),
            '[' => class(&mut rest, &mut out)?,
            '.' => out.push_str(&format!("[^{CONTROL}]")),
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
fn escape(rest: &mut Peekable<Chars<'_>>) -> Option<String> {
    Some(match rest.next()? {
        'd' => "[0-9]".to_owned(),
        'w' => "[0-9A-Za-z_]".to_owned(),
        's' => " ".to_owned(),
        'D' => format!("[^0-9{CONTROL}]"),
        'W' => format!("[^0-9A-Za-z_{CONTROL}]"),
        'S' => format!("[^ {CONTROL}]"),
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
fn class(rest: &mut Peekable<Chars<'_>>, out: &mut String) -> Option<()> {
    out.push('[');
    if rest.next_if_eq(&'^').is_some() {
        out.push('^');
        out.push_str(CONTROL);
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
                's' => out.push(' '),
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
            assert_eq!(translated(pattern).as_deref(), expected, "{pattern}");
        }
    }
}
