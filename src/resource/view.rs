//! A view: the part of an entry that a request gets.

use bytes::Bytes;

use super::argument::Argument;
use super::news::NewsView;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum View<'q> {
    /// The whole value, as it is stored.
    Full,
    /// A selection of the articles.
    News(NewsView<'q>),
}

/// The body of a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// The stored bytes themselves.
    Stored(Bytes),
    /// Made for this response.
    Made(Vec<u8>),
}

impl<'q> View<'q> {
    pub(super) fn set(&mut self, name: &str, argument: Argument<'q>) {
        match self {
            View::News(view) => view.set(name, argument),
            // A valid configuration declares views of news only.
            View::Full => {}
        }
    }

    /// The response's JSON from the bytes of an entry. `cached`: the request waited for no source.
    pub fn body(&self, bytes: &Bytes, cached: bool) -> Body {
        match self {
            View::Full => Body::Stored(bytes.clone()),
            View::News(view) => Body::Made(view.body(bytes, cached)),
        }
    }

    /// Whether the entity tag of this view is weak, and its hash (RFC 9110, section 8.8.3). `hash`
    /// is the hash of the entry. News have weak tags: the last field of their body says whether
    /// this very response came from the cache.
    pub fn entity_tag(&self, hash: u64) -> (bool, u64) {
        match self {
            View::Full => (false, hash),
            View::News(view) => (true, view.hash(hash)),
        }
    }
}

/// The strong entity tag of a value with this hash, in its quotes.
pub(super) fn entity_tag(hash: u64) -> String {
    format!("\"{hash:016x}\"")
}
