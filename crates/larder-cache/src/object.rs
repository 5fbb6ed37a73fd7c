//! A value of a type of the embedding program, shared by all who read it.
//!
//! The tiers know no types. What was decoded once is held behind an `Arc` without its type, and
//! given to readers as the `Arc` that it is.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

/// See the module.
#[derive(Clone)]
pub struct Object {
    value: Arc<dyn Any + Send + Sync>,
    /// What it takes in memory, in bytes, as far as is known.
    weight: usize,
}

/// Makes the object that some bytes stand for, or says why they stand for none. It decodes, so it
/// belongs where a reader does not wait for it.
pub(crate) type Hold = Arc<dyn Fn(&[u8]) -> Result<Object, String> + Send + Sync>;

impl Object {
    /// This value, which takes about `weight` bytes.
    pub(crate) fn new<T: Send + Sync + 'static>(value: T, weight: usize) -> Object {
        Object {
            value: Arc::new(value),
            weight,
        }
    }

    /// The value, if it is a `T`. Copies nothing.
    pub(crate) fn get<T: Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        self.value.clone().downcast().ok()
    }

    pub(crate) fn weight(&self) -> usize {
        self.weight
    }
}

/// The same object, not an equal one.
impl PartialEq for Object {
    fn eq(&self, other: &Object) -> bool {
        Arc::ptr_eq(&self.value, &other.value)
    }
}

impl Eq for Object {}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Object({} bytes)", self.weight)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_the_very_value_and_only_as_its_own_type() {
        let object = Object::new(vec![1_u8, 2], 26);
        let (one, other) = (object.get::<Vec<u8>>().unwrap(), object.get::<Vec<u8>>());
        assert!(Arc::ptr_eq(&one, &other.unwrap()));
        assert!(object.get::<Vec<i8>>().is_none());
        assert_eq!(object, object.clone());
        assert_ne!(object, Object::new(vec![1_u8, 2], 26));
    }
}
