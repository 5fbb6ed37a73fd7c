//! The handler of writes: `POST`, `PUT`, `PATCH` and `DELETE` of the declared resources.
//!
//! Promise: once a write is answered and not pending, no reader of this replica gets the old value,
//! and no reader of another gets it beyond the bound of docs/consistency.md.

use std::collections::BTreeMap;
use std::sync::Arc;

use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderName};
use actix_web::{HttpRequest, HttpResponse, web};

use crate::resource::{Arguments, Precondition, Resource, Write, WriteMethod, Written};
use larder_cache::Cache;

use super::access::Access;
use super::{body, bridge, headers};

/// Carries a write out, for admins only.
pub(super) async fn run(
    request: &HttpRequest,
    payload: &mut web::Payload,
    access: &Access,
    cache: &Cache,
    resource: &Arc<Resource>,
    write: &Arc<Write>,
    arguments: Arguments<'_>,
) -> HttpResponse {
    let work = async {
        let may_have_body = write.takes_body(resource) && body::is_there(request);
        let fields = if write.needs_body(resource) || may_have_body {
            body::fields(request, payload, body::LIMIT).await?
        } else {
            BTreeMap::new()
        };
        resource.check_known(arguments)?;
        let precondition = precondition(request);
        let input = write.input(resource, arguments, &fields)?;
        let (cache, resource, job) = (cache.clone(), resource.clone(), write.clone());
        let run = move || job.run(&resource, &input, precondition.as_ref(), &cache);
        Ok(answer(write.method(), bridge::change(run).await?))
    };
    access.admins(request, |_| work).await
}

/// What `If-Match` says, or else `If-None-Match` (RFC 9110, sections 13.1.1, 13.1.2 and 13.2.2).
fn precondition(request: &HttpRequest) -> Option<Precondition> {
    // A weak or malformed tag equals no tag by strong comparison.
    let must_match = listed(request, header::IF_MATCH)
        .map(|tags| tags.map_or(Precondition::Exists, Precondition::Is));
    must_match.or_else(|| {
        let tags = listed(request, header::IF_NONE_MATCH)?;
        Some(tags.map_or(Precondition::Absent, Precondition::IsNot))
    })
}

/// The entity tags of a header, on one line or several. `Some(None)` is `*`; `None` is no header.
fn listed(request: &HttpRequest, name: HeaderName) -> Option<Option<Vec<String>>> {
    let mut lines = request.headers().get_all(name).peekable();
    lines.peek()?;
    let mut tags = Vec::new();
    for line in lines {
        let line = line.to_str().unwrap_or_default().trim();
        if line == "*" {
            return Some(None);
        }
        tags.extend(headers::entity_tags(line).map(str::to_owned));
    }
    Some(Some(tags))
}

fn answer(method: WriteMethod, done: Written) -> HttpResponse {
    let status = match (method, &done.json) {
        (WriteMethod::Post, _) => StatusCode::CREATED,
        (WriteMethod::Delete, _) | (_, None) => StatusCode::NO_CONTENT,
        (WriteMethod::Put | WriteMethod::Patch, Some(_)) => StatusCode::OK,
    };
    let mut answer = HttpResponse::build(status);
    headers::set_receipt(done.receipt, &mut answer);
    if let Some(location) = done.location {
        answer.insert_header((header::LOCATION, location));
    }
    match done.json {
        Some(json) if status != StatusCode::NO_CONTENT => {
            answer.insert_header((header::CONTENT_TYPE, "application/json"));
            answer.body(json)
        }
        _ => answer.finish(),
    }
}
