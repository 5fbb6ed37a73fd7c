//! The resources that an operator declares.

use std::time::Duration;

use super::params::{self, Declared};
use super::paths;
use super::reader::{Table, Value};
use super::{news, paths::is_name};
use crate::cache::{Policy, StaleRules};
use crate::quantity::format_duration;
use crate::resource::{ResourceSettings, TagTemplate};

const TTL_FORM: &str = "{ memory = \"30s\", redis = \"5m\" }";
const TAG_FORM: &str = "a tag such as \"articles\" or \"category:{category}\", without spaces";
/// How long it is remembered that there is no value, where the file does not say.
const ABSENT: Duration = Duration::from_secs(5);

/// Every declared resource, in the order of the file.
pub(super) fn read(root: &Table<'_>) -> Vec<ResourceSettings> {
    let mut taken: Vec<Taken> = Vec::new();
    root.table("resource")
        .entries()
        .into_iter()
        .filter_map(|(name, value)| {
            if !is_name(name) {
                value.fault(
                    "is no name of a resource",
                    "at most 64 letters, digits, \"_\" and \"-\", a letter first",
                );
            }
            resource(name, value.table()?, &mut taken)
        })
        .collect()
}

/// A path that a resource has.
struct Taken {
    shape: String,
    path: String,
    resource: String,
}

fn resource(name: &str, table: Table<'_>, taken: &mut Vec<Taken>) -> Option<ResourceSettings> {
    let (path, in_path) = path(name, &table, taken);
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
    let source = news::source(&table);
    if source.is_some() {
        news::judge(&mut declared);
    }
    if let Some(write) = table.get("write") {
        write.fault("is not served by this version", "a resource without writes");
    }
    let policy = policy(&table);
    let client_ttl = table.duration("client_ttl", Duration::ZERO);
    let tags = tags(&table, &declared);
    let public = table.boolean("public", false);
    table.close();
    Some(ResourceSettings {
        name: name.to_owned(),
        path,
        params: declared.into_iter().filter_map(|p| p.settings).collect(),
        source: source?,
        policy,
        client_ttl: (!client_ttl.is_zero()).then_some(client_ttl),
        tags,
        public,
    })
}

/// The path, and its parameters.
fn path<'a>(
    name: &str,
    table: &Table<'a>,
    taken: &mut Vec<Taken>,
) -> (Option<String>, Vec<&'a str>) {
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
    if let Some(other) = taken.iter().find(|other| other.shape == shape) {
        value.fault(
            format!(
                "is {path:?}, which resource.{} has already as {:?}",
                other.resource, other.path
            ),
            "a path that no other resource has",
        );
    }
    taken.push(Taken {
        shape,
        path: path.to_owned(),
        resource: name.to_owned(),
    });
    (Some(path.to_owned()), in_path)
}

fn policy(resource: &Table<'_>) -> Policy {
    let (memory, redis, absent) = match resource.need("ttl", TTL_FORM) {
        Some(value) => value.table().map_or((None, None, None), |table| ttl(table)),
        None => (None, None, None),
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
                value.shown(),
                format_duration(stale.if_error)
            ),
            "at most stale.if_error",
        );
    }
    table.close();
    let blind_ttl = resource.get("blind_ttl").and_then(|value| {
        let blind = value.duration()?;
        if let Some(memory) = memory.filter(|memory| blind > *memory) {
            exceeds(&value, "ttl.memory", memory);
        }
        Some(blind)
    });
    let soft_timeout = resource
        .get("soft_timeout")
        .and_then(|value| value.duration_within(Duration::from_millis(1)..=Duration::MAX));
    Policy {
        memory: memory.unwrap_or_default(),
        redis: redis.unwrap_or_default(),
        absent: absent.unwrap_or(ABSENT.min(longest)),
        stale,
        soft_timeout,
        blind_ttl,
        revalidate: Duration::ZERO,
    }
}

/// Reports that `value` is longer than `other`, which it may not exceed.
fn exceeds(value: &Value<'_>, other: &str, limit: Duration) {
    value.fault(
        format!(
            "is {}, longer than {other} {:?}",
            value.shown(),
            format_duration(limit)
        ),
        format!("at most {other}"),
    );
}

/// The TTLs of memory, Redis and absence.
fn ttl(table: Table<'_>) -> (Option<Duration>, Option<Duration>, Option<Duration>) {
    let value = table.need("memory", "\"30s\", or \"0s\" for not in memory");
    let memory = value.as_ref().and_then(Value::duration);
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
    (memory, redis, absent)
}

fn tags(resource: &Table<'_>, params: &[Declared<'_>]) -> Vec<TagTemplate> {
    let Some(items) = resource
        .get("tags")
        .and_then(|value| value.list("an array of tags"))
    else {
        return Vec::new();
    };
    let keyed: Vec<&str> = params.iter().filter(|p| !p.view).map(|p| p.name).collect();
    let mut tags: Vec<TagTemplate> = Vec::new();
    for item in items {
        let Some(text) = item.text(TAG_FORM) else {
            continue;
        };
        let tag = match TagTemplate::parse(text) {
            Ok(tag) => tag,
            Err(error) => {
                item.fault(format!("has {}, which {error}", item.shown()), TAG_FORM);
                continue;
            }
        };
        let valid = || match keyed.as_slice() {
            [] => "a tag without parameters".to_owned(),
            some => format!("a tag with no other parameters than {}", some.join(", ")),
        };
        for name in tag.params().filter(|name| !keyed.contains(name)) {
            let why = if params.iter().any(|param| param.name == name) {
                "a view, so no part of what is invalidated"
            } else {
                "no parameter of this resource"
            };
            item.fault(
                format!("has {}, but {name} is {why}", item.shown()),
                valid(),
            );
        }
        if tags.contains(&tag) {
            item.fault(format!("has {} twice", item.shown()), "each tag once");
        }
        tags.push(tag);
    }
    tags
}
