//! All declared resources: built over their sources, and found by path.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use matchit::Params;

use crate::database::{DatabaseError, Description, Query};
use larder_cache::{Tag, Tally};

use super::canonical::StatementTypes;
use super::seals::Seals;
use super::settings::{ResourceSettings, SourceSettings};
use super::statements::{StatementFault, statement_faults, statements};
use super::watches::watch_warnings;
use super::{Resource, Sources};

/// All declared resources, found by path.
#[derive(Default)]
pub struct Resources {
    router: matchit::Router<usize>,
    all: Vec<Arc<Resource>>,
    /// The counters of what earlier configurations declared and this one does not, by name. So no
    /// count is lost if it is declared again.
    retired: BTreeMap<String, Arc<Tally>>,
    descriptions: Descriptions,
}

/// What the database says about the statements of resources, by statement.
pub type Descriptions = HashMap<Query, Description>;

/// The descriptions of the statements of `resources`. `described` has them in the order of
/// [`statements`]; those that failed are left out.
pub fn descriptions(
    resources: &[ResourceSettings],
    described: &[Result<Description, DatabaseError>],
) -> Descriptions {
    let all = statements(resources).into_iter().zip(described);
    all.filter_map(|(query, described)| Some((query.clone(), described.clone().ok()?)))
        .collect()
}

/// What the path of a request leads to.
pub struct Found<'r, 'q> {
    /// The resource at this path.
    pub resource: &'r Arc<Resource>,
    /// The segments of the path that are parameters.
    pub path_arguments: Params<'q, 'q>,
}

/// Why resources were not built.
#[derive(Debug)]
pub enum Unbuilt {
    /// These statements do not fit the database.
    Statements(Vec<StatementFault>),
    /// Another reason.
    Failed(String),
}

impl From<String> for Unbuilt {
    fn from(why: String) -> Unbuilt {
        Unbuilt::Failed(why)
    }
}

impl Resources {
    /// Builds the resources of these settings over `sources`. A resource whose name `before` knows
    /// keeps its counters. Blocks: asks the database to describe each statement.
    ///
    /// # Errors
    /// [`Unbuilt::Statements`]: the database refuses a statement, or the statement does not fit its
    /// declaration.
    pub fn build(
        settings: &[ResourceSettings],
        sources: &Sources,
        before: Option<&Resources>,
    ) -> Result<Resources, Unbuilt> {
        let statements = statements(settings);
        let described: Vec<_> = statements
            .iter()
            .map(|query| sources.database.describe(query))
            .collect();
        let faults = statement_faults(settings, &described);
        if !faults.is_empty() {
            return Err(Unbuilt::Statements(faults));
        }
        // A reload of resources without SQL does not ask the database, which may be stalled.
        if before.is_none() || !described.is_empty() {
            match sources.database.watches() {
                Ok(watches) => {
                    for warning in watch_warnings(settings, &described, &watches) {
                        log::warn!("{warning}");
                    }
                }
                Err(error) => log::warn!("the watched tables cannot be read: {error}"),
            }
        }
        let descriptions = descriptions(settings, &described);
        let types: HashMap<&Query, StatementTypes> = descriptions
            .iter()
            .map(|(query, description)| (query, StatementTypes::of(description)))
            .collect();
        let tallies: BTreeMap<String, &Arc<Tally>> =
            before.iter().flat_map(|before| before.tallies()).collect();
        let tally_of = |name: &str| {
            let known = tallies.get(name);
            known.map(|tally| (*tally).clone()).unwrap_or_default()
        };
        let seals = Seals::default();
        // Composites come after their parts, whatever their order in the file.
        let is_composite = |settings: &&ResourceSettings| {
            matches!(settings.source, Some(SourceSettings::Composite(_)))
        };
        let (composites, others): (Vec<_>, Vec<_>) = settings.iter().partition(is_composite);
        let mut all: Vec<Arc<Resource>> = Vec::with_capacity(settings.len());
        for settings in others.into_iter().chain(composites) {
            all.push(Arc::new(Resource::build(
                settings.clone(),
                sources,
                &types,
                &all,
                &seals,
                &tally_of,
            )?));
        }
        let place = |resource: &Arc<Resource>| {
            settings
                .iter()
                .position(|settings| settings.name == resource.name())
        };
        all.sort_by_key(place);
        let mut router = matchit::Router::new();
        for (at, resource) in all.iter().enumerate() {
            if let Some(path) = &resource.settings.path {
                router
                    .insert(path, at)
                    .map_err(|error| format!("the path {path} cannot be served: {error}"))?;
            }
        }
        let declared: BTreeSet<String> = all.iter().flat_map(names_of_tallies).collect();
        let retired = tallies
            .into_iter()
            .filter(|(name, _)| !declared.contains(name))
            .map(|(name, tally)| (name, tally.clone()))
            .collect();
        Ok(Resources {
            router,
            all,
            retired,
            descriptions,
        })
    }

    /// The resource at `path`.
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

    /// The resource of the key with this name, and the key's canonical arguments as a query. `None`
    /// instead of the query: the name has only their hash, because they are long.
    pub fn of_key<'k>(&self, name: &'k str) -> Option<(&Arc<Resource>, Option<&'k str>)> {
        let (resource, query) = name.split_once('?').unwrap_or((name, ""));
        let found = self.all.iter().find(|known| known.name() == resource)?;
        Some((found, Some(query).filter(|query| !is_hashed(query))))
    }

    /// All shares of the load permits that they use.
    pub fn shares(&self) -> BTreeSet<Arc<str>> {
        let each = self.all.iter().flat_map(|resource| resource.shares());
        each.map(Arc::from).collect()
    }

    /// Reads a tag that a person wrote: how many templates can make it, and the tags of the entries
    /// that it means. In those, each value is escaped and in its canonical spelling.
    pub fn read_tag(&self, tag: &str) -> (usize, Vec<Tag>) {
        let mut tags = Vec::new();
        let read = |resource: &Arc<Resource>| resource.read_tag(tag, &mut tags);
        let templates = self.all.iter().map(read).sum();
        (templates, tags)
    }

    /// The counters of each resource, and of each part that is not a resource, by name. Those that
    /// a reload has removed are among them.
    pub fn tallies(&self) -> impl Iterator<Item = (String, &Arc<Tally>)> {
        let declared = self.all.iter().flat_map(|resource| resource.tallies());
        let retired = self.retired.iter();
        declared.chain(retired.map(|(name, tally)| (name.clone(), tally)))
    }

    /// What the database said about their statements.
    pub fn descriptions(&self) -> &Descriptions {
        &self.descriptions
    }

    /// Every resource, in the order of the configuration.
    pub fn all(&self) -> &[Arc<Resource>] {
        &self.all
    }
}

/// Whether the parameters of a key are shown as their hash. Parameters as they are have a `=`.
fn is_hashed(parameters: &str) -> bool {
    parameters.starts_with("sha256:")
}

fn names_of_tallies(resource: &Arc<Resource>) -> impl Iterator<Item = String> {
    resource.tallies().map(|(name, _)| name)
}
