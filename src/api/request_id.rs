//! The id of a request, which its caller and the log know it by: that of `X-Request-Id`, or a new one.

use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use actix_web::{HttpMessage, HttpRequest};

use larder_cache::random;

use super::header_texts::HeaderTexts;

const NAME: HeaderName = HeaderName::from_static("x-request-id");
/// The longest id that is taken from a request.
const LONGEST: usize = 128;

/// The request's own id, or a new one if it has none that is printable ASCII and fits a log line.
pub(super) fn of(request: &HttpRequest, texts: &mut HeaderTexts) -> HeaderValue {
    let own = request.headers().get(&NAME).filter(|id| {
        let bytes = id.as_bytes();
        (1..=LONGEST).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic)
    });
    own.cloned()
        .unwrap_or_else(|| texts.hexadecimal(random()).value())
}

/// The end of a log line that names the request.
pub(crate) fn log_suffix(id: &HeaderValue) -> String {
    format!(" id={}", id.to_str().unwrap_or_default())
}

/// The same for a request of larder's own routes.
pub(crate) fn log_suffix_of(request: &HttpRequest) -> String {
    let extensions = request.extensions();
    extensions
        .get::<RequestId>()
        .map(|id| log_suffix(&id.0))
        .unwrap_or_default()
}

/// The id of a request, in its extensions.
pub(super) struct RequestId(pub(super) HeaderValue);

/// Sets the header of an answer.
pub(crate) fn set_header(id: HeaderValue, headers: &mut HeaderMap) {
    headers.insert(NAME, id);
}
