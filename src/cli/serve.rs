//! `larder serve`: puts the floors together and serves until it is told to stop.
//!
//! The server stops in this order:
//!
//! 1. It is not ready any more. It still takes connections, for `drain_delay`.
//! 2. It takes no new connections. Requests under way have `shutdown_grace` to end.
//! 3. Loads under way whose callers have left have the rest of `shutdown_grace`.
//! 4. The times of last use of the API keys and the archive are written.
//! 5. Pending invalidations are delivered.
//!
//! Each step has a time limit, so a frozen database does not keep the process alive.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use actix_web::rt::signal::unix::{Signal, SignalKind, signal};
use actix_web::rt::{System, spawn, time};

use crate::api::{Api, ClientRules};
use crate::auth::{KEYS_CHANGED, KeyTable, Refresher};
use crate::config::{Config, ConfigOrigin, process_environment};
use crate::database::{Database, Deliverer};
use crate::quantity::format_duration;
use crate::resource::{Archivist, News, ResourceSettings, Sources};
use crate::source::HttpUpstreams;
use crate::source::quota::QuotaStore;
use crate::worker::Worker;
use larder_cache::{Cache, InvalidationTarget};

use super::apply::{NO_RESOURCES, Refusal, build_resources, remember_invalidations};
use super::log::report;
use super::output::print;
use super::reload::Reload;
use super::target::own_url;
use super::{descriptors, news, signals};

/// How long a required Redis may take to come up at the start.
const REDIS_START: Duration = Duration::from_secs(5);
/// How long writing the archive may take at the end.
const LAST_ARCHIVE: Duration = Duration::from_secs(5);
/// How long pending invalidations may take to be delivered at the end.
const LAST_DELIVERY: Duration = Duration::from_secs(1);

/// Serves with the configuration of `file`, or the one that is found, on `bind` if that is given.
pub(super) fn run(file: Option<PathBuf>, bind: Option<String>) -> ExitCode {
    match start(file.as_deref(), bind) {
        Ok(()) => ExitCode::SUCCESS,
        Err(refusal) => report(&refusal),
    }
}

fn start(file: Option<&Path>, bind: Option<String>) -> Result<(), Refusal> {
    let (config, origin) = load_config(file, bind.as_deref())?;
    signals::survive_full_files()?;
    let database = open_database(&config)?;
    let cache = start_cache(&config)?;
    let (rate, admin_key) = (config.auth.rate, config.auth.admin_key.clone());
    let table = Arc::new(KeyTable::new(rate, admin_key));
    let archivist = Archivist::start(database.clone(), config.database.archive)?;
    let sources = sources(&config, &cache, &database, &archivist)?;
    let resources = build_resources(&config, &origin, &sources, None)?;
    cache.set_aside(resources.shares());
    let rules = ClientRules {
        keys_required: config.auth.required,
        open_metrics: config.server.open_metrics,
        redis_required: config.redis.required,
        body_timeout: config.server.body_timeout,
        places: descriptors::places(&config),
    };
    let (for_api, keys) = (sources.clone(), table.clone());
    let api = Api::new(cache.clone(), resources, for_api, keys, rules)?;
    if config.auth.admin_key.is_none() {
        print_first_key(&database, &config)?;
    }
    let refresher = follow_keys(&table, &database, &cache, config.coherence.max_staleness)?;
    let deliverer = Deliverer::start(database, cache.clone())?;

    let served = System::new().block_on(serve(Reload {
        origin,
        bind,
        config,
        cache: cache.clone(),
        sources,
        table,
        api,
    }));

    finish_loads(&cache, *served.as_ref().unwrap_or(&Duration::ZERO));
    drop(deliverer);
    drop(refresher);
    archivist.finish(LAST_ARCHIVE);
    // Other threads may hold the cache until the process ends, so its drop delivers nothing.
    if !cache.wait_delivered(LAST_DELIVERY) {
        log::warn!(
            "{} pending invalidations are lost: Redis did not take them",
            cache.bus().pending
        );
    }
    served.map(|_| ()).map_err(Refusal::Failed)
}

/// Lets loads end that run although their callers have left: their sources were asked, and may cost
/// money.
fn finish_loads(cache: &Cache, limit: Duration) {
    let running: usize = cache.shares().iter().map(|share| share.running).sum();
    if running > 0 {
        log::info!(
            "stopping: {} for loads under way: {running}",
            format_duration(limit)
        );
    }
    let given_up = cache.finish_loads(limit);
    if given_up > 0 {
        log::warn!("the grace is over: loads under way are given up: {given_up}");
    }
}

fn load_config(file: Option<&Path>, bind: Option<&str>) -> Result<(Config, ConfigOrigin), Refusal> {
    let loaded = Config::load(file, &process_environment);
    let (mut config, origin) = loaded.map_err(Refusal::Configuration)?;
    if let Some(bind) = bind {
        bind.clone_into(&mut config.server.bind);
    }
    log::info!("larder {} with {origin}", env!("CARGO_PKG_VERSION"));
    if config.resources.is_empty() {
        log::warn!("{origin} {NO_RESOURCES}");
    }
    Ok((config, origin))
}

fn open_database(config: &Config) -> Result<Database, String> {
    let database = Database::open(&config.database).map_err(|error| error.to_string())?;
    let applied = database
        .migrate()
        .map_err(|error| format!("the database cannot be migrated: {error}"))?;
    if applied > 0 {
        log::info!(
            "{applied} migrations applied to the {} database",
            database.kind()
        );
    }
    Ok(database)
}

/// The cache. If there is a Redis that answers, the cache is connected to it and trusted when this
/// returns, so that the first requests find what is in Redis.
fn start_cache(config: &Config) -> Result<Cache, String> {
    let cache = Cache::start(
        &config.memory,
        &config.redis,
        &config.loads,
        &config.coherence,
    )?;
    let redis = cache.redis();
    if config.redis.required
        && !redis.wait_up(REDIS_START)
        && let (state, why) = redis.state()
        && !state.keeps_promises()
    {
        return Err(format!(
            "Redis is required, but the one at {} is not usable ({state}): {why}",
            redis.address()
        ));
    }
    // A Redis that is slow to answer is found later.
    redis.wait_first_look(config.redis.connect_timeout);
    if redis.answers() {
        cache.wait_trusted(config.coherence.max_staleness);
    }
    cache.describe(&format!(
        "\"version\":\"{}\",\"bind\":{}",
        env!("CARGO_PKG_VERSION"),
        serde_json::Value::from(config.server.bind.as_str()),
    ));
    remember_invalidations(&cache, config);
    Ok(cache)
}

fn sources(
    config: &Config,
    cache: &Cache,
    database: &Database,
    archivist: &Archivist,
) -> Result<Sources, String> {
    let quotas = QuotaStore::in_redis(cache.redis().clone(), &config.redis.prefix);
    let news = news::sources(config, &quotas)?;
    Ok(Sources {
        news: News::new(news, archivist.clone(), database.clone()),
        database: database.clone(),
        upstreams: HttpUpstreams::new(Some(quotas)),
    })
}

/// A path to try: that of a resource that can be read without parameters, or else one of larder's
/// own.
fn path_to_try(resources: &[ResourceSettings]) -> &str {
    let mut ready = resources.iter().filter(|resource| {
        resource.source.is_some() && resource.params.iter().all(|param| !param.required)
    });
    ready
        .find_map(|resource| resource.path.as_deref())
        .unwrap_or("/cache/stats")
}

/// Creates the first admin key of a new database and prints it. This is the only time that the key
/// is shown, so a key that cannot be printed is revoked.
fn print_first_key(database: &Database, config: &Config) -> Result<(), String> {
    let created = database
        .keys()
        .create_first_admin()
        .map_err(|error| format!("the first API key cannot be created: {error}"))?;
    let Some(created) = created else {
        return Ok(());
    };
    let path = path_to_try(&config.resources);
    let url = own_url(&config.server.bind);
    let printed = print(&format!(
        "A first admin API key, which is shown only this once:\n\n    {key}\n\nTry it:\n\n    curl -H 'Authorization: Bearer {key}' '{url}{path}'\n",
        key = created.secret.reveal(),
    ));
    let Err(why) = printed else { return Ok(()) };
    let kept = match database.keys().take_back_first_admin(&created.id) {
        Ok(()) => "it is revoked, and the next start creates another".to_owned(),
        Err(error) => format!(
            "it cannot be revoked either ({error}): larder key revoke {}",
            created.id
        ),
    };
    Err(format!(
        "the first API key cannot be printed to standard output ({why}): {kept}"
    ))
}

/// Reads the API keys, and from now on follows changes: those that this replica hears of at once,
/// others within `max_staleness`.
fn follow_keys(
    table: &Arc<KeyTable>,
    database: &Database,
    cache: &Cache,
    max_staleness: Duration,
) -> Result<Refresher, Refusal> {
    table
        .refresh(database)
        .map_err(|error| format!("the API keys cannot be read: {error}"))?;
    let refresher = Refresher::start(table.clone(), database.clone(), max_staleness)?;
    let look_now = refresher.look_now();
    cache.on_invalidation(move |target, _| {
        // A replica that missed messages invalidates everything, because it does not know which.
        if target.as_str() == KEYS_CHANGED || *target == InvalidationTarget::everything() {
            look_now();
        }
    });
    Ok(refresher)
}

/// Serves until a signal ends the process. Everything is up when this begins. Returns what is left
/// of `shutdown_grace`.
async fn serve(reload: Reload) -> Result<Duration, String> {
    let settings = reload.config.server.clone();
    let lifecycle = reload.api.lifecycle().clone();
    let grace = settings.shutdown_grace;
    let (server, addresses) = reload
        .api
        .listen(&settings)
        .map_err(|error| format!("cannot listen on {}: {error}", settings.bind))?;
    for address in addresses {
        log::info!("listening on http://{address}");
    }
    let handle = server.handle();
    let (mut terminate, mut interrupt) = (
        on_signal(SignalKind::terminate())?,
        on_signal(SignalKind::interrupt())?,
    );
    let reloader = reload.start().map_err(|error| error.to_string())?;
    reload_on_hangup(on_signal(SignalKind::hangup())?, reloader);

    let stopped_at = Cell::new(None);
    let grace_over = async {
        std::future::poll_fn(|context| {
            let asked =
                terminate.poll_recv(context).is_ready() || interrupt.poll_recv(context).is_ready();
            if asked {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
        lifecycle.drain();
        log::info!("draining: not ready from now on");
        time::sleep(settings.drain_delay).await;
        lifecycle.close();
        stopped_at.set(Some(Instant::now()));
        log::info!(
            "stopping: {} for requests under way",
            format_duration(grace)
        );
        // Asks only. The server ends by itself once all requests are done.
        drop(handle.stop(true));
        time::sleep(grace).await;
    };
    let (mut server, mut grace_over) = (pin!(server), pin!(grace_over));
    let ended = std::future::poll_fn(|context| match server.as_mut().poll(context) {
        Poll::Ready(ended) => Poll::Ready(Some(ended)),
        Poll::Pending => grace_over.as_mut().poll(context).map(|()| None),
    });
    match ended.await {
        Some(Ok(())) => {
            let used = stopped_at.get().map(|at| at.elapsed());
            Ok(used.map_or(Duration::ZERO, |used| grace.saturating_sub(used)))
        }
        Some(Err(error)) => Err(format!("the server stopped: {error}")),
        // Dropping the server closes the open connections.
        None => {
            log::warn!("the grace is over: requests under way are dropped");
            Ok(Duration::ZERO)
        }
    }
}

fn on_signal(kind: SignalKind) -> Result<Signal, String> {
    signal(kind).map_err(|error| format!("cannot wait for signals: {error}"))
}

fn reload_on_hangup(mut hangup: Signal, reloader: Worker) {
    spawn(async move {
        while hangup.recv().await.is_some() {
            reloader.wake();
        }
    });
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
