//! The resources of a configuration.

use std::collections::HashMap;
use std::time::Duration;

use super::paths::{self, is_name};
use super::reader::{Setting, Table};
use super::source::{self, Context};
use super::wording::{is_unprintable, unknown};
use super::{composite, http, params, tags, writes};
use crate::quantity::format_duration;
use crate::resource::{ReadMethod, ReadMethods, ResourceSettings};
use larder_cache::{Policy, StaleRules};

const TTL_FORM: &str = "{ memory = \"30s\", redis = \"5m\" }";
const UNKNOWN_FORM: &str = "\"ignore\" or \"refuse\"";
const READ_FORM: &str = "an array of at least one of \"GET\", \"POST\" and \"QUERY\"";
/// The default TTL of an absent value.
const ABSENT: Duration = Duration::from_secs(5);
/// The longest texts for callers, in characters.
const LONGEST_SUMMARY: usize = 120;
const LONGEST_DESCRIPTION: usize = 10_000;

#[cfg(test)]
mod tests;

/// Reads all resources, in the order of the file.
pub(super) fn read(root: &Table<'_>, context: Context<'_>) -> Vec<ResourceSettings> {
    let mut taken = HashMap::new();
    let mut resources = Vec::new();
    let mut places = Vec::new();
    let all = root.table("resource").entries();
    for (name, value) in all.clone() {
        if root.report.is_full() {
            break;
        }
        if !is_name(name) {
            value.fault(
                "is not a valid name of a resource",
                "at most 64 letters, digits, \"_\" and \"-\", a letter first",
            );
        }
        let Some(table) = value.table() else { continue };
        if let Some(resource) = resource(name, table, &mut taken, context) {
            resources.push(resource);
            places.push(value);
        }
    }
    let names: Vec<&str> = all.iter().map(|(name, _)| *name).collect();
    composite::join(&mut resources, &places, &names);
    resources
}

/// A path of a resource.
struct Taken {
    path: String,
    resource: String,
}

/// The paths of all resources so far, by their shapes.
type AllTaken = HashMap<String, Taken>;

fn resource(
    name: &str,
    table: Table<'_>,
    taken: &mut AllTaken,
    context: Context<'_>,
) -> Option<ResourceSettings> {
    let (path, in_path) = path(name, &table, taken);
    let summary = words(&table, "summary", LONGEST_SUMMARY, false);
    let description = words(&table, "description", LONGEST_DESCRIPTION, true);
    let mut declared = params::read(&table, &in_path);
    for missing in in_path
        .iter()
        .filter(|name| declared.iter().all(|param| param.name != **name))
    {
        table.table("params").fault_of(
            missing,
            "is missing, but the path has it",
            format!("{missing} = {{ type = \"string\" }}"),
        );
    }
    let tags = tags::read(&table, &declared);
    let is_written = table.get("write").is_some();
    let writes = writes::read(&table, &in_path, context.statements);
    let place = table.get("source");
    let read = read_methods(&table, place.is_some());
    if place.is_none() && !is_written {
        table.need("source", source::FORM);
    }
    let source = place
        .as_ref()
        .and_then(|value| source::read(value, &table, name, &mut declared, context));
    if is_written && path.is_none() {
        table.fault_of(
            "path",
            "is missing, but a write needs it",
            "a path such as \"/users\"",
        );
    }
    let policy = match place.as_ref().and_then(source::kind) {
        // The rest is derived from its parts, after all resources are read.
        Some("parts") => composite::policy(&table),
        Some("http") => http::kept(policy(&table, true)),
        _ if place.is_none() && is_written => Policy::default(),
        _ => policy(&table, false),
    };
    let client_ttl = table.duration("client_ttl", Duration::ZERO);
    let public = table.boolean("public", false);
    let refuses_unknown = table.get("unknown_params").and_then(|value| {
        value.parse(UNKNOWN_FORM, |text| match text {
            "ignore" => Some(false),
            "refuse" => Some(true),
            _ => None,
        })
    });
    table.close();
    // The writes are kept, so that the database can check their statements.
    if place.is_some() && source.is_none() && writes.is_empty() {
        return None;
    }
    Some(ResourceSettings {
        name: name.to_owned(),
        summary,
        description,
        path,
        params: declared.into_iter().filter_map(|p| p.settings).collect(),
        read,
        source,
        writes,
        policy,
        client_ttl: (!client_ttl.is_zero()).then_some(client_ttl),
        tags,
        public,
        refuses_unknown: refuses_unknown.unwrap_or(false),
    })
}

/// Reads the methods by which the resource is read. `is_read`: it has a source.
fn read_methods(resource: &Table<'_>, is_read: bool) -> ReadMethods {
    let Some(value) = resource.get("read") else {
        return ReadMethods::default();
    };
    if !is_read {
        value.fault(
            "is there, but the resource has no source to read from",
            "a resource with a source, or no read",
        );
    }
    let names = ReadMethod::ALL.map(ReadMethod::name);
    let writes = resource.table("write").entries();
    let mut methods = ReadMethods::NONE;
    for item in value.nonempty_list(READ_FORM).unwrap_or_default() {
        let Some(name) = item.text(READ_FORM) else {
            continue;
        };
        let known = ReadMethod::ALL.into_iter();
        let Some(method) = known.into_iter().find(|method| method.name() == name) else {
            let problem = format!(
                "has {}, which {}",
                item.quoted(),
                unknown("method", name, &names)
            );
            item.fault(problem, READ_FORM);
            continue;
        };
        if methods.has(method) {
            item.fault(format!("has {} twice", item.quoted()), "each method once");
        }
        if writes.iter().any(|(written, _)| *written == name) {
            item.fault(
                format!(
                    "has {}, by which write.{name} changes the resource",
                    item.quoted()
                ),
                "a method that no write of the resource has",
            );
        }
        methods = methods.with(method);
    }
    methods
}

/// Reads a text for callers, without the spaces around it. It has no character that is invisible or
/// moves others, but `lines` allows line feeds.
fn words(table: &Table<'_>, key: &'static str, longest: usize, lines: bool) -> Option<String> {
    let what = if lines { "text" } else { "one line" };
    let form = format!("{what} of 1 to {longest} characters, such as \"Articles by category\"");
    let value = table.get(key)?;
    // An editor on Windows ends a line with both.
    let text = value.text(&form)?.trim().replace("\r\n", "\n");
    let is_wrong = |c: &char| is_unprintable(*c) && !(lines && *c == '\n');
    let problem = match (text.chars().find(is_wrong), text.chars().count()) {
        (Some('\n'), _) => "has a line feed".to_owned(),
        (Some(c), _) => format!(
            "has U+{:04X}, a control character or one that reorders text",
            u32::from(c)
        ),
        (None, 0) => "is empty".to_owned(),
        (None, length) if length > longest => format!("has {length} characters"),
        (None, _) => return Some(text),
    };
    value.fault(problem, form);
    None
}

/// Reads the path and the names of its parameters.
fn path<'a>(name: &str, table: &Table<'a>, taken: &mut AllTaken) -> (Option<String>, Vec<&'a str>) {
    let Some((value, path)) = table
        .get("path")
        .and_then(|value| Some((value.clone(), value.text("\"/articles\"")?)))
    else {
        return (None, Vec::new());
    };
    let in_path = match paths::params(path) {
        Ok(in_path) => in_path,
        Err((problem, valid)) => {
            value.fault(problem, valid);
            return (None, Vec::new());
        }
    };
    let shape = paths::shape(path);
    if let Some(other) = taken.get(&shape) {
        value.fault(
            format!(
                "is {path:?}, which resource.{} has already as {:?}",
                other.resource, other.path
            ),
            "a path that no other resource has",
        );
    }
    taken.entry(shape).or_insert_with(|| Taken {
        path: path.to_owned(),
        resource: name.to_owned(),
    });
    (Some(path.to_owned()), in_path)
}

/// Reads the policy. `by_upstream`: `ttl = "upstream"` is allowed.
fn policy(resource: &Table<'_>, by_upstream: bool) -> Policy {
    let [memory, redis, absent] = match resource.need("ttl", TTL_FORM) {
        Some(value) if by_upstream && value.as_text().is_some() => http::ttl_of_upstream(&value),
        Some(value) if value.as_text().is_some() => {
            value.wrong(TTL_FORM);
            [None; 3]
        }
        Some(value) => value.table().map_or([None; 3], ttl),
        None => [None; 3],
    };
    let longest = memory.max(redis).unwrap_or(ABSENT);
    let table = resource.table("stale");
    let stale = StaleRules {
        while_revalidate: table.duration("while_revalidate", Duration::ZERO),
        if_error: table.duration("if_error", Duration::ZERO),
        on_reset: table.boolean("on_reset", false),
    };
    let revalidate = table.get("while_revalidate");
    if let Some(value) = revalidate
        && !stale.if_error.is_zero()
        && stale.while_revalidate > stale.if_error
    {
        value.fault(
            format!(
                "is {}, longer than stale.if_error {:?}",
                value.quoted(),
                format_duration(stale.if_error)
            ),
            "at most stale.if_error",
        );
    }
    table.close();
    let disconnected_ttl = resource.get("disconnected_ttl").and_then(|value| {
        let ttl = value.duration()?;
        if let Some(memory) = memory.filter(|memory| ttl > *memory) {
            exceeds(&value, "ttl.memory", memory);
        }
        Some(ttl)
    });
    Policy {
        memory: memory.unwrap_or_default(),
        redis: redis.unwrap_or_default(),
        absent: absent.unwrap_or(ABSENT.min(longest)),
        stale,
        soft_timeout: resource.positive_duration("soft_timeout"),
        disconnected_ttl,
        revalidate: Duration::ZERO,
        exact_ttl: false,
        retry_at_once: false,
    }
}

/// Reports that `value` exceeds `other`, which is its limit.
fn exceeds(value: &Setting<'_>, other: &str, limit: Duration) {
    value.fault(
        format!(
            "is {}, longer than {other} {:?}",
            value.quoted(),
            format_duration(limit)
        ),
        format!("at most {other}"),
    );
}

/// Reads the TTLs of memory, Redis and absent values.
fn ttl(table: Table<'_>) -> [Option<Duration>; 3] {
    let value = table.need("memory", "\"30s\", or \"0s\" for not in memory");
    let memory = value.as_ref().and_then(Setting::duration);
    let redis = table
        .need("redis", "\"5m\", or \"0s\" for not in Redis")
        .and_then(|value| value.duration());
    let absent = table.get("absent").and_then(|value| value.duration());
    if let (Some(value), Some(memory), Some(redis)) = (value, memory, redis) {
        if memory.is_zero() && redis.is_zero() {
            table.fault(
                "has both tiers switched off",
                "memory or redis longer than \"0s\"",
            );
        } else if !redis.is_zero() && memory > redis {
            exceeds(&value, "ttl.redis", redis);
        }
    }
    table.close();
    [memory, redis, absent]
}
