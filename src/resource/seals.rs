//! Seals: short hashes that distinguish secrets, and from which no secret can be recovered.
//!
//! An upstream's answer can depend on the API key, so the key is part of a value's fingerprint, and
//! fingerprints stand in the keys of Redis. A reader of those keys must not learn the secret. A
//! seal is 32 bits of a slow hash (PBKDF2, RFC 8018, with HMAC-SHA-256). A random API key has far
//! more bits, so countless other keys have the same seal, and no effort finds the right one. A
//! secret that a person chose could be guessed, and each guess costs all the rounds. The hash has
//! no key of its own, because replicas of one Redis share nothing but the configuration.

use std::cell::RefCell;
use std::collections::HashMap;
use std::num::NonZeroU32;

use ring::pbkdf2;

/// Rounds of the hash: some milliseconds.
const ROUNDS: NonZeroU32 = NonZeroU32::MIN.saturating_add(4095);
/// The same in every larder, so that all replicas compute the same seal.
const SALT: &[u8] = b"larder: what an upstream is asked with";

/// The seals of one configuration. Each secret is hashed only once.
#[derive(Default)]
pub(super) struct Seals(RefCell<HashMap<String, u32>>);

impl Seals {
    /// The seal of `secret`.
    pub(super) fn of(&self, secret: &str) -> u32 {
        let mut known = self.0.borrow_mut();
        if let Some(seal) = known.get(secret) {
            return *seal;
        }
        let mut seal = [0; 4];
        let algorithm = pbkdf2::PBKDF2_HMAC_SHA256;
        pbkdf2::derive(algorithm, ROUNDS, SALT, secret.as_bytes(), &mut seal);
        let seal = u32::from_le_bytes(seal);
        known.insert(secret.to_owned(), seal);
        seal
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seal_is_the_same_in_every_process_and_another_for_another_secret() {
        let (seals, others) = (Seals::default(), Seals::default());
        let seal = seals.of("a key");
        assert_eq!((seals.of("a key"), others.of("a key")), (seal, seal));
        assert_ne!(seals.of("another key"), seal);
        // Computed by another implementation. It must not change: replicas of two versions share
        // values.
        assert_eq!(seal, 1_044_273_329);
    }
}
