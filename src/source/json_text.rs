//! The JSON text of a body: checked, but not parsed, so its bytes stay as they were sent.

use std::fmt;

use serde_json::value::RawValue;

/// Levels of nested arrays and objects, at most. Most JSON parsers recurse, so they have a limit.
const MOST_LEVELS: usize = 512;

/// Why a body is not usable JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoJson {
    /// It is not valid JSON.
    Invalid,
    /// It is nested too deeply.
    TooDeep,
}

impl fmt::Display for NoJson {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NoJson::Invalid => f.write_str("invalid JSON"),
            NoJson::TooDeep => write!(f, "JSON nested more than {MOST_LEVELS} levels deep"),
        }
    }
}

/// The JSON text of a body, without white space around it (RFC 8259, section 2). A byte order mark
/// is allowed (section 8.1).
pub(super) fn json_text(body: &[u8]) -> Result<&str, NoJson> {
    let text = std::str::from_utf8(body).map_err(|_| NoJson::Invalid)?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let text: &RawValue = serde_json::from_str(text).map_err(|_| NoJson::Invalid)?;
    let text = text.get();
    if levels(text) > MOST_LEVELS {
        return Err(NoJson::TooDeep);
    }
    Ok(text)
}

/// The depth of this JSON.
fn levels(json: &str) -> usize {
    let (mut level, mut deepest) = (0_usize, 0);
    let mut bytes = json.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'[' | b'{' => {
                level += 1;
                deepest = deepest.max(level);
            }
            b']' | b'}' => level = level.saturating_sub(1),
            b'"' => {
                // To the end of the string. A quote after a backslash does not end it.
                while let Some(within) = bytes.next() {
                    match within {
                        b'"' => break,
                        b'\\' => drop(bytes.next()),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_told_from_what_is_none() {
        for (body, whole) in [
            (&b"\xef\xbb\xbf {\"a\":1}\n"[..], Some("{\"a\":1}")),
            (b"null", Some("null")),
            (
                b"[1.0, 1e400, 12345678901234567890123]",
                Some("[1.0, 1e400, 12345678901234567890123]"),
            ),
            (b"\"\\ud800\"", Some("\"\\ud800\"")),
            (b"", None),
            (b" ", None),
            (b"\xef\xbb\xbf", None),
            (b"\xef\xbb\xbf\xef\xbb\xbf1", None),
            (b"\xff\xfe1\0", None),
            (b"{\"a\":1", None),
            (b"{\"a\":1}{}", None),
            (b"<html>", None),
            (b"\"\xff\"", None),
            (b"\"\n\"", None),
            (b"\"\\ud8\"", None),
            (b"[1,]", None),
            (b"01", None),
            (b"{\"a\":NaN}", None),
        ] {
            let expected = whole.ok_or(NoJson::Invalid);
            assert_eq!(
                json_text(body),
                expected,
                "{}",
                String::from_utf8_lossy(body)
            );
        }
    }

    #[test]
    fn nesting_has_a_limit() {
        let arrays = |levels| format!("{}1{}", "[".repeat(levels), "]".repeat(levels));
        let objects = |levels| format!("{}1{}", "{\"a\":".repeat(levels), "}".repeat(levels));
        for nested in [&arrays as &dyn Fn(usize) -> String, &objects] {
            let (most, deeper) = (nested(MOST_LEVELS), nested(MOST_LEVELS + 1));
            assert_eq!(json_text(most.as_bytes()), Ok(&*most));
            assert_eq!(json_text(deeper.as_bytes()), Err(NoJson::TooDeep));
        }
        assert_eq!(
            json_text(arrays(2_000_000).as_bytes()),
            Err(NoJson::TooDeep)
        );
        // Side by side, and within texts, they are not nested.
        let flat = format!("[{}{{}}]", "[],".repeat(1000));
        assert_eq!(levels(&flat), 2);
        let text = format!(r#"["\"{}\\",[]]"#, "[{".repeat(1000));
        assert_eq!(levels(&text), 2);
    }
}
