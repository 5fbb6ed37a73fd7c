//! Escaping of URLs, and the texts that may not be sent in a path or a header.

use larder_cache::escape_into;
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};

/// What a URL cannot have anywhere.
const ILLEGAL: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'<')
    .add(b'>')
    .add(b'\\')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

/// Escapes a value.
pub(super) fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    escape_into(&mut escaped, text);
    escaped
}

/// Escapes no more than what a URL cannot have.
pub(super) fn made_legal(text: &str) -> String {
    utf8_percent_encode(text, ILLEGAL).to_string()
}

/// Whether a segment of the path, unescaped once, is `.` or `..`.
pub(super) fn climbs(path: &str) -> bool {
    let plain: Vec<u8> = percent_decode_str(path).collect();
    let mut segments = plain.split(|byte| matches!(byte, b'/' | b'\\'));
    segments.any(|segment| matches!(segment, b"." | b".."))
}

/// Whether a header can carry it (RFC 9110, section 5.5).
pub(super) fn fits_header(text: &str) -> bool {
    !text.chars().any(|c| c.is_control() && c != '\t')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_keeps_its_unreserved_characters_only() {
        assert_eq!(escaped("aZ09-._~"), "aZ09-._~");
        assert_eq!(escaped("a b/c%41+é&"), "a%20b%2Fc%2541%2B%C3%A9%26");
    }

    #[test]
    fn a_url_keeps_what_it_may_have() {
        let legal = "a/b?c=d&e=%41#!$'()*+,;:@[]";
        assert_eq!(made_legal(legal), legal);
        let illegal = made_legal(" \"<>\\^`{|}\u{7f}é");
        assert_eq!(illegal, "%20%22%3C%3E%5C%5E%60%7B%7C%7D%7F%C3%A9");
    }

    #[test]
    fn a_path_that_climbs_once_it_is_unescaped_is_found() {
        for path in ["/..", "/a/%2e%2E/b", "/a%2f..", "/a%5C..", "."] {
            assert!(climbs(path), "{path}");
        }
        for path in ["/...", "/a..b", "/%252e%252e", "/.well-known"] {
            assert!(!climbs(path), "{path}");
        }
    }
}
