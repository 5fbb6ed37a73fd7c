//! The identity of a request, by which its caller and the log speak of it: taken over from `X-Request-Id`, or made.

use actix_web::HttpRequest;
use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{CONNECTION, HeaderName, HeaderValue};
use actix_web::middleware::Next;
use actix_web::web::Data;

use crate::cache::random;

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

/// Puts it on an answer.
pub(crate) fn tell(id: HeaderValue, headers: &mut actix_web::http::header::HeaderMap) {
    headers.insert(NAME, id);
}

/// Puts it on the answers of the routes around which this stands, and that the connection closes when the server does: what the
/// resources' own handler does by itself, since its speed is what larder is for.
pub(crate) async fn add(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<impl MessageBody>, actix_web::Error> {
    let id = of(request.request(), &mut HeaderTexts::new());
    let closing = request
        .app_data::<Data<Front>>()
        .is_some_and(|front| front.lifecycle.is_closing());
    let mut answer = next.call(request).await?;
    tell(id, answer.headers_mut());
    if closing {
        answer
            .headers_mut()
            .insert(CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(answer)
}
