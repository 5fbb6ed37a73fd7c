//! The middleware of larder's own routes.
//!
//! The handler of the declared resources does the same by itself: a boxed middleware costs time.

use actix_web::HttpMessage;
use actix_web::body::BoxBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::middleware::Next;
use actix_web::web::Data;

use super::edge::Exchange;
use super::header_texts::HeaderTexts;
use super::lifecycle::Lifecycle;
use super::request_id;
use super::traffic::Traffic;

/// Begins and ends the exchange, counts the answer, and sets the request's id on it. Closes the
/// connection if the client asks for that, or if the server is closing.
pub(super) async fn wrap(
    request: ServiceRequest,
    next: Next<BoxBody>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    let Some(exchange) = Exchange::begin(request.request()) else {
        return std::future::pending().await;
    };
    let id = request_id::of(request.request(), &mut HeaderTexts::new());
    request
        .extensions_mut()
        .insert(request_id::RequestId(id.clone()));
    let closing = request
        .app_data::<Data<Lifecycle>>()
        .is_some_and(|lifecycle| lifecycle.is_closing());
    let traffic = request.app_data::<Data<Traffic>>().cloned();
    let mut answer = next.call(request).await?;
    request_id::set_header(id, answer.headers_mut());
    exchange.end(answer.response_mut(), closing);
    if let Some(traffic) = traffic {
        traffic.count_response(answer.status());
    }
    Ok(answer)
}
