//! Paths of resources: `/users/{id}`.
//!
//! An ambiguous path is an error: one that another resource has with other parameter names, and one
//! that begins like a route of larder's own.

use super::wording::quoted;

/// The first segments of larder's own routes.
const OWN: [&str; 8] = [
    "cache",
    "dashboard",
    "docs",
    "healthz",
    "keys",
    "metrics",
    "openapi.json",
    "readyz",
];

/// Whether the first segment of this request path is one of larder's own routes.
pub fn is_own(path: &str) -> bool {
    let path = path.strip_prefix('/').unwrap_or(path);
    let first = path.split('/').next().unwrap_or_default();
    OWN.contains(&first)
}

const PATH_FORM: &str = "a path such as \"/articles\" or \"/users/{id}\"";

/// Whether it is a valid name of a resource or parameter. Names stand in keys without escapes.
pub(super) fn is_name(name: &str) -> bool {
    name.len() <= 64
        && name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
}

/// The name of the parameter, if the segment is one.
fn param(segment: &str) -> Option<&str> {
    segment
        .strip_prefix('{')?
        .strip_suffix('}')
        .filter(|name| is_name(name))
}

/// The names of the path's parameters. Or what is wrong with the path, and what would be valid.
pub(super) fn params(path: &str) -> Result<Vec<&str>, (String, String)> {
    let wrong = |why: &str| Err((format!("is {}{why}", quoted(path)), PATH_FORM.to_owned()));
    let Some(rest) = path.strip_prefix('/') else {
        return wrong(", which does not begin with \"/\"");
    };
    if path.len() > 500 {
        return wrong(", longer than 500 characters");
    }
    if rest.is_empty() {
        return Ok(Vec::new());
    }
    let mut names: Vec<&str> = Vec::new();
    for segment in rest.split('/') {
        if segment.is_empty() {
            return wrong(", which has an empty segment or a \"/\" at its end");
        }
        if let Some(name) = param(segment) {
            if names.contains(&name) {
                return wrong(", which has a parameter twice");
            }
            names.push(name);
        } else if segment.contains(['{', '}']) {
            return wrong(", where a parameter is not a whole segment or has no valid name");
        } else if matches!(segment, "." | "..") {
            return wrong(", which has a \".\" or \"..\" segment");
        } else if !segment
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~'))
        {
            return wrong(", which has a character that would be escaped");
        }
    }
    if is_own(path) {
        return Err((
            format!("is {}, which is reserved for larder", quoted(path)),
            format!(
                "a path that does not begin with one of {}",
                OWN.map(|name| format!("/{name}")).join(", ")
            ),
        ));
    }
    Ok(names)
}

/// The path without the names of its parameters. Two paths of one shape match the same requests.
pub(super) fn shape(path: &str) -> String {
    path.split('/')
        .map(|segment| {
            if param(segment).is_some() {
                "{}"
            } else {
                segment
            }
        })
        .collect::<Vec<_>>()
        .join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        assert_eq!(params("/articles"), Ok(vec![]));
        assert_eq!(params("/"), Ok(vec![]));
        assert_eq!(params("/a/{x}/b.c/{y-1}"), Ok(vec!["x", "y-1"]));
        assert_eq!(params("/cached"), Ok(vec![]));
        for wrong in [
            "",
            "articles",
            "/a/",
            "//a",
            "/a/{x}.json",
            "/a/{}",
            "/a/{x",
            "/a/{1x}",
            "/{x}/{x}",
            "/a b",
            "/a/../b",
            "/a?b=c",
            "/ä",
            "/cache",
            "/cache/x",
            "/keys/{id}",
            "/healthz",
            "/readyz",
            "/metrics",
            "/docs/x",
            "/openapi.json",
            "/dashboard",
        ] {
            assert!(params(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn shapes() {
        assert_eq!(shape("/a/{x}"), shape("/a/{y}"));
        assert_ne!(shape("/a/{x}"), shape("/a/x"));
        assert_ne!(shape("/a/{x}"), shape("/{x}/a"));
    }
}
