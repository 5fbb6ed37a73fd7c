//! Upstreams: address, key, timeout, quota.

use std::time::Duration;

use super::address;
use super::environment::Environment;
use super::reader::Table;
use super::wording::unknown;
use crate::quantity::{Rate, format_duration};
use crate::resource::{ResourceSettings, SourceSettings};
use crate::source::{HttpUpstreamSettings, NEWS_UPSTREAMS, UpstreamSettings};
use crate::template::is_variable_name;

/// Reads all news upstreams, whether or not the file names them. Reports every other upstream that
/// none of `resources` uses.
pub(super) fn read(
    root: &Table<'_>,
    env: Environment<'_>,
    resources: &[ResourceSettings],
) -> Vec<UpstreamSettings> {
    let section = root.table("upstream");
    let mut known = NEWS_UPSTREAMS.to_vec();
    known.extend(
        resources
            .iter()
            .filter_map(|resource| match &resource.source {
                Some(SourceSettings::Http(http)) => Some(http.upstream.name.as_str()),
                _ => None,
            }),
    );
    for (name, value) in section.entries() {
        if !known.contains(&name) {
            value.fault(
                unknown("upstream", name, &known),
                format!("{}, or one that an http source names", known.join(", ")),
            );
        }
    }
    NEWS_UPSTREAMS
        .iter()
        .filter_map(|name| Some((section.table(name), UpstreamSettings::news(name)?)))
        .map(|(table, default)| upstream(table, default, env))
        .collect()
}

fn upstream(table: Table<'_>, default: UpstreamSettings, env: Environment<'_>) -> UpstreamSettings {
    let base_url = table.get("base_url").and_then(|value| {
        let url = env.fill_url(&value, format!("{:?}", default.base_url))?;
        address::base_url(&url)
            .map_err(|(problem, valid)| value.fault(problem, valid))
            .ok()
    });
    let key_env = table.get("key_env").and_then(|value| {
        let name = value.as_text().filter(|name| is_variable_name(name));
        if name.is_none() {
            // The value is not shown: it may be the key by mistake.
            value.fault(
                "is not a valid name of an environment variable",
                format!("{:?}, with the key in that variable", default.key_env),
            );
        }
        name.map(str::to_owned)
    });
    let key_env = key_env.unwrap_or(default.key_env);
    let key = env.key(&key_env).unwrap_or_else(|(problem, valid)| {
        table.report.environment(&key_env, problem, valid);
        None
    });
    let settings = UpstreamSettings {
        name: default.name,
        base_url: base_url.unwrap_or(default.base_url),
        key_env,
        key,
        timeout: table
            .positive_duration("timeout")
            .unwrap_or(default.timeout),
        quota: quota(&table).unwrap_or(default.quota),
        max_pause: max_pause(&table).unwrap_or(default.max_pause),
    };
    table.close();
    settings
}

/// Reads the upstream `name` of HTTP sources. It has its defaults if the file does not name it.
pub(super) fn http(root: &Table<'_>, name: &str) -> HttpUpstreamSettings {
    let default = HttpUpstreamSettings::new(name);
    let found = root
        .table("upstream")
        .entries()
        .into_iter()
        .find(|(known, _)| *known == name);
    let Some(table) = found.and_then(|(_, value)| value.table()) else {
        return default;
    };
    let settings = HttpUpstreamSettings {
        timeout: table
            .positive_duration("timeout")
            .unwrap_or(default.timeout),
        quota: quota(&table).unwrap_or_default(),
        max_pause: max_pause(&table).unwrap_or(default.max_pause),
        name: default.name,
    };
    table.close();
    settings
}

/// Reads the longest pause that the upstream's own answer can cause.
fn max_pause(table: &Table<'_>) -> Option<Duration> {
    const LEAST: Duration = Duration::from_secs(1);
    const MOST: Duration = Duration::from_secs(86_400);
    table.get("max_pause")?.duration_within(LEAST..=MOST)
}

fn quota(table: &Table<'_>) -> Option<Vec<Rate>> {
    let items = table
        .get("quota")?
        .list("an array of rates such as [\"1/1s\", \"500/1d\"]")?;
    let mut rates: Vec<Rate> = Vec::new();
    for item in items {
        let Some(rate) = address::rate(&item) else {
            continue;
        };
        if rates.iter().any(|known| known.per == rate.per) {
            item.fault(
                format!(
                    "has two rates for one window of {}",
                    format_duration(rate.per)
                ),
                "one rate for each window",
            );
        } else {
            rates.push(rate);
        }
    }
    Some(rates)
}
