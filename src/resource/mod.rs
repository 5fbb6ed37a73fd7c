//! FLOOR 3: what the operator declared: path, parameters, key, tags, policy, source.
//!
//! A [`Resource`] turns the arguments of a request into the canonical key of an entry and, when no tier has that entry, into the
//! request that makes it. It knows nothing of HTTP: a path is a text, a bad parameter a value.

mod archivist;
mod news;
mod parameter;
mod settings;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use matchit::Params;
use regex_lite::Regex;

use crate::cache::{
    KeyText, Making, Name, Policy, Request, Subject, Tag, Tally, escape_into, random,
};

pub use self::archivist::Archivist;
pub use self::news::{News, NewsSource, NewsView};
pub use self::parameter::{Argument, Arguments, BadParameter, Wrong};
pub(crate) use self::settings::whole_value;
pub use self::settings::{
    ParamKind, ParamSettings, ParamValue, ResourceSettings, SourceSettings, TagError, TagPiece,
    TagTemplate,
};

/// Changes whenever the stored form of any value does, so that replicas of two versions never read each other's entries.
const FORM: u32 = 1;

/// One declared resource.
pub struct Resource {
    settings: ResourceSettings,
    policy: Arc<Policy>,
    fingerprint: u64,
    /// Those that make the key, in the order in which they stand in it.
    key_params: Vec<(ParamSettings, Option<Regex>)>,
    /// Those that select from what is loaded.
    view_params: Vec<(ParamSettings, Option<Regex>)>,
    source: News,
    tally: Arc<Tally>,
}

/// What may be found at the path of a request.
pub struct Found<'r, 'q> {
    /// What is served there.
    pub resource: &'r Arc<Resource>,
    /// The parts of the path that are parameters.
    pub path_arguments: Params<'q, 'q>,
}

/// All declared resources, found by path.
#[derive(Default)]
pub struct Resources {
    router: matchit::Router<usize>,
    all: Vec<Arc<Resource>>,
}

impl Resources {
    /// The resources of these settings over `news`. The counters of those that `before` had go on.
    ///
    /// # Errors
    /// If a path cannot be routed or a source is unknown: a configuration that was checked has neither.
    pub fn build(
        settings: &[ResourceSettings],
        news: &News,
        before: Option<&Resources>,
    ) -> Result<Resources, String> {
        let tallies: HashMap<&str, &Arc<Tally>> = before
            .iter()
            .flat_map(|before| &before.all)
            .map(|old| (old.name(), &old.tally))
            .collect();
        let mut built = Resources::default();
        for settings in settings {
            let tally = tallies
                .get(settings.name.as_str())
                .map(|tally| (*tally).clone())
                .unwrap_or_default();
            let resource = Resource::build(settings.clone(), news, tally)?;
            if let Some(path) = &settings.path {
                let at = built.all.len();
                built
                    .router
                    .insert(path, at)
                    .map_err(|error| format!("the path {path} cannot be served: {error}"))?;
            }
            built.all.push(Arc::new(resource));
        }
        Ok(built)
    }

    /// What is served at `path`.
    pub fn find<'r, 'q>(&'r self, path: &'q str) -> Option<Found<'r, 'q>>
    where
        'r: 'q,
    {
        let found = self.router.at(path).ok()?;
        let resource = self.all.get(*found.value)?;
        Some(Found {
            resource,
            path_arguments: found.params,
        })
    }

    /// The resource that the key with this name belongs to, and the canonical arguments that stand in it as a query.
    pub fn of_key<'k>(&self, name: &'k str) -> Option<(&Arc<Resource>, &'k str)> {
        let (resource, query) = name.split_once('?').unwrap_or((name, ""));
        let found = self.all.iter().find(|known| known.name() == resource)?;
        Some((found, query))
    }

    /// Every resource, in the order of the configuration.
    pub fn all(&self) -> &[Arc<Resource>] {
        &self.all
    }
}

impl Resource {
    fn build(
        settings: ResourceSettings,
        news: &News,
        tally: Arc<Tally>,
    ) -> Result<Resource, String> {
        let SourceSettings::News(upstreams) = &settings.source;
        let source = news.of(upstreams)?;
        let compiled = |param: &ParamSettings| -> Result<_, String> {
            let pattern = match &param.kind {
                settings::ParamKind::Text {
                    pattern: Some(pattern),
                    ..
                } => Some(settings::whole_value(pattern).map_err(|error| error.to_string())?),
                _ => None,
            };
            Ok((param.clone(), pattern))
        };
        let (view_params, mut key_params): (Vec<_>, Vec<_>) = settings
            .params
            .iter()
            .map(compiled)
            .collect::<Result<Vec<_>, _>>()?
            .into_iter()
            .partition(|(param, _)| param.view);
        key_params.sort_by(|(a, _), (b, _)| a.name.cmp(&b.name));
        let tags = &settings.tags;
        let what = format!(
            "{FORM} {} {} {key_params:?} {tags:?}",
            settings.name,
            source.identity()
        );
        Ok(Resource {
            fingerprint: xxhash_rust::xxh3::xxh3_64(what.as_bytes()),
            policy: Arc::new(settings.policy.clone()),
            settings,
            key_params,
            view_params,
            source,
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

    /// Checks all arguments, writes the canonical key into `key` and returns what the view is to show. Allocates nothing for
    /// plain arguments.
    ///
    /// # Errors
    /// The first argument that is not within what is declared.
    pub fn key<'q>(
        &'q self,
        arguments: Arguments<'q>,
        key: &mut KeyText,
    ) -> Result<NewsView<'q>, BadParameter> {
        key.begin(self.fingerprint, &self.settings.name);
        for (param, pattern) in &self.key_params {
            if let Some(argument) = parameter::read(param, pattern.as_ref(), arguments)? {
                argument.with_text(|text| key.parameter(&param.name, text));
            }
        }
        let mut view = NewsView::default();
        for (param, pattern) in &self.view_params {
            if let Some(argument) = parameter::read(param, pattern.as_ref(), arguments)? {
                view.set(&param.name, argument);
            }
        }
        Ok(view)
    }

    /// The request for what memory had no answer for, under the key that [`Resource::key`] wrote from the same arguments. `note` is
    /// added to the log line of a load.
    ///
    /// # Errors
    /// As [`Resource::key`].
    pub fn request(
        &self,
        arguments: Arguments<'_>,
        key: &KeyText,
        note: String,
    ) -> Result<Request, BadParameter> {
        let mut values: Vec<(&str, String)> = Vec::with_capacity(self.key_params.len());
        for (param, pattern) in &self.key_params {
            if let Some(argument) = parameter::read(param, pattern.as_ref(), arguments)? {
                values.push((&param.name, argument.with_text(str::to_owned)));
            }
        }
        let subject = Subject {
            key: key.key(),
            policy: self.policy.clone(),
            tags: self
                .settings
                .tags
                .iter()
                .map(|template| render(template, &values))
                .collect(),
            label: "news".into(),
            note: note.into(),
            jitter: random(),
            tally: self.tally.clone(),
        };
        let category = values
            .into_iter()
            .find(|(name, _)| *name == "category")
            .map(|(_, value)| value);
        let making = self
            .source
            .making(&subject, &self.settings.name, self.fingerprint, category);
        Ok(Request { subject, making })
    }

    /// The names of the keys that hold what is asked for with these arguments: the whole's, and its parts'.
    ///
    /// # Errors
    /// As [`Resource::key`].
    pub fn names(&self, arguments: Arguments<'_>) -> Result<Vec<Name>, BadParameter> {
        let mut key = KeyText::default();
        self.key(arguments, &mut key)?;
        let request = self.request(arguments, &key, String::new())?;
        let mut names = vec![Name::from(&request.subject.key)];
        if let Making::Compose(composition) = &request.making {
            names.extend(
                composition
                    .parts
                    .iter()
                    .map(|part| Name::from(&part.subject.key)),
            );
        }
        Ok(names)
    }

    /// How long a look-up may take in all: the slowest source, a load of another replica before it, and room to queue.
    pub fn limit(&self) -> Duration {
        self.source.limit() * 2 + Duration::from_secs(10)
    }
}

/// The tag of `template` for these values. A parameter that is not given leaves its place empty: no value does.
fn render(template: &settings::TagTemplate, values: &[(&str, String)]) -> Tag {
    let mut text = String::new();
    for piece in template.pieces() {
        match piece {
            TagPiece::Literal(literal) => text.push_str(literal),
            TagPiece::Param(name) => {
                if let Some((_, value)) = values.iter().find(|(known, _)| *known == name.as_str()) {
                    escape_into(&mut text, value);
                }
            }
        }
    }
    Tag::new(&text)
}
