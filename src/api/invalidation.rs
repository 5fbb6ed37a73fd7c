//! Invalidation over HTTP, and what became of it: `POST /cache/invalidate`, `GET /cache/entry`, `GET /cache/replicas`.

use std::collections::HashSet;

use actix_web::http::header::HeaderName;
use actix_web::{HttpRequest, HttpResponse, web};
use serde_json::{Map, Value, json};

use crate::database::Watch;
use crate::resource::{Arguments, BadParameter, Resources, TagTemplate, Wrong};
use larder_cache::{
    CacheItem, Decision, InvalidationReceipt, InvalidationTarget, Producer, Purge, Request,
};

use super::access::Actor;
use super::problem::Problem;
use super::resource::AppState;
use super::{body, bridge, path};

/// The clock of an invalidation: what a later read can ask not to be older than.
const LARDER_CLOCK: HeaderName = HeaderName::from_static("larder-clock");
/// Whether an invalidation holds on this replica only, until Redis can be told.
const LARDER_PENDING: HeaderName = HeaderName::from_static("larder-pending");
/// Names in one request, at most.
const MOST_NAMES: usize = 1000;
/// Names in one line of the log, at most.
const SHOWN_NAMES: usize = 10;

/// `POST /cache/invalidate {"paths","keys","tags","all","soft"}`: 200 once it is acknowledged, 202 while it is pending.
pub(crate) async fn invalidate(
    request: HttpRequest,
    mut payload: web::Payload,
    front: web::Data<AppState>,
) -> HttpResponse {
    let work = async |actor: Actor| {
        let wish = body::object(&request, &mut payload).await?;
        let (cache, resources) = (front.cache.clone(), front.resources.load_full());
        let done = web::block(move || {
            let (names, kind, matched) = wished(wish, &resources)?;
            let told = shown_names(&names, kind);
            Ok::<_, Problem>((cache.invalidate(&names, kind), matched, told))
        });
        let (done, mut matched, told) = done.await.map_err(|_| Problem::Database)??;
        let how = if done.is_pending() { ", pending" } else { "" };
        log::info!("invalidated{how}: {told}; {actor}");
        if matched.iter().any(|(_, count)| *count == 0) {
            // Where the database does not answer there are none.
            let watches = bridge::database(&front.database, |database| database.watches()).await;
            count_watches(&mut matched, &watches.unwrap_or_default());
        }
        let mut answer = if done.is_pending() {
            HttpResponse::Accepted()
        } else {
            HttpResponse::Ok()
        };
        tell(done, &mut answer);
        Ok(answer.json(json!({
            "clock": done.clock.map(|clock| clock.to_string()),
            "pending": done.is_pending(),
            "matched": matched.iter().map(|(tag, templates)| json!({"tag": tag, "templates": templates})).collect::<Vec<_>>(),
        })))
    };
    front.access.admins(&request, work).await
}

/// What was invalidated, as the log has it: a few of the names, and how many there are.
fn shown_names(names: &[InvalidationTarget], kind: Purge) -> String {
    let soft = if kind == Purge::Soft { " (soft)" } else { "" };
    if names.contains(&InvalidationTarget::everything()) {
        return format!("everything{soft}");
    }
    let first: Vec<&str> = names
        .iter()
        .take(SHOWN_NAMES)
        .map(InvalidationTarget::as_str)
        .collect();
    let others = names.len() - first.len();
    let others = if others > 0 {
        format!(" and {others} more")
    } else {
        String::new()
    };
    format!("{first:?}{others}{soft}")
}

/// Puts clock or pending on an answer.
pub(super) fn tell(done: InvalidationReceipt, answer: &mut actix_web::HttpResponseBuilder) {
    match done.clock {
        Some(clock) => answer.insert_header((LARDER_CLOCK, clock.to_string())),
        None => answer.insert_header((LARDER_PENDING, "true")),
    };
}

/// How many templates can make each tag that was named.
type Matched = Vec<(String, usize)>;

/// Counts the templates of watched tables for tags that no resource has: the entries of another
/// deployment may have them.
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

/// The names to invalidate, how, and how many templates of resources can make each tag among them.
fn wished(
    mut wish: Map<String, Value>,
    resources: &Resources,
) -> Result<(Vec<InvalidationTarget>, Purge, Matched), Problem> {
    let bad = Problem::bad_field;
    let mut texts = |field: &str| match wish.remove(field) {
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
    let mut flag = |field: &str| match wish.remove(field) {
        None => Ok(false),
        Some(Value::Bool(set)) => Ok(set),
        Some(_) => Err(bad(field, "true or false")),
    };
    let (all, soft) = (flag("all")?, flag("soft")?);
    if let Some(unknown) = wish.keys().next() {
        return Err(bad(
            unknown,
            "the fields are paths, keys, tags, all and soft",
        ));
    }
    if paths.len() + keys.len() + tags.len() > MOST_NAMES {
        return Err(bad("body", &format!("at most {MOST_NAMES} names at once")));
    }
    let mut names = Vec::new();
    for path in &paths {
        names.extend(names_of_path(path, resources)?);
    }
    for key in &keys {
        names.push(InvalidationTarget::key(key));
        // A whole is made anew from its parts: they have to go with it.
        if let Some((resource, query)) = resources.of_key(key) {
            let path = Default::default();
            names.extend(
                resource
                    .targets(Arguments { path: &path, query })
                    .unwrap_or_default(),
            );
        }
    }
    let mut matched = Vec::with_capacity(tags.len());
    for tag in tags {
        // As it was given as well: it may be a tag of another replica's configuration.
        names.push(InvalidationTarget::tag(&tag));
        let (templates, read) = resources.read_tag(&tag);
        names.extend(read.iter().map(InvalidationTarget::from));
        matched.push((tag, templates));
    }
    if all {
        names.push(InvalidationTarget::everything());
    }
    let mut seen = HashSet::new();
    names.retain(|name| seen.insert(name.clone()));
    if names.is_empty() {
        return Err(bad(
            "body",
            "at least one of paths, keys and tags, or \"all\": true",
        ));
    }
    let kind = if soft { Purge::Soft } else { Purge::Hard };
    Ok((names, kind, matched))
}

fn names_of_path(path: &str, resources: &Resources) -> Result<Vec<InvalidationTarget>, Problem> {
    let bad = |valid: &str| Problem::bad_field("paths", valid);
    let (at, query) = path::with_query(path);
    let found = resources.find(&at).filter(|found| found.resource.is_read());
    let Some(found) = found else {
        return Err(bad("paths of declared resources, with their query"));
    };
    let arguments = Arguments {
        path: &found.path_arguments,
        query,
    };
    found
        .resource
        .targets(arguments)
        .map_err(|wrong| bad(&wrong.to_string()))
}

/// `GET /cache/entry?path=`: why the answer to that path would be what it is.
pub(crate) async fn entry(request: HttpRequest, front: web::Data<AppState>) -> HttpResponse {
    let work = async {
        let asked = web::Query::<Vec<(String, String)>>::from_query(request.query_string());
        let asked = asked.map(web::Query::into_inner).unwrap_or_default();
        let path = asked.into_iter().find(|(name, _)| name == "path");
        let path = path.map(|(_, path)| path).filter(|path| !path.is_empty());
        let path = path.ok_or_else(|| {
            Problem::BadParameter(BadParameter {
                name: "path".to_owned(),
                wrong: Wrong::Missing,
                valid: "a request path with its query, percent-encoded".to_owned(),
            })
        })?;
        let resources = front.resources.load_full();
        let (at, query) = path::with_query(&path);
        let found = resources
            .find(&at)
            .ok_or(Problem::NotFound("Nothing is served at this path."))?;
        let arguments = Arguments {
            path: &found.path_arguments,
            query,
        };
        let resource = found.resource;
        let wanted = resource
            .request(arguments, "")?
            .ok_or(Problem::NotFound("Nothing is read at this path."))?;
        let mut body = shown(&front, resource.name(), &wanted.item);
        if let Producer::Compose(composition) = &wanted.producer {
            let part = |part: &Request| {
                // A part may be a resource of its own, or a part of this one alone.
                let own = resources.of_key(part.item.key.name());
                let name = own.map_or(resource.name(), |(own, _)| own.name());
                shown(&front, name, &part.item)
            };
            body["parts"] = composition.parts.iter().map(part).collect();
        }
        Ok(HttpResponse::Ok().json(body))
    };
    front.access.admins(&request, |_| work).await
}

fn shown(front: &AppState, resource: &str, subject: &CacheItem) -> Value {
    let (cache, key, policy) = (&front.cache, &subject.key, &subject.policy);
    let now = cache.clock().now();
    let Some((entry, freshness)) = cache.inspect(key.as_str(), policy) else {
        return json!({"resource": resource, "key": key.name(), "tier": null, "state": "none", "tags": []});
    };
    let state = match freshness {
        Decision::Serve => "fresh",
        Decision::ServeAndRefresh => "stale",
        Decision::OnlyIfLoadFails => "stale, only if its renewal fails",
        Decision::Refuse => "dead",
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
        "age_ms": now.saturating_sub(entry.loaded_at) / 1000,
        "ttl_left_ms": entry.expiry.memory_until.saturating_sub(now) / 1000,
        "load_clock": entry.stamp().clock.to_string(),
        "load_ms": entry.load_time / 1000,
        "bytes": entry.value.bytes().len(),
        "tags": tags,
    })
}

/// `GET /cache/replicas`: those that were heard of lately.
pub(crate) async fn replicas(request: HttpRequest, front: web::Data<AppState>) -> HttpResponse {
    let work = async {
        let cache = front.cache.clone();
        let found = web::block(move || cache.replicas())
            .await
            .ok()
            .and_then(Result::ok);
        let mut all: Vec<Value> = found
            .unwrap_or_default()
            .into_iter()
            .filter_map(|replica| {
                let about: Map<String, Value> = serde_json::from_str(&replica.about).ok()?;
                let mut shown = Map::new();
                shown.insert("id".to_owned(), json!(replica.id));
                shown.extend(about);
                Some(Value::Object(shown))
            })
            .collect();
        if all.is_empty() {
            // Redis cannot be asked: this one, at least, is alive.
            all.push(front.cache.about());
        }
        Ok(HttpResponse::Ok().json(json!({"replicas": all})))
    };
    front.access.admins(&request, |_| work).await
}
