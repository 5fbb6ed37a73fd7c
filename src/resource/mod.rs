//! FLOOR 3: what the operator declared: path, parameters, key, tags, policy, source, writes.
//!
//! A [`Resource`] turns the arguments of a request into the canonical key of an entry. If no tier
//! has that entry, it gives the request that loads the value. A [`Write`] changes the value. This
//! floor knows no HTTP: a path is a text, and a bad parameter is a value.

mod archivist;
mod argument;
mod canonical;
mod composite;
mod entry_names;
mod http;
mod members;
mod news;
mod origin;
mod param;
mod request_context;
mod resources;
mod seals;
mod settings;
mod sql;
mod statements;
mod tag;
mod values;
mod view;
mod watches;
mod write;
mod write_error;
mod write_input;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use matchit::Params;

use crate::database::{DatabaseError, Query, Transaction};
use larder_cache::{CacheItem, InvalidationTarget, KeyText, Policy, Request, Tag, Tally, random};

use self::canonical::StatementTypes;
use self::entry_names::EntryNames;
use self::origin::Origin;
use self::param::Param;
use self::seals::Seals;
use self::values::Values;

pub use self::archivist::Archivist;
pub use self::argument::{Argument, Arguments, BadParameter, Given, ParamValue, Wrong};
pub(crate) use self::composite::OrderedMembers;
pub use self::members::Members;
pub use self::news::{News, NewsSource, NewsView};
pub use self::origin::Sources;
pub use self::request_context::RequestContext;
pub use self::resources::{Descriptions, Found, Resources, Unbuilt, descriptions};
pub(crate) use self::settings::anchored;
pub use self::settings::{
    FieldSettings, HttpSourceSettings, Line, ParamKind, ParamSettings, ReadMethod, ReadMethods,
    ResourceSettings, SourceSettings, SqlSettings, WriteMethod, WriteSettings,
};
pub use self::statements::{StatementFault, statement_faults, statements};
pub use self::tag::{TagError, TagTemplate};
pub use self::view::{Body, View};
pub use self::watches::watch_warnings;
pub use self::write::{Precondition, Write, Written};
pub use self::write_error::WriteError;
pub use self::write_input::WriteInput;

/// The version of all stored values. Changes whenever the stored bytes of any kind of value change,
/// so that replicas of two versions never read each other's entries.
const FORMAT: u32 = 2;

/// One declared resource.
pub struct Resource {
    settings: ResourceSettings,
    policy: Arc<Policy>,
    /// A hash of everything that the values depend on.
    fingerprint: u64,
    names: EntryNames,
    /// The parameters that select from the loaded value.
    view_params: Vec<Param>,
    /// Where its values come from. `None`: it is only written.
    origin: Option<Origin>,
    writes: Vec<Arc<Write>>,
    tally: Arc<Tally>,
}

impl Resource {
    fn build(
        settings: ResourceSettings,
        sources: &Sources,
        types: &HashMap<&Query, StatementTypes>,
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
        let sql_type = |name: &str| {
            let read = match &settings.source {
                Some(SourceSettings::Sql(sql)) => Some(&*sql.query),
                _ => None,
            };
            let written = settings.writes.iter().map(|write| &*write.query);
            let of_statements = read
                .into_iter()
                .chain(written)
                .find_map(|query| types.get(query)?.parameters.get(name));
            of_statements.or_else(|| origin.as_ref()?.sql_type(name))
        };
        let lines = settings.read.has_body();
        let param =
            |param: &ParamSettings| Param::new(param, lines, sql_type(&param.name).cloned());
        let (view_params, mut key_params): (Vec<_>, Vec<_>) = settings
            .params
            .iter()
            .map(param)
            .collect::<Result<Vec<_>, _>>()?
            .into_iter()
            .partition(|param| param.settings.view);
        key_params.sort_by(|a, b| a.settings.name.cmp(&b.settings.name));
        let fingerprint = fingerprint(&settings, &key_params, origin.as_ref());
        let write = |write: &WriteSettings| {
            let types = types.get(&*write.query).cloned().unwrap_or_default();
            Write::new(write, types, sources.database.clone()).map(Arc::new)
        };
        let writes = settings.writes.iter().map(write);
        let writes = writes.collect::<Result<_, _>>()?;
        let (name, tags) = (&settings.name, settings.tags.clone());
        Ok(Resource {
            tally: tally_of(name),
            names: EntryNames::new(fingerprint, name, key_params, tags),
            fingerprint,
            policy: Arc::new(settings.policy.clone()),
            settings,
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

    /// Its counters and those of its parts that are not resources, each by its name.
    pub fn tallies(&self) -> impl Iterator<Item = (String, &Arc<Tally>)> {
        let parts = self.origin.iter().flat_map(Origin::parts);
        let parts = parts.map(|(part, tally)| (part_name(self.name(), part), tally));
        std::iter::once((self.name().to_owned(), &self.tally)).chain(parts)
    }

    /// The names, in its parts' counters, of what its value is composed of: other resources, or
    /// upstreams of news. Empty: it is no composite.
    pub fn parts(&self) -> Vec<String> {
        match &self.settings.source {
            Some(SourceSettings::News(upstreams)) => {
                let names = upstreams.iter();
                names.map(|name| part_name(self.name(), name)).collect()
            }
            Some(SourceSettings::Composite(parts)) => parts.clone(),
            Some(SourceSettings::Sql(_) | SourceSettings::Http(_)) | None => Vec::new(),
        }
    }

    /// Whether it has values to read. Otherwise it is only written.
    pub fn is_read(&self) -> bool {
        self.origin.is_some()
    }

    /// Whether it is read by this method.
    pub fn is_read_by(&self, method: ReadMethod) -> bool {
        self.is_read() && self.settings.read.has(method)
    }

    /// The read by this method whose parameters are in the body, if there is one.
    pub fn read_with_body(&self, method: &str) -> Option<ReadMethod> {
        let mut methods = [ReadMethod::Post, ReadMethod::Query].into_iter();
        methods.find(|known| known.name() == method && self.is_read_by(*known))
    }

    /// Whether the whole value comes from the database.
    fn is_sql(&self) -> bool {
        self.origin.as_ref().is_some_and(Origin::is_sql)
    }

    /// The write by this method, if there is one.
    pub fn write(&self, method: &str) -> Option<&Arc<Write>> {
        self.writes
            .iter()
            .find(|write| write.method().name() == method)
    }

    /// The methods that it allows, as `Allow` lists them (RFC 9110, section 10.2.1).
    pub fn allow(&self) -> String {
        let methods = Some(self.settings.read).filter(|_| self.is_read());
        let read = methods.into_iter().flat_map(ReadMethods::iter);
        let read = read.map(|method| match method {
            ReadMethod::Get => "GET, HEAD",
            other => other.name(),
        });
        let written = self.writes.iter().map(|write| write.method().name());
        read.chain(written).collect::<Vec<_>>().join(", ")
    }

    /// Checks all arguments, writes the canonical key into `key` and returns the view. Allocates
    /// nothing for plain arguments.
    ///
    /// # Errors
    /// The first argument that is not valid.
    pub fn key<'q>(
        &'q self,
        arguments: Arguments<'q>,
        key: &mut KeyText,
    ) -> Result<View<'q>, BadParameter> {
        self.check_known(arguments)?;
        self.names.write_key(arguments, key)?;
        let mut view = self.origin.as_ref().map_or(View::Full, Origin::view);
        for param in &self.view_params {
            if let Some(argument) = param.read(arguments)? {
                view.set(&param.settings.name, argument);
            }
        }
        Ok(view)
    }

    /// Refuses a query parameter that is not declared, if the resource is set to do so. Refuses a
    /// member of a body that is not declared, always.
    ///
    /// # Errors
    /// The first such parameter.
    pub fn check_known(&self, arguments: Arguments<'_>) -> Result<(), BadParameter> {
        if self.settings.refuses_unknown || matches!(arguments.given, Given::Body(_)) {
            param::check_known(&self.settings.params, arguments)?;
        }
        Ok(())
    }

    /// Checks `query`, the query of a read whose parameters are in its body. `path` has those of
    /// its path.
    ///
    /// # Errors
    /// The first declared parameter in it, which belongs in the body. Or the first one that is not
    /// declared, if the resource is set to refuse that.
    pub fn check_query_beside_body(
        &self,
        path: &Params<'_, '_>,
        query: &str,
    ) -> Result<(), BadParameter> {
        let given = Given::Query(query);
        let arguments = Arguments { path, given };
        param::check_query_beside_body(&self.settings.params, arguments)?;
        self.check_known(arguments)
    }

    /// The values of the key's parameters. A required parameter may be absent if `may_be_missing`
    /// says so.
    ///
    /// # Errors
    /// As [`Resource::key`].
    fn values(
        &self,
        arguments: Arguments<'_>,
        may_be_missing: &dyn Fn(&str) -> bool,
    ) -> Result<Vec<(&str, ParamValue)>, BadParameter> {
        self.check_known(arguments)?;
        self.names.values(arguments, may_be_missing)
    }

    /// The request for a value that memory does not have. Its loads name the request of `context`
    /// in the log, and continue its trace. `None`: the resource is only written.
    ///
    /// # Errors
    /// As [`Resource::key`].
    pub fn request(
        &self,
        arguments: Arguments<'_>,
        context: &RequestContext,
    ) -> Result<Option<Request>, BadParameter> {
        let values = self.values(arguments, &|_| false)?;
        Ok(self.request_of(&values, random(), context))
    }

    /// As [`Resource::request`], for values that are checked. They may have more than the
    /// resource's own parameters.
    fn request_of(
        &self,
        values: &Values<'_>,
        jitter: u64,
        context: &RequestContext,
    ) -> Option<Request> {
        let origin = self.origin.as_ref()?;
        let own = self.names.own_values(values);
        let item = CacheItem {
            key: self.names.key(&own),
            policy: self.policy.clone(),
            tags: self.names.tags(&own),
            share: origin.share().into(),
            label: origin.label().into(),
            note: context.note(self.name()),
            jitter,
            tally: self.tally.clone(),
        };
        let producer = origin.producer(self, &item, &own, context);
        Some(Request { item, producer })
    }

    /// The value as `transaction` sees it. `None`: it is absent, or the resource is only written.
    ///
    /// # Errors
    /// As [`Origin::current`].
    fn current(
        &self,
        transaction: &mut Transaction<'_>,
        values: &Values<'_>,
    ) -> Result<Option<Vec<u8>>, DatabaseError> {
        match &self.origin {
            Some(origin) => origin.current(transaction, &self.names.own_values(values)),
            None => Ok(None),
        }
    }

    /// The targets that invalidate the value for these arguments: its own entry and those of its
    /// parts.
    ///
    /// # Errors
    /// As [`Resource::key`].
    pub fn targets(
        &self,
        arguments: Arguments<'_>,
    ) -> Result<Vec<InvalidationTarget>, BadParameter> {
        let values = self.values(arguments, &|_| false)?;
        let Some(origin) = &self.origin else {
            return Ok(Vec::new());
        };
        let own = self.names.own_values(&values);
        let mut targets = self.names.targets(&own);
        targets.extend(origin.targets_of_parts(self, &own));
        Ok(targets)
    }

    /// How many of its tag templates can make `tag`. Adds the tags that the entries then have to
    /// `tags`.
    fn read_tag(&self, tag: &str, tags: &mut Vec<Tag>) -> usize {
        self.names.read_tag(tag, tags)
    }

    /// The share of the load permits that it uses for itself.
    fn share(&self) -> Option<&str> {
        self.origin.as_ref().map(Origin::share)
    }

    /// All shares of the load permits that its look-ups use.
    fn shares(&self) -> Vec<&str> {
        self.origin.as_ref().map(Origin::shares).unwrap_or_default()
    }

    /// How long a look-up may take in all.
    pub fn limit(&self) -> Duration {
        longest_look_up(self.source_limit())
    }

    fn source_limit(&self) -> Duration {
        self.origin.as_ref().map(Origin::limit).unwrap_or_default()
    }
}

/// How long a look-up may take whose loads take at most `load`: another replica's load, a load of
/// its own, and the wait in the queue.
pub fn longest_look_up(load: Duration) -> Duration {
    load * 2 + Duration::from_secs(10)
}

/// A hash of everything that the values of a resource depend on. It is part of every key, so a
/// changed resource never reads the entries of its former self.
fn fingerprint(settings: &ResourceSettings, key_params: &[Param], origin: Option<&Origin>) -> u64 {
    let declared: Vec<_> = key_params
        .iter()
        .map(|param| {
            let sql_type = param.sql_type.as_ref();
            let sql_type = sql_type.map(|known| (known.spelling, known.canonical.kind()));
            (&param.settings, sql_type)
        })
        .collect();
    let identity = origin.map(Origin::identity).unwrap_or_default();
    let (name, tags) = (&settings.name, &settings.tags);
    let text = format!("{FORMAT} {name} {identity} {declared:?} {tags:?}");
    xxhash_rust::xxh3::xxh3_64(text.as_bytes())
}

/// The name, in keys and counters, of a part that is not a resource. A resource's name has no dot.
fn part_name(resource: &str, part: &str) -> String {
    format!("{resource}.{part}")
}
