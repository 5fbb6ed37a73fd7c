//! Names one value of a type, and the tags by which it can be invalidated.

use std::fmt::{self, Display, Write};
use std::io;

use serde::Serialize;
use smallvec::SmallVec;

use super::faithful;
use super::key::{Tag, escaped};

/// Room for the parameters and tags of most keys, so that a lookup in memory allocates nothing.
const INLINE: usize = 104;
/// Room for the ends of as many tags.
const TAGS: usize = 4;

/// Names one value of its type, and the tags by which it can be invalidated, besides its key.
///
/// Anything that can be displayed is a key without tags: a number, a text, a UUID. It is the same
/// key as `TaggedKey::new().with("key", it)`.
///
/// ```
/// use larder_cache::TaggedKey;
///
/// let id = 42;
/// let key = TaggedKey::new().with("id", id).tag(format_args!("user:{id}")).tag("users");
/// assert_eq!(TaggedKey::from(42), TaggedKey::new().with("key", "42"));
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct TaggedKey {
    /// The parameters, then the tags.
    text: SmallVec<[u8; INLINE]>,
    /// Where the parameters end.
    parameters: usize,
    /// Where each tag ends.
    tags: SmallVec<[usize; TAGS]>,
}

impl TaggedKey {
    /// The one value of its type, unless [`TaggedKey::with`] says which.
    pub fn new() -> TaggedKey {
        TaggedKey::default()
    }

    /// The value with this parameter. Its `value` is escaped, so it is never mistaken for another
    /// value or parameter. Their order matters.
    pub fn with(self, parameter: &str, value: impl Display) -> TaggedKey {
        self.parameter(parameter, |text| {
            // Only a `Display` that fails by itself fails. What it wrote until then counts.
            let _ = write!(text, "{value}");
        })
    }

    /// The value with this parameter as JSON.
    ///
    /// # Errors
    /// What JSON cannot represent.
    pub(crate) fn with_json(
        self,
        parameter: &str,
        value: &impl Serialize,
    ) -> Result<TaggedKey, String> {
        let mut written = Ok(());
        let key = self.parameter(parameter, |text| written = faithful::write(value, text));
        written.map(|()| key)
    }

    fn parameter(mut self, name: &str, value: impl FnOnce(&mut Escaped<'_>)) -> TaggedKey {
        let began = self.text.len();
        self.text
            .push(if self.parameters == 0 { b'?' } else { b'&' });
        let mut text = Escaped(&mut self.text);
        text.push(name.as_bytes());
        text.0.push(b'=');
        value(&mut text);
        // In front of the tags.
        let added = self.text.len() - began;
        self.text[self.parameters..].rotate_right(added);
        self.parameters += added;
        self.tags.iter_mut().for_each(|end| *end += added);
        self
    }

    /// Adds a tag by which it can be invalidated. `format_args!` makes one of several parts without
    /// an allocation.
    pub fn tag(mut self, tag: impl Display) -> TaggedKey {
        let _ = write!(Plain(&mut self.text), "{tag}");
        self.tags.push(self.text.len());
        self
    }

    /// The parameters as they follow the name of the type.
    pub(crate) fn parameters(&self) -> &str {
        text(&self.text[..self.parameters])
    }

    pub(crate) fn tags(&self) -> impl Iterator<Item = Tag> + '_ {
        let begins = [self.parameters]
            .into_iter()
            .chain(self.tags.iter().copied());
        begins
            .zip(&self.tags)
            .map(|(begin, end)| Tag::new(text(&self.text[begin..*end])))
    }
}

impl<D: Display> From<D> for TaggedKey {
    fn from(value: D) -> TaggedKey {
        TaggedKey::new().with("key", value)
    }
}

impl fmt::Debug for TaggedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tags: Vec<Tag> = self.tags().collect();
        write!(f, "{:?} {tags:?}", self.parameters())
    }
}

/// All that is ever written is whole texts.
fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}

/// Escapes what is written to it.
struct Escaped<'t>(&'t mut SmallVec<[u8; INLINE]>);

impl Escaped<'_> {
    fn push(&mut self, bytes: &[u8]) {
        for piece in escaped(bytes) {
            self.0.extend_from_slice(piece.as_bytes());
        }
    }
}

impl Write for Escaped<'_> {
    fn write_str(&mut self, piece: &str) -> fmt::Result {
        self.push(piece.as_bytes());
        Ok(())
    }
}

impl io::Write for &mut Escaped<'_> {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        self.push(piece);
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Takes what is written to it as it is.
struct Plain<'t>(&'t mut SmallVec<[u8; INLINE]>);

impl Write for Plain<'_> {
    fn write_str(&mut self, piece: &str) -> fmt::Result {
        self.0.extend_from_slice(piece.as_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(key: &TaggedKey) -> Vec<String> {
        key.tags().map(|tag| tag.as_str().to_owned()).collect()
    }

    #[test]
    fn parameters_and_tags_come_in_any_order() {
        let (id, long) = (42, "ü".repeat(INLINE));
        let key = TaggedKey::new()
            .tag(format_args!("user:{id}"))
            .with("id", id)
            .tag("")
            .with("a=b", "c&d")
            .tag(&long);
        assert_eq!(key.parameters(), "?id=42&a%3Db=c%26d");
        assert_eq!(tags(&key), ["user:42", "", &long]);
        let other = TaggedKey::new().with("id", id).with("a=b", "c&d");
        let other = other.tag("user:42").tag("").tag(&long);
        assert_eq!(key, other);
        assert_eq!(TaggedKey::new().parameters(), "");
        assert!(tags(&TaggedKey::new()).is_empty());
    }

    #[test]
    fn what_is_displayed_and_what_is_serialized_are_keys() {
        assert_eq!(TaggedKey::from(-7).parameters(), "?key=-7");
        assert_eq!(TaggedKey::from("a b").parameters(), "?key=a%20b");
        let pair = TaggedKey::new().with_json("args", &(1, "é"));
        assert_eq!(pair.unwrap().parameters(), "?args=%5B1%2C%22%C3%A9%22%5D");
        let error = TaggedKey::new().with_json("args", &f64::NAN).unwrap_err();
        assert!(error.contains("cannot represent NaN"), "{error}");
    }
}
