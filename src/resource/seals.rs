//! Seals: what tells two secrets apart, and from which neither can be recovered.
//!
//! What an upstream gives can depend on whose key it is asked with, so the key is part of what
//! makes a value, and that stands in the keys of Redis. Whoever reads those must not learn the
//! secret from it. A seal is 32 bits of a slow hash (PBKDF2, RFC 8018, over HMAC-SHA-256). That is
//! far less than a key generated at random holds, so countless others have the same seal, and no
//! effort finds the right one. A secret that a person thought of could be found by guessing, at the
//! cost of the rounds for each guess. The hash has no key of its own, since the configuration is
//! all that replicas of one Redis must have in common.

use std::cell::RefCell;
use std::collections::HashMap;
use std::num::NonZeroU32;

use ring::pbkdf2;

/// Rounds of the hash: some milliseconds.
const ROUNDS: NonZeroU32 = NonZeroU32::MIN.saturating_add(4095);
/// The same in every larder: replicas have to come to the same seal.
const SALT: &[u8] = b"larder: what an upstream is asked with";

/// The seals of one configuration. Each secret is hashed once, however many resources use it.
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
        // As another implementation has it: replicas of two versions share what they have from one
        // upstream.
        assert_eq!(seal, 1_044_273_329);
    }
}
