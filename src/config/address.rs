//! Addresses: where larder listens, and the URLs of Redis, databases and upstreams.
//!
//! Promise: no error shows a URL, because an invalid URL may have its password in an unexpected
//! place.

use std::net::{Ipv4Addr, SocketAddr};

use ureq::http::Uri;

use crate::database::check_postgres_url;
use crate::quantity::{RATE_FORM, Rate};
use larder_cache::check_redis_url;

/// What [`is_bind`] accepts, for error messages.
pub const BIND_FORM: &str =
    "a host and a port such as \"127.0.0.1:8000\", \"[::1]:8000\" or \"localhost:8000\"";
const REDIS_FORM: &str = "redis://user:password@host:6379/0, or rediss:// for TLS, with special characters percent-encoded";
const SQLITE_FORM: &str = "sqlite://larder.db beside the process, or sqlite:///var/lib/larder.db";
const DATABASE_FORM: &str = "sqlite://FILE or postgres://user:password@host:5432/name";
const POSTGRES_FORM: &str = "postgres://user:password@host:5432/name, with special characters percent-encoded and sslmode one of disable, prefer, require, verify-ca, verify-full";
const BASE_FORM: &str = "http:// or https://, a host and perhaps a path";

/// What is wrong with a URL, and what would be valid.
pub(super) type Wrong = (String, &'static str);

/// Whether `text` is a host or an IP address, and a port. The host need not exist.
pub fn is_bind(text: &str) -> bool {
    if text.parse::<SocketAddr>().is_ok() {
        return true;
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        return false;
    };
    let labels = |host: &str| {
        host.split('.').all(|label| {
            !label.is_empty()
                && !label.starts_with('-')
                && label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-')
        })
    };
    // A host of digits and dots only must be an IP address.
    let numeric = host.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let host_is_fine = if numeric {
        host.parse::<Ipv4Addr>().is_ok()
    } else {
        host.len() <= 253 && labels(host)
    };
    host_is_fine && port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok()
}

/// The scheme of a URL, if it begins with one.
fn scheme(url: &str) -> Option<&str> {
    let (scheme, _) = url.split_once("://")?;
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.');
    (!scheme.is_empty() && scheme.len() <= 20 && scheme.bytes().all(plain)).then_some(scheme)
}

fn wrong_scheme(url: &str) -> String {
    match scheme(url) {
        Some(scheme) => format!("has the scheme {scheme}://"),
        None => "is not a URL".to_owned(),
    }
}

pub(super) fn check_redis(url: &str) -> Result<(), Wrong> {
    if !matches!(scheme(url), Some("redis" | "rediss")) {
        return Err((wrong_scheme(url), REDIS_FORM));
    }
    check_redis_url(url).map_err(|what| (what, REDIS_FORM))
}

pub(super) fn check_database(url: &str) -> Result<(), Wrong> {
    match scheme(url) {
        Some("sqlite") => {
            let file = url.split_once("://").map_or("", |(_, file)| file);
            let problem = if file.is_empty() || file.starts_with(':') {
                "has no file name"
            } else if file.contains(['?', '#']) {
                "has an option or a fragment, and a SQLite URL takes none"
            } else if file.chars().any(char::is_control) {
                "has a control character, such as a line end"
            } else {
                return Ok(());
            };
            Err((problem.to_owned(), SQLITE_FORM))
        }
        Some("postgres" | "postgresql") => {
            check_postgres_url(url).map_err(|what| (what, POSTGRES_FORM))
        }
        _ => Err((wrong_scheme(url), DATABASE_FORM)),
    }
}

/// The base URL of an upstream, without a slash at the end.
pub(super) fn base_url(url: &str) -> Result<String, Wrong> {
    let wrong = |problem: &str| Err((problem.to_owned(), BASE_FORM));
    if !matches!(scheme(url), Some("http" | "https")) {
        return Err((wrong_scheme(url), BASE_FORM));
    }
    let Ok(uri) = url.parse::<Uri>() else {
        return wrong("is not a URL");
    };
    if uri.authority().is_some_and(|a| a.as_str().contains('@')) {
        return wrong("has a user or a password in it, where logs would show them");
    }
    if uri.query().is_some() || url.contains(['?', '#']) {
        return wrong("has a query or a fragment");
    }
    if uri.host().is_none_or(str::is_empty) {
        return wrong("has no host");
    }
    // Uri accepts any digits as a port, and has no port if the number is too large.
    let authority = uri.authority().map_or("", |a| a.as_str());
    let host = uri.host().unwrap_or_default();
    let port = authority.strip_prefix(host).unwrap_or_default();
    if !port.is_empty() && uri.port_u16().is_none_or(|port| port == 0) {
        return wrong("has no valid port");
    }
    Ok(url.trim_end_matches('/').to_owned())
}

/// A rate.
pub(super) fn rate(value: &super::reader::Setting<'_>) -> Option<Rate> {
    value.parse(RATE_FORM, |text| text.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binds() {
        for right in [
            "127.0.0.1:8000",
            "0.0.0.0:0",
            "[::1]:8000",
            "localhost:8000",
            "my-host.example:65535",
        ] {
            assert!(is_bind(right), "{right}");
        }
        for wrong in [
            "",
            "8000",
            ":8000",
            "127.0.0.1",
            "127.0.0:8000",
            "256.0.0.1:8000",
            "::1:8000",
            "localhost:",
            "localhost:65536",
            "localhost:+80",
            "local host:80",
            "a..b:80",
            "-a:80",
            "http://localhost:80",
        ] {
            assert!(!is_bind(wrong), "{wrong}");
        }
    }

    #[test]
    fn urls_of_redis() {
        for right in [
            "redis://127.0.0.1:6379",
            "rediss://user:pa%20ss@cache.example:6380/2",
            "redis://:hunter2@[::1]",
        ] {
            assert_eq!(check_redis(right), Ok(()), "{right}");
        }
        for wrong in [
            "127.0.0.1:6379",
            "http://user:hunter2@host",
            "redis://",
            "redis://:hunter2@host/zero",
            "redis://:hunter2@host/-1",
            "redis://:hunter2@host:port",
            "rediss://:hunter2@host/#insecure",
            "redis://0.0.0.0",
            "valkey://host",
        ] {
            let (problem, valid) = check_redis(wrong).unwrap_err();
            assert!(!format!("{problem}{valid}").contains("hunter2"), "{wrong}");
        }
    }

    #[test]
    fn urls_of_databases() {
        for right in [
            "sqlite://larder.db",
            "sqlite:///var/lib/larder.db",
            "postgres://user:hunter2@host/name",
            "postgresql://host:5433/name?sslmode=require",
            "postgres://a,b/name",
        ] {
            assert_eq!(check_database(right), Ok(()), "{right}");
        }
        for wrong in [
            "larder.db",
            "sqlite://",
            "sqlite:larder.db",
            "sqlite://:memory:",
            "sqlite://larder.db?mode=ro",
            "mysql://user:hunter2@host/name",
            "postgres://",
            "postgres://user:hunter2@host/name?sslmode=verify-most",
            "postgres://user:hunter2@host/name?hunter2=1",
            "host=h user=u password=hunter2",
        ] {
            let (problem, valid) = check_database(wrong).unwrap_err();
            assert!(!format!("{problem}{valid}").contains("hunter2"), "{wrong}");
        }
    }

    #[test]
    fn urls_of_upstreams() {
        assert_eq!(
            base_url("https://newsapi.org/v2/").as_deref(),
            Ok("https://newsapi.org/v2")
        );
        assert_eq!(
            base_url("http://127.0.0.1:9000").as_deref(),
            Ok("http://127.0.0.1:9000")
        );
        assert_eq!(
            base_url("http://[::1]:9/v2").as_deref(),
            Ok("http://[::1]:9/v2")
        );
        for wrong in [
            "newsapi.org/v2",
            "ftp://newsapi.org",
            "https://",
            "https:///v2",
            "https://user:hunter2@newsapi.org",
            "https://newsapi.org/v2?apiKey=hunter2",
            "https://newsapi.org/v2?",
            "https://newsapi.org/v2#hunter2",
            "https://news api.org",
            "https://newsapi.org:99999",
            "https://newsapi.org:",
            "https://newsapi.org:0",
        ] {
            let (problem, valid) = base_url(wrong).unwrap_err();
            assert!(!format!("{problem}{valid}").contains("hunter2"), "{wrong}");
        }
    }
}
