//! SIGHUP: a running server reads its configuration again and applies what it can.
//!
//! Promise: all of it is applied, or nothing. The log says what is wrong, and which changes need a
//! restart. Requests under way keep their resources.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::api::Api;
use crate::auth::KeyTable;
use crate::config::{Config, ConfigOrigin, process_environment};
use crate::resource::{ReadMethods, ResourceSettings, Sources};
use crate::worker::{Signals, Wake, Worker};
use larder_cache::Cache;

use super::apply::{NO_RESOURCES, Refusal, build_resources, remember_invalidations};

/// A running server, as far as a reload changes it.
pub(super) struct Reload {
    /// Where the configuration was found: that file is read again.
    pub(super) origin: ConfigOrigin,
    /// The address of the command line, which overrides the file.
    pub(super) bind: Option<String>,
    pub(super) config: Config,
    pub(super) cache: Cache,
    pub(super) sources: Sources,
    pub(super) table: Arc<KeyTable>,
    pub(super) api: Api,
}

impl Reload {
    /// Starts a worker that reloads each time it is woken. Nobody waits for its end: the file may
    /// be on a disk that hangs.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub(super) fn start(mut self) -> io::Result<Worker> {
        let job = move |signals: &Signals| {
            while signals.wait(Duration::MAX) != Wake::Stop {
                self.run();
            }
        };
        Worker::start("larder-reload", job)
    }

    /// Applies what can be applied, or logs what is wrong and changes nothing.
    fn run(&mut self) {
        match self.apply() {
            Ok(()) => {}
            Err(Refusal::Configuration(errors)) => {
                log::error!("the configuration is not valid; nothing is changed:\n{errors}");
            }
            Err(Refusal::Failed(why)) => {
                log::error!("the configuration cannot be applied; nothing is changed: {why}");
            }
        }
    }

    fn apply(&mut self) -> Result<(), Refusal> {
        // A file that is gone is an error: without its path the built-in configuration would be
        // found.
        let loaded = Config::load(self.origin.path(), &process_environment);
        let (mut config, origin) = loaded.map_err(Refusal::Configuration)?;
        if let Some(bind) = &self.bind {
            config.server.bind.clone_from(bind);
        }
        let needing_restart = self.config.changes_needing_restart(&config);
        let before = self.api.resources();
        let resources = build_resources(&config, &origin, &self.sources, Some(&before))?;
        let document = self.api.document(&resources)?;
        remember_invalidations(&self.cache, &config);
        self.cache.set_aside(resources.shares());
        self.api.replace_resources(resources, document);
        self.table.set_default_rate(config.auth.rate);
        let changes = changes(&self.config.resources, &config.resources);
        log::info!("{origin} reloaded: {changes}");
        if config.resources.is_empty() {
            log::warn!("{origin} {NO_RESOURCES}");
        }
        if !needing_restart.is_empty() {
            let changes = needing_restart.join(", ");
            log::warn!("these changes need a restart: {changes}");
        }
        self.origin = origin;
        self.config.resources = config.resources;
        self.config.auth.rate = config.auth.rate;
        Ok(())
    }
}

/// Which resources a new configuration adds, changes and removes, by their names. The methods by
/// which a new or changed one is read follow its name, unless that is `GET` alone.
fn changes(old: &[ResourceSettings], new: &[ResourceSettings]) -> String {
    let find =
        |all: &[ResourceSettings], name: &str| all.iter().find(|one| one.name == name).cloned();
    let (mut added, mut changed, mut removed) = (Vec::new(), Vec::new(), Vec::new());
    let named = |resource: &ResourceSettings| {
        if resource.read == ReadMethods::default() {
            resource.name.clone()
        } else {
            format!("{} ({})", resource.name, resource.read)
        }
    };
    for resource in new {
        match find(old, &resource.name) {
            None => added.push(named(resource)),
            Some(before) if before != *resource => changed.push(named(resource)),
            Some(_) => {}
        }
    }
    for resource in old {
        if find(new, &resource.name).is_none() {
            removed.push(resource.name.clone());
        }
    }
    let groups = [("added", added), ("changed", changed), ("removed", removed)];
    let texts: Vec<String> = groups
        .into_iter()
        .filter(|(_, names)| !names.is_empty())
        .map(|(what, names)| format!("{what} {}", listed(&names)))
        .collect();
    match texts.is_empty() {
        true => "no resource changed".to_owned(),
        false => format!("resources {}", texts.join("; ")),
    }
}

/// The names, or as many of them as fit a line of the log.
fn listed(names: &[String]) -> String {
    const SHOWN: usize = 50;
    let shown = names[..names.len().min(SHOWN)].join(", ");
    match names.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::ReadMethod;

    #[test]
    fn the_resources_that_a_reload_adds_changes_and_removes_are_named() {
        let declared = |names: &[(&str, &str)]| {
            let resources = names.iter().map(|(name, ttl)| {
                format!(
                    "[resource.{name}]\npath = \"/{name}\"\nsource = {{ news = [\"guardian\"] }}\nttl = {{ memory = \"{ttl}\", redis = \"1h\" }}\n"
                )
            });
            let text: String = resources.collect();
            Config::parse(&text, "x.toml", None, &|_| None)
                .unwrap()
                .resources
        };
        let old = declared(&[("a", "1s"), ("b", "1s"), ("c", "1s"), ("d", "1s")]);
        let new = declared(&[("d", "1s"), ("b", "2s"), ("e", "1s"), ("f", "1s")]);
        assert_eq!(
            changes(&old, &new),
            "resources added e, f; changed b; removed a, c"
        );
        assert_eq!(changes(&old, &[]), "resources removed a, b, c, d");
        assert_eq!(changes(&new, &new), "no resource changed");
        let mut asked = old.clone();
        asked[0].read = ReadMethods::NONE
            .with(ReadMethod::Post)
            .with(ReadMethod::Query);
        assert_eq!(changes(&old, &asked), "resources changed a (POST, QUERY)");
        assert_eq!(changes(&asked, &old), "resources changed a");
        let many: Vec<String> = (0..60).map(|n| format!("r{n}")).collect();
        assert!(listed(&many).ends_with("r49 and 10 more"));
    }
}
