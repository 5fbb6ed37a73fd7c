//! The environment, as a function that tests can replace.
//!
//! Invariant: a variable that is empty is one that is not set, since that is what `VAR=${VAR:-}` of a compose file makes of it.

use std::fmt::Display;

use super::reader::Value;
use crate::secret::Secret;
use crate::source::json_api::is_variable;

/// Looks a variable up.
pub type Lookup<'e> = &'e dyn Fn(&str) -> Option<String>;

/// Looks a variable of this process up. What is not Unicode comes out damaged rather than unseen.
pub fn process_environment(name: &str) -> Option<String> {
    std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
}

#[derive(Clone, Copy)]
pub(super) struct Environment<'e>(pub(super) Lookup<'e>);

/// What [`Environment::key`] accepts.
const KEY_FORM: &str = "the key alone, without spaces";

impl Environment<'_> {
    /// A variable that is set and not empty.
    pub(super) fn get(self, name: &str) -> Option<String> {
        (self.0)(name).filter(|value| !value.is_empty())
    }

    /// A key that will be sent in a header. Spaces and line ends around it are no part of it.
    pub(super) fn key(self, name: &str) -> Result<Option<Secret>, (&'static str, &'static str)> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        let key = value.trim();
        if key.is_empty() || key.bytes().any(|byte| !byte.is_ascii_graphic()) {
            return Err((
                "has a character that no key has, or nothing but spaces",
                KEY_FORM,
            ));
        }
        Ok(Some(Secret::new(key)))
    }

    /// The text that `value` is, with each `${VAR}` replaced by the variable. Reports what is wrong with it, all of it, without
    /// showing it; `valid` says what is valid where it is no text.
    pub(super) fn fill(self, value: &Value<'_>, valid: impl Display) -> Option<String> {
        let Some(text) = value.as_text() else {
            value.fault("is no text", valid);
            return None;
        };
        let mut filled = String::with_capacity(text.len());
        let mut whole = true;
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${") {
            filled.push_str(before);
            let Some((name, after)) = after.split_once('}') else {
                value.fault("has a \"${\" without its \"}\"", "${NAME}");
                return None;
            };
            rest = after;
            if !is_variable(name) {
                value.fault(
                    "has a \"${}\" around something that is no variable's name",
                    "${NAME}",
                );
                whole = false;
            } else if let Some(found) = self.get(name) {
                filled.push_str(&found);
            } else {
                value.fault(
                    format!("names ${{{name}}}, which is missing from the environment"),
                    format!("with {name} set in the environment"),
                );
                whole = false;
            }
        }
        filled.push_str(rest);
        whole.then_some(filled)
    }
}
