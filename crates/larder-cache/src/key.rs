//! Keys and tags: the canonical names of entries.
//!
//! The text of a key is `<resource>?<parameter>=<value>&...`. Everything but unreserved characters
//! (RFC 3986, section 2.3) is percent-escaped, so two different sets of values never get the same
//! key. The fingerprint of what makes the value stands before it, so two configurations that share
//! a Redis never read each other's entries.
//!
//! A key or tag longer than [`LONGEST`] is known by its hash: see [`short`]. So is the same text
//! when somebody invalidates it, and no tier, record or message ever has the long one.

use std::borrow::{Borrow, Cow};
use std::fmt::{self, Write};
use std::sync::Arc;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode, utf8_percent_encode};
use sha2::{Digest, Sha256};

/// The longest key or tag that stands for itself, in bytes, without the fingerprint of a key.
const LONGEST: usize = 512;
/// What precedes the hash of a long one. No parameter begins so, since each has a `=`.
const HASHED: &str = "sha256:";
/// The hexadecimal digits of a SHA-256.
const DIGITS: usize = 64;

/// The identity of an entry. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key(Arc<str>);

impl Key {
    /// Where the name begins: after the digits of the fingerprint and a colon.
    pub(super) const NAME_AT: usize = 17;

    /// A key of the resource version `fingerprint` with a name made by [`KeyText`].
    pub fn new(fingerprint: u64, name: &str) -> Key {
        let mut key = KeyText::default();
        key.begin(fingerprint, name);
        key.key()
    }

    /// The key without the fingerprint. People and invalidations use this name.
    pub fn name(&self) -> &str {
        self.0.get(Key::NAME_AT..).unwrap_or_default()
    }

    /// Fingerprint and name. The tiers store the entry under this text.
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

// By hand: it must hash as the text of `Borrow` does, since lookups are by text.
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

/// Builds the text of a key, in a buffer that can be used again without allocating.
#[derive(Debug, Default)]
pub struct KeyText {
    text: String,
    count: usize,
}

impl KeyText {
    /// Starts a key of the resource `name`.
    pub fn begin(&mut self, fingerprint: u64, name: &str) {
        self.text.clear();
        self.count = 0;
        // Writing to a String cannot fail.
        let _ = write!(self.text, "{fingerprint:016x}:{name}");
    }

    /// Starts a key with a text that [`KeyText::begin`] made before. Costs one copy.
    pub fn begin_again(&mut self, beginning: &str) {
        self.text.clear();
        self.count = 0;
        self.text.push_str(beginning);
    }

    /// Adds a parameter. The order must be the same for all keys of a resource.
    pub fn parameter(&mut self, name: &str, value: &str) {
        self.text.push(if self.count == 0 { '?' } else { '&' });
        self.count += 1;
        self.text.push_str(name);
        self.text.push('=');
        escape_into(&mut self.text, value);
    }

    /// Adds all parameters at once, as they follow the name, escaped already: `?id=42`.
    pub(super) fn parameters(&mut self, text: &str) {
        self.text.push_str(text);
    }

    /// The whole text, after the last parameter. A lookup in memory takes this.
    pub fn as_str(&mut self) -> &str {
        if self.text.len() > Key::NAME_AT + LONGEST {
            self.shorten();
        }
        &self.text
    }

    /// The key of that text.
    pub fn key(&mut self) -> Key {
        Key(self.as_str().into())
    }

    #[cold]
    fn shorten(&mut self) {
        let name = self.text.get(Key::NAME_AT..).unwrap_or_default();
        let short = hashed(name);
        self.text.truncate(Key::NAME_AT);
        self.text.push_str(&short);
    }
}

/// A key's name or a tag as the tiers and Redis's record know it: itself, or if it is longer than
/// [`LONGEST`] its beginning up to the first `?` or `:`, and its SHA-256. `answer?sha256:9f86...`
/// for `answer?question=...`; `question:sha256:60e0...` for `question:...`.
pub(super) fn short(name: &str) -> Cow<'_, str> {
    if name.len() > LONGEST {
        Cow::Owned(hashed(name))
    } else {
        Cow::Borrowed(name)
    }
}

fn hashed(name: &str) -> String {
    let beginning = name.find(['?', ':']).map_or("", |at| &name[..=at]);
    let fits = beginning.len() + HASHED.len() + DIGITS <= LONGEST;
    let beginning = if fits { beginning } else { "" };
    let mut short = String::with_capacity(beginning.len() + HASHED.len() + DIGITS);
    short.push_str(beginning);
    short.push_str(HASHED);
    for byte in Sha256::digest(name.as_bytes()) {
        // Writing to a String cannot fail.
        let _ = write!(short, "{byte:02x}");
    }
    short
}

/// A tag that entries share and that can be invalidated: `user:42`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag(Arc<str>);

impl Tag {
    /// A tag with this text. Escape values from outside with [`escape_into`] first. One longer than
    /// 512 bytes is known by its hash.
    pub fn new(text: &str) -> Tag {
        Tag((&*short(text)).into())
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

/// Everything but the unreserved characters of RFC 3986, section 2.3.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// Appends `value` with everything but unreserved characters percent-escaped, byte by byte of its
/// UTF-8.
pub fn escape_into(text: &mut String, value: &str) {
    text.extend(utf8_percent_encode(value, RESERVED));
}

/// The same of any bytes, piece by piece.
pub(super) fn escaped(value: &[u8]) -> impl Iterator<Item = &str> {
    percent_encode(value, RESERVED)
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
    fn unreserved_characters_alone_stand_for_themselves() {
        let mut all = String::new();
        for byte in 0..=127_u8 {
            let mut escaped = String::new();
            escape_into(&mut escaped, &char::from(byte).to_string());
            let plain = byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
            let expected = match plain {
                true => char::from(byte).to_string(),
                false => format!("%{byte:02X}"),
            };
            assert_eq!(escaped, expected);
            all += &escaped;
        }
        escape_into(&mut all, "é");
        assert!(all.ends_with("%7F%C3%A9"));
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

    #[test]
    fn a_long_name_is_known_by_its_hash() {
        let value = |length| "x".repeat(length);
        let name = |key: &str| key[Key::NAME_AT..].to_owned();
        // `articles?q=` has eleven bytes.
        let longest = name(&text(&[("q", &value(LONGEST - 11))]));
        assert_eq!(longest.len(), LONGEST);
        let short_form = name(&text(&[("q", &value(LONGEST - 10))]));
        let (beginning, digits) = short_form.split_at(16);
        assert_eq!(beginning, "articles?sha256:");
        assert!(digits.len() == DIGITS && digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
        // Whoever makes the name, and again from the short form.
        let long = format!("articles?q={}", value(LONGEST - 10));
        let key = Key::new(0xab, &long);
        assert_eq!(key.name(), short_form);
        assert_eq!(Key::new(0xab, key.name()), key);
        // What no resource makes is short, too.
        for (name, beginning) in [
            (value(900), ""),
            (format!("{}?x=1", value(900)), ""),
            (format!("user:{}", value(900)), "user:"),
            (format!(":{}", value(900)), ":"),
            (format!("é:{}", value(900)), "é:"),
            (format!("a?b:{}", value(900)), "a?"),
        ] {
            let short = short(&name);
            assert_eq!(short.len(), beginning.len() + HASHED.len() + DIGITS);
            assert!(
                short.starts_with(&format!("{beginning}{HASHED}")),
                "{short}"
            );
            assert_eq!(Tag::new(&name).as_str(), short);
        }
    }

    proptest! {
        #[test]
        fn no_two_sets_of_values_share_a_key_at_any_length(
            // Around the bound: 512 bytes of name, of which `articles?x=&y=` takes fourteen.
            a in "[a%é]{0,4}x{240,262}", b in "[a%é]{0,4}x{240,262}",
            c in "[a%é]{0,4}x{240,262}", d in "[a%é]{0,4}x{240,262}",
        ) {
            let (left, right) = (text(&[("x", &a), ("y", &b)]), text(&[("x", &c), ("y", &d)]));
            prop_assert!(left.len() <= Key::NAME_AT + LONGEST);
            prop_assert_eq!(left == right, (&a, &b) == (&c, &d));
            // Nor with another parameter, or one less.
            prop_assert_ne!(text(&[("x", &a), ("y", &b)]), text(&[("x", &a), ("z", &b)]));
            prop_assert_ne!(text(&[("x", &a), ("y", &b)]), text(&[("x", &format!("{a}{b}"))]));
            // The short form is no other question's key.
            let claimed = left[Key::NAME_AT..].trim_start_matches("articles?");
            prop_assert_ne!(text(&[("x", claimed)]), &*left);
            prop_assert_ne!(text(&[(claimed, "")]), &*left);
        }

        #[test]
        fn escaping_is_injective(a: String, b: String, c: String, d: String) {
            let (left, right) = (text(&[("x", &a), ("y", &b)]), text(&[("x", &c), ("y", &d)]));
            prop_assert_eq!(left == right, (a, b) == (c, d));
        }
    }
}
