//! `Expect: 100-continue` (RFC 9110, section 10.1.1): whether a client should send its body.
//!
//! Promise: a client that would be refused whatever its body is gets the refusal before it sends
//! the body. Only admins send bodies, and readers of what is read by `POST` or `QUERY`.

use std::time::Instant;

use actix_http::{Request, Response};
use actix_web::body::BoxBody;
use actix_web::http::ConnectionType;
use actix_web::{HttpMessage, HttpResponse};

use super::connection::Connection;
use crate::api::access::Audience;
use crate::api::problem::Problem;
use crate::api::state::AppState;
use crate::api::{body, headers, path};
use crate::resource::Resource;

/// Larder's own paths whose body may have the parameters of a read. Each takes one with `POST`, and
/// the first with `QUERY` too.
const AROUND_PARAMETERS: [&str; 2] = ["/cache/entry", "/cache/invalidate"];

/// The request if its body is wanted, or else the answer. The admission is kept with the request,
/// so that its handler does not count the request again.
pub(super) async fn admit(request: Request, state: &AppState) -> Result<Request, Refusal> {
    if Connection::is_over_before(&request) {
        return std::future::pending().await;
    }
    admit_sender(&request, state)?;
    Ok(request)
}

fn admit_sender(request: &Request, state: &AppState) -> Result<(), Refusal> {
    let refuse = |answer| last(request, state, answer);
    let path = path::normalized(request.path());
    let resources = state.resources.load();
    let resource = resources.find(&path).map(|found| &**found.resource);
    let method = request.method().as_str();
    let question = resource.and_then(|known| Some((known, known.read_with_body(method)?)));
    if let Some((resource, method)) = question {
        let refuse = |mut answer| {
            headers::set_accept_query_beside(method, resource, &mut answer);
            refuse(answer)
        };
        let audience = Audience::of_readers(resource.settings().public);
        let access = &state.access;
        let admitted = access.check_at(request.head(), audience, Instant::now());
        let admission = admitted.map_err(|refused| refuse(refused.answer()))?;
        body::check_head(request.headers(), body::LIMIT)
            .map_err(|problem| refuse(admission.with_rate_headers(problem.answer())))?;
        request.extensions_mut().insert(admission);
        return Ok(());
    }
    if !takes_body(request, &path, resource) {
        return Err(refuse(Problem::NoBodyTaken.answer()));
    }
    let admitted = state.access.admit_admin(request.head());
    let admitted = admitted.map_err(|refused| refuse(refused.answer()))?;
    let limit = match resource {
        None if AROUND_PARAMETERS.contains(&&*path) => body::LIMIT_AROUND_PARAMETERS,
        _ => body::LIMIT,
    };
    body::check_head(request.headers(), limit)
        .map_err(|problem| refuse(admitted.admission.with_rate_headers(problem.answer())))?;
    request.extensions_mut().insert(admitted);
    Ok(())
}

/// Counts this answer and ends the connection after it: what comes next may be the body or another
/// request.
fn last(request: &Request, state: &AppState, mut answer: HttpResponse) -> Refusal {
    state.traffic.count_response(answer.status());
    Connection::end_with(request);
    answer.head_mut().set_connection_type(ConnectionType::Close);
    Refusal(Box::new(answer))
}

/// The answer to a request whose body is not wanted.
pub(super) struct Refusal(Box<HttpResponse>);

impl From<Refusal> for Response<BoxBody> {
    fn from(refusal: Refusal) -> Response<BoxBody> {
        (*refusal.0).into()
    }
}

fn takes_body(request: &Request, path: &str, resource: Option<&Resource>) -> bool {
    match resource {
        Some(resource) => {
            let write = resource.write(request.method().as_str());
            write.is_some_and(|write| write.takes_body(resource))
        }
        None => match request.method().as_str() {
            "POST" => AROUND_PARAMETERS.contains(&path) || path == "/keys",
            "QUERY" => path == AROUND_PARAMETERS[0],
            _ => false,
        },
    }
}
