//! Conditions on an answer: which answers are kept.
//!
//! Values are equal in the sense of JSON: `1`, `1.0` and `10e-1` are one number, however many
//! digits it has, and the order of members does not matter.

use std::collections::HashMap;

use serde_json::Value as Json;
use serde_json::value::RawValue;

use super::pick::Pointer;

/// A pointer, and the values of which it has to lead to one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Condition {
    pub(super) pointer: Pointer,
    pub(super) values: Vec<Json>,
}

impl Condition {
    /// Whether it holds for `json`, which must be valid JSON. A pointer that leads to nothing does
    /// not hold.
    pub(super) fn holds(&self, json: &str) -> bool {
        let found = self.pointer.find(json);
        found.is_ok_and(|found| self.values.iter().any(|value| is_equal(found, value)))
    }
}

/// Whether this JSON text, without white space around it, has this value.
fn is_equal(json: &str, value: &Json) -> bool {
    match value {
        Json::Null => json == "null",
        Json::Bool(yes) => json == if *yes { "true" } else { "false" },
        Json::Number(number) => {
            let found = decimal(json);
            found.is_some() && found == decimal(&number.to_string())
        }
        Json::String(text) => serde_json::from_str::<String>(json).is_ok_and(|own| own == *text),
        Json::Array(items) => serde_json::from_str::<Vec<&RawValue>>(json).is_ok_and(|own| {
            let mut pairs = own.iter().zip(items);
            own.len() == items.len() && pairs.all(|(own, item)| is_equal(own.get(), item))
        }),
        Json::Object(members) => serde_json::from_str::<HashMap<String, &RawValue>>(json)
            .is_ok_and(|own| {
                let has = |(name, member): (&String, &Json)| {
                    own.get(name).is_some_and(|own| is_equal(own.get(), member))
                };
                own.len() == members.len() && members.iter().all(has)
            }),
    }
}

/// A number as its sign, its digits without zeros around them, and the power of ten of the last
/// one. `None`: the JSON text is no number, or its exponent is beyond all bounds.
fn decimal(json: &str) -> Option<(bool, String, i64)> {
    let (is_negative, rest) = match json.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, json),
    };
    if !rest.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let (mantissa, exponent) = rest.split_once(['e', 'E']).unwrap_or((rest, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let shorter = digits.trim_end_matches('0');
    let zeros = digits.len() - shorter.len();
    let digits = shorter.trim_start_matches('0');
    if digits.is_empty() {
        return Some((false, String::new(), 0));
    }
    let moved = i64::try_from(zeros).ok()? - i64::try_from(fraction.len()).ok()?;
    let exponent = exponent.parse::<i64>().ok()?.checked_add(moved)?;
    Some((is_negative, digits.to_owned(), exponent))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn numbers_are_compared_by_their_value_to_the_last_digit() {
        let equal = [
            ("1", json!(1.0)),
            ("1.0", json!(1)),
            ("10e-1", json!(1)),
            ("0.1E+1", json!(1)),
            ("100", json!(1e2)),
            ("-0.0", json!(0)),
            ("0e99999999999999999999", json!(0)),
            ("0.5", json!(0.5)),
            ("9007199254740993", json!(9_007_199_254_740_993_i64)),
            ("9007199254740993.000", json!(9_007_199_254_740_993_i64)),
            ("-9223372036854775808", json!(i64::MIN)),
            ("18446744073709551615", json!(u64::MAX)),
        ];
        for (text, value) in equal {
            assert!(is_equal(text, &value), "{text} {value}");
        }
        let other = [
            ("1", json!(-1)),
            ("1", json!("1")),
            ("\"1\"", json!(1)),
            ("1", json!(true)),
            ("10", json!(1)),
            ("9007199254740992.0", json!(9_007_199_254_740_993_i64)),
            ("9007199254740993", json!(9_007_199_254_740_992_i64)),
            ("1e99999999999999999999", json!(1)),
            ("null", json!(0)),
        ];
        for (text, value) in other {
            assert!(!is_equal(text, &value), "{text} {value}");
        }
    }

    #[test]
    fn other_values_are_compared_by_what_they_say() {
        for (text, value, equal) in [
            ("null", json!(null), true),
            ("false", json!(false), true),
            ("true", json!(false), false),
            (r#""st\u006fp""#, json!("stop"), true),
            (r#""stop ""#, json!("stop"), false),
            // Half a surrogate is no text.
            (r#""\ud800""#, json!("\u{fffd}"), false),
            (
                r#"{"b": [1.0, {}], "a":"x"}"#,
                json!({"a": "x", "b": [1, {}]}),
                true,
            ),
            (r#"{"a": 1, "a": 2}"#, json!({"a": 2}), true),
            (r#"{"a": 1, "b": 2}"#, json!({"a": 1}), false),
            (r#"{"a": 1}"#, json!({"a": 1, "b": 2}), false),
            ("[1, 2]", json!([2, 1]), false),
            ("[1]", json!([1, 2]), false),
            ("[]", json!({}), false),
        ] {
            assert_eq!(is_equal(text, &value), equal, "{text} {value}");
        }
    }

    #[test]
    fn a_pointer_that_leads_to_nothing_does_not_hold() {
        let condition = |pointer: &str, values: &[Json]| Condition {
            pointer: Pointer::parse(pointer).unwrap(),
            values: values.to_vec(),
        };
        let body = r#"{"choices": [{"finish_reason": "stop"}], "n": null}"#;
        let at = "/choices/0/finish_reason";
        assert!(condition(at, &[json!("stop")]).holds(body));
        assert!(condition(at, &[json!("length"), json!("stop")]).holds(body));
        assert!(!condition(at, &[json!("length")]).holds(body));
        assert!(!condition(at, &[]).holds(body));
        for nowhere in ["/choices/1/finish_reason", "/choices/0/x", "/n/0"] {
            let all = [json!(null), json!("stop"), json!("")];
            assert!(!condition(nowhere, &all).holds(body), "{nowhere}");
        }
        assert!(condition("/n", &[json!(null)]).holds(body));
    }

    proptest! {
        #[test]
        fn a_value_equals_itself_and_no_other(one in values(), other in values()) {
            prop_assert!(is_equal(&one.to_string(), &one));
            prop_assert!(is_equal(&serde_json::to_string_pretty(&one).unwrap(), &one));
            if one != other {
                prop_assert!(!is_equal(&one.to_string(), &other));
            }
        }
    }

    /// Values whose numbers are whole, so that serde_json's own comparison is right.
    fn values() -> impl Strategy<Value = Json> {
        let leaf = prop_oneof![
            Just(Json::Null),
            any::<bool>().prop_map(Json::from),
            any::<i64>().prop_map(Json::from),
            (-2_i64..3).prop_map(Json::from),
            ".{0,3}".prop_map(Json::from),
        ];
        leaf.prop_recursive(3, 16, 3, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Json::from),
                prop::collection::vec(("[ab]", inner), 0..3)
                    .prop_map(|members| Json::Object(members.into_iter().collect())),
            ]
        })
    }
}
