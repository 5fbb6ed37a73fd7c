//! The identity of a request, by which its caller and the log speak of it: taken over from `X-Request-Id`, or made.

use actix_web::body::BoxBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{HeaderName, HeaderValue};
use actix_web::middleware::Next;
use actix_web::web::Data;
use actix_web::{HttpMessage, HttpRequest};

use crate::cache::random;

use super::edge::Exchange;
use super::header_texts::HeaderTexts;
use super::resource::Front;

const NAME: HeaderName = HeaderName::from_static("x-request-id");
/// The longest that is taken over.
const LONGEST: usize = 128;

/// The request's own identity, or a new one. What is not printable ASCII, or too long for a log line, is replaced.
pub(super) fn of(request: &HttpRequest, texts: &mut HeaderTexts) -> HeaderValue {
    let given = request.headers().get(&NAME).filter(|given| {
        let bytes = given.as_bytes();
        (1..=LONGEST).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic)
    });
    given
        .cloned()
        .unwrap_or_else(|| texts.hexadecimal(random()).value())
}

/// How it stands at the end of a log line.
pub(crate) fn note(id: &HeaderValue) -> String {
    format!(" id={}", id.to_str().unwrap_or_default())
}

/// The same for a request of larder's own routes.
pub(crate) fn note_of(request: &HttpRequest) -> String {
    let extensions = request.extensions();
    extensions
        .get::<RequestId>()
        .map(|id| note(&id.0))
        .unwrap_or_default()
}

/// The identity of a request, where its handler finds it.
struct RequestId(HeaderValue);

/// Puts it on an answer.
pub(crate) fn tell(id: HeaderValue, headers: &mut actix_web::http::header::HeaderMap) {
    headers.insert(NAME, id);
}

/// Puts it on the answers of the routes around which this stands, and keeps to what is said about the end of a connection: what the
/// resources' own handler does by itself, since its speed is what larder is for.
pub(crate) async fn add(
    request: ServiceRequest,
    next: Next<BoxBody>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    let Some(exchange) = Exchange::begin(request.request()) else {
        return std::future::pending().await;
    };
    let id = of(request.request(), &mut HeaderTexts::new());
    request.extensions_mut().insert(RequestId(id.clone()));
    let closing = request
        .app_data::<Data<Front>>()
        .is_some_and(|front| front.lifecycle.is_closing());
    let mut answer = next.call(request).await?;
    tell(id, answer.headers_mut());
    exchange.end(answer.response_mut(), closing);
    Ok(answer)
}
