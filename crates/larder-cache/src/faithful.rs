//! JSON that keeps a value as it is: encode, decode, and the checks between them.
//!
//! JSON has no `NaN`, and the same `null` for `None`, `Some(None)` and `Some(())`. serde_json
//! writes them all, and decodes them as another value or not at all. [`encode`] refuses each of
//! them and says where it stands. A type's `Deserialize` may refuse what its `Serialize` writes, or
//! read it as something else: [`decode`] notices that.

use std::fmt::{self, Display};

use serde::de::DeserializeOwned;
use serde::ser::{self, Serialize, Serializer};

/// `value` as JSON.
///
/// # Errors
/// What JSON cannot represent, and where it stands.
pub(super) fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, String> {
    let mut json = Vec::with_capacity(128);
    write(value, &mut json)?;
    Ok(json)
}

/// Writes `value` as JSON.
///
/// # Errors
/// As [`encode`].
pub(super) fn write<T: Serialize>(value: &T, to: impl std::io::Write) -> Result<(), String> {
    // First, since this check knows the place.
    value.serialize(Look).map_err(|lossy| lossy.to_string())?;
    serde_json::to_writer(to, value).map_err(|error| error.to_string())
}

/// The `T` that `json` stands for. Refuses JSON that serde would decode as a `T` only by leaving
/// members out or filling them in: it is of another type, or of another version of this one.
///
/// # Errors
/// Why it is not a `T`.
pub(super) fn decode<T: Serialize + DeserializeOwned>(json: &[u8]) -> Result<T, String> {
    let told = |why: &dyn Display| format!("{json:.60?} {why}", json = Excerpt(json));
    let invalid = |error| told(&format!("is not a valid {}: {error}", name::<T>()));
    let value: T = serde_json::from_slice(json).map_err(invalid)?;
    // Members of a map may come in another order, so the length is compared.
    let again = serde_json::to_vec(&value).map_err(invalid)?;
    if again.len() == json.len() {
        Ok(value)
    } else {
        Err(told(&format!("reads back as a different {}", name::<T>())))
    }
}

fn name<T>() -> &'static str {
    std::any::type_name::<T>()
}

/// The beginning of some JSON, for an error.
struct Excerpt<'j>(&'j [u8]);

impl fmt::Debug for Excerpt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = String::from_utf8_lossy(self.0);
        let most = f.precision().unwrap_or(usize::MAX);
        match text.char_indices().nth(most) {
            Some((end, _)) => write!(f, "`{}…`", &text[..end]),
            None => write!(f, "`{text}`"),
        }
    }
}

/// The value that would be lost, and its place: the names of the members that lead there, the
/// innermost first.
#[derive(Debug)]
struct Lossy {
    what: String,
    place: Vec<String>,
}

impl Lossy {
    fn new(what: impl Into<String>) -> Lossy {
        Lossy {
            what: what.into(),
            place: Vec::new(),
        }
    }

    fn within(mut self, name: &str) -> Lossy {
        self.place.push(name.to_owned());
        self
    }
}

impl Display for Lossy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.place.is_empty() {
            let outermost_first: Vec<&str> = self.place.iter().rev().map(String::as_str).collect();
            write!(f, "`{}`: ", outermost_first.join("."))?;
        }
        f.write_str(&self.what)
    }
}

impl std::error::Error for Lossy {}

impl ser::Error for Lossy {
    fn custom<M: Display>(message: M) -> Lossy {
        Lossy::new(message.to_string())
    }
}

/// Whether a value is `null` in JSON.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Json {
    Null,
    Other,
}

/// Looks at a value and writes nothing.
struct Look;

impl Look {
    fn float(value: f64) -> Result<Json, Lossy> {
        if value.is_finite() {
            Ok(Json::Other)
        } else {
            Err(Lossy::new(format!("JSON cannot represent {value}")))
        }
    }
}

macro_rules! plain {
    ($($method:ident($($argument:ty),*)),*) => {
        $(fn $method(self, $(_: $argument),*) -> Result<Json, Lossy> { Ok(Json::Other) })*
    };
}

macro_rules! inside {
    ($($method:ident($($argument:ty),*)),*) => {
        $(fn $method(self, $(_: $argument),*) -> Result<Look, Lossy> { Ok(Look) })*
    };
}

impl Serializer for Look {
    type Ok = Json;
    type Error = Lossy;
    type SerializeSeq = Look;
    type SerializeTuple = Look;
    type SerializeTupleStruct = Look;
    type SerializeTupleVariant = Look;
    type SerializeMap = Look;
    type SerializeStruct = Look;
    type SerializeStructVariant = Look;

    plain!(
        serialize_bool(bool),
        serialize_char(char),
        serialize_str(&str),
        serialize_bytes(&[u8]),
        serialize_i8(i8),
        serialize_i16(i16),
        serialize_i32(i32),
        serialize_i64(i64),
        serialize_i128(i128),
        serialize_u8(u8),
        serialize_u16(u16),
        serialize_u32(u32),
        serialize_u64(u64),
        serialize_u128(u128),
        serialize_unit_variant(&'static str, u32, &'static str)
    );

    inside!(
        serialize_seq(Option<usize>),
        serialize_map(Option<usize>),
        serialize_tuple(usize),
        serialize_tuple_struct(&'static str, usize),
        serialize_tuple_variant(&'static str, u32, &'static str, usize),
        serialize_struct(&'static str, usize),
        serialize_struct_variant(&'static str, u32, &'static str, usize)
    );

    fn serialize_f32(self, value: f32) -> Result<Json, Lossy> {
        Look::float(value.into())
    }

    fn serialize_f64(self, value: f64) -> Result<Json, Lossy> {
        Look::float(value)
    }

    fn serialize_none(self) -> Result<Json, Lossy> {
        Ok(Json::Null)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<Json, Lossy> {
        match value.serialize(Look)? {
            Json::Null => Err(Lossy::new(
                "JSON writes one null for None and for a Some that holds None or ()",
            )),
            Json::Other => Ok(Json::Other),
        }
    }

    fn serialize_unit(self) -> Result<Json, Lossy> {
        Ok(Json::Null)
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<Json, Lossy> {
        Ok(Json::Null)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<Json, Lossy> {
        value.serialize(Look)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<Json, Lossy> {
        value
            .serialize(Look)
            .map(|_| Json::Other)
            .map_err(|lossy| lossy.within(variant))
    }
}

macro_rules! elements {
    ($($trait:ident::$method:ident),*) => {
        $(impl ser::$trait for Look {
            type Ok = Json;
            type Error = Lossy;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Lossy> {
                value.serialize(Look).map(drop)
            }

            fn end(self) -> Result<Json, Lossy> {
                Ok(Json::Other)
            }
        })*
    };
}

elements!(
    SerializeSeq::serialize_element,
    SerializeTuple::serialize_element,
    SerializeTupleStruct::serialize_field,
    SerializeTupleVariant::serialize_field
);

macro_rules! members {
    ($($trait:ident),*) => {
        $(impl ser::$trait for Look {
            type Ok = Json;
            type Error = Lossy;

            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                name: &'static str,
                value: &T,
            ) -> Result<(), Lossy> {
                let looked = value.serialize(Look).map(drop);
                looked.map_err(|lossy| lossy.within(name))
            }

            fn end(self) -> Result<Json, Lossy> {
                Ok(Json::Other)
            }
        })*
    };
}

members!(SerializeStruct, SerializeStructVariant);

impl ser::SerializeMap for Look {
    type Ok = Json;
    type Error = Lossy;

    // serde_json decides what can be a key: it writes numbers and booleans as text.
    fn serialize_key<T: Serialize + ?Sized>(&mut self, _: &T) -> Result<(), Lossy> {
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Lossy> {
        value.serialize(Look).map(drop)
    }

    fn end(self) -> Result<Json, Lossy> {
        Ok(Json::Other)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashMap, HashSet};

    use proptest::prelude::*;
    use serde::{Deserialize, Serialize};

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Reading {
        name: String,
        value: Option<f64>,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Shape {
        Point,
        Circle(f32),
        Box { sides: [Option<u8>; 2] },
    }

    fn kept<T: Serialize + DeserializeOwned + PartialEq + fmt::Debug>(value: T) {
        let json = encode(&value).unwrap();
        assert_eq!(decode::<T>(&json).unwrap(), value);
    }

    fn refused<T: Serialize + DeserializeOwned>(value: &T, why: &str) {
        let again = encode(value).and_then(|json| decode::<T>(&json));
        let error = again.err().unwrap();
        assert!(error.contains(why), "{error}");
    }

    #[test]
    fn what_json_has_is_kept() {
        kept(u64::MAX);
        kept((i64::MIN, u128::MAX, i128::MIN));
        kept((0.1_f32, 1e308, -0.0, f64::MIN_POSITIVE));
        kept(());
        kept(None::<u8>);
        kept(vec![Some(1), None]);
        kept(String::from("\u{0}\u{2028}ä"));
        kept(vec![0_u8, 255]);
        kept((Shape::Point, Shape::Circle(1.5)));
        kept(Shape::Box {
            sides: [None, Some(2)],
        });
        kept(HashMap::from([(1_u8, 'a'), (2, 'b')]));
        kept(BTreeMap::from([(true, 1), (false, 2)]));
        kept((0..100).collect::<HashSet<u32>>());
    }

    #[test]
    fn what_json_loses_is_told_with_its_place() {
        let odd = |value| Reading {
            name: "n".into(),
            value: Some(value),
        };
        refused(&odd(f64::NAN), "`value`: JSON cannot represent NaN");
        refused(
            &Shape::Circle(f32::NEG_INFINITY),
            "`Circle`: JSON cannot represent -inf",
        );
        refused(
            &vec![BTreeMap::from(
                [("a", f64::INFINITY)].map(|(k, v)| (k.to_owned(), v)),
            )],
            "cannot represent inf",
        );
        refused(&Some(None::<u8>), "one null for None");
        refused(&vec![Some(())], "one null for None");
        refused(
            &HashMap::from([((1_u8, 2_u8), 3_u8)]),
            "key must be a string",
        );
        refused(&BTreeMap::from([(vec![1], 1)]), "key must be a string");
    }

    /// Writes its member under another name than it reads.
    #[derive(Serialize, Deserialize)]
    struct Renamed {
        #[serde(rename(serialize = "a", deserialize = "b"), default)]
        member: Option<u8>,
    }

    /// serde reads what is flattened through a form that has no 128 bits.
    #[derive(Serialize, Deserialize)]
    struct Flat {
        #[serde(flatten)]
        inner: Wide,
    }

    #[derive(Serialize, Deserialize)]
    struct Wide {
        wide: u128,
    }

    #[test]
    fn a_type_that_does_not_read_what_it_writes_is_told() {
        refused(&Renamed { member: Some(1) }, "reads back as a different");
        refused(
            &Flat {
                inner: Wide { wide: u128::MAX },
            },
            "is not a valid ",
        );
    }

    #[derive(Debug, Serialize, Deserialize)]
    struct Older {
        name: String,
    }

    #[test]
    fn one_type_is_not_read_as_another_by_leaving_out_or_filling_in() {
        let reading = encode(&Reading {
            name: "n".into(),
            value: Some(1.0),
        })
        .unwrap();
        assert!(decode::<Older>(&reading).is_err());
        let older = encode(&Older { name: "n".into() }).unwrap();
        assert!(decode::<Reading>(&older).is_err());
        assert!(decode::<u8>(&older).is_err());
    }

    proptest! {
        #[test]
        fn every_finite_float_is_read_to_the_last_bit(bits: u64, small: u32) {
            let (wide, narrow) = (f64::from_bits(bits), f32::from_bits(small));
            prop_assume!(wide.is_finite() && narrow.is_finite());
            let json = encode(&(wide, narrow)).unwrap();
            let (again, small_again) = decode::<(f64, f32)>(&json).unwrap();
            prop_assert_eq!(again.to_bits(), wide.to_bits());
            prop_assert_eq!(small_again.to_bits(), narrow.to_bits());
        }
    }
}
