//! Checks the URL of a Redis. Errors never quote the URL: it can hold a password.
//!
//! Promise: everything that the client would silently ignore is refused: an unknown option, a
//! fragment, a line end.

use redis::IntoConnectionInfo;

/// The options that a `redis://` or `rediss://` URL may have.
const OPTIONS: &str = "protocol";

/// Checks the URL of a Redis server. An error contains no part of it, except the name of an option.
///
/// # Errors
/// What is wrong, such as `has the option "db", which is unknown`.
pub fn check_redis_url(url: &str) -> Result<(), String> {
    if url.chars().any(char::is_control) {
        return Err("has a control character, such as a line end".to_owned());
    }
    if url.contains('#') {
        return Err("has a fragment; a # in a password is written %23".to_owned());
    }
    let options = url.split_once('?').map_or("", |(_, options)| options);
    for option in options.split('&').filter(|option| !option.is_empty()) {
        let (name, _) = option.split_once('=').unwrap_or((option, ""));
        if name != OPTIONS {
            let named = unknown_option(name, options);
            return Err(format!(
                "{named}; the only one is {OPTIONS}, and the database number is the path, as in redis://host/1"
            ));
        }
    }
    match url.into_connection_info() {
        Ok(info) if info.redis_settings().db() < 0 => {
            Err("has a negative database number".to_owned())
        }
        Ok(_) => Ok(()),
        // The client's detail may hold a part of the URL.
        Err(_) => Err("is not a valid Redis URL".to_owned()),
    }
}

/// The error for the unknown option `name` among `options`. It quotes the name only if that cannot
/// be a part of an unescaped password: it has letters only, and no user information follows.
pub fn unknown_option(name: &str, options: &str) -> String {
    let is_plain = name.len() <= 32 && name.bytes().all(|b| b.is_ascii_alphabetic() || b == b'_');
    match is_plain && !name.is_empty() && !options.contains('@') {
        true => format!("has the option {name:?}, which is unknown"),
        false => "has an unknown option".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_be_ignored_is_refused() {
        for fine in [
            "redis://127.0.0.1:6379",
            "rediss://user:pa%20ss@cache.example:6380/2",
            "redis://:hunter2@[::1]?protocol=resp2",
        ] {
            assert_eq!(check_redis_url(fine), Ok(()), "{fine}");
        }
        for (url, part) in [
            ("redis://:hunter2@host?db=1", "the option \"db\""),
            (
                "redis://host/1?protocol=3&timeout=5",
                "the option \"timeout\"",
            ),
            (
                "redis://host?ssl_cert_reqs=none",
                "the option \"ssl_cert_reqs\"",
            ),
            ("redis://host?hunter2", "an unknown option"),
            ("redis://user:1?hunter=x@host", "an unknown option"),
            ("redis://:hunter2@host\n", "control character"),
            ("redis://:hunter2@ho\tst", "control character"),
            ("rediss://:hunter2@host/#insecure", "fragment"),
            ("redis://:hunter2@host/-1", "negative"),
            ("redis://:hunter2@host/zero", "not a valid"),
        ] {
            let error = check_redis_url(url).unwrap_err();
            assert!(error.contains(part) && !error.contains("hunter"), "{error}");
        }
    }
}
