//! The handler of writes: `POST`, `PUT`, `PATCH` and `DELETE` of the declared resources.
//!
//! Promise: whoever has the answer to a write that is not told as pending finds no old value here, and elsewhere none beyond the
//! bound of docs/consistency.md.

use std::collections::BTreeMap;
use std::sync::Arc;

use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderName};
use actix_web::{HttpRequest, HttpResponse, web};

use crate::resource::{Arguments, Precondition, Resource, Write, WriteMethod, Written};

use super::problem::Problem;
use super::resource::AppState;
use super::{body, bridge, headers, invalidation};

/// Writes what the request says, for admins only.
pub(super) async fn run(
    request: &HttpRequest,
    payload: &mut web::Payload,
    front: &AppState,
    resource: &Arc<Resource>,
    write: &Arc<Write>,
    arguments: Arguments<'_>,
) -> HttpResponse {
    let work = async {
        let done = written(request, payload, front, resource, write, arguments).await?;
        Ok(answer(write.method(), done))
    };
    front.access.admins(request, |_| work).await
}

async fn written(
    request: &HttpRequest,
    payload: &mut web::Payload,
    front: &AppState,
    resource: &Arc<Resource>,
    write: &Arc<Write>,
    arguments: Arguments<'_>,
) -> Result<Written, Problem> {
    let may_have_body = write.takes_body(resource) && body::is_there(request);
    let body = if write.needs_body(resource) || may_have_body {
        body::fields(request, payload).await?
    } else {
        BTreeMap::new()
    };
    resource.check_known(arguments)?;
    let precondition = precondition(request);
    let input = write.input(resource, arguments, &body)?;
    let (cache, resource, write) = (front.cache.clone(), resource.clone(), write.clone());
    bridge::change(move || write.run(&resource, &input, precondition.as_ref(), &cache)).await
}

/// What `If-Match` says, or else `If-None-Match` (RFC 9110, sections 13.1.1, 13.1.2 and 13.2.2).
fn precondition(request: &HttpRequest) -> Option<Precondition> {
    // A weak tag, or what is no tag at all, is nobody's by strong comparison.
    let wanted = listed(request, header::IF_MATCH)
        .map(|tags| tags.map_or(Precondition::Exists, Precondition::Is));
    wanted.or_else(|| {
        let tags = listed(request, header::IF_NONE_MATCH)?;
        Some(tags.map_or(Precondition::Absent, Precondition::IsNot))
    })
}

/// The entity tags of a header on one line or several; `Some(None)`: `*`.
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
    invalidation::tell(done.receipt, &mut answer);
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
