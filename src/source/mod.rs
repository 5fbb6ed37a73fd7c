//! FLOOR 2: sources: where a value comes from on a miss.

mod calls;
pub mod chat_sandbox;
mod error;
pub mod http;
pub mod json_api;
mod json_text;
pub mod news;
pub mod quota;
mod settings;
mod trace;
mod upstream;

pub use calls::Calls;
pub use http::SourceMethod;
pub use json_api::{JsonApi, JsonApiSettings, JsonTemplate, Place, TtlFrom};
pub use settings::{NEWS_UPSTREAMS, UpstreamSettings};
pub use trace::{TRACEPARENT, TRACESTATE, TraceContext};
pub use upstream::{HttpUpstream, HttpUpstreamSettings, HttpUpstreams};
