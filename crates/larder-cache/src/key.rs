//! Keys and tags: the names that entries have, canonical, escaped and injective.
//!
//! A key's text is `<resource>?<parameter>=<value>&...` with everything but unreserved characters (RFC 3986, section 2.3)
//! percent-escaped, so that two different sets of values never meet in one key. Before it stands the fingerprint of what makes
//! the value, so that two configurations that share a Redis never read each other's entries.

use std::borrow::Borrow;
use std::fmt::{self, Write};
use std::sync::Arc;

/// The identity of an entry. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key(Arc<str>);

impl Key {
    /// Digits of the fingerprint and the colon behind it.
    pub(super) const NAME_AT: usize = 17;

    /// A key of the resource version `fingerprint` with a name made by [`KeyText`].
    pub fn new(fingerprint: u64, name: &str) -> Key {
        Key::with_parameters(fingerprint, name, "")
    }

    /// The same with the parameters apart, as they stand behind the name: `?id=42`.
    pub(super) fn with_parameters(fingerprint: u64, name: &str, parameters: &str) -> Key {
        Key(format!("{fingerprint:016x}:{name}{parameters}").into())
    }

    /// The name by which people and invalidations know it: the key without the fingerprint.
    pub fn name(&self) -> &str {
        self.0.get(Key::NAME_AT..).unwrap_or_default()
    }

    /// Fingerprint and name: what the tiers store it under.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn shared(&self) -> &Arc<str> {
        &self.0
    }
}

impl Borrow<str> for Key {
    fn borrow(&self) -> &str {
        &self.0
    }
}

// By hand, to be certain that it hashes as the text that `Borrow` gives does: a look-up by text depends on it.
impl std::hash::Hash for Key {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A key's text in the making, in a buffer that can be used again and again without allocating.
#[derive(Debug, Default)]
pub struct KeyText {
    text: String,
    parameters: usize,
}

impl KeyText {
    /// Begins anew: a key of the resource `name`.
    pub fn begin(&mut self, fingerprint: u64, name: &str) {
        self.text.clear();
        self.parameters = 0;
        // Writing to a String cannot fail.
        let _ = write!(self.text, "{fingerprint:016x}:{name}");
    }

    /// Begins anew with what [`KeyText::begin`] has made before, which costs a copy.
    pub fn begin_again(&mut self, beginning: &str) {
        self.text.clear();
        self.parameters = 0;
        self.text.push_str(beginning);
    }

    /// Adds a parameter. The caller keeps one order for one resource.
    pub fn parameter(&mut self, name: &str, value: &str) {
        self.text.push(if self.parameters == 0 { '?' } else { '&' });
        self.parameters += 1;
        self.text.push_str(name);
        self.text.push('=');
        escape_into(&mut self.text, value);
    }

    /// The text so far: what a look-up in memory takes.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The key of that text.
    pub fn key(&self) -> Key {
        Key(self.text.as_str().into())
    }
}

/// A name that entries share and that an invalidation can name: `user:42`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag(Arc<str>);

impl Tag {
    /// A tag of this text. Values that come from outside go through [`escape_into`] first.
    pub fn new(text: &str) -> Tag {
        Tag(text.into())
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn shared(&self) -> &Arc<str> {
        &self.0
    }
}

impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A 64-bit hash (XXH3), for entity tags and for the slots of invalidations.
pub fn hash(bytes: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(bytes)
}

/// Appends `value` with everything but unreserved characters percent-escaped, byte by byte of its UTF-8.
pub fn escape_into(text: &mut String, value: &str) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let unreserved =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
    // Nearly always: one copy.
    if value.bytes().all(unreserved) {
        return text.push_str(value);
    }
    for &byte in value.as_bytes() {
        if unreserved(byte) {
            text.push(byte as char);
        } else {
            text.push('%');
            text.push(HEX[usize::from(byte >> 4)] as char);
            text.push(HEX[usize::from(byte & 15)] as char);
        }
    }
}

/// The byte that the escape at the beginning of `text` stands for (RFC 3986, section 2.1); `None` if it does not begin with one.
pub fn unescaped(text: &[u8]) -> Option<u8> {
    let [b'%', high, low, ..] = text else {
        return None;
    };
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    u8::try_from(digit(high)? << 4 | digit(low)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(values: &[(&str, &str)]) -> String {
        let mut key = KeyText::default();
        key.begin(0xab, "articles");
        for (name, value) in values {
            key.parameter(name, value);
        }
        key.as_str().to_owned()
    }

    #[test]
    fn reads_as_a_path_with_a_query() {
        assert_eq!(text(&[]), "00000000000000ab:articles");
        let key = text(&[("category", "technology"), ("q", "a b&c=d")]);
        assert_eq!(
            key,
            "00000000000000ab:articles?category=technology&q=a%20b%26c%3Dd"
        );
        assert_eq!(Key::new(0xab, "articles").name(), "articles");
    }

    proptest! {
        #[test]
        fn escaping_is_injective(a: String, b: String, c: String, d: String) {
            let (left, right) = (text(&[("x", &a), ("y", &b)]), text(&[("x", &c), ("y", &d)]));
            prop_assert_eq!(left == right, (a, b) == (c, d));
        }
    }
}
