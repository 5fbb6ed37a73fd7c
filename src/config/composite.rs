//! Composites: resources that join the objects of others.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::reader::{Setting, Table};
use super::wording::unknown;
use crate::database::Shape;
use crate::resource::{ResourceSettings, SourceSettings};
use larder_cache::{Policy, StaleRules};

/// Reads the policy that a composite itself may have. Its TTLs and stale rules are those of its
/// parts.
pub(super) fn policy(resource: &Table<'_>) -> Policy {
    for key in ["ttl", "stale", "disconnected_ttl"] {
        if let Some(value) = resource.get(key) {
            value.fault(
                "does not apply: a composite is as fresh as its parts",
                format!("{key} in its parts"),
            );
        }
    }
    Policy {
        soft_timeout: resource.positive_duration("soft_timeout"),
        ..Policy::default()
    }
}

/// Checks the parts of each composite and derives its policy from theirs. `places` are the places
/// of the resources. `declared` are the names of all resources, even of those that are not valid.
pub(super) fn join(resources: &mut [ResourceSettings], places: &[Setting<'_>], declared: &[&str]) {
    let all = resources.to_vec();
    let by_name: HashMap<&str, (&ResourceSettings, &Setting<'_>)> = all
        .iter()
        .zip(places)
        .map(|(resource, place)| (resource.name.as_str(), (resource, place)))
        .collect();
    let known: HashSet<&str> = declared.iter().copied().collect();
    for (composite, place) in resources.iter_mut().zip(places) {
        let Some(SourceSettings::Composite(names)) = &composite.source else {
            continue;
        };
        let source = place
            .inner("source")
            .and_then(|source| source.inner("parts"));
        let place = source.as_ref().unwrap_or(place);
        let mut parts: Vec<&ResourceSettings> = Vec::new();
        for name in names {
            match by_name.get(name.as_str()).copied() {
                // The error of its source was reported already.
                Some((part, at)) if part.source.is_none() && at.inner("source").is_some() => {}
                Some((part, _)) => {
                    check(composite, part, place);
                    parts.push(part);
                }
                // Its error was reported already.
                None if known.contains(name.as_str()) => {}
                None => {
                    place.fault(
                        format!(
                            "names {name:?}, which {}",
                            unknown("resource", name, declared)
                        ),
                        "names of resources that have a source",
                    );
                }
            }
        }
        let policies = || parts.iter().map(|part| &part.policy);
        let shortest = |of: fn(&Policy) -> Duration| policies().map(of).min().unwrap_or_default();
        composite.policy = Policy {
            memory: shortest(|policy| policy.memory),
            redis: Duration::ZERO,
            absent: shortest(|policy| policy.absent),
            stale: StaleRules {
                on_reset: policies().all(|policy| policy.stale.on_reset),
                ..StaleRules::default()
            },
            soft_timeout: composite.policy.soft_timeout,
            disconnected_ttl: policies()
                .filter_map(|policy| policy.disconnected_ttl)
                .min(),
            revalidate: Duration::ZERO,
            exact_ttl: false,
            retry_at_once: false,
        };
    }
}

/// Checks whether `part` can be a part of `composite`.
fn check(composite: &ResourceSettings, part: &ResourceSettings, place: &Setting<'_>) {
    let name = &part.name;
    let is_object = match &part.source {
        Some(SourceSettings::Sql(sql)) => sql.shape == Shape::One,
        Some(SourceSettings::Http(_)) => true,
        Some(SourceSettings::News(_) | SourceSettings::Composite(_)) | None => false,
    };
    if !is_object {
        place.fault(
            format!("names {name:?}, which does not give one object"),
            "resources that give one object each, and are not composites themselves",
        );
    }
    for param in part.params.iter().filter(|param| !param.view) {
        let same = composite.params.iter().find(|own| own.name == param.name);
        match same {
            Some(own) if own.kind != param.kind => place.fault(
                format!(
                    "names {name:?}, whose parameter {} takes other values",
                    param.name
                ),
                format!("the same {} = {{ … }} in both", param.name),
            ),
            Some(own) if param.required && !own.required && own.default.is_none() => place.fault(
                format!(
                    "names {name:?}, which needs the parameter {} that a request may leave out here",
                    param.name
                ),
                format!("params.{}.required = true", param.name),
            ),
            Some(_) => {}
            None if param.required => place.fault(
                format!(
                    "names {name:?}, whose parameter {} the composite does not have",
                    param.name
                ),
                format!("params.{} in the composite too", param.name),
            ),
            None => {}
        }
    }
}
