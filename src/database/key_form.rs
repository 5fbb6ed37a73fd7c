//! The format of an API key: `lk_`, an id of 12 letters and digits, `_`, and a secret of 32.
//!
//! Promise: every character of a new key is equally likely.

use sha2::{Digest, Sha256};

use super::error::DatabaseError;

const PREFIX: &str = "lk_";
const ID_LENGTH: usize = 12;
const SECRET_LENGTH: usize = 32;
const KEY_LENGTH: usize = PREFIX.len() + ID_LENGTH + 1 + SECRET_LENGTH;
const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// The id of a key. `None` if the text is not in the format of a key.
pub fn key_id(key: &str) -> Option<&str> {
    if key.len() != KEY_LENGTH || !key.is_ascii() {
        return None;
    }
    let (id, secret) = key.strip_prefix(PREFIX)?.split_at(ID_LENGTH);
    let base62 = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    (base62(id) && base62(secret.strip_prefix('_')?)).then_some(id)
}

/// The id of a text that may be a key, unchecked: for a lookup that compares the whole text
/// afterwards.
pub(crate) fn presumed_key_id(key: &str) -> Option<&str> {
    key.strip_prefix(PREFIX)?.get(..ID_LENGTH)
}

/// The hash of a key that the database stores: SHA-256 in hexadecimal.
pub fn key_hash(key: &str) -> String {
    Sha256::digest(key.as_bytes())
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// A new id, and the key that contains it.
pub(super) fn new_key() -> Result<(String, String), DatabaseError> {
    let id = random_base62(ID_LENGTH)?;
    let key = format!("{PREFIX}{id}_{}", random_base62(SECRET_LENGTH)?);
    Ok((id, key))
}

fn random_base62(length: usize) -> Result<String, DatabaseError> {
    let mut text = String::with_capacity(length);
    let mut bytes = [0; 64];
    while text.len() < length {
        getrandom::fill(&mut bytes)
            .map_err(|error| DatabaseError::Failed(format!("no random bytes: {error}")))?;
        // 248 is the largest multiple of 62 in a byte. Bytes above it would make some characters
        // likelier than others.
        let digits = bytes
            .iter()
            .filter(|byte| **byte < 248)
            .map(|byte| char::from(BASE62[usize::from(byte % 62)]));
        text.extend(digits.take(length - text.len()));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_form_of_a_key_has_an_id() {
        let key = format!("lk_{}_{}", "a".repeat(12), "B".repeat(32));
        assert_eq!(key_id(&key), Some("aaaaaaaaaaaa"));
        let short = &key[..46];
        let odd = key.replace('B', "-");
        let wide = format!("lk_{}_{}", "é".repeat(6), "B".repeat(32));
        for wrong in [
            "",
            "lk_",
            short,
            &odd,
            &wide,
            &key.to_uppercase(),
            &key.replace("_B", "BB"),
        ] {
            assert_eq!(key_id(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn random_text_is_of_its_length_and_differs() {
        let made: std::collections::HashSet<String> =
            (0..100).map(|_| random_base62(32).unwrap()).collect();
        assert_eq!(made.len(), 100);
        assert!(
            made.iter()
                .all(|text| text.len() == 32 && text.bytes().all(|b| BASE62.contains(&b)))
        );
    }
}
