//! The news aggregator: two upstreams with formats of their own, one common form.

mod article;
mod listing;
mod same_story;

pub use article::{Article, source_name};
pub use listing::{Flags, Item, Listing};
