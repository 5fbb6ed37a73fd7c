//! Codecs: how a value becomes bytes for Redis, and the bytes a value again.

use std::error::Error;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::faithful;

/// Why a codec cannot encode a value, or cannot decode bytes. `?` makes one of any error, and
/// `.into()` of a text.
pub type CodecError = Box<dyn Error + Send + Sync>;

/// How the values of one type are kept in Redis: see
/// [`Cache::typed_with`](super::Cache::typed_with).
///
/// Each value is encoded once, at its load, and decoded once in each process that gets it. What a
/// load brought is decoded, too: a process that loads a value has the same one as those that find
/// it in Redis, and one that cannot be decoded is an error of its load.
///
/// ```
/// use larder_cache::{Cache, Codec, CodecError};
///
/// /// A number in hexadecimal digits.
/// struct Hex;
///
/// impl Codec<u32> for Hex {
///     fn name(&self) -> &str {
///         "hex"
///     }
///
///     fn encode(&self, number: &u32) -> Result<Vec<u8>, CodecError> {
///         Ok(format!("{number:x}").into_bytes())
///     }
///
///     fn decode(&self, bytes: &[u8]) -> Result<u32, CodecError> {
///         Ok(u32::from_str_radix(std::str::from_utf8(bytes)?, 16)?)
///     }
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let cache = Cache::builder().build()?;
/// let colours = cache.typed_with::<u32>("colour", 1, Hex)?;
/// # Ok(())
/// # }
/// ```
pub trait Codec<T>: Send + Sync + 'static {
    /// The name of the format. It is part of what values are kept under, so codecs of different
    /// names never read each other's bytes.
    fn name(&self) -> &str;

    /// The bytes that stand for `value`.
    ///
    /// # Errors
    /// If there are none that decode to the same value.
    fn encode(&self, value: &T) -> Result<Vec<u8>, CodecError>;

    /// The value that `bytes` stand for. They may come from another program that uses the same
    /// name, version and codec for another type.
    ///
    /// # Errors
    /// If they stand for no `T`. In Redis they count as a miss then.
    fn decode(&self, bytes: &[u8]) -> Result<T, CodecError>;
}

/// JSON, by serde_json: the codec of [`Cache::typed`](super::Cache::typed).
///
/// It keeps a value as it was or not at all. A value that JSON would change (`NaN`, `Some(None)`, a
/// map whose keys are not text) is an error that says where it stands. So is JSON that serde would
/// read as a `T` only by leaving members out or filling them in: that is another type, or another
/// version of this one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Json;

impl<T: Serialize + DeserializeOwned> Codec<T> for Json {
    fn name(&self) -> &str {
        "json"
    }

    fn encode(&self, value: &T) -> Result<Vec<u8>, CodecError> {
        Ok(faithful::encode(value)?)
    }

    fn decode(&self, bytes: &[u8]) -> Result<T, CodecError> {
        Ok(faithful::decode(bytes)?)
    }
}

/// The [postcard](https://postcard.jamesmunns.com) format: a few times smaller than JSON, and
/// quicker to read. With the feature `postcard`.
///
/// Unlike JSON it does not say what is where, so it cannot tell one type from another of the same
/// form: change the version with each change of the type. Attributes of serde that leave members
/// out or need to look ahead (`skip_serializing_if`, `untagged`, `flatten`) do not work with it,
/// and are errors of the load.
#[cfg(feature = "postcard")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Postcard;

#[cfg(feature = "postcard")]
impl<T: Serialize + DeserializeOwned> Codec<T> for Postcard {
    fn name(&self) -> &str {
        "postcard"
    }

    fn encode(&self, value: &T) -> Result<Vec<u8>, CodecError> {
        Ok(postcard::to_allocvec(value)?)
    }

    fn decode(&self, bytes: &[u8]) -> Result<T, CodecError> {
        let (value, rest) = postcard::take_from_bytes(bytes)?;
        // Members of a map may come in another order, so the length is compared.
        if rest.is_empty() && postcard::to_allocvec::<T>(&value)?.len() == bytes.len() {
            Ok(value)
        } else {
            let name = std::any::type_name::<T>();
            Err(format!("it reads back as a different {name}").into())
        }
    }
}
