//! Invalidation over HTTP: `POST /cache/invalidate`, and `GET /cache/replicas`.

use std::collections::{BTreeMap, HashSet};

use actix_web::{HttpRequest, HttpResponse, web};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use crate::database::{Database, Watch};
use crate::resource::{Arguments, Given, Resources, TagTemplate};
use larder_cache::{Cache, InvalidationTarget, Purge};

use super::access::{Access, Actor};
use super::asked::Asked;
use super::problem::Problem;
use super::state::LiveResources;
use super::{body, bridge, headers};

/// Targets in one request, at most.
const MOST_TARGETS: usize = 1000;
/// Targets in one line of the log, at most.
const LOGGED_TARGETS: usize = 10;

/// `POST /cache/invalidate {"paths","keys","tags","resource","params","all","soft"}`: 200 once it
/// is acknowledged, 202 while it is pending.
pub(crate) async fn invalidate(
    request: HttpRequest,
    mut payload: web::Payload,
    access: web::Data<Access>,
    cache: web::Data<Cache>,
    resources: web::Data<LiveResources>,
    database: web::Data<Database>,
) -> HttpResponse {
    let work = async |actor: Actor| {
        let body = body::fields(&request, &mut payload, body::LIMIT_AROUND_PARAMETERS).await?;
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
    mut body: BTreeMap<String, Box<RawValue>>,
    resources: &Resources,
) -> Result<Invalidation, Problem> {
    let bad = Problem::bad_field;
    let mut texts = |field: &str| {
        let texts: Vec<String> =
            body::take(&mut body, field, "an array of texts")?.unwrap_or_default();
        let is_text = |text: &String| !text.is_empty() && !text.contains(char::is_control);
        match texts.iter().all(is_text) {
            true => Ok(texts),
            false => Err(bad(field, "an array of texts that are not empty")),
        }
    };
    let (paths, keys, tags) = (texts("paths")?, texts("keys")?, texts("tags")?);
    let mut flag = |field: &str| body::take(&mut body, field, "true or false");
    let all = flag("all")?.unwrap_or(false);
    let soft = flag("soft")?.unwrap_or(false);
    let named = Asked::named(&mut body)?;
    if let Some(unknown) = body.keys().next() {
        return Err(bad(
            unknown,
            "the fields are paths, keys, tags, resource, params, all and soft",
        ));
    }
    if paths.len() + keys.len() + tags.len() > MOST_TARGETS {
        return Err(bad(
            "body",
            &format!("at most {MOST_TARGETS} paths, keys and tags at once"),
        ));
    }
    let mut targets = Vec::new();
    for path in paths {
        targets.extend(Asked::Path(path).targets("paths", resources)?);
    }
    if let Some(named) = named {
        targets.extend(named.targets("resource", resources)?);
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
            "at least one of paths, keys and tags, a resource with its params, or \"all\": true",
        ));
    }
    let purge = if soft { Purge::Soft } else { Purge::Hard };
    Ok(Invalidation {
        targets,
        purge,
        matched,
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
