//! FLOOR 4: `config.toml` and the environment, as a valid [`Config`].
//!
//! Promise: a `Config` breaks no rule of the documentation. For a file that is not valid, all
//! errors are reported at once, each with its line, its key and what would be valid. The
//! environment wins over the file. Nothing is guessed or ignored: an unknown key is an error, and
//! so is a value of another type.

mod address;
mod composite;
mod environment;
mod error;
mod http;
mod json;
mod news;
mod params;
mod paths;
mod reader;
mod report;
mod resources;
mod restart;
mod sections;
mod source;
mod tags;
#[cfg(test)]
mod tests;
mod upstreams;
mod wording;
mod writes;

use std::fmt;
use std::path::{Path, PathBuf};

use crate::database::{DatabaseKind, DatabaseSettings};
use crate::resource::ResourceSettings;
use crate::source::UpstreamSettings;
use larder_cache::{CoherenceSettings, LoadSettings, MemorySettings, RedisSettings};

pub use address::{BIND_FORM, is_bind};
pub use environment::{Lookup, process_environment, variable};
pub use error::{ConfigError, ConfigErrors, Place};
pub use paths::is_own;
pub use sections::{AuthSettings, ServerSettings};
pub use wording::is_unprintable;

/// The file that ships with larder, and the configuration without a file.
const BUILT_IN: &str = include_str!("../../config.toml");
/// The folder of statements, beside the configuration.
const STATEMENTS: &str = "sql/queries";
/// The file in the working directory.
const FILE: &str = "config.toml";

/// All settings. Valid as a whole.
#[derive(Clone, Debug)]
pub struct Config {
    /// `[server]`, without `max_loads` and `max_queue`.
    pub server: ServerSettings,
    /// `[memory]`
    pub memory: MemorySettings,
    /// `[redis]`
    pub redis: RedisSettings,
    /// `[coherence]`
    pub coherence: CoherenceSettings,
    /// `max_loads` and `max_queue` in `[server]`.
    pub loads: LoadSettings,
    /// `[database]`
    pub database: DatabaseSettings,
    /// `[auth]`
    pub auth: AuthSettings,
    /// `[upstream.*]`: all news upstreams, whether or not the file names them.
    pub upstreams: Vec<UpstreamSettings>,
    /// `[resource.*]`, in the order of the file.
    pub resources: Vec<ResourceSettings>,
}

/// Where the configuration was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigOrigin {
    /// A file named on the command line.
    CommandLine(PathBuf),
    /// A file named by `LARDER_CONFIG`.
    Environment(PathBuf),
    /// `config.toml` in the working directory.
    WorkingDirectory(PathBuf),
    /// The built-in configuration.
    BuiltIn,
}

impl ConfigOrigin {
    /// The file, if there is one.
    pub fn path(&self) -> Option<&Path> {
        match self {
            ConfigOrigin::CommandLine(path)
            | ConfigOrigin::Environment(path)
            | ConfigOrigin::WorkingDirectory(path) => Some(path),
            ConfigOrigin::BuiltIn => None,
        }
    }
}

impl fmt::Display for ConfigOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path() {
            Some(path) => path.display().fmt(f),
            None => f.write_str("the built-in configuration"),
        }
    }
}

impl Config {
    /// Finds and reads the configuration: the file `explicit`, else the file in `LARDER_CONFIG`,
    /// else `./config.toml` if it exists, else the built-in configuration.
    ///
    /// # Errors
    /// All errors of the configuration. A named file that cannot be read is one of them.
    pub fn load(
        explicit: Option<&Path>,
        env: Lookup<'_>,
    ) -> Result<(Config, ConfigOrigin), ConfigErrors> {
        Config::survey(explicit, env).valid()
    }

    /// As [`Config::load`], for a caller with further checks: returns what could be read and all
    /// errors.
    pub fn survey(explicit: Option<&Path>, env: Lookup<'_>) -> Survey {
        Config::survey_beside(Path::new(""), explicit, env)
    }

    /// As [`Config::survey`], with another working directory.
    fn survey_beside(directory: &Path, explicit: Option<&Path>, env: Lookup<'_>) -> Survey {
        let named = environment::Environment(env).get("LARDER_CONFIG");
        let origin = match (explicit, named) {
            (Some(path), _) => ConfigOrigin::CommandLine(path.to_owned()),
            (None, Some(path)) => ConfigOrigin::Environment(path.into()),
            (None, None) => ConfigOrigin::WorkingDirectory(directory.join(FILE)),
        };
        let file = origin.to_string();
        let nothing = |origin, place, problem, valid| Survey {
            config: None,
            errors: fault(&file, place, problem, valid),
            origin,
        };
        let bytes = match origin.path().map(std::fs::read) {
            Some(Ok(bytes)) => bytes,
            Some(Err(error))
                if error.kind() == std::io::ErrorKind::NotFound
                    && matches!(origin, ConfigOrigin::WorkingDirectory(_)) =>
            {
                let file = "built-in config.toml";
                return Config::read(ConfigOrigin::BuiltIn, BUILT_IN, file, None, env);
            }
            Some(Err(error)) => {
                let problem = format!("cannot be read: {error}");
                return nothing(origin, Place::File, problem, "a file that can be read");
            }
            None => BUILT_IN.into(),
        };
        let text = match String::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => {
                let valid_bytes = &error.as_bytes()[..error.utf8_error().valid_up_to()];
                let line = valid_bytes.iter().filter(|byte| **byte == b'\n').count() + 1;
                let problem = "is not UTF-8".to_owned();
                return nothing(origin, Place::Line(line), problem, "a file in UTF-8");
            }
        };
        // Statements stand beside the file, wherever the process was started.
        let folder = origin.path().and_then(Path::parent);
        let folder = folder.map(|folder| folder.join(STATEMENTS));
        Config::read(origin, &text, &file, folder.as_deref(), env)
    }

    /// Reads a configuration from its text. `file` is its name in errors. Statements in `folder` go
    /// before those that ship with larder.
    ///
    /// # Errors
    /// All errors of the configuration.
    pub fn parse(
        text: &str,
        file: &str,
        folder: Option<&Path>,
        env: Lookup<'_>,
    ) -> Result<Config, ConfigErrors> {
        let survey = Config::read(ConfigOrigin::BuiltIn, text, file, folder, env);
        survey.valid().map(|(config, _)| config)
    }

    /// As [`Config::parse`], but returns what could be read beside all errors. An invalid value is
    /// left out or at its default. `None` if the text is not TOML.
    fn read(
        origin: ConfigOrigin,
        text: &str,
        file: &str,
        folder: Option<&Path>,
        env: Lookup<'_>,
    ) -> Survey {
        let file = file.to_owned();
        let survey = |config, errors| Survey {
            origin,
            config,
            errors: ConfigErrors { file, errors },
        };
        let env = environment::Environment(env);
        let document = match report::parse_document(text) {
            Ok(document) => document,
            Err(faults) => return survey(None, faults),
        };
        let report = report::Report::new(text);
        let root = reader::Table::root(&report, document.get_ref());
        let (server, loads) = sections::server(&root, env);
        let memory = sections::memory(&root);
        let redis = sections::redis(&root, env);
        let coherence = sections::coherence(&root);
        let database = sections::database(&root, env);
        let auth = sections::auth(&root, env);
        let url = database.url.as_ref().map(|url| url.reveal());
        let statements = source::Statements {
            folder,
            kind: url
                .and_then(DatabaseKind::of_url)
                .unwrap_or(DatabaseKind::Sqlite),
        };
        let apis = http::Apis { root: &root, env };
        let resources = resources::read(&root, source::Context { statements, apis });
        let config = Config {
            server,
            memory,
            redis,
            coherence,
            loads,
            database,
            auth,
            upstreams: upstreams::read(&root, env, &resources),
            resources,
        };
        root.close();
        survey(Some(config), report.into_errors())
    }
}

/// A configuration as far as it could be read, and all its errors.
#[derive(Clone, Debug)]
pub struct Survey {
    /// Where it was found.
    pub origin: ConfigOrigin,
    /// What could be read. An invalid value is left out or at its default. `None`: nothing.
    pub config: Option<Config>,
    /// All errors. Without one, the configuration is valid.
    pub errors: ConfigErrors,
}

impl Survey {
    /// The configuration, if it is valid.
    ///
    /// # Errors
    /// All its errors.
    pub fn valid(self) -> Result<(Config, ConfigOrigin), ConfigErrors> {
        match self.config {
            Some(config) if self.errors.errors.is_empty() => Ok((config, self.origin)),
            _ => Err(self.errors),
        }
    }

    /// Whether its `[database]` is valid, so that the database can be asked.
    pub fn knows_its_database(&self) -> bool {
        let of_database = |error: &ConfigError| {
            error.key == "DATABASE_URL" || error.key.split('.').next() == Some("database")
        };
        self.config.is_some() && !self.errors.errors.iter().any(of_database)
    }
}

fn fault(file: &str, place: Place, problem: String, valid: &str) -> ConfigErrors {
    ConfigErrors {
        file: file.to_owned(),
        errors: vec![ConfigError {
            place,
            key: String::new(),
            problem,
            valid: valid.to_owned(),
        }],
    }
}
