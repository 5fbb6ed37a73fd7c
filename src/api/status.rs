//! The state of the server: whether it is alive and ready, and what its cache has counted.

use std::time::Duration;

use actix_web::http::header::{CACHE_CONTROL, HeaderValue};
use actix_web::{HttpRequest, HttpResponse, web};
use serde_json::{Value, json};

use crate::database::Database;
use crate::resource::Resources;
use larder_cache::{Cache, EvictionCause, RedisState, ShareStatus, Totals};

use super::access::Access;
use super::bridge;
use super::edge::Places;
use super::lifecycle::Lifecycle;
use super::state::LiveResources;

/// How long the database may take to answer a ping.
const PROOF: Duration = Duration::from_secs(3);

/// Whether the server is not ready without Redis.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RedisRequired(pub(crate) bool);

/// `GET /healthz`: the process is alive and answers.
pub(crate) async fn alive() -> HttpResponse {
    not_stored(HttpResponse::Ok().json(json!({"status": "alive"})))
}

/// `GET /readyz`: 503 while draining, while the database is down, or while a required Redis is.
pub(crate) async fn ready(
    cache: web::Data<Cache>,
    database: web::Data<Database>,
    lifecycle: web::Data<Lifecycle>,
    required: web::Data<RedisRequired>,
) -> HttpResponse {
    let ping = bridge::database(&database, |database| database.ping());
    let database_up = matches!(actix_web::rt::time::timeout(PROOF, ping).await, Ok(Ok(())));
    let (redis_state, _) = redis_state(&cache);
    let redis_serves = cache.redis().state().0.keeps_promises() || !required.0;
    let draining = lifecycle.is_draining();
    let ready = !draining && database_up && redis_serves;
    let status = match (draining, ready) {
        (true, _) => "draining",
        (false, true) => "ready",
        (false, false) => "not ready",
    };
    let body = json!({
        "status": status,
        "database": {"state": if database_up { "up" } else { "down" }, "kind": database.kind().to_string()},
        "redis": {"state": redis_state, "required": required.0},
    });
    let mut answer = if ready {
        HttpResponse::Ok()
    } else {
        HttpResponse::ServiceUnavailable()
    };
    if !ready {
        answer.insert_header(("Retry-After", "1"));
    }
    not_stored(answer.json(body))
}

/// The state of Redis, or `standalone`, and the reason why it is not up. The reason is for admins
/// only: it can name the Redis user.
fn redis_state(cache: &Cache) -> (String, Option<String>) {
    let redis = cache.redis();
    match redis.state() {
        (RedisState::Up, _) => (RedisState::Up.to_string(), None),
        // Nobody configured Redis: whatever listens at the default address is not meant.
        _ if !redis.is_configured() && cache.is_alone() => ("standalone".to_owned(), None),
        (state, why) => (state.to_string(), Some(why).filter(|why| !why.is_empty())),
    }
}

/// `GET /cache/stats`.
pub(crate) async fn stats(
    request: HttpRequest,
    access: web::Data<Access>,
    cache: web::Data<Cache>,
    resources: web::Data<LiveResources>,
    places: web::Data<Places>,
) -> HttpResponse {
    let work = async {
        let (cache, resources) = (cache.get_ref().clone(), resources.load_full());
        // The memory tier tidies up before it is counted.
        let count = move || counted(&cache, &resources);
        let mut body = bridge::blocking("the counters", count).await?;
        let places = places.totals();
        body["connections"] = json!({
            "open": places.open, "max": places.most,
            "refused": places.refused, "displaced": places.displaced, "timed_out": places.timed_out,
        });
        let (refused, slowed) = access.wrong_keys.totals();
        body["unknown_keys"] = json!({"refused": refused, "slowed": slowed});
        Ok(HttpResponse::Ok().json(body))
    };
    access.admins(&request, |_| work).await
}

/// What was counted since this process started.
fn counted(cache: &Cache, resources: &Resources) -> Value {
    // Each counter is read once, so that the sums agree with the resources below.
    let each: Vec<(String, Totals, Totals)> = resources
        .tallies()
        .map(|(name, tally)| (name, tally.totals(), tally.part_totals()))
        .collect();
    // Each request counts once. Look-ups of its parts count in the resources of the parts.
    let all: Totals = each.iter().map(|(_, own, _)| *own).sum();
    let memory = cache.memory();
    let redis = cache.redis();
    let (state, reason) = redis_state(cache);
    let bus = cache.bus();
    let mut body = rates(&all);
    body["total_keys"] = json!(memory.entries);
    body["memory"] = json!({
        "hits": all.memory_hits, "misses": all.memory_misses,
        "entries": memory.entries, "bytes": memory.bytes,
        "evictions": memory.evicted(EvictionCause::Size),
    });
    body["redis"] = json!({
        "up": redis.is_up(), "state": state, "reason": reason, "hits": all.redis_hits, "misses": all.redis_misses, "errors": redis.errors(),
    });
    body["source"] = json!({
        "loads": all.loads, "errors": all.load_errors, "collapsed": all.collapsed, "stale_served": all.stale_served,
    });
    let shares = cache.shares();
    body["loads"] = json!({
        "running": shares.iter().map(|share| share.running).sum::<usize>(),
        "waiting": shares.iter().map(|share| share.waiting).sum::<usize>(),
        "shares": shares.iter().map(share).collect::<Vec<_>>(),
    });
    body["bus"] = json!({
        "trusted": bus.trusted, "clock": bus.clock.to_string(), "gaps_repaired": bus.gaps_repaired, "pending": bus.pending,
    });
    let by_resource = each
        .into_iter()
        .map(|(name, own, part)| (name, by_tier(&[own, part].into_iter().sum())));
    body["resources"] = Value::Object(by_resource.collect());
    body
}

/// The look-ups of one resource, including those as a part of another.
fn by_tier(totals: &Totals) -> Value {
    let mut body = rates(totals);
    body["memory"] = json!({"hits": totals.memory_hits, "misses": totals.memory_misses});
    body["redis"] = json!({"hits": totals.redis_hits, "misses": totals.redis_misses});
    body["source"] = json!({
        "loads": totals.loads, "errors": totals.load_errors,
        "collapsed": totals.collapsed, "stale_served": totals.stale_served,
    });
    body
}

fn share(share: &ShareStatus) -> Value {
    json!({
        "name": &*share.name, "running": share.running, "waiting": share.waiting,
        "refused": share.refused, "left": share.left,
    })
}

fn rates(totals: &Totals) -> Value {
    let lookups = totals.hits + totals.misses;
    let percent = if lookups == 0 {
        0.0
    } else {
        totals.hits as f64 * 100.0 / lookups as f64
    };
    json!({"hits": totals.hits, "misses": totals.misses, "hit_rate_percent": (percent * 100.0).round() / 100.0})
}

/// The answer, which no cache may store.
pub(super) fn not_stored(mut answer: HttpResponse) -> HttpResponse {
    answer
        .headers_mut()
        .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}
