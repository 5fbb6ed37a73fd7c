//! A composite: one object, joined from the objects of other resources. Each part has its own TTLs,
//! tags and entry.
//!
//! Promise: a composite is fresh as long as all its parts are, and an expired part is loaded alone.
//! Members stand in the order of the parts. If two parts have a member of one name, the later
//! part's value stands in the place of the earlier one. If the first part is absent, the composite
//! is absent; any other absent part adds nothing. If a part fails, the composite fails.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::database::{DatabaseError, Transaction};
use larder_cache::{
    CacheItem, Composition, InvalidationTarget, Lifetime, Loaded, LookupResult, Producer, Value,
};

use super::Resource;
use super::canonical::ParamType;
use super::request_context::RequestContext;
use super::sql::Sql;
use super::values::Values;

/// See the module.
pub(super) struct Composite(Vec<Arc<Resource>>);

impl Composite {
    /// Finds the parts of these names among `built`.
    pub(super) fn new(names: &[String], built: &[Arc<Resource>]) -> Result<Composite, String> {
        let part = |name: &String| {
            let found = built.iter().find(|resource| resource.name() == name);
            found
                .cloned()
                .ok_or_else(|| format!("the part {name} is not a resource"))
        };
        Ok(Composite(names.iter().map(part).collect::<Result<_, _>>()?))
    }

    /// The share of the load permits for the composite itself: it may have to ask Redis about an
    /// older copy of it.
    pub(super) fn share(&self) -> &str {
        let mut shares = self.0.iter().filter_map(|part| part.share());
        shares.next().unwrap_or(Sql::SHARE)
    }

    /// Whether every part comes from the database.
    pub(super) fn is_sql(&self) -> bool {
        self.0.iter().all(|part| part.is_sql())
    }

    /// How the database takes the parameter `name`, as the first part whose statement has it says.
    pub(super) fn sql_type(&self, name: &str) -> Option<&ParamType> {
        let params = self.0.iter().flat_map(|part| part.names.params());
        let mut named = params.filter(|param| param.settings.name == name);
        named.find_map(|param| param.sql_type.as_ref())
    }

    /// What invalidates the parts' entries for these values.
    pub(super) fn targets(&self, values: &Values<'_>) -> Vec<InvalidationTarget> {
        let own = |part: &Arc<Resource>| part.names.targets(&part.names.own_values(values));
        self.0.iter().flat_map(own).collect()
    }

    pub(super) fn identity(&self) -> String {
        let one = |part: &Arc<Resource>| format!("{}#{:016x}", part.name(), part.fingerprint);
        self.0.iter().map(one).collect::<Vec<_>>().join(" ")
    }

    pub(super) fn limit(&self) -> Duration {
        self.0
            .iter()
            .map(|part| part.source_limit())
            .max()
            .unwrap_or_default()
    }

    /// The value as `transaction` sees it.
    pub(super) fn current(
        &self,
        transaction: &mut Transaction<'_>,
        values: &Values<'_>,
    ) -> Result<Option<Vec<u8>>, DatabaseError> {
        let mut parts = Vec::with_capacity(self.0.len());
        for part in &self.0 {
            parts.push(part.current(transaction, values)?);
        }
        let no_object = || DatabaseError::Failed("a part is not a JSON object".to_owned());
        joined(parts.iter().map(Option::as_deref)).ok_or_else(no_object)
    }

    pub(super) fn producer(
        &self,
        item: &CacheItem,
        values: &Values<'_>,
        context: &RequestContext,
    ) -> Producer {
        let part = |part: &Arc<Resource>| part.request_of(values, item.jitter, context);
        Producer::Compose(Composition {
            parts: self.0.iter().filter_map(part).collect(),
            compose: Arc::new(join),
            last_resort: None,
        })
    }
}

/// The composite of the parts. `None` if a part failed or is not an object.
fn join(parts: &[LookupResult]) -> Option<Loaded> {
    let values: Vec<&Value> = parts
        .iter()
        .map(|part| part.as_ref().ok().map(|answer| &answer.entry.value))
        .collect::<Option<_>>()?;
    let value = match joined(values.into_iter().map(as_bytes))? {
        Some(json) => Value::present(json),
        None => Value::Absent,
    };
    Some(Loaded::new(value, Lifetime::Policy))
}

fn as_bytes(value: &Value) -> Option<&[u8]> {
    match value {
        Value::Present(bytes) => Some(bytes),
        Value::Absent | Value::Object(_) => None,
    }
}

/// The object that `parts` make together. `Some(None)`: the first part is absent. `None`: a part is
/// not an object.
pub(super) fn joined<'p>(
    parts: impl IntoIterator<Item = Option<&'p [u8]>>,
) -> Option<Option<Vec<u8>>> {
    let mut members: Vec<(String, Box<RawValue>)> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    for (at, part) in parts.into_iter().enumerate() {
        let Some(bytes) = part else {
            if at == 0 {
                return Some(None);
            }
            continue;
        };
        let OrderedMembers(own) = serde_json::from_slice(bytes).ok()?;
        for (name, value) in own {
            match places.get(&name) {
                Some(place) => members[*place].1 = value,
                None => {
                    places.insert(name.clone(), members.len());
                    members.push((name, value));
                }
            }
        }
    }
    let mut json = vec![b'{'];
    for (at, (name, value)) in members.iter().enumerate() {
        if at > 0 {
            json.push(b',');
        }
        serde_json::to_writer(&mut json, &name).ok()?;
        json.push(b':');
        json.extend_from_slice(value.get().as_bytes());
    }
    json.push(b'}');
    Some(Some(json))
}

/// The members of an object in their order, repeated ones included. Each value is its JSON text, so
/// numbers keep every digit.
pub(crate) struct OrderedMembers(pub(crate) Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for OrderedMembers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<OrderedMembers, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = OrderedMembers;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<OrderedMembers, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(OrderedMembers(members))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn join_texts(parts: &[Option<&str>]) -> Option<Option<String>> {
        let bytes = parts.iter().map(|part| part.map(str::as_bytes));
        joined(bytes).map(|joined| joined.map(|json| String::from_utf8(json).unwrap()))
    }

    #[test]
    fn members_keep_their_order_and_every_digit() {
        let joined = join_texts(&[
            Some(r#"{"id":1,"name":"Ada"}"#),
            Some(r#"{"pay":1.10,"id":12345678901234567890.50}"#),
        ]);
        let joined = joined.unwrap().unwrap();
        assert_eq!(
            joined,
            r#"{"id":12345678901234567890.50,"name":"Ada","pay":1.10}"#
        );
    }

    #[test]
    fn the_first_part_decides_whether_there_is_such_a_thing() {
        assert_eq!(join_texts(&[None, Some("{}")]), Some(None));
        assert_eq!(
            join_texts(&[Some(r#"{"a":1}"#), None]),
            Some(Some(r#"{"a":1}"#.to_owned()))
        );
        assert_eq!(join_texts(&[Some("{}")]), Some(Some("{}".to_owned())));
    }

    #[test]
    fn what_is_no_object_makes_no_composite() {
        for part in ["[1]", "1", "", "{", "{}x"] {
            assert_eq!(join_texts(&[Some("{}"), Some(part)]), None, "{part}");
        }
    }
}
