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
mod parameter;
mod parts;
mod resources;
mod settings;
mod sql;
mod statements;
mod tag;
mod view;
mod write;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use regex_lite::Regex;

use crate::cache::{KeyText, Making, Name, Policy, Request, Subject, Tally, random};
use crate::database::Query;

use self::form::{Form, Forms};
use self::origin::{Origin, Values};

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
pub use self::write::{Precondition, Write, WriteError, Written};

/// Changes whenever the stored form of any value does, so that replicas of two versions never read each other's entries.
const FORM: u32 = 1;

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

/// A parameter, ready to be read.
struct Param {
    settings: ParamSettings,
    /// What its whole value matches.
    pattern: Option<Regex>,
    /// What the database makes of its text, where that has several spellings.
    form: Option<Form>,
}

impl Resource {
    fn build(
        settings: ResourceSettings,
        sources: &Sources,
        forms: &HashMap<&Query, Forms>,
        built: &[Arc<Resource>],
        tally: Arc<Tally>,
    ) -> Result<Resource, String> {
        let origin = settings
            .source
            .as_ref()
            .map(|source| Origin::build(source, sources, built))
            .transpose()?;
        let form_of = |name: &str| {
            let read = match &settings.source {
                Some(SourceSettings::Sql(sql)) => Some(&*sql.query),
                _ => None,
            };
            let written = settings.writes.iter().map(|write| &*write.query);
            let of_statements = read
                .into_iter()
                .chain(written)
                .find_map(|query| forms.get(query)?.get(name).copied());
            of_statements.or_else(|| origin.as_ref()?.form_of(name))
        };
        let ready = |param: &ParamSettings| -> Result<_, String> {
            Ok(Param {
                pattern: param.kind.compiled()?,
                form: match param.kind {
                    ParamKind::Text { .. } => form_of(&param.name),
                    ParamKind::Integer { .. } | ParamKind::Boolean => None,
                },
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
            .map(|param| (&param.settings, param.form))
            .collect();
        let what = format!(
            "{FORM} {} {} {declared:?} {:?}",
            settings.name,
            origin.as_ref().map(Origin::identity).unwrap_or_default(),
            settings.tags,
        );
        let write = |write: &WriteSettings| {
            let forms = forms.get(&*write.query).cloned().unwrap_or_default();
            Write::new(write, forms, sources.database.clone()).map(Arc::new)
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
            fingerprint,
            beginning: beginning.as_str().into(),
            policy: Arc::new(settings.policy.clone()),
            settings,
            key_params,
            view_params,
            origin,
            writes,
            tally,
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

    /// Whether the query has only what is declared, where the resource is told to refuse anything else.
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
        let mut key = KeyText::default();
        key.begin_again(&self.beginning);
        let own = self.own_values(values);
        own.iter()
            .for_each(|(name, value)| key.parameter(name, &value.to_string()));
        let tag = |template: &TagTemplate| template.render(|name| text_of(&own, name));
        let subject = Subject {
            key: key.key(),
            policy: self.policy.clone(),
            tags: self.settings.tags.iter().map(tag).collect(),
            share: origin.share().into(),
            label: origin.label().into(),
            note: note.into(),
            jitter,
            tally: self.tally.clone(),
        };
        let making = origin.making(self, &subject, &own);
        Some(Request { subject, making })
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
    pub fn names(&self, arguments: Arguments<'_>) -> Result<Vec<Name>, BadParameter> {
        let Some(request) = self.request_of(&self.values(arguments)?, 0, "") else {
            return Ok(Vec::new());
        };
        let mut names = vec![Name::from(&request.subject.key)];
        if let Making::Compose(composition) = &request.making {
            let parts = composition.parts.iter();
            names.extend(parts.map(|part| Name::from(&part.subject.key)));
        }
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

impl Param {
    /// Its value in a request, by default where it is not there, in the one spelling that it has.
    fn read<'q>(&'q self, arguments: Arguments<'q>) -> Result<Option<Argument<'q>>, BadParameter> {
        let read = parameter::read(&self.settings, self.pattern.as_ref(), arguments)?;
        Ok(match (read, self.form) {
            (Some(Argument::Text(text)), Some(form)) => {
                let written = form.canonical(&text);
                Some(Argument::Text(written.map_or(text, Into::into)))
            }
            (read, _) => read,
        })
    }
}

/// The text of the value with this name, if it is among `values`.
fn text_of(values: &Values<'_>, name: &str) -> Option<String> {
    let found = values.iter().find(|(known, _)| *known == name);
    found.map(|(_, value)| value.to_string())
}
