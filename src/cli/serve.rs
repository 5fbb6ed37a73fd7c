//! `larder serve`: puts the floors together and serves until it is told to stop.
//!
//! The order of the end: not ready any more, connections still taken for `drain_delay`; then no new ones, and what is under way
//! has `shutdown_grace`; then the times of last use and the archive are written. Each of these has a bound, so that a database
//! that is frozen does not keep the process alive.

use std::num::NonZero;
use std::path::PathBuf;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use actix_web::rt::signal::unix::{SignalKind, signal};
use actix_web::rt::{System, spawn, time};

use crate::api::edge::{self, EdgeSettings};
use crate::api::{Api, ClientRules};
use crate::auth::{KEYS_CHANGED, KeyTable, Refresher};
use crate::config::{Config, ConfigErrors, ConfigOrigin, process_environment};
use crate::database::{Database, Deliverer};
use crate::resource::{Archivist, News, ResourceSettings, Resources, Sources, Unbuilt};
use crate::source::HttpUpstreams;
use crate::source::quota::QuotaStore;
use larder_cache::{Cache, InvalidationTarget};

use super::check::config_errors;
use super::reload::Reload;
use super::{NO_RESOURCES, descriptors, news, signals};

/// How long a required Redis may take to appear at the start.
const REDIS_PATIENCE: Duration = Duration::from_secs(5);
/// How long the archive may take to be written at the end.
const ARCHIVE_PATIENCE: Duration = Duration::from_secs(5);

/// How long invalidations that Redis has not taken yet may take at the end.
const DELIVERY_PATIENCE: Duration = Duration::from_secs(1);

/// Why the server did not start.
pub(super) enum Refusal {
    /// The configuration is not valid.
    Configuration(ConfigErrors),
    /// Something that it needs is not there.
    Failed(String),
}

impl From<String> for Refusal {
    fn from(why: String) -> Refusal {
        Refusal::Failed(why)
    }
}

/// Serves with the configuration of `file`, or the one that is found, on `bind` if that is given.
pub(super) fn run(file: Option<PathBuf>, bind: Option<String>) -> ExitCode {
    match start(file, bind) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Refusal::Configuration(errors)) => {
            super::say_error(&errors);
            ExitCode::from(2)
        }
        Err(Refusal::Failed(why)) => {
            super::say_error(&format!("larder: {why}"));
            ExitCode::FAILURE
        }
    }
}

fn start(file: Option<PathBuf>, bind: Option<String>) -> Result<(), Refusal> {
    let (mut config, origin) =
        Config::load(file.as_deref(), &process_environment).map_err(Refusal::Configuration)?;
    if let Some(bind) = &bind {
        config.server.bind.clone_from(bind);
    }
    log::info!("larder {} with {origin}", env!("CARGO_PKG_VERSION"));
    if config.resources.is_empty() {
        log::warn!("{origin} {NO_RESOURCES}");
    }
    signals::survive_full_files()?;
    let database = open_database(&config)?;
    let cache = Cache::start(
        &config.memory,
        &config.redis,
        &config.loads,
        &config.coherence,
    )?;
    let redis = cache.redis();
    if config.redis.required
        && !redis.wait_up(REDIS_PATIENCE)
        && let (state, why) = redis.state()
        && !state.keeps_promises()
    {
        return Err(format!(
            "Redis is required, but the one at {} is not usable ({state}): {why}",
            redis.address()
        )
        .into());
    }
    // The first requests are to find Redis, if there is one; a slow one is picked up later.
    redis.wait_first_look(config.redis.connect_timeout);
    if redis.answers() {
        cache.wait_trusted(config.coherence.max_staleness);
    }

    cache.describe(&format!(
        "\"version\":\"{}\",\"bind\":{}",
        env!("CARGO_PKG_VERSION"),
        serde_json::Value::from(config.server.bind.as_str()),
    ));
    remember_names(&cache, &config);

    let table = Arc::new(KeyTable::new(
        config.auth.rate,
        config.auth.admin_key.clone(),
    ));
    let archivist = Archivist::start(database.clone(), config.database.archive)
        .map_err(|error| error.to_string())?;
    let quotas = QuotaStore::in_redis(redis.clone(), &config.redis.prefix);
    let news = News::new(
        news::sources(&config, &quotas)?,
        archivist.clone(),
        database.clone(),
    );
    let sources = Sources {
        news,
        database: database.clone(),
        upstreams: HttpUpstreams::new(Some(quotas)),
    };
    let resources = build_resources(&config, &origin, &sources, None)?;
    cache.set_aside(resources.shares());
    let (own, outbox_of) = (cache.clone(), database.clone());
    let api = Api::new(
        cache,
        resources,
        database.clone(),
        table.clone(),
        ClientRules {
            keys_required: config.auth.required,
            redis_required: config.redis.required,
            body_timeout: config.server.body_timeout,
            places: descriptors::places(&config),
        },
    );
    if config.auth.admin_key.is_none() {
        print_first_key(&database, &config)?;
    }
    table
        .refresh(&database)
        .map_err(|error| format!("the API keys cannot be read: {error}"))?;
    let refresher = Refresher::start(table.clone(), database, config.coherence.max_staleness)
        .map_err(|error| error.to_string())?;
    let look = refresher.look_now();
    own.on_invalidation(move |name, _| {
        // A replica that missed some does not know which.
        if name.as_str() == KEYS_CHANGED || *name == InvalidationTarget::everything() {
            look();
        }
    });

    let deliverer = Deliverer::start(outbox_of, own.clone()).map_err(|error| error.to_string())?;

    let told_last = own.clone();
    let served = System::new().block_on(serve(Reload {
        origin,
        bind,
        config,
        cache: own,
        sources,
        table,
        api,
    }));
    drop(deliverer);
    drop(refresher);
    archivist.finish(ARCHIVE_PATIENCE);
    // Other threads may hold the cache to the very end of the process, so nobody would close it.
    if !told_last.wait_delivered(DELIVERY_PATIENCE) {
        log::warn!(
            "{} pending invalidations are lost: Redis has not taken them",
            told_last.bus().pending
        );
    }
    served.map_err(Refusal::Failed)
}

/// As long as any entry of these resources can live.
pub(super) fn remember_names(cache: &Cache, config: &Config) {
    let resources = config.resources.iter();
    let longest = resources.map(|resource| resource.policy.longest_life());
    cache.remember_names_for(longest.max().unwrap_or_default());
}

/// The resources of `config`, which came from `origin`. What the database does not take is found now, not by the first request.
pub(super) fn build_resources(
    config: &Config,
    origin: &ConfigOrigin,
    sources: &Sources,
    before: Option<&Resources>,
) -> Result<Resources, Refusal> {
    Resources::build(&config.resources, sources, before).map_err(|unbuilt| match unbuilt {
        Unbuilt::Statements(faults) => {
            Refusal::Configuration(config_errors(&origin.to_string(), faults))
        }
        Unbuilt::Failed(why) => Refusal::Failed(why),
    })
}

fn open_database(config: &Config) -> Result<Database, String> {
    let database = Database::open(&config.database).map_err(|error| error.to_string())?;
    let applied = database
        .migrate()
        .map_err(|error| format!("the database cannot be brought up to date: {error}"))?;
    if applied > 0 {
        log::info!(
            "{applied} migrations applied to the {} database",
            database.kind()
        );
    }
    Ok(database)
}

/// A path that answers as it stands: of a resource that is read and needs no parameter, or else of larder's own.
fn path_to_try(resources: &[ResourceSettings]) -> &str {
    let mut ready = resources.iter().filter(|resource| {
        resource.source.is_some() && resource.params.iter().all(|param| !param.required)
    });
    ready
        .find_map(|resource| resource.path.as_deref())
        .unwrap_or("/cache/stats")
}

/// Makes the first admin key of a new database and prints it, this once. One that nobody gets to see is taken back.
fn print_first_key(database: &Database, config: &Config) -> Result<(), String> {
    let made = database
        .keys()
        .create_first_admin()
        .map_err(|error| format!("the first API key cannot be made: {error}"))?;
    let Some(created) = made else { return Ok(()) };
    let path = path_to_try(&config.resources);
    let url = super::own_url(&config.server.bind);
    let said = super::say(&format!(
        "A first admin API key, which is shown only this once:\n\n    {key}\n\nTry it:\n\n    curl -H 'Authorization: Bearer {key}' '{url}{path}'\n",
        key = created.secret.reveal(),
    ));
    let Err(why) = said else { return Ok(()) };
    let kept = match database.keys().take_back_first_admin(&created.id) {
        Ok(()) => "it is revoked, and the next start makes another".to_owned(),
        Err(error) => format!(
            "it cannot be revoked either ({error}): larder key revoke {}",
            created.id
        ),
    };
    Err(format!(
        "the first API key cannot be printed to standard output ({why}): {kept}"
    ))
}

async fn serve(reload: Reload) -> Result<(), String> {
    let settings = reload.config.server.clone();
    let lifecycle = reload.api.lifecycle().clone();
    let grace = settings.shutdown_grace;
    let cores = || std::thread::available_parallelism().map_or(1, NonZero::get);
    let edge = EdgeSettings {
        bind: settings.bind.clone(),
        workers: if settings.workers > 0 {
            settings.workers
        } else {
            cores()
        },
        head_timeout: settings.head_timeout,
        progress_timeout: settings.progress_timeout,
        shutdown_grace: grace,
    };
    let (server, addresses) = edge::bind(&reload.api, &edge)
        .map_err(|error| format!("cannot listen on {}: {error}", settings.bind))?;
    for address in addresses {
        log::info!("listening on http://{address}");
    }
    let handle = server.handle();
    let signals = |kind| signal(kind).map_err(|error| format!("cannot wait for signals: {error}"));
    let (mut terminate, mut interrupt) = (
        signals(SignalKind::terminate())?,
        signals(SignalKind::interrupt())?,
    );
    let mut hangup = signals(SignalKind::hangup())?;

    let reloader = reload.start().map_err(|error| error.to_string())?;
    spawn(async move {
        while hangup.recv().await.is_some() {
            reloader.wake();
        }
    });
    let grace_over = async move {
        std::future::poll_fn(|context| {
            let told =
                terminate.poll_recv(context).is_ready() || interrupt.poll_recv(context).is_ready();
            if told { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        lifecycle.drain();
        log::info!("draining: not ready from now on");
        time::sleep(settings.drain_delay).await;
        lifecycle.close();
        log::info!(
            "stopping: {} for what is under way",
            crate::quantity::format_duration(grace)
        );
        // The server ends by itself when all is done; what is asked for now is not waited for.
        drop(handle.stop(true));
        time::sleep(grace).await;
    };
    let (mut server, mut grace_over) = (pin!(server), pin!(grace_over));
    let ended = std::future::poll_fn(|context| match server.as_mut().poll(context) {
        Poll::Ready(ended) => Poll::Ready(Some(ended)),
        Poll::Pending => grace_over.as_mut().poll(context).map(|()| None),
    });
    match ended.await {
        Some(ended) => ended.map_err(|error| format!("the server stopped: {error}")),
        // Dropping the server closes what is still open.
        None => {
            log::warn!("the grace is over: what is still under way is given up");
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_to_try_answers_as_it_stands() {
        let declared = |text: &str| {
            let config = Config::parse(text, "config.toml", None, &|_| None);
            path_to_try(&config.unwrap().resources).to_owned()
        };
        assert_eq!(declared(""), "/cache/stats");
        let user = r#"
[resource.users]
path = "/users"
write.POST.sql = "user_insert"
[resource.user]
path = "/users/{id}"
params.id = { type = "integer" }
source = { sql = "user_by_id" }
ttl = { memory = "1s", redis = "1s" }
"#;
        assert_eq!(declared(user), "/cache/stats");
        let news = r#"
[resource.news]
path = "/news"
source = { news = ["guardian"] }
ttl = { memory = "1s", redis = "1s" }
"#;
        assert_eq!(declared(&format!("{user}{news}")), "/news");
    }
}
