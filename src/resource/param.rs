//! A parameter of a resource: its value in a request or in a tag, in the one spelling that keys
//! have.

use regex_lite::Regex;

use super::form::Taken;
use super::parameter::{self, Argument, Arguments, BadParameter};
use super::settings::{ParamSettings, ParamValue};

/// A parameter, ready to be read.
pub(super) struct Param {
    pub(super) settings: ParamSettings,
    /// What its whole value matches.
    pub(super) pattern: Option<Regex>,
    /// How the database takes it, where a statement does.
    pub(super) taken: Option<Taken>,
}

impl Param {
    /// Its value in a request, by default where it is not there, in the one spelling that it has.
    #[inline]
    pub(super) fn read<'q>(
        &'q self,
        arguments: Arguments<'q>,
    ) -> Result<Option<Argument<'q>>, BadParameter> {
        let read = parameter::read(&self.settings, self.pattern.as_ref(), arguments)?;
        Ok(read.map(|argument| self.formed(argument)))
    }

    /// Its value in a tag; `None` where no request can have it.
    pub(super) fn of_tag<'q>(&self, text: &'q str) -> Option<Argument<'q>> {
        let pattern = self.pattern.as_ref();
        if let Some(value) = parameter::of_tag(&self.settings, pattern, text) {
            return Some(self.formed(value));
        }
        // Its declaration may allow the one spelling alone that it has in tags.
        let formed = self.taken.as_ref()?.form?.canonical(text)?;
        let value = ParamValue::from(parameter::of_tag(&self.settings, pattern, &formed)?);
        Some(match value {
            ParamValue::Text(text) => Argument::Text(text.into()),
            ParamValue::Integer(number) => Argument::Integer(number),
            ParamValue::Boolean(yes) => Argument::Boolean(yes),
        })
    }

    /// The value in the one spelling that it has.
    #[inline(always)]
    fn formed<'q>(&self, argument: Argument<'q>) -> Argument<'q> {
        let form = self.taken.as_ref().and_then(|taken| taken.form);
        match (argument, form) {
            (Argument::Text(text), Some(form)) => {
                let written = form.canonical(&text);
                Argument::Text(written.map_or(text, Into::into))
            }
            (argument, _) => argument,
        }
    }
}
