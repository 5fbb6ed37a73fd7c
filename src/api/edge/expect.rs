//! `Expect: 100-continue` (RFC 9110, section 10.1.1): whether a client is to send its body.
//!
//! Promise: a client that would be refused whatever its body says gets the refusal before it sends
//! the body.

use actix_http::{Request, Response};
use actix_web::body::BoxBody;
use actix_web::http::{ConnectionType, Method};
use actix_web::web::Data;
use actix_web::{HttpMessage, HttpResponse};

use super::connection::Connection;
use crate::api::problem::Problem;
use crate::api::resource::AppState;
use crate::api::{body, path};

/// Larder's own paths that take a body, each with `POST`.
const OWN: [&str; 2] = ["/cache/invalidate", "/keys"];

/// The request, if its body is wanted; else the answer. All bodies are those of admins. What a
/// request has used of its key's rate here is kept with it, so that its handler does not count it
/// again.
pub(super) async fn admit(request: Request, front: &Data<AppState>) -> Result<Request, Refusal> {
    if Connection::is_over_before(&request) {
        return std::future::pending().await;
    }
    if !takes_body(&request, front) {
        return Err(last(&request, Problem::NoBodyTaken.answer()));
    }
    let admitted = front.access.admit_admin(request.head());
    let admitted = admitted.map_err(|refused| last(&request, refused.answer()))?;
    if let Err(problem) = body::check_head(request.headers()) {
        let mut answer = problem.answer();
        admitted.admission.tell(answer.headers_mut());
        return Err(last(&request, answer));
    }
    request.extensions_mut().insert(admitted);
    Ok(request)
}

/// Behind this answer the connection ends: whether what comes next is the body nobody can tell.
fn last(request: &Request, mut answer: HttpResponse) -> Refusal {
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

fn takes_body(request: &Request, front: &AppState) -> bool {
    let path = path::plain(request.path());
    if let Some(found) = front.resources.load().find(&path) {
        let write = found.resource.write(request.method().as_str());
        return write.is_some_and(|write| write.takes_body(found.resource));
    }
    request.method() == Method::POST && OWN.contains(&&*path)
}
