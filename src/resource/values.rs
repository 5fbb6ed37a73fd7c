//! The values of one request's parameters, views aside, each beside its parameter's name.

use super::argument::ParamValue;

/// See the module.
pub(super) type Values<'r> = [(&'r str, ParamValue)];

/// The value of the parameter `name`, if the request has one.
pub(super) fn value_of<'v>(values: &'v Values<'_>, name: &str) -> Option<&'v ParamValue> {
    let found = values.iter().find(|(known, _)| *known == name);
    found.map(|(_, value)| value)
}

/// The text of the parameter `name`, if the request has one.
pub(super) fn text_of(values: &Values<'_>, name: &str) -> Option<String> {
    value_of(values, name).map(ToString::to_string)
}
