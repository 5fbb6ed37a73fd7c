//! `Expect: 100-continue` (RFC 9110, section 10.1.1): whether a client should send its body.
//!
//! Promise: a client that would be refused whatever its body is gets the refusal before it sends
//! the body.

use actix_http::{Request, Response};
use actix_web::body::BoxBody;
use actix_web::http::{ConnectionType, Method};
use actix_web::{HttpMessage, HttpResponse};

use super::connection::Connection;
use crate::api::problem::Problem;
use crate::api::state::AppState;
use crate::api::{body, path};

/// Larder's own paths that take a body, each with `POST`.
const OWN: [&str; 2] = ["/cache/invalidate", "/keys"];

/// The request if its body is wanted, or else the answer. Only admins send bodies. The admission is
/// kept with the request, so that its handler does not count the request again.
pub(super) async fn admit(request: Request, state: &AppState) -> Result<Request, Refusal> {
    if Connection::is_over_before(&request) {
        return std::future::pending().await;
    }
    if !takes_body(&request, state) {
        return Err(last(&request, state, Problem::NoBodyTaken.answer()));
    }
    let admitted = state.access.admit_admin(request.head());
    let admitted = admitted.map_err(|refused| last(&request, state, refused.answer()))?;
    if let Err(problem) = body::check_head(request.headers()) {
        let answer = admitted.admission.with_rate_headers(problem.answer());
        return Err(last(&request, state, answer));
    }
    request.extensions_mut().insert(admitted);
    Ok(request)
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

fn takes_body(request: &Request, state: &AppState) -> bool {
    let path = path::normalized(request.path());
    if let Some(found) = state.resources.load().find(&path) {
        let write = found.resource.write(request.method().as_str());
        return write.is_some_and(|write| write.takes_body(found.resource));
    }
    request.method() == Method::POST && OWN.contains(&&*path)
}
