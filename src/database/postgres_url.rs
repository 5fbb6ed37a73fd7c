//! The URL of a Postgres database: where it is, and whether to encrypt and whom to trust.
//!
//! Promise: no error quotes the URL, which holds a password. Refuses what could be read in two ways.

use postgres::Config;
use postgres::config::SslMode;

use super::error::DatabaseError;
use super::tls::Proof;

/// Takes `sslmode` and `sslrootcert` out of the URL, since the client knows fewer modes than libpq, and leaves it the rest.
pub(super) fn parse(url: &str) -> Result<(Config, Proof), DatabaseError> {
    let wrong = |what: &str| DatabaseError::Misconfigured(format!("the database URL: {what}"));
    let (address, options) = url.split_once('?').unwrap_or((url, ""));
    // A second @ means that the first was part of the password, and what follows it would be quoted as a host name.
    if url.matches('@').count() > 1 {
        return Err(wrong(
            "write @ : / ? # in a user name or password as %40 %3A %2F %3F %23",
        ));
    }
    let (mut mode, mut root) = ("prefer", None);
    let mut kept = String::new();
    for option in options.split('&').filter(|option| !option.is_empty()) {
        match option.split_once('=') {
            Some(("sslmode", value)) => mode = value,
            Some(("sslrootcert", value)) => {
                root = Some(value.replace("%2F", "/").replace("%2f", "/"))
            }
            _ => {
                kept.push(if kept.is_empty() { '?' } else { '&' });
                kept.push_str(option);
            }
        }
    }
    // The parser's own text is not shown: it could quote a part of a password that was not escaped.
    let mut config: Config = format!("{address}{kept}")
        .parse()
        .map_err(|_| wrong("not of the form postgres://user:password@host:5432/name?option=value, or an unknown option"))?;
    if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
        return Err(wrong("it names no host"));
    }
    let (mode, proof) = match mode {
        "disable" => (SslMode::Disable, Proof::Unasked),
        "prefer" => (SslMode::Prefer, Proof::Unasked),
        "require" => (
            SslMode::Require,
            root.map_or(Proof::Unasked, Proof::RootFile),
        ),
        "verify-ca" | "verify-full" => (
            SslMode::Require,
            match root {
                Some(path) if path != "system" => Proof::RootFile(path),
                _ => Proof::SystemRoots,
            },
        ),
        _ => {
            return Err(wrong(
                "sslmode is one of disable, prefer, require, verify-ca, verify-full",
            ));
        }
    };
    config.ssl_mode(mode);
    Ok((config, proof))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sslmode_says_whether_to_encrypt_and_whom_to_trust() {
        for (options, mode, proof) in [
            ("", SslMode::Prefer, Proof::Unasked),
            ("?sslmode=disable", SslMode::Disable, Proof::Unasked),
            ("?sslmode=require", SslMode::Require, Proof::Unasked),
            ("?sslmode=verify-full", SslMode::Require, Proof::SystemRoots),
            (
                "?sslmode=verify-full&sslrootcert=system",
                SslMode::Require,
                Proof::SystemRoots,
            ),
            (
                "?sslrootcert=%2Fca.pem&connect_timeout=3&sslmode=verify-ca",
                SslMode::Require,
                Proof::RootFile("/ca.pem".to_owned()),
            ),
        ] {
            let (config, found) = parse(&format!("postgres://u:p%40w@h/d{options}")).unwrap();
            assert_eq!((config.get_ssl_mode(), found), (mode, proof), "{options}");
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
            let Err(DatabaseError::Misconfigured(what)) = parse(url) else {
                panic!("{url}")
            };
            assert!(!what.contains("hunter2"), "{what}");
        }
    }
}
