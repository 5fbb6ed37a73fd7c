//! What a request is to see of an entry.

use bytes::Bytes;

use super::news::NewsView;
use super::parameter::Argument;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum View<'q> {
    /// The value as it is.
    Whole,
    /// Some of the articles.
    News(NewsView<'q>),
}

/// The body of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// The stored bytes themselves.
    Stored(Bytes),
    /// Made for this answer.
    Made(Vec<u8>),
}

impl<'q> View<'q> {
    pub(super) fn set(&mut self, name: &str, argument: Argument<'q>) {
        match self {
            View::News(view) => view.set(name, argument),
            // A checked configuration declares no view of anything else.
            View::Whole => {}
        }
    }

    /// The answer's JSON from the bytes of an entry. `cached`: nobody waited for a source.
    pub fn body(&self, bytes: &Bytes, cached: bool) -> Body {
        match self {
            View::Whole => Body::Stored(bytes.clone()),
            View::News(view) => Body::Made(view.body(bytes, cached)),
        }
    }

    /// The hash for this view's entity tag (RFC 9110, section 8.8.3), and whether the tag is weak.
    /// News bodies are weak, because their `cached` field varies.
    pub fn etag_hash(&self, hash: u64) -> (bool, u64) {
        match self {
            View::Whole => (false, hash),
            View::News(view) => (true, view.etag_hash(hash)),
        }
    }
}

/// The strong entity tag of a value with this hash.
pub(super) fn entity_tag(hash: u64) -> String {
    format!("\"{hash:016x}\"")
}
