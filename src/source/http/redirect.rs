//! The target of a redirect: a URI reference, resolved against the target of the request (RFC 9110,
//! section 10.2.2; RFC 3986, section 5).
//!
//! Promise: it is never in another origin. The key in a header or a query is for one origin only.

use ureq::http::Uri;
use url::Url;

use crate::source::error::sanitized;
use larder_cache::Secret;

/// The target of `location`, in an answer from `from`.
///
/// # Errors
/// The other origin, fit for logs. The rest of the URL may repeat the query that was sent, so it is
/// left out.
pub(super) fn target(from: &Uri, location: &str, secrets: &[Secret]) -> Result<Uri, String> {
    let elsewhere = || "elsewhere".to_owned();
    let base = Url::parse(&from.to_string()).map_err(|_| elsewhere())?;
    let mut next = base.join(location).map_err(|_| elsewhere())?;
    next.set_fragment(None);
    let user = !next.username().is_empty() || next.password().is_some();
    if user || next.origin() != base.origin() {
        let host = next.host_str().ok_or_else(elsewhere)?;
        return Err(sanitized(&format!("{}://{host}", next.scheme()), secrets));
    }
    next.as_str().parse().map_err(|_| elsewhere())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(location: &str) -> Result<String, String> {
        let from = "http://h.example:81/v1/things/list?page=1&key=k3y";
        let next = target(&from.parse().unwrap(), location, &[Secret::new("k3y")]);
        next.map(|uri| uri.to_string())
    }

    #[test]
    fn references_are_resolved_against_the_target() {
        for (location, path) in [
            ("target", "/v1/things/target"),
            ("slash/", "/v1/things/slash/"),
            ("./x", "/v1/things/x"),
            ("../x", "/v1/x"),
            ("../../../x", "/x"),
            ("/x", "/x"),
            ("/x?a=b#c", "/x?a=b"),
            ("?page=2", "/v1/things/list?page=2"),
            ("#top", "/v1/things/list?page=1&key=k3y"),
            ("", "/v1/things/list?page=1&key=k3y"),
            ("//h.example:81/x", "/x"),
            ("http://h.example:81", "/"),
            ("HTTP://H.example:81/x", "/x"),
            ("a:b/c é", ""),
            ("a b/é", "/v1/things/a%20b/%C3%A9"),
        ] {
            if path.is_empty() {
                assert!(of(location).is_err(), "{location}");
            } else {
                let whole = format!("http://h.example:81{path}");
                assert_eq!(of(location), Ok(whole), "{location}");
            }
        }
    }

    proptest! {
        #[test]
        fn no_reference_leads_out_of_the_origin(location in "((https?:)?[/\\\\]{0,3})?([a-z.@:/\\\\?#%\\[\\] \t]{0,12}|h\\.example(:81|:8|@x)?[/\\\\@]?)") {
            if let Ok(next) = of(&location) {
                let next: Uri = next.parse().unwrap();
                prop_assert_eq!(next.scheme_str(), Some("http"));
                prop_assert_eq!(next.authority().unwrap().as_str(), "h.example:81");
            }
        }

        #[test]
        fn any_reference_is_survived(location in ".*") {
            let _ = of(&location);
        }
    }

    #[test]
    fn a_port_that_is_the_schemes_own_need_not_be_named() {
        let from = "https://h.example/x".parse().unwrap();
        let next = target(&from, "https://h.example:443/y", &[]).unwrap();
        assert_eq!(next.to_string(), "https://h.example/y");
    }

    #[test]
    fn another_origin_is_told_and_nothing_more_of_it() {
        for (location, told) in [
            ("http://other.example/a?key=k3y", "http://other.example"),
            ("//other.example:81/x", "http://other.example"),
            ("https://h.example:81/", "https://h.example"),
            ("http://h.example/", "http://h.example"),
            ("http://h.example:82/", "http://h.example"),
            ("http://user@h.example:81/", "http://h.example"),
            ("http://:word@h.example:81/", "http://h.example"),
            ("http://k3y.example/", "http://***.example"),
            ("\\\\other.example\\x", "http://other.example"),
            ("mailto:a@b.example", "elsewhere"),
            ("javascript:alert(1)", "elsewhere"),
            ("http://", "elsewhere"),
            ("http://a b/", "elsewhere"),
        ] {
            assert_eq!(of(location), Err(told.to_owned()), "{location}");
        }
    }
}
