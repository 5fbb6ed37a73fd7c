//! Invalidation over HTTP, and what it did: `POST /cache/invalidate`, `GET /cache/entry`,
//! `GET /cache/replicas`.

use std::collections::HashSet;

use actix_web::{HttpRequest, HttpResponse, web};
use serde_json::{Map, Value, json};

use crate::database::{Database, Watch};
use crate::resource::{
    Arguments, BadParameter, Given, RequestContext, Resources, TagTemplate, Wrong,
};
use larder_cache::{Cache, CacheItem, Decision, InvalidationTarget, Producer, Purge, Request};

use super::access::{Access, Actor};
use super::problem::Problem;
use super::state::LiveResources;
use super::{body, bridge, headers, path};

/// Targets in one request, at most.
const MOST_TARGETS: usize = 1000;
/// Targets in one line of the log, at most.
const LOGGED_TARGETS: usize = 10;

/// `POST /cache/invalidate {"paths","keys","tags","all","soft"}`: 200 once it is acknowledged, 202
/// while it is pending.
pub(crate) async fn invalidate(
    request: HttpRequest,
    mut payload: web::Payload,
    access: web::Data<Access>,
    cache: web::Data<Cache>,
    resources: web::Data<LiveResources>,
    database: web::Data<Database>,
) -> HttpResponse {
    let work = async |actor: Actor| {
        let body = body::object(&request, &mut payload).await?;
        let (cache, resources) = (cache.get_ref().clone(), resources.load_full());
        let done = bridge::blocking("an invalidation", move || {
            let invalidation = parse_invalidation(body, &resources)?;
            let Invalidation { targets, purge, .. } = &invalidation;
            let receipt = cache.invalidate(targets, *purge);
            Ok::<_, Problem>((receipt, invalidation))
        });
        let (receipt, invalidation) = done.await??;
        let pending = receipt.is_pending();
        let how = if pending { ", pending" } else { "" };
        log::info!(
            by_key = actor.id(), request_id = actor.request_id(), trace_id = actor.trace_id();
            "invalidated{how}: {}; {actor}", log_text(&invalidation)
        );
        let mut matched = invalidation.matched;
        if matched.iter().any(|(_, count)| *count == 0) {
            // A database that does not answer counts as one without watches.
            let watches = bridge::database(&database, |database| database.watches()).await;
            count_watches(&mut matched, &watches.unwrap_or_default());
        }
        let mut answer = if pending {
            HttpResponse::Accepted()
        } else {
            HttpResponse::Ok()
        };
        headers::set_receipt(receipt, &mut answer);
        let matched = matched
            .iter()
            .map(|(tag, templates)| json!({"tag": tag, "templates": templates}));
        Ok(answer.json(json!({
            "clock": receipt.clock.map(|clock| clock.to_string()),
            "pending": pending,
            "matched": matched.collect::<Vec<_>>(),
        })))
    };
    access.admins(&request, work).await
}

/// An invalidation as the log has it: a few of its targets, and how many more there are.
fn log_text(invalidation: &Invalidation) -> String {
    let targets = &invalidation.targets;
    let soft = match invalidation.purge {
        Purge::Soft => " (soft)",
        Purge::Hard => "",
    };
    if targets.contains(&InvalidationTarget::everything()) {
        return format!("everything{soft}");
    }
    let first: Vec<&str> = targets
        .iter()
        .take(LOGGED_TARGETS)
        .map(InvalidationTarget::as_str)
        .collect();
    match targets.len() - first.len() {
        0 => format!("{first:?}{soft}"),
        more => format!("{first:?} and {more} more{soft}"),
    }
}

/// What a request invalidates.
struct Invalidation {
    /// Each once.
    targets: Vec<InvalidationTarget>,
    purge: Purge,
    matched: Matched,
}

/// The tags of a request, each with the number of templates that can make it.
type Matched = Vec<(String, usize)>;

/// Counts the templates of watched tables for tags that no resource can have: the entries of
/// another deployment may have them.
fn count_watches(matched: &mut Matched, watches: &[Watch]) {
    let templates: Vec<TagTemplate> = watches
        .iter()
        .filter_map(|watch| TagTemplate::parse(&watch.template).ok())
        .collect();
    for (tag, count) in matched.iter_mut().filter(|(_, count)| *count == 0) {
        let makes = |template: &&TagTemplate| !template.readings(tag).is_empty();
        *count = templates.iter().filter(makes).count();
    }
}

/// Reads the body of a request.
fn parse_invalidation(
    mut body: Map<String, Value>,
    resources: &Resources,
) -> Result<Invalidation, Problem> {
    let bad = Problem::bad_field;
    let mut texts = |field: &str| match body.remove(field) {
        None => Ok(Vec::new()),
        Some(Value::Array(all)) => all
            .into_iter()
            .map(|one| match one {
                Value::String(text) if !text.is_empty() && !text.contains(char::is_control) => {
                    Ok(text)
                }
                _ => Err(bad(field, "an array of texts that are not empty")),
            })
            .collect::<Result<Vec<String>, Problem>>(),
        Some(_) => Err(bad(field, "an array of texts")),
    };
    let (paths, keys, tags) = (texts("paths")?, texts("keys")?, texts("tags")?);
    let mut flag = |field: &str| match body.remove(field) {
        None => Ok(false),
        Some(Value::Bool(set)) => Ok(set),
        Some(_) => Err(bad(field, "true or false")),
    };
    let (all, soft) = (flag("all")?, flag("soft")?);
    if let Some(unknown) = body.keys().next() {
        return Err(bad(
            unknown,
            "the fields are paths, keys, tags, all and soft",
        ));
    }
    if paths.len() + keys.len() + tags.len() > MOST_TARGETS {
        return Err(bad(
            "body",
            &format!("at most {MOST_TARGETS} paths, keys and tags at once"),
        ));
    }
    let mut targets = Vec::new();
    for path in &paths {
        targets.extend(targets_of_path(path, resources)?);
    }
    for key in &keys {
        targets.push(InvalidationTarget::key(key));
        // A composite is made anew from its parts, so they have to go with it.
        if let Some((resource, Some(query))) = resources.of_key(key) {
            let (path, given) = (Default::default(), Given::Query(query));
            targets.extend(
                resource
                    .targets(Arguments { path: &path, given })
                    .unwrap_or_default(),
            );
        }
    }
    let mut matched = Vec::with_capacity(tags.len());
    for tag in tags {
        // As it is spelled, too: another replica's configuration may have that tag.
        targets.push(InvalidationTarget::tag(&tag));
        let (templates, canonical) = resources.read_tag(&tag);
        targets.extend(canonical.iter().map(InvalidationTarget::from));
        matched.push((tag, templates));
    }
    if all {
        targets.push(InvalidationTarget::everything());
    }
    let mut seen = HashSet::new();
    targets.retain(|target| seen.insert(target.clone()));
    if targets.is_empty() {
        return Err(bad(
            "body",
            "at least one of paths, keys and tags, or \"all\": true",
        ));
    }
    let purge = if soft { Purge::Soft } else { Purge::Hard };
    Ok(Invalidation {
        targets,
        purge,
        matched,
    })
}

/// The targets of a request path with its query.
fn targets_of_path(path: &str, resources: &Resources) -> Result<Vec<InvalidationTarget>, Problem> {
    let bad = |valid: &str| Problem::bad_field("paths", valid);
    let (at, query) = path::with_query(path);
    let found = resources.find(&at).filter(|found| found.resource.is_read());
    let Some(found) = found else {
        return Err(bad("paths of declared resources, with their query"));
    };
    let arguments = Arguments {
        path: &found.path_arguments,
        given: Given::Query(query),
    };
    found
        .resource
        .targets(arguments)
        .map_err(|wrong| bad(&wrong.to_string()))
}

/// `GET /cache/entry?path=`: the entry that would answer that path, and its state.
pub(crate) async fn entry(
    request: HttpRequest,
    access: web::Data<Access>,
    cache: web::Data<Cache>,
    resources: web::Data<LiveResources>,
) -> HttpResponse {
    let work = async {
        let query = web::Query::<Vec<(String, String)>>::from_query(request.query_string());
        let query = query.map(web::Query::into_inner).unwrap_or_default();
        let path = query.into_iter().find(|(name, _)| name == "path");
        let path = path.map(|(_, path)| path).filter(|path| !path.is_empty());
        let path = path.ok_or_else(|| {
            Problem::BadParameter(BadParameter {
                name: "path".to_owned(),
                wrong: Wrong::Missing,
                valid: "a request path with its query, percent-encoded".to_owned(),
            })
        })?;
        let resources = resources.load_full();
        let (at, query) = path::with_query(&path);
        let found = resources
            .find(&at)
            .ok_or(Problem::NotFound("Nothing is served at this path."))?;
        let arguments = Arguments {
            path: &found.path_arguments,
            given: Given::Query(query),
        };
        let resource = found.resource;
        let wanted = resource
            .request(arguments, &RequestContext::default())?
            .ok_or(Problem::NotFound("Nothing is read at this path."))?;
        let mut body = entry_json(&cache, resource.name(), &wanted.item);
        if let Producer::Compose(composition) = &wanted.producer {
            let part = |part: &Request| {
                // A part may be a resource of its own, or belong to this one alone.
                let own = resources.of_key(part.item.key.name());
                let name = own.map_or(resource.name(), |(own, _)| own.name());
                entry_json(&cache, name, &part.item)
            };
            body["parts"] = composition.parts.iter().map(part).collect();
        }
        Ok(HttpResponse::Ok().json(body))
    };
    access.admins(&request, |_| work).await
}

fn entry_json(cache: &Cache, resource: &str, item: &CacheItem) -> Value {
    let (key, policy) = (&item.key, &item.policy);
    let now = cache.clock().now();
    let Some((entry, freshness)) = cache.inspect(key.as_str(), policy) else {
        return json!({"resource": resource, "key": key.name(), "tier": null, "state": "none", "tags": []});
    };
    let state = match freshness {
        Decision::Serve => "fresh",
        Decision::ServeAndRefresh => "stale",
        Decision::OnlyIfLoadFails => "stale, only if its renewal fails",
        Decision::Refuse(_) => "dead",
    };
    let reason = match freshness {
        Decision::Refuse(why) => Some(why.to_string()),
        _ => None,
    };
    let invalidated = cache.invalidated(&entry);
    let tags: Vec<Value> = invalidated
        .iter()
        .map(|(name, clock)| json!({"name": name.as_str(), "invalidated": clock.map(|clock| clock.to_string())}))
        .collect();
    json!({
        "resource": resource,
        "key": key.name(),
        "tier": "memory",
        "state": state,
        "reason": reason,
        "age_ms": now.saturating_sub(entry.loaded_at) / 1000,
        "ttl_left_ms": entry.expiry.memory_until.saturating_sub(now) / 1000,
        "load_clock": entry.stamp().clock.to_string(),
        "load_ms": entry.load_time / 1000,
        "bytes": entry.value.bytes().len(),
        "tags": tags,
    })
}

/// `GET /cache/replicas`: the replicas that were heard of lately.
pub(crate) async fn replicas(
    request: HttpRequest,
    access: web::Data<Access>,
    cache: web::Data<Cache>,
) -> HttpResponse {
    let work = async {
        let asked = cache.get_ref().clone();
        let found = bridge::blocking("the list of replicas", move || asked.replicas()).await?;
        let mut all: Vec<Value> = found
            .unwrap_or_default()
            .into_iter()
            .filter_map(|replica| {
                let about: Map<String, Value> = serde_json::from_str(&replica.about).ok()?;
                let mut one = Map::new();
                one.insert("id".to_owned(), json!(replica.id));
                one.extend(about);
                Some(Value::Object(one))
            })
            .collect();
        if all.is_empty() {
            // Redis does not answer. This replica, at least, is alive.
            all.push(cache.about());
        }
        Ok(HttpResponse::Ok().json(json!({"replicas": all})))
    };
    access.admins(&request, |_| work).await
}
