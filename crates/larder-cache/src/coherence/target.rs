//! What can be invalidated: a tag, a key or everything.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use crate::key::{Key, Tag, hash, short};

/// The text that stands for everything.
const EVERYTHING: &str = "*";

/// What is invalidated: the entries with a tag, the entry with a key, or everything.
#[derive(Clone)]
pub struct InvalidationTarget {
    /// Shared with the tag or key.
    text: Arc<str>,
    /// Where the target's own text begins in `text`.
    from: u32,
    /// A hash of the target's own text. A memory hit reads this and not the text.
    hash: u32,
}

/// What an invalidation does to the entries of its target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Purge {
    /// They are never served again.
    Hard,
    /// They are stale: a load renews them, and they are served meanwhile if policy allows it.
    Soft,
}

impl InvalidationTarget {
    /// The entries that carry this tag.
    pub fn tag(tag: &str) -> InvalidationTarget {
        InvalidationTarget::cut((&*short(tag)).into(), 0)
    }

    /// The entry whose key has this name, in every version of its resource.
    pub fn key(name: &str) -> InvalidationTarget {
        InvalidationTarget::cut((&*short(name)).into(), 0)
    }

    /// Every entry.
    pub fn everything() -> InvalidationTarget {
        InvalidationTarget::cut(EVERYTHING.into(), 0)
    }

    fn cut(text: Arc<str>, from: u32) -> InvalidationTarget {
        let own = text.get(from as usize..).unwrap_or_default();
        // The lower half.
        let hash = hash(own.as_bytes()) as u32;
        InvalidationTarget { text, from, hash }
    }

    /// Its text. Of a long tag or key, the text with its hash.
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

/// One target where several are asked for.
impl AsRef<[InvalidationTarget]> for InvalidationTarget {
    fn as_ref(&self) -> &[InvalidationTarget] {
        std::slice::from_ref(self)
    }
}

impl PartialEq for InvalidationTarget {
    fn eq(&self, other: &InvalidationTarget) -> bool {
        self.hash == other.hash && self.as_str() == other.as_str()
    }
}

impl Eq for InvalidationTarget {}

// Hashes the text: `hash` has no secret, so somebody could choose names that collide in a map.
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
    /// Both.
    pub const ALL: [Purge; 2] = [Purge::Hard, Purge::Soft];

    /// The word for it in a metric.
    pub fn word(self) -> &'static str {
        match self {
            Purge::Hard => "hard",
            Purge::Soft => "soft",
        }
    }

    /// How scripts and messages encode it.
    pub(crate) fn letter(self) -> &'static str {
        match self {
            Purge::Hard => "h",
            Purge::Soft => "s",
        }
    }

    pub(crate) fn of_letter(letter: &str) -> Option<Purge> {
        Purge::ALL
            .into_iter()
            .find(|purge| purge.letter() == letter)
    }
}
