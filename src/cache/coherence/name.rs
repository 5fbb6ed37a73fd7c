//! Names: what an invalidation can speak of.

use super::super::key::{Key, Tag};

/// The name of everything.
const EVERYTHING: &str = "*";

/// What is invalidated: the entries with a tag, the entry with a key, or everything.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Name(Tag);

/// What an invalidation does to the entries it names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// They are never served again.
    Hard,
    /// They are stale: to be renewed, and served meanwhile if their resource allows it.
    Soft,
}

impl Name {
    /// The entries that carry this tag.
    pub fn tag(tag: &str) -> Name {
        Name(Tag::new(tag))
    }

    /// The entry with this key, by its name, in whatever version of its resource.
    pub fn key(name: &str) -> Name {
        Name(Tag::new(name))
    }

    /// Every entry.
    pub fn everything() -> Name {
        Name(Tag::new(EVERYTHING))
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    pub(crate) fn is_everything(&self) -> bool {
        self.as_str() == EVERYTHING
    }
}

impl From<&Key> for Name {
    fn from(key: &Key) -> Name {
        Name::key(key.name())
    }
}

impl Kind {
    /// How scripts and messages write it.
    pub(crate) fn letter(self) -> &'static str {
        match self {
            Kind::Hard => "h",
            Kind::Soft => "s",
        }
    }
}
