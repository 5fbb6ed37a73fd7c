//! Applies the resources of a configuration: what a start and a reload have in common.

use std::io;

use crate::config::{Config, ConfigError, ConfigErrors, ConfigOrigin, Place};
use crate::resource::{Resources, Sources, StatementFault, Unbuilt};
use larder_cache::Cache;

/// The warning about a configuration without resources. Only the built-in configuration has the
/// built-in resources.
pub(super) const NO_RESOURCES: &str =
    "declares no resource, so nothing is served but larder's own routes";

/// Why a configuration is not applied.
pub(super) enum Refusal {
    /// It is not valid.
    Configuration(ConfigErrors),
    /// It needs something that is not available.
    Failed(String),
}

impl From<String> for Refusal {
    fn from(why: String) -> Refusal {
        Refusal::Failed(why)
    }
}

impl From<io::Error> for Refusal {
    fn from(why: io::Error) -> Refusal {
        Refusal::Failed(why.to_string())
    }
}

/// Builds the resources of `config`, which came from `origin`. The database checks the statements
/// now, not at the first request. Keeps what is unchanged of the resources `before`.
pub(super) fn build_resources(
    config: &Config,
    origin: &ConfigOrigin,
    sources: &Sources,
    before: Option<&Resources>,
) -> Result<Resources, Refusal> {
    Resources::build(&config.resources, sources, before).map_err(|unbuilt| match unbuilt {
        Unbuilt::Statements(faults) => Refusal::Configuration(ConfigErrors {
            file: origin.to_string(),
            errors: config_faults(faults),
        }),
        Unbuilt::Failed(why) => Refusal::Failed(why),
    })
}

/// The faults of statements, as faults of the configuration.
pub(super) fn config_faults(faults: Vec<StatementFault>) -> Vec<ConfigError> {
    let error = |fault: StatementFault| ConfigError {
        place: Place::Line(fault.line),
        key: fault.key,
        problem: fault.problem,
        valid: fault.valid,
    };
    faults.into_iter().map(error).collect()
}

/// Makes the cache remember invalidations for as long as any entry of these resources can live.
/// Comes before the resources are served.
pub(super) fn remember_invalidations(cache: &Cache, config: &Config) {
    let resources = config.resources.iter();
    let longest = resources.map(|resource| resource.policy.longest_life());
    cache.remember_names_for(longest.max().unwrap_or_default());
}
