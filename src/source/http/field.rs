//! A header field with all its lines.

use ureq::http::HeaderMap;

/// All lines of a header, as one list (RFC 9110, section 5.3).
pub(in crate::source) fn list(headers: &HeaderMap, name: &str) -> String {
    let lines = headers.get_all(name).iter();
    let lines = lines.map(|value| String::from_utf8_lossy(value.as_bytes()));
    lines.collect::<Vec<_>>().join(",")
}
