//! Names: what an invalidation can speak of.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use crate::entry::hash;
use crate::key::{Key, Tag};

/// The name of everything.
const EVERYTHING: &str = "*";

/// What is invalidated: the entries with a tag, the entry with a key, or everything.
#[derive(Clone)]
pub struct InvalidationTarget {
    /// Shared with the tag or key that it names.
    text: Arc<str>,
    /// Where it begins there.
    from: u32,
    /// Of its text, so that a hit need not look at that.
    hash: u32,
}

/// What an invalidation does to the entries it names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Purge {
    /// They are never served again.
    Hard,
    /// They are stale: to be renewed, and served meanwhile if their resource allows it.
    Soft,
}

impl InvalidationTarget {
    /// The entries that carry this tag.
    pub fn tag(tag: &str) -> InvalidationTarget {
        InvalidationTarget::cut(tag.into(), 0)
    }

    /// The entry with this key, by its name, in whatever version of its resource.
    pub fn key(name: &str) -> InvalidationTarget {
        InvalidationTarget::cut(name.into(), 0)
    }

    /// Every entry.
    pub fn everything() -> InvalidationTarget {
        InvalidationTarget::cut(EVERYTHING.into(), 0)
    }

    fn cut(text: Arc<str>, from: u32) -> InvalidationTarget {
        let mut name = InvalidationTarget {
            text,
            from,
            hash: 0,
        };
        // The lower half of it.
        name.hash = hash(name.as_str().as_bytes()) as u32;
        name
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        self.text.get(self.from as usize..).unwrap_or_default()
    }

    /// A hash of its text.
    pub(super) fn short_hash(&self) -> u32 {
        self.hash
    }

    pub(crate) fn is_everything(&self) -> bool {
        self.as_str() == EVERYTHING
    }
}

impl From<&Key> for InvalidationTarget {
    fn from(key: &Key) -> InvalidationTarget {
        InvalidationTarget::cut(key.shared().clone(), Key::NAME_AT as u32)
    }
}

impl From<&Tag> for InvalidationTarget {
    fn from(tag: &Tag) -> InvalidationTarget {
        InvalidationTarget::cut(tag.shared().clone(), 0)
    }
}

impl PartialEq for InvalidationTarget {
    fn eq(&self, other: &InvalidationTarget) -> bool {
        self.hash == other.hash && self.as_str() == other.as_str()
    }
}

impl Eq for InvalidationTarget {}

// By the text: the hash at hand has no secret, so names could be made to meet in a map.
impl Hash for InvalidationTarget {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl fmt::Debug for InvalidationTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Purge {
    /// How scripts and messages write it.
    pub(crate) fn letter(self) -> &'static str {
        match self {
            Purge::Hard => "h",
            Purge::Soft => "s",
        }
    }
}
