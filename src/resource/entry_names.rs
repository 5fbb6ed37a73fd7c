//! The names of a resource's entries: the key of each one, and the tags that it depends on.
//!
//! A key has one spelling for each value (see [`Spelling`](super::canonical::Spelling)), so two
//! values never share an entry. A tag is made twice, once with the value itself and once with its
//! canonical text, so a change to a row reaches the entries of all values that the database calls
//! equal.

use larder_cache::{InvalidationTarget, Key, KeyText, Tag};

use crate::database;

use super::argument::{Arguments, BadParameter, ParamValue, Wrong};
use super::param::Param;
use super::tag::TagTemplate;
use super::values::{Values, text_of, value_of};

/// See the module.
pub(super) struct EntryNames {
    /// What every key begins with: the resource's fingerprint and name.
    prefix: Box<str>,
    /// The parameters in the key, in their order there.
    params: Vec<Param>,
    tags: Vec<TagTemplate>,
}

impl EntryNames {
    pub(super) fn new(
        fingerprint: u64,
        resource: &str,
        params: Vec<Param>,
        tags: Vec<TagTemplate>,
    ) -> EntryNames {
        let mut prefix = KeyText::default();
        prefix.begin(fingerprint, resource);
        EntryNames {
            prefix: prefix.as_str().into(),
            params,
            tags,
        }
    }

    pub(super) fn params(&self) -> &[Param] {
        &self.params
    }

    /// Checks the arguments and writes the canonical key into `key`. Allocates nothing for plain
    /// arguments.
    ///
    /// # Errors
    /// The first argument that is not valid.
    pub(super) fn write_key(
        &self,
        arguments: Arguments<'_>,
        key: &mut KeyText,
    ) -> Result<(), BadParameter> {
        key.begin_again(&self.prefix);
        for param in &self.params {
            if let Some(argument) = param.read(arguments)? {
                argument.with_text(|text| key.parameter(&param.settings.name, text));
            }
        }
        Ok(())
    }

    /// The values of the key's parameters. A required parameter may be absent if `may_be_missing`
    /// says so.
    ///
    /// # Errors
    /// As [`EntryNames::write_key`].
    pub(super) fn values(
        &self,
        arguments: Arguments<'_>,
        may_be_missing: &dyn Fn(&str) -> bool,
    ) -> Result<Vec<(&str, ParamValue)>, BadParameter> {
        let mut values = Vec::with_capacity(self.params.len());
        for param in &self.params {
            let name = param.settings.name.as_str();
            match param.read(arguments) {
                Ok(argument) => {
                    values.extend(argument.map(|argument| (name, argument.into_owned())));
                }
                Err(bad) if bad.wrong == Wrong::Missing && may_be_missing(name) => {}
                Err(bad) => return Err(bad),
            }
        }
        Ok(values)
    }

    /// The values of the key's own parameters among `values`, in the order of the key. A parameter
    /// without a value has its default.
    pub(super) fn own_values(&self, values: &Values<'_>) -> Vec<(&str, ParamValue)> {
        let own = |param: &Param| {
            let value = value_of(values, &param.settings.name);
            value.or(param.settings.default.as_ref()).cloned()
        };
        self.params
            .iter()
            .filter_map(|param| Some((param.settings.name.as_str(), own(param)?)))
            .collect()
    }

    /// The key of the entry for these values.
    pub(super) fn key(&self, own: &Values<'_>) -> Key {
        self.key_of_texts(own.iter().map(|(name, value)| (*name, value.to_string())))
    }

    fn key_of_texts<'n>(&self, texts: impl IntoIterator<Item = (&'n str, String)>) -> Key {
        let mut key = KeyText::default();
        key.begin_again(&self.prefix);
        for (name, text) in texts {
            key.parameter(name, &text);
        }
        key.key()
    }

    /// The tags of the entry for these values, and one that stands for the entries of all values
    /// that the database calls equal to these.
    pub(super) fn tags(&self, own: &Values<'_>) -> Box<[Tag]> {
        let mut tags = Vec::with_capacity(self.tags.len());
        for template in &self.tags {
            for tag in self.rendered(template, own) {
                if !tags.contains(&tag) {
                    tags.push(tag);
                }
            }
        }
        tags.extend(self.tag_of_equals(own));
        tags.into()
    }

    /// The tags that a template gives: one with each value as it is, one with canonical texts.
    fn rendered(&self, template: &TagTemplate, own: &Values<'_>) -> [Tag; 2] {
        [
            template.render(|name| text_of(own, name)),
            template.render(|name| self.canonical_text(own, name)),
        ]
    }

    /// The key's name with each value canonical, as a tag. `None` if that is the key itself.
    fn tag_of_equals(&self, own: &Values<'_>) -> Option<Tag> {
        let canonical = own
            .iter()
            .filter_map(|(name, _)| Some((*name, self.canonical_text(own, name)?)));
        let (exact, canonical) = (self.key(own), self.key_of_texts(canonical));
        (exact != canonical).then(|| Tag::new(canonical.name()))
    }

    /// What invalidates the entry for these values, and the entries of equal values.
    pub(super) fn targets(&self, own: &Values<'_>) -> Vec<InvalidationTarget> {
        let mut targets = vec![InvalidationTarget::from(&self.key(own))];
        targets.extend(self.tag_of_equals(own).iter().map(InvalidationTarget::from));
        targets
    }

    /// The canonical text of the value of `name`, or its own text if it has no other.
    pub(super) fn canonical_text(&self, own: &Values<'_>, name: &str) -> Option<String> {
        let value = value_of(own, name)?;
        let canonical = self
            .canonical(name)
            .and_then(|canonical| canonical.text(&value.into()));
        Some(canonical.unwrap_or_else(|| value.to_string()))
    }

    /// How values of the parameter `name` become canonical, if a statement takes it.
    pub(super) fn canonical(&self, name: &str) -> Option<&database::Canonical> {
        let mut params = self.params.iter();
        let param = params.find(|param| param.settings.name == name)?;
        Some(&param.sql_type.as_ref()?.canonical)
    }

    /// How many of the tag templates can make `tag`. Its values may be escaped or not, in any
    /// spelling that a request may have. Adds the tags that the entries then have to `tags`.
    pub(super) fn read_tag(&self, tag: &str, tags: &mut Vec<Tag>) -> usize {
        let makes = |template: &&TagTemplate| {
            let before = tags.len();
            for reading in template.readings(tag) {
                if let Some(values) = self.values_of_tag(&reading) {
                    tags.extend(self.rendered(template, &values));
                }
            }
            tags.len() > before
        };
        self.tags.iter().filter(makes).count()
    }

    /// The values in a tag. `None` if no request can have all of them.
    fn values_of_tag<'s>(&'s self, reading: &[(&str, &str)]) -> Option<Vec<(&'s str, ParamValue)>> {
        let mut values: Vec<(&str, ParamValue)> = Vec::with_capacity(reading.len());
        for (name, text) in reading {
            let mut params = self.params.iter();
            let param = params.find(|param| param.settings.name == *name)?;
            let settings = &param.settings;
            // A parameter that a request may leave out leaves its place empty.
            if text.is_empty() && !settings.required && settings.default.is_none() {
                continue;
            }
            let value = param.of_tag(text)?.into_owned();
            match value_of(&values, name) {
                Some(other) if *other != value => return None,
                Some(_) => {}
                None => values.push((settings.name.as_str(), value)),
            }
        }
        Some(values)
    }
}
