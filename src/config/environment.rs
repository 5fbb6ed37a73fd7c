//! The environment, as a function that tests can replace.
//!
//! Invariant: an empty variable counts as not set, because `VAR=${VAR:-}` in a compose file makes
//! an empty one. White space and line ends around a value are removed, because `VAR=$(cat file)`
//! and editors leave them behind.

use std::fmt::Display;
use std::net::Ipv6Addr;

use super::reader::Value;
use crate::source::json_api::is_variable;
use larder_cache::Secret;
use larder_cache::escape_into;

/// Looks a variable up.
pub type Lookup<'e> = &'e dyn Fn(&str) -> Option<String>;

/// Looks a variable of this process up. What is not Unicode comes out damaged rather than unseen.
pub fn process_environment(name: &str) -> Option<String> {
    std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
}

/// What a variable holds, without white space and line ends around it; `None` if it is not set or
/// nothing is left.
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

    /// A key that will be sent in a header.
    pub(super) fn key(self, name: &str) -> Result<Option<Secret>, (&'static str, &'static str)> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        if value.bytes().any(|byte| !byte.is_ascii_graphic()) {
            return Err(("has a character that an API key cannot have", KEY_FORM));
        }
        Ok(Some(Secret::new(value)))
    }

    /// The URL that `value` is, with each `${VAR}` replaced by the variable. One that the URL
    /// begins with is a URL itself, or the beginning of one, and stands as it is; any other is a
    /// value, which is escaped for its place. Reports what is wrong with it, all of it, without
    /// showing it; `valid` says what is valid where it is no text.
    pub(super) fn fill_url(self, value: &Value<'_>, valid: impl Display) -> Option<String> {
        let Some(text) = value.as_text() else {
            value.fault("is no text", valid);
            return None;
        };
        let mut filled = String::with_capacity(text.len());
        let mut whole = true;
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${") {
            filled.push_str(before);
            let Some((name, after)) = after.split_once('}') else {
                value.fault("has a \"${\" without its \"}\"", "${NAME}");
                return None;
            };
            rest = after;
            match self.piece(name, &filled, after) {
                Ok(piece) => filled.push_str(&piece),
                Err((problem, valid)) => {
                    value.fault(problem, valid);
                    whole = false;
                }
            }
        }
        filled.push_str(rest);
        whole.then_some(filled)
    }

    /// What stands for the variable `name` in a URL, between what is `before` it and `after` it; or
    /// what is wrong with it, and what would be valid.
    fn piece(self, name: &str, before: &str, after: &str) -> Result<String, (String, String)> {
        if !is_variable(name) {
            return Err((
                "has a \"${}\" around an invalid variable name".to_owned(),
                "${NAME}".to_owned(),
            ));
        }
        let Some(value) = self.get(name) else {
            return Err((
                format!("names ${{{name}}}, which is missing from the environment"),
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
            // The folder of a socket.
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
    /// Before or in the scheme, so that it is a URL or begins one; or in the path of a file, which
    /// nobody unescapes.
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

/// Whether it may stand in a host, a port, or several of them behind each other.
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
