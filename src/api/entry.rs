//! `/cache/entry`: why an answer is what it is.

use actix_web::http::Method;
use actix_web::{HttpRequest, HttpResponse, web};
use serde_json::{Value, json};

use crate::resource::RequestContext;
use larder_cache::{Cache, CacheItem, Decision, Producer, Request};

use super::access::Access;
use super::asked::Asked;
use super::body;
use super::problem::Problem;
use super::state::LiveResources;

/// The entry that would answer a read, and its state. A `GET` names the read in its query: `path`,
/// or `resource` and `params`. A `POST` or `QUERY` has the same as members of its body, for what is
/// too long for a URL.
pub(crate) async fn show(
    request: HttpRequest,
    mut payload: web::Payload,
    access: web::Data<Access>,
    cache: web::Data<Cache>,
    resources: web::Data<LiveResources>,
) -> HttpResponse {
    let work = async {
        let in_query = matches!(*request.method(), Method::GET | Method::HEAD);
        let asked = if in_query {
            let query = web::Query::<Vec<(String, String)>>::from_query(request.query_string());
            Asked::of_query(query.map(web::Query::into_inner).unwrap_or_default())?
        } else {
            let limit = body::LIMIT_AROUND_PARAMETERS;
            Asked::of_body(body::fields(&request, &mut payload, limit).await?)?
        };
        let resources = resources.load_full();
        let found = asked.find(&resources, |resource, arguments| {
            let wanted = resource.request(arguments, &RequestContext::default())?;
            Ok((resource.name().to_owned(), wanted))
        });
        let (resource, wanted) = found.map_err(|misnamed| match (in_query, &asked) {
            (true, _) => misnamed.in_query(),
            (false, _) if misnamed.is_nothing() => misnamed.in_query(),
            (false, Asked::Path(_)) => misnamed.in_body("path"),
            (false, Asked::Params { .. }) => misnamed.in_body("resource"),
        })?;
        let wanted = wanted.ok_or(Problem::NotFound("Nothing is read at this path."))?;
        let mut body = entry_json(&cache, &resource, &wanted.item);
        if let Producer::Compose(composition) = &wanted.producer {
            let part = |part: &Request| {
                // A part may be a resource of its own, or belong to this one alone.
                let own = resources.of_key(part.item.key.name());
                let name = own.map_or(&*resource, |(own, _)| own.name());
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
