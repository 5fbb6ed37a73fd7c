//! The identity of a request, by which its caller and the log speak of it: taken over from `X-Request-Id`, or made.

use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use actix_web::{HttpMessage, HttpRequest};

use larder_cache::random;

use super::header_texts::HeaderTexts;

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
pub(super) struct RequestId(pub(super) HeaderValue);

/// Puts it on an answer.
pub(crate) fn tell(id: HeaderValue, headers: &mut HeaderMap) {
    headers.insert(NAME, id);
}
