//! FLOOR 3: what the operator declared: path, parameters, key, tags, policy, source, writes.
//!
//! A [`Resource`] turns the arguments of a request into the canonical key of an entry and, when no tier has that entry, into the
//! request that makes it; a [`Write`] changes what it stands for. It knows nothing of HTTP: a path is a text, a bad parameter a
//! value.

mod api;
mod archivist;
mod form;
mod given;
mod news;
mod origin;
mod param;
mod parameter;
mod parts;
mod resources;
mod seals;
mod settings;
mod sql;
mod statements;
mod tag;
mod view;
mod watches;
mod write;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::database::{self, Query};
use larder_cache::{CacheItem, InvalidationTarget, KeyText, Policy, Request, Tag, Tally, random};

use self::form::Texts;
use self::origin::{Origin, Values};
use self::param::Param;
use self::seals::Seals;

pub use self::archivist::Archivist;
pub use self::given::Given;
pub use self::news::{News, NewsSource, NewsView};
pub use self::origin::Sources;
pub use self::parameter::{Argument, Arguments, BadParameter, Wrong};
pub use self::resources::{Found, Resources, Unbuilt};
pub(crate) use self::settings::whole_value;
pub use self::settings::{
    FieldSettings, HttpSourceSettings, ParamKind, ParamSettings, ParamValue, ResourceSettings,
    SourceSettings, SqlSettings, WriteMethod, WriteSettings,
};
pub use self::statements::{StatementFault, statement_faults, statements};
pub use self::tag::{TagError, TagTemplate};
pub use self::view::{Body, View};
pub use self::watches::watch_warnings;
pub use self::write::{Precondition, Write, WriteError, Written};

/// Changes whenever the stored form of any value does, so that replicas of two versions never read each other's entries.
const FORM: u32 = 2;

/// One declared resource.
pub struct Resource {
    settings: ResourceSettings,
    policy: Arc<Policy>,
    fingerprint: u64,
    /// What its keys begin with.
    beginning: Box<str>,
    /// Those that make the key, in the order in which they stand in it.
    key_params: Vec<Param>,
    /// Those that select from what is loaded.
    view_params: Vec<Param>,
    /// `None`: it is only written.
    origin: Option<Origin>,
    writes: Vec<Arc<Write>>,
    tally: Arc<Tally>,
}

impl Resource {
    fn build(
        settings: ResourceSettings,
        sources: &Sources,
        texts: &HashMap<&Query, Texts>,
        built: &[Arc<Resource>],
        seals: &Seals,
        tally_of: &dyn Fn(&str) -> Arc<Tally>,
    ) -> Result<Resource, String> {
        let part = |part: &str| tally_of(&part_name(&settings.name, part));
        let origin = settings
            .source
            .as_ref()
            .map(|source| Origin::build(source, sources, built, seals, &part))
            .transpose()?;
        let taken = |name: &str| {
            let read = match &settings.source {
                Some(SourceSettings::Sql(sql)) => Some(&*sql.query),
                _ => None,
            };
            let written = settings.writes.iter().map(|write| &*write.query);
            let of_statements = read
                .into_iter()
                .chain(written)
                .find_map(|query| texts.get(query)?.parameters.get(name));
            of_statements.or_else(|| origin.as_ref()?.taken(name))
        };
        let ready = |param: &ParamSettings| -> Result<_, String> {
            Ok(Param {
                pattern: param.kind.compiled()?,
                taken: taken(&param.name).cloned(),
                settings: param.clone(),
            })
        };
        let (view_params, mut key_params): (Vec<_>, Vec<_>) = settings
            .params
            .iter()
            .map(ready)
            .collect::<Result<Vec<_>, _>>()?
            .into_iter()
            .partition(|param| param.settings.view);
        key_params.sort_by(|a, b| a.settings.name.cmp(&b.settings.name));
        let declared: Vec<_> = key_params
            .iter()
            .map(|param| {
                let taken = param.taken.as_ref();
                let taken = taken.map(|taken| (taken.form, taken.canonical.kind()));
                (&param.settings, taken)
            })
            .collect();
        let what = format!(
            "{FORM} {} {} {declared:?} {:?}",
            settings.name,
            origin.as_ref().map(Origin::identity).unwrap_or_default(),
            settings.tags,
        );
        let write = |write: &WriteSettings| {
            let texts = texts.get(&*write.query).cloned().unwrap_or_default();
            Write::new(write, texts, sources.database.clone()).map(Arc::new)
        };
        let writes = settings
            .writes
            .iter()
            .map(write)
            .collect::<Result<_, _>>()?;
        let fingerprint = xxhash_rust::xxh3::xxh3_64(what.as_bytes());
        let mut beginning = KeyText::default();
        beginning.begin(fingerprint, &settings.name);
        Ok(Resource {
            tally: tally_of(&settings.name),
            fingerprint,
            beginning: beginning.as_str().into(),
            policy: Arc::new(settings.policy.clone()),
            settings,
            key_params,
            view_params,
            origin,
            writes,
        })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.settings.name
    }

    /// What the operator declared.
    pub fn settings(&self) -> &ResourceSettings {
        &self.settings
    }

    /// How long its values may be served.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Its counters.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Its counters, and those of its parts that are no resources of their own, each by its name.
    pub fn tallies(&self) -> impl Iterator<Item = (String, &Arc<Tally>)> {
        let parts = self.origin.iter().flat_map(Origin::parts);
        let parts = parts.map(|(part, tally)| (part_name(self.name(), part), tally));
        std::iter::once((self.name().to_owned(), &self.tally)).chain(parts)
    }

    /// Whether it has values to read; otherwise it is only written.
    pub fn is_read(&self) -> bool {
        self.origin.is_some()
    }

    /// How it is written by this method, if it is.
    pub fn write(&self, method: &str) -> Option<&Arc<Write>> {
        self.writes
            .iter()
            .find(|write| write.method().name() == method)
    }

    /// The methods that it takes, as they stand in `Allow` (RFC 9110, section 10.2.1).
    pub fn allow(&self) -> String {
        let read = self.is_read().then_some("GET, HEAD").into_iter();
        let written = self.writes.iter().map(|write| write.method().name());
        read.chain(written).collect::<Vec<_>>().join(", ")
    }

    /// Checks all arguments, writes the canonical key into `key` and returns what is to be shown. Allocates nothing for plain
    /// arguments.
    ///
    /// # Errors
    /// The first argument that is not within what is declared.
    pub fn key<'q>(
        &'q self,
        arguments: Arguments<'q>,
        key: &mut KeyText,
    ) -> Result<View<'q>, BadParameter> {
        self.check_known(arguments)?;
        key.begin_again(&self.beginning);
        for param in &self.key_params {
            if let Some(argument) = param.read(arguments)? {
                argument.with_text(|text| key.parameter(&param.settings.name, text));
            }
        }
        let mut view = self.origin.as_ref().map_or(View::Whole, Origin::view);
        for param in &self.view_params {
            if let Some(argument) = param.read(arguments)? {
                view.set(&param.settings.name, argument);
            }
        }
        Ok(view)
    }

    /// Whether the query has only what is declared, where the resource is told to refuse anything
    /// else.
    ///
    /// # Errors
    /// The first parameter that is not known.
    pub fn check_known(&self, arguments: Arguments<'_>) -> Result<(), BadParameter> {
        if self.settings.refuses_unknown {
            parameter::check_known(&self.settings.params, arguments)?;
        }
        Ok(())
    }

    /// The values of the parameters that make the key.
    ///
    /// # Errors
    /// As [`Resource::key`].
    fn values(&self, arguments: Arguments<'_>) -> Result<Vec<(&str, ParamValue)>, BadParameter> {
        self.values_for(arguments, &|_| false)
    }

    /// The same, where a parameter that `may_be_missing` need not be there though it is required.
    fn values_for(
        &self,
        arguments: Arguments<'_>,
        may_be_missing: &dyn Fn(&str) -> bool,
    ) -> Result<Vec<(&str, ParamValue)>, BadParameter> {
        self.check_known(arguments)?;
        let mut values = Vec::with_capacity(self.key_params.len());
        for param in &self.key_params {
            let name = param.settings.name.as_str();
            match param.read(arguments) {
                Ok(argument) => values.extend(argument.map(|argument| (name, argument.into()))),
                Err(bad) if bad.wrong == Wrong::Missing && may_be_missing(name) => {}
                Err(bad) => return Err(bad),
            }
        }
        Ok(values)
    }

    /// The request for what memory had no answer for. `note` is added to the log line of a load. `None`: it is only written.
    ///
    /// # Errors
    /// As [`Resource::key`].
    pub fn request(
        &self,
        arguments: Arguments<'_>,
        note: &str,
    ) -> Result<Option<Request>, BadParameter> {
        Ok(self.request_of(&self.values(arguments)?, random(), note))
    }

    /// The same for values that are read already, and may be more than its own.
    fn request_of(&self, values: &Values<'_>, jitter: u64, note: &str) -> Option<Request> {
        let origin = self.origin.as_ref()?;
        let own = self.own_values(values);
        let subject = CacheItem {
            key: self
                .key_of(own.iter().map(|(name, value)| (*name, value.to_string())))
                .key(),
            policy: self.policy.clone(),
            tags: self.tags(&own),
            share: origin.share().into(),
            label: origin.label().into(),
            note: note.into(),
            jitter,
            tally: self.tally.clone(),
        };
        let producer = origin.making(self, &subject, &own);
        Some(Request {
            item: subject,
            producer,
        })
    }

    fn key_of<'n>(&self, texts: impl IntoIterator<Item = (&'n str, String)>) -> KeyText {
        let mut key = KeyText::default();
        key.begin_again(&self.beginning);
        for (name, text) in texts {
            key.parameter(name, &text);
        }
        key
    }

    /// What its entry for these values depends on, beside its key: its tags, and what stands for
    /// the entries of all values that the database calls equal to these.
    fn tags(&self, own: &Values<'_>) -> Box<[Tag]> {
        let mut tags = Vec::with_capacity(self.settings.tags.len());
        for template in &self.settings.tags {
            for tag in self.rendered(template, own) {
                if !tags.contains(&tag) {
                    tags.push(tag);
                }
            }
        }
        tags.extend(self.key_of_equals(own));
        tags.into()
    }

    /// The tags that a template gives for these values: with each as it is, and with each
    /// canonical.
    fn rendered(&self, template: &TagTemplate, own: &Values<'_>) -> [Tag; 2] {
        [
            template.render(|name| text_of(own, name)),
            template.render(|name| self.canonical_of(own, name)),
        ]
    }

    /// How many of its tag templates can make `tag`, whose values may be escaped or not and in any
    /// spelling that a request may have. The tags that its entries then have are added to `tags`.
    fn read_tag(&self, tag: &str, tags: &mut Vec<Tag>) -> usize {
        let makes = |template: &&TagTemplate| {
            let before = tags.len();
            for reading in template.readings(tag) {
                if let Some(values) = self.values_of_tag(&reading) {
                    tags.extend(self.rendered(template, &values));
                }
            }
            tags.len() > before
        };
        self.settings.tags.iter().filter(makes).count()
    }

    /// The values at the places of a tag, where some request can have them all.
    fn values_of_tag<'s>(&'s self, reading: &[(&str, &str)]) -> Option<Vec<(&'s str, ParamValue)>> {
        let mut values: Vec<(&str, ParamValue)> = Vec::with_capacity(reading.len());
        for (name, text) in reading {
            let mut params = self.key_params.iter();
            let param = params.find(|param| param.settings.name == *name)?;
            let settings = &param.settings;
            // A parameter that a request may leave out leaves its place empty.
            if text.is_empty() && !settings.required && settings.default.is_none() {
                continue;
            }
            let value = ParamValue::from(param.of_tag(text)?);
            match values.iter().find(|(known, _)| known == name) {
                Some((_, other)) if *other != value => return None,
                Some(_) => {}
                None => values.push((settings.name.as_str(), value)),
            }
        }
        Some(values)
    }

    /// The name of the key in which each value is canonical, where that is another one.
    fn key_of_equals(&self, own: &Values<'_>) -> Option<Tag> {
        let exact = own.iter().map(|(name, value)| (*name, value.to_string()));
        let canonical = own
            .iter()
            .filter_map(|(name, _)| Some((*name, self.canonical_of(own, name)?)));
        let (exact, canonical) = (self.key_of(exact).key(), self.key_of(canonical).key());
        (exact != canonical).then(|| Tag::new(canonical.name()))
    }

    /// The canonical text of the value with this name; its own where it has none.
    fn canonical_of(&self, own: &Values<'_>, name: &str) -> Option<String> {
        let (_, value) = own.iter().find(|(known, _)| *known == name)?;
        let canonical = self
            .canonical(name)
            .and_then(|canonical| canonical.text(&value.into()));
        Some(canonical.unwrap_or_else(|| value.to_string()))
    }

    /// How values of the parameter with this name become canonical, where a statement takes it.
    fn canonical(&self, name: &str) -> Option<&database::Canonical> {
        let mut params = self.key_params.iter();
        let param = params.find(|param| param.settings.name == name)?;
        Some(&param.taken.as_ref()?.canonical)
    }

    /// The names of its entry for these values, and of those for values that the database calls
    /// equal.
    fn own_names(&self, own: &Values<'_>) -> Vec<InvalidationTarget> {
        let exact = own.iter().map(|(name, value)| (*name, value.to_string()));
        let mut names = vec![InvalidationTarget::from(&self.key_of(exact).key())];
        names.extend(self.key_of_equals(own).iter().map(InvalidationTarget::from));
        names
    }

    /// Those of `values` that are its own, in the order of its key, and its defaults for the rest.
    fn own_values(&self, values: &Values<'_>) -> Vec<(&str, ParamValue)> {
        let own = |param: &ParamSettings| {
            let given = values.iter().find(|(name, _)| *name == param.name);
            let value = given.map(|(_, value)| value).or(param.default.as_ref());
            value.cloned()
        };
        self.key_params
            .iter()
            .filter_map(|Param { settings, .. }| Some((settings.name.as_str(), own(settings)?)))
            .collect()
    }

    /// The names of the keys that hold what is asked for with these arguments: the whole's, and its parts'.
    ///
    /// # Errors
    /// As [`Resource::key`].
    pub fn names(&self, arguments: Arguments<'_>) -> Result<Vec<InvalidationTarget>, BadParameter> {
        let values = self.values(arguments)?;
        let Some(origin) = &self.origin else {
            return Ok(Vec::new());
        };
        let own = self.own_values(&values);
        let mut names = self.own_names(&own);
        names.extend(origin.names_of_parts(self, &own));
        Ok(names)
    }

    /// The shares of the loads that its look-ups draw on.
    fn shares(&self) -> Vec<&str> {
        self.origin.as_ref().map(Origin::shares).unwrap_or_default()
    }

    /// How long a look-up may take in all: the slowest source, a load of another replica before it, and room to queue.
    pub fn limit(&self) -> Duration {
        self.source_limit() * 2 + Duration::from_secs(10)
    }

    fn source_limit(&self) -> Duration {
        self.origin.as_ref().map(Origin::limit).unwrap_or_default()
    }
}

/// What a part of `resource` is called that is no resource of its own, in keys and counters: no
/// resource has a dot in its name.
fn part_name(resource: &str, part: &str) -> String {
    format!("{resource}.{part}")
}

/// The text of the value with this name, if it is among `values`.
fn text_of(values: &Values<'_>, name: &str) -> Option<String> {
    let found = values.iter().find(|(known, _)| *known == name);
    found.map(|(_, value)| value.to_string())
}
