//! The id of a request, in its answer and in the log: that of `X-Request-Id`, or a new one. Beside
//! it in the log is the id of the trace that the request is part of.

use std::sync::Arc;

use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use actix_web::{HttpMessage, HttpRequest};

use crate::resource::RequestContext;
use crate::source::{TRACEPARENT, TRACESTATE, TraceContext};
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

/// What a load for this request says about it. Reads the trace headers: not for memory hits.
pub(super) fn context(request: &HttpRequest, id: &HeaderValue) -> RequestContext {
    RequestContext {
        request_id: id.to_str().ok().map(Arc::from),
        trace: trace(request).map(Arc::new),
    }
}

/// The same for a request of larder's own routes.
pub(super) fn context_of(request: &HttpRequest) -> RequestContext {
    let extensions = request.extensions();
    let id = extensions.get::<RequestId>();
    id.map(|id| context(request, &id.0)).unwrap_or_default()
}

fn trace(request: &HttpRequest) -> Option<TraceContext> {
    let lines = |name| request.headers().get_all(name).map(HeaderValue::as_bytes);
    TraceContext::read(lines(TRACEPARENT), lines(TRACESTATE))
}

/// The id of a request, in its extensions.
pub(super) struct RequestId(pub(super) HeaderValue);

/// Sets the header of an answer.
pub(crate) fn set_header(id: HeaderValue, headers: &mut HeaderMap) {
    headers.insert(NAME, id);
}
