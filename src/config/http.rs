//! HTTP sources, and their upstreams.

use std::time::Duration;

use super::environment::Environment;
use super::params::Declared;
use super::paths::is_name;
use super::reader::{Setting, Table};
use super::upstreams;
use crate::resource::{HttpSourceSettings, SourceSettings};
use crate::source::{HttpUpstreamSettings, JsonApiSettings, NEWS_UPSTREAMS, Place, TtlFrom};
use crate::template::Template;
use larder_cache::Policy;

const URL_FORM: &str = "\"https://api.example.com/v1/quote/{symbol}\"";
const PICK_FORM: &str = "a JSON pointer such as \"/data/items\"";
const TEMPLATE_FORM: &str = "a text, in which {name} is a parameter and ${NAME} a variable";
const TTL_FORM: &str = "{ memory = \"1s\", redis = \"5s\" } or \"upstream\"";
/// The longest lifetime that an upstream can declare.
const LONGEST: Duration = Duration::from_secs(86_400);
/// How long an expired value is kept for revalidation.
const REVALIDATED: Duration = Duration::from_secs(86_400);

/// What HTTP sources need beside their own table.
#[derive(Clone, Copy)]
pub(super) struct Apis<'r, 'e> {
    /// The root of the file, for its upstreams.
    pub(super) root: &'r Table<'r>,
    pub(super) env: Environment<'e>,
}

/// Reads the HTTP API in `table`, the source of the resource `name`. `None` if it is not valid.
pub(super) fn source(
    table: &Table<'_>,
    name: &str,
    params: &[Declared<'_>],
    ttl: TtlFrom,
    apis: Apis<'_, '_>,
) -> Option<SourceSettings> {
    let template = |value: &Setting<'_>| -> Option<Template> {
        let text = value.text(TEMPLATE_FORM)?;
        match Template::parse(text, &|name| apis.env.get(name)) {
            Ok(template) => Some(template),
            Err(error) => {
                // The value is not shown: it may be a key by mistake.
                value.fault(error, TEMPLATE_FORM);
                None
            }
        }
    };
    let names: Vec<&str> = params.iter().map(|param| param.name).collect();
    let known = |value: &Setting<'_>, template: &Template| {
        for name in template.params().filter(|name| !names.contains(name)) {
            value.fault(
                format!("has {{{name}}}, which is not a parameter of this resource"),
                format!("no other parameters than {}", names.join(", ")),
            );
        }
    };
    let url_at = table.need("http", URL_FORM)?;
    let url = template(&url_at);
    let named = |key: &'static str| -> Vec<(String, Setting<'_>, Template)> {
        let entries = table.table(key).entries().into_iter();
        entries
            .filter_map(|(name, value)| {
                let template = template(&value)?;
                Some((name.to_owned(), value, template))
            })
            .collect()
    };
    let (headers, query) = (named("headers"), named("query"));
    let pick_at = table.get("pick");
    // An error in one of these does not hide those in the others.
    let pick = match &pick_at {
        Some(value) => value.text(PICK_FORM).map(|text| Some(text.to_owned())),
        None => Some(None),
    };
    let upstream = upstream(table, name, apis);
    for (_, value, template) in headers.iter().chain(&query) {
        known(value, template);
    }
    if let Some(url) = &url {
        known(&url_at, url);
        for param in params.iter().filter_map(|param| param.settings.as_ref()) {
            let missing = !param.required && param.default.is_none();
            if missing && url.params().any(|name| name == param.name) {
                url_at.fault(
                    format!("has {{{}}}, which a request may leave out", param.name),
                    "a parameter that is required or has a default, or its place in query",
                );
            }
        }
    }
    let plain = |all: &[(String, Setting<'_>, Template)]| {
        let all = all.iter();
        all.map(|(name, _, template)| (name.clone(), template.clone()))
            .collect()
    };
    let api = JsonApiSettings {
        url: url?,
        headers: plain(&headers),
        query: plain(&query),
        pick: pick?,
        ttl,
    };
    for fault in api.faults() {
        let entry = |all: &'_ [(String, Setting<'_>, Template)], name: &str| -> bool {
            let found = all.iter().find(|(known, ..)| known == name);
            if let Some((_, value, _)) = found {
                value.fault(&fault.problem, fault.valid);
            }
            found.is_some()
        };
        let reported = match &fault.place {
            Place::Url => false,
            Place::Header(name) => entry(&headers, name),
            Place::Query(name) => entry(&query, name),
            Place::Pick => pick_at
                .as_ref()
                .inspect(|value| value.fault(&fault.problem, fault.valid))
                .is_some(),
        };
        if !reported {
            url_at.fault(&fault.problem, fault.valid);
        }
    }
    Some(SourceSettings::Http(HttpSourceSettings {
        api,
        upstream: upstream?,
    }))
}

/// Its upstream: a shared one, or one of its own with the resource's name.
fn upstream(table: &Table<'_>, resource: &str, apis: Apis<'_, '_>) -> Option<HttpUpstreamSettings> {
    let Some(value) = table.get("upstream") else {
        return Some(HttpUpstreamSettings::new(resource));
    };
    const FORM: &str = "a name, under which [upstream.NAME] may have a timeout and a quota";
    let name = value.text(FORM)?;
    if !is_name(name) || NEWS_UPSTREAMS.contains(&name) {
        value.wrong(format!("{FORM}; not {}", NEWS_UPSTREAMS.join(" or ")));
        return None;
    }
    Some(upstreams::http(apis.root, name))
}

/// Who decides how long a value is fresh: the upstream, with `ttl = "upstream"`, or the resource.
pub(super) fn ttl_from(resource: &Table<'_>) -> TtlFrom {
    match resource.get("ttl").and_then(|value| value.as_text()) {
        Some(_) => TtlFrom::Upstream,
        None => TtlFrom::Resource,
    }
}

/// The TTLs with `ttl = "upstream"`: the longest lifetime that it can declare.
pub(super) fn ttl_of_upstream(value: &Setting<'_>) -> [Option<Duration>; 3] {
    if value.as_text() != Some("upstream") {
        value.wrong(TTL_FORM);
    }
    [Some(LONGEST); 3]
}

/// The policy with time for revalidation.
pub(super) fn kept(policy: Policy) -> Policy {
    Policy {
        revalidate: REVALIDATED,
        ..policy
    }
}
