//! The URL of a Postgres database: its address, and its TLS settings.
//!
//! Promise: no error quotes the URL, which holds a password. An ambiguous URL is refused.

use percent_encoding::percent_decode_str;
use postgres::Config;
use postgres::config::SslMode;

use super::tls::Verification;
use larder_cache::unknown_option;

/// The options that a URL may have: first larder's own, then those of the client.
const OPTIONS: [&str; 20] = [
    "sslmode",
    "sslrootcert",
    "application_name",
    "channel_binding",
    "connect_timeout",
    "dbname",
    "host",
    "hostaddr",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_retries",
    "load_balance_hosts",
    "options",
    "password",
    "port",
    "sslnegotiation",
    "target_session_attrs",
    "tcp_user_timeout",
    "user",
];

/// Reads `sslmode` and `sslrootcert` itself, because the client knows fewer modes than libpq, and
/// leaves the rest to the client. Errors with what is wrong, such as `names no host`.
pub(super) fn parse(url: &str) -> Result<(Config, Verification), String> {
    if url.chars().any(char::is_control) {
        return Err("has a control character, such as a line end".to_owned());
    }
    let (address, options) = url.split_once('?').unwrap_or((url, ""));
    // With a second @ the first one belongs to the password, and errors would quote the rest of the
    // password as a host name.
    if url.matches('@').count() > 1 {
        return Err(
            "has a second @: write @ : / ? # in a user name or password as %40 %3A %2F %3F %23"
                .to_owned(),
        );
    }
    let (mut mode, mut root) = ("prefer", None);
    let mut kept = String::new();
    for option in options.split('&').filter(|option| !option.is_empty()) {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        match name {
            "sslmode" => mode = value,
            "sslrootcert" => {
                let path = percent_decode_str(value).decode_utf8();
                root = Some(
                    path.map_err(|_| "has an sslrootcert that is not valid UTF-8")?
                        .into_owned(),
                );
            }
            _ if !OPTIONS.contains(&name) => {
                let named = unknown_option(name, options);
                return Err(format!("{named}; they are {}", OPTIONS.join(", ")));
            }
            _ => {
                kept.push(if kept.is_empty() { '?' } else { '&' });
                kept.push_str(option);
            }
        }
    }
    // Without the parser's own text, which could quote a part of an unescaped password.
    let mut config: Config = format!("{address}{kept}").parse().map_err(|_| {
        "is not a valid URL of the form postgres://user:password@host:5432/name?option=value, \
         or an option has no valid value"
    })?;
    if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
        return Err("names no host".to_owned());
    }
    let (mode, verification) = match mode {
        "disable" => (SslMode::Disable, Verification::Unverified),
        "prefer" => (SslMode::Prefer, Verification::Unverified),
        "require" => (
            SslMode::Require,
            root.map_or(Verification::Unverified, Verification::RootFile),
        ),
        "verify-ca" | "verify-full" => (
            SslMode::Require,
            match root {
                Some(path) if path != "system" => Verification::RootFile(path),
                _ => Verification::SystemRoots,
            },
        ),
        _ => {
            return Err(
                "has an unknown sslmode; they are disable, prefer, require, verify-ca, verify-full"
                    .to_owned(),
            );
        }
    };
    config.ssl_mode(mode);
    Ok((config, verification))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sslmode_says_whether_to_encrypt_and_whom_to_trust() {
        for (options, mode, verification) in [
            ("", SslMode::Prefer, Verification::Unverified),
            (
                "?sslmode=disable",
                SslMode::Disable,
                Verification::Unverified,
            ),
            (
                "?sslmode=require",
                SslMode::Require,
                Verification::Unverified,
            ),
            (
                "?sslmode=verify-full",
                SslMode::Require,
                Verification::SystemRoots,
            ),
            (
                "?sslmode=verify-full&sslrootcert=system",
                SslMode::Require,
                Verification::SystemRoots,
            ),
            (
                "?sslrootcert=%2Fca.pem&connect_timeout=3&sslmode=verify-ca",
                SslMode::Require,
                Verification::RootFile("/ca.pem".to_owned()),
            ),
        ] {
            let (config, found) = parse(&format!("postgres://u:p%40w@h/d{options}")).unwrap();
            assert_eq!(
                (config.get_ssl_mode(), found),
                (mode, verification),
                "{options}"
            );
            assert_eq!(config.get_password(), Some(&b"p@w"[..]));
            assert_eq!(config.get_dbname(), Some("d"));
        }
    }

    #[test]
    fn a_wrong_url_is_refused_without_its_password() {
        for url in [
            "postgres://u:hunter2@x@h/d",
            "postgres://u:hunter2/x@h/d@",
            "postgres://u:hunter2@h:port/d",
            "postgres://u:hunter2@h/d?ssl=true",
            "postgres://u:hunter2@h/d?sslmode=allow",
            "postgres://u:hunter2@/d",
            "postgres://",
        ] {
            let what = parse(url).unwrap_err();
            assert!(!what.contains("hunter2"), "{what}");
        }
        for (options, part) in [
            ("ssl=true", "the option \"ssl\""),
            (
                "sslmode=require&pool_max_conns=5",
                "the option \"pool_max_conns\"",
            ),
            ("sslmode=allow", "unknown sslmode"),
            ("connect_timeout=soon", "no valid value"),
            ("sslmode=require\n", "control character"),
        ] {
            let what = parse(&format!("postgres://u:hunter2@h/d?{options}")).unwrap_err();
            assert!(what.contains(part) && !what.contains("hunter2"), "{what}");
        }
    }
}
