//! Paths that are written differently and mean the same.

use std::borrow::Cow;

/// The path with what need not be escaped unescaped (RFC 3986, section 6.2.2.2). Nothing else is, so what is escaped for a reason,
/// such as a slash within a value, stays that. A path without `%` costs the look for one.
pub(crate) fn plain(path: &str) -> Cow<'_, str> {
    if !path.contains('%') {
        return Cow::Borrowed(path);
    }
    let mut plain = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = rest.find('%') {
        plain.push_str(&rest[..at]);
        rest = &rest[at..];
        match unreserved(rest) {
            Some(character) => {
                plain.push(character);
                rest = &rest[3..];
            }
            None => {
                plain.push('%');
                rest = &rest[1..];
            }
        }
    }
    plain.push_str(rest);
    Cow::Owned(plain)
}

/// A request path as people write it, in two: the path as [`plain`] has it, and the query.
pub(crate) fn with_query(path: &str) -> (Cow<'_, str>, &str) {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    (plain(path), query)
}

/// The character that the escape at the beginning of `text` stands for, if it is one that no URL needs to escape.
fn unreserved(text: &str) -> Option<char> {
    let digits = text.get(1..3)?;
    // The parser would take a sign as well.
    if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    let character = char::from(u8::from_str_radix(digits, 16).ok()?);
    (character.is_ascii_alphanumeric() || "-._~".contains(character)).then_some(character)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_need_not_be_escaped_is_not() {
        for (path, same) in [
            ("/articles", "/articles"),
            ("/%61rticles", "/articles"),
            ("/%41%5a%7E%2d%2E%5F%30", "/AZ~-._0"),
            // Each for a reason: a slash, a percent sign, a space, a byte of a longer character.
            ("/a%2Fb%25%20%C3%A9", "/a%2Fb%25%20%C3%A9"),
            // Once, not again and again.
            ("/%2561", "/%2561"),
            // No escapes at all.
            ("/%", "/%"),
            ("/%6", "/%6"),
            ("/%+1%zz%6", "/%+1%zz%6"),
            ("/%é%61", "/%éa"),
        ] {
            assert_eq!(plain(path), same, "{path}");
        }
        assert!(matches!(plain("/articles"), Cow::Borrowed(_)));
    }
}
