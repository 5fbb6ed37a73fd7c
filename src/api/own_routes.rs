//! What larder's own routes have around their handlers.
//!
//! The handler of the resources does the same by itself, without a boxed middleware, to be fast.

use actix_web::HttpMessage;
use actix_web::body::BoxBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::middleware::Next;
use actix_web::web::Data;

use super::edge::Exchange;
use super::header_texts::HeaderTexts;
use super::request_id;
use super::resource::AppState;

/// Begins and ends the exchange, and puts the request's identity on the answer. It closes the
/// connection if the client or the shutdown asks for that.
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
        .app_data::<Data<AppState>>()
        .is_some_and(|front| front.lifecycle.is_closing());
    let mut answer = next.call(request).await?;
    request_id::tell(id, answer.headers_mut());
    exchange.end(answer.response_mut(), closing);
    Ok(answer)
}
