//! Paths that are spelled differently and mean the same.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// The path with unreserved characters unescaped (RFC 3986, section 6.2.2.2). Other escapes stay: a
/// slash within a value stays escaped. Copies nothing if the path has no `%`.
pub(crate) fn normalized(path: &str) -> Cow<'_, str> {
    if !path.contains('%') {
        return Cow::Borrowed(path);
    }
    let mut normalized = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = rest.find('%') {
        normalized.push_str(&rest[..at]);
        rest = &rest[at..];
        match unreserved(rest) {
            Some(character) => {
                normalized.push(character);
                rest = &rest[3..];
            }
            None => {
                normalized.push('%');
                rest = &rest[1..];
            }
        }
    }
    normalized.push_str(rest);
    Cow::Owned(normalized)
}

/// The normalized path and the query of a request path.
pub(crate) fn with_query(path: &str) -> (Cow<'_, str>, &str) {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    (normalized(path), query)
}

/// The character of the escape that `text` begins with, if no URL needs to escape it. A malformed
/// escape decodes to its `%`, which is none of these characters.
fn unreserved(text: &str) -> Option<char> {
    let character = percent_decode_str(text).next().map(char::from)?;
    (character.is_ascii_alphanumeric() || "-._~".contains(character)).then_some(character)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unreserved_characters_of_a_path_are_unescaped() {
        for (path, same) in [
            ("/articles", "/articles"),
            ("/%61rticles", "/articles"),
            ("/%41%5a%7E%2d%2E%5F%30", "/AZ~-._0"),
            // A slash, a percent sign, a space and a byte of a longer character stay escaped.
            ("/a%2Fb%25%20%C3%A9", "/a%2Fb%25%20%C3%A9"),
            // Decoded once, not again and again.
            ("/%2561", "/%2561"),
            // Malformed escapes.
            ("/%", "/%"),
            ("/%6", "/%6"),
            ("/%+1%zz%6", "/%+1%zz%6"),
            ("/%é%61", "/%éa"),
        ] {
            assert_eq!(normalized(path), same, "{path}");
        }
        assert!(matches!(normalized("/articles"), Cow::Borrowed(_)));
    }
}
