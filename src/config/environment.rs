//! The environment, as a function that tests can replace.
//!
//! Invariant: an empty variable counts as not set, because `VAR=${VAR:-}` in a compose file makes
//! an empty one. White space and line ends around a value are removed, because `VAR=$(cat file)`
//! and editors leave them there.

use std::fmt::Display;
use std::net::Ipv6Addr;

use super::reader::Setting;
use crate::template::{Piece, Syntax, TemplateError, pieces};
use larder_cache::{Secret, escape_into};

/// Looks up a variable.
pub type Lookup<'e> = &'e dyn Fn(&str) -> Option<String>;

/// Looks up a variable of this process. Bytes that are not Unicode become replacement characters.
pub fn process_environment(name: &str) -> Option<String> {
    std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
}

/// A variable's value without white space and line ends around it. `None` if it is not set or
/// empty.
pub fn variable(name: &str, lookup: Lookup<'_>) -> Option<String> {
    let value = lookup(name)?;
    let value = value.trim();
    (!value.is_empty()).then(|| value.to_owned())
}

#[derive(Clone, Copy)]
pub(super) struct Environment<'e>(pub(super) Lookup<'e>);

/// What [`Environment::key`] accepts.
const KEY_FORM: &str = "the key alone, without spaces";

impl Environment<'_> {
    /// As [`variable`].
    pub(super) fn get(self, name: &str) -> Option<String> {
        variable(name, self.0)
    }

    /// An API key, which must fit into a header.
    pub(super) fn key(self, name: &str) -> Result<Option<Secret>, (&'static str, &'static str)> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        if value.bytes().any(|byte| !byte.is_ascii_graphic()) {
            return Err(("has a character that an API key cannot have", KEY_FORM));
        }
        Ok(Some(Secret::new(value)))
    }

    /// The URL `value` with each `${VAR}` replaced by the variable. A variable at the beginning is
    /// a URL or the beginning of one, and is not escaped. Any other is a value, which is escaped
    /// for its place. Reports all its errors without showing it. `valid` says what is valid if it
    /// is not a text.
    pub(super) fn fill_url(self, value: &Setting<'_>, valid: impl Display) -> Option<String> {
        let Some(text) = value.as_text() else {
            value.fault("is not a text", valid);
            return None;
        };
        let mut filled = String::with_capacity(text.len());
        let mut valid = true;
        let mut pieces = pieces(text, Syntax::Variables);
        while let Some(piece) = pieces.next() {
            let found = match piece {
                Ok(Piece::Variable(name)) => self.filled(name, &filled, pieces.rest()),
                Ok(Piece::Text(text) | Piece::Param(text)) => Ok(text.to_owned()),
                Err(error) => Err((error.to_string(), "${NAME}".to_owned())),
            };
            match found {
                Ok(piece) => filled.push_str(&piece),
                Err((problem, form)) => {
                    value.fault(problem, form);
                    valid = false;
                }
            }
        }
        valid.then_some(filled)
    }

    /// The text for the variable `name` in a URL, between `before` and `after`; or what is wrong
    /// with it, and what would be valid.
    fn filled(self, name: &str, before: &str, after: &str) -> Result<String, (String, String)> {
        let Some(value) = self.get(name) else {
            return Err((
                TemplateError::Missing(name.to_owned()).to_string(),
                format!("with {name} set in the environment"),
            ));
        };
        if value.chars().any(char::is_control) {
            return Err((
                format!("names ${{{name}}}, which holds a control character"),
                "a value on one line".to_owned(),
            ));
        }
        let escaped = || {
            let mut escaped = String::with_capacity(value.len());
            escape_into(&mut escaped, &value);
            escaped
        };
        match place(before, after) {
            UrlPlace::Raw => Ok(value),
            UrlPlace::Value => Ok(escaped()),
            UrlPlace::Host if value.parse::<Ipv6Addr>().is_ok() => Ok(format!("[{value}]")),
            // The folder of a Unix socket.
            UrlPlace::Host if value.starts_with('/') => Ok(escaped()),
            UrlPlace::Host if value.chars().all(is_of_host) => Ok(value),
            UrlPlace::Host => Err((
                format!("names ${{{name}}}, which is not a valid host"),
                "a host, perhaps with its port".to_owned(),
            )),
        }
    }
}

/// Where in a URL a variable stands.
enum UrlPlace {
    /// Before or in the scheme, so it is a URL or begins one. Or in the path of a file, which is
    /// never unescaped.
    Raw,
    /// Host and port.
    Host,
    /// User information, path or query.
    Value,
}

fn place(before: &str, after: &str) -> UrlPlace {
    let Some((scheme, rest)) = before.split_once("://") else {
        return UrlPlace::Raw;
    };
    let ends = ['/', '?', '#'];
    let authority = after.split(ends).next().unwrap_or_default();
    match scheme {
        "sqlite" => UrlPlace::Raw,
        _ if rest.contains(ends) || authority.contains('@') => UrlPlace::Value,
        _ => UrlPlace::Host,
    }
}

/// Whether `c` may stand in a list of hosts and ports.
fn is_of_host(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-._:,[]".contains(c)
}

#[cfg(test)]
mod tests {
    use redis::IntoConnectionInfo;

    use crate::config::tests::{faults_with, parse_with};
    use crate::config::{Config, ConfigErrors};

    const ODD: [&str; 9] = [
        "abc%41def",
        "a/b",
        "a@b:c",
        "what?#is",
        "[in brackets]",
        "two words",
        "größe €",
        "100%",
        r#"'";&=+$,{}|\^`<>"#,
    ];

    fn redis(text: &str, variables: &[(&str, &str)]) -> Result<String, ConfigErrors> {
        let config = parse_with(&format!("[redis]\nurl = \"{text}\"\n"), variables)?;
        Ok(config.redis.url.unwrap().reveal().to_owned())
    }

    fn database(config: Config) -> String {
        config.database.url.unwrap().reveal().to_owned()
    }

    #[test]
    fn what_a_variable_holds_is_a_value_in_its_place() {
        for odd in ODD {
            let variables = [("A", odd), ("B", "cache.example:6380")];
            let url = redis("redis://${A}:${A}@${B}/2", &variables).unwrap();
            let info = url.into_connection_info().unwrap();
            assert_eq!(info.redis_settings().username(), Some(odd));
            assert_eq!(info.redis_settings().password(), Some(odd));
            assert_eq!(info.addr().to_string(), "cache.example:6380");
            assert_eq!(info.redis_settings().db(), 2);

            let text =
                "[database]\nurl = \"postgres://${A}:${A}@${B}/${A}?application_name=${A}\"\n";
            let url = database(parse_with(text, &variables).unwrap());
            let info: postgres::Config = url.parse().unwrap();
            assert_eq!(info.get_user(), Some(odd));
            assert_eq!(info.get_password(), Some(odd.as_bytes()));
            assert_eq!(info.get_dbname(), Some(odd));
            assert_eq!(info.get_application_name(), Some(odd));
            assert_eq!(info.get_ports(), [6380]);
        }
    }

    #[test]
    fn a_variable_that_a_url_begins_with_is_a_url() {
        let whole = [("URL", "rediss://u:p%40ss@cache:6380/1"), ("DB", "3")];
        assert_eq!(redis("${URL}", &whole).unwrap(), whole[0].1);
        let base = [("URL", "redis://u:p%40ss@cache:6380"), ("DB", "3")];
        let url = redis("${URL}/${DB}", &base).unwrap();
        assert_eq!(url, "redis://u:p%40ss@cache:6380/3");
        let text = "[upstream.newsapi]\nbase_url = \"${URL}/${DB}\"\n";
        let news = [("URL", "https://h:9/a/b"), ("DB", "v 2/x")];
        let config = parse_with(text, &news).unwrap();
        assert_eq!(config.upstreams[0].base_url, "https://h:9/a/b/v%202%2Fx");
    }

    #[test]
    fn hosts_and_files_stand_as_they_are() {
        let url = |host| redis("redis://:${P}@${H}", &[("H", host), ("P", "a@b")]);
        assert_eq!(url("::1").unwrap(), "redis://:a%40b@[::1]");
        assert_eq!(url("[::1]:7000").unwrap(), "redis://:a%40b@[::1]:7000");
        for wrong in ["h/1", "u:p@h", "two words", "h?x"] {
            let error = url(wrong).unwrap_err().to_string();
            assert!(
                error.contains("names ${H}, which is not a valid host") && !error.contains(wrong),
                "{error}"
            );
        }
        let text = "[database]\nurl = \"postgres://u@${H}/d\"\n";
        let url = database(parse_with(text, &[("H", "/run/my sql")]).unwrap());
        let info: postgres::Config = url.parse().unwrap();
        let folder = postgres::config::Host::Unix("/run/my sql".into());
        assert_eq!(info.get_hosts(), [folder]);
        let text = "[database]\nurl = \"sqlite://${DATA}/larder.db\"\n";
        let url = database(parse_with(text, &[("DATA", "/var/my data")]).unwrap());
        assert_eq!(url, "sqlite:///var/my data/larder.db");
    }

    #[test]
    fn every_variable_is_trimmed_alike() {
        let text = "[redis]\nurl = \"redis://:${PASSWORD}@h\"\n[resource.q]\npath = \"/q\"\n\
             source = { http = \"https://h/\", headers = { A = \"${PASSWORD}\" } }\nttl = { memory = \"1s\", redis = \"1s\" }\n";
        let key = "123456789012345678901234";
        let variables = [
            ("LARDER_BIND", " 127.0.0.1:1\r\n"),
            ("DATABASE_URL", "sqlite://b.db\n"),
            ("PASSWORD", "\tsecret\n"),
            ("NEWSAPI_KEY", "n\n"),
            ("LARDER_ADMIN_KEY", &format!("{key}\n")),
            ("GUARDIAN_API_KEY", " \n"),
        ];
        let config = parse_with(text, &variables).unwrap();
        assert_eq!(config.server.bind, "127.0.0.1:1");
        assert_eq!(
            config.redis.url.as_ref().unwrap().reveal(),
            "redis://:secret@h"
        );
        assert_eq!(config.upstreams[0].key.as_ref().unwrap().reveal(), "n");
        assert!(config.upstreams[1].key.is_none(), "nothing but white space");
        assert_eq!(config.auth.admin_key.as_ref().unwrap().reveal(), key);
        assert_eq!(database(config), "sqlite://b.db");
        let config = parse_with("", &[("REDIS_URL", "redis://h/1\n")]).unwrap();
        assert_eq!(config.redis.url.unwrap().reveal(), "redis://h/1");
    }

    #[test]
    fn a_line_end_within_is_refused() {
        let faults = faults_with(
            "",
            &[
                ("LARDER_BIND", "127.0.0.1\n:80"),
                ("REDIS_URL", "redis://:hunter2@h\n/1"),
                ("DATABASE_URL", "sqlite://a\nb"),
                ("LARDER_ADMIN_KEY", "hunter2hunter2\nhunter2hunter2"),
                ("NEWSAPI_KEY", "hunter2\nx"),
            ],
        );
        assert_eq!(faults.len(), 5, "{faults:#?}");
        let postgres = faults_with("", &[("DATABASE_URL", "postgres://u:hunter2@h/a\tb")]);
        let filled = "[redis]\nurl = \"redis://:${P}@h\"\n";
        let filled = faults_with(filled, &[("P", "hunter2\nx")]);
        for fault in faults.iter().skip(1).chain(&postgres).chain(&filled) {
            assert!(!fault.contains("hunter2"), "{fault}");
        }
        assert!(filled[0].contains("control character"), "{filled:?}");
        assert!(postgres[0].contains("control character"), "{postgres:?}");
    }

    #[test]
    fn an_option_that_nobody_knows_is_named() {
        for (name, url, part) in [
            (
                "REDIS_URL",
                "redis://host?db=1",
                "the option \"db\", which is unknown",
            ),
            (
                "DATABASE_URL",
                "postgres://h/d?pool_size=3",
                "the option \"pool_size\"",
            ),
            (
                "DATABASE_URL",
                "sqlite://a.db?mode=ro",
                "a SQLite URL takes none",
            ),
        ] {
            let faults = faults_with("", &[(name, url)]);
            assert!(faults.len() == 1 && faults[0].contains(part), "{faults:?}");
        }
    }
}
