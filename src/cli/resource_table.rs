//! The resources of a configuration as a table for a terminal.

use std::time::Duration;

use crate::config::Config;
use crate::quantity::format_duration;
use crate::resource::{ParamSettings, ReadMethods, ResourceSettings, SourceSettings};
use crate::source::SourceMethod;
use larder_cache::StaleRules;

use super::columns::columns;

const HEADINGS: [&str; 7] = [
    "RESOURCE",
    "PATH",
    "PARAMETERS",
    "MEMORY",
    "REDIS",
    "STALE",
    "SOURCE",
];

/// One line per resource, below a line of headings. The methods by which it is read stand before
/// its path, unless that is `GET` alone. The default of a parameter follows its name, or `?` if it
/// is optional. View parameters are in brackets.
pub(super) fn table(config: &Config) -> String {
    if config.resources.is_empty() {
        return "no resources are declared\n".to_owned();
    }
    let rows = config.resources.iter();
    let rows = rows.map(|resource| row(config, resource));
    columns(HEADINGS, rows)
}

fn row(config: &Config, resource: &ResourceSettings) -> [String; 7] {
    let tier = |ttl: Duration| {
        if ttl.is_zero() {
            "off".to_owned()
        } else {
            format_duration(ttl)
        }
    };
    let path = resource.path.as_deref().unwrap_or("internal");
    let methods = if resource.read == ReadMethods::default() {
        String::new()
    } else {
        format!("{} ", resource.read)
    };
    let public = if resource.public { " (public)" } else { "" };
    let params: Vec<String> = resource.params.iter().map(param).collect();
    [
        resource.name.clone(),
        format!("{methods}{path}{public}"),
        or_dash(params.join(", ")),
        tier(resource.policy.memory),
        tier(resource.policy.redis),
        or_dash(stale(&resource.policy.stale)),
        or_dash(source(config, resource)),
    ]
}

fn or_dash(text: String) -> String {
    if text.is_empty() {
        "-".to_owned()
    } else {
        text
    }
}

fn param(param: &ParamSettings) -> String {
    let text = match &param.default {
        Some(default) => format!("{}={default}", param.name),
        None if param.required => param.name.clone(),
        None => format!("{}?", param.name),
    };
    if param.view {
        format!("[{text}]")
    } else {
        text
    }
}

fn stale(rules: &StaleRules) -> String {
    let mut parts = Vec::new();
    if !rules.while_revalidate.is_zero() {
        parts.push(format!(
            "revalidate {}",
            format_duration(rules.while_revalidate)
        ));
    }
    if !rules.if_error.is_zero() {
        parts.push(format!("error {}", format_duration(rules.if_error)));
    }
    if rules.on_reset {
        parts.push("reset".to_owned());
    }
    parts.join(", ")
}

fn source(config: &Config, resource: &ResourceSettings) -> String {
    let read = match &resource.source {
        Some(SourceSettings::News(names)) => Some(news(config, names)),
        Some(SourceSettings::Sql(sql)) => Some(format!("sql: {}", sql.query.name())),
        Some(SourceSettings::Http(http)) => {
            // Without the query, which may contain a key.
            let url = http.api.url.to_string();
            let plain = url.split('?').next().unwrap_or_default().to_owned();
            Some(match http.api.method {
                SourceMethod::Get => format!("http: {plain}"),
                method => format!("http: {} {plain}", method.name()),
            })
        }
        Some(SourceSettings::Composite(names)) => Some(format!("parts: {}", names.join(", "))),
        None => None,
    };
    let written = resource
        .writes
        .iter()
        .map(|write| format!("{}: {}", write.method.name(), write.query.name()));
    read.into_iter()
        .chain(written)
        .collect::<Vec<_>>()
        .join("; ")
}

fn news(config: &Config, names: &[String]) -> String {
    let names: Vec<String> = names
        .iter()
        .map(|name| {
            let keyless = config
                .upstreams
                .iter()
                .find(|u| u.name == *name && u.key.is_none());
            match keyless {
                Some(upstream) => format!("{name} (no {})", upstream.key_env),
                None => name.clone(),
            }
        })
        .collect();
    format!("news: {}", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::ReadMethod;

    #[test]
    fn it_shows_what_is_declared() {
        let shipped = include_str!("../../config.toml");
        let env = |name: &str| (name == "NEWSAPI_KEY").then(|| "k".to_owned());
        let mut config = Config::parse(shipped, "config.toml", None, &env).unwrap();
        config.resources[0].policy.memory = Duration::ZERO;
        config.resources[0].public = true;
        config.resources[0].read = ReadMethods::default().with(ReadMethod::Query);
        config.resources.truncate(1);
        let table = table(&config);
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(
            lines,
            [
                "RESOURCE  PATH                           PARAMETERS                        MEMORY  REDIS  STALE                           SOURCE",
                "articles  GET, QUERY /articles (public)  category?, [source?], [limit=20]  off     5m     revalidate 1m, error 1d, reset  news: newsapi, guardian (no GUARDIAN_API_KEY)",
            ]
        );
    }
    #[test]
    fn a_method_that_is_not_get_is_shown() {
        for (lines, shown) in [
            ("", "http: https://h/v1"),
            (
                "method = \"POST\"\njson = { key = \"${KEY}\" }",
                "http: POST https://h/v1",
            ),
        ] {
            let file = format!(
                "[resource.a]\npath = \"/a\"\nttl = {{ memory = \"1s\", redis = \"1s\" }}\n[resource.a.source]\nhttp = \"https://h/v1?k=${{KEY}}\"\n{lines}\n"
            );
            let env = |name: &str| (name == "KEY").then(|| "s3cr3t".to_owned());
            let table = table(&Config::parse(&file, "config.toml", None, &env).unwrap());
            assert!(table.ends_with(&format!("  {shown}\n")), "{table}");
            assert!(
                !table.contains("s3cr3t") && !table.contains("KEY"),
                "{table}"
            );
        }
    }
}
